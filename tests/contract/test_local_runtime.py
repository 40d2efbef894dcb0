"""What only local sandboxes promise: no engine between them and the host's kernel."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import anyio.to_thread
import psutil
import pytest

from craftastic.runtimes import _local_process
from craftastic.runtimes._firewall import Firewall
from craftastic.runtimes._local_process import read_state, write_state
from craftastic.runtimes.base import (
    RuntimeUnavailable,
    SandboxExhausted,
    SandboxGone,
    SandboxRef,
    SandboxSpec,
    SandboxState,
)
from craftastic.runtimes.local import LocalRuntime
from craftastic.settings import Settings
from tests.conftest import missing
from tests.contract.conftest import free_port, until
from tests.leaks import RUN, remove_local_rules

pytestmark = pytest.mark.local

UID_BASE = RUN.new_uid_base()
"""Of this test run's own: the firewall's chain is named by it."""

TMUX = ["tmux", "-S", "/run/craftastic/tmux.sock"]
NOBODY = 654_321
"""A user id that nobody has."""

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def folder() -> Iterator[Path]:
    path = RUN.new_folder("local")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def runtime_in(folder: Path, instance: str, **settings: object) -> LocalRuntime:
    for tool in ("bwrap", "pasta", "tmux"):
        if shutil.which(tool) is None:
            missing(f"{tool} is not installed")
    values = {"data_dir": folder, "gateway_port": free_port(), "sandbox_uid_base": UID_BASE}
    return LocalRuntime(Settings.model_validate({**values, **settings}), instance)


def new_spec(number: int = 1) -> SandboxSpec:
    spec = SandboxSpec(uuid4(), uuid4(), number, "A test's own", memory_bytes=512 << 20)
    RUN.environments.add(str(spec.environment_id))
    return spec


@pytest.fixture
async def runtime(folder: Path) -> AsyncIterator[LocalRuntime]:
    runtime = runtime_in(folder, secrets.token_hex(16))
    yield runtime
    with anyio.CancelScope(shield=True):
        for one in await runtime.list():
            spec = replace(new_spec(), environment_id=one.environment_id)
            await runtime.remove(spec, storage=True)
        await remove_local_rules(UID_BASE)


async def sh(runtime: LocalRuntime, sandbox: SandboxRef, script: str, *arguments: str) -> str:
    result = await runtime.run(sandbox, ["sh", "-c", script, "sh", *arguments])
    assert result.exit_code == 0, (result.stdout, result.stderr)
    return result.stdout.decode()


def state_of(runtime: LocalRuntime, sandbox: SandboxRef):
    state = read_state(runtime._folders.state(UUID(sandbox.id)))
    assert state is not None
    assert state.init is not None
    return state


# ---- what a sandbox is ----------------------------------------------------------------------


async def test_inside_there_are_no_rights_no_host_files_and_no_new_namespaces(runtime):
    ref = await runtime.create(new_spec())

    status = await sh(runtime, ref, "cat /proc/self/status")
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert (await sh(runtime, ref, "id -u; whoami; hostname")).split() == ["1000", "dev", "sandbox"]
    for path in ("/sys", "/root", "/etc/shadow", "/etc/hostid", "/var/lib", "/boot", "/etc/ssh"):
        assert (await runtime.run(ref, ["ls", path])).exit_code != 0, path
    assert (await sh(runtime, ref, "ls /home /var; ls -A /run")).split() == [
        "/home:", "dev", "/var:", "run", "tmp", "craftastic",
    ]  # fmt: skip
    for flags in ("-Ur", "-n", "-m", "-p", "-i", "-u", "-C"):
        assert (await runtime.run(ref, ["unshare", flags, "true"])).exit_code != 0, flags
    for path in ("/", "/etc", "/usr", "/etc/craftastic", "/var"):
        touched = await runtime.run(ref, ["touch", f"{path}/x"])
        assert b"Read-only file system" in touched.stderr, path


async def test_system_calls_that_nobody_needs_are_refused(runtime):
    ref = await runtime.create(new_spec())
    script = (
        "import ctypes, errno, fcntl, os, pty, socket, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(*words):\n"
        "    assert libc.syscall(*words) == -1\n"
        "    return errno.errorcode[ctypes.get_errno()]\n"
        "numbers = {'keyctl': 250, 'bpf': 321, 'perf_event_open': 298, 'userfaultfd': 323,\n"
        "           'mount': 165, 'io_uring_setup': 425, 'process_vm_readv': 310, 'setns': 308}\n"
        "print(*{call(number, 0, 0, 0, 0, 0) for number in numbers.values()})\n"
        "print(call(435, 0, 0))\n"
        "pid, fd = pty.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        fcntl.ioctl(0, 0x5412, b'x')\n"
        "        os.write(1, b'typed')\n"
        "    except OSError as error:\n"
        "        os.write(1, errno.errorcode[error.errno].encode())\n"
        "    os._exit(0)\n"
        "print(os.read(fd, 100).decode())\n"
        "try:\n"
        "    socket.socket(40, socket.SOCK_STREAM)\n"
        "except OSError as error:\n"
        "    print(errno.errorcode[error.errno])\n"
    )

    if os.uname().machine != "x86_64":
        missing("the numbers in this test are those of x86_64")
    lines = (await sh(runtime, ref, 'python3 -c "$1"', script)).splitlines()

    assert lines == ["EPERM", "ENOSYS", "EPERM", "EAFNOSUPPORT"]


async def test_a_hostile_tmux_server_makes_nothing_run_on_the_host(runtime, folder):
    ref = await runtime.create(new_spec())
    canary = folder / "canary"
    trap = f"detach-client -E 'touch {canary}; sleep 60'"
    hostile = [
        *TMUX,
        "new-session",
        "-d",
        "-s",
        "x",
        ";",
        "set-hook",
        "-g",
        "client-attached",
        trap,
    ]
    assert (await runtime.spawn(ref, hostile)).exit_code == 0

    attach = [*TMUX, "-C", "attach", "-t", "x"]
    async with runtime.open(ref, attach) as stream:
        with anyio.move_on_after(10):
            while b"exit" not in await stream.receive_stdout():
                pass

    assert not canary.exists()
    assert runs_as_sandbox("tmux: server") or os.geteuid() != 0
    ours = namespace(Path("/proc/self"))
    assert all(namespace(one) != ours for one in runs_as_sandbox("tmux"))


def namespace(process: Path) -> Path:
    return (process / "ns/pid").readlink()


def runs_as_sandbox(name: str) -> list[Path]:
    """List the host's processes of that name that belong to one of this file's sandboxes."""
    found: list[Path] = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                process.name.isdigit()
                and UID_BASE <= process.stat().st_uid < UID_BASE + 65_536
                and (process / "comm").read_text().startswith(name)
            ):
                found.append(process)
    return found


async def test_what_a_command_leaves_behind_lives_on_and_is_reaped_when_it_ends(runtime):
    ref = await runtime.create(new_spec())

    await runtime.spawn(ref, ["sh", "-c", "setsid sleep 4242 >/dev/null 2>&1 &"])
    await sh(runtime, ref, "for i in $(seq 30); do (setsid sleep 0.01 &) ; done")

    async def one_sleep_and_no_zombie() -> bool:
        found = await sh(runtime, ref, "ps -eo stat=,args=")
        return "Z" not in [line[0] for line in found.splitlines()] and found.count("sleep") == 1

    await until(one_sleep_and_no_zombie, "only the long sleep is left, and no zombie")


async def test_nothing_inside_can_end_the_sandbox(runtime):
    ref = await runtime.create(new_spec())

    await runtime.run(ref, ["sh", "-c", "kill -9 1; kill -INT 1; kill -TERM 1"])
    with pytest.raises(SandboxExhausted):  # It has killed what would have told its exit code too.
        await runtime.run(ref, ["sh", "-c", "kill -9 -1; sleep 5"])

    assert await sh(runtime, ref, "echo alive") == "alive\n"


# ---- several of them ------------------------------------------------------------------------


async def test_two_sandboxes_cannot_read_each_other_nor_reach_each_others_ports(runtime):
    if os.geteuid() != 0:
        missing("sandboxes have users of their own only under root")
    one = await runtime.create(new_spec(1))
    other = await runtime.create(new_spec(2))
    await sh(runtime, one, "echo secret > ~/secret")
    serve = "import http.server as h; h.HTTPServer(('0.0.0.0', 8765), h.SimpleHTTPRequestHandler)"
    await runtime.spawn(
        one, ["sh", "-c", 'python3 -c "$1.serve_forever()" >/dev/null 2>&1 &', "sh", serve]
    )
    ask = "import socket; socket.create_connection((%r, 8765), 1); print('reached')"
    await until(
        lambda: _prints(runtime, one, ask % "127.0.0.1"), "the port is open where it belongs"
    )

    for address in ("127.0.0.1", *_addresses()):
        assert not await _prints(runtime, other, ask % address), address
    homes = runtime._folders.data_dir / "homes"
    secret = str(homes / one.id / "secret")
    denied = await anyio.to_thread.run_sync(read_as, UID_BASE + 2, secret)
    assert b"Permission denied" in denied
    assert await anyio.to_thread.run_sync(read_as, UID_BASE + 1, secret) == b"secret\n"


def read_as(uid: int, path: str) -> bytes:
    """Read a file on the host as a sandbox's user would; return what was read or complained."""
    done = subprocess.run(
        ["cat", path], user=uid, group=uid, extra_groups=[], capture_output=True, check=False
    )
    return done.stdout + done.stderr


