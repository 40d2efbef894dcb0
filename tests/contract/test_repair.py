"""Repairs over both databases: who may ask, what is stored, what a repair that fails leaves."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from craftastic.database import Database
from craftastic.environments._room import EndlessRoom
from craftastic.environments.repairs import NothingToRepair, RepairService
from craftastic.environments.service import CloneStatus, EnvironmentNotFound
from craftastic.errors import StorageFull
from craftastic.sessions.repairs import NoWorktree, SessionRepairs
from craftastic.sessions.service import SessionNotFound, SessionStatus
from craftastic.worktrees.service import (
    CloneFailed,
    DiskFull,
    RepositoryCorrupt,
    RepositoryMissing,
    WorktreeRefused,
)
from tests.fakes.clock import FakeClock
from tests.fakes.git_rig import GitRig, git_rig
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.repair_rig import loose, mend, repair, repository, status_refused, works


@pytest.fixture
async def rig(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[GitRig]:
    folder = tmp_path / "sandboxes"
    folder.mkdir()
    runtime = GitRuntime(folder)
    async with git_rig(database, clock, runtime, tmp_path) as rig:
        yield rig
    await runtime.close()


async def test_a_worktree_that_was_deleted_is_refused_and_made_again_from_its_branch(
    rig: GitRig,
) -> None:
    own = await rig.commit_typed("own.txt")
    shutil.rmtree(rig.folder)

    assert "Repair the session" in await status_refused(rig, "WORKTREE_MISSING")
    done = await mend(rig)

    assert "made again from its branch" in done
    assert await rig.head() == own
    await works(rig)


async def test_a_dead_session_is_repaired_and_stays_dead(rig: GitRig) -> None:
    own = await rig.commit_typed("own.txt")
    sessions, owner = rig.shop.sessions, rig.shop.owner
    await sessions.update(owner, rig.session.id, status=SessionStatus.DEAD)
    shutil.rmtree(rig.folder)

    await mend(rig)

    assert await rig.head() == own
    assert (await sessions.get(owner, rig.session.id)).status is SessionStatus.DEAD


async def test_a_session_whose_worktree_is_gone_can_be_deleted(rig: GitRig) -> None:
    shutil.rmtree(rig.folder)

    deletion = await rig.shop.sessions.delete(rig.shop.owner, rig.session.id)

    assert not deletion.pending
    assert list((repository(rig) / "worktrees").glob("*")) == []
    with pytest.raises(SessionNotFound):
        await mend(rig)


async def test_a_repository_that_is_gone_is_cloned_again(rig: GitRig) -> None:
    await works(rig)
    for one in repository(rig).iterdir():
        shutil.rmtree(one) if one.is_dir() else one.unlink()

    with pytest.raises(RepositoryMissing) as refused:
        await mend(rig)
    assert "Repair the environment" in str(refused.value.details)
    done = await repair(rig)

    assert done.repaired.kept == []
    await mend(rig)
    await works(rig)


async def test_a_repair_that_cannot_clone_leaves_the_damaged_repository_as_it_was(
    rig: GitRig,
) -> None:
    await rig.commit_typed("own.txt")
    (repository(rig) / "HEAD").unlink()
    rig.server.password = "asked for now"

    with pytest.raises(CloneFailed):
        await repair(rig)

    environment = await rig.shop.environments.get_owned(rig.shop.owner, rig.environment.id)
    assert environment.clone_status is CloneStatus.READY
    assert environment.gateway_token_hash == rig.environment.gateway_token_hash
    assert list(repository(rig).glob("damaged-*")) == []
    with pytest.raises(RepositoryCorrupt):
        await mend(rig)
    rig.server.password = None
    assert len((await repair(rig)).repaired.kept) == 1
    await works(rig)


async def broken(rig: GitRig) -> None:
    """Damage the repository in a way that leaves everybody working in it."""
    blob = await rig.sh("echo nothing | git hash-object -w --stdin")
    await rig.sh(
        f"tree=$(printf '100644 blob {blob}\\tfile\\n' | git mktree);"
        " git update-ref refs/heads/broken $(git commit-tree -m broken $tree)"
    )
    loose(rig, blob).unlink()


async def test_a_repository_whose_repair_failed_can_still_fetch_and_push(rig: GitRig) -> None:
    await broken(rig)
    rig.server.password = "asked for now"

    with pytest.raises(CloneFailed):
        await repair(rig)

    rig.server.password = None
    await rig.sh("git fetch origin")
    await works(rig)


async def test_a_sandbox_that_lost_its_token_gets_a_new_one_by_a_repair(rig: GitRig) -> None:
    await broken(rig)
    (repository(rig) / "craftastic.config").unlink()

    await repair(rig)

    environment = await rig.shop.environments.get_owned(rig.shop.owner, rig.environment.id)
    assert environment.gateway_token_hash != rig.environment.gateway_token_hash
    await works(rig)


class FullDisk(EndlessRoom):
    async def check(self) -> None:
        raise StorageFull("The server's disk is full")


async def test_nothing_is_cloned_where_the_servers_disk_is_full(rig: GitRig) -> None:
    await broken(rig)
    rig.shop.environments = replace(rig.shop.environments, room=FullDisk())

    with pytest.raises(CloneFailed) as refused:
        await repair(rig)

    assert refused.value.details == "The server's disk is full"
    assert not (repository(rig) / "craftastic-new").exists()
    await works(rig)


def once(condition: str, action: str) -> str:
    """Return what a replaced git does, one time, when it is called in a certain way."""
    return f'case "$*" in {condition}) if mkdir ~/once 2>/dev/null; then {action}; fi ;; esac'


@pytest.mark.parametrize("why", ["No space left on device", "out of memory, malloc failed", ""])
async def test_a_branch_that_there_is_no_room_for_is_not_taken_for_damaged(
    why: str, rig: GitRig
) -> None:
    own = await rig.commit_typed("own.txt")
    await broken(rig)
    left = "~/.craftastic/repos/*/craftastic-new/objects/pack/tmp_pack_x"
    said = f'echo "fatal: write error: {why}" >&2; exit 128' if why else "kill -9 $$"
    rig.replace_git(once("*pack-objects*", f"touch {left}; {said}"))

    with pytest.raises(DiskFull if "space" in why else CloneFailed):
        await repair(rig)

    assert list(repository(rig).glob("damaged-*")) == []
    assert list(repository(rig).rglob("tmp_*")) == []
    await rig.sh("git fetch origin")
    assert len((await repair(rig)).repaired.kept) == 1
    assert await rig.head() == own
    await works(rig)


async def test_what_is_committed_and_staged_while_a_repair_carries_over_comes_along(
    rig: GitRig,
) -> None:
    await rig.commit_typed("own.txt")
    await broken(rig)
    typed = "git -c user.name=a -c user.email=a@example.com"
    rig.replace_git(
        once(
            "*--null\\ --list*",
            f"(cd {rig.path} && PATH=/usr/bin:/bin && echo 1 >late && {typed} add late"
            f" && {typed} commit -qm late && echo 2 >staged && {typed} add staged"
            f" && {typed} branch new && {typed} rev-parse HEAD >~/late) >/dev/null 2>&1",
        )
    )

    done = await repair(rig)

    home = cast("GitRuntime", rig.runtime).home(rig.environment.id)
    assert len(done.repaired.kept) == 1
    assert await rig.head() == (home / "late").read_text().strip()
    assert await rig.sh("git rev-parse new") == await rig.head()
    assert await rig.sh("git diff --cached --name-only; git status --porcelain") == (
        "staged\nA  staged"
    )
    await works(rig)


@pytest.mark.parametrize("mark", [b"", b"\0" * 17])
async def test_a_new_clone_that_lost_power_is_made_anew(mark: bytes, rig: GitRig) -> None:
    own = await rig.commit_typed("own.txt")
    await broken(rig)
    new = repository(rig) / "craftastic-new"
    (new / "objects").mkdir(parents=True)
    (new / "refs" / "heads").mkdir(parents=True)
    (new / "HEAD").touch()
    (new / "craftastic-cloned").touch()
    (new / "craftastic-carried").write_bytes(mark)

    if mark:
        with pytest.raises(CloneFailed):
            await repair(rig)
    done = await repair(rig)

    assert len(done.repaired.kept) == 1
    assert await rig.head() == own
    await works(rig)


async def test_a_worktree_is_made_where_an_older_entry_of_its_name_was_pruned(rig: GitRig) -> None:
    worktrees, sandbox = rig.shop.sessions.worktrees, rig.environment.sandbox
    paths = [
        (await worktrees.ensure(sandbox, rig.environment.id, branch, "main")).path
        for branch in ("a/x", "b/x")
    ]
    await worktrees.release(sandbox, rig.environment.id, "a/x", keep_as="s1")
    await rig.sh(f"rm -rf {paths[1]}")

    again = await worktrees.ensure(sandbox, rig.environment.id, "b/x", "main")

    assert again.path == paths[1]
    assert await rig.sh(f"git -C {paths[1]} branch --show-current") == "b/x"
    (used,) = (one for one in (repository(rig) / "worktrees").glob("x*/craftastic-used"))
    assert used.parent.joinpath("gitdir").read_text().strip() == f"{paths[1]}/.git"


async def test_nobody_repairs_what_is_not_theirs(rig: GitRig) -> None:
    stranger = await rig.shop.add_user()

    with pytest.raises(EnvironmentNotFound):
        await RepairService(rig.shop.environments).repair(stranger, rig.environment.id)
    with pytest.raises(SessionNotFound):
        await SessionRepairs(rig.shop.sessions).repair(stranger, rig.session.id)


async def test_without_a_repository_there_is_nothing_to_repair(rig: GitRig) -> None:
    bare = await rig.shop.create("bare")
    session = await rig.shop.sessions.create(rig.shop.owner, bare.id)

    with pytest.raises(NothingToRepair):
        await RepairService(rig.shop.environments).repair(rig.shop.owner, bare.id)
    with pytest.raises(NoWorktree):
        await SessionRepairs(rig.shop.sessions).repair(rig.shop.owner, session.id)


@pytest.mark.parametrize("moves", [1, 2, 3, 4, 5])
async def test_a_repair_that_is_cut_short_while_the_clones_change_places_goes_on(
    moves: int, rig: GitRig
) -> None:
    own = await rig.commit_typed("own.txt")
    await rig.sh("echo staged >staged; git add staged")
    before = await rig.fingerprint()
    (repository(rig) / "HEAD").unlink()
    home = cast("GitRuntime", rig.runtime).home(rig.environment.id)
    false_move = home / ".local" / "bin" / "mv"
    rig.replace_git("")
    false_move.write_text(
        f"#!/bin/sh\necho x >>~/moves; [ $(wc -l <~/moves) -le {moves} ] || exit 1\n"
        'exec /usr/bin/mv "$@"\n'
    )
    false_move.chmod(0o755)

    with pytest.raises(CloneFailed):
        await repair(rig)
    false_move.unlink()
    with pytest.raises((RepositoryCorrupt, RepositoryMissing, WorktreeRefused)):
        await mend(rig)
    done = await repair(rig)

    assert len(done.repaired.kept) == 1
    assert await rig.fingerprint() == before
    assert await rig.head() == own
    await works(rig)
