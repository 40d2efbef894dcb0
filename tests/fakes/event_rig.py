"""The stream of events as a server gives it, and a client that reads it."""

import json
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
import uvicorn
from fastapi import FastAPI

from craftastic.access_tokens.service import AccessTokenService
from craftastic.accounts.service import AccountService, Caller, NewAccount, Tokens, access_tokens
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.events import endpoints
from craftastic.events.service import EventLog, EventService
from craftastic.http import errors, middleware
from craftastic.http.connection import HttpConnection
from craftastic.metrics import Metrics
from tests.fakes.asgi import WithState
from tests.secrecy import canary

PASSWORD = canary("password")
WAIT_S = 20.0


class QuietServer(uvicorn.Server):
    """Leaves signals to the tests."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def serving(app: Any) -> AsyncGenerator[str]:
    """Serve an ASGI app over real sockets, and give its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, http=HttpConnection
        )
        config.timeout_graceful_shutdown = 3
        server = QuietServer(config)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.should_exit = True


@dataclass
class Process:
    """One server process's part in events."""

    database: Database
    accounts: AccountService
    personal: AccessTokenService
    events: EventService
    url: str

    async def tell(self, owner: UUID, *names: str) -> None:
        """Commit one event for each name, all of one transaction."""
        async with self.database.begin() as tx:
            for name in names:
                EventLog(tx).add(owner, "thing.changed", name)


@asynccontextmanager
async def process(
    folder: Path, database: Database, clock: Clock, **options: Any
) -> AsyncGenerator[Process]:
    """Run what a server process runs of events, over a database that others may share."""
    personal = AccessTokenService(database, AuditService(database, clock), clock)
    accounts = AccountService(
        database,
        clock,
        access_tokens(b"k" * 32, 900),
        folder,
        registration="open",
        personal=personal,
    )
    events = EventService(database, accounts, **options)
    app = FastAPI(openapi_url=None)
    errors.install(app)
    middleware.install(app, metrics=Metrics(), max_body_bytes=1 << 20)
    app.include_router(endpoints.router)
    state = {"accounts": accounts, "events": events}
    async with events.running(), serving(WithState(app, state)) as url:
        try:
            yield Process(database, accounts, personal, events, url)
        finally:
            events.drain()


async def new_user(accounts: AccountService, email: str) -> tuple[Tokens, Caller]:
    tokens = await accounts.register(NewAccount(email=email, password=PASSWORD, name="A"))
    return tokens, await accounts.authenticate(tokens.access_token)


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as it came."""

    event: str
    id: str | None
    data: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.data["id"])


@dataclass
class Reader:
    """A client in the middle of a stream."""

    response: httpx.Response
    lines: Any
    retry: list[str] = field(default_factory=list[str])

    async def next(self, timeout_s: float = WAIT_S) -> Frame | str | None:
        """Return the next event, a comment's text, or None at the end of the stream."""
        fields: dict[str, str] = {}
        with anyio.fail_after(timeout_s):
            async for line in self.lines:
                if line.startswith(":"):
                    return line[1:].strip()
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "event" in fields:
                    if "retry" in fields:
                        self.retry.append(fields["retry"])
                    return Frame(fields["event"], fields.get("id"), json.loads(fields["data"]))
        return None

    async def events(self, count: int) -> list[Frame]:
        """Return the next events, without comments."""
        found: list[Frame] = []
        while len(found) < count:
            frame = await self.next()
            assert frame is not None, f"the stream ended after {found}"
            if isinstance(frame, Frame):
                found.append(frame)
        return found


@asynccontextmanager
async def following(
    url: str, token: str, last: str | None = None, query: str = ""
) -> AsyncGenerator[Reader]:
    """Open a stream; what it begins with is still to be read."""
    headers = {"Authorization": f"Bearer {token}"}
    if last is not None:
        headers["Last-Event-ID"] = last
    async with (
        httpx.AsyncClient(timeout=WAIT_S) as client,
        client.stream("GET", f"{url}/api/events{query}", headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        yield Reader(response, response.aiter_lines())
