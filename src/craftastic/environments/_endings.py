"""Why a sandbox does not run, or something in one was killed: codes, and words for people. Pure."""

from datetime import datetime

from craftastic.runtimes.base import Ending

OUT_OF_MEMORY = "OUT_OF_MEMORY"
"""The reason's code of an environment that runs, and in which something was killed."""

REMOVED = ("SANDBOX_GONE", "Its sandbox was removed")
ENDED = ("SANDBOX_STOPPED", "Its sandbox has ended")
KNOWN = {
    Ending.OUT_OF_MEMORY: (
        "SANDBOX_OUT_OF_MEMORY",
        "Its sandbox has ended: it was at its limit of memory",
    ),
    Ending.ENGINE_RESTART: (
        "ENGINE_RESTARTED",
        "Its sandbox has ended: the engine that ran it was started anew",
    ),
}


def why_ended(ending: Ending | None) -> tuple[str, str]:
    """Return the code and the words for a sandbox that has ended; None for one that is gone."""
    return REMOVED if ending is None else KNOWN.get(ending, ENDED)


def why_killed(now: datetime, limit_bytes: int) -> str:
    """Return the words for a program that was killed because its sandbox was at its limit."""
    return (
        f"At {now:%H:%M} UTC a program in its sandbox was killed: the sandbox was at its limit of"
        f" memory, {limit_bytes / (1 << 30):.3g} GiB. Everything else in it goes on."
    )
