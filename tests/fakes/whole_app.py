"""The whole app over the runtime in memory, and something of everything in it."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import httpx

from craftastic.accounts.service import UserId
from craftastic.agent_runs.service import RunEvent
from craftastic.app import build_app
from craftastic.database import Base
from craftastic.runtimes.base import RunResult, Runtime
from craftastic.runtimes.memory import Call, MemoryRuntime
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from tests.fakes.asgi import client_of
from tests.fakes.people import state_of
from tests.secrecy import canary

WEBHOOK_SECRET = canary("webhook")
APPLICATION = "an-application"
"""Coolify's, which the deployment that everybody has is of."""


def whole_settings(folder: Path, database_url: str, **more: object) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": folder / "data",
            "database_url": database_url,
            "registration": "open",
            "gateway_port": 0,
            "github_webhook_secret": WEBHOOK_SECRET,
            "sandbox_self_test": False,  # commands in the memory runtime do nothing
            "sign_in_attempts_per_minute": 100_000,  # all users of a test have one address
            **more,
        }
    )


async def empty_disk(call: Call) -> RunResult:
    """Play a command that does nothing; the one that looks at the disk finds nothing on it."""
    asked = json.loads(call.stdin) if call.stdin.startswith(b'{"command":') else {}
    tiers = [{"tier": tier, "bytes": 0, "items": []} for tier in (1, 2, 3)]
    answers: dict[str, object] = {
        "measure": {
            **dict.fromkeys(("repository", "home", "cache", "other"), 0),
            "complete": True,
            "sessions": [],
            "tiers": tiers,
        },
        "tokens": {"tokens": {}},
        "reclaim": {"freed": 0, "removed": [], "kept": []},
        "tidy": {},
    }
    answer = answers.get(asked.get("command", ""))
    return RunResult(0, b"" if answer is None else json.dumps(answer).encode(), b"")


@asynccontextmanager
async def whole_app(
    settings: Settings, runtime: MemoryRuntime | None = None
) -> AsyncGenerator[tuple[httpx.AsyncClient, MemoryRuntime]]:
    """Run the app as a server does, and give a client of it and its runtime."""
    runtime = runtime or MemoryRuntime(empty_disk)

    def in_memory(_settings: Settings, _instance: str) -> Runtime:
        return runtime

    async def make_runtimes(settings: Settings, instance: str) -> Runtimes:
        return Runtimes(settings, instance, "memory", "it is a test", {"memory": in_memory})

    app = build_app(settings, make_runtimes)
    async with app.router.lifespan_context(app) as state, client_of(app, **state or {}) as client:
        yield client, runtime


async def something_of_everything(
    client: httpx.AsyncClient, owner: dict[str, str], name: str = "mine"
) -> dict[str, str]:
    """Make an environment with a session; return a value for each parameter of a path.

    There is no sign-in and no invitation of the ids that are returned.

    Args:
        client: Of the app.
        owner: The headers of whoever gets it.
        name: Of all that has one.
    """
    me = (await client.get("/api/auth/me", headers=owner)).json()["data"]["user"]
    made = await client.post("/api/environments", json={"name": name}, headers=owner)
    assert made.status_code == 200, made.text
    environment = made.json()
    session = await client.post(
        "/api/sessions", json={"environmentId": environment["id"], "name": name}, headers=owner
    )
    assert session.status_code == 200, session.text
    host = await client.put(
        "/api/git/hosts",
        json={"origin": f"https://{name}.example", "password": canary("git-password")},
        headers=owner,
    )
    assert host.status_code == 200, host.text
    token = await client.post("/api/auth/tokens", json={"name": name}, headers=owner)
    assert token.status_code == 200, token.text
    agent = await client.post(
        "/api/agents", json={"name": name, "type": "claude-code"}, headers=owner
    )
    assert agent.status_code == 201, agent.text
    ids = (environment["id"], session.json()["id"])
    deployment = await _ended_deployment(client, me["id"], *ids)
    waiting = await _waiting_agent(client, me["id"], session.json()["id"], agent.json()["id"])
    return waiting | {
        "agent_id": agent.json()["id"],
        "user_id": me["id"],
        "environment_id": environment["id"],
        "session_id": session.json()["id"],
        "target_id": session.json()["id"],
        "deployment_id": deployment,
        "key": "a",
        "container_id": environment["containerId"],
        "host_id": host.json()["data"]["host"]["id"],
        "token_id": token.json()["data"]["token"]["id"],
        "sign_in_id": str(uuid4()),
        "invitation_id": str(uuid4()),
        "name": "a",
        "branch": "b",
    }


async def _waiting_agent(
    client: httpx.AsyncClient, owner: str, session_id: str, agent_id: str
) -> dict[str, str]:
    """Let an agent run in a session, with a request that waits and a prompt behind it."""
    state = state_of(client)
    runs, user = state["agent_runs"], UserId(UUID(owner))
    session = await state["sessions"].get(user, UUID(session_id))
    agent = await state["agents"].get_owned(user, UUID(agent_id))
    start = await runs.begin(user, session, agent, None)
    run = await runs.by_token(session.id, start.token)
    assert run is not None
    asked = await runs.ask(run, RunEvent(start.nonce, 1, "PermissionRequest", {}, 1.0))
    prompt = await runs.send(user, session.id, "a")
    return {"approval_id": str(asked.approval_id), "prompt_id": str(prompt.id)}


async def _ended_deployment(
    client: httpx.AsyncClient, owner: str, environment_id: str, session_id: str
) -> str:
    """Put a deployment on record that has ended; return its id. No Coolify is asked for that."""
    made, now = uuid4(), datetime.now(UTC)
    coolify = state_of(client)["settings"].coolify_api_url
    row = {
        "id": made,
        "owner_id": UUID(owner),
        "environment_id": UUID(environment_id),
        "session_id": UUID(session_id),
        "app_id": APPLICATION,
        "app_name": "web",
        "source": "server",
        "web_url": coolify or "https://coolify.example",
        "kind": "deploy",
        "status": "succeeded",
        "force": False,
        "run_id": "a-run",
        "vain_asks": 0,
        "health": "healthy",
        "cancel_wanted": False,
        "looks": 0,
        "next_look_at": 0.0,
        "deadline_at": 0.0,
        "live": False,
        "created_at": now,
        "updated_at": now,
    }
    async with state_of(client)["accounts"].database.begin() as tx:
        await tx.execute(Base.metadata.tables["deployments"].insert().values(row))
    return str(made)


def filled(path: str, values: dict[str, str]) -> str:
    """Put values in the place of a path's parameters."""
    return re.sub(r"{(\w+)}", lambda match: values[match[1]], path)
