"""What a server does when what runs beside its requests ends by itself."""

import socket
from typing import Any

import anyio
import uvicorn

from craftastic.cli.serve import DrainingServer, WatchedStart
from craftastic.http.draining import Draining
from tests.fakes.terminal_rig import until


class Ending:
    """An application whose background work ends with a fault once it has started."""

    def __init__(self) -> None:
        self.state = object()
        self.fails = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await self.fails.wait()
        raise ValueError("the reconciler has ended")


class Server(DrainingServer):
    """One whose end is not the end of the tests, should that take long."""

    def _end_at_once(self) -> None:
        pass


async def test_a_server_whose_background_work_ends_does_not_serve_on_without_it() -> None:
    application = Ending()
    edge = Draining(application)
    start = WatchedStart(edge)
    server = Server(uvicorn.Config(start, log_config=None), application, edge)  # type: ignore[arg-type]
    start.on_end = server.end_with_failure
    with socket.create_server(("127.0.0.1", 0)) as listening, anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            await until(lambda: server.started, "it has started")
            assert not server.has_failed
            application.fails.set()

    assert server.has_failed
