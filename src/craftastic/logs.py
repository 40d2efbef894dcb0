"""Structured logs: one line per event, with the request's id, without secrets."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars, unbind_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["bind_contextvars", "clear_contextvars", "configure", "redact", "unbind_contextvars"]

HIDDEN = "[hidden]"
MAX_TEXT = 4000
MAX_SCANNED = 32_000
MAX_DEPTH = 6
MAX_ITEMS = 100

SECRET_KEY = re.compile(
    r"(?:^|[_\-.])(?:"
    r"(?:access|refresh|setup|reset|verification|gateway|first[_-]?account|id|bearer)?[_-]?tokens?"
    r"|pass(?:word|wd|phrase)?|authorization|auth|secrets?|cookies?|set[_-]cookie|jwt|ticket"
    r"|invitation|credentials?|api[_-]?key|private[_-]?key|encryption[_-]?key|password[_-]hash"
    r"|device[_-]code)$",
    re.IGNORECASE,
)
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Texts come from strangers too: each pattern passes over a text in time that grows with its length
# alone. So a run of letters is entered at its beginning only, or left at a bound.
SECRET_TEXT: tuple[tuple[re.Pattern[str], str], ...] = (
    # A JSON Web Token: two parts that begin as base64 of `{"`.
    (
        re.compile(
            r"\beyJ(?:(?!-eyJ)[A-Za-z0-9_-]){4,}+\.[A-Za-z0-9_-]{2,}+(?:\.[A-Za-z0-9_-]*+)?"
        ),
        HIDDEN,
    ),
    # Our own personal access tokens, and GitHub's tokens: both say what they are.
    (re.compile(r"\bcraft_[A-Za-z0-9_-]{8,}+"), HIDDEN),
    (re.compile(r"\b(?:gh[opusr]_|github_pat_)[A-Za-z0-9_]{8,}+"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)(\s++)[A-Za-z0-9._~+/=-]{4,}+"), rf"\1\2{HIDDEN}"),
    (
        re.compile(
            r"(?i)([?&;](?:[a-z_-]*token|ticket|code|password|secret|key|invitation)=)[^&#\s\"']++"
        ),
        rf"\1{HIDDEN}",
    ),
    # `"password": "…"` and `password=…` in texts that quote a body or a command line.
    (
        re.compile(
            r"(?i)((?<![a-z_-])[a-z_-]*(?:password|token|secret|authorization|cookie)[\"']?"
            r"\s*+[:=]\s*+)(\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'|[^\s,;&}\"']++)"
        ),
        rf"\1{HIDDEN}",
    ),
    # A password in a URL: postgresql://user:password@host
    (
        re.compile(r"(?i)((?<![a-z0-9+.-])[a-z0-9+.-]*://[^\s:/@]*+):[^\s@/]++@"),
        rf"\1:{HIDDEN}@",
    ),
)


MAY_BE_SECRET = re.compile(r"[=:]|eyJ|craft_|gh[opusr]_|github_pat_|(?i:bearer|basic)")
"""Is in every text that any of the patterns above knows: without it, none has to look."""

OWN_KEYS = ("timestamp", "level", "logger")
"""What the processors write, and nobody else."""


class SafeStream:
    """A text stream that loses what it cannot write: a full disk must not stop the service."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()


def redact(value: object, depth: int = 0) -> Any:
    """Return the value with every secret replaced: by the names of keys, by the form of texts."""
    if isinstance(value, str):
        return _redact_text(value)
    if isinstance(value, bytes):
        return _redact_text(value[:MAX_SCANNED].decode("utf-8", "replace"))
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        pairs = list(cast("Mapping[object, object]", value).items())[:MAX_ITEMS]
        return {
            str(key): HIDDEN if _is_secret(str(key)) and item else redact(item, depth + 1)
            for key, item in pairs
        }
    if isinstance(value, Sequence | set | frozenset):
        items = list(cast("Sequence[object]", value))[:MAX_ITEMS]
        return [redact(item, depth + 1) for item in items]
    return _redact_text(str(value))


def configure(
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    format: Literal["auto", "json", "console"] = "auto",  # noqa: A002 - as the setting is called
    stream: TextIO | None = None,
) -> None:
    """Send all logs, the libraries' too, through one formatter to standard error.

    uvicorn's own access log is off: it writes whole request lines, tokens in queries included.
    Start uvicorn with `log_config=None, access_log=False` so that it leaves this alone.

    Args:
        level: The least severe level that is written; libraries never write below `info`.
        format: `auto` is `console` when the stream is a terminal, else `json`.
        stream: Where to write; standard error when None.
    """
    target = stream or cast("TextIO | None", sys.stderr)
    colours = target is not None and _is_terminal(target)
    as_json = format == "json" or (format == "auto" and not colours)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    last: list[Processor] = (
        [structlog.processors.JSONRenderer(ensure_ascii=True)]
        if as_json
        else [structlog.dev.ConsoleRenderer(colors=colours)]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _redact_event,
            *last,
        ],
    )
    handler = logging.StreamHandler(cast("TextIO", SafeStream(target)))
    handler.setFormatter(formatter)
    _route_everything(handler, level)
    logging.raiseExceptions = False
    # Found out for each line, and in none.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _route_everything(handler: logging.Handler, level: str) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Library loggers below `info` write protocol dumps: headers, SQL parameters, frames.
    floor = max(logging.INFO, logging.getLevelNamesMapping()[level.upper()])
    for name in (
        "uvicorn", "uvicorn.error", "httpx", "httpcore", "asyncio", "sqlalchemy", "aiosqlite",
        "alembic", "websockets", "aiodocker", "aiohttp",
    ):  # fmt: skip
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(floor)
    for name in ("httpx", "sqlalchemy", "alembic", "websockets"):
        logging.getLogger(name).setLevel(max(logging.WARNING, floor))
    logging.getLogger("uvicorn.error").addFilter(_tells_no_path)
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    access.disabled = True


def _tells_no_path(record: logging.LogRecord) -> bool:
    # uvicorn's lines about WebSockets hold the path with its query; ours hold all but that.
    return '"WebSocket %s"' not in str(record.msg)


def _redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.pop("color_message", None)  # uvicorn's message once more, for terminals
    own = {key: event.pop(key) for key in OWN_KEYS if key in event}
    clean: MutableMapping[str, Any] = redact(event)
    clean.update(own)
    return clean


@lru_cache(512)
def _is_secret(key: str) -> bool:
    return SECRET_KEY.search(CAMEL.sub("_", key)) is not None


def _redact_text(text: str) -> str:
    # First hidden, then cut: the second half of a secret would not be known for one.
    text = text[:MAX_SCANNED]
    if MAY_BE_SECRET.search(text):
        for pattern, replacement in SECRET_TEXT:
            text = pattern.sub(replacement, text)
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT // 4] + " … " + text[-3 * MAX_TEXT // 4 :]
    return text


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, OSError, ValueError):
        return False
