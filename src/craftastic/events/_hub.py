"""Who follows events in this process, and how many streams each may have."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import anyio

from craftastic.errors import RateLimited

RETRY_S = 30.0


class TooManyEventStreams(RateLimited):
    code = "TOO_MANY_EVENT_STREAMS"


@dataclass(slots=True, eq=False)
class Follower:
    """One stream's place in the hub.

    Attributes:
        changed: Set when there may be something new.
        seq: Number of the last event that it has.
    """

    changed: anyio.Event = field(default_factory=anyio.Event)
    seq: int = 0


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
