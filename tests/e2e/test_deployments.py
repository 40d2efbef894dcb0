"""Deployments by the real server: real git, real processes, and a small Coolify over HTTP.

The server is killed and doubled while Coolify is asked: what was wanted once is done once.
"""

import json
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from sqlalchemy import update

from craftastic.database import Database
from craftastic.tables import METADATA
from tests.conftest import driver_url
from tests.e2e._private import WIDE, Upstream, Work
from tests.e2e.harness import Api, Server, Viewer, until
from tests.fakes.git_http_server import GitHttpServer, make_repository
from tests.fakes.toy_coolify import ToyApplication, ToyCoolify, line
from tests.secrecy import Place, allow

OLD, NEW = "4.1.2", "4.3.11"
BRANCH = "feature/ship"
END_S = 60.0
"""The longest a deployment is waited for; it is looked at every 15 s at the least."""

LEASE_S = 90.0
"""More than a killed server's claim on a deployment lives."""

FIRST_LOOK_S = 2.0
"""The shortest pause between two looks at one run."""


@dataclass
class Stage:
    """A server with its user, and a Coolify with an application that builds the session's branch.

    Args:
        token: What the Coolify takes.
    """

    server: Server
    api: Api
    toy: ToyCoolify
    web: ToyApplication
    token: str
    upstream: Upstream
    database_url: str

    async def connect(self) -> dict[str, Any]:
        """Connect the Coolify as the user's own."""
        body = {"url": f"{self.toy.url}/", "token": self.token}
        answer = await self.api.client.put("/api/coolify/connection", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @asynccontextmanager
    async def working(self, api: Api | None = None) -> AsyncGenerator[Work]:
        """Make an environment of the repository and a session on the branch, and attach to it."""
        api = api or self.api
        environment = await api.environment("web", self.upstream.server.url("example/web.git"))

        async def cloned() -> dict[str, Any] | None:
            now = await api.get(f"/api/environments/{environment['id']}")
            assert now["cloneStatus"] != "failed", now
            return now if now["cloneStatus"] == "ready" else None

        await until(cloned, "the repository is cloned", timeout_s=60)
        session = await api.post("/api/sessions", environmentId=environment["id"], branch=BRANCH)
        viewer = Viewer(self.server.url, session["id"], environment["id"], api.token, cols=WIDE)
        async with viewer.attached():
            yield Work(api, environment, session, viewer)

    async def deploy(self, work: Work, status: int = 200, **more: Any) -> dict[str, Any]:
        answer = await self.ask(work, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def ask(self, work: Work, **more: Any) -> httpx.Response:
        body = {"sessionId": work.id, "appId": self.web.uuid, **more}
        return await work.api.client.post("/api/deployment/deploy", json=body)

    async def becomes(
        self, deployment_id: str, *, timeout_s: float = END_S, api: Api | None = None, **wanted: Any
    ) -> dict[str, Any]:
        """Wait until a deployment's fields are as wanted, and return it."""
        row: dict[str, Any] = {}

        async def is_so() -> bool:
            nonlocal row
            row = await (api or self.api).get(f"/api/deployment/status/{deployment_id}")
            return all(row[name] == value for name, value in wanted.items())

        try:
            await until(is_so, f"the deployment is {wanted}", timeout_s=timeout_s, every_s=0.1)
        except AssertionError as error:
            routes = [f"{call.method} {call.route} {call.status}" for call in self.toy.calls[-20:]]
            raise AssertionError(f"{error}; it is {row}; Coolify was asked {routes}") from error
        return row

    async def arrives(self, method: str, route: str, times: int = 1) -> None:
        await anyio.to_thread.run_sync(lambda: self.toy.wait_for(method, route, times=times))

    async def restart_after_kill(self) -> None:
        """Start the server again, when what the dead one had claimed is free."""
        await free_claims(self.database_url)
        self.server.start()
        await self.server.ready()


async def free_claims(database_url: str) -> None:
    """Let the claims of a dead server run out, as they do after a minute."""
    database = Database(driver_url(database_url))
    table = METADATA.tables["deployments"]
    async with database.engine.begin() as connection:
        await connection.execute(update(table).values(held_until=0, next_look_at=0))
    await database.close()


@pytest.fixture(params=[pytest.param("local", marks=pytest.mark.local)])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[NEW])
def toy(request: pytest.FixtureRequest) -> Iterator[ToyCoolify]:
    with ToyCoolify(request.param) as coolify:
        yield coolify


@pytest.fixture(params=["user"])
def source(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def stage(
    data_dir: Path, runtime: str, database_url: str, toy: ToyCoolify, source: str, tmp_path: Path
) -> AsyncIterator[Stage]:
    root = tmp_path / "upstream"
    (root / "example").mkdir(parents=True)
    token = toy.token()
    more = {"CRAFTASTIC_COOLIFY_ORIGINS": toy.origin}
    if source == "server":
        more = {"COOLIFY_API_URL": toy.api_url, "COOLIFY_API_TOKEN": token}
        _allow_in_environment(token)
    async with AsyncExitStack() as stack:
        git = stack.enter_context(GitHttpServer(root))
        upstream = Upstream(git, make_repository(root / "example" / "web.git"))
        server = Server(
            data_dir,
            runtime=runtime,
            database_url=database_url,
            CRAFTASTIC_SANDBOX_SELF_TEST="0",
            **more,
        )
        stack.push_async_callback(_cleaned, server)
        server.start()
        await server.ready()
        api = await stack.enter_async_context(Api(server.url))
        await api.register("a@example.com", setupToken=server.setup_token)
        web = toy.application("web", branch=BRANCH, repository="example/web")
        made = Stage(server, api, toy, web, token, upstream, database_url)
        if source == "user":
            await made.connect()
        yield made
        toy.heal()


def _allow_in_environment(token: str) -> None:
    secret = token.rpartition("|")[2]
    allow(Place.ENVIRONMENT, value=secret, because="the operator sets it there")


async def _cleaned(server: Server) -> None:
    with anyio.CancelScope(shield=True):
        await server.clean()


# ---- the whole life -------------------------------------------------------------------------


@pytest.mark.parametrize("toy", [OLD, NEW], indirect=True)
@pytest.mark.parametrize("source", ["user", "server"], indirect=True)
async def test_pushed_work_is_built_and_followed_until_the_application_is_healthy(
    stage: Stage, source: str
) -> None:
    toy = stage.toy
    connection = await stage.api.get("/api/coolify/connection")
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        stage.web.after_finish = "running:starting"
        check = await stage.api.get(f"/api/deployment/check/{work.id}?appId={stage.web.uuid}")
        started = await stage.deploy(work)
        queued = started["deployment"]
        toy.start(commit=commit)
        building = await stage.becomes(queued["id"], status="building")
        toy.say(toy.runs[0], line("step 1"), line("TOKEN=1", hidden=True), line("step 2"))
        log = await stage.api.get(f"/api/deployment/logs/{queued['id']}")
        toy.finish()
        waiting = await stage.becomes(queued["id"], status="succeeded", health="waiting")
        stage.web.status = "running:healthy"
        healthy = await stage.becomes(queued["id"], health="healthy")
        listed = await stage.api.get(f"/api/deployment/list/{work.id}")
        printed = await stage.api.get(f"/api/deployment/application-logs/{queued['id']}")

    assert (connection["source"], connection["url"]) == (source, toy.url)
    assert (check["ready"], check["matchesRepository"], check["commit"]) == (True, True, commit)
    assert (started["status"], queued["status"], queued["commit"]) == ("started", "pending", commit)
    assert started["coolifyResponse"]["deployment_uuid"] == toy.runs[0].uuid
    assert (building["built_commit"], building["coolify_status"]) == (commit, "in_progress")
    assert [one["text"] for one in log["lines"]] == ["step 1", "step 2"]
    assert waiting["url"].startswith(f"{toy.url}/project/")
    assert (healthy["health_text"], healthy["live"]) == ("running:healthy", False)
    assert [one["id"] for one in listed["deployments"]] == [queued["id"]]
    assert printed == {"running": True, "log": "listening on 3000\n"}
    assert len(toy.runs) == toy.count("POST", "/deploy") == 1
    assert not toy.runs[0].force
    assert stage.token not in json.dumps([connection, check, started, healthy, listed])


async def test_users_own_coolify_comes_before_the_servers(
    data_dir: Path, runtime: str, tmp_path: Path
) -> None:
    with ToyCoolify(NEW) as servers, ToyCoolify(OLD) as own:
        theirs, mine = servers.token(), own.token()
        _allow_in_environment(theirs)
        server = Server(
            data_dir,
            runtime=runtime,
            database_url=None,
            COOLIFY_API_URL=servers.url,
            COOLIFY_API_TOKEN=theirs,
            CRAFTASTIC_COOLIFY_ORIGINS=own.origin,
            CRAFTASTIC_SANDBOX_SELF_TEST="0",
        )
        servers.application("servers")
        own.application("own")
        try:
            server.start()
            await server.ready()
            async with Api(server.url) as api:
                await api.register("a@example.com", setupToken=server.setup_token)
                names: list[list[str]] = []

                async def look() -> None:
                    found = await api.get("/api/coolify/applications")
                    names.append([one["name"] for one in found["applications"]])

                await look()
                body = {"url": own.url, "token": mine}
                put = await api.client.put("/api/coolify/connection", json=body)
                await look()
                await api.delete("/api/coolify/connection")
                await look()
        finally:
            await _cleaned(server)

    assert put.status_code == 200, put.text
    assert names == [["servers"], ["own"], ["servers"]]
    assert {call.headers["authorization"] for call in servers.calls} == {f"Bearer {theirs}"}
    assert {call.headers["authorization"] for call in own.calls} == {f"Bearer {mine}"}


async def test_failed_build_says_why_and_cancelled_one_ends(stage: Stage) -> None:
    toy = stage.toy
    async with stage.working() as work:
        await work.commit_and_push("ship")
        first = (await stage.deploy(work))["deploymentId"]
        toy.fail(log=[line("all well"), line("npm: not found", stream="stderr")])
        failed = await stage.becomes(first, status="failed")
        second = (await stage.deploy(work))["deploymentId"]
        await stage.api.post(f"/api/deployment/cancel/{second}")
        cancelled = await stage.becomes(second, status="cancelled", live=False)

    assert failed["reason"] == "npm: not found"
    assert cancelled["coolify_status"] == "cancelled-by-user"
    assert toy.runs[1].status == "cancelled-by-user"
    assert toy.count("POST", "/deploy") == 2


async def test_work_that_is_not_pushed_is_not_deployed(stage: Stage) -> None:
    async with stage.working() as work:
        pushed = await work.commit_and_push("first")
        await work.change("not committed")
        uncommitted = await stage.deploy(work, status=409)
        await work.ask("commit", message="second")
        unpushed = await stage.deploy(work, status=409)
        check = await stage.api.get(f"/api/deployment/check/{work.id}?appId={stage.web.uuid}")
        asked = stage.toy.count("POST", "/deploy")
        insisted = await stage.deploy(work, pushedOnly=True)
        stage.web.branch = "main"
        other = await stage.deploy(work, status=409, pushedOnly=True)

    assert uncommitted["code"] == "UNCOMMITTED_WORK"
    assert "work.txt" in f"{uncommitted['error']}{uncommitted['details']}"
    assert unpushed["code"] == "UNPUSHED_WORK"
    assert (check["ready"], [one["code"] for one in check["problems"]]) == (
        False,
        ["UNPUSHED_WORK"],
    )
    assert asked == 0
    assert insisted["status"] == "started"
    assert other["code"] == "OTHER_BRANCH"
    assert stage.upstream.at(BRANCH) == pushed
    assert stage.toy.count("POST", "/deploy") == len(stage.toy.runs) == 1


async def test_the_same_is_not_deployed_twice_by_one_key_or_while_it_runs(stage: Stage) -> None:
    async with stage.working() as work:
        await work.commit_and_push("ship")
        key = {"Idempotency-Key": "one-wish"}
        body = {"sessionId": work.id, "appId": stage.web.uuid}
        first, again = [
            await stage.api.client.post("/api/deployment/deploy", json=body, headers=key)
            for _ in range(2)
        ]
        while_it_runs = await stage.deploy(work, status=409)

    assert first.json() == again.json()
    assert while_it_runs["code"] == "DEPLOYMENT_RUNNING"
    assert while_it_runs["deploymentId"] == first.json()["deploymentId"]
    assert len(stage.toy.runs) == stage.toy.count("POST", "/deploy") == 1


async def test_a_run_that_somebody_else_queued_is_taken_up(stage: Stage) -> None:
    theirs = stage.toy.queue(stage.web)
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        started = await stage.deploy(work)
        stage.toy.finish(theirs, commit=commit)
        ended = await stage.becomes(started["deploymentId"], status="succeeded")

    assert ended["coolify_deployment_id"] == theirs.uuid
    assert ended["built_commit"] == commit
    assert stage.toy.runs == [theirs]


# ---- the server dies ------------------------------------------------------------------------


async def killed_while_asking(stage: Stage, work: Work, method: str, route: str) -> None:
    """Ask for a deployment and kill the server when Coolify has got a request of it."""
    before = stage.toy.count(method, route)

    async def ask() -> None:
        with pytest.raises(httpx.TransportError):
            await stage.ask(work)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await stage.arrives(method, route, before + 1)
        stage.server.kill()
    stage.toy.heal()


async def only_deployment(stage: Stage, work: Work) -> str:
    (row,) = (await stage.api.get(f"/api/deployment/list/{work.id}"))["deployments"]
    return row["id"]


async def test_server_killed_before_it_asks_asks_once_after_it_is_back(stage: Stage) -> None:
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        stage.toy.fault("/deployments/applications/*", hang=True)

        await killed_while_asking(stage, work, "GET", "/deployments/applications/*")
        assert stage.toy.count("POST", "/deploy") == 0
        await stage.restart_after_kill()
        deployment = await only_deployment(stage, work)
        await stage.arrives("POST", "/deploy")
        stage.toy.finish(commit=commit)
        await stage.becomes(deployment, health="healthy")

    assert len(stage.toy.runs) == stage.toy.count("POST", "/deploy") == 1


async def test_server_killed_after_coolify_took_it_finds_its_run_and_asks_no_more(
    stage: Stage,
) -> None:
    stage.toy.finish(stage.toy.queue(stage.web), commit="a" * 40)
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        stage.toy.fault("/deploy", hang=True, after=True, method="POST")

        await killed_while_asking(stage, work, "POST", "/deploy")
        ours = stage.toy.runs[1]
        await stage.restart_after_kill()
        deployment = await only_deployment(stage, work)
        found = await stage.becomes(deployment, coolify_deployment_id=ours.uuid)
        stage.toy.finish(ours, commit=commit)
        ended = await stage.becomes(deployment, health="healthy")

    assert found["status"] == "pending"
    assert ended["built_commit"] == commit
    assert (len(stage.toy.runs), stage.toy.count("POST", "/deploy")) == (2, 1)


async def test_server_killed_when_its_question_was_lost_asks_again(stage: Stage) -> None:
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        stage.toy.fault("/deploy", hang=True, drop=True, method="POST")

        await killed_while_asking(stage, work, "POST", "/deploy")
        await stage.restart_after_kill()
        await stage.arrives("POST", "/deploy", 2)
        deployment = await only_deployment(stage, work)
        stage.toy.finish(commit=commit)
        await stage.becomes(deployment, health="healthy")

    assert (len(stage.toy.runs), stage.toy.count("POST", "/deploy")) == (1, 2)


async def test_deployment_ends_while_no_server_is_there(stage: Stage) -> None:
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        deployment = (await stage.deploy(work))["deploymentId"]
        stage.server.kill()
        stage.toy.finish(commit=commit)
        await stage.restart_after_kill()
        ended = await stage.becomes(deployment, health="healthy")

    assert (ended["status"], ended["built_commit"]) == ("succeeded", commit)
    assert stage.toy.count("POST", "/deploy") == 1


async def test_coolify_that_is_down_is_asked_again_and_not_twice(stage: Stage) -> None:
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        stage.toy.fault("/deploy", 502, after=True, method="POST", body=b"<html>Bad Gateway</html>")

        started = await stage.deploy(work)
        found = await stage.becomes(
            started["deploymentId"], coolify_deployment_id=stage.toy.runs[0].uuid
        )
        stage.toy.finish(commit=commit)
        await stage.becomes(started["deploymentId"], health="healthy")

    assert (started["status"], started["coolifyResponse"]) == ("pending", None)
    assert "502" in started["deployment"]["reason"]
    assert found["reason"] is None
    assert len(stage.toy.runs) == stage.toy.count("POST", "/deploy") == 1


# ---- two servers ----------------------------------------------------------------------------


POSTGRES = pytest.mark.parametrize(
    "database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)


@pytest.fixture
async def second(stage: Stage) -> AsyncIterator[Server]:
    """Give a second process that shares everything with the first but its own ports."""
    second = stage.server.beside()
    try:
        second.start()
        await second.ready()
        yield second
    finally:
        second.stop()


@POSTGRES
async def test_two_servers_ask_once_and_look_as_often_as_one(stage: Stage, second: Server) -> None:
    toy = stage.toy
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        async with Api(second.url) as other:
            await other.login("a@example.com")
            deployment = (await stage.deploy(work))["deploymentId"]
            toy.start(commit=commit)
            run = f"/deployments/{toy.runs[0].uuid}"
            await stage.arrives("GET", run, 4)
            seen = await stage.becomes(deployment, api=other, status="building")
            toy.finish()
            await stage.becomes(deployment, api=other, health="healthy")

    looks = [call.at for call in toy.called("GET", run)]
    pauses = [after - before for before, after in pairwise(looks)]
    assert seen["coolify_deployment_id"] == toy.runs[0].uuid
    assert len(toy.runs) == toy.count("POST", "/deploy") == 1
    assert min(pauses) > FIRST_LOOK_S * 0.9, pauses


@POSTGRES
async def test_second_server_goes_on_when_the_first_is_killed(stage: Stage, second: Server) -> None:
    toy = stage.toy
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        toy.fault("/deploy", hang=True, after=True, method="POST")
        await killed_while_asking(stage, work, "POST", "/deploy")
        toy.finish(commit=commit)

    async with Api(second.url) as other:
        await other.login("a@example.com")
        (row,) = (await other.get(f"/api/deployment/list/{work.id}"))["deployments"]
        # Nothing is done to the database here: the dead one's claim has to run out.
        ended = await stage.becomes(row["id"], api=other, timeout_s=LEASE_S, health="healthy")

    assert ended["built_commit"] == commit
    assert len(toy.runs) == toy.count("POST", "/deploy") == 1


@POSTGRES
async def test_server_that_wakes_up_late_does_not_ask_again(stage: Stage, second: Server) -> None:
    toy = stage.toy
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        looks = "/deployments/applications/*"
        before = toy.count("GET", looks)
        toy.fault(looks, hang=True)

        async def ask() -> None:
            await stage.ask(work)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await stage.arrives("GET", looks, before + 1)
            stage.server.signal(signal.SIGSTOP)
            try:
                toy.heal()
                await free_claims(stage.database_url)
                await stage.arrives("POST", "/deploy")
            finally:
                stage.server.signal(signal.SIGCONT)
        async with Api(second.url) as other:
            await other.login("a@example.com")
            (row,) = (await other.get(f"/api/deployment/list/{work.id}"))["deployments"]
            toy.finish(commit=commit)
            await stage.becomes(row["id"], api=other, health="healthy")

    assert len(toy.runs) == toy.count("POST", "/deploy") == 1


# ---- hints ----------------------------------------------------------------------------------


async def test_webhook_makes_the_server_look_at_once_and_is_not_believed(stage: Stage) -> None:
    toy = stage.toy
    hook = (await stage.api.post("/api/coolify/hook"))["url"]
    key = hook.rpartition("/")[2]
    address = f"{stage.server.url}/api/deployment/hook/{key}"
    async with stage.working() as work:
        commit = await work.commit_and_push("ship")
        deployment = (await stage.deploy(work))["deploymentId"]
        toy.start(commit=commit)
        run = f"/deployments/{toy.runs[0].uuid}"
        await stage.arrives("GET", run, 4)  # by now the pauses are of more than 6 s
        await stage.becomes(deployment, status="building")

        # It says that all is well, which is not so.
        said_at = time.monotonic()
        status = await anyio.to_thread.run_sync(toy.webhook, address)
        await stage.arrives("GET", run, 5)
        looked_after_s = time.monotonic() - said_at
        row = await stage.api.get(f"/api/deployment/status/{deployment}")
        toy.finish()
        await anyio.to_thread.run_sync(toy.webhook, address)
        await stage.becomes(deployment, status="succeeded")

        wrong = await stage.api.client.post(f"{address}x", json={})

    assert (status, row["status"]) == (200, "building")
    assert looked_after_s < 4
    assert wrong.status_code == 404
    assert hook.endswith(f"/api/deployment/hook/{key}")
