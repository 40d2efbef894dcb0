"""Logs of runs: read from Coolify at most so often, bounded, and without secrets of variables."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import anyio
import anyio.to_thread

from craftastic.coolify.api import LogLine, Run, RunStatus
from craftastic.deployments._model import RunLog
from craftastic.errors import CraftasticError
from craftastic.git.service import Masker

MAX_LINES = 2000
MAX_BYTES = 512 << 10
MAX_KEPT = 16
"""How many logs a server process keeps for those who ask again at once."""

NO_ABILITY = (
    "The token for Coolify may not read build logs. Connect one with read:sensitive, of an admin "
    "or owner of the team."
)
NOT_YET = "Coolify has not taken the deployment yet."
NEVER = "Coolify never took the deployment, so there is no log."
DISCONNECTED = "The connection to Coolify that this deployment went through is gone."

_GOING = (RunStatus.QUEUED, RunStatus.IN_PROGRESS, RunStatus.UNKNOWN)


@dataclass(frozen=True, slots=True)
class WholeLog:
    """The end of a log, as much of it as is kept.

    Args:
        lines: The last ones, without secrets; None where they may not be read.
        dropped: Order of the last line that was left out before them; 0 for none.
        complete: Nothing more will come.
    """

    lines: Sequence[LogLine] | None
    dropped: int
    complete: bool


@dataclass(slots=True)
class _Entry:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    read_at: float = float("-inf")
    found: WholeLog | CraftasticError | None = None


@dataclass(slots=True)
class Logs:
    """The logs that somebody has just read."""

    _entries: OrderedDict[UUID, _Entry] = field(default_factory=OrderedDict[UUID, _Entry])

    async def read(
        self, deployment_id: UUID, fresh_s: float, fetch: Callable[[], Awaitable[WholeLog]]
    ) -> WholeLog:
        """Return a log that is at most so old; however many ask, one fetches.

        A failure counts as an answer too. Cancelled while it fetches, the next one does.

        Raises:
            CraftasticError: What `fetch` raised.
        """
        entry = self._entries.setdefault(deployment_id, _Entry())
        self._entries.move_to_end(deployment_id)
        while len(self._entries) > MAX_KEPT:
            self._entries.popitem(last=False)
        async with entry.lock:
            if entry.found is None or anyio.current_time() - entry.read_at >= fresh_s:
                try:
                    entry.found = await fetch()
                except CraftasticError as error:
                    entry.found = error
                entry.read_at = anyio.current_time()
            found = entry.found
        if isinstance(found, CraftasticError):
            raise found
        return found


async def whole_log(run: Run, masker: Masker) -> WholeLog:
    """Return what is kept of a run's log; secrets are looked for in a thread."""
    complete = run.status not in _GOING
    if run.log is None:
        return WholeLog(None, 0, complete)
    lines, dropped = last_lines(run.log)
    hidden = await anyio.to_thread.run_sync(_masked, lines, masker)
    return WholeLog(hidden, dropped, complete)


def last_lines(log: Sequence[LogLine]) -> tuple[Sequence[LogLine], int]:
    """Return the last lines that are within the bounds, and the order of the last one before."""
    size, begin = 0, len(log)
    while begin > 0 and len(log) - begin < MAX_LINES:
        size += len(log[begin - 1].text.encode("utf-8", "replace")) + 1
        if size > MAX_BYTES:
            break
        begin -= 1
    return log[begin:], log[begin - 1].order if begin else 0


def _masked(lines: Sequence[LogLine], masker: Masker) -> Sequence[LogLine]:
    """Mask all lines in one go: what that may cost has its bound once."""
    hidden = masker.mask_text("\0".join(one.text for one in lines))
    texts = hidden.split("\0")
    if len(texts) == len(lines):
        return [replace(one, text=text) for one, text in zip(lines, texts, strict=True)]
    return [replace(lines[-1], text=hidden)] if lines else []


def since(log: WholeLog, after: int) -> RunLog:
    """Return the lines of a log that come after one."""
    if log.lines is None:
        return unreadable(NO_ABILITY, after, complete=log.complete)
    lines = [one for one in log.lines if one.order > after]
    return RunLog(
        lines=lines,
        next=max((one.order for one in lines), default=after),
        complete=log.complete,
        truncated=log.dropped > after,
        available=True,
    )


def unreadable(reason: str, after: int, *, complete: bool) -> RunLog:
    """Return that there is nothing to be read, and why."""
    return RunLog((), after, complete, truncated=False, available=False, reason=reason)
