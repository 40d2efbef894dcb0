"""Connections: the user's own, stored and looked after, before the server's."""

import hashlib
import re
from dataclasses import dataclass, field, replace
from uuid import UUID

import structlog

from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.coolify._answers import base_of
from craftastic.coolify._model import (
    SERVER,
    Connected,
    Connection,
    ConnectionStatus,
    Finding,
    Hook,
    Known,
    Problem,
    Source,
    advice_of,
    missing_of,
    problem_of,
    web_url_of,
)
from craftastic.coolify._repository import (
    ConnectionRepository,
    HookRepository,
    PauseRepository,
)
from craftastic.coolify.api import Coolify, CoolifyHttp
from craftastic.coolify.errors import BadCoolifyUrl, CoolifyBusy
from craftastic.credentials.service import CredentialService, SecretNotFound, SecretUnreadable
from craftastic.database import Database, Transaction
from craftastic.errors import CraftasticError, InvalidInput, NotConfigured
from craftastic.settings import Settings

PURPOSE = "coolify.token"
MAX_TOKEN_CHARS = 500
TOKEN = re.compile(rf"[!-~]{{1,{MAX_TOKEN_CHARS}}}")

SERVER_CHECK_S = 10.0
"""How often at most the server's connection is looked at, whoever asks."""

MAX_PAUSE_S = 3600.0

READS = 3
"""How often a connection is looked up that is replaced again and again meanwhile."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class DeploymentNotConfigured(NotConfigured):
    """The user has no connection of their own, and the server has none for everybody."""

    code = "DEPLOYMENT_NOT_CONFIGURED"

    def __init__(self) -> None:
        super().__init__(
            "Deployment not configured",
            details="Connect your Coolify with its address and an API token, or ask the operator "
            "of this server to set COOLIFY_API_URL and COOLIFY_API_TOKEN.",
        )


class BadCoolifyToken(InvalidInput):
    """The text can be no token of Coolify's."""

    code = "COOLIFY_TOKEN_INVALID"


@dataclass(slots=True)
class _Server:
    """The operator's connection; what this process knows of it is not stored.

    Attributes:
        base: Of its API; None when there is no such connection.
        asked_s: When it was looked at last, by the clock that never goes back.
    """

    base: str | None
    known: Known = field(default_factory=Known)
    asked_s: float | None = None


