"""What stored secrets promise, on both databases: bound to their place, moved from key to key."""

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest
import sqlalchemy
import structlog.testing
from sqlalchemy import event, select, update

from craftastic.accounts._repository import User
from craftastic.audit.service import AuditService
from craftastic.credentials import service as credentials_service
from craftastic.credentials._repository import SecretRepository, SecretRow
from craftastic.credentials.service import (
    CredentialService,
    RotationResult,
    SecretNotFound,
    SecretRefused,
    SecretUnreadable,
    has_secrets,
)
from craftastic.database import Database
from craftastic.keys import KeyChangeRefused, Keyring, load_keys
from tests.conftest import PostgresServer
from tests.fakes.clock import FakeClock

PURPOSE = "variable"
CANARY = "canary-9d0c-secret"
MANY = 130
"""More than two batches of a rotation."""


class KilledError(Exception):
    """Stands for the end of the process in the middle of a rotation."""


@dataclass(frozen=True)
class Place:
    """One database with two people, and the keys of one installation."""

    database: Database
    clock: FakeClock
    keys_dir: Path
    alice: UUID
    bob: UUID

    def service(self) -> CredentialService:
        """Return the service as a process that starts now would have it."""
        ring = Keyring(self.keys_dir / "encryption-key")
        return CredentialService(
            self.database, ring, self.clock, AuditService(self.database, self.clock)
        )

    async def store(self, value: str = CANARY, owner: UUID | None = None) -> UUID:
        async with self.database.begin() as tx:
            return await self.service().store(tx, owner or self.alice, PURPOSE, value)

    async def read(self, secret_id: UUID, owner: UUID | None = None, purpose: str = PURPOSE) -> str:
        async with self.database.read() as tx:
            return await self.service().reveal(tx, owner or self.alice, purpose, secret_id)

    async def rows(self) -> dict[UUID, SecretRow]:
        async with self.database.read() as tx:
            return {row.id: row for row in await tx.scalars(select(SecretRow))}

    async def overwrite(self, secret_id: UUID, **values: object) -> None:
        """Change a row as somebody with the database in their hands would."""
        async with self.database.begin() as tx:
            await tx.execute(update(SecretRow).where(SecretRow.id == secret_id).values(**values))


@pytest.fixture
async def place(database: Database, clock: FakeClock, tmp_path: Path) -> Place:
    people = [
        User(email=f"{name}@example.com", name=name, created_at=clock.now(), updated_at=clock.now())
        for name in ("alice", "bob")
    ]
    async with database.begin() as tx:
        tx.add_all(people)
    load_keys(tmp_path / "keys")
    return Place(database, clock, tmp_path / "keys", people[0].id, people[1].id)


# ---- storing --------------------------------------------------------------------------------


async def test_a_secret_comes_back_to_its_owner_for_its_purpose(place: Place) -> None:
    secret_id = await place.store("ünïcode \n\0 🔑")

    assert await place.read(secret_id) == "ünïcode \n\0 🔑"


async def test_a_secret_of_somebody_else_is_absent(place: Place) -> None:
    secret_id = await place.store()

    with pytest.raises(SecretNotFound) as foreign:
        await place.read(secret_id, place.bob)
    with pytest.raises(SecretNotFound) as absent:
        await place.read(uuid4())

    assert foreign.value.message == absent.value.message


async def test_a_secret_is_not_revealed_for_another_purpose(place: Place) -> None:
    secret_id = await place.store()

    with pytest.raises(SecretUnreadable):
        await place.read(secret_id, purpose="github.access")


async def test_a_secret_that_is_not_committed_is_not_there(place: Place) -> None:
    stored: list[UUID] = []

    async def fail() -> None:
        async with place.database.begin() as tx:
            stored.append(await place.service().store(tx, place.alice, PURPOSE, CANARY))
            raise KilledError

    with pytest.raises(KilledError):
        await fail()

    with pytest.raises(SecretNotFound):
        await place.read(stored[0])
    assert not await has_secrets(place.database)


