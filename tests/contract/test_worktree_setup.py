"""Worktrees that are ready to work in: copied files, setups, commands and teardowns."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast
from uuid import UUID

import anyio
import psutil
import pytest
import sqlalchemy

from craftastic.database import Database
from craftastic.environments._work import Work
from craftastic.environments.service import Environment, EnvironmentStopped
from craftastic.errors import CraftasticError
from craftastic.runtimes.base import SandboxExhausted, SandboxGone
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.sessions._preparation import Preparation, no_mask, no_variables, place_of
from craftastic.sessions.service import (
    CommandNotFound,
    Session,
    SessionNotFound,
    SessionService,
    SetupNotDefined,
    SetupState,
)
from craftastic.worktrees.service import (
    JobRunning,
    JobStatus,
    WorktreeConfigInvalid,
    WorktreeMissing,
    start_of,
)
from tests.conftest import driver_url
from tests.contract.conftest import Bench
from tests.fakes.clock import FakeClock
from tests.fakes.served import URL, Rig, client_for, rigged
from tests.fakes.workshop import Workshop, build, opened, rows, settled, until
from tests.leaks import MARK_NAME, RUN
from tests.secrecy import Place, allow, canary

CONFIG = ".craftastic/config.toml"
SECRET = canary("variable")
Open = Callable[..., Awaitable[Rig]]
IGNORED = ".env\n*.local.json\nbig/\nnode_modules/\nlink\n"


@pytest.fixture
async def database(copy_of_template: Callable[[str], str]) -> AsyncIterator[Database]:
    """Give one kind only: what happens in a sandbox sees no database."""
    database = Database(driver_url(copy_of_template("sqlite")))
    yield database
    await database.close()


@pytest.fixture
async def open_rig(tmp_path: Path, database: Database, clock: FakeClock) -> AsyncIterator[Open]:
    """Give a function that makes the rig: of a configuration and of other files."""
    async with AsyncExitStack() as stack:

        async def make(config: str | bytes = "", **files: str | bytes) -> Rig:
            given = {"a.txt": "one\n", ".gitignore": IGNORED, CONFIG: config}
            given |= {name.replace("__", "/"): content for name, content in files.items()}
            return await stack.enter_async_context(rigged(tmp_path, database, clock, given))

        yield make


async def variables(_owner: UUID, _environment_id: UUID) -> Mapping[str, str]:
    return {"TOKEN": SECRET, "HOSTILE": "a b\n'\"$(id) `id` \\ ü", "EMPTY": ""}


async def mask(_owner: UUID, _environment_id: UUID) -> Callable[[str], str]:
    return lambda text: text.replace(SECRET, "••••••")


def give_variables(rig: Rig) -> None:
    rig.shop = replace(
        rig.shop, sessions=replace(rig.shop.sessions, variables=variables, mask=mask)
    )


async def setup_of(rig: Rig, session: Session) -> SetupState:
    return await rig.shop.sessions.jobs.setup(rig.shop.owner, session.id)


async def ended(rig: Rig, session: Session) -> SetupState:
    """Wait until the setup has ended, and return it."""
    found: list[SetupState] = []

    async def over() -> bool:
        found[:] = [await setup_of(rig, session)]
        return found[0].job.status not in {JobStatus.RUNNING, JobStatus.NONE}

    await until(over)
    return found[0]


def appears(path: Path) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        return await anyio.Path(path).exists()

    return there


# ---- setup ------------------------------------------------------------------------------------


async def test_a_new_worktree_is_set_up_in_the_background_and_once(open_rig: Open) -> None:
    rig = await open_rig(
        '[worktree]\nsetup = "echo once >>ran; pwd; until [ -e go ]; do sleep .1; done"'
    )

    made = await rig.make("mine")
    running = await setup_of(rig, made)
    (rig.tree(made) / "go").touch()
    done = await ended(rig, made)
    await rig.shop.sessions.revive(rig.shop.owner, made.id)
    await rig.shop.sessions.reconcile()

    assert running.job.status is JobStatus.RUNNING
    assert running.job.started_at is not None
    assert running.job.finished_at is running.job.exit_code is None
    assert (done.job.status, done.job.exit_code) == (JobStatus.SUCCEEDED, 0)
    assert made.working_directory in done.log.splitlines()
    assert not done.truncated
    assert done.job.command is not None
    assert done.job.command.startswith("echo once")
    assert done.job.finished_at is not None
    assert (rig.tree(made) / "ran").read_text() == "once\n"


async def test_steps_run_in_turn_until_one_fails(open_rig: Open) -> None:
    rig = await open_rig('[worktree]\nsetup = ["echo first", "echo second; exit 7", "echo third"]')

    done = await ended(rig, await rig.make("mine"))

    assert (done.job.status, done.job.exit_code) == (JobStatus.FAILED, 7)
    assert done.log == "$ echo first\nfirst\n$ echo second; exit 7\nsecond\n"


async def test_a_setup_has_the_login_shells_environment_and_the_variables(open_rig: Open) -> None:
    allow(Place.ENVIRONMENT, value=SECRET, because="a variable is in the shells it is for")
    rig = await open_rig(
        "[worktree]\nsetup = '''"
        'printf "%s|%s|%s|%s" "$PROFILE" "$HOSTILE" "${EMPTY-unset}" "$HOME" >out'
        "'''"
    )
    give_variables(rig)
    (rig.runtime.home(rig.environment.id) / ".bash_profile").write_text("export PROFILE=read\n")

    made = await rig.make("mine")
    await ended(rig, made)

    written = (rig.tree(made) / "out").read_text()
    assert written == "read|a b\n'\"$(id) `id` \\ ü||/home/dev"


async def test_variables_are_in_no_argument_and_no_file_and_are_masked(open_rig: Open) -> None:
    rig = await open_rig(
        '[worktree]\nsetup = "echo $TOKEN; touch here; until [ -e go ]; do sleep .1; done"\n'
        f'teardown = "echo $TOKEN; echo {SECRET}"'
    )
    give_variables(rig)

    made = await rig.make("mine")
    await until(appears(rig.tree(made) / "here"))
    arguments = [word for words in command_lines() for word in words]
    state = (rig.jobs(made) / "setup" / "state").read_text()
    (rig.tree(made) / "go").touch()
    done = await ended(rig, made)
    deleted = await rig.shop.sessions.delete(rig.shop.owner, made.id)

    assert "••••••\n" in done.log
    assert SECRET not in done.log
    assert SECRET not in state
    assert not any(SECRET in word for word in arguments)
    assert not any(SECRET in part for call in rig.runtime.calls for part in call.argv)
    assert deleted.teardown is not None
    assert deleted.teardown.log.count("••••••") == 3


def command_lines() -> list[list[str]]:
    """Return the command lines of the processes of this run's quick sandboxes."""
    found: list[list[str]] = []
    for process in psutil.process_iter():
        # One that ends meanwhile has none.
        with contextlib.suppress(psutil.Error):
            given = process.environ()
            if (given.get("HOME"), given.get(MARK_NAME)) == ("/home/dev", RUN.mark):
                found.append(process.cmdline())
    return found


