"""How long the command line waits for a repair: git may have to read all of a large repository."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from craftastic.cli import remote
from craftastic.cli.environment_commands import environment_repair
from craftastic.cli.remote import CREATE_TIMEOUT_S, Remote
from craftastic.cli.session_commands import session_repair
from craftastic.cli.store import SignIn, SignIns

ENVIRONMENT = {
    "id": "e1",
    "name": "project",
    "sessions": [{"id": "s1", "name": "work", "status": "inactive"}],
}


@pytest.mark.parametrize(
    ("command", "wanted", "path"),
    [
        (environment_repair, "project", "/api/environments/e1/repair"),
        (session_repair, "work", "/api/sessions/s1/repair"),
    ],
)
def test_a_repair_is_waited_for_as_long_as_a_create(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: Callable[[str], None],
    wanted: str,
    path: str,
) -> None:
    waits: dict[str, float] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        waits[request.url.path] = request.extensions["timeout"]["read"]
        if request.method == "GET":
            return httpx.Response(200, json={"environments": [ENVIRONMENT]})
        return httpx.Response(200, json={"done": [], "kept": [], "pending": False})

    @asynccontextmanager
    async def connected(url: str, _sign_ins: SignIns) -> AsyncGenerator[Remote]:
        sign_ins = SignIns(tmp_path)
        sign_ins.put(url, SignIn("token", "", time.time() + 3600, 3600.0, "u", "a@b.c", "A"))
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            yield Remote(url, sign_ins, client)

    monkeypatch.setattr(remote, "connected", connected)

    command(wanted)

    assert waits[path] == CREATE_TIMEOUT_S
