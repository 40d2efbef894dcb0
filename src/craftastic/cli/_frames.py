"""The client's side of `craftastic.v2`: frames to values and back, without any I/O."""

import json
import struct
from dataclasses import dataclass, field
from typing import Any, cast

OUTPUT = 0x01
SNAPSHOT = 0x02
INPUT = 0x01
ACKNOWLEDGE = 0x02
HEADER = struct.Struct(">BQ")
MAX_INPUT_BYTES = 32 << 10
"""Most bytes of one input frame, far below the server's limit of 1 MiB."""


class BadFrame(ValueError):
    """The server sent something that is not of the protocol."""


class Gap(ValueError):
    """Output is missing between what was received and this frame; only a snapshot mends it."""


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes of the stream; `first` is the number of the first."""

    first: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole screen; `following` is the number of the byte that comes after it."""

    following: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Control:
    """A control message; `fields` is hostile until checked."""

    type: str
    fields: dict[str, Any]


def decode(frame: bytes | str) -> Output | Snapshot | Control:
    """Turn a frame of the server's into a value.

    Raises:
        BadFrame: It is not one of the protocol's frames.
    """
    if isinstance(frame, str):
        return _decode_control(frame)
    if len(frame) < HEADER.size:
        raise BadFrame("a binary frame without its number")
    kind, number = cast("tuple[int, int]", HEADER.unpack_from(frame))
    if kind == OUTPUT:
        return Output(number, frame[HEADER.size :])
    if kind == SNAPSHOT:
        return Snapshot(number, frame[HEADER.size :])
    raise BadFrame(f"unknown kind of frame {kind}")


def _decode_control(frame: str) -> Control:
    try:
        message: object = json.loads(frame)
    except ValueError as error:
        raise BadFrame("a text frame that is not JSON") from error
    if not isinstance(message, dict):
        raise BadFrame("a text frame that is not an object")
    fields = cast("dict[str, Any]", message)
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise BadFrame("a message without a type")
    return Control(kind, fields)


def encode_input(data: bytes) -> bytes:
    return bytes((INPUT,)) + data


def encode_acknowledge(following: int) -> bytes:
    """Say that everything before the byte with this number was shown."""
    return HEADER.pack(ACKNOWLEDGE, following)


def encode_resize(columns: int, rows: int) -> str:
    """Say the terminal's size, kept within the protocol's 1 to 1000 by 1 to 500."""
    return json.dumps(
        {
            "type": "resize",
            "cols": min(max(columns, 1), 1000),
            "rows": min(max(rows, 1), 500),
        }
    )


def encode_role(role: str) -> str:
    return json.dumps({"type": "role", "role": role})


@dataclass(slots=True)
class Position:
    """How far the stream was received; survives the connection.

    Args:
        stream: The stream's opaque id, or None before the first one.
        following: Number of the next byte wanted, or None while only a snapshot can go on.
    """

    stream: str | None = None
    following: int | None = field(default=None)

    def enter(self, stream: str) -> None:
        """Begin or go on with a stream; another one starts with a snapshot."""
        if stream != self.stream:
            self.stream = stream
            self.following = None

    def forget(self) -> None:
        """Want a snapshot next: what is on the screen is no longer what the stream left there."""
        self.stream = None
        self.following = None

    def place(self, snapshot: Snapshot) -> None:
        self.following = snapshot.following

    def take(self, output: Output) -> bytes:
        """Return what is new in a frame and move on.

        Raises:
            Gap: Bytes are missing before it.
        """
        if self.following is None or output.first > self.following:
            raise Gap(f"wanted byte {self.following}, got {output.first}")
        fresh = output.data[self.following - output.first :]
        self.following += len(fresh)
        return fresh

    @property
    def query(self) -> dict[str, str]:
        """Return what a connection says to go on here; empty when it wants a snapshot."""
        if self.stream is None or self.following is None:
            return {}
        return {"stream": self.stream, "seen": str(self.following)}
