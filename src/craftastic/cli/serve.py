"""`craftastic serve`: the API listener, and with it everything that the application starts."""

import os
import resource
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, cast

import anyio
import structlog
import uvicorn
import uvloop

from craftastic.app import build_app
from craftastic.cli._notify import notify
from craftastic.cli.starting import data_folder, listen
from craftastic.clock import SystemClock
from craftastic.database import Database
from craftastic.environments.claims import void_claims
from craftastic.errors import CraftasticError
from craftastic.http.connection import HttpConnection
from craftastic.http.draining import Draining
from craftastic.http.sockets import SocketConnection
from craftastic.logs import configure
from craftastic.migrations import runner
from craftastic.sessions.beginning import forget_viewers
from craftastic.settings import Settings, load_settings

REQUESTS_S = 6.0
"""How long requests that are under way may take when the server is to end."""
GOODBYE_S = 1.5
"""How long terminals have to say goodbye, and answers of requests that were cut to leave."""
DRAIN_S = 1
"""How long connections have to close after that."""
EXIT_S = 9.5
"""When the process ends whatever still hangs: nothing is lost by that, and it would be killed."""
WANTED_FILES = 65536
PING_S = 20.0
"""How often terminals' sockets are asked whether they live: less than any proxy's patience."""
PONG_S = 20.0
"""How long they have to answer."""
KEEP_ALIVE_S = 130
"""Longer than proxies keep a connection that they do not use (Caddy: 120 s): who hangs up first
may do so in the face of a request."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def serve(host: str | None = None, port: int | None = None) -> NoReturn:
    """Run the server until SIGINT or SIGTERM; sandboxes and their terminals go on after it.

    What can be wrong on this machine is tried first: a person reads one sentence then, and not
    the trace of an application that did not start.

    The process ends here, with 0 when it served.

    Raises:
        CraftasticError: The address, the data folder or the database cannot be used.
    """
    _open_standard_streams()
    settings = load_settings()
    changed = {"host": host, "port": port}
    settings = settings.model_copy(update={k: v for k, v in changed.items() if v is not None})
    configure(level=settings.log_level, format=settings.log_format)
    log.debug("everything is logged")
    _raise_file_limit()
    os.umask(0o077)
    listening = listen(settings)
    with data_folder(settings, first=lambda: _be_the_first(settings)) as alone:
        if not alone:
            uvloop.run(runner.upgrade(settings.sqlalchemy_url))
        config = uvicorn_config(settings)
        application = config.app
        config.app = start = WatchedStart(edge := Draining(cast("Any", application)))
        server = DrainingServer(config, application, edge)
        start.on_end = server.end_with_failure
        # Ctrl-C is how a person ends it, and comes once more when all is put away: no failure.
        # A start that failed ends in SystemExit; what it was is told below.
        with suppress(KeyboardInterrupt, SystemExit):
            server.serve_until_ended(listening)
    if not server.started and start.failure is not None:
        raise start.failure
    _leave(0 if server.started and not server.has_failed else 1)


def _be_the_first(settings: Settings) -> None:
    uvloop.run(runner.upgrade(settings.sqlalchemy_url))
    uvloop.run(_forget_the_dead(settings.sqlalchemy_url))


async def _forget_the_dead(url: str) -> None:
    database = Database(url)
    try:
        await void_claims(database)
        await forget_viewers(database, SystemClock())
    finally:
        await database.close()


def _leave(code: int) -> NoReturn:
    """End the process at once: everything is put away.

    Python would take each of its objects apart first, seconds on a busy machine, in which nobody
    serves.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a log that cannot be written is no failure
            stream.flush()
    os._exit(code)


def _open_standard_streams() -> None:
    """Put nothing in the place of a standard stream that whoever started the server has closed.

    Otherwise the next file to be opened would get its number, and what is meant for the log would
    be written to the database.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
            os.set_inheritable(number, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


class DrainingServer(uvicorn.Server):
    """Lets what is under way end before the sockets are closed under it, and ends in 10 s."""

    def __init__(self, config: uvicorn.Config, application: Any, edge: Draining) -> None:
        super().__init__(config)
        self._application = application
        self._edge = edge
        self._is_done = False
        self.has_failed = False

    def serve_until_ended(self, listening: list[socket.socket]) -> None:
        """Serve, and come back when everything is put away; blocks.

        The end takes `EXIT_S` at most, or the process ends here: work in a thread cannot be
        cancelled, and what it was about is stored as an intent, as for a process that is killed.
        """
        uvloop.run(self.serve(listening))
        self._is_done = True
        for thread in threading.enumerate():
            # While one of them starts a sandbox, the data folder is still in use.
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()

    def end_with_failure(self) -> None:
        """End because what runs beside the requests has ended: nothing would be looked after."""
        if not self.should_exit:
            self.has_failed = self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen; whoever waits for the server is told then."""
        await super().startup(sockets)
        if self.started:
            notify("READY=1")

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take SIGINT and SIGTERM as wishes; uvicorn would die of them when all is put away."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close viewers with 1012, end streams of events, let requests end, then everything.

        Until the last request has its answer the server listens, and says to come back later.
        Sandboxes reach their gateway meanwhile: a create that clones may come to its end.
        """
        last_call = threading.Timer(EXIT_S, self._end_at_once)
        last_call.daemon = True
        last_call.start()
        notify("STOPPING=1")
        self._edge.begin()
        log.info("stopping", requests=self._edge.under_way)
        events = getattr(self._application.state, "events", None)
        if events is not None:
            events.drain()  # their clients are told by the end of the answer
        terminals = getattr(self._application.state, "terminals", None)
        if terminals is not None:
            terminals.drain()
        await self._quiet(REQUESTS_S)
        if self._edge.under_way:
            self._edge.cut()
            await self._quiet(GOODBYE_S)
        await super().shutdown(sockets)
        log.info("stopped")

    async def _quiet(self, within_s: float) -> None:
        """Wait until nothing is under way, or nobody wants to wait any more."""
        with anyio.move_on_after(within_s):
            while self._edge.under_way and not self.force_exit:  # noqa: ASYNC110 - an end, no event
                await anyio.sleep(0.02)

    def _end_at_once(self) -> None:
        log.warning("the end is cut short: something hangs", after_s=EXIT_S)
        os._exit(0 if self._is_done else 1)


class WatchedStart:
    """An ASGI application whose failure to start is kept, where it is one that has a sentence.

    Starlette hands such a failure on as the text of its trace, which only a bug deserves.

    The server goes on when its application ends after its start; then somebody else has to act.

    Attributes:
        failure: Why the application did not start, when the project raised that on purpose.
        on_end: Called when the application has ended, whether it was told to or not.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self.failure: CraftasticError | None = None
        self.on_end: Callable[[], None] = lambda: None

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
        finally:
            self.on_end()


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
        ws=SocketConnection,
        ws_max_size=2
        << 20,  # a paste of 1 MiB is longer as JSON; the route itself counts what is typed
        ws_ping_interval=PING_S,
        ws_ping_timeout=PONG_S,
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
