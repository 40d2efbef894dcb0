"""What every runtime promises, over each of them (runtimes/base.py)."""

import ipaddress
from uuid import uuid4

import anyio
import pytest

from craftastic.runtimes.base import (
    DirectStream,
    Progress,
    RunTimeout,
    SandboxGone,
    SandboxRef,
    SandboxState,
)
from tests.contract.conftest import Bench, until

BYTES = bytes(range(256)) * 1200


async def test_creating_twice_gives_one_running_sandbox(bench: Bench) -> None:
    spec = bench.spec()

    first = await bench.runtime.create(spec)
    second = await bench.runtime.create(spec)

    assert first == second
    assert first.runtime == bench.kind
    assert await bench.runtime.inspect(first) is SandboxState.RUNNING
    assert len(await bench.runtime.list()) == 1


async def test_creating_at_the_same_time_gives_one_sandbox(bench: Bench) -> None:
    spec = bench.spec()
    made: list[SandboxRef] = []

    async def create() -> None:
        made.append(await bench.runtime.create(spec))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(create)

    assert len(set(made)) == 1
    assert len(await bench.runtime.list()) == 1


async def test_creating_says_what_is_happening(bench: Bench) -> None:
    seen: list[Progress] = []

    async def report(progress: Progress) -> None:
        seen.append(progress)

    await bench.runtime.create(bench.spec(), report)

    assert "sandbox" in {progress.step for progress in seen}
    assert all(progress.message for progress in seen)


async def test_a_sandbox_is_listed_with_whose_it_is(bench: Bench) -> None:
    spec = bench.spec("Name with ünicode")
    ref = await bench.runtime.create(spec)

    (found,) = await bench.runtime.list()

    assert found.ref == ref
    assert found.environment_id == spec.environment_id
    assert found.owner_id == spec.owner_id
    assert found.name == spec.name
    assert found.state is SandboxState.RUNNING


async def test_an_unknown_sandbox_is_gone_and_no_error(bench: Bench) -> None:
    unknown = SandboxRef(bench.kind, uuid4().hex)

    assert await bench.runtime.inspect(unknown) is SandboxState.GONE
    await bench.runtime.stop(unknown)
    with pytest.raises(SandboxGone):
        await bench.runtime.run(unknown, ["true"])
    with pytest.raises(SandboxGone):
        async with bench.runtime.open(unknown, ["cat"]):
            pass


async def test_a_stopped_sandbox_is_known_and_starts_again(bench: Bench) -> None:
    spec = bench.spec()
    ref = await bench.runtime.create(spec)

    await bench.runtime.stop(ref)
    await bench.runtime.stop(ref)

    assert await bench.runtime.inspect(ref) is SandboxState.STOPPED
    with pytest.raises(SandboxGone):
        await bench.runtime.run(ref, ["true"])
    with pytest.raises(SandboxGone):
        async with bench.runtime.open(ref, ["cat"]):
            pass
    again = await bench.runtime.create(spec)
    assert await bench.runtime.inspect(again) is SandboxState.RUNNING
    assert (await bench.runtime.run(again, ["true"])).exit_code == 0


@pytest.mark.parametrize("storage", [False, True])
async def test_removing_is_final_and_may_be_repeated(bench: Bench, storage: bool) -> None:
    spec = bench.spec()
    ref = await bench.runtime.create(spec)

    await bench.runtime.remove(spec, storage=storage)
    await bench.runtime.remove(spec, storage=storage)

    assert await bench.runtime.inspect(ref) is SandboxState.GONE
    assert await bench.runtime.list() == []


async def test_what_was_never_made_can_be_removed(bench: Bench) -> None:
    await bench.runtime.remove(bench.spec(), storage=True)

    assert await bench.runtime.list() == []


async def test_preparing_may_be_repeated(bench: Bench) -> None:
    await bench.runtime.prepare()
    await bench.runtime.prepare()


async def test_a_check_finds_nothing_broken_and_changes_nothing(bench: Bench) -> None:
    found = await bench.runtime.check()

    assert found
    assert [finding for finding in found if finding.ok is False] == []
    assert await bench.runtime.list() == []


