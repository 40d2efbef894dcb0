import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.cli._frames import (
    BadFrame,
    Control,
    Gap,
    Output,
    Position,
    Snapshot,
    decode,
    encode_acknowledge,
    encode_input,
    encode_resize,
)


def test_a_binary_frame_carries_its_number_big_endian() -> None:
    assert decode(b"\x01" + struct.pack(">Q", 7) + b"ab") == Output(7, b"ab")
    assert decode(b"\x02" + struct.pack(">Q", 9) + b"") == Snapshot(9, b"")


def test_a_text_frame_is_a_control_message() -> None:
    assert decode('{"type":"exit"}') == Control("exit", {"type": "exit"})


@pytest.mark.parametrize(
    "frame", [b"", b"\x01123", b"\x07" + bytes(8), "{", "[]", "{}", '{"type":1}']
)
def test_a_frame_of_no_known_form_is_refused(frame: bytes | str) -> None:
    with pytest.raises(BadFrame):
        decode(frame)


def test_the_clients_frames_have_the_documented_layout() -> None:
    assert encode_input(b"x") == b"\x01x"
    assert encode_acknowledge(258) == b"\x02" + bytes(6) + b"\x01\x02"
    assert encode_resize(5000, 0) == '{"type": "resize", "cols": 1000, "rows": 1}'


def test_output_is_taken_once_however_often_it_comes() -> None:
    position = Position()
    position.enter("s")
    position.place(Snapshot(10, b""))

    taken = position.take(Output(10, b"abc")) + position.take(Output(11, b"bcd"))

    assert taken == b"abcd"
    assert position.query == {"stream": "s", "seen": "14"}


def test_missing_output_is_noticed() -> None:
    position = Position()
    position.enter("s")
    position.place(Snapshot(10, b""))

    with pytest.raises(Gap):
        position.take(Output(11, b"x"))


def test_another_stream_wants_a_snapshot() -> None:
    position = Position()
    position.enter("s")
    position.place(Snapshot(10, b""))
    position.enter("t")

    assert position.query == {}
    with pytest.raises(Gap):
        position.take(Output(10, b"x"))


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50))))
def test_overlapping_pieces_give_the_stream_back(
    stream: bytes, cuts: list[tuple[int, int]]
) -> None:
    position = Position()
    position.enter("s")
    position.place(Snapshot(0, b""))
    taken = b""

    for back, length in cuts:
        assert position.following is not None
        first = max(position.following - back, 0)
        taken += position.take(Output(first, stream[first : position.following + length]))

    assert taken == stream[: len(taken)]
