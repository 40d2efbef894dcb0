"""How a local sandbox comes up and goes: namespaces by pasta, the rest by bubblewrap.

pasta makes a user and a network namespace, configures the network and stays, holding them open
with a program that only sleeps. bubblewrap is started into these two and makes all others. pasta
is not bubblewrap's parent in the way of descriptors: newer versions close what they inherit.

Everything runs as the sandbox's own user from the first moment on. All of this blocks: it is
called in a thread.
"""

import contextlib
import fcntl
import json
import os
import platform
import select
import shutil
import socket
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from uuid import UUID

from craftastic.errors import Conflict
from craftastic.failpoints import failpoint
from craftastic.runtimes import _local_seccomp
from craftastic.runtimes._local_commands import SOCKET_NAME
from craftastic.runtimes._local_limits import Limits, confine, release, resource_limits
from craftastic.runtimes._local_lost import PROGRAM_OF_NETWORK, lost, network_name
from craftastic.runtimes._local_mounts import (
    INIT,
    PYTHON,
    Folders,
    make_run_folder,
    sandbox_arguments,
)
from craftastic.runtimes._local_process import (
    TOOL_PATH,
    Identity,
    State,
    children,
    moments,
    program,
    read_state,
    spawn,
    write_state,
)
from craftastic.runtimes._storage import prepare_storage
from craftastic.runtimes.base import RuntimeUnavailable, SandboxSpec

HOLDER = "sleep"
UP_S = 10.0
END_S = 5.0
LOCK_S = 60.0
BACKLOG = 64
MAX_MESSAGE = 4096


class ForeignSandbox(Conflict):
    """Another installation's state is where this sandbox's would be."""

    code = "SANDBOX_NAME_TAKEN"