@dataclass(frozen=True, slots=True)
class Connections:
    """Everything about connections.

    Args:
        http: What speaks to Coolifies.
    """

    database: Database
    credentials: CredentialService
    audit: AuditService
    clock: Clock
    http: CoolifyHttp = field(repr=False)
    settings: Settings = field(repr=False)
    _operators: _Server = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_operators", _Server(_server_base(self.settings)))

    async def connected(self, owner: UUID) -> Connected:
        """Return the connection that an owner's deployments go through."""
        found = await self._own(owner) or self._server()
        if found is None:
            raise DeploymentNotConfigured
        return found

    async def connected_as(
        self, owner: UUID, source: str, connection_id: UUID | None
    ) -> Connected | None:
        """Return the connection that something was begun with, if it is there."""
        if source == SERVER:
            return self._server()
        own = await self._own(owner)
        return own if own is not None and own.connection_id == connection_id else None

    async def pause(self, key: str, seconds: float) -> None:
        async with self.database.begin() as tx:
            await PauseRepository(tx).put(key, min(max(seconds, 0.0), MAX_PAUSE_S))

    async def pause_left(self, key: str) -> float:
        async with self.database.read() as tx:
            return await PauseRepository(tx).left(key)

    async def insist_on_no_pause(self, key: str) -> None:
        """Refuse what could wait while Coolify wants to be left alone.

        Raises:
            CoolifyBusy: It does.
        """
        left_s = await self.pause_left(key)
        if left_s > 0:
            raise CoolifyBusy(retry_after_s=left_s, queue_full=False)

    async def status(self, owner: UUID) -> ConnectionStatus:
        async with self.database.read() as tx:
            own = await ConnectionRepository(tx).find(owner)
            hook = await HookRepository(tx).find(owner)
        return self._shown(own, hook)

    async def put(self, owner: UUID, url: str, token: str) -> None:
        """Ask a Coolify with a token and store both, in the place of what is there."""
        base = base_of(url)
        token = _checked_token(token)
        finding = await _look(self.http.api(base, token, trusted=False, asker=str(owner)))
        async with self.database.begin() as tx:
            connection_id = await self._store(tx, owner, base, token, finding)
            await self.audit.record(
                "coolify.connect",
                actor_id=owner,
                object_type="coolify",
                object_id=connection_id,
                details={"url": web_url_of(base), "missing": list(missing_of(finding.abilities))},
                tx=tx,
            )

    async def check(self, owner: UUID) -> None:
        """Ask Coolify anew what the connection's token may do, and keep what it says."""
        async with self.database.read() as tx:
            own = await ConnectionRepository(tx).find(owner)
        if own is None:
            await self._check_server()
            return
        await self.insist_on_no_pause(str(own.id))
        found = await self._looked_at(own)
        now = self.clock.now()
        async with self.database.begin() as tx:
            connections = ConnectionRepository(tx)
            if isinstance(found, Finding):
                await connections.checked(own, found, now)
            else:
                await connections.failed(own, found, now)

    async def remove(self, owner: UUID) -> None:
        """Delete an owner's connection and its token; nothing happens when there is none."""
        async with self.database.begin() as tx:
            connections = ConnectionRepository(tx)
            await connections.lock(owner)
            removed = await connections.remove(owner)
            if removed is None:
                return
            await self.credentials.remove(tx, owner, removed.secret_id)
            await self.audit.record(
                "coolify.disconnect",
                actor_id=owner,
                object_type="coolify",
                object_id=removed.id,
                details={"url": web_url_of(removed.url)},
                tx=tx,
            )

    async def _store(
        self, tx: Transaction, owner: UUID, base: str, token: str, finding: Finding
    ) -> UUID:
        """Put a connection in the place of what is there; return its id."""
        now = self.clock.now()
        connections = ConnectionRepository(tx)
        await connections.lock(owner)
        known = await connections.find(owner)
        secret_id = await self.credentials.store(tx, owner, purpose_of(base), token)
        if known is not None and known.url == base:
            await connections.renewed(known, secret_id, finding, now)
            stored_id = known.id
        else:
            # What was begun at another Coolify must never go on at this one: a new id.
            await connections.remove(owner)
            stored_id = (await connections.add(owner, base, secret_id, finding, now)).id
        if known is not None:
            await self.credentials.remove(tx, owner, known.secret_id)
        return stored_id

    async def _looked_at(self, own: Connection) -> Finding | Problem:
        """Ask an owner's Coolify; a token that cannot be read is a finding, too."""
        try:
            found = await self._own(own.owner_id)
        except SecretUnreadable as error:
            return _problem(error)
        if found is None:
            raise DeploymentNotConfigured
        return await self._found(found)

    async def _found(self, connected: Connected) -> Finding | Problem:
        """Ask a Coolify; whatever keeps it from answering becomes the finding."""
        try:
            return await _look(connected.api)
        except CoolifyBusy as error:
            await self.pause(connected.key, error.retry_after_s)
            return _problem(error)
        except CraftasticError as error:
            return _problem(error)

    async def _check_server(self) -> None:
        server, operators = self._server(), self._operators
        if server is None:
            raise DeploymentNotConfigured
        now_s = self.clock.monotonic()
        if operators.asked_s is not None and now_s - operators.asked_s < SERVER_CHECK_S:
            return
        await self.insist_on_no_pause(SERVER)
        operators.asked_s = now_s
        found = await self._found(server)
        now = self.clock.now()
        if isinstance(found, Finding):
            operators.known = Known(found.version, found.abilities, None, now)
        else:
            operators.known = replace(operators.known, problem=found, checked_at=now)

    async def _own(self, owner: UUID) -> Connected | None:
        for _ in range(READS):
            async with self.database.read() as tx:
                own = await ConnectionRepository(tx).find(owner)
                if own is None:
                    return None
                purpose = purpose_of(own.url)
                try:
                    token = await self.credentials.reveal(tx, owner, purpose, own.secret_id)
                except SecretNotFound:  # replaced or removed between the two statements
                    continue
            api = self.http.api(own.url, token, trusted=False, asker=str(owner))
            return Connected(str(own.id), "user", own.id, api)
        return None

    def _server(self) -> Connected | None:
        base, token = self._operators.base, self.settings.coolify_api_token
        if base is None or token is None:
            return None
        api = self.http.api(base, token.get_secret_value(), trusted=True)
        return Connected(SERVER, "server", None, api)

    def _shown(self, own: Connection | None, hook: Hook | None) -> ConnectionStatus:
        base = self._operators.base
        if own is not None:
            shown = _status("user", own.url, own.known)
        elif base is not None:
            shown = _status("server", base, self._operators.known)
        else:
            shown = ConnectionStatus(configured=False)
        return replace(shown, server_configured=base is not None, hook=hook)


def purpose_of(base: str) -> str:
    """Return what the token of an address is stored for: to be read for no other one."""
    return f"{PURPOSE}.{hashlib.sha256(base.encode()).hexdigest()[:40]}"


def _server_base(settings: Settings) -> str | None:
    if settings.coolify_api_url is None or settings.coolify_api_token is None:
        return None
    try:
        return base_of(settings.coolify_api_url)
    except BadCoolifyUrl as error:
        log.error("COOLIFY_API_URL is not used", why=error.message)  # noqa: TRY400 - it says all
        return None


def _status(source: Source, base: str, known: Known) -> ConnectionStatus:
    return ConnectionStatus(
        configured=True,
        source=source,
        url=web_url_of(base),
        version=known.version,
        abilities=known.abilities,
        missing=missing_of(known.abilities),
        problem=known.problem or problem_of(known.abilities),
        advice=advice_of(known.abilities),
        checked_at=known.checked_at,
    )


async def _look(api: Coolify) -> Finding:
    """Ask a Coolify what a token may do; no transaction may be open."""
    abilities = await api.abilities()
    version = await api.version() if abilities.read else None
    return Finding(version, abilities)


def _problem(error: CraftasticError) -> Problem:
    message = error.message if error.message.endswith((".", "!", "?")) else f"{error.message}."
    return Problem(error.code, f"{message} {error.details or ''}".strip())


def _checked_token(text: str) -> str:
    """Return a token as it is sent.

    Raises:
        BadCoolifyToken: It is empty, too long, or has what no token has.
    """
    token = text.strip()
    if TOKEN.fullmatch(token) is None:
        raise BadCoolifyToken(
            "This is no API token of Coolify's",
            details="Copy all that Coolify shows once when a token is made, with the number and "
            "the bar at its beginning, and nothing else.",
        )
    return token
