"""The first process of an agent session's pane: what it tells, asks and takes from hooks."""

import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tests.fakes.supervisor_rig import (
    ALLOW,
    ASK,
    DENY,
    FIND,
    Desk,
    foreground_of,
    names_in,
    open_desk,
)
from tests.fakes.terminal_rig import until

FLOOD = """
import json, os, socket, sys
os.chdir(os.path.dirname(sys.argv[1]))
name = os.path.basename(sys.argv[1])
kept = []
for _ in range(1000):
    one = socket.socket(socket.AF_UNIX)
    one.connect(name)
    kept.append(one)
    if len(kept) > 900:
        kept.pop(0)
one = socket.socket(socket.AF_UNIX)
one.connect(name)
one.sendall(b'{"op": "state"}\\n')
print(json.loads(one.makefile().readline())["connections"])
one = socket.socket(socket.AF_UNIX)
one.connect(name)
sent = 0
try:
    while sent < 1 << 30:
        sent += one.send(b"x" * 65536)
except OSError:
    pass
print(sent < 64 << 20)
"""
"""Connects a thousand times and tells how many are kept; sends a gigabyte to whoever takes it."""

DEPTHS = (40, 100, *range(940, 1010, 10), 5000)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.fixture
async def desk(data_dir: Path) -> AsyncIterator[Desk]:
    async with open_desk(data_dir) as one:
        yield one


# ---- a turn ----------------------------------------------------------------------------------


async def test_an_agent_starts_with_its_prompt_and_tells_what_it_does(desk: Desk) -> None:
    await desk.start("say hello")

    await desk.shows("Welcome to Fake Agent", "● hello")
    await desk.told("Stop")
    assert desk.gateway.names == ["craftastic:started", "SessionStart", "UserPromptSubmit", "Stop"]
    assert [one["seq"] for one in desk.gateway.events] == [1, 2, 3, 4]
    assert {one["nonce"] for one in desk.gateway.events} == {desk.launch.nonce}
    stop = desk.gateway.events[-1]
    assert stop["payload"]["last_assistant_message"] == "hello"
    assert stop["at"] >= desk.gateway.events[0]["at"]
    await desk.type("say again")
    await desk.shows("● again")
    await desk.type("model one two")
    await desk.shows("● you said one two")
    assert desk.gateway.unauthorized == 0


async def test_the_token_is_in_the_environment_of_the_cli_and_nowhere_else(desk: Desk) -> None:
    await desk.rig.tmux.ensure(desk.rig.sandbox, "zero-1", "/tmp")
    await desk.start("env")
    agent = await desk.agent()
    await desk.shows(f"ANTHROPIC_API_KEY={desk.gateway.token}")

    own = str(Path(desk.rig.run_dir).parent)
    found = await desk.run(
        "python3", "-c", FIND, str(agent), own, "/dev/shm", stdin=desk.gateway.token.encode()
    )
    assert found == ""
    for scope in (["-g"], ["-t", "=work-1:"], ["-t", "=zero-1:"]):
        assert desk.gateway.token not in await desk.rig.control("show-environment", *scope)
    started = await desk.rig.control("list-panes", "-a", "-F", "#{pane_start_command}")
    assert "/usr/bin/python3" in started
    assert desk.gateway.token not in started
    assert [name for name in names_in(desk.rig.run_dir) if "program" in name] == []


async def test_the_search_finds_what_it_is_there_to_find(desk: Desk) -> None:
    await desk.start("say hello")
    await desk.shows("● hello")
    (Path(desk.cwd) / "left").write_text(desk.gateway.token)

    found = await desk.run("python3", "-c", FIND, "", desk.cwd, stdin=desk.gateway.token.encode())

    assert f"process {await desk.agent()} environ" in found
    assert f"file {desk.cwd}/left" in found


async def test_somebody_who_comes_later_changes_nothing(desk: Desk) -> None:
    await desk.start("say hello")
    await desk.shows("● hello")

    await desk.start("say something else")

    assert desk.gateway.names.count("craftastic:started") == 1
    assert "something else" not in await desk.screen()
    assert await desk.rig.tmux.names(desk.rig.sandbox) == {"work-1"}


# ---- the gateway -----------------------------------------------------------------------------


async def test_what_happens_while_the_gateway_is_away_arrives_in_order(desk: Desk) -> None:
    await desk.start()
    await desk.told("SessionStart")
    desk.gateway.stop()
    for word in ("one", "two", "three"):
        await desk.type(f"say {word}")
        await desk.shows(f"● {word}")
    assert (await desk.say(op="state"))["queued"] >= 4

    desk.gateway.start()

    await desk.told(*["UserPromptSubmit", "Stop"] * 3)
    assert [one["seq"] for one in desk.gateway.events] == list(range(1, 9))
    stops = [one for one in desk.gateway.events if one["event"] == "Stop"]
    assert [one["payload"]["last_assistant_message"] for one in stops] == ["one", "two", "three"]


