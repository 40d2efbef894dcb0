"""Variables and secrets of a user and of an environment, for the shells of sessions.

Every value is stored encrypted, a plain one too: what is pasted into the wrong field is then no
leak. A secret's value is given to shells and to nobody else.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.credentials.service import CredentialService, SecretUnreadable
from craftastic.database import Database, Transaction
from craftastic.environments.service import Environment
from craftastic.errors import Conflict, InvalidInput, NotFound, Unavailable
from craftastic.variables._masker import MIN_CHARS, Masker
from craftastic.variables._repository import (
    VariableBusy,
    VariableRepository,
    VariableRow,
    ownerless_secrets,
)
from craftastic.variables._rules import (
    MAX_PER_SCOPE,
    MAX_SCOPE_BYTES,
    PAIR_BYTES,
    BadVariableName,
    BadVariableValue,
    check_name,
    size_of,
)

__all__ = [
    "MIN_CHARS",
    "BadVariableName",
    "BadVariableValue",
    "Inherited",
    "Masker",
    "TooManyVariables",
    "Variable",
    "VariableBusy",
    "VariableNotFound",
    "VariableService",
    "VariableUnreadable",
    "VariableValueNeeded",
]

PURPOSE = "variable"
FORGOTTEN_AT_ONCE = 200


class VariableNotFound(NotFound):
    code = "VARIABLE_NOT_FOUND"


class VariableValueNeeded(InvalidInput):
    """A new variable, or a secret that is to be one no more, needs its value given."""

    code = "VARIABLE_VALUE_NEEDED"


class TooManyVariables(Conflict):
    """One scope has as many variables, or as much text in them, as it may have."""

    code = "TOO_MANY_VARIABLES"


class VariableUnreadable(Unavailable):
    """Stored values were changed outside of the product, or their key is gone."""

    code = "VARIABLE_UNREADABLE"


class Environments(Protocol):
    """What variables need of environments; `environments.service.EnvironmentService` is it."""

    async def get_owned(self, owner: UserId, environment_id: UUID) -> Environment: ...


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable as its owner sees it.

    Attributes:
        value: Of a plain one; None for a secret, and where the stored value cannot be read.
    """

    name: str
    is_secret: bool
    value: str | None = field(repr=False)
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Inherited:
    """A variable of all environments, as one of them sees it."""

    name: str
    is_secret: bool
    overridden: bool


