"""Logs: one line per event, with the request's id, without secrets (SEC-41, F39)."""

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TextIO, cast

import pytest
import structlog

from craftastic import logs

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlc2lnbmF0dXJl"
CANARY = "canary-4711-canary"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.raiseExceptions)
    stream = io.StringIO()
    logs.configure(level="debug", format="json", stream=stream)
    yield stream
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.getLogger("uvicorn.access").disabled = False


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_event_level_time_and_what_is_bound(stream: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")

    structlog.stdlib.get_logger("craftastic.x").info("made", environment="e-1", count=3)

    (line,) = lines(stream)
    assert line["event"] == "made"
    assert line["level"] == "info"
    assert line["request_id"] == "r-1"
    assert (line["environment"], line["count"]) == ("e-1", 3)
    assert line["timestamp"].endswith("Z")


def test_libraries_write_in_the_same_form(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)

    (line,) = lines(stream)
    assert line["event"] == "Started server process [7]"
    assert line["logger"] == "uvicorn.error"


def test_uvicorns_lines_about_requests_are_off(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.access").info('"GET /api/x?token=%s" 200', CANARY)

    logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" [accepted]', "::1", "/api/x?a=1")

    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    "key",
    [
        "token", "password", "authorization", "Authorization", "secret", "cookie", "Set-Cookie",
        "refresh_token", "refreshToken", "accessToken", "currentPassword", "new_password",
        "api_key", "jwt_secret", "encryption_key", "gateway_token", "setupToken", "ticket",
        "X-Craftastic-Setup-Token", "invitation", "password_hash",
    ],
)  # fmt: skip
def test_values_of_secret_keys_are_hidden(stream: io.StringIO, key: str) -> None:
    log = structlog.stdlib.get_logger("craftastic.x")

    log.info("x", **{key: CANARY})
    log.info("x", body={"deep": [{key: CANARY}]})

    assert CANARY not in stream.getvalue()
    assert len(lines(stream)) == 2


@pytest.mark.parametrize(
    "text",
    [
        f"GET /api/terminal/ws/1?environmentId=2&token={CANARY} HTTP/1.1",
        f"GET /x?ticket={CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"header bearer {CANARY}",
        f'{{"email": "a@example.com", "password": "{CANARY} and more"}}',
        f"{{'refreshToken': '{CANARY}'}}",
        f"postgresql://user:{CANARY}@db.example/craftastic",
        f"https://{CANARY.replace('-', '')}:{CANARY}@example.com/x.git",
        f"password={CANARY}",
    ],
)
def test_secrets_in_texts_are_hidden(stream: io.StringIO, text: str) -> None:
    structlog.stdlib.get_logger("craftastic.x").warning(text, note=text, more=[text])
    logging.getLogger("any.package").warning("said %s", text)
    structlog.stdlib.get_logger("craftastic.x").error("broke", exc_info=ValueError(text))

    assert CANARY not in stream.getvalue()
    assert len(lines(stream)) == 3


def test_tokens_are_known_by_their_form(stream: io.StringIO) -> None:
    personal = "craft_" + "Q7-_x" * 8 + "Q7x"
    structlog.stdlib.get_logger("craftastic.x").info(f"got {JWT}, went on", argv=["a", JWT])
    structlog.stdlib.get_logger("craftastic.x").info(f"got {personal}.", argv=["a", personal])

    assert "c2lnbmF0dXJl" not in stream.getvalue()
    assert "Q7" not in stream.getvalue()
    assert "went on" in stream.getvalue()


def test_ordinary_texts_stay_as_they_are(stream: io.StringIO) -> None:
    event = "session feature/token-refresh made, code=BRANCH_IN_USE, 3 tokens"

    structlog.stdlib.get_logger("craftastic.x").info(event, token_version=3, path="/api/sessions")

    (line,) = lines(stream)
    assert (line["event"], line["token_version"], line["path"]) == (event, 3, "/api/sessions")


def test_a_secret_is_not_cut_into_something_that_looks_like_none(stream: io.StringIO) -> None:
    structlog.stdlib.get_logger("craftastic.x").info(
        "x" * 980 + f" Bearer {'s' * 600} " + "y" * 6000
    )

    assert "sss" not in stream.getvalue()


def test_what_cannot_be_written_is_lost_and_nothing_else() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        full = open("/dev/full", "w", buffering=1)  # noqa: PTH123, SIM115
        closed = io.StringIO()
        closed.close()
        for broken in (full, closed):
            logs.configure(format="console", stream=cast("TextIO", broken))
            structlog.stdlib.get_logger("craftastic.x").error("still here")
        with suppress(OSError):
            full.close()
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        structlog.reset_defaults()
        logging.getLogger("uvicorn.access").disabled = False


PATTERNS = (*(pattern for pattern, _ in logs.SECRET_TEXT), logs.SECRET_KEY, logs.CAMEL)
# What a pattern can begin with, go on with for long, and then not end with.
FRAGMENTS = (
    "a", "a-", "a.", "a_", "-", "A", "aA", " ", "\\", '"', "'", "token", "token-", "a-token",
    "password", "secret ", 'password="', "token='", 'token="\\', "token =", "cookie: ", "bearer ",
    "basic  ", "eyJ", "eyJaaaa", "eyJaaaa-", "eyJaaaa.", "-eyJaaaa.a", "ghp_", "-ghp_aaaaaaa",
    "?a-", "?token", "&token=", ";", "://", "a://", "a://b:", "a+b.", "a:b@", "=", ":",
)  # fmt: skip
SHORT, TIMES = 500, 16


def cost(pattern: re.Pattern[str], text: str) -> float:
    """Return the processor's seconds, the fewest of some rounds."""
    spent: list[float] = []
    for _ in range(3):
        begun = time.process_time()
        pattern.sub("", text)
        spent.append(time.process_time() - begun)
    return min(spent)


def grows_with_the_text_alone(pattern: re.Pattern[str], fragment: str, lead: str) -> bool:
    """Tell whether 16 times the text costs about 16 times the work; squared, it would be 256."""
    short = lead + fragment * (SHORT // len(fragment))
    long = lead + fragment * (SHORT * TIMES // len(fragment))
    # A cost below what the clock can tell is taken for that.
    return cost(pattern, long) < 5 * TIMES * max(cost(pattern, short), 20e-6)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.pattern[:24])
def test_work_of_each_pattern_grows_with_the_text_and_not_with_its_square(
    pattern: re.Pattern[str],
) -> None:
    slow = [
        (lead, fragment)
        for fragment in FRAGMENTS
        for lead in ("", "token=", "a://", "eyJ")
        if not grows_with_the_text_alone(pattern, fragment, lead)
    ]

    assert slow == []


@pytest.mark.parametrize(
    "quadratic", [r"\b[a-z_-]*token=", r"\beyJ[\w-]{4,}\.", r"\b[a-z][a-z0-9+.-]*://"]
)
def test_pattern_whose_work_grows_with_the_square_is_told(quadratic: str) -> None:
    pattern = re.compile(quadratic)

    assert not all(grows_with_the_text_alone(pattern, one, "") for one in ("a-", "a.", "eyJaaaa-"))


@pytest.mark.parametrize(
    "text",
    [
        f"client_secret={CANARY}",
        f"new_password: {CANARY}",
        f"it says x1_token={CANARY}",
        f"HTTPS://someone:{CANARY}@example.com/x.git",
        "at a-" + JWT,
    ],
)
def test_secrets_are_hidden_whatever_stands_before_their_names(text: str) -> None:
    shown = logs.redact(text)

    assert CANARY not in shown
    assert "c2lnbmF0dXJl" not in shown
    assert logs.HIDDEN in shown
