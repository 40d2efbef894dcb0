"""What is told of sessions that somebody looks at, and that nothing is asked where nobody does."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from craftastic.accounts.service import UserId
from craftastic.clock import SystemClock
from craftastic.database import Database
from craftastic.events._hub import MOST_PASSING, Follower
from craftastic.events.service import EventLog, Listener
from craftastic.sessions.service import Session
from craftastic.sessions.watching import MOST_PER_USER, SessionWatches, changes_of
from craftastic.worktrees.service import Glance, JobGlance
from tests.conftest import driver_url
from tests.fakes.clock import FakeClock
from tests.fakes.event_rig import Frame, following, new_user, process
from tests.fakes.served import Rig, rigged
from tests.fakes.workshop import rows, until

PACE = 0.05
ALL_NEW = [("git.changed", None), ("job.changed", None)]
CONFIG = (
    '[worktree]\nsetup = "until [ -e ../go ]; do sleep .05; done; echo more; '
    'until [ -e ../end ]; do sleep .05; done"\n[commands]\nserve = "sleep 600"\n'
)


@pytest.fixture
async def database(copy_of_template: Callable[[str], str]) -> AsyncIterator[Database]:
    """Give one kind only: what happens in a sandbox sees no database."""
    database = Database(driver_url(copy_of_template("sqlite")))
    yield database
    await database.close()


@pytest.fixture
async def rig(tmp_path: Path, database: Database, clock: FakeClock) -> AsyncIterator[Rig]:
    files = {"a.txt": "one\n", ".craftastic/config.toml": CONFIG}
    async with rigged(tmp_path, database, clock, files) as one:
        yield one


@pytest.fixture
async def watches(rig: Rig) -> AsyncIterator[SessionWatches]:
    watches = SessionWatches(rig.shop.sessions, pace=PACE)
    async with watches.running():
        yield watches


class Looker:
    """Somebody who looks, and keeps what is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | None]] = []
        self.about: set[tuple[UUID, UUID | None, UUID | None]] = set()

    def tell(
        self,
        kind: str,
        about: UUID,
        *,
        environment_id: UUID | None = None,
        session_id: UUID | None = None,
        job: str | None = None,
    ) -> None:
        self.told.append((kind, job))
        self.about.add((about, environment_id, session_id))

    async def hears(self, *expected: tuple[str, str | None]) -> None:
        """Wait until all of it was told, and nothing else, and forget it."""
        await self._until(lambda: set(expected) <= set(self.told))
        assert set(self.told) == set(expected)
        self.told.clear()

    async def hears_of(self, kind: str, job: str | None) -> None:
        """Wait until this was told, among others, and forget everything."""
        await self._until(lambda: (kind, job) in self.told)
        self.told.clear()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async def heard() -> bool:
            return condition()

        await until(heard)


def looks(rig: Rig) -> int:
    """Return how often the sandbox was asked."""
    return sum(1 for call in rig.runtime.calls if "worktree_word" in " ".join(call.argv))


async def look_again(rig: Rig, times: int = 2) -> None:
    """Wait until it was looked again, whole."""
    before = looks(rig)

    async def looked() -> bool:
        return looks(rig) > before + times

    await until(looked)


async def quiet(rig: Rig, name: str = "quiet") -> Session:
    """Make a session whose setup is over."""
    session = await rig.make(name)
    for one in ("go", "end"):
        (rig.tree(session).parent / one).touch()

    async def over() -> bool:
        found = await rig.shop.sessions.jobs.setup(rig.shop.owner, session.id, 0)
        return found.job.finished_at is not None

    await until(over)
    return session


async def test_what_anybody_does_in_a_worktree_is_told_once_and_nothing_else(
    rig: Rig, watches: SessionWatches
) -> None:
    session, looker = await quiet(rig), Looker()
    tree, tree_inside = rig.tree(session), session.working_directory

    with watches.watching(rig.shop.owner, [session.id], looker):
        await looker.hears(*ALL_NEW)
        await look_again(rig)
        assert looker.told == []

        (tree / "new.txt").write_text("x")
        await looker.hears(("git.changed", None))
        (tree / "new.txt").write_text("y")  # git lists it just as before
        await looker.hears(("git.changed", None))
        (tree / "b\nß.txt").write_bytes(b"x")
        await looker.hears(("git.changed", None))
        await rig.commit(session, "new.txt")
        await looker.hears(("git.changed", None))
        await rig.git(session, "branch", "another")
        await looker.hears(("git.changed", None))

        begun = await rig.sh('cd "$1"; git rev-parse --git-path MERGE_HEAD', tree_inside)
        await rig.sh('cd "$1"; git rev-parse HEAD >"$2"', tree_inside, begun)
        await looker.hears(("git.changed", None))
        await rig.sh('cd "$1"; rm "$2"', tree_inside, begun)
        await looker.hears(("git.changed", None))

        index = Path(await rig.git(session, "rev-parse", "--git-dir"))
        stamp = await rig.sh('stat -c %Y.%y "$1/index"', str(index))
        os.utime(tree / "a.txt")  # a plain `git status` would write the index now
        await look_again(rig, 3)
        assert looker.told == []
        assert await rig.sh('stat -c %Y.%y "$1/index"', str(index)) == stamp

    assert looker.about == {(session.id, rig.environment.id, session.id)}


