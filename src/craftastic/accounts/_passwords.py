"""Passwords: what is accepted as one, and hashing that cannot take the server down."""

import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files
from typing import TypeVar

import anyio
import anyio.to_thread
from argon2 import Type
from pwdlib.hashers.argon2 import Argon2Hasher

from craftastic.errors import InvalidInput, RateLimited

Result = TypeVar("Result")

MIN_CHARS = 8
MAX_CHARS = 128
MEMORY_KIB = 19_456
TIME_COST = 2
PARALLELISM = 1
MAX_WAIT_S = 4.0
MAX_WAITING = 512
FIRST_GUESS_S = 0.05
MAX_TAIL = 6

# Of the right form and the same cost, made from no password: nobody can log in with it.
DUMMY_HASH = (
    f"$argon2id$v=19$m={MEMORY_KIB},t={TIME_COST},p={PARALLELISM}"
    "$Y3JhZnRhc3RpY3NhbHQwMA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
LEET = str.maketrans(
    {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s"}
)
RUNS = (
    "01234567890123456789",
    "98765432109876543210",
    "abcdefghijklmnopqrstuvwxyz",
    "zyxwvutsrqponmlkjihgfedcba",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1q2w3e4r5t6y7u8i9o0p",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "qazwsxedcrfvtgbyhnujm",
)
TAIL = re.compile(r"[\d\W_]*$")


class BadPassword(InvalidInput):
    """The text is not accepted as a password; the message says why."""

    code = "BAD_PASSWORD"


class TooBusy(RateLimited):
    """More logins are waiting than the processors can hash in a few seconds."""

    code = "TOO_MANY_LOGINS"


def check_password(password: str, *, email: str = "", name: str = "") -> None:
    """Refuse what is too short, too long, or what everyone tries first.

    No rules of composition, nothing is cut or normalised: the password is the exact text.

    Raises:
        BadPassword: It is refused.
    """
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise BadPassword(f"password must have {MIN_CHARS} to {MAX_CHARS} characters")
    if is_common(password, email=email, name=name):
        raise BadPassword("This password is one of those that are tried first; choose another one")


def is_common(password: str, *, email: str = "", name: str = "") -> bool:
    """Tell whether guessing would begin with it.

    The bundled list holds some hundred passwords and words that every published list of leaked
    ones begins with; the rules cover their usual variations (capitals, digits for letters,
    digits or signs at the end), runs of the keyboard, and repetitions. It is no copy of a list of
    the 100,000 most frequent ones.
    """
    plain = password.casefold()
    own = {email.casefold(), email.partition("@")[0].casefold(), name.casefold(), "craftastic"}
    words = _common_words() | {word for word in own if len(word) > 3}  # noqa: PLR2004
    core = TAIL.sub("", plain)
    variants = {plain, plain.translate(LEET)}
    if len(plain) - len(core) <= MAX_TAIL:
        variants |= {core, core.translate(LEET)}
    return bool(variants & words) or _is_run(plain) or _is_repetition(plain)


def _is_run(text: str) -> bool:
    return any(text in run for run in RUNS) or (
        len(text) % 2 == 0 and any(text[: len(text) // 2] in run for run in RUNS)
        and text[: len(text) // 2] == text[len(text) // 2 :]
    )  # fmt: skip


def _is_repetition(text: str) -> bool:
    return any(text == (text[:size] * len(text))[: len(text)] for size in (1, 2, 3, 4))


@cache
def _common_words() -> frozenset[str]:
    text = files("craftastic.accounts").joinpath("common_passwords.txt").read_text("utf-8")
    lines = (line.strip().casefold() for line in text.splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _hasher() -> Argon2Hasher:
    return Argon2Hasher(
        time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM, type=Type.ID
    )


@dataclass(slots=True)
class PasswordHasher:
    """Hashes in as many threads as there are processors, and refuses when too many wait.

    Each hash takes 19 MiB for its time, so the memory of any number of logins is bounded.
    """

    workers: int = field(default_factory=lambda: max(1, os.cpu_count() or 1))
    max_wait_s: float = MAX_WAIT_S
    _argon2: Argon2Hasher = field(init=False, default_factory=_hasher)
    _limiter: anyio.CapacityLimiter | None = field(init=False, default=None)
    _waiting: int = field(init=False, default=0)
    _typical_s: float = field(init=False, default=FIRST_GUESS_S)

    async def hash(self, password: str) -> str:
        """Return the password's hash, with its parameters and salt in it.

        Raises:
            TooBusy: Too many hashes are waiting.
        """
        return await self._run(partial(self._argon2.hash, password))

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Tell whether it is the password, and a new hash when the stored one is of lesser cost.

        With None as the stored hash it takes the same time and is wrong.

        Raises:
            TooBusy: Too many hashes are waiting.
        """
        return await self._run(partial(self._verify, password, stored or DUMMY_HASH))

    def _verify(self, password: str, stored: str) -> tuple[bool, str | None]:
        if len(password) > MAX_CHARS or not self._argon2.verify(password, stored):
            return False, None
        renew = self._argon2.check_needs_rehash(stored)
        return True, self._argon2.hash(password) if renew else None

    async def _run(self, work: Callable[[], Result]) -> Result:
        wait_s = self._typical_s * (self._waiting + 1) / self.workers
        if self._waiting >= MAX_WAITING or wait_s > self.max_wait_s:
            raise TooBusy(
                "Too many people are signing in at this moment; try again shortly.",
                retry_after_s=math.ceil(wait_s),
            )
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self.workers)
        self._waiting += 1
        try:
            return await anyio.to_thread.run_sync(partial(self._timed, work), limiter=self._limiter)
        finally:
            self._waiting -= 1

    def _timed(self, work: Callable[[], Result]) -> Result:
        # By the thread's own processor time: waiting for a processor is others' work.
        started = time.thread_time()
        try:
            return work()
        finally:
            self._typical_s += (time.thread_time() - started - self._typical_s) / 8
