"""What is at work in a sandbox besides shells that wait, over every runtime with processes."""

import pytest

from craftastic.runtimes.base import SandboxGone, SandboxRef
from craftastic.tmux.service import TmuxService
from tests.contract.conftest import Bench, until


class Place:
    """One sandbox with tmux."""

    def __init__(self, bench: Bench, sandbox: SandboxRef) -> None:
        self.bench, self.sandbox = bench, sandbox
        self.tmux = TmuxService({bench.kind: bench.runtime}, 1000)

    async def type(self, session: str, command: str) -> None:
        socket = self.tmux.socket()
        argv = ["tmux", "-S", socket, "send-keys", "-t", f"={session}:", command, "Enter"]
        result = await self.bench.runtime.run(self.sandbox, argv)
        assert result.exit_code == 0, result.stderr

    async def at_work(self, *ignored: str) -> list[str]:
        return await self.tmux.at_work(self.sandbox, ignored)


@pytest.fixture
async def place(real: Bench) -> Place:
    place = Place(real, await real.sandbox())
    await place.tmux.ensure(place.sandbox, "one-1", "/tmp")
    await place.tmux.ensure(place.sandbox, "two-2", "/tmp")
    return place


async def test_shells_that_wait_are_not_at_work(place: Place) -> None:
    async def rests() -> bool:
        return await place.at_work() == []

    await until(rests, "the shells have started, and wait")


async def test_a_program_in_front_or_behind_is_at_work_until_it_ends(place: Place) -> None:
    await place.type("one-1", "sleep 1000")
    await place.type("two-2", "tail -f /dev/null &")

    async def both() -> bool:
        return await place.at_work() == ["sleep", "tail"]

    await until(both, "both programs are seen")
    await place.type("two-2", "kill %1")
    socket = place.tmux.socket()
    keys = ["tmux", "-S", socket, "send-keys", "-t", "=one-1:", "C-c"]
    await place.bench.runtime.run(place.sandbox, keys)

    async def rests() -> bool:
        return await place.at_work() == []

    await until(rests, "both have ended")


async def test_what_has_left_its_terminal_is_at_work(place: Place) -> None:
    await place.type("one-1", "setsid nohup sleep 1000 >/dev/null 2>&1 & disown; exit")

    async def left() -> bool:
        names = await place.tmux.names(place.sandbox)
        return names == {"two-2"} and await place.at_work() == ["sleep"]

    await until(left, "the program goes on without its session")


async def test_sessions_that_do_not_count_are_left_out_with_all_that_they_began(
    place: Place,
) -> None:
    await place.type("one-1", "sh -c 'sleep 1000; true'")

    async def seen() -> bool:
        return await place.at_work() == ["sh", "sleep"] or await place.at_work() == ["sleep"]

    await until(seen, "the program is seen")

    assert await place.at_work("one-1") == []
    assert "sleep" in await place.at_work("two-2")


async def test_hostile_names_are_only_names(place: Place) -> None:
    script = "cp \"$(command -v sleep)\" '/tmp/a) R 1 \t\"[x' && '/tmp/a) R 1 \t\"[x' 1000"
    await place.bench.runtime.spawn(
        place.sandbox, ["sh", "-c", f"({script}) >/dev/null 2>&1 & "], timeout_s=10
    )

    async def seen() -> bool:
        return any("a) R 1" in name for name in await place.at_work())

    await until(seen, "the program with the odd name is seen")
    assert all(name.isprintable() for name in await place.at_work())


async def test_what_the_sandbox_puts_in_the_way_changes_only_what_is_said_about_it(
    place: Place,
) -> None:
    fake = "printf '#!/bin/sh\\necho nonsense; exit 0\\n' > ~/.local/bin/$name"
    script = f"mkdir -p ~/.local/bin; for name in tmux python3; do {fake}; done"
    planted = await place.bench.runtime.run(
        place.sandbox, ["sh", "-c", f"{script}; chmod +x ~/.local/bin/*; command -v tmux"]
    )
    assert b"/.local/bin/tmux" in planted.stdout

    # Without the list of panes their shells are programs like any other.
    assert set(await place.at_work()) <= {"bash"}


async def test_a_sandbox_that_is_stopped_says_so(place: Place) -> None:
    await place.bench.runtime.stop(place.sandbox)

    with pytest.raises(SandboxGone):
        await place.at_work()