async def test_jobs_are_told_by_name_from_their_beginning_to_their_end(
    rig: Rig, watches: SessionWatches
) -> None:
    session, looker = await rig.make("mine"), Looker()

    with watches.watching(rig.shop.owner, [session.id], looker):
        await looker.hears(*ALL_NEW)
        (rig.tree(session).parent / "go").touch()
        await looker.hears(("job.output", "setup"))
        (rig.tree(session).parent / "end").touch()
        await looker.hears(("job.changed", "setup"))

        await rig.shop.sessions.jobs.start(rig.shop.owner, session.id, "serve")
        await looker.hears_of("job.changed", "command.serve")
        await rig.shop.sessions.jobs.stop(rig.shop.owner, session.id, "serve")
        await looker.hears_of("job.changed", "command.serve")


async def test_who_does_not_look_hears_of_jobs_that_the_server_starts_and_stops(
    rig: Rig, database: Database
) -> None:
    session = await quiet(rig)
    jobs, owner = rig.shop.sessions.jobs, rig.shop.owner
    await jobs.start(owner, session.id, "serve")
    await jobs.stop(owner, session.id, "serve")
    await jobs.run_setup(owner, session.id)

    told = await rows(database, "SELECT body FROM events WHERE type = 'job.changed' ORDER BY seq")

    names = [str(body).partition('"job":"')[2].rstrip('"}') for (body,) in told]
    assert names == ["setup", "command.serve", "command.serve", "setup"]
    assert all(f'"sessionId":"{session.id}"' in str(body) for (body,) in told)


async def test_two_who_look_share_one_look_and_nobody_means_none(
    rig: Rig, watches: SessionWatches
) -> None:
    session, first, second = await quiet(rig), Looker(), Looker()
    assert looks(rig) == 0

    with watches.watching(rig.shop.owner, [session.id, session.id], first):
        await first.hears(*ALL_NEW)
        with watches.watching(rig.shop.owner, [session.id], second):
            await second.hears(*ALL_NEW)
            assert watches.count == 1
            assert first.told == []
            (rig.tree(session) / "x").touch()
            await first.hears(("git.changed", None))
            await second.hears(("git.changed", None))
        (rig.tree(session) / "y").touch()
        await first.hears(("git.changed", None))
    asked = looks(rig)

    assert watches.count == 0
    await anyio.sleep(20 * PACE)  # ten times as long as between two looks
    assert looks(rig) == asked
    assert second.told == []


async def test_nobody_elses_session_is_looked_at(rig: Rig, watches: SessionWatches) -> None:
    session, looker, stranger = await quiet(rig), Looker(), Looker()
    other = await rig.shop.add_user()

    with (
        watches.watching(other, [session.id, uuid4()], stranger),
        watches.watching(rig.shop.owner, [session.id], looker),
    ):
        await looker.hears(*ALL_NEW)
        (rig.tree(session) / "x").touch()
        await looker.hears(("git.changed", None))
        await rig.shop.sessions.delete(rig.shop.owner, session.id)
        asked = looks(rig)
        await anyio.sleep(20 * PACE)

    assert stranger.told == []
    assert looks(rig) <= asked + 1, "what is deleted is not looked at"


LIES = (
    "echo nonsense",
    'echo \'{"git":1,"jobs":[]}\'',
    'echo \'{"git":"x","jobs":{"command.a/b":["1","2",true],"a":["1","2",true]}}\'',
    "head -c 10000000 /dev/zero",
    "exit 3",
)


async def test_a_sandbox_that_lies_ends_no_watch(rig: Rig, watches: SessionWatches) -> None:
    session, looker = await quiet(rig), Looker()
    fake = rig.runtime.home(rig.environment.id) / "bin"
    fake.mkdir()
    honest = rig.runtime.path

    with watches.watching(rig.shop.owner, [session.id], looker):
        await looker.hears(*ALL_NEW)
        for lie in LIES:
            (fake / "python3").write_text(f"#!/bin/sh\n{lie}\n")
            (fake / "python3").chmod(0o755)
            rig.runtime.path = f"/home/dev/bin:{honest}"
            await look_again(rig)
            assert {job for _, job in looker.told} <= {None, "setup"}, "no name of its own making"
            looker.told.clear()
            rig.runtime.path = honest
            (rig.tree(session) / f"{len(lie)}").touch()
            await looker.hears_of("git.changed", None)

        git = rig.tree(session) / ".git"
        where = git.read_text()
        git.unlink()
        git.mkdir()  # no repository of git's any more
        await looker.hears(("git.changed", None))
        git.rmdir()
        git.write_text(where)
        await looker.hears(("git.changed", None))


