"""What a session is, apart from how it is stored."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from craftastic.worktrees.service import Start


class SessionStatus(StrEnum):
    ACTIVE = "active"
    INACTIVE = "inactive"
    DEAD = "dead"


class SessionType(StrEnum):
    TERMINAL = "terminal"
    AGENT = "agent"


class AgentState(StrEnum):
    """What the agent of a session does, as far as anybody knows."""

    STARTING = "starting"
    IDLE = "idle"
    WORKING = "working"
    WAITING_PERMISSION = "waiting_permission"
    WAITING_QUESTION = "waiting_question"
    DONE = "done"
    EXITED = "exited"
    ERROR = "error"
    UNKNOWN = "unknown"
    """Nothing was heard that would tell."""


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """What is shown of the agent of a session.

    Args:
        since: When it came to be so.
        message: The last thing that it said, bounded; hostile text.
        waits_for: What it waits for, where it waits; hostile text too.
    """

    state: AgentState
    since: datetime
    message: str | None = None
    waits_for: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A named place to work on one branch of an environment.

    Args:
        branch: None in an environment without a repository.
        tmux_name: Of its tmux session; stays the same for the session's whole life.
        working_directory: As the sandbox sees it.
        ready: Its worktree and tmux session have been made since it last came to life.
        deleted: Its owner deleted it; it is gone as soon as its sandbox can be asked.
        reason: Why it is dead, in plain words.
        start: What its branch was asked to begin from; None for the environment's own way.
        agent: How its agent is; None for a terminal, and before an agent was started.
        prompt: What its agent is started with; None once it is.
    """

    id: UUID
    environment_id: UUID
    name: str
    branch: str | None
    branch_key: str | None
    tmux_name: str
    working_directory: str
    status: SessionStatus
    ready: bool
    deleted: bool
    reason: str | None
    session_type: SessionType
    agent_id: UUID | None
    start: Start | None
    last_activity: datetime | None
    created_at: datetime
    updated_at: datetime
    agent: AgentStatus | None = None
    prompt: str | None = None
