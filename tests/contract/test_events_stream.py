"""Streams of events over real sockets and both databases: whole, one's own, and exact."""

import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx
import psutil
import pytest
import sqlalchemy

from craftastic.accounts.service import Caller, UserId
from craftastic.admin.service import AdminService
from craftastic.clock import SystemClock
from craftastic.database import Database
from craftastic.events.service import EventLog, write_pending
from tests.conftest import BACKENDS, driver_url
from tests.contract.conftest import until
from tests.fakes.event_rig import PASSWORD, Frame, Process, Reader, following, new_user, process

SIGN_IN_ENDS_S = 5.0
CUT_OFF_S = 8.0
"""Five seconds as well, and what a busy machine adds; without the cut it would be a minute."""
NOBODYS_ID = "3-0badcafe"


@pytest.fixture
async def server(database: Database, tmp_path: Path) -> AsyncIterator[Process]:
    async with process(tmp_path, database, SystemClock()) as one:
        yield one


@pytest.fixture(params=BACKENDS)
async def two(
    request: pytest.FixtureRequest, copy_of_template: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[tuple[Process, Process]]:
    """Give two server processes over one database; neither is woken by the other's commits."""
    url = driver_url(copy_of_template(request.param))
    async with AsyncExitStack() as stack:
        made: list[Process] = []
        for _ in range(2):
            database = Database(url)
            stack.push_async_callback(database.close)
            made.append(await stack.enter_async_context(process(tmp_path, database, SystemClock())))
        yield made[0], made[1]


async def begun(reader: Reader) -> Frame:
    """Read how a stream begins."""
    frame = await reader.next()
    assert isinstance(frame, Frame)
    return frame


async def test_a_change_reaches_its_owner_and_nobody_else(server: Process) -> None:
    mine, me = await new_user(server.accounts, "a@example.com")
    theirs, them = await new_user(server.accounts, "b@example.com")

    async with (
        following(server.url, mine.access_token) as here,
        following(server.url, theirs.access_token) as there,
    ):
        assert (await begun(here)).data == {"type": "ready", "resumed": False}
        await begun(there)
        async with server.database.begin() as tx:
            EventLog(tx).add(me.user_id, "session.changed", "s", environment_id=them.user_id)
        await server.tell(them.user_id, "theirs")

        (frame,) = await here.events(1)
        assert frame.event == "session.changed"
        assert frame.data == {
            "type": "session.changed",
            "id": "s",
            "environmentId": str(them.user_id),
        }
        assert [one.name for one in await there.events(1)] == ["theirs"]
        assert here.retry == ["1000"]
    assert here.response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert here.response.headers["cache-control"] == "no-store"


async def test_what_was_rolled_back_is_not_told_and_leaves_no_gap(server: Process) -> None:
    tokens, me = await new_user(server.accounts, "a@example.com")

    async with following(server.url, tokens.access_token) as reader:
        await begun(reader)
        await server.tell(me.user_id, "one")

        async def fail() -> None:
            async with server.database.begin() as tx:
                EventLog(tx).add(me.user_id, "thing.changed", "never")
                await write_pending(tx)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()
        await server.tell(me.user_id, "two")

        frames = await reader.events(2)

    assert [one.name for one in frames] == ["one", "two"]
    assert [one.id and one.id.partition("-")[0] for one in frames] == ["1", "2"]


async def test_the_same_twice_in_one_transaction_is_told_once(server: Process) -> None:
    tokens, me = await new_user(server.accounts, "a@example.com")

    async with following(server.url, tokens.access_token) as reader:
        await begun(reader)
        await server.tell(me.user_id, "a", "b", "a")
        await server.tell(me.user_id, "c")

        assert [one.name for one in await reader.events(3)] == ["a", "b", "c"]


async def test_who_comes_back_gets_exactly_what_was_missed(server: Process) -> None:
    tokens, me = await new_user(server.accounts, "a@example.com")
    names = [f"n{index}" for index in range(450)]  # more than are read at once
    async with following(server.url, tokens.access_token) as reader:
        start = await begun(reader)
        for first in range(0, 450, 50):
            await server.tell(me.user_id, *names[first : first + 50])
        frames = await reader.events(450)
    assert [one.name for one in frames] == names

    places = [(start.id, 0), *((one.id, index + 1) for index, one in enumerate(frames))]
    for last, seen in places[:3] + places[199:202] + places[-2:]:
        async with following(server.url, tokens.access_token, last) as reader:
            again = await begun(reader)
            rest = await reader.events(450 - seen)
            await server.tell(me.user_id, "more")
            (more,) = await reader.events(1)
        assert again.data == {"type": "ready", "resumed": True}
        assert again.id is None, "an id here would skip what was missed"
        assert [one.name for one in rest] == names[seen:]
        assert more.name == "more"
        async with server.database.begin() as tx:  # as it was before, for the next turn
            await tx.execute(sqlalchemy.text("DELETE FROM events WHERE seq > 450"))
            await tx.execute(
                sqlalchemy.text("UPDATE event_heads SET seq = 450, tag = :tag"),
                {"tag": str(frames[-1].id).partition("-")[2]},
            )


async def test_nothing_is_missing_or_double_over_two_processes_and_many_cuts(
    two: tuple[Process, Process],
) -> None:
    tokens, me = await new_user(two[0].accounts, "a@example.com")
    dice = random.Random(7)  # noqa: S311 - repeatable, not secret
    writers, each = 6, 25
    got: list[Frame] = []

    async def write(number: int) -> None:
        for index in range(each):
            await two[number % 2].tell(me.user_id, f"{number}.{index}")

    async with following(two[0].url, tokens.access_token) as reader:
        last = (await begun(reader)).id
    cuts = 0
    async with anyio.create_task_group() as tasks:
        for number in range(writers):
            tasks.start_soon(write, number)
        while len(got) < writers * each:
            at = two[dice.randrange(2)]
            async with following(at.url, tokens.access_token, last) as reader:
                assert (await begun(reader)).data == {"type": "ready", "resumed": True}
                got += await reader.events(min(dice.randrange(1, 15), writers * each - len(got)))
                last = got[-1].id
                cuts += 1

    assert cuts > 10
    assert len({one.id for one in got}) == writers * each
    for number in range(writers):
        mine = [one.name for one in got if one.name.startswith(f"{number}.")]
        assert mine == [f"{number}.{index}" for index in range(each)]


async def test_a_transaction_that_commits_late_is_neither_skipped_nor_overtaken(
    two: tuple[Process, Process],
) -> None:
    tokens, me = await new_user(two[0].accounts, "a@example.com")
    written, finish, second_done = anyio.Event(), anyio.Event(), anyio.Event()

    async def early() -> None:
        async with two[0].database.begin() as tx:
            EventLog(tx).add(me.user_id, "thing.changed", "early")
            await write_pending(tx)  # has its number, and is not committed
            tx.info.clear()
            written.set()
            await finish.wait()

    async def late() -> None:
        await written.wait()
        await two[1].tell(me.user_id, "late")
        second_done.set()

    async with (
        following(two[1].url, tokens.access_token) as reader,
        anyio.create_task_group() as tasks,
    ):
        await begun(reader)
        tasks.start_soon(early)
        tasks.start_soon(late)
        await written.wait()
        with anyio.move_on_after(1.0):
            await second_done.wait()
        assert not second_done.is_set(), "it would have the later number and be seen first"
        finish.set()

        assert [one.name for one in await reader.events(2)] == ["early", "late"]


@pytest.mark.parametrize(
    "last", [NOBODYS_ID, "99-0badcafe", "0-1", "x", "", "-1-0", "1", "9" * 60, "1-zz"]
)
async def test_an_unknown_id_is_answered_with_a_reset_to_now(last: str, server: Process) -> None:
    tokens, me = await new_user(server.accounts, "a@example.com")
    await server.tell(me.user_id, *(f"n{index}" for index in range(5)))

    async with following(server.url, tokens.access_token, last) as reader:
        frame = await begun(reader)
        await server.tell(me.user_id, "after")
        (after,) = await reader.events(1)
    async with following(server.url, tokens.access_token, frame.id) as reader:
        again = await begun(reader)

    assert (frame.event, frame.data) == ("reset", {"type": "reset"})
    assert str(frame.id).startswith("5-")
    assert after.name == "after"
    assert again.event == "ready", "the id of a reset is a place to go on from"


async def test_another_users_id_is_an_unknown_one(server: Process) -> None:
    mine, me = await new_user(server.accounts, "a@example.com")
    theirs, them = await new_user(server.accounts, "b@example.com")
    await server.tell(me.user_id, "a", "b")
    await server.tell(them.user_id, "c", "d")
    async with following(server.url, theirs.access_token) as reader:
        place = (await begun(reader)).id

    async with following(server.url, mine.access_token, place) as reader:
        frame = await begun(reader)

    assert frame.event == "reset"


async def test_whose_place_is_no_longer_kept_is_reset_and_who_missed_nothing_is_not(
    database: Database, tmp_path: Path
) -> None:
    async with process(tmp_path, database, SystemClock(), most_kept=3) as server:
        tokens, me = await new_user(server.accounts, "a@example.com")
        _, other = await new_user(server.accounts, "b@example.com")
        async with following(server.url, tokens.access_token) as reader:
            await begun(reader)
            await server.tell(me.user_id, *"abcdef")
            await server.tell(other.user_id, "x")
            ids = [one.id for one in await reader.events(6)]

        await server.events.forget()

        begins: list[str] = []
        for last in ids:
            async with following(server.url, tokens.access_token, last) as reader:
                begins.append((await begun(reader)).event)
        # The third missed nothing, but its own event is gone: nobody can tell that it was one.
        assert begins == ["reset", "reset", "reset", "ready", "ready", "ready"]
        async with database.read() as tx:
            kept = await tx.scalar(sqlalchemy.text("SELECT count(*) FROM events"))
        assert kept == 3 + 1


async def test_old_events_go_and_an_idle_client_still_goes_on(
    database: Database, tmp_path: Path
) -> None:
    async with process(tmp_path, database, SystemClock(), retention_s=3600.0) as server:
        tokens, me = await new_user(server.accounts, "a@example.com")
        async with following(server.url, tokens.access_token) as reader:
            await begun(reader)
            await server.tell(me.user_id, "a", "b")
            first, last = await reader.events(2)
        await server.events.forget()
        async with following(server.url, tokens.access_token, first.id) as reader:
            assert (await begun(reader)).event == "ready", "an hour has not passed"

        async with database.begin() as tx:
            await tx.execute(sqlalchemy.text("UPDATE events SET created_at = created_at - 3601"))
        await server.events.forget()

        async with following(server.url, tokens.access_token, first.id) as reader:
            assert (await begun(reader)).event == "reset"
        async with following(server.url, tokens.access_token, last.id) as reader:
            assert (await begun(reader)).event == "ready"
            await server.tell(me.user_id, "c")
            assert [one.name for one in await reader.events(1)] == ["c"]


async def test_a_silent_stream_says_that_it_lives(database: Database, tmp_path: Path) -> None:
    async with process(tmp_path, database, SystemClock(), heartbeat_s=0.2) as server:
        tokens, me = await new_user(server.accounts, "a@example.com")
        async with following(server.url, tokens.access_token) as reader:
            await begun(reader)

            assert [await reader.next() for _ in range(2)] == ["still here", "still here"]

            await server.tell(me.user_id, "a")
            assert [one.name for one in await reader.events(1)] == ["a"]


async def test_a_stream_ends_with_its_sign_in(two: tuple[Process, Process]) -> None:
    tokens, _ = await new_user(two[0].accounts, "a@example.com")
    again = await two[0].accounts.login("a@example.com", PASSWORD)

    async with (
        following(two[0].url, tokens.access_token) as ended,
        following(two[0].url, again.access_token) as other,
    ):
        await begun(ended)
        await begun(other)
        await two[0].accounts.logout(tokens.refresh_token)

        assert await ended.next(SIGN_IN_ENDS_S) is None
        await two[0].accounts.logout_all(UserId(again.user.id))
        assert await other.next(SIGN_IN_ENDS_S) is None


async def test_a_stream_ends_with_the_server_and_goes_on_elsewhere(
    two: tuple[Process, Process],
) -> None:
    tokens, me = await new_user(two[0].accounts, "a@example.com")
    async with following(two[0].url, tokens.access_token) as reader:
        await begun(reader)
        await two[1].tell(me.user_id, "a")
        (a,) = await reader.events(1)

        two[0].events.drain()

        assert await reader.next(2.0) is None
    await until(lambda: two[0].events.open_streams == 0, "the stream is gone")
    await two[0].tell(me.user_id, "b")
    async with following(two[1].url, tokens.access_token, a.id) as reader:
        await begun(reader)
        assert [one.name for one in await reader.events(1)] == ["b"]


async def test_a_user_has_so_many_streams_and_no_more(server: Process) -> None:
    mine, _ = await new_user(server.accounts, "a@example.com")
    theirs, _ = await new_user(server.accounts, "b@example.com")
    async with AsyncExitStack() as stack:
        # Kept, since a reader that is forgotten closes its stream.
        readers = [
            await stack.enter_async_context(following(server.url, mine.access_token))
            for _ in range(20)
        ]
        for reader in readers:
            await begun(reader)

        async with httpx.AsyncClient() as client:
            headers = {"Authorization": f"Bearer {mine.access_token}"}
            refused = await client.get(f"{server.url}/api/events", headers=headers)
        async with following(server.url, theirs.access_token) as reader:
            assert (await begun(reader)).event == "ready"

    assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_EVENT_STREAMS")
    assert refused.headers["retry-after"] == "30"
    await until(lambda: server.events.open_streams == 0, "closed streams are noticed")
    async with following(server.url, mine.access_token) as reader:
        assert (await begun(reader)).event == "ready"


async def test_a_client_that_does_not_read_holds_nobody_up_and_is_reset_at_last(
    database: Database, tmp_path: Path
) -> None:
    async with process(tmp_path, database, SystemClock(), most_kept=500) as server:
        tokens, me = await new_user(server.accounts, "a@example.com")
        with _unread(server.url, tokens.access_token) as stalled:
            async with following(server.url, tokens.access_token) as reader:
                await begun(reader)
                # Far more than the buffers of both ends of the stalled connection hold.
                for turn in range(40):
                    names = [f"{turn}-{index}-" + "x" * 1000 for index in range(300)]
                    await server.tell(me.user_id, *names)
                    assert [one.name for one in await reader.events(300)] == names
            await server.events.forget()

            numbers, resets = await anyio.to_thread.run_sync(_read_to_reset, stalled)

    assert numbers == list(range(1, len(numbers) + 1)), "all until the reset, in order"
    assert len(numbers) < 40 * 300
    assert resets == [40 * 300]


async def logged_out(server: Process, me: Caller) -> None:
    await server.accounts.logout_all(me.user_id)


async def password_changed(server: Process, me: Caller) -> None:
    await server.accounts.recovery.change_password(me, PASSWORD, "another-horse-another-battery")


async def disabled(server: Process, me: Caller) -> None:
    admin = AdminService(server.accounts, server.personal, server.personal.audit)
    await admin.add_user(None, "chief@example.com", "C", is_admin=True)
    await admin.disable(None, me.user_id)


@pytest.mark.parametrize("end", [logged_out, password_changed, disabled])
async def test_a_client_that_does_not_read_is_cut_off_with_the_end_of_its_sign_in(
    two: tuple[Process, Process], end: Callable[[Process, Caller], Awaitable[None]]
) -> None:
    """SEC-36: at the process that ends it, and at another one."""
    tokens, me = await new_user(two[0].accounts, "a@example.com")
    with (
        _unread(two[0].url, tokens.access_token) as here,
        _unread(two[1].url, tokens.access_token) as there,
    ):
        await stalled(two[0], me, here, there)

        await end(two[0], me)

        await cut_off(two, here, there)


async def test_a_client_that_does_not_read_is_cut_off_with_the_end_of_its_access_token(
    two: tuple[Process, Process],
) -> None:
    """SEC-36: at the process that ends it, and at another one."""
    _, me = await new_user(two[0].accounts, "a@example.com")
    made = await two[0].personal.create(me.user_id, "program", "read", 1)
    with _unread(two[0].url, made.text) as here, _unread(two[1].url, made.text) as there:
        await stalled(two[0], me, here, there)

        await two[0].personal.revoke(me.user_id, made.token.id)

        await cut_off(two, here, there)


async def stalled(server: Process, me: Caller, *clients: socket.socket) -> None:
    """Tell clients more than the buffers of both ends of their connections hold."""
    for one in clients:
        await until(lambda one=one: _is_held(one), "the stream is open")
    for turn in range(20):
        await server.tell(me.user_id, *[f"{turn}-{index}-" + "x" * 1000 for index in range(300)])


async def cut_off(servers: tuple[Process, Process], *clients: socket.socket) -> None:
    """Wait until no server holds anything of these clients, who read nothing meanwhile."""
    with anyio.fail_after(CUT_OFF_S):
        while any(_is_held(one) for one in clients):  # noqa: ASYNC110 - a system's table
            await anyio.sleep(0.05)
    assert [one.events.open_streams for one in servers] == [0, 0]
    for one in clients:
        text = await anyio.to_thread.run_sync(_rest_of, one)
        assert not text.endswith(b"\r\n0\r\n\r\n"), "it ends like a whole answer"


def _is_held(client: socket.socket) -> bool:
    """Tell whether the server, in this process, has its end of a client's connection."""
    port = client.getsockname()[1]
    found = psutil.Process().net_connections("tcp")
    return any(one.raddr and one.raddr[1] == port for one in found)


def _rest_of(client: socket.socket) -> bytes:
    text = b""
    try:
        while more := client.recv(1 << 20):
            text += more
    except ConnectionResetError:
        pass
    return text


def _unread(url: str, token: str) -> socket.socket:
    """Open a stream with a small buffer, and read nothing of it."""
    address = urlsplit(url)
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(20)
    one.connect((address.hostname, address.port))
    one.sendall(
        f"GET /api/events HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    return one


def _read_to_reset(stalled: socket.socket) -> tuple[list[int], list[int]]:
    """Read a stream until its reset; return the numbers of the events and of the reset."""
    text = b""
    while b"event: reset" not in text or not text.endswith(b"\r\n"):
        text += stalled.recv(1 << 20)
    numbers: list[int] = []
    resets: list[int] = []
    # Chunks begin with their lengths; a frame never crosses two of them.
    for frame in text.replace(b"\r\n", b"\n").split(b"\n\n"):
        fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if b": " in line)
        if fields.get(b"event") == b"thing.changed":
            numbers.append(int(fields[b"id"].partition(b"-")[0]))
        elif fields.get(b"event") == b"reset":
            resets.append(int(fields[b"id"].partition(b"-")[0]))
    return numbers, resets
