"""Environments over real databases and a runtime in memory."""

from collections.abc import AsyncIterator
from uuid import uuid4

import anyio
import pytest

from craftastic.database import Database
from craftastic.environments.service import (
    CloneStatus,
    Desired,
    EnvironmentInError,
    EnvironmentNameTaken,
    EnvironmentNotFound,
    EnvironmentService,
    EnvironmentStatus,
    TooManyEnvironments,
)
from craftastic.errors import InvalidInput
from craftastic.runtimes.base import SandboxSpec
from craftastic.runtimes.memory import Call, MemoryRuntime, Process
from craftastic.worktrees.service import CloneFailed
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import (
    Workshop,
    build,
    opened,
    rows,
    settings_of,
    settled,
    statements,
    until,
)

URL = "https://github.com/a/b"


async def clones(process: Process, _call: Call) -> None:
    """Play a clone that ends well."""
    await process.stdin.read()
    await process.stderr.write(b"Receiving objects:  50% (1/2)\r")
    await process.stdout.write(b"default main\nfound yes\ndone yes\n")


async def refuses(process: Process, _call: Call) -> None:
    """Play a clone that fails."""
    await process.stdin.read()
    await process.stderr.write(b"fatal: repository not found\n")


@pytest.fixture
def runtime() -> MemoryRuntime:
    return MemoryRuntime(play=clones)


@pytest.fixture
async def shop(
    database: Database, clock: FakeClock, runtime: MemoryRuntime
) -> AsyncIterator[Workshop]:
    async with opened(build(database, clock, runtime)) as shop:
        yield shop


async def test_an_environment_without_a_repository_runs_when_create_returns(shop: Workshop) -> None:
    made = await shop.create()

    assert made.status is EnvironmentStatus.RUNNING
    assert made.sandbox_id is not None
    assert made.clone_status is CloneStatus.NONE
    assert made.progress is None
    assert made.reason is None


