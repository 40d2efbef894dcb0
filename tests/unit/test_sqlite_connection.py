"""The end of an SQLite connection."""

import asyncio

import anyio
import anyio.lowlevel
import pytest

from craftastic import _sqlite


async def test_a_connection_that_is_stopped_while_it_closes_comes_to_its_end() -> None:
    connection = await _sqlite.connection(":memory:")

    closing = asyncio.create_task(connection.close())  # noqa: TID251 - as SQLAlchemy does
    await anyio.lowlevel.checkpoint()  # it has asked the thread to close
    connection.stop()

    with anyio.fail_after(10):
        await closing


async def test_a_cancelled_close_comes_to_its_end() -> None:
    connection = await _sqlite.connection(":memory:")

    closing = asyncio.create_task(connection.close())  # noqa: TID251 - as SQLAlchemy does
    await anyio.lowlevel.checkpoint()
    connection.stop()
    closing.cancel()

    with anyio.fail_after(10), pytest.raises(asyncio.CancelledError):
        await closing
