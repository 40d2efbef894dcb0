"""Typing into an agent's terminal, and looking at it: a real tmux, supervisor and CLI."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from craftastic.agent_runs._desk import Desk, Typed
from craftastic.runtimes.base import SandboxRef
from tests.fakes import supervisor_rig as supervised
from tests.fakes.host_runtime import HostRuntime
from tests.fakes.terminal_rig import until

NAME = "work-1"
KEYS = ("Enter",)


@pytest.fixture
async def desk(data_dir: Path) -> AsyncIterator[supervised.Desk]:
    async with supervised.open_desk(data_dir) as one:
        yield one


@pytest.fixture
def hand(desk: supervised.Desk) -> Desk:
    """Give what types into the agent's terminal."""
    return Desk(desk.rig.runtime, desk.rig.sandbox, desk.rig.tmux.socket(), desk.rig.run_dir)


async def typed(
    hand: Desk, desk: supervised.Desk, text: str, keys: tuple[str, ...] = KEYS
) -> Typed:
    return await hand.type_text(UUID(desk.launch.session), NAME, text, keys, uuid4())


async def test_a_text_is_typed_into_an_idle_agent_and_taken_as_one_prompt(
    desk: supervised.Desk, hand: Desk
) -> None:
    await desk.start()
    await until(desk.is_idle, "the agent is idle")

    assert (
        await typed(hand, desk, "say $(id) `id` #{pane_pid} 'é 漢字'; C-c\n\tEnter") is Typed.DONE
    )

    await desk.told("UserPromptSubmit", "Stop")
    said = next(one for one in desk.gateway.events if one["event"] == "UserPromptSubmit")
    assert said["payload"]["prompt"].splitlines()[0] == "say $(id) `id` #{pane_pid} 'é 漢字'; C-c"
    assert desk.gateway.names.count("UserPromptSubmit") == 1
    assert await desk.rig.control("list-buffers") == ""


async def test_nothing_is_typed_while_a_permission_is_asked_for(
    desk: supervised.Desk, hand: Desk
) -> None:
    await desk.start("ask permission: touch made")
    await desk.waits()

    assert await typed(hand, desk, "y") is Typed.BUSY

    assert "touch made" in await desk.screen()
    assert len(desk.gateway.waiting()) == 1
    assert not supervised.there(f"{desk.cwd}/made")


async def test_nothing_is_typed_into_the_shell_that_follows_an_agent(
    desk: supervised.Desk, hand: Desk
) -> None:
    await desk.start("exit 3")
    await desk.told("craftastic:exited")

    assert await typed(hand, desk, "touch made") is Typed.BUSY
    assert await hand.last_event(UUID(desk.launch.session), NAME) == "craftastic:exited"

    async def shell() -> bool:
        return (await hand.panes())[NAME].command == "bash"

    await until(shell, "the shell is in front")
    assert not supervised.there(f"{desk.cwd}/made")


async def test_nothing_is_typed_where_no_supervisor_answers(
    desk: supervised.Desk, hand: Desk
) -> None:
    await desk.rig.tmux.ensure(desk.rig.sandbox, NAME, desk.cwd)

    assert await typed(hand, desk, "touch made") is Typed.GONE
    assert await hand.last_event(uuid4(), NAME) is None
    assert not supervised.there(f"{desk.cwd}/made")


async def test_what_tmux_does_not_take_is_refused_or_unknown_and_leaves_no_buffer(
    desk: supervised.Desk, hand: Desk
) -> None:
    await desk.start()
    await until(desk.is_idle, "the agent is idle")
    session = UUID(desk.launch.session)

    lost = await hand.type_text(session, "no-such-session", "say a", KEYS, uuid4())
    assert lost is Typed.UNKNOWN
    assert await desk.rig.control("list-buffers") == ""
    elsewhere = Desk(hand.runtime, hand.sandbox, f"{hand.run_dir}/none.sock", hand.run_dir)
    assert await typed(elsewhere, desk, "say a") is Typed.REFUSED


async def test_a_sandbox_that_is_gone_leaves_it_unknown_whether_it_was_typed(
    desk: supervised.Desk, hand: Desk
) -> None:
    assert isinstance(hand.runtime, HostRuntime)
    gone = Desk(hand.runtime, SandboxRef("host", str(uuid4())), hand.tmux_socket, hand.run_dir)

    assert await typed(gone, desk, "say a") is Typed.UNKNOWN


async def test_the_program_in_front_and_the_title_are_seen(
    desk: supervised.Desk, hand: Desk
) -> None:
    await desk.start("work 1")
    await desk.told("UserPromptSubmit")

    async def seen() -> bool:
        pane = (await hand.panes())[NAME]
        return (
            pane.command not in {"bash", ""} and pane.title.startswith("\u2802") and not pane.dead
        )

    await until(seen, "the agent works")


async def test_a_key_interrupts_what_an_agent_does(desk: supervised.Desk, hand: Desk) -> None:
    await desk.start("work 1")
    await desk.told("UserPromptSubmit")

    assert await hand.press(NAME, ("Escape",))
    assert not await hand.press("no-such-session", ("Escape",))

    await desk.shows("nterrupted")
