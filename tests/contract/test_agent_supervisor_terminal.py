"""The first process of an agent session's pane: the terminal, and how everything ends."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from craftastic.agent_runs.programs import LaunchFile
from craftastic.runtimes.base import RunResult, SandboxRef, SandboxSpec
from craftastic.tmux.service import BadSessionProgram
from tests.fakes.host_runtime import HostRuntime
from tests.fakes.supervisor_rig import (
    CANARY,
    Desk,
    desk_at,
    foreground_of,
    is_dead,
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


# ---- the terminal ----------------------------------------------------------------------------


async def test_the_cli_owns_its_terminal(desk: Desk) -> None:
    await desk.start()
    await desk.shows("Welcome")
    assert int(await foreground_of(desk)) == await desk.agent()
    await desk.rig.control("resize-window", "-t", "=work-1:", "-x", "101", "-y", "33")
    await desk.type("size")
    await desk.shows("● 101x33")
    await desk.type("work 1")
    await desk.shows("waits for go-1")
    await desk.key("C-c")
    await desk.shows("Interrupted by user")
    await desk.rig.control("set-buffer", "say one\ntwo")
    await desk.rig.control("paste-buffer", "-p", "-t", "=work-1:")
    await desk.shows("> say one⏎two")
    await desk.key("Enter")
    await desk.shows("● one\ntwo")


@pytest.mark.parametrize("keys", ["suspend", "C-z"])
async def test_an_agent_that_stops_itself_is_continued(desk: Desk, keys: str) -> None:
    await desk.start()
    await desk.shows("Welcome")
    if keys == "C-z":
        await desk.key(keys)
    else:
        await desk.type(keys)
        await desk.shows("● back again")
    await desk.type("say hello")
    await desk.shows("● hello")


async def test_keys_of_a_plain_terminal_reach_the_cli_alone(desk: Desk) -> None:
    script = (
        'trap "echo caught" INT; echo ready; while :; do read -r line && echo "got $line"; done'
    )
    await desk.start(argv=("sh", "-c", script))
    await desk.shows("ready")
    await desk.key("C-c")
    await desk.shows("caught")
    await desk.key("C-z")
    await desk.type("on")
    await desk.shows("got on")


async def test_after_the_end_a_login_shell_goes_on_with_a_sane_terminal(desk: Desk) -> None:
    await desk.start("crash")

    await desk.shows("[Fake Agent ended (SIGKILL). This shell goes on here. To go on with the")
    assert "in the middle" not in await desk.screen()
    conversation = desk.gateway.events[1]["payload"]["session_id"]
    await desk.shows(f"conversation: fake-agent --resume {conversation}]", "Welcome")
    modes = "#{alternate_on}#{mouse_any_flag}#{cursor_flag}"
    told = await desk.rig.control("display-message", "-p", "-t", "=work-1:", modes)
    assert told.strip() == "001"
    await desk.type("stty -a | tr ';' '\\n' | grep -cE ' (icanon|echo|isig)'; shopt login_shell")
    await desk.shows("login_shell")
    assert "-icanon" not in await desk.screen()
    await desk.type("sleep 1000")

    async def sleeps() -> bool:
        shown = ("display-message", "-p", "-t", "=work-1:", "#{pane_current_command}")
        return await desk.rig.control(*shown) == "sleep\n"

    await until(sleeps, "it is in the foreground")
    await desk.key("C-z")
    await desk.shows("Stopped")
    await desk.type("kill %1; wait %1; echo $0 $PWD")
    await desk.shows(f"-bash {desk.cwd}")
    await desk.told("craftastic:exited")
    assert desk.gateway.events[-1]["payload"] == {"signal": 9}
    await desk.type("exit")
    await desk.ended()


async def test_what_was_typed_for_the_agent_is_nothing_for_the_shell(desk: Desk) -> None:
    await desk.start(argv=("sh", "-c", "echo ready; while [ ! -e go ]; do sleep 0.01; done"))
    await desk.shows("ready")
    await desk.type("echo ty''ped")
    await desk.shows("echo ty''ped")
    (Path(desk.cwd) / "go").touch()
    await desk.shows("Fake Agent ended (exit code 0)")

    await desk.type("echo al''ive")

    await desk.shows("\nalive")
    assert "\ntyped" not in await desk.screen()


async def test_a_child_that_the_agent_leaves_behind_does_not_hold_the_terminal(desk: Desk) -> None:
    script = "cat >/dev/null & echo left; exec sleep 0"
    await desk.start(argv=("bash", "-ic", script))
    await desk.shows("Fake Agent ended (exit code 0)")

    await desk.type("echo al''ive")

    await desk.shows("\nalive")


async def test_the_files_mode_of_the_agent_is_the_sandboxs(desk: Desk) -> None:
    expected = await desk.run("sh", "-c", "umask")
    await desk.start(argv=("sh", "-c", "umask; sleep 1000"))
    await desk.shows(expected.strip())


async def test_no_zombie_is_left(desk: Desk) -> None:
    await desk.start("exit 0")
    await desk.shows("Fake Agent ended")
    await desk.type("echo al''ive")
    await desk.shows("\nalive")

    supervisor = str(await desk.pid())

    async def all_are_reaped() -> bool:
        told = await desk.run("ps", "-o", "stat=", "--ppid", supervisor)
        return told != "" and "Z" not in told

    await until(all_are_reaped, "the shell is the only child")


async def test_a_command_that_is_missing_is_told_and_a_shell_goes_on(desk: Desk) -> None:
    await desk.start(argv=("no-such-agent",), **with_login(desk))

    await desk.shows("Fake Agent is not here.", "Get it.")
    await desk.told("craftastic:missing")
    assert desk.gateway.names == ["craftastic:missing"]
    assert not there(desk.launch.memory)
    await desk.type("echo al''ive")
    await desk.shows("\nalive")
    assert not await desk.is_idle()


async def test_a_program_that_cannot_be_run_is_told_and_a_shell_goes_on(desk: Desk) -> None:
    broken = Path(desk.cwd) / "broken"
    broken.write_text("nothing")
    broken.chmod(0o755)
    await desk.start(argv=(str(broken),))

    await desk.shows("Fake Agent could not be started: Exec format error.")
    await desk.told("craftastic:exited")
    assert desk.gateway.events[-1]["payload"] == {"code": 126, "reason": "ENOEXEC"}
    await desk.type("echo al''ive")
    await desk.shows("\nalive")


# ---- the end ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill-session", "TERM", "HUP", "KILL"])
async def test_with_the_pane_the_agent_and_what_is_in_memory_end(desk: Desk, how: str) -> None:
    await desk.start("work 1", **with_login(desk))
    await desk.shows("waits for go-1")
    agent, supervisor = await desk.agent(), await desk.pid()
    memory = desk.launch.memory
    assert there(memory)

    if how == "kill-session":
        await desk.rig.tmux.kill(desk.rig.sandbox, "work-1")
    else:
        await desk.run("kill", f"-{how}", str(supervisor))

    async def both_ended() -> bool:
        return await is_dead(desk, agent) and await is_dead(desk, supervisor)

    await until(both_ended, "the agent and its supervisor have ended")
    await until(lambda: not there(memory), "nothing is left in memory")
    await desk.ended()
    if how != "KILL":
        assert desk.gateway.names[-1] == "craftastic:exited"
        assert not there(desk.socket)


async def test_an_agent_that_does_not_listen_is_ended_all_the_same(desk: Desk) -> None:
    await desk.start(
        argv=("sh", "-c", "trap '' HUP TERM INT; echo ready; while :; do sleep 1; done")
    )
    await desk.shows("ready")
    agent = await desk.agent()

    await desk.rig.tmux.kill(desk.rig.sandbox, "work-1")

    await until(lambda: is_dead(desk, agent), "the agent has ended")


async def test_a_session_that_is_started_again_at_once_is_not_hurt_by_its_old_end(
    desk: Desk,
) -> None:
    slow = "trap '' HUP; echo ready; while :; do sleep 0.1; done"
    await desk.start(argv=("sh", "-c", slow), **with_login(desk))
    await desk.shows("ready")
    old = await desk.pid()
    await desk.rig.tmux.kill(desk.rig.sandbox, "work-1")

    await desk.start("env", nonce="second", **with_login(desk))

    await desk.shows("login file:", CANARY)
    await until(lambda: is_dead(desk, old), "the old supervisor has ended")
    await desk.type("env")
    await desk.told("UserPromptSubmit", "Stop", "UserPromptSubmit", "Stop")

    async def shown_twice() -> bool:
        return (await desk.screen()).count("login file:") == 2

    await until(shown_twice, "the login is still there")
    assert await desk.is_idle()
    order = [(one["nonce"] == "second", one["event"]) for one in desk.gateway.events]
    assert order.index((False, "craftastic:exited")) < order.index((True, "craftastic:started"))


# ---- programs that do not arrive -------------------------------------------------------------


class Cutting(HostRuntime):
    """Passes on only the beginning of what a command is to read."""

    kept = 0

    async def spawn(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
    ) -> RunResult:
        return await super().spawn(sandbox, argv, stdin=stdin[: self.kept], timeout_s=timeout_s)


@pytest.mark.parametrize("kept", [0, 5, 8, 5000])
async def test_a_shell_comes_up_when_the_program_does_not_arrive(kept: int, data_dir: Path) -> None:
    runtime = Cutting(data_dir)
    runtime.kept = kept
    sandbox = await runtime.create(SandboxSpec(uuid4(), uuid4(), 1, "host"))
    with open_gateway() as gateway:
        desk = desk_at(Rig(runtime, sandbox, runtime.run_dir(sandbox)), gateway, data_dir)
        try:
            await desk.start("say hello")
            await desk.shows("the agent was not started, its program did not arrive")
            await desk.type("echo al''ive $0")
            await desk.shows("\nalive -bash")
        finally:
            await desk.rig.end()


async def test_a_pane_that_is_started_again_becomes_a_shell_at_once(desk: Desk) -> None:
    await desk.start("say hello")
    await desk.shows("● hello")

    await desk.rig.control("respawn-pane", "-k", "-t", "=work-1:")

    await desk.shows("its program did not arrive")
    await desk.type("echo al''ive")
    await desk.shows("\nalive")


async def test_a_program_that_fails_leaves_a_shell(desk: Desk) -> None:
    text = (
        "import signal\nfor one in (2, 3, 20, 21, 22): signal.signal(one, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {1, 15, 17})\nraise ValueError(LAUNCH)\n"
    )
    program = json.dumps({"program": text, "launch": "secret"}).encode()
    await desk.rig.tmux.ensure(desk.rig.sandbox, "plain-1", "/tmp")
    await desk.rig.tmux.ensure(desk.rig.sandbox, "work-1", "/tmp", program=program)

    await desk.shows("could not be started here", "(ValueError)")
    assert "secret" not in await desk.screen()
    await desk.type("echo al''ive")
    await desk.shows("\nalive")
    told = await desk.rig.control("list-panes", "-a", "-F", "#{pane_pid}")
    signals = [
        await desk.run("grep", "-E", "Sig(Ign|Blk)", f"/proc/{pid}/status") for pid in told.split()
    ]
    assert len(signals) == 2
    assert signals[0] == signals[1]


async def test_a_program_is_bounded_and_excludes_variables(desk: Desk) -> None:
    ensure = desk.rig.tmux.ensure
    with pytest.raises(BadSessionProgram):
        await ensure(desk.rig.sandbox, "work-1", "/tmp", program=b"x" * ((4 << 20) + 1))
    with pytest.raises(ValueError, match="either"):
        await ensure(desk.rig.sandbox, "work-1", "/tmp", program=b"{}", variables={"A": "b"})
    assert await desk.is_gone()


async def test_the_largest_launch_arrives(desk: Desk) -> None:
    prompt = "say " + "é" * 60_000
    files = tuple(LaunchFile(f"f/{n}", "ü" * 100_000) for n in range(9))
    await desk.start(prompt, files=(*desk.launch.files, *files))

    await desk.told("UserPromptSubmit", "Stop")
    assert await desk.run("stat", "-c", "%s %a", f"{desk.home}/f/8") == "200000 600\n"
