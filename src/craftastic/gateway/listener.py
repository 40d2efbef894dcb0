"""Keeps the gateway listening at every address that sandboxes of a runtime reach it by."""

import contextlib
import socket
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog
import uvicorn
from anyio.abc import TaskGroup

from craftastic.errors import CraftasticError
from craftastic.gateway.protocol import GatewayProtocol
from craftastic.runtimes.base import Runtime

RETRY_S = 5.0
DRAIN_S = 5

log = structlog.get_logger(__name__)


class QuietServer(uvicorn.Server):
    """A second server in one process: the signals belong to the first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@dataclass(slots=True)
class GatewayListener:
    """One listening socket per address; an address that cannot be bound yet is tried again.

    Args:
        app: The gateway's ASGI application.
        port: The same port at every address; 0 picks one, for tests of a single address.
    """

    app: Any
    port: int
    bound: dict[str, int] = field(default_factory=dict[str, int])
    _servers: list[QuietServer] = field(default_factory=list[QuietServer])

    async def serve(self, runtime: Runtime, group: TaskGroup) -> None:
        """Listen where `runtime`'s sandboxes look, once that address exists; runs until cancelled.

        The network of an engine may not be there yet, or its daemon may be down: that is waited
        for, with a line in the log, since sandboxes of other runtimes work meanwhile.
        """
        while True:
            try:
                address = await runtime.gateway_address()
                if address not in self.bound:
                    self._listen(address, group)
            except CraftasticError as error:
                log.warning("gateway cannot listen yet", runtime=runtime.name, reason=str(error))
                await anyio.sleep(RETRY_S)
            except OSError as error:
                log.warning(
                    "gateway cannot listen yet, so sandboxes can neither clone nor push; "
                    "CRAFTASTIC_GATEWAY_PORT sets another port",
                    runtime=runtime.name,
                    port=self.port,
                    reason=error.strerror,
                )
                await anyio.sleep(RETRY_S)
            else:
                return

    def _listen(self, address: str, group: TaskGroup) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address, self.port))
        except OSError:
            listening.close()
            raise
        listening.setblocking(False)
        config = uvicorn.Config(
            self.app,
            lifespan="off",
            log_config=None,
            access_log=False,
            http=GatewayProtocol,  # bounds what the stock protocols do not: heads and silence
            ws="none",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=DRAIN_S,
            server_header=False,
            limit_concurrency=512,
        )
        server = QuietServer(config)
        self._servers.append(server)
        self.bound[address] = listening.getsockname()[1]
        group.start_soon(_run, server, listening)
        log.info("gateway listens", address=address, port=self.bound[address])

    def stop(self) -> None:
        """Ask every server to finish what it carries, at most `DRAIN_S` seconds, and end."""
        for server in self._servers:
            server.should_exit = True


async def _run(server: QuietServer, listening: socket.socket) -> None:
    with listening:  # a server that is cancelled leaves its socket open
        await server.serve([listening])
