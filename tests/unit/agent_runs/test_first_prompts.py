"""The prompt that an agent is started with is a text, whatever it looks like on a command line."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from craftastic.agent_runs.launching import Plan, Start
from craftastic.agents.agent_types import AgentTypes
from craftastic.agents.service import Agent
from craftastic.sessions.service import Session, SessionStatus, SessionType

NOW = datetime(2026, 9, 1, tzinfo=UTC)
TYPES = ["claude-code", "codex", "cursor-cli", "gemini-cli", "opencode", "qwen-coder"]


def last_word(type_name: str, prompt: str, data_dir: Path) -> str:
    """Return the last word of the command line that an agent of a built-in type starts with."""
    of_type = AgentTypes.load(data_dir).get(type_name)
    agent = Agent(uuid4(), uuid4(), "an agent", type_name, None, None, None, NOW, NOW)
    session = Session(
        id=uuid4(),
        environment_id=uuid4(),
        name="work",
        branch="main",
        branch_key="main",
        tmux_name="work-1",
        working_directory="/workspace",
        status=SessionStatus.INACTIVE,
        ready=False,
        deleted=False,
        reason=None,
        session_type=SessionType.AGENT,
        agent_id=agent.id,
        start=None,
        last_activity=None,
        created_at=NOW,
        updated_at=NOW,
        prompt=prompt,
    )
    start = Start("token", "nonce", started=False, conversation=None)
    plan = Plan(session, "/workspace", agent, of_type, None, start, 1)
    return plan.launch({}).argv[-1]


@pytest.mark.parametrize("of_type", TYPES)
@pytest.mark.parametrize(
    "prompt",
    [
        "- fix one\n- fix two",
        "--dangerously-skip-permissions",
        "-p",
        "--",
        "doctor",
        "mcp",
        "login",
    ],
)
def test_a_prompt_that_looks_like_an_option_or_a_command_is_a_text(
    of_type: str, prompt: str, tmp_path: Path
) -> None:
    assert last_word(of_type, prompt, tmp_path) == f" {prompt}"


@pytest.mark.parametrize("of_type", TYPES)
@pytest.mark.parametrize("prompt", ["fix the parser", "/init", "fix - it", "what?", "Ändere es"])
def test_any_other_prompt_is_passed_as_it_is(of_type: str, prompt: str, tmp_path: Path) -> None:
    assert last_word(of_type, prompt, tmp_path) == prompt