async def test_a_user_has_so_many_watched_and_others_still_have_theirs() -> None:
    class Nobodys:
        worktrees: Any = None

        async def get_owned(self, owner: UserId, session_id: UUID) -> Any:
            await anyio.sleep_forever()

    watches = SessionWatches(Nobodys())
    many = [uuid4() for _ in range(MOST_PER_USER + 5)]
    with watches.watching(UserId(uuid4()), many, Looker()):
        assert watches.count == 0, "it does not run"
    async with watches.running():
        with (
            watches.watching(UserId(uuid4()), many[:10], Looker()),
            watches.watching(owner := UserId(uuid4()), many[:10], Looker()),
            watches.watching(owner, many, Looker()),
        ):
            assert watches.count == 10 + MOST_PER_USER
            await anyio.wait_all_tasks_blocked()
        assert watches.count == 0
        with watches.watching(owner, many, Looker()):
            pass  # gone before its first look began
        await anyio.wait_all_tasks_blocked()


def test_what_changed_is_told_by_what_it_is() -> None:
    still = JobGlance("s", "l", running=True)
    before = Glance("g", {"setup": still, "command.a": still, "command.gone": still})
    now = Glance(
        "g",
        {
            "setup": JobGlance("s", "longer", running=True),
            "command.a": JobGlance("ended", "longer", running=False),
            "command.new": still,
        },
    )

    assert list(changes_of(before, now)) == [
        ("job.changed", "command.a"),
        ("job.changed", "command.gone"),
        ("job.changed", "command.new"),
        ("job.output", "setup"),
    ]
    assert list(changes_of(before, before)) == []
    assert list(changes_of(before, Glance("h", before.jobs))) == [("git.changed", None)]


def test_what_a_stream_does_not_take_is_bounded_and_told_as_a_whole() -> None:
    follower, session = Follower(), uuid4()
    for number in range(3 * MOST_PASSING):
        follower.tell("job.changed", session, session_id=session, job=f"command.{number}")
        follower.tell("git.changed", session, session_id=session)

    taken = follower.take_passing()

    assert len(taken) == MOST_PASSING + 1
    assert list(taken)[-1] == f'{{"type":"job.changed","id":"{session}","sessionId":"{session}"}}'
    assert follower.take_passing() == {}


async def test_a_stream_tells_what_is_noticed_without_an_id_between_its_events(
    database: Database, tmp_path: Path
) -> None:
    mine, open_now = uuid4(), list[tuple[UserId, Sequence[UUID], Listener]]()

    @contextmanager
    def watch(owner: UserId, ids: Sequence[UUID], listener: Listener, /) -> Any:
        open_now.append(now := (owner, ids, listener))
        yield
        open_now.remove(now)

    given: Callable[..., AbstractContextManager[None]] = watch
    async with process(tmp_path, database, SystemClock(), watch=given) as server:
        tokens, me = await new_user(server.accounts, "a@example.com")
        query = f"?watch={mine}&watch={uuid4()}"
        async with following(server.url, tokens.access_token, query=query) as reader:
            start = await reader.next()
            assert isinstance(start, Frame)
            ((owner, ids, listener),) = open_now
            assert owner == me.user_id
            assert ids[0] == mine

            for _ in range(3):
                listener.tell("job.output", mine, session_id=mine, job="command.a")
            (noticed,) = await reader.events(1)
            await server.tell(me.user_id, "written")
            (written,) = await reader.events(1)

            async with AsyncExitStack() as stack:
                again = await stack.enter_async_context(
                    following(server.url, tokens.access_token, start.id)
                )
                await again.next()
                assert [one.name for one in await again.events(1)] == ["written"]
                assert not open_now[1][1]

        async def left() -> bool:
            return open_now == []

        await until(left)

    assert (noticed.event, noticed.id) == ("job.output", None)
    assert noticed.data == {
        "type": "job.output",
        "id": str(mine),
        "sessionId": str(mine),
        "job": "command.a",
    }
    assert written.id is not None


async def test_an_event_of_a_job_is_kept_like_every_other(
    database: Database, tmp_path: Path
) -> None:
    async with process(tmp_path, database, SystemClock()) as server:
        tokens, me = await new_user(server.accounts, "a@example.com")
        async with following(server.url, tokens.access_token) as reader:
            await reader.next()
            async with database.begin() as tx:
                for job in ("setup", "setup", "teardown"):
                    EventLog(tx).add(me.user_id, "job.changed", me.user_id, job=job)
            found = await reader.events(2)

    assert [one.data["job"] for one in found] == ["setup", "teardown"]


@pytest.mark.parametrize(
    "query",
    ["?watch=x", "?" + "&".join(f"watch={uuid4()}" for _ in range(17))],
    ids=["nonsense", "too much"],
)
async def test_nonsense_and_too_much_to_watch_are_refused(
    query: str, database: Database, tmp_path: Path
) -> None:
    async with process(tmp_path, database, SystemClock()) as server:
        tokens, _ = await new_user(server.accounts, "a@example.com")
        with pytest.raises(AssertionError, match=r"VALIDATION|INVALID"):
            async with following(server.url, tokens.access_token, query=query):
                pass
