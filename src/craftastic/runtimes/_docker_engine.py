"""The connection to a Docker engine, and the border where its errors become the port's.

An engine that takes calls and answers none would keep each caller for as long as its deadline. So
after the first one that ended by its deadline the engine has to answer a short question before it
is asked anything else; while it does not, calls fail at once.
"""

import contextlib
import math
import stat
from collections.abc import AsyncGenerator, Generator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import aiohttp
import anyio
import structlog
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

from craftastic.errors import NotConfigured
from craftastic.runtimes.base import RuntimeUnavailable, SandboxExhausted, SandboxGone

USUAL_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock")
CALL_S = 30.0
"""Deadline of one ordinary call to the engine, in seconds."""

PING_S = 3.0
SILENT_S = 5.0
"""How long an engine that answered nothing is not asked again, in seconds."""

MAX_ORPHANS = 1024
UNREACHABLE = 900
"""aiodocker's status when nothing listens at the engine's address."""

EXHAUSTED = ("resource temporarily unavailable", "cannot allocate memory", "pids limit")
NOT_RUNNING = ("is not running", "is paused", "is restarting", "no such container", "not found")

Json = dict[str, Any]

log = structlog.get_logger(__name__)


class EngineRefused(Exception):
    """The engine answered with an error that the calling code knows how to read."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def engine_url(docker_host: str | None) -> str:
    """Return the engine's address as a URL: a path, `unix://` or `tcp://` are taken.

    Raises:
        NotConfigured: The setting has another form.
    """
    if not docker_host:
        usual = next((path for path in USUAL_SOCKETS if _is_socket(path)), USUAL_SOCKETS[-1])
        return f"unix://{usual}"
    if docker_host.startswith("/"):
        return f"unix://{docker_host}"
    if docker_host.startswith("tcp://"):
        return "http://" + docker_host.removeprefix("tcp://")
    if docker_host.startswith(("unix:///", "http://")):
        return docker_host
    raise NotConfigured("DOCKER_HOST must be unix://, tcp:// or the path of a socket.")


def _is_socket(path: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    return False


class Engine:
    """One engine, connected to when it is first used.

    Args:
        docker_host: The `DOCKER_HOST` setting.
    """

    def __init__(self, docker_host: str | None) -> None:
        self.url = engine_url(docker_host)
        self._docker: Docker | None = None
        self._doubted = False
        self._silent_until = -math.inf
        self._asking = anyio.Lock()
        self._orphans: dict[str, str] = {}

    @property
    def docker(self) -> Docker:
        """Return the client; must be read inside the event loop."""
        if self._docker is None:
            # Without a limit: every terminal holds one connection for as long as it is open.
            if self.url.startswith("unix://"):
                connector: aiohttp.BaseConnector = aiohttp.UnixConnector(
                    self.url.removeprefix("unix://"), limit=0
                )
                url = "unix://localhost"
            else:
                connector = aiohttp.TCPConnector(limit=0)
                url = self.url
            session = aiohttp.ClientSession(connector=connector)
            self._docker = Docker(url, connector=connector, session=session)
        return self._docker

    async def close(self) -> None:
        docker, self._docker = self._docker, None
        if docker is not None:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await docker.close()
                await docker.session.close()

    @contextlib.asynccontextmanager
    async def border(self, doing: str, timeout_s: float = CALL_S) -> AsyncGenerator[Docker]:
        """Translate what goes wrong inside, and end it after `timeout_s`.

        Raises:
            RuntimeUnavailable: The engine does not answer, or not in time, or did not before.
            EngineRefused: It answered with an error.
        """
        if self._doubted:
            await self._must_answer(doing)
        try:
            with self.translated(doing), anyio.fail_after(timeout_s):
                yield self.docker
        except TimeoutError as error:
            self._doubted = True
            raise self._silent(timeout_s, doing) from error

    @contextlib.contextmanager
    def translated(self, doing: str) -> Generator[None]:
        """Translate what goes wrong inside, but for a TimeoutError.

        Raises:
            RuntimeUnavailable: The engine does not answer.
            EngineRefused: It answered with an error.
        """
        try:
            yield
        except TimeoutError:
            raise
        except DockerError as error:
            if error.status == UNREACHABLE:
                raise self._unreachable(doing) from error
            raise EngineRefused(error.status, str(error.message)) from error
        except (aiohttp.ClientError, OSError, AssertionError) as error:
            # aiodocker asserts where a connection was closed under it.
            raise self._unreachable(doing) from error

    async def _must_answer(self, doing: str) -> None:
        """Ask a doubted engine for its version; one caller at a time, and all share the answer.

        Raises:
            RuntimeUnavailable: It does not answer, or did not a moment ago.
        """
        async with self._asking:
            if not self._doubted:
                return
            if anyio.current_time() < self._silent_until:
                raise self._silent(PING_S, doing)
            try:
                with self.translated(doing), anyio.fail_after(PING_S):
                    await self.docker.version()
            except TimeoutError as error:
                log.warning("docker engine does not answer: not asked", for_s=SILENT_S)
                self._silent_until = anyio.current_time() + SILENT_S
                raise self._silent(PING_S, doing) from error
            except EngineRefused:
                pass  # An error is an answer.
            except RuntimeUnavailable:
                # Nobody listens: calls fail by themselves.
                self._doubted = False
                raise
            self._doubted = False

    def _silent(self, timeout_s: float, doing: str) -> RuntimeUnavailable:
        return RuntimeUnavailable(
            f"The Docker engine did not answer within {timeout_s:g} s ({doing}).",
            engine=self.url,
        )

    def _unreachable(self, doing: str) -> RuntimeUnavailable:
        return RuntimeUnavailable(
            "The Docker engine does not answer. Start it, or set DOCKER_HOST to where it is.",
            engine=self.url,
            doing=doing,
        )

    async def ping(self) -> Json:
        """Return the engine's version.

        Raises:
            RuntimeUnavailable: It does not answer.
        """
        try:
            async with self.border("version", PING_S) as docker:
                return await docker.version()
        except EngineRefused as error:
            raise RuntimeUnavailable(
                f"The Docker engine refuses to answer: {error.message}", status=error.status
            ) from error

    async def get(
        self, path: str, doing: str, params: Mapping[str, str] | None = None
    ) -> Json | None:
        """Return what stands at a path of the engine's API, or None when it says 404.

        Raises:
            RuntimeUnavailable: The engine does not answer, or not with what was asked for.
        """
        try:
            async with self.border(doing) as docker:
                # aiodocker has no public way to ask for a single object without its wrappers.
                query = docker._query_json  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
                return cast("Json", await query(path, params=params))
        except EngineRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise unavailable(error, doing) from error

    def remember_orphan(self, token: str, container_id: str) -> None:
        """Remember a command that could not be ended; of too many the oldest is forgotten."""
        while len(self._orphans) >= MAX_ORPHANS:
            self._orphans.pop(next(iter(self._orphans)))
        self._orphans[token] = container_id

    def take_orphans(self, container_id: str) -> list[str]:
        """Return the commands of a container that could not be ended, and forget them."""
        found = [token for token, one in self._orphans.items() if one == container_id]
        for token in found:
            del self._orphans[token]
        return found

    def container(self, container_id: str) -> DockerContainer:
        """Name a container without asking for it."""
        return self.docker.containers.container(container_id)


def unavailable(error: EngineRefused, doing: str) -> RuntimeUnavailable:
    """Say in the port's words that the engine refused something that should work."""
    return RuntimeUnavailable(
        f"The Docker engine refused ({doing}): {error.message[:300]}", status=error.status
    )


def start_failure(error: EngineRefused) -> Exception:
    """Say in the port's words why a process could not be started in a sandbox."""
    said = error.message.lower()
    if "executable file" in said:
        return RuntimeUnavailable(
            "The sandbox's image lacks /usr/bin/python3, which runs its commands."
        )
    if any(word in said for word in EXHAUSTED):
        return SandboxExhausted(
            "The sandbox cannot start another process: it is at its limit of processes or memory.",
            details="End something in it, or stop and start it.",
        )
    if error.status in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT) or any(
        word in said for word in NOT_RUNNING
    ):
        return SandboxGone("The sandbox is not running.")
    return unavailable(error, "starting a process")
