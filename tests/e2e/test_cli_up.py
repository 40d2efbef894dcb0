"""The newcomer's way: one command on a real terminal, from a repository to a shell on a branch."""

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
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path

import anyio
import pyte
import pytest

from tests.e2e.harness import ESCAPES, PASSWORD, Server, until

EMAIL = "a@example.com"
CRAFTASTIC = (sys.executable, "-m", "craftastic")


class Screen:
    """A user's terminal with one command on it."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.shown = bytearray()
        self.process = subprocess.Popen(
            [*CRAFTASTIC, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: ioctl(slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                if select.select([self.master], [], [], 0.05)[0]:
                    self.shown += os.read(self.master, 65536)
            except (OSError, ValueError):
                return

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self.shown.decode(errors="replace"))

    @property
    def scrollback(self) -> str:
        """What an emulator shows, with all that has scrolled off, since it was cleared last."""
        emulator = pyte.HistoryScreen(100, 30, history=5000)
        cleared = self.shown.rindex(b"\x1b[2J")
        pyte.ByteStream(emulator).feed(bytes(self.shown[cleared:]))
        above = ["".join(line[x].data for x in range(100)) for line in emulator.history.top]
        return "\n".join(one.rstrip() for one in (*above, *emulator.display))

    async def shows(self, text: str, timeout_s: float = 60.0) -> None:
        await until(
            lambda: text in self.text, f"{text!r} in {self.text[-800:]!r}", timeout_s=timeout_s
        )

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    async def ended(self) -> int:
        await until(lambda: self.process.poll() is not None, "the command ends", timeout_s=20)
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        self._reader.join(2)
        os.close(self.master)


@pytest.fixture
def environment(server: Server, tmp_path: Path) -> dict[str, str]:
    """Give what a user on the server's machine has in the environment."""
    return {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],  # noqa: TID251 - a child's environment
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "CRAFTASTIC_DATA_DIR": str(server.data_dir),
        "CRAFTASTIC_URL": server.url,
    }


@pytest.fixture
def open_screen(environment: dict[str, str]) -> Iterator[Callable[..., Screen]]:
    screens: list[Screen] = []

    def open_one(*arguments: str) -> Screen:
        screens.append(Screen(environment, *arguments))
        return screens[-1]

    yield open_one
    for screen in screens:
        screen.close()


@pytest.mark.parametrize("database_url", [None], ids=["sqlite"])
async def test_one_command_leads_from_a_repository_to_a_shell_that_outlives_everything(
    server: Server,
    own_history: str,
    environment: dict[str, str],
    open_screen: Callable[..., Screen],
) -> None:
    screen = open_screen("up", own_history, "-b", "work")
    for question, answer in (
        ("E-mail: ", EMAIL),
        ("Your name: ", "A"),
        ("New password", PASSWORD),
        ("The same again: ", PASSWORD),
    ):
        await screen.shows(question)
        screen.type(f"{answer}\n")

    await screen.shows("/work$ ", timeout_s=240)
    screen.type("git log --oneline | wc -l; git branch --show-current; pwd; KEPT=yes\r")
    await screen.shows("\nwork\r")
    listed = await anyio.run_process([*CRAFTASTIC, "env", "ls", "--json"], env=environment)
    (made,) = json.loads(listed.stdout)
    await screen.shows(f"/home/dev/.craftastic/worktrees/{made['id']}/work\r")
    assert re.search(r"[\r\n][1-9]\d*\r", screen.text), "git log has commits"
    assert PASSWORD not in screen.text

    screen.type("for i in $(seq 1 100); do echo line-$i; sleep 0.02; done; echo all-${KEPT}\r")
    await screen.shows("line-20\r")
    server.kill()
    server.start()
    await server.ready()

    await screen.shows("all-yes\r")
    assert re.findall(r"line-(\d+)", screen.scrollback) == [str(one) for one in range(1, 101)]

    screen.type("\r~.")
    assert await screen.ended() == 0
    again = open_screen("up", own_history, "-b", "work")
    await again.shows("all-yes")
    again.type("exit\r")
    assert await again.ended() == 0


@pytest.mark.parametrize("database_url", [None], ids=["sqlite"])
async def test_an_interrupted_up_can_be_given_again(
    server: Server, own_history: str, environment: dict[str, str]
) -> None:
    arguments = ["up", own_history, "--email", EMAIL, "--password-stdin", "--detach", "--json"]
    first = await anyio.open_process([*CRAFTASTIC, *arguments], env=environment)
    assert first.stdin is not None
    assert first.stderr is not None
    await first.stdin.send(PASSWORD.encode())
    await first.stdin.aclose()
    shown = b""
    with anyio.fail_after(60):
        while b"Sandbox" not in shown:
            shown += await first.stderr.receive()
    first.send_signal(signal.SIGINT)
    with anyio.fail_after(20):
        assert await first.wait() == 130
    await first.aclose()

    second = await anyio.run_process([*CRAFTASTIC, *arguments], env=environment)

    listed = await anyio.run_process([*CRAFTASTIC, "env", "ls", "-q"], env=environment)
    assert [json.loads(second.stdout)["environment"]["id"]] == listed.stdout.decode().split()
