"""What is typed against what a program in a real tmux reads, byte for byte."""

import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from craftastic.terminals._tmux_commands import send_keys, translate_key
from tests.conftest import missing

READER = "stty raw -echo; echo ready >'{0}/ready'; exec cat >'{0}/out'"
WAIT_S = 20.0


@dataclass
class Reader:
    folder: Path
    process: subprocess.Popen[bytes]
    expected: bytes = b""

    def type(self, data: bytes) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        lines = list(send_keys("%0", data))
        assert sum(length for _, length in lines) == len(data)
        for line, _ in lines:
            self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()
        self.expected += data
        for _ in lines:
            while not self.process.stdout.readline().startswith((b"%end", b"%error")):
                pass

    def got(self) -> bytes:
        deadline = time.monotonic() + WAIT_S
        while True:
            data = (self.folder / "out").read_bytes()
            late = time.monotonic() > deadline
            if len(data) >= len(self.expected) or late:
                return data


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    if shutil.which("tmux") is None:
        missing("tmux is not installed")
    folder = Path(tempfile.mkdtemp(prefix="ct-"))
    tmux = ["tmux", "-u", "-S", str(folder / "s"), "-f", "/dev/null"]
    subprocess.run(
        [*tmux, "new-session", "-d", "-s", "w", "sh", "-c", READER.format(folder)], check=True
    )
    process = subprocess.Popen(
        [*tmux, "-C", "attach", "-t", "=w:", "-f", "no-output"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith(b"%session-changed"):
        pass
    while not (folder / "ready").exists():
        pass
    yield Reader(folder, process)
    subprocess.run([*tmux, "kill-server"], check=False)
    process.communicate(timeout=10)
    shutil.rmtree(folder)


WORDS = st.sampled_from(
    ["a;b", '"', "'", "\\", "$HOME", "~", "#{pane_id}", "%if", "--", "-x", "{", "}", "\r", "\n",
     "\t", "\x00", "\x1b[A", "\x7f", "漢字", "🎉", " ; ", "\\;", "${X}", "\x1b"]
)  # fmt: skip


@given(st.one_of(st.binary(max_size=60), st.lists(WORDS, max_size=8).map("".join).map(str.encode)))
@example(bytes(range(256)))
@example(b"".join(bytes([value]) * 3 for value in range(256)))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_byte_arrives_as_it_was_typed(reader: Reader, data: bytes) -> None:
    reader.type(data)

    assert reader.got() == reader.expected


def test_a_mebibyte_of_lines_and_noise_arrives(reader: Reader) -> None:
    chance = random.Random(1)  # noqa: S311
    lines = ["".join(chr(chance.randrange(32, 127)) for _ in range(79)) for _ in range(400)]
    reader.type(("\r".join(lines * 32) + "漢字").encode() + chance.randbytes(4000))

    assert reader.got() == reader.expected


def test_home_and_end_are_what_the_terminal_s_description_says() -> None:
    assert translate_key(b"\x1b[H") == b"\x1b[1~"
    assert translate_key(b"\x1bOF") == b"\x1b[4~"
    assert translate_key(b"x\x1b[H") == b"x\x1b[H"
