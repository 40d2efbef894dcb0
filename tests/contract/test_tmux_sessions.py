"""tmux sessions of a sandbox, over every kind of runtime."""

import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from craftastic.runtimes.base import RunResult, SandboxRef, SandboxSpec
from craftastic.tmux._variables import first_program, giving
from craftastic.tmux.service import BadSessionVariables, TmuxRefused
from tests.contract.conftest import REAL, benches
from tests.fakes.host_runtime import HostRuntime
from tests.fakes.terminal_rig import Rig, until

HOSTILE = {
    "LINES_": "one\ntwo\r\n\n",
    "QUOTES": "'\"`\\' \"",
    "SHELL_TEXT": "$(touch /tmp/owned) `id` ${HOME} $HOME; rm -rf / & #{pane_pid} %1 !!",
    "UNICODE_": "é 漢字 \U0001f511 \u202e",
    "CONTROLS": "".join(map(chr, range(1, 32))) + "\x7f",
    "EMPTY": "",
    "EQUALS": "=a=b=",
    "LONG": "x" * 32_768,
    "_under": "score",
    "IFS": "x",
    "BASH_ENV": "/nowhere",
    "UID": "12",
}

FIND = """
import os, stat, subprocess, sys
canary = sys.stdin.buffer.read()
shell, socket, folders = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
def parent(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
def of_the_shell(pid):
    while pid > 1 and pid != shell:
        pid = parent(pid)
    return pid == shell
for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
    for name in ("cmdline", "environ"):
        try:
            found = canary in open(f"/proc/{pid}/{name}", "rb").read()
            if found and (name == "cmdline" or not of_the_shell(pid)):
                print("process", pid, name)
        except (OSError, ValueError):
            pass
for folder in folders:
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            try:
                if canary in name.encode() or (
                    stat.S_ISREG(os.lstat(path).st_mode) and canary in open(path, "rb").read()
                ):
                    print("file", path)
            except OSError:
                pass
"""
"""Prints where the text on its input is, apart from the environment of one shell's processes."""

TELL = """python3 -c 'import hashlib, os, sys
for n in sys.argv[1:]:
 print(n, hashlib.sha256(os.environb.get(n.encode(), b"absent")).hexdigest()[:20])' """.replace(
    "\n", "\r"
)


class Cutting(HostRuntime):
    """Passes on only the beginning of what a command is to read."""

    kept = 0

    async def spawn(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
    ) -> RunResult:
        return await super().spawn(sandbox, argv, stdin=stdin[: self.kept], timeout_s=timeout_s)


async def shell_of(rig: Rig, session: str) -> int:
    """Return the process of a session's shell, once it is that."""
    target = f"={session}:"
    found = 0

    async def is_bash() -> bool:
        nonlocal found
        answer = await rig.control("display-message", "-p", "-t", target, "#{pane_pid}")
        found = int(answer or 0)
        name = await rig.runtime.run(rig.sandbox, ["cat", f"/proc/{found}/cmdline"])
        return name.stdout == b"-bash\0"

    await until(is_bash, "the session's first process is a login shell")
    return found


async def environment_of(rig: Rig, session: str) -> dict[bytes, bytes]:
    pid = await shell_of(rig, session)
    result = await rig.runtime.run(rig.sandbox, ["cat", f"/proc/{pid}/environ"])
    parts = [one.partition(b"=") for one in result.stdout.split(b"\0")[:-1]]
    return {name: value for name, _, value in parts}


async def typed(rig: Rig, session: str, command: str, end: str) -> str:
    """Type a command into a session and return its screen when that shows the end."""
    target = f"={session}:"
    await rig.control("send-keys", "-t", target, "-l", command)
    await rig.control("send-keys", "-t", target, "Enter")
    screen = ""

    async def shown() -> bool:
        nonlocal screen
        screen = await rig.control("capture-pane", "-p", "-J", "-t", target)
        return end in screen

    await until(shown, f"the screen shows {end}")
    return screen


async def waiting_fifos(rig: Rig) -> list[str]:
    result = await rig.runtime.run(rig.sandbox, ["ls", "-A", rig.run_dir])
    return [name for name in result.stdout.decode().split() if name.startswith("variables")]