async def test_a_server_that_found_a_worktree_fresh_too_does_not_run_its_setup_again(
    open_rig: Open,
) -> None:
    rig = await open_rig('[worktree]\nsetup = "echo x >>ran"')
    made = await rig.make("mine")
    await ended(rig, made)

    preparation = Preparation(rig.shop.sessions.worktrees.jobs, no_variables, no_mask)
    await preparation.prepare(made, rig.environment, "mine")
    await ended(rig, made)

    assert (rig.tree(made) / "ran").read_text() == "x\n"


async def test_a_setup_can_be_run_again_and_not_twice_at_once(open_rig: Open) -> None:
    rig = await open_rig('[worktree]\nsetup = "echo x >>ran; until [ -e go ]; do sleep .1; done"')
    made = await rig.make("mine")
    jobs, owner = rig.shop.sessions.jobs, rig.shop.owner

    with pytest.raises(JobRunning):
        await jobs.run_setup(owner, made.id)
    (rig.tree(made) / "go").touch()
    await ended(rig, made)
    again = await jobs.run_setup(owner, made.id)
    await ended(rig, made)

    assert again.job.status in {JobStatus.RUNNING, JobStatus.SUCCEEDED}
    assert (rig.tree(made) / "ran").read_text() == "x\nx\n"


async def test_of_many_that_start_a_setup_at_once_one_wins(open_rig: Open) -> None:
    rig = await open_rig('[worktree]\nsetup = "echo x >>ran; until [ -e go ]; do sleep .1; done"')
    made = await rig.make("mine")
    (rig.tree(made) / "go").touch()
    await ended(rig, made)
    (rig.tree(made) / "go").unlink()
    outcomes: list[str] = []

    async def run() -> None:
        try:
            await rig.shop.sessions.jobs.run_setup(rig.shop.owner, made.id)
            outcomes.append("started")
        except CraftasticError as error:
            outcomes.append(error.code)

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(run)
    (rig.tree(made) / "go").touch()
    await ended(rig, made)

    assert sorted(outcomes) == ["JOB_RUNNING"] * 5 + ["started"]
    assert (rig.tree(made) / "ran").read_text() == "x\nx\n"


async def test_a_setup_that_never_ends_is_ended_at_its_limit(open_rig: Open) -> None:
    rig = await open_rig(
        "[worktree]\nsetup_timeout = 1\n"
        "setup = \"trap '' TERM; echo $$ >pid; while :; do sleep .1; done\""
    )

    made = await rig.make("mine")
    done = await ended(rig, made)

    assert done.job.status is JobStatus.FAILED
    assert done.job.exit_code == 128 + signal.SIGKILL
    assert done.job.reason is not None
    assert "longer" in done.job.reason
    assert not psutil.pid_exists(int((rig.tree(made) / "pid").read_text()))


async def test_a_flood_is_kept_to_its_end_and_a_daemon_goes_on(open_rig: Open) -> None:
    rig = await open_rig(
        "[worktree]\nsetup = '''"
        "(setsid sh -c 'echo $$ >daemon; while echo still; do sleep .1; touch alive; done' &)\n"
        "seq 1 600000; echo last line'''"
    )

    made = await rig.make("mine")
    done = await ended(rig, made)

    daemon = psutil.Process(int((rig.tree(made) / "daemon").read_text()))
    try:
        lines = done.log.replace("still\n", "").splitlines()
        assert done.job.status is JobStatus.SUCCEEDED
        assert done.truncated
        assert 1_000_000 < len(done.log) <= 1 << 20
        assert lines[-1] == "last line"
        numbers = [int(line) for line in lines[:-1]]
        assert numbers == list(range(numbers[0], 600_001)), "it begins with a whole line"
        used = sum(path.stat().st_size for path in (rig.jobs(made) / "setup").iterdir())
        assert used < 3 << 20
        # What it prints goes nowhere, and yet somebody reads it.
        for _ in range(5):
            (rig.tree(made) / "alive").unlink(missing_ok=True)
            await until(appears(rig.tree(made) / "alive"))
    finally:
        daemon.kill()


