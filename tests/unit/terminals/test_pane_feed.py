"""Snapshots and the pipe whose bytes follow them, in every order in which they can be told of."""

import re
from collections.abc import Callable

import anyio
import pytest

from craftastic.terminals._control import Reply
from craftastic.terminals._feed import PaneFeed
from craftastic.terminals._output import Output
from craftastic.terminals._pane import PaneConnection
from craftastic.terminals._snapshot import FIELDS

USUAL = {"pane_width": 20, "pane_height": 3, "scroll_region_lower": 2, "wrap_flag": 1}


class Tmux:
    """Answers a snapshot's line; what happens before its answers is the test's."""

    folder = "/run/craftastic/pump"

    def __init__(self, before: Callable[[int], None]) -> None:
        self.before = before
        self.asked = 0
        self.marked = lambda: None

    async def send(self, line: bytes, count: int, finish: Callable[[list[Reply]], None]) -> None:
        if line.startswith(b"run-shell"):
            self.marked()
            finish([Reply(True, b"")])
            return
        nonce = re.findall(rb"[0-9a-f]{16}", line)[0]
        numbers = "|".join(str(USUAL.get(name, 0)) for name in FIELDS).encode()
        bodies = [nonce + b"|" + numbers, b"", b"a", b"one", b"one", b"", b""]
        bodies += [b"8,16", b"bash", b"", b""]
        bodies += [b""] * (count - len(bodies) - 1) + [nonce]
        self.asked += 1
        self.before(self.asked)
        finish([Reply(True, body) for body in bodies])


@pytest.fixture
def output() -> Output:
    return Output(lambda: 0.0)


def feed_of(output: Output) -> PaneFeed:
    feed = PaneFeed(
        output,
        by_pipe=True,
        clock=lambda: 0.0,
        changed=lambda: None,
        broken=lambda: None,
        noticed=lambda _notice: None,
    )
    feed.pane = "%0"
    return feed


async def taken(
    feed: PaneFeed, before: Callable[[int], None], marked: Callable[[], None] = lambda: None
) -> Tmux:
    tmux = Tmux(before)
    tmux.marked = marked
    connection: PaneConnection = tmux  # type: ignore[assignment] - the part that is used
    with anyio.fail_after(10):
        await feed.take(connection, 100)
    return tmux


async def test_what_the_pipe_brings_follows_the_snapshot(output: Output) -> None:
    feed = feed_of(output)

    tmux = await taken(feed, feed.pipe_began)
    feed.pipe_bytes(1, b"after")

    assert tmux.asked == 1
    assert output.ring.end == len(b"after")


async def test_a_pipe_that_ran_over_before_the_snapshots_answer_is_begun_anew(
    output: Output,
) -> None:
    feed = feed_of(output)

    def flood(generation: int) -> None:
        feed.pipe_began(generation)
        feed.pipe_bytes(generation, b"y\r\n" * 100)
        if generation < 3:
            feed.pipe_ended(generation, b"overflow")

    tmux = await taken(feed, flood)
    before = output.ring.end
    feed.pipe_bytes(3, b"still here")

    assert tmux.asked == 3
    assert output.ring.end == before + len(b"still here")


async def test_a_pipe_that_runs_over_while_one_more_viewer_comes_is_begun_anew(
    output: Output,
) -> None:
    feed = feed_of(output)
    generations: list[int] = []

    def begin(_asked: int) -> None:
        generations.append(len(generations) + 1)
        feed.pipe_began(generations[-1])

    def run_over() -> None:
        feed.pipe_ended(1, b"overflow")
        feed.pipe_marked()

    await taken(feed, begin)
    await taken(feed, begin, run_over)
    before = output.ring.end
    feed.pipe_bytes(2, b"still here")

    assert generations == [1, 2]
    assert output.ring.end == before + len(b"still here")
