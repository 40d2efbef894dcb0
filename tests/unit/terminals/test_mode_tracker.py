"""The modes that tmux does not tell, followed over the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.terminals._modes import Modes, ModeTracker
from craftastic.terminals._output import BRACKETED_PASTE, recall, remember
from craftastic.terminals._sgr import PLAIN, Rendition, after


def _after(*pieces: bytes) -> Modes:
    tracker = ModeTracker()
    for piece in pieces:
        tracker.feed(piece)
    return tracker.now()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\x1b[1;31;44m", Rendition((b"1",), b"31", b"44")),
        (b"\x1b[38;5;200m\x1b[48;2;1;2;3m", Rendition((), b"38;5;200", b"48;2;1;2;3")),
        (b"\x1b[38:2::1:2:3m\x1b[4:3m", Rendition((b"4:3",), b"38:2::1:2:3")),
        (b"\x1b[1;3;7m\x1b[22;27m", Rendition((b"3",))),
        (b"\x1b[31m\x1b[39m\x1b[91m", Rendition((), b"91")),
        (b"\x1b[31mtext\x1b[m", PLAIN),
        (b"\x1b[4m\x1b[4:0m\x1b[;1m", Rendition((b"1",))),
        (b"\x1b[38m\x1b[38;5m\x1b[1m", Rendition((b"1",))),
    ],
)
def test_colours_and_attributes(text: bytes, expected: Rendition) -> None:
    assert after(PLAIN, text) == expected
    assert _after(text).rendition == expected


def test_encoding_a_rendition_brings_it_back() -> None:
    state = Rendition((b"1", b"4:3"), b"38;5;9", b"48;2;1;2;3", b"58:5:1")

    assert after(Rendition((b"7",), b"31"), state.encode()) == state


def test_private_modes_come_and_go() -> None:
    assert _after(b"\x1b[?2004h\x1b[?1004;2031h\x1b[?25l\x1b[?1004l").private == {2004, 2031}


def test_the_alternate_screen_keeps_the_colours_of_the_primary() -> None:
    modes = _after(b"\x1b[31m\x1b[?1049h\x1b[0;44m")
    assert modes.saved_rendition.foreground == b"31"
    assert modes.rendition.background == b"44"
    assert _after(b"\x1b[31m\x1b[?1049h\x1b[0;44m\x1b[?1049l").rendition.foreground == b"31"


def test_cursor_style_keys_title_link_and_charsets() -> None:
    modes = _after(
        b"\x1b[5 q\x1b[>1u\x1b[>4;2m\x1b]2;A title\x07\x1b]8;id=1;http://a.example\x1b\\\x1b(0\x0e"
    )

    assert modes == Modes(
        cursor=b"5", keyboard=(b"1",), other_keys=b"4;2", title=b"A title",
        link=b"id=1;http://a.example", charsets=(b"0", b"B"), shifted=True,
    )  # fmt: skip


def test_a_reset_forgets_everything_but_the_title() -> None:
    assert _after(b"\x1b]0;t\x07\x1b[?2004h\x1b[31m\x1b[3 q\x1bc") == Modes(title=b"t")


def test_saved_and_restored_cursor_brings_its_colours() -> None:
    assert _after(b"\x1b[35m\x1b7\x1b[0m\x1b8").rendition.foreground == b"35"


@given(st.lists(st.sampled_from([b"\x1b[31m", b"\x1b[0m", b"\x1b[?2004h", b"x", b"\x1b[1m"])))
def test_feeding_in_pieces_is_feeding_at_once(pieces: list[bytes]) -> None:
    assert _after(*pieces) == _after(b"".join(pieces))


@given(st.text(max_size=80))
def test_a_foreign_note_is_no_harm(text: str) -> None:
    assert recall(text, "vim").rendition == PLAIN


def test_a_note_is_read_back_for_the_same_program_only() -> None:
    modes = Modes(frozenset({2004, 1004}), b"5", (b"1",), other_keys=b"4;1", title=b"title")
    note = remember(modes, "vim")

    assert recall(note, "vim") == modes
    assert recall(note, "make") == Modes()
    assert recall(note, "bash") == Modes(private=frozenset({BRACKETED_PASTE}))
