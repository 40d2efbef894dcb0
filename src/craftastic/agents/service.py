"""Agents: users' profiles of coding agents, their credentials, and who gets these in clear."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID, uuid4

from craftastic.accounts.service import Caller, UserId
from craftastic.agents._agent import (
    Agent,
    AgentChanges,
    AgentCredential,
    AgentCredentialNeeded,
    AgentCredentialNotFound,
    AgentNotFound,
    BadAgent,
    BadAgentCredential,
    NewCredential,
    TooManyAgents,
    UnknownCredentialType,
)
from craftastic.agents._repository import AgentRepository, AgentRow, OwnerGone
from craftastic.agents._values import (
    MAX_CREDENTIAL_BYTES,
    MAX_MODEL_CHARS,
    MAX_NAME_CHARS,
    checked_address,
    checked_model,
    checked_name,
    checked_value,
    is_json_object,
    kind_of,
)
from craftastic.agents.agent_types import AgentTypes, CredentialKind, Delivery
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.credentials.service import CredentialService, SecretNotFound
from craftastic.database import Database, Transaction
from craftastic.errors import Forbidden

__all__ = [
    "MAX_CREDENTIAL_BYTES",
    "MAX_MODEL_CHARS",
    "MAX_NAME_CHARS",
    "Agent",
    "AgentChanges",
    "AgentCredential",
    "AgentCredentialNeeded",
    "AgentCredentialNotFound",
    "AgentNotFound",
    "AgentService",
    "BadAgent",
    "BadAgentCredential",
    "CheckResult",
    "CredentialCheck",
    "NewCredential",
    "NotYourUserId",
    "OwnerGone",
    "TooManyAgents",
    "UnknownCredentialType",
    "acting_for",
    "is_json_object",
]

PURPOSE = "agent.credential"
MAX_AGENTS_PER_USER = 100


class NotYourUserId(Forbidden):
    code = "NOT_YOUR_USER_ID"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What asking for a credential's validity found.

    Attributes:
        ok: None where it cannot be known from here.
        message: A sentence for the owner; it holds nothing of the credential.
    """

    ok: bool | None
    message: str


class CredentialCheck(Protocol):
    """Asks a model API whether it accepts a key; the gateway's model proxy does."""

    async def check(
        self, provider: str, scheme: str, base_url: str | None, key: str
    ) -> CheckResult:
        """Ask the provider, within a deadline of its own; failures are results."""
        ...


def acting_for(caller: Caller, user_id: str | None) -> UserId:
    """Return whose agents a request is about: the caller's, for administrators anybody's.

    Raises:
        NotYourUserId: The id is not the caller's.
        OwnerGone: An administrator's request names no possible user.
    """
    if user_id is None or user_id.lower() == str(caller.user_id):
        return caller.user_id
    if not caller.is_admin:
        raise NotYourUserId("You can only act for yourself")
    try:
        return UserId(UUID(user_id))
    except ValueError:
        raise OwnerGone("User not found") from None


