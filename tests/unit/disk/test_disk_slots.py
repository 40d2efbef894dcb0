"""Who may look at disks: a few at once, and one of each owner."""

from uuid import uuid4

import anyio
import pytest

from craftastic.disk._slots import AtWork, DiskBusy, Slots

FOREVER = float("inf")
LONG_S = 30.0


async def test_an_owner_has_one_place_however_many_are_free() -> None:
    slots, owner = Slots(4), uuid4()

    async with slots.one(owner, FOREVER):
        with pytest.raises(DiskBusy):
            async with slots.one(owner, anyio.current_time() + 0.05):
                pass
        async with slots.one(uuid4(), anyio.current_time() + LONG_S):
            pass
    async with slots.one(owner, anyio.current_time() + LONG_S):
        pass


async def test_those_of_one_owner_who_wait_keep_no_place_from_others() -> None:
    slots, owner = Slots(2), uuid4()

    async def wait() -> None:
        async with slots.one(owner, FOREVER):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        async with slots.one(uuid4(), anyio.current_time() + LONG_S):
            pass
        tasks.cancel_scope.cancel()

    async with slots.one(owner, anyio.current_time() + LONG_S):  # what was cancelled holds nothing
        pass


async def test_whoever_finds_all_places_taken_is_told_so_in_time() -> None:
    slots = Slots(1)

    async with slots.one(uuid4(), FOREVER):
        with pytest.raises(DiskBusy) as refused:
            async with slots.one(uuid4(), anyio.current_time() + 0.05):
                pass

    assert refused.value.code == "DISK_BUSY"
    async with slots.one(uuid4(), anyio.current_time() + LONG_S):
        pass


async def test_the_reconciler_has_so_many_owners_each_once_and_hears_of_every_end() -> None:
    at_work, (one, two, three) = AtWork(2), (uuid4(), uuid4(), uuid4())

    assert [at_work.begin(each) for each in (one, one, two, three)] == [True, False, True, False]
    at_work.end(one)
    with anyio.fail_after(LONG_S):
        await at_work.changed(FOREVER)  # though it ended before

    assert at_work.begin(three)
    assert at_work.owners == {two, three}
