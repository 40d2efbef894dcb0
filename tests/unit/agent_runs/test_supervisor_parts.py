"""The parts of an agent session's supervisor, the hook's program, and how they are sent."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from craftastic.agent_runs._supervisor_files import in_memory, put, remove
from craftastic.agent_runs._supervisor_reports import (
    MAX_EVENTS,
    MAX_QUEUE_BYTES,
    Ask,
    Reports,
)
from craftastic.agent_runs.programs import (
    MAX_STARTED_BYTES,
    MAX_WORD_BYTES,
    BadAgentLaunch,
    Launch,
    LaunchFile,
    hook_file,
    hook_text,
    pack,
)
from craftastic.agents.agent_types import AgentTypes

WAIT_S = 20.0
FAKES = Path(__file__).parents[2] / "fakes"
GOOD = Launch(
    session="0b1c", home="/home/dev/a b", memory="/dev/shm/craftastic-0b1c", cwd="/tmp",
    argv=("claude",), env={"A": "secret-value"}, files=(hook_file(),),
    gateway="http://craftastic-gateway:7780/agent/0b1c", token="secret-token", nonce="n1",
    idle_events=("Stop",), ask_event="PermissionRequest", missing="Not here.", title="Claude",
)  # fmt: skip


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, f"did not come true: {what}"
        time.sleep(0.005)


# ---- what is sent ----------------------------------------------------------------------------


def test_a_launch_is_packed_whole_and_the_program_needs_nothing_of_the_project() -> None:
    said = json.loads(pack(GOOD))

    assert set(said) == {"program", "launch"}
    assert said["launch"]["files"][0] == {
        "path": "hook", "text": hook_text(), "mode": 0o700, "memory": False, "take_back": False,
    }  # fmt: skip
    keys = "session home memory cwd argv env files gateway token nonce idle_events ask_event"
    assert set(said["launch"]) == {*keys.split(), "missing", "title", "resume"}
    assert "secret" not in said["program"]
    # Every part is there before whoever imports it; this Python knows nothing of the project.
    run = (
        "import sys; space = {'__name__': 'x'}; exec(sys.stdin.read(), space); space['Supervisor']"
    )
    ran = subprocess.run(
        ["/usr/bin/python3", "-I", "-S", "-c", run],
        input=said["program"].encode(),
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr.decode()) == (0, "")


def test_a_launch_does_not_show_its_secrets() -> None:
    launch = replace(GOOD, files=(LaunchFile("auth.json", "secret-file"),))

    assert "secret" not in repr(launch)


@pytest.mark.parametrize(
    "changes",
    [
        {"session": "a/b"},
        {"session": ""},
        {"nonce": "a\nb"},
        {"gateway": "https://craftastic-gateway:1/agent/x"},
        {"gateway": "http://user@host:1/agent/x"},
        {"gateway": "http://host:1/agent/x?y"},
        {"token": ""},
        {"token": "a b"},
        {"token": "a\r\nHost: b"},
        {"home": "relative"},
        {"cwd": "/a\nb"},
        {"memory": "/\ud800"},
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("a",) * 201},
        {"argv": ("a", "b\0c")},
        {"argv": ("a", "\ud800")},
        {"argv": ("a", "x" * MAX_WORD_BYTES)},
        {"argv": ("a", *["x" * (MAX_WORD_BYTES - 1)] * (MAX_STARTED_BYTES // MAX_WORD_BYTES + 1))},
        {"env": {"A-B": "x"}},
        {"env": {"": "x"}},
        {"env": {"A": "x\0"}},
        {"env": {"A": "é" * (MAX_WORD_BYTES // 2)}},
        {"env": {f"A{n}": "x" for n in range(201)}},
        {"files": (LaunchFile("/a", ""),)},
        {"files": (LaunchFile("../a", ""),)},
        {"files": (LaunchFile("a/../../b", ""),)},
        {"files": (LaunchFile("", ""),)},
        {"files": (LaunchFile(".", ""),)},
        {"files": (LaunchFile("a//b", ""),)},
        {"files": (LaunchFile("a\nb", ""),)},
        {"files": (LaunchFile("a", "\ud800"),)},
        {"files": (LaunchFile("a", "", mode=0o644),)},
        {"files": (LaunchFile("a", ""), LaunchFile("a", ""))},
        {"files": (LaunchFile("a", "x" * (3 << 20)),)},
        {"files": (LaunchFile("a", "x" * (300 << 10), take_back=True),)},
        {"files": tuple(LaunchFile(f"a{n}", "") for n in range(51))},
        {"idle_events": ("Stop",) * 101},
        {"missing": "x" * 4001},
        {"title": "\ud800"},
        {"resume": "a\0"},
    ],
)
def test_what_cannot_be_started_is_refused_without_its_secrets(changes: dict[str, Any]) -> None:
    with pytest.raises(BadAgentLaunch) as caught:
        pack(replace(GOOD, **changes))

    assert "secret" not in caught.value.message
    assert len(caught.value.message) < 300


def test_the_largest_words_that_are_let_through_can_be_started() -> None:
    word = "x" * (MAX_WORD_BYTES - 1)
    argv = ("true", *[word] * (MAX_STARTED_BYTES // (MAX_WORD_BYTES + 1)))
    pack(replace(GOOD, argv=argv, env={}))

    assert subprocess.run(argv, check=False).returncode == 0


def test_the_scripted_cli_has_a_valid_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "agent-types"
    folder.mkdir()
    (folder / "fake.toml").write_bytes((FAKES / "fake_agent.toml").read_bytes())

    types = AgentTypes.load(tmp_path)

    assert types.problems == ()
    assert types.get("fake-agent").argv[0] == "fake-agent"


# ---- the hook --------------------------------------------------------------------------------


class Desk:
    """Plays the supervisor's socket: takes one line and answers it."""

    def __init__(self, folder: Path, answer: bytes | None) -> None:
        self.path = folder / "agent.sock"
        self.answer, self.said = answer, b""
        self.listener = socket.socket(socket.AF_UNIX)
        here = os.open(folder, os.O_PATH)
        self.listener.bind(f"/proc/self/fd/{here}/agent.sock")
        os.close(here)
        self.listener.listen()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        self.listener.settimeout(WAIT_S)
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as file:
            self.said = file.readline()
            if self.answer is None:
                self.over.wait(WAIT_S)
            else:
                connection.sendall(self.answer)


