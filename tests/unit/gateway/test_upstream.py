"""Which URLs and addresses the gateway takes for an upstream."""

import socket
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.errors import InvalidInput
from craftastic.gateway._upstream import (
    PinnedBackend,
    ResolverUnavailable,
    SystemResolver,
    UpstreamPolicy,
    UpstreamRefused,
    UpstreamRules,
    UpstreamUnresolved,
    parse_upstream,
)
from craftastic.gateway.app import upstream_check
from craftastic.settings import Settings

PUBLIC = "93.184.216.34"


class Answers:
    """A resolver that gives one answer after the other, and the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


ALLOWED = {
    "https://github.com/owner/name": "https://github.com/owner/name",
    "https://github.com/owner/name.git": "https://github.com/owner/name.git",
    "https://github.com/owner/name/": "https://github.com/owner/name",
    "HTTPS://GitHub.COM/Owner/Name": "https://github.com/Owner/Name",
    "https://github.com:443/owner/name": "https://github.com/owner/name",
    "https://git.sr.ht/~user/name": "https://git.sr.ht/~user/name",
    "https://gitlab.com/group/sub.group/name": "https://gitlab.com/group/sub.group/name",
    "https://dev.azure.com/org/my%20project/_git/name": (
        "https://dev.azure.com/org/my%20project/_git/name"
    ),
    "https://xn--bcher-kva.example/name": "https://xn--bcher-kva.example/name",
    "https://93.184.216.34/name": "https://93.184.216.34/name",
    "https://[2606:2800:220:1::1]/name": "https://[2606:2800:220:1::1]/name",
    "https://[2606:2800:0220:0001:0:0:0:1]/name": "https://[2606:2800:220:1::1]/name",
}

REFUSED = [
    # other schemes, and what is no URL
    "",
    "github.com/owner/name",
    "//github.com/owner/name",
    "/srv/git/name.git",
    "../name",
    "http://github.com/owner/name",
    "ssh://git@github.com/owner/name",
    "git@github.com:owner/name",
    "git://github.com/owner/name",
    "file:///srv/git/name.git",
    "ftp://github.com/owner/name",
    "ext::sh -c id",
    "fd::17",
    "https:github.com/owner/name",
    "https:/github.com/owner/name",
    "https:///owner/name",
    "javascript://github.com/owner/name",
    "--upload-pack=id",
    "-uid",
    # user information
    "https://user@github.com/owner/name",
    "https://user:password@github.com/owner/name",
    "https://:@github.com/owner/name",
    "https://github.com@127.0.0.1/name",
    "https://github.com%40127.0.0.1/name",
    # characters
    "https://github.com/owner/name\r\nX: y",
    "https://github.com/owner/na\nme",
    "https://github.com/owner/na\0me",
    "https://github.com/owner/na me",
    "https://github.com/owner/na\tme",
    "https://github.com\\@127.0.0.1/name",
    "https://github.com/owner\\name",
    "https://bücher.example/name",
    "https://github.com/owner/nämé",
    "https://\uff11\uff12\uff17.0.0.1/name",
    "https://127\u30020\u30020\u30021/name",
    " https://github.com/owner/name",
    "https://github.com/owner/%0d%0aname",
    "https://github.com/owner/%00",
    "https://github.com/owner/%zz",
    "https://github.com/owner/<name>",
    # parts of the path
    "https://github.com",
    "https://github.com/",
    "https://github.com//name",
    "https://github.com/owner//name",
    "https://github.com/owner/../name",
    "https://github.com/owner/./name",
    "https://github.com/owner/%2e%2e/name",
    "https://github.com/owner/.%2E/name",
    "https://github.com/owner%2Fname/x",
    "https://github.com/owner%5cname/x",
    "https://github.com/-owner/name",
    "https://github.com/owner/--upload-pack=id",
    "https://github.com/owner/%2d-name",
    "https://github.com/owner/name?service=x",
    "https://github.com/owner/name?",
    "https://github.com/owner/name#x",
    # hosts and ports
    "https://-github.com/owner/name",
    "https://github-.com/owner/name",
    "https://github.com./owner/name",
    "https://.github.com/owner/name",
    "https://git..hub.com/owner/name",
    "https://git%68ub.com/owner/name",
    f"https://{'a' * 64}.com/owner/name",
    f"https://{'a.' * 130}com/owner/name",
    "https://[::1/name",
    "https://::1/name",
    "https://[github.com]/name",
    "https://github.com:/owner/name",
    "https://github.com:0/owner/name",
    "https://github.com:0443/owner/name",
    "https://github.com:+443/owner/name",
    "https://github.com:443:443/owner/name",
    "https://github.com:65536/owner/name",
    "https://github.com:22/owner/name",
    "https://github.com:80/owner/name",
    "https://github.com:8443/owner/name",
    "https://github.com:3306/owner/name",
    f"https://github.com/{'a' * 2048}",
    # forms of IPv4 addresses
    "https://127.0.0.1/name",
    "https://127.0.0.1./name",
    "https://127.1/name",
    "https://127.0.1/name",
    "https://2130706433/name",
    "https://0x7f000001/name",
    "https://0x7f.0.0.1/name",
    "https://0x7f.1/name",
    "https://017700000001/name",
    "https://0177.0.0.1/name",
    "https://127.0.0.01/name",
    "https://127.000.000.001/name",
    "https://93.184.216.034/name",
    "https://1.2.3.4.5/name",
    "https://256.1.1.1/name",
    "https://1.2.3.0x/name",
    "https://0/name",
    "https://0.0.0.0/name",
    "https://10.0.0.1/name",
    "https://100.64.0.1/name",
    "https://169.254.169.254/name",
    "https://172.16.0.1/name",
    "https://172.31.255.255/name",
    "https://192.168.1.1/name",
    "https://192.0.0.1/name",
    "https://192.0.2.1/name",
    "https://198.18.0.1/name",
    "https://198.51.100.1/name",
    "https://203.0.113.1/name",
    "https://224.0.0.1/name",
    "https://240.0.0.1/name",
    "https://255.255.255.255/name",
    # forms of IPv6 addresses
    "https://[::]/name",
    "https://[::1]/name",
    "https://[0:0:0:0:0:0:0:1]/name",
    "https://[::127.0.0.1]/name",
    "https://[::ffff:127.0.0.1]/name",
    "https://[::ffff:7f00:1]/name",
    "https://[::ffff:93.184.216.34]/name",
    "https://[::ffff:0:127.0.0.1]/name",
    "https://[64:ff9b::7f00:1]/name",
    "https://[64:ff9b::93.184.216.34]/name",
    "https://[64:ff9b:1::1]/name",
    "https://[2002:7f00:1::]/name",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/name",
    "https://[2001:db8::1]/name",
    "https://[3fff::1]/name",
    "https://[100::1]/name",
    "https://[fc00::1]/name",
    "https://[fd12:3456::1]/name",
    "https://[fe80::1]/name",
    "https://[fe80::1%25eth0]/name",
    "https://[fe80::1%eth0]/name",
    "https://[fec0::1]/name",
    "https://[ff02::1]/name",
    "https://[5f00::1]/name",
]

ADDRESSES_REFUSED = [
    "127.0.0.1",
    "10.1.2.3",
    "172.20.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.100.100.100",
    "198.19.0.1",
    "0.0.0.0",
    "224.0.0.251",
    "255.255.255.255",
    "::1",
    "::",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::",
    "2001::1",
    "fd00::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "nonsense",
]


def test_tables_have_as_many_rows_as_they_should() -> None:
    assert len(REFUSED) == len(set(REFUSED))
    assert len(ALLOWED) + len(REFUSED) >= 120


@pytest.mark.parametrize(("url", "canonical"), ALLOWED.items())
def test_url_is_allowed(url: str, canonical: str) -> None:
    assert str(parse_upstream(url)) == canonical


@pytest.mark.parametrize("url", REFUSED)
def test_url_is_refused(url: str) -> None:
    with pytest.raises(UpstreamRefused) as refused:
        parse_upstream(url)

    assert refused.value.message
    assert isinstance(refused.value, InvalidInput)


@pytest.mark.parametrize(
    ("url", "http", "private", "allowed"),
    [
        ("http://github.com/o/n", True, False, True),
        ("http://github.com:80/o/n", True, False, True),
        ("http://github.com/o/n", False, True, False),
        ("http://github.com:8080/o/n", True, False, False),
        ("http://github.com:443/o/n", True, False, False),
        ("https://github.com:80/o/n", True, False, False),
        ("https://github.com:8443/o/n", False, True, True),
        ("https://10.0.0.1/o/n", False, True, True),
        ("https://127.0.0.1:3000/o/n", False, True, True),
        ("https://169.254.1.1/o/n", False, True, True),
        ("https://[::1]:3000/o/n", False, True, True),
        ("https://[fd00::1]/o/n", False, True, True),
        ("http://127.0.0.1/o/n", True, True, True),
        ("http://127.0.0.1/o/n", True, False, False),
        ("https://gitea/o/n", False, False, True),
        ("https://127.1/o/n", True, True, False),
        ("https://0.0.0.0/o/n", True, True, False),
        ("https://224.0.0.1/o/n", True, True, False),
        ("https://[::ffff:127.0.0.1]/o/n", True, True, False),
        ("https://[2002:7f00:1::]/o/n", True, True, False),
        ("https://[fe80::1%eth0]/o/n", True, True, False),
        ("https://[64:ff9b::5db8:d822]/o/n", False, True, True),
        ("https://[64:ff9b::e000:1]/o/n", False, True, False),
        ("https://user@10.0.0.1/o/n", True, True, False),
    ],
)
def test_operators_settings_widen_the_rules_as_documented(
    url: str, http: bool, private: bool, allowed: bool
) -> None:
    try:
        parse_upstream(url, allow_http=http, allow_private=private)
    except UpstreamRefused:
        assert not allowed
    else:
        assert allowed


@pytest.mark.parametrize("address", ADDRESSES_REFUSED)
async def test_name_with_one_bad_address_among_good_ones_is_refused(address: str) -> None:
    policy = UpstreamPolicy(UpstreamRules(), Answers([PUBLIC, address]))

    with pytest.raises(UpstreamRefused):
        await policy.check("https://git.example.com/o/n")


async def test_name_with_public_addresses_only_is_allowed() -> None:
    policy = UpstreamPolicy(UpstreamRules(), Answers([PUBLIC, "2606:2800:220:1::1"]))

    await policy.check("https://git.example.com/o/n")

    assert await policy.addresses("git.example.com", 443) == [PUBLIC, "2606:2800:220:1::1"]


async def test_address_in_a_url_is_not_looked_up() -> None:
    resolver = Answers([PUBLIC])

    await UpstreamPolicy(UpstreamRules(), resolver).check(f"https://{PUBLIC}/o/n")

    assert resolver.asked == []


async def test_name_without_addresses_is_refused() -> None:
    with pytest.raises(UpstreamUnresolved):
        await UpstreamPolicy(UpstreamRules(), Answers([])).check("https://git.example.com/o/n")


async def test_localhost_is_refused_by_its_address() -> None:
    with pytest.raises(UpstreamRefused):
        await upstream_check(Settings.model_validate({}))("https://localhost/o/n")


@pytest.mark.parametrize(
    ("number", "expected"),
    [(socket.EAI_NONAME, UpstreamUnresolved), (socket.EAI_AGAIN, ResolverUnavailable)],
)
async def test_failures_of_name_resolution_are_told_apart(
    number: int, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "no")

    monkeypatch.setattr("anyio.getaddrinfo", failing)

    with pytest.raises(expected):
        await SystemResolver().resolve("git.example.com", 443)


async def test_rebinding_resolver_never_gets_a_second_question_for_one_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        resolver = Answers([PUBLIC], ["127.0.0.1"])
        policy = UpstreamPolicy(UpstreamRules(), resolver)
        await policy.check("https://git.example.com/o/n")

        with pytest.raises(UpstreamRefused):
            await PinnedBackend(policy).connect_tcp(
                "git.example.com", canary.getsockname()[1], timeout=1
            )

        assert len(resolver.asked) == 2
        with pytest.raises(BlockingIOError):
            canary.accept()


@given(st.text())
def test_any_text_is_an_upstream_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.com/{text}"):
        try:
            upstream = parse_upstream(url)
        except UpstreamRefused:
            continue
        assert parse_upstream(str(upstream)) == upstream