async def _prints(runtime: LocalRuntime, ref: SandboxRef, script: str) -> bool:
    return bool((await runtime.run(ref, ["python3", "-c", script])).stdout)


def _addresses() -> list[str]:
    from craftastic.runtimes._probe import host_addresses  # noqa: PLC0415

    return [one for one in host_addresses() if not one.startswith(("127.", "fe80", "::1"))]


async def test_a_sandbox_that_is_full_of_processes_says_so_and_works_again(runtime):
    ref = await runtime.create(replace(new_spec(), pids=48))

    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(SandboxExhausted):  # noqa: PT012 - how many it takes is not the point
            for _ in range(60):
                await stack.enter_async_context(runtime.open(ref, ["sleep", "3600"]))
    assert (await runtime.run(ref, ["true"])).exit_code == 0


async def test_a_program_that_is_not_there_is_127_and_one_that_may_not_run_is_126(runtime):
    ref = await runtime.create(new_spec())

    assert (await runtime.run(ref, ["no-such-program"])).exit_code == 127
    assert (await runtime.run(ref, ["/etc/passwd"])).exit_code == 126
    assert (await runtime.run(ref, ["sh", "-c", "kill -9 $$"])).exit_code == 137


# ---- the server's death, and the machine's --------------------------------------------------

STARTER = """
import os, signal, sys, uuid
import anyio
from pathlib import Path
from craftastic.runtimes.base import SandboxSpec
from craftastic.runtimes.local import LocalRuntime
from craftastic.settings import Settings
folder, instance, base, environment = sys.argv[1:5]
async def main():
    settings = Settings.model_validate({"data_dir": Path(folder), "gateway_port": 0,
                                        "sandbox_uid_base": int(base)})
    runtime = LocalRuntime(settings, instance)
    spec = SandboxSpec(uuid.UUID(environment), uuid.UUID(environment), 1, "x", 512 << 20)
    ref = await runtime.create(spec)
    tmux = ["tmux", "-S", "/run/craftastic/tmux.sock", "new-session", "-d", "-s", "kept"]
    await runtime.spawn(ref, tmux)
    print(runtime.single_user, (await runtime.run(ref, ["id", "-un"])).stdout.decode().strip())
    sys.stdout.flush()
    if sys.argv[5] == "die":
        async with runtime.open(ref, ["sleep", "4321"]):
            os.kill(os.getpid(), signal.SIGKILL)
    found = await runtime.isolation(ref)
    print(len(found.open) > 0, "loopback" if any("127.0.0.1" in one for one in found.open) else "-")
    await runtime.remove(spec, storage=True)
anyio.run(main, backend_options={"use_uvloop": True})
"""