@contextmanager
def desk(folder: Path, answer: bytes | None) -> Generator[Desk]:
    one = Desk(folder, answer)
    try:
        yield one
    finally:
        one.over.set()
        one.thread.join()
        one.listener.close()


@pytest.fixture
def hook(tmp_path: Path) -> Path:
    path = tmp_path / "hook"
    path.write_text(hook_text())
    path.chmod(0o700)
    return path


def env_of(one: Desk) -> dict[str, str]:
    return {"CRAFTASTIC_AGENT_SOCKET": str(one.path)}


def called(
    hook: Path, *words: str, env: dict[str, str], text: bytes = b"{}"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(hook), *words], input=text, capture_output=True, check=False, env=env, timeout=WAIT_S
    )


def test_a_hook_passes_its_event_on_in_one_line(tmp_path: Path, hook: Path) -> None:
    with desk(tmp_path, b'{"answer": ""}\n') as one:
        text = b'{\r\n "a": "one\\ntwo \xc3\xa9"\n}\n'
        done = called(hook, "Stop", text=text, env=env_of(one))

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert json.loads(one.said) == {"op": "event", "event": "Stop", "payload": {"a": "one\ntwo é"}}


def test_a_hook_takes_its_payload_from_an_argument_too(tmp_path: Path, hook: Path) -> None:
    with desk(tmp_path, b"{}\n") as one:
        done = called(hook, "Turn", '{"type": "x"}', env=env_of(one))

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert json.loads(one.said)["payload"] == {"type": "x"}


def test_a_hook_without_a_payload_tells_the_event(tmp_path: Path, hook: Path) -> None:
    with desk(tmp_path, b"{}\n") as one:
        called(hook, "Stop", text=b"", env=env_of(one))

    assert json.loads(one.said)["payload"] == {}


def test_a_hook_that_asks_prints_the_answer(tmp_path: Path, hook: Path) -> None:
    answer = json.dumps({"answer": '{"allow": "é"}'}).encode() + b"\n"
    with desk(tmp_path, answer) as one:
        env = {**env_of(one), "CRAFTASTIC_AGENT_ASK": "Ask", "LANG": "C"}
        done = called(hook, "Ask", env=env)

    assert (done.returncode, done.stdout.decode()) == (0, '{"allow": "é"}')


@pytest.mark.parametrize("size", [100, 30_000_000])
def test_a_large_payload_is_shortened_and_stays_whole(
    size: int, tmp_path: Path, hook: Path
) -> None:
    payload = {"tool_name": "Write", "tool_input": {"content": "x" * size}, "list": ["y"] * size}
    payload["list"] = ["y" * 100] * 10_000
    with desk(tmp_path, b"{}\n") as one:
        text = json.dumps(payload).encode()
        done = called(hook, "Stop", text=text, env=env_of(one))

    assert (done.returncode, done.stderr) == (0, b"")
    assert len(one.said) < 256 << 10
    said = json.loads(one.said)["payload"]
    assert said["tool_name"] == "Write"
    assert said["tool_input"]["content"].startswith("xxx")


