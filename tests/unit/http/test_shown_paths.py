"""What of a request's path may stand in logs and messages."""

import pytest
from starlette.types import Scope

from craftastic.http.paths import shown_path

KEY = "a-key-that-opens-the-hook"


def scope(path: str) -> Scope:
    return {"type": "http", "path": path, "raw_path": path.encode()}


@pytest.mark.parametrize(
    "path",
    [
        f"/api/deployment/hook/{KEY}",
        f"/api/deployment/hook/{KEY}?success=true",
        f"/api/deployment/hook/{KEY}/more",
        f"/api/deployment/hook%2F{KEY}",
        f"/api/deployment%2fhook/{KEY}",
        f"/api/%64eployment/hook/{KEY}",
        f"/api/deployment//hook//{KEY}",
        f"/api/Deployment/Hook/{KEY}",
        f"/api/api/deployment/hook/{KEY}",
        f"/api/deployment/hook/%0A{KEY}",
        "/api/deployment/hook/" + KEY.replace("-", "%2D"),
    ],
)
def test_the_key_of_a_hook_is_not_shown_however_it_is_written(path: str) -> None:
    shown = shown_path(scope(path))

    assert shown.endswith("***")
    assert "opens" not in shown
    assert shown_path({"type": "http", "path": path}) == shown  # a server that keeps no raw path


@pytest.mark.parametrize(
    "path",
    [
        "/api/deployment/hook",
        "/api/deployment/hook/",
        "/api/deployment/status/1",
        "/api/sessions/a%2Fb",
        "/api/git/log",
    ],
)
def test_other_paths_are_shown_as_they_were_sent(path: str) -> None:
    assert shown_path(scope(f"{path}?token=x")) == path