async def test_a_sandbox_outlives_the_server_that_started_it_and_its_streams_do_not(
    runtime, folder
):
    environment = uuid4()
    instance = runtime._instance
    argv = [sys.executable, "-c", STARTER, str(folder), instance, str(UID_BASE), str(environment)]
    died = await anyio.run_process([*argv, "die"], check=False, stderr=subprocess.PIPE)
    assert died.returncode == -signal.SIGKILL, died.stderr

    (found,) = await runtime.list()
    assert found.state is SandboxState.RUNNING
    names = await sh(
        runtime, found.ref, "tmux -S /run/craftastic/tmux.sock list-sessions -F '#{session_name}'"
    )
    assert names == "kept\n"

    async def stream_ended() -> bool:
        return "4321" not in await sh(runtime, found.ref, "ps -eo args")

    await until(stream_ended, "the dead server's stream is ended")
    before = state_of(runtime, found.ref).init
    spec = replace(new_spec(), environment_id=environment)
    assert await runtime.create(spec) == found.ref
    assert state_of(runtime, found.ref).init == before


async def test_after_a_reboot_nothing_is_adopted(runtime, monkeypatch, tmp_path):
    spec = new_spec()
    ref = await runtime.create(spec)
    old = state_of(runtime, ref)
    other_boot = tmp_path / "boot_id"
    other_boot.write_text(f"{uuid4()}\n")
    async with await anyio.open_process(["sleep", "600"]) as stranger:
        try:
            # What has the number after the reboot is somebody else.
            identity = _local_process.Identity.of(stranger.pid)
            folder = runtime._folders.state(spec.environment_id)
            write_state(folder, replace(old, init=identity, helpers=()))

            with monkeypatch.context() as patch:
                patch.setattr(_local_process, "BOOT_ID", other_boot)
                assert await runtime.inspect(ref) is SandboxState.STOPPED
                with pytest.raises(SandboxGone):
                    await runtime.run(ref, ["true"])
                await runtime.stop(ref)

            assert stranger.returncode is None
        finally:
            stranger.kill()
    for one in (old.init, *old.helpers):
        assert one is not None
        assert one.end(5)


