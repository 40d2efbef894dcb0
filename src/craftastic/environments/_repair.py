"""A repository is looked through and put right: the steps, which may be cut short and repeated."""

import secrets
from collections.abc import Awaitable, Callable

from craftastic.environments._model import Environment
from craftastic.failpoints import failpoint
from craftastic.runtimes.base import Progress, Report
from craftastic.worktrees.service import Found, WorktreeService

STEP = "repair"


async def repair(
    worktrees: WorktreeService,
    environment: Environment,
    note_token: Callable[[str], Awaitable[None]],
    report: Report,
) -> Found:
    """Put an environment's repository right; it says what was found, and MISSING is left to clone.

    A damaged one is untouched until its new clone is finished; then it is set aside, whole.

    Args:
        worktrees: git in sandboxes.
        environment: One whose sandbox runs.
        note_token: Stores a new token of the sandbox for the gateway before it is used.
        report: Told of every step.

    Raises:
        CloneFailed, DiskFull: The new clone could not be made.
        RepositoryBusy, RepositoryCorrupt, WorktreeRefused: See `Repairs`.
        SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
    """
    await report(Progress(STEP, "Looking through the repository"))
    found = await worktrees.repairs.check(environment.sandbox, environment.id)
    failpoint("repository.checked")
    if found is Found.DAMAGED:
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
