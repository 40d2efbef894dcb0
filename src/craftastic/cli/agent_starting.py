"""`craftastic agent run`: from a task to an agent that works on it, on a branch of its own."""

import re
import secrets
import sys
from dataclasses import dataclass
from typing import Any

from craftastic.cli.agent_names import meant_agent, own_agents
from craftastic.cli.names import Row, load_names
from craftastic.cli.output import choose, interactive, printable
from craftastic.cli.progress import Checklist, checklist
from craftastic.cli.remote import Remote
from craftastic.cli.up import (
    Place,
    Wanted,
    bring_environment,
    create_session,
    find_repository,
    interruption_told,
    start_again,
)
from craftastic.errors import InvalidInput, NotFound

MAX_PROMPT_BYTES = 100_000
MAX_SLUG = 32
ADDRESS = re.compile(r"^(?:\.{1,2}$|[./~]|[a-z][a-z0-9+.-]*://|[^/\s]+@[^/\s]+:)")


@dataclass(frozen=True, slots=True)
class Task:
    """What the user asked for.

    Args:
        where: An environment's name or id, or a repository; None for the one environment there is.
        agent: Its name or id; None for the one agent there is.
        branch: None for a new one, named after the prompt.
        base: The branch or commit that a new branch begins at; None for the environment's own.
    """

    prompt: str | None
    where: str | None
    agent: str | None
    branch: str | None
    base: str | None


def read_prompt(text: str | None) -> str | None:
    """Return a prompt; `-` stands for the standard input.

    Raises:
        InvalidInput: It is empty or too long.
    """
    if text == "-":
        data = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
        text = data.decode("utf-8", "replace")
    if text is None:
        return None
    if not text.strip():
        raise InvalidInput("The prompt is empty.")
    if len(text.encode(errors="replace")) > MAX_PROMPT_BYTES:
        raise InvalidInput(f"The prompt may have {MAX_PROMPT_BYTES} bytes at most.")
    return text


def branch_for(prompt: str | None) -> str:
    """Return the name of a new branch that tells what it is about."""
    words = re.sub(r"[^a-z0-9]+", "-", (prompt or "").lower()).strip("-")
    slug = words[:MAX_SLUG].strip("-") or "task"
    return f"agent/{slug}-{secrets.token_hex(2)}"


async def run(remote: Remote, task: Task) -> Place:
    """Make the session of a task, and what it needs before.

    Raises:
        NotFound: There is no such agent or environment.
        InvalidInput: Several fit, or nothing was said and nobody can be asked.
        CraftasticError: What the server refused.
    """
    agent = await _agent(remote, task.agent)
    with interruption_told(), checklist() as shown:
        environment = await _environment(remote, task, shown)
        body: dict[str, Any] = {
            "environmentId": environment["id"],
            "sessionType": "agent",
            "agentId": agent["id"],
            "prompt": task.prompt,
            "branch": task.branch or branch_for(task.prompt),
            **_begins_at(task.base),
        }
        body = {key: value for key, value in body.items() if value is not None}
        session = await create_session(remote, body, shown)
        shown.finish()
    return Place(environment, session)


def _begins_at(base: str | None) -> dict[str, str]:
    if base is None:
        return {}
    is_commit = re.fullmatch("[0-9a-fA-F]{40}", base) is not None
    return {"baseCommit" if is_commit else "baseBranch": base}


async def _agent(remote: Remote, wanted: str | None) -> Row:
    rows = await own_agents(remote)
    if not rows:
        raise NotFound("You have no agent yet.", details="`craftastic agent add` makes one.")
    if wanted is not None:
        return meant_agent(rows, wanted)
    if len(rows) == 1:
        return rows[0]
    if not interactive():
        raise InvalidInput("Name the agent with --agent: you have several.")
    return rows[choose("agent", [printable(f"{one['name']} ({one['type']})") for one in rows])]


async def _environment(remote: Remote, task: Task, shown: Checklist) -> Row:
    if task.where is not None and ADDRESS.match(task.where):
        return await bring_environment(remote, Wanted(find_repository(task.where)), shown)
    found = (await load_names(remote)).environment(task.where)
    await start_again(remote, found, shown)
    return found
