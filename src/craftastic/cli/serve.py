"""`craftastic serve`: the API listener, and with it everything that the application starts."""

import os
import resource
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, cast

import anyio
import structlog
import uvicorn
import uvloop

from craftastic.app import build_app
from craftastic.cli.starting import data_folder, listen
from craftastic.errors import CraftasticError
from craftastic.http.connection import HttpConnection
from craftastic.logs import configure
from craftastic.migrations import runner
from craftastic.settings import Settings, load_settings

DRAIN_S = 8
GOODBYE_S = 1.5
WANTED_FILES = 65536
PING_S = 20.0
"""How often terminals' sockets are asked whether they live: less than any proxy's patience."""
KEEP_ALIVE_S = 130
"""Longer than proxies keep a connection that they do not use (Caddy: 120 s): who hangs up first
may do so in the face of a request."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def serve(host: str | None = None, port: int | None = None) -> None:
    """Run the server until SIGINT or SIGTERM; sandboxes and their terminals go on after it.

    What can be wrong on this machine is tried first: a person reads one sentence then, and not
    the trace of an application that did not start.

    Raises:
        SystemExit: The server has ended.
        CraftasticError: The address, the data folder or the database cannot be used.
    """
    settings = load_settings()
    changed = {"host": host, "port": port}
    settings = settings.model_copy(update={k: v for k, v in changed.items() if v is not None})
    configure(level=settings.log_level, format=settings.log_format)
    log.debug("everything is logged")
    _raise_file_limit()
    os.umask(0o077)
    listening = listen(settings)
    with data_folder(settings):
        uvloop.run(runner.upgrade(settings.sqlalchemy_url))
        config = uvicorn_config(settings)
        application = config.app
        config.app = start = WatchedStart(application)
        server = DrainingServer(config, application)
        # Ctrl-C is how a person ends it, and comes once more when all is put away: no failure.
        # A start that failed ends in SystemExit; what it was is told below.
        with suppress(KeyboardInterrupt, SystemExit):
            uvloop.run(server.serve(listening))
    if not server.started and start.failure is not None:
        raise start.failure
    sys.exit(0 if server.started else 1)


class DrainingServer(uvicorn.Server):
    """Lets terminals say goodbye before the sockets are closed under them."""

    def __init__(self, config: uvicorn.Config, application: Any) -> None:
        super().__init__(config)
        self._application = application

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take SIGINT and SIGTERM as wishes; uvicorn would die of them when all is put away."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close viewers with 1012 and the reason, end streams of events, then everything else."""
        events = getattr(self._application.state, "events", None)
        if events is not None:
            events.drain()  # their clients are told by the end of the answer
        terminals = getattr(self._application.state, "terminals", None)
        if terminals is not None:
            terminals.drain()
            with anyio.move_on_after(GOODBYE_S):
                while terminals.attached:  # noqa: ASYNC110 - an end, not an event, is waited for
                    await anyio.sleep(0.02)
        await super().shutdown(sockets)


class WatchedStart:
    """An ASGI application whose failure to start is kept, where it is one that has a sentence.

    Starlette hands such a failure on as the text of its trace, which only a bug deserves.

    Attributes:
        failure: Why the application did not start, when the project raised that on purpose.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.failure: CraftasticError | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        held: list[Any] = []

        async def hold_failure(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed":
                held.append(message)
            else:
                await send(message)

        try:
            await self._app(scope, receive, hold_failure)
        except BaseException as error:
            self.failure = _on_purpose(error)
            for message in held:
                await send(message if self.failure is None else {**message, "message": ""})
            raise


def _on_purpose(error: BaseException) -> CraftasticError | None:
    """Return the project's own error, also out of a group of one task's failures."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error if isinstance(error, CraftasticError) else None


def uvicorn_config(settings: Settings) -> uvicorn.Config:
    """Return how the API is served; the same in tests."""
    return uvicorn.Config(
        build_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # it would write the whole path, and terminals carry a token in theirs
        http=HttpConnection,
        ws="websockets-sansio",
        ws_max_size=2
        << 20,  # a paste of 1 MiB is longer as JSON; the route itself counts what is typed
        ws_ping_interval=PING_S,
        ws_ping_timeout=20.0,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=DRAIN_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        proxy_headers=False,  # the application's own edge reads them
        server_header=False,
    )


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
