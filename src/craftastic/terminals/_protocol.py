"""The two protocols of the terminal's WebSocket, without any socket."""

import codecs
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import orjson

from craftastic.terminals._snapshot import RESET
from craftastic.terminals._viewer import Bytes, Ended, Role, Size, Snapshot

V2 = "craftastic.v2"
MAX_INPUT_BYTES = 1 << 20
MAX_FRAME_BYTES = 2 << 20
"""A mebibyte of input with what JSON makes of it."""
MAX_BAD_FRAMES = 20
TEXT_BYTES = 64 << 10
HEADER = struct.Struct(">BQ")
OUTPUT, SNAPSHOT = 1, 2
INPUT, ACKNOWLEDGE = 1, 2
_RESIZE_REQUEST = '{"type":"request-resize"}'


@dataclass(frozen=True, slots=True)
class Typed:
    data: bytes


@dataclass(frozen=True, slots=True)
class Resized:
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    number: int


@dataclass(frozen=True, slots=True)
class RoleChanged:
    role: Role


@dataclass(frozen=True, slots=True)
class Nothing:
    """A frame that is allowed and has no effect, such as the size of a hidden page."""


@dataclass(frozen=True, slots=True)
class Bad:
    """Not a frame of the protocol."""


@dataclass(frozen=True, slots=True)
class TooBig:
    """More than one frame may carry."""


Message = Typed | Resized | Acknowledged | RoleChanged | Nothing | Bad | TooBig
Frame = str | bytes


class Codec(Protocol):
    follows: bool
    """Whether the viewer is told of sizes that others gave."""

    def attached(self, stream: str, size: Size, role: Role, *, resumed: bool) -> list[Frame]:
        """Return the frames that say the attach is done."""
        ...

    def encode(self, item: Snapshot | Bytes | Size | Ended) -> Iterator[Frame]:
        """Return the frames of one item."""
        ...

    def decode(self, text: str | None, data: bytes | None) -> Message:
        """Return what a client's frame says; hostile."""
        ...


def error(message: str) -> Frame:
    return _json({"type": "error", "message": message})


def _json(message: dict[str, Any]) -> str:
    return orjson.dumps(message).decode()


class JsonCodec:
    """The plain protocol: text frames alone."""

    follows = False

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def attached(self, stream: str, size: Size, role: Role, *, resumed: bool) -> list[Frame]:
        return [_RESIZE_REQUEST]

    def encode(self, item: Snapshot | Bytes | Size | Ended) -> Iterator[Frame]:
        if isinstance(item, Bytes):
            yield from self._output(item.data)
        elif isinstance(item, Snapshot):
            self._decoder.reset()
            yield from self._output(RESET + item.data)

    def decode(self, text: str | None, data: bytes | None) -> Message:
        if text is None:
            return Bad()
        message = _decode_control(text)
        if isinstance(message, RoleChanged):
            return Bad()
        return message

    def _output(self, data: bytes) -> Iterator[Frame]:
        for start in range(0, len(data), TEXT_BYTES):
            # A cut may fall inside a character: the decoder keeps its beginning.
            if text := self._decoder.decode(data[start : start + TEXT_BYTES]):
                yield _json({"type": "output", "data": text})


class BinaryCodec:
    """`craftastic.v2`: numbered bytes in binary frames, control messages in text frames."""

    follows = True

    def attached(self, stream: str, size: Size, role: Role, *, resumed: bool) -> list[Frame]:
        ready = {
            "type": "ready",
            "stream": stream,
            "cols": size.columns,
            "rows": size.rows,
            "role": role.value,
            "resumed": resumed,
        }
        return [_json(ready), _RESIZE_REQUEST]

    def encode(self, item: Snapshot | Bytes | Size | Ended) -> Iterator[Frame]:
        if isinstance(item, Bytes):
            yield HEADER.pack(OUTPUT, item.number) + item.data
        elif isinstance(item, Snapshot):
            yield HEADER.pack(SNAPSHOT, item.number) + item.data
        elif isinstance(item, Size):
            yield _json({"type": "size", "cols": item.columns, "rows": item.rows})
        elif item.exited:
            yield _json({"type": "exit"})

    def decode(self, text: str | None, data: bytes | None) -> Message:
        if text is not None:
            return _decode_control(text)
        if not data:
            return Bad()
        if data[0] == INPUT:
            return TooBig() if len(data) > MAX_INPUT_BYTES + 1 else Typed(data[1:])
        if data[0] == ACKNOWLEDGE and len(data) == HEADER.size:
            return Acknowledged(int.from_bytes(data[1:], "big"))
        return Bad()


def _decode_control(text: str) -> Message:
    if len(text) > MAX_FRAME_BYTES:
        return TooBig()
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Bad()
    if not isinstance(message, dict):
        return Bad()
    fields = cast("dict[str, Any]", message)
    match fields.get("type"):
        case "input":
            return _input(fields.get("data"))
        case "resize":
            return _resize(fields.get("cols"), fields.get("rows"))
        case "role":
            role = fields.get("role")
            return RoleChanged(Role(role)) if role in ("view", "drive") else Bad()
        case _:
            return Bad()


def _input(data: object) -> Message:
    if not isinstance(data, str):
        return Bad()
    typed = data.encode()
    return Typed(typed) if len(typed) <= MAX_INPUT_BYTES else TooBig()


def _resize(columns: object, rows: object) -> Message:
    # Only whole numbers; `True` is one for Python.
    if type(columns) is not int or type(rows) is not int:
        return Bad()
    if not (1 <= columns <= 1000 and 1 <= rows <= 500):  # noqa: PLR2004 - the protocol's bounds
        return Nothing()
    return Resized(columns, rows)
