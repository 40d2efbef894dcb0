"""Where an upstream may send the gateway, and where no name and no redirect leads it."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path

import anyio
import httpcore
import pytest

from craftastic.gateway._pkt_line import FLUSH
from craftastic.gateway._upstream import PinnedBackend, UpstreamPolicy
from craftastic.pushes.service import GatewayEnvironment
from craftastic.settings import Settings
from tests.fakes.gateway import Sandboxes, ServedGateway, Strangers, gateway_of, origin, served
from tests.fakes.git_http_server import GitHttpServer, make_repository, run_git
from tests.fakes.toy_upstream import (
    GOOD,
    RESULT,
    UPLOAD_PACK,
    Canary,
    Connection,
    Toy,
    answering,
    ask,
    refs_of,
    toy,
)

SETTINGS = Settings.model_validate({"git_allow_http": True, "git_allow_private": True})


@pytest.fixture
def sandboxes() -> Sandboxes:
    return Sandboxes()


@pytest.fixture
async def gateway(sandboxes: Sandboxes) -> AsyncIterator[ServedGateway]:
    async with served(gateway_of(SETTINGS, sandboxes)) as gateway:
        yield gateway


def redirect(location: str, status: int = 301) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.fixture
def canary() -> Iterator[Canary]:
    canary = Canary()
    yield canary
    canary.socket.close()


class Names:
    """Resolves names as a table says; each lookup takes the next answer, the last for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): rows for name, rows in answers.items()}

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        rows = self.answers[host]
        return rows.pop(0) if len(rows) > 1 else rows[0]


async def test_redirect_of_info_refs_is_followed_and_the_posts_go_there_too(
    gateway: ServedGateway, sandboxes: Sandboxes, tmp_path: Path
) -> None:
    make_repository(tmp_path / "moved.git")
    with GitHttpServer(tmp_path) as real:

        async def behave(upstream: Toy, connection: Connection) -> None:
            service = connection.path.partition("?")[2]
            await connection.send(redirect(real.url(f"moved.git/info/refs?{service}")))

        async with toy(behave) as upstream:
            environment = sandboxes.add(upstream.url)

            done = await anyio.to_thread.run_sync(
                lambda: run_git(
                    *origin(environment), "clone", gateway.url(environment), str(tmp_path / "c")
                )
            )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "c" / "README").exists()


class Secret(Strangers):
    """Has a credential for whatever is asked for."""

    async def authorization(
        self, environment: GatewayEnvironment, scheme: str, host: str, port: int
    ) -> str | None:
        return "Basic c2VjcmV0"


async def test_credential_does_not_follow_a_redirect_to_another_port(
    sandboxes: Sandboxes,
) -> None:
    good = answering(GOOD)
    async with toy(good) as second:
        target = f"{second.url}/info/refs?service=git-upload-pack"
        async with (
            toy(answering(redirect(target))) as first,
            served(gateway_of(SETTINGS, sandboxes, credentials=Secret())) as gateway,
        ):
            answer = await ask(gateway, refs_of(sandboxes.add(first.url)))

    assert answer.status == 200
    assert "c2VjcmV0" in first.heads[0]
    assert "c2VjcmV0" not in second.heads[0]


async def test_redirect_that_another_host_sends_back_gets_no_credential_nor_do_the_posts(
    sandboxes: Sandboxes,
) -> None:
    """The other host would have chosen the path at which the credential is shown."""
    query = "info/refs?service=git-upload-pack"
    addresses: dict[str, str] = {}

    async def home(upstream: Toy, connection: Connection) -> None:
        if connection.path == f"/o/n/{query}":
            await connection.send(redirect(addresses["away"]))
        elif connection.path == f"/chosen/{query}":
            await connection.send(GOOD)
        else:
            await connection.send(RESULT + b"Content-Length: 4\r\n\r\n0000")

    async def away(upstream: Toy, connection: Connection) -> None:
        await connection.send(redirect(addresses["home"]))

    async with (
        toy(home) as first,
        toy(away) as second,
        served(gateway_of(SETTINGS, sandboxes, credentials=Secret())) as gateway,
    ):
        addresses["away"] = f"http://127.0.0.1:{second.port}/x/{query}"
        addresses["home"] = f"http://127.0.0.1:{first.port}/chosen/{query}"
        environment = sandboxes.add(first.url)
        listed = await ask(gateway, refs_of(environment))
        posted = await ask(
            gateway,
            f"/git/{environment.id}.git/git-upload-pack",
            method="POST",
            headers=UPLOAD_PACK,
            body=FLUSH,
        )

    assert (listed.status, posted.status) == (200, 200)
    sent = {head.split()[1]: "c2VjcmV0" in head for head in first.heads}
    assert sent == {
        f"/o/n/{query}": True,
        f"/chosen/{query}": False,
        "/chosen/git-upload-pack": False,
    }
    assert "c2VjcmV0" not in second.heads[0]


