"""Mail that is sent in the background; without a mail server it is left in files."""

import contextlib
import os
import secrets
import ssl
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from craftastic.clock import Clock
from craftastic.errors import Unavailable
from craftastic.mail._smtp import MailRefused, Message, hand_over, tls_context
from craftastic.settings import Settings

__all__ = ["Letter", "Mail", "MailBusy", "MailService"]

MOST_WAITING = 500
CONNECTIONS = 3
RETRY_AFTER_S = (5.0, 30.0, 120.0, 300.0)
MOST_FILES = 100
FILE_TTL_S = 86400.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Mail:
    """One message to one person; its text may hold a link that is as good as a password."""

    to: str
    subject: str
    text: str = field(repr=False)


Letter = Callable[[], Awaitable[Mail | None]]
"""Writes a message when it is its turn; None when there is nothing to send."""


class MailBusy(Unavailable):
    """More mail waits for the mail server than is kept."""

    code = "TOO_MUCH_MAIL"


@dataclass(slots=True)
class MailService:
    """Sends mail in the background: nobody waits for a mail server, and nobody can time one.

    What waits is kept in memory only, since it holds secrets: a restart loses it.

    Args:
        settings: Where the mail server is, and who the sender; without a server, messages are
            files in the folder `mail` of the data folder, for the operator.
        clock: Tells the age of those files.
        retry_after_s: The pauses before another try, in seconds; after the last one a message
            is given up.
    """

    settings: Settings
    clock: Clock
    retry_after_s: tuple[float, ...] = RETRY_AFTER_S
    _tasks: anyio.abc.TaskGroup | None = field(init=False, default=None)
    _tls: ssl.SSLContext | None = field(init=False, default=None)
    _connections: anyio.Semaphore = field(
        init=False, default_factory=lambda: anyio.Semaphore(CONNECTIONS)
    )
    _waiting: int = field(init=False, default=0)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Send what is posted; what waits at the end of the context is lost, and that is logged.

        Raises:
            OSError: The certificate authorities that were set cannot be read.
        """
        server = self.settings.mail_server
        if server is not None and server.security != "none":
            self._tls = await anyio.to_thread.run_sync(tls_context, self.settings.smtp_ca_bundle)
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                if self._waiting:
                    log.warning("mail was not sent before the end", messages=self._waiting)
                tasks.cancel_scope.cancel()

    @property
    def waiting(self) -> int:
        """Return how many messages are on their way."""
        return self._waiting

    async def send(self, mail: Mail) -> None:
        """Send a message soon.

        Raises:
            MailBusy: Too many are waiting.
        """

        async def written() -> Mail:
            return mail

        self.post(written)

    def post(self, letter: Letter) -> None:
        """Have a message written and sent soon; whether there is one shows in no time and answer.

        Raises:
            MailBusy: Too many are waiting.
        """
        if self._tasks is None or self._waiting >= MOST_WAITING:
            raise MailBusy("The server has more mail to send than it can; try again later.")
        self._waiting += 1
        self._tasks.start_soon(self._deliver, letter)

    async def _deliver(self, letter: Letter) -> None:
        try:
            await self._try_again_and_again(letter)
        except Exception:  # one message's fault must not end the others
            log.exception("mail failed")
        finally:
            self._waiting -= 1

    async def _try_again_and_again(self, letter: Letter) -> None:
        mail: Mail | None = None
        reason = ""
        for pause_s in (0.0, *self.retry_after_s):
            await anyio.sleep(pause_s)
            try:
                async with self._connections:
                    mail = mail or await letter()
                    if mail is not None:
                        await self._hand_over(mail)
            except MailRefused as error:
                _tell(log.error, "mail was refused", mail, error.context.get("reason"))
                return
            except Unavailable as error:
                reason = str(error.context.get("reason", error.message))
                _tell(log.warning, "mail is not sent yet", mail, reason)
            else:
                return
        _tell(log.error, "mail was given up", mail, reason)

    async def _hand_over(self, mail: Mail) -> None:
        server = self.settings.mail_server
        if server is None:
            await self._leave(mail)
            return
        await hand_over(
            server,
            self._tls,
            Message(self.settings.mail_sender, mail.to, mail.subject, mail.text),
        )
        log.info("mail sent", to=mail.to, subject=mail.subject)

    async def _leave(self, mail: Mail) -> None:
        """Leave a message to the operator: a log that is kept must not hold what it holds."""
        now = self.clock.now()
        name = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}.txt"
        file = self.settings.data_dir / "mail" / name
        text = f"To: {mail.to}\nSubject: {mail.subject}\n\n{mail.text}"
        await anyio.to_thread.run_sync(partial(_keep, file, text, now.timestamp()))
        log.warning(
            "mail not sent: no mail server is set; the message is in the file below",
            to=mail.to,
            subject=mail.subject,
            file=str(file),
        )
        if sys.stderr.isatty():  # a person is looking
            print(f"\n{text}\n", file=sys.stderr)  # noqa: T201


def _tell(write: Callable[..., object], what: str, mail: Mail | None, reason: object) -> None:
    to, subject = (mail.to, mail.subject) if mail is not None else (None, None)
    write(what, to=to, subject=subject, reason=reason)


def _keep(file: Path, text: str, now_s: float) -> None:
    """Write a message, for the server's user alone, and remove those that nobody needs now."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    old = sorted(file.parent.glob("*.txt"), reverse=True)
    for number, one in enumerate(old):
        with contextlib.suppress(OSError):
            if number >= MOST_FILES - 1 or now_s - one.stat().st_mtime > FILE_TTL_S:
                one.unlink()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
