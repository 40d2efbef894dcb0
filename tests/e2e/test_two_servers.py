"""Two server processes over one PostgreSQL and one data folder: nothing is done twice, or lost."""

import signal

import pytest

from tests.e2e.harness import Api, Server, Viewer

pytestmark = pytest.mark.parametrize(
    "database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)

LINES = 20_000
LEASE_S = 60.0
"""More than any lease lives."""


async def test_a_terminal_goes_on_at_the_second_server_while_the_first_is_paused_and_after_it(
    server: Server, second: Server
) -> None:
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        environment = await api.environment("shared")
        session = await api.post("/api/sessions", environmentId=environment["id"], name="one")
        first = Viewer(server.url, session["id"], environment["id"], api.token)
        other = Viewer(second.url, session["id"], environment["id"], api.token)

        # Both servers show the same session at once, whole; only one of them can have its pipe.
        async with first.attached(), other.attached():
            await first.type(f"for i in $(seq 1 {LINES}); do echo both$i; done; echo both''done\r")
            await first.shows("\nbothdone\n", timeout_s=60)
            await other.shows("\nbothdone\n", timeout_s=60)
            assert first.numbers("both") == list(range(1, LINES + 1))
            assert other.numbers("both") == list(range(1, LINES + 1))

            # The first, which holds the pipe, is paused in mid-output. The second misses nothing.
            await other.type(f"clear; for i in $(seq 1 {LINES}); do echo p$i; done; echo p''done\r")
            await other.shows("\np100\n")
            server.signal(signal.SIGSTOP)
            try:
                await other.shows("\npdone\n", timeout_s=LEASE_S)
                assert other.numbers("p") == list(range(1, LINES + 1))
                assert (await other.run("echo alone")).strip() == "alone"
            finally:
                server.signal(signal.SIGCONT)

        # The first wakes up, and both go on; what is typed arrives once.
        async with first.attached(), other.attached():
            await other.run("echo awake > once; cat once")
            assert (await first.run("wc -l < once")).strip() == "1"
            await first.type(f"clear; for i in $(seq 1 {LINES}); do echo q$i; done; echo q''done\r")
            await first.shows("\nqdone\n", timeout_s=60)
            await other.shows("\nqdone\n", timeout_s=60)
            assert first.numbers("q") == list(range(1, LINES + 1))
            assert other.numbers("q") == list(range(1, LINES + 1))
        assert first.gaps == other.gaps == []