async def test_a_setup_goes_on_when_the_server_is_another_one(open_rig: Open) -> None:
    rig = await open_rig(
        '[worktree]\nsetup = "echo begun; until [ -e go ]; do sleep .1; done; echo over"'
    )
    made = await rig.make("mine")

    rig.again()
    running = await setup_of(rig, made)
    (rig.tree(made) / "go").touch()
    done = await ended(rig, made)

    assert running.job.status is JobStatus.RUNNING
    assert done.job.status is JobStatus.SUCCEEDED
    assert done.log.endswith("begun\nover\n")


async def test_a_setup_whose_sandbox_ended_was_interrupted(open_rig: Open) -> None:
    rig = await open_rig('[worktree]\nsetup = "echo begun; sleep 600"')
    made = await rig.make("mine")
    await until(appears(rig.jobs(made) / "setup" / "log"))

    await rig.runtime.stop(rig.environment.sandbox)
    with pytest.raises((SandboxGone, EnvironmentStopped)):
        await setup_of(rig, made)
    await rig.shop.environments.reconcile()
    await rig.shop.environments.ready(rig.shop.owner, rig.environment.id)
    found = await setup_of(rig, made)

    assert found.job.status is JobStatus.INTERRUPTED
    assert found.job.exit_code is None
    assert found.log.startswith("$ echo begun")


async def test_a_creation_that_a_crash_cut_short_prepares_its_worktree_later(
    open_rig: Open, database: Database
) -> None:
    rig = await open_rig('[worktree]\nsetup = "echo x >>ran"')

    async def fresh() -> bool:
        home = rig.runtime.home(rig.environment.id)
        return bool(list(home.glob(".craftastic/jobs/*/fresh")))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.make, "mine")
        await until(fresh)
        tasks.cancel_scope.cancel()
    await rig.shop.sessions.reconcile()

    (made,) = await rig.shop.sessions.list_owned(rig.shop.owner, rig.environment.id)
    await ended(rig, made)
    assert (rig.tree(made) / "ran").read_text() == "x\n"
    assert not (rig.jobs(made) / "fresh").exists()


async def test_a_pull_requests_setup_waits_for_somebody_to_ask_for_it(open_rig: Open) -> None:
    rig = await open_rig()
    theirs = '[worktree]\nsetup = "echo $TOKEN >stolen"\nteardown = "echo $TOKEN >$HOME/stolen"\n'
    rig.upstream.commit("theirs", {CONFIG: theirs}, to="refs/pull/3/head")
    give_variables(rig)
    owner, home = rig.shop.owner, rig.runtime.home(rig.environment.id)

    made = await rig.make(None, start_of(None, None, 3))
    before = await setup_of(rig, made)
    await rig.shop.sessions.delete(owner, made.id)
    assert not (home / "stolen").exists()
    made = await rig.make("again", start_of(None, None, 3))
    await rig.shop.sessions.jobs.run_setup(owner, made.id)
    done = await ended(rig, made)
    deleted = await rig.shop.sessions.delete(owner, made.id)

    assert before.job.status is JobStatus.NONE
    assert any("pull request" in one for one in before.warnings)
    assert done.job.status is JobStatus.SUCCEEDED
    assert not any("pull request" in one for one in done.warnings)
    assert deleted.teardown is not None
    assert (home / "stolen").exists()


async def test_what_began_from_a_pull_request_stays_a_strangers(open_rig: Open) -> None:
    rig = await open_rig()
    theirs = '[worktree]\nsetup = "echo $TOKEN >$HOME/stolen"\n'
    pulled = rig.upstream.commit("theirs", {CONFIG: theirs}, to="refs/pull/3/head")
    give_variables(rig)
    first = await rig.make(None, start_of(None, None, 3))
    await rig.shop.sessions.delete(rig.shop.owner, first.id)

    for name, branch, start in (
        ("its branch", "pr-3", None),
        ("on top of it", "new-1", start_of("pr-3", None, None)),
        ("its commit", "new-2", start_of(None, pulled, None)),
    ):
        made = await rig.shop.sessions.create(
            rig.shop.owner, rig.environment.id, name=name, branch=branch, start=start
        )
        told = await setup_of(rig, made)

        assert told.job.status is JobStatus.NONE, name
        assert any("pull request" in one for one in told.warnings), name
        await rig.shop.sessions.delete(rig.shop.owner, made.id)
    assert not (rig.runtime.home(rig.environment.id) / "stolen").exists()


async def test_a_pull_request_that_a_branch_has_taken_in_is_no_strangers(open_rig: Open) -> None:
    rig = await open_rig()
    ours = '[worktree]\nsetup = "touch $HOME/ran"\n'
    rig.upstream.commit("ours", {CONFIG: ours}, to="refs/pull/3/head")
    await rig.make(None, start_of(None, None, 3))
    rig.upstream.git("push", "-q", "origin", "ours:refs/heads/taken")

    done = await ended(rig, await rig.make("taken"))

    assert done.job.status is JobStatus.SUCCEEDED


async def test_nothing_is_copied_into_a_pull_request(open_rig: Open) -> None:
    rig, main = await copying(open_rig)
    (main / ".env").write_text("KEY=1\n")
    rig.upstream.commit("theirs", {".gitignore": "", "b": ""}, to="refs/pull/3/head")

    made = await rig.make(None, start_of(None, None, 3))

    assert not (rig.tree(made) / ".env").exists()


