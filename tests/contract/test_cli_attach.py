"""`craftastic session attach` on a real terminal, against a server that misbehaves."""

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.fakes.terminal_server import SESSION_ID, TerminalServer, running

TIMEOUT_S = 15.0
CRAFTASTIC = (sys.executable, "-m", "craftastic")
NOTICE = "[reconnecting…]".encode()


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {TIMEOUT_S} s: {what}"
        await anyio.sleep(0.01)


class Terminal:
    """The user's terminal: a pseudo-terminal with the command line on it."""

    def __init__(
        self, server: TerminalServer, home: Path, *arguments: str, before: Sequence[str] = ()
    ) -> None:
        sign_in(server, home)
        self.master, slave = pty.openpty()
        self.slave = slave
        self.resize(100, 30)
        self.before = termios.tcgetattr(slave)
        self.shown = bytearray()
        self._held = threading.Event()
        self._held.set()
        self.process = subprocess.Popen(
            [*before, *CRAFTASTIC, "session", "attach", "work", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=clean_environment(home),
            start_new_session=True,
            preexec_fn=lambda: ioctl(slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            self._held.wait()
            try:
                if select.select([self.master], [], [], 0.05)[0]:
                    self.shown += os.read(self.master, 65536)
            except (OSError, ValueError):
                return

    def hold(self) -> None:
        """Take no more output, as after Ctrl-S."""
        self._held.clear()

    def release(self) -> None:
        self._held.set()

    def resize(self, columns: int, rows: int) -> None:
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO)

    async def ended(self) -> int:
        await until(lambda: self.process.poll() is not None, "the command ends")
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        self._held.set()
        os.close(self.slave)
        self._reader.join(2)
        os.close(self.master)


def sign_in(server: TerminalServer, home: Path) -> None:
    folder = home / ".config" / "craftastic"
    folder.mkdir(parents=True, exist_ok=True)
    contexts = {"current": server.url, "contexts": {server.url: server.context()}}
    (folder / "contexts.json").write_text(json.dumps(contexts))


def clean_environment(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],  # noqa: TID251 - a child's environment
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }


@pytest.fixture
async def server() -> AsyncIterator[TerminalServer]:
    async with running() as server:
        yield server


@pytest.fixture
def opened(server: TerminalServer, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def open_one(*arguments: str, before: Sequence[str] = ()) -> Terminal:
        terminals.append(Terminal(server, tmp_path, *arguments, before=before))
        return terminals[-1]

    yield open_one
    for terminal in terminals:
        terminal.close()


async def attached(server: TerminalServer, terminal: Terminal, shows: bytes = b"$ ") -> None:
    await until(lambda: server.connections, "the terminal attaches")
    await until(lambda: shows in terminal.shown, "the snapshot shows")


async def test_keys_arrive_and_output_shows_unchanged(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)

    terminal.type(b"ls\r\x03\x1b[A\xc3\xa9")
    await until(lambda: bytes(server.typed) == b"ls\r\x03\x1b[A\xc3\xa9", "every key arrives")
    await server.print(b"\x1b[31mred\x1b[0m \xff\x00\r\n")

    await until(lambda: b"\x1b[31mred\x1b[0m \xff\x00\r\n" in terminal.shown, "output shows")


async def test_the_size_is_told_before_anything_else_and_again_when_it_changes(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)
    assert json.loads(server.first_frames[0]) == {"type": "resize", "cols": 100, "rows": 30}

    for columns in range(81, 91):
        terminal.resize(columns, 40)
        await anyio.sleep(0.01)  # a window that is dragged

    await until(lambda: server.sizes[-1] == (90, 40), "the new size arrives")
    assert len(server.sizes) <= 6


async def test_a_lone_escape_key_arrives(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)

    terminal.type(b"\x1b")

    await until(lambda: bytes(server.typed) == b"\x1b", "the Escape key arrives")


async def test_what_the_emulator_answers_is_not_typed(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)

    terminal.type(b"a\x1b[?64;1;2c\x1b]11;rgb:0000/0000/0000\x07b")

    await until(lambda: bytes(server.typed) == b"ab", "only the keys arrive")


@pytest.mark.parametrize("keys", [b"~.", b"\x10\x11"])
async def test_detaching_gives_the_terminal_back_as_it_was(
    server: TerminalServer, opened: Callable[..., Terminal], keys: bytes
) -> None:
    server.document += b"\x1b[?1049h\x1b[?2004h$ "
    terminal = opened()
    await attached(server, terminal)
    assert terminal.is_raw

    terminal.type(keys)

    assert await terminal.ended() == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before
    await until(lambda: b"detached from project/work" in terminal.shown, "it says so")
    assert b"\x1b[?2004l\x1b[?25h\x1b[?1049l" in terminal.shown


async def test_the_last_words_stand_under_the_prompt_in_every_emulator(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    # tmux goes to where a full-screen program began, even when none is on: only the place that
    # was saved just before brings the cursor back.
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)

    terminal.type(b"~.")

    assert await terminal.ended() == 0
    await until(lambda: b"detached from project/work" in terminal.shown, "it says so")
    assert b"\x1b7\x1b[?1049l\x1b8" in terminal.shown


async def test_a_tilde_in_the_middle_of_a_line_is_a_tilde(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)

    terminal.type(b"cd ~.ssh\r~~x")

    await until(lambda: bytes(server.typed) == b"cd ~.ssh\r~x", "all of it arrives")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["TERM", "HUP"]
)
async def test_a_signal_ends_it_with_the_terminal_restored(
    server: TerminalServer, opened: Callable[..., Terminal], number: int, code: int
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)

    terminal.process.send_signal(number)

    assert await terminal.ended() == code
    assert termios.tcgetattr(terminal.slave) == terminal.before


async def test_cuts_lose_nothing_and_double_nothing(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"begin\r\n"
    terminal = opened()
    await attached(server, terminal, b"begin")
    terminal.shown.clear()

    for number in range(200):
        await server.print(f"line {number}\r\n".encode())
        if number % 20 == 10:
            server.cut()
            await until(lambda: not server.connections, "the connection is gone")
            await server.print(f"while away {number}\r\n".encode())
            await until(lambda: server.connections, "it comes back")
    await until(lambda: b"line 199" in terminal.shown, "the last line shows")

    shown = re.sub(rb"\r\x1b\[K(?:\[reconnecting\xe2\x80\xa6\]\r\x1b\[K)?", b"", terminal.shown)
    shown = shown.replace(NOTICE, b"")
    expected = bytes(server.document).removeprefix(b"begin\r\n")
    assert shown.replace(b"\r", b"") == expected.replace(b"\r", b"")
    assert server.snapshots == 1
    assert all(query["stream"] == "stream-1" for query in server.queries[1:])


async def test_the_notice_of_a_lost_connection_leaves_the_prompt_as_it_was(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"first\r\n"
    terminal = opened()
    await attached(server, terminal, b"first")
    await server.print(b"\x1b[32mme\x1b[0m$ half")
    await until(lambda: b"half" in terminal.shown, "the prompt shows")
    terminal.shown.clear()

    server.cut()
    await until(lambda: b"half" in terminal.shown, "the prompt is written again")

    assert bytes(terminal.shown) == (
        b"\r\x1b[K" + NOTICE + b"\r\x1b[K" + b"\x1b[32mme\x1b[0m$ half"
    )


async def test_nothing_is_drawn_over_a_full_screen_program(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"\x1b[?1049hfull"
    terminal = opened()
    await attached(server, terminal, b"full")

    server.cut()
    await until(lambda: len(server.queries) > 1 and server.connections, "it comes back")
    await server.print(b"more")
    await until(lambda: b"more" in terminal.shown, "output goes on")

    assert NOTICE not in terminal.shown


async def test_keys_typed_without_a_connection_are_sent_when_it_is_back(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)
    server.refuse = (1012, "Server is restarting")
    await server.close(1012, "Server is restarting")
    await until(lambda: NOTICE in terminal.shown, "the loss shows")

    terminal.type(b"kept\r")
    await until(lambda: len(server.queries) > 2, "it tries again")
    server.refuse = None

    await until(lambda: bytes(server.typed) == b"kept\r", "what was typed arrives")
    assert not server.lost


async def test_detaching_works_without_a_connection(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)
    server.refuse = (1013, "Too many terminals")
    server.cut()
    await until(lambda: len(server.queries) > 1, "it tries again")

    terminal.type(b"\r~.")

    assert await terminal.ended() == 0


async def test_the_end_of_the_session_ends_the_client(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)

    await server.print(b"logout\r\n")
    await server.send({"type": "exit"})
    await server.close(1000, "Terminal session ended")

    assert await terminal.ended() == 0
    await until(lambda: b"logout" in terminal.shown, "the last output shows")


@pytest.mark.parametrize(
    ("refusal", "code"),
    [((1008, "Session not found"), 4), ((1008, "The branch is in use"), 5)],
    ids=["absent", "refused"],
)
async def test_a_refusal_is_told_with_its_exit_code(
    server: TerminalServer, opened: Callable[..., Terminal], refusal: tuple[int, str], code: int
) -> None:
    server.refuse = refusal
    terminal = opened()

    assert await terminal.ended() == code
    await until(lambda: refusal[1].encode() in terminal.shown, "the reason shows")
    assert termios.tcgetattr(terminal.slave) == terminal.before


async def test_a_terminal_that_takes_no_output_hinders_no_key(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)
    terminal.hold()
    await server.print(b"x" * 500_000)

    terminal.type(b"still here")

    await until(lambda: bytes(server.typed) == b"still here", "the keys arrive")
    assert server.acknowledged < len(server.document)
    terminal.release()
    await until(lambda: server.acknowledged == len(server.document), "the rest is written")


async def test_detaching_works_from_a_terminal_that_takes_no_output(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened()
    await attached(server, terminal)
    terminal.hold()
    await server.print(b"x" * 500_000)

    terminal.type(b"~.")

    assert await terminal.ended() == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before


async def test_suspending_restores_the_terminal_and_going_on_fetches_the_screen(
    server: TerminalServer, opened: Callable[..., Terminal], tmp_path: Path
) -> None:
    server.document += b"$ "
    fifo = tmp_path / "go-on"
    os.mkfifo(fifo)
    # Only a job-control shell can stop a job: it is the session's leader, as on a real terminal.
    terminal = opened(before=["bash", "-mc", f'"$@"; read line < {fifo}; fg', "bash"])
    await attached(server, terminal)

    terminal.type(b"~\x1a")
    await until(lambda: stopped_child(terminal.process.pid), "the process stops")
    assert not terminal.is_raw
    fifo.write_text("\n")

    await until(lambda: terminal.is_raw, "the terminal is raw again")
    await until(lambda: server.snapshots == 2, "the screen is fetched anew")
    terminal.type(b"on")
    await until(lambda: bytes(server.typed) == b"on", "the keys arrive")


def stopped_child(pid: int) -> bool:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    states = [
        Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in children
    ]
    return "T" in states


@pytest.mark.parametrize("screen", [b"$ ", b"\x1b[?1049hfull$ "], ids=["shell", "full screen"])
async def test_the_help_shows_and_goes_and_loses_no_output(
    server: TerminalServer, opened: Callable[..., Terminal], screen: bytes
) -> None:
    server.document += screen
    terminal = opened()
    await attached(server, terminal)

    terminal.type(b"~?")
    await until(lambda: b"Press a key to go on." in terminal.shown, "the help shows")
    await server.print(b"meanwhile")
    terminal.type(b" ")
    await until(lambda: b"meanwhile" in terminal.shown, "what was printed shows")
    terminal.type(b"x")

    await until(lambda: bytes(server.typed) == b"x", "the key that ended the help is not typed")
    assert server.snapshots == (2 if b"1049h" in screen else 1)


async def test_looking_only_types_nothing_and_gives_no_size(
    server: TerminalServer, opened: Callable[..., Terminal]
) -> None:
    server.document += b"$ "
    terminal = opened("--read-only")
    await attached(server, terminal)

    terminal.type(b"x\r~.")

    assert await terminal.ended() == 0
    assert server.roles == ["view"]
    assert server.sizes == []
    assert not server.typed


# ---- pipes ------------------------------------------------------------------------------------


@contextmanager
def piped(
    server: TerminalServer, home: Path, *arguments: str
) -> Generator[subprocess.Popen[bytes]]:
    sign_in(server, home)
    process = subprocess.Popen(
        [*CRAFTASTIC, "session", "attach", SESSION_ID[:6], *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(home),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def test_pipes_carry_every_byte_and_the_end_of_input_ends_only_the_typing(
    server: TerminalServer, tmp_path: Path
) -> None:
    server.document += b"$ "
    with piped(server, tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(b"\r~.\x10\x11\x1b[?1;2c\x00\xff")
        process.stdin.close()
        process.stdin = None
        await until(
            lambda: bytes(server.typed) == b"\r~.\x10\x11\x1b[?1;2c\x00\xff", "all is typed"
        )
        await server.print(b"later")
        await server.close(1000, "Terminal session ended")
        await until(lambda: process.poll() is not None, "it ends with the session")

        assert process.returncode == 0
        assert process.communicate()[0] == b"$ later"


async def test_nothing_is_typed_before_the_screen_has_come(
    server: TerminalServer, tmp_path: Path
) -> None:
    server.slow_snapshots = True
    server.document += b"$ "
    with piped(server, tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(b"exit\n")
        process.stdin.close()
        process.stdin = None
        await until(lambda: bytes(server.typed) == b"exit\n", "it is typed")

        assert bytes(server.lost) == b""


async def test_pipes_leave_after_the_timeout(server: TerminalServer, tmp_path: Path) -> None:
    started = time.monotonic()
    with piped(server, tmp_path, "--timeout", "0.5") as process:
        await until(lambda: process.poll() is not None, "the timeout is over")

        assert process.returncode == 6
    assert time.monotonic() - started < TIMEOUT_S


async def test_an_old_token_is_renewed_before_and_during_an_attach(
    server: TerminalServer, tmp_path: Path
) -> None:
    server.document += b"$ "
    with piped(server, tmp_path) as process:
        await until(lambda: server.connections, "it attaches")
        server.issue()  # the token that the client has is none any more
        server.cut()
        await until(lambda: process.poll() is not None, "the sign-in has ended")

        # This server answers no refresh: the sign-in is over, which has its own exit code.
        assert process.returncode == 3
        assert b"craftastic login" in process.communicate()[1]
