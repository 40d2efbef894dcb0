"""The addresses that a Coolify tells of its deployments: made, known again, removed."""

import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from craftastic.accounts.caller import digest
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.coolify._model import SERVER, HookOwner
from craftastic.coolify._repository import HookRepository
from craftastic.database import Database, Transaction

KEY_BYTES = 32
FORM = re.compile(r"[A-Za-z0-9_-]{43}")

USE_INTERVAL = timedelta(minutes=1)
"""How often at most the use of a hook is written."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """One hook for each owner, and one of the server's; only hashes of their keys are kept."""

    database: Database
    audit: AuditService
    clock: Clock

    async def make(self, owner: UUID | None, actor: UUID | None) -> str:
        """Make a key in the place of the one that is there; its text is returned this once."""
        key = secrets.token_urlsafe(KEY_BYTES)
        async with self.database.begin() as tx:
            await HookRepository(tx).put(owner, digest(key), self.clock.now())
            await self._audit(tx, "coolify.hook", owner, actor)
        return key

    async def remove(self, owner: UUID | None, actor: UUID | None) -> None:
        """Delete a key; nothing happens when there is none."""
        async with self.database.begin() as tx:
            if await HookRepository(tx).remove(owner):
                await self._audit(tx, "coolify.hook_delete", owner, actor)

    async def owner_of(self, key: str) -> HookOwner | None:
        """Tell whose key this is; that it was used is noted once a minute at most."""
        if FORM.fullmatch(key) is None:
            return None
        key_hash = digest(key)
        async with self.database.read() as tx:
            hook = await HookRepository(tx).find_by_hash(key_hash)
        if hook is None:
            return None
        now = self.clock.now()
        stale = now - USE_INTERVAL
        if hook.last_used_at is None or hook.last_used_at < stale:
            async with self.database.begin() as tx:
                await HookRepository(tx).used(key_hash, now, stale)
        return HookOwner(hook.owner_id)

    async def _audit(
        self, tx: Transaction, action: str, owner: UUID | None, actor: UUID | None
    ) -> None:
        await self.audit.record(
            action,
            actor_id=actor or owner,
            object_type="coolify",
            object_id=owner or SERVER,
            tx=tx,
        )