async def test_what_the_new_worktree_does_not_ignore_is_not_copied(open_rig: Open) -> None:
    rig, main = await copying(open_rig, '".env", "x.local.json"')
    (main / ".env").write_text("KEY=1\n")
    (main / "x.local.json").write_text("{}")
    rig.upstream.commit("open", {".gitignore": "*.local.json\n"})

    made = await rig.make("open")

    assert not (rig.tree(made) / ".env").exists()
    assert (rig.tree(made) / "x.local.json").exists()


# ---- copied files -----------------------------------------------------------------------------


async def copying(
    open_rig: Open, patterns: str = '".env"', **files: str | bytes
) -> tuple[Rig, Path]:
    """Return a rig whose main worktree is there, and the host's path of it."""
    rig = await open_rig(f"[worktree]\ncopy = [{patterns}]\n", **files)
    return rig, rig.tree(await rig.make("main"))


async def test_ignored_files_that_match_are_copied_with_their_modes(open_rig: Open) -> None:
    rig, main = await copying(
        open_rig, '".env", "config/*.local.json", "notes.txt"', config__shared__json="{}"
    )
    (main / ".env").write_text("KEY=1\n")
    (main / ".env").chmod(0o640)
    (main / "config").mkdir(exist_ok=True)
    (main / "config").chmod(0o750)
    (main / "config" / "one.local.json").write_text("1")
    (main / "other.local.json").write_text("ignored, and matched by no pattern")
    (main / "notes.txt").write_text("matched, and not ignored")

    made = await rig.make("mine")
    found = await setup_of(rig, made)

    tree = rig.tree(made)
    assert (tree / ".env").read_text() == "KEY=1\n"
    assert (tree / ".env").stat().st_mode & 0o777 == 0o640
    assert (tree / ".env").stat().st_mtime == (main / ".env").stat().st_mtime
    assert (tree / "config" / "one.local.json").read_text() == "1"
    assert not (tree / "other.local.json").exists()
    assert not (tree / "notes.txt").exists()
    assert sorted(found.copied) == [".env", "config/one.local.json"]
    assert found.job.status is JobStatus.NONE
    assert found.warnings == []
    assert not list(tree.rglob(".craftastic-copied"))


async def test_a_worktreeinclude_adds_patterns(open_rig: Open) -> None:
    rig = await open_rig()
    rig.upstream.commit("main", {".worktreeinclude": "# secrets\n\n*.local.json\n!b.local.json\n"})
    main = rig.tree(await rig.make("main"))
    for name in ("a.local.json", "b.local.json", ".env"):
        (main / name).write_text(name)

    found = await setup_of(rig, await rig.make("mine"))

    assert found.copied == ["a.local.json"]


async def test_nothing_is_overwritten_and_no_link_leads_out(open_rig: Open) -> None:
    rig, main = await copying(open_rig, '".env", "big/**", "link"')
    home = rig.runtime.home(rig.environment.id)
    (home / "outside").mkdir()
    (main / ".env").write_text("from main")
    (main / "big").mkdir()
    (main / "big" / "one").write_text("1")
    (main / "link").symlink_to("/home/dev/outside")
    # On this branch `big` is a link that leads out, and `.env` is the repository's own.
    rig.upstream.git("switch", "-q", "-c", "trap")
    (rig.upstream.work / "big").symlink_to("/home/dev/outside")
    (rig.upstream.work / ".env").write_text("of the branch")
    rig.upstream.git("add", "-f", "big", ".env")
    rig.upstream.git("commit", "-qm", "trap")
    rig.upstream.git("push", "-q", "origin", "trap")

    made = await rig.make("trap")
    found = await setup_of(rig, made)

    assert (rig.tree(made) / ".env").read_text() == "of the branch"
    assert list((home / "outside").iterdir()) == []
    assert (rig.tree(made) / "link").readlink() == Path("/home/dev/outside")
    assert found.copied == ["link"]
    assert found.warnings == ["1 files could not be copied."]


def contents(folder: Path) -> dict[bytes, bytes]:
    return {os.fsencode(path.name): path.read_bytes() for path in folder.iterdir()}


async def test_names_of_any_bytes_are_copied(open_rig: Open) -> None:
    rig, main = await copying(open_rig, '"big/**"')
    names = [
        b"\xff\xfe",
        b"new\nline",
        b"-rf",
        b"quote'\"",
        b"$(id)",
        b"tab\t ",
        "ü".encode(),
        b"*",
    ]
    (main / "big").mkdir()
    for name in names:
        (main / "big" / os.fsdecode(name)).write_bytes(name)

    made = await rig.make("mine")
    found = await setup_of(rig, made)

    assert contents(rig.tree(made) / "big") == {name: name for name in names}
    assert sorted(found.copied) == sorted(f"big/{name.decode(errors='replace')}" for name in names)


async def test_more_than_a_bound_is_left_out_and_told(open_rig: Open) -> None:
    rig, main = await copying(open_rig, '"big/**"')
    (main / "big").mkdir()
    for number in range(2005):
        (main / "big" / f"{number:04}").touch()
    with (main / "big" / "0000").open("wb") as huge:
        huge.truncate((200 << 20) + 1)

    made = await rig.make("mine")
    found = await setup_of(rig, made)

    assert len(found.copied) == len(list((rig.tree(made) / "big").iterdir())) == 2000
    assert not (rig.tree(made) / "big" / "0000").exists()
    assert sorted(found.warnings) == [
        "1 files were left out: more than 200 MiB would have been copied.",
        "4 more files matched than are copied at once (2000).",
    ]


