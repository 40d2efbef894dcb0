"""The session in which somebody logs an agent in by hand, and what the login leaves there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from craftastic.accounts.service import UserId
from craftastic.agent_runs.launching import home_of
from craftastic.agents.service import Agent
from craftastic.agents.setting_up import SetupStarted
from craftastic.environments.service import Environment
from craftastic.errors import CraftasticError
from craftastic.runtimes.base import Runtime
from craftastic.sessions.service import (
    Session,
    SessionService,
    SessionStatus,
    SessionType,
    WithAgent,
)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

MAX_LOGIN_BYTES = 64 << 10
READ_S = 15.0


def setup_name(agent: Agent) -> str:
    return f"setup-{str(agent.id)[:8]}"


@dataclass(frozen=True, slots=True)
class SessionSetupDesk:
    """Makes set-up sessions out of ordinary agent sessions; `agents` asks it."""

    sessions: SessionService
    runtimes: Mapping[str, Runtime]

    async def start_setup(self, owner: UserId, agent: Agent, environment_id: UUID) -> SetupStarted:
        """Make the session, or return the one that is there already.

        Raises:
            EnvironmentNotFound: It is absent or somebody else's.
            EnvironmentNotReady, EnvironmentInError: It cannot take sessions now.
            CraftasticError: As `SessionService.create` says.
        """
        name = setup_name(agent)
        for one in await self.sessions.list_owned(owner, environment_id):
            if one.name == name and one.status is not SessionStatus.DEAD:
                return SetupStarted(one.id, home_of(one.id))
        session = await self.sessions.create(
            owner,
            environment_id,
            name=name,
            branch=name,  # a branch of its own: the environment's may be somebody's workplace
            session_type=SessionType.AGENT,
            agent=WithAgent(agent.id),
        )
        return SetupStarted(session.id, home_of(session.id))

    async def read_login(
        self, owner: UserId, agent: Agent, paths: Sequence[str]
    ) -> tuple[str, str] | None:
        """Return path and text of the first file that a set-up's home has.

        What the sandbox says is bounded, and is no text where it is not UTF-8.
        """
        for session, environment in await self._set_ups(owner, agent):
            for path in paths:
                text = await self._read(environment, session, path)
                if text is not None:
                    return path, text
        return None

    async def forget_login(self, owner: UserId, agent: Agent, path: str) -> None:
        """Remove a login file from the set-up's homes: what is stored need not lie there too."""
        for session, environment in await self._set_ups(owner, agent):
            runtime = self.runtimes.get(environment.sandbox.runtime)
            if runtime is None:
                continue
            words = ["rm", "-f", "--", f"{home_of(session.id)}/{path}"]
            try:
                await runtime.run(environment.sandbox, words, timeout_s=READ_S)
            except CraftasticError as error:
                log.info("a login file is left", session=str(session.id), reason=error.message)

    async def _set_ups(self, owner: UserId, agent: Agent) -> list[tuple[Session, Environment]]:
        name = setup_name(agent)
        sessions = await self.sessions.of_agent(owner, agent.id)
        return [
            await self.sessions.get_owned(owner, one.id) for one in sessions if one.name == name
        ]

    async def _read(self, environment: Environment, session: Session, path: str) -> str | None:
        runtime = self.runtimes.get(environment.sandbox.runtime)
        if runtime is None:
            return None
        words = ["head", "-c", str(MAX_LOGIN_BYTES + 1), "--", f"{home_of(session.id)}/{path}"]
        try:
            done = await runtime.run(
                environment.sandbox,
                words,
                timeout_s=READ_S,
                max_output_bytes=MAX_LOGIN_BYTES + 1,
            )
        except CraftasticError:
            return None  # a sandbox that is not there has no login
        if done.exit_code != 0 or not done.stdout or len(done.stdout) > MAX_LOGIN_BYTES:
            return None
        try:
            return done.stdout.decode()
        except UnicodeDecodeError:
            return None
