"""What variables promise, on both databases."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
import sqlalchemy
import structlog.testing

from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.credentials.service import CredentialService
from craftastic.database import Database
from craftastic.environments.service import EnvironmentNotFound
from craftastic.keys import load_keys
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.variables._repository import VariableRepository, VariableRow
from craftastic.variables.service import (
    TooManyVariables,
    VariableBusy,
    VariableNotFound,
    VariableService,
    VariableUnreadable,
    VariableValueNeeded,
)
from tests.fakes.clock import FakeClock
from tests.fakes.workshop import Workshop, build, opened

CANARY = "canary-5b1f-value"


@dataclass
class Place:
    """A user with two environments, another user with one, and the variables of all."""

    shop: Workshop
    variables: VariableService
    mine: UUID
    second: UUID
    stranger: UserId
    theirs: UUID
    owner: UserId = field(init=False)

    def __post_init__(self) -> None:
        self.owner = self.shop.owner


@pytest.fixture
async def place(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(build(database, clock, MemoryRuntime())) as shop:
        stranger = await shop.add_user()
        audit = AuditService(database, clock)
        keyring = load_keys(tmp_path / "keys").keyring
        credentials = CredentialService(database, keyring, clock, audit)
        yield Place(
            shop,
            VariableService(database, credentials, shop.environments, audit, clock),
            (await shop.create("one")).id,
            (await shop.create("two")).id,
            stranger,
            (await shop.environments.create(stranger, name="one")).id,
        )


async def execute(database: Database, sql: str, **values: object) -> list[tuple[object, ...]]:
    async with database.begin() as tx:
        found: Any = await tx.execute(sqlalchemy.text(sql), values)
        return [tuple(row) for row in found] if found.returns_rows else []


async def test_a_session_gets_the_users_variables_overlaid_by_the_environments(
    place: Place,
) -> None:
    await place.variables.put(place.owner, "SHARED", "user's")
    await place.variables.put(place.owner, "BOTH", "user's", is_secret=False)
    await place.variables.put(place.owner, "BOTH", "environment's", environment_id=place.mine)
    await place.variables.put(place.owner, "ONE", "", environment_id=place.mine)
    await place.variables.put(place.stranger, "SHARED", "stranger's")

    assert await place.variables.for_session(place.owner, place.mine) == {
        "SHARED": "user's",
        "BOTH": "environment's",
        "ONE": "",
    }
    assert await place.variables.for_session(place.owner, place.second) == {
        "SHARED": "user's",
        "BOTH": "user's",
    }
    assert await place.variables.for_session(place.stranger, place.mine) == {"SHARED": "stranger's"}


async def test_the_list_shows_plain_values_and_never_a_secrets(place: Place) -> None:
    await place.variables.put(place.owner, "B_SECRET", CANARY)
    await place.variables.put(place.owner, "A_PLAIN", "text\n", is_secret=False)

    listed = await place.variables.list(place.owner)

    assert [(one.name, one.is_secret, one.value) for one in listed] == [
        ("A_PLAIN", False, "text\n"),
        ("B_SECRET", True, None),
    ]
    assert await place.variables.list(place.owner, place.mine) == []


async def test_an_environment_tells_what_it_inherits(place: Place) -> None:
    await place.variables.put(place.owner, "A", "1")
    await place.variables.put(place.owner, "B", "2", is_secret=False)
    await place.variables.put(place.owner, "B", "3", environment_id=place.mine)

    inherited = await place.variables.inherited(place.owner, place.mine)

    assert [(one.name, one.is_secret, one.overridden) for one in inherited] == [
        ("A", True, False),
        ("B", False, True),
    ]


async def test_a_variable_that_is_set_again_keeps_its_place(place: Place, clock: FakeClock) -> None:
    first = await place.variables.put(place.owner, "A", "old", is_secret=False)
    clock.advance(60)

    again = await place.variables.put(place.owner, "A", "new", is_secret=False)

    assert (again.value, again.created_at) == ("new", first.created_at)
    assert again.updated_at > first.updated_at
    assert await execute(place.shop.database, "SELECT count(*) FROM secrets") == [(1,)]


async def test_a_plain_variable_becomes_a_secret_without_its_value(place: Place) -> None:
    await place.variables.put(place.owner, "A", "text", is_secret=False)

    changed = await place.variables.put(place.owner, "A", None)

    assert (changed.is_secret, changed.value) == (True, None)
    assert await place.variables.for_session(place.owner, place.mine) == {"A": "text"}


async def test_a_secret_becomes_plain_only_with_its_value(place: Place) -> None:
    await place.variables.put(place.owner, "A", CANARY)

    with pytest.raises(VariableValueNeeded, match="give its value again"):
        await place.variables.put(place.owner, "A", None, is_secret=False)

    (kept,) = await place.variables.list(place.owner)
    assert (kept.is_secret, kept.value) == (True, None)
    changed = await place.variables.put(place.owner, "A", "other", is_secret=False)
    assert changed.value == "other"


async def test_a_new_variable_needs_a_value(place: Place) -> None:
    with pytest.raises(VariableValueNeeded, match="no value yet"):
        await place.variables.put(place.owner, "A", None)


async def test_a_deleted_variable_is_gone_with_its_value(place: Place) -> None:
    await place.variables.put(place.owner, "A", "user's")
    await place.variables.put(place.owner, "A", "environment's", environment_id=place.mine)

    await place.variables.delete(place.owner, "A", environment_id=place.mine)

    assert await place.variables.for_session(place.owner, place.mine) == {"A": "user's"}
    assert await execute(place.shop.database, "SELECT count(*) FROM secrets") == [(1,)]
    with pytest.raises(VariableNotFound):
        await place.variables.delete(place.owner, "A", environment_id=place.mine)


async def test_nobody_reaches_anothers_variables(place: Place) -> None:
    await place.variables.put(place.owner, "A", "mine", environment_id=place.mine)

    for environment_id in (place.mine, uuid4()):
        with pytest.raises(EnvironmentNotFound):
            await place.variables.list(place.stranger, environment_id)
        with pytest.raises(EnvironmentNotFound):
            await place.variables.put(place.stranger, "A", "x", environment_id=environment_id)
        with pytest.raises(EnvironmentNotFound):
            await place.variables.delete(place.stranger, "A", environment_id=environment_id)
    with pytest.raises(VariableNotFound):
        await place.variables.delete(place.stranger, "A")
    assert await place.variables.for_session(place.stranger, place.mine) == {}
    assert await place.variables.inherited(place.stranger, place.mine) == []


# ---- limits ---------------------------------------------------------------------------------


async def test_a_scope_holds_a_hundred_variables_and_other_scopes_as_many(place: Place) -> None:
    for number in range(100):
        await place.variables.put(place.owner, f"V{number}", "x", environment_id=place.mine)

    with pytest.raises(TooManyVariables, match="at most 100"):
        await place.variables.put(place.owner, "MORE", "x", environment_id=place.mine)

    await place.variables.put(place.owner, "V5", "changed", environment_id=place.mine)
    await place.variables.put(place.owner, "MORE", "x", environment_id=place.second)
    await place.variables.put(place.owner, "MORE", "x")


async def test_a_scope_holds_64_kib_with_the_names(place: Place) -> None:
    await place.variables.put(place.owner, "A", "x" * 32_768)
    await place.variables.put(place.owner, "B", "é" * 16_381)

    with pytest.raises(TooManyVariables, match="64 KiB"):
        await place.variables.put(place.owner, "C", "")
    with pytest.raises(TooManyVariables):
        await place.variables.put(place.owner, "B", "x" * 32_763)

    await place.variables.put(place.owner, "B", "x" * 32_762)
    await place.variables.put(place.owner, "C", "x", environment_id=place.mine)


async def test_changes_at_once_do_not_pass_the_limit_or_each_other(place: Place) -> None:
    for number in range(95):
        await place.variables.put(place.owner, f"V{number}", "x")
    refused: list[str] = []

    async def put(name: str) -> None:
        try:
            await place.variables.put(place.owner, name, "x")
        except TooManyVariables:
            refused.append(name)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(put, f"N{number}")
            tasks.start_soon(put, "SAME")

    assert len(await place.variables.list(place.owner)) == 100
    assert len(refused) >= 5
    counts = await execute(place.shop.database, "SELECT count(*) FROM secrets")
    assert counts == [(100,)]


async def test_the_database_itself_refuses_a_name_twice(place: Place, clock: FakeClock) -> None:
    await place.variables.put(place.owner, "A", "x")
    await place.variables.put(place.owner, "A", "x", environment_id=place.mine)
    ((secret,), *_) = await execute(place.shop.database, "SELECT secret_id FROM variables")
    secret_id = secret if isinstance(secret, UUID) else UUID(str(secret))

    for environment_id, error in (
        (None, VariableBusy),
        (place.mine, VariableBusy),
        (uuid4(), EnvironmentNotFound),
    ):
        with pytest.raises(error):
            async with place.shop.database.begin() as tx:
                await VariableRepository(tx, place.owner).add(
                    VariableRow(
                        owner_id=place.owner,
                        environment_id=environment_id,
                        name="A",
                        is_secret=True,
                        value_bytes=1,
                        secret_id=secret_id,
                        created_at=clock.now(),
                        updated_at=clock.now(),
                    )
                )


# ---- what goes, what is told, what cannot be read ---------------------------------------------


async def test_variables_go_with_their_environment_and_their_values_soon_after(
    place: Place,
) -> None:
    await place.variables.put(place.owner, "A", "kept")
    await place.variables.put(place.owner, "B", "gone", environment_id=place.mine)
    await place.shop.environments.delete(place.owner, place.mine)

    await place.variables.forget_ownerless()
    await place.variables.forget_ownerless()

    assert await execute(place.shop.database, "SELECT name FROM variables") == [("A",)]
    assert await execute(place.shop.database, "SELECT count(*) FROM secrets") == [(1,)]
    assert await place.variables.for_session(place.owner, place.second) == {"A": "kept"}


async def test_values_of_other_purposes_are_not_forgotten(place: Place) -> None:
    async with place.shop.database.begin() as tx:
        kept = await place.variables.credentials.store(tx, place.owner, "github.access", "x")

    await place.variables.forget_ownerless()

    async with place.shop.database.read() as tx:
        assert await place.variables.credentials.reveal(tx, place.owner, "github.access", kept)


async def test_variables_go_with_their_owner(place: Place) -> None:
    await place.variables.put(place.stranger, "A", "x")
    await place.shop.environments.delete(place.stranger, place.theirs)

    await execute(place.shop.database, "DELETE FROM users WHERE id <> :id", id=_id(place))

    assert await execute(place.shop.database, "SELECT count(*) FROM variables") == [(0,)]


def _id(place: Place) -> object:
    return place.owner.hex if place.shop.database.is_sqlite else place.owner


async def test_changes_are_in_the_audit_log_without_values(place: Place) -> None:
    await place.variables.put(place.owner, "API_TOKEN", CANARY)
    await place.variables.put(place.owner, "A", CANARY, is_secret=False, environment_id=place.mine)
    await place.variables.delete(place.owner, "API_TOKEN")
    with pytest.raises(VariableNotFound):
        await place.variables.delete(place.owner, "API_TOKEN")

    events = await place.variables.audit.list_for(place.owner)
    told = [
        (one.action, one.details["name"], one.details["environment"], one.details["kind"])
        for one in reversed(events)
        if one.object_type == "variable"
    ]
    assert told == [
        ("variable.set", "API_TOKEN", None, "secret"),
        ("variable.set", "A", str(place.mine), "plain"),
        ("variable.delete", "API_TOKEN", None, "secret"),
    ]
    assert CANARY not in repr(events)
    assert CANARY not in repr(await place.variables.list(place.owner, place.mine))


async def test_the_masker_knows_secrets_of_both_scopes_and_no_plain_text(place: Place) -> None:
    await place.variables.put(place.owner, "A", "user-secret")
    await place.variables.put(place.owner, "B", "plain-text", is_secret=False)
    await place.variables.put(place.owner, "A", "own-secret", environment_id=place.mine)
    await place.variables.put(place.owner, "C", "other-secret", environment_id=place.second)
    await place.variables.put(place.stranger, "A", "foreign-secret")

    masker = await place.variables.masker(place.owner, place.mine)

    text = "user-secret plain-text own-secret other-secret foreign-secret"
    assert masker.mask_text(text) == "•••••• plain-text •••••• other-secret foreign-secret"


async def test_a_value_that_was_tampered_with_is_named_and_stops_no_list(place: Place) -> None:
    await place.variables.put(place.owner, "GOOD", "good", is_secret=False)
    await place.variables.put(place.owner, "BAD", "bad-value", is_secret=False)
    await place.variables.put(place.owner, "WORSE", "worse-value")
    await execute(
        place.shop.database,
        "UPDATE secrets SET value = 'v1.x.y.z' WHERE id IN"
        " (SELECT secret_id FROM variables WHERE name <> 'GOOD')",
    )

    with structlog.testing.capture_logs():
        listed = await place.variables.list(place.owner)
        with pytest.raises(VariableUnreadable) as session:
            await place.variables.for_session(place.owner, place.mine)
        with pytest.raises(VariableUnreadable) as masking:
            await place.variables.masker(place.owner, place.mine)

    assert [(one.name, one.value) for one in listed] == [
        ("BAD", None),
        ("GOOD", "good"),
        ("WORSE", None),
    ]
    assert "BAD, WORSE" in str(session.value.details)
    assert "It is WORSE" in str(masking.value.details)
    await place.variables.delete(place.owner, "WORSE")
    await place.variables.put(place.owner, "BAD", "mended")
    assert await place.variables.for_session(place.owner, place.mine) == {
        "GOOD": "good",
        "BAD": "mended",
    }
