"""The small parent of every command in a container, as a program of its own on this host."""

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.runtimes import _docker_supervise
from craftastic.runtimes._docker_exec import SUPERVISE, TrailerFilter, supervised
from craftastic.runtimes._docker_supervise import HELLO, trailer

TOKEN = "0123456789abcdef0123456789abcdef"
WAIT_S = 10.0


def start(length: int, *argv: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, *supervised(TOKEN, length, argv)[1:]]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdin is not None
    process.stdin.write(SUPERVISE)
    process.stdin.flush()
    return process


def run(length: int, *argv: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    """Run to the end, with the input left open; the trailers are checked and taken off."""
    with start(length, *argv) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None

        given = process.stdin

        def feed() -> None:
            try:
                given.write(stdin)
                given.flush()
            except BrokenPipeError:
                pass

        feeding = threading.Thread(target=feed)
        feeding.start()
        out = process.stdout.read()
        err = process.stderr.read()
        code = process.wait(WAIT_S)
        feeding.join(WAIT_S)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    end = trailer(TOKEN, code)
    assert out.endswith(end)
    assert err.startswith(HELLO)
    assert err.endswith(end)
    return code, out.removesuffix(end), err[1:].removesuffix(end)


def test_the_text_that_is_sent_is_the_modules_own() -> None:
    assert Path(_docker_supervise.__file__).read_bytes() == SUPERVISE


def test_output_and_exit_code_come_back() -> None:
    assert run(0, "sh", "-c", "echo out; echo err >&2; exit 9") == (9, b"out\n", b"err\n")


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
def test_a_counted_input_ends_for_the_command_while_the_connection_stays(size: int) -> None:
    data = b"x" * size

    assert run(size, "cat", stdin=data) == (0, data, b"")


@pytest.mark.parametrize(
    "argv", [("true",), ("head", "-c", "1"), ("sh", "-c", "exec <&-; sleep 0.1")]
)
def test_input_that_is_not_wanted_holds_nothing_up(argv: tuple[str, ...]) -> None:
    code, _, _ = run(3_000_000, *argv, stdin=b"x" * 3_000_000)

    assert code == 0


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("no-such-command",), 127),
        (("/no/such/command",), 127),
        (("/etc/passwd",), 126),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("sh", "-c", "kill -TERM $$"), 143),
    ],
)
def test_exit_codes_are_a_shells(argv: tuple[str, ...], code: int) -> None:
    assert run(0, *argv)[0] == code


def test_a_broken_pipe_ends_a_command_as_usual() -> None:
    """Python ignores SIGPIPE; what it starts must not."""
    assert run(0, "sh", "-c", "yes | head -n 1") == (0, b"y\n", b"")


@pytest.mark.parametrize("length", [-1, 0, 1000])
def test_the_end_of_the_connection_ends_a_command_and_its_children(length: int) -> None:
    with start(length, "sh", "-c", "trap '' HUP TERM; echo $$; sleep 4321 & sleep 4321") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid = int(process.stdout.readline())

        process.stdin.close()
        code = process.wait(WAIT_S)

    assert code == 137
    deadline = time.monotonic() + WAIT_S
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline


def test_a_streamed_command_may_end_by_itself_when_its_input_ends() -> None:
    with start(-1, "sh", "-c", "cat; echo ended") as process:
        out, _ = process.communicate(b"abc", WAIT_S)

    assert out == b"abcended\n" + trailer(TOKEN, 0)


def test_what_a_command_leaves_behind_does_not_hide_its_end() -> None:
    with start(0, "sh", "-c", "sleep 4321 & echo $!; exit 5") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        pid = int(process.stdout.readline())

        assert process.stdout.readline() == trailer(TOKEN, 5)

        assert Path(f"/proc/{pid}").exists()
        subprocess.run(["kill", str(pid)], check=True)


# ---- the trailer ----------------------------------------------------------------------------


def filtered(pieces: list[bytes]) -> tuple[bytes, int | None]:
    one = TrailerFilter(TOKEN)
    out = b"".join(one.feed(piece) for piece in pieces)
    return out + one.rest(), one.code


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


NEARLY = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([b"\0", b"\0" + TOKEN[:20].encode()]))
).map(b"".join)


@given(NEARLY, st.integers(0, 255), st.lists(st.integers(0, 1000), max_size=12))
def test_the_trailer_is_taken_off_however_it_is_cut(
    data: bytes, code: int, places: list[int]
) -> None:
    assert filtered(cut(data + trailer(TOKEN, code), places)) == (data, code)


@given(NEARLY, st.lists(st.integers(0, 1000), max_size=12))
def test_output_without_a_trailer_is_whole(data: bytes, places: list[int]) -> None:
    assert filtered(cut(data, places)) == (data, None)


@given(st.binary())
def test_nothing_comes_after_the_trailer(data: bytes) -> None:
    assert filtered([b"before" + trailer(TOKEN, 3), data]) == (b"before", 3)


def test_output_is_not_held_back_while_it_cannot_be_a_trailer() -> None:
    one = TrailerFilter(TOKEN)

    assert one.feed(b"a prompt\0$ ") == b"a prompt\0$ "
