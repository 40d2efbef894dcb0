"""What stands between a server and its Docker engine, and an engine of a test's own.

A second engine beside the machine's would take its bridge away, so the test's own one lives in
network and mount namespaces of its own, and so does everything that talks to its containers.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

import anyio

from craftastic.runtimes._docker_engine import engine_url
from tests.fakes.git_http_server import GitHttpServer
from tests.leaks import MARK_NAME, RUN

CLONE_NEWNET = 0x40000000
"""Source: linux/sched.h."""

UP_S = 60.0
IMAGE = "craftastic-fault:latest"
"""An operator's own image, as any that is not called craftastic-sandbox is."""

LEFT_OUT = (
    "./opt", "./proc", "./sys", "./usr/include", "./usr/lib/gcc", "./usr/lib/python3.11/config-*",
    "./usr/libexec/valgrind", "./usr/bin/*lto-dump*", "./usr/share/doc", "./usr/share/i18n",
    "./usr/share/locale", "./usr/share/vim", "./var",
)  # fmt: skip
"""No test of a fault needs it, and copying it takes its time."""


class Wire(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """What stands between the server and the machine's engine; everything passes at first.

    Args:
        path: Of the socket that the server knows.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Carry)
        self.may_pass = threading.Event()
        self.may_pass.set()
        self.without_events = False
        self.refused_events = 0

    def stall(self) -> None:
        """Take calls and whatever is sent, and pass nothing on."""
        self.may_pass.clear()

    def release(self) -> None:
        """Pass on what was held, and what comes."""
        self.may_pass.set()


class Carry(socketserver.BaseRequestHandler):
    """One connection, passed on both ways."""

    def handle(self) -> None:
        wire, near = cast("Wire", self.server), cast("socket.socket", self.request)
        with socket.socket(socket.AF_UNIX) as far:
            far.connect(engine_url(None).removeprefix("unix://"))
            back = threading.Thread(target=self._copied, args=(far, near), daemon=True)
            back.start()
            self._copied(near, far)
            if wire.without_events:
                with contextlib.suppress(OSError):
                    far.shutdown(socket.SHUT_RDWR)
            back.join()

    def _copied(self, source: socket.socket, target: socket.socket) -> None:
        """Copy what comes, with its end."""
        wire = cast("Wire", self.server)
        with contextlib.suppress(OSError):
            while got := source.recv(65536):
                wire.may_pass.wait()
                if wire.without_events and got.startswith(b"GET ") and b"/events?" in got[:64]:
                    wire.refused_events += 1
                    break
                target.sendall(got)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def wired(folder: Path) -> Generator[Wire]:
    """Put a wire in front of the machine's engine."""
    path = folder / "engine.sock"
    with Wire(path) as wire:
        thread = threading.Thread(target=wire.serve_forever, daemon=True)
        thread.start()
        try:
            yield wire
        finally:
            wire.release()
            wire.shutdown()
            path.unlink(missing_ok=True)


@contextmanager
def small_upstream(root: Path) -> Generator[str]:
    """Serve a repository of one commit with two branches: nobody waits long for its clone."""
    git = ["git", "-C", str(root / "work"), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    bare = root / "small.git"
    for argv in (
        ["git", "init", "-q", "-b", "main", str(root / "work")],
        [*git, "commit", "-q", "--allow-empty", "-m", "first"],
        [*git, "branch", "topic"],
        ["git", "clone", "-q", "--bare", str(root / "work"), str(bare)],
    ):
        subprocess.run(argv, check=True, timeout=60)
    with GitHttpServer(root) as server:
        yield server.url("small.git")


class OwnEngine:
    """A Docker engine of a test's own, in namespaces of its own.

    Args:
        folder: Where everything of it is; on a file system that overlays can be on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/docker.sock"
        self._holder: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # The namespaces live as long as this process: containers outlive the engine in them.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c",
             "ip link set lo up && echo up && exec sleep infinity"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"up\n"
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self.configure(live_restore=False)
            containers = self._tried("ps", "--all", "--quiet").stdout.split()
            self._tried("rm", "--force", *containers)
        self.stop()
        assert self._holder is not None
        assert self._holder.stdout is not None
        self._holder.stdout.close()
        self._holder.kill()
        self._holder.wait(10)

    def configure(self, *, live_restore: bool) -> None:
        """Say what becomes of containers when the engine ends; it runs after that."""
        (self.folder / "daemon.json").write_text(json.dumps({"live-restore": live_restore}))
        if self._daemon is None:
            self.start()
        else:
            self._daemon.send_signal(signal.SIGHUP)

    def start(self) -> None:
        """Start the engine, and wait until it answers."""
        with (self.folder / "engine.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [
                    *self._inside(), "dockerd",
                    "--config-file", f"{self.folder}/daemon.json",
                    "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec",
                    "--pidfile", f"{self.folder}/docker.pid", "--host", self.address,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + UP_S
        while self._tried("version").returncode != 0:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "engine.log").read_text()[-3000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """End the engine as an upgrade of its package does, and wait for that."""
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(UP_S)
            self._daemon = None

    def bring_image(self, name: str) -> None:
        """Make the image of the machine's engine known here, without what no test needs."""
        pack = [
            "docker", "run", "--rm", "--network", "none", "--user", "root", "--log-driver", "none",
            "--entrypoint", "tar", name, "-C", "/", "-c", "--one-file-system",
            *(f"--exclude={one}" for one in LEFT_OUT), ".",
        ]  # fmt: skip
        with subprocess.Popen(pack, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as packing:
            done = subprocess.run(
                ["docker", "import", "-", IMAGE],
                env=self._environment(),
                stdin=packing.stdout,
                capture_output=True,
                check=False,
                timeout=300,
            )
        assert done.returncode == 0, done.stderr

    def inside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run async work in a thread that is in the engine's network, as all it starts will be."""
        failures: list[BaseException] = []
        holder = self._holder
        assert holder is not None

        def run() -> None:
            try:
                with Path(f"/proc/{holder.pid}/ns/net").open("rb") as network:
                    entered = ctypes.CDLL(None).setns(network.fileno(), CLONE_NEWNET)
                assert entered == 0
                anyio.run(work)
            except BaseException as error:  # noqa: BLE001 - raised again by the caller
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    def _inside(self) -> list[str]:
        assert self._holder is not None
        return ["nsenter", "--target", str(self._holder.pid), "--net", "--mount"]

    def _tried(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *argv],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=UP_S,
        )

    def _environment(self) -> dict[str, str]:
        path = os.environ["PATH"]  # noqa: TID251 - where the machine's programs are
        return {
            "PATH": path,
            "HOME": str(self.folder),
            "DOCKER_HOST": self.address,
            MARK_NAME: RUN.mark,
        }
