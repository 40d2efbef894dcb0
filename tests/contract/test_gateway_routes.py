"""The gateway serves three routes, to sandboxes with a token of their own."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from craftastic.errors import Unavailable
from craftastic.settings import Settings
from tests.fakes.gateway import FakeEnvironment, Sandboxes, ServedGateway, gateway_of, served
from tests.fakes.toy_upstream import ADVERTISEMENT, GOOD, UPLOAD_PACK, answering, ask, refs_of, toy

SETTINGS = Settings.model_validate({"git_allow_http": True, "git_allow_private": True})


@pytest.fixture
def sandboxes() -> Sandboxes:
    return Sandboxes()


@pytest.fixture
async def gateway(sandboxes: Sandboxes) -> AsyncIterator[ServedGateway]:
    async with served(gateway_of(SETTINGS, sandboxes)) as gateway:
        yield gateway


NOT_SERVED = [
    ("GET", "/"),
    ("GET", "/git"),
    ("GET", "/healthz"),
    ("GET", "/api/environments"),
    ("GET", "/git/{id}.git"),
    ("GET", "/git/{id}.git/"),
    ("GET", "/git/{id}/info/refs?service=git-upload-pack"),
    ("GET", "/git/{ID}.git/info/refs?service=git-upload-pack"),
    ("GET", "/git/{hex}.git/info/refs?service=git-upload-pack"),
    ("GET", "//git/{id}.git/info/refs?service=git-upload-pack"),
    ("GET", "/git//{id}.git/info/refs?service=git-upload-pack"),
    ("GET", "/git/{id}.git//info/refs?service=git-upload-pack"),
    ("GET", "/git/{id}.git/info//refs?service=git-upload-pack"),
    ("GET", "/git/{id}.git/info/refs/?service=git-upload-pack"),
    ("GET", "/git/{id}.git/info%2frefs?service=git-upload-pack"),
    ("GET", "/git%2f{id}.git/info/refs?service=git-upload-pack"),
    ("GET", "/git/{id}%2egit/info/refs?service=git-upload-pack"),
    ("GET", "/git/./{id}.git/info/refs?service=git-upload-pack"),
    ("GET", "/git/{other}.git/../{id}.git/info/refs?service=git-upload-pack"),
    ("GET", "/git/{other}.git/%2e%2e/{id}.git/info/refs?service=git-upload-pack"),
    ("GET", "/git/{id}.git/../{other}.git/info/refs?service=git-upload-pack"),
    ("GET", "/git/{id}.git/info/refs;x?service=git-upload-pack"),
    # dumb HTTP
    ("GET", "/git/{id}.git/info/refs"),
    ("GET", "/git/{id}.git/info/refs?"),
    ("GET", "/git/{id}.git/HEAD"),
    ("GET", "/git/{id}.git/objects/info/packs"),
    ("GET", "/git/{id}.git/objects/00/" + "0" * 38),
    ("GET", "/git/{id}.git/objects/pack/pack-x.pack"),
    ("GET", "/git/{id}.git/config"),
    # queries
    ("GET", "/git/{id}.git/info/refs?service=git-upload-archive"),
    ("GET", "/git/{id}.git/info/refs?service=git-upload-pack&x=y"),
    ("GET", "/git/{id}.git/info/refs?x=y&service=git-upload-pack"),
    ("GET", "/git/{id}.git/info/refs?service=git-upload-pack&service=git-receive-pack"),
    ("GET", "/git/{id}.git/info/refs?service=git%2dupload-pack"),
    ("GET", "/git/{id}.git/info/refs?service=git-upload-pack%26x"),
    ("GET", "/git/{id}.git/info/refs?Service=git-upload-pack"),
    ("GET", "/git/{id}.git/info/refs?url=http://127.0.0.1/"),
    ("POST", "/git/{id}.git/git-upload-pack?x=y"),
    ("POST", "/git/{id}.git/git-upload-pack?service=git-upload-pack"),
    # methods
    ("POST", "/git/{id}.git/info/refs?service=git-upload-pack"),
    ("HEAD", "/git/{id}.git/info/refs?service=git-upload-pack"),
    ("PUT", "/git/{id}.git/info/refs?service=git-upload-pack"),
    ("OPTIONS", "/git/{id}.git/info/refs?service=git-upload-pack"),
    ("PROPFIND", "/git/{id}.git/info/refs?service=git-upload-pack"),
    ("GET", "/git/{id}.git/git-upload-pack"),
    ("DELETE", "/git/{id}.git/git-receive-pack"),
    ("POST", "/git/{id}.git/git-upload-archive"),
]


def filled(target: str, environment: FakeEnvironment, other: FakeEnvironment) -> str:
    return target.format(
        id=environment.id, ID=str(environment.id).upper(), hex=environment.id.hex, other=other.id
    )


async def test_nothing_but_the_three_routes_is_served_and_no_upstream_is_asked(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    async with toy(answering(GOOD)) as upstream:
        environment, other = sandboxes.add(upstream.url), sandboxes.add(upstream.url)

        statuses = {
            (method, target): (
                await ask(gateway, filled(target, environment, other), method=method)
            ).status
            for method, target in NOT_SERVED
        }

    assert {row: status for row, status in statuses.items() if status not in {403, 404}} == {}
    assert upstream.heads == []


async def test_right_route_is_served(gateway: ServedGateway, sandboxes: Sandboxes) -> None:
    async with toy(answering(GOOD)) as upstream:
        environment = sandboxes.add(upstream.url)

        answer = await ask(gateway, refs_of(environment))

    assert (answer.status, answer.body) == (200, b"0000")
    assert upstream.heads[0].startswith("GET /o/n/info/refs?service=git-upload-pack HTTP/1.1\r\n")


AUTHORIZATIONS = {
    None: 401,
    "Bearer": 401,
    "Bearer ": 401,
    "Digest a-sandbox-token": 401,
    "Basic !!!": 401,
    "Basic eDo=": 401,
    "Bearer a b": 401,
    "Bearer " + "x" * 513: 401,
    "Bearer wrong": 403,
    "Bearer another-token": 403,
    "Bearer a-sandbox-toke": 403,
    "Bearer a-sandbox-token-": 403,
}


async def test_callers_without_the_environments_own_token_get_nothing(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    async with toy(answering(GOOD)) as upstream:
        environment = sandboxes.add(upstream.url)
        sandboxes.add(upstream.url, "another-token")

        statuses = {
            value: (
                await ask(
                    gateway,
                    refs_of(environment),
                    token=None,
                    headers=f"Authorization: {value}\r\n" if value else "",
                )
            ).status
            for value in AUTHORIZATIONS
        }

    assert statuses == AUTHORIZATIONS
    assert upstream.heads == []


async def test_absent_environment_is_answered_as_a_foreign_one(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    foreign = sandboxes.add("https://example.com/o/n", "another-token")

    one = await ask(gateway, refs_of(foreign))
    two = await ask(gateway, refs_of(FakeEnvironment("https://example.com/o/n", id=uuid4())))

    assert (one.status, one.body) == (two.status, two.body) == (403, one.body)


async def test_database_that_is_down_is_503_and_says_so() -> None:
    class Down:
        async def by_gateway_token(
            self, environment_id: UUID, token: str
        ) -> FakeEnvironment | None:
            raise Unavailable("The database does not answer; try again.")

    async with served(gateway_of(SETTINGS, Down())) as gateway:
        answer = await ask(gateway, refs_of(FakeEnvironment("https://example.com/o/n")))

    assert answer.status == 503
    assert b"try again" in answer.body


async def test_environment_without_a_repository_is_404(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    assert (await ask(gateway, refs_of(sandboxes.add(None)))).status == 404


async def test_http_1_0_is_refused_since_a_cut_answer_would_look_whole(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    environment = sandboxes.add("https://example.com/o/n")

    assert (await ask(gateway, refs_of(environment), version="1.0")).status == 403


@pytest.mark.parametrize(
    "headers", ["", "Content-Type: text/plain\r\n", UPLOAD_PACK[:-2] + "x\r\n"]
)
async def test_post_that_is_not_gits_is_refused(
    gateway: ServedGateway, sandboxes: Sandboxes, headers: str
) -> None:
    environment = sandboxes.add("https://example.com/o/n")

    answer = await ask(
        gateway, f"/git/{environment.id}.git/git-upload-pack", method="POST", headers=headers
    )

    assert answer.status == 403


async def test_only_listed_headers_pass_in_either_direction(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    extra = b"Set-Cookie: a=b\r\nX-Secret: c\r\nServer: d\r\nCache-Control: no-cache\r\n"
    async with toy(answering(ADVERTISEMENT + extra + b"Content-Length: 4\r\n\r\n0000")) as upstream:
        environment = sandboxes.add(upstream.url)
        sent = (
            "Cookie: a=b\r\nX-Forwarded-For: 1.2.3.4\r\nProxy-Authorization: x\r\n"
            "Git-Protocol: version=2\r\nUser-Agent: git/9.9\r\nAccept-Encoding: gzip\r\n"
        )

        answer = await ask(gateway, refs_of(environment), headers=sent)

    names = {line.split(":")[0].lower() for line in upstream.heads[0].splitlines()[1:] if line}
    assert names == {"host", "user-agent", "accept", "accept-encoding", "git-protocol"}
    assert "git-protocol: version=2" in upstream.heads[0].lower()
    assert "user-agent: git/9.9" in upstream.heads[0].lower()
    assert "cache-control: no-cache" in answer.headers
    assert not {"set-cookie", "x-secret", "server"} & {
        line.split(":")[0] for line in answer.headers.splitlines()
    }