def test_a_hook_never_hinders_its_agent(tmp_path: Path, hook: Path) -> None:
    nobody = str(tmp_path / "nobody.sock")
    environments: list[dict[str, str]] = [
        {},
        {"CRAFTASTIC_AGENT_SOCKET": ""},
        {"CRAFTASTIC_AGENT_SOCKET": nobody},
        {"CRAFTASTIC_AGENT_SOCKET": "/nowhere/at/all"},
    ]
    for env in environments:
        for words in ([], ["Stop"], ["PermissionRequest"]):
            done = called(hook, *words, env=env)
            assert (done.returncode, done.stdout) == (0, b"")


def test_a_hook_waits_for_no_answer_but_the_one_that_asks(tmp_path: Path, hook: Path) -> None:
    with desk(tmp_path, None) as one:
        env = {**env_of(one), "CRAFTASTIC_AGENT_ASK": "Ask", "LANG": "C"}
        done = called(hook, "Stop", env=env)  # it ends although nobody answers

    assert (done.returncode, done.stdout) == (0, b"")


def test_a_hook_does_not_wait_for_an_input_that_never_ends(hook: Path) -> None:
    read, write = os.pipe()
    try:
        env = {"CRAFTASTIC_AGENT_SOCKET": "/nowhere"}
        done = subprocess.run([str(hook), "Stop"], stdin=read, check=False, env=env, timeout=WAIT_S)
    finally:
        os.close(read)
        os.close(write)
    assert done.returncode == 0


# ---- the queue -------------------------------------------------------------------------------


def reports() -> Reports:
    return Reports({"gateway": "http://127.0.0.1:1/agent/x", "token": "t", "nonce": "n"})


def test_a_full_queue_loses_the_oldest_events_of_hooks_and_none_of_its_own() -> None:
    queue = reports()
    queue.put("craftastic:started", {})
    for number in range(MAX_EVENTS + 500):
        queue.put("PostToolUse", {"n": number})
    queue.put("craftastic:exited", {"code": 0})

    names = [one.name for one in queue.queue]
    assert len(names) == MAX_EVENTS
    assert (names[0], names[-1]) == ("craftastic:started", "craftastic:exited")
    assert json.loads(queue.queue[-2].body)["payload"] == {"n": MAX_EVENTS + 499}
    assert queue.dropped == 502


def test_a_queue_of_large_events_is_bounded_and_a_lost_ask_is_answered() -> None:
    queue = reports()
    read, write = os.pipe()
    ask = Ask(write)
    queue.put("PermissionRequest", {}, ask)
    for _ in range(40):
        queue.put("PostToolUse", {"text": "x" * 200_000})

    assert sum(len(one.body) for one in queue.queue) == queue.bytes <= MAX_QUEUE_BYTES
    assert (ask.answer, ask.waits) == ("", False)
    os.close(read)
    os.close(write)


# ---- memory ----------------------------------------------------------------------------------


def test_what_is_in_memory_is_told_from_a_disk(tmp_path: Path) -> None:
    assert in_memory(Path("/dev/shm"))
    link = tmp_path / "link"
    link.symlink_to("/dev/shm")
    assert in_memory(link)
    assert not in_memory(Path("/etc"))
    assert not in_memory(Path("/proc"))
    assert not in_memory(tmp_path / "absent")


def test_removing_follows_no_link(tmp_path: Path) -> None:
    kept, folder = tmp_path / "kept", tmp_path / "folder"
    kept.mkdir()
    (kept / "file").write_text("x")
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/one").write_text("x")
    (folder / "link").symlink_to(kept)
    (folder / "deep/broken").symlink_to("nowhere")

    remove(folder)

    assert not folder.exists()
    assert (kept / "file").exists()


def test_a_file_takes_the_place_of_a_link_and_not_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "file").symlink_to("other")

    put(tmp_path / "file", b"new", 0o600)

    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "other").read_text() == "other"


def test_a_guard_removes_the_folder_of_whoever_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "login").write_text("secret")
    script = (
        "import sys, time; from pathlib import Path\n"
        "from craftastic.agent_runs._supervisor_files import guard\n"
        "guard(Path(sys.argv[1])); print('ready', flush=True); time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        assert folder.exists()
        one.kill()

    until(lambda: not folder.exists(), "the folder is gone")
