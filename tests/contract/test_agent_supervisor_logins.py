"""Logins of an agent's session: in memory only, taken back, and gone with its end."""

import json
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from craftastic.agent_runs.programs import LaunchFile
from craftastic.runtimes.base import GATEWAY_HOST, HOME
from tests.contract.conftest import REAL, benches
from tests.fakes.run_gateway import RunGateway
from tests.fakes.supervisor_rig import (
    ALLOW,
    CANARY,
    FAKES,
    FIND,
    LOGIN,
    Desk,
    desk_in,
    launch_of,
    names_in,
    open_desk,
    open_gateway,
    there,
    with_login,
)
from tests.fakes.terminal_rig import Rig, until


@pytest.fixture
async def desk(data_dir: Path) -> AsyncIterator[Desk]:
    async with open_desk(data_dir) as one:
        yield one


# ---- logins ----------------------------------------------------------------------------------


async def test_a_login_lies_in_memory_and_goes_with_the_agents_end(desk: Desk) -> None:
    await desk.start("env", **with_login(desk))
    await desk.shows(f'login file: {{"login": "{CANARY}"}}')
    memory, own = desk.launch.memory, str(Path(desk.rig.run_dir).parent)
    told = await desk.run("stat", "-c", "%F %a", f"{desk.home}/{LOGIN}", memory)
    assert told == "symbolic link 777\ndirectory 700\n"
    find = ["python3", "-c", FIND, "", own, "/dev/shm"]
    found = (await desk.run(*find, stdin=CANARY.encode())).splitlines()
    assert len(found) == 1
    assert found[0].startswith(f"file {memory}/")

    await desk.type("exit 0")

    await desk.shows("Fake Agent ended")
    assert await desk.run(*find, stdin=CANARY.encode()) == ""
    assert not there(memory)
    assert names_in(desk.home) == {"settings.json", "hook"}


@pytest.mark.parametrize("words", ["refresh login", "refresh login by rename"])
async def test_a_login_that_the_agent_refreshes_is_taken_back(desk: Desk, words: str) -> None:
    await desk.start(words, **with_login(desk))
    await desk.shows("● login 1")

    await until(lambda: "refreshed" in desk.gateway.files[LOGIN], "the server has the new login")
    assert json.loads(desk.gateway.files[LOGIN]) == {"login": CANARY, "refreshed": 1}
    own = str(Path(desk.rig.run_dir).parent)

    async def on_no_disk() -> bool:
        return await desk.run("python3", "-c", FIND, "", own, stdin=CANARY.encode()) == ""

    await until(on_no_disk, "the login is on no disk")
    await desk.type(words)
    await until(lambda: '"refreshed": 2' in desk.gateway.files[LOGIN], "and the one after it")


async def test_the_last_login_is_taken_back_when_the_agent_ends_at_once(desk: Desk) -> None:
    script = 'printf \'{"last": 1}\' >"$CLAUDE_CONFIG_DIR/.credentials.json"'
    await desk.start(argv=("sh", "-c", script), **with_login(desk))

    await until(lambda: desk.gateway.files[LOGIN] == '{"last": 1}', "the server has the login")


async def test_a_login_that_the_gateway_was_away_for_is_taken_back_later(desk: Desk) -> None:
    desk.gateway.stop()
    await desk.start("refresh login", **with_login(desk))
    await desk.shows("● login 1")
    await desk.type("exit 0")
    await desk.shows("Fake Agent ended")
    assert not there(desk.launch.memory)

    desk.gateway.start()

    await until(lambda: "refreshed" in desk.gateway.files[LOGIN], "the server has the new login")


async def test_half_a_login_is_not_taken_back(desk: Desk) -> None:
    script = (
        'cd "$CLAUDE_CONFIG_DIR"; printf \'{"half\' >.credentials.json; printf {} >other;'
        " until [ -e go ]; do sleep 0.01; done; printf '{\"whole\": 1}' >.credentials.json;"
        " sleep 1000"
    )
    # What is in front is looked at first: when its change is there, so is the half's.
    other = LaunchFile("other", "", take_back=True)
    given = with_login(desk)
    desk.gateway.files["other"] = ""
    await desk.start(argv=("sh", "-c", script), files=(other, *given["files"]))
    await until(lambda: desk.gateway.files["other"], "the other file was looked at")
    await desk.run("touch", f"{desk.home}/go")

    await until(lambda: desk.gateway.files[LOGIN] == '{"whole": 1}', "the server has the login")
    assert [one["path"] for one in desk.gateway.posted] == ["other", LOGIN]


