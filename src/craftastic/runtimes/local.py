"""Sandboxes without an engine: bubblewrap over the host's own programs, pasta for the network.

A sandbox outlives the server: it is found again by what is written in `sandboxes/<environment>`
below the data folder. A server that is root gives each environment a user id of its own.
"""

import contextlib
import math
import os
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

import anyio
import anyio.to_thread

from craftastic.errors import CraftasticError
from craftastic.runtimes import _local_commands as commands
from craftastic.runtimes import _local_launch as launch
from craftastic.runtimes._agent_tools import AgentTools
from craftastic.runtimes._firewall import (
    PRIVATE_V4,
    PRIVATE_V6,
    REJECT_TCP,
    REJECT_V4,
    REJECT_V6,
    Firewall,
    FirewallUnavailable,
    address_family,
    resolvers,
)
from craftastic.runtimes._local_check import HostCheck, open_tun
from craftastic.runtimes._local_mounts import Folders, make_etc
from craftastic.runtimes._local_process import State, read_state, reap
from craftastic.runtimes._local_watch import Watch
from craftastic.runtimes._probe import probe
from craftastic.runtimes._storage import remove_storage, remove_tree
from craftastic.runtimes.base import (
    GATEWAY_HOST,
    MAX_OUTPUT_BYTES,
    Ending,
    Finding,
    Hint,
    Isolation,
    Progress,
    Report,
    RunResult,
    RuntimeUnavailable,
    SandboxExhausted,
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

NAME: Final = "local"
LOOPBACK: Final = "127.0.0.1"
USERS: Final = 65_536
HOOK: Final = "OUTPUT"
DNS_PORT: Final = "53"
PASSABLE: Final = 0o011
RULES_FRESH_S: Final = 5.0
"""A sandbox is made right after `prepare`, which has set the rules: 100 ms of iptables."""


def firewall_rules(
    gateway_port: int, name_servers: Sequence[str], *, ipv6: bool
) -> list[list[str]]:
    """Return the rules for everything that sandboxes' users send: what is not named is allowed.

    The gateway and the host's name servers come first; then nothing that is this host, private,
    link-local or multicast.
    """
    rules: list[list[str]] = []
    if not ipv6 and gateway_port:
        port = str(gateway_port)
        rules.append(["-p", "tcp", "-d", LOOPBACK, "--dport", port, "-j", "ACCEPT"])
    for server in name_servers:
        if address_family(server) == (6 if ipv6 else 4):
            rules += [
                ["-p", protocol, "-d", server, "--dport", DNS_PORT, "-j", "ACCEPT"]
                for protocol in ("udp", "tcp")
            ]
    reject = REJECT_V6 if ipv6 else REJECT_V4
    closed = [["-m", "addrtype", "--dst-type", "LOCAL"]]
    closed += [["-d", one] for one in (PRIVATE_V6 if ipv6 else PRIVATE_V4)]
    for match in closed:
        rules += [[*match, *REJECT_TCP], [*match, *reject]]
    return rules


class LocalRuntime:
    """Runs sandboxes on this host; see `Runtime` for what each method promises.

    Args:
        settings: The server's settings.
        instance: This installation's id; only its sandboxes are seen.
    """

    name: str = NAME

    def __init__(self, settings: Settings, instance: str) -> None:
        self._settings = settings
        self._instance = instance
        self._folders = Folders(settings.data_dir.absolute())
        self._launcher = launch.Launcher(
            self._folders, instance, settings.gateway_port, settings.local_share_network
        )
        self._tools = AgentTools(self._folders.tools, settings.agent_tools)
        self._firewall = Firewall()
        self._firewall_trouble: str | None = "not tried yet"
        self._rules_set_at = -math.inf
        self._prepared = False
        self._preparing = anyio.Lock()
        self._locks: defaultdict[UUID, anyio.Lock] = defaultdict(anyio.Lock)
        self._watches: set[Watch] = set()

    @property
    def single_user(self) -> bool:
        """Whether all sandboxes run as one user, so that only one person may use the server."""
        return os.geteuid() != 0

    async def gateway_address(self) -> str:
        """Return the address that the gateway must listen at."""
        return LOOPBACK

    async def prepare(self, report: Report = no_report) -> None:
        """Make what all sandboxes need: an /etc, an open tunnel device, firewall rules.

        Raises:
            RuntimeUnavailable: Something is missing; the message says what to do.
        """
        async with self._preparing:
            await report(Progress("runtime", "Preparing the local runtime"))
            await self._set_rules()
            await anyio.to_thread.run_sync(self._prepare_host)
            blockers = await anyio.to_thread.run_sync(lambda: self._host_check().blockers())
            if blockers:
                first = blockers[0]
                raise RuntimeUnavailable(first.message, details=first.remedy)
            self._prepared = True

    async def install_tools(self, report: Report = no_report) -> None:
        """Install the agents' command lines that sandboxes see; minutes the first time.

        Sandboxes work without them, and those that run see them once they are there.

        Raises:
            RuntimeUnavailable: It is not possible; the message says why and what to do.
        """
        await self._tools.ensure(report)

    async def check(self) -> list[Finding]:
        """Look at the host without changing anything."""
        if os.geteuid() == 0 and self._firewall_trouble is not None:
            with contextlib.suppress(FirewallUnavailable):
                chain = self._chain
                if await self._firewall.is_set(chain=chain, hook=HOOK):
                    self._firewall_trouble = None
        return await anyio.to_thread.run_sync(lambda: list(self._host_check().findings()))

    async def create(self, spec: SandboxSpec, report: Report = no_report) -> SandboxRef:
        """Start the environment's sandbox, or adopt the one that runs; see `Runtime.create`."""
        if not 0 <= spec.number < USERS:
            raise ValueError(f"an environment's number is below {USERS}")
        if not self._prepared:
            await self.prepare(report)
        ref = SandboxRef(NAME, str(spec.environment_id))
        async with self._locks[spec.environment_id]:
            await report(Progress("sandbox", "Starting the sandbox"))
            failure: CraftasticError | None = None
            async with anyio.create_task_group() as tasks:
                # Another program may have emptied the tables since: set again, meanwhile.
                if anyio.current_time() - self._rules_set_at > RULES_FRESH_S:
                    tasks.start_soon(self._set_rules)
                failure = await self._start(spec)
            if failure is not None:
                raise failure
            await self._answers(ref)
        return ref

    async def inspect(self, sandbox: SandboxRef) -> SandboxState:
        """Report the state; see `Runtime.inspect`."""
        state = self._state(sandbox)
        if state is None:
            return SandboxState.GONE
        return SandboxState.RUNNING if state.alive else SandboxState.STOPPED

    async def stop(self, sandbox: SandboxRef) -> None:
        """End every process of the sandbox; see `Runtime.stop`."""
        state = self._state(sandbox)
        if state is None:
            return
        environment_id = UUID(state.environment_id)
        async with self._locks[environment_id]:
            await anyio.to_thread.run_sync(self._stop, self._folders.state(environment_id))

    async def remove(self, spec: SandboxSpec, *, storage: bool) -> None:
        """Remove the environment's sandbox; see `Runtime.remove`."""
        async with self._locks[spec.environment_id]:
            await anyio.to_thread.run_sync(self._remove, spec.environment_id, storage)
        self._locks.pop(spec.environment_id, None)
        for watch in self._watches:
            watch.forget(spec.environment_id)

    async def follow(self, tell: TellHint) -> None:
        """Watch the sandboxes' first processes and their use of memory; see `Runtime.follow`."""
        with contextlib.closing(Watch()) as watch:
            self._watches.add(watch)
            try:
                await self.list()
                tell(Hint())
                while True:
                    await anyio.wait_readable(watch.fileno())
                    for hint in watch.read():
                        tell(hint)
            finally:
                self._watches.discard(watch)

    async def ending(self, sandbox: SandboxRef) -> Ending:
        """Say why a sandbox has ended; see `Runtime.ending`."""
        state = self._state(sandbox)
        if state is None or not state.out_of_memory:
            return Ending.UNKNOWN
        return Ending.OUT_OF_MEMORY

    async def run(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> RunResult:
        """Run one command; see `Runtime.run`. The limit is of both outputs together."""
        folder = self._running(sandbox)
        try:
            return await commands.run(
                folder,
                argv,
                stdin=stdin,
                timeout_s=timeout_s,
                max_output_bytes=max_output_bytes,
            )
        except SandboxGone as error:
            if await self.inspect(sandbox) is not SandboxState.RUNNING:
                raise
            raise SandboxExhausted(
                "The command was killed in the sandbox.",
                details="Most likely the sandbox is at its limit of memory.",
            ) from error

    async def spawn(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
    ) -> RunResult:
        """Run one command that leaves something running; see `Runtime.spawn`.

        The sandbox's first process starts all commands and adopts what they leave behind.
        """
        return await self.run(sandbox, argv, stdin=stdin, timeout_s=timeout_s)

    @contextlib.asynccontextmanager
    async def open(self, sandbox: SandboxRef, argv: Sequence[str]) -> AsyncGenerator[Stream]:
        """Start one long-running command and stream to and from it; see `Runtime.open`."""
        async with commands.started(self._running(sandbox), argv) as command:
            yield command

    async def isolation(self, sandbox: SandboxRef) -> Isolation:
        """Try from inside what must be closed; see `Runtime.isolation`."""
        return await probe(
            partial(self.run, sandbox),
            gateway=(GATEWAY_HOST, self._settings.gateway_port),
            rules_set=self._firewall_trouble is None,
        )

    async def close(self) -> None:
        """Nothing is held open; sandboxes go on."""

    # ---- one sandbox ----------------------------------------------------------------------

    def _uid(self, spec: SandboxSpec) -> int:
        if self.single_user:
            return os.geteuid()
        return self._settings.sandbox_uid_base + spec.number

    def _state(self, sandbox: SandboxRef) -> State | None:
        """Return what is known of one of our sandboxes, or None."""
        try:
            state = read_state(self._folders.state(UUID(sandbox.id)))
        except ValueError:
            return None
        return state if state is not None and state.instance == self._instance else None

    def _running(self, sandbox: SandboxRef) -> Path:
        state = self._state(sandbox)
        if state is None or not state.alive:
            raise SandboxGone(commands.GONE)
        return self._folders.state(UUID(state.environment_id))

    async def _start(self, spec: SandboxSpec) -> CraftasticError | None:
        """Start the sandbox in a thread; return what went wrong, which a task group would wrap."""
        start = partial(self._launcher.start, spec, self._uid(spec))
        try:
            await anyio.to_thread.run_sync(self._prepare_host)
            state = await anyio.to_thread.run_sync(start)
        except CraftasticError as error:
            self._prepared = False  # the next one looks at the host first, which may tell why
            return error
        for watch in self._watches:
            watch.add(spec.environment_id, state)
        return None

    async def _answers(self, sandbox: SandboxRef) -> None:
        """Wait until the sandbox's first process serves; end a sandbox that never does."""
        try:
            result = await self.run(sandbox, ["true"])
        except (SandboxGone, RuntimeUnavailable) as error:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._stop, self._folders.state(UUID(sandbox.id)))
            raise RuntimeUnavailable(f"The sandbox does not work: {error.message}") from error
        if result.exit_code != 0:
            raise RuntimeUnavailable("The sandbox cannot run a command.")

    def _stop(self, folder: Path, *, out_of_memory: bool = False) -> None:
        with launch.locked(folder):
            state = read_state(folder)
            if state is not None and (state.init is not None or state.helpers):
                launch.end(folder, replace(state, out_of_memory=out_of_memory))

    def _remove(self, environment_id: UUID, storage: bool) -> None:
        launch.remove(self._folders.state(environment_id))
        if storage:
            try:
                remove_storage(self._folders.data_dir, environment_id)
                remove_tree(self._folders.run(environment_id))
            except OSError as error:
                message = f"The environment's storage cannot be removed: {error.strerror}"
                raise RuntimeUnavailable(message) from error

    def _list(self) -> list[SandboxSummary]:
        reap()
        watches = tuple(self._watches)
        found: list[SandboxSummary] = []
        parent = self._folders.state(UUID(int=0)).parent
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            state = read_state(folder)
            if state is None or state.instance != self._instance:
                continue
            environment_id = UUID(state.environment_id)
            for watch in watches:
                watch.add(environment_id, state)
            if not state.alive and state.helpers:
                # It ended by itself: what stood beside it is of no use any more.
                killed = any(one.killed_lately(environment_id) for one in watches)
                with contextlib.suppress(RuntimeUnavailable):
                    self._stop(folder, out_of_memory=killed)
            found.append(_summary(state))
        return found

    # ---- the host -------------------------------------------------------------------------

    @property
    def _chain(self) -> str:
        return f"CRAFTASTIC-LOCAL-{self._settings.sandbox_uid_base}"

    @property
    def _match(self) -> list[str]:
        first = self._settings.sandbox_uid_base
        return ["-m", "owner", "--uid-owner", f"{first}-{first + USERS - 1}"]

    async def _set_rules(self) -> None:
        """Set the rules of both families; trouble is remembered, shown, and not fatal."""
        if self.single_user:
            self._firewall_trouble = "the server is not root"
            return
        try:
            for ipv6 in (False, True):
                await self._firewall.apply(
                    chain=self._chain,
                    hook=HOOK,
                    hook_match=self._match,
                    rules=self._rules(ipv6=ipv6),
                    ipv6=ipv6,
                )
        except FirewallUnavailable as error:
            self._firewall_trouble = error.message
        else:
            self._firewall_trouble = None
            self._rules_set_at = anyio.current_time()

    def _rules(self, *, ipv6: bool) -> list[list[str]]:
        return firewall_rules(self._settings.gateway_port, resolvers(), ipv6=ipv6)

    def _host_check(self) -> HostCheck:
        commands_ = [
            line
            for ipv6 in (False, True)
            for line in Firewall.as_commands(
                chain=self._chain,
                hook=HOOK,
                hook_match=self._match,
                rules=self._rules(ipv6=ipv6),
                ipv6=ipv6,
            )
        ]
        uid = os.geteuid() if self.single_user else self._settings.sandbox_uid_base + USERS - 1
        return HostCheck(uid, self._settings.local_share_network, self._firewall_trouble, commands_)

    def _prepare_host(self) -> None:
        try:
            data_dir = self._folders.data_dir
            data_dir.mkdir(parents=True, exist_ok=True)
            if not self.single_user:
                data_dir.chmod(data_dir.stat().st_mode & 0o777 | PASSABLE)
            make_etc(self._folders.etc, resolvers())
            self._tools.make_folder()
            open_tun()
        except OSError as error:
            raise RuntimeUnavailable(f"The data folder cannot be prepared: {error}") from error

    # The last one: after it, `list` means this method in the class's own scope.
    async def list(self) -> list[SandboxSummary]:
        """List this installation's sandboxes; see `Runtime.list`."""
        return await anyio.to_thread.run_sync(self._list)


def _summary(state: State) -> SandboxSummary:
    return SandboxSummary(
        SandboxRef(NAME, state.environment_id),
        UUID(state.environment_id),
        UUID(state.owner_id),
        state.name,
        SandboxState.RUNNING if state.alive else SandboxState.STOPPED,
    )
