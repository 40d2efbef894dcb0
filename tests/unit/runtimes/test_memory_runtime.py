"""The in-memory driver: it can be scripted, and it can misbehave."""

from uuid import uuid4

import anyio
import pytest

from craftastic.runtimes.base import (
    RunResult,
    RuntimeUnavailable,
    SandboxExhausted,
    SandboxGone,
    SandboxSpec,
    SandboxState,
)
from craftastic.runtimes.memory import Call, MemoryRuntime, Process


def spec() -> SandboxSpec:
    return SandboxSpec(uuid4(), uuid4(), 1, "one")


async def test_commands_are_answered_by_the_script_and_kept() -> None:
    async def answer(call: Call) -> RunResult:
        return RunResult(len(call.argv), call.stdin, b"")

    runtime = MemoryRuntime(answer)
    ref = await runtime.create(spec())

    result = await runtime.run(ref, ["git", "status"], stdin=b"in")

    assert (result.exit_code, result.stdout) == (2, b"in")
    assert runtime.calls == [Call(ref, ("git", "status"), b"in")]


async def test_streams_are_played_by_the_script() -> None:
    async def play(process: Process, call: Call) -> None:
        await process.stderr.write(call.argv[0].encode())
        await process.stdout.write((await process.stdin.read()).upper())

    runtime = MemoryRuntime(play=play)
    ref = await runtime.create(spec())

    async with runtime.open(ref, ["tmux"]) as stream:
        await stream.send(b"abc")
        assert await stream.receive_stderr() == b"tmux"
        assert await stream.receive_stdout() == b"ABC"
        assert await stream.receive_stdout() == b""


async def test_a_writer_waits_while_nobody_reads() -> None:
    runtime = MemoryRuntime(play=lambda process, call: anyio.sleep_forever())
    ref = await runtime.create(spec())

    async with runtime.open(ref, ["cat"]) as stream:
        with anyio.move_on_after(0.1) as limit:
            for _ in range(100):
                await stream.send(bytes(65536))

    assert limit.cancelled_caught


async def test_an_unreachable_runtime_refuses_every_call() -> None:
    runtime = MemoryRuntime()
    one = spec()
    ref = await runtime.create(one)
    runtime.faults.unavailable = "nobody is there"

    for call in (
        runtime.prepare(),
        runtime.create(one),
        runtime.inspect(ref),
        runtime.stop(ref),
        runtime.remove(one, storage=True),
        runtime.list(),
        runtime.run(ref, ["true"]),
        runtime.isolation(ref),
    ):
        with pytest.raises(RuntimeUnavailable, match="nobody is there"):
            await call
    assert [finding.ok for finding in await runtime.check()] == [False]


async def test_a_sandbox_that_never_starts_is_there_and_stopped() -> None:
    runtime = MemoryRuntime()
    runtime.faults.never_starts = True

    with pytest.raises(RuntimeUnavailable):
        await runtime.create(spec())

    assert [one.state for one in await runtime.list()] == [SandboxState.STOPPED]


async def test_an_exhausted_sandbox_starts_nothing() -> None:
    runtime = MemoryRuntime()
    ref = await runtime.create(spec())
    runtime.faults.exhausted = True

    with pytest.raises(SandboxExhausted):
        await runtime.run(ref, ["true"])


async def test_a_sandbox_can_vanish_under_a_command_and_keeps_its_storage() -> None:
    runtime = MemoryRuntime()
    one = spec()
    ref = await runtime.create(one)
    runtime.faults.vanishes = True

    with pytest.raises(SandboxGone):
        await runtime.run(ref, ["true"])

    assert await runtime.inspect(ref) is SandboxState.GONE
    assert runtime.storage == {one.environment_id}
