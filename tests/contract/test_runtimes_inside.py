"""What every runtime promises about the inside of a sandbox, tried with real processes."""

import json
import os
import secrets
import signal
import stat
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from craftastic.runtimes.base import (
    HOME,
    RUN_DIR,
    RunTimeout,
    SandboxExhausted,
    SandboxGone,
    SandboxRef,
    SandboxState,
)
from tests.contract.conftest import Bench, as_user, until

HOSTILE = [
    "",
    " ",
    "-rf",
    "--help",
    "$(touch /tmp/canary)",
    "`touch /tmp/canary`",
    ";id",
    "a'b\"c\\d",
    "line\nbreak",
    "tab\tand\x1b[31mred",
    "*",
    "~",
    "$HOME",
    "ünïcödé 🚀",
    "%s%n",
    "x" * 100_000,
]
COMMIT = """
set -eu
repository="$HOME/.craftastic/repos/$1"
tree="$HOME/.craftastic/worktrees/$1/main"
git init -q --bare "$repository"
git -C "$repository" config user.name Dev
git -C "$repository" config user.email a@example.com
git -C "$repository" worktree add -q --orphan -b main "$tree" 2>/dev/null || {
  empty=$(git -C "$repository" commit-tree "$(git -C "$repository" mktree </dev/null)" -m empty)
  git -C "$repository" branch main "$empty"
  git -C "$repository" worktree add -q "$tree" main
}
cd "$tree"
echo hello > file
git add file
git commit -q -m first
git log -1 --format=%s
"""


# ---- commands -------------------------------------------------------------------------------


