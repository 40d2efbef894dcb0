"""Freeing disk space against real git: what goes, and above all what has to stay."""

import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from craftastic.database import Database
from craftastic.disk.service import DiskService, Reclaimed
from craftastic.runtimes.memory import Call
from craftastic.sessions.service import Session, SessionStatus
from craftastic.worktrees.service import worktrees_path
from tests.conftest import BACKENDS
from tests.contract.conftest import until
from tests.fakes.clock import FakeClock
from tests.fakes.disk_rig import FILES, disk_of, ended, fill
from tests.fakes.served import IDENTITY, Rig, rigged

pytestmark = pytest.mark.parametrize("database", BACKENDS, indirect=True)

TOO_MANY = 3000
PATIENCE_S = 60.0


@pytest.fixture
async def rig(tmp_path: Path, database: Database, clock: FakeClock) -> AsyncIterator[Rig]:
    async with rigged(tmp_path, database, clock, FILES) as rig:
        yield rig


@pytest.fixture
def disk(rig: Rig) -> DiskService:
    return disk_of(rig)


async def reclaim(rig: Rig, disk: DiskService, tier: int) -> Reclaimed:
    return await disk.reclaim(rig.shop.owner, rig.environment.id, tier)


def why(done: Reclaimed, session: Session, below: str = "") -> str:
    """Return why something of a session was left; nothing where that is not told."""
    path = f"{session.working_directory}{below}"
    return "; ".join(one.why for one in done.kept if one.path == path)


async def in_git(rig: Rig, session: Session, script: str) -> None:
    """Run a script in a session's worktree, as a person who types."""
    named = " ".join(IDENTITY)
    await rig.sh(
        f'cd "$1"; git() {{ command git {named} "$@"; }}; {script}', session.working_directory
    )


@dataclass(frozen=True)
class Case:
    """Something that only a worktree has, by a script, and what is said about it."""

    name: str
    script: str
    why: str
    pushed: bool = True


CASES = (
    Case("changed", "echo two >file", "uncommitted changes"),
    Case("staged", "echo two >file; git add file; echo one >file", "uncommitted changes"),
    Case("untracked", "echo mine >mine", "new files"),
    Case("deleted", "rm file", "uncommitted changes"),
    Case("unpushed", "echo two >file; git commit -qam two", "not pushed"),
    Case("stash", "echo two >file; git stash -q", "stash of its branch"),
    Case("ignored", "echo SECRET=1 >.env", "ignored file that no tool makes again: .env"),
    Case("ignored-in-build", "mkdir build; echo x >build/prod.log", "again: build/prod.log"),
    Case("ignored-file", "echo mine >node_modules", "no tool makes again: node_modules"),
    Case("in-an-ignored-folder", "mkdir -p .env/target; echo mine >.env/target/labels.csv",
         "no tool makes again: .env"),
    Case("among-what-is-ignored", "mkdir -p data/target; echo mine >data/target/labels.csv;"
         " echo 'data/*' >>$(git rev-parse --git-common-dir)/info/exclude",
         "no tool makes again: data/target"),
    Case("tracked-folder", "echo x >src/build/mine.log", "src/build/mine.log"),
    Case("overlooked", "echo two >file; git update-index --skip-worktree file", "overlook"),
    Case("assumed", "echo two >file; git update-index --assume-unchanged file", "overlook"),
    Case("nested", "git init -q inner; echo mine >inner/mine", "new files"),
    Case("ignored-nested", "git init -q target/dep; echo mine >target/dep/mine", "no tool|git rep"),
    Case("locked", 'git worktree lock "$PWD"', "it is locked"),
    Case("detached", "git checkout -q --detach", "on no branch"),
    Case("elsewhere", "git switch -q -c somewhere", "another branch"),
    Case("merging", "git rev-parse HEAD >$(git rev-parse --git-dir)/MERGE_HEAD", "under way"),
    Case("bisect", "git bisect start -q", "under way"),
    Case("submodule", "git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),sub;"
         " git commit -qm sub; git push -q origin HEAD:refs/heads/submodule", "submodules"),
    Case("reflog", "git checkout -q --detach; echo 3 >file; git commit -qam lost;"
         " git checkout -q reflog", "history of checkouts"),
    Case("own-settings", "git config extensions.worktreeConfig true;"
         " git config --worktree a.b c; git config --unset extensions.worktreeConfig", "settings"),
    Case("strange\u00e9", 'printf x >"$(printf "a\\nb\\377")"', "new files"),
)  # fmt: skip


