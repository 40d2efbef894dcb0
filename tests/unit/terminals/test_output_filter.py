"""What viewers get of the pane's bytes: no question, nothing that only tmux swallows."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craftastic.terminals._filter import (
    CANCEL,
    HELD_BYTES,
    LONGEST_STRING,
    STRING_TIMEOUT_S,
    OutputFilter,
)

QUESTIONS = [
    b"\x1b[c", b"\x1b[0c", b"\x1b[>c", b"\x1b[>0c", b"\x1b[=c", b"\x1bZ", b"\x05",
    b"\x1b[5n", b"\x1b[6n", b"\x1b[?6n", b"\x1b[?996n", b"\x1b[?2026$p", b"\x1b[4$p",
    b"\x1bP$qm\x1b\\", b"\x1bP+q544e\x1b\\", b"\x1b[>q", b"\x1b[>0q", b"\x1b[?u",
    b"\x1b]4;1;?\x07", b"\x1b]4;1;rgb:1/1/1;2;?\x1b\\", b"\x1b]10;?\x07", b"\x1b]11;?\x1b\\",
    b"\x1b]12;?\x07", b"\x1b]52;c;?\x07", b"\x1b[14t", b"\x1b[16t", b"\x1b[18t", b"\x1b[19t",
    b"\x1b[20t", b"\x1b[21t", b"\x1b[x", b"\x1b[1;1;1;1;1;1*y", b"\x1b[?1;1;0S",
    b"\x1b_Ga=q;\x1b\\",
]  # fmt: skip
SWALLOWED = [
    b"\x1bktitle\x1b\\", b"\x1bPtmux;\x1b\x1b]52;c;?\x07\x1b\\", b"\x1b^private\x1b\\",
    b"\x1bXstring\x1b\\", b"\x1b]1337;File=x:y\x07", b"\xc2\x9b6n"[:2],
    b"\x1bP1;2|x\x1b\x1bx\x1b\\",
]  # fmt: skip
KEPT = [
    b"plain", b"\x1b[31;1mred\x1b[0m", b"\x1b[?2004h", b"\x1b[2;5H", b"\x1b[K", b"\x1b[22;0;0t",
    b"\x1b]0;a title?\x07", b"\x1b]8;;http://a.example/?q\x1b\\link\x1b]8;;\x1b\\",
    b"\x1b]52;c;aGk=\x07", b"\x1b]11;#123456\x07", "漢字 é 🎉".encode(), b"\x1b[2 q", b"\x1b[>1u",
    b"\xff\xfe", b"\x1b[!p", b"\x1b(0qqq\x1b(B", b'\x1b[1;2"p', b"\x1b[?1049h",
]  # fmt: skip
PIECES = st.one_of(st.sampled_from(QUESTIONS + SWALLOWED + KEPT), st.binary(max_size=4))


def _filter(*pieces: bytes) -> bytes:
    one = OutputFilter()
    return b"".join(one.feed(piece, 0.0) for piece in pieces)


@pytest.mark.parametrize("text", QUESTIONS + SWALLOWED)
def test_it_is_taken_out(text: bytes) -> None:
    assert _filter(b"before" + text + b"after") == b"beforeafter"


@pytest.mark.parametrize("text", KEPT)
def test_it_stays(text: bytes) -> None:
    assert _filter(b"before" + text + b"after") == b"before" + text + b"after"


@pytest.mark.parametrize("text", QUESTIONS + SWALLOWED + KEPT)
def test_one_byte_at_a_time_gives_the_same(text: bytes) -> None:
    whole = b"a" + text + b"b"

    assert _filter(*(bytes([value]) for value in whole)) == _filter(whole)


@given(st.lists(PIECES, max_size=8), st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=400)
def test_cuts_change_nothing(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]

    assert _filter(*(data[a:b] for a, b in pairwise(places))) == _filter(data)


@given(st.lists(PIECES, max_size=8))
def test_what_is_passed_on_contains_no_question(pieces: list[bytes]) -> None:
    # Whatever is open at the end, and be it half a character, ends here and is not held back.
    passed = _filter(b"".join(pieces) + b"\x18") + b"\x18"

    # Controls in the midst of a sequence are acted on before it, and come first the second time.
    assert sorted(_filter(passed)) == sorted(passed) or b"\x1b" in passed[-5:]


def test_an_endless_command_is_cancelled_and_the_next_text_visible() -> None:
    one = OutputFilter()
    out = one.feed(b"\x1b]0;", 0.0)
    for _ in range(40):
        out += one.feed(b"x" * (256 << 10), 0.0)

    assert len(out) < LONGEST_STRING + (512 << 10)
    assert one.feed(b"\x07visible", 0.0) == b"visible"
    assert CANCEL in out


def test_a_string_that_does_not_end_is_given_up_after_tmux_s_time() -> None:
    one = OutputFilter()
    assert one.feed(b"\x1bPq" + b"x" * 100, 0.0) == b""
    assert one.feed(b"still inside", STRING_TIMEOUT_S - 1) == b""

    assert one.feed(b"visible", STRING_TIMEOUT_S + 1) == b"visible"


def test_a_long_clipboard_write_passes_and_is_known_to_be_open() -> None:
    one = OutputFilter()
    start = b"\x1b]52;c;" + b"A" * (HELD_BYTES * 2)

    assert one.feed(start, 0.0) == start
    assert one.in_osc
    assert one.feed(b"BB\x07after", 0.0) == b"BB\x07after"
    assert not one.in_osc
