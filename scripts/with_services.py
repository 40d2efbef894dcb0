"""Run a command with the services that the tests need, and end all that it started.

    python scripts/with_services.py [--image] COMMAND [ARGUMENT …]

A Docker engine that answers is used and left alone. Where none answers and this runs as root with
`dockerd` installed, one is started for the time of the command. With `--image` the sandbox image is
built first. PostgreSQL is not here: the tests start servers of their own.

Every process that loses its parent meanwhile (a daemon, a sandbox that a test left behind)
becomes a child of this one, is reaped when it ends, and is ended with the command. The exit code
is the command's; where it left processes behind, these are named, and 0 becomes 1.
"""

import contextlib
import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
DOCKER_LOG = CACHE / "dockerd.log"
DOCKER_START_TIMEOUT_S = 60.0
DOCKER_END_TIMEOUT_S = 45.0
IMAGE_TIMEOUT_S = 1200.0
END_TIMEOUT_S = 5.0
PR_SET_CHILD_SUBREAPER = 36
"""Source: linux/prctl.h."""

# Sandboxes must trust whom the host trusts, or nothing can be fetched where a proxy inspects TLS.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")

ended: dict[int, int] = {}
"""Exit codes of the children that were reaped."""


def say(text: str) -> None:
    print(f"craftastic: {text}", file=sys.stderr, flush=True)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(*, block: bool) -> bool:
    """Reap children that have ended; tell whether any child is left."""
    while True:
        try:
            pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        ended[pid] = os.waitstatus_to_exitcode(status)
        if block:
            return True


def wait_for(pid: int, timeout_s: float | None = None) -> int | None:
    """Wait for one child and reap all others meanwhile; None when the time is over."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while pid not in ended and reap(block=deadline is None) and pid not in ended:
        if deadline is not None:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    return ended.get(pid)


def descendants() -> list[int]:
    """List every living process below this one, the nearest first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    nearest = [os.getpid()]
    while nearest:
        nearest = [child for parent in nearest for child in children.get(parent, [])]
        found += nearest
    return found


def left_behind() -> list[str]:
    """Name the processes that are still there a while after the command has ended."""
    deadline = time.monotonic() + END_TIMEOUT_S
    while reap(block=False) and (left := descendants()):
        if time.monotonic() > deadline:
            return [f"{pid} {command_line(pid)}" for pid in left]
        time.sleep(0.05)
    return []


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        return words.decode(errors="replace").strip()[:120]
    return "(ended)"


def end_descendants() -> None:
    """End all that is left below this process: asked first, then without asking."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + END_TIMEOUT_S
        told: set[int] = set()
        while (left := descendants()) and time.monotonic() < deadline:
            for pid in left:
                if pid not in told:
                    told.add(pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, sign)
            reap(block=False)
            time.sleep(0.05)
        reap(block=False)
    if left := descendants():
        say(f"these processes could not be ended: {left}")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def engine_address() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"  # noqa: TID251


def engine_answers() -> bool:
    """Ask the engine that DOCKER_HOST names, or the usual socket's, whether it is there."""
    kind, _, place = engine_address().rpartition("://")
    connection = (
        http.client.HTTPConnection(place, timeout=5) if kind == "tcp" else _UnixConnection(place)
    )
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def start(argv: list[str], **options: object) -> int:
    """Start a child and return its pid; `reap` waits for it, not Popen."""
    process = subprocess.Popen(argv, **options)  # type: ignore[call-overload]
    process.returncode = 0  # reaped here: keep Popen from waiting for it a second time
    return process.pid


def start_engine() -> int | None:
    """Start a Docker engine where none answers; return its pid, or None when there is none."""
    if engine_answers():
        return None
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"  # noqa: TID251
    dockerd = shutil.which("dockerd", path=path)
    address = engine_address()
    if dockerd is None or os.geteuid() != 0 or not address.startswith("unix://"):
        say("no Docker engine answers and none can be started; going on without Docker")
        return None
    say(f"starting a Docker engine for the time of the tests (log: {DOCKER_LOG})")
    os.environ["PATH"] = path  # noqa: TID251 - dockerd looks for iptables on it
    with DOCKER_LOG.open("wb") as log:
        pid = start(
            [dockerd, "--host", address],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tests; this ends after them
        )
    deadline = time.monotonic() + DOCKER_START_TIMEOUT_S
    while not engine_answers():
        reap(block=False)
        if pid in ended or time.monotonic() > deadline:
            tail = DOCKER_LOG.read_text(errors="replace").splitlines()[-15:]
            say("the Docker engine did not start; its log ends with:\n" + "\n".join(tail))
            return None if pid in ended else pid
        time.sleep(0.2)
    return pid


def end_engine(pid: int) -> None:
    """End the engine that was started here; it ends its containers and containerd itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if wait_for(pid, DOCKER_END_TIMEOUT_S) is None:
        say("the Docker engine did not end in time")


def build_image() -> None:
    """Build the sandbox image, so that no single test has to wait for it."""
    if not engine_answers():
        return
    pid = start([str(ROOT / ".venv/bin/craftastic"), "image", "build"], cwd=ROOT)
    if wait_for(pid, IMAGE_TIMEOUT_S) != 0:
        say("`craftastic image build` failed; the tests that need the image will tell")


def main(command: list[str], *, image: bool) -> int:
    """Run the command between the start and the end of the services; return its exit code."""
    CACHE.mkdir(exist_ok=True)
    adopt_orphans()
    if AUTHORITIES.exists():
        os.environ.setdefault("CRAFTASTIC_IMAGE_CA_BUNDLE", str(AUTHORITIES))  # noqa: TID251
    running: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if not running:
            sys.exit(128 + number)
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # The terminal sends Ctrl-C to the command as well: here it must only not end the clean-up.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    signal.signal(signal.SIGTERM, forward)
    engine: int | None = None
    left: list[str] = []
    try:
        engine = start_engine()
        if image:
            build_image()
        running.append(start(command))
        code = wait_for(running[0])
    finally:
        if engine is not None:
            end_engine(engine)
        left = left_behind()
        end_descendants()
    if left:
        say("the command left processes behind, which were ended:\n" + "\n".join(left))
        code = code or 1
    # A signal's number as a shell shows it.
    return 1 if code is None else code if code >= 0 else 128 - code


if __name__ == "__main__":
    words = sys.argv[1:]
    wants_image = words[:1] == ["--image"]
    if not words[wants_image:]:
        sys.exit(__doc__)
    sys.exit(main(words[wants_image:], image=wants_image))
