"""What every runtime promises about telling what happens to its sandboxes (runtimes/base.py)."""

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest

from craftastic.errors import CraftasticError
from craftastic.runtimes._local_process import read_state
from craftastic.runtimes.base import (
    Ending,
    Hint,
    Runtime,
    SandboxRef,
    SandboxSpec,
    SandboxState,
)
from craftastic.runtimes.docker import DockerRuntime
from craftastic.runtimes.local import LocalRuntime
from craftastic.runtimes.memory import MemoryRuntime
from tests.contract.conftest import Bench, until
from tests.leaks import RUN

SMALL_BYTES = 128 << 20
HOG = "x = b'x' * (1 << 20)\nkept = [x * 16 for _ in range(64)]\n"
FILL = "head -c 256M /dev/zero >/tmp/fill; head -c 256M /dev/zero >/dev/shm/fill"
"""What is in a file system of memory belongs to no process that could be killed for it."""


@asynccontextmanager
async def followed(runtime: Runtime) -> AsyncGenerator[list[Hint]]:
    """Follow a runtime inside of the block."""
    heard: list[Hint] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runtime.follow, heard.append)
        await until(lambda: heard, "the first hint")
        yield heard
        tasks.cancel_scope.cancel()


def first_process(bench: Bench, sandbox: SandboxRef) -> int:
    """Return the id of a sandbox's first process, as the host sees it."""
    if bench.kind == "docker":
        told = subprocess.run(
            ["docker", "inspect", "--format", "{{.State.Pid}}", sandbox.id],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(told.stdout)
    state = read_state(bench.settings.data_dir / "sandboxes" / sandbox.id)
    assert state is not None
    assert state.init is not None
    return state.init.pid


def be_taken_first(process: int) -> None:
    """Have the kernel kill this process before any other of its sandbox, for want of memory."""
    Path(f"/proc/{process}/oom_score_adj").write_text("1000")


async def ended(bench: Bench, sandbox: SandboxRef) -> bool:
    return await bench.runtime.inspect(sandbox) is SandboxState.STOPPED


async def small(bench: Bench) -> tuple[SandboxSpec, SandboxRef]:
    spec = replace(bench.spec(), memory_bytes=SMALL_BYTES)
    return spec, await bench.runtime.create(spec)


async def test_following_begins_with_a_hint_that_is_about_nothing(bench: Bench) -> None:
    async with followed(bench.runtime) as heard:
        assert heard[0] == Hint()


async def test_the_end_of_a_sandbox_is_told_whether_it_was_there_before_or_not(
    bench: Bench,
) -> None:
    before = bench.spec()
    there = await bench.runtime.create(before)

    async with followed(bench.runtime) as heard:
        after = bench.spec()
        made = await bench.runtime.create(after)
        for spec, sandbox in ((before, there), (after, made)):
            heard.clear()
            await bench.runtime.stop(sandbox)
            await until(lambda spec=spec: Hint(spec.environment_id) in heard, "the end is told")


async def test_a_sandbox_that_is_started_again_is_followed_again(bench: Bench) -> None:
    spec = bench.spec()
    async with followed(bench.runtime) as heard:
        await bench.runtime.stop(await bench.runtime.create(spec))
        again = await bench.runtime.create(spec)
        await until(lambda: Hint(spec.environment_id) in heard, "the first end is told")
        heard.clear()

        await bench.runtime.stop(again)

        await until(lambda: Hint(spec.environment_id) in heard, "the second end is told")


async def test_two_may_follow_and_one_that_stops_leaves_the_other(bench: Bench) -> None:
    spec = bench.spec()
    sandbox = await bench.runtime.create(spec)
    async with followed(bench.runtime) as heard:
        async with followed(bench.runtime):
            pass

        await bench.runtime.stop(sandbox)

        await until(lambda: Hint(spec.environment_id) in heard, "the end is told")


async def test_a_sandbox_that_was_told_to_stop_has_no_ending_of_its_own(bench: Bench) -> None:
    sandbox = await bench.sandbox()

    await bench.runtime.stop(sandbox)

    assert await bench.runtime.ending(sandbox) is Ending.UNKNOWN
    assert await bench.runtime.ending(SandboxRef(bench.kind, str(uuid4()))) is Ending.UNKNOWN


async def test_nobody_elses_sandboxes_are_told_of(real: Bench) -> None:
    kind = DockerRuntime if real.kind == "docker" else LocalRuntime
    other = kind(real.settings, RUN.new_instance())
    mine, marker = real.spec(), real.spec()
    sandbox = await real.runtime.create(mine)
    try:
        async with followed(real.runtime) as own, followed(other) as others:
            await real.runtime.stop(sandbox)
            await until(lambda: Hint(mine.environment_id) in own, "the end is told")
            # By now the other one would have heard of the first, too.
            await real.runtime.stop(await real.runtime.create(marker))
            await until(lambda: Hint(marker.environment_id) in own, "the second end is told")

        assert set(others) == {Hint()}
        assert await other.ending(sandbox) is Ending.UNKNOWN
    finally:
        await other.close()


async def test_a_killed_first_process_is_told_and_nothing_is_lost(real: Bench) -> None:
    spec = real.spec()
    sandbox = await real.runtime.create(spec)
    await real.sh(sandbox, "echo kept >~/kept")

    async with followed(real.runtime) as heard:
        os.kill(first_process(real, sandbox), signal.SIGKILL)

        await until(lambda: Hint(spec.environment_id) in heard, "the end is told")
        await until(lambda: ended(real, sandbox), "it is known to have ended")

    assert [one.state for one in await real.runtime.list()] == [SandboxState.STOPPED]
    assert await real.runtime.ending(sandbox) is Ending.UNKNOWN
    again = await real.runtime.create(spec)
    assert await real.sh(again, "cat ~/kept") == "kept\n"


async def test_a_program_that_takes_all_memory_is_told_and_the_others_go_on(real: Bench) -> None:
    spec, sandbox = await small(real)
    told = Hint(spec.environment_id, out_of_memory=True)

    async with followed(real.runtime) as heard:
        await real.runtime.spawn(sandbox, ["sh", "-c", "sleep 4321 >/dev/null 2>&1 </dev/null &"])
        result = await real.runtime.run(sandbox, ["python3", "-c", HOG])
        await until(lambda: told in heard, "the want of memory is told")

    assert result.exit_code == 128 + signal.SIGKILL
    assert await real.runtime.inspect(sandbox) is SandboxState.RUNNING
    assert await real.running(sandbox, "4321")
    assert await real.runtime.ending(sandbox) is Ending.UNKNOWN


async def test_a_sandbox_that_ends_for_want_of_memory_is_told_from_others(real: Bench) -> None:
    spec, sandbox = await small(real)
    be_taken_first(first_process(real, sandbox))

    async with followed(real.runtime) as heard:
        # However a command ends when its sandbox does.
        with anyio.move_on_after(20), contextlib.suppress(CraftasticError):
            await real.runtime.run(sandbox, ["sh", "-c", FILL])
        await until(lambda: ended(real, sandbox), "it has ended")
        await until(lambda: {one.environment_id for one in heard} > {None}, "it is told")
        assert [one.state for one in await real.runtime.list()] == [SandboxState.STOPPED]

        assert await real.runtime.ending(sandbox) is Ending.OUT_OF_MEMORY

        await real.runtime.stop(await real.runtime.create(spec))
        assert await real.runtime.ending(sandbox) is Ending.UNKNOWN


async def test_the_driver_in_memory_can_be_made_to_tell_nothing() -> None:
    runtime = MemoryRuntime()
    spec = SandboxSpec(uuid4(), UUID(int=0), 1, "A test's own")
    sandbox = await runtime.create(spec)

    async with followed(runtime) as heard:
        runtime.faults.silent = True
        runtime.crash(spec.environment_id, Ending.OUT_OF_MEMORY)
        runtime.faults.silent = False
        runtime.exhaust(spec.environment_id)

    assert heard == [Hint(), Hint(spec.environment_id, out_of_memory=True)]
    assert await runtime.ending(sandbox) is Ending.OUT_OF_MEMORY


@pytest.mark.docker
async def test_an_engine_that_is_not_there_is_asked_again_and_nothing_is_raised(
    tmp_path: Path, docker: Bench
) -> None:
    settings = docker.settings.model_copy(update={"docker_host": str(tmp_path / "docker.sock")})
    runtime = DockerRuntime(settings, docker.instance)
    heard: list[Hint] = []
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.follow, heard.append)
            await anyio.wait_all_tasks_blocked()
            assert heard == []

            (tmp_path / "docker.sock").symlink_to("/var/run/docker.sock")

            await until(lambda: heard == [Hint()], "it is followed as soon as it is there")
            tasks.cancel_scope.cancel()
    finally:
        await runtime.close()
