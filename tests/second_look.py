"""Run the tests, and those that failed once more, alone: `python -m tests.second_look ARGUMENT …`.

Thousands of tests drive real servers, shells and browsers on every processor there is, and now and
then one loses a race that the load made. One that passes alone is told as unsteady, by name, in the
last lines; it is a defect like any other (of the test, or of the product), and no reason to keep
everything else waiting. More than `MOST` failures, something left behind on the machine, or an end
that was no ordinary one get no second look.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MOST = 3
"""Failures at most; more are no bad luck."""

FILE_NAME = "CRAFTASTIC_TEST_FAILURES"


class Failures:
    """A plugin: writes the ids of what failed to a file; the ids of a run's processes are one list.

    Args:
        file: Where to.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ids: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._ids[report.nodeid] = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._ids[f"collecting {report.nodeid}"] = None

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self._file.write_text(json.dumps(list(self._ids)), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    named = os.environ.get(FILE_NAME)  # noqa: TID251 - not a server's setting
    if named and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(Path(named)))


def worth_it(code: int, failed: list[str]) -> bool:
    """Tell whether a run's failures get a second look."""
    return (
        code == int(pytest.ExitCode.TESTS_FAILED)
        and 0 < len(failed) <= MOST
        and all("::" in one and not one.startswith("collecting ") for one in failed)
    )


def _run(arguments: list[str], file: Path) -> int:
    command = [sys.executable, "-m", "pytest", "-p", "tests.second_look", *arguments]
    environment = {**os.environ, FILE_NAME: str(file)}  # noqa: TID251 - handed on as it is
    return subprocess.run(command, env=environment, check=False).returncode


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Run pytest with the arguments and return its exit code, or that of the second look."""
    file = Path(".cache") / "failed-tests.json"
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    code = _run(arguments, file)
    failed: list[str] = json.loads(file.read_text()) if file.is_file() else []
    if not worth_it(code, failed):
        return code
    shown = "\n".join(f"  {one}" for one in failed)
    _say(f"\n{len(failed)} failed; a second look, alone:\n{shown}")
    # Not `tests.spread`: of two that failed on both databases it would leave one out.
    plugins = [part for part in arguments if part == "tests.strict"]
    again = _run([*(word for one in plugins for word in ("-p", one)), *failed], file)
    if again == 0:
        _say(f"UNSTEADY: {len(failed)} failed beside others and passed alone:\n{shown}")
    return again


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
