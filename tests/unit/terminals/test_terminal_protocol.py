"""The frames of both protocols."""

import json

import pytest

from craftastic.terminals._protocol import (
    Acknowledged,
    Bad,
    BinaryCodec,
    JsonCodec,
    Nothing,
    Resized,
    RoleChanged,
    TooBig,
    Typed,
)
from craftastic.terminals._viewer import Bytes, Ended, Role, Size, Snapshot

TEXT = "h\u00e9llo \u6f22\u5b57 \U0001f389".encode()


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
def test_a_character_that_is_cut_arrives_whole(cut: int) -> None:
    codec = JsonCodec()
    frames = [
        *codec.encode(Bytes(0, TEXT[:cut])),
        *codec.encode(Bytes(cut, TEXT[cut:])),
    ]

    assert "".join(json.loads(frame)["data"] for frame in frames) == TEXT.decode()


def test_bytes_that_are_no_text_give_valid_json() -> None:
    (frame,) = JsonCodec().encode(Bytes(0, bytes(range(256)) + b"end"))

    assert json.loads(frame)["data"].endswith("end")


def test_a_snapshot_begins_with_a_reset_for_plain_clients_only() -> None:
    snapshot = Snapshot(7, 0, b"screen", 80, 24)

    (plain,) = JsonCodec().encode(snapshot)
    (numbered,) = BinaryCodec().encode(snapshot)

    assert json.loads(plain)["data"] == "\x1bc\x1b[3Jscreen"
    assert numbered == b"\x02" + (7).to_bytes(8, "big") + b"screen"


def test_numbered_frames() -> None:
    codec = BinaryCodec()

    assert list(codec.encode(Bytes(258, b"x"))) == [b"\x01\0\0\0\0\0\0\x01\x02x"]
    assert [json.loads(f) for f in codec.encode(Size(90, 20))] == [
        {"type": "size", "cols": 90, "rows": 20}
    ]
    assert [json.loads(f) for f in codec.encode(Ended(exited=True))] == [{"type": "exit"}]
    assert list(codec.encode(Ended(exited=False))) == []
    ready = codec.attached("id", Size(80, 24), Role.DRIVE, resumed=True)
    assert json.loads(ready[0]) == {
        "type": "ready", "stream": "id", "cols": 80, "rows": 24, "role": "drive", "resumed": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"input","data":"a\\r"}', Typed(b"a\r")),
        ('{"type":"input","data":""}', Typed(b"")),
        ('{"type":"input","data":5}', Bad()),
        ('{"type":"input"}', Bad()),
        ('{"type":"resize","cols":80,"rows":24}', Resized(80, 24)),
        ('{"type":"resize","cols":1000,"rows":500,"more":1}', Resized(1000, 500)),
        ('{"type":"resize","cols":0,"rows":24}', Nothing()),
        ('{"type":"resize","cols":-1,"rows":24}', Nothing()),
        ('{"type":"resize","cols":1001,"rows":24}', Nothing()),
        ('{"type":"resize","cols":80,"rows":1000000000}', Nothing()),
        ('{"type":"resize","cols":"80","rows":24}', Bad()),
        ('{"type":"resize","cols":true,"rows":true}', Bad()),
        ('{"type":"resize","cols":NaN,"rows":24}', Bad()),
        ('{"type":"resize","cols":80.5,"rows":24}', Bad()),
        ('{"type":"dance"}', Bad()),
        ("[]", Bad()),
        ("{", Bad()),
        ("", Bad()),
        ('{"type":"input","data":"' + "x" * ((1 << 20) + 1) + '"}', TooBig()),
    ],
)
def test_control_frames(text: str, expected: object) -> None:
    assert JsonCodec().decode(text, None) == expected
    assert BinaryCodec().decode(text, None) == expected


def test_binary_frames() -> None:
    codec = BinaryCodec()

    assert codec.decode(None, b"\x01\xff\x00") == Typed(b"\xff\x00")
    assert codec.decode(None, b"\x02" + (9).to_bytes(8, "big")) == Acknowledged(9)
    assert codec.decode(None, b"\x02\0") == Bad()
    assert codec.decode(None, b"") == Bad()
    assert codec.decode(None, b"\x03x") == Bad()
    assert codec.decode(None, b"\x01" + bytes((1 << 20) + 1)) == TooBig()
    assert codec.decode('{"type":"role","role":"view"}', None) == RoleChanged(Role.VIEW)
    assert codec.decode('{"type":"role","role":"king"}', None) == Bad()
    assert JsonCodec().decode(None, b"\x01x") == Bad()