async def test_files_come_from_the_oldest_worktree_where_the_main_one_is_not_there(
    open_rig: Open,
) -> None:
    rig = await open_rig('[worktree]\ncopy = [".env"]\n')
    for name in ("older", "newer"):
        (rig.tree(await rig.make(name)) / ".env").write_text(name)

    made = await rig.make("mine")

    assert (rig.tree(made) / ".env").read_text() == "older"


async def test_the_first_worktree_has_nothing_to_copy_from(open_rig: Open) -> None:
    rig = await open_rig('[worktree]\ncopy = [".env"]\n')

    found = await setup_of(rig, await rig.make("mine"))

    assert (found.copied, found.warnings, found.error) == ([], [], None)


# ---- what a repository's files may be ---------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("mkfifo {}", "not a regular file"),
        ("mkdir {}", "not a regular file"),
        ("ln -s /dev/zero {}", "not a regular file"),
        ("truncate -s 1G {}", "longer than 64 KiB"),
        ("printf '\\377' >{}", "not UTF-8"),
        ("echo '[worktree' >{}", "not valid TOML"),
        ("echo '[worktree]\nsetup = 5' >{}", "worktree.setup"),
        ("head -c 60000 /dev/zero | tr '\\0' '[' | sed 's/^/a=/' >{}", "nested too deeply"),
        ("(printf a; yes .a | head -n 20000 | tr -d '\\n'; echo =1) >{}", "dots in one line"),
    ],
)
async def test_a_configuration_that_cannot_be_used_is_told_and_fails_nothing(
    script: str, says: str, open_rig: Open
) -> None:
    rig = await open_rig()
    made = await rig.make("mine")
    (rig.tree(made) / CONFIG).unlink()
    await rig.sh('cd "$1"; ' + script.format(CONFIG), made.working_directory)
    jobs, owner = rig.shop.sessions.jobs, rig.shop.owner

    found = await setup_of(rig, made)
    listed = await jobs.commands(owner, made.id)

    assert found.error is not None
    assert says in found.error
    assert (listed.error, list(listed.commands)) == (found.error, [])
    for call in (jobs.run_setup(owner, made.id), jobs.start(owner, made.id, "dev")):
        with pytest.raises(WorktreeConfigInvalid):
            await call
    assert (await rig.shop.sessions.delete(owner, made.id)).teardown is None


async def test_a_broken_configuration_in_the_repository_does_not_keep_a_session_from_being_made(
    open_rig: Open,
) -> None:
    rig = await open_rig(b"\xff")

    made = await rig.make("mine")

    assert made.ready
    assert (await setup_of(rig, made)).error is not None


async def test_a_worktree_without_a_configuration_costs_no_further_command(
    open_rig: Open,
) -> None:
    rig = await open_rig()
    rig.upstream.git("rm", "-q", CONFIG)
    rig.upstream.commit("main", {})
    rig.upstream.git("switch", "-q", "main")
    await rig.make("main")
    before = len(rig.runtime.calls)

    made = await rig.make("mine", start_of("main", None, None))

    assert not (rig.tree(made) / CONFIG).exists()
    assert len(rig.runtime.calls) - before == 1, "the worktree and the terminal together"
    assert [one.name for one in rig.jobs(made).iterdir()] == ["made"]


async def test_a_sandbox_that_answers_nonsense_is_told_of(open_rig: Open) -> None:
    rig = await open_rig('[worktree]\nsetup = "true"\n[commands]\ndev = "true"')
    made = await rig.make("mine")
    await ended(rig, made)
    state = rig.jobs(made) / "setup" / "state"

    for text in (
        "", "[]", "{", "[" * 100_000, '{"started": 1e400}', '{"started": "x"}', '{"started": -1}',
        '{"started": 1, "exit": "x"}', '{"started": 1, "finished": 1, "exit": 99999}',
        '{"started": 1, "command": ["\\ud800"]}', '{"started": 9e99, "exit": 0}',
    ):  # fmt: skip
        state.write_text(text)
        try:
            found = await setup_of(rig, made)
        except CraftasticError as error:
            assert error.code == "JOB_NOT_STARTED", text  # noqa: PT017
        else:
            assert found.job.status in {JobStatus.NONE, JobStatus.INTERRUPTED}, text
    assert (await rig.shop.sessions.delete(rig.shop.owner, made.id)).pending is False


# ---- commands ---------------------------------------------------------------------------------

COMMANDS = """[commands]
dev = "trap '' TERM; echo up; (trap '' TERM; while :; do sleep .1; done) & echo $! >pid; wait"
test = "echo tested; exit 3"
"test:unit" = "true"
"""


async def test_commands_are_listed_run_and_stopped(open_rig: Open) -> None:
    rig = await open_rig(COMMANDS)
    made = await rig.make("mine")
    jobs, owner = rig.shop.sessions.jobs, rig.shop.owner

    before = await jobs.commands(owner, made.id)
    started = await jobs.start(owner, made.id, "dev")
    await until(appears(rig.tree(made) / "pid"))
    with pytest.raises(JobRunning):
        await jobs.start(owner, made.id, "dev")
    running = await jobs.command(owner, made.id, "dev")
    stopped = await jobs.stop(owner, made.id, "dev")
    again = await jobs.stop(owner, made.id, "dev")
    child = int((rig.tree(made) / "pid").read_text())

    assert [one.name for one in before.commands] == ["dev", "test", "test:unit"]
    assert {one.job.status for one in before.commands} == {JobStatus.NONE}
    assert started.job.status is running.job.status is JobStatus.RUNNING
    assert "up\n" in running.log
    assert stopped.job.status is again.job.status is JobStatus.INTERRUPTED
    assert stopped.job.reason == "It was stopped."
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


