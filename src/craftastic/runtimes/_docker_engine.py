"""The connection to a Docker engine, and the border where its errors become the port's."""

import contextlib
import stat
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import aiohttp
import anyio
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

from craftastic.errors import NotConfigured
from craftastic.runtimes.base import RuntimeUnavailable, SandboxExhausted, SandboxGone

USUAL_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock")
CALL_S = 30.0
"""Deadline of one ordinary call to the engine, in seconds."""

PING_S = 3.0
UNREACHABLE = 900
"""aiodocker's status when nothing listens at the engine's address."""

EXHAUSTED = ("resource temporarily unavailable", "cannot allocate memory", "pids limit")
NOT_RUNNING = ("is not running", "is paused", "is restarting", "no such container", "not found")

Json = dict[str, Any]


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
            RuntimeUnavailable: The engine does not answer, or not in time.
            EngineRefused: It answered with an error.
        """
        try:
            with anyio.fail_after(timeout_s):
                yield self.docker
        except TimeoutError as error:
            raise RuntimeUnavailable(
                f"The Docker engine did not answer within {timeout_s:.0f} s ({doing}).",
                engine=self.url,
            ) from error
        except DockerError as error:
            if error.status == UNREACHABLE:
                raise self._unreachable(doing) from error
            raise EngineRefused(error.status, str(error.message)) from error
        except (aiohttp.ClientError, OSError, AssertionError) as error:
            # aiodocker asserts where a connection was closed under it.
            raise self._unreachable(doing) from error

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
