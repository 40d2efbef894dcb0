"""The server itself: start and memory, idle terminals, requests and logins per second, `--help`.

Run from the project's root: `python -m bench.server`. The floors are the same done with nothing of
the product: an empty Starlette application under the same uvicorn, and Python printing a word. The
client is Python too and costs more than the smallest of requests: take the ratios, not the rates.
"""

import contextlib
import random
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.abc
import anyio.to_thread
import psutil

from bench._common import (
    PROMPTS,
    Clock,
    Options,
    Report,
    WebTerminal,
    folder,
    keep_alive,
    options,
    product,
    read_until,
)
from bench.echo import type_some
from craftastic.accounts._passwords import PasswordHasher
from tests.e2e.harness import PASSWORD, Api, Server, free_port

IDLE_TERMINALS = 50
ENVIRONMENTS, SESSIONS = 50, 4
CONNECTIONS = 8
REQUESTS = 800
REQUESTS_OF_LISTS = 160
LOGINS, LOGIN_CONNECTIONS = 40, 4
PEOPLE = "a@example.com"
SECOND_START = "start until /healthz"
UP_S = 20.0
EMPTY_APP = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
async def answer(request):
    return JSONResponse({"success": True})
uvicorn.run(Starlette(routes=[Route("/healthz", answer)]), port=int(sys.argv[1]),
            log_config=None, access_log=False, http="httptools", loop="uvloop")
"""


def wait_for_health(port: int) -> None:
    """Ask until the server answers."""
    deadline = time.monotonic() + UP_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as one:
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            if b" 200 " in one.recv(4096):
                return
        time.sleep(0.005)
    raise TimeoutError("the server does not answer")


@contextlib.contextmanager
def empty_app() -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """Run an empty application under the same uvicorn."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", EMPTY_APP, str(port)])
    try:
        wait_for_health(port)
        yield process, port
    finally:
        process.terminate()
        process.wait(10)


def rss_mib(process: subprocess.Popen[bytes] | None) -> float:
    assert process is not None
    return psutil.Process(process.pid).memory_info().rss / 2**20


def measure_start(report: Report) -> None:
    clock = Clock()
    with empty_app() as (process, _):
        report.row("floor: start of an empty app until /healthz").add(clock.lap())
        report.row("floor: memory of an empty app", "MiB").add(rss_mib(process))
    with folder("start") as data:
        # Without the sandbox's self-test, which goes on beside the serving.
        more = {"LOG_LEVEL": "warning", "CRAFTASTIC_SANDBOX_SELF_TEST": "0"}
        server = Server(data, runtime="local", database_url=None, **more)
        # The first start makes keys and tables; what is measured is any other.
        for name in ("first start, makes keys and tables", SECOND_START):
            clock.lap()
            server.start()
            try:
                wait_for_health(server.port)
                report.row(name).add(clock.lap())
                if name == SECOND_START:
                    report.row("memory after the start", "MiB").add(rss_mib(server.process))
            finally:
                server.stop()


def measure_help(report: Report) -> None:
    clock = Clock()
    subprocess.run([sys.executable, "-c", "print()"], stdout=subprocess.DEVNULL, check=True)
    report.row("floor: python prints a word").add(clock.lap())
    argv = [sys.executable, "-m", "craftastic", "--help"]
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    report.row("craftastic --help").add(clock.lap())


