"""The Coolify domain over a toy Coolify and one database, as any number of servers."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from craftastic.accounts._repository import User
from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.coolify.api import open_coolify
from craftastic.coolify.service import CoolifyService
from craftastic.credentials.service import CredentialService
from craftastic.database import Database
from craftastic.gateway.pinned_http import pinned_client
from craftastic.keys import Keyring, load_keys
from craftastic.settings import Settings
from craftastic.tables import METADATA
from tests.fakes.clock import FakeClock
from tests.fakes.toy_coolify import ToyCoolify


@dataclass
class CoolifyRig:
    """Two people, a Coolify, and the servers between them.

    Attributes:
        origins: Where users' own Coolifys may be; the toy's own place from the beginning.
    """

    database: Database
    clock: FakeClock
    toy: ToyCoolify
    keys_dir: Path
    alice: UserId
    bob: UserId
    origins: list[str]
    _stack: AsyncExitStack = field(repr=False)

    async def server(
        self, *, toy: ToyCoolify | None = None, token: str | None = None, **settings: object
    ) -> CoolifyService:
        """Return the service as one more server process has it: with connections of its own.

        Args:
            toy: The Coolify of the operator's, with `token`; the rig's own when None.
            token: Of the operator's connection; there is none when None.
        """
        database = Database(self.database.engine.url.render_as_string(hide_password=False))
        self._stack.push_async_callback(database.close)
        audit = AuditService(database, self.clock)
        keyring = Keyring(self.keys_dir / "encryption-key")
        made = self.settings(toy, token, **settings)
        for_users = pinned_client(made, open_to=made.coolify_origins)
        http = await self._stack.enter_async_context(open_coolify(for_users))
        return CoolifyService(
            database,
            CredentialService(database, keyring, self.clock, audit),
            audit,
            self.clock,
            http,
            made,
        )

    def settings(
        self, toy: ToyCoolify | None = None, token: str | None = None, **more: object
    ) -> Settings:
        """Return the settings of a server, with or without an operator's connection."""
        operators = {} if token is None else {
            "COOLIFY_API_URL": (toy or self.toy).url, "COOLIFY_API_TOKEN": token,
        }  # fmt: skip
        return Settings.model_validate({"coolify_origins": self.origins, **operators, **more})

    async def another(self, **arguments: Any) -> ToyCoolify:
        """Start one more Coolify, where users may have connections too."""
        toy = self._stack.enter_context(ToyCoolify(**arguments))
        self.origins.append(toy.origin)
        return toy

    async def rows(self, table: str) -> list[Any]:
        async with self.database.read() as tx:
            found = await tx.execute(select(METADATA.tables[table]))
            return list(found.mappings())

    async def count(self, table: str) -> int:
        async with self.database.read() as tx:
            counted = await tx.scalar(select(func.count()).select_from(METADATA.tables[table]))
        return counted or 0

    async def actions(self) -> list[str]:
        """Return what the audit log has, in order."""
        rows = await self.rows("audit_events")
        return [row["action"] for row in sorted(rows, key=lambda row: row["seq"])]

    async def everything_stored(self) -> str:
        """Return every value of every row, and the bytes of the database's file."""
        found: list[str] = []
        for table in METADATA.tables:
            found += [repr(dict(row)) for row in await self.rows(table)]
        file = self.database.engine.url.database
        if self.database.is_sqlite and file is not None:
            for path in Path(file).parent.glob(Path(file).name + "*"):
                found.append(path.read_bytes().decode("latin-1"))
        return "\n".join(found)


@asynccontextmanager
async def coolify_rig(
    database: Database, clock: FakeClock, folder: Path, toy: ToyCoolify | None = None
) -> AsyncGenerator[CoolifyRig]:
    now = clock.now()
    people = [
        User(email=f"{name}@example.com", name=name, created_at=now, updated_at=now)
        for name in ("alice", "bob")
    ]
    async with database.begin() as tx:
        tx.add_all(people)
    load_keys(folder / "keys")
    alice, bob = (UserId(one.id) for one in people)
    async with AsyncExitStack() as stack:
        toy = stack.enter_context(toy or ToyCoolify())
        yield CoolifyRig(database, clock, toy, folder / "keys", alice, bob, [toy.origin], stack)
