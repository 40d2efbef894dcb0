"""A sandbox answers the server's own questions with whatever it likes; the server stays whole.

Programs that the server runs in a sandbox are found by its search path, so any of them may be the
sandbox's own. What comes back is bounded, and an error of the sandbox at worst.
"""

import json
import os
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from craftastic.errors import CraftasticError
from craftastic.runtimes import _local_commands as commands
from craftastic.runtimes._probe import judge
from craftastic.runtimes.base import RUN_DIR, RunResult, SandboxSpec, SandboxState
from craftastic.runtimes.memory import Call, MemoryRuntime
from craftastic.worktrees.service import WorktreeService
from tests.contract.conftest import Bench

REPLIES = [
    b"",
    b"\n",
    b"x\n",
    b"[]\n",
    b"null\n",
    b"1\n",
    b'"started"\n',
    b"[" * 4000 + b"\n",
    b'{"a":' * 4000 + b"\n",
    b"9" * 4200 + b"\n",
    b"9" * 100_000,
    b'{"error": "exec", "errno": 1e400}\n',
    b'{"error": "exec", "errno": ' + b"9" * 4000 + b"}\n",
    b'{"error": "exec", "errno": -1}\n',
    b'{"error": []}\n',
    b'{"started": true}\n{"exit": ' + b"9" * 4000 + b"}\n",
    b'{"started": true}\n{"exit": -1}\n',
    b'{"started": true}\n{"exit": 256}\n',
    b'{"started": true}\n' + b"[" * 4000 + b"\n",
    b'{"started": true}\n{"exit": null}\n',
]


@contextmanager
def first_process(folder: Path, reply: bytes) -> Generator[None]:
    """Listen where a sandbox's first process does, and answer everything with this."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / commands.SOCKET_NAME))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(reply)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    thread.join(10)
    listener.close()


@pytest.mark.parametrize("reply", REPLIES, ids=range(len(REPLIES)))
async def test_a_first_process_that_lies_is_an_error_of_the_sandbox(
    tmp_path: Path, reply: bytes
) -> None:
    with first_process(tmp_path, reply), anyio.fail_after(10), pytest.raises(CraftasticError):
        await commands.run(tmp_path, ["true"], stdin=b"", timeout_s=5, max_output_bytes=1000)


TAKEOVER = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
found = []
pidfd = libc.syscall(434, 1, 0)
found += [f"descriptor {n}" for n in range(64) if libc.syscall(438, pidfd, n, 0) >= 0]
if libc.ptrace(0x4206, 1, 0, 0) == 0:
    found.append("traced")
for name in ("mem", "fd", "environ"):
    try:
        open(f"/proc/1/{name}", "rb") if name != "fd" else os.listdir("/proc/1/fd")
        found.append(name)
    except OSError:
        pass
print(json.dumps(found))
"""


@pytest.mark.local
async def test_nothing_inside_takes_the_first_process_over(real: Bench) -> None:
    if real.kind != "local":
        return
    ref = await real.sandbox()

    assert json.loads(await real.sh(ref, 'python3 -c "$1"', TAKEOVER)) == []
    # Commands are the sandbox's user's, and are killed for want of memory before process 1.
    assert (await real.sh(ref, "cat /proc/self/oom_score_adj")).strip() == "500"


async def test_a_run_folder_of_any_depth_is_no_obstacle(real: Bench) -> None:
    spec = real.spec()
    ref = await real.runtime.create(spec)
    dig = "import os\nos.chdir(%r)\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')\n"
    await real.sh(ref, 'python3 -c "$1"', dig % RUN_DIR)

    await real.runtime.stop(ref)
    ref = await real.runtime.create(spec)
    assert await real.sh(ref, f"ls -A {RUN_DIR}") == ""
    await real.sh(ref, 'python3 -c "$1"', dig % RUN_DIR)
    await real.runtime.remove(spec, storage=True)

    assert await real.runtime.inspect(ref) is SandboxState.GONE
    left = [str(spec.environment_id) in name for _, names, _ in os.walk(real.settings.data_dir)
            for name in names]  # fmt: skip
    assert not any(left)


NUMBERS = ["²", "-1", "1_0", "9" * 5000, "1e3", "", "٣", "0x1"]


@pytest.mark.parametrize("number", NUMBERS, ids=range(len(NUMBERS)))
async def test_counts_that_are_none_are_passed_over(number: str) -> None:
    async def answer(call: Call) -> RunResult:
        lines = f"unpushed {number}\nuncommitted yes\nref refs/x\n"
        if "unsaved" in call.argv[2] or len(call.argv) == 5:
            lines = f"yes {number} main\n"
        return RunResult(0, lines.encode(), b"")

    runtime = MemoryRuntime(answer)
    service = WorktreeService({"memory": runtime}, 1)  # type: ignore[arg-type]
    sandbox = await runtime.create(spec_of())

    kept = await service.release(sandbox, uuid4(), "main", keep_as="x")
    listed = await service.unsaved(sandbox, uuid4())

    assert kept is not None
    assert kept.unpushed == 0
    assert [one.unpushed for one in listed] in ([0], [])


def spec_of() -> SandboxSpec:
    return SandboxSpec(uuid4(), uuid4(), 1, "x")


ROW = '["x", "127.0.0.1", {port}, "tcp", "refused", {took}]'


@pytest.mark.parametrize(
    "output",
    [
        "[" * 200_000,
        '{"results": [' + ROW.format(port="1e999", took="0") + '], "gateway": "answered"}',
        '{"results": [' + ROW.format(port="9" * 5000, took="0") + '], "gateway": "answered"}',
        '{"results": [' + ROW.format(port="80", took="{}") + '], "gateway": "answered"}',
        '{"results": {}, "gateway": ' + "[" * 50_000 + "}",
        '{"results": 1e400, "gateway": []}',
        "null",
    ],
    ids=range(7),
)
def test_a_probe_that_lies_never_verifies(output: str) -> None:
    opened, unchecked = judge(
        RunResult(0, output.encode(), b""), extra=(), rules_set=True, gateway=("g", 1)
    )

    assert opened or unchecked
