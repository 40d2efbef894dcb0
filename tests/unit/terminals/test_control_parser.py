"""tmux's control protocol, however it is cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from craftastic.terminals._control import (
    MAX_REPLY_BYTES,
    ControlParser,
    Event,
    Notice,
    PaneOutput,
    Reply,
    unescape_octal,
)

STREAM = (
    b"%begin 1 10 0\n%end 1 10 0\n%session-changed $0 work\n"
    b"%begin 2 11 1\n%end 2 10 1\n%begin 9 9 9\n%exit\n\nlast\n%end 2 11 1\n"
    b"%output %0 a\\015\\012b\\134\n%extended-output %1 12 : c : d\n"
    b"%begin 3 12 1\nparse error\n%error 3 12 1\n%exit\n"
)
EVENTS = [
    Reply(True, b"", own=False),
    Notice("session-changed", b"$0 work"),
    Reply(True, b"%end 2 10 1\n%begin 9 9 9\n%exit\n\nlast"),
    PaneOutput("%0", b"a\r\nb\\"),
    PaneOutput("%1", b"c : d"),
    Reply(False, b"parse error"),
    Notice("exit", b""),
]


def _feed(*pieces: bytes) -> list[Event]:
    parser = ControlParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_a_reply_ends_only_at_its_own_end() -> None:
    assert _feed(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_cuts_change_nothing(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]

    assert _feed(*(STREAM[a:b] for a, b in pairwise(places))) == EVENTS


def test_a_reply_without_end_is_bounded() -> None:
    parser = ControlParser()
    parser.feed(b"%begin 1 1 1\n")
    for _ in range(30):
        assert parser.feed(b"x" * (1 << 20)) == []

    (reply,) = parser.feed(b"\n%end 1 1 1\n")

    assert isinstance(reply, Reply)
    assert reply.truncated
    assert len(reply.body) <= MAX_REPLY_BYTES


@given(st.binary())
def test_octal_escapes_are_undone(data: bytes) -> None:
    escaped = b"".join(
        bytes([value]) if value >= 32 and value != 0x5C else b"\\%03o" % value for value in data
    )

    assert unescape_octal(escaped) == data
