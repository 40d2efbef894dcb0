"""F16 and F43: an upstream refuses, fails, is away or says nothing; nobody else is affected."""

import base64
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
import pytest

from tests.e2e.harness import Api, Server, Viewer, until
from tests.fakes.git_http_server import GitHttpServer, git, make_repository
from tests.fakes.proxies import Certificate, make_certificate
from tests.fakes.toy_coolify import ToyCoolify
from tests.fakes.toy_github import ToyGitHub
from tests.faults._figures import note, percentile
from tests.faults._invariants import hold
from tests.faults._load import load
from tests.secrecy import canary

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    # Nothing here depends on the runtime or on the database.
    pytest.mark.parametrize(
        "runtime", [pytest.param("local", marks=pytest.mark.local)], indirect=True
    ),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]


# ---- F16 ----------------------------------------------------------------------------------------

REFS = "service=git-receive-pack"
PACK = "/git-receive-pack"
MOST_REQUESTS = 3
"""What git itself asks for one push: the refs, a look whether it may, and the push."""


@dataclass
class Origin:
    """A git server with https that wants a password, and its repository."""

    git: GitHttpServer
    bare: Path
    tls: ssl.SSLContext
    trusted: Certificate
    stranger: Certificate
    password: str

    @property
    def url(self) -> str:
        return f"{self.address}/project.git"

    @property
    def address(self) -> str:
        return f"https://localhost:{self.git.port}"

    @property
    def secrets(self) -> list[str]:
        return [self.password, base64.b64encode(f"somebody:{self.password}".encode()).decode()]

    def refs(self) -> str:
        return git("for-each-ref", cwd=self.bare)

    def show(self, certificate: Certificate) -> None:
        """Have this certificate on connections that are made from now on."""
        self.tls.load_cert_chain(certificate.file, certificate.key)


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    for name in ("trusted", "stranger", "served"):
        (tmp_path / name).mkdir()
    trusted = make_certificate(tmp_path / "trusted", "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(trusted.file, trusted.key)
    bare = make_repository(tmp_path / "served" / "project.git")
    password = canary("git-password")
    with GitHttpServer(tmp_path / "served", password=password, tls=tls) as server:
        stranger = make_certificate(tmp_path / "stranger", "localhost")
        yield Origin(server, bare, tls, trusted, stranger, password)


@pytest.fixture
async def trusting(
    data_dir: Path, runtime: str, database_url: str, origin: Origin
) -> AsyncIterator[Server]:
    server = Server(
        data_dir,
        runtime=runtime,
        database_url=database_url,
        SSL_CERT_FILE=str(origin.trusted.file),
    )
    try:
        server.start()
        await server.ready()
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


REFUSALS = [
    (500, 503, "UPSTREAM_UNAVAILABLE"),
    (503, 503, "UPSTREAM_UNAVAILABLE"),
    (429, 503, "UPSTREAM_UNAVAILABLE"),
    (403, 409, "UPSTREAM_REFUSES_ACCESS"),
    (404, 409, "UPSTREAM_REFUSES_ACCESS"),
    (401, 400, "GIT_AUTHENTICATION_REQUIRED"),
]


async def test_push_whose_upstream_refuses_or_fails_is_told_once_and_changes_nothing(
    trusting: Server, origin: Origin
) -> None:
    async with Api(trusting.url) as api:
        await api.register("a@example.com", setupToken=trusting.setup_token)
        host = {"origin": origin.address, "username": "somebody", "password": origin.password}
        stored = await api.client.put("/api/git/hosts", json=host)
        assert stored.status_code == 200, stored.text
        environment = await api.environment("pushed", origin.url)
        session = await api.post("/api/sessions", environmentId=environment["id"], branch="work")
        viewer = Viewer(trusting.url, session["id"], environment["id"], api.token)
        look = "git rev-parse HEAD; git for-each-ref; git status --porcelain=v2 --branch"
        async with viewer.attached():
            await viewer.run("echo mine > mine; git add mine; git commit -qm mine")
            here, there = await viewer.run(look), origin.refs()

            async def refused(status: int, code: str, what: str) -> None:
                before = len(origin.git.requests)
                began = time.monotonic()
                answer = await api.client.post(f"/api/git/push/{session['id']}", json={})
                note("F16", "told after", time.monotonic() - began, "s")
                asked = origin.git.requests[before:]
                assert (answer.status_code, answer.json()["code"]) == (status, code), what
                assert len(asked) <= MOST_REQUESTS, what
                note("F16", "requests", len(asked), "requests")
                assert [one for one in origin.secrets if one in answer.text] == []
                assert origin.refs() == there
                assert await viewer.run(look) == here
                assert len(origin.git.requests) == before + len(asked)

            for step in (REFS, PACK):
                for answered, status, code in REFUSALS:
                    origin.git.failing = _failing(step, answered)
                    await refused(status, code, f"{answered} at {step}")
            origin.show(origin.stranger)
            await refused(503, "UPSTREAM_UNAVAILABLE", "a stranger's certificate")
            origin.show(origin.trusted)

            origin.git.failing = lambda _method, _path: None
            await api.client.put("/api/git/hosts", json=host)
            pushed = await api.post(f"/api/git/push/{session['id']}")
            assert pushed["data"]["commit"] in origin.refs()
        await hold(trusting, secrets=origin.secrets)


def _failing(step: str, status: int) -> Callable[[str, str], int | None]:
    return lambda _method, path: status if step in path else None


# ---- F43 ----------------------------------------------------------------------------------------

ASKERS = 20
DEADLINE_S = 10.0
"""Of one question to GitHub or to Coolify."""
OTHERS_S = DEADLINE_S / 2
"""What other routes may take on a busy machine; who waits with the others takes the deadline."""


@pytest.fixture
def toys() -> Iterator[tuple[ToyGitHub, ToyCoolify]]:
    with ToyGitHub(kind="oauth", interval=1) as github, ToyCoolify() as coolify:
        github.add_user("octocat", name="The Octocat")
        github.add_repository("octocat", "octocat/project")
        coolify.application("web")
        yield github, coolify


@pytest.fixture
async def deploying(
    data_dir: Path, runtime: str, database_url: str, toys: tuple[ToyGitHub, ToyCoolify]
) -> AsyncIterator[Server]:
    github, coolify = toys
    server = Server(
        data_dir,
        runtime=runtime,
        database_url=database_url,
        GITHUB_CLIENT_ID=github.client_id,
        GITHUB_URL=github.url,
        CRAFTASTIC_COOLIFY_ORIGINS=coolify.origin,
    )
    try:
        server.start()
        await server.ready()
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


async def connect(api: Api, github: ToyGitHub, coolify: ToyCoolify) -> None:
    body = {"url": coolify.api_url, "token": coolify.token()}
    assert (await api.client.put("/api/coolify/connection", json=body)).status_code == 200
    flow = (await api.post("/api/auth/github/initiate"))["data"]
    github.approve(flow["user_code"], "octocat")

    async def connected() -> bool:
        body = {"deviceCode": flow["device_code"], "interval": 1}
        answer = await api.client.post("/api/auth/github/poll", json=body)
        return "pending" not in answer.json()

    await until(connected, "the account is connected", every_s=1)


@pytest.mark.parametrize("how", ["slow", "failing"])
async def test_github_and_coolify_that_do_not_answer_hold_up_nobody_else(
    deploying: Server, toys: tuple[ToyGitHub, ToyCoolify], how: str
) -> None:
    github, coolify = toys
    async with load(deploying) as work:
        api = work.journal.api
        await connect(api, github, coolify)
        theirs = ("/api/auth/github/repos", "/api/coolify/applications")
        assert [await work.status(path) for path in theirs] == [200, 200]
        if how == "slow":
            github.hang("/user/repos", times=1000)
            coolify.fault("/*", hang=True, times=1000)
        else:
            github.fail("/user/repos", 502, times=1000)
            coolify.fault("/*", 502, times=1000)

        refused: list[httpx.Response] = []
        others: list[float] = []

        async def ask(path: str) -> None:
            refused.append(await api.client.get(path))

        async def others_are_asked() -> None:
            while True:
                for path in ("/api/auth/me", "/api/auth/github/status", "/api/coolify/connection"):
                    answer = await api.client.get(path)
                    assert answer.status_code == 200, answer.text
                    others.append(answer.elapsed.total_seconds())
                await anyio.sleep(0.05)

        async with work.going_on(), anyio.create_task_group() as looking:
            looking.start_soon(others_are_asked)
            async with anyio.create_task_group() as asking:
                for number in range(ASKERS):
                    asking.start_soon(ask, theirs[number % 2] + f"?page={number + 2}")
            looking.cancel_scope.cancel()

        assert work.reads.statuses == {200}
        assert work.writes.statuses == {200}
        assert len(refused) == ASKERS
        assert {one.status_code for one in refused} == {503}
        codes = {"GITHUB_UNAVAILABLE", "COOLIFY_UNAVAILABLE"}
        assert {one.json()["code"] for one in refused} == codes
        assert all("retry-after" in one.headers for one in refused)
        slowest = max(one.elapsed.total_seconds() for one in refused)
        assert slowest < 3 * DEADLINE_S
        assert percentile(others, 95) < OTHERS_S
        note("F43", f"{how}: told after", slowest, "s")
        if how == "slow":  # and whoever comes now does not wait for what nobody got
            for path in theirs:
                again = [await api.client.get(path) for _ in range(3)]
                assert {one.status_code for one in again} == {503}
                told_s = min(one.elapsed.total_seconds() for one in again)
                assert told_s < OTHERS_S
                note("F43", "slow: told afterwards", told_s, "s")
        note("F43", f"{how}: other routes, p99", percentile(others, 99), "s")
        note("F43", f"{how}: slowest echo", work.slowest_echo_s, "s")

        github.heal()
        coolify.heal()
        await until(lambda: _all_well(work.status, theirs), "they are asked again")
        await hold(deploying, journal=work.journal)


async def _all_well(status: Callable[[str], Awaitable[int]], paths: tuple[str, ...]) -> bool:
    return [await status(path) for path in paths] == [200, 200]
