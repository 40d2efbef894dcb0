"""The screen that a viewer's emulator shows against tmux's own, over full-screen programs.

pyte stands for the viewer's emulator: text and cursor are compared. What pyte does not know
(the alternate screen, mouse modes, styles of underlines) is compared as bytes where it matters.
"""

import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from craftastic.runtimes.base import SandboxSpec
from tests.conftest import missing
from tests.fakes.host_runtime import HostRuntime
from tests.fakes.terminal_rig import Rig, RunningHub, Watcher, settled, until

AGENT = r"""
import random, sys, time
r = random.Random(7)
out = sys.stdout.write
out('\x1b[?1049h\x1b[2J\x1b[?25l\x1b[?2004h\x1b[?1000h\x1b[?1006h\x1b[3;20r')
words = ['plan', 'edit', '漢字', 'é', '✔ done', '\x1b[32mok\x1b[0m', '🎉', 'a-rather-long-word']
for step in range(400):
    out('\x1b[%d;%dH' % (r.randrange(3, 20), r.randrange(1, 55)))
    out('\x1b[%dm' % r.choice((0, 1, 7, 31, 44)))
    out(r.choice(words))
    out(r.choice(('', '\x1b[K', '\x1b[1J', '\x1b[L', '\x1b[M', '\x1b[2P')))
    out(r.choice(('', '', '\x1b[3@', '\x1bM', '\n')))
    if step % 40 == 0:
        sys.stdout.flush()
        time.sleep(0.05)
out('\x1b[0m\x1b[r\x1b[24;1Hstill')
sys.stdout.flush()
sys.stdin.readline()
out('\x1b[?1049l\x1b[?25h')
"""
MIXED = (
    "plain \x1b[31mred\x1b[0m 漢字 é 🎉\r\n"
    "\x1b]0;title\x07\x1b[1;44mbg to the end\x1b[K\x1b[0m\r\n"
    "\x1b[5;3Hmoved\x1b[7m rev\x1b[27m\x1b[2;4r\x1b[4;1H\n\n\x1b[r\x1b[10;1H"
    "\x1b(0lqqk\x1b(B\x1b]8;;http://a.example\x1b\\link\x1b]8;;\x1b\\\r\n" + "wrap" * 25 + "\r\n"
)


@pytest.fixture
async def rig(data_dir: Path) -> AsyncIterator[Rig]:
    if shutil.which("tmux") is None:
        missing("tmux is not installed")
    runtime = HostRuntime(data_dir)
    sandbox = await runtime.create(SandboxSpec(uuid4(), uuid4(), 1, "host"))
    rig = Rig(runtime, sandbox, runtime.run_dir(sandbox))
    await rig.start()
    yield rig
    await rig.end()


async def _prompt(running: RunningHub) -> Watcher:
    watcher = running.watch()
    await until(lambda: watcher.shows("$ ") or watcher.shows("# "), "a prompt")
    return watcher


async def _same_for_everybody(running: RunningHub, rig: Rig, *watchers: Watcher) -> None:
    """A viewer that was there and one that has just come show the same, which is tmux's."""
    late = running.watch()
    for watcher in (*watchers, late):
        await settled(rig, watcher, timeout_s=15)
    running.leave(late)


async def _runs(rig: Rig, program: str) -> None:
    """Wait until this program is what the terminal runs."""

    async def is_current() -> bool:
        name = await rig.control(
            "display-message", "-p", "-t", f"={rig.session}:", "#{pane_current_command}"
        )
        return name.strip() == program

    await until(is_current, f"{program} runs")


async def test_vim_less_and_back(rig: Rig) -> None:
    if shutil.which("vim") is None or shutil.which("less") is None:
        missing("vim or less is not installed")
    async with rig.hub() as running:
        watcher = await _prompt(running)
        await running.type(
            watcher, "PS1='$ '; clear; seq 1 300 > /tmp/lines; vim -u NONE /tmp/lines\r"
        )
        await until(lambda: watcher.shows("300"), "vim")
        await _same_for_everybody(running, rig, watcher)
        await running.type(watcher, "150Gitext \u6f22\u5b57\x1b:split\r:set number\r\x05\x05")
        await _same_for_everybody(running, rig, watcher)
        await running.type(watcher, ":qa!\r")
        await _runs(rig, "bash")
        await running.type(watcher, "less /tmp/lines\r")
        await _runs(rig, "less")
        await _same_for_everybody(running, rig, watcher)
        await running.type(watcher, "  b/77\r")
        await _same_for_everybody(running, rig, watcher)
        await running.type(watcher, "q")
        await _runs(rig, "bash")
        await running.type(watcher, "echo do''ne\r")
        await until(lambda: watcher.shows("done"), "the end")
        await settled(rig, running.watch(), timeout_s=15)