async def load(port: int, path: str, token: str, requests: int) -> float:
    """Return the requests per second of a bounded number over a few connections."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()

    async def one() -> None:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            for _ in range(requests // CONNECTIONS):
                await stream.send(request)
                await read_answer(stream)

    clock = Clock()
    async with anyio.create_task_group() as group:
        for _ in range(CONNECTIONS):
            group.start_soon(one)
    return requests / clock.lap() * 1000


async def read_answer(stream: anyio.abc.SocketStream) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ConnectionError(f"answered {head[:200]!r} {body[:200]!r}")
    length = next(
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    got = len(body)
    while got < length:
        got += len(await stream.receive(65536))


def fill(database: Path, environment_id: str) -> None:
    """Give the user 50 stopped environments with 4 ended sessions each, as rows alone."""
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as tables, tables:
        tables.row_factory = sqlite3.Row
        key = environment_id.replace("-", "")
        environment = dict(
            tables.execute("SELECT * FROM environments WHERE id = ?", [key]).fetchone()
        )
        session = dict(tables.execute("SELECT * FROM sessions").fetchone())
        for number in range(ENVIRONMENTS):
            made = environment | {
                "id": uuid4().hex, "name": f"made {number}", "number": 1000 + number,
                "status": "stopped", "desired": "stopped", "sandbox_id": None,
            }  # fmt: skip
            add(tables, "environments", made)
            for name in range(SESSIONS):
                ended = session | {
                    "id": uuid4().hex, "environment_id": made["id"], "status": "dead",
                    "name": f"s{name}", "tmux_name": f"s{name}",
                }  # fmt: skip
                add(tables, "sessions", ended)


def add(tables: sqlite3.Connection, table: str, row: Mapping[str, object]) -> None:
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    tables.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))  # noqa: S608


async def measure_idle(report: Report, server: Server, api: Api, environment_id: str) -> None:
    sessions = [
        await api.post("/api/sessions", environmentId=environment_id, name=f"idle{number}")
        for number in range(IDLE_TERMINALS)
    ]
    before = rss_mib(server.process)
    open_now: list[WebTerminal] = []
    try:
        for session in sessions:
            one = WebTerminal(server, api, session, v2=True)
            open_now.append(one)
            read_until(one, *PROMPTS)
        keep_alive(open_now)
        grown = rss_mib(server.process) - before
    finally:
        for one in open_now:
            one.close()
    report.row(f"memory of each of {IDLE_TERMINALS} idle terminals", "KiB").add(
        grown * 1024 / IDLE_TERMINALS
    )


async def measure_logins(
    report: Report, server: Server, api: Api, environment_id: str, rounds: int
) -> None:
    """Sign in over a few connections, while somebody types."""
    session = await api.post("/api/sessions", environmentId=environment_id, name="typed")
    terminal = WebTerminal(server, api, session, v2=True)
    dice = random.Random(1)  # noqa: S311 - repeatable, not secret
    try:
        read_until(terminal, *PROMPTS)
        for _ in range(rounds):
            report.row(HASHES).add(await hashes())
            report.row("key to echo").values += type_some(terminal, dice)
            clock = Clock()

            async def sign_in() -> None:
                async with Api(server.url) as one:
                    for _ in range(LOGINS // LOGIN_CONNECTIONS):
                        own = Clock()
                        await one.login(PEOPLE)
                        report.row("one login of those").add(own.lap())

            async def all_sign_in(clock: Clock = clock) -> None:
                async with anyio.create_task_group() as group:
                    for _ in range(LOGIN_CONNECTIONS):
                        group.start_soon(sign_in)
                report.row(LOGINS_ROW).add(LOGINS / clock.lap() * 1000)

            async with anyio.create_task_group() as group:
                group.start_soon(all_sign_in)
                report.row("key to echo, beside logins").values += await anyio.to_thread.run_sync(
                    type_some, terminal, dice
                )
    finally:
        terminal.close()


async def hashes() -> float:
    """Return how many passwords a second the product's hash takes in as many threads as cores."""
    hasher = PasswordHasher()
    stored = await hasher.hash(PASSWORD)
    clock = Clock()
    async with anyio.create_task_group() as group:
        for _ in range(LOGINS):
            group.start_soon(hasher.verify, PASSWORD, stored)
    return LOGINS / clock.lap() * 1000


async def measure_requests(report: Report, server: Server, api: Api, rounds: int) -> None:
    lists = f"/api/environments/user/{api.user['id']}"
    listed = (await api.get(lists))["environments"]
    made = next(one["id"] for one in listed if one["name"] == "made 0")
    sessions = f"/api/sessions/environment/{made}"
    floor = "floor: an empty app's answer"
    with empty_app() as (_, port):
        for _ in range(rounds):
            report.row(floor).add(await load(port, "/healthz", "", REQUESTS))
            report.row("GET /api/auth/me").add(
                await load(server.port, "/api/auth/me", api.token, REQUESTS)
            )
            report.row(f"GET {ENVIRONMENTS} environments of {SESSIONS} sessions").add(
                await load(server.port, lists, api.token, REQUESTS_OF_LISTS)
            )
            report.row("GET an environment's sessions").add(
                await load(server.port, sessions, api.token, REQUESTS_OF_LISTS)
            )


HASHES = "floor: argon2id by itself"
LOGINS_ROW = f"logins over {LOGIN_CONNECTIONS} connections"


def rows(report: Report) -> None:
    """Fix the table's order and what each row is compared with."""
    start = report.row("floor: start of an empty app until /healthz")
    report.row(SECOND_START, floor=start.name)
    report.row("first start, makes keys and tables", floor=start.name)
    memory = report.row("floor: memory of an empty app", "MiB")
    report.row("memory after the start", "MiB", floor=memory.name)
    report.row(f"memory of each of {IDLE_TERMINALS} idle terminals", "KiB")
    python = report.row("floor: python prints a word")
    report.row("craftastic --help", floor=python.name)
    answer = report.row("floor: an empty app's answer", "requests/s")
    report.row("GET /api/auth/me", "requests/s", floor=answer.name)
    report.row(
        f"GET {ENVIRONMENTS} environments of {SESSIONS} sessions", "requests/s", floor=answer.name
    )
    report.row("GET an environment's sessions", "requests/s", floor=answer.name)
    report.row(HASHES, "hashes/s")
    report.row(LOGINS_ROW, "logins/s", floor=HASHES)
    report.row("one login of those")
    quiet = report.row("key to echo")
    report.row("key to echo, beside logins", floor=quiet.name)


async def measure(chosen: Options) -> Report:
    report = Report("the server")
    rows(report)
    for _ in range(chosen.rounds):
        measure_start(report)
        measure_help(report)
    unthrottled = {"CRAFTASTIC_SIGN_IN_ATTEMPTS_PER_MINUTE": "100000"}
    async with product(chosen.runtimes[0], **unthrottled) as (server, api):
        environment = await api.environment("bench")
        await measure_idle(report, server, api, environment["id"])
        fill(server.data_dir / "craftastic.db", environment["id"])
        await measure_requests(report, server, api, chosen.rounds)
        await measure_logins(report, server, api, environment["id"], chosen.rounds)
    return report


def main(argv: list[str]) -> None:
    chosen = options(__doc__, argv, rounds=3)
    anyio.run(measure, chosen).show(as_json=chosen.as_json)


if __name__ == "__main__":
    main(sys.argv[1:])