async def test_a_worktree_with_anything_that_only_it_has_is_left_as_it_is(
    rig: Rig, disk: DiskService
) -> None:
    sessions: dict[str, Session] = {}
    for case in CASES:
        sessions[case.name] = session = await rig.make(case.name)
        await rig.git(session, "push", "-q", "origin", f"HEAD:refs/heads/{case.name}")
        await in_git(rig, session, case.script)
    saved = await ended(rig, "saved")
    for session in sessions.values():
        await rig.shop.sessions.update(rig.shop.owner, session.id, status=SessionStatus.DEAD)
    before = {name: _snapshot(rig.tree(one)) for name, one in sessions.items()}

    done = await reclaim(rig, disk, 3)

    assert not rig.tree(saved).exists()  # so nothing but the reasons kept the others
    for case in CASES:
        session = sessions[case.name]
        assert _snapshot(rig.tree(session)) == before[case.name], case.name
        said = why(done, session) + why(done, session, "/target")
        assert any(one in said for one in case.why.split("|")), (case.name, done.kept)


def _snapshot(tree: Path) -> dict[str, bytes]:
    """Return the contents of all files of a worktree, by name."""
    return {
        str(one): os.fsencode(one.readlink()) if one.is_symlink() else one.read_bytes()
        for one in tree.rglob("*")
        if one.is_symlink() or one.is_file()
    }


async def test_what_goes_is_caches_then_ignored_folders_then_saved_worktrees(
    rig: Rig, disk: DiskService
) -> None:
    session = await ended(rig, "topic/one")
    tree, home = rig.tree(session), rig.runtime.home(rig.environment.id)
    fill(tree, "node_modules/a/index.js")
    fill(tree, "pkg/target/debug/binary")
    fill(home, ".cache/pip/wheel")
    fill(home, ".npm/_cacache/content")
    fill(home, "notes/mine")

    first = await reclaim(rig, disk, 1)
    assert {Path(one.path).name for one in first.removed} == {"pip", "_cacache"}
    assert not (home / ".cache/pip").exists()
    assert (tree / "node_modules/a/index.js").exists()
    assert first.freed >= 2 * (64 << 10)

    second = await reclaim(rig, disk, 2)
    assert {Path(one.path).name for one in second.removed} == {"node_modules", "target"}
    assert sorted(one.name for one in tree.iterdir()) == [
        *(".git", ".gitignore", "file", "pkg", "src"),
    ]

    third = await reclaim(rig, disk, 3)
    assert [one.kind for one in third.removed] == ["worktree"]
    assert not tree.parent.exists()
    assert (home / "notes/mine").exists()
    assert "topic/one" in await rig.sh(
        'git --git-dir="$1" branch', str(_inside(rig, rig.repository))
    )
    assert third.use.report is not None
    assert [one.bytes for one in third.use.report.tiers] == [0, 0, 0]


def _inside(rig: Rig, path: Path) -> Path:
    """Return how the sandbox sees a path of its home."""
    return Path("/home/dev") / path.relative_to(rig.runtime.home(rig.environment.id))


async def test_an_ended_session_whose_worktree_was_removed_comes_back_in_it(
    rig: Rig, disk: DiskService
) -> None:
    session = await ended(rig, "topic")
    await reclaim(rig, disk, 3)
    assert not rig.tree(session).exists()

    back = await rig.shop.sessions.revive(rig.shop.owner, session.id)

    assert back.status is not SessionStatus.DEAD
    assert (rig.tree(back) / "file").read_text() == "one\n"
    assert await rig.git(back, "branch", "--show-current") == "topic"


