"""A repository that git could not look through is left as it is, and the answer says so."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from craftastic.database import Database
from craftastic.environments.service import CloneStatus
from craftastic.worktrees import _repairs
from craftastic.worktrees.service import RepositoryUnchecked
from tests.conftest import driver_url
from tests.fakes.clock import FakeClock
from tests.fakes.git_rig import GitRig, git_rig
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.repair_rig import repair, repository, works


@pytest.fixture
async def database(copy_of_template: Callable[[str], str]) -> AsyncIterator[Database]:
    """Give one kind only: nothing here depends on the database."""
    database = Database(driver_url(copy_of_template("sqlite")))
    yield database
    await database.close()


@pytest.fixture
async def rig(
    database: Database, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[GitRig]:
    monkeypatch.setattr(_repairs, "READING_S", 2)
    folder = tmp_path / "sandboxes"
    folder.mkdir()
    runtime = GitRuntime(folder)
    async with git_rig(database, clock, runtime, tmp_path) as rig:
        yield rig
    await runtime.close()


@pytest.mark.parametrize(
    ("asked", "end", "why"),
    [
        ("fsck", "exec sleep 60", "not done in time"),
        ("fsck", "kill -KILL $$", "want of memory"),
        ("rev-parse --git-dir", "kill -KILL $$", "want of memory"),
        ("fsck", "echo 'fatal: Out of memory, malloc failed' >&2; exit 128", "Out of memory"),
    ],
)
async def test_a_repository_is_not_set_aside_because_git_was_ended(
    asked: str, end: str, why: str, rig: GitRig
) -> None:
    await rig.commit_typed("own.txt", "never pushed\n")
    before = await rig.fingerprint()
    rig.replace_git(f'case "$*" in *"{asked}") {end} ;; *" {asked} "*) {end} ;; esac')

    with pytest.raises(RepositoryUnchecked) as refused:
        await repair(rig)

    assert why in (refused.value.details or "")
    assert list(repository(rig).glob("damaged-*")) == []
    rig.replace_git("")
    environment = await rig.shop.environments.get_owned(rig.shop.owner, rig.environment.id)
    assert environment.clone_status is CloneStatus.READY
    assert await rig.fingerprint() == before
    again = await repair(rig)
    assert (again.repaired.done, again.repaired.kept) == ([], [])
    await works(rig)


async def test_what_keeps_git_waiting_for_ever_is_damage(rig: GitRig) -> None:
    own = await rig.commit_typed("own.txt", "never pushed\n")
    os.mkfifo(repository(rig) / "shallow")

    done = await repair(rig)

    (kept,) = done.repaired.kept
    aside = cast("GitRuntime", rig.runtime).inside(rig.environment.id, kept)
    assert (aside / "shallow").is_fifo()
    assert "Parts of the repository were no files." in done.repaired.done
    assert await rig.head() == own
    await works(rig)
