"""The list of an environment's sessions, as JSON that the database makes.

Its form is that of the objects in `endpoints.py`; a test holds the one against the other.
"""

from uuid import UUID

from sqlalchemy import Select, and_, bindparam, case, select

from craftastic.accounts.service import UserId
from craftastic.database import Database
from craftastic.environments.listing import agent_members, session_members
from craftastic.environments.service import EnvironmentNotFound
from craftastic.json_sql import (
    Json,
    JsonId,
    JsonNumber,
    JsonString,
    json_object,
    member,
    text,
)
from craftastic.sessions._repository import ENVIRONMENTS, SessionRow
from craftastic.worktrees.service import StartKind


async def sessions_as_json(database: Database, owner: UserId, environment_id: UUID) -> str:
    """Return an environment's sessions, dead ones too, newest first, as the wire has them.

    Raises:
        EnvironmentNotFound: It is absent, deleted or somebody else's.
        DatabaseUnavailable: The database did not answer.
    """
    wanted = {"owner": owner, "environment": environment_id}
    async with database.read() as tx:
        found = (await tx.scalars(STATEMENT, wanted)).all()
    if not found:
        raise EnvironmentNotFound("Environment not found")
    return f'{{"sessions":[{",".join(one for one in found if one is not None)}]}}'


def _statement() -> Select[str | None]:
    """One row for each session; one of null for an environment that has none."""
    row = SessionRow
    environments = ENVIRONMENTS.c
    return (
        select(case((row.id.is_not(None), _session())))
        .select_from(ENVIRONMENTS)
        .outerjoin(row, and_(row.environment_id == environments.id, row.deleted.is_(False)))
        .where(
            environments.id == bindparam("environment"),
            environments.owner_id == bindparam("owner"),
            environments.desired != "deleted",
        )
        .order_by(row.created_at.desc(), row.id)
    )


def _session() -> Json:
    row = SessionRow
    return json_object(
        ("id", JsonId(row.id)),
        [
            *session_members(row),
            member("agentId", JsonId(row.agent_id), row.agent_id, "told"),
            member("sessionType", JsonString(row.session_type)),
            member("gitBranch", JsonString(row.branch), row.branch, "told"),
            member("reason", JsonString(row.reason), row.reason, "left out"),
            _started_from(),
            agent_members(row),
        ],
    )


def _started_from() -> Json:
    row = SessionRow
    named = JsonString(row.start_ref)
    # No other kind has a number in the place of a name, and a cast of those would fail.
    number = case((row.start_kind == StartKind.PULL_REQUEST.value, row.start_ref))
    begun = case(
        (row.start_kind == StartKind.BRANCH.value, text('{"baseBranch":').concat(named)),
        (row.start_kind == StartKind.COMMIT.value, text('{"baseCommit":').concat(named)),
        else_=text('{"pullRequest":').concat(JsonNumber(number)),
    )
    commit = member("commit", JsonString(row.start_commit), row.start_commit, "left out")
    is_told = and_(row.start_kind.is_not(None), row.start_ref.is_not(None))
    whole = text(',"startedFrom":').concat(begun).concat(commit).concat(text("}"))
    return case((is_told, whole), else_=text(""))


STATEMENT = _statement()
