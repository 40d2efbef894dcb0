"""Runs inside the sandbox: a tmux control client, and beside it the pane's raw bytes.

The text of this file is the argument of `python3 -I -S -c`; it imports nothing of the project and
only those parts of the standard library that load in no time. The control client inherits standard
input and output, or one connection to the socket that the variable `LINK` names, and the frames
have another. The pane's bytes go to standard error, or there, in frames: kind, generation, length,
bytes, line feed. They come from tmux's own end of the pipe: the command that `pipe-pane` starts
hands it over through the socket `give` and is gone (`_pane.GIVE`). A reader that is slow or stopped
costs at most `LIMIT` bytes: beyond it the pipe is ended, so tmux never buffers. Whoever writes a
byte to the fifo `mark` gets a frame that comes after everything that tmux had written by then.
"""

# Loading pathlib would take longer than everything else together.
# ruff: noqa: PTH102, PTH104, PTH106, PTH108, PTH118, PTH208

import _socket
import fcntl
import os
import select
import struct
import sys
import time

HEADER = struct.Struct("!BII")
HELLO, DATA, BEGIN, END, EXIT, MARK = 1, 2, 3, 4, 5, 6
F_SETPIPE_SZ = 1031
"""Source: linux/fcntl.h; Python's name for it is newer than the oldest that a sandbox may have."""
LIMIT = 4 << 20
CHUNK = 64 << 10
COLLECT_S = 0.002
COLLECTED = 256 << 10
"""Under load the pipe is read so seldom, and so much at a time: tmux writes 4 KiB at a time, and a
wake of everybody on the way for each would cost several times what the bytes do."""
LAST = b"\n"  # of every frame: a carrier that looks for an end mark holds no NUL back
PREFIX = "pane."
LINK = "CRAFTASTIC_LINK"
CONNECT_S = 2.0


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
    """tmux's pipes on one side, standard error on the other, and what waits between them."""

    def __init__(self, folder: str, out: int) -> None:
        self.out = out
        self.waiting: list[memoryview] = []
        self.size = 0
        self.pipes: list[tuple[int, int]] = []  # generation and descriptor; the first is read
        self.read_at = 0.0
        self.is_busy = False
        self.give = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        home = os.open(".", os.O_PATH | os.O_CLOEXEC)
        os.chdir(folder)  # a socket's whole path may be 107 bytes long
        self.give.bind("give")
        os.fchdir(home)
        os.close(home)
        self.give.setblocking(False)
        path = os.path.join(folder, "mark")
        os.mkfifo(path, 0o600)
        self.mark = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(out, False)
        try:  # noqa: SIM105 - importing contextlib takes longer
            fcntl.fcntl(out, F_SETPIPE_SZ, COLLECTED)
        except OSError:
            pass  # it is no pipe, or the user has too many large ones

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

    def finish(self) -> None:
        """Write what waits; a reader that takes nothing for a second is given up."""
        poller = select.poll()
        poller.register(self.out, select.POLLOUT)
        self.flush()
        while self.waiting and poller.poll(1000):
            self.flush()

    def take(self) -> None:
        """Take the ends of pipes that are handed over; one follows the other."""
        size = struct.calcsize("i")
        while True:
            try:
                name, control, _, _ = self.give.recvmsg(16, _socket.CMSG_SPACE(4 * size))
            except BlockingIOError:
                return
            fds = [fd for _, _, data in control for (fd,) in struct.iter_unpack("i", data)]
            if len(fds) != 1 or not name.isdigit():
                for fd in fds:
                    os.close(fd)
                continue
            os.set_blocking(fds[0], False)
            self.pipes.append((int(name), fds[0]))
            if len(self.pipes) == 1:
                self.put(BEGIN, int(name))

    def end(self, reason: bytes) -> None:
        generation, fd = self.pipes.pop(0)
        os.close(fd)
        self.put(END, generation, reason)
        if self.pipes:
            self.put(BEGIN, self.pipes[0][0])

    def read(self, limit: int) -> bool:
        """Read once from the pipe; False when there is nothing now."""
        generation, fd = self.pipes[0]
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.end(b"closed")
            return False
        self.put(DATA, generation, data)
        if self.size > limit:
            self.end(b"overflow")
        return True

    def drain(self) -> None:
        """Read what is there; note whether it comes without a pause."""
        now = time.monotonic()
        self.is_busy, self.read_at = now - self.read_at < COLLECT_S, now
        enough = self.size + COLLECTED
        while self.pipes and self.size < enough and self.read(LIMIT):
            if not self.is_busy:
                return

    def rest(self) -> None:
        """Let bytes collect for a moment, and write meanwhile what the reader takes."""
        end = time.monotonic() + COLLECT_S
        while (left := end - time.monotonic()) > 0:
            if not self.waiting:
                time.sleep(left)
            elif select.select([], [self.out], [], left)[1]:
                self.flush()

    def work(self, ready: dict[int, int]) -> None:
        if self.give.fileno() in ready:
            self.take()
        self.is_busy = False
        if self.pipes and self.pipes[0][1] in ready:
            self.drain()
        if self.mark in ready:
            self.answer()

    def answer(self) -> None:
        """Read everything that tmux has written, then say so."""
        if os.read(self.mark, CHUNK):
            while self.pipes and self.read(LIMIT):
                pass
            self.put(MARK, self.pipes[0][0] if self.pipes else 0)


