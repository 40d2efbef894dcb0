"""Sign-ins on this machine: one file of the user's own, shared by all its commands at once."""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import anyio

from craftastic.errors import InvalidInput, Unavailable

LOCK_TIMEOUT_S = 30.0
LOCK_POLL_S = 0.05
MAX_FILE_BYTES = 1 << 20


class SignInsUnreadable(InvalidInput):
    """The file of sign-ins is damaged or not this user's."""


class SignInsLocked(Unavailable):
    """Another command keeps the sign-ins locked."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """One server's sign-in.

    Args:
        refresh_token: Empty where the access token is a personal one, which is not renewed.
        expires_at: When the access token ends, by this machine's clock, in seconds of the epoch.
        lifetime_s: How long the access token was good for when it came.
    """

    access_token: str
    refresh_token: str
    expires_at: float
    lifetime_s: float
    user_id: str
    email: str
    name: str

    @property
    def is_access_token(self) -> bool:
        """Whether it is a personal access token, and no sign-in of a person."""
        return not self.refresh_token

    def lasts(self, least_s: float) -> bool:
        """Tell whether the access token is good for so long, or a third of its whole life."""
        return self.expires_at - time.time() > min(least_s, self.lifetime_s / 3)


class SignIns:
    """The file `contexts.json` in a folder: mode 0600, replaced as a whole, never half-written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "contexts.json"

    def current(self) -> str | None:
        """Return the server that was signed in to last, or None."""
        value = self._read().get("current")
        return value if isinstance(value, str) else None

    def find(self, url: str) -> SignIn | None:
        """Return the sign-in at a server, or None.

        Raises:
            SignInsUnreadable: See the class.
        """
        entry = self._entries(self._read()).get(url)
        if entry is None:
            return None
        try:
            return SignIn(**entry)
        except TypeError as error:
            raise self._unreadable("holds fields that this version does not know") from error

    def put(self, url: str, sign_in: SignIn, *, current: bool = False) -> None:
        """Keep a sign-in; with `current` its server becomes the one commands talk to."""
        contents = self._read()
        self._entries(contents)[url] = asdict(sign_in)
        if current:
            contents["current"] = url
        self._write(contents)

    def forget(self, url: str) -> None:
        """Drop the sign-in at a server; one that is not there is left so."""
        contents = self._read()
        if self._entries(contents).pop(url, None) is not None:
            self._write(contents)

    @asynccontextmanager
    async def lock(self) -> AsyncGenerator[None]:
        """Keep every other command from renewing or writing sign-ins.

        A refresh token is good once: two commands that used the same one would end the sign-in
        of both.

        Raises:
            SignInsLocked: Another command held the lock for 30 s.
        """
        self._make_folder()
        lock = os.open(
            self.folder / "contexts.lock",
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
        try:
            deadline = time.monotonic() + LOCK_TIMEOUT_S
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > deadline:
                    raise SignInsLocked(
                        "Another craftastic command keeps the sign-ins locked;"
                        " end it and try again."
                    )
                await anyio.sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(lock)

    def _entries(self, contents: dict[str, Any]) -> dict[str, Any]:
        entries: object = contents.setdefault("contexts", {})
        if not isinstance(entries, dict):
            raise self._unreadable("has no table of contexts")
        return cast("dict[str, Any]", entries)

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                contents: object = json.loads(file.read(MAX_FILE_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._unreadable(str(error)) from error
        if not isinstance(contents, dict):
            raise self._unreadable("is not a JSON object")
        return cast("dict[str, Any]", contents)

    def _unreadable(self, why: str) -> SignInsUnreadable:
        return SignInsUnreadable(
            f"The sign-ins in {self.path} cannot be read ({why});"
            " remove the file and sign in again."
        )

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SignInsUnreadable(f"{self.folder} cannot be made: {error.strerror}.") from error

    def _write(self, contents: dict[str, Any]) -> None:
        self._make_folder()
        # mkstemp makes the file with mode 0600: the tokens are never readable by others.
        descriptor, name = tempfile.mkstemp(prefix=".contexts-", dir=self.folder)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(contents, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
