"""The list of a user's environments with their sessions, as JSON that the database makes.

Its form is that of the objects in `endpoints.py`; a test holds the one against the other.
"""

from typing import Any

from sqlalchemy import Select, String, and_, bindparam, case, column, select, table
from sqlalchemy.types import Boolean, Uuid

from craftastic.accounts.service import UserId
from craftastic.database import Database, UtcDateTime
from craftastic.environments._idle import WAYS_ON
from craftastic.environments._repository import LIVING, EnvironmentRow
from craftastic.json_sql import (
    Json,
    JsonId,
    JsonNumber,
    JsonString,
    JsonTime,
    json_object,
    member,
    text,
)

# Sessions are another domain's rows: known here by name, to be listed by the same statement.
SESSIONS = table(
    "sessions",
    column("id", Uuid()),
    column("environment_id", Uuid()),
    column("name", String()),
    column("tmux_name", String()),
    column("working_directory", String()),
    column("status", String()),
    column("branch", String()),
    column("deleted", Boolean()),
    column("agent_state", String()),
    column("agent_state_since", UtcDateTime()),
    column("agent_message", String()),
    column("agent_waits_for", String()),
    column("last_activity", UtcDateTime()),
    column("created_at", UtcDateTime()),
    column("updated_at", UtcDateTime()),
)


async def environments_as_json(database: Database, owner: UserId) -> str:
    """Return the owner's environments with their sessions, newest first, as the wire has them.

    Raises:
        DatabaseUnavailable: The database did not answer.
    """
    async with database.read() as tx:
        rows = (await tx.execute(STATEMENT, {"owner": owner})).all()
    listed: list[str] = []
    before: str | None = None
    for environment, session in rows:
        if environment != before:
            listed.append(f"{']},' if listed else ''}{environment}{session or ''}")
            before = environment
        else:
            listed.append(f",{session}")
    return f'{{"environments":[{"".join(listed)}{"]}" if listed else ""}]}}'


def _statement() -> Select[str, str | None]:
    sessions = SESSIONS.c
    return (
        select(_environment(), case((sessions.id.is_not(None), _session())))
        .select_from(EnvironmentRow)
        .outerjoin(
            SESSIONS,
            and_(sessions.environment_id == EnvironmentRow.id, sessions.deleted.is_(False)),
        )
        .where(EnvironmentRow.owner_id == bindparam("owner"), LIVING)
        .order_by(
            EnvironmentRow.created_at.desc(),
            EnvironmentRow.id,
            sessions.created_at.desc(),
            sessions.id,
        )
    )


def _environment() -> Json:
    """Return an environment without the end of its list of sessions."""
    row = EnvironmentRow
    step, percent = row.progress_step, row.progress_percent
    message = case(
        (row.progress_message.is_(None), text('""')), else_=JsonString(row.progress_message)
    )
    progress = json_object(
        ("step", JsonString(step)),
        [member("message", message), member("percent", JsonNumber(percent), percent, "left out")],
    )
    ways: list[Any] = [
        (
            and_(*(getattr(row, name) == value for name, value in facts.items())),
            text(f',"wayOn":"{said}"'),
        )
        for facts, said in WAYS_ON
    ]
    return json_object(
        ("id", JsonId(row.id)),
        [
            member("userId", JsonId(row.owner_id)),
            member("name", JsonString(row.name)),
            member("repositoryUrl", JsonString(row.repository_url), row.repository_url, "left out"),
            member("branch", JsonString(row.branch)),
            member("containerId", JsonString(row.sandbox_id), row.sandbox_id, "left out"),
            member("status", JsonString(row.status)),
            member("createdAt", JsonTime(row.created_at)),
            member("updatedAt", JsonTime(row.updated_at)),
            member("runtime", JsonString(row.runtime)),
            member("cloneStatus", JsonString(row.clone_status)),
            member("cloneReason", JsonString(row.clone_reason), row.clone_reason, "left out"),
            member("reason", JsonString(row.reason), row.reason, "left out"),
            member("reasonCode", JsonString(row.reason_code), row.reason_code, "left out"),
            member("progress", progress, step, "left out"),
            member("isolation", JsonString(row.isolation), row.isolation, "left out"),
            member("pushPolicy", JsonString(row.push_policy)),
            member("desired", JsonString(row.desired)),
            member("statusSince", JsonTime(row.status_since)),
            case(*ways, else_=text("")),
            member(
                "idleStopMinutes",
                JsonNumber(row.idle_stop_minutes),
                row.idle_stop_minutes,
                "left out",
            ),
            text(',"sessions":['),
        ],
        end="",
    )


def session_members(row: Any) -> list[Json]:
    """Return what both lists tell of each session after its id.

    Args:
        row: The columns of sessions, by their names.
    """
    return [
        member("environmentId", JsonId(row.environment_id)),
        member("name", JsonString(row.name)),
        member("tmuxSessionName", JsonString(row.tmux_name)),
        member("workingDirectory", JsonString(row.working_directory)),
        member("status", JsonString(row.status)),
        member("createdAt", JsonTime(row.created_at)),
        member("updatedAt", JsonTime(row.updated_at)),
        member("lastActivity", JsonTime(row.last_activity), row.last_activity, "left out"),
    ]


def agent_members(row: Any) -> Json:
    """Return what both lists tell of a session's agent at their end; nothing without one."""
    agent = text("")
    for name, json, value in (
        ("agentState", JsonString(row.agent_state), row.agent_state),
        ("agentStateSince", JsonTime(row.agent_state_since), row.agent_state_since),
        ("agentMessage", JsonString(row.agent_message), row.agent_message),
        ("agentWaitsFor", JsonString(row.agent_waits_for), row.agent_waits_for),
    ):
        agent = agent.concat(member(name, json, value, "left out"))
    has_agent = and_(row.agent_state.is_not(None), row.agent_state_since.is_not(None))
    return case((has_agent, agent), else_=text(""))


def _session() -> Json:
    row = SESSIONS.c
    branch = member("gitBranch", JsonString(row.branch), row.branch, "told")
    return json_object(("id", JsonId(row.id)), [*session_members(row), branch, agent_members(row)])


STATEMENT = _statement()