async def test_a_command_that_ends_tells_its_exit_code(open_rig: Open) -> None:
    rig = await open_rig(COMMANDS)
    made = await rig.make("mine")
    jobs, owner = rig.shop.sessions.jobs, rig.shop.owner
    await jobs.start(owner, made.id, "test")

    async def over() -> bool:
        return (await jobs.command(owner, made.id, "test")).job.status is not JobStatus.RUNNING

    await until(over)

    found = await jobs.command(owner, made.id, "test")
    assert (found.job.status, found.job.exit_code) == (JobStatus.FAILED, 3)
    assert "tested\n" in found.log
    await jobs.start(owner, made.id, "test:unit")


@pytest.mark.parametrize(
    "name", ["nowhere", "..", "../setup", "setup", "a/b", "-x", "ü", "x" * 300]
)
async def test_a_command_of_another_name_is_not_found(name: str, open_rig: Open) -> None:
    rig = await open_rig(COMMANDS)
    made = await rig.make("mine")
    jobs = rig.shop.sessions.jobs

    for call in (jobs.command, jobs.start, jobs.stop):
        with pytest.raises(CommandNotFound):
            await call(rig.shop.owner, made.id, name)


async def test_a_command_that_left_the_configuration_can_still_be_stopped(open_rig: Open) -> None:
    rig = await open_rig(COMMANDS)
    made = await rig.make("mine")
    jobs, owner = rig.shop.sessions.jobs, rig.shop.owner
    await jobs.start(owner, made.id, "dev")
    (rig.tree(made) / CONFIG).write_text("")

    listed = await jobs.commands(owner, made.id)
    stopped = await jobs.stop(owner, made.id, "dev")

    assert [one.name for one in listed.commands] == ["dev"]
    assert stopped.job.status is JobStatus.INTERRUPTED


async def test_a_worktree_that_is_gone_starts_nothing(open_rig: Open) -> None:
    rig = await open_rig(COMMANDS)
    made = await rig.make("mine")
    jobs, owner = rig.shop.sessions.jobs, rig.shop.owner

    await rig.sh('rm -rf "$1"', made.working_directory)

    with pytest.raises(CommandNotFound):
        await jobs.start(owner, made.id, "dev")
    with pytest.raises(SetupNotDefined):
        await jobs.run_setup(owner, made.id)
    with pytest.raises(WorktreeMissing):
        await rig.shop.sessions.worktrees.jobs.start(
            place_of(made, rig.environment, "mine"), "setup", ["true"], {}
        )


async def test_sessions_without_a_worktree_have_no_jobs_and_others_sessions_are_not_there(
    open_rig: Open,
) -> None:
    rig = await open_rig(COMMANDS)
    plain = await rig.shop.create("plain")
    session = await rig.shop.sessions.create(rig.shop.owner, plain.id)
    theirs = await rig.make("mine")
    other, jobs = await rig.shop.add_user(), rig.shop.sessions.jobs

    assert (await setup_of(rig, session)).job.status is JobStatus.NONE
    assert (await jobs.commands(rig.shop.owner, session.id)).commands == ()
    with pytest.raises(SetupNotDefined):
        await jobs.run_setup(rig.shop.owner, session.id)
    with pytest.raises(CommandNotFound):
        await jobs.start(rig.shop.owner, session.id, "dev")
    for call in (jobs.setup, jobs.run_setup, jobs.commands):
        with pytest.raises(SessionNotFound):
            await call(other, theirs.id)
    for call in (jobs.command, jobs.start, jobs.stop):
        with pytest.raises(SessionNotFound):
            await call(other, theirs.id, "dev")


# ---- teardown ---------------------------------------------------------------------------------


async def test_deleting_a_session_ends_its_jobs_and_tears_its_worktree_down(open_rig: Open) -> None:
    rig = await open_rig(
        '[worktree]\nsetup = "sleep 600"\nteardown = ["echo bye $TOKEN", "pwd >$HOME/torn"]\n'
        '[commands]\ndev = "sleep 601"'
    )
    give_variables(rig)
    made = await rig.make("mine")
    await rig.shop.sessions.jobs.start(rig.shop.owner, made.id, "dev")
    assert running("sleep 600", "sleep 601") == 2

    deleted = await rig.shop.sessions.delete(rig.shop.owner, made.id)

    assert deleted.teardown is not None
    assert (deleted.teardown.status, deleted.teardown.exit_code) == (JobStatus.SUCCEEDED, 0)
    assert "bye ••••••\n" in deleted.teardown.log
    home = rig.runtime.home(rig.environment.id)
    assert (home / "torn").read_text() == f"{made.working_directory}\n"
    assert running("sleep 600", "sleep 601") == 0
    assert not rig.jobs(made).exists()
    assert not rig.tree(made).exists()


def running(*commands: str) -> int:
    return sum(" ".join(words) in commands for words in command_lines())


async def test_a_teardown_that_fails_is_told_and_keeps_nothing_from_going(open_rig: Open) -> None:
    rig = await open_rig('[worktree]\nteardown = "echo no; exit 9"')
    made = await rig.make("mine")

    async with client_for(rig) as client:
        answer = (await client.delete(f"/api/sessions/{made.id}")).json()

    assert answer["success"] is True
    assert answer["teardown"]["status"] == "failed"
    assert answer["teardown"]["exitCode"] == 9
    assert answer["teardown"]["log"].endswith("no\n")
    assert not rig.tree(made).exists()


