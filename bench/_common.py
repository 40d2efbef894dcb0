"""What the measurements share: figures and tables, a world to measure in, terminals to type into.

Terminals here block and are read by one thread: a client that did more would be in the figures.
"""

import argparse
import contextlib
import fcntl
import http.client
import json
import os
import platform
import pty
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Protocol, Self
from urllib.parse import quote

import psutil
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.e2e.harness import Api, Server
from tests.fakes.git_http_server import GitHttpServer, git

COLUMNS, ROWS = 100, 30
CHUNK = 1 << 18
WAIT_S = 60.0
PROMPTS = (b"$ ", b"# ")
DOCKER_SOCKET = "/var/run/docker.sock"
TMUX_CONFIG = (
    "set -g status off\nset -g history-limit 50000\nset -sg escape-time 0\n"
    "set -g default-command 'bash'\n"
)


# ---- figures ------------------------------------------------------------------------------


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie; 0 when there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def machine() -> dict[str, Any]:
    """Describe what the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "docker": Engine.version() if Engine.answers() else None,
        "tmux": said("tmux", "-V"),
        "git": said("git", "--version"),
        "load": [round(one, 2) for one in os.getloadavg()],
    }


def said(*argv: str) -> str | None:
    with contextlib.suppress(OSError):
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    return None


@dataclass
class Samples:
    """One measured thing: what was seen, in `unit`, and the name of what it is compared with."""

    name: str
    unit: str = "ms"
    floor: str | None = None
    values: list[float] = field(default_factory=list)
    note: str = ""

    def add(self, value: float) -> None:
        self.values.append(value)


class Report:
    """The results of one script: a table to read, or JSON lines."""

    def __init__(self, title: str, *, tail: bool = False) -> None:
        self.title = title
        self.tail = tail
        self.rows: dict[str, Samples] = {}
        self.load = os.getloadavg()[0]

    def row(self, name: str, unit: str = "ms", floor: str | None = None) -> Samples:
        """Return the row of that name; the first call says its unit and its floor."""
        return self.rows.setdefault(name, Samples(name, unit, floor))

    def ratio(self, row: Samples) -> float | None:
        """Return how many times its floor a row is, by the medians."""
        floor = self.rows.get(row.floor or "")
        if floor is None or not floor.values or not row.values or not median(floor.values):
            return None
        return median(row.values) / median(floor.values)

    def show(self, *, as_json: bool) -> None:
        if as_json:
            self._show_json()
        else:
            self._show_table()

    def _show_json(self) -> None:
        about = machine()
        for row in self.rows.values():
            line = {
                "bench": self.title,
                "name": row.name,
                "unit": row.unit,
                "n": len(row.values),
                "p50": round(percentile(row.values, 0.5), 4),
                "p95": round(percentile(row.values, 0.95), 4),
                "p99": round(percentile(row.values, 0.99), 4),
                "floor": row.floor,
                "ratio": self.ratio(row),
                "note": row.note,
                "machine": about,
            }
            print(json.dumps(line), flush=True)

    def _show_table(self) -> None:
        load = os.getloadavg()[0]
        about = f"{os.cpu_count()} cores, load {self.load:.1f} at the start, {load:.1f} at the end"
        print(f"\n## {self.title}  ({about})\n")
        tails = " p99 |" if self.tail else ""
        print(f"| what | n | p50 | p95 |{tails} unit | x floor | floor | |")
        print(f"|---|---|---|---|{'---|' if self.tail else ''}---|---|---|---|")
        for row in self.rows.values():
            ratio = self.ratio(row)
            tail = f" {_short(percentile(row.values, 0.99))} |" if self.tail else ""
            print(
                f"| {row.name} | {len(row.values)} | {_short(percentile(row.values, 0.5))} | "
                f"{_short(percentile(row.values, 0.95))} |{tail} {row.unit} | "
                f"{'' if ratio is None else f'{ratio:.2f}'} | {row.floor or ''} | {row.note} |",
                flush=True,
            )


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


@dataclass(frozen=True)
class Options:
    as_json: bool
    runtimes: tuple[str, ...]
    rounds: int


def options(description: str | None, argv: Sequence[str], rounds: int) -> Options:
    """Read a script's command line; a runtime that this machine lacks is left out aloud."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="JSON lines in place of a table")
    parser.add_argument("--runtime", choices=["docker", "local"], action="append")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    read = parser.parse_args(list(argv))
    wanted = tuple(read.runtime or ("docker", "local"))
    missing = []
    if "docker" in wanted and not Engine.answers():
        missing.append("docker")
    if "local" in wanted and not all(map(shutil.which, ("bwrap", "tmux", "pasta"))):
        missing.append("local")
    for one in missing:
        print(f"bench: the runtime {one} is not on this machine and is left out")
    return Options(read.json, tuple(one for one in wanted if one not in missing), read.rounds)


