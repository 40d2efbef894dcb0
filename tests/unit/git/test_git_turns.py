"""How much git runs at once, and where what it printed is read."""

import threading
from uuid import uuid4

import anyio
import pytest

from craftastic.git._refusals import GitBusy
from craftastic.git._turns import READ_AT_ONCE_BYTES, Reading, Turns

pytestmark = pytest.mark.anyio


async def test_few_run_at_once_in_an_environment_and_for_a_user() -> None:
    turns = Turns(per_environment=1, per_user=2, wait_s=0.05)
    user, other = uuid4(), uuid4()
    first, second, third = uuid4(), uuid4(), uuid4()

    async with turns.take(first, user), turns.take(second, user):
        for environment, who in ((first, other), (third, user)):
            with pytest.raises(GitBusy):
                async with turns.take(environment, who):
                    pass
        async with turns.take(third, other):
            pass
    async with turns.take(first, user):
        pass

    assert turns._places == {}


async def test_whoever_waits_gets_the_turn_that_becomes_free() -> None:
    turns = Turns(per_environment=1, per_user=1, wait_s=30)
    environment, user = uuid4(), uuid4()
    had = anyio.Event()

    async def wait() -> None:
        async with turns.take(environment, user):
            had.set()

    async with anyio.create_task_group() as tasks:
        async with turns.take(environment, user):
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert not had.is_set()
        with anyio.fail_after(5):
            await had.wait()


async def test_a_cancelled_wait_takes_no_turn() -> None:
    turns = Turns(per_environment=1, per_user=1, wait_s=30)
    environment, user = uuid4(), uuid4()

    async def wait() -> None:
        async with turns.take(environment, user):
            raise AssertionError

    async with turns.take(environment, user), anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()

    assert turns._places == {}


async def test_much_is_read_in_few_other_threads() -> None:
    reading, here = Reading(), threading.get_ident()
    together = threading.Barrier(2)
    free: list[float] = []

    def work() -> int:
        together.wait(10)
        free.append(reading.threads.available_tokens)
        return threading.get_ident()

    async def read() -> None:
        assert await reading.run(READ_AT_ONCE_BYTES + 1, work) != here

    assert await reading.run(READ_AT_ONCE_BYTES, threading.get_ident) == here
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(read)
    assert len(free) == 4
    assert reading.threads.total_tokens == 2
