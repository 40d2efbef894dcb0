"""`craftastic serve`: the API listener, and with it everything that the application starts."""

import os
import resource
import sys
from contextlib import suppress

import uvicorn
import uvloop

from craftastic.app import build_app
from craftastic.cli.starting import data_folder, listen
from craftastic.logs import configure
from craftastic.migrations import runner
from craftastic.settings import Settings, load_settings

DRAIN_S = 8
WANTED_FILES = 65536


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
    _raise_file_limit()
    os.umask(0o077)
    listening = listen(settings)
    with data_folder(settings):
        uvloop.run(runner.upgrade(settings.sqlalchemy_url))
        server = uvicorn.Server(uvicorn_config(settings))
        # Ctrl-C is how a person ends it, and comes once more when all is put away: no failure.
        with suppress(KeyboardInterrupt):
            uvloop.run(server.serve(listening))
    sys.exit(0 if server.started else 1)


def uvicorn_config(settings: Settings) -> uvicorn.Config:
    """Return how the API is served; the same in tests."""
    return uvicorn.Config(
        build_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # it would write the whole path, and terminals carry a token in theirs
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=(1 << 20) + 4096,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=DRAIN_S,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=",".join(settings.trusted_proxies) or None,
        server_header=False,
    )


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