class Clock:
    """Milliseconds since it was made or last read."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        passed, self.at = now - self.at, now
        return passed * 1000


# ---- the world ----------------------------------------------------------------------------


@contextlib.contextmanager
def folder(prefix: str) -> Generator[Path]:
    """Give a folder that a sandbox's own user can pass, for as long as the block lasts."""
    path = Path(tempfile.mkdtemp(prefix=f"craftastic-{prefix}-", dir="/var/tmp"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def upstream(files: int) -> Generator[str]:
    """Serve a repository of so many small files over HTTP on loopback and give its URL."""
    with folder("upstream") as root:
        work = root / "work"
        git("init", "--quiet", "--initial-branch=main", str(work))
        for number in range(files):
            (work / f"file{number}.txt").write_text(f"{number}\n" * 200)
        git("add", ".", cwd=work)
        git("commit", "--quiet", "-m", "first", cwd=work)
        git("branch", "topic", cwd=work)
        git("clone", "--quiet", "--bare", str(work), str(root / "small.git"))
        with GitHttpServer(root) as server:
            yield server.url("small.git")


@contextlib.asynccontextmanager
async def product(runtime: str, **settings: str) -> AsyncGenerator[tuple[Server, Api]]:
    """Run a real server with somebody signed in; leave nothing of it behind."""
    with folder("bench") as data:
        more = {"LOG_LEVEL": "warning", "CRAFTASTIC_SANDBOX_SELF_TEST": "0", **settings}
        server = Server(data, runtime=runtime, database_url=None, **more)
        server.start()
        try:
            await server.ready()
            async with Api(server.url) as api:
                await api.register("a@example.com", setupToken=server.setup_token)
                yield server, api
        except BaseException:
            print(server.log.read_text(errors="replace")[-4000:])
            raise
        finally:
            await server.clean()


# ---- terminals ----------------------------------------------------------------------------


class Terminal(Protocol):
    """Something to type into and to read from."""

    def send(self, data: bytes) -> None: ...

    def receive(self, timeout_s: float) -> bytes:
        """Return what has come, or b"" when nothing came in time."""
        ...

    def close(self) -> None: ...


def read_until(terminal: Terminal, *marks: bytes, timeout_s: float = WAIT_S) -> bytes:
    """Read until one of the marks has come and return everything read.

    Raises:
        TimeoutError: None came in time; the message has the end of what did come.
    """
    deadline = time.monotonic() + timeout_s
    seen = bytearray()
    while not any(mark in seen for mark in marks):
        if time.monotonic() > deadline:
            raise TimeoutError(f"none of {marks} in {bytes(seen[-500:])!r}")
        seen += terminal.receive(1.0)
    return bytes(seen)


def drain(terminal: Terminal, quiet_s: float = 0.05) -> None:
    """Read until nothing has come for `quiet_s`."""
    while terminal.receive(quiet_s):
        pass


def keep_alive(terminals: Iterable[Terminal]) -> None:
    """Read what waits in each: a WebSocket that answers no ping is closed."""
    for one in terminals:
        drain(one, 0.0)


class Pty:
    """A program on a terminal of this machine: what is as near as anything can be."""

    def __init__(self, argv: Sequence[str], cwd: str | None = None) -> None:
        ours, theirs = pty.openpty()
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd,
            env={"TERM": "xterm-256color", "PATH": os.defpath, "LANG": "C.UTF-8", "HOME": "/tmp"},  # noqa: S108
        )  # fmt: skip
        os.close(theirs)
        self.fd = ours

    def send(self, data: bytes) -> None:
        os.write(self.fd, data)

    def receive(self, timeout_s: float) -> bytes:
        if not select.select([self.fd], [], [], timeout_s)[0]:
            return b""
        try:
            return os.read(self.fd, CHUNK)
        except OSError as error:  # EIO: nobody is at the other end any more
            raise ConnectionError("the program has ended") from error

    def close(self) -> None:
        os.close(self.fd)
        self.process.terminate()
        self.process.wait(10)


class Wire:
    """A terminal that is a connected socket."""

    def __init__(self, connection: socket.socket, rest: bytes = b"") -> None:
        self.socket = connection
        self.rest = rest

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, timeout_s: float) -> bytes:
        if self.rest:
            data, self.rest = self.rest, b""
            return data
        if not select.select([self.socket], [], [], timeout_s)[0]:
            return b""
        data = self.socket.recv(CHUNK)
        if not data:
            raise ConnectionError("the program has ended")
        return data

    def close(self) -> None:
        self.socket.close()


