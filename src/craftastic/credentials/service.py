"""Secrets at rest: stored, revealed, removed, and moved from key to key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import structlog

from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.credentials._cipher import Place, SecretRefused, Unreadable, seal, unseal
from craftastic.credentials._repository import SecretRepository, SecretRow
from craftastic.database import Database, Transaction
from craftastic.errors import NotFound, Unavailable
from craftastic.keys import Key, KeyChangeRefused, Keyring

__all__ = [
    "CredentialService",
    "RotationResult",
    "SecretNotFound",
    "SecretRefused",
    "SecretUnreadable",
    "has_secrets",
]

MOVED_AT_ONCE = 50
ASKED_AT_ONCE = 500

Report = Callable[[int, int], None]
"""Told how many secrets are done and how many there are to do."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class SecretNotFound(NotFound):
    code = "SECRET_NOT_FOUND"


class SecretUnreadable(Unavailable):
    """A stored secret was changed or moved, or its key is gone."""

    code = "SECRET_UNREADABLE"

    def __init__(self, secret_id: UUID, why: str) -> None:
        super().__init__(
            "A stored secret cannot be read; enter it anew, or ask the operator of this server",
            details="The operator finds the reason in the server's log.",
            secret_id=str(secret_id),
            why=why,
        )


@dataclass(frozen=True, slots=True)
class RotationResult:
    """What a rotation did.

    Attributes:
        key_id: The current key, under which the secrets are now.
        moved: How many secrets it put there.
        unreadable: Ids of secrets that it could not read; they stay as they were.
        left: How many readable secrets others have put under older keys meanwhile.
    """

    key_id: str
    moved: int
    unreadable: tuple[UUID, ...]
    left: int


