"""Git hosts: a user's passwords and tokens for upstreams, and which of them goes where."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import structlog

from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.credentials.service import CredentialService, SecretNotFound
from craftastic.database import Database, Transaction
from craftastic.errors import Conflict
from craftastic.githosts._model import GitHost, Origin
from craftastic.githosts._origins import (
    BadGitHost,
    basic,
    checked_password,
    checked_username,
    normalised_origin,
    password_of,
    shown_origin,
)
from craftastic.githosts._repository import GitHostNotFound, GitHostRepository

__all__ = [
    "ASKS_FOR_ACCOUNT",
    "BadGitHost",
    "GitHost",
    "GitHostNotFound",
    "GitHostService",
    "Origin",
    "TooManyGitHosts",
    "asks_for_account",
]

MAX_HOSTS_PER_USER = 50
PURPOSE = "git_host.password"
GITHUB_USERNAME = "x-access-token"
OTHER_USERNAME = "oauth2"
GITHUB_COM = "github.com"
USE_INTERVAL = timedelta(minutes=10)
"""How often at most the use of a credential is written."""

ASKS_FOR_ACCOUNT = "asks for an account with the right to this repository"
"""Stands in what the gateway tells git when an upstream wants a credential, or another one."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class TooManyGitHosts(Conflict):
    code = "TOO_MANY_GIT_HOSTS"


class GitHubTokens(Protocol):
    """What git hosts need of the connected GitHub account."""

    async def token_for(self, owner: UUID, origin: Origin) -> str | None:
        """Return a token that works, when the origin is GitHub's and the owner has connected."""
        ...

    async def rejected(self, owner: UUID, token: str) -> bool:
        """Take note that GitHub did not accept a token; True when one more try is worth it."""
        ...


class OwnedEnvironment(Protocol):
    """What git hosts need to know of an environment."""

    @property
    def owner_id(self) -> UUID: ...


def purpose_of(origin: str) -> str:
    """Return what the credential of an origin is stored for: to be read for no other one."""
    return f"{PURPOSE}.{hashlib.sha256(origin.encode()).hexdigest()[:40]}"


def asks_for_account(said: str) -> bool:
    """Tell whether git failed since the upstream wants a credential, from what git printed."""
    return ASKS_FOR_ACCOUNT in " ".join(said.split())