@dataclass(frozen=True, slots=True)
class VariableService:
    """Keeps variables; an `environment_id` of None stands for all of the owner's environments."""

    database: Database
    credentials: CredentialService
    environments: Environments
    audit: AuditService
    clock: Clock

    async def list(self, owner: UserId, environment_id: UUID | None = None) -> list[Variable]:
        """List one scope's variables by their names.

        Raises:
            EnvironmentNotFound: The environment is absent or somebody else's.
        """
        await self._check(owner, environment_id)
        async with self.database.read() as tx:
            rows = await VariableRepository(tx, owner).list(environment_id)
            values = await self._readable(tx, owner, [one for one in rows if not one.is_secret])
        return [_variable(row, values.get(row.secret_id)) for row in rows]

    async def inherited(self, owner: UUID, environment_id: UUID) -> Sequence[Inherited]:
        """List the variables of all environments, and whether this one has its own instead."""
        async with self.database.read() as tx:
            variables = VariableRepository(tx, owner)
            own = {one.name for one in await variables.list(environment_id)}
            return [
                Inherited(one.name, one.is_secret, one.name in own)
                for one in await variables.list(None)
            ]

    async def put(
        self,
        owner: UserId,
        name: str,
        value: str | None,
        *,
        is_secret: bool = True,
        environment_id: UUID | None = None,
    ) -> Variable:
        """Set a variable; without a value, change only whether it is a secret.

        Shells that are started afterwards get it; those that run keep what they have.

        Raises:
            BadVariableName: It cannot be called so.
            BadVariableValue: It is longer than 32 KiB, has a NUL, or is no text.
            VariableValueNeeded: There is no value yet, or a secret would become readable.
            TooManyVariables: The scope is full.
            EnvironmentNotFound: The environment is absent or somebody else's.
        """
        check_name(name)
        size = None if value is None else size_of(value)
        await self._check(owner, environment_id)
        async with self.database.begin() as tx:
            variables = VariableRepository(tx, owner)
            await variables.hold()
            row = await variables.find(environment_id, name)
            if size is not None:
                await _check_room(variables, environment_id, name, size)
            if row is None:
                row = await self._add(variables, environment_id, name, value, size)
            else:
                await self._change(tx, row, value, size, is_secret=is_secret)
            row.is_secret = is_secret
            row.updated_at = self.clock.now()
            await tx.flush()
            plain = {} if is_secret else await self._readable(tx, owner, [row])
            await self._record(tx, "variable.set", owner, row)
            return _variable(row, plain.get(row.secret_id))

    async def delete(self, owner: UserId, name: str, *, environment_id: UUID | None = None) -> None:
        """Delete a variable with its value; shells that run keep it.

        Raises:
            VariableNotFound: There is none of this name.
            EnvironmentNotFound: The environment is absent or somebody else's.
        """
        await self._check(owner, environment_id)
        async with self.database.begin() as tx:
            variables = VariableRepository(tx, owner)
            await variables.hold()
            row = await variables.find(environment_id, name)
            if row is None:
                raise VariableNotFound("Variable not found")
            await variables.remove(row)
            await self.credentials.remove(tx, owner, row.secret_id)
            await self._record(tx, "variable.delete", owner, row)

    async def for_session(self, owner: UUID, environment_id: UUID) -> dict[str, str]:
        """Return what a new shell gets: the owner's variables, overlaid by the environment's.

        Raises:
            VariableUnreadable: A value cannot be read; the details say which.
        """
        async with self.database.read() as tx:
            variables = VariableRepository(tx, owner)
            rows = {one.name: one for one in await variables.list(None)}
            rows |= {one.name: one for one in await variables.list(environment_id)}
            values = await self._all(tx, owner, rows.values())
        return {name: values[row.secret_id] for name, row in rows.items()}

    async def masker(self, owner: UUID, environment_id: UUID) -> Masker:
        """Return what masks the secrets that a sandbox of this environment may know.

        Those that the environment has another value for are among them: it could have been given
        them before it had.

        Raises:
            VariableUnreadable: A value cannot be read, and so could not be masked.
        """
        async with self.database.read() as tx:
            variables = VariableRepository(tx, owner)
            rows = [*await variables.list(None), *await variables.list(environment_id)]
            values = await self._all(tx, owner, [one for one in rows if one.is_secret])
        return Masker(values.values())

    async def text_masker(self, owner: UUID, environment_id: UUID) -> Callable[[str], str]:
        """Return `masker(…).mask_text`, for who shows texts only.

        Raises:
            VariableUnreadable: A value cannot be read, and so could not be masked.
        """
        return (await self.masker(owner, environment_id)).mask_text

    async def forget_ownerless(self) -> None:
        """Remove the values of variables that went with their environment; may be repeated."""
        while True:
            async with self.database.read() as tx:
                found = await ownerless_secrets(tx, PURPOSE, FORGOTTEN_AT_ONCE)
            if not found:
                return
            async with self.database.begin() as tx:
                for owner, secret_id in found:
                    await self.credentials.remove(tx, owner, secret_id)

    async def _check(self, owner: UserId, environment_id: UUID | None) -> None:
        if environment_id is not None:
            await self.environments.get_owned(owner, environment_id)

    async def _add(
        self,
        variables: VariableRepository,
        environment_id: UUID | None,
        name: str,
        value: str | None,
        size: int | None,
    ) -> VariableRow:
        if value is None or size is None:
            raise VariableValueNeeded(f"{name} has no value yet; give one")
        owner, now = variables.owner_id, self.clock.now()
        row = VariableRow(
            owner_id=owner,
            environment_id=environment_id,
            name=name,
            is_secret=True,
            value_bytes=size,
            secret_id=await self.credentials.store(variables.tx, owner, PURPOSE, value),
            created_at=now,
            updated_at=now,
        )
        await variables.add(row)
        return row

    async def _change(
        self,
        tx: Transaction,
        row: VariableRow,
        value: str | None,
        size: int | None,
        *,
        is_secret: bool,
    ) -> None:
        if value is not None and size is not None:
            await self.credentials.replace(tx, row.owner_id, PURPOSE, row.secret_id, value)
            row.value_bytes = size
        elif row.is_secret and not is_secret:
            raise VariableValueNeeded(
                f"{row.name} is a secret; to make it readable, give its value again"
            )

    async def _all(
        self, tx: Transaction, owner: UUID, rows: Iterable[VariableRow]
    ) -> dict[UUID, str]:
        names = {one.secret_id: one.name for one in rows}
        try:
            return await self.credentials.reveal_many(tx, owner, PURPOSE, list(names))
        except SecretUnreadable as error:
            readable = await self._one_by_one(tx, owner, names)
            lost = sorted(name for key, name in names.items() if key not in readable)
            raise VariableUnreadable(
                "The value of a variable cannot be read; set it anew or delete it",
                details=f"It is {', '.join(lost)}; the operator finds the reason in the log.",
            ) from error

    async def _readable(
        self, tx: Transaction, owner: UUID, rows: Sequence[VariableRow]
    ) -> dict[UUID, str]:
        ids = [one.secret_id for one in rows]
        try:
            return await self.credentials.reveal_many(tx, owner, PURPOSE, ids)
        except SecretUnreadable:
            return await self._one_by_one(tx, owner, ids)

    async def _one_by_one(
        self, tx: Transaction, owner: UUID, ids: Iterable[UUID]
    ) -> dict[UUID, str]:
        values: dict[UUID, str] = {}
        for secret_id in ids:
            try:
                values[secret_id] = await self.credentials.reveal(tx, owner, PURPOSE, secret_id)
            except SecretUnreadable:
                continue
        return values

    async def _record(self, tx: Transaction, action: str, owner: UUID, row: VariableRow) -> None:
        environment = row.environment_id
        await self.audit.record(
            action,
            actor_id=owner,
            object_type="variable",
            object_id=row.id,
            details={
                "name": row.name,
                "environment": None if environment is None else str(environment),
                "kind": "secret" if row.is_secret else "plain",
            },
            tx=tx,
        )


async def _check_room(
    variables: VariableRepository, environment_id: UUID | None, name: str, size: int
) -> None:
    count, total = await variables.taken(environment_id, but=name)
    if count >= MAX_PER_SCOPE:
        raise TooManyVariables(
            f"There can be at most {MAX_PER_SCOPE} variables here",
            details="Delete one that you no longer need.",
        )
    if total + len(name) + size + PAIR_BYTES > MAX_SCOPE_BYTES:
        raise TooManyVariables(
            f"Variables can have at most {MAX_SCOPE_BYTES >> 10} KiB together here",
            details="Put large values into a file of the environment.",
        )


def _variable(row: VariableRow, value: str | None) -> Variable:
    return Variable(row.name, row.is_secret, value, row.created_at, row.updated_at)
