"""The files that an agent's CLI finds in its home, and what the server takes back of them.

Sent to the sandbox with `_supervisor`. A login lies in memory, where a link leads from the home.
"""

import contextlib
import hashlib
import json
import os
import stat
import threading
import time
from pathlib import Path

from craftastic.agent_runs._supervisor_reports import FAULT, LATER, RETRY_S, Gateway, Json

MAX_LOGIN_BYTES = 256 << 10
LOOK_S = 2.0
LEAST_FILES = 64
IN_MEMORY = {"tmpfs", "ramfs"}


class NoMemory(Exception):
    """No place of this sandbox is in memory."""


def in_memory(folder: Path) -> bool:
    """Tell whether a folder is in a file system that no disk has. Source: proc(5), mountinfo."""
    best, kind = -1, ""
    try:
        real = str(folder.resolve(strict=True))
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # of two at one place, the later one covers the other
            best, kind = len(point), after.split(" ")[0]
    return kind in IN_MEMORY


def digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def remove(folder: Path) -> None:
    """Remove a folder and what is in it, as far as that is possible."""
    for place, folders, names in os.walk(folder, topdown=False):
        for name in names:
            with contextlib.suppress(OSError):
                (Path(place) / name).unlink()
        for name in folders:
            one = Path(place) / name
            with contextlib.suppress(OSError):
                one.unlink() if one.is_symlink() else one.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


def put(path: Path, text: bytes, mode: int) -> None:
    """Put a file in its place, whole."""
    new = path.with_name(f".{path.name}.craftastic-new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(text)
        os.fchmod(fd, mode)
    new.replace(path)


def read(path: Path) -> bytes:
    """Return the beginning of a regular file; empty where it is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(MAX_LOGIN_BYTES + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""


class Watched:
    """A file whose changes the server takes back; `was` is what the server has."""

    def __init__(self, path: str, place: Path, text: bytes) -> None:
        self.path, self.place = path, place
        self.was = self.seen = digest(text)
        self.new: bytes | None = None


class Files:
    """What the CLI finds in its home; logins are in memory, and links lead there."""

    def __init__(self, launch: Json, run_dir: str) -> None:
        self.launch = launch
        self.home = Path(launch["home"])
        self.run_dir = Path(run_dir)
        self.memory: Path | None = None
        self.alive = -1
        self.links: dict[Path, Path] = {}
        self.marks: dict[Path, tuple[int, int, int]] = {}
        self.watched: list[Watched] = []
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.done = threading.Event()

    def write(self) -> None:
        """Write every file, and make the folder that is in memory where one is needed.

        Raises:
            NoMemory: A file must be in memory, and no place is.
            OSError: One could not be written.
        """
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home.chmod(0o700)
        files = self.launch["files"]
        if any(one["memory"] for one in files):
            self.memory = self._folder()
        for number, one in enumerate(files):
            text = self.placed(one["text"]).encode()
            path = place = self.home / one["path"]
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if one["memory"] and self.memory is not None:
                place = self.memory / str(number) / path.name
                place.parent.mkdir(mode=0o700)
                put(place, text, 0o600)
                self.links[path] = place
                link(path, place)
            else:
                put(path, text, one["mode"])
            if one["take_back"]:
                self.watched.append(Watched(one["path"], place, text))

    def placed(self, text: str) -> str:
        """Return a text with the folder that is really used."""
        wanted = self.launch["memory"]
        return text if self.memory is None else text.replace(wanted, str(self.memory))

    def _folder(self) -> Path:
        wanted = Path(self.launch["memory"])
        for place in (wanted, self.run_dir / f"memory-{self.launch['session']}"):
            if in_memory(place.parent):
                remove(place)  # of a start whose sandbox was cut off
                place.mkdir(mode=0o700)
                self.alive = guard(place)
                return place
        raise NoMemory

    def run(self) -> None:
        """Look for changes until `close`, and tell every one of them even after that."""
        gateway = Gateway(self.launch["gateway"], self.launch["token"])
        while not self.stopped.wait(LOOK_S):
            with self.lock:
                self._look()
            self._tell(gateway)
        while not self._tell(gateway):
            time.sleep(RETRY_S)
        self.done.set()

    def _look(self, *, last: bool = False) -> None:
        if self.stopped.is_set():
            return
        for path, place in self.links.items():
            with contextlib.suppress(OSError):
                self._moved(path, place, last=last)
        for one in self.watched:
            text = read(one.place)
            if not text or len(text) > MAX_LOGIN_BYTES or digest(text) == one.seen:
                continue
            try:
                whole = isinstance(json.loads(text), dict)
            except (ValueError, RecursionError):
                continue  # half of it
            if whole:
                one.seen, one.new = digest(text), text

    def _moved(self, path: Path, place: Path, *, last: bool) -> None:
        """Move a file into memory that the CLI has put in the place of its link, once it rests."""
        now = path.lstat()
        mark = (now.st_ino, now.st_mtime_ns, now.st_size)
        rests = last or self.marks.get(path) == mark
        self.marks[path] = mark
        if not stat.S_ISREG(now.st_mode) or not rests:
            return
        text = read(path)
        if len(text) <= MAX_LOGIN_BYTES:
            put(place, text, 0o600)
            link(path, place)

    def _tell(self, gateway: Gateway) -> bool:
        """Tell what has changed; False where the gateway is away."""
        for one in self.watched:
            text = one.new
            if text is None:
                continue
            body = {"path": one.path, "was": one.was, "text": text.decode("utf-8", "replace")}
            status, answer = gateway.call("POST", "/files", json.dumps(body).encode())
            if status >= FAULT or status in LATER:
                return False
            if answer.get("taken") is True:
                one.was = digest(text)
            if one.new is text:
                one.new = None
        return True

    def close(self) -> None:
        """Take a last look and remove what is in memory; what is still to be told is kept here."""
        with self.lock:
            with contextlib.suppress(OSError):
                self._look(last=True)
            self.stopped.set()
            for path in self.links:
                self._unlink(path)
            self.links.clear()
            if self.memory is not None:
                remove(self.memory)
                os.close(self.alive)
                self.memory = None

    def _unlink(self, path: Path) -> None:
        """Remove a login's link or file from the home, and copies that the CLI made beside it."""
        ours = {self.home / one["path"] for one in self.launch["files"]} - self.links.keys()
        with contextlib.suppress(OSError):
            for one in list(path.parent.iterdir()):
                copy = one.name.startswith((f"{path.name}.", f".{path.name}.", f"{path.name}~"))
                if (one == path or copy) and one not in ours and not one.is_dir():
                    with contextlib.suppress(OSError):
                        one.unlink()


def link(path: Path, place: Path) -> None:
    new = path.with_name(f".{path.name}.craftastic-link")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    new.symlink_to(place)
    new.replace(path)


def guard(folder: Path) -> int:
    """Have a process of its own remove a folder when this one is gone, however that ends.

    Returns what ends that process too, when it is closed.
    """
    mark = folder.stat().st_ino
    gone, alive = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            os.closerange(0, gone)
            os.closerange(gone + 1, max(alive, LEAST_FILES) + 1)
            os.read(gone, 1)
            if folder.stat().st_ino == mark:  # else it is the next one's
                remove(folder)
        finally:
            os._exit(0)
    os.close(gone)
    return alive
