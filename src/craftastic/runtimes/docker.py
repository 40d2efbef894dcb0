"""The `docker` driver: sandboxes are containers of a Docker engine (or Podman's, by its socket).

Whatever the engine raises is translated here and in the `_docker_…` files beside this one; absence
is a state, not an error.
"""

import contextlib
import os
import resource
import shutil
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import cast
from uuid import UUID
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
import orjson
import structlog

from craftastic.errors import Conflict
from craftastic.failpoints import failpoint
from craftastic.runtimes import _docker_exec as docker_exec
from craftastic.runtimes._beside import beside
from craftastic.runtimes._docker_check import findings
from craftastic.runtimes._docker_container import (
    ENVIRONMENT_LABEL,
    INSTANCE_LABEL,
    LINK,
    NAME_LABEL,
    OPEN_FILES,
    USER_LABEL,
    Host,
    Place,
    container_config,
    container_name,
    write_accounts,
)
from craftastic.runtimes._docker_engine import Engine, EngineRefused, Json, unavailable
from craftastic.runtimes._docker_events import DockerEvents
from craftastic.runtimes._docker_image import ImageBuilder
from craftastic.runtimes._docker_link import LINK_DIR, LINK_VARIABLE, Near, linked, listening
from craftastic.runtimes._docker_network import NETWORK, SandboxNetwork
from craftastic.runtimes._probe import probe
from craftastic.runtimes._storage import prepare_storage, remove_storage
from craftastic.runtimes.base import (
    GATEWAY_HOST,
    MAX_OUTPUT_BYTES,
    Ending,
    Finding,
    Isolation,
    Progress,
    Report,
    RunResult,
    RuntimeUnavailable,
    SandboxGone,
    SandboxRef,
    SandboxSpec,
    SandboxState,
    SandboxSummary,
    Stream,
    TellHint,
    no_report,
)
from craftastic.settings import Settings

STOP_GRACE_S = 2
START_S = 60.0
REMOVE_S = 60.0
REMOVE_PAUSE_S = 0.1
RULES_FRESH_S = 5.0
"""For how long rules that were looked at are taken to be there still."""

MAX_SANDBOX_NUMBER = 65_535
MAX_KNOWN = 4096

log = structlog.get_logger(__name__)


class NameTaken(Conflict):
    """A container that is not ours has the name of the environment's sandbox."""

    code = "SANDBOX_NAME_TAKEN"