@dataclass(frozen=True, slots=True)
class Launcher:
    """What all sandboxes of this server have in common.

    Args:
        folders: Where things are kept.
        instance: This installation's id.
        gateway_port: The one port of the host's loopback that leads out; 0 for none.
        share_network: Use the host's network, where the operator has allowed it.
    """

    folders: Folders
    instance: str
    gateway_port: int
    share_network: bool

    def start(self, spec: SandboxSpec, uid: int) -> State:
        """Start the sandbox, or return the one that runs.

        Raises:
            RuntimeUnavailable: It did not come up; the message says why.
            ForeignSandbox: The state found is another installation's.
        """
        folder = self.folders.state(spec.environment_id)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        with locked(folder):
            found = read_state(folder)
            if found is not None and found.instance != self.instance:
                raise ForeignSandbox("Another installation's sandbox is in the data folder.")
            if found is not None and found.alive:
                return found
            if found is not None:
                end(folder, found)
            state = State(self.instance, str(spec.environment_id), str(spec.owner_id), spec.name)
            # Before anything starts: a server that dies in between finds the folder again.
            write_state(folder, state)
            failpoint("local.state.written")
            try:
                return self._start(folder, spec, uid, state)
            except OSError as error:
                raise RuntimeUnavailable(f"The sandbox did not start: {error}") from error

    def _start(self, folder: Path, spec: SandboxSpec, uid: int, state: State) -> State:
        storage = prepare_storage(self.folders.data_dir, spec.environment_id, uid, uid)
        run = make_run_folder(self.folders, spec.environment_id, uid)
        arguments = sandbox_arguments(
            self.folders.etc, self.folders.tools, storage, run, spec.environment_id
        )
        limits = Limits(spec.memory_bytes, spec.cpus, spec.pids)
        helpers: list[Identity] = []
        try:
            with contextlib.ExitStack() as stack:
                enter: list[str] = []
                files: list[int] = []
                if not self.share_network:
                    holder = self._network(folder, uid, helpers)
                    enter, files = _entering(holder, stack)
                failpoint("local.network.up")
                listener = _listen(folder, stack)
                monitor, init = _bubblewrap(
                    [*enter, "bwrap", *arguments],
                    uid=uid,
                    listener=listener,
                    files=files,
                    limits=resource_limits(limits, own_user=uid != os.geteuid()),
                )
                helpers.insert(0, monitor)
            failpoint("local.sandbox.up")
            confine(_group(spec.environment_id), init.pid, limits)
            state = replace(state, init=init, helpers=tuple(helpers))
            write_state(folder, state)
        except BaseException:
            for one in helpers:
                one.end(END_S)
            raise
        return state

    def _network(self, folder: Path, uid: int, helpers: list[Identity]) -> Identity:
        """Bring up a network namespace and return the process that holds it.

        Source: passt(1). The ports of the sandbox are not forwarded to the host (-t, -u), of the
        host's only the gateway's is to the sandbox's loopback (-T), and the address of the
        default gateway does not lead to the host (--no-map-gw).
        """
        forward = str(self.gateway_port) if self.gateway_port else "none"
        argv = [
            network_name(folder), "--quiet", "--foreground", "--config-net", "--no-map-gw",
            "-t", "none", "-u", "none", "-U", "none", "-T", forward,
            "--", HOLDER, "infinity",
        ]  # fmt: skip
        with _message() as message:
            pid = spawn(argv, uid=uid, stderr=message.fileno(), executable=tool(PROGRAM_OF_NETWORK))
            pasta = Identity.of(pid)
            if pasta is None:
                raise RuntimeUnavailable(f"The network did not come up: {_said(message)}")
            helpers.insert(0, pasta)
            for _ in moments(UP_S):
                # The holder is executed once the network is there, and not before.
                found = [one for one in children(pid) if program(one) == HOLDER]
                holder = Identity.of(found[0]) if found else None
                if holder is not None:
                    helpers.insert(0, holder)
                    return holder
                if not pasta.alive():
                    break
            # A pasta that gave up leaves the child behind that waited for its network.
            helpers[:0] = [one for pid in children(pid) if (one := Identity.of(pid))]
            raise RuntimeUnavailable(f"The network did not come up: {_said(message)}")


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold the sandbox's lock: one process at a time starts, stops or removes it.

    Raises:
        RuntimeUnavailable: Another one has it for long.
    """
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for _ in moments(LOCK_S):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
        else:
            raise RuntimeUnavailable("Another process is at work on this sandbox.")
        yield
    finally:
        os.close(fd)


def end(folder: Path, state: State) -> State:
    """End everything of a sandbox and write down that it is stopped. Hold its lock.

    Raises:
        RuntimeUnavailable: Something would not end.
    """
    written = [one for one in (state.init, *state.helpers) if one is not None]
    # Also what nobody came to write down.
    processes = [*written, *lost(folder, folder.parent.parent / "run" / folder.name)]
    alive = [one for one in processes if not one.end(END_S)]
    if alive:
        raise RuntimeUnavailable("The sandbox did not end.")
    release(_group(UUID(state.environment_id)))
    with contextlib.suppress(FileNotFoundError):
        (folder / SOCKET_NAME).unlink()
    stopped = replace(state, init=None, helpers=())
    write_state(folder, stopped)
    return stopped


def remove(folder: Path) -> None:
    """End a sandbox and forget it; its storage stays. Absent is fine.

    Raises:
        RuntimeUnavailable: Something would not end.
    """
    if not folder.exists():
        return
    with locked(folder):
        state = read_state(folder)
        if state is not None:
            end(folder, state)
        failpoint("local.sandbox.ended")
        shutil.rmtree(folder, ignore_errors=True)


def _group(environment_id: UUID) -> str:
    return str(environment_id)


def _entering(holder: Identity, stack: contextlib.ExitStack) -> tuple[list[str], list[int]]:
    """Return the command that enters the holder's namespaces, and the descriptors it needs.

    Raises:
        RuntimeUnavailable: The holder is gone.
    """
    files: list[int] = []
    for kind in ("user", "net"):
        fd = os.open(f"/proc/{holder.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        files.append(fd)
    if not holder.alive():  # Then the descriptors may be those of whoever has the number now.
        raise RuntimeUnavailable("The sandbox's network ended while it started.")
    user, net = files
    argv = [
        "nsenter", f"--user=/proc/self/fd/{user}", f"--net=/proc/self/fd/{net}",
        "--preserve-credentials", "--",
    ]  # fmt: skip
    return argv, files


def _listen(folder: Path, stack: contextlib.ExitStack) -> socket.socket:
    """Return the socket that the sandbox's first process will serve.

    Only the server can pass its folder, and inside the sandbox it has no name.
    """
    listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    with contextlib.suppress(FileNotFoundError):
        (folder / SOCKET_NAME).unlink()
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{at}/{SOCKET_NAME}")
    finally:
        os.close(at)
    listener.listen(BACKLOG)
    return listener


def _bubblewrap(
    argv: Sequence[str],
    *,
    uid: int,
    listener: socket.socket,
    files: Sequence[int],
    limits: dict[str, int],
) -> tuple[Identity, Identity]:
    """Start bubblewrap and return it and the first process inside.

    Raises:
        RuntimeUnavailable: It did not come up; the message is its own.
    """
    with contextlib.ExitStack() as stack:
        message = stack.enter_context(_message())
        told, tell = os.pipe()
        stack.callback(os.close, told)
        options = ["--info-fd", str(tell)]
        passed = [*files, tell, listener.fileno()]
        if (program_of_calls := _local_seccomp.build(platform.machine())) is not None:
            seccomp = os.memfd_create("seccomp", os.MFD_CLOEXEC)
            stack.callback(os.close, seccomp)
            os.write(seccomp, program_of_calls)
            os.lseek(seccomp, 0, os.SEEK_SET)
            options += ["--seccomp", str(seccomp)]
            passed.append(seccomp)
        inside = [PYTHON, "-I", "-S", INIT, str(listener.fileno()), json.dumps(limits)]
        try:
            pid = spawn(
                [*argv, *options, "--", *inside], uid=uid, pass_fds=passed, stderr=message.fileno()
            )
        finally:
            os.close(tell)
        monitor = Identity.of(pid)
        found = _told(told)
        init = Identity.of(found) if found is not None else None
        if monitor is None or init is None:
            if monitor is not None:
                monitor.end(END_S)
            raise RuntimeUnavailable(f"The sandbox did not start: {_said(message)}")
        return monitor, init


def _told(fd: int) -> int | None:
    """Return the process id that bubblewrap tells, or None when it ends without."""
    text = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while poll.poll(int(UP_S * 1000)):
        more = os.read(fd, MAX_MESSAGE)
        if not more:
            return None
        text += more
        with contextlib.suppress(ValueError):
            return int(json.loads(text)["child-pid"])
    return None


def _message() -> IO[bytes]:
    """Return a file for what a tool says when it fails; nobody waits for its end."""
    return tempfile.TemporaryFile()


def _said(message: IO[bytes]) -> str:
    message.seek(0)
    lines = message.read(MAX_MESSAGE).decode(errors="replace").splitlines()
    # pasta repeats everything to a system log that may not be there.
    kept = [line.strip() for line in lines if line.strip() and "to syslog" not in line]
    return "; ".join(kept)[-300:] or "no reason was given"


def tool(name: str) -> str | None:
    """Return where a program of the host is, or None."""
    return shutil.which(name, path=TOOL_PATH)
