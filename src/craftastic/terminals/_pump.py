"""Runs inside the sandbox: a tmux control client, and beside it the pane's raw bytes.

The text of this file is the argument of `python3 -I -S -c`; it imports nothing of the project and
only those parts of the standard library that load in no time. The control client inherits standard
input and output. The pane's bytes come through fifos that `pipe-pane` writes (one for each
generation of the pipe, made ahead) and go to standard error in frames: kind, generation, length,
bytes, line feed. A reader that is slow or stopped costs at most `LIMIT` bytes: beyond it the pipe is ended, so
tmux never buffers.
"""

# Loading pathlib would take longer than everything else together.
# ruff: noqa: PTH102, PTH106, PTH108, PTH118, PTH208

import fcntl
import os
import select
import struct
import sys

HEADER = struct.Struct("!BII")
HELLO, DATA, BEGIN, END, EXIT = 1, 2, 3, 4, 5
LIMIT = 4 << 20
CHUNK = 64 << 10
LAST = b"\n"  # of every frame: a carrier that looks for an end mark holds no NUL back
AHEAD = 4
PREFIX = "pane."


def remove_stale(run_dir: str) -> None:
    """Remove the folders of pumps that were killed: nobody holds their locks."""
    for name in os.listdir(run_dir):
        if not name.startswith(PREFIX):
            continue
        folder = os.path.join(run_dir, name)
        try:
            lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
        except OSError:
            continue
        finally:
            os.close(lock)


def remove(folder: str) -> None:
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except OSError:
        return  # somebody else was faster, or put something there


class Pump:
    """The fifos on one side, standard error on the other, and what waits between them."""

    def __init__(self, folder: str, out: int) -> None:
        self.folder = folder
        self.out = out
        self.waiting: list[memoryview] = []
        self.size = 0
        self.fifos: dict[int, int] = {}
        self.made = 0
        self.active = 0  # generation that is being read, 0 while none is
        self.begun = False
        os.set_blocking(out, False)

    def make_ahead(self) -> None:
        while self.made < self.active + AHEAD:
            self.made += 1
            path = os.path.join(self.folder, str(self.made))
            os.mkfifo(path, 0o600)
            self.fifos[self.made] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def put(self, kind: int, generation: int, data: bytes = b"") -> None:
        frame = HEADER.pack(kind, generation, len(data)) + data + LAST
        self.waiting.append(memoryview(frame))
        self.size += len(frame)

    def flush(self) -> None:
        """Write what the reader takes now.

        Raises:
            OSError: The reader is gone.
        """
        while self.waiting:
            try:
                count = os.write(self.out, self.waiting[0])
            except BlockingIOError:
                return
            self.size -= count
            if count == len(self.waiting[0]):
                del self.waiting[0]
            else:
                self.waiting[0] = self.waiting[0][count:]

    def start(self, generation: int) -> None:
        """Take this generation as the one to read; older ones that never began are dropped."""
        for older in [number for number in self.fifos if number < generation]:
            self.drop(older)
        self.active, self.begun = generation, False
        self.make_ahead()

    def drop(self, generation: int) -> None:
        os.close(self.fifos.pop(generation))
        os.unlink(os.path.join(self.folder, str(generation)))

    def end(self, reason: bytes) -> None:
        self.put(END, self.active, reason)
        self.drop(self.active)
        self.active, self.begun = 0, False

    def readable(self) -> list[int]:
        """Return the descriptors to wait for: one pipe at a time, so their order is kept."""
        if self.active:
            return [self.fifos[self.active]]
        return list(self.fifos.values())

    def read(self, fd: int) -> None:
        generation = next(number for number, one in self.fifos.items() if one == fd)
        if generation != self.active:
            self.start(generation)
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.end(b"closed")
            return
        if not self.begun:  # the first byte only tells that the pipe is there
            self.begun = True
            self.put(BEGIN, generation)
            data = data[1:]
        if data:
            self.put(DATA, generation, data)
        if self.size > LIMIT:
            self.end(b"overflow")


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


def serve(pump: Pump, child: int, errors: int) -> None:
    """Carry bytes until the control client has ended or the reader of the frames is gone."""
    message = b""
    poller = select.poll()
    watched: dict[int, int] = {}
    while True:
        wanted = dict.fromkeys([errors, *pump.readable()], select.POLLIN)
        wanted[pump.out] = select.POLLOUT if pump.waiting else 0
        if wanted != watched:
            for fd in watched.keys() - wanted.keys():
                poller.unregister(fd)
            for fd, mask in wanted.items():
                poller.register(fd, mask)
            watched = wanted
        ready = dict(poller.poll())
        if ready.get(pump.out, 0) & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
            return
        if errors in ready:
            data = os.read(errors, CHUNK)
            if not data:
                pump.put(EXIT, exit_code(child), message)
                os.set_blocking(pump.out, True)
                pump.flush()
                return
            message = (message + data)[-1000:]
        # The lowest generation first: a newer one is looked at when the older has ended.
        for _, fd in sorted((number, fd) for number, fd in pump.fifos.items() if fd in ready):
            if fd in pump.readable():
                pump.read(fd)
        pump.flush()


def main(run_dir: str, *command: str) -> None:
    remove_stale(run_dir)
    name = f"{os.getpid()}.{os.urandom(6).hex()}"
    folder, draft = os.path.join(run_dir, PREFIX + name), os.path.join(run_dir, f"new.{name}")
    os.mkdir(draft, 0o700)
    try:
        lock = os.open(os.path.join(draft, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(draft, folder)  # under its own name only once it is locked
        pump = Pump(folder, 2)
        pump.make_ahead()
        pump.put(HELLO, 0, folder.encode())
        errors, client_errors = os.pipe()
        child = os.posix_spawnp(
            command[0],
            command,
            os.environ,  # noqa: TID251 - the sandbox's, not the server's
            file_actions=[(os.POSIX_SPAWN_DUP2, client_errors, 2)],
        )
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nothing, 0)  # only the client holds them, so their ends are its ends
        os.dup2(nothing, 1)
        os.close(client_errors)
        pump.flush()
        serve(pump, child, errors)
    except OSError:
        return  # the reader of the frames is gone
    finally:
        remove(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
