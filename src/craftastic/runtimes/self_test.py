"""Tries, in a scratch sandbox, what every session needs: a commit in a worktree, and tmux."""

import secrets
from uuid import UUID

import anyio
import structlog

from craftastic.errors import CraftasticError
from craftastic.runtimes.base import RUN_DIR, Runtime, RuntimeUnavailable, SandboxSpec

NUMBER = 65_535
"""Its place in the range of user ids: the last one, far from the environments'."""

REMOVE_S = 5.0

VERSION = 8
"""A kind of UUID that no environment has, so that the reconciler knows these sandboxes."""

SCRIPT = """
set -eu
repository="$HOME/.craftastic/repos/$1" tree="$HOME/.craftastic/worktrees/$1/main"
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@localhost
export GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@localhost
git init -q --bare "$repository"
empty=$(git -C "$repository" commit-tree "$(git -C "$repository" mktree </dev/null)" -m empty)
git -C "$repository" branch main "$empty"
git -C "$repository" worktree add -q "$tree" main
cd "$tree"
echo test >file
git add file
git commit -q -m test
tmux -S "$2/test.sock" -f /dev/null new-session -d -s test -c "$tree"
tmux -S "$2/test.sock" has-session -t =test
tmux -S "$2/test.sock" kill-server
echo passed
"""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def is_self_test(environment_id: UUID) -> bool:
    """Tell a scratch sandbox from an environment's."""
    return environment_id.version == VERSION


async def self_test(runtime: Runtime) -> str | None:
    """Return why the runtime's sandboxes cannot be worked in, or None when they can.

    The scratch sandbox is removed at the end; one that a crash left is removed first.

    Raises:
        RuntimeUnavailable: The runtime did not answer, which tells nothing about its sandboxes.
    """
    for left in await runtime.list():
        if is_self_test(left.environment_id):
            await runtime.remove(_spec(left.environment_id), storage=True)
    spec = _spec(_scratch_id())
    try:
        sandbox = await runtime.create(spec)
        argv = ["sh", "-c", SCRIPT, "sh", str(spec.environment_id), RUN_DIR]
        result = await runtime.spawn(sandbox, argv, timeout_s=30)
    except RuntimeUnavailable:
        raise
    except CraftasticError as error:
        return error.message
    finally:
        # A server that is ended in the middle of it takes its scratch sandbox along.
        with anyio.move_on_after(REMOVE_S, shield=True):
            await runtime.remove(spec, storage=True)
    if result.exit_code == 0 and result.stdout.strip() == b"passed":
        return None
    return (result.stderr or result.stdout).decode("utf-8", "replace").strip()[-500:] or (
        f"The test ended with exit code {result.exit_code}."
    )


def _spec(environment_id: UUID) -> SandboxSpec:
    return SandboxSpec(environment_id, UUID(int=0), NUMBER, "self-test", memory_bytes=512 << 20)


def _scratch_id() -> UUID:
    bits = secrets.randbits(128) & ~(0xF << 76) & ~(0x3 << 62)
    return UUID(int=bits | VERSION << 76 | 0x2 << 62)