def watch(poller: select.poll, old: dict[int, int], new: dict[int, int]) -> None:
    for fd in old.keys() - new.keys():
        poller.unregister(fd)
    for fd, mask in new.items():
        poller.register(fd, mask)


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


def serve(pump: Pump, child: int, errors: int) -> None:
    """Carry bytes until the control client has ended or the reader of the frames is gone."""
    message = b""
    poller = select.poll()
    watched: dict[int, int] = {}
    while True:
        wanted = dict.fromkeys((errors, pump.give.fileno(), pump.mark), select.POLLIN)
        wanted.update((fd, select.POLLIN) for _, fd in pump.pipes[:1])
        wanted[pump.out] = select.POLLOUT if pump.waiting else 0
        if wanted != watched:
            watch(poller, watched, wanted)
            watched = wanted
        ready = dict(poller.poll())
        if ready.get(pump.out, 0) & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
            return
        if errors in ready:
            data = os.read(errors, CHUNK)
            if not data:
                pump.put(EXIT, exit_code(child), message)
                pump.finish()
                return
            message = (message + data)[-1000:]
        pump.work(ready)
        pump.flush()
        if pump.is_busy:
            pump.rest()


def connect(path: str) -> int:
    """Bring the streams to the server's socket; return where the frames go.

    Without it, or when it does not answer, everything stays with standard input and outputs.
    """
    control, frames = _socket.socket(_socket.AF_UNIX), _socket.socket(_socket.AF_UNIX)
    try:
        for one, kind in ((control, b"c"), (frames, b"f")):
            one.settimeout(CONNECT_S)
            one.connect(path)
            one.sendall(kind)
            one.setblocking(True)
    except OSError:
        control.close()
        frames.close()
        return 2
    os.dup2(control.fileno(), 0)
    os.dup2(control.fileno(), 1)
    control.close()
    return frames.detach()


def main(run_dir: str, *command: str) -> None:
    link = os.environ.pop(LINK, "")  # noqa: TID251 - the sandbox's, not the server's
    remove_stale(run_dir)
    name = f"{os.getpid()}.{os.urandom(4).hex()}"
    folder, draft = os.path.join(run_dir, PREFIX + name), os.path.join(run_dir, f"new.{name}")
    os.mkdir(draft, 0o700)
    try:
        lock = os.open(os.path.join(draft, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(draft, folder)  # under its own name only once it is locked
        pump = Pump(folder, connect(link) if link else 2)
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
    except (BrokenPipeError, ConnectionResetError):
        return  # the reader of the frames is gone
    except OSError as error:
        text = str(error).encode()
        os.write(2, HEADER.pack(EXIT, 0, len(text)) + text + LAST)
    finally:
        remove(folder)
        remove(draft)


if __name__ == "__main__":
    main(*sys.argv[1:])