@dataclass(frozen=True, slots=True)
class GitHostService:
    """Keeps credentials of git hosts, and adds the right one to what the gateway sends.

    Args:
        parse_origin: Returns an address's parts by the gateway's rules, or raises.
        github_origin: Where a connected GitHub account belongs; None where none can be connected.
    """

    database: Database
    credentials: CredentialService
    github: GitHubTokens
    audit: AuditService
    clock: Clock
    parse_origin: Callable[[str], Origin]
    github_origin: Origin | None = None

    async def put(
        self, owner: UUID, origin: str, password: str, username: str | None = None
    ) -> GitHost:
        """Store a credential for an origin; one that is there is replaced.

        Args:
            owner: Whose environments use it, and nobody else's.
            origin: `https://host` or `https://host:port`.
            password: A password or token; it is not returned by anything here.
            username: For hosts where it matters; what takes tokens is chosen when None.

        Raises:
            BadGitHost: As named.
            UpstreamRefused: The gateway does not reach such addresses.
            TooManyGitHosts: The owner has `MAX_HOSTS_PER_USER`.
        """
        parsed = self.parse_origin(normalised_origin(origin))
        shown = shown_origin(parsed)
        username = checked_username(username or self._usual_username(parsed))
        checked_password(password)
        async with self.database.begin() as tx:
            repository = GitHostRepository(tx)
            await repository.lock(owner)
            known = await repository.find(owner, shown)
            if known is None:
                host = await self._add(tx, owner, shown, username, password)
            else:
                secret_id = await self._replace(tx, known, password)
                host = await repository.replaced(known, username, secret_id, self.clock.now())
            await self._audit(tx, "git_host.put", host)
        return host

    async def list_owned(self, owner: UUID) -> list[GitHost]:
        """List the owner's hosts by their origins."""
        async with self.database.read() as tx:
            return await GitHostRepository(tx).list_owned(owner)

    async def remove(self, owner: UUID, host_id: UUID) -> None:
        """Forget a host and its credential.

        Raises:
            GitHostNotFound: It is absent or somebody else's.
        """
        async with self.database.begin() as tx:
            host = await GitHostRepository(tx).remove(owner, host_id)
            await self.credentials.remove(tx, owner, host.secret_id)
            await self._audit(tx, "git_host.delete", host)

    async def authorization(
        self, environment: OwnedEnvironment, scheme: str, host: str, port: int
    ) -> str | None:
        """Return the value of the Authorization header for exactly this origin, or None.

        The owner's own credential of the host goes before the token of a connected GitHub account.

        Raises:
            SecretUnreadable: It is stored and cannot be decrypted.
        """
        origin = (scheme, host, port)
        own = await self._own(environment.owner_id, origin)
        if own is not None:
            return own[1]
        token = await self.github.token_for(environment.owner_id, origin)
        return None if token is None else basic(GITHUB_USERNAME, token)

    async def rejected(
        self, environment: OwnedEnvironment, scheme: str, host: str, port: int, value: str
    ) -> bool:
        """Take note that an upstream answered 401 to a value; True when another try is worth it.

        That is so when there is another value now: a refreshed token, a credential that was
        replaced meanwhile; or none, since a repository may be open to everyone.
        """
        origin = (scheme, host, port)
        own = await self._own(environment.owner_id, origin)
        if own is None:
            if await self.github.rejected(environment.owner_id, password_of(value)):
                return True
        elif own[1] == value:
            await self._refused(own[0], host)
            return False
        return await self.authorization(environment, scheme, host, port) != value

    async def accepted(
        self, environment: OwnedEnvironment, scheme: str, host: str, port: int
    ) -> None:
        """Take note that an upstream accepted what `authorization` gave; written rarely."""
        now = self.clock.now()
        stale = now - USE_INTERVAL
        async with self.database.read() as tx:
            known = await GitHostRepository(tx).find(
                environment.owner_id, shown_origin((scheme, host, port))
            )
        if known is None:
            return
        if known.last_error or known.last_used_at is None or known.last_used_at < stale:
            async with self.database.begin() as tx:
                await GitHostRepository(tx).used(known, now, stale)

    def way_on(self, scheme: str, host: str, port: int, *, tried: bool) -> str:
        """Return what a person can do when an upstream asks for an account, in half a sentence.

        Args:
            scheme: Of the upstream.
            host: Of the upstream.
            port: Of the upstream.
            tried: Whether a credential was sent, and refused.
        """
        origin = (scheme, host, port)
        shown = shown_origin(origin)
        if origin == self.github_origin:
            if tried:
                return f"connect GitHub again, or replace the credential of the git host {shown}"
            return "connect GitHub to Craftastic, then try again"
        if tried:
            return f"replace the credential of the git host {shown}"
        return f"add a credential for the git host {shown} to Craftastic, then try again"

    async def _add(
        self, tx: Transaction, owner: UUID, origin: str, username: str, password: str
    ) -> GitHost:
        repository = GitHostRepository(tx)
        if await repository.count(owner) >= MAX_HOSTS_PER_USER:
            raise TooManyGitHosts(
                "You have credentials for as many git hosts as you may have",
                details=f"The limit is {MAX_HOSTS_PER_USER}; remove one that you no longer need.",
            )
        secret_id = await self.credentials.store(tx, owner, purpose_of(origin), password)
        return await repository.add(owner, origin, username, secret_id, self.clock.now())

    async def _replace(self, tx: Transaction, host: GitHost, password: str) -> UUID:
        """Put another password in a host's place; return the secret's id."""
        owner, purpose = host.owner_id, purpose_of(host.origin)
        try:
            await self.credentials.replace(tx, owner, purpose, host.secret_id, password)
        except SecretNotFound:  # what is there was stored for something else
            return await self.credentials.store(tx, owner, purpose, password)
        return host.secret_id

    async def _own(self, owner: UUID, origin: Origin) -> tuple[GitHost, str] | None:
        """Return the owner's credential for an origin, and the header's value that it makes."""
        async with self.database.read() as tx:
            known = await GitHostRepository(tx).find(owner, shown_origin(origin))
            if known is None:
                return None
            try:
                password = await self.credentials.reveal(
                    tx, owner, purpose_of(known.origin), known.secret_id
                )
            except SecretNotFound:  # the host was removed between the two statements
                return None
        return known, basic(known.username, password)

    async def _refused(self, host: GitHost, name: str) -> None:
        now = self.clock.now()
        log.info("git host refused a credential", git_host=str(host.id), origin=host.origin)
        async with self.database.begin() as tx:
            await GitHostRepository(tx).refused(
                host, f"{name} refused it at {now:%Y-%m-%d %H:%M} UTC."
            )

    async def _audit(self, tx: Transaction, action: str, host: GitHost) -> None:
        await self.audit.record(
            action,
            actor_id=host.owner_id,
            object_type="git_host",
            object_id=host.id,
            details={"origin": host.origin, "username": host.username},
            tx=tx,
        )

    def _usual_username(self, origin: Origin) -> str:
        is_github = origin[1] == GITHUB_COM or origin == self.github_origin
        return GITHUB_USERNAME if is_github else OTHER_USERNAME
