"""Repairs over both databases: who may ask, what is stored, what a repair that fails leaves."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from craftastic.database import Database
from craftastic.environments.repairs import NothingToRepair, RepairService
from craftastic.environments.service import CloneStatus, EnvironmentNotFound
from craftastic.sessions.repairs import NoWorktree, SessionRepairs
from craftastic.sessions.service import SessionNotFound, SessionStatus
from craftastic.worktrees.service import (
    CloneFailed,
    RepositoryCorrupt,
    RepositoryMissing,
    WorktreeRefused,
)
from tests.fakes.clock import FakeClock
from tests.fakes.git_rig import GitRig, git_rig
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.repair_rig import mend, repair, repository, status_refused, works


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
    assert list(repository(rig).glob("damaged-*")) == []
    with pytest.raises(RepositoryCorrupt):
        await mend(rig)
    rig.server.password = None
    assert len((await repair(rig)).repaired.kept) == 1
    await works(rig)


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
