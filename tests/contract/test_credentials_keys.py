"""`craftastic keys …` and the server's start, on both databases: no key is lost or made up."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
import structlog.testing
from sqlalchemy import text, update

from craftastic.accounts._repository import User
from craftastic.audit.service import AuditService
from craftastic.cli import doctor
from craftastic.clock import SystemClock
from craftastic.credentials._repository import SecretRow
from craftastic.credentials.service import CredentialService
from craftastic.database import Database
from craftastic.keys import KeyFileMissing, derive_key, load_keys
from craftastic.migrations import runner
from craftastic.settings import Settings
from tests.conftest import driver_url
from tests.fakes.whole_app import whole_app, whole_settings
from tests.secrecy import Place, allow

TIMEOUT_S = 60.0
PURPOSE = "test.only"
NEW, OLD = "n" * 40, "o" * 40


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Installation:
    """A data folder and a database, and the command line of their operator."""

    folder: Path
    url: str
    owner: UUID

    @property
    def file(self) -> Path:
        return self.folder / "data" / "keys" / "encryption-key"

    @property
    def settings(self) -> Settings:
        return whole_settings(self.folder, self.url)

    def environment(self, **variables: str) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "PATH": os.environ["PATH"],  # noqa: TID251 - a child's environment
            "CRAFTASTIC_DATA_DIR": str(self.folder / "data"),
            "CRAFTASTIC_PORT": "0",
            "CRAFTASTIC_RUNTIME": "local",
            "DATABASE_URL": self.url,
            **variables,
        }

    async def __call__(self, *arguments: str, **variables: str) -> Ended:
        with anyio.fail_after(TIMEOUT_S):
            done = await anyio.run_process(
                [sys.executable, "-m", "craftastic", *arguments],
                env=self.environment(**variables),
                cwd=self.folder,
                check=False,
            )
        assert b"Traceback" not in done.stderr
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    async def store(self, count: int) -> dict[UUID, str]:
        async with self.credentials() as credentials, credentials.database.begin() as tx:
            return {
                await credentials.store(tx, self.owner, PURPOSE, f"value {number}"): (
                    f"value {number}"
                )
                for number in range(count)
            }

    async def read(self, stored: dict[UUID, str]) -> dict[UUID, str]:
        async with self.credentials() as credentials, credentials.database.read() as tx:
            return await credentials.reveal_many(tx, self.owner, PURPOSE, list(stored))

    def credentials(self) -> "Opened":
        return Opened(self)


class Opened:
    """The secrets as a server of the installation has them."""

    def __init__(self, installation: Installation) -> None:
        self.database = Database(driver_url(installation.url))
        ring = load_keys(installation.file.parent, make_encryption_key=False).keyring
        clock = SystemClock()
        self.service = CredentialService(
            self.database, ring, clock, AuditService(self.database, clock)
        )

    async def __aenter__(self) -> CredentialService:
        return self.service

    async def __aexit__(self, *_error: object) -> None:
        await self.database.close()


@pytest.fixture
async def installation(database_url: str, tmp_path: Path) -> Installation:
    await runner.upgrade(driver_url(database_url))
    now = SystemClock().now()
    user = User(email="a@example.com", name="a", created_at=now, updated_at=now)
    database = Database(driver_url(database_url))
    async with database.begin() as tx:
        tx.add(user)
    await database.close()
    load_keys(tmp_path / "data" / "keys")
    return Installation(tmp_path, database_url, user.id)


# ---- the commands ---------------------------------------------------------------------------


async def test_keys_are_listed_with_how_many_secrets_they_have(installation: Installation) -> None:
    await installation.store(3)
    key_id = derive_key(installation.file.read_text().strip()).id

    listed = await installation("keys", "ls", "--json", CRAFTASTIC_ENCRYPTION_OLD_KEYS=OLD)

    assert listed.json == [
        {"id": key_id, "use": "current", "from": "file", "secrets": 3},
        {"id": derive_key(OLD).id, "use": "old", "from": "setting", "secrets": 0},
    ]
    plain = await installation("keys", "ls")
    assert plain.out == f"key\tuse\tfrom\tsecrets\n{key_id}\tcurrent\tfile\t3\n"


async def test_a_rotation_and_a_pruning_leave_one_key_and_every_secret(
    installation: Installation,
) -> None:
    stored = await installation.store(120)
    old = derive_key(installation.file.read_text().strip()).id

    early = await installation("keys", "rotate", "--no-new-key")
    rotated = await installation("keys", "rotate", "--json")
    assert (await installation.read(stored)) == stored
    pruned = await installation("keys", "prune", "--json")

    assert early.out == f"0 secrets were put under the key {old}.\n"
    new = rotated.json["current"]
    assert rotated.json == {"current": new, "moved": 120, "unreadable": [], "left": 0}
    assert "120 of 120" in rotated.err
    assert pruned.json == {"removed": [old]}
    assert derive_key(installation.file.read_text().strip()).id == new
    assert stat.S_IMODE(installation.file.stat().st_mode) == 0o600
    assert (await installation.read(stored)) == stored


async def test_a_key_is_never_printed(installation: Installation) -> None:
    await installation.store(1)

    ended = [await installation("keys", *words) for words in (["ls"], ["rotate"], ["prune"])]

    for key in installation.file.read_text().split():
        assert all(key not in one.out + one.err for one in ended)


async def test_a_rotation_that_is_killed_goes_on(installation: Installation) -> None:
    stored = await installation.store(1000)

    with a_rotation(installation) as process:
        assert process.stderr is not None
        while b"50 of 1000" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)

    listed = (await installation("keys", "ls", "--json")).json
    assert [row["use"] for row in listed] == ["current", "old"]
    assert sum(row["secrets"] for row in listed) == 1000
    assert listed[0]["secrets"] >= 50
    assert (await installation.read(stored)) == stored
    ended = await installation("keys", "rotate", "--no-new-key", "--json")
    assert ended.json["moved"] == listed[1]["secrets"]
    assert (await installation("keys", "prune", "--json")).json == {"removed": [listed[1]["id"]]}
    assert (await installation.read(stored)) == stored


async def test_a_rotation_that_is_interrupted_says_how_to_go_on(installation: Installation) -> None:
    stored = await installation.store(3000)

    with a_rotation(installation) as process:
        assert process.stderr is not None
        while b"50 of 3000" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        process.wait(TIMEOUT_S)

    assert process.returncode == 130
    assert b"craftastic keys rotate --no-new-key" in told
    assert (await installation.read(stored)) == stored


@contextmanager
def a_rotation(installation: Installation) -> Generator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "craftastic", "keys", "rotate"],
        env=installation.environment(),
        cwd=installation.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(TIMEOUT_S)
        assert process.stderr is not None
        process.stderr.close()


async def test_old_keys_in_use_are_not_removed(installation: Installation) -> None:
    stored = await installation.store(2)
    old = derive_key(installation.file.read_text().strip()).id
    async with installation.credentials() as credentials:
        await credentials.add_key()

    pruned = await installation("keys", "prune")

    assert pruned.code == 5
    assert f"{old} (2 secrets)" in pruned.err
    assert len(installation.file.read_text().split()) == 2
    assert (await installation.read(stored)) == stored


async def test_where_the_operator_sets_the_key_a_rotation_only_moves(
    installation: Installation,
) -> None:
    await installation.store(5)
    old = installation.file.read_text().strip()
    installation.file.unlink()
    allow(Place.ENVIRONMENT, value=old, because="the operator sets it there")
    set_keys = {"CRAFTASTIC_ENCRYPTION_KEY": NEW, "CRAFTASTIC_ENCRYPTION_OLD_KEYS": f"{OLD}, {old}"}

    rotated = await installation("keys", "rotate", **set_keys)
    pruned = await installation("keys", "prune", **set_keys)
    listed = await installation("keys", "ls", "--json", CRAFTASTIC_ENCRYPTION_KEY=NEW)

    assert rotated.code == pruned.code == 0
    assert rotated.out == f"5 secrets were put under the key {derive_key(NEW).id}.\n"
    assert "CRAFTASTIC_ENCRYPTION_OLD_KEYS" in rotated.err
    assert f"{derive_key(OLD).id} is unused" in pruned.err
    assert listed.json == [
        {"id": derive_key(NEW).id, "use": "current", "from": "setting", "secrets": 5}
    ]
    assert not installation.file.exists()


async def test_a_file_is_left_behind_for_a_key_that_the_operator_sets(
    installation: Installation,
) -> None:
    await installation.store(5)
    old = derive_key(installation.file.read_text().strip()).id

    rotated = await installation("keys", "rotate", "--json", CRAFTASTIC_ENCRYPTION_KEY=NEW)
    pruned = await installation("keys", "prune", CRAFTASTIC_ENCRYPTION_KEY=NEW)

    assert rotated.json["moved"] == 5
    assert (pruned.code, pruned.out) == (0, f"{old}\n")
    assert not installation.file.exists()


@pytest.mark.parametrize("words", [["rotate"], ["rotate", "--no-new-key"], ["prune"]])
async def test_nothing_is_changed_with_keys_of_another_installation(
    installation: Installation, words: list[str]
) -> None:
    await installation.store(1)
    installation.file.write_text(OLD)

    ended = await installation("keys", *words)
    listed = await installation("keys", "ls")

    assert ended.code == 5
    assert "settings" in ended.err
    assert installation.file.read_text() == OLD
    assert "missing" in listed.out
    assert "CRAFTASTIC_ENCRYPTION_OLD_KEYS" in listed.err


async def test_a_secret_that_cannot_be_read_is_named(installation: Installation) -> None:
    stored = list(await installation.store(2))
    async with installation.credentials() as credentials, credentials.database.begin() as tx:
        row = update(SecretRow).where(SecretRow.id == stored[0])
        await tx.execute(row.values(value="v1.x.y.z"))

    rotated = await installation("keys", "rotate")

    assert rotated.code == 5
    assert rotated.out.startswith("1 secrets were put")
    assert str(stored[0]) in rotated.err


async def test_without_a_database_nothing_is_made(tmp_path: Path) -> None:
    nothing = Installation(tmp_path, f"sqlite:///{tmp_path / 'data' / 'x.db'}", UUID(int=0))

    ended = await nothing("keys", "ls")

    assert ended.code == 7
    assert "There is no database" in ended.err
    assert not (tmp_path / "data").exists()


async def test_a_database_of_another_version_is_left_alone(installation: Installation) -> None:
    async with installation.credentials() as credentials, credentials.database.begin() as tx:
        await tx.execute(text("UPDATE alembic_version SET version_num = '0001'"))

    ended = await installation("keys", "rotate")

    assert ended.code == 7
    assert "craftastic migrate" in ended.err


# ---- the start ------------------------------------------------------------------------------


async def test_a_first_start_makes_a_key(installation: Installation) -> None:
    installation.file.unlink()

    async with whole_app(installation.settings):
        pass

    assert len(installation.file.read_text().strip()) == 64


async def test_a_start_without_the_key_of_stored_secrets_is_refused_and_makes_none(
    installation: Installation,
) -> None:
    stored = await installation.store(1)
    kept = installation.file.read_text()
    installation.file.unlink()

    with pytest.raises(KeyFileMissing):
        async with whole_app(installation.settings):
            pass
    served = await installation("serve")

    assert served.code == 7
    assert f"The key file {installation.file} is missing" in served.err
    assert "backup" in served.err
    assert not installation.file.exists()
    installation.file.write_text(kept)
    async with whole_app(installation.settings):
        assert (await installation.read(stored)) == stored


async def test_a_start_with_the_key_in_the_settings_needs_no_file(
    installation: Installation,
) -> None:
    await installation.store(1)
    kept = installation.file.read_text().strip()
    installation.file.unlink()
    settings = whole_settings(installation.folder, installation.url, encryption_key=kept)

    async with whole_app(settings):
        pass

    assert not installation.file.exists()


async def test_a_start_with_another_key_is_told_and_doctor_tells_it_too(
    installation: Installation,
) -> None:
    await installation.store(2)
    lost = derive_key(installation.file.read_text().strip()).id
    installation.file.write_text(NEW)

    with structlog.testing.capture_logs() as logged:
        async with whole_app(installation.settings):
            pass
    (finding,) = await doctor._secrets(installation.settings)

    assert lost in str(logged)
    assert (finding.ok, lost in finding.message) == (None, True)


async def test_doctor_says_that_every_key_is_there(installation: Installation) -> None:
    await installation.store(2)

    (finding,) = await doctor._secrets(installation.settings)

    assert (finding.ok, finding.message) == (True, "2 secrets, and all their keys")


async def test_doctor_fails_where_the_key_file_is_lost(installation: Installation) -> None:
    await installation.store(2)
    installation.file.unlink()

    (finding,) = await doctor._secrets(installation.settings)

    assert finding.ok is False
    assert "backup" in (finding.remedy or "")


async def test_doctor_leaves_an_open_key_file_as_it_is(installation: Installation) -> None:
    installation.file.chmod(0o644)

    assert await doctor._secrets(installation.settings) == []

    assert stat.S_IMODE(installation.file.stat().st_mode) == 0o644