async def test_a_login_that_somebody_else_has_refreshed_is_offered_once(desk: Desk) -> None:
    given = with_login(desk)
    desk.gateway.files[LOGIN] = '{"newer": 1}'
    await desk.start("refresh login", **given)
    await until(lambda: desk.gateway.posted, "it was offered")
    await desk.type("refresh login")
    await until(lambda: len(desk.gateway.posted) > 1, "the next one was offered")

    assert desk.gateway.files[LOGIN] == '{"newer": 1}'
    assert [one["text"].count('"refreshed": 1') for one in desk.gateway.posted] == [1, 0]


async def test_without_memory_a_login_is_refused(desk: Desk) -> None:
    memory = f"{desk.cwd}/craftastic-{desk.launch.session}"
    await desk.start(memory=memory, **with_login(desk))

    await desk.shows("was not started: its login file must be in memory only")
    await desk.told("craftastic:exited")
    assert desk.gateway.events[-1]["payload"] == {"code": 126, "reason": "no_memory"}
    own = str(Path(desk.rig.run_dir).parent)
    assert await desk.run("python3", "-c", FIND, "", own, stdin=CANARY.encode()) == ""
    await desk.type("echo al''ive")
    await desk.shows("\nalive")


@pytest.fixture
def run_gateway() -> Iterator[RunGateway]:
    with open_gateway() as gateway:
        yield gateway


async def test_the_private_folder_is_used_where_it_alone_is_in_memory(
    run_gateway: RunGateway,
) -> None:
    folder = Path("/dev/shm") / f"craftastic-test-{secrets.token_hex(6)}"
    folder.mkdir(mode=0o700)
    desk = await desk_in(folder, run_gateway)
    memory = f"/var/tmp/craftastic-{run_gateway.session}"
    used = f"{desk.rig.run_dir}/memory-{run_gateway.session}"
    try:
        script = 'echo "$PLACE"; cat "$PLACE"/*/.credentials.json; sleep 1000'
        env = {**desk.launch.env, "PLACE": memory}
        await desk.start(argv=("sh", "-c", script), memory=memory, env=env, **with_login(desk))
        await desk.shows(used, f'{{"login": "{CANARY}"}}')
        assert not there(memory)
    finally:
        await desk.rig.end()
        await until(lambda: not there(used), "nothing is left in memory")
        shutil.rmtree(folder)


# ---- real sandboxes --------------------------------------------------------------------------


@pytest.fixture(params=REAL)
async def real_desk(
    request: pytest.FixtureRequest, docker_network_if_needed: None, data_dir: Path
) -> AsyncIterator[Desk]:
    async for bench in benches(request, request.param, data_dir):
        sandbox = await bench.sandbox()
        place = (await bench.runtime.gateway_address(), bench.settings.gateway_port)
        gateway = RunGateway(str(uuid4()), f"token-{secrets.token_hex(16)}", place, GATEWAY_HOST)
        gateway.start()
        programs, work = f"{HOME}/.local/bin", f"{HOME}/work"
        make = 'mkdir -p "$1" "$2" && cat >"$1/fake-agent" && chmod 755 "$1/fake-agent"'
        text = (FAKES / "fake_agent.py").read_bytes()
        words = ["sh", "-c", make, "sh", programs, work]
        done = await bench.runtime.run(sandbox, words, stdin=text)
        assert done.exit_code == 0
        path = f"{programs}:/usr/local/bin:/usr/bin:/bin"
        launch = launch_of(gateway, f"{HOME}/.craftastic/agents/one", work, path)
        rig = Rig(bench.runtime, sandbox, "/run/craftastic")
        try:
            yield Desk(rig, gateway, launch.home, work, launch)
        finally:
            gateway.stop()


async def test_a_turn_in_a_real_sandbox_leaves_no_login_behind(real_desk: Desk) -> None:
    desk = real_desk
    await desk.start("ask permission: ls", **with_login(desk))
    [approval] = await desk.waits()
    desk.gateway.settle(approval, ALLOW)
    await desk.shows("● ran ls")
    await desk.type("model hello")
    await desk.shows("● you said hello")
    await desk.type("refresh login by rename")
    await until(lambda: "refreshed" in desk.gateway.files[LOGIN], "the server has the new login")
    await until(desk.is_idle, "it is idle")
    find = ["python3", "-c", FIND, "", HOME, "/run", "/tmp", "/var/tmp", "/dev/shm"]
    [found] = (await desk.run(*find, stdin=CANARY.encode())).splitlines()
    assert found.startswith(f"file {desk.launch.memory}/")

    await desk.type("exit 0")

    await desk.shows("Fake Agent ended (exit code 0)")
    assert await desk.run(*find, stdin=CANARY.encode()) == ""
    await desk.told("PermissionRequest", "PostToolUse", "Stop", "SessionEnd", "craftastic:exited")
    await desk.rig.tmux.kill(desk.rig.sandbox, "work-1")
    await desk.ended()
