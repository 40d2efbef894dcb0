"""How much of a log is shown, and how often it is fetched."""

from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest

from craftastic.coolify.api import LogLine, Run, RunStatus
from craftastic.coolify.errors import CoolifyUnavailable
from craftastic.deployments._log import (
    MAX_BYTES,
    MAX_KEPT,
    MAX_LINES,
    Logs,
    WholeLog,
    since,
    whole_log,
)
from craftastic.deployments._log import last_lines as kept

NOTHING = WholeLog((), 0, complete=False)


class Hiding:
    """Hides one word, or everything."""

    def __init__(self, word: str, everything: bool = False) -> None:
        self.word = word
        self.everything = everything

    def mask_text(self, text: str) -> str:
        return "••••••" if self.everything else text.replace(self.word, "••••••")

    def mask_bytes(self, raw: bytes) -> bytes:
        return raw


def lines(count: int, text: str = "x") -> tuple[LogLine, ...]:
    return tuple(LogLine(number, text, "stdout", None) for number in range(1, count + 1))


def run(log: tuple[LogLine, ...] | None, status: RunStatus = RunStatus.FINISHED) -> Run:
    return Run("a", status, status.value, None, 0, None, None, log)


def test_last_lines_are_kept() -> None:
    many, dropped = kept(lines(MAX_LINES + 5))
    long, dropped_long = kept(lines(10, "é" * (MAX_BYTES // 8)))

    assert (len(many), many[0].order, dropped) == (MAX_LINES, 6, 5)
    assert len(long) == 3
    assert dropped_long == 7
    assert kept(lines(2)) == (lines(2), 0)
    assert kept(()) == ((), 0)


def test_what_was_left_out_is_told_to_those_who_have_not_seen_it() -> None:
    log = WholeLog(lines(10)[5:], 5, complete=False)

    assert since(log, 0).truncated
    assert not since(log, 5).truncated
    assert [one.order for one in since(log, 8).lines] == [9, 10]
    assert (since(log, 8).next, since(log, 10).next) == (10, 10)


async def test_secrets_are_hidden_in_every_line() -> None:
    log = lines(2, "say hunter2 twice")

    found = await whole_log(run(log), Hiding("hunter2"))
    too_much = await whole_log(run(log), Hiding("", everything=True))

    assert found.lines is not None
    assert [one.text for one in found.lines] == ["say •••••• twice"] * 2
    assert found.complete
    assert too_much.lines is not None
    assert [(one.order, one.text) for one in too_much.lines] == [(2, "••••••")]


async def test_log_that_may_not_be_read_says_what_could() -> None:
    found = await whole_log(run(None, RunStatus.IN_PROGRESS), Hiding("x"))

    told = since(found, 3)

    assert (told.available, told.complete, told.next) == (False, False, 3)
    assert "read:sensitive" in (told.reason or "")


async def test_one_fetches_for_all_who_ask_at_once() -> None:
    logs, fetched = Logs(), 0

    async def fetch() -> WholeLog:
        nonlocal fetched
        fetched += 1
        await anyio.lowlevel.checkpoint()
        return NOTHING

    one = uuid4()
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(logs.read, one, 60.0, fetch)
    assert fetched == 1
    await logs.read(one, 0.0, fetch)
    await logs.read(uuid4(), 60.0, fetch)
    assert fetched == 3


async def test_failure_counts_as_an_answer() -> None:
    logs, fetched = Logs(), 0

    async def fetch() -> WholeLog:
        nonlocal fetched
        fetched += 1
        raise CoolifyUnavailable("Coolify does not answer.")

    one = uuid4()
    for _ in range(3):
        with pytest.raises(CoolifyUnavailable):
            await logs.read(one, 60.0, fetch)
    assert fetched == 1


async def test_only_some_logs_are_kept() -> None:
    logs, fetched = Logs(), 0

    async def fetch() -> WholeLog:
        nonlocal fetched
        fetched += 1
        return NOTHING

    first = uuid4()
    await logs.read(first, 60.0, fetch)
    for _ in range(MAX_KEPT):
        await logs.read(uuid4(), 60.0, fetch)
    await logs.read(first, 60.0, fetch)

    assert fetched == MAX_KEPT + 2
