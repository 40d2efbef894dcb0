"""The terminal's WebSocket against a real tmux: refusals, frames, limits, both protocols."""

import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from websockets.asyncio.client import connect

from craftastic.database import Database
from craftastic.terminals import endpoints
from tests.fakes.terminal_desk import WAIT_S, Client, Desk, open_desk
from tests.fakes.terminal_rig import until


@pytest.fixture
async def desk(database: Database, data_dir: Path) -> AsyncIterator[Desk]:
    async with open_desk(database, data_dir) as one:
        yield one


async def test_a_plain_client_types_and_sees(desk: Desk) -> None:
    async with desk.open() as client:
        await client.send(type="resize", cols=100, rows=30)
        await client.until_message("request-resize")
        await client.type("echo $COLUMNS-h\u00e9llo\r")
        await client.until("100-h\u00e9llo")

        assert client.text.startswith("\x1bc")
        assert desk.sessions.viewers[0] == 1


async def test_frames_before_the_attach_are_kept(desk: Desk) -> None:
    async with desk.open() as client:
        for word in ("echo ear", "ly-", "frames\r"):
            await client.type(word)
        await client.until("early-frames\r\n")


async def test_a_numbered_client_goes_on_where_it_was(desk: Desk) -> None:
    async with desk.open(v2=True) as client:
        ready = await client.until_message("ready")
        await client.send(type="resize", cols=80, rows=24)
        await client.connection.send(b"\x01echo on''e\r")
        await client.until("one\r\n")
        following = client.following
        await client.connection.send(b"\x01sleep 0.3; echo tw''o\r")
    async with desk.open(v2=True, stream=ready["stream"], seen=str(following)) as again:
        again.following = following
        assert (await again.until_message("ready"))["resumed"] is True
        await again.until("two\r\n")

        assert again.snapshots == 0


async def test_who_goes_on_with_nothing_new_to_see_can_type_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "FIRST_SHOWN_S", 10 * WAIT_S)
    async with desk.open(v2=True) as client:
        ready = await client.until_message("ready")
        await client.send(type="resize", cols=80, rows=24)
        await client.connection.send(b"\x01echo re''ady; cat\r")
        await client.until("ready\r\n")
        await client.connection.send(b"\x01here\r")
        await client.until("here\r\nhere\r\n")
        following = client.following
    async with desk.open(v2=True, stream=ready["stream"], seen=str(following)) as again:
        again.following = following
        assert (await again.until_message("ready"))["resumed"] is True
        await again.connection.send(b"\x01typed\r")
        await again.until("typed\r\ntyped\r\n")


async def test_two_viewers_share_and_the_second_is_told_of_sizes(desk: Desk) -> None:
    async with desk.open(v2=True) as one, desk.open(v2=True) as two:
        await one.until_message("ready")
        await two.until_message("ready")
        await one.send(type="resize", cols=90, rows=20)
        size = await two.until_message("size")
        assert (size["cols"], size["rows"]) == (90, 20)
        await one.connection.send(b"\x01echo sha''red\r")
        await two.until("shared")
        await two.send(type="role", role="view")
        await two.connection.send(b"\x01echo never\r")
        await one.connection.send(b"\x01echo af''ter\r")
        await one.until("after")
        assert "never" not in one.text


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ({"token": ""}, 1008, "Authentication required"),
        ({"token": "bad"}, 1008, "Invalid authentication token"),
        ({"environmentId": ""}, 1008, "Environment ID required"),
        ({"environmentId": str(uuid4())}, 1008, "Session not found"),
        ({"environmentId": "x"}, 1008, "Session not found"),
        ({"token": "stranger"}, 1008, "Session not found"),
    ],
)
async def test_a_refusal_is_a_close_frame(
    desk: Desk, query: dict[str, str], code: int, reason: str
) -> None:
    assert await desk.refusal(desk.url(**query)) == (code, reason)
    assert desk.rig.opened == 0
    assert not desk.runtime.processes


async def test_a_foreign_origin_is_refused(desk: Desk) -> None:
    closed = await desk.refusal(desk.url(), origin="http://evil.example")

    assert closed == (1008, "Origin not allowed")
    assert not desk.runtime.processes


