"""Repairs over a git rig: what a test damages, asks for, and expects to work again."""

from pathlib import Path
from typing import cast
from uuid import uuid4

from craftastic.environments.repairs import Repair, RepairService
from craftastic.sessions.repairs import SessionRepairs
from craftastic.worktrees.service import repository_path
from tests.fakes.git_rig import GitRig, refusal
from tests.fakes.git_runtime import GitRuntime

LONG_AGO = 1_700_000_000


def repository(rig: GitRig) -> Path:
    """Return the bare repository on the host."""
    runtime = cast("GitRuntime", rig.runtime)
    return runtime.inside(rig.environment.id, repository_path(rig.environment.id))


def entry(rig: GitRig) -> Path:
    """Return what the repository knows of the session's worktree, on the host."""
    (found,) = (repository(rig) / "worktrees").iterdir()
    return found


def objects(rig: GitRig) -> Path:
    return repository(rig) / "objects"


def loose(rig: GitRig, name: str) -> Path:
    return objects(rig) / name[:2] / name[2:]


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    file.chmod(0o600)
    file.write_bytes(raw)


async def repair(rig: GitRig) -> Repair:
    return await RepairService(rig.shop.environments).repair(rig.shop.owner, rig.environment.id)


async def mend(rig: GitRig) -> str:
    done = await SessionRepairs(rig.shop.sessions).repair(rig.shop.owner, rig.session.id)
    return "\n".join(done)


async def status_refused(rig: GitRig, code: str) -> str:
    """Ask for the worktree's status, which must be refused with a way on; return that."""
    body = refusal(await rig.ask("GET", "status"), 409, code)
    return str(body["details"])


async def works(rig: GitRig) -> None:
    """Use the worktree as its owner does: look, commit, push."""
    (rig.folder / "after").write_text(f"{uuid4()}\n")
    await rig.get("status")
    await rig.post("commit", message="after the repair")
    await rig.post("push")
    assert rig.upstream.refs()["refs/heads/work"] == await rig.head()
    assert (await rig.get("status"))["files"] == []
