"""How often an environment may push in vain: what is kept of that must not grow at its will."""

import math
from dataclasses import dataclass, field
from http import HTTPStatus
from uuid import UUID

from craftastic.clock import Clock
from craftastic.gateway._transfer import Refusal

AT_ONCE = 30
RECOVERY_S = 60.0
MANY_ENVIRONMENTS = 4096


@dataclass(frozen=True, slots=True)
class PushThrottle:
    """Lets `AT_ONCE` pushes come to nothing at once, and one more every `RECOVERY_S`.

    Counted are pushes that the policy refused and those of which the upstream took nothing, or
    less than all. It holds one number for each environment that has some of them, in this process.
    """

    clock: Clock
    _paid_at: dict[UUID, float] = field(default_factory=dict[UUID, float])
    """When the last of an environment's failures will be forgotten."""

    def charge(self, environment_id: UUID, failures: int) -> None:
        """Count failures; a large push can count as several."""
        now = self.clock.monotonic()
        if len(self._paid_at) > MANY_ENVIRONMENTS:
            for one in [one for one, paid_at in self._paid_at.items() if paid_at <= now]:
                del self._paid_at[one]
        if failures:
            begin = max(now, self._paid_at.get(environment_id, now))
            self._paid_at[environment_id] = begin + failures * RECOVERY_S

    def check(self, environment_id: UUID) -> None:
        """Refuse when an environment has failed too often.

        Raises:
            Refusal: With the time to wait.
        """
        debt_s = self._paid_at.get(environment_id, 0.0) - self.clock.monotonic()
        wait_s = debt_s - (AT_ONCE - 1) * RECOVERY_S
        if wait_s > 0:
            raise Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many pushes from this environment were refused or failed; "
                f"try again in {math.ceil(wait_s / 60)} min.",
            )
