"""Two things of a start side by side: neither is left alone, and what failed is told as it is."""

import anyio
import pytest

from craftastic.runtimes._beside import beside
from craftastic.runtimes.base import RuntimeUnavailable, SandboxGone


async def test_both_are_done_at_the_same_time() -> None:
    here, there = anyio.Event(), anyio.Event()

    async def first() -> str:
        here.set()
        await there.wait()
        return "done"

    async def other() -> None:
        there.set()
        await here.wait()

    with anyio.fail_after(30):
        assert await beside(first, other) == "done"


async def test_a_failure_of_either_is_raised_as_it_is_after_both_have_ended() -> None:
    ended: list[str] = []

    async def fails() -> int:
        raise SandboxGone("the first")

    async def ends() -> int:
        await anyio.lowlevel.checkpoint()
        ended.append("yes")
        return 1

    with pytest.raises(SandboxGone, match="the first"):
        await beside(fails, ends)
    with pytest.raises(SandboxGone, match="the first"):
        await beside(ends, fails)
    assert ended == ["yes", "yes"]


async def test_of_two_failures_the_first_ones_is_raised() -> None:
    async def fails() -> int:
        await anyio.lowlevel.checkpoint()
        raise SandboxGone("the first")

    async def other_fails() -> None:
        raise RuntimeUnavailable("the other")

    with pytest.raises(SandboxGone, match="the first"):
        await beside(fails, other_fails)


async def test_cancellation_ends_both() -> None:
    ended: list[str] = []

    async def waits() -> int:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("yes")
        return 1

    with anyio.move_on_after(0.01):
        await beside(waits, waits)

    assert ended == ["yes", "yes"]