@pytest.fixture(params=["host", *REAL])
async def rig(
    request: pytest.FixtureRequest, docker_network_if_needed: None, data_dir: Path
) -> AsyncIterator[Rig]:
    if request.param == "host":
        runtime = HostRuntime(data_dir)
        sandbox = await runtime.create(SandboxSpec(uuid4(), uuid4(), 1, "host"))
        rig = Rig(runtime, sandbox, runtime.run_dir(sandbox))
        yield rig
        await rig.end()
        return
    async for bench in benches(request, request.param, data_dir):
        yield Rig(bench.runtime, await bench.sandbox(), "/run/craftastic")


async def test_sessions_are_made_once_listed_and_ended(rig: Rig) -> None:
    assert await rig.tmux.names(rig.sandbox) == set()
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(rig.tmux.ensure, rig.sandbox, "one-1", "/tmp")
    await rig.tmux.ensure(rig.sandbox, "one-10", "/tmp")

    assert await rig.tmux.names(rig.sandbox) == {"one-1", "one-10"}
    await rig.tmux.kill(rig.sandbox, "one-1")
    await rig.tmux.kill(rig.sandbox, "one-1")
    assert await rig.tmux.names(rig.sandbox) == {"one-10"}
    await rig.tmux.kill(rig.sandbox, "one-10")
    assert await rig.tmux.names(rig.sandbox) == set()


async def test_a_session_outlives_the_command_that_made_it(rig: Rig) -> None:
    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", environment={"CRAFTASTIC_SESSION_ID": "x"})
    await rig.control("send-keys", "-t", "=one-1:", "echo $CRAFTASTIC_SESSION_ID-$PWD", "Enter")

    async def shown() -> bool:
        return "x-/tmp" in await rig.control("capture-pane", "-p", "-t", "=one-1:")

    await until(shown, "the shell's answer")


async def test_the_configuration_is_the_product_s(rig: Rig) -> None:
    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp")
    await rig.control("set-option", "-g", "status", "on")
    await rig.control("set-option", "-g", "detach-on-destroy", "off")
    await rig.tmux.ensure(rig.sandbox, "two-1", "/tmp")
    options = await rig.control("show-options", "-g")

    for line in ("status off", "prefix None", "history-limit 50000", "detach-on-destroy on"):
        assert line in options
    assert await rig.control("list-keys", "-T", "root") == ""
    target = "=two-1:"
    assert "tmux-256color" in await rig.control("show-options", "-s", "default-terminal")
    assert (await rig.control("display-message", "-p", "-t", target, "#{pane_width}")) == "80\n"


async def test_a_directory_that_is_not_there_is_refused(rig: Rig) -> None:
    with pytest.raises(TmuxRefused, match="is not there"):
        await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp/nowhere")
    assert await rig.tmux.names(rig.sandbox) == set()


async def test_a_shell_has_its_variables_whatever_text_they_are(rig: Rig) -> None:
    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", variables=HOSTILE)

    # What bash makes of a few names of its own is bash's affair.
    told = [name for name in HOSTILE if name not in {"IFS", "UID"}]
    screen = await typed(rig, "one-1", TELL + " ".join([*told, "LAST"]), "\nLAST")
    for name in told:
        digest = hashlib.sha256(HOSTILE[name].encode()).hexdigest()[:20]
        assert f"{name} {digest}" in screen, name
    environment = await environment_of(rig, "one-1")
    assert {name.encode(): value.encode() for name, value in HOSTILE.items()}.items() <= (
        environment.items()
    )
    assert await waiting_fifos(rig) == []


async def test_the_most_and_largest_variables_arrive(rig: Rig) -> None:
    variables = {f"V{number:03}": "é" * 320 for number in range(200)}

    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", variables=variables)

    environment = await environment_of(rig, "one-1")
    assert all(environment[name.encode()].decode() == value for name, value in variables.items())


