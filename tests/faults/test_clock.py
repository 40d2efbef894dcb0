"""F25: the wall clock jumps: nothing that lives ends by it, and nobody is kept out."""

from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import Api, Server, Viewer, until
from tests.faults._clock import JumpingClock
from tests.faults._figures import note
from tests.faults._invariants import hold

pytestmark = [pytest.mark.fault, pytest.mark.slow]

HOUR = 3600


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["forward", "back"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_clock_that_jumps_by_an_hour_ends_nothing_and_keeps_nobody_out(
    server: Server, own_history: str, tmp_path: Path, ahead: int
) -> None:
    clock = JumpingClock(tmp_path / "clock")
    server.stop()
    clock.under(server)
    server.start()
    await server.ready()
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        environment = await api.environment("stays", own_history)
        session = await api.post("/api/sessions", environmentId=environment["id"], branch="main")
        viewer = Viewer(server.url, session["id"], environment["id"], api.token)
        async with viewer.attached():
            shell = (await viewer.run("echo $$")).strip()

            clock.jump(ahead)

            # What is attached stays so over whole rounds of every reconciler.
            await api.login("a@example.com")
            for _ in range(2):
                await api.post("/api/cleanup/sessions")
            assert (await viewer.run("echo $$")).strip() == shell
            await hold(server, ahead_s=ahead)

        # The next server has the pane at once, whatever the last one wrote about its lease.
        later = Viewer(server.url, session["id"], environment["id"], api.token)
        async with later.attached():
            await later.run("true")
            server.kill()
            await until(lambda: later.ended, "the socket noticed the dead server")
        clock.jump(0)
        server.start()
        await server.ready()
        await api.login("a@example.com")
        later.token = api.token
        async with later.attached():
            assert (await later.run("echo $$", timeout_s=30)).strip() == shell
        note("F25", "converged", await hold(server), "s")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)], indirect=True)
async def test_work_whose_server_died_before_the_clock_went_back_an_hour_is_taken_up_at_once(
    server: Server, own_history: str, tmp_path: Path
) -> None:
    clock = JumpingClock(tmp_path / "clock")
    server.stop()
    clock.under(server)
    clock.jump(HOUR)
    server.environment["CRAFTASTIC_FAILPOINT"] = "sandbox.create.made"
    server.environment["CRAFTASTIC_SANDBOX_SELF_TEST"] = "false"
    server.start()
    await server.ready()
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        body = {"userId": api.user["id"], "name": "taken up", "repositoryUrl": own_history}
        assert server.process is not None
        with pytest.raises(httpx.TransportError):
            await api.client.post("/api/environments", json=body)
        await until(server.process.poll, "the server died")

        clock.jump(0)
        del server.environment["CRAFTASTIC_FAILPOINT"]
        server.start()
        await server.ready()

        note("F25", "claim of the future void", await hold(server), "s")
        await api.login("a@example.com")
        listed = await api.get(f"/api/environments/user/{api.user['id']}")
        assert [one["status"] for one in listed["environments"]] == ["running"]