async def test_an_event_whose_answer_is_lost_comes_again_and_counts_once(desk: Desk) -> None:
    desk.gateway.loses = 5
    await desk.start("say hello")

    await desk.told("SessionStart", "Stop")

    assert desk.gateway.deliveries > len(desk.gateway.events)
    assert [one["seq"] for one in desk.gateway.events] == [1, 2, 3, 4]


async def test_a_gateway_that_is_in_trouble_is_asked_again(desk: Desk) -> None:
    desk.gateway.refuses = 503
    await desk.start("say hello")
    await desk.shows("● hello")
    assert desk.gateway.names == []

    desk.gateway.refuses = 0

    await desk.told("craftastic:started", "SessionStart", "UserPromptSubmit", "Stop")


async def test_an_event_that_the_gateway_cannot_bear_does_not_keep_back_others(desk: Desk) -> None:
    desk.gateway.refuses = 500
    await desk.start("say hello")
    await until(lambda: desk.gateway.refused > 35, "the first one was given up")

    desk.gateway.refuses = 0

    await desk.told("UserPromptSubmit", "Stop")
    assert "craftastic:started" not in desk.gateway.names


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_run_that_is_over_tells_nothing_more_and_the_agent_goes_on(
    desk: Desk, status: int
) -> None:
    desk.gateway.refuses = status
    await desk.start("say hello")
    await desk.shows("● hello")

    async def is_over() -> bool:
        return (await desk.say(op="state"))["over"]

    await until(is_over, "the supervisor knows that the run is over")
    desk.gateway.refuses = 0
    await desk.type("ask permission: ls")
    await desk.shows("Do you want to allow it?")
    await desk.type("y")
    await desk.shows("Allowed in the terminal", "● ran ls")
    assert desk.gateway.names == []


# ---- asking ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "shown"),
    [(ALLOW, ("Allowed by PermissionRequest", "● ran ls")), (DENY, ("Denied by", "not today"))],
)
async def test_an_answer_from_outside_decides(
    desk: Desk, answer: str, shown: tuple[str, str]
) -> None:
    await desk.start("ask permission: ls")
    [approval] = await desk.waits()
    assert desk.gateway.asks[approval]["event"]["payload"]["tool_input"] == {"command": "ls"}
    assert not await desk.is_idle()

    desk.gateway.settle(approval, answer)

    await desk.shows(*shown)
    await desk.told("PermissionRequest", "Stop")
    await until(desk.is_idle, "it waits for a prompt")


async def test_whoever_answers_in_the_terminal_ends_the_ask_when_it_is_settled(desk: Desk) -> None:
    await desk.start("ask permission: ls")
    [approval] = await desk.waits()
    await desk.key("y")
    await desk.shows("Allowed in the terminal", "● ran ls")
    assert (await desk.say(op="state"))["asks"] == 1

    desk.gateway.settle(approval, "")

    async def nothing_waits() -> bool:
        return (await desk.say(op="state"))["asks"] == 0

    await until(nothing_waits, "no hook waits")
    await until(desk.is_idle, "it waits for a prompt")


async def test_an_ask_outlives_a_restart_of_the_gateway(desk: Desk) -> None:
    await desk.start("ask permission: ls")
    [approval] = await desk.waits()
    await until(lambda: desk.gateway.polls, "it asks for the answer")
    desk.gateway.stop()
    desk.gateway.start()
    await until(lambda: desk.gateway.polls > 1, "it asks for the answer again")

    desk.gateway.settle(approval, ALLOW)

    await desk.shows("Allowed by PermissionRequest hook", "● ran ls")


async def test_an_ask_that_begins_while_the_gateway_is_away_is_asked_later(desk: Desk) -> None:
    await desk.start()
    await desk.told("SessionStart")
    desk.gateway.stop()
    await desk.type("ask permission: ls")
    await desk.shows("Do you want to allow it?")
    desk.gateway.start()

    [approval] = await desk.waits()
    desk.gateway.settle(approval, ALLOW)

    await desk.shows("Allowed by PermissionRequest hook")


