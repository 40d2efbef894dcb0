"""What the end of a terminal's connection means: go on, sign in anew, or stop. Without I/O."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

MAX_SIGN_IN_TRIES = 3
MAX_FIRST_TRIES = 4
LONG_ENOUGH_S = 5.0
"""A connection that lived this long was a good one: waiting starts from the beginning again."""

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 8.0

ENDED = 1000
LOST = 1006
POLICY = 1008
TOO_BIG = 1009


class Next(Enum):
    RECONNECT = "reconnect"
    SIGN_IN = "sign in"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do next.

    Args:
        exit_code: Of the process, when it stops.
        message: What to tell the user, when there is something to tell.
    """

    next: Next
    exit_code: int = 0
    message: str | None = None


@dataclass(slots=True)
class Reconnects:
    """Judges one end of a connection after another.

    Args:
        spread: Returns a number in [0, 1); keeps many clients from coming back at one moment.
    """

    spread: Callable[[], float] = random.random
    attached: bool = False
    _ready: bool = False
    _tries: int = 0
    _sign_in_tries: int = 0

    def ready(self) -> None:
        """Note that the server attached us."""
        self.attached = True
        self._ready = True
        self._sign_in_tries = 0

    def judge(self, code: int, reason: str, lived_s: float) -> Verdict:
        """Say what follows the close code and reason of a connection that lived so long."""
        # A line that was cut is tried again at once; a server that says no, ever more rarely.
        if lived_s >= LONG_ENOUGH_S or (self._ready and code == LOST):
            self._tries = 0
        self._ready = False
        if code == ENDED:
            return Verdict(Next.STOP, 0, None)
        if code == POLICY:
            return self._refused(reason)
        if code == TOO_BIG:
            return Verdict(Next.STOP, 1, reason or "The server found a message too big.")
        self._tries += 1
        if not self.attached and self._tries >= MAX_FIRST_TRIES:
            return Verdict(Next.STOP, 7, reason or "The server does not open the terminal.")
        return Verdict(Next.RECONNECT)

    def _refused(self, reason: str) -> Verdict:
        if "authentication" in reason.lower():
            self._sign_in_tries += 1
            if self._sign_in_tries < MAX_SIGN_IN_TRIES:
                return Verdict(Next.SIGN_IN)
            return Verdict(Next.STOP, 3, "Your sign-in has ended; run `craftastic login`.")
        if "not found" in reason.lower():
            return Verdict(Next.STOP, 4, f"{reason}.")
        return Verdict(Next.STOP, 5, reason or "The server refused the terminal.")

    def wait_s(self) -> float:
        """Return how long to wait before the next try, in seconds."""
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** max(self._tries - 1, 0))
        return longest * (0.75 + 0.25 * self.spread())
