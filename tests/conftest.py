"""What every test may ask for: both databases, a clock that stands still."""

import itertools
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from craftastic.database import Base, Database
from craftastic.migrations import runner
from craftastic.settings import Settings
from craftastic.tables import METADATA
from tests import secrecy
from tests.fakes.clock import FakeClock
from tests.leaks import RUN, fail_if_something_is_left
from tests.secrecy_doors import open_doors

STRICT = os.environ.get("CRAFTASTIC_TEST_STRICT") == "1"  # noqa: TID251 - not a server's setting
BACKENDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
START_TIMEOUT_S = 30.0


def pytest_configure(config: pytest.Config) -> None:
    open_doors()
    config.pluginmanager.register(secrecy.Plugin(lambda: RUN.instances), "the gate of secrets")


def pytest_sessionstart(session: pytest.Session) -> None:
    # pytest's own capture would show on failures what our log hides; the gate shows that log.
    if capture := session.config.pluginmanager.unregister(name="logging-plugin"):
        capture.pytest_unconfigure()


@pytest.hookimpl(trylast=True)  # after the fixtures of a run that was cut short are taken down
def pytest_sessionfinish(session: pytest.Session) -> None:
    fail_if_something_is_left(session)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def missing(reason: str) -> None:
    """Skip the test; where everything has to be there, fail it instead."""
    if STRICT:
        pytest.fail(reason)
    pytest.skip(reason)


FIRST_PORT, PORTS = 12_000, 20_000
_next_port = itertools.count(os.getpid() * 617 % PORTS)


def free_port() -> int:
    """Return a port that nobody listens on, at any of the machine's addresses.

    It is one that the kernel gives to no connection by itself (those begin at 32768), and each
    process of the tests goes through them from a place of its own: it is still free when a server
    takes it.
    """
    while True:
        port = FIRST_PORT + next(_next_port) % PORTS
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port


def driver_url(url: str) -> str:
    """Return the URL as the server itself would use it."""
    return Settings.model_validate({"database_url": url}).sqlalchemy_url


def in_a_thread(work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run async work to its end from a plain fixture, apart from the tests' own loop."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            anyio.run(work)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def make_schema(url: str) -> None:
    """Run the migrations; while there are none yet, create what the code declares."""

    async def work() -> None:
        if await runner.upgrade(driver_url(url)) is not None:
            return
        database = Database(driver_url(url))
        async with database.engine.begin() as connection:
            await connection.run_sync(METADATA.create_all)
        await database.close()

    in_a_thread(work)


@dataclass
class PostgresServer:
    """A private PostgreSQL cluster in a folder of its own, without fsync, gone after the run.

    With `lasting`, what is committed is there after `halt`.
    """

    binaries: Path
    folder: Path
    port: int
    user: str | None
    lasting: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None)
    _dropping: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        data = self.folder / "data"
        self._run("initdb", "-D", str(data), "-U", "craftastic", "-A", "trust", "-E", "UTF8", "-N")
        self.run()

    def run(self) -> None:
        """Start it on the cluster that it has; blocks until it takes connections."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "synchronous_commit": "on" if self.lasting else "off",
            "full_page_writes": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        settings = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), *settings],
                stdout=log,
                stderr=log,
                user=self.user,
                cwd=self.folder,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._call("pg_isready", "-q", *self._address) != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        self._finish_drop()
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)

    def halt(self) -> None:
        """End it as a crash does, with every connection; `run` brings it back."""
        if self.process is not None:
            self.process.send_signal(3)  # SIGQUIT: at once, without writing anything back
            self.process.wait(START_TIMEOUT_S)

    def url(self, name: str) -> str:
        return f"postgresql://craftastic@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str) -> None:
        self._run("psql", *self._address, "-d", "postgres", "-qXc", statement)

    def create(self, *, template: str | None = None) -> str:
        name = f"t{uuid4().hex}"
        # A third of the default's time, which writes every page to its log. Since PostgreSQL 15.
        strategy = "STRATEGY file_copy" if self._version >= 15 else ""
        self.sql(f"CREATE DATABASE {name}" + (f" TEMPLATE {template} {strategy}" * bool(template)))
        return name

    def drop(self, name: str) -> None:
        """Drop a database while the next test begins, when it was searched for secrets."""
        secrecy.GATE.database(self.url(name))
        self._finish_drop()
        statement = f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"
        self._dropping = subprocess.Popen(
            [str(self.binaries / "psql"), *self._address, "-d", "postgres", "-qXc", statement],
            cwd=self.folder,
            stderr=subprocess.DEVNULL,
        )

    def _finish_drop(self) -> None:
        if self._dropping is not None:
            self._dropping.wait(START_TIMEOUT_S)

    @property
    def _version(self) -> int:
        """Major version, by the folder that Debian keeps a version's programs in."""
        return int(self.binaries.parent.name)

    @property
    def _address(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", "craftastic"]

    def _call(self, program: str, *arguments: str) -> int:
        return subprocess.run(
            [str(self.binaries / program), *arguments], check=False, cwd=self.folder
        ).returncode

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.binaries / program), *arguments],
            check=False,
            capture_output=True,
            user=self.user,
            cwd=self.folder,
        )
        if done.returncode != 0:
            raise AssertionError(f"{program}: {done.stderr.decode(errors='replace')}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Give a PostgreSQL server of this test run's own."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        missing("PostgreSQL's server programs are not in /usr/lib/postgresql")
    folder = RUN.new_folder("pg", 0o700)
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres"
        try:
            shutil.chown(folder, user)
        except LookupError:
            user = "nobody"
            shutil.chown(folder, user)
    server = PostgresServer(found[-1].parent, folder, free_port(), user)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """Give the name of a database with the whole schema and nothing in it."""
    name = postgres_server.create()
    make_schema(postgres_server.url(name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database file with the whole schema and nothing in it."""
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    make_schema(f"sqlite:///{file}")
    return file


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL, as an operator writes it, of an empty database; once for each kind."""
    if getattr(request, "param", None) in (None, "sqlite"):
        yield f"sqlite:///{tmp_path / 'craftastic.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture(params=BACKENDS)
async def database(
    request: pytest.FixtureRequest, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Database]:
    """Give a database with the schema and nothing in it; once for each kind."""
    database = Database(driver_url(copy_of_template(request.param)))
    yield database
    await database.close()


@pytest.fixture
def copy_of_template(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[str], str]]:
    """Give a function that makes a fresh database of a kind and returns its URL."""
    made: list[str] = []

    def copy(kind: str) -> str:
        if kind == "sqlite":
            template: Path = request.getfixturevalue("sqlite_template")
            file = tmp_path / f"{uuid4().hex}.db"
            shutil.copy(template, file)
            return f"sqlite:///{file}"
        server: PostgresServer = request.getfixturevalue("postgres_server")
        made.append(server.create(template=request.getfixturevalue("postgres_template")))
        return server.url(made[-1])

    yield copy
    for name in made:
        request.getfixturevalue("postgres_server").drop(name)


assert Base.metadata is METADATA
