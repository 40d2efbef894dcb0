"""Coolify: whose connection is used, how it is, and what can be deployed by it."""

from dataclasses import dataclass, field
from uuid import UUID

from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.coolify._connections import (
    BadCoolifyToken,
    Connections,
    DeploymentNotConfigured,
)
from craftastic.coolify._hooks import Hooks
from craftastic.coolify._matching import same_repository
from craftastic.coolify._model import (
    Connected,
    ConnectionStatus,
    Hook,
    HookOwner,
    Problem,
    Source,
)
from craftastic.coolify.api import Application, CoolifyHttp
from craftastic.coolify.errors import CoolifyBusy
from craftastic.credentials.service import CredentialService
from craftastic.database import Database
from craftastic.settings import Settings

__all__ = [
    "BadCoolifyToken",
    "Connected",
    "ConnectionStatus",
    "CoolifyService",
    "DeploymentNotConfigured",
    "Hook",
    "HookOwner",
    "Problem",
    "Source",
    "same_repository",
]


@dataclass(frozen=True, slots=True)
class CoolifyService:
    """Everything about users' connections to a Coolify, and the server's own.

    Args:
        http: Made by `open_coolify`; whoever made it closes it.
    """

    database: Database
    credentials: CredentialService
    audit: AuditService
    clock: Clock
    http: CoolifyHttp = field(repr=False)
    settings: Settings = field(repr=False)
    _connections: Connections = field(init=False, repr=False)
    _hooks: Hooks = field(init=False, repr=False)

    def __post_init__(self) -> None:
        connections = Connections(
            self.database, self.credentials, self.audit, self.clock, self.http, self.settings
        )
        object.__setattr__(self, "_connections", connections)
        object.__setattr__(self, "_hooks", Hooks(self.database, self.audit, self.clock))

    async def connected(self, owner: UUID) -> Connected:
        """Return the connection that an owner's deployments go through.

        It is the owner's own, and only where there is none the server's. Coolify is not asked.

        Raises:
            DeploymentNotConfigured: There is neither.
            SecretUnreadable: The token is stored and cannot be decrypted.
        """
        return await self._connections.connected(owner)

    async def connected_as(
        self, owner: UUID, source: str, connection_id: UUID | None
    ) -> Connected | None:
        """Return the connection that something was begun with.

        Args:
            owner: Whose deployment it is.
            source: `user` or `server`, as `Connected` told it.
            connection_id: Likewise.

        Returns:
            None when that connection is gone, or one to another address is in its place.

        Raises:
            SecretUnreadable: The token is stored and cannot be decrypted.
        """
        return await self._connections.connected_as(owner, source, connection_id)

    async def pause(self, key: str, seconds: float) -> None:
        """Let all server processes leave a connection alone; a longer pause stays.

        Args:
            key: The connection's, as `Connected` tells it.
            seconds: From now by the database's clock; an hour at most.
        """
        await self._connections.pause(key, seconds)

    async def pause_left(self, key: str) -> float:
        """Return how many seconds a connection is to be left alone; 0.0 when it need not be."""
        return await self._connections.pause_left(key)

    async def status(self, owner: UUID) -> ConnectionStatus:
        """Tell what is known of the connection that an owner uses; Coolify is not asked."""
        return await self._connections.status(owner)

    async def put(self, owner: UUID, url: str, token: str) -> ConnectionStatus:
        """Connect an owner with a Coolify, in the place of a connection that is there.

        Coolify is asked first, and nothing is stored when it refuses. A token that lacks abilities
        is stored; the status says what it lacks. With the same address the connection stays the
        same and has another token; with another address it is another connection.

        Args:
            owner: Whose deployments go through it, and nobody else's.
            url: Of Coolify's pages or of its API.
            token: All of it; it is returned by nothing here.

        Raises:
            BadCoolifyUrl, BadCoolifyToken: They cannot be right as they are written.
            CoolifyTokenRejected, CoolifyApiOff, CoolifyAddressRefused: Coolify refused.
            CoolifyBusy, CoolifyUnavailable: It has no answer now.
            InvalidInput: The server does not connect to such addresses.
        """
        await self._connections.put(owner, url, token)
        return await self.status(owner)

    async def check(self, owner: UUID) -> ConnectionStatus:
        """Ask Coolify what the token of an owner's connection may do, and return what is known.

        A refusal, or no answer, is part of the status. The server's connection is asked once in
        `SERVER_CHECK_S` at most, whoever wants to know.

        Raises:
            DeploymentNotConfigured: There is no connection.
            CoolifyBusy: Coolify wants to be left alone.
        """
        await self._connections.check(owner)
        return await self.status(owner)

    async def remove(self, owner: UUID) -> None:
        """Delete an owner's connection and its token; nothing happens when there is none."""
        await self._connections.remove(owner)

    async def applications(self, owner: UUID) -> list[Application]:
        """List what can be deployed through the owner's connection.

        Raises:
            DeploymentNotConfigured, SecretUnreadable: See `connected`.
            CoolifyBusy: Coolify wants to be left alone; all servers do so from then on.
            CraftasticError: As its API raises it, see `api.Coolify`.
        """
        found = await self.connected(owner)
        await self._connections.insist_on_no_pause(found.key)
        try:
            return await found.api.applications()
        except CoolifyBusy as error:
            await self.pause(found.key, error.retry_after_s)
            raise

    async def make_hook(self, owner: UUID | None, actor: UUID | None = None) -> str:
        """Make the key by which a Coolify tells of deployments; an older one ends.

        Args:
            owner: Whose deployments; None for those of the server's connection.
            actor: Who asked, where that is not the owner.

        Returns:
            The key, which is shown this once: only its hash is stored.
        """
        return await self._hooks.make(owner, actor)

    async def remove_hook(self, owner: UUID | None, actor: UUID | None = None) -> None:
        """Delete such a key; nothing happens when there is none."""
        await self._hooks.remove(owner, actor)

    async def hook_owner(self, key: str) -> HookOwner | None:
        """Tell whose deployments the sender of a message may speak of; None for an unknown key."""
        return await self._hooks.owner_of(key)
