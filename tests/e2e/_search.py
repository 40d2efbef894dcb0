"""Looks for secrets in all that a sandbox, its user and the server's operator can come to see."""

import base64
import contextlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.conftest import PostgresServer

PAUSE_S = 0.1


def forms(secret: str) -> set[bytes]:
    """Return how a secret may stand in something: as it is, in base64 at any place, in hex."""
    raw = secret.encode()
    found = {raw, raw.hex().encode()}
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
        # The first and the last characters also depend on what stands beside the secret.
        core = encoded[-(-shift * 8 // 6) : -2]
        found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


def places_of(secrets: Iterable[str], evidence: Mapping[str, bytes]) -> dict[str, set[str]]:
    """Return for each secret the names of the pieces of evidence that it is in."""
    return {
        secret: {
            place
            for place, content in evidence.items()
            if any(form in content for form in forms(secret))
        }
        for secret in secrets
    }


def files_of(folder: Path, *, without: Iterable[Path] = ()) -> dict[str, bytes]:
    """Read every file below a folder, with its name and where links lead; nothing is followed."""
    left_out = set(without)
    found: dict[str, bytes] = {}
    for root, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(root, name)
            if path in left_out:
                continue
            content = os.fsencode(path)
            if path.is_symlink():
                content += os.fsencode(path.readlink())
            elif path.is_file():
                with contextlib.suppress(FileNotFoundError):  # what runs there goes on working
                    content += b"\n" + path.read_bytes()
            found[f"file {path.relative_to(folder)}"] = content
    return found


def members_of(archive: bytes) -> dict[str, bytes]:
    """Read every file of a tar archive."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            content = b"" if file is None else file.read()
            found[f"memory /{member.name}"] = (
                f"{member.name} {member.linkname}\n".encode() + content
            )
    return found


def dump_of(url: str, postgres: PostgresServer | None) -> bytes:
    """Return a whole database as text or bytes, with what SQLite keeps beside its file."""
    if postgres is None:
        file = Path(url.removeprefix("sqlite:///"))
        return b"".join(one.read_bytes() for one in file.parent.glob(f"{file.name}*"))
    program, name = str(postgres.binaries / "pg_dump"), url.rpartition("/")[2]
    command = [program, "--inserts", *postgres._address, name]
    return subprocess.run(command, capture_output=True, check=True).stdout


def shown_by_docker(containers: Iterable[str]) -> dict[str, bytes]:
    """Return what the engine tells of containers, and their logs."""
    found: dict[str, bytes] = {}
    for container in containers:
        for what in ("inspect", "logs", "diff"):
            done = subprocess.run(["docker", what, container], capture_output=True, check=True)
            found[f"docker {what} {container[:12]}"] = done.stdout + done.stderr
    return found


def exported(container: str, secrets: Iterable[str], scratch: Path) -> set[str]:
    """Return which secrets are in a container's own file system, whose export is large."""
    wanted = {secret: forms(secret) for secret in secrets}
    patterns = scratch / "patterns"
    patterns.write_bytes(b"\n".join(form for some in wanted.values() for form in some))
    with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
        grep = subprocess.run(
            ["grep", "--text", "--only-matching", "--fixed-strings", "-f", str(patterns)],
            stdin=export.stdout,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            capture_output=True,
            check=False,
        )
    assert (export.returncode, grep.stderr) == (0, b"")
    found = set(grep.stdout.splitlines())
    return {secret for secret, some in wanted.items() if some & found}


@dataclass
class HostWatch:
    """Keeps the environments and command lines of a server's processes, as root sees them.

    Those are what the server starts, and what runs as the users of its sandboxes.

    Args:
        server: Its process.
        users: The range of its sandboxes' users.
    """

    server: int
    users: range
    seen: dict[str, set[bytes]] = field(
        default_factory=lambda: {"environ": set(), "cmdline": set()}
    )
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._ended.set()
        assert self._thread is not None
        self._thread.join(10)

    def evidence(self) -> dict[str, bytes]:
        return {f"host {kind}": b"\n".join(tuple(some)) for kind, some in self.seen.items()}

    def _watch(self) -> None:
        while not self._ended.wait(PAUSE_S):
            for process in self._processes():
                for kind, seen in self.seen.items():
                    with contextlib.suppress(OSError):
                        seen.add((process / kind).read_bytes())

    def _processes(self) -> Iterator[Path]:
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and entry.stat().st_uid in self.users:
                    yield entry
        with contextlib.suppress(psutil.Error):
            server = psutil.Process(self.server)
            for process in (server, *server.children(recursive=True)):
                yield Path("/proc", str(process.pid))
