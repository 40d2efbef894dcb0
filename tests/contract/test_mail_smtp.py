"""Mail over a real mail server: how it gets there, and what happens when it does not."""

import io
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from craftastic import logs
from craftastic.mail.service import Mail, MailBusy, MailService
from craftastic.settings import Settings
from tests.conftest import free_port
from tests.contract.conftest import until
from tests.fakes.clock import FakeClock
from tests.fakes.mail_server import MailServer, mail_server, self_made_certificate, text_of

SECRET = "5" * 64
MAIL = Mail("a@example.com", "Hello", f"https://c.example/reset-password#token={SECRET}\n")
QUICK = (0.01, 0.01, 0.01)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    logs.configure(level="debug", format="json", stream=stream)
    yield stream
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    structlog.reset_defaults()
    logging.getLogger("uvicorn.access").disabled = False


@asynccontextmanager
async def sending(tmp_path: Path, url: str | None, **more: object) -> AsyncGenerator[MailService]:
    values = {"data_dir": tmp_path, "smtp_url": url, "mail_from": "Craftastic <no@c.example>"}
    settings = Settings.model_validate(values | more)
    service = MailService(settings, FakeClock(), QUICK)
    async with service.running():
        yield service


def plain(server: MailServer) -> str:
    return f"smtp://127.0.0.1:{server.port}?security=none"


async def test_a_message_arrives_with_its_sender_and_its_whole_link(tmp_path: Path) -> None:
    async with mail_server() as server, sending(tmp_path, plain(server)) as mail:
        await mail.send(MAIL)
        (taken,) = await server.mails(1)

    assert (taken["From"], taken["To"]) == ("Craftastic <no@c.example>", "a@example.com")
    assert taken["Subject"] == "Hello"
    assert taken["Auto-Submitted"] == "auto-generated"
    assert text_of(taken) == MAIL.text


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_the_way_is_encrypted_and_signed_in_to(tmp_path: Path, scheme: str) -> None:
    certificate = self_made_certificate(tmp_path)
    async with mail_server(certificate, tls=scheme == "smtps", password="p@ss/word") as server:
        url = f"{scheme}://craftastic:p%40ss%2Fword@127.0.0.1:{server.port}"
        async with sending(tmp_path, url, smtp_ca_bundle=certificate) as mail:
            await mail.send(MAIL)
            await server.mails(1)

    assert (server.encrypted, server.signed_in) == ([True], [True])


async def test_a_certificate_that_nobody_vouches_for_gets_no_mail_and_no_password(
    tmp_path: Path, log: io.StringIO
) -> None:
    certificate = self_made_certificate(tmp_path)
    async with mail_server(certificate, password="the-password-of-mail") as server:
        url = f"smtp://craftastic:the-password-of-mail@127.0.0.1:{server.port}"
        async with sending(tmp_path, url) as mail:
            await mail.send(MAIL)
            await until(lambda: mail.waiting == 0, "the message is given up")

    assert (server.taken, server.attempts) == ([], 0)
    assert "CERTIFICATE_VERIFY_FAILED" in log.getvalue()
    assert "the-password-of-mail" not in log.getvalue()


async def test_a_server_without_starttls_gets_no_mail(tmp_path: Path, log: io.StringIO) -> None:
    async with (
        mail_server() as server,
        sending(tmp_path, f"smtp://127.0.0.1:{server.port}") as mail,
    ):
        await mail.send(MAIL)
        await until(lambda: mail.waiting == 0, "the message is given up")

    assert (server.taken, server.attempts) == ([], 0)
    assert "mail was given up" in log.getvalue()


async def test_a_server_that_is_away_or_busy_is_tried_again(
    tmp_path: Path, log: io.StringIO
) -> None:
    busy = ["451 4.3.0 not now", "452 4.3.1 disk full"]
    async with mail_server(refusals=busy) as server, sending(tmp_path, plain(server)) as mail:
        await mail.send(MAIL)
        await server.mails(1)
        assert server.attempts == 3

    away = f"smtp://127.0.0.1:{free_port()}?security=none"
    async with sending(tmp_path, away) as mail:
        await mail.send(MAIL)
        await until(lambda: mail.waiting == 0, "the message is given up")

    assert log.getvalue().count("mail is not sent yet") == 2 + 4
    assert log.getvalue().count("mail was given up") == 1


async def test_a_message_that_is_refused_for_good_is_not_tried_again_nor_quoted_in_the_log(
    tmp_path: Path, log: io.StringIO
) -> None:
    refusals = [f"550 5.7.1 spam: {SECRET}"]
    async with mail_server(refusals=refusals) as server, sending(tmp_path, plain(server)) as mail:
        await mail.send(MAIL)
        await until(lambda: mail.waiting == 0, "the message is given up")

    assert (server.attempts, server.taken) == (1, [])
    assert "mail was refused" in log.getvalue()
    assert "5.7.1 spam" in log.getvalue()
    assert SECRET not in log.getvalue()


async def test_without_a_mail_server_the_operator_finds_the_message_and_the_log_has_no_secret(
    tmp_path: Path, log: io.StringIO
) -> None:
    async with sending(tmp_path, None) as mail:
        for _ in range(3):
            await mail.send(MAIL)
        await until(lambda: mail.waiting == 0, "the messages are written")

    files = list((tmp_path / "mail").iterdir())
    assert len(files) == 3
    assert MAIL.text in files[0].read_text()
    assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o700
    assert files[0].stat().st_mode & 0o777 == 0o600
    assert all(str(file) in log.getvalue() for file in files)
    assert SECRET not in log.getvalue()


async def test_what_waits_is_bounded_and_a_full_queue_says_so(tmp_path: Path) -> None:
    async with sending(tmp_path, f"smtp://127.0.0.1:{free_port()}?security=none") as mail:
        for _ in range(500):
            await mail.send(MAIL)
        with pytest.raises(MailBusy):
            await mail.send(MAIL)


@pytest.mark.parametrize(
    "url",
    [
        "http://mail.example",
        "smtp://",
        "smtp://mail.example/path",
        "smtp://mail.example?security=some",
        "smtps://mail.example?security=none",
        "smtp://a:b@mail.example?security=none",
        "smtp://mail.example:99999",
    ],
)
def test_a_mail_server_that_cannot_be_meant_stops_the_start_and_is_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="smtp") as caught:
        Settings.model_validate({"smtp_url": url.replace("a:b@", "a:the-secret@")})

    assert "the-secret" not in str(caught.value)
