"""How fast a session may report: a sandbox must not keep the database busy."""

from dataclasses import dataclass, field
from uuid import UUID

from craftastic.clock import Clock

AT_ONCE = 200
EACH_S = 0.05
EACH_BYTES = 16 << 10
"""A report counts once more for each so many bytes: reading it takes memory and time."""

MANY_SESSIONS = 4096
LONGEST_S = 90.0
"""How long after a flood a session's reports are heard again at the latest."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Lets `AT_ONCE` reports through at once, and one more every `EACH_S` seconds.

    It holds one number for each session that reported lately, in this process.
    """

    clock: Clock
    _paid_at: dict[UUID, float] = field(default_factory=dict[UUID, float])
    """When a session's last reports will be forgotten."""

    def wait_s(self, session_id: UUID, size: int = 0) -> float:
        """Count a report of so many bytes, and return how many seconds it has to wait."""
        now = self.clock.monotonic()
        if len(self._paid_at) > MANY_SESSIONS:
            for one in [one for one, paid_at in self._paid_at.items() if paid_at <= now]:
                del self._paid_at[one]
        paid_at = max(now, self._paid_at.get(session_id, now))
        paid_at += (1 + size // EACH_BYTES) * EACH_S
        self._paid_at[session_id] = min(paid_at, now + LONGEST_S)
        return max(0.0, paid_at - now - AT_ONCE * EACH_S)