class WebTerminal:
    """The product's WebSocket, in either protocol."""

    def __init__(self, server: Server, api: Api, session: dict[str, Any], *, v2: bool) -> None:
        self.v2 = v2
        self.snapshots = 0
        self.frames = 0
        query = f"environmentId={session['environmentId']}&token={quote(api.token)}"
        address = f"{server.url.replace('http', 'ws', 1)}/api/terminal/ws/{session['id']}?{query}"
        wanted = [Subprotocol("craftastic.v2")] if v2 else None
        self.protocol = ClientProtocol(parse_uri(address), subprotocols=wanted, max_size=64 << 20)
        self.socket = socket.create_connection(("127.0.0.1", server.port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.protocol.send_request(self.protocol.connect())
        self._flush()
        while self.protocol.state.name == "CONNECTING":
            self._read()
        self._say({"type": "resize", "cols": COLUMNS, "rows": ROWS})

    def send(self, data: bytes) -> None:
        if self.v2:
            self.protocol.send_binary(b"\x01" + data)
            self._flush()
        else:
            self._say({"type": "input", "data": data.decode()})

    def receive(self, timeout_s: float) -> bytes:
        """Return the terminal's bytes; control messages count as nothing."""
        if not select.select([self.socket], [], [], timeout_s)[0]:
            return b""
        self._read()
        data = bytearray()
        seen: int | None = None
        for event in self.protocol.events_received():
            if not isinstance(event, Frame):
                continue
            self.frames += 1
            if event.opcode is Opcode.BINARY:
                body = bytes(event.data)
                self.snapshots += body[0] == 2
                number = struct.unpack_from(">Q", body, 1)[0]
                seen = number if body[0] == 2 else number + len(body) - 9
                data += body[9:]
            elif event.opcode is Opcode.TEXT:
                message = json.loads(event.data)
                if message["type"] == "output":
                    text = message["data"].encode("utf-8", "surrogatepass")
                    self.snapshots += b"\x1bc" in text
                    data += text
            elif event.opcode is Opcode.CLOSE:
                raise ConnectionError(f"closed: {bytes(event.data)!r}")
        if seen is not None:
            self.protocol.send_binary(b"\x02" + struct.pack(">Q", seen))
        self._flush()
        return bytes(data)

    def close(self) -> None:
        with contextlib.suppress(OSError, InvalidState):
            self.protocol.send_close(1000)
            self._flush()
        self.socket.close()

    def _say(self, message: dict[str, Any]) -> None:
        self.protocol.send_text(json.dumps(message).encode())
        self._flush()

    def _read(self) -> None:
        data = self.socket.recv(CHUNK)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.protocol.receive_data(data)
        if self.protocol.handshake_exc is not None:
            raise self.protocol.handshake_exc

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.socket.sendall(data)


# ---- the bare engine ----------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(DOCKER_SOCKET)


class Engine:
    """Docker's API over its socket, with nothing around it."""

    def __init__(self) -> None:
        self.connection = _Connection("engine")

    @staticmethod
    def answers() -> bool:
        try:
            Engine().call("GET", "/_ping")
        except (OSError, http.client.HTTPException):
            return False
        return True

    @staticmethod
    def version() -> str:
        return str(Engine().call("GET", "/version")["Version"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"}
        payload = None if body is None else json.dumps(body)
        self.connection.request(method, path, payload, headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise OSError(f"{method} {path}: {answer.status} {data[:300]!r}")
        try:
            return json.loads(data)
        except ValueError:
            return None

    def tty(self, container: str, argv: Sequence[str]) -> Wire:
        """Start a command on a terminal in a container: the engine's own exec stream."""
        made = self.call(
            "POST",
            f"/containers/{container}/exec",
            {
                "AttachStdin": True, "AttachStdout": True, "AttachStderr": True,
                "Tty": True, "Cmd": list(argv),
            },
        )  # fmt: skip
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(DOCKER_SOCKET)
        body = b'{"Detach":false,"Tty":true}'
        connection.sendall(
            b"POST /exec/%b/start HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\n"
            b"Upgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (made["Id"].encode(), len(body), body)
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = connection.recv(4096)
            if not more:
                raise ConnectionError(f"the engine did not start it: {answer!r}")
            answer += more
        self.call("POST", f"/exec/{made['Id']}/resize?h={ROWS}&w={COLUMNS}")
        return Wire(connection, answer.partition(b"\r\n\r\n")[2])


class BareContainer:
    """A container as the product makes it, made by hand: the floor of everything on Docker.

    Args:
        engine: Which engine.
        like: A container of the product's, whose settings are taken.
        home: Folder that is its home; its user may write it.
    """

    def __init__(self, engine: Engine, like: str, home: Path) -> None:
        self.engine = engine
        found = engine.call("GET", f"/containers/{like}/json")
        self.config = dict(found["Config"])
        self.config["Labels"] = {}
        host = dict(found["HostConfig"])
        kept = [one for one in host["Mounts"] if one.get("ReadOnly")]
        host["Mounts"] = [{"Type": "bind", "Source": str(home), "Target": "/home/dev"}, *kept]
        self.config["HostConfig"] = host
        uid, _, gid = str(self.config["User"]).partition(":")
        self.uid, self.gid = int(uid), int(gid)
        self.id = ""

    def start(self) -> Self:
        self.id = self.engine.call("POST", "/containers/create", self.config)["Id"]
        self.engine.call("POST", f"/containers/{self.id}/start")
        return self

    def tmux(self, name: str, directory: str = "/home/dev") -> Wire:
        """Attach to a tmux session, which is made where it is missing, by one exec."""
        line = (
            'd=$(dirname "$1"); printf %s "$2" >"$d/bench.conf"; '
            'exec tmux -u -f "$d/bench.conf" -S "$1" new-session -A -s "$3" -c "$4"'
        )
        socket_path = "/run/craftastic/bench.sock"
        argv = ["bash", "-c", line, "bash", socket_path, TMUX_CONFIG, name, directory]
        return self.engine.tty(self.id, argv)

    def remove(self) -> None:
        if self.id:
            self.engine.call("DELETE", f"/containers/{self.id}?force=1&v=1")


class BareTmux:
    """A tmux server of this machine, with nothing around it.

    Args:
        place: Folder for its socket.
        user: What comes before its command line, to make it somebody else's.
    """

    def __init__(self, place: Path, user: Sequence[str] = ()) -> None:
        self.user = user
        self.config = place / "tmux.conf"
        self.config.write_text(TMUX_CONFIG)
        self.socket = place / "tmux.sock"

    @property
    def argv(self) -> list[str]:
        return ["tmux", "-u", "-f", str(self.config), "-S", str(self.socket)]

    def attach(self, name: str, directory: str | None = None) -> Pty:
        return Pty([*self.user, *self.argv, "new-session", "-A", "-s", name], directory)

    def end(self) -> None:
        argv = [*self.user, *self.argv, "kill-server"]
        subprocess.run(argv, capture_output=True, check=False)


@contextlib.asynccontextmanager
async def terminals(
    runtimes: Sequence[str], *, json_too: bool
) -> AsyncGenerator[tuple[dict[str, Terminal], dict[str, Server], dict[str, str]]]:
    """Give attached terminals by name: of the product over each runtime, and their floors.

    Returns:
        The terminals, each at a prompt; the servers of those that have one; and the name of the
        floor that each is compared with.
    """
    found: dict[str, Terminal] = {}
    servers: dict[str, Server] = {}
    floors: dict[str, str] = {}
    async with contextlib.AsyncExitStack() as stack:
        for runtime in runtimes:
            server, api = await stack.enter_async_context(product(runtime))
            environment = await api.environment("bench")
            floor = f"{runtime} floor: tmux attach, "
            place = stack.enter_context(folder("floor"))
            if runtime == "docker":
                floor += "engine's exec with a tty"
                bare = BareContainer(Engine(), environment["containerId"], place)
                os.chown(place, bare.uid, bare.gid)
                stack.callback(bare.remove)
                found[floor] = bare.start().tmux("bench")
            else:
                floor += "bare pty"
                bare_tmux = BareTmux(place)
                stack.callback(bare_tmux.end)
                found[floor] = bare_tmux.attach("bench", str(place))
            for v2 in (True, False) if json_too else (True,):
                name = f"{runtime}, {'v2' if v2 else 'JSON'}"
                session = await api.post(
                    "/api/sessions", environmentId=environment["id"], name=f"v2-{v2}"
                )
                found[name] = WebTerminal(server, api, session, v2=v2)
                servers[name], floors[name] = server, floor
            if runtime == "docker":
                name = "docker through the engine, v2"
                server, api = await stack.enter_async_context(
                    product(runtime, CRAFTASTIC_TERMINAL_LINK="0")
                )
                environment = await api.environment("bench")
                session = await api.post(
                    "/api/sessions", environmentId=environment["id"], name="engine"
                )
                found[name] = WebTerminal(server, api, session, v2=True)
                servers[name], floors[name] = server, floor
        for terminal in found.values():
            stack.callback(terminal.close)
            read_until(terminal, *PROMPTS)
            # One prompt for all, and no history: nothing but the terminal may differ.
            terminal.send(b"PS1='> '; set +o history; clear\r")
            drain(terminal, 0.3)
        yield found, servers, floors
