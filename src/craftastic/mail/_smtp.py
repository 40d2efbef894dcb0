"""One message, handed to a mail server."""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

import aiosmtplib
import anyio

from craftastic.errors import Conflict, Unavailable
from craftastic.settings import MailServer

DEADLINE_S = 60.0
ANSWER_TIMEOUT_S = 20.0
MAX_REASON_CHARS = 300
PERMANENT = 500
LONG_RUN = re.compile(r"[A-Za-z0-9_-]{32,}")


class MailServerUnavailable(Unavailable):
    """The mail server was not there, or did not take the message now; later it may."""

    code = "MAIL_SERVER_UNAVAILABLE"


class MailRefused(Conflict):
    """The mail server took neither this message nor will it take it later."""

    code = "MAIL_REFUSED"


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent, with its sender."""

    sender: str
    to: str
    subject: str
    text: str

    def as_email(self) -> EmailMessage:
        """Return it with the headers of a message that no person wrote."""
        made = EmailMessage()
        made["From"] = self.sender
        made["To"] = self.to
        made["Subject"] = self.subject
        made["Date"] = formatdate(usegmt=True)
        made["Message-ID"] = make_msgid(domain=_domain(self.sender))
        made["Auto-Submitted"] = "auto-generated"  # no reply of an absent person, please
        # A link stays on its line, for whoever reads the message as it is.
        made.set_content(self.text, cte="7bit" if self.text.isascii() else None)
        return made


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Return what checks the server's certificate; it reads files.

    Raises:
        OSError: The bundle cannot be read.
    """
    context = ssl.create_default_context()
    if ca_bundle is not None:
        context.load_verify_locations(cafile=ca_bundle)
    return context


async def hand_over(server: MailServer, tls: ssl.SSLContext | None, message: Message) -> None:
    """Give the message to the mail server, within a minute.

    Raises:
        MailServerUnavailable: It may work later.
        MailRefused: It will not.
    """
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        username=server.username,
        password=server.password.get_secret_value() if server.password else None,
        use_tls=server.security == "tls",
        start_tls=server.security == "starttls",
        tls_context=tls,
        local_hostname=_domain(message.sender),
        timeout=ANSWER_TIMEOUT_S,
    )
    try:
        with anyio.fail_after(DEADLINE_S):
            async with client:
                await client.send_message(message.as_email())
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        reason = _reason(error)
        if _is_permanent(error):
            raise MailRefused("The mail server refused the message", reason=reason) from error
        raise MailServerUnavailable(
            "The mail server did not take the message", reason=reason
        ) from error


def _is_permanent(error: Exception) -> bool:
    # A refused sign-in is the operator's to mend, and the message is good then.
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return all(one.code >= PERMANENT for one in error.recipients)
    return (
        isinstance(error, aiosmtplib.SMTPResponseException)
        and not isinstance(
            error, aiosmtplib.SMTPAuthenticationError | aiosmtplib.SMTPConnectResponseError
        )
        and error.code >= PERMANENT
    )


def _reason(error: Exception) -> str:
    """Return why, in the server's words, without what it may have quoted of the message."""
    parts: Sequence[BaseException] = [error]
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        parts = error.recipients
    text = "; ".join(f"{type(one).__name__}: {one}" for one in parts)
    return LONG_RUN.sub("[hidden]", text)[:MAX_REASON_CHARS]


def _domain(sender: str) -> str:
    return sender.rpartition("@")[2].strip("> ") or "localhost"
