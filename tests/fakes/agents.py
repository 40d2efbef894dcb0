"""Agents over a database, with a model API and sandboxes that a test plays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from craftastic.accounts.service import UserId
from craftastic.agents.agent_types import AgentTypes
from craftastic.agents.service import Agent, AgentService, CheckResult
from craftastic.agents.setting_up import SetupStarted
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.credentials.service import CredentialService
from craftastic.database import Database
from craftastic.errors import CraftasticError
from craftastic.keys import Keyring


@dataclass
class PlayedCheck:
    """A model API that knows good keys, and everything that it was asked."""

    good: set[str] = field(default_factory=set[str])
    asked: list[tuple[str, str, str | None, str]] = field(
        default_factory=list[tuple[str, str, str | None, str]]
    )

    async def check(
        self, provider: str, scheme: str, base_url: str | None, key: str
    ) -> CheckResult:
        self.asked.append((provider, scheme, base_url, key))
        if key in self.good:
            return CheckResult(True, f"{provider} accepts the key.")
        return CheckResult(False, f"{provider} refuses the key.")


@dataclass
class PlayedSetup:
    """Sandboxes with login files; what was started and looked for in them."""

    files: dict[str, str] = field(default_factory=dict[str, str])
    refusal: CraftasticError | None = None
    session_id: UUID = field(default_factory=uuid4)
    started: list[tuple[UUID, UUID, UUID]] = field(default_factory=list[tuple[UUID, UUID, UUID]])
    looked_for: list[str] = field(default_factory=list[str])

    async def start_setup(self, owner: UserId, agent: Agent, environment_id: UUID) -> SetupStarted:
        if self.refusal is not None:
            raise self.refusal
        self.started.append((owner, agent.id, environment_id))
        return SetupStarted(self.session_id, f"/home/dev/.agents/{agent.id}")

    async def read_login(
        self, owner: UserId, agent: Agent, paths: Sequence[str]
    ) -> tuple[str, str] | None:
        self.looked_for.extend(paths)
        return next(((path, self.files[path]) for path in paths if path in self.files), None)

    async def forget_login(self, owner: UserId, agent: Agent, path: str) -> None:
        del self.files[path]


def agents_of(
    database: Database, clock: Clock, folder: Path, check: PlayedCheck | None = None
) -> AgentService:
    key = folder / "encryption-key"
    if not key.exists():
        key.write_text("0123456789abcdef" * 4)
        key.chmod(0o600)
    audit = AuditService(database, clock)
    credentials = CredentialService(database, Keyring(key), clock, audit)
    types = AgentTypes.load(folder)
    return AgentService(database, credentials, audit, clock, types, check or PlayedCheck())