async def test_credential_follows_a_redirect_that_stays_at_the_origin(
    sandboxes: Sandboxes,
) -> None:
    query = "info/refs?service=git-upload-pack"

    async def home(upstream: Toy, connection: Connection) -> None:
        moved = redirect(f"/renamed/{query}")
        await connection.send(moved if connection.path.startswith("/o/") else GOOD)

    async with (
        toy(home) as first,
        served(gateway_of(SETTINGS, sandboxes, credentials=Secret())) as gateway,
    ):
        await ask(gateway, refs_of(sandboxes.add(first.url)))

    assert ["c2VjcmV0" in head for head in first.heads] == [True, True]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/o/n/info/refs?service=git-upload-pack",
        "http://localhost:{port}/o/n/info/refs?service=git-upload-pack",
        "http://[::ffff:127.0.0.1]:{port}/o/n/info/refs?service=git-upload-pack",
        "http://2130706433:{port}/o/n/info/refs?service=git-upload-pack",
        "http://internal.example:{port}/o/n/info/refs?service=git-upload-pack",
        "http://internal.example/o/n/info/refs?service=git-upload-pack",
        "http://user:pw@git.example/o/n/info/refs?service=git-upload-pack",
        "file:///o/n/info/refs?service=git-upload-pack",
        "ftp://git.example/o/n/info/refs?service=git-upload-pack",
        "//127.0.0.1:{port}/o/n/info/refs?service=git-upload-pack",
        "http://git.example/o/n/info/refs?service=git-receive-pack",
        "http://git.example/latest/meta-data/",
        "http://git.example/o/n/info/refs",
        "/o/../../n/info/refs?service=git-upload-pack#x",
        "http://git.example/o/n/info/refs?service=git-upload-pack\x01",
        "",
    ],
)
async def test_redirect_outside_the_rules_is_refused_and_the_canary_hears_nothing(
    sandboxes: Sandboxes, canary: Canary, location: str
) -> None:
    names = Names(git_example=[["93.184.216.34"]], internal_example=[["127.0.0.1"]])
    names.answers["localhost"] = [["127.0.0.1"]]
    strict = SETTINGS.model_copy(update={"git_allow_private": False})

    async with toy(answering(redirect(location.format(port=canary.port)))) as upstream:
        built = gateway_of(strict, sandboxes, resolver=names)
        # The toy has to be on loopback: only the first connection of this test may go there.
        backend = OneWayIn(built.git.policy, upstream.port)
        built.git.pool._network_backend = backend  # pyright: ignore[reportAttributeAccessIssue]
        async with served(built) as gateway:
            answer = await ask(gateway, refs_of(sandboxes.add("http://git.example/o/n")))

    assert answer.status in {403, 502}
    assert canary.connections() == 0
    assert len(upstream.heads) == 1


class OneWayIn(PinnedBackend):
    """The product's backend, but the first connection goes to the toy upstream.

    One that would be made after it to a public address fails the test: nothing leaves here.
    """

    def __init__(self, policy: UpstreamPolicy, port: int) -> None:
        super().__init__(policy)
        self.port: int | None = port

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if self.port is None:
            raise AssertionError(await self._policy.addresses(host, port))
        toy_port, self.port = self.port, None
        return await self._network.connect_tcp("127.0.0.1", toy_port, timeout)


async def test_redirects_do_not_go_on_for_ever(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    location = "/o/n/info/refs?service=git-upload-pack"
    async with toy(answering(redirect(location))) as upstream:
        answer = await ask(gateway, refs_of(sandboxes.add(upstream.url)))

    assert answer.status == 502
    assert len(upstream.heads) == 4


async def test_post_is_not_redirected(gateway: ServedGateway, sandboxes: Sandboxes) -> None:
    async with toy(answering(redirect("http://127.0.0.1:1/x"))) as upstream:
        environment = sandboxes.add(upstream.url)

        answer = await ask(
            gateway,
            f"/git/{environment.id}.git/git-upload-pack",
            method="POST",
            headers=UPLOAD_PACK,
            body=FLUSH,
        )

    assert answer.status == 502


async def test_connection_goes_to_the_address_that_was_checked_under_the_hosts_name(
    sandboxes: Sandboxes,
) -> None:
    names = Names(git_example=[["127.0.0.1"], ["192.0.2.1"]])

    async with (
        toy(answering(GOOD)) as upstream,
        served(gateway_of(SETTINGS, sandboxes, resolver=names)) as gateway,
    ):
        environment = sandboxes.add(f"http://git.example:{upstream.port}/o/n")
        answer = await ask(gateway, refs_of(environment))

    assert answer.status == 200
    assert f"host: git.example:{upstream.port}\r\n" in upstream.heads[0].lower()


async def test_rebinding_name_never_leads_to_the_canary(
    sandboxes: Sandboxes, canary: Canary
) -> None:
    names = Names(git_example=[["93.184.216.34", "127.0.0.1"], ["127.0.0.1"]])
    strict = SETTINGS.model_copy(update={"git_allow_private": False})

    async with served(gateway_of(strict, sandboxes, resolver=names)) as gateway:
        environment = sandboxes.add("http://git.example/o/n")
        answers = [await ask(gateway, refs_of(environment)) for _ in range(4)]

    assert {answer.status for answer in answers} == {403}
    assert canary.connections() == 0


async def test_url_of_the_row_is_checked_again_at_each_request(
    sandboxes: Sandboxes, canary: Canary
) -> None:
    strict = SETTINGS.model_copy(update={"git_allow_private": False})

    async with served(gateway_of(strict, sandboxes)) as gateway:
        environment = sandboxes.add(f"http://127.0.0.1:{canary.port}/o/n")
        answer = await ask(gateway, refs_of(environment))

    assert answer.status == 403
    assert canary.connections() == 0
