"""What is said about a Docker engine whose restart would end all sandboxes (REL-09)."""

from typing import Any

import pytest

from craftastic.cli.doctor import judge_runtimes, show, status
from craftastic.runtimes._docker_check import _engine_findings
from craftastic.runtimes.base import Finding

ENGINE: dict[str, Any] = {"SecurityOptions": ["name=seccomp,profile=default"]}


def live_restore(info: dict[str, Any]) -> Finding:
    return next(one for one in _engine_findings(info) if one.name == "docker.live_restore")


@pytest.mark.parametrize("info", [ENGINE, ENGINE | {"LiveRestoreEnabled": False}])
def test_an_engine_that_ends_sandboxes_when_it_restarts_is_warned_of(
    info: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = live_restore(info)

    show(judge_runtimes({"docker": [found]}, "docker"), as_json=False)

    said = capsys.readouterr().out
    assert status(found) == "warn"
    assert "A restart of Docker stops all sandboxes" in said
    assert '"live-restore": true' in said
    assert "This machine can serve." in said


def test_an_engine_that_keeps_them_is_not() -> None:
    assert status(live_restore(ENGINE | {"LiveRestoreEnabled": True})) == "ok"
