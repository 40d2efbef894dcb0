"""A real server, an API client and terminal viewers, for tests that use the whole product."""

import json
import os
import re
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import anyio
import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from craftastic.runtimes.base import SandboxSpec
from craftastic.runtimes.local import LocalRuntime
from craftastic.settings import Settings
from tests.conftest import free_port
from tests.leaks import MARK_NAME, RUN, remove_local_rules
from tests.secrecy import GATE, canary

MAX_DOCUMENT = 16 << 20
LATELY = 256 << 10
PASSWORD = canary("password")
INHERITED = ("PATH", "LANG", "DOCKER_HOST", "CRAFTASTIC_IMAGE_CA_BUNDLE", "PYTHONPATH")
"""Without the last one a server would want another image than `make test` has built."""

ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()*+][0-9A-Za-z]|[@-Z\\-_a-z=>])"
)


async def until(
    condition: Callable[[], Any], what: str, *, timeout_s: float = 30.0, every_s: float = 0.05
) -> Any:
    """Wait for a condition (plain or async) and return its truthy value.

    Raises:
        AssertionError: It did not come true in time; the message says what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if hasattr(value, "__await__"):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {timeout_s} s: {what}")
        await anyio.sleep(every_s)


def remove_containers(instance: str) -> None:
    """Remove the containers that carry an installation's label."""
    if shutil.which("docker") is None:
        return
    label = f"label=craftastic.instance={instance}"
    listed = subprocess.run(
        ["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=False
    )
    if found := listed.stdout.split():
        subprocess.run(["docker", "rm", "-f", *found], capture_output=True, check=False)


class Server:
    """One `craftastic serve` process that can be killed and started again on the same state.

    Attributes:
        program: What Python is given to run; another kind of server runs another.
    """

    program: Sequence[str] = ("-m", "craftastic", "serve")

    def __init__(
        self, data_dir: Path, *, runtime: str, database_url: str | None, **more: str
    ) -> None:
        self.port = free_port()
        self.gateway_port = free_port()
        self.data_dir = data_dir
        self.uid_base = RUN.new_uid_base()
        self.environment = {
            **{key: os.environ[key] for key in INHERITED if key in os.environ},  # noqa: TID251
            "HOME": str(data_dir),
            "CRAFTASTIC_PORT": str(self.port),
            "CRAFTASTIC_GATEWAY_PORT": str(self.gateway_port),
            "CRAFTASTIC_DATA_DIR": str(data_dir),
            "CRAFTASTIC_RUNTIME": runtime,
            "CRAFTASTIC_SANDBOX_UID_BASE": str(self.uid_base),
            MARK_NAME: RUN.mark,
            "CRAFTASTIC_GIT_ALLOW_HTTP": "1",
            "CRAFTASTIC_GIT_ALLOW_PRIVATE": "1",
            "CRAFTASTIC_REGISTRATION": "open",
            # An image has them all; on this host they would be installed for each server.
            **({"CRAFTASTIC_AGENT_TOOLS": "none"} if runtime == "local" else {}),
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "debug",
            **({"DATABASE_URL": database_url} if database_url else {}),
            **more,
        }
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def beside(self) -> "Server":
        """Return a second server, not started, over the same database and data folder."""
        second = copy(self)
        second.port = free_port()
        second.url = f"http://127.0.0.1:{second.port}"
        second.environment = {**self.environment, "CRAFTASTIC_PORT": str(second.port)}
        second.log = self.log.with_name("second.log")
        second.process = None
        return second

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program],
                env=self.environment,
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def ready(self, timeout_s: float = 60.0) -> None:
        async with httpx.AsyncClient(base_url=self.url) as client:

            async def answers() -> bool:
                assert self.process is not None
                if self.process.poll() is not None:
                    raise AssertionError(f"the server ended: {self.log.read_text()[-3000:]}")
                try:
                    return (await client.get("/healthz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(answers, "the server answers", timeout_s=timeout_s)
        if self.environment["LOG_LEVEL"] == "debug":  # what the gate of secrets counts on
            assert b'"level": "debug"' in self.log.read_bytes()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                return self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self.process.returncode

    async def clean(self) -> None:
        """End the server, then remove its sandboxes and what it set on the machine."""
        GATE.processes()
        if self.process is not None:
            self.stop()
        GATE.log_file(self.log)
        GATE.database(f"sqlite:///{self.data_dir / 'craftastic.db'}")
        file = self.data_dir / "keys" / "instance"
        if file.is_file():
            RUN.instances.add(instance := file.read_text().strip())
            GATE.docker([instance])
            remove_containers(instance)
            await self._remove_local_sandboxes(instance)
        await remove_local_rules(self.uid_base)

    async def _remove_local_sandboxes(self, instance: str) -> None:
        runtime = LocalRuntime(
            Settings.model_validate({"data_dir": self.data_dir, "sandbox_uid_base": self.uid_base}),
            instance,
        )
        for one in await runtime.list():
            RUN.environments.add(str(one.environment_id))
            spec = SandboxSpec(one.environment_id, UUID(int=0), 0, "The test's own")
            await runtime.remove(spec, storage=True)
        await runtime.close()

    @property
    def setup_token(self) -> str:
        return (self.data_dir / "keys" / "first-account-token").read_text().strip()


class Api:
    """The API as one signed-in user."""

    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(240.0))
        self.user: dict[str, Any] = {}
        self.token = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.client.aclose()

    async def register(self, email: str, **more: str) -> None:
        answer = await self.client.post(
            "/api/auth/register",
            json={"email": email, "password": PASSWORD, "name": "Someone", **more},
        )
        assert answer.status_code == 200, answer.text
        self.signed_in(answer.json()["data"])

    async def login(self, email: str) -> None:
        answer = await self.client.post(
            "/api/auth/login", json={"email": email, "password": PASSWORD}
        )
        assert answer.status_code == 200, answer.text
        self.signed_in(answer.json()["data"])

    def signed_in(self, tokens: dict[str, Any]) -> None:
        self.user = tokens["user"]
        self.token = tokens["accessToken"]
        self.client.headers["Authorization"] = f"Bearer {self.token}"

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, **body: Any) -> Any:
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def delete(self, path: str) -> Any:
        answer = await self.client.delete(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def environment(
        self, name: str, url: str | None = None, branch: str = "main"
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"userId": self.user["id"], "name": name, "branch": branch}
        if url:
            body["repositoryUrl"] = url
        return await self.post("/api/environments", **body)


@dataclass
class Viewer:
    """One terminal in a browser's place: keeps everything it was sent since the last snapshot."""

    url: str
    session_id: str
    environment_id: str
    token: str
    v2: bool = True
    cols: int = 100
    rows: int = 30
    document: bytearray = field(default_factory=bytearray)
    stream: str | None = None
    seen: int = 0
    snapshots: int = 0
    ended: tuple[int, str] | None = None
    socket: ClientConnection | None = None
    gaps: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def attached(self) -> AsyncGenerator[Self]:
        """Be connected inside the block; leaving it closes like a tab that is shut."""
        query = f"environmentId={self.environment_id}&token={self.token}"
        if self.v2 and self.stream is not None and self.seen >= 0:
            query += f"&stream={self.stream}&seen={self.seen}"
        address = f"{self.url.replace('http', 'ws', 1)}/api/terminal/ws/{self.session_id}?{query}"
        async with connect(
            address,
            subprotocols=["craftastic.v2"] if self.v2 else None,  # type: ignore[list-item]
            max_size=64 << 20,
            compression=None,
            proxy=None,
        ) as self.socket:
            self.ended = None
            await self.resize(self.cols, self.rows)
            async with anyio.create_task_group() as group:
                group.start_soon(self._read)
                try:
                    yield self
                finally:
                    group.cancel_scope.cancel()

    def cut(self) -> None:
        """Lose the connection as a dropped network does: no close frame, just gone."""
        assert self.socket is not None
        self.socket.transport.abort()

    async def _read(self) -> None:
        assert self.socket is not None
        try:
            async for message in self.socket:
                if isinstance(message, bytes):
                    await self._binary(message)
                else:
                    await self._text(json.loads(message))
        except ConnectionClosed:
            pass
        self.ended = (self.socket.close_code or 1006, self.socket.close_reason or "")

    async def _binary(self, message: bytes) -> None:
        kind, number = message[0], struct.unpack_from(">Q", message, 1)[0]
        body = message[9:]
        if kind == 2:
            self.document[:] = body
            self.seen = number
            self.snapshots += 1
        else:
            if number != self.seen:
                self.gaps.append(f"expected byte {self.seen}, got {number}")
            self.document += body
            if len(self.document) > MAX_DOCUMENT:  # a flood is not kept whole
                del self.document[: -MAX_DOCUMENT // 2]
            self.seen = number + len(body)
        assert self.socket is not None
        await self.socket.send(b"\x02" + struct.pack(">Q", self.seen))

    async def _text(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "output":
                data = message["data"].encode("utf-8", "surrogatepass")
                if (at := data.rfind(b"\x1bc")) >= 0:
                    self.document[:] = data[at + 2 :]
                    self.snapshots += 1
                else:
                    self.document += data
            case "ready" | "stream":
                if message["stream"] != self.stream:
                    self.seen = -1  # bytes of another stream, until the snapshot of this one
                self.stream = message["stream"]
            case "request-resize":
                await self.resize(self.cols, self.rows)
            case _:
                pass

    async def type(self, text: str | bytes) -> None:
        assert self.socket is not None
        data = text.encode() if isinstance(text, str) else text
        if self.v2:
            await self.socket.send(b"\x01" + data)
        else:
            await self.socket.send(json.dumps({"type": "input", "data": data.decode()}))

    async def resize(self, cols: int, rows: int) -> None:
        assert self.socket is not None
        self.cols, self.rows = cols, rows
        await self.socket.send(json.dumps({"type": "resize", "cols": cols, "rows": rows}))

    @property
    def lately(self) -> str:
        """Return the end of what was shown: the whole of a flood takes too long to look at."""
        return ESCAPES.sub("", self.document[-LATELY:].decode("utf-8", "replace")).replace("\r", "")

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self.document.decode("utf-8", "replace")).replace("\r", "")

    async def shows(self, what: str, timeout_s: float = 30.0) -> None:
        try:
            await until(
                lambda: what in self.lately or self._over(what),
                f"{what!r} on the terminal",
                timeout_s=timeout_s,
            )
        except AssertionError as error:
            raise AssertionError(
                f"{error}; the terminal shows {self.text[-1500:]!r}; ended {self.ended}"
            ) from error

    def _over(self, what: str) -> bool:
        if self.ended is not None and what not in self.lately:
            raise AssertionError(
                f"the socket closed {self.ended} before {what!r}: {self.text[-1500:]!r}"
            )
        return False

    async def run(self, command: str, timeout_s: float = 30.0) -> str:
        """Type a command and return its output, framed by marks that the echo does not contain."""
        mark = secrets.token_hex(4)
        await self.type(
            f"printf '%s\\n' 'be''gin{mark}'; {command}; printf '%s\\n' 'e''nd{mark}'\r"
        )
        await self.shows(f"end{mark}", timeout_s)
        shown = self.text if len(self.document) < LATELY else self.lately
        found = re.findall(rf"begin{mark}\n(.*?)end{mark}", shown, re.DOTALL)
        assert found, self.text[-1500:]
        return found[-1]

    def numbers(self, prefix: str) -> list[int]:
        return [int(number) for number in re.findall(rf"^{prefix}(\d+)$", self.text, re.MULTILINE)]
