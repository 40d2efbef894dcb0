"""A pytest plugin: where nothing may be missing, a skip is a failure.

`CRAFTASTIC_TEST_STRICT=1` switches it on; the Makefile loads it with `-p tests.strict`. On a
developer's machine a test whose engine or program is missing is skipped; where the machine is
made for the tests, the same skip would hide that a part is no longer tested at all.
"""

import os
from collections.abc import Generator

import pytest

STRICT = os.environ.get("CRAFTASTIC_TEST_STRICT") == "1"  # noqa: TID251 - not a server's setting


def _fail_a_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skipped report into a failed one; an expected failure stays what it is."""
    if not STRICT or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    skipped = report.longrepr
    reason = skipped[2] if isinstance(skipped, tuple) else str(skipped)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: skipped, and nothing may be skipped here: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_a_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_a_skip(report)
    return report
