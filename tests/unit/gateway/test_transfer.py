"""The bounds of transfers: places, remembered redirects, silence."""

from uuid import uuid4

import anyio
import pytest

from craftastic.gateway._answers import redirect_target
from craftastic.gateway._transfer import (
    REMEMBER_S,
    REMEMBERED_BASES,
    Cut,
    Message,
    Refusal,
    Remembered,
    RememberedBases,
    RequestBody,
    TransferLimits,
    TransferSlots,
)
from craftastic.gateway._upstream import parse_upstream
from tests.fakes.clock import FakeClock
from tests.fakes.gateway import FakeEnvironment

WAIT_S = 5.0
ELSEWHERE = Remembered(parse_upstream("https://elsewhere.example.com/o/n"), strayed=True)


async def test_environment_that_asks_too_often_is_refused_while_others_are_served() -> None:
    slots = TransferSlots(per_environment=1, in_all=4, waiting=1, wait_s=WAIT_S)
    busy, other = uuid4(), uuid4()
    waits = anyio.Event()

    async def wait_in_line() -> None:
        waits.set()
        async with slots.take(busy):
            pass

    async with anyio.create_task_group() as tasks, slots.take(busy):
        tasks.start_soon(wait_in_line)
        await waits.wait()
        await anyio.lowlevel.checkpoint()
        with pytest.raises(Refusal):
            async with slots.take(busy):
                pass
        async with slots.take(other):
            pass


@pytest.mark.parametrize(("per_environment", "in_all"), [(1, 9), (9, 1)])
async def test_place_that_does_not_become_free_is_not_waited_for_longer_than_allowed(
    per_environment: int, in_all: int
) -> None:
    slots = TransferSlots(per_environment, in_all, waiting=9, wait_s=0.05)
    environment = uuid4()

    with anyio.fail_after(WAIT_S):
        async with slots.take(environment):
            with pytest.raises(Refusal):
                async with slots.take(environment):
                    pass
        async with slots.take(environment):
            pass


async def test_nothing_is_kept_of_an_environment_that_has_no_transfers() -> None:
    slots = TransferSlots(1, 1, 1, WAIT_S)

    async with slots.take(uuid4()):
        pass

    assert slots._slots == {}


def test_redirect_is_remembered_for_a_time() -> None:
    clock = FakeClock()
    bases, environment = RememberedBases(clock), FakeEnvironment("https://example.com/o/n")
    bases.remember(environment, "git-upload-pack", ELSEWHERE)

    assert bases.find(environment, "git-upload-pack") == ELSEWHERE
    assert bases.find(environment, "git-receive-pack") is None
    clock.advance(REMEMBER_S + 1)
    assert bases.find(environment, "git-upload-pack") is None


def test_redirect_is_not_remembered_for_another_url_of_the_same_environment() -> None:
    bases, environment = RememberedBases(FakeClock()), FakeEnvironment("https://example.com/o/n")
    bases.remember(environment, "git-upload-pack", ELSEWHERE)
    moved = FakeEnvironment("https://example.com/o/other", id=environment.id)

    assert bases.find(moved, "git-upload-pack") is None


def test_number_of_remembered_redirects_is_bounded() -> None:
    bases = RememberedBases(FakeClock())

    for _ in range(REMEMBERED_BASES + 10):
        bases.remember(FakeEnvironment("https://example.com/o/n"), "git-upload-pack", ELSEWHERE)

    assert len(bases._bases) == REMEMBERED_BASES


async def test_body_is_counted_and_cut_at_the_limit() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"12345", "more_body": True}

    body = RequestBody(receive, TransferLimits(max_bytes=12, timeout_s=1, idle_timeout_s=1))

    assert [await body.next(), await body.next()] == [b"12345", b"12345"]
    with pytest.raises(Cut):
        await body.next()


async def test_silence_of_the_sandbox_cuts_the_body() -> None:
    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    body = RequestBody(receive, TransferLimits(max_bytes=12, timeout_s=1, idle_timeout_s=0.05))

    with anyio.fail_after(WAIT_S), pytest.raises(Cut):
        await body.next()


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (b"https://other.example/x", "https://other.example/x"),
        (b"/x", "https://git.example/x"),
        (b"//other.example/x", "https://other.example/x"),
        (b"HTTPS://other.example/x", "https://other.example/x"),
    ],
)
def test_redirect_is_resolved_against_what_was_asked(location: bytes, target: str) -> None:
    assert redirect_target("https://git.example/o/n", location) == target


@pytest.mark.parametrize(
    "location", [b"http://git.example/o/n", b"HTTP://git.example/", b"file:///x", b"https://[/"]
)
def test_redirect_that_leaves_https_or_makes_no_sense_is_refused(location: bytes) -> None:
    with pytest.raises(Refusal):
        redirect_target("https://git.example/o/n", location)