async def test_a_teardown_that_never_ends_is_ended(
    open_rig: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("craftastic.worktrees._jobs.TEARDOWN_LIMIT_S", 1)
    rig = await open_rig('[worktree]\nteardown = "sleep 602"')
    made = await rig.make("mine")

    deleted = await rig.shop.sessions.delete(rig.shop.owner, made.id)

    assert deleted.teardown is not None
    assert deleted.teardown.status is JobStatus.FAILED
    assert "longer" in (deleted.teardown.reason or "")
    assert running("sleep 602") == 0
    assert not rig.tree(made).exists()


async def test_others_of_the_environment_do_not_wait_for_a_teardown(open_rig: Open) -> None:
    rig = await open_rig(
        '[worktree]\nteardown = "touch $HOME/begun; until [ -e $HOME/go ]; do sleep .1; done"'
    )
    made = await rig.make("mine")
    home = rig.runtime.home(rig.environment.id)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.shop.sessions.delete, rig.shop.owner, made.id)
        await until(appears(home / "begun"))
        await rig.make("other")
        assert rig.tree(made).exists()
        (home / "go").touch()

    assert not rig.tree(made).exists()


async def test_another_server_waits_for_a_teardown_that_runs(open_rig: Open) -> None:
    rig = await open_rig(
        '[worktree]\nteardown = ["echo begun >>$HOME/trace",'
        ' "until [ -e $HOME/go ]; do sleep .1; done", "echo done >>$HOME/trace"]'
    )
    made = await rig.make("new")
    home = rig.runtime.home(rig.environment.id)
    # Locks of its own, as in another process over the same database.
    other = replace(rig.shop.sessions, environments=replace(rig.shop.environments, work=Work()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.shop.sessions.delete, rig.shop.owner, made.id)
        await until(holds((home / "trace").exists))
        async with anyio.create_task_group() as others:
            others.start_soon(other.reconcile)
            await until(holds(lambda: waits_for_it(rig, made)))
            (home / "go").touch()

    assert (home / "trace").read_text() == "begun\ndone\n"
    assert not rig.tree(made).exists()


def holds(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return condition()

    return asked


def waits_for_it(rig: Rig, session: Session) -> bool:
    """Tell whether a program in the sandbox waits for a teardown that another one has started."""
    jobs = f"jobs/{session.id}"
    lines = (process.info["cmdline"] or () for process in psutil.process_iter(["cmdline"]))
    return any("join" in line and any(jobs in one for one in line) for line in lines)


async def test_a_deletion_that_is_finished_later_tears_down_too(
    open_rig: Open, database: Database
) -> None:
    rig = await open_rig('[worktree]\nteardown = "touch $HOME/torn"')
    made = await rig.make("mine")
    rig.runtime.faults.exhausted = True
    deleted = await rig.shop.sessions.delete(rig.shop.owner, made.id)
    rig.runtime.faults.exhausted = False

    await rig.shop.sessions.reconcile()

    assert deleted.pending
    assert (rig.runtime.home(rig.environment.id) / "torn").exists()
    assert await rows(database, "SELECT * FROM sessions") == []


async def test_a_sandbox_that_can_start_nothing_fails_the_creation_as_ever(open_rig: Open) -> None:
    rig = await open_rig('[worktree]\nsetup = "true"')
    rig.runtime.faults.exhausted = True

    with pytest.raises(SandboxExhausted):
        await rig.make("mine")
    rig.runtime.faults.exhausted = False


# ---- over HTTP --------------------------------------------------------------------------------


async def test_the_routes_of_setup_and_commands_have_their_form(open_rig: Open) -> None:
    rig = await open_rig(
        '[worktree]\nsetup = "echo hello"\nsteup = 1\n[commands]\ndev = "echo dev; sleep 603"\n'
    )
    made = await rig.make("mine")
    await ended(rig, made)
    base = f"/api/sessions/{made.id}"

    async with client_for(rig) as client:
        setup = (await client.get(f"{base}/setup")).json()
        short = (await client.get(f"{base}/setup?logBytes=0")).json()
        wrong = await client.get(f"{base}/setup?logBytes=-1")
        again = await client.post(f"{base}/setup")
        listed = (await client.get(f"{base}/commands")).json()
        started = await client.post(f"{base}/commands/dev")
        twice = await client.post(f"{base}/commands/dev")
        seen = (await client.get(f"{base}/commands/dev")).json()
        stopped = await client.delete(f"{base}/commands/dev")
        absent = await client.get(f"{base}/commands/nope")

    assert setup["status"] == "succeeded"
    assert setup["command"] == "echo hello"
    assert setup["exitCode"] == 0
    assert setup["startedAt"].endswith("Z")
    assert setup["log"] == "$ echo hello\nhello\n"
    assert (setup["truncated"], setup["copied"]) == (False, [])
    assert setup["warnings"] == [".craftastic/config.toml: worktree.steup means nothing."]
    assert "error" not in setup
    assert short["log"] == ""
    assert wrong.status_code == 400
    assert again.status_code == 200
    assert listed["commands"] == [
        {"name": "dev", "command": "echo dev; sleep 603", "status": "none"}
    ]
    assert started.status_code == 200
    assert started.json()["status"] == "running"
    assert (twice.status_code, twice.json()["code"]) == (409, "JOB_RUNNING")
    assert seen["startedAt"].endswith("Z")
    assert stopped.json()["status"] == "interrupted"
    assert (absent.status_code, absent.json()["code"]) == (404, "COMMAND_NOT_FOUND")


# ---- in real sandboxes ------------------------------------------------------------------------

SEED = """
repo=$HOME/.craftastic/repos/$1
work=$(mktemp -d)
mkdir "$work/.craftastic"
cat >"$work/.craftastic/config.toml"
printf '.env\\n' >"$work/.gitignore"
git init -q --bare -b main "$repo"
git --git-dir="$repo" symbolic-ref HEAD refs/heads/main
cd "$work"
export GIT_DIR="$repo" GIT_WORK_TREE="$work"
git config core.bare false
git add -A
git -c user.name=a -c user.email=a@example.com commit -qm one
git config core.bare true
rm -f -- "$repo/index"
: >"$repo/craftastic-cloned"
"""
EVERYTHING = """[worktree]
copy = [".env"]
setup = '''
echo "has $TOKEN"
until [ -e "$HOME/go" ]; do sleep .1; done
seq 1 300000
echo over'''
teardown = 'cat .env >"$HOME/torn"; echo "bye $TOKEN"'
[commands]
dev = "echo up; exec sleep 604"
"""


@pytest.fixture
async def seeded(
    real: Bench, clock: FakeClock, copy_of_template: Callable[[str], str]
) -> AsyncIterator[tuple[Workshop, Environment]]:
    """Give an environment in a real sandbox, with a repository that only it has."""
    database = Database(driver_url(copy_of_template("sqlite")))
    # What is built takes every runtime; its parameter's type names the one that tests mostly have.
    runtime = cast("MemoryRuntime", real.runtime)
    async with opened(
        build(database, clock, runtime, gateway_port=real.settings.gateway_port)
    ) as shop:
        made = await shop.create(url=URL)
        RUN.environments.add(str(made.id))
        try:
            with contextlib.suppress(CraftasticError):
                await shop.environments.ready(shop.owner, made.id)  # nobody serves its upstream
            await settled(database)
            done = await runtime.run(
                made.sandbox, ["sh", "-ec", SEED, "sh", str(made.id)], stdin=EVERYTHING.encode()
            )
            assert done.exit_code == 0, done.stderr
            async with database.begin() as tx:
                await tx.execute(sqlalchemy.text("UPDATE environments SET clone_status = 'ready'"))
            yield shop, await shop.environments.get_owned(shop.owner, made.id)
        finally:
            with anyio.CancelScope(shield=True):
                await shop.environments.delete(shop.owner, made.id)
                await database.close()


async def test_in_a_real_sandbox_a_worktree_is_prepared_and_torn_down(
    seeded: tuple[Workshop, Environment], real: Bench
) -> None:
    allow(Place.ENVIRONMENT, value=SECRET, because="a variable is in the shells it is for")
    shop, environment = seeded
    sandbox = environment.sandbox

    def with_variables(shop: Workshop) -> SessionService:
        return replace(shop.sessions, variables=variables, mask=mask)

    sessions = with_variables(shop)
    main = await sessions.create(shop.owner, environment.id, branch="main")
    await real.sh(sandbox, 'echo KEY=1 >"$1/.env"', main.working_directory)

    made = await sessions.create(shop.owner, environment.id, branch="mine")
    running = await sessions.jobs.setup(shop.owner, made.id)
    # Another server process takes over in the middle of it.
    port = real.settings.gateway_port
    other = build(shop.database, shop.clock, shop.runtime, gateway_port=port)
    sessions = with_variables(other)
    still = await sessions.jobs.setup(shop.owner, made.id)
    await real.sh(sandbox, 'touch "$HOME/go"')

    async def over() -> bool:
        found = await sessions.jobs.setup(shop.owner, made.id)
        return found.job.status is not JobStatus.RUNNING

    await until(over)
    done = await sessions.jobs.setup(shop.owner, made.id)
    await sessions.jobs.start(shop.owner, made.id, "dev")
    assert await real.running(sandbox, "604")
    copied = await real.sh(sandbox, 'cat "$1/.env"', made.working_directory)
    files = await real.sh(sandbox, 'grep -rl "$1" "$HOME" /run/craftastic || true', SECRET)
    deleted = await sessions.delete(shop.owner, made.id)

    assert running.job.status is still.job.status is JobStatus.RUNNING
    assert running.copied == done.copied == [".env"]
    assert "has ••••••\n" in still.log
    assert done.job.status is JobStatus.SUCCEEDED
    assert done.truncated
    assert done.log.endswith("\n300000\nover\n")
    assert copied == "KEY=1\n"
    assert [line for line in files.splitlines() if "/log" not in line] == []
    assert deleted.teardown is not None
    assert deleted.teardown.status is JobStatus.SUCCEEDED
    assert "bye ••••••\n" in deleted.teardown.log
    assert await real.sh(sandbox, 'cat "$HOME/torn"') == "KEY=1\n"
    assert not await real.running(sandbox, "604")
    left = await real.sh(sandbox, 'ls -A "$HOME/.craftastic/jobs"')
    assert left.split() == [str(main.id)]


async def test_in_a_real_sandbox_a_setup_ends_with_it(
    seeded: tuple[Workshop, Environment], real: Bench
) -> None:
    shop, environment = seeded
    made = await shop.sessions.create(shop.owner, environment.id, branch="mine")
    before = await shop.sessions.jobs.setup(shop.owner, made.id)

    await real.runtime.stop(environment.sandbox)
    await shop.environments.reconcile()
    await shop.environments.ready(shop.owner, environment.id)
    found = await shop.sessions.jobs.setup(shop.owner, made.id)

    assert before.job.status is JobStatus.RUNNING
    assert found.job.status is JobStatus.INTERRUPTED
    assert found.job.exit_code is None
