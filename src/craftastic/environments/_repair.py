"""A repository is looked through and put right: the steps, which may be cut short and repeated."""

import secrets
from collections.abc import Awaitable, Callable

from craftastic.environments._model import Environment
from craftastic.environments._room import Room
from craftastic.failpoints import failpoint
from craftastic.runtimes.base import Progress, Report
from craftastic.worktrees.service import Found, WorktreeService

STEP = "repair"


async def repair(
    worktrees: WorktreeService,
    environment: Environment,
    is_token: Callable[[str], bool],
    note_token: Callable[[str], Awaitable[None]],
    room: Room,
    report: Report,
) -> Found:
    """Put an environment's repository right; it says what was found, and MISSING is left to clone.

    A damaged one is untouched until its new clone is finished; then it is set aside, whole.

    Args:
        worktrees: git in sandboxes.
        environment: One whose sandbox runs.
        is_token: Tells whether a token of the sandbox for the gateway is the one that is stored.
        note_token: Stores a new token of the sandbox for the gateway before it is used.
        room: Asked before anything is cloned.
        report: Told of every step.

    Raises:
        CloneFailed, DiskFull: The new clone could not be made.
        StorageFull: The server's disk is full; nothing was cloned.
        RepositoryBusy, RepositoryCorrupt, RepositoryUnchecked, WorktreeRefused: See `Repairs`.
        SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
    """
    await report(Progress(STEP, "Looking through the repository"))
    found = await worktrees.repairs.check(environment.sandbox, environment.id)
    failpoint("repository.checked")
    if found in {Found.DAMAGED, Found.MISSING}:
        await room.check()
    if found is Found.DAMAGED:
        # The damaged repository is in use until the exchange, and after a clone that fails.
        token = await worktrees.repairs.token(environment.sandbox, environment.id)
        if token is None or not is_token(token):
            token = secrets.token_urlsafe(32)
            await note_token(token)
        failpoint("repair.token.recorded")
        await worktrees.clone(
            environment.sandbox,
            environment.id,
            token,
            report,
            branch=environment.branch,
            beside=True,
        )
    if found in {Found.DAMAGED, Found.BEGUN}:
        await report(Progress(STEP, "Carrying over what is only in the damaged repository"))
        await worktrees.repairs.carry(environment.sandbox, environment.id)
    return found
