"""The client for addresses that users choose: what it connects to, and what it keeps to itself."""

import socket
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from craftastic.gateway._upstream import (
    ResolverUnavailable,
    UpstreamRefused,
    UpstreamUnresolved,
)
from craftastic.gateway.pinned_http import pinned_client
from craftastic.settings import Settings
from tests.fakes.git_http_server import GitHttpServer
from tests.fakes.proxies import make_certificate
from tests.fakes.toy_upstream import Connection, Toy, answering, toy

STRICT = Settings.model_validate({})
LOOSE = Settings.model_validate({"git_allow_http": True, "git_allow_private": True})
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b; Path=/\r\n\r\nok"


class Names:
    """Answers what it is given, in turn; the last one again and again.

    Args:
        answers: Addresses, or an error to raise.
    """

    def __init__(self, *answers: Sequence[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def client(
    names: Names | None = None, *, settings: Settings = STRICT, open_to: Sequence[str] = ()
) -> AsyncGenerator[httpx.AsyncClient]:
    async with pinned_client(
        settings,
        open_to=open_to,
        resolver=names or Names(["127.0.0.1"]),
        tls=ssl.create_default_context(),
    ) as made:
        yield made


def origin(upstream: Toy, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{upstream.port}"


async def test_allowed_address_is_asked_with_the_hosts_own_name() -> None:
    names = Names(["127.0.0.1"])
    async with toy(answering(OK)) as upstream, client(names, settings=LOOSE) as http:
        answer = await http.get(f"{origin(upstream, 'coolify.example.com')}/a%2Fb?c=d%20e")

        (head,) = upstream.heads

    assert (answer.status_code, answer.content) == (200, b"ok")
    assert head.startswith("GET /a%2Fb?c=d%20e HTTP/1.1\r\n")
    assert f"host: coolify.example.com:{upstream.port}\r\n" in head.lower()
    assert names.asked == [("coolify.example.com", upstream.port)]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["172.16.0.1"],
        ["192.168.1.1"],
        ["100.64.0.1"],
        ["169.254.169.254"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["fd00::1"],
        ["fe80::1"],
        ["2606:2800:220:1::1", "127.0.0.1"],
    ],
)
async def test_name_with_one_address_that_is_not_public_is_refused(
    addresses: Sequence[str],
) -> None:
    async with client(Names(addresses)) as http:
        with pytest.raises(UpstreamRefused, match="not at a public address"):
            await http.get("https://rebind.example/")


async def test_each_connection_has_one_lookup_and_goes_to_what_was_checked() -> None:
    names = Names(["127.0.0.1"], ["0.0.0.0"])
    async with toy(answering(OK)) as upstream, client(names, settings=LOOSE) as http:
        first = await http.get(origin(upstream, "rebind.example"))
        asked_for_first = len(names.asked)
        await upstream.closed.wait()
        with pytest.raises(UpstreamRefused):
            await http.get(origin(upstream, "rebind.example"))

    assert (first.status_code, asked_for_first) == (200, 1)
    assert names.asked == [("rebind.example", upstream.port)] * 2
    assert len(upstream.heads) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://coolify.example.com/",
        "https://coolify.example.com:8443/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://017700000001/",
        "https://127.1/",
    ],
)
async def test_address_outside_the_rules_is_refused_before_any_lookup(url: str) -> None:
    names = Names(["93.184.216.34"])
    async with client(names) as http:
        with pytest.raises(UpstreamRefused) as refused:
            await http.get(url)

    assert names.asked == []
    assert "repository" not in refused.value.message


async def test_open_origin_is_let_through_and_no_other() -> None:
    async with toy(answering(OK)) as upstream, toy(answering(OK)) as other:
        async with client(open_to=[origin(upstream)]) as http:
            answer = await http.get(f"{origin(upstream)}/x")
            for url in (
                origin(other),
                origin(upstream).replace("http:", "https:"),
                origin(upstream, "localhost"),
                origin(upstream, "127.0.0.2"),
            ):
                with pytest.raises(UpstreamRefused):
                    await http.get(url)

        assert answer.status_code == 200
        assert other.heads == []


async def test_open_origin_may_be_named_in_capitals_and_without_its_port() -> None:
    names = Names(OSError("far enough"))
    async with client(names, open_to=["http://coolify.internal"]) as http:
        with pytest.raises(OSError, match="far enough"):
            await http.get("http://COOLIFY.internal:80/")

    assert names.asked == [("coolify.internal", 80)]


async def test_never_allowed_address_is_not_opened_by_an_origin() -> None:
    async with client(Names(["0.0.0.0"]), open_to=["http://coolify.internal"]) as http:
        with pytest.raises(UpstreamRefused):
            await http.get("http://coolify.internal/")


async def test_redirect_is_an_answer_like_any_other() -> None:
    async with toy(answering(OK)) as other:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {origin(other)}\r\nContent-Length: 0\r\n\r\n"
        async with toy(answering(moved.encode())) as upstream, client(settings=LOOSE) as http:
            answer = await http.get(origin(upstream))

        assert answer.status_code == 302
        assert other.heads == []


async def test_no_cookie_is_kept_and_nothing_comes_from_the_surroundings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with toy(answering(OK)) as upstream, client(settings=LOOSE) as http:
        await http.get(origin(upstream))
        await http.get(origin(upstream))

        heads = [head.lower() for head in upstream.heads]

    assert len(heads) == 2
    assert not any("cookie:" in head for head in heads)
    assert not http.cookies


async def test_name_that_nobody_has_is_a_failed_connection() -> None:
    async with client(Names(UpstreamUnresolved("No host is called x."))) as http:
        with pytest.raises(httpx.ConnectError, match="No host is called x"):
            await http.get("https://gone.example/")


async def test_lookup_that_fails_for_now_says_so() -> None:
    async with client(Names(ResolverUnavailable("later"))) as http:
        with pytest.raises(ResolverUnavailable):
            await http.get("https://slow.example/")


async def test_port_where_nobody_listens_is_a_failed_connection() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        async with client(settings=LOOSE) as http:
            with pytest.raises(httpx.ConnectError):
                await http.get(f"http://127.0.0.1:{held.getsockname()[1]}/")


async def test_connection_that_breaks_is_told_in_words_of_httpx() -> None:
    async def cut(upstream: Toy, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

    async with toy(cut) as upstream, client(settings=LOOSE) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(origin(upstream))


async def test_silence_is_told_in_words_of_httpx() -> None:
    async def silent(upstream: Toy, connection: Connection) -> None:
        await anyio.sleep_forever()

    async with toy(silent) as upstream, client(settings=LOOSE) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get(origin(upstream), timeout=0.3)


async def test_certificate_is_checked(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.key)
    with GitHttpServer(tmp_path, tls=context) as https:
        async with client(settings=LOOSE) as http:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await http.get(https.url("x"))

        assert https.requests == []