async def test_a_replaced_secret_keeps_its_id_and_loses_its_old_text(place: Place) -> None:
    secret_id = await place.store("old")
    place.clock.advance(60)

    async with place.database.begin() as tx:
        await place.service().replace(tx, place.alice, PURPOSE, secret_id, "new")

    assert await place.read(secret_id) == "new"
    row = (await place.rows())[secret_id]
    assert (row.updated_at - row.created_at).total_seconds() == 60


@pytest.mark.parametrize("wrong", ["owner", "purpose", "id"])
async def test_only_the_owners_own_secret_of_that_purpose_is_replaced(
    place: Place, wrong: str
) -> None:
    secret_id = await place.store()
    owner = place.bob if wrong == "owner" else place.alice
    purpose = "other" if wrong == "purpose" else PURPOSE

    with pytest.raises(SecretNotFound):
        async with place.database.begin() as tx:
            await place.service().replace(
                tx, owner, purpose, uuid4() if wrong == "id" else secret_id, "new"
            )

    assert await place.read(secret_id) == CANARY


async def test_removing_is_for_the_owner_alone_and_may_be_repeated(place: Place) -> None:
    secret_id = await place.store()
    credentials = place.service()

    async with place.database.begin() as tx:
        await credentials.remove(tx, place.bob, secret_id)
    assert await place.read(secret_id) == CANARY
    for _ in range(2):
        async with place.database.begin() as tx:
            await credentials.remove(tx, place.alice, secret_id)

    with pytest.raises(SecretNotFound):
        await place.read(secret_id)


async def test_many_secrets_are_revealed_at_once_and_only_the_owners(place: Place) -> None:
    mine = {await place.store(f"value {number}"): f"value {number}" for number in range(20)}
    foreign = await place.store("foreign", place.bob)

    async with place.database.read() as tx:
        found = await place.service().reveal_many(
            tx, place.alice, PURPOSE, [*mine, foreign, uuid4()]
        )
        assert await place.service().reveal_many(tx, place.alice, PURPOSE, []) == {}

    assert found == mine


async def test_a_secret_that_is_too_long_leaves_nothing(place: Place) -> None:
    with pytest.raises(SecretRefused):
        await place.store("x" * (64 * 1024 + 1))

    assert await place.rows() == {}


async def test_secrets_go_with_their_owner(place: Place) -> None:
    await place.store()

    async with place.database.begin() as tx:
        await tx.execute(sqlalchemy.delete(User).where(User.id == place.alice))

    assert await place.rows() == {}


# ---- with the database in somebody's hands --------------------------------------------------


async def test_exchanged_texts_decrypt_for_nobody(place: Place) -> None:
    one, two = await place.store("one"), await place.store("two", place.bob)
    rows = await place.rows()

    await place.overwrite(one, value=rows[two].value)
    await place.overwrite(two, value=rows[one].value)

    for secret_id, owner in ((one, place.alice), (two, place.bob)):
        with pytest.raises(SecretUnreadable):
            await place.read(secret_id, owner)


async def test_a_row_that_is_given_to_somebody_else_does_not_decrypt(place: Place) -> None:
    secret_id = await place.store()

    await place.overwrite(secret_id, owner_id=place.bob)

    with pytest.raises(SecretUnreadable):
        await place.read(secret_id, place.bob)


async def test_a_row_under_another_id_does_not_decrypt(place: Place) -> None:
    secret_id, moved = await place.store(), uuid4()

    await place.overwrite(secret_id, id=moved)

    with pytest.raises(SecretUnreadable):
        await place.read(moved)


async def test_a_row_with_another_purpose_does_not_decrypt_for_it(place: Place) -> None:
    secret_id = await place.store()

    await place.overwrite(secret_id, purpose="github.access")

    with pytest.raises(SecretUnreadable):
        await place.read(secret_id, purpose="github.access")


async def test_one_broken_secret_makes_none_of_a_group_appear(place: Place) -> None:
    one, two = await place.store("one"), await place.store("two")
    await place.overwrite(two, value="v1.garbage")

    with pytest.raises(SecretUnreadable):
        async with place.database.read() as tx:
            await place.service().reveal_many(tx, place.alice, PURPOSE, [one, two])


