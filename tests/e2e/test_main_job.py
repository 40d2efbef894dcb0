"""The main job, end to end: from a repository to a typed command, with all that can happen."""

import random
import signal

import anyio
import httpx
import pytest

from tests.e2e.harness import Api, Server, Viewer, until

LINES = 30_000


async def signed_in(server: Server) -> Api:
    api = Api(server.url)
    await api.register("a@example.com", setupToken=server.setup_token)
    return api


async def session(api: Api, environment: dict[str, str], branch: str) -> dict[str, str]:
    return await api.post("/api/sessions", environmentId=environment["id"], branch=branch)


def viewer(server: Server, api: Api, session: dict[str, str], *, v2: bool = True) -> Viewer:
    return Viewer(server.url, session["id"], session["environmentId"], api.token, v2=v2)


async def test_a_repository_becomes_shells_that_survive_everything(
    server: Server, own_history: str
) -> None:
    dice = random.Random(7)  # noqa: S311 - repeatable, not secret
    api = await signed_in(server)
    environment = await api.environment("own", own_history)
    assert environment["status"] == "running"
    assert environment["containerId"]

    main = await session(api, environment, "main")
    topic = await session(api, environment, "feature/topic")
    assert main["status"] == "inactive"
    home = f"/home/dev/.craftastic/worktrees/{environment['id']}"
    assert main["workingDirectory"] == f"{home}/main"
    assert topic["workingDirectory"] == f"{home}/feature/topic"

    # Two sessions on two branches: type, and see the output.
    with_main, with_topic = viewer(server, api, main), viewer(server, api, topic)
    async with with_main.attached(), with_topic.attached():
        assert (await with_main.run("pwd")).strip() == f"{home}/main"
        assert "project: lay the kernel" in await with_main.run("git log --format=%s | cat")
        assert (await with_topic.run("git symbolic-ref --short HEAD")).strip() == "feature/topic"
        assert (await api.get(f"/api/sessions/{main['id']}"))["status"] == "active"
        pid = (await with_main.run("echo $$")).strip()

    # Two viewers on one session, of both protocols, see the same.
    one, two = viewer(server, api, main), viewer(server, api, main, v2=False)
    async with one.attached(), two.attached():
        await one.run("echo shared")
        await two.shows("shared")
        await two.run("echo back")
        await one.shows("back")
        # A full-screen program: drawn for both, and the shell is there again after it.
        await one.type("seq 1 500 | less\r")
        await one.shows("\n20\n")
        await two.shows("\n20\n")
        await one.type("q")
        assert (await one.run("echo again")).strip() == "again"

    # Twenty cuts of the connection at random moments of output.
    cut = viewer(server, api, main)
    async with cut.attached():
        await cut.type(f"clear; for i in $(seq 1 {LINES}); do echo cut$i; done; echo do''ne\r")
    for _ in range(20):
        async with cut.attached():
            await anyio.sleep(dice.uniform(0.0, 0.15))  # the moment is what is random here
            cut.cut()
    async with cut.attached():
        await cut.shows("\ndone\n", timeout_s=120)
    assert cut.gaps == []
    numbers = cut.numbers("cut")
    assert numbers == list(range(numbers[0], LINES + 1))
    assert numbers[0] == 1 or cut.snapshots > 1

    # kill -9 of the server in mid-output; the producer goes on; start again; the same shell.
    async with cut.attached():
        await cut.type(f"clear; for i in $(seq 1 {LINES}); do echo kill$i; done; echo fi''ni\r")
        await cut.shows("\nkill100\n")
        server.kill()
        await until(lambda: cut.ended, "the socket noticed the dead server")
    server.start()
    await server.ready()
    again = viewer(server, api, main)
    async with again.attached():
        await again.shows("\nfini\n", timeout_s=120)
        numbers = again.numbers("kill")
        assert numbers == list(range(1, LINES + 1))
        assert (await again.run("echo $$")).strip() == pid

    # Deleting a session with work in it keeps the work and says so.
    async with with_topic.attached():
        await with_topic.run("echo precious > precious.txt")
    gone = await api.delete(f"/api/sessions/{topic['id']}")
    assert gone["success"] is True
    assert gone["kept"]["ref"] == f"refs/craftastic/kept/{topic['id']}"
    async with again.attached():
        kept = f"git show {gone['kept']['ref']}:precious.txt"
        assert (await again.run(kept)).strip() == "precious"

    assert await api.delete(f"/api/environments/{environment['id']}") == {"success": True}
    assert (await api.client.get(f"/api/environments/{environment['id']}")).status_code == 404
    left = [
        path
        for name in ("repos", "worktrees", "homes")
        for path in (server.data_dir / name).glob("*")
    ]
    assert left == []
    await api.client.aclose()


