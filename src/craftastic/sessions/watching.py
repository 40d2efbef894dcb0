"""Watching sessions while somebody looks: what happens in a sandbox tells nobody by itself.

As long as a listener shows a session, its sandbox is asked every few seconds for words that change
with its worktree and its jobs (`WorktreeService.glance`). However many listeners there are, it is
asked once; where nobody looks, nothing is asked.
"""

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskGroup

from craftastic.accounts.service import UserId
from craftastic.environments.service import Environment
from craftastic.errors import CraftasticError, NotFound
from craftastic.events.service import Listener
from craftastic.sessions._model import Session
from craftastic.sessions._preparation import place_of
from craftastic.worktrees.service import Glance, JobGlance, Place

MOST_PER_USER = 16
"""How many sessions of one user are watched at once; further ones are not."""

LOOKS_AT_ONCE = 16
SOON_S = 0.5
OFTEN_S = 2.0
SELDOM_S = 6.0
SLOWER = 1.25
AWAY_S = 15.0
SHARE = 4.0
"""A look is followed by a pause of so many times its own length, at least."""

NOTHING = JobGlance("", "", running=False)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Glances(Protocol):
    async def glance(self, place: Place) -> Glance: ...


class Sessions(Protocol):
    """What watching needs of sessions; `SessionService` is it."""

    @property
    def worktrees(self) -> Glances: ...

    async def get_owned(self, owner: UserId, session_id: UUID) -> tuple[Session, Environment]: ...


@dataclass(slots=True, eq=False)
class Watched:
    """One session that somebody looks at.

    Attributes:
        turn: Held while one of the owner's sandboxes is asked.
        listeners: Who looks; True for those that may have missed something before.
        asked: Set when a look should come at once.
        last: What was seen the last time.
    """

    owner: UserId
    session_id: UUID
    turn: anyio.Lock
    listeners: dict[Listener, bool] = field(default_factory=dict[Listener, bool])
    asked: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    last: Glance | None = None
    pause_s: float = OFTEN_S

    def seen(self, environment_id: UUID, now: Glance) -> None:
        """Tell everybody what is another now; and those who are new, that anything may be."""
        changes = [] if self.last is None else list(changes_of(self.last, now))
        self.last = now
        for listener, is_new in self.listeners.items():
            for kind, job in [("git.changed", None), ("job.changed", None)] if is_new else changes:
                listener.tell(
                    kind,
                    self.session_id,
                    environment_id=environment_id,
                    session_id=self.session_id,
                    job=job,
                )
            self.listeners[listener] = False
        if changes or any(job.running for job in now.jobs.values()):
            self.pause_s = OFTEN_S
        else:
            self.pause_s = min(SELDOM_S, self.pause_s * SLOWER)

    async def rest(self, soon_s: float, pause_s: float) -> None:
        """Wait for the time of the next look, or a little while where somebody is new."""
        await anyio.sleep(soon_s)
        with anyio.move_on_after(pause_s - soon_s):
            await self.asked.wait()


def changes_of(before: Glance, now: Glance) -> Generator[tuple[str, str | None]]:
    """Tell what is another, as types of events with the job that each is about. Pure."""
    if before.git != now.git:
        yield "git.changed", None
    for name in sorted(before.jobs.keys() | now.jobs.keys()):
        old, new = before.jobs.get(name, NOTHING), now.jobs.get(name, NOTHING)
        if old.state != new.state:
            yield "job.changed", name
        elif old.log != new.log:
            yield "job.output", name


@dataclass(slots=True)
class SessionWatches:
    """The sessions that somebody looks at, in this process.

    Sandboxes are hostile: a look has a deadline, one user's looks come one after the other, and
    one that takes long comes seldom.

    Args:
        sessions: Finds and asks them.
        pace: Multiplies every pause between two looks.
    """

    sessions: Sessions
    pace: float = 1.0
    _tasks: TaskGroup | None = field(init=False, default=None)
    _watched: dict[tuple[UserId, UUID], Watched] = field(
        init=False, default_factory=dict[tuple[UserId, UUID], Watched]
    )
    _turns: dict[UserId, anyio.Lock] = field(init=False, default_factory=dict[UserId, anyio.Lock])
    _places: anyio.Semaphore = field(
        init=False, default_factory=lambda: anyio.Semaphore(LOOKS_AT_ONCE)
    )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Look as long as the context is open."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    @contextmanager
    def watching(
        self, owner: UserId, session_ids: Sequence[UUID], listener: Listener
    ) -> Generator[None]:
        """Tell a listener what happens in these sessions, as long as the context is open.

        It is told first, once for each, that anything may have changed: a look has begun by then
        that will notice what changes after it. An id that is nobody's or somebody else's is never
        told of, and so is what is beyond `MOST_PER_USER`.
        """
        joined = [one for one in dict.fromkeys(session_ids) if self._join(owner, one, listener)]
        try:
            yield
        finally:
            for session_id in joined:
                self._leave(owner, session_id, listener)

    @property
    def count(self) -> int:
        """Return how many sessions are watched."""
        return len(self._watched)

    def _join(self, owner: UserId, session_id: UUID, listener: Listener) -> bool:
        watched = self._watched.get((owner, session_id))
        if watched is None:
            mine = sum(1 for one, _ in self._watched if one == owner)
            if self._tasks is None or mine >= MOST_PER_USER:
                return False
            turn = self._turns.setdefault(owner, anyio.Lock())
            watched = self._watched[owner, session_id] = Watched(owner, session_id, turn)
            self._tasks.start_soon(self._watch, watched)
        watched.listeners[listener] = True
        watched.asked.set()
        return True

    def _leave(self, owner: UserId, session_id: UUID, listener: Listener) -> None:
        watched = self._watched[owner, session_id]
        watched.listeners.pop(listener, None)
        if watched.listeners:
            return
        watched.scope.cancel()
        del self._watched[owner, session_id]
        if all(one != owner for one, _ in self._watched):
            self._turns.pop(owner, None)

    async def _watch(self, watched: Watched) -> None:
        with watched.scope:
            pause_s: float | None = 0.0
            while pause_s is not None:
                async with watched.turn, self._places:
                    watched.asked = anyio.Event()
                    began = anyio.current_time()
                    pause_s = await self._look(watched)
                    took_s = anyio.current_time() - began
                if pause_s is not None:
                    pause_s = max(pause_s, SHARE * took_s) * self.pace
                    await watched.rest(SOON_S * self.pace, pause_s)

    async def _look(self, watched: Watched) -> float | None:
        """Look once and return the pause until the next time; None where there is none."""
        try:
            session, environment = await self.sessions.get_owned(watched.owner, watched.session_id)
            if session.branch is None:
                return None
            place = place_of(session, environment, session.branch)
            watched.seen(environment.id, await self.sessions.worktrees.glance(place))
        except NotFound:
            return None
        except CraftasticError as error:
            log.debug("not watched now", session=str(watched.session_id), reason=error.message)
            return AWAY_S
        except Exception:  # an edge: one sandbox's answers must not end everybody's watching
            log.exception("session not watched", session=str(watched.session_id))
            return AWAY_S
        return watched.pause_s