async def test_htop_with_its_colours_and_boxes(rig: Rig) -> None:
    if shutil.which("htop") is None:
        missing("htop is not installed")
    async with rig.hub() as running:
        watcher = await _prompt(running)
        # It draws anew every 10 s at the most seldom: the screen is compared in between.
        await running.type(watcher, "PS1='$ '; clear; htop -d 100\r")
        await _runs(rig, "htop")
        await until(lambda: watcher.shows("F10"), "its keys")
        await _same_for_everybody(running, rig, watcher)
        await running.type(watcher, "\x1b[B\x1b[B")
        await _same_for_everybody(running, rig, watcher)
        await running.type(watcher, "q")
        await _runs(rig, "bash")
        await _same_for_everybody(running, rig, watcher)


async def test_a_full_screen_agent_with_joins_at_random_moments(rig: Rig) -> None:
    chance = random.Random(3)  # noqa: S311
    script = rig.run_dir + "/agent.py"
    await anyio.Path(script).write_text(AGENT)
    async with rig.hub() as running:
        watcher = await _prompt(running)
        await running.type(watcher, f"PS1='$ '; clear; echo before; python3 {script}\r")
        late: list[Watcher] = []
        while not watcher.shows("still"):
            late.append(running.watch())
            await anyio.sleep(chance.random() * 0.1)
        running.hub.snapshot = None
        late.append(running.watch())
        await until(lambda: late[-1].snapshot, "the last snapshot")
        for one in late[-4:]:
            await settled(rig, one, timeout_s=15)
        assert late[-1].snapshot is not None
        for mode in (b"?1049h", b"?25l", b"?2004h", b"?1000h", b"?1006h"):
            assert b"\x1b[" + mode in late[-1].snapshot.data
        await running.type(watcher, "\r")
        await until(lambda: watcher.shows("$ "), "the prompt")
        await settled(rig, running.watch(), timeout_s=15)


async def test_a_snapshot_at_every_byte_of_a_stream_continues_exactly(rig: Rig) -> None:
    data = MIXED.encode()
    fifo = rig.run_dir + "/bytes"
    await rig.runtime.run(rig.sandbox, ["mkfifo", fifo])
    async with rig.hub() as running:
        watcher = await _prompt(running)
        await running.type(watcher, f"PS1=; clear; stty -echo -onlcr; cat <>{fifo}\r")
        await _runs(rig, "cat")
        cuts: list[Watcher] = []
        with open(fifo, "wb", buffering=0) as out:  # noqa: ASYNC230, PTH123 - one byte at a time
            for start in range(len(data)):
                out.write(data[start : start + 1])
                if start % 3 == 0:
                    running.hub.snapshot = None
                    cuts.append(running.watch())
                    await until(lambda: cuts[-1].snapshot, "a snapshot")
        reference = cuts[0]
        await settled(rig, reference, timeout_s=15)
        for watcher in cuts:
            assert watcher.emulator().text() == reference.emulator().text()
            assert watcher.emulator().cursor() == reference.emulator().cursor()


async def test_a_cursor_that_is_about_to_wrap_wraps_after_a_snapshot_too(rig: Rig) -> None:
    async with rig.hub() as running:
        watcher = await _prompt(running)
        await running.type(
            watcher, "PS1=; clear; stty -echo; printf '%080d' 7; read x; printf AB\r"
        )
        await until(lambda: watcher.shows("0007"), "a full line")
        late = running.watch()
        await until(lambda: late.snapshot, "a snapshot")
        await running.type(watcher, "\r")
        await until(lambda: late.shows("AB"), "the rest")
        await settled(rig, late, timeout_s=15)


async def test_htop_shows_the_same_to_everybody(rig: Rig) -> None:
    if shutil.which("htop") is None:
        missing("htop is not installed")
    async with rig.hub() as running:
        watcher = await _prompt(running)
        await running.type(watcher, "htop -d 100\r")
        await until(lambda: watcher.shows("F10"), "htop")
        await _same_for_everybody(running, rig, watcher)
        await running.type(watcher, "\x1bOF")
        await _same_for_everybody(running, rig, watcher)
        await running.type(watcher, "q")