async def test_create_returns_while_the_clone_goes_on_and_ready_waits_for_it(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    may_end = anyio.Event()

    async def slow(process: Process, call: Call) -> None:
        await process.stderr.write(b"Receiving objects:  50% (1/2)\r")
        await may_end.wait()
        await clones(process, call)

    runtime.play = slow
    made = await shop.create(url=URL)

    async def shows_percent() -> bool:
        seen = await shop.environments.get_owned(shop.owner, made.id)
        return seen.progress is not None and seen.clone_status is CloneStatus.CLONING

    await until(shows_percent)
    may_end.set()
    ready = await shop.environments.ready(shop.owner, made.id)

    assert made.status is EnvironmentStatus.RUNNING
    assert ready.clone_status is CloneStatus.READY
    assert ready.progress is None


async def test_a_clone_that_fails_gives_its_reason_and_is_tried_again(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    runtime.play = refuses
    made = await shop.create(url=URL)
    with pytest.raises(CloneFailed) as failure:
        await shop.environments.ready(shop.owner, made.id)
    runtime.play = clones

    ready = await shop.environments.ready(shop.owner, made.id)

    assert "repository not found" in (failure.value.details or "")
    assert ready.clone_status is CloneStatus.READY


async def test_an_environment_that_does_not_start_says_why_and_can_be_retried(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    runtime.faults.unavailable = "The engine is away."
    made = await shop.create()
    with pytest.raises(EnvironmentInError):
        await shop.environments.ready(shop.owner, made.id)
    runtime.faults.unavailable = None

    again = await shop.environments.retry(shop.owner, made.id)

    assert made.status is EnvironmentStatus.ERROR
    assert made.reason == "The engine is away."
    assert made.reason_code == "RUNTIME_UNAVAILABLE"
    assert again.status is EnvironmentStatus.RUNNING
    assert again.reason is None


async def test_the_default_branch_of_the_remote_replaces_one_that_it_does_not_have(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    async def trunk(process: Process, _call: Call) -> None:
        await process.stdin.read()
        await process.stdout.write(b"default trunk\ndone yes\n")

    runtime.play = trunk
    made = await shop.create(url=URL)

    assert (await shop.environments.ready(shop.owner, made.id)).branch == "trunk"


async def test_of_many_simultaneous_creates_of_one_name_one_wins(shop: Workshop) -> None:
    results: list[object] = []

    async def create() -> None:
        try:
            await shop.create("same")
            results.append("made")
        except EnvironmentNameTaken as error:
            results.append(error.answer["suggestions"])

    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(create)

    assert results.count("made") == 1
    assert results.count(["same-2", "same-copy", "same-2026-11-24"]) == 29


async def test_numbers_are_small_unique_and_used_again(shop: Workshop) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(shop.create, f"e{number}")
    listed = await shop.environments.list_owned(shop.owner)
    third = next(one.environment for one in listed if one.environment.number == 3)
    await shop.environments.delete(shop.owner, third.id)

    new = await shop.create("new")

    assert sorted(one.environment.number for one in listed) == list(range(1, 9))
    assert new.number == 3


async def test_a_user_has_a_limit_of_environments(
    database: Database, clock: FakeClock, runtime: MemoryRuntime
) -> None:
    settings = settings_of(max_environments_per_user=1)
    async with opened(build(database, clock, runtime, settings=settings)) as shop:
        await shop.create("one")

        with pytest.raises(TooManyEnvironments):
            await shop.create("two")


async def test_a_refused_upstream_leaves_nothing(
    database: Database, clock: FakeClock, runtime: MemoryRuntime
) -> None:
    async def refuse(_url: str) -> None:
        raise InvalidInput("not there")

    async with opened(build(database, clock, runtime, check_upstream=refuse)) as shop:
        with pytest.raises(InvalidInput):
            await shop.create(url=URL)

        assert await shop.environments.list_owned(shop.owner) == []


async def test_a_second_user_is_kept_out_of_a_runtime_for_one(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    runtime.single_user = True  # type: ignore[attr-defined]
    await shop.create()
    other = await shop.add_user()

    with pytest.raises(Exception, match="for one user"):
        await shop.environments.create(other, name="mine")


async def test_anothers_environment_is_not_there(shop: Workshop) -> None:
    made = await shop.create()
    other = await shop.add_user()

    for owner, asked in ((other, made.id), (shop.owner, uuid4())):
        for call in (
            shop.environments.get_owned,
            shop.environments.delete,
            shop.environments.retry,
        ):
            with pytest.raises(EnvironmentNotFound):
                await call(owner, asked)


async def test_a_deleted_environment_is_gone_with_its_sandbox_and_storage(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    made = await shop.create()

    deleted = await shop.environments.delete(shop.owner, made.id)

    assert not deleted.pending
    assert await runtime.list() == []
    assert runtime.storage == set()
    with pytest.raises(EnvironmentNotFound):
        await shop.environments.delete(shop.owner, made.id)


async def test_a_deletion_that_the_runtime_cannot_do_now_is_done_later_and_frees_the_name(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    made = await shop.create()
    runtime.faults.unavailable = "away"
    deleted = await shop.environments.delete(shop.owner, made.id)
    with pytest.raises(EnvironmentNotFound):
        await shop.environments.get_owned(shop.owner, made.id)
    runtime.faults.unavailable = None
    again = await shop.create("one")

    await shop.environments.reconcile()

    assert deleted.pending
    assert {one.environment_id for one in await runtime.list()} == {again.id}


async def test_a_deletion_cuts_a_slow_start_short(shop: Workshop, runtime: MemoryRuntime) -> None:
    runtime.faults.delay_s = 30
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_ignore_not_found, shop)

        async def there() -> bool:
            return len(await shop.environments.list_owned(shop.owner)) == 1

        await until(there)
        (listed,) = await shop.environments.list_owned(shop.owner)
        runtime.faults.delay_s = 0

        with anyio.fail_after(60):
            await shop.environments.delete(shop.owner, listed.environment.id)

    assert await runtime.list() == []
    assert await rows(shop.database, "SELECT 1 FROM environments") == []


async def _ignore_not_found(shop: Workshop) -> None:
    with pytest.raises(EnvironmentNotFound):
        await shop.create()


async def test_a_create_goes_on_when_the_request_is_cancelled(
    shop: Workshop, runtime: MemoryRuntime, database: Database
) -> None:
    runtime.faults.delay_s = 0.3

    async def is_begun() -> bool:
        return await rows(database, "SELECT 1 FROM environments") != []

    async with anyio.create_task_group() as request:
        request.start_soon(shop.create)
        await until(is_begun)
        request.cancel_scope.cancel()

    async def runs() -> bool:
        listed = await shop.environments.list_owned(shop.owner)
        return [one.environment.status for one in listed] == [EnvironmentStatus.RUNNING]

    await until(runs)


@pytest.mark.parametrize("stage", ["stored", "made"])
async def test_a_start_that_a_crash_cut_short_is_finished_by_the_next_process(
    stage: str, database: Database, clock: FakeClock, runtime: MemoryRuntime
) -> None:
    first = build(database, clock, runtime)
    await first.add_user(first.owner)
    runtime.faults.delay_s = 0.1

    async def reached() -> bool:
        stored = await rows(database, "SELECT 1 FROM environments WHERE claimed_by <> ''") != []
        return {
            "stored": stored,
            "made": runtime.storage != set(),
        }[stage]

    async with first.environments.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(first.create)
        await until(reached)
        tasks.cancel_scope.cancel()
    runtime.faults.delay_s = 0
    second = build(database, clock, runtime)

    async with second.environments.running():
        await second.environments.reconcile()

    (listed,) = await second.environments.list_owned(first.owner)
    assert listed.environment.status is EnvironmentStatus.RUNNING
    assert len(await runtime.list()) == 1


async def test_a_deletion_that_a_crash_cut_short_is_finished_by_the_next_process(
    database: Database, clock: FakeClock, runtime: MemoryRuntime
) -> None:
    first = build(database, clock, runtime)
    await first.add_user(first.owner)
    async with first.environments.running():
        made = await first.create()
        runtime.faults.delay_s = 30
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.environments.delete, first.owner, made.id)

            async def begun() -> bool:
                held = "SELECT 1 FROM environments WHERE desired = 'deleted' AND claimed_by <> ''"
                return await rows(database, held) != []

            await until(begun)
            tasks.cancel_scope.cancel()
    runtime.faults.delay_s = 0
    second = build(database, clock, runtime)

    async with second.environments.running():
        await second.environments.reconcile()

    assert await rows(database, "SELECT 1 FROM environments") == []
    assert await runtime.list() == []
    assert runtime.storage == set()


async def test_two_processes_do_not_work_on_one_environment_at_once(
    database: Database, clock: FakeClock, runtime: MemoryRuntime
) -> None:
    runtime.faults.delay_s = 0.2
    first, second = build(database, clock, runtime), build(database, clock, runtime)
    await first.add_user(first.owner)
    async with (
        first.environments.running(),
        second.environments.running(),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(first.create)

        async def claimed() -> bool:
            return await rows(database, "SELECT 1 FROM environments WHERE claimed_by <> ''") != []

        await until(claimed)
        await second.environments.reconcile()

    assert runtime.created == 1


async def test_a_worker_whose_claim_was_taken_writes_nothing(
    shop: Workshop, runtime: MemoryRuntime, database: Database
) -> None:
    runtime.faults.delay_s = 0.3
    async with anyio.create_task_group() as tasks:

        async def create() -> None:
            with anyio.move_on_after(1.5):
                await shop.create()

        tasks.start_soon(create)

        async def claimed() -> bool:
            return await rows(database, "SELECT 1 FROM environments WHERE claimed_by <> ''") != []

        await until(claimed)
        async with database.begin() as tx:
            connection = await tx.connection()
            await connection.exec_driver_sql(
                "UPDATE environments SET claimed_by = 'thief', claimed_until = 99999999999"
            )

    ((status, holder),) = await rows(database, "SELECT status, claimed_by FROM environments")
    assert (status, holder) == ("starting", "thief")


async def test_a_sandbox_that_vanished_is_noticed_and_started_again_on_demand(
    shop: Workshop, runtime: MemoryRuntime, database: Database
) -> None:
    made = await shop.create()
    await settled(database)  # what a job works on, the reconciler leaves alone
    runtime.vanish(made.id)

    await shop.environments.reconcile()
    noticed = await shop.environments.get_owned(shop.owner, made.id)
    again = await shop.environments.ready(shop.owner, made.id)

    assert noticed.status is EnvironmentStatus.STOPPED
    assert noticed.reason_code == "SANDBOX_GONE"
    assert again.status is EnvironmentStatus.RUNNING
    assert again.sandbox_id != made.sandbox_id


async def test_a_runtime_that_does_not_answer_changes_nothing(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    made = await shop.create()
    runtime.faults.unavailable = "away"

    await shop.environments.reconcile()

    seen = await shop.environments.get_owned(shop.owner, made.id)
    assert seen.status is EnvironmentStatus.RUNNING


async def test_an_environment_that_ran_and_cannot_be_started_is_stopped_not_lost(
    shop: Workshop, runtime: MemoryRuntime, database: Database
) -> None:
    made = await shop.create()
    await settled(database)  # what a job works on, the reconciler leaves alone
    runtime.vanish(made.id)
    await shop.environments.reconcile()
    runtime.faults.never_starts = True
    with pytest.raises(Exception, match="not running"):
        await shop.environments.ready(shop.owner, made.id)
    runtime.faults.never_starts = False

    assert (await shop.environments.ready(shop.owner, made.id)).usable


async def test_strays_are_removed_without_their_storage_and_only_ours(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    made = await shop.create()
    stray = uuid4()
    await runtime.create(SandboxSpec(stray, shop.owner, 9, "stray"))

    await shop.environments.reconcile()

    assert {one.environment_id for one in await runtime.list()} == {made.id}
    assert stray in runtime.storage


async def test_ten_rounds_change_nothing(shop: Workshop, database: Database) -> None:
    await shop.create("one")
    await shop.create("two", URL)
    await shop.environments.ready(shop.owner, (await shop.create("three", URL)).id)
    await shop.environments.reconcile()
    await settled(database)
    before = await rows(database, "SELECT * FROM environments ORDER BY id")
    shop.clock.advance(100)

    for _ in range(10):
        await shop.environments.reconcile()

    assert await rows(database, "SELECT * FROM environments ORDER BY id") == before


async def test_removing_a_container_leaves_its_environment_stopped_with_its_storage(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    made = await shop.create()
    assert made.sandbox_id is not None

    await shop.environments.remove_sandbox(shop.owner, made.sandbox_id)
    stopped = await shop.environments.get_owned(shop.owner, made.id)
    await shop.environments.reconcile()
    again = await shop.environments.ready(shop.owner, made.id)

    assert stopped.status is EnvironmentStatus.STOPPED
    assert stopped.desired is Desired.STOPPED
    assert stopped.sandbox_id is None
    assert made.id in runtime.storage
    assert again.status is EnvironmentStatus.RUNNING
    assert again.desired is Desired.RUNNING


async def test_the_gateway_knows_a_sandbox_by_its_token_alone(
    shop: Workshop, runtime: MemoryRuntime
) -> None:
    tokens: list[str] = []

    async def listen(process: Process, call: Call) -> None:
        tokens.append((await process.stdin.read()).decode().strip())
        await process.stdout.write(b"done yes\n")

    runtime.play = listen
    one, two = await shop.create("one", URL), await shop.create("two", URL)
    for made in (one, two):
        await shop.environments.ready(shop.owner, made.id)
    find = shop.environments.by_gateway_token

    found = await find(one.id, tokens[0])
    assert found is not None
    assert found.id == one.id
    for environment_id, token in (
        (one.id, tokens[1]),
        (one.id, ""),
        (one.id, "ü\ud800"),
        (uuid4(), tokens[0]),
    ):
        assert await find(environment_id, token) is None
    assert tokens[0] not in str(await _dump(shop.environments))


async def _dump(environments: EnvironmentService) -> object:
    return await rows(environments.database, "SELECT * FROM environments")


async def test_a_list_with_sessions_takes_two_statements(
    shop: Workshop, database: Database
) -> None:
    for name in ("one", "two", "three"):
        await shop.create(name)

    async with statements(database) as seen:
        listed = await shop.environments.list_owned(shop.owner)

    assert len(listed) == 3
    assert len([one for one in seen if one.startswith("SELECT")]) == 2