async def test_the_gateway_is_at_an_address_of_this_host(bench: Bench) -> None:
    assert ipaddress.ip_address(await bench.runtime.gateway_address()).is_private


async def test_a_command_tells_how_it_ended(bench: Bench) -> None:
    ref = await bench.sandbox()

    assert (await bench.runtime.run(ref, ["true"])).exit_code == 0
    assert (await bench.runtime.run(ref, ["false"])).exit_code == 1


async def test_a_command_gets_its_input_and_gives_its_output_byte_for_byte(bench: Bench) -> None:
    ref = await bench.sandbox()

    result = await bench.runtime.run(ref, ["cat"], stdin=BYTES)

    assert result.stdout == BYTES
    assert not result.truncated


async def test_output_beyond_the_limit_is_dropped_and_said_to_be(bench: Bench) -> None:
    ref = await bench.sandbox()

    result = await bench.runtime.run(ref, ["cat"], stdin=BYTES, max_output_bytes=1000)

    assert result.stdout == BYTES[:1000]
    assert result.truncated
    assert result.exit_code == 0


async def test_a_command_that_takes_too_long_is_ended(bench: Bench) -> None:
    ref = await bench.sandbox()

    with anyio.fail_after(15), pytest.raises(RunTimeout):
        await bench.runtime.run(ref, ["sleep", "4321"], timeout_s=0.5)


async def test_many_commands_run_at_the_same_time(bench: Bench) -> None:
    ref = await bench.sandbox()
    answers: dict[int, bytes] = {}

    async def one(number: int) -> None:
        result = await bench.runtime.run(ref, ["cat"], stdin=b"%d" % number)
        answers[number] = result.stdout

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(one, number)

    assert answers == {number: b"%d" % number for number in range(8)}


async def test_a_stream_carries_bytes_both_ways(bench: Bench) -> None:
    ref = await bench.sandbox()
    received = b""

    async with bench.runtime.open(ref, ["cat"]) as stream:

        async def send() -> None:
            await stream.send(BYTES[:50_000])
            await stream.send(BYTES[50_000:])

        with anyio.fail_after(15):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                while len(received) < len(BYTES):
                    received += await stream.receive_stdout()

    assert received == BYTES


async def test_a_stream_that_is_followed_hands_over_every_byte_of_both_outputs(
    real: Bench,
) -> None:
    ref = await real.sandbox()
    outputs, more = bytearray(), bytearray()
    script = f"head -c {len(BYTES)}; echo over >&2"

    async with real.runtime.open(ref, ["sh", "-c", script]) as stream:
        assert isinstance(stream, DirectStream)

        async def send() -> None:
            assert stream.try_send(BYTES[:10])
            await stream.send(BYTES[10:])

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
                await stream.follow(outputs.extend, more.extend)

        assert not stream.try_send(b"x" * (1 << 20))
    assert (bytes(outputs), bytes(more)) == (BYTES, b"over\n")


async def test_stopping_a_sandbox_ends_its_streams(bench: Bench) -> None:
    ref = await bench.sandbox()

    async with bench.runtime.open(ref, ["cat"]) as stream:
        await bench.runtime.stop(ref)

        with anyio.fail_after(15):
            assert await stream.receive_stdout() == b""
            assert await stream.receive_stderr() == b""
        with pytest.raises(SandboxGone):
            await until_refused(stream.send)


async def until_refused(send: object) -> None:
    """Send until it is refused: the end of a command may take a moment to be known."""

    async def attempt() -> bool:
        await send(b"x")  # type: ignore[operator]
        return False

    await until(attempt, "sending is refused")


async def test_an_error_inside_a_stream_is_not_changed(bench: Bench) -> None:
    ref = await bench.sandbox()

    with pytest.raises(ZeroDivisionError):
        async with bench.runtime.open(ref, ["cat"]):
            raise ZeroDivisionError


async def test_spawning_is_running(bench: Bench) -> None:
    ref = await bench.sandbox()

    assert (await bench.runtime.spawn(ref, ["cat"], stdin=b"abc")).stdout == b"abc"
    assert (await bench.runtime.spawn(ref, ["false"])).exit_code == 1
