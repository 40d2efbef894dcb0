"""Who follows events in this process, and how many streams each may have."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import anyio

from craftastic.errors import RateLimited
from craftastic.events._protocol import body

RETRY_S = 30.0
MOST_PASSING = 500
"""How many changes a stream that is not read keeps one by one."""


class TooManyEventStreams(RateLimited):
    code = "TOO_MANY_EVENT_STREAMS"


@dataclass(slots=True, eq=False)
class Follower:
    """One stream's place in the hub.

    Attributes:
        changed: Set when there may be something new.
        seq: Number of the last event that it has.
        passing: Bodies of what was noticed for it alone, in their order, and their types.
    """

    changed: anyio.Event = field(default_factory=anyio.Event)
    seq: int = 0
    passing: dict[str, str] = field(default_factory=dict[str, str])

    def tell(
        self,
        kind: str,
        about: UUID,
        *,
        environment_id: UUID | None = None,
        session_id: UUID | None = None,
        job: str | None = None,
    ) -> None:
        """Tell this stream alone of a change that is no event in the database.

        What the client has not taken yet is told once, however often it changed. Names of jobs
        are the sandbox's to invent: where there are very many, it is told that some job changed.
        """
        if len(self.passing) >= MOST_PASSING:
            job = None
        self.passing[body(kind, about, environment_id, session_id, job)] = kind
        self.changed.set()

    def take_passing(self) -> dict[str, str]:
        """Return what was noticed since the last time."""
        taken, self.passing = self.passing, {}
        return taken


@dataclass(slots=True)
class Hub:
    """Wakes followers; it holds no events, so a slow one costs nobody anything.

    Args:
        most_per_owner: Streams that one user may have in this process.
    """

    most_per_owner: int
    followers: dict[UUID, set[Follower]] = field(default_factory=dict[UUID, set[Follower]])
    somebody: anyio.Event = field(default_factory=anyio.Event)
    """Set while anybody follows."""

    ending: anyio.Event = field(default_factory=anyio.Event)

    @contextmanager
    def follow(self, owner_id: UUID) -> Generator[Follower]:
        """Follow an owner's events as long as the block lasts.

        Raises:
            TooManyEventStreams: The owner has as many streams as one may have.
        """
        mine = self.followers.setdefault(owner_id, set())
        if len(mine) >= self.most_per_owner:
            raise TooManyEventStreams(
                "You follow the server's events in too many places; close some of them",
                retry_after_s=RETRY_S,
            )
        follower = Follower()
        mine.add(follower)
        self.somebody.set()
        try:
            yield follower
        finally:
            mine.discard(follower)
            if not mine:
                self.followers.pop(owner_id, None)
            if not self.followers:
                self.somebody = anyio.Event()

    def wake(self, owner_ids: Iterable[UUID]) -> None:
        """Tell the followers of these owners that something is new."""
        for owner_id in owner_ids:
            for follower in self.followers.get(owner_id, ()):
                follower.changed.set()

    def reached(self, heads: Mapping[UUID, int]) -> None:
        """Tell those that do not have the last event of their owner yet."""
        for owner_id, seq in heads.items():
            for follower in self.followers.get(owner_id, ()):
                if follower.seq < seq:
                    follower.changed.set()

    def end(self) -> None:
        """Let every stream end."""
        self.ending.set()
        self.wake(list(self.followers))

    @property
    def count(self) -> int:
        return sum(len(mine) for mine in self.followers.values())