async def test_what_a_server_started_and_never_wrote_down_ends_with_the_next_start(
    runtime,
):
    spec = new_spec()
    ref = await runtime.create(spec)
    lost = state_of(runtime, ref)
    assert lost.init is not None
    write_state(runtime._folders.state(spec.environment_id), replace(lost, init=None, helpers=()))

    assert await runtime.create(spec) == ref

    assert not any(one.alive() for one in (lost.init, *lost.helpers))
    assert await runtime.inspect(ref) is SandboxState.RUNNING


async def test_what_a_server_started_and_never_wrote_down_ends_with_its_removal(runtime):
    spec = new_spec()
    ref = await runtime.create(spec)
    lost = state_of(runtime, ref)
    assert lost.init is not None
    write_state(runtime._folders.state(spec.environment_id), replace(lost, init=None, helpers=()))

    await runtime.remove(spec, storage=True)

    assert not any(one.alive() for one in (lost.init, *lost.helpers))


async def test_a_number_that_is_anothers_by_now_is_neither_adopted_nor_ended(runtime):
    spec = new_spec()
    ref = await runtime.create(spec)
    state = state_of(runtime, ref)
    for one in (state.init, *state.helpers):
        assert one is not None
        assert one.end(5)
    assert state.init is not None
    async with await anyio.open_process(["sleep", "600"]) as stranger:
        try:
            identity = replace(state.init, pid=stranger.pid)
            folder = runtime._folders.state(spec.environment_id)
            write_state(folder, replace(state, init=identity, helpers=()))

            assert await runtime.inspect(ref) is SandboxState.STOPPED
            assert await runtime.create(spec) == ref
            assert await runtime.inspect(ref) is SandboxState.RUNNING
            assert stranger.returncode is None
        finally:
            stranger.kill()


