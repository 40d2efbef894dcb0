"""A real mail server in the test's own loop, and what it has been given."""

import asyncio
import datetime as dt
import ipaddress
import logging
import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LINK = re.compile(r"https?://\S+#token=([0-9a-f]{64})")


def self_made_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 with its key, in one file that also serves as a bundle."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.example.com")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "mail-server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@dataclass
class MailServer:
    """What the server was given, and how it behaves.

    Args:
        password: Of the only user, `craftastic`; None lets anyone in.
        refusals: Answers to the next messages, before one is taken.
    """

    password: str | None = None
    refusals: list[str] = field(default_factory=list[str])
    taken: list[EmailMessage] = field(default_factory=list[EmailMessage])
    encrypted: list[bool] = field(default_factory=list[bool])
    signed_in: list[bool] = field(default_factory=list[bool])
    attempts: int = 0
    port: int = 0
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Envelope) -> str:  # noqa: N802
        self.attempts += 1
        if self.refusals:
            return self.refusals.pop(0)
        content = envelope.content
        assert isinstance(content, bytes)
        self.taken.append(message_from_bytes(content, EmailMessage, policy=policy.default))
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        self.signed_in.append(bool(session.authenticated))
        self._arrived.set()
        return "250 OK"

    def authenticate(
        self, server: SMTP, session: Any, envelope: Any, mechanism: str, given: Any
    ) -> AuthResult:
        expected = LoginPassword(b"craftastic", (self.password or "").encode())
        return AuthResult(success=given == expected)

    async def mails(self, number: int) -> list[EmailMessage]:
        """Wait until so many messages were taken, and return them."""
        async with asyncio.timeout(10):
            while len(self.taken) < number:
                self._arrived.clear()
                await self._arrived.wait()
        return self.taken

    async def token(self, number: int) -> str:
        """Return the token of the link in a message, counted from 1."""
        return token_in((await self.mails(number))[number - 1])


def text_of(mail: EmailMessage) -> str:
    return str(mail.get_content()).replace("\r\n", "\n")


def token_in(mail: EmailMessage) -> str:
    found = LINK.search(text_of(mail))
    assert found is not None, text_of(mail)
    return found[1]


@asynccontextmanager
async def mail_server(
    certificate: Path | None = None, *, tls: bool = False, **options: Any
) -> AsyncGenerator[MailServer]:
    """Run a mail server; with a certificate it wants STARTTLS, or TLS from the beginning."""
    logging.getLogger("mail.log").disabled = True  # it writes every line of every message
    made = MailServer(**options)
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()

    def connection() -> SMTP:
        return SMTP(
            made,
            loop=loop,
            hostname="mail.example.com",
            tls_context=None if tls else context,
            require_starttls=context is not None and not tls,
            # It knows STARTTLS alone for protection enough.
            auth_required=made.password is not None and not tls,
            auth_require_tls=not tls,
            authenticator=made.authenticate,
            enable_SMTPUTF8=True,
        )

    server = await loop.create_server(connection, "127.0.0.1", 0, ssl=context if tls else None)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()
