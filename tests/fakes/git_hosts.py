"""Git hosts over a database, with a GitHub that a test plays."""

from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.credentials.service import CredentialService
from craftastic.database import Database
from craftastic.gateway.app import upstream_origin
from craftastic.githosts.service import GitHostService, Origin
from craftastic.keys import Keyring
from craftastic.settings import Settings

GITHUB: Origin = ("https", "github.com", 443)


@dataclass
class PlayedGitHub:
    """Tokens of connected accounts; `renewed` is what takes the place of a rejected one."""

    origin: Origin = GITHUB
    tokens: dict[UUID, str] = field(default_factory=dict)
    renewed: dict[UUID, str] = field(default_factory=dict)
    rejections: list[tuple[UUID, str]] = field(default_factory=list)

    async def token_for(self, owner: UUID, origin: Origin) -> str | None:
        return self.tokens.get(owner) if origin == self.origin else None

    async def rejected(self, owner: UUID, token: str) -> bool:
        self.rejections.append((owner, token))
        self.tokens.pop(owner, None)
        if owner not in self.renewed:
            return False
        self.tokens[owner] = self.renewed.pop(owner)
        return True


def git_hosts_of(
    database: Database,
    clock: Clock,
    folder: Path,
    *,
    github: PlayedGitHub | None = None,
    settings: Settings | None = None,
) -> GitHostService:
    github = github or PlayedGitHub()
    settings = settings or Settings.model_validate(
        {"git_allow_http": True, "git_allow_private": True}
    )
    key = folder / "encryption-key"
    if not key.exists():
        key.write_text("0123456789abcdef" * 4)
        key.chmod(0o600)
    audit = AuditService(database, clock)
    credentials = CredentialService(database, Keyring(key), clock, audit)
    parse = upstream_origin(settings)
    return GitHostService(database, credentials, github, audit, clock, parse, github.origin)
