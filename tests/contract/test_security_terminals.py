"""What hostile code in a sandbox, or a hostile client, does to terminals: never to anybody else's.

`tmux` and `python3` of a sandbox may be the sandbox's own programs: its search path begins in its
own home. Everything that the server reads over a pane's connection is theirs to invent.
"""

import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import anyio
import pytest

from craftastic.clock import SystemClock
from craftastic.errors import CraftasticError
from craftastic.runtimes.base import RunTimeout
from craftastic.terminals import _protocol as protocol
from craftastic.terminals._control import Reply
from craftastic.terminals._filter import OutputFilter
from craftastic.terminals._hub import Hub
from craftastic.terminals._snapshot import FIELDS, Request, SnapshotRefused, read
from craftastic.terminals.endpoints import MAX_WAITING_BYTES, Connection

QUESTIONS = [
    b"\x1b]52;c;?\x07", b"\x1b]52;c;\x00?\x07", b"\x1b\x00]52;c;?\x07", b"\x1b]52;c;\r\n?\x1b\\",
    b"\x1b]52;c;" + b"\0" * 5000 + b"?\x07", b"\x1b]52;" + b"c" * 5000 + b";?\x07",
    b"\x1b]4;1;\x01?\x07", b"\x1b]11;\x7f?\x07", b"\x1b[6n", b"\x1b[6\x00n", b"\x1b\r[6n",
    b"\x1b[\n6\tn", b"\x1b[\x7f6n", b"\x1b\x7f[6n", b"\x1b[\n21t", b"\x1b[>0;\x00c", b"\x1b[\x08c",
    b"\x1b\x00P$qm\x1b\\", b"\x1b\x00Z", b"\x1b[?1\x00$p", b"\x1b[\x001\x004\x00t",
]  # fmt: skip


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
def test_no_question_reaches_a_viewer_with_controls_in_it(question: bytes, *, cut: bool) -> None:
    """Emulators obey controls inside a sequence at once and go on with the sequence."""
    given = b"before" + question + b"after"
    one = OutputFilter()
    pieces = [bytes([byte]) for byte in given] if cut else [given]

    left = b"".join(one.feed(piece, 0.0) for piece in pieces)

    assert b"\x1b" not in left
    assert left.translate(None, bytes(range(32)) + b"\x7f") == b"beforeafter"


def test_a_sequence_with_controls_in_it_keeps_its_effect() -> None:
    assert OutputFilter().feed(b"\x1b[3\r1mred\x1b]52;c;QUJD\x07", 0.0) == (
        b"\r\x1b[31mred\x1b]52;c;QUJD\x07"
    )


FRAMES = [
    '{"type":"role","role":[]}', '{"type":"role","role":{}}', '{"type":"role","role":null}',
    '{"type":{}}', '{"type":"resize","cols":[],"rows":{}}', '{"type":"input","data":{}}',
]  # fmt: skip


@pytest.mark.parametrize("text", FRAMES)
def test_a_frame_of_wrong_types_is_a_bad_frame(text: str) -> None:
    for codec in (protocol.JsonCodec(), protocol.BinaryCodec()):
        assert isinstance(codec.decode(text, None), protocol.Bad)


@pytest.mark.parametrize(
    "values", [["1000000000000", "24"], ["80", "-1"], ["80", "0x10"], ["9" * 5000, "24"]]
)
def test_a_pane_of_an_impossible_size_is_refused(values: list[str]) -> None:
    request = Request("%0", "nonce", 10)
    fields = "|".join(["nonce", *values, *["0"] * (len(FIELDS) - 2)])
    replies = [Reply(True, fields.encode())]
    replies += [Reply(True, b"")] * (request.replies - 2) + [Reply(True, b"nonce")]

    with pytest.raises(SnapshotRefused):
        read(request, replies)


class Lies:
    """A stream from a sandbox whose tmux answers the first question with this."""

    def __init__(self, answer: bytes) -> None:
        self._greeting = [b"%begin 1 1 0\n%end 1 1 0\n%session-changed $0 x\n"]
        self._answer = answer
        self._asked = anyio.Event()
        self._frames = [struct.pack("!BII", 1, 0, 2) + b"/x\n"]

    async def send(self, data: bytes) -> None:
        self._asked.set()

    async def receive_stdout(self) -> bytes:
        if self._greeting:
            return self._greeting.pop()
        await self._asked.wait()
        if self._answer:
            answer, self._answer = self._answer, b""
            return b"%begin 1 2 1\n" + answer + b"\n%end 1 2 1\n"
        return b""

    async def receive_stderr(self) -> bytes:
        if self._frames:
            return self._frames.pop()
        await anyio.sleep_forever()
        return b""


class LyingSandbox:
    session = "x"

    def __init__(self, answer: bytes, alive: CraftasticError | None = None) -> None:
        self._answer = answer
        self._alive = alive
        self.opened = 0

    def open(self) -> AbstractAsyncContextManager[Any]:
        self.opened += 1

        @asynccontextmanager
        async def opened() -> AsyncGenerator[Lies]:
            yield Lies(self._answer)

        return opened()

    async def alive(self) -> bool:
        if self._alive is not None:
            raise self._alive
        return False


class Held:
    held = True


@pytest.mark.parametrize(
    ("answer", "alive"),
    [
        (b"%0 x y", None),
        (b"%" + b"9" * 5000 + b" 80 24", None),
        (b"%0 " + b"9" * 5000 + b" 24", None),
        ("%² 80 24".encode(), None),
        (b"", RunTimeout("the sandbox does not answer")),
        (b"", CraftasticError("anything")),
    ],
)
async def test_a_sandbox_that_lies_ends_its_own_terminal_alone(
    answer: bytes, alive: CraftasticError | None
) -> None:
    hub = Hub(LyingSandbox(answer, alive), Held(), SystemClock())

    with anyio.move_on_after(3):
        await hub.run()  # must not raise: what it raised would end everybody's terminals

    assert hub.ended is not None
    assert hub.viewers == set()


class Flood:
    """A client that types a mebibyte again and again, to a terminal that is not attached yet."""

    def __init__(self) -> None:
        self.taken = 0

    async def receive(self) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        self.taken += 1
        return {"type": "websocket.receive", "bytes": b"\x01" + bytes(1 << 20)}


async def test_what_waits_for_an_attach_is_bounded_in_bytes() -> None:
    flood = Flood()
    connection = Connection(cast("Any", flood), cast("Any", None), protocol.BinaryCodec())
    send, receive = anyio.create_memory_object_stream[protocol.Message](64)

    with send, receive, anyio.move_on_after(1):
        async with anyio.create_task_group() as tasks:
            await connection._receive(tasks, send)

    assert 1 <= flood.taken <= (MAX_WAITING_BYTES >> 20) + 1


def test_an_origin_of_no_form_is_refused() -> None:
    class Socket:
        headers = {"origin": "http://[", "host": "127.0.0.1"}  # noqa: RUF012

    class Service:
        class settings:  # noqa: N801
            cors_origin: Sequence[str] = ()
            base_url = "http://127.0.0.1"

    connection = Connection(cast("Any", Socket()), cast("Any", Service()), protocol.BinaryCodec())
    assert not connection._origin_allowed()
