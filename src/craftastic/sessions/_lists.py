"""The sessions of environments, as the environments' lists show them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.environments.service import SessionLine
from craftastic.sessions._model import Session
from craftastic.sessions._repository import SessionRepository
from craftastic.sessions._steps import SANDBOX_ENDED


@dataclass(frozen=True, slots=True)
class SessionLists:
    """The sessions of environments, for the lists of environments."""

    database: Database
    clock: Clock

    async def lines(self, environment_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[SessionLine]]:
        """Return the sessions of each environment, newest first."""
        async with self.database.read() as tx:
            sessions = await SessionRepository(tx).list_environments(environment_ids)
        lines: defaultdict[UUID, list[SessionLine]] = defaultdict(list)
        for session in sessions:
            lines[session.environment_id].append(_line(session))
        return lines

    async def end_all(self, environment_id: UUID, reason: str | None = None) -> None:
        """Mark every session of the environment dead: its sandbox has ended, and why."""
        why = reason or SANDBOX_ENDED
        async with self.database.begin() as tx:
            await SessionRepository(tx).end_all(environment_id, why, self.clock.now())


def _line(session: Session) -> SessionLine:
    return SessionLine(
        id=session.id,
        environment_id=session.environment_id,
        name=session.name,
        tmux_session_name=session.tmux_name,
        working_directory=session.working_directory,
        status=session.status.value,
        git_branch=session.branch,
        last_activity=session.last_activity,
        created_at=session.created_at,
        updated_at=session.updated_at,
        agent_state=None if session.agent is None else session.agent.state.value,
        agent_state_since=None if session.agent is None else session.agent.since,
        agent_message=None if session.agent is None else session.agent.message,
        agent_waits_for=None if session.agent is None else session.agent.waits_for,
    )
