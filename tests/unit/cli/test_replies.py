import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.cli._replies import MAX_HELD_BYTES, ReplyFilter

REPLIES = [
    b"\x1b[?1;2c",
    b"\x1b[>0;276;0c",
    b"\x1b[0n",
    b"\x1b[24;80R",
    b"\x1b[1;1R",
    b"\x1b[?2026;2$y",
    b"\x1b[4;2$y",
    b"\x1b[?0u",
    b"\x1b[8;24;80t",
    b"\x1b[?997;1n",
    b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\",
    b"\x1b]11;rgb:0000/0000/0000\x07",
    b"\x1bP>|xterm(390)\x1b\\",
    b"\x1bP1+r5463=31\x1b\\",
    b"\x1b_Gi=31;OK\x1b\\",
]
KEYS = [
    b"a",
    b"\r",
    "é".encode(),
    b"\x1b[A",
    b"\x1bOP",
    b"\x1b[1;5C",
    b"\x1b[1;2R",
    b"\x1b[R",
    b"\x1b[c",
    b"\x1b[15~",
    b"\x1b[97;5u",
    b"\x1b[I",
    b"\x1b[<0;10;20M",
    b"\x1b[M !!",
    b"\x1bx",
    b"\x1b[[A",
    b"\x1b[200~\x1b[?1;2c\x1b[201~",
]


def run(*pieces: bytes) -> bytes:
    replies = ReplyFilter()
    return b"".join(replies.feed(piece) for piece in pieces) + replies.flush()


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_is_swallowed_and_the_keys_around_it_are_not(reply: bytes) -> None:
    assert run(b"ls" + reply + b" -l\r") == b"ls -l\r"


@pytest.mark.parametrize("key", KEYS)
def test_a_key_passes_untouched(key: bytes) -> None:
    assert run(key) == key


@pytest.mark.parametrize("key", [b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b_"])
def test_an_escape_or_alt_key_is_late_and_never_lost(key: bytes) -> None:
    replies = ReplyFilter()

    assert replies.feed(b"a" + key) == b"a"
    assert replies.wait_s == pytest.approx(0.03)
    assert replies.flush() == key
    assert replies.wait_s is None


def test_nothing_waits_inside_a_paste() -> None:
    replies = ReplyFilter()

    assert replies.feed(b"\x1b[200~a\x1b") == b"\x1b[200~a\x1b"
    assert replies.wait_s is None


def test_what_is_held_is_bounded() -> None:
    endless = b"\x1b]11;" + b"x" * (2 * MAX_HELD_BYTES)

    replies = ReplyFilter()

    assert len(replies.feed(endless)) > MAX_HELD_BYTES
    assert run(endless) == endless


@given(st.lists(st.sampled_from(KEYS + REPLIES)), st.data())
def test_how_the_terminal_is_read_changes_nothing(parts: list[bytes], cuts: st.DataObject) -> None:
    data = b"".join(parts)
    expected = b"".join(part for part in parts if part not in REPLIES)
    cut = cuts.draw(st.integers(0, len(data)))

    assert run(data) == expected
    assert run(data[:cut], data[cut:]) == expected
    assert run(*(data[at : at + 1] for at in range(len(data)))) == expected


@given(st.text(st.characters(blacklist_characters="\x1b")))
def test_text_passes_without_waiting(text: str) -> None:
    assert ReplyFilter().feed(text.encode(errors="replace")) == text.encode(errors="replace")