async def test_variables_are_in_the_environment_of_the_shell_and_nowhere_else(rig: Rig) -> None:
    canary = f"canary-{secrets.token_hex(16)}"
    await rig.tmux.ensure(rig.sandbox, "zero-1", "/tmp")

    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", variables={"SECRET": canary})

    pid = await shell_of(rig, "one-1")
    assert (await environment_of(rig, "one-1"))[b"SECRET"].decode() == canary
    folders = [rig.run_dir, str(Path(rig.run_dir).parent / "home")]
    if rig.runtime.name != "host":
        folders = ["/run", "/tmp", "/var/tmp", "/home/dev", "/dev/shm"]
    found = await rig.runtime.run(
        rig.sandbox,
        ["python3", "-c", FIND, str(pid), rig.tmux.socket(), *folders],
        stdin=canary.encode(),
    )
    assert (found.exit_code, found.stdout.decode(), found.stderr) == (0, "", b"")
    for scope in (["-g"], ["-t", "=one-1:"], ["-t", "=zero-1:"]):
        assert canary not in await rig.control("show-environment", *scope)
    told = await rig.control("list-panes", "-a", "-F", "#{pane_start_command}")
    assert "/usr/bin/python3" in told
    assert canary not in told
    assert await waiting_fifos(rig) == []


async def test_the_search_finds_what_it_is_there_to_find(rig: Rig) -> None:
    canary = f"canary-{secrets.token_hex(16)}"
    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", environment={"SECRET": canary})
    await rig.runtime.run(
        rig.sandbox, ["sh", "-c", 'cat >"$1/left"', "sh", rig.run_dir], stdin=canary.encode()
    )

    found = await rig.runtime.run(
        rig.sandbox,
        ["python3", "-c", FIND, "-1", rig.tmux.socket(), rig.run_dir],
        stdin=canary.encode(),
    )

    assert f"file {rig.run_dir}/left" in found.stdout.decode()
    assert "environ" in found.stdout.decode()
    assert canary in await rig.control("show-environment", "-t", "=one-1:")


async def test_a_shell_with_variables_is_else_the_one_that_tmux_starts(rig: Rig) -> None:
    # The first session's server is another one's client: compare sessions of one server.
    await rig.tmux.ensure(rig.sandbox, "zero-1", "/tmp")
    await rig.tmux.ensure(rig.sandbox, "plain-1", "/tmp", environment={"A": "1"})
    await rig.tmux.ensure(
        rig.sandbox, "full-1", "/tmp", environment={"A": "1"}, variables={"B": "2"}
    )

    plain = await environment_of(rig, "plain-1")
    full = await environment_of(rig, "full-1")
    assert full.pop(b"B") == b"2"
    assert full.pop(b"TMUX_PANE") != plain.pop(b"TMUX_PANE")
    assert full.pop(b"TMUX") != plain.pop(b"TMUX")
    assert full == plain
    look = "grep -E 'Sig(Ign|Blk)' /proc/self/status; pwd; ls -l /proc/$$/fd; shopt login_shell"
    signals = [
        [
            line.split(" ", 8)[-1] if "->" in line else line
            for line in (await typed(rig, name, look, "login_shell \ton".expandtabs())).split("\n")
            if line.startswith(("Sig", "/tmp", "login"))
        ]
        for name in ("plain-1", "full-1")
    ]
    assert len(signals[0]) == 4
    assert signals[0] == signals[1]


async def test_whoever_is_faster_gives_the_session_its_variables(rig: Rig) -> None:
    async def ensure(number: int) -> None:
        variables = {"SAME": "same", f"MARK_{number}": "here"}
        await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", variables=variables)

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(ensure, number)

    environment = await environment_of(rig, "one-1")
    assert environment[b"SAME"] == b"same"
    assert len([name for name in environment if name.startswith(b"MARK_")]) == 1
    assert await waiting_fifos(rig) == []


async def test_a_session_that_is_there_keeps_the_variables_it_has(rig: Rig) -> None:
    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", variables={"V": "first"})
    before = await shell_of(rig, "one-1")

    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", variables={"V": "x" * 100_000})

    assert await shell_of(rig, "one-1") == before
    assert (await environment_of(rig, "one-1"))[b"V"] == b"first"


