"""The terminal of an agent session's pane, and the processes that own it one after the other.

Sent to the sandbox with `_supervisor`. Job control as a shell does it. Source: the GNU C library's
manual, "Implementing a Job Control Shell".
"""

import contextlib
import os
import signal
import termios
import time
from pathlib import Path
from typing import Any

HANG_UP_S = 2.0
OUTSIDE_S = 2.0
TICK_S, PAUSE_S = 5.0, 0.05
WAITED = {signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM}
IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
DEFAULTED = (*IGNORED, signal.SIGPIPE, signal.SIGXFSZ)
CALM = (
    b"\x1b[?1l\x1b>\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l"
    b"\x1b[?2031l\x1b[<u\x1b[>4m\x1b7\x1b[r\x1b8\x1b[?25h\x1b[?7h\x1b(B\x0f\x1b[0m"
)
"""Undoes what a full-screen program may have left: keys, mouse, focus, paste, colours."""

TMUX_TELLS = ("tmux", "display-message", "-p")
"""The sandbox's own tmux, whose pane this is."""

LEAVE_ALTERNATE = b"\x1b[?1049l"


class Ended(BaseException):
    """The pane is to end: its terminal is gone, or somebody said so."""


def foreground() -> int:
    """Return the process group that owns the terminal; -1 where there is none."""
    try:
        return os.tcgetpgrp(0)
    except OSError:
        return -1


def give_terminal(group: int) -> None:
    with contextlib.suppress(OSError):
        os.tcsetpgrp(0, group)


def say(*lines: str) -> None:
    """Write plain lines to the terminal."""
    text = "".join(f"{line}\n" for line in lines)
    plain = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    with contextlib.suppress(OSError):
        os.write(1, plain.encode(errors="replace"))


def in_alternate_screen() -> bool:
    """Ask tmux whether what ended has left its own screen behind."""
    import subprocess  # noqa: PLC0415 - starts slowly, and is needed once

    pane = os.environ.get("TMUX_PANE", "")  # noqa: TID251 - the sandbox's
    try:
        done = subprocess.run(
            [*TMUX_TELLS, "-t", pane, "#{alternate_on}"],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=OUTSIDE_S,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == b"1"


class Pane:
    """The terminal as it was, and the processes that own it one after the other."""

    def __init__(self) -> None:
        self.modes: Any = None
        with contextlib.suppress(termios.error):
            self.modes = termios.tcgetattr(0)

    def start(self, program: str, argv: list[str], cwd: str, env: dict[str, str]) -> int:
        """Start a program in the foreground, in a process group of its own.

        Raises:
            OSError: It could not be started.
        """
        failed, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setpgid(0, 0)
                give_terminal(os.getpid())
                for one in DEFAULTED:
                    signal.signal(one, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                os.chdir(cwd)
                os.execve(program, argv, env)  # noqa: S606
            except OSError as error:
                os.write(tell, str(error.errno).encode())
            finally:
                os._exit(127)
        os.close(tell)
        # Both sides do this: neither may go on before it is done.
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        give_terminal(child)
        code = os.read(failed, 16)
        os.close(failed)
        if code:
            os.waitpid(child, 0)
            self.restore()
            raise OSError(int(code), os.strerror(int(code)))
        return child

    def wait(self, child: int) -> int:
        """Wait for a program's end and return its status; one that stops is continued at once.

        Raises:
            Ended: The pane is to end; the program still runs.
        """
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == child and not os.WIFSTOPPED(status):
                return status
            if pid == child:
                # There is no shell behind it that could bring it back.
                time.sleep(PAUSE_S)
                give_terminal(child)
                signal_group(child, signal.SIGCONT)
            got = signal.sigtimedwait(WAITED, 0 if pid else TICK_S)
            if got is not None and got.si_signo in (signal.SIGHUP, signal.SIGTERM):
                raise Ended

    def end(self, child: int) -> int:
        """End a program and its process group: kindly, and then by force."""
        signal_group(child, signal.SIGHUP)
        signal_group(child, signal.SIGCONT)
        deadline = time.monotonic() + HANG_UP_S
        pid = status = 0
        while not pid and (left := deadline - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, min(left, 0.1))
            pid, status = os.waitpid(child, os.WNOHANG)
        signal_group(child, signal.SIGKILL)
        if not pid:
            _, status = os.waitpid(child, 0)
        return status

    def restore(self) -> None:
        """Take the terminal back and make it what a shell expects."""
        give_terminal(os.getpgrp())
        with contextlib.suppress(termios.error, OSError):
            if self.modes is not None:
                termios.tcsetattr(0, termios.TCSANOW, self.modes)
            # What was typed for the CLI is nothing for a shell.
            termios.tcflush(0, termios.TCIFLUSH)
        with contextlib.suppress(OSError):
            os.write(1, (LEAVE_ALTERNATE if in_alternate_screen() else b"") + CALM)


def signal_group(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def how(status: int) -> dict[str, int]:
    code = os.waitstatus_to_exitcode(status)
    return {"code": code} if code >= 0 else {"signal": -code}


def found(command: str, env: dict[str, str]) -> str | None:
    """Return the path of a command, as a shell looks it up."""
    if "/" in command:
        return command if os.access(command, os.X_OK) else None
    for folder in env.get("PATH", os.defpath).split(":"):
        path = f"{folder or '.'}/{command}"
        if os.access(path, os.X_OK) and not Path(path).is_dir():
            return path
    return None