async def test_nothing_of_a_living_sessions_worktree_goes(rig: Rig, disk: DiskService) -> None:
    living = await rig.make("living")
    await rig.git(living, "push", "-q", "origin", "HEAD:refs/heads/living")
    dead = await ended(rig, "dead")
    for session in (living, dead):
        fill(rig.tree(session), "node_modules/a")

    done = await reclaim(rig, disk, 3)

    assert (rig.tree(living) / "node_modules/a").exists()
    assert why(done, living) == "its session is alive"
    assert not rig.tree(dead).exists()


async def test_links_go_as_links_and_what_they_lead_to_stays(rig: Rig, disk: DiskService) -> None:
    session = await ended(rig, "links")
    tree, home = rig.tree(session), rig.runtime.home(rig.environment.id)
    outside = fill(home, "precious/mine")
    (tree / "node_modules").symlink_to("/home/dev/precious")
    fill(tree, "target/x")
    (tree / "target/precious").symlink_to("/home/dev/precious")
    (home / ".cache").mkdir()
    (home / ".cache/pip").symlink_to("/home/dev/precious")
    (home / ".npm").symlink_to("/home/dev/precious")
    fill(home, "precious/_cacache/mine")

    done = await reclaim(rig, disk, 3)

    assert outside.exists()
    assert (home / "precious/_cacache/mine").exists()
    assert not tree.exists()
    assert (home / ".cache/pip").is_symlink()
    assert {Path(one.path).name for one in done.removed} == {"target", "links"}


async def test_what_a_process_stands_in_or_has_open_stays(rig: Rig, disk: DiskService) -> None:
    standing, holding, free = [await ended(rig, one) for one in ("standing", "holding", "free")]
    fill(rig.tree(standing), "target/deep/x")
    held = fill(rig.tree(holding), "target/x")
    with held.open("rb"), _process_in(rig.tree(standing) / "target/deep"):
        done = await reclaim(rig, disk, 3)

    assert (rig.tree(standing) / "target/deep/x").exists()
    assert held.exists()
    for session in (standing, holding):
        assert why(done, session, "/target") == "a process works in it"
        assert why(done, session) == "a process works in it"
    assert not rig.tree(free).exists()