async def test_what_cannot_be_read_is_logged_by_its_row_and_without_its_text(place: Place) -> None:
    secret_id = await place.store()
    stored = (await place.rows())[secret_id].value
    await place.overwrite(secret_id, value=stored[:-2] + "AA")

    with (
        structlog.testing.capture_logs() as written,
        pytest.raises(SecretUnreadable) as caught,
    ):
        await place.read(secret_id)

    (entry,) = written
    assert (entry["log_level"], entry["secret_id"]) == ("error", str(secret_id))
    told = f"{written} {caught.value} {caught.value.details} {caught.value.context}"
    assert stored.split(".")[3][:8] not in told
    assert CANARY not in told


async def test_the_database_holds_no_secret_as_it_is(
    place: Place, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    secret_id = await place.store()
    async with place.database.begin() as tx:
        await place.service().replace(tx, place.alice, PURPOSE, secret_id, CANARY + "2")
    await place.service().add_key()
    await place.service().rotate(lambda _done, _total: None)

    dump = await dumped(place.database, request)

    assert place.service().keyring.current.id.encode() in dump
    assert b"alice@example.com" in dump  # the dump does hold what is stored as it is
    assert CANARY.encode() not in dump
    assert (place.keys_dir / "encryption-key").read_bytes().split()[0] not in dump


async def dumped(database: Database, request: pytest.FixtureRequest) -> bytes:
    """Return every byte that a thief of the database would have."""
    url = database.engine.url
    if database.is_sqlite:
        file = Path(url.database or "")
        parts = [file, file.with_name(file.name + "-wal"), file.with_name(file.name + "-shm")]
        assert parts[1].stat().st_size > 0
        return b"".join(part.read_bytes() for part in parts)
    server: PostgresServer = request.getfixturevalue("postgres_server")
    done = await anyio.run_process(
        [
            str(server.binaries / "pg_dump"),
            *("-h", "127.0.0.1", "-p", str(server.port), "-U", "craftastic"),
            url.database or "",
        ],
        stderr=subprocess.PIPE,
    )
    return done.stdout


# ---- keys -----------------------------------------------------------------------------------


def quietly(_done: int, _total: int) -> None:
    """Take a rotation's reports."""


async def test_counts_tell_how_many_secrets_are_under_each_key(place: Place) -> None:
    credentials = place.service()
    first = credentials.keyring.current.id
    await place.store()
    second = await credentials.add_key()
    await place.store()
    await place.store()

    assert await credentials.counts() == {first: 1, second: 2}


async def test_a_rotation_puts_every_secret_under_the_current_key(place: Place) -> None:
    stored = {await place.store(f"value {number}"): f"value {number}" for number in range(MANY)}
    before = await place.rows()
    credentials = place.service()
    reports: list[tuple[int, int]] = []

    key_id = await credentials.add_key()
    result = await credentials.rotate(lambda done, total: reports.append((done, total)))

    assert (result.key_id, result.moved, result.unreadable, result.left) == (key_id, MANY, (), 0)
    assert await credentials.counts() == {key_id: MANY}
    assert reports == [(0, MANY), (50, MANY), (100, MANY), (MANY, MANY)]
    assert {one: await place.read(one) for one in stored} == stored
    after = await place.rows()
    assert all(after[one].value != before[one].value for one in stored)
    assert all(after[one].updated_at == before[one].updated_at for one in stored)


async def test_a_rotation_that_ends_anywhere_loses_nothing_and_goes_on(place: Place) -> None:
    stored = {await place.store(f"value {number}"): f"value {number}" for number in range(MANY)}
    key_id = await place.service().add_key()
    ends = 0

    def die_after_a_batch(done: int, _total: int) -> None:
        if done:
            raise KilledError

    while set(await place.service().counts()) != {key_id}:
        with suppress(KilledError):
            await place.service().rotate(die_after_a_batch)
        ends += 1
        assert {one: await place.read(one) for one in stored} == stored
        assert sum((await place.service().counts()).values()) == MANY

    assert ends == 3
    assert (await place.service().rotate(quietly)).moved == 0


async def test_a_cancelled_rotation_loses_nothing(place: Place) -> None:
    stored = {await place.store(f"value {number}"): f"value {number}" for number in range(MANY)}
    key_id = await place.service().add_key()

    for pause_s in (0.0, 0.001, 0.003, 0.006, 0.01):
        with anyio.move_on_after(pause_s):
            await place.service().rotate(quietly)
        assert {one: await place.read(one) for one in stored} == stored
    await place.service().rotate(quietly)

    assert await place.service().counts() == {key_id: MANY}
    assert {one: await place.read(one) for one in stored} == stored


async def test_a_server_goes_on_beside_a_rotation(place: Place) -> None:
    server, rotating = place.service(), place.service()
    old = server.keyring.current.id
    expected = {await place.store(f"value {number}"): f"value {number}" for number in range(MANY)}
    replaced = list(expected)[::10]
    rotated = anyio.Event()

    async def serve() -> None:
        number = 0
        while not rotated.is_set():
            changed = replaced[number % len(replaced)]
            async with place.database.begin() as tx:
                new = await server.store(tx, place.alice, PURPOSE, f"new {number}")
                await server.replace(tx, place.alice, PURPOSE, changed, f"changed {number}")
            expected[new], expected[changed] = f"new {number}", f"changed {number}"
            async with place.database.read() as tx:
                found = await server.reveal_many(tx, place.alice, PURPOSE, list(expected))
            assert found == expected
            number += 1

    key_id, results = "", list[RotationResult]()
    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        key_id = await rotating.add_key()
        results.append(await rotating.rotate(quietly))
        rotated.set()

    (result,) = results
    assert (result.unreadable, result.left) == ((), 0)
    assert result.moved > 0
    assert await server.counts() == {key_id: len(expected)}
    assert await rotating.prune() == (old,)
    async with place.database.read() as tx:
        assert await server.reveal_many(tx, place.alice, PURPOSE, list(expected)) == expected


async def test_what_is_written_between_a_rotations_look_and_its_write_stays(place: Place) -> None:
    secret_id = await place.store("old")
    rotating = place.service()
    await rotating.add_key()
    async with place.database.read() as tx:
        rows = list(await tx.scalars(select(SecretRow)))
    async with place.database.begin() as tx:
        await place.service().replace(tx, place.alice, PURPOSE, secret_id, "new")

    moved, unreadable = await rotating._move(rows, rotating.keyring.current.id)

    assert (moved, unreadable) == (0, [])
    assert await place.read(secret_id) == "new"


async def test_two_rotations_at_once_do_the_work_once(place: Place) -> None:
    stored = {await place.store(f"value {number}"): f"value {number}" for number in range(MANY)}
    key_id = await place.service().add_key()
    moved: list[int] = []

    async def rotate() -> None:
        moved.append((await place.service().rotate(quietly)).moved)

    async with anyio.create_task_group() as group:
        group.start_soon(rotate)
        group.start_soon(rotate)

    assert sum(moved) == MANY
    assert await place.service().counts() == {key_id: MANY}
    assert {one: await place.read(one) for one in stored} == stored


async def test_a_rotation_names_what_it_cannot_read_and_leaves_it(place: Place) -> None:
    good, bad = await place.store("good"), await place.store("bad")
    await place.overwrite(bad, value=(await place.rows())[good].value)
    before = (await place.rows())[bad].value
    credentials = place.service()
    key_id = await credentials.add_key()

    result = await credentials.rotate(quietly)

    assert (result.moved, result.unreadable, result.left) == (1, (bad,), 0)
    assert await place.read(good) == "good"
    assert (await place.rows())[bad].value == before
    assert await credentials.prune() == ()
    assert (await credentials.counts())[key_id] == 1


async def test_pruning_removes_what_nothing_uses_and_nothing_else(place: Place) -> None:
    credentials = place.service()
    first = credentials.keyring.current.id
    secret_id = await place.store()
    unused = await credentials.add_key()
    current = await credentials.add_key()

    assert await credentials.prune() == (unused,)
    assert credentials.keyring.ids == (current, first)
    await credentials.rotate(quietly)
    assert await credentials.prune() == (first,)
    assert await credentials.prune() == ()

    assert place.service().keyring.ids == (current,)
    assert await place.read(secret_id) == CANARY


async def test_pruning_waits_for_a_secret_that_is_just_being_stored(place: Place) -> None:
    server = place.service()
    old = server.keyring.current.id
    storing, stored = anyio.Event(), anyio.Event()
    secret_ids: list[UUID] = []

    async def store() -> None:
        async with place.database.begin() as tx:
            secret_ids.append(await server.store(tx, place.alice, PURPOSE, CANARY))
            storing.set()
            with anyio.move_on_after(0.3):  # as long as the other side would need, or the event
                await stored.wait()

    async def change_keys() -> None:
        await storing.wait()
        await place.service().add_key()
        await place.service().prune()
        stored.set()

    async with anyio.create_task_group() as group:
        group.start_soon(store)
        group.start_soon(change_keys)

    assert old in place.service().keyring.ids
    assert await place.read(secret_ids[0]) == CANARY


async def test_a_rotation_to_a_key_that_is_removed_meanwhile_writes_nothing(place: Place) -> None:
    secret_id = await place.store()
    rotating, changing = place.service(), place.service()
    doomed = await rotating.add_key()
    await changing.add_key()
    rows = list((await place.rows()).values())
    refused: list[KeyChangeRefused] = []

    async def move() -> None:
        try:
            await rotating._move(rows, doomed)
        except KeyChangeRefused as error:
            refused.append(error)

    async with anyio.create_task_group() as group, place.database.begin() as tx:
        await SecretRepository(tx).hold_keys(alone=True)
        group.start_soon(move)
        await anyio.wait_all_tasks_blocked()  # it has encrypted, and waits to write
        assert changing.keyring.remove([doomed]) == (doomed,)

    assert [doomed in error.message for error in refused] == [True]
    assert await place.read(secret_id) == CANARY


async def test_a_key_that_secrets_need_and_that_is_not_there_is_told_by_its_id(
    place: Place,
) -> None:
    lost = place.service().keyring.current.id
    secret_id = await place.store()
    (place.keys_dir / "encryption-key").write_text("n" * 32)

    with structlog.testing.capture_logs() as written:
        assert await place.service().tell_missing_keys() == (lost,)
    with pytest.raises(SecretUnreadable):
        await place.read(secret_id)

    (entry,) = written
    assert (entry["log_level"], entry["key_id"], entry["stored"]) == ("error", lost, 1)


async def test_nothing_is_told_while_every_key_is_there(place: Place) -> None:
    await place.store()
    await place.service().add_key()

    with structlog.testing.capture_logs() as written:
        assert await place.service().tell_missing_keys() == ()

    assert written == []


async def test_what_is_done_to_the_keys_is_on_record(place: Place) -> None:
    credentials = place.service()
    first = credentials.keyring.current.id
    await place.store()
    second = await credentials.add_key()
    await credentials.rotate(quietly)
    await credentials.prune()

    async with place.database.read() as tx:
        found = await tx.execute(
            sqlalchemy.text("SELECT action, outcome, details FROM audit_events ORDER BY seq")
        )
    events = [tuple(row) for row in found]
    assert [event[:2] for event in events] == [
        ("keys.add", "ok"),
        ("keys.rotate", "ok"),
        ("keys.prune", "ok"),
    ]
    assert second in events[1][2]
    assert first in events[2][2]


async def test_storing_is_two_statements_at_the_most(place: Place) -> None:
    credentials = place.service()
    statements: list[str] = []

    def count(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    event.listen(place.database.engine.sync_engine, "before_cursor_execute", count)
    async with place.database.begin() as tx:
        await credentials.store(tx, place.alice, PURPOSE, CANARY)

    assert len([one for one in statements if not one.startswith(("BEGIN", "COMMIT"))]) <= 2


assert credentials_service.MOVED_AT_ONCE == 50, "MANY and the reports above count on it"
