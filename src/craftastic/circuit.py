"""Keeps everybody from waiting for one who does not answer."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

VAIN = 5
"""After so many questions in a row without an answer nobody is asked for a while."""
PAUSE_S = 5.0


@dataclass(slots=True)
class Circuit:
    """Whether somebody outside is worth a question now, by what became of the last ones.

    Any answer counts, whatever it says: who refuses or fails keeps nobody waiting. After a pause
    one question is let through; it decides whether the others go on being refused.

    Args:
        clock: Seconds that only grow.
    """

    clock: Callable[[], float] = time.monotonic
    _vain: int = field(default=0, init=False)
    _until: float = field(default=0.0, init=False)

    def is_open(self) -> bool:
        """Tell whether the question is not to be sent; a caller that is let through sends it."""
        if self._vain < VAIN:
            return False
        now = self.clock()
        if now < self._until:
            return True
        self._until = now + PAUSE_S  # the others wait for what comes of this one
        return False

    def answered(self) -> None:
        self._vain = 0

    def unanswered(self) -> None:
        self._vain += 1
        self._until = self.clock() + PAUSE_S
