"""The places where a server can be made to die: all are known, all are placed, none by mistake."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from craftastic import failpoints
from craftastic.failpoints import EXIT_CODE, FAILPOINTS, failpoint
from craftastic.settings import Settings
from tests.faults._scenarios import SCENARIOS

SOURCE = Path(failpoints.__file__).parent


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None)


def placed_in(source: str) -> Iterator[str]:
    """Yield the name that each call of `failpoint` is given; "?" for one that is no constant."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failpoint":
            first = node.args[0] if len(node.args) == 1 else None
            constant = isinstance(first, ast.Constant) and isinstance(first.value, str)
            yield str(first.value) if isinstance(first, ast.Constant) and constant else "?"


def test_failpoints_are_found_in_source_and_one_without_a_constant_name_is_too() -> None:
    source = "failpoint('a.b')\nif x:\n    failpoint(name)\nother('c')\n"

    assert list(placed_in(source)) == ["a.b", "?"]


def test_every_failpoint_is_placed_once_and_none_is_placed_that_is_not_listed() -> None:
    placed = Counter(
        name
        for path in SOURCE.rglob("*.py")
        for name in placed_in(path.read_text(encoding="utf-8"))
    )

    assert placed == Counter(FAILPOINTS)


def test_every_failpoint_is_tried_by_the_test_of_crashes() -> None:
    assert Counter(name for one in SCENARIOS for name in one.failpoints) == Counter(FAILPOINTS)


def test_unarmed_failpoint_does_nothing() -> None:
    failpoint(FAILPOINTS[0])


def test_process_dies_at_the_place_that_is_armed_after_passing_it_as_often_as_told() -> None:
    script = f"""
import atexit
from craftastic.failpoints import arm, failpoint
atexit.register(print, 'goodbye')
arm({FAILPOINTS[1]!r} + ':2')
for number in range(5):
    failpoint({FAILPOINTS[0]!r})
    failpoint({FAILPOINTS[1]!r})
    print(number, flush=True)
"""

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == EXIT_CODE
    assert done.stdout.split() == ["0", "1"]
    assert done.stderr == f"failpoint {FAILPOINTS[1]}\n"


@pytest.mark.parametrize("text", ["no.such.place", "", f"{FAILPOINTS[0]}:x", f"{FAILPOINTS[0]}:-1"])
def test_server_refuses_to_start_with_a_failpoint_that_does_not_exist(text: str) -> None:
    with pytest.raises(ValidationError, match="no such failpoint"):
        Settings.model_validate({"failpoint": text})


def test_failpoint_of_the_settings_is_taken() -> None:
    assert Settings.model_validate({"failpoint": f"{FAILPOINTS[0]}:3"}).failpoint is not None