@dataclass(frozen=True, slots=True)
class AgentService:
    """Keeps agents and their credentials.

    A credential is stored for the address it is sent to: who changes the address gives it again,
    so that the right to change an agent is not the right to read its key.
    """

    database: Database
    credentials: CredentialService
    audit: AuditService
    clock: Clock
    types: AgentTypes
    check: CredentialCheck

    async def exists(self, owner: UserId, agent_id: UUID) -> bool:
        """Tell whether the owner has an agent."""
        async with self.database.read() as tx:
            return await AgentRepository(tx, owner).exists(agent_id)

    async def get_owned(self, owner: UserId, agent_id: UUID) -> Agent:
        """Return one of the owner's agents.

        Raises:
            AgentNotFound: It is absent or somebody else's.
        """
        async with self.database.read() as tx:
            return _agent(await AgentRepository(tx, owner).get(agent_id))

    async def list_owned(self, owner: UserId) -> list[Agent]:
        """List the owner's agents, the oldest first."""
        async with self.database.read() as tx:
            return [_agent(row) for row in await AgentRepository(tx, owner).list()]

    async def create(
        self,
        owner: UserId,
        agent_type: str,
        given: AgentChanges,
        *,
        actor: UserId | None = None,
    ) -> Agent:
        """Make an agent.

        Args:
            owner: Whose it is.
            agent_type: Name of its type.
            given: Its name, and what else it has.
            actor: Who makes it, when not the owner.

        Raises:
            UnknownAgentType, UnknownCredentialType: There is none of that name.
            BadAgent, BadAgentCredential: As named.
            TooManyAgents: The owner has `MAX_AGENTS_PER_USER`.
            OwnerGone: There is no such user.
        """
        of_type, now = self.types.get(agent_type), self.clock.now()
        row = AgentRow(
            id=uuid4(),
            owner_id=owner,
            name=checked_name(given.name or ""),
            type=of_type.name,
            base_url=checked_address(given.base_url) if given.base_url else None,
            model=checked_model(given.model) if given.model else None,
            created_at=now,
            updated_at=now,
        )
        credential = self._checked(row.type, given.credential)
        async with self.database.begin() as tx:
            agents = AgentRepository(tx, owner)
            await agents.hold()
            if await agents.count() >= MAX_AGENTS_PER_USER:
                raise TooManyAgents(
                    "You have as many agents as you may have",
                    details=f"The limit is {MAX_AGENTS_PER_USER}; delete one you no longer need.",
                )
            await agents.add(row)
            if credential is not None:
                await self._store(tx, row, *credential)
                await tx.flush()
            await self._record(tx, "agent.create", row, actor, _told(credential))
            return _agent(row)

    async def update(self, owner: UserId, agent_id: UUID, changes: AgentChanges) -> Agent:
        """Change an agent; a credential takes the place of the one before.

        Another kind of credential leaves an address behind that is not given with it.

        Raises:
            AgentNotFound: It is absent or somebody else's.
            UnknownAgentType: Its type is gone, so that no credential can be checked.
            UnknownCredentialType, BadAgent, BadAgentCredential: As named.
            AgentCredentialNeeded: The address would change, and the stored credential with it be
                sent elsewhere.
        """
        async with self.database.begin() as tx:
            row = await AgentRepository(tx, owner).get(agent_id, to_change=True)
            credential = self._checked(row.type, changes.credential)
            if changes.name is not None:
                row.name = checked_name(changes.name)
            if changes.model is not None:
                row.model = checked_model(changes.model) if changes.model else None
            self._set_address(row, changes, None if credential is None else credential[0])
            if credential is not None:
                await self._store(tx, row, *credential)
            row.updated_at = self.clock.now()
            await tx.flush()
            await self._record(tx, "agent.update", row, None, _told(credential))
            return _agent(row)

    async def delete(self, owner: UserId, agent_id: UUID) -> None:
        """Delete an agent and its credential; its sessions stay, without an agent.

        Raises:
            AgentNotFound: It is absent or somebody else's.
        """
        async with self.database.begin() as tx:
            agents = AgentRepository(tx, owner)
            row = await agents.get(agent_id, to_change=True)
            secret_id = row.secret_id
            await agents.remove(agent_id)
            if secret_id is not None:
                await self.credentials.remove(tx, owner, secret_id)
            await self._record(tx, "agent.delete", row, None)

    async def credential(self, owner: UserId, agent_id: UUID) -> AgentCredential | None:
        """Return an agent's credential in clear, for the product's own use; None without one.

        Raises:
            AgentNotFound: The agent is absent or somebody else's.
            UnknownAgentType, UnknownCredentialType: Its type, or the kind of its credential, is
                described no more.
            SecretUnreadable: It is stored and cannot be decrypted.
        """
        async with self.database.read() as tx:
            row = await AgentRepository(tx, owner).get(agent_id)
            return await self._reveal(tx, row)

    async def read_credential(self, owner: UserId, agent_id: UUID) -> AgentCredential:
        """Return an agent's credential in clear for its owner; each time is on record.

        Raises:
            AgentNotFound, UnknownAgentType, UnknownCredentialType, SecretUnreadable: See
                `credential`.
            AgentCredentialNotFound: There is none.
        """
        async with self.database.begin() as tx:
            row = await AgentRepository(tx, owner).get(agent_id)
            found = await self._reveal(tx, row)
            if found is None:
                raise AgentCredentialNotFound("Agent credentials not found")
            await self._record(tx, "agent.credential.read", row, None)
            return found

    async def take_back(
        self, owner: UserId, agent_id: UUID, kind_type: str, was_sha256: str, value: str
    ) -> bool:
        """Store a login file that an agent has renewed, unless it was replaced meanwhile.

        Args:
            owner: Of the agent.
            agent_id: Whose credential it is.
            kind_type: The kind that the run was given.
            was_sha256: Of the value that the run was given, in hexadecimal digits.
            value: What the file holds now. A sandbox says so: what cannot be one is not taken.

        Returns:
            Whether it was stored.
        """
        try:
            async with self.database.begin() as tx:
                row = await AgentRepository(tx, owner).get(agent_id, to_change=True)
                stored = await self._reveal(tx, row)
                if stored is None or row.secret_id is None:
                    return False
                kind = stored.kind
                if kind.type != kind_type or not kind.take_back:
                    return False
                checked = checked_value(kind, value)
                if checked == stored.value:  # the answer to the first time was lost
                    return True
                was = was_sha256.encode(errors="replace")
                if not hmac.compare_digest(sha256_of(stored.value), was):
                    return False
                await self.credentials.replace(tx, owner, PURPOSE, row.secret_id, checked)
                await self._record(tx, "agent.credential.refresh", row, None)
                return True
        except (AgentNotFound, BadAgentCredential):
            return False

    async def test(self, owner: UserId, agent_id: UUID) -> CheckResult:
        """Find out whether an agent's credential is good, as far as this server can.

        A key is sent to its model API, which answers within the check's own deadline.

        Raises:
            AgentNotFound, UnknownAgentType, UnknownCredentialType, SecretUnreadable: See
                `credential`.
            AgentCredentialNotFound: There is none.
        """
        found = await self.credential(owner, agent_id)
        if found is None:
            raise AgentCredentialNotFound("Agent credentials not found")
        kind = found.kind
        if kind.provider is not None and kind.scheme is not None:
            return await self.check.check(kind.provider, kind.scheme, found.base_url, found.value)
        if kind.delivery is Delivery.FILE:
            return CheckResult(
                None, "The login file has the right form; the agent finds out whether it is valid."
            )
        return CheckResult(None, "Only the agent itself can find out whether the key is valid.")

    def _checked(
        self, agent_type: str, given: NewCredential | None
    ) -> tuple[CredentialKind, str] | None:
        if given is None:
            return None
        kind = kind_of(self.types.get(agent_type), given.type)
        return kind, checked_value(kind, given.value)

    def _set_address(
        self, row: AgentRow, changes: AgentChanges, kind: CredentialKind | None
    ) -> None:
        if changes.base_url is None:
            if row.secret_id is not None and kind is not None and kind.type != row.credential_type:
                row.base_url = None
            return
        address = checked_address(changes.base_url) if changes.base_url else None
        if address != row.base_url and kind is None and row.secret_id is not None:
            raise AgentCredentialNeeded(
                "A new address needs the credential given again",
                details="The stored one was meant for the address before.",
            )
        row.base_url = address

    async def _store(
        self, tx: Transaction, row: AgentRow, kind: CredentialKind, value: str
    ) -> None:
        """Put a credential in the place of what is there."""
        row.credential_type = kind.type
        if row.secret_id is not None:
            try:
                await self.credentials.replace(tx, row.owner_id, PURPOSE, row.secret_id, value)
            except SecretNotFound:  # what is there was stored for something else
                pass
            else:
                return
        row.secret_id = await self.credentials.store(tx, row.owner_id, PURPOSE, value)

    async def _reveal(self, tx: Transaction, row: AgentRow) -> AgentCredential | None:
        if row.secret_id is None or row.credential_type is None:
            return None
        kind = kind_of(self.types.get(row.type), row.credential_type)
        try:
            value = await self.credentials.reveal(tx, row.owner_id, PURPOSE, row.secret_id)
        except SecretNotFound:  # it was removed between the two statements
            return None
        return AgentCredential(kind, value, row.base_url or kind.base_url)

    async def _record(
        self,
        tx: Transaction,
        action: str,
        row: AgentRow,
        actor: UserId | None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        await self.audit.record(
            action,
            actor_id=actor or row.owner_id,
            object_type="agent",
            object_id=row.id,
            details={
                "name": row.name,
                "type": row.type,
                "kind": row.credential_type,
                "base_url": row.base_url,
                **(more or {}),
            },
            tx=tx,
        )


def sha256_of(value: str) -> bytes:
    """Return the hexadecimal digits by which a run says which value it was given."""
    return hashlib.sha256(value.encode()).hexdigest().encode()


def _told(credential: tuple[CredentialKind, str] | None) -> dict[str, object]:
    return {} if credential is None else {"stored": credential[0].type}


def _agent(row: AgentRow) -> Agent:
    return Agent(
        id=row.id,
        owner_id=row.owner_id,
        name=row.name,
        type=row.type,
        credential_type=row.credential_type if row.secret_id is not None else None,
        base_url=row.base_url,
        model=row.model,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
