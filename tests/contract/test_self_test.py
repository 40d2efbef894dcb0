"""The start-up self-test, over every real runtime and over one whose sandboxes do not work."""

import anyio

from craftastic.errors import CraftasticError
from craftastic.runtimes.base import RunResult
from craftastic.runtimes.memory import Call, MemoryRuntime
from craftastic.runtimes.self_test import is_self_test, self_test
from tests.contract.conftest import WAIT_S, Bench


async def test_sandboxes_that_can_be_worked_in_pass_and_leave_nothing(real: Bench) -> None:
    await real.runtime.prepare()

    assert await self_test(real.runtime) is None
    assert await real.runtime.list() == []
    assert not any((real.settings.data_dir / "worktrees").glob("*"))


async def test_the_reason_of_a_failure_is_what_git_said() -> None:
    async def refused(_call: Call) -> RunResult:
        return RunResult(128, b"", b"fatal: detected dubious ownership\n")

    runtime = MemoryRuntime(refused)

    assert await self_test(runtime) == "fatal: detected dubious ownership"
    assert await runtime.list() == []


async def test_a_self_test_that_is_cut_short_takes_its_sandbox_along() -> None:
    made: list[bool] = []
    started = anyio.Event()

    async def hangs(call: Call) -> RunResult:
        started.set()
        await anyio.sleep_forever()
        raise CraftasticError("never")

    runtime = MemoryRuntime(hangs)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(self_test, runtime)
        with anyio.fail_after(WAIT_S):
            await started.wait()
        made = [is_self_test(one.environment_id) for one in await runtime.list()]
        tasks.cancel_scope.cancel()

    assert made == [True]
    assert await runtime.list() == []
