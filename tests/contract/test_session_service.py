"""Sessions over real databases, with real tmux and git in a runtime that isolates nothing."""

import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest
from sqlalchemy import text

from craftastic.database import Database
from craftastic.environments.service import Environment, EnvironmentNotFound, EnvironmentStatus
from craftastic.errors import CraftasticError, Unavailable
from craftastic.runtimes.base import SandboxExhausted
from craftastic.sessions.beginning import forget_viewers
from craftastic.sessions.service import (
    AgentNotFound,
    BranchInUse,
    Session,
    SessionNameTaken,
    SessionNotFound,
    SessionService,
    SessionStatus,
    SessionType,
    TooManySessions,
    WithAgent,
)
from craftastic.tmux.service import TmuxService
from craftastic.worktrees.service import RepositoryCorrupt, worktree_path
from tests.fakes.clock import FakeClock
from tests.fakes.git_http_server import GitHttpServer
from tests.fakes.served import ServedRuntime
from tests.fakes.workshop import (
    Workshop,
    build,
    opened,
    rows,
    settings_of,
    settled,
    statements,
    until,
)

URL = "https://github.com/a/b"
RACERS = 100


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a bare repository of one commit, to be copied."""
    folder = tmp_path_factory.mktemp("upstream")
    script = """
        set -e
        git init -q --bare -b main upstream.git; git -C upstream.git config http.receivepack true
        git clone -q upstream.git work 2>/dev/null; cd work; git checkout -q -b main
        git config user.name a; git config user.email a@example.com
        echo one > a.txt; git add a.txt; git commit -qm one; git push -q origin main
    """
    subprocess.run(["sh", "-c", script], check=True, cwd=folder, capture_output=True)
    return folder


@pytest.fixture
def served(tmp_path: Path, upstream: Path) -> Path:
    folder = tmp_path / "served"
    (folder / "git").mkdir(parents=True)
    shutil.copytree(upstream / "upstream.git", folder / "upstream.git")
    return folder


@pytest.fixture
def server(served: Path) -> Iterator[GitHttpServer]:
    with GitHttpServer(served) as server:
        yield server


@pytest.fixture
async def runtime(tmp_path: Path, served: Path) -> AsyncIterator[ServedRuntime]:
    folder = tmp_path / "sandboxes"
    folder.mkdir()
    runtime = ServedRuntime(folder, served)
    yield runtime
    await runtime.close()


@pytest.fixture
async def shop(
    database: Database, clock: FakeClock, runtime: ServedRuntime, server: GitHttpServer
) -> AsyncIterator[Workshop]:
    async with opened(build(database, clock, runtime, gateway_port=server.port)) as shop:
        yield shop


@pytest.fixture
async def plain(shop: Workshop) -> Environment:
    """Give an environment without a repository."""
    return await shop.create()


@pytest.fixture
async def cloned(shop: Workshop) -> Environment:
    """Give an environment with a repository that is cloned."""
    made = await shop.create(url=URL)
    return await shop.environments.ready(shop.owner, made.id)


async def tmux_names(shop: Workshop, environment: Environment) -> set[str]:
    current = await shop.environments.get_owned(shop.owner, environment.id)
    return await shop.sessions.tmux.names(current.sandbox)


async def make(
    shop: Workshop, environment: Environment, name: str | None = None, branch: str | None = None
) -> Session:
    return await shop.sessions.create(shop.owner, environment.id, name=name, branch=branch)


async def test_of_a_hundred_simultaneous_creates_of_one_name_one_wins(
    shop: Workshop, plain: Environment
) -> None:
    results: Counter[str] = Counter()

    async def create() -> None:
        try:
            await make(shop, plain, "same")
            results["made"] += 1
        except SessionNameTaken as error:
            results[f"taken by {error.answer['existingSession']['name']}"] += 1  # type: ignore[index]

    async with anyio.create_task_group() as tasks:
        for _ in range(RACERS):
            tasks.start_soon(create)

    assert results == {"made": 1, "taken by same": RACERS - 1}
    assert len(await tmux_names(shop, plain)) == 1


async def test_a_session_without_a_repository_works_in_the_workspace(
    shop: Workshop, plain: Environment
) -> None:
    made = await make(shop, plain)

    assert made.status is SessionStatus.INACTIVE
    assert made.name == "main"
    assert made.branch is None
    assert made.working_directory == "/home/dev/workspace"
    assert made.tmux_name == f"main-{int(shop.clock.now().timestamp() * 1000)}"
    assert await tmux_names(shop, plain) == {made.tmux_name}


async def test_a_session_of_a_repository_has_its_branch_in_its_worktree(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment
) -> None:
    made = await make(shop, cloned, branch="feature/x")

    assert made.branch == made.name == "feature/x"
    assert made.working_directory == worktree_path(cloned.id, "feature/x")
    assert (runtime.inside(cloned.id, made.working_directory) / "a.txt").read_text() == "one\n"
    shown = await runtime.run(
        cloned.sandbox,
        [
            *("tmux", "-N", "-S", "/run/craftastic/tmux.sock", "display-message", "-p"),
            *("-t", f"={made.tmux_name}:", "#{pane_start_path}"),
        ],
    )
    assert shown.stdout.decode().strip() == made.working_directory


async def test_a_create_takes_few_statements(
    shop: Workshop, plain: Environment, database: Database
) -> None:
    async with statements(database) as seen:
        await make(shop, plain)

    # The environment's own job may still be at its last words, and tell of them.
    others = ("BEGIN", "UPDATE environments", "INSERT INTO event")
    counted = [one for one in seen if not one.startswith(others)]
    locks = 0 if database.is_sqlite else 2  # of the environment, and of the audit log
    on_record = 3
    assert len(counted) == 4 + on_record + locks, "\n".join(one[:60] for one in counted)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("main", "main", "already in use by session"),
        ("Feature", "feature", "letter case"),
        ("a", "a/b", "cannot be beside"),
        ("a/b", "A", "cannot be beside"),
    ],
)
async def test_a_branch_in_the_way_of_a_living_one_is_refused(
    first: str, second: str, says: str, shop: Workshop, cloned: Environment
) -> None:
    existing = await make(shop, cloned, "one", first)

    with pytest.raises(BranchInUse) as refusal:
        await make(shop, cloned, "two", second)

    assert says in refusal.value.message
    assert refusal.value.answer["existingSession"]["id"] == str(existing.id)  # type: ignore[index]
    checked = await shop.sessions.check_branch(shop.owner, cloned.id, second)
    assert not checked.available
    assert checked.message == refusal.value.message


async def test_a_refused_worktree_fails_the_creation_and_leaves_nothing(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment, database: Database
) -> None:
    head = runtime.inside(cloned.id, f"/home/dev/.craftastic/repos/{cloned.id}/HEAD")
    head.write_text("nonsense")

    with pytest.raises(RepositoryCorrupt):
        await make(shop, cloned, "one", "new")

    assert await rows(database, "SELECT * FROM sessions") == []
    assert await tmux_names(shop, cloned) == set()
    head.write_text("ref: refs/heads/main\n")
    assert (await make(shop, cloned, "one", "new")).branch == "new"


async def test_a_failure_whose_remains_cannot_be_removed_at_once_frees_the_name_and_is_tidied_later(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment, database: Database
) -> None:
    runtime.faults.exhausted = True
    with pytest.raises(SandboxExhausted):
        await make(shop, cloned, "one", "new")
    listed = await shop.sessions.list_owned(shop.owner, cloned.id)
    runtime.faults.exhausted = False

    await shop.sessions.reconcile()

    assert listed == []
    assert await rows(database, "SELECT * FROM sessions") == []


@pytest.mark.parametrize("commands_begun", [0, 1])
async def test_a_create_that_a_crash_cut_short_is_finished_by_the_reconciler(
    commands_begun: int,
    shop: Workshop,
    cloned: Environment,
    runtime: ServedRuntime,
    database: Database,
) -> None:
    before = len(runtime.calls)

    async def begun() -> bool:
        stored = await rows(database, "SELECT 1 FROM sessions") != []
        return stored and len(runtime.calls) >= before + commands_begun

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(make, shop, cloned, "one", "new")
        await until(begun)
        tasks.cancel_scope.cancel()

    await shop.sessions.reconcile()

    (session,) = await shop.sessions.list_owned(shop.owner, cloned.id)
    assert session.ready
    assert session.status is SessionStatus.INACTIVE
    assert await tmux_names(shop, cloned) == {session.tmux_name}


async def test_a_session_is_made_by_one_command_in_its_sandbox(
    shop: Workshop, cloned: Environment, runtime: ServedRuntime
) -> None:
    before = len(runtime.calls)

    session = await make(shop, cloned, "one", "new")

    assert len(runtime.calls) == before + 1
    assert await tmux_names(shop, cloned) == {session.tmux_name}


async def test_deleting_a_session_removes_its_worktree_and_terminal(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment
) -> None:
    made = await make(shop, cloned, "one", "new")

    deleted = await shop.sessions.delete(shop.owner, made.id)

    assert (deleted.kept, deleted.pending) == (None, False)
    assert not runtime.inside(cloned.id, made.working_directory).exists()
    assert await tmux_names(shop, cloned) == set()
    with pytest.raises(SessionNotFound):
        await shop.sessions.delete(shop.owner, made.id)


async def test_deleting_a_session_keeps_what_would_be_lost_and_says_where(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment
) -> None:
    made = await make(shop, cloned, "one", "new")
    (runtime.inside(cloned.id, made.working_directory) / "b.txt").write_text("mine\n")

    deleted = await shop.sessions.delete(shop.owner, made.id)

    assert deleted.kept is not None
    assert deleted.kept.ref == f"refs/craftastic/kept/{made.id}"
    assert deleted.kept.uncommitted
    repository = f"/home/dev/.craftastic/repos/{cloned.id}"
    shown = await runtime.run(
        cloned.sandbox, ["git", "-C", repository, "show", f"{deleted.kept.ref}:b.txt"]
    )
    assert shown.stdout == b"mine\n"


async def test_a_worktree_that_a_dead_session_comes_back_to_is_left_alone(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment
) -> None:
    dead = await make(shop, cloned, "one", "new")
    tree = runtime.inside(cloned.id, dead.working_directory)
    (tree / "mine.txt").write_text("mine\n")
    await shop.sessions.update(shop.owner, dead.id, status=SessionStatus.DEAD)

    async def unreadable(_owner: UUID, _environment: UUID) -> Mapping[str, str]:
        raise Unavailable("A variable cannot be read.")

    with pytest.raises(Unavailable):
        await make(
            replace(shop, sessions=replace(shop.sessions, variables=unreadable)),
            cloned, "two", "new",
        )  # fmt: skip
    assert (tree / "mine.txt").exists()
    other = await make(shop, cloned, "two", "new")
    await shop.sessions.delete(shop.owner, other.id)

    assert (tree / "mine.txt").read_text() == "mine\n"
    await shop.sessions.revive(shop.owner, dead.id)
    await shop.sessions.delete(shop.owner, dead.id)
    assert not tree.exists()


async def test_a_session_that_fails_leaves_a_folder_that_was_there_before(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment
) -> None:
    first = await make(shop, cloned, "one", "new")
    tree = runtime.inside(cloned.id, first.working_directory)
    (tree / "inner").mkdir()
    await runtime.run(cloned.sandbox, ["git", "init", "-q", f"{first.working_directory}/inner"])
    (tree / "inner" / "x").write_text("mine\n")
    kept = (await shop.sessions.delete(shop.owner, first.id)).kept
    assert kept is not None
    assert kept.path == first.working_directory

    async def unreadable(_owner: UUID, _environment: UUID) -> Mapping[str, str]:
        raise Unavailable("A variable cannot be read.")

    with pytest.raises(Unavailable):
        await make(
            replace(shop, sessions=replace(shop.sessions, variables=unreadable)),
            cloned, "two", "new",
        )  # fmt: skip

    assert (tree / "inner" / "x").read_text() == "mine\n"


@pytest.mark.parametrize("bit", ["--skip-worktree", "--assume-unchanged"])
async def test_edits_that_git_was_told_to_overlook_are_kept_and_told(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment, bit: str
) -> None:
    made = await make(shop, cloned, "one", "new")
    path = made.working_directory
    tree = runtime.inside(cloned.id, path)
    (file,) = [one for one in tree.iterdir() if one.name != ".git"][:1]
    await runtime.run(cloned.sandbox, ["git", "-C", path, "update-index", bit, file.name])
    assert await shop.sessions.worktrees.unsaved(cloned.sandbox, cloned.id) == []
    file.write_text("my own\n")

    unsaved = await shop.sessions.worktrees.unsaved(cloned.sandbox, cloned.id)
    deleted = await shop.sessions.delete(shop.owner, made.id)

    assert [one.uncommitted for one in unsaved] == [True]
    assert deleted.kept is not None
    repository = f"/home/dev/.craftastic/repos/{cloned.id}"
    shown = await runtime.run(
        cloned.sandbox, ["git", "-C", repository, "show", f"{deleted.kept.ref}:{file.name}"]
    )
    assert shown.stdout == b"my own\n"


async def test_a_deletion_in_a_stopped_environment_is_finished_when_it_runs_again(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment, database: Database
) -> None:
    made = await make(shop, cloned, "one", "new")
    (runtime.inside(cloned.id, made.working_directory) / "b.txt").write_text("mine\n")
    runtime.vanish(cloned.id)
    await shop.environments.reconcile()

    deleted = await shop.sessions.delete(shop.owner, made.id)
    await shop.sessions.reconcile()
    left = await rows(database, "SELECT 1 FROM sessions")
    environment = await shop.environments.ready(shop.owner, cloned.id)
    await shop.sessions.reconcile()

    assert deleted.pending
    assert len(left) == 1
    assert await rows(database, "SELECT 1 FROM sessions") == []
    repository = f"/home/dev/.craftastic/repos/{cloned.id}"
    shown = await runtime.run(
        environment.sandbox,
        ["git", "-C", repository, "show", f"refs/craftastic/kept/{made.id}:b.txt"],
    )
    assert shown.stdout == b"mine\n"


async def test_of_simultaneous_creates_on_one_branch_one_wins(
    shop: Workshop, cloned: Environment
) -> None:
    results: Counter[str] = Counter()

    async def create(number: int) -> None:
        try:
            await make(shop, cloned, f"s{number}", "same")
            results["made"] += 1
        except BranchInUse as error:
            results[error.code] += 1

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(create, number)

    assert results == {"made": 1, "BRANCH_IN_USE": 19}


@pytest.mark.parametrize("commands_begun", [0, 1])
async def test_a_deletion_that_a_crash_cut_short_is_finished_by_the_reconciler(
    commands_begun: int,
    shop: Workshop,
    cloned: Environment,
    runtime: ServedRuntime,
    database: Database,
) -> None:
    made = await make(shop, cloned, "one", "new")
    (runtime.inside(cloned.id, made.working_directory) / "b.txt").write_text("mine\n")
    before = len(runtime.calls)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shop.sessions.delete, shop.owner, made.id)

        async def begun() -> bool:
            wished = await rows(database, "SELECT 1 FROM sessions WHERE status = 'dead'")
            return len(runtime.calls) >= before + commands_begun and wished != []

        await until(begun)
        tasks.cancel_scope.cancel()

    await shop.sessions.reconcile()

    assert await rows(database, "SELECT 1 FROM sessions") == []
    assert await tmux_names(shop, cloned) == set()
    assert not runtime.inside(cloned.id, made.working_directory).exists()
    repository = f"/home/dev/.craftastic/repos/{cloned.id}"
    shown = await runtime.run(
        cloned.sandbox,
        ["git", "-C", repository, "show", f"refs/craftastic/kept/{made.id}:b.txt"],
    )
    assert shown.stdout == b"mine\n"


async def test_of_two_deletes_and_a_create_at_once_nothing_stays_and_nothing_breaks(
    shop: Workshop, plain: Environment, database: Database
) -> None:
    made = await make(shop, plain, "one")
    outcomes: Counter[str] = Counter()

    async def attempt(work: str) -> None:
        try:
            if work == "delete":
                await shop.sessions.delete(shop.owner, made.id)
            else:
                await make(shop, plain, "one")
            outcomes[work] += 1
        except CraftasticError as error:
            outcomes[error.code] += 1

    async with anyio.create_task_group() as tasks:
        for work in ("delete", "create", "delete"):
            tasks.start_soon(attempt, work)
    await shop.sessions.reconcile()

    assert outcomes["delete"] == 1
    assert outcomes["SESSION_NOT_FOUND"] == 1
    alive = {str(name) for (name,) in await rows(database, "SELECT tmux_name FROM sessions")}
    assert await tmux_names(shop, plain) == alive


async def test_a_terminal_that_ended_is_noticed_and_revived_in_its_worktree(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment
) -> None:
    made = await make(shop, cloned, "one", "new")
    (runtime.inside(cloned.id, made.working_directory) / "b.txt").write_text("mine\n")
    await shop.sessions.tmux.kill(cloned.sandbox, made.tmux_name)

    live = await shop.sessions.status(shop.owner, made.id)
    revived = await shop.sessions.revive(shop.owner, made.id)

    assert (live.status, live.is_realtime) == (SessionStatus.DEAD, True)
    assert revived.status is SessionStatus.INACTIVE
    assert revived.working_directory == made.working_directory
    assert (runtime.inside(cloned.id, made.working_directory) / "b.txt").exists()
    assert await tmux_names(shop, cloned) == {made.tmux_name}


async def test_the_reconciler_notices_ended_terminals_and_no_others(
    shop: Workshop, plain: Environment
) -> None:
    one, two = await make(shop, plain, "one"), await make(shop, plain, "two")
    await shop.sessions.tmux.kill(plain.sandbox, one.tmux_name)

    await shop.sessions.reconcile()

    listed = {
        session.name: session.status
        for session in await shop.sessions.list_owned(shop.owner, plain.id)
    }
    assert listed == {"one": SessionStatus.DEAD, "two": SessionStatus.INACTIVE}
    assert (await shop.sessions.get(shop.owner, two.id)).reason is None


async def test_the_sessions_of_a_sandbox_that_vanished_are_dead_and_come_back(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment
) -> None:
    made = await make(shop, cloned, "one", "new")
    runtime.vanish(cloned.id)
    await shop.environments.reconcile()
    died = await shop.sessions.get(shop.owner, made.id)

    revived = await shop.sessions.revive(shop.owner, made.id)

    assert died.status is SessionStatus.DEAD
    assert revived.status is SessionStatus.INACTIVE
    assert await tmux_names(shop, cloned) == {made.tmux_name}


async def test_a_sandbox_that_vanished_unnoticed_is_started_by_a_create(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment
) -> None:
    runtime.vanish(cloned.id)

    made = await make(shop, cloned, "one", "new")

    assert made.ready
    assert await tmux_names(shop, cloned) == {made.tmux_name}


async def test_a_lost_clone_is_made_again_by_a_create(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment
) -> None:
    repository = runtime.inside(cloned.id, f"/home/dev/.craftastic/repos/{cloned.id}")
    for entry in repository.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    made = await make(shop, cloned, "one", "main")

    assert (runtime.inside(cloned.id, made.working_directory) / "a.txt").exists()


async def test_a_dead_session_whose_name_or_branch_was_taken_is_not_revived(
    shop: Workshop, cloned: Environment
) -> None:
    one = await make(shop, cloned, "one", "new")
    await shop.sessions.update(shop.owner, one.id, status=SessionStatus.DEAD)
    await make(shop, cloned, "one", "other")
    with pytest.raises(SessionNameTaken):
        await shop.sessions.revive(shop.owner, one.id)
    await shop.sessions.update(shop.owner, one.id, name="renamed")
    await make(shop, cloned, "three", "new")

    with pytest.raises(BranchInUse):
        await shop.sessions.revive(shop.owner, one.id)

    assert (await shop.sessions.get(shop.owner, one.id)).status is SessionStatus.DEAD


async def test_patch_acts(shop: Workshop, plain: Environment) -> None:
    made, other = await make(shop, plain, "one"), await make(shop, plain, "two")
    update = shop.sessions.update

    ended = await update(shop.owner, made.id, status=SessionStatus.DEAD)
    after_end = await tmux_names(shop, plain)
    back = await update(shop.owner, made.id, status=SessionStatus.INACTIVE)
    after_revival = await tmux_names(shop, plain)
    renamed = await update(shop.owner, made.id, name="uno")
    unchanged = await update(shop.owner, made.id)

    assert ended.status is SessionStatus.DEAD
    assert after_end == {other.tmux_name}
    assert back.status is SessionStatus.INACTIVE
    assert after_revival == {made.tmux_name, other.tmux_name}
    assert (renamed.name, renamed.tmux_name) == ("uno", made.tmux_name)
    assert unchanged == renamed
    with pytest.raises(SessionNameTaken):
        await update(shop.owner, made.id, name="two")


async def test_a_session_is_active_as_long_as_anybody_looks_at_it_through_any_server(
    shop: Workshop, plain: Environment, database: Database
) -> None:
    made = await make(shop, plain)
    one, other = replace(shop.sessions, server="one"), replace(shop.sessions, server="other")

    async def is_active() -> bool:
        return (await one.get(shop.owner, made.id)).status is SessionStatus.ACTIVE

    async def is_silent(server: str) -> None:
        async with database.begin() as tx:
            await tx.execute(
                text("UPDATE session_viewers SET expires_at = 1 WHERE server = :server"),
                {"server": server},
            )

    await one.viewers_changed(made.id, 1)
    await other.viewers_changed(made.id, 2)
    await one.viewers_changed(made.id, 0)
    assert await is_active(), "the other's viewers are still there"

    await one.keep_viewers({made.id})  # what was not written down when it came
    await other.viewers_changed(made.id, 0)
    assert await is_active()

    await other.keep_viewers(())
    assert await is_active()
    await is_silent("one")
    await other.keep_viewers(())
    assert not await is_active(), "nothing was heard of the first for too long"

    await one.keep_viewers({made.id})
    assert await is_active(), "it had only slept"
    await one.keep_viewers(())  # the word that the viewer left was lost
    assert not await is_active()


async def test_two_servers_whose_last_viewers_leave_at_one_moment_leave_it_inactive(
    shop: Workshop, plain: Environment
) -> None:
    made = await make(shop, plain)
    servers = [replace(shop.sessions, server=name) for name in ("one", "other")]
    for _ in range(20):
        for server in servers:
            await server.viewers_changed(made.id, 1)
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(server.viewers_changed, made.id, 0)

        assert (await shop.sessions.get(shop.owner, made.id)).status is SessionStatus.INACTIVE


async def test_servers_that_speak_of_the_same_sessions_at_one_moment_hold_up_nobody(
    shop: Workshop, plain: Environment
) -> None:
    made = [(await make(shop, plain, name=f"s{number}")).id for number in range(6)]
    servers = [replace(shop.sessions, server=name) for name in ("one", "other", "third")]

    async def speak(server: SessionService, turn: int) -> None:
        for round_ in range(15):
            watched = {one for at, one in enumerate(made) if (at + turn + round_) % 3}
            await server.keep_viewers(watched)
            await server.viewers_changed(made[(round_ * 5 + turn) % 6], round_ % 2)
            await server.touch(made[:: 1 if turn % 2 else -1])

    async with anyio.create_task_group() as tasks:
        for turn, server in enumerate(servers):
            tasks.start_soon(speak, server, turn)
    for server in servers:
        await server.keep_viewers(())

    states = {(await shop.sessions.get(shop.owner, one)).status for one in made}
    assert states == {SessionStatus.INACTIVE}


async def test_a_server_that_is_alone_forgets_all_viewers(
    shop: Workshop, plain: Environment, database: Database
) -> None:
    made = await make(shop, plain)
    await replace(shop.sessions, server="killed").viewers_changed(made.id, 1)

    await forget_viewers(database, shop.clock)

    assert (await shop.sessions.get(shop.owner, made.id)).status is SessionStatus.INACTIVE
    await shop.sessions.keep_viewers(())
    assert (await shop.sessions.get(shop.owner, made.id)).status is SessionStatus.INACTIVE


async def test_viewers_and_activity_are_recorded(shop: Workshop, plain: Environment) -> None:
    made = await make(shop, plain)

    async def now() -> Session:
        return await shop.sessions.get(shop.owner, made.id)

    await shop.sessions.viewers_changed(made.id, 2)
    active = await now()
    shop.clock.advance(60)
    await shop.sessions.touch([made.id])
    touched = await now()
    await shop.sessions.viewers_changed(made.id, 0)
    inactive = await now()
    await shop.sessions.ended(made.id, plain.sandbox)
    late = await now()
    await TmuxService({"memory": shop.runtime}, 1000).kill(plain.sandbox, made.tmux_name)
    await shop.sessions.ended(made.id, plain.sandbox)
    await shop.sessions.viewers_changed(made.id, 0)
    dead = await now()

    assert active.status is SessionStatus.ACTIVE
    assert touched.last_activity == shop.clock.now()
    assert inactive.status is SessionStatus.INACTIVE
    # A late word of a terminal before is not believed while there is one.
    assert late.status is SessionStatus.INACTIVE
    assert dead.status is SessionStatus.DEAD


async def test_anothers_sessions_are_not_there(shop: Workshop, plain: Environment) -> None:
    made = await make(shop, plain)
    other = await shop.add_user()
    sessions = shop.sessions

    for owner, asked in ((other, made.id), (shop.owner, uuid4())):
        for call in (sessions.get, sessions.get_owned, sessions.delete, sessions.revive):
            with pytest.raises(SessionNotFound):
                await call(owner, asked)
        for call in (sessions.status, sessions.update):
            with pytest.raises(SessionNotFound):
                await call(owner, asked)
    for owner, asked in ((other, plain.id), (shop.owner, uuid4())):
        for name in ("create", "list_owned", "end_in"):
            with pytest.raises(EnvironmentNotFound):
                await getattr(sessions, name)(owner, asked)


async def test_an_environment_has_a_limit_of_living_sessions(
    database: Database, clock: FakeClock, runtime: ServedRuntime
) -> None:
    settings = settings_of(max_sessions_per_environment=1)
    async with opened(build(database, clock, runtime, settings=settings)) as shop:
        environment = await shop.create()
        first = await make(shop, environment, "one")
        with pytest.raises(TooManySessions):
            await make(shop, environment, "two")
        await shop.sessions.update(shop.owner, first.id, status=SessionStatus.DEAD)

        assert (await make(shop, environment, "two")).ready


async def test_an_unknown_agent_is_not_found(shop: Workshop, plain: Environment) -> None:
    with pytest.raises(AgentNotFound):
        await shop.sessions.create(
            shop.owner, plain.id, session_type=SessionType.AGENT, agent=WithAgent(uuid4())
        )


async def test_stray_terminals_are_ended_and_sessions_are_not(
    shop: Workshop, plain: Environment
) -> None:
    made = await make(shop, plain)
    await shop.sessions.tmux.ensure(plain.sandbox, "stray-1", "/home/dev")
    assert plain.sandbox_id is not None

    await shop.sessions.end_strays(shop.owner, plain.sandbox_id)

    assert await tmux_names(shop, plain) == {made.tmux_name}


async def test_all_sessions_of_an_environment_are_ended(shop: Workshop, plain: Environment) -> None:
    for name in ("one", "two"):
        await make(shop, plain, name)

    await shop.sessions.end_in(shop.owner, plain.id)

    counts = await shop.sessions.count(shop.owner)
    assert (counts.total, counts.dead) == (2, 2)
    assert await tmux_names(shop, plain) == set()


async def test_ten_rounds_of_the_reconcilers_change_nothing(
    shop: Workshop, cloned: Environment, database: Database
) -> None:
    one = await make(shop, cloned, "one", "new")
    await make(shop, cloned, "two", "other")
    await shop.sessions.update(shop.owner, one.id, status=SessionStatus.DEAD)
    await shop.environments.reconcile()

    async def everything() -> object:
        return [
            await rows(database, "SELECT * FROM environments ORDER BY id"),
            await rows(database, "SELECT * FROM sessions ORDER BY id"),
            await tmux_names(shop, cloned),
        ]

    await settled(database)
    before = await everything()
    shop.clock.advance(100)
    for _ in range(10):
        await shop.environments.reconcile()
        await shop.sessions.reconcile()

    assert await everything() == before


async def test_deleting_an_environment_tells_what_was_only_there(
    shop: Workshop, runtime: ServedRuntime, cloned: Environment, database: Database
) -> None:
    made = await make(shop, cloned, "one", "new")
    (runtime.inside(cloned.id, made.working_directory) / "b.txt").write_text("mine\n")

    deleted = await shop.environments.delete(shop.owner, cloned.id)

    assert [(one.branch, one.uncommitted) for one in deleted.discarded] == [("new", True)]
    assert await rows(database, "SELECT * FROM sessions") == []
    assert not runtime.home(cloned.id).exists()


async def test_environments_are_listed_with_their_sessions(
    shop: Workshop, plain: Environment
) -> None:
    made = await make(shop, plain)

    (listed,) = await shop.environments.list_owned(shop.owner)

    assert [(line.id, line.name) for line in listed.sessions] == [(made.id, "main")]


async def test_a_session_made_while_the_environment_starts_waits_for_it(
    shop: Workshop, runtime: ServedRuntime
) -> None:
    runtime.faults.delay_s = 0.2
    found: list[Session] = []

    async def environment_id() -> UUID:
        async def there() -> bool:
            return await shop.environments.list_owned(shop.owner) != []

        await until(there)
        return (await shop.environments.list_owned(shop.owner))[0].environment.id

    async def session() -> None:
        environment = await shop.environments.get_owned(shop.owner, await environment_id())
        assert environment.status is EnvironmentStatus.STARTING
        runtime.faults.delay_s = 0
        found.append(await make(shop, environment, "early", "main"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shop.create, "one", URL)
        tasks.start_soon(session)

    assert found[0].ready
