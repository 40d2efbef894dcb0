import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.cli._screen import MAX_TAIL_BYTES, ScreenTracker

PIECES = [
    b"text",
    b"\n",
    b"\x1b[?1049h",
    b"\x1b[?1049l",
    b"\x1b[?1;47h",
    b"\x1b[?25l",
    b"\x1b]0;title \x1b[?1049h\x07",
    b"\x1bP data \x1b\\",
    b"\x1b(B",
    b"\x1b[31m",
    "ü".encode(),
    b"\x1bc",
]


def after(*pieces: bytes) -> ScreenTracker:
    tracker = ScreenTracker()
    for piece in pieces:
        tracker.feed(piece)
    return tracker


@pytest.mark.parametrize("mode", [b"47", b"1047", b"1049", b"25;1049"])
def test_every_way_into_the_alternate_screen_is_seen(mode: bytes) -> None:
    assert after(b"\x1b[?" + mode + b"h").alternate
    assert not after(b"\x1b[?" + mode + b"h", b"\x1b[?" + mode + b"l").alternate


def test_a_title_that_looks_like_a_switch_is_none() -> None:
    assert not after(b"\x1b]0;\x1b").alternate
    assert not after(b"\x1b]0;[?1049h\x07").alternate


def test_output_that_stops_inside_a_sequence_is_not_written_into() -> None:
    assert not after(b"a\x1b[3").between
    assert not after(b"\x1b]0;ti").between
    assert not after(b"\x1b").between
    assert after(b"a\x1b[3", b"1m").between


def test_a_prompt_can_be_written_again() -> None:
    prompt = b"\x1b[?2004h\x1b]0;title\x07\x1b[32muser\x1b[0m$ ls\b\x1b[K"

    assert after(b"before\r\n" + prompt).line(80) == prompt


@pytest.mark.parametrize(
    "line",
    [
        b"x" * 80,
        b"\x1b[A",
        b"\x1b[5;1H",
        b"\x1b[2J",
        b"\t",
        b"x" * (MAX_TAIL_BYTES + 1),
        b"\x1b[?1049h",
        b"a\x1b[",
    ],
)
def test_a_line_that_is_not_only_a_line_is_left_alone(line: bytes) -> None:
    assert after(b"\r\n" + line).line(80) is None


def test_a_new_line_after_one_too_long_is_known_again() -> None:
    assert after(b"x" * (MAX_TAIL_BYTES + 1), b"\r\n$ ").line(80) == b"$ "


@given(st.lists(st.sampled_from(PIECES)), st.data())
def test_how_output_is_cut_changes_nothing(pieces: list[bytes], cuts: st.DataObject) -> None:
    data = b"".join(pieces)
    cut = cuts.draw(st.integers(0, len(data)))
    whole, cut_up = after(data), after(data[:cut], data[cut:])

    assert (whole.alternate, whole.between, whole.line(80)) == (
        cut_up.alternate,
        cut_up.between,
        cut_up.line(80),
    )
