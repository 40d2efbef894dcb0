"""From tmux's answers to the bytes for an emulator."""

import pytest

from craftastic.terminals._control import Reply
from craftastic.terminals._modes import Modes
from craftastic.terminals._sgr import PLAIN
from craftastic.terminals._snapshot import (
    FIELDS,
    TEXTS,
    Request,
    SnapshotRefused,
    build,
    paint,
    read,
)

NONCE = "0123456789abcdef"
REQUEST = Request("%0", NONCE, 100)
USUAL = {
    "pane_width": 20,
    "pane_height": 3,
    "scroll_region_lower": 2,
    "cursor_flag": 1,
    "wrap_flag": 1,
}


def _replies(
    screen: bytes = b"one\ntwo\n", *, history: bytes = b"", nonce: str = NONCE, **fields: int
) -> list[Reply]:
    values = USUAL | fields
    numbers = "|".join(str(values.get(name, 0)) for name in FIELDS)
    bodies = [f"{nonce}|{numbers}".encode(), history, b"a\nb", screen, screen, b"", b""]
    bodies += [b"8,16", b"bash", b"", b""]
    assert len(bodies) == 7 + len(TEXTS)
    return [*(Reply(True, body) for body in bodies), Reply(True, nonce.encode())]


def _built(*replies: Reply, modes: Modes | None = None) -> bytes:
    return build(read(REQUEST, list(replies)), modes or Modes(), b"")


def test_a_plain_screen() -> None:
    data = _built(*_replies(cursor_x=2, cursor_y=1))

    assert b"one\r\ntwo\r\n" in data
    assert b"\x1b[2;3H" in data
    assert b"?7l" not in data
    assert b"\x1b[3g" not in data


def test_history_comes_before_the_screen() -> None:
    data = _built(*_replies(history=b"old", history_size=1))

    assert data.index(b"old") < data.index(b"one")


def test_modes_that_tmux_tells() -> None:
    data = _built(
        *_replies(
            cursor_flag=0,
            insert_flag=1,
            keypad_cursor_flag=1,
            keypad_flag=1,
            wrap_flag=0,
            mouse_all_flag=1,
            mouse_sgr_flag=1,
            scroll_region_upper=1,
            origin_flag=1,
            cursor_y=1,
        )
    )

    for sequence in (b"?25l", b"[4h", b"?1h", b"\x1b=", b"?7l", b"?1003h", b"?1006h"):
        assert sequence in data
    assert b"\x1b[2;3r\x1b[?6h\x1b[1;1H" in data


def test_the_alternate_screen_stands_over_the_primary() -> None:
    replies = _replies(b"alt\n\n", alternate_on=1, alternate_saved_x=3)
    replies[5] = Reply(True, b"primary\n\n")
    data = _built(*replies)

    assert data.index(b"primary") < data.index(b"?1049h") < data.index(b"alt")


def test_a_cursor_behind_the_last_column_is_brought_about_by_writing() -> None:
    data = _built(*_replies(b"x" * 20 + b"\n\n", cursor_x=20))

    assert data.count(b"x" * 20) == 2


@pytest.mark.parametrize(
    "replies",
    [
        [],
        _replies()[:3],
        _replies(nonce="another"),
        [*_replies()[:-1], Reply(False, b"can't find pane")],
        [Reply(True, NONCE.encode() + b"|x"), *_replies()[1:]],
    ],
)
def test_answers_that_are_not_tmux_s_are_refused(replies: list[Reply]) -> None:
    with pytest.raises(SnapshotRefused):
        read(REQUEST, replies)


def test_no_line_ends_in_a_colour() -> None:
    text, state = paint(b"\x1b[44mone\ntwo\n\x1b[0mthree", PLAIN)

    assert text == b"\x1b[44mone\x1b[m\r\n\x1b[0;44mtwo\x1b[m\r\n\x1b[0;44m\x1b[0mthree"
    assert state == PLAIN


def test_line_drawing_and_controls() -> None:
    assert paint("\x0elqk\x0f|\u009b6n".encode(), PLAIN)[0] == "┌─┐|6n".encode()
