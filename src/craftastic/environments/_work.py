"""The jobs of one server process: at most one per environment at a time, owned by a task group."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID
from weakref import WeakValueDictionary

import anyio
import structlog
from anyio.abc import TaskGroup

from craftastic.errors import Unavailable

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Step = Callable[[UUID], Awaitable[None]]


class ShuttingDown(Unavailable):
    """The server is starting or stopping and begins no new work."""

    code = "SHUTTING_DOWN"


@dataclass(slots=True)
class Job:
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    again: bool = False


class Work:
    """Runs a step for an environment without the request that asked for it.

    A request that goes away therefore cuts nothing short; the end of `running` cancels all jobs,
    which leaves intents that the next start finishes.
    """

    def __init__(self) -> None:
        self._tasks: TaskGroup | None = None
        self._jobs: dict[UUID, Job] = {}
        self._changes: WeakValueDictionary[UUID, anyio.Event] = WeakValueDictionary()
        self._locks: WeakValueDictionary[UUID, anyio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Own the jobs: cancelled and awaited when the context ends."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    def start(self, environment_id: UUID, step: Step, *, restart: bool = False) -> anyio.Event:
        """Run the step, or once more after the run that is under way; return its end.

        With `restart` the run that is under way is cut short.

        Raises:
            ShuttingDown: Nothing is started any more.
        """
        if (job := self._jobs.get(environment_id)) is not None:
            job.again = True
            if restart:
                job.scope.cancel()
            return job.done
        if self._tasks is None:
            raise ShuttingDown("The server is stopping; try again in a moment.")
        job = self._jobs[environment_id] = Job()
        self._tasks.start_soon(self._run, environment_id, step, job)
        return job.done

    def changed(self, environment_id: UUID) -> None:
        """Wake everybody in this process who waits for a change of the environment."""
        if (event := self._changes.pop(environment_id, None)) is not None:
            event.set()

    def change(self, environment_id: UUID) -> anyio.Event:
        """Return the event of the next change; ask before reading what may change."""
        event = self._changes.get(environment_id)
        if event is None:
            event = self._changes[environment_id] = anyio.Event()
        return event

    def lock(self, environment_id: UUID) -> anyio.Lock:
        """Return the lock under which this process touches the environment's sessions."""
        lock = self._locks.get(environment_id)
        if lock is None:
            lock = self._locks[environment_id] = anyio.Lock()
        return lock

    async def _run(self, environment_id: UUID, step: Step, job: Job) -> None:
        try:
            while True:
                job.again, job.scope = False, anyio.CancelScope()
                with job.scope:
                    await self._once(environment_id, step)
                self.changed(environment_id)
                if not job.again:
                    return
        finally:
            del self._jobs[environment_id]
            job.done.set()

    @staticmethod
    async def _once(environment_id: UUID, step: Step) -> None:
        try:
            await step(environment_id)
        except Exception:  # an edge: one job's fault must not end its siblings
            log.exception("environment job failed", environment=str(environment_id))