@dataclass(frozen=True, slots=True)
class CredentialService:
    """Encrypts for one owner and one purpose; ids of secrets are what other tables hold.

    What joins a transaction of the caller's does nothing but look up and write rows there.
    """

    database: Database
    keyring: Keyring = field(repr=False)
    clock: Clock
    audit: AuditService

    async def store(self, tx: Transaction, owner: UUID, purpose: str, value: str) -> UUID:
        """Encrypt a text and return its id.

        Args:
            tx: The caller's transaction.
            owner: Whose it is; it goes with the account.
            purpose: What for, as `domain.what`; revealing it for another purpose fails.
            value: At most 64 KiB.

        Raises:
            SecretRefused: It is too long, or no text.
        """
        secrets = SecretRepository(tx)
        await secrets.hold_keys()
        secret_id, key, now = uuid4(), self.keyring.current, self.clock.now()
        sealed = seal(key, Place(secret_id, owner, purpose), value)
        await secrets.add(
            SecretRow(
                id=secret_id,
                owner_id=owner,
                purpose=purpose,
                value=sealed,
                key_id=key.id,
                created_at=now,
                updated_at=now,
            )
        )
        return secret_id

    async def replace(
        self, tx: Transaction, owner: UUID, purpose: str, secret_id: UUID, value: str
    ) -> None:
        """Put another text in a secret's place.

        Raises:
            SecretNotFound: The owner has no such secret for this purpose.
            SecretRefused: The text is too long, or none.
        """
        secrets = SecretRepository(tx)
        await secrets.hold_keys()
        key = self.keyring.current
        sealed = seal(key, Place(secret_id, owner, purpose), value)
        now = self.clock.now()
        if not await secrets.replace(owner, secret_id, purpose, sealed, key.id, now):
            raise SecretNotFound("Secret not found")

    async def reveal(self, tx: Transaction, owner: UUID, purpose: str, secret_id: UUID) -> str:
        """Decrypt a secret.

        Raises:
            SecretNotFound: The owner has no such secret.
            SecretUnreadable: It was stored for something else, was changed or moved, or its key is
                gone.
        """
        stored = await SecretRepository(tx).find(owner, secret_id)
        if stored is None:
            raise SecretNotFound("Secret not found")
        return self._open(Place(secret_id, owner, purpose), stored)

    async def reveal_many(
        self, tx: Transaction, owner: UUID, purpose: str, ids: Sequence[UUID]
    ) -> dict[UUID, str]:
        """Decrypt several secrets at once; ids that are not the owner's are left out.

        Raises:
            SecretUnreadable: One of them cannot be read; see `reveal`.
        """
        found: dict[UUID, str] = {}
        for start in range(0, len(ids), ASKED_AT_ONCE):
            found |= await SecretRepository(tx).find_many(owner, ids[start : start + ASKED_AT_ONCE])
        return {
            secret_id: self._open(Place(secret_id, owner, purpose), stored)
            for secret_id, stored in found.items()
        }

    async def remove(self, tx: Transaction, owner: UUID, secret_id: UUID) -> None:
        """Delete a secret; nothing happens when it is not there."""
        await SecretRepository(tx).remove(owner, secret_id)

    async def counts(self) -> dict[str, int]:
        """Count the secrets under each key id; a key of the ring that has none is left out."""
        async with self.database.read() as tx:
            return await SecretRepository(tx).counts()

    async def tell_missing_keys(self) -> tuple[str, ...]:
        """Log each key that secrets need and the ring lacks; return their ids."""
        missing = {
            key_id: count
            for key_id, count in (await self.counts()).items()
            if self.keyring.find(key_id) is None
        }
        for key_id, count in missing.items():
            log.error(
                "secrets are encrypted under a key that is not there: put it into the key file, "
                "or into CRAFTASTIC_ENCRYPTION_OLD_KEYS",
                key_id=key_id,
                stored=count,
                file=str(self.keyring.path),
            )
        return tuple(missing)

    async def add_key(self) -> str:
        """Make a new current key in the key file and return its id.

        From the return on no server on this key file encrypts under an older one: it looks at the
        file before it does, and who began before is waited for.

        Raises:
            KeyChangeRefused: The operator set the current key, or there are too many.
            KeyFileBroken: The file cannot be used.
        """
        async with self.database.begin() as tx:
            await SecretRepository(tx).hold_keys(alone=True)
            key = self.keyring.add()
        await self._record("keys.add", {"current": key.id})
        return key.id

    async def rotate(self, report: Report) -> RotationResult:
        """Put every secret under the current key.

        It may be ended at any point and called again: each secret is changed by one conditional
        statement, in small transactions, and is readable before and after it. A server may run
        beside it. What the server writes meanwhile is never overwritten.

        Args:
            report: Called after each batch.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        key_id = self.keyring.current.id
        total = await self._under_other_keys(key_id)
        moved, unreadable = 0, list[UUID]()
        report(0, total)
        after: UUID | None = None
        while True:
            async with self.database.read() as tx:
                rows = await SecretRepository(tx).under_other_keys(key_id, after, MOVED_AT_ONCE)
            if not rows:
                break
            after = rows[-1].id
            done, bad = await self._move(rows, key_id)
            moved += done
            unreadable += bad
            report(moved + len(unreadable), total)
        left = max(0, await self._under_other_keys(key_id) - len(unreadable))
        await self._record(
            "keys.rotate",
            {"current": key_id, "moved": moved, "unreadable": len(unreadable), "left": left},
            outcome="ok" if not unreadable and not left else "incomplete",
        )
        return RotationResult(key_id, moved, tuple(unreadable), left)

    async def prune(self) -> tuple[str, ...]:
        """Remove the old keys that no secret uses from the key file; return their ids.

        Raises:
            KeyFileBroken: The file cannot be used.
        """
        async with self.database.begin() as tx:
            secrets = SecretRepository(tx)
            await secrets.hold_keys(alone=True)
            used = await secrets.counts()
            unused = [
                one for one in self.keyring.ids[1:] if one not in used and self.keyring.in_file(one)
            ]
            gone = self.keyring.remove(unused)
        if gone:
            await self._record("keys.prune", {"removed": list(gone)})
        return gone

    def _open(self, place: Place, stored: str) -> str:
        try:
            return unseal(self.keyring.find, place, stored)
        except Unreadable as error:
            log.error(  # noqa: TRY400 - a trace would tell nothing more
                "a secret cannot be read",
                secret_id=str(place.row_id),
                owner_id=str(place.owner_id),
                purpose=place.purpose,
                why=str(error),
            )
            raise SecretUnreadable(place.row_id, str(error)) from error

    async def _under_other_keys(self, key_id: str) -> int:
        return sum(count for one, count in (await self.counts()).items() if one != key_id)

    async def _move(self, rows: Sequence[SecretRow], key_id: str) -> tuple[int, list[UUID]]:
        """Encrypt rows anew; return how many were changed, and which could not be read."""
        key = self._key(key_id)
        unreadable: list[UUID] = []
        fresh: list[tuple[UUID, str, str]] = []
        for row in rows:
            place = Place(row.id, row.owner_id, row.purpose)
            try:
                plain = self._open(place, row.value)
            except SecretUnreadable:
                unreadable.append(row.id)
            else:
                fresh.append((row.id, row.value, seal(key, place, plain)))
        if not fresh:
            return 0, unreadable
        moved = 0
        async with self.database.begin() as tx:
            secrets = SecretRepository(tx)
            await secrets.hold_keys()
            self._key(key_id)  # again: nobody can remove it any more
            for secret_id, before, sealed in fresh:
                moved += await secrets.move(secret_id, before, sealed, key.id)
        return moved, unreadable

    def _key(self, key_id: str) -> Key:
        key = self.keyring.find(key_id) if key_id in self.keyring.ids else None
        if key is None:
            raise KeyChangeRefused(
                f"The key {key_id} was removed while secrets were being put under it."
            )
        return key

    async def _record(self, action: str, details: dict[str, object], outcome: str = "ok") -> None:
        await self.audit.record(
            action,
            actor_id=None,
            object_type="keys",
            object_id=None,
            outcome=outcome,
            details=details,
        )


async def has_secrets(database: Database) -> bool:
    """Tell whether secrets are stored: then a key must be there, and none may be made.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    async with database.read() as tx:
        return await SecretRepository(tx).has_any()