async def test_several_asks_wait_at_once_and_each_gets_its_own_answer(desk: Desk) -> None:
    await desk.start()
    await desk.told("SessionStart")
    script = (
        'for n in 1 2 3; do echo "{\\"n\\": $n}" | "$0" PermissionRequest >"$1/a$n" & done; wait'
    )
    env = f"CRAFTASTIC_AGENT_ASK=PermissionRequest CRAFTASTIC_AGENT_SOCKET={desk.socket}".split()
    hook = f"{desk.home}/hook"

    async def settle() -> None:
        for approval in await desk.waits(3):
            number = desk.gateway.asks[approval]["event"]["payload"]["n"]
            desk.gateway.settle(approval, f"answer {number}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(settle)
        await desk.run("env", *env, "sh", "-c", script, hook, desk.cwd)

    for number in (1, 2, 3):
        assert (Path(desk.cwd) / f"a{number}").read_text() == f"answer {number}"


async def test_an_ask_ends_with_the_agent(desk: Desk) -> None:
    await desk.start("ask permission: ls")
    await desk.waits()
    await desk.run("kill", "-9", str(await desk.agent()))

    await desk.shows("Fake Agent ended (SIGKILL)")
    assert (await desk.say(op="state"))["asks"] == 0


# ---- idle ------------------------------------------------------------------------------------


async def test_it_is_idle_only_when_the_agent_itself_waits_for_a_prompt(desk: Desk) -> None:
    await desk.start()
    await until(desk.is_idle, "it is idle after its start")
    await desk.type("work 1")
    await desk.told("PreToolUse")
    assert await desk.say(op="idle?") == {"idle": False, "last": "PreToolUse"}
    await desk.say(op="event", event="Stop", payload={"agent_id": "sub-1"})
    assert not await desk.is_idle()

    (Path(desk.cwd) / "go-1").touch()

    await desk.shows("● worked 1 steps")
    await until(desk.is_idle, "it is idle after the turn")


async def test_a_shell_is_never_idle_and_an_agent_that_is_started_there_is(desk: Desk) -> None:
    await desk.start("exit 3")
    await desk.shows("Fake Agent ended (exit code 3)")
    assert not await desk.is_idle()
    # A report that comes late, or from anywhere, does not turn a shell into an agent.
    await desk.say(op="event", event="Stop", payload={})
    assert not await desk.is_idle()
    await desk.told("craftastic:exited")
    assert "Stop" not in desk.gateway.names

    command = shlex.join([desk.program, "--settings", f"{desk.home}/settings.json", "say hi"])
    await desk.type(command)
    await desk.shows("● hi")
    await until(desk.is_idle, "the new one is idle")
    await desk.told("craftastic:exited", "SessionStart", "UserPromptSubmit", "Stop")
    await desk.run("kill", "-9", await foreground_of(desk))
    await desk.type("echo al''ive")
    await desk.shows("\nalive")
    assert not await desk.is_idle()


# ---- hostile programs ------------------------------------------------------------------------


async def test_a_program_that_floods_the_socket_costs_little_and_hinders_nobody(desk: Desk) -> None:
    await desk.start("say hello")
    await desk.shows("● hello")

    kept, refused = (await desk.run("python3", "-c", FLOOD, desk.socket)).split()

    assert 1 < int(kept) <= 64
    assert refused == "True"
    assert (await desk.say(op="state"))["failed"] == ""
    status = await desk.run("cat", f"/proc/{await desk.pid()}/status")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 100_000
    await desk.type("ask permission: ls")
    [approval] = await desk.waits()
    desk.gateway.settle(approval, ALLOW)
    await desk.shows("Allowed by PermissionRequest hook")


async def test_no_hook_can_say_what_only_the_supervisor_says(desk: Desk) -> None:
    await desk.start("say hello")
    await desk.told("Stop")
    bad = ["craftastic:exited", "", "a b", "x" * 200, 5, None, "a\nb", "a:b"]
    for name in bad:
        assert await desk.say(op="event", event=name, payload={}) == {}
    for said in ({"op": "event"}, {"op": ["event"]}, [], "x", {}, {"op": "nothing"}):
        told = await desk.run("python3", "-c", ASK, desk.socket, stdin=json.dumps(said).encode())
        assert told == "{}\n"
    deep = [b'{"op":"event","event":"Deep","payload":{"a":%s}}' % nested(n) for n in DEPTHS]
    for text in (b"{", b"[" * 100_000, b"\xff\xfe", b"", *deep):
        told = await desk.run("python3", "-c", ASK, desk.socket, stdin=text)
        assert told in {"{}\n", '{"answer": ""}\n'}

    await desk.say(op="event", event="Last", payload="no object")

    await desk.told("Stop", "Last")
    assert desk.gateway.events[-1]["payload"] == {}
    assert set(desk.gateway.names[4:-1]) == {"Deep"}
    shallow, *others = [one["payload"] for one in desk.gateway.events[4:-1]]
    assert shallow != {}
    assert [one for one in others if one] == []
    assert (await desk.say(op="state"))["failed"] == ""
