"""What a sandbox tells about its jobs is hostile: it is read from a fixed form, or refused."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.runtimes.base import RunResult
from craftastic.worktrees._jobs import (
    MAX_SECRET_BYTES,
    Job,
    JobNotStarted,
    JobStatus,
    Look,
    _look,
    _whole,
)


def look(answer: Any, code: int = 0) -> Look:
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return _look(RunResult(code, raw, b"said"))


def encoded(content: bytes) -> str:
    return b64encode(content).decode()


def job(**state: Any) -> Job:
    return look({"jobs": {"setup": state}}).jobs["setup"]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({}, JobStatus.NONE),
        ({"running": True}, JobStatus.NONE),
        ({"running": True, "started": 1}, JobStatus.RUNNING),
        ({"started": 1}, JobStatus.INTERRUPTED),
        ({"started": 1, "finished": 2}, JobStatus.INTERRUPTED),
        ({"started": 1, "finished": 2, "exit": 0}, JobStatus.SUCCEEDED),
        ({"running": True, "started": 1, "finished": 2, "exit": 0}, JobStatus.SUCCEEDED),
        ({"started": 1, "finished": 2, "exit": 1}, JobStatus.FAILED),
        ({"started": 1, "finished": 2, "exit": 143, "ended": "timeout"}, JobStatus.FAILED),
        ({"started": 1, "finished": 2, "exit": 143, "ended": "stopped"}, JobStatus.INTERRUPTED),
    ],
)
def test_a_state_has_one_meaning(state: dict[str, Any], status: JobStatus) -> None:
    assert job(**state).status is status


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff",
        [],
        {"jobs": []},
        {"jobs": {str(number): {} for number in range(101)}},
        {"jobs": {"setup": {"started": -1}}},
        {"jobs": {"setup": {"started": "1"}}},
        b'{"jobs": {"setup": {"started": NaN}}}',
        b'{"jobs": {"setup": {"started": 1e400}}}',
        {"jobs": {"setup": {"started": 1, "finished": 10**15, "exit": 0}}},
        {"jobs": {"setup": {"started": 1, "exit": 256}}},
        {"jobs": {"setup": {"started": 1, "exit": True}}},
        b'{"jobs": {"setup": {"command": ["\\ud800"]}}}',
        {"log": "not base64"},
        {"log": 1},
        {"config": {"content": 1}},
    ],
)
def test_nonsense_is_refused(answer: Any) -> None:
    with pytest.raises(JobNotStarted):
        look(answer)


def test_a_failure_tells_what_the_sandbox_said() -> None:
    with pytest.raises(JobNotStarted) as failure:
        look({}, code=1)

    assert failure.value.details == "said"


def test_names_and_notes_are_shown_readably() -> None:
    found = look(
        {
            "copied": encoded(b"a\0\xff\0half"),
            "notes": encoded(b"files 3\nnonsense 4\nbytes x\nfailed 2\n"),
            "log": encoded(b"\xff\n"),
        }
    )

    assert found.copied == ["a", "\ufffd"]
    assert found.log == "\ufffd\n"
    assert found.notes == [
        "3 more files matched than are copied at once (2000).",
        "2 files could not be copied.",
    ]


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=40))
def test_a_cut_log_never_begins_inside_a_line(before: bytes, secret: bytes) -> None:
    secret = secret.replace(b"\n", b"x")
    log = secret[len(secret) // 2 :] + b"\n" + before

    assert _whole(log, cut=True) == before
    assert _whole(log, cut=False) == log


def test_a_cut_log_of_one_long_line_loses_as_much_as_a_secret_is_long() -> None:
    log = b"s" * MAX_SECRET_BYTES + b"rest"

    assert _whole(log, cut=True) == b"rest"


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        look(raw)
    except JobNotStarted:
        return
