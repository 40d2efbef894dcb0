"""Named places where the server can be made to die, for tests of what a crash leaves behind.

Each step that makes or removes something has one right after it. Unarmed they cost a comparison.
Armed, by the setting `failpoint` and at one place only, the process ends there as by SIGKILL: it
flushes nothing, runs no `finally` and says goodbye to nobody.
"""

import os
import re
from dataclasses import dataclass

EXIT_CODE = 137
"""What a shell tells of a process that was killed by SIGKILL."""

FAILPOINTS = (
    # An environment is made: its row, its sandbox, its clone.
    "environment.create.inserted",
    "environment.create.committed",
    "environment.claimed",
    "sandbox.storage.made",
    "docker.container.created",
    "docker.container.started",
    "local.state.written",
    "local.network.up",
    "local.sandbox.up",
    "sandbox.create.made",
    "sandbox.create.recorded",
    "sandbox.create.probed",
    "clone.token.recorded",
    "clone.asked",
    "clone.ended",
    "clone.recorded",
    # Its repository is repaired.
    "environment.repair.wished",
    "repository.checked",
    "repair.token.recorded",
    "repository.carried",
    "environment.repair.recorded",
    # It is stopped, or deleted with everything in it.
    "environment.stop.wished",
    "environment.stop.removed",
    "environment.stop.sessions.ended",
    "environment.delete.wished",
    "docker.container.removed",
    "local.sandbox.ended",
    "sandbox.storage.aside",
    "sandbox.storage.removed",
    "environment.delete.removed",
    "environment.delete.forgotten",
    # A session is made: its row is committed before the first of these.
    "session.make.begun",
    "worktree.made",
    "session.make.prepared",
    "session.make.tmux",
    "session.make.recorded",
    # Its worktree is repaired.
    "worktree.mended",
    # A session is removed: that it is deleted is committed before the first of these.
    "session.remove.begun",
    "session.remove.tmux",
    "session.remove.jobs",
    "session.remove.teardown",
    "worktree.released",
    "session.remove.forgotten",
    # Disk space is freed: that it is wished is committed before the first of these.
    "disk.reclaim.wished",
    "disk.reclaim.removed",
    "disk.reclaim.recorded",
)
"""All of them: a test reads the source, where each stands once and none that is not here."""

WRITTEN = re.compile(r"([a-z.]+)(?::([0-9]{1,6}))?")


@dataclass(slots=True)
class Armed:
    """Where the process dies.

    Args:
        name: The failpoint.
        skip: How often it is passed before.
    """

    name: str
    skip: int = 0


_armed: Armed | None = None


def parse(text: str) -> Armed:
    """Read `NAME` or `NAME:SKIP`.

    Raises:
        ValueError: It is of another form, or there is no such failpoint.
    """
    found = WRITTEN.fullmatch(text)
    if found is None or found[1] not in FAILPOINTS:
        raise ValueError("there is no such failpoint; they are listed in failpoints.py")
    return Armed(found[1], int(found[2] or 0))


def arm(text: str | None) -> None:
    """Let the process die where `text` says (see `parse`), with None nowhere.

    Raises:
        ValueError: See `parse`.
    """
    global _armed  # noqa: PLW0603 - a process has one end
    _armed = None if text is None else parse(text)


def failpoint(name: str) -> None:
    """End the process here, at once, if this is the place that is armed."""
    if _armed is None or _armed.name != name:
        return
    if _armed.skip > 0:
        _armed.skip -= 1
        return
    os.write(2, f"failpoint {name}\n".encode())
    os._exit(EXIT_CODE)
