"""What personal access tokens promise, on both databases."""

import hashlib
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
import sqlalchemy
from sqlalchemy import event

from craftastic.access_tokens.service import (
    AccessTokenNameTaken,
    AccessTokenNotFound,
    AccessTokenService,
    BadAccessTokenName,
    TooManyAccessTokens,
)
from craftastic.accounts._tokens import AccessTokens
from craftastic.accounts.service import (
    AccountService,
    NewAccount,
    TokenExpired,
    TokenRevoked,
    UserId,
)
from craftastic.admin.service import AdminService
from craftastic.audit.service import AuditService
from craftastic.database import Database
from craftastic.errors import Unauthenticated
from tests.fakes.clock import FakeClock
from tests.fakes.people import PASSWORD


class Rig:
    """Accounts with access tokens, as one server process has them."""

    def __init__(self, database: Database, clock: FakeClock, folder: Path) -> None:
        self.database, self.clock = database, clock
        self.audit = AuditService(database, clock)
        self.tokens = AccessTokenService(database, self.audit, clock)
        self.accounts = AccountService(
            database,
            clock,
            AccessTokens(b"k" * 32, 900),
            folder / "keys",
            registration="open",
            personal=self.tokens,
            audit=self.audit,
        )
        self.admin = AdminService(self.accounts, self.tokens, self.audit)

    async def user(self, name: str = "a") -> UserId:
        new = NewAccount(email=f"{name}@example.com", password=PASSWORD, name=name)
        return UserId((await self.accounts.register(new)).user.id)

    async def rows(self) -> list[dict[str, object]]:
        async with self.database.read() as tx:
            found = await tx.execute(sqlalchemy.text("SELECT * FROM access_tokens"))
            return [dict(row._mapping) for row in found]


@pytest.fixture
def rig(database: Database, clock: FakeClock, tmp_path: Path) -> Rig:
    return Rig(database, clock, tmp_path)


@pytest.fixture
def elsewhere(database: Database, clock: FakeClock, tmp_path: Path) -> Rig:
    """Give the services of another process on the same database."""
    return Rig(database, clock, tmp_path)


async def test_a_token_is_its_owner_with_its_scope_and_only_its_hash_is_kept(rig: Rig) -> None:
    owner = await rig.user()

    made = await rig.tokens.create(owner, "  build   server ", "write", days=7)
    caller = await rig.accounts.authenticate(made.text)

    assert made.text.startswith("craft_")
    assert len(made.text) == 6 + 43
    assert (caller.user_id, caller.scope, caller.by_sign_in) == (owner, "write", False)
    assert made.token.name == "build server"
    assert made.token.expires_at == rig.clock.now() + timedelta(days=7)
    (row,) = await rig.rows()
    assert row["token_hash"] == hashlib.sha256(made.text.encode()).hexdigest()
    assert made.text not in repr(row) + repr(made)


async def test_names_are_ones_own_and_told_apart(rig: Rig) -> None:
    owner, other = await rig.user(), await rig.user("b")
    await rig.tokens.create(owner, "one", "read")

    with pytest.raises(AccessTokenNameTaken):
        await rig.tokens.create(owner, "one", "write")
    for bad in ("", "  ", "x" * 101, "a\u202eb"):
        with pytest.raises(BadAccessTokenName):
            await rig.tokens.create(owner, bad, "read")
    await rig.tokens.create(other, "one", "read")

    assert [one.name for one in await rig.tokens.list_owned(owner)] == ["one"]