async def test_a_sandbox_that_was_killed_leaves_nothing_beside_it(runtime):
    ref = await runtime.create(new_spec())
    state = state_of(runtime, ref)
    assert state.init is not None
    state.init.end(5)

    (found,) = await runtime.list()

    assert found.state is SandboxState.STOPPED
    await until(lambda: not any(one.alive() for one in state.helpers), "its helpers are gone")
    assert await runtime.create(replace(new_spec(), environment_id=UUID(ref.id))) == ref


async def test_another_installations_sandbox_is_not_seen(runtime, folder):
    ref = await runtime.create(new_spec())
    stranger = runtime_in(folder, secrets.token_hex(16))

    assert await stranger.list() == []
    assert await stranger.inspect(ref) is SandboxState.GONE
    await stranger.stop(ref)
    assert await runtime.inspect(ref) is SandboxState.RUNNING


async def test_the_state_is_readable_by_the_server_alone(runtime):
    ref = await runtime.create(new_spec())
    folder = runtime._folders.state(UUID(ref.id))

    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "state.json").stat().st_mode & 0o777 == 0o600
    assert json.loads((folder / "state.json").read_text())["environment_id"] == ref.id


# ---- hosts that lack something --------------------------------------------------------------


async def test_without_pasta_a_sandbox_is_refused(folder, monkeypatch):
    runtime = runtime_in(folder, secrets.token_hex(16))

    def without_pasta(name: str) -> str | None:
        return None if name == "pasta" else name

    monkeypatch.setattr("craftastic.runtimes._local_check.tool", without_pasta)

    with pytest.raises(RuntimeUnavailable, match="pasta is not installed"):
        await runtime.create(new_spec())


async def test_with_the_hosts_network_what_is_open_is_said(folder):
    if os.geteuid() != 0:
        missing("the firewall is tested as root")
    runtime = runtime_in(folder, secrets.token_hex(16), local_share_network=True)
    spec = new_spec()
    try:
        ref = await runtime.create(spec)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            ask = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1); print(1)"

            # The firewall's rules are by user, and hold on the host's own network too.
            assert not await _prints(runtime, ref, ask)
        await Firewall().remove(chain=runtime._chain, hook="OUTPUT")
        assert any("127.0.0.1" in one for one in (await runtime.isolation(ref)).open)
    finally:
        await runtime.remove(spec, storage=True)
        for ipv6 in (False, True):
            await Firewall().remove(chain=runtime._chain, hook="OUTPUT", ipv6=ipv6)


def test_a_server_that_is_not_root_makes_sandboxes_for_one_user_and_says_what_is_open(folder):
    if os.geteuid() != 0:
        missing("becoming another user needs root")
    tun = Path("/dev/net/tun")
    if not tun.exists() or tun.stat().st_mode & 0o666 != 0o666:
        missing("the tunnel device is closed to unprivileged users")
    own = folder / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    # An interpreter, and its packages, that any user may read.
    code = folder / "code"
    for source in (ROOT / "src", *(Path(one) for one in sys.path if one.endswith("site-packages"))):
        shutil.copytree(source, code, dirs_exist_ok=True, ignore=shutil.ignore_patterns("nodejs*"))
    argv = ["/usr/bin/python3", "-c", STARTER, str(own), "b" * 32, str(UID_BASE), str(uuid4())]

    done = subprocess.run(
        [*argv, "stay"], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True,
        text=True, check=False, cwd="/", timeout=120,
        env={"PYTHONPATH": str(code), "PATH": "/usr/bin:/bin", "HOME": str(own)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "True dev"
    assert second.startswith("True")


async def test_a_sandbox_that_was_removed_leaves_no_dead_process(runtime):
    spec, began = new_spec(), time.time() - 1
    await runtime.create(spec)
    ours = [one for one in psutil.Process().children() if one.create_time() >= began]
    await runtime.remove(spec, storage=True)

    async def all_gone() -> bool:
        await runtime.list()  # as the reconciler does, over and over
        return not any(psutil.pid_exists(one.pid) for one in ours)

    await until(all_gone, "the sandbox's processes are taken note of")
    assert ours