class _process_in:  # noqa: N801 - used like a function
    """A process whose working directory is a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.process = subprocess.Popen(["sleep", "600"], cwd=self.folder)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


async def test_repositories_in_caches_and_folders_of_tools_are_left_alone(
    rig: Rig, disk: DiskService
) -> None:
    session = await ended(rig, "topic")
    tree, home = rig.tree(session), rig.runtime.home(rig.environment.id)
    fill(tree, "node_modules/dep/.git/HEAD")
    fill(home, ".cache/pre-commit/repo/.git/HEAD")
    for name in ("HEAD", "objects/x", "refs/x"):
        fill(home, f".cache/bare/deep/{name}")

    done = await reclaim(rig, disk, 3)

    assert (tree / "node_modules/dep/.git/HEAD").exists()
    assert (home / ".cache/pre-commit/repo/.git/HEAD").exists()
    assert (home / ".cache/bare/deep/HEAD").exists()
    assert why(done, session, "/node_modules") == "there is a git repository in it"
    assert done.removed == []


async def test_a_folder_that_git_does_not_ignore_or_tracks_files_in_stays(
    rig: Rig, disk: DiskService
) -> None:
    session = await rig.make("topic")
    fill(rig.tree(session), "dist/bundle.js")
    await in_git(
        rig,
        session,
        "git add -f dist; git commit -qm dist; git push -q origin HEAD:refs/heads/topic",
    )
    fill(rig.tree(session), "venv/mine")
    await rig.shop.sessions.update(rig.shop.owner, session.id, status=SessionStatus.DEAD)

    done = await reclaim(rig, disk, 3)

    assert (rig.tree(session) / "dist/bundle.js").exists()
    assert (rig.tree(session) / "venv/mine").exists()
    assert why(done, session) == "it has new files"


async def test_a_folder_that_ignores_itself_as_a_whole_goes_as_one_that_git_was_told_to_ignore(
    rig: Rig, disk: DiskService
) -> None:
    session = await ended(rig, "topic")
    fill(rig.tree(session), ".ruff_cache/0.1/x")
    (rig.tree(session) / ".ruff_cache/.gitignore").write_text("*\n")

    second = await reclaim(rig, disk, 2)
    third = await reclaim(rig, disk, 3)

    assert [Path(one.path).name for one in second.removed] == [".ruff_cache"]
    assert [one.kind for one in third.removed] == ["worktree"]


async def test_a_worktree_that_lies_in_another_one_is_left_alone_and_keeps_nothing_from_being_freed(
    rig: Rig, disk: DiskService
) -> None:
    outer = await ended(rig, "topic")
    await in_git(rig, outer, "git switch -q -c other; git branch -qD topic")
    inner = await rig.make("topic/x")
    assert rig.tree(inner).is_relative_to(rig.tree(outer))
    fill(rig.tree(outer), "node_modules/a")
    fill(rig.tree(inner), "node_modules/a")

    done = await reclaim(rig, disk, 2)

    assert [one.path for one in done.removed] == [f"{outer.working_directory}/node_modules"]
    assert (rig.tree(inner) / "node_modules/a").exists()


@pytest.mark.parametrize("at", [1, 2])
async def test_a_write_between_the_looks_keeps_the_worktree_where_it_was(
    rig: Rig, disk: DiskService, tmp_path: Path, at: int
) -> None:
    session = await ended(rig, "topic")
    # A git that writes into the worktree right after it has said for the first time that it is
    # clean, or, when it lies aside already, through a folder that it had open.
    programs = tmp_path / "programs"
    programs.mkdir()
    aside = f"{worktrees_path(rig.environment.id)}/.reclaim/*/item"
    place = session.working_directory if at == 1 else aside
    (programs / "git").write_text(
        '#!/bin/sh\n/usr/bin/git "$@"; code=$?\n'
        'case "$*" in *"ls-files -v"*)\n'
        f' for one in {place}; do [ -d "$one" ] && echo mine >"$one/mine"; done;;\n'
        "esac\nexit $code\n"
    )
    (programs / "git").chmod(0o755)
    await _with_programs(rig, programs)

    done = await reclaim(rig, disk, 3)

    assert (rig.tree(session) / "mine").read_text() == "mine\n"
    assert why(done, session) == "it has new files"
    assert not (
        rig.runtime.inside(rig.environment.id, f"{worktrees_path(rig.environment.id)}/.reclaim")
    ).exists()


async def _with_programs(rig: Rig, programs: Path) -> None:
    """Let the sandbox's commands find programs of the test's first."""
    home = rig.runtime.home(rig.environment.id)
    (home / "bin").mkdir()
    (programs / "git").rename(home / "bin" / "git")
    rig.runtime.path = f"/home/dev/bin:{rig.runtime.path}"


async def test_a_worktree_that_a_session_was_given_since_the_look_stays(
    rig: Rig, disk: DiskService
) -> None:
    session = await ended(rig, "topic")
    entered = rig.runtime._enter  # to come in between two commands

    async def enter(call: Call) -> None:
        await entered(call)
        if b'"command": "reclaim"' in call.stdin:
            rig.runtime._enter = entered  # type: ignore[method-assign]
            # As another server process does, which has not ended the session again yet.
            await rig.shop.sessions.worktrees.ensure(
                rig.environment.sandbox, rig.environment.id, "topic", "main", session_id=session.id
            )

    rig.runtime._enter = enter  # type: ignore[method-assign]

    done = await reclaim(rig, disk, 3)

    assert (rig.tree(session) / "file").exists()
    assert why(done, session) == "it was opened a moment ago"


async def test_a_reclaim_waits_for_other_operations_on_the_repository(
    rig: Rig, disk: DiskService
) -> None:
    session = await ended(rig, "topic")
    ended_at: list[bool] = []
    lock = str(_inside(rig, rig.repository / "craftastic.lock"))

    async def hold() -> None:
        await rig.sh('exec 9>>"$1"; flock 9; echo >"$HOME/held"; sleep 2', lock)
        ended_at.append(rig.tree(session).exists())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        held = rig.runtime.home(rig.environment.id) / "held"
        await until(held.exists, "the lock is held")
        await reclaim(rig, disk, 3)

    assert ended_at == [True]
    assert not rig.tree(session).exists()


async def test_other_operations_on_the_repository_need_not_wait_while_worktrees_are_looked_at(
    rig: Rig, disk: DiskService, tmp_path: Path
) -> None:
    first, second = await ended(rig, "first"), await ended(rig, "second")
    # A git that tells, each time that it is asked about a worktree in its place, whether the lock
    # is free.
    programs = tmp_path / "programs"
    programs.mkdir()
    lock = _inside(rig, rig.repository / "craftastic.lock")
    (programs / "git").write_text(
        '#!/bin/sh\ncase "$*" in\n'
        f' *"-C {worktrees_path(rig.environment.id)}/"[!.]*)\n'
        f'  if flock -n {lock} true; then echo free; else echo held; fi >>"$HOME/told";;\n'
        'esac\nexec /usr/bin/git "$@"\n'
    )
    (programs / "git").chmod(0o755)
    await _with_programs(rig, programs)

    await reclaim(rig, disk, 3)

    told = (rig.runtime.home(rig.environment.id) / "told").read_text().split()
    assert set(told) == {"free"}
    assert not rig.tree(first).exists()
    assert not rig.tree(second).exists()


async def test_pipes_in_the_place_of_files_make_nobody_wait(rig: Rig, disk: DiskService) -> None:
    session = await ended(rig, "topic")
    await rig.sh(
        'mkdir -p "$1/worktrees/x" "$HOME/.craftastic"; mkfifo "$1/worktrees/x/gitdir";'
        ' rm -f "$HOME/.craftastic/reclaim.lock"; mkfifo "$HOME/.craftastic/reclaim.lock"',
        str(_inside(rig, rig.repository)),
    )

    with anyio.fail_after(PATIENCE_S):
        await disk.measure(rig.shop.owner, rig.environment.id)
        await reclaim(rig, disk, 3)

    assert not rig.tree(session).exists()


async def test_a_python_of_the_sandboxs_own_is_not_the_one_that_looks(
    rig: Rig, disk: DiskService, tmp_path: Path
) -> None:
    home = rig.runtime.home(rig.environment.id)
    (home / "bin").mkdir()
    (home / "bin/python3").write_text('#!/bin/sh\necho asked >>"$HOME/asked"\nexec sleep 600\n')
    (home / "bin/python3").chmod(0o755)
    rig.runtime.path = f"/home/dev/bin:{rig.runtime.path}"

    with anyio.fail_after(PATIENCE_S):
        shown = await disk.measure(rig.shop.owner, rig.environment.id)

    assert shown.reason is None
    assert not (home / "asked").exists()


async def test_what_a_cut_short_reclaim_left_aside_is_put_back_or_finished(
    rig: Rig, disk: DiskService
) -> None:
    undecided, decided = await ended(rig, "undecided"), await ended(rig, "decided")
    root = rig.runtime.inside(rig.environment.id, worktrees_path(rig.environment.id))
    for session, name in ((undecided, "aside-0"), (decided, "gone-1")):
        held = root / ".reclaim" / name
        held.mkdir(parents=True)
        own = await rig.git(session, "rev-parse", "--git-dir")
        (held / "origin").write_text(
            f'{{"path": "{session.working_directory}", "kind": "worktree", "own": "{own}"}}'
        )
        rig.tree(session).rename(held / "item")
    # Its intent is on record, and whoever had it is gone.
    async with disk.database.begin() as tx:
        from craftastic.disk._repository import DiskRepository  # noqa: PLC0415

        assert await DiskRepository(tx).claim(rig.environment.id, "gone", -1.0, tier=3) is not None

    await disk.reconcile()

    assert (rig.tree(undecided) / "file").read_text() == "one\n"
    assert not rig.tree(decided).exists()
    assert not (root / ".reclaim").exists()
    listed = await rig.sh('git --git-dir="$1" worktree list', str(_inside(rig, rig.repository)))
    assert "undecided" in listed
    assert "decided]" not in listed.replace("[undecided]", "")
    events = await rig.shop.environments.audit.list_for(rig.shop.owner, limit=50, before=None)
    assert [one for one in events if one.action == "disk.reclaimed"] == []  # nobody asked again


async def test_a_repository_with_plenty_of_loose_objects_is_packed_and_loses_nothing(
    rig: Rig, disk: DiskService
) -> None:
    session = await rig.make("topic")
    await in_git(
        rig,
        session,
        "mkdir m; for i in $(seq 1100); do echo $i >m/$i; done; git add m; git commit -qm many;"
        " git update-ref refs/craftastic/kept/x HEAD; git reset -q --hard HEAD~1;"
        " echo lost | git hash-object -w --stdin >$HOME/young;"
        " echo old | git hash-object -w --stdin >$HOME/old;"
        ' o=$(cat $HOME/old); touch -d "20 days ago"'
        ' "$(git rev-parse --git-common-dir)/objects/$(echo $o | cut -c1-2)/$(echo $o | cut -c3-)"',
    )

    done = await reclaim(rig, disk, 1)

    assert [one.kind for one in done.removed] == ["git"]
    assert done.freed > 1000 * 4096
    await in_git(
        rig,
        session,
        "git cat-file -e refs/craftastic/kept/x:m/1100; git cat-file -e topic@{1}:m/7;"
        " git cat-file -e $(cat $HOME/young); ! git cat-file -e $(cat $HOME/old) 2>/dev/null",
    )


async def test_trees_that_cannot_be_written_to_go_and_those_too_deep_to_look_at_stay(
    rig: Rig, disk: DiskService
) -> None:
    deep = "import os\nfor _ in range(25): os.mkdir('f' * 200); os.chdir('f' * 200)\n"
    await rig.sh(
        'mkdir -p ~/.cache/deep ~/.cache/ro/a/b; cd ~/.cache/deep; python3 -c "$1"; cd;'
        " echo x >~/.cache/ro/a/b/c; chmod 555 ~/.cache/ro/a/b ~/.cache/ro/a",
        deep,
    )

    done = await reclaim(rig, disk, 1)

    home = rig.runtime.home(rig.environment.id)
    assert [Path(one.path).name for one in done.kept] == ["deep"]
    assert (home / ".cache/deep" / ("f" * 200)).exists()
    assert not (home / ".cache/ro").exists()


async def test_what_is_too_large_to_be_looked_through_is_cut_and_stays(
    rig: Rig, disk: DiskService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("craftastic.disk._asking.MAX_ENTRIES", TOO_MANY)
    session = await ended(rig, "topic")
    await in_git(
        rig, session, f"mkdir node_modules; cd node_modules; seq {TOO_MANY + 1000} | xargs touch"
    )

    shown = await disk.measure(rig.shop.owner, rig.environment.id)
    done = await reclaim(rig, disk, 3)

    assert shown.report is not None
    assert not shown.report.complete
    assert (rig.tree(session) / f"node_modules/{TOO_MANY}").exists()
    assert "too large" in why(done, session) + why(done, session, "/node_modules")
    assert done.use.reason is not None


async def test_a_hundred_thousand_files_are_counted_and_go(rig: Rig, disk: DiskService) -> None:
    session = await ended(rig, "topic")
    await in_git(
        rig,
        session,
        "mkdir -p node_modules; cd node_modules; for d in $(seq 100); do mkdir $d;"
        " (cd $d; seq 1000 | xargs touch); done; ln 1/1 2/linked; truncate -s 4G sparse",
    )

    shown = await disk.measure(rig.shop.owner, rig.environment.id)
    done = await reclaim(rig, disk, 2)

    assert shown.report is not None
    assert shown.report.complete
    assert shown.report.total < 1 << 30  # what is allocated counts, not what is promised
    assert not (rig.tree(session) / "node_modules").exists()
    assert [Path(one.path).name for one in done.removed] == ["node_modules"]