async def test_both_outputs_are_kept_apart(real: Bench) -> None:
    ref = await real.sandbox()

    result = await real.runtime.run(ref, ["sh", "-c", "echo out; echo err >&2; exit 7"])

    assert (result.exit_code, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


async def test_each_output_stays_under_the_limit(real: Bench) -> None:
    ref = await real.sandbox()
    script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"

    result = await real.runtime.run(ref, ["sh", "-c", script], max_output_bytes=200_000)

    assert len(result.stdout) <= 200_000
    assert len(result.stderr) <= 200_000
    assert len(result.stdout) + len(result.stderr) >= 200_000
    assert result.truncated
    assert result.exit_code == 0


async def test_endless_output_is_ended_by_the_time_limit_alone(real: Bench) -> None:
    ref = await real.sandbox()

    with pytest.raises(RunTimeout):
        await real.runtime.run(ref, ["yes", "4321"], timeout_s=1, max_output_bytes=1000)

    await real.gone(ref, "4321")


async def test_a_command_that_does_not_exist_answers_as_in_a_shell(real: Bench) -> None:
    ref = await real.sandbox()

    result = await real.runtime.run(ref, ["no-such-command"])

    assert result.exit_code == 127
    assert b"no-such-command" in result.stderr


async def test_a_command_ended_by_a_signal_answers_as_in_a_shell(real: Bench) -> None:
    ref = await real.sandbox()

    assert (await real.runtime.run(ref, ["sh", "-c", "kill -TERM $$"])).exit_code == 143


async def test_a_command_that_reads_no_input_is_not_held_up_by_it(real: Bench) -> None:
    ref = await real.sandbox()

    with anyio.fail_after(15):
        result = await real.runtime.run(ref, ["true"], stdin=b"x" * 4_000_000)

    assert result.exit_code == 0


async def test_a_large_input_and_output_pass_at_the_same_time(real: Bench) -> None:
    ref = await real.sandbox()
    data = os.urandom(4_000_000)

    assert (await real.runtime.run(ref, ["cat"], stdin=data)).stdout == data


async def test_hostile_arguments_arrive_as_they_are(real: Bench) -> None:
    ref = await real.sandbox()
    script = "import sys; sys.stdout.write('\\0'.join(sys.argv[1:]))"

    result = await real.runtime.run(ref, ["python3", "-c", script, *HOSTILE])

    assert result.stdout.decode().split("\0") == HOSTILE
    assert (await real.runtime.run(ref, ["test", "-e", "/tmp/canary"])).exit_code == 1
    assert not await anyio.Path("/tmp/canary").exists()


async def test_a_command_that_takes_too_long_leaves_nothing_running(real: Bench) -> None:
    ref = await real.sandbox()

    with pytest.raises(RunTimeout):
        await real.runtime.run(ref, ["sh", "-c", "sleep 4321 & sleep 4321"], timeout_s=0.5)

    await real.gone(ref, "4321")


async def test_a_cancelled_command_leaves_nothing_running(real: Bench) -> None:
    ref = await real.sandbox()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(real.runtime.run, ref, ["sleep", "4321"])

        async def begun() -> bool:
            return await real.running(ref, "4321")

        await until(begun, "the command runs")
        tasks.cancel_scope.cancel()

    await real.gone(ref, "4321")


async def test_a_command_ignores_no_end(real: Bench) -> None:
    ref = await real.sandbox()
    script = "trap '' HUP INT TERM PIPE; sleep 4321; sleep 4321"

    with pytest.raises(RunTimeout):
        await real.runtime.run(ref, ["sh", "-c", script], timeout_s=0.5)

    await real.gone(ref, "4321")


async def test_what_a_spawned_command_leaves_goes_on(real: Bench) -> None:
    ref = await real.sandbox()

    with anyio.fail_after(5):
        result = await real.runtime.spawn(ref, ["sh", "-c", "sleep 4321 & echo started"])

    assert result.stdout == b"started\n"
    assert await real.running(ref, "4321")
    await real.runtime.stop(ref)
    assert await real.runtime.inspect(ref) is SandboxState.STOPPED


# ---- the inside -----------------------------------------------------------------------------


async def test_commands_start_in_the_users_home_with_the_promised_environment(
    real: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRAFTASTIC_CANARY", "canary-of-the-server")
    ref = await real.sandbox()

    lines = (await real.sh(ref, "pwd; id -un; env")).splitlines()

    assert lines[:2] == [HOME, "dev"]
    environment = dict(line.split("=", 1) for line in lines[2:] if "=" in line)
    assert environment["HOME"] == HOME
    assert environment["USER"] == "dev"
    assert environment["SHELL"] == "/bin/bash"
    assert environment["LANG"].upper().replace("-", "").endswith("UTF8")
    assert environment["TERM"]
    assert "canary" not in "\n".join(lines)
    everything = await real.sh(ref, "cat /proc/[0-9]*/environ 2>/dev/null; true")
    assert "canary" not in everything
    assert "CRAFTASTIC" not in everything


async def test_the_promised_programs_are_there(real: Bench) -> None:
    ref = await real.sandbox()

    await real.sh(ref, "for one in git tmux bash sh python3; do command -v $one || exit 1; done")

    version = (await real.sh(ref, "tmux -V")).split()[1]
    assert tuple(int("".join(filter(str.isdigit, part))) for part in version.split(".")) >= (3, 2)


async def test_tmux_and_a_commit_in_a_worktree_work(real: Bench) -> None:
    """SEC-21."""
    spec = real.spec()
    ref = await real.runtime.create(spec)

    assert (await real.sh(ref, COMMIT, str(spec.environment_id))).strip() == "first"

    socket = f"{RUN_DIR}/tmux.sock"
    tree = f"{HOME}/.craftastic/worktrees/{spec.environment_id}/main"
    started = await real.runtime.spawn(
        ref, ["tmux", "-S", socket, "new-session", "-d", "-s", "one", "-c", tree]
    )
    assert started.exit_code == 0, started.stderr
    sending = ["tmux", "-S", socket, "send-keys", "-t", "=one:", "git log --oneline | cat", "Enter"]
    assert (await real.runtime.run(ref, sending)).exit_code == 0

    async def shown() -> bool:
        screen = ["tmux", "-S", socket, "capture-pane", "-p", "-t", "=one:"]
        return b" first" in (await real.runtime.run(ref, screen)).stdout

    await until(shown, "the shell in tmux shows the commit")


async def test_the_run_folder_is_private_and_empty_after_a_start(real: Bench) -> None:
    spec = real.spec()
    ref = await real.runtime.create(spec)
    assert (await real.sh(ref, f"stat -c '%a %U' {RUN_DIR}")).split() == ["700", "dev"]
    await real.sh(ref, f"touch {RUN_DIR}/left")

    await real.runtime.stop(ref)
    ref = await real.runtime.create(spec)

    assert await real.sh(ref, f"ls -A {RUN_DIR}") == ""


async def test_storage_outlives_stop_and_removal_without_storage(real: Bench) -> None:
    spec = real.spec()
    ref = await real.runtime.create(spec)
    key = str(spec.environment_id)
    write = (
        'echo 1 > ~/mine; for t in repos worktrees; do echo 1 > ~/.craftastic/$t/"$1"/mine; done'
    )
    await real.sh(ref, write, key)
    read = 'cat ~/mine ~/.craftastic/repos/"$1"/mine ~/.craftastic/worktrees/"$1"/mine'

    await real.runtime.stop(ref)
    ref = await real.runtime.create(spec)
    assert await real.sh(ref, read, key) == "1\n1\n1\n"

    await real.runtime.remove(spec, storage=False)
    ref = await real.runtime.create(spec)
    assert await real.sh(ref, read, key) == "1\n1\n1\n"


async def test_files_belong_to_the_sandboxs_own_user(real: Bench) -> None:
    spec = real.spec()
    ref = await real.runtime.create(spec)
    await real.sh(ref, "touch ~/mine")
    uid = real.settings.sandbox_uid_base + spec.number if os.geteuid() == 0 else os.geteuid()

    for tree in ("homes", "repos", "worktrees"):
        folder = real.settings.data_dir / tree / str(spec.environment_id)
        assert folder.stat().st_uid == uid
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o711
    home = real.settings.data_dir / "homes" / str(spec.environment_id)
    assert (home / "mine").stat().st_uid == uid


async def test_removing_storage_survives_a_hostile_tree(real: Bench, tmp_path: Path) -> None:
    """SEC-10."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("kept")
    spec = real.spec()
    ref = await real.runtime.create(spec)
    plant = """
    cd; ln -s "$1" link; ln -s "$1/precious" file; ln -s / root; ln -s .. up
    mkdir -p closed/inner/deep && touch closed/inner/f
    chmod 000 closed/inner/deep closed/inner closed
    mkdir -p readonly/x && touch readonly/f && chmod 500 readonly
    mkfifo pipe; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
    for i in $(seq 400); do mkdir -p aaaaaaaaaaaaaaaa; cd aaaaaaaaaaaaaaaa; done; touch bottom
    """
    await real.sh(ref, plant, str(victim))
    worktrees = f"{HOME}/.craftastic/worktrees/{spec.environment_id}"
    await real.sh(ref, 'cd "$1" && ln -s "$2" main', worktrees, str(victim))

    await real.runtime.remove(spec, storage=True)

    left = [
        found
        for found in real.settings.data_dir.rglob("*")
        if str(spec.environment_id) in found.name
    ]
    assert left == []
    assert (victim / "precious").read_text() == "kept"


async def test_a_sandbox_starts_again_after_it_moved_its_folders_away(real: Bench) -> None:
    spec = real.spec()
    ref = await real.runtime.create(spec)
    await real.sh(ref, "mv ~/.craftastic ~/elsewhere; ln -s /etc ~/.craftastic")

    await real.runtime.stop(ref)
    ref = await real.runtime.create(spec)

    await real.sh(ref, 'touch ~/.craftastic/repos/"$1"/works', str(spec.environment_id))


# ---- streams --------------------------------------------------------------------------------


async def test_a_stream_keeps_both_outputs_apart(real: Bench) -> None:
    ref = await real.sandbox()
    out, err = bytearray(), bytearray()
    script = "head -c 500000 /dev/zero >&2 & head -c 700000 /dev/zero | tr '\\0' x; wait"

    async with real.runtime.open(ref, ["sh", "-c", script]) as stream:

        async def errors() -> None:
            while data := await stream.receive_stderr():
                err.extend(data)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(errors)
                while data := await stream.receive_stdout():
                    out.extend(data)

    assert bytes(out) == b"x" * 700_000
    assert bytes(err) == bytes(500_000)


async def test_a_stream_ends_with_its_command(real: Bench) -> None:
    ref = await real.sandbox()

    async with real.runtime.open(ref, ["echo", "bye"]) as stream:
        with anyio.fail_after(15):
            assert await stream.receive_stdout() == b"bye\n"
            assert await stream.receive_stdout() == b""
            assert await stream.receive_stderr() == b""

            async def refused() -> bool:
                try:
                    await stream.send(b"x")
                except SandboxGone:
                    return True
                return False

            await until(refused, "sending is refused")


@pytest.mark.parametrize(
    "argv",
    [["cat", "/dev/zero"], ["sleep", "4321"], ["sh", "-c", "trap '' HUP TERM; sleep 4321; cat"]],
    ids=["writes", "waits", "ignores"],
)
async def test_leaving_a_stream_ends_its_command(real: Bench, argv: list[str]) -> None:
    ref = await real.sandbox()
    word = "4321" if "4321" in argv[-1] else "/dev/zero"

    async with real.runtime.open(ref, argv):

        async def begun() -> bool:
            return await real.running(ref, word)

        await until(begun, "the command runs")

    await real.gone(ref, word)


async def test_a_stream_that_is_not_read_stops_its_command(real: Bench) -> None:
    """Bytes that nobody reads stay in the sandbox; nothing is lost when reading goes on."""
    ref = await real.sandbox()
    script = (
        "import os\n"
        "for number in range(2000):\n"
        "    os.write(1, b'%07d\\n' % number * 8192)\n"
        "    open('/tmp/written', 'w').write(str(number))\n"
    )
    received = bytearray()

    async with real.runtime.open(ref, ["python3", "-c", script]) as stream:
        await until(lambda: real.runtime.run(ref, ["test", "-s", "/tmp/written"]), "it writes")
        before = -1

        async def stands_still() -> bool:
            nonlocal before
            last, before = before, int(await real.sh(ref, "sleep 0.3; cat /tmp/written"))
            return last == before

        await until(stands_still, "the command waits")
        assert before < 300  # of 2000: 64 KiB each
        with anyio.fail_after(60):
            while data := await stream.receive_stdout():
                received += data

    assert len(received) == 2000 * 8192 * 8
    assert received[::65536] == b"".join(b"%07d" % n for n in range(2000))[::7]


async def test_sending_waits_while_the_command_does_not_read(real: Bench) -> None:
    ref = await real.sandbox()
    sent = 0

    async with real.runtime.open(ref, ["sleep", "4321"]) as stream:
        with anyio.move_on_after(2):
            for _ in range(1000):
                await stream.send(bytes(65536))
                sent += 65536

    assert sent < 16 << 20
    await real.gone(ref, "4321")


async def test_the_death_of_the_server_ends_a_streams_command(real: Bench) -> None:
    ref = await real.sandbox()
    program = """
import json, sys, anyio
from pathlib import Path
from craftastic.settings import Settings
from craftastic.runtimes.base import SandboxRef
told = json.loads(sys.argv[1])
settings = Settings.model_validate(
    {"data_dir": Path(told["data_dir"]), "gateway_port": told["port"], "docker_host": None})
if told["kind"] == "docker":
    from craftastic.runtimes.docker import DockerRuntime as Kind
else:
    from craftastic.runtimes.local import LocalRuntime as Kind
async def main():
    runtime = Kind(settings, told["instance"])
    async with runtime.open(SandboxRef(told["kind"], told["id"]), ["sleep", "4321"]):
        print("open", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""
    told = {
        "kind": real.kind,
        "data_dir": str(real.settings.data_dir),
        "port": real.settings.gateway_port,
        "instance": real.instance,
        "id": ref.id,
    }
    argv = [sys.executable, "-c", program, json.dumps(told)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:  # noqa: ASYNC220
        assert server.stdout is not None
        assert await anyio.to_thread.run_sync(server.stdout.readline) == b"open\n"
        assert await real.running(ref, "4321")

        server.send_signal(signal.SIGKILL)

    await real.gone(ref, "4321")


# ---- limits and walls -----------------------------------------------------------------------


async def test_a_sandbox_full_of_processes_says_so_and_can_be_removed(real: Bench) -> None:
    """F37: and its neighbour does not notice."""
    spec = real.spec(pids=64)
    ref = await real.runtime.create(spec)
    neighbour = await real.sandbox()
    script = (
        "import os, time\n"
        "while True:\n"
        "    try:\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(4321)\n"
        "    except OSError:\n"
        "        time.sleep(0.05)\n"
    )
    await real.runtime.spawn(
        ref, ["sh", "-c", 'setsid python3 -c "$1" >/dev/null 2>&1 &', "sh", script]
    )

    async def exhausted() -> bool:
        try:
            await real.runtime.run(ref, ["true"], timeout_s=5)
        except SandboxExhausted:
            return True
        except RunTimeout:
            return False
        return False

    await until(exhausted, "the sandbox is exhausted")
    with pytest.raises(SandboxExhausted):
        async with real.runtime.open(ref, ["cat"]):
            pass
    assert (await real.runtime.run(neighbour, ["true"])).exit_code == 0
    await real.runtime.remove(spec, storage=True)
    assert await real.runtime.inspect(ref) is SandboxState.GONE


async def test_the_inside_is_hardened(real: Bench) -> None:
    """SEC-20, SEC-27."""
    ref = await real.sandbox()

    status = dict(
        line.split(":\t", 1)
        for line in (await real.sh(ref, "cat /proc/self/status")).splitlines()
        if ":\t" in line
    )

    assert int(status["CapEff"], 16) == 0
    assert int(status["CapPrm"], 16) == 0
    assert int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert await real.sh(ref, "id -u") != "0\n"
    await real.sh(ref, "! unshare -Ur true 2>/dev/null")
    await real.sh(ref, "! touch /usr/bin/canary /etc/canary /canary 2>/dev/null")
    await real.sh(ref, "! ls /var/run/docker.sock /run/docker.sock 2>/dev/null")
    await real.sh(ref, "! mount -t tmpfs none /mnt 2>/dev/null")
    await real.sh(ref, "! cat /etc/shadow 2>/dev/null")


async def test_two_sandboxes_cannot_touch_each_others_files(real: Bench) -> None:
    """SEC-26."""
    one, two = real.spec(), real.spec()
    first, second = await real.runtime.create(one), await real.runtime.create(two)
    await real.sh(first, "echo secret > ~/secret; chmod 777 ~ ~/secret")

    await real.sh(second, '! ls ~/.craftastic/repos/"$1" 2>/dev/null', str(one.environment_id))
    await real.sh(second, '! ls "$1" 2>/dev/null', str(real.settings.data_dir))
    if os.geteuid() == 0:
        base = real.settings.sandbox_uid_base
        homes = real.settings.data_dir / "homes"
        owners = {(homes / str(spec.environment_id)).stat().st_uid for spec in (one, two)}
        assert owners == {base + one.number, base + two.number}
        repos = real.settings.data_dir / "repos" / str(one.environment_id)
        assert as_user(base + two.number, "ls", str(repos)) != 0
        assert as_user(base + two.number, "ls", str(repos.parent)) != 0
        assert as_user(base + one.number, "ls", str(repos)) == 0


async def test_two_sandboxes_cannot_reach_each_others_ports(real: Bench) -> None:
    """SEC-22."""
    first, second = await real.sandbox(), await real.sandbox()
    port = 20_000 + secrets.randbelow(10_000)
    listen = (
        "import socket, sys\n"
        "s = socket.socket(); s.bind(('', int(sys.argv[1]))); s.listen()\n"
        "print(socket.gethostbyname(socket.gethostname()), flush=True)\n"
        "while True:\n"
        "    s.accept()[0].sendall(b'reached')\n"
    )
    connect = (
        "import socket, sys\n"
        "print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).recv(9))\n"
    )

    async with real.runtime.open(second, ["python3", "-c", listen, str(port)]) as stream:
        address = (await stream.receive_stdout()).decode().strip()
        for target in (address, "127.0.0.1"):
            argv = ["python3", "-c", connect, target, str(port)]
            tried = await real.runtime.run(first, argv)
            assert tried.exit_code != 0, tried.stdout
            # The listener is there: a test that cannot fail proves nothing.
            assert (await real.runtime.run(second, argv)).stdout == b"b'reached'\n"


async def test_the_gateway_is_reached_and_nothing_else_of_the_host(gateway: Bench) -> None:
    """SEC-22."""
    ref = await gateway.sandbox()
    ask = (
        "import sys, urllib.request\n"
        "print(urllib.request.urlopen('http://craftastic-gateway:' + sys.argv[1]).read())\n"
    )

    answer = await gateway.sh(ref, 'python3 -c "$1" "$2"', ask, str(gateway.settings.gateway_port))
    isolation = await gateway.runtime.isolation(ref)

    assert answer == "b'gateway'\n"
    if os.geteuid() == 0:
        assert isolation.summary == "network isolation: verified"


async def test_sandboxes_of_another_installation_are_not_touched(real: Bench) -> None:
    """SEC-25."""
    ref = await real.sandbox()
    other = type(real.runtime)(real.settings, secrets.token_hex(16))  # type: ignore[call-arg]
    try:
        assert await other.list() == []
        assert await other.inspect(ref) is SandboxState.GONE
        await other.stop(ref)
        with pytest.raises(SandboxGone):
            await other.run(ref, ["true"])
        with pytest.raises(SandboxGone):
            async with other.open(ref, ["cat"]):
                pass
    finally:
        await other.close()

    assert await real.runtime.inspect(ref) is SandboxState.RUNNING


async def test_a_new_server_finds_the_sandboxes_of_the_old_one(real: Bench) -> None:
    spec = real.spec()
    ref = await real.runtime.create(spec)
    started = await real.runtime.spawn(ref, ["sh", "-c", "sleep 4321 >/dev/null 2>&1 &"])
    assert started.exit_code == 0
    extra = {"network": real.runtime._network.name} if real.kind == "docker" else {}  # type: ignore[attr-defined]

    server = type(real.runtime)(real.settings, real.instance, **extra)  # type: ignore[call-arg]
    try:
        assert await server.create(spec) == ref
        assert [one.ref for one in await server.list()] == [SandboxRef(real.kind, ref.id)]
    finally:
        await server.close()

    assert await real.running(ref, "4321")
