"""Following descriptors: every piece once, where it belongs, and what is left at the end."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager

import anyio
import pytest

from craftastic.runtimes._following import follow


@contextmanager
def pairs(count: int) -> Generator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(count)]
    for one, _ in made:
        one.setblocking(False)
    try:
        yield made
    finally:
        for pair in made:
            for one in pair:
                one.close()


async def test_each_piece_is_handed_over_where_it_belongs_until_one_ends() -> None:
    seen, others = bytearray(), bytearray()

    with pairs(2) as ((ours, theirs), (our_other, their_other)):

        def take(data: bytes) -> None:
            seen.extend(data)
            their_other.sendall(b"<" + data + b">")
            if bytes(seen) == b"one":
                theirs.sendall(b"two")
            else:
                theirs.close()

        theirs.sendall(b"one")
        with anyio.fail_after(10):
            await follow({ours.fileno(): take, our_other.fileno(): others.extend})

    assert (bytes(seen), bytes(others)) == (b"onetwo", b"<one><two>")


async def test_what_the_other_still_holds_at_the_end_is_handed_over() -> None:
    others = bytearray()

    with pairs(2) as ((ours, theirs), (our_other, their_other)):
        theirs.close()
        their_other.sendall(b"last words")
        with anyio.fail_after(10):
            await follow({ours.fileno(): others.extend, our_other.fileno(): others.extend})

    assert bytes(others) == b"last words"


async def test_what_a_taker_raises_is_raised_where_it_is_awaited() -> None:
    def refuse(_data: bytes) -> None:
        raise ValueError("not what was expected")

    with pairs(1) as ((ours, theirs),), anyio.fail_after(10):
        theirs.sendall(b"x")
        with pytest.raises(ValueError, match="not what"):
            await follow({ours.fileno(): refuse})


async def test_cancelled_it_leaves_the_rest_unread() -> None:
    seen = bytearray()

    with pairs(1) as ((ours, theirs),):
        with anyio.move_on_after(0.05):
            await follow({ours.fileno(): seen.extend})
        theirs.sendall(b"later")
        await anyio.wait_readable(ours)

        assert os.read(ours.fileno(), 100) == b"later"
    assert not seen