async def test_twenty_frames_that_mean_nothing_close(desk: Desk) -> None:
    async with desk.open() as client:
        for number in range(20):
            await client.connection.send("{" if number % 2 else '{"type":"dance"}')
        code, _ = await client.until_closed()
        assert code == 1008


async def test_a_frame_that_is_too_big_closes(desk: Desk) -> None:
    async with desk.open() as client:
        await client.type("x" * ((1 << 20) + (200 << 10)))
        assert await client.until_closed() == (1009, "Message too big")


async def test_a_paste_of_a_mebibyte_arrives_whole(desk: Desk) -> None:
    line = "abcdefghij" * 7 + "\u00e9\u6f22 '\"\\$;~#\r"
    paste = (line * 13_000).encode()[: (1 << 20) - 200].decode(errors="ignore")
    size, digest = len(paste.encode()), hashlib.sha256(paste.encode()).hexdigest()
    async with desk.open() as client:
        await client.type(f"stty raw -echo; echo rea''dy; head -c {size} | sha256sum; stty sane\r")
        await client.until("ready")
        started = time.monotonic()
        await client.type(paste)
        await client.until(digest)
        assert time.monotonic() - started < 5


async def test_the_end_of_the_program_closes_and_the_next_attach_revives(desk: Desk) -> None:
    async with desk.open(v2=True) as client:
        await client.until_message("ready")
        await client.connection.send(b"\x01exit\r")
        assert await client.until_closed() == (1000, "Terminal session ended")
        assert client.messages[-1] == {"type": "exit"}
    await until(lambda: desk.sessions.sessions[desk.session.id].status == "dead", "dead")
    async with desk.open() as client:
        await client.type("echo ali''ve\r")
        await client.until("alive")
    assert desk.sessions.revived == 1


async def test_a_session_that_cannot_be_revived_says_why(desk: Desk) -> None:
    desk.sessions.sessions[desk.session.id] = replace(desk.session, status="dead")
    desk.sessions.refusal = "Branch main is in use by session other."

    assert await desk.refusal(desk.url()) == (1008, "Branch main is in use by session other.")


async def test_the_end_of_the_sign_in_closes_within_five_seconds(desk: Desk) -> None:
    async with desk.open() as client:
        await client.until_message("request-resize")
        desk.accounts.signed_in = False
        with anyio.fail_after(5):
            assert await client.until_closed() == (1008, "Authentication required")


async def test_the_end_of_the_server_is_told(desk: Desk) -> None:
    async with desk.open() as client:
        await client.until_message("request-resize")
        desk.service.drain()
        assert await client.until_closed() == (1012, "Server is restarting")


async def test_too_many_terminals_are_refused(desk: Desk) -> None:
    async with anyio.create_task_group() as tasks:
        held = anyio.Event()
        opened: list[Client] = []

        async def hold() -> None:
            async with desk.open() as client:
                await client.until_message("request-resize")
                opened.append(client)
                await held.wait()

        for _ in range(20):
            tasks.start_soon(hold)
        await until(lambda: len(opened) == 20, "twenty terminals")
        code, _ = await desk.refusal(desk.url())
        assert code == 1013
        held.set()


async def test_a_hundred_connects_and_drops_leave_nothing(desk: Desk) -> None:
    async def drop() -> None:
        connection = await connect(desk.url())
        connection.transport.abort()

    for _ in range(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(drop)
        await until(lambda: not desk.service._state.per_user, "everybody has left")
    async with desk.open() as client:
        await client.type("echo sti''ll\r")
        await client.until("still")
    await until(lambda: not desk.runtime.processes, "no stream is open")

    async def no_client() -> bool:
        return await desk.rig.control("list-clients") == ""

    await until(no_client, "tmux has seen its last client go")
    assert [path async for path in anyio.Path(desk.rig.run_dir).glob("pane.*")] == []
    await until(lambda: not desk.service._state.entries, "the hub is gone")
    assert not desk.service._state.per_user
