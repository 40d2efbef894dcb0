"""The end of a server that is asked to: nothing is lost, nobody is left without an answer."""

import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx
import pytest

from tests.e2e.harness import Api, Server, Viewer, until

pytestmark = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)

EXIT_S = 10.0
CREATES = 10
VIEWERS = 10
CONVERGE_S = 60.0


async def test_a_server_that_ends_loses_nothing(server: Server) -> None:
    """F02: ten creates and ten terminals are under way when the server is asked to end."""
    async with Api(server.url) as api, AsyncExitStack() as stack:
        await api.register("a@example.com", setupToken=server.setup_token)
        environment = await api.environment("shared")
        session = await api.post("/api/sessions", environmentId=environment["id"], name="one")
        viewers = [
            Viewer(server.url, session["id"], environment["id"], api.token) for _ in range(VIEWERS)
        ]
        for viewer in viewers:
            await stack.enter_async_context(viewer.attached())
        await viewers[0].type("i=0; while :; do i=$((i+1)); echo line$i; sleep 0.05; done\r")
        for viewer in viewers:
            await viewer.shows("\nline5\n")
        made: list[tuple[str, int, dict[str, Any], Any]] = []

        async def create(name: str) -> None:
            answer = await api.client.post(
                "/api/environments",
                json={"userId": api.user["id"], "name": name, "branch": "main"},
            )
            made.append((name, answer.status_code, answer.json(), answer.headers))

        late: list[httpx.Response] = []

        async def come_late() -> None:
            # Whoever comes while it ends is told so, until it does not listen any more.
            async with httpx.AsyncClient(base_url=server.url) as client:
                while True:
                    try:
                        late.append(await client.get("/api/environments/none"))
                    except httpx.TransportError:
                        return
                    await anyio.sleep(0.02)

        assert server.process is not None
        took_s: list[float] = []
        async with anyio.create_task_group() as group:
            for number in range(CREATES):
                group.start_soon(create, f"new{number}")
            await until(lambda: _rows(api), "all creates are stored")
            began = time.monotonic()
            server.signal(signal.SIGTERM)
            group.start_soon(come_late)
            await anyio.to_thread.run_sync(server.process.wait, 2 * EXIT_S)
            took_s.append(time.monotonic() - began)

        statuses = Counter(one[1] for one in made)
        print(f"\nended in {took_s[0]:.1f} s; creates: {dict(statuses)}")  # noqa: T201 - the figure
        assert server.process.returncode == 0
        assert took_s[0] <= EXIT_S
        assert {viewer.ended and viewer.ended[0] for viewer in viewers} == {1012}
        refused = [one for one in late if one.status_code == 503]
        assert refused
        assert all(one.headers["Retry-After"] for one in refused)
        assert {one.json()["code"] for one in refused} == {"SHUTTING_DOWN"}
        for _, status, body, headers in made:
            assert status in {200, 503}, body
            if status == 503:
                assert body["code"] == "SHUTTING_DOWN"
                assert headers["Retry-After"]

        server.start()
        await server.ready()
        everything: list[dict[str, Any]] = []

        async def all_run() -> bool:
            answer = await api.get(f"/api/environments/user/{api.user['id']}")
            everything[:] = answer["environments"]
            return {one["status"] for one in everything} == {"running"}

        await until(all_run, "what was begun is finished", timeout_s=CONVERGE_S)
        assert sorted(one["name"] for one in everything) == sorted(
            ["shared", *(f"new{number}" for number in range(CREATES))]
        )
        again = Viewer(server.url, session["id"], environment["id"], api.token)
        async with again.attached():
            await again.shows("\nline", timeout_s=10)
            seen = again.numbers("line")
            await until(lambda: again.numbers("line")[-1] > seen[-1], "the program goes on")
            assert seen == list(range(seen[0], seen[-1] + 1))


async def _rows(api: Api) -> bool:
    answer = await api.get(f"/api/environments/user/{api.user['id']}")
    return len(answer["environments"]) == CREATES + 1