async def test_what_killed_starts_left_behind_goes_with_the_next_one(rig: Rig) -> None:
    script = (
        'mkdir -p "$1" && cd "$1" && umask 077 && mkfifo variables.old variables.new &&'
        " touch -d '2 hours ago' variables.old variables.file && ln -s variables.new variables.link"
    )
    made = await rig.runtime.run(rig.sandbox, ["sh", "-c", script, "sh", rig.run_dir])
    assert made.exit_code == 0, made.stderr

    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", variables={"A": "b"})
    await shell_of(rig, "one-1")

    left = ["variables.file", "variables.link", "variables.new"]
    assert sorted(await waiting_fifos(rig)) == left


async def test_without_variables_the_pane_starts_with_the_shell_itself(rig: Rig) -> None:
    nothing: list[Mapping[str, str] | None] = [None, {}]
    for number, variables in enumerate(nothing):
        name = f"none-{number}"
        await rig.tmux.ensure(rig.sandbox, name, "/tmp", variables=variables)
        target = f"={name}:"
        started = await rig.control("display-message", "-p", "-t", target, "#{pane_start_command}")
        assert started == "\n"


async def test_too_much_is_refused_before_anything_is_started(rig: Rig) -> None:
    for variables in ({"A": "x" * (128 << 10)}, {"A B": "x"}, {"A": "x\0y"}, {"A": "\ud800"}):
        with pytest.raises(BadSessionVariables):
            await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", variables=variables)
    assert await rig.tmux.names(rig.sandbox) == set()


async def test_a_terminal_comes_up_when_the_giver_never_comes(rig: Rig) -> None:
    await rig.tmux.ensure(rig.sandbox, "zero-1", "/tmp")
    fifo = f"{rig.run_dir}/variables.test"
    await rig.runtime.run(rig.sandbox, ["mkfifo", "-m", "600", fifo])
    await rig.control("new-session", "-d", "-s", "one-1", *first_program(fifo)[:-1], "3")
    pid = (await rig.control("display-message", "-p", "-t", "=one-1:", "#{pane_pid}")).strip()

    async def waits() -> bool:
        held = await rig.runtime.run(rig.sandbox, ["ls", "-l", f"/proc/{pid}/fd"])
        return fifo.encode() in held.stdout

    await until(waits, "the first program waits")
    await rig.control("send-keys", "-t", "=one-1:", "C-c")

    assert "none of your variables" in await typed(rig, "one-1", "echo al''ive", "\nalive")
    assert await waiting_fifos(rig) == []


async def test_a_pane_that_is_started_again_later_does_not_wait(rig: Rig) -> None:
    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", variables={"V": "first"})
    await shell_of(rig, "one-1")

    await rig.control("respawn-pane", "-k", "-t", "=one-1:")

    assert "none of your variables" in await typed(rig, "one-1", "echo al''ive", "\nalive")
    assert b"V" not in await environment_of(rig, "one-1")


@pytest.mark.parametrize("kept", [0, 5, 8, 1000])
async def test_a_terminal_comes_up_when_the_giver_dies_half_way(kept: int, data_dir: Path) -> None:
    runtime = Cutting(data_dir)
    runtime.kept = kept
    sandbox = await runtime.create(SandboxSpec(uuid4(), uuid4(), 1, "host"))
    rig = Rig(runtime, sandbox, runtime.run_dir(sandbox))
    try:
        await rig.tmux.ensure(sandbox, "one-1", "/tmp", variables={"V": "x" * 2000})

        assert "none of your variables" in await typed(rig, "one-1", "echo al''ive", "\nalive")
        assert b"V" not in await environment_of(rig, "one-1")
    finally:
        await rig.end()


async def test_the_values_are_never_written_where_the_fifo_is_gone(tmp_path: Path) -> None:
    runtime = HostRuntime(tmp_path)
    sandbox = await runtime.create(SandboxSpec(uuid4(), uuid4(), 1, "host"))
    gone, file = tmp_path / "gone", tmp_path / "file"
    file.write_bytes(b"")

    for path in (gone, file):
        done = await runtime.run(sandbox, giving(str(path)), stdin=b"value")
        assert done.exit_code == 1
    assert not gone.exists()
    assert file.read_bytes() == b""