async def test_of_a_hundred_simultaneous_creates_of_one_session_name_one_wins(
    server: Server, own_history: str
) -> None:
    async with await signed_in(server) as api:
        environment = await api.environment("race", own_history)
        answers: list[httpx.Response] = []

        async def create() -> None:
            body = {"environmentId": environment["id"], "name": "same", "branch": "main"}
            answers.append(await api.client.post("/api/sessions", json=body))

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(create)

        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 99
        refused = next(answer.json() for answer in answers if answer.status_code == 409)
        assert refused["error"] == "SESSION_NAME_IN_USE"
        assert refused["existingSession"]["name"] == "same"
        sessions = await api.get(f"/api/sessions/environment/{environment['id']}")
        assert len(sessions["sessions"]) == 1


async def test_the_network_of_a_sandbox_is_verified(server: Server) -> None:
    async with await signed_in(server) as api:
        environment = await api.environment("alone")

        async def verdict() -> str:
            return str(
                (await api.get(f"/api/environments/{environment['id']}")).get("isolation") or ""
            )

        assert await until(verdict, "the verdict of the probe") == "network isolation: verified"


@pytest.mark.slow
@pytest.mark.parametrize("database_url", [None], ids=["sqlite"], indirect=True)
async def test_a_stopped_server_does_not_grow_tmux(server: Server) -> None:
    async with await signed_in(server) as api:
        environment = await api.environment("flood")
        flooded = await api.post("/api/sessions", environmentId=environment["id"], name="flood")
        with_flood = viewer(server, api, flooded)
        async with with_flood.attached():
            before = int(await with_flood.run(RSS))
            await with_flood.type("yes\r")
            await with_flood.shows("\ny\ny\n")
            server.signal(signal.SIGSTOP)
            await anyio.sleep(60)  # the length of the stop is the subject of this test
            server.signal(signal.SIGCONT)
        async with with_flood.attached():
            await with_flood.type(b"\x03")
            grown = int(await with_flood.run(RSS, timeout_s=60))
        assert grown - before <= 20 * 1024


RSS = (
    "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = 'tmux: server' ] && "
    "sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' $p/status; done | head -1"
)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_end_of_the_server_says_so_and_ends_no_shell(server: Server) -> None:
    async with await signed_in(server) as api:
        environment = await api.environment("stays")
        kept = await api.post("/api/sessions", environmentId=environment["id"], name="kept")
        before = viewer(server, api, kept)
        async with before.attached():
            shell = (await before.run("echo $$")).strip()
            server.signal(signal.SIGTERM)
            await until(lambda: before.ended, "the socket is closed")
        assert before.ended == (1012, "Server is restarting")
        assert server.stop() == 0

        server.start()
        await server.ready()
        after = viewer(server, api, kept)
        async with after.attached():
            assert (await after.run("echo $$")).strip() == shell


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_was_typed_before_the_tab_was_shut_still_arrives(server: Server) -> None:
    async with await signed_in(server) as api:
        environment = await api.environment("typed")
        typed = await api.post("/api/sessions", environmentId=environment["id"], name="typed")
        shut = viewer(server, api, typed)
        async with shut.attached():
            await shut.type("echo ar''rived > arrived\r")

        later = viewer(server, api, typed)
        async with later.attached():

            async def arrived() -> bool:
                return (await later.run("cat arrived 2>&1")).strip() == "arrived"

            await until(arrived, "what was typed last has arrived")