async def test_of_many_made_at_once_no_more_than_the_limit_remain(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("craftastic.access_tokens.service.MAX_TOKENS_PER_USER", 3)
    owner = await rig.user()
    refused: list[str] = []

    async def make(name: str) -> None:
        try:
            await rig.tokens.create(owner, name, "read")
        except TooManyAccessTokens:
            refused.append(name)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(make, str(number))

    assert len(refused) == 5
    assert len(await rig.tokens.list_owned(owner)) == 3


async def test_a_token_ends_at_its_time_and_what_it_opened_with_it(rig: Rig) -> None:
    owner = await rig.user()
    made = await rig.tokens.create(owner, "one", "read", days=1)
    caller = await rig.accounts.authenticate(made.text)
    assert await rig.accounts.still_signed_in(caller)

    rig.clock.advance(86_400)

    with pytest.raises(TokenExpired):
        await rig.accounts.authenticate(made.text)
    assert not await rig.accounts.still_signed_in(caller)
    assert [one.name for one in await rig.tokens.list_owned(owner)] == ["one"]
    rig.clock.advance(31 * 86_400)
    assert await rig.tokens.forget_expired() == 1
    assert await rig.rows() == []


async def test_a_revoked_token_is_refused_here_at_once_and_elsewhere_within_5_s(
    rig: Rig, elsewhere: Rig
) -> None:
    owner, other = await rig.user(), await rig.user("b")
    made = await rig.tokens.create(owner, "one", "read")
    here = await rig.accounts.authenticate(made.text)
    there = await elsewhere.accounts.authenticate(made.text)

    for stranger, token_id in ((other, made.token.id), (owner, uuid4())):
        with pytest.raises(AccessTokenNotFound):
            await rig.tokens.revoke(stranger, token_id)
    await rig.tokens.revoke(owner, made.token.id)

    with pytest.raises(Unauthenticated):
        await rig.accounts.authenticate(made.text)
    assert not await rig.accounts.still_signed_in(here)
    assert await elsewhere.accounts.still_signed_in(there)
    elsewhere.clock.advance(5)
    assert not await elsewhere.accounts.still_signed_in(there)
    with pytest.raises(Unauthenticated):
        await elsewhere.accounts.authenticate(made.text)


async def test_a_disabled_user_has_no_token_and_gets_none_back(rig: Rig, elsewhere: Rig) -> None:
    owner = await rig.user()
    made = await rig.tokens.create(owner, "one", "write")
    caller = await elsewhere.accounts.authenticate(made.text)

    await rig.admin.disable(None, owner)

    with pytest.raises(Unauthenticated):
        await rig.accounts.authenticate(made.text)
    elsewhere.clock.advance(5)
    assert not await elsewhere.accounts.still_signed_in(caller)
    with pytest.raises(TokenRevoked):
        await rig.tokens.create(owner, "two", "write")
    await rig.admin.enable(None, owner)
    with pytest.raises(Unauthenticated):
        await rig.accounts.authenticate(made.text)


async def test_a_tokens_use_is_written_once_a_minute_at_most(rig: Rig, elsewhere: Rig) -> None:
    owner = await rig.user()
    made = await rig.tokens.create(owner, "one", "read")
    started = rig.clock.now()
    writes: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("UPDATE access_tokens"):
            writes.append(statement)

    engine = rig.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    for _ in range(11):
        await rig.accounts.authenticate(made.text)
        await elsewhere.accounts.authenticate(made.text)
        rig.clock.advance(5)
    (listed,) = await rig.tokens.list_owned(owner)

    assert len(writes) == 1
    assert listed.last_used_at == started
    rig.clock.advance(10)
    await rig.accounts.authenticate(made.text)
    assert len(writes) == 2


@pytest.mark.parametrize("text", ["craft_", "craft_" + "A" * 43, "craft_" + "é" * 43, "craft_\0"])
async def test_what_only_looks_like_a_token_is_none(rig: Rig, text: str) -> None:
    with pytest.raises(Unauthenticated):
        await rig.accounts.authenticate(text)


async def test_tokens_are_made_and_revoked_on_record(rig: Rig) -> None:
    owner = await rig.user()
    made = await rig.tokens.create(owner, "one", "read")
    await rig.tokens.revoke(owner, made.token.id)

    events = [one for one in await rig.audit.list_for(owner) if one.object_type == "access_token"]

    assert [(one.action, one.object_id) for one in events] == [
        ("access_token.revoke", str(made.token.id)),
        ("access_token.create", str(made.token.id)),
    ]
    assert made.text not in repr(events)