class DockerRuntime:
    """Runs each sandbox as one container.

    Args:
        settings: The server's settings.
        instance: This installation's id; only containers that carry it are ever touched.
        network: Name of the sandboxes' network.
    """

    name = "docker"

    def __init__(self, settings: Settings, instance: str, *, network: str = NETWORK) -> None:
        self._settings = settings
        self._instance = instance
        self._engine = Engine(settings.docker_host)
        self._events = DockerEvents(self._engine, instance)
        self._images = ImageBuilder(
            self._engine,
            settings.sandbox_image,
            settings.image_base,
            settings.image_ca_bundle,
            settings.agent_tools,
        )
        self._network = SandboxNetwork(self._engine, settings.gateway_port, network)
        self._host: Host | None = None
        self._ours: dict[str, Near | None] = {}
        self._locks = WeakValueDictionary[UUID, anyio.Lock]()

    async def prepare(self, report: Report = no_report) -> None:
        """Make the image, the network and the host's rules. Minutes the first time.

        Raises:
            RuntimeUnavailable: The engine does not answer, or the image cannot be made.
        """
        await self._engine.ping()
        await self._images.ensure(report)
        await self._network.protect()

    async def build_image(self, report: Report = no_report) -> None:
        """Build the sandbox image anew, whether or not it is there.

        Raises:
            RuntimeUnavailable: See `prepare`.
        """
        await self._engine.ping()
        await self._images.build(report)

    async def answers(self) -> bool:
        """Report whether an engine answers."""
        with contextlib.suppress(RuntimeUnavailable):
            await self._engine.ping()
            return True
        return False

    async def gateway_address(self) -> str:
        """Return the host's address on the sandboxes' bridge, which is made if need be.

        Raises:
            RuntimeUnavailable: The engine does not answer.
        """
        return await self._network.ensure()

    async def check(self) -> list[Finding]:
        """Look at engine, image, network and rules without changing anything."""
        return await findings(self._engine, self._images, self._network)

    async def create(self, spec: SandboxSpec, report: Report = no_report) -> SandboxRef:
        """Create and start the environment's container, or start or adopt the one that is there.

        Raises:
            RuntimeUnavailable: The engine did not answer, or cannot make one.
            NameTaken: A container that is not ours has its name.
        """
        async with self._lock(spec.environment_id):
            found = await self._find(spec.environment_id)
            if found is not None and _state(found) is SandboxState.RUNNING:
                return self._ref(found)
            image = await self._images.ensure(report)
            await report(Progress("sandbox", "Starting the sandbox"))
            gateway = await self._network.ensure()
            # The rules are there before anything can run.
            found = await beside(
                partial(self._made, spec, found, image, gateway),
                partial(self._network.protect, gateway, unless_within_s=RULES_FRESH_S),
            )
            try:
                await self._start(str(found["Id"]))
            except EngineRefused as error:
                raise unavailable(error, "starting a sandbox") from error
            failpoint("docker.container.started")
            return self._ref(found)

    async def inspect(self, sandbox: SandboxRef) -> SandboxState:
        """Report the state; a container the engine does not know, or that is not ours, is GONE.

        Raises:
            RuntimeUnavailable: The engine did not answer.

        Source: Engine API, GET /containers/{id}/json, `State`.
        """
        found = await self._engine.get(f"containers/{sandbox.id}/json", "looking at a sandbox")
        if found is None or not self._is_ours(found):
            self._ours.pop(sandbox.id, None)
            return SandboxState.GONE
        self._remember(found)
        return _state(found)

    async def stop(self, sandbox: SandboxRef) -> None:
        """End every process of the sandbox; what is stopped or gone is left so.

        Raises:
            RuntimeUnavailable: The engine did not answer.
        """
        if await self.inspect(sandbox) is not SandboxState.RUNNING:
            return
        try:
            async with self._engine.border("stopping a sandbox"):
                await self._engine.container(sandbox.id).stop(t=STOP_GRACE_S)
        except EngineRefused as error:
            if error.status not in (HTTPStatus.NOT_MODIFIED, HTTPStatus.NOT_FOUND):
                raise unavailable(error, "stopping a sandbox") from error

    async def remove(self, spec: SandboxSpec, *, storage: bool) -> None:
        """Remove the environment's container; with `storage` also everything it ever wrote.

        Raises:
            RuntimeUnavailable: The engine did not answer, or the storage could not be removed.
        """
        async with self._lock(spec.environment_id):
            for found in await self._listed(f"{ENVIRONMENT_LABEL}={spec.environment_id}"):
                await self._delete(str(found["Id"]))
                failpoint("docker.container.removed")
            if storage:
                await self._remove_storage(spec)

    async def _remove_storage(self, spec: SandboxSpec) -> None:
        try:
            await anyio.to_thread.run_sync(
                remove_storage, self._settings.data_dir, spec.environment_id
            )
            await anyio.to_thread.run_sync(_remove_folder, self._accounts(spec.environment_id))
        except OSError as error:
            raise RuntimeUnavailable(
                f"The environment's files could not all be removed: {error.strerror}.",
                path=error.filename,
            ) from error

    async def list(self) -> list[SandboxSummary]:
        """List the containers of this installation, running or not.

        Raises:
            RuntimeUnavailable: The engine did not answer.
        """
        summaries: list[SandboxSummary] = []
        for found in await self._listed():
            labels = cast("dict[str, str]", found.get("Labels") or {})
            with contextlib.suppress(ValueError):
                owner = labels.get(USER_LABEL)
                summaries.append(
                    SandboxSummary(
                        ref=SandboxRef(self.name, str(found["Id"])),
                        environment_id=UUID(labels.get(ENVIRONMENT_LABEL, "")),
                        owner_id=UUID(owner) if owner else None,
                        name=labels.get(NAME_LABEL, ""),
                        state=SandboxState.RUNNING
                        if found.get("State") == "running"
                        else SandboxState.STOPPED,
                    )
                )
        return summaries

    async def follow(self, tell: TellHint) -> None:
        """Follow the engine's events; see `Runtime.follow`."""
        await self._events.follow(tell)

    async def ending(self, sandbox: SandboxRef) -> Ending:
        """Say why a container has ended; see `Runtime.ending`.

        Raises:
            RuntimeUnavailable: The engine did not answer.
        """
        found = await self._engine.get(f"containers/{sandbox.id}/json", "looking at a sandbox")
        if found is None or not self._is_ours(found):
            return Ending.UNKNOWN
        return self._events.ending(found)

    async def run(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> RunResult:
        """Run one command in the container; see `Runtime.run`."""
        await self._must_be_ours(sandbox)
        return await docker_exec.run(
            self._engine,
            sandbox.id,
            argv,
            stdin=stdin,
            timeout_s=timeout_s,
            max_output_bytes=max_output_bytes,
        )

    async def spawn(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
    ) -> RunResult:
        """Run one command that leaves something running; see `Runtime.spawn`.

        In a container that is nothing special: only a command that is ended takes its process
        group along.
        """
        return await self.run(sandbox, argv, stdin=stdin, timeout_s=timeout_s)

    @contextlib.asynccontextmanager
    async def open(self, sandbox: SandboxRef, argv: Sequence[str]) -> AsyncGenerator[Stream]:
        """Start one long-running command and stream to and from it; see `Runtime.open`.

        Both outputs come over one connection: when only one is read, at most 1 MiB of the other is
        held before both wait.
        """
        await self._must_be_ours(sandbox)
        async with docker_exec.started(self._engine, sandbox.id, argv, -1) as running:
            yield running

    @contextlib.asynccontextmanager
    async def open_near(self, sandbox: SandboxRef, argv: Sequence[str]) -> AsyncGenerator[Stream]:
        """Do as `open`; a command that knows how brings its streams round the engine.

        It finds in `LINK_VARIABLE` where to connect; see `_docker_link`.
        """
        await self._must_be_ours(sandbox)
        near = self._ours.get(sandbox.id) if self._settings.terminal_link else None
        async with contextlib.AsyncExitStack() as stack:
            listener, variables = None, dict[str, str]()
            if near is not None:
                # A folder that is gone, or a host without it, is the exec's business.
                with contextlib.suppress(OSError):
                    listener, path = stack.enter_context(listening(near))
                    variables = {LINK_VARIABLE: path}
            running = await stack.enter_async_context(
                docker_exec.started(self._engine, sandbox.id, argv, -1, variables)
            )
            if near is None or listener is None:
                yield running
                return
            yield await stack.enter_async_context(linked(listener, near, running))

    async def isolation(self, sandbox: SandboxRef) -> Isolation:
        """Try from inside what must be closed; without the host's rules some of it is open."""

        async def run(argv: list[str]) -> RunResult:
            return await self.run(sandbox, argv)

        return await probe(
            run,
            gateway=(GATEWAY_HOST, self._settings.gateway_port),
            rules_set=self._network.rules_set,
        )

    async def close(self) -> None:
        """Close the connections to the engine; containers go on."""
        await self._engine.close()

    # ---- one container --------------------------------------------------------------------

    async def _find(self, environment_id: UUID) -> Json | None:
        """Return the environment's container.

        Raises:
            NameTaken: A container that is not ours has its name.
        """
        name = container_name(self._instance, environment_id)
        found = await self._engine.get(f"containers/{name}/json", "looking for a sandbox")
        if found is None:
            return None
        if not self._is_ours(found) or _labels(found).get(ENVIRONMENT_LABEL) != str(environment_id):
            raise NameTaken(
                f"Docker has a container named {name} that this server did not make.",
                details="Rename or remove it, and start the environment again.",
            )
        return found

    async def _made(self, spec: SandboxSpec, found: Json | None, image: str, gateway: str) -> Json:
        """Return the environment's container, which need not run, made first where none fits."""
        place = await self._place(spec, gateway)
        if found is not None and not _fits(found, gateway):
            # It knows the gateway at an address that is gone; what it wrote is not in it.
            await self._delete(str(found["Id"]))
            found = None
        if found is None:
            found = await self._make(spec, place, image)
            failpoint("docker.container.created")
        return found

    async def _make(self, spec: SandboxSpec, place: Place, image: str) -> Json:
        config = container_config(
            spec,
            place,
            await self._host_facts(),
            instance=self._instance,
            image=image,
            network=self._network.name,
        )
        try:
            async with self._engine.border("creating a sandbox", START_S) as docker:
                await docker.containers.create(
                    config, name=container_name(self._instance, spec.environment_id)
                )
        except EngineRefused as error:
            # Somebody was faster, this server or a stranger: the labels tell.
            if error.status != HTTPStatus.CONFLICT:
                raise unavailable(error, "creating a sandbox") from error
        found = await self._find(spec.environment_id)
        if found is None:
            raise RuntimeUnavailable("The sandbox was made and is gone again.")
        return found

    async def _start(self, container_id: str) -> None:
        try:
            async with self._engine.border("starting a sandbox", START_S):
                await self._engine.container(container_id).start()
        except EngineRefused as error:
            if error.status != HTTPStatus.NOT_MODIFIED:
                raise

    async def _delete(self, container_id: str) -> None:
        """Remove a container and wait until it is gone."""
        self._ours.pop(container_id, None)
        try:
            async with self._engine.border("removing a sandbox", REMOVE_S):
                await self._engine.container(container_id).delete(force=True, v=True)
        except EngineRefused as error:
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise unavailable(error, "removing a sandbox") from error
        with anyio.move_on_after(REMOVE_S):
            # The engine has no call that waits for this end.
            while await self._engine.get(f"containers/{container_id}/json", "its end"):  # noqa: ASYNC110
                await anyio.sleep(REMOVE_PAUSE_S)
            return
        raise RuntimeUnavailable("Docker does not remove a sandbox that it was told to remove.")

    async def _listed(self, *labels: str) -> Sequence[Json]:
        filters = {"label": [f"{INSTANCE_LABEL}={self._instance}", *labels]}
        params = {"all": "1", "filters": orjson.dumps(filters).decode()}
        found = await self._engine.get("containers/json", "listing sandboxes", params)
        return cast("Sequence[Json]", found or [])

    async def _host_facts(self) -> Host:
        if self._host is None:
            info = await self._engine.get("info", "looking at the engine") or {}
            self._host = Host(
                cpus=int(info.get("NCPU") or 1),
                cgroup_v2=str(info.get("CgroupVersion")) == "2",
                open_files=_open_files(),
            )
        return self._host

    async def _place(self, spec: SandboxSpec, gateway: str) -> Place:
        if not 0 <= spec.number <= MAX_SANDBOX_NUMBER:
            raise RuntimeUnavailable(f"No user id is left for sandbox number {spec.number}.")
        uid = gid = self._settings.sandbox_uid_base + spec.number
        if os.geteuid() != 0:
            uid, gid = os.geteuid(), os.getegid()
        accounts = self._accounts(spec.environment_id)
        try:
            storage = await anyio.to_thread.run_sync(
                prepare_storage, self._settings.data_dir, spec.environment_id, uid, gid
            )
            await anyio.to_thread.run_sync(write_accounts, accounts, uid, gid)
        except OSError as error:
            raise RuntimeUnavailable(
                f"The environment's folders could not be made: {error.strerror}.",
                path=error.filename,
            ) from error
        return Place(storage, accounts, uid, gid, gateway)

    def _accounts(self, environment_id: UUID) -> Path:
        return self._settings.data_dir / "sandboxes" / str(environment_id)

    def _is_ours(self, found: Json) -> bool:
        return _labels(found).get(INSTANCE_LABEL) == self._instance

    async def _must_be_ours(self, sandbox: SandboxRef) -> None:
        """Look once at whose container it is before anything is run in it (SEC-25)."""
        if sandbox.id not in self._ours and await self.inspect(sandbox) is SandboxState.GONE:
            raise SandboxGone("The sandbox no longer exists.")

    def _lock(self, environment_id: UUID) -> anyio.Lock:
        """Return what keeps two tasks from making or removing one sandbox at the same time."""
        lock = self._locks.get(environment_id)
        if lock is None:
            lock = self._locks[environment_id] = anyio.Lock()
        return lock

    def _remember(self, found: Json) -> None:
        while len(self._ours) >= MAX_KNOWN:
            self._ours.pop(next(iter(self._ours)))
        self._ours[str(found["Id"])] = self._near(found)

    def _near(self, found: Json) -> Near | None:
        """Return where a container reaches this server; older ones have no such mount."""
        with contextlib.suppress(ValueError, KeyError):
            folder = self._accounts(UUID(_labels(found)[ENVIRONMENT_LABEL])) / LINK
            uid = int(str(found["Config"]["User"]).partition(":")[0])
            mounts = cast("list[Json]", found.get("Mounts") or [])
            if (LINK_DIR, str(folder)) in {(m.get("Destination"), m.get("Source")) for m in mounts}:
                return Near(folder, uid)
        return None

    def _ref(self, found: Json) -> SandboxRef:
        self._remember(found)
        return SandboxRef(self.name, str(found["Id"]))


def _labels(found: Json) -> dict[str, str]:
    return cast("dict[str, str]", (found.get("Config") or {}).get("Labels") or {})


def _state(found: Json) -> SandboxState:
    state = cast("Json", found.get("State") or {})
    if state.get("Running") and not state.get("Paused") and not state.get("Restarting"):
        return SandboxState.RUNNING
    return SandboxState.STOPPED


def _fits(found: Json, gateway: str) -> bool:
    hosts = cast("list[str]", (found.get("HostConfig") or {}).get("ExtraHosts") or [])
    return f"{GATEWAY_HOST}:{gateway}" in hosts


def _open_files() -> int:
    """Return how many open files a sandbox may have.

    An engine without CAP_SYS_RESOURCE cannot give more than it has itself; where that is less than
    usual, this process most likely has no more either.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)


def _remove_folder(folder: Path) -> None:
    """Remove a folder that only this server ever wrote."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
