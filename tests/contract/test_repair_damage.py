"""Every kind of damage to worktrees and repositories over real git: told as such, and put right."""

import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from craftastic.database import Database
from craftastic.worktrees.service import BranchInUseElsewhere
from tests.conftest import driver_url
from tests.fakes.clock import FakeClock
from tests.fakes.git_rig import GitRig, git_rig, refusal
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.repair_rig import (
    LONG_AGO,
    entry,
    flip,
    loose,
    mend,
    objects,
    repair,
    repository,
    status_refused,
    works,
)


@pytest.fixture
async def database(copy_of_template: Callable[[str], str]) -> AsyncIterator[Database]:
    """Give one kind only: nothing here depends on the database."""
    database = Database(driver_url(copy_of_template("sqlite")))
    yield database
    await database.close()


@pytest.fixture
async def rig(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[GitRig]:
    folder = tmp_path / "sandboxes"
    folder.mkdir()
    runtime = GitRuntime(folder)
    async with git_rig(database, clock, runtime, tmp_path) as rig:
        yield rig
    await runtime.close()


async def test_a_worktree_that_is_well_is_left_as_it_is(rig: GitRig) -> None:
    (rig.folder / "new").write_text("mine\n")
    await rig.sh("git add new; echo more >>a.txt")
    before = await rig.fingerprint()

    assert await mend(rig) == ""

    assert await rig.fingerprint() == before


def a_pipe(git: Path, _other: Path) -> None:
    os.mkfifo(git)


def a_link_to_the_host(git: Path, _other: Path) -> None:
    git.symlink_to("/etc/passwd")


def a_path_of_the_host(git: Path, _other: Path) -> None:
    git.write_text("gitdir: /etc/ssh\n")


def another_repository(git: Path, other: Path) -> None:
    git.write_text(f"gitdir: {other}/.git\n")


def a_hostile_repository(git: Path, other: Path) -> None:
    subprocess.run(["git", "init", "-q", str(other)], check=True)
    hook = other / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch ~/ran\n")
    hook.chmod(0o755)
    (other / ".git" / "config").write_text(
        "[core]\n\tfsmonitor = touch ~/ran; false\n\tbare = false\n"
    )
    (other / ".git").rename(git)


def noise(git: Path, _other: Path) -> None:
    git.write_bytes(bytes(range(256)) * 40)


def nothing(_git: Path, _other: Path) -> None:
    """Leave no `.git` at all."""


@pytest.mark.parametrize(
    "put",
    [
        a_pipe,
        a_link_to_the_host,
        a_path_of_the_host,
        another_repository,
        a_hostile_repository,
        noise,
        nothing,
    ],
)
async def test_a_worktree_whose_git_file_was_replaced_is_linked_again_with_its_files(
    put: Callable[[Path, Path], None], rig: GitRig
) -> None:
    own = await rig.commit_typed("own.txt")
    await rig.sh("echo staged >staged; git add staged; echo changed >>a.txt; echo new >new")
    before = await rig.fingerprint()
    (rig.folder / ".git").unlink()
    home = cast("GitRuntime", rig.runtime).home(rig.environment.id)
    put(rig.folder / ".git", home / "other")

    assert "Repair the session" in await status_refused(rig, "WORKTREE_MISSING")
    refusal(await rig.ask("POST", "commit", json={"message": "x"}), 409, "WORKTREE_MISSING")
    done = await mend(rig)

    assert "is a worktree again" in done
    assert ("is kept in ~/.craftastic/worktrees/" in done) == (put is not nothing)
    assert await rig.fingerprint() == before
    assert await rig.head() == own
    await rig.post("commit", message="all")
    assert not (home / "ran").exists()


async def test_a_worktree_that_git_forgot_is_known_again_with_its_files(rig: GitRig) -> None:
    own = await rig.commit_typed("own.txt")
    await rig.sh("echo changed >>a.txt")
    shutil.rmtree(entry(rig))
    await status_refused(rig, "WORKTREE_MISSING")

    done = await mend(rig)

    assert "it knows it again" in done
    assert await rig.head() == own
    assert [one["filename"] for one in (await rig.get("status"))["files"]] == ["a.txt"]
    await works(rig)


async def test_what_stands_in_the_place_of_a_worktree_is_kept(rig: GitRig) -> None:
    own = await rig.commit_typed("own.txt")
    shutil.rmtree(rig.folder)
    rig.folder.write_text("a file of somebody's\n")

    done = await mend(rig)

    assert "what was there is kept in ~/" in done
    assert await rig.head() == own
    (kept,) = (rig.folder.parent / ".kept").iterdir()
    assert kept.read_text() == "a file of somebody's\n"


async def test_a_damaged_index_is_made_anew_and_no_file_changes(rig: GitRig) -> None:
    await rig.sh("echo changed >>a.txt")
    (entry(rig) / "index").write_bytes(b"DIRC" + b"\xff" * 64)

    assert "Repair" in await status_refused(rig, "REPOSITORY_CORRUPT")
    done = await mend(rig)

    assert "What was staged could not be read" in done
    assert [one["filename"] for one in (await rig.get("status"))["files"]] == ["a.txt"]
    await works(rig)


async def test_a_damaged_head_of_a_worktree_is_on_its_branch_again(rig: GitRig) -> None:
    own = await rig.commit_typed("own.txt")
    (entry(rig) / "HEAD").write_bytes(b"\0" * 40)
    assert (await rig.ask("GET", "status")).status_code == 409

    done = await mend(rig)

    assert "is on work again" in done
    assert await rig.head() == own
    await works(rig)


async def test_a_branch_that_is_still_to_be_born_is_left_as_it_is(rig: GitRig) -> None:
    await rig.sh("git checkout -q --orphan other")

    assert await mend(rig) == ""

    assert await rig.sh("git symbolic-ref HEAD") == "refs/heads/other"


async def test_a_commit_that_a_worktree_was_on_and_cannot_be_read_is_told(rig: GitRig) -> None:
    await rig.sh("git switch -q --detach")
    lost = await rig.commit_typed("own.txt")
    loose(rig, lost).unlink()

    done = await mend(rig)

    assert "is on work again" in done
    (kept,) = entry(rig).glob("HEAD.damaged-*")
    assert kept.name in done
    assert kept.read_text().strip() == lost


@pytest.mark.parametrize("left", ["gone", "empty"])
async def test_what_was_only_known_by_the_entry_of_a_folder_that_is_gone_is_kept(
    left: str, rig: GitRig
) -> None:
    await rig.sh("git switch -q --detach")
    own = await rig.commit_typed("own.txt")
    await rig.sh("echo staged >staged; git add staged")
    shutil.rmtree(rig.folder)
    if left == "empty":
        rig.folder.mkdir()

    done = await mend(rig)

    found = re.search("is kept as (refs/craftastic/kept/work-[0-9TZ]+)", done)
    assert found is not None
    assert await rig.sh(f"git show {found[1]}:staged") == "staged"
    assert await rig.sh(f"git rev-parse {found[1]}^") == own
    await works(rig)


async def test_an_unfinished_merge_of_a_folder_that_is_gone_is_kept_as_it_was(
    rig: GitRig,
) -> None:
    own = await rig.commit_typed("own.txt")
    (entry(rig) / "MERGE_HEAD").write_text(f"{own}\n")
    shutil.rmtree(rig.folder)

    done = await mend(rig)

    (kept,) = (rig.folder.parent / ".kept").glob("work-*.entry")
    assert kept.name in done
    assert (kept / "MERGE_HEAD").read_text() == f"{own}\n"


async def test_a_lock_that_was_left_is_refused_and_a_repair_removes_it(rig: GitRig) -> None:
    lock = entry(rig) / "index.lock"
    lock.touch()
    os.utime(lock, (LONG_AGO, LONG_AGO))
    (rig.folder / "new").write_text("new\n")

    body = await rig.refused(409, "GIT_LOCKED", "commit", message="x")
    assert "repair the session" in body["details"]
    done = await mend(rig)

    assert "index.lock, which a git command that was cut short had left, is removed" in done
    await works(rig)


async def test_a_lock_of_a_branch_is_refused_and_a_repair_removes_it(rig: GitRig) -> None:
    lock = repository(rig) / "refs" / "heads" / "work.lock"
    lock.touch()
    os.utime(lock, (LONG_AGO, LONG_AGO))
    (rig.folder / "new").write_text("new\n")

    await rig.refused(409, "GIT_LOCKED", "commit", message="x")
    done = await mend(rig)

    assert "work.lock, which a git command that was cut short had left, is removed" in done
    await works(rig)


async def test_a_lock_that_somebody_has_open_is_never_removed(rig: GitRig) -> None:
    lock = entry(rig) / "index.lock"
    lock.touch()
    os.utime(lock, (LONG_AGO, LONG_AGO))

    with lock.open("rb"):
        done = await mend(rig)

    assert "index.lock stays: somebody has it open" in done
    assert lock.exists()


async def test_a_lock_is_never_removed_while_a_git_command_runs(rig: GitRig) -> None:
    lock = entry(rig) / "index.lock"
    lock.touch()
    os.utime(lock, (LONG_AGO, LONG_AGO))

    async with rig.runtime.open(
        rig.environment.sandbox, ["git", "-C", rig.path, "cat-file", "--batch-check"]
    ) as running:
        await running.send(b"HEAD\n")
        assert b"commit" in await running.receive_stdout()
        done = await mend(rig)

    assert re.search("index.lock stays: process [0-9]+ is a git command that runs", done)
    assert lock.exists()
    assert "is removed" in await mend(rig)


async def test_a_locked_worktree_that_is_gone_is_unlocked_by_a_repair(rig: GitRig) -> None:
    await rig.sh('git worktree lock --reason "on a stick" "$PWD"')
    shutil.rmtree(rig.folder)

    done = await mend(rig)

    assert "was locked (on a stick)" in done
    await works(rig)


async def test_a_branch_that_another_folder_has_is_not_taken_from_it(rig: GitRig) -> None:
    await rig.sh('git switch -q --detach; git worktree add -q "$HOME/elsewhere" work')
    (found,) = (
        one
        for one in (repository(rig) / "worktrees").iterdir()
        if "elsewhere" not in (one / "gitdir").read_text()
    )
    shutil.rmtree(found)

    with pytest.raises(BranchInUseElsewhere):
        await mend(rig)


async def packed(rig: GitRig) -> None:
    await rig.sh("git repack -adq; git prune-packed -q; git pack-refs --all")


async def test_a_repository_that_is_well_is_left_as_it_is(rig: GitRig) -> None:
    await rig.commit_typed("own.txt")
    await rig.sh("echo changed >>a.txt")
    before = await rig.fingerprint()

    done = await repair(rig)

    assert (done.repaired.done, done.repaired.kept, done.pending) == ([], [], False)
    assert await rig.fingerprint() == before
    await works(rig)


async def bit_in_a_pack(rig: GitRig) -> None:
    await packed(rig)
    (pack,) = (objects(rig) / "pack").glob("*.pack")
    flip(pack)


async def bit_in_an_old_blob(rig: GitRig) -> None:
    blob = await rig.sh("git rev-parse origin/main:b.txt")
    _unpacked(rig)
    flip(loose(rig, blob))


async def old_blob_missing(rig: GitRig) -> None:
    blob = await rig.sh("git rev-parse origin/main:b.txt")
    _unpacked(rig)
    loose(rig, blob).unlink()


async def old_commit_missing(rig: GitRig) -> None:
    commit = await rig.sh("git rev-parse origin/main")
    _unpacked(rig)
    loose(rig, commit).unlink()


async def no_head(rig: GitRig) -> None:
    (repository(rig) / "HEAD").unlink()


async def no_config(rig: GitRig) -> None:
    (repository(rig) / "config").write_bytes(b"[core\nbare = \xff\n")


async def packed_refs_of_noise(rig: GitRig) -> None:
    await rig.sh("git pack-refs --all")
    with (repository(rig) / "packed-refs").open("ab") as file:
        file.write(b"\xff\xfe noise\n")


async def no_mark(rig: GitRig) -> None:
    (repository(rig) / "craftastic-cloned").unlink()


def _unpacked(rig: GitRig) -> None:
    """Turn every packed object into a loose one."""
    for pack in (objects(rig) / "pack").glob("*.pack"):
        moved = rig.folder.parent / pack.name
        pack.rename(moved)
        for rest in (objects(rig) / "pack").glob(f"{pack.stem}.*"):
            rest.unlink()
        with moved.open("rb") as file:
            subprocess.run(
                ["git", "--git-dir", str(repository(rig)), "unpack-objects", "-q"],
                stdin=file,
                check=True,
            )
        moved.unlink()


DAMAGES = [
    bit_in_a_pack,
    bit_in_an_old_blob,
    old_blob_missing,
    old_commit_missing,
    no_head,
    no_config,
    packed_refs_of_noise,
    no_mark,
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_repository_is_cloned_beside_and_loses_no_work(
    damage: Callable[[GitRig], Awaitable[None]], rig: GitRig
) -> None:
    own = await rig.commit_typed("own.txt", "never pushed\n")
    await rig.sh("echo stashed >>c.txt; git stash -q; echo staged >staged; git add staged")
    await rig.sh("git config branch.work.description mine; echo changed >>a.txt; echo new >new")
    before = await rig.fingerprint()
    await damage(rig)

    done = await repair(rig)

    (kept,) = done.repaired.kept
    aside = cast("GitRuntime", rig.runtime).inside(rig.environment.id, kept)
    assert (aside / "objects").is_dir()
    assert any("carried over" in one for one in done.repaired.done)
    if damage is not bit_in_a_pack:  # the only pack holds the newest commits too
        assert await rig.fingerprint() == before
        assert await rig.head() == own
        if damage is not no_config:
            assert await rig.sh("git config branch.work.description") == "mine"
        assert await rig.sh("git stash show -p | tail -n 1") == "+stashed"
    assert (rig.folder / "new").read_text() == "new\n"
    assert (rig.folder / "a.txt").read_text() == "one\nchanged\n"
    assert not (repository(rig) / "craftastic-new").exists()
    assert (await rig.sh("git fsck --no-dangling 2>&1 | grep -v ^notice || true")) == ""
    await works(rig)
    again = await repair(rig)
    assert (again.repaired.done, again.repaired.kept) == ([], [kept])


async def test_commits_that_cannot_be_read_are_left_out_and_told(rig: GitRig) -> None:
    await rig.commit_typed("first.txt")
    readable = await rig.commit_typed("second.txt")
    lost = await rig.commit_typed("third.txt")
    loose(rig, lost).unlink()

    assert "Repair the environment" in await status_refused(rig, "REPOSITORY_CORRUPT")
    done = await repair(rig)

    # What was before the lost one is in git's log of the branch.
    assert any("without its newest commits (1)" in one for one in done.repaired.done)
    assert await rig.head() == readable
    assert (rig.folder / "third.txt").exists()
    await works(rig)


async def test_a_branch_of_which_nothing_can_be_read_begins_again_at_the_remotes(
    rig: GitRig,
) -> None:
    first = await rig.commit_typed("first.txt")
    lost = await rig.commit_typed("second.txt")
    loose(rig, lost).unlink()
    shutil.rmtree(repository(rig) / "logs")

    done = await repair(rig)

    assert any("it begins again at the remote's" in one for one in done.repaired.done)
    assert await rig.head() == await rig.sh("git rev-parse origin/main")
    assert first in await rig.sh(
        f"git --git-dir={done.repaired.kept[0]} cat-file --batch-all-objects --batch-check"
    )
    await works(rig)


async def test_a_broken_newest_commit_leaves_a_branch_where_git_packed_it_last(
    rig: GitRig,
) -> None:
    packed_at = await rig.commit_typed("first.txt")
    await rig.sh("git pack-refs --all")
    lost = await rig.commit_typed("second.txt")
    loose(rig, lost).unlink()
    shutil.rmtree(repository(rig) / "logs")

    done = await repair(rig)

    assert any("stands where it was when git packed it" in one for one in done.repaired.done)
    assert await rig.head() == packed_at
    await works(rig)


async def test_a_branch_whose_file_is_empty_is_where_gits_log_of_it_says(rig: GitRig) -> None:
    own = await rig.commit_typed("own.txt")
    (repository(rig) / "refs" / "heads" / "work").write_bytes(b"")

    done = await repair(rig)

    assert any("it is where git's log of it says" in one for one in done.repaired.done)
    assert await rig.head() == own
    await works(rig)


async def test_what_a_rebase_has_put_away_is_carried_over(rig: GitRig) -> None:
    await rig.commit_typed("own.txt")
    await rig.sh(
        "echo changed >>a.txt;"
        " GIT_SEQUENCE_EDITOR='echo break >' git rebase -q -i --autostash HEAD~1 </dev/null"
    )
    put_away = await rig.sh('cat "$(git rev-parse --git-path rebase-merge/autostash)"')
    await old_blob_missing(rig)

    await repair(rig)

    assert await rig.sh(f"git show {put_away}:a.txt") == "one\nchanged"


async def test_stashes_before_one_that_cannot_be_read_are_still_listed(rig: GitRig) -> None:
    for text in ("first", "second"):
        await rig.sh(f"echo {text} >>c.txt; git stash -q")
    loose(rig, await rig.sh("git rev-parse stash")).unlink()

    done = await repair(rig)

    assert any("Stashes that could not be read" in one for one in done.repaired.done)
    assert await rig.sh("git stash list | wc -l") == "1"
    assert await rig.sh("git stash show -p | tail -n 1") == "+first"


async def test_files_of_git_lfs_are_carried_over(rig: GitRig) -> None:
    file = repository(rig) / "lfs" / "objects" / "ab" / "cd" / "abcd"
    file.parent.mkdir(parents=True)
    file.write_text("large\n")
    (repository(rig) / "HEAD").unlink()

    done = await repair(rig)

    assert file.read_text() == "large\n"
    kept = cast("GitRuntime", rig.runtime).inside(rig.environment.id, done.repaired.kept[0])
    assert (kept / "lfs" / "objects" / "ab" / "cd" / "abcd").exists()


async def test_a_branch_whose_newest_commit_lacks_a_file_goes_back_to_the_one_before(
    rig: GitRig,
) -> None:
    whole = await rig.commit_typed("first.txt", "1\n")
    await rig.commit_typed("second.txt", "2\n")
    loose(rig, await rig.sh("git rev-parse HEAD:second.txt")).unlink()

    done = await repair(rig)

    assert any("without its newest commits (1)" in one for one in done.repaired.done)
    assert await rig.head() == whole
    assert (rig.folder / "second.txt").read_text() == "2\n"
    await works(rig)


@pytest.mark.parametrize("route", ["status", "diff", "log"])
@pytest.mark.parametrize("what", ["commit", "tree"])
async def test_what_cannot_be_read_is_told_as_damage_by_every_route(
    route: str, what: str, rig: GitRig
) -> None:
    await rig.commit_typed("own.txt")
    await rig.sh("echo changed >>a.txt")
    name = await rig.sh("git rev-parse HEAD" + ("^{tree}" if what == "tree" else ""))
    flip(loose(rig, name))

    answer = await rig.ask("GET", route)

    if (route, what) in {("log", "tree"), ("diff", "tree")}:  # neither looks at a tree
        assert answer.status_code == 200
    else:
        body = refusal(answer, 409, "REPOSITORY_CORRUPT")
        assert "Repair the environment" in body["details"]


async def test_stale_locks_of_a_repository_are_removed(rig: GitRig) -> None:
    for name in ("packed-refs.lock", "config.lock", "refs/heads/work.lock"):
        lock = repository(rig) / name
        lock.touch()
        os.utime(lock, (LONG_AGO, LONG_AGO))

    done = await repair(rig)

    assert len(done.repaired.done) == 3
    assert done.repaired.kept == []
    await works(rig)
