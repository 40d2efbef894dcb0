"""A server with one session's terminal over a real tmux, and clients for it."""

import json
import shutil
import socket
import struct
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from craftastic.accounts.service import Caller, UserId
from craftastic.audit.service import AuditService
from craftastic.clock import SystemClock
from craftastic.database import Database
from craftastic.errors import Conflict, NotFound, Unauthenticated
from craftastic.http import errors, middleware
from craftastic.http.sockets import SocketConnection
from craftastic.metrics import Metrics
from craftastic.runtimes.base import SandboxRef, SandboxSpec
from craftastic.settings import Settings
from craftastic.terminals import endpoints
from craftastic.terminals.service import TerminalService
from tests.conftest import missing
from tests.fakes.host_runtime import HostRuntime
from tests.fakes.terminal_rig import Rig, until

WAIT_S = 20.0
V2 = "craftastic.v2"


@dataclass
class Place:
    sandbox: SandboxRef


@dataclass(frozen=True)
class Live:
    id: UUID
    environment_id: UUID
    tmux_name: str
    status: str = "inactive"


@dataclass
class Sessions:
    """Sessions of one owner in memory; reviving makes the tmux session anew."""

    owner: UserId
    place: Place
    rig: Rig
    sessions: dict[UUID, Live] = field(default_factory=dict[UUID, Live])
    viewers: list[int] = field(default_factory=list[int])
    refusal: str | None = None
    revived: int = 0

    async def get_owned(self, owner: UserId, session_id: UUID) -> tuple[Live, Place]:
        if owner != self.owner or session_id not in self.sessions:
            raise NotFound("Session not found")
        return self.sessions[session_id], self.place

    async def revive(self, owner: UserId, session_id: UUID) -> object:
        if self.refusal:
            raise Conflict(self.refusal)
        self.revived += 1
        await self.rig.start()
        return None

    async def viewers_changed(self, session_id: UUID, viewers: int) -> None:
        self.viewers.append(viewers)

    async def keep_viewers(self, watched: Collection[UUID], /) -> None: ...

    async def ended(self, session_id: UUID, _sandbox: SandboxRef) -> None:
        self.sessions[session_id] = replace(self.sessions[session_id], status="dead")

    async def touch(self, session_ids: Sequence[UUID]) -> None: ...


@dataclass
class Accounts:
    caller: Caller
    signed_in: bool = True

    async def authenticate(self, token: str) -> Caller:
        if token == "stranger":
            return replace(self.caller, user_id=UserId(uuid4()))
        if token != "good":
            raise Unauthenticated("no")
        return self.caller

    async def still_signed_in(self, caller: Caller) -> bool:
        return self.signed_in

    def insist_on_verified(self, caller: Caller) -> None:
        pass


@dataclass
class Desk:
    """A server with one session, and clients for it."""

    port: int
    service: TerminalService
    sessions: Sessions
    accounts: Accounts
    session: Live
    rig: Rig
    runtime: HostRuntime

    def url(self, **query: str) -> str:
        words = {"token": "good", "environmentId": str(self.session.environment_id), **query}
        text = "&".join(f"{key}={value}" for key, value in words.items() if value)
        return f"ws://127.0.0.1:{self.port}/api/terminal/ws/{self.session.id}?{text}"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def open(self, *, v2: bool = False, **query: str) -> AsyncGenerator["Client"]:
        subprotocols: Any = [V2] if v2 else None
        async with connect(
            self.url(**query), subprotocols=subprotocols, max_size=None, compression=None
        ) as connection:
            yield Client(connection)

    async def refusal(self, url: str, **options: Any) -> tuple[int | None, str | None]:
        async with connect(url, **options) as connection:
            client = Client(connection)
            await client.until_closed()
            return connection.close_code, connection.close_reason


@dataclass
class Client:
    connection: ClientConnection
    text: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    following: int = 0
    snapshots: int = 0

    async def send(self, **message: object) -> None:
        await self.connection.send(json.dumps(message))

    async def type(self, text: str) -> None:
        await self.send(type="input", data=text)

    async def step(self) -> None:
        frame = await self.connection.recv()
        if isinstance(frame, str):
            message = json.loads(frame)
            self.messages.append(message)
            self.text += message.get("data", "")
            return
        kind, number = struct.unpack_from(">BQ", frame)
        if kind == 2:
            self.text, self.following = "", number
            self.snapshots += 1
        else:
            assert number == self.following
            self.following += len(frame) - 9
        self.text += frame[9:].decode(errors="replace")

    async def until(self, text: str) -> None:
        with anyio.fail_after(WAIT_S):
            while text not in self.text:
                await self.step()

    async def until_message(self, kind: str) -> dict[str, Any]:
        with anyio.fail_after(WAIT_S):
            while not any(one["type"] == kind for one in self.messages):
                await self.step()
        return next(one for one in self.messages if one["type"] == kind)

    async def until_closed(self) -> tuple[int | None, str | None]:
        try:
            with anyio.fail_after(WAIT_S):
                while True:
                    await self.step()
        except ConnectionClosed:
            return self.connection.close_code, self.connection.close_reason


@asynccontextmanager
async def open_desk(
    database: Database,
    data_dir: Path,
    accounts: Any = None,
    owner: UserId | None = None,
    audited_by: Database | None = None,
) -> AsyncGenerator[Desk]:
    """Serve one session's terminal.

    Args:
        database: For leases and tickets.
        data_dir: Where the sandbox is.
        accounts: Who calls; a fake one whose token is `good` when None.
        owner: Whose session it is; the fake account's when None.
        audited_by: Another pool of connections for the audit log; `database` itself when None.
    """
    if shutil.which("tmux") is None:
        missing("tmux is not installed")
    runtime = HostRuntime(data_dir)
    sandbox = await runtime.create(SandboxSpec(uuid4(), uuid4(), 1, "host"))
    rig = Rig(runtime, sandbox, runtime.run_dir(sandbox))
    await rig.start()
    caller = Caller(owner or UserId(uuid4()), "a@example.com", "A", True, False, uuid4())
    session = Live(uuid4(), uuid4(), rig.session)
    sessions = Sessions(caller.user_id, Place(sandbox), rig, {session.id: session})
    accounts = accounts or Accounts(caller)
    settings = Settings.model_validate({"data_dir": data_dir, "max_terminals_per_user": 20})
    service = TerminalService(
        database, {"host": runtime}, sessions, accounts, SystemClock(), settings,
        AuditService(audited_by or database, SystemClock()), run_dir=rig.run_dir, linger_s=1.0,
    )  # fmt: skip

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[dict[str, object]]:
        async with service.running():
            yield {"terminals": service, "accounts": accounts}

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    errors.install(app)
    middleware.install(app, metrics=Metrics(), max_body_bytes=1 << 20)
    app.include_router(endpoints.router)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, access_log=False, ws=SocketConnection, ws_max_size=8 << 20,
        ws_per_message_deflate=False, timeout_graceful_shutdown=3,
    )  # fmt: skip
    server = uvicorn.Server(config)
    port = listener.getsockname()[1]
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            await until(lambda: server.started, "the server")
            try:
                yield Desk(port, service, sessions, accounts, session, rig, runtime)
            finally:
                service.drain()
                server.should_exit = True
    finally:
        await rig.end()
