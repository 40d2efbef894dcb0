"""Backups of a server that runs, and what comes back from them, on both databases."""

import errno
import gzip
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import anyio.to_thread
import httpx
import pytest

from craftastic.accounts.service import UserId
from craftastic.cli import backup, restore
from craftastic.cli.backup_archive import (
    MAX_EXTENTS,
    ArchiveWriter,
    BackupBroken,
    BackupNotWritten,
    Manifest,
    Written,
    opened,
)
from craftastic.cli.backup_database import DatabaseNotEmpty, NoDatabase
from craftastic.cli.backup_trees import (
    MAX_DEPTH,
    TOO_DEEP,
    TOO_MANY,
    UNREADABLE,
    Budget,
    Listing,
    TreeReader,
    add_trees,
    mount_of,
)
from craftastic.cli.restore import DataFolderNotEmpty, NotRestored
from craftastic.cli.restore_trees import TreeWriter
from craftastic.cli.starting import DataFolderTaken, data_folder
from craftastic.errors import CraftasticError, InvalidInput
from craftastic.keys import KeyFileMissing
from craftastic.migrations import runner
from craftastic.settings import Settings
from craftastic.tables import METADATA
from tests.conftest import missing
from tests.fakes.people import PASSWORD, signed_in, state_of
from tests.fakes.whole_app import something_of_everything, whole_app, whole_settings
from tests.secrecy import canary

ENVIRONMENT = UUID("11111111-1111-4111-8111-111111111111")
KEY = str(ENVIRONMENT)
NUMBER = 7
WORK = b"work that nobody has committed\n"


# ---- a server that runs -------------------------------------------------------------------------


@dataclass
class Rig:
    """A server in this process with something of everything, and where it may be restored to."""

    settings: Settings
    client: httpx.AsyncClient
    owner: dict[str, str]
    ids: dict[str, str]
    new_database: Callable[[], str]
    folder: Path

    @property
    def tree(self) -> Path:
        return self.settings.data_dir / "worktrees" / self.ids["environment_id"]

    async def back_up(self, name: str, *, with_keys: bool) -> Path:
        file = self.folder / name
        await in_thread(partial(backup.back_up, self.settings, str(file), with_keys=with_keys))
        return file

    def elsewhere(self) -> Settings:
        return whole_settings(self.folder / uuid4().hex, self.new_database())


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run a command's work, which has an event loop of its own."""
    return await anyio.to_thread.run_sync(work)


@pytest.fixture
def new_database(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> Iterator[Callable[[], str]]:
    """Give a function that makes an empty database of the test's kind."""
    made: list[str] = []

    def new() -> str:
        if database_url.startswith("sqlite"):
            return f"sqlite:///{tmp_path / uuid4().hex / 'restored.db'}"
        server = request.getfixturevalue("postgres_server")
        made.append(server.create())
        return server.url(made[-1])

    yield new
    for name in made:
        request.getfixturevalue("postgres_server").drop(name)


@pytest.fixture
async def rig(
    tmp_path: Path, database_url: str, new_database: Callable[[], str]
) -> AsyncIterator[Rig]:
    settings = whole_settings(tmp_path, database_url)
    async with whole_app(settings) as (client, _):
        token = (settings.keys_dir / "first-account-token").read_text().strip()
        owner = await signed_in(client, "a@example.com", setupToken=token)
        ids = await something_of_everything(client, owner)
        rig = Rig(settings, client, owner, ids, new_database, tmp_path)
        rig.tree.mkdir(parents=True)
        (rig.tree / "uncommitted").write_bytes(WORK)
        yield rig


async def test_a_server_that_runs_comes_back_with_everything(rig: Rig) -> None:
    secret = canary("variable")
    answer = await rig.client.put(
        "/api/variables/MINE", json={"value": secret, "isSecret": True}, headers=rig.owner
    )
    assert answer.status_code == 200, answer.text
    file = await rig.back_up("one", with_keys=True)
    there = rig.elsewhere()

    restored = await in_thread(partial(restore.restore, there, str(file)))

    assert restored.missing == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    tree = there.data_dir / "worktrees" / rig.ids["environment_id"]
    assert (tree / "uncommitted").read_bytes() == WORK
    async with whole_app(there) as (client, _):
        body = {"email": "a@example.com", "password": PASSWORD}
        signed = await client.post("/api/auth/login", json=body)
        assert signed.status_code == 200, signed.text
        # The old access token is good too: the key that signed it has come along.
        mine = await client.get(f"/api/environments/user/{rig.ids['user_id']}", headers=rig.owner)
        session = await client.get(f"/api/sessions/{rig.ids['session_id']}", headers=rig.owner)
        values = await state_of(client)["variables"].for_session(
            UserId(UUID(rig.ids["user_id"])), UUID(rig.ids["environment_id"])
        )
    assert [one["id"] for one in mine.json()["environments"]] == [rig.ids["environment_id"]]
    assert session.status_code == 200
    assert values["MINE"] == secret


async def test_a_backup_holds_keys_only_when_they_are_asked_for(rig: Rig) -> None:
    secret = canary("variable")
    await rig.client.put(
        "/api/variables/MINE", json={"value": secret, "isSecret": True}, headers=rig.owner
    )
    keys = [(rig.settings.keys_dir / name).read_bytes().strip() for name in backup.KEY_FILES]

    without = gzip.decompress((await rig.back_up("without", with_keys=False)).read_bytes())
    with_them = gzip.decompress((await rig.back_up("with", with_keys=True)).read_bytes())

    assert all(key not in without for key in keys)
    assert all(key in with_them for key in keys)
    assert secret.encode() not in with_them
    instance = (rig.settings.keys_dir / "instance").read_bytes().strip()
    assert instance not in with_them


async def test_secrets_whose_keys_are_missing_are_told_and_not_lost(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    file = await rig.back_up("one", with_keys=False)
    there = rig.elsewhere()

    restored = await in_thread(partial(restore.restore, there, str(file)))
    restore.tell(restored, there)

    assert restored.missing == 1  # the password of a git server
    assert f"{there.keys_dir / 'encryption-key'}" in capsys.readouterr().err
    with pytest.raises(KeyFileMissing):
        async with whole_app(there):
            pass
    shutil.copy(rig.settings.keys_dir / "encryption-key", there.keys_dir)
    async with whole_app(there):
        pass


async def test_keys_may_be_put_there_before(rig: Rig) -> None:
    without = await rig.back_up("without", with_keys=False)
    with_keys = await rig.back_up("with", with_keys=True)
    there = rig.elsewhere()
    there.keys_dir.mkdir(parents=True, mode=0o700)
    shutil.copy(rig.settings.keys_dir / "encryption-key", there.keys_dir)

    with pytest.raises(DataFolderNotEmpty, match="keys"):
        await in_thread(partial(restore.restore, there, str(with_keys)))
    restored = await in_thread(partial(restore.restore, there, str(without)))

    assert restored.missing == 0


async def test_a_restore_replaces_nothing(rig: Rig) -> None:
    file = await rig.back_up("one", with_keys=False)
    there = rig.elsewhere()
    await in_thread(partial(restore.restore, there, str(file)))
    before = listing(there.data_dir)

    url = there.database_url.get_secret_value() if there.database_url else ""
    for settings in (there, whole_settings(rig.folder / "third", url)):
        with pytest.raises((DataFolderNotEmpty, DatabaseNotEmpty)):
            await in_thread(partial(restore.restore, settings, str(file)))

    assert listing(there.data_dir) == before
    assert contents(rig.folder / "third" / "data") == {}


async def test_a_data_folder_that_a_server_uses_is_left_alone(rig: Rig) -> None:
    file = await rig.back_up("one", with_keys=False)
    there = rig.elsewhere()

    with data_folder(there), pytest.raises(DataFolderTaken):
        await in_thread(partial(restore.restore, there, str(file)))


async def test_a_backup_of_the_other_kind_of_database_is_refused(rig: Rig) -> None:
    file = await rig.back_up("one", with_keys=False)
    is_sqlite = rig.settings.sqlalchemy_url.startswith("sqlite")
    other = "postgresql://127.0.0.1:1/none" if is_sqlite else f"sqlite:///{rig.folder}/other.db"

    with pytest.raises(DatabaseNotEmpty, match="settings want"):
        await in_thread(
            partial(restore.restore, whole_settings(rig.folder / "there", other), str(file))
        )


async def test_a_backup_of_a_newer_program_is_refused(rig: Rig) -> None:
    file = rig.folder / "newer"
    write(file, replace(MANIFEST, revision="ffff"), ())
    there = rig.elsewhere()

    with pytest.raises(BackupBroken, match="newer"):
        await in_thread(partial(restore.restore, there, str(file)))

    assert contents(there.data_dir) == {}


async def test_a_backup_that_is_cut_short_leaves_nothing_behind(rig: Rig) -> None:
    whole = (await rig.back_up("one", with_keys=True)).read_bytes()
    there = rig.elsewhere()
    file = rig.folder / "cut"

    for length in (0, 10, len(whole) // 4, len(whole) // 2, len(whole) - 200, len(whole) - 9):
        file.write_bytes(whole[:length])
        with pytest.raises(BackupBroken):
            await in_thread(partial(restore.restore, there, str(file)))
        assert contents(there.data_dir) == {}

    file.write_bytes(whole)
    await in_thread(partial(restore.restore, there, str(file)))


def is_the_same(one: bytes, other: bytes) -> bool:
    """Tell whether two files unpack to the same: between blocks there are bits without meaning."""
    try:
        return gzip.decompress(one) == gzip.decompress(other)
    except (gzip.BadGzipFile, zlib.error, EOFError):
        return False


async def test_a_backup_in_which_a_bit_has_turned_leaves_nothing_behind(rig: Rig) -> None:
    whole = (await rig.back_up("one", with_keys=True)).read_bytes()
    there = rig.elsewhere()
    file = rig.folder / "turned"

    # The last of them is in the checksum itself.
    for place in (*range(len(whole) // 20, len(whole) - 20, len(whole) // 12), len(whole) - 7):
        turned = whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :]
        if is_the_same(turned, whole):
            continue
        file.write_bytes(turned)
        with pytest.raises(BackupBroken):
            await in_thread(partial(restore.restore, there, str(file)))
        assert contents(there.data_dir) == {}


def test_a_backup_without_its_last_member_is_not_whole(tmp_path: Path) -> None:
    file = tmp_path / "backup"
    write(file, MANIFEST, ())
    # Whole as a compressed file, and as a tar.
    begin = gzip.decompress(file.read_bytes()).partition(b"end.json")[0]
    file.write_bytes(gzip.compress(begin + bytes(1024)))
    settings = whole_settings(tmp_path / "in", f"sqlite:///{tmp_path}/in/data/craftastic.db")

    with pytest.raises(BackupBroken, match="cut short: its end is missing"):
        restore.restore(settings, str(file))


async def test_a_backup_never_replaces_a_file(rig: Rig) -> None:
    (rig.folder / "there").write_text("mine")

    with pytest.raises(InvalidInput, match="there already"):
        await rig.back_up("there", with_keys=False)

    assert (rig.folder / "there").read_text() == "mine"


async def test_nothing_is_left_beside_a_backup(rig: Rig) -> None:
    folder = rig.folder / "backups"
    folder.mkdir()

    await rig.back_up("backups/one", with_keys=False)

    assert [path.name for path in folder.iterdir()] == ["one"]


async def test_without_a_database_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    settings = whole_settings(tmp_path, f"sqlite:///{tmp_path}/none.db")

    with pytest.raises(NoDatabase):
        await in_thread(partial(backup.back_up, settings, str(tmp_path / "one"), with_keys=False))

    assert contents(tmp_path) == {}


async def test_the_database_is_copied_while_it_is_written(rig: Rig) -> None:
    async def write_on(scope: anyio.CancelScope) -> None:
        number = 0
        while not scope.cancel_called:
            number += 1
            answer = await rig.client.put(
                f"/api/variables/N{number % 50}",
                json={"value": str(number), "isSecret": False},
                headers=rig.owner,
            )
            assert answer.status_code == 200, answer.text

    copies: list[Path] = []
    async with anyio.create_task_group() as group:
        group.start_soon(write_on, group.cancel_scope)
        for number in range(5):
            copies.append(await rig.back_up(f"live{number}", with_keys=True))  # noqa: PERF401
        group.cancel_scope.cancel()

    for file in copies:
        there = rig.elsewhere()
        await in_thread(partial(restore.restore, there, str(file)))
        assert await runner.differences(there.sqlalchemy_url, METADATA) == []


# ---- trees that sandboxes write -----------------------------------------------------------------


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for tree in ("homes", "repos", "worktrees"):
        (folder / tree / KEY).mkdir(parents=True)
    return folder


def back_up_trees(data_dir: Path) -> tuple[bytes, Written]:
    out = BytesIO()
    archive = ArchiveWriter(out)
    archive.manifest(MANIFEST)
    add_trees(archive, data_dir, ENVIRONMENT)
    archive.close()
    return out.getvalue(), archive.written


def put_back_trees(content: bytes, target: Path, owner: tuple[int, int] | None = None) -> int:
    target.mkdir()
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    trees = TreeWriter(root, lambda _: owner)
    try:
        with opened(BytesIO(content)) as archive:
            archive.manifest()
            for member in archive.members():
                if "/" in member.name:
                    trees.put(archive, member)
            trees.close()
    finally:
        trees.abandon()
        os.close(root)
    return trees.left_out


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the mode and the size of everything below a folder."""
    return {
        os.fsdecode(path.relative_to(folder)): (path.lstat().st_mode, path.lstat().st_size)
        for path in folder.rglob("*")
        if path.name != "server.lock"
    }


def contents(folder: Path) -> dict[str, object]:
    """Return what matters of everything below a folder."""
    return (
        {}
        if not folder.exists()
        else {
            os.fsdecode(path.relative_to(folder)): _content(path)
            for path in sorted(folder.rglob("*"))
            if path.name != "server.lock"
        }
    )


def _content(path: Path) -> object:
    about = path.lstat()
    time = int(about.st_mtime)
    if stat.S_ISLNK(about.st_mode):
        return ("link", str(path.readlink()), time)
    if stat.S_ISDIR(about.st_mode):
        return ("folder", stat.S_IMODE(about.st_mode), time)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if about.st_size < 1 << 30 else None
    return ("file", stat.S_IMODE(about.st_mode), time, about.st_size, about.st_nlink, digest)


def test_everything_that_can_come_back_comes_back_as_it_was(data_dir: Path, tmp_path: Path) -> None:
    tree = data_dir / "worktrees" / KEY
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "script").write_text("#!/bin/sh\n")
    (tree / "a" / "script").chmod(0o750)
    (tree / "a" / "b" / "empty").touch()
    (tree / "große\nDatei \x1b[31m").write_bytes(os.urandom(3_000_000))
    (tree / os.fsdecode(b"no text \xff\xfe")).write_bytes(b"\0" * 1025)
    (tree / ("n" * 255)).write_text("long")
    (tree / "hdrcharset=BINARY\n15 path=evil\n").write_text("sly")
    (tree / "points nowhere").symlink_to("/nonexistent/\nplace")
    (tree / "points out").symlink_to("/etc/passwd")
    (tree / "loop").symlink_to(".")
    os.link(tree / "a" / "script", tree / "another name")
    (tree / "read only").mkdir()
    (tree / "read only" / "file").write_text("x")
    (tree / "read only" / "file").chmod(0o400)
    (tree / "read only").chmod(0o555)
    for path in sorted(tree.rglob("*"), reverse=True):
        os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    before = contents(data_dir)

    content, written = back_up_trees(data_dir)
    put_back_trees(content, tmp_path / "restored")

    after = contents(tmp_path / "restored")
    for name, about in before.items():
        if name.count("/") >= 2:
            assert after[name] == about
    assert after.keys() == before.keys()
    assert written.left_out == {}
    first, second = (
        (tmp_path / "restored" / "worktrees" / KEY / name).stat().st_ino
        for name in ("a/script", "another name")
    )
    assert first == second


def test_what_means_nothing_elsewhere_is_not_opened_and_not_in_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = data_dir / "homes" / KEY
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listening, monkeypatch.context() as here:
        here.chdir(tree)  # the whole path is too long for a socket's address
        listening.bind("s")
        if os.geteuid() == 0:
            os.mknod(tree / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        (tree / "file").write_text("x")
        (tree / ".cache").mkdir()
        (tree / ".cache" / "much").write_text("x")
        (tree / "deeper").mkdir()
        (tree / "deeper" / ".cache").write_text("somebody's file of that name")

        content, written = back_up_trees(data_dir)

    assert names(content, f"homes/{KEY}") == {"file", "deeper", "deeper/.cache"}
    assert written.special == (3 if os.geteuid() == 0 else 2)


def test_a_link_is_never_followed(data_dir: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "private").write_bytes(WORK)
    for tree in ("homes", "repos"):
        (data_dir / tree / KEY / "link").symlink_to(victim)
        (data_dir / tree / KEY / "file").symlink_to(victim / "private")
    (data_dir / "worktrees" / KEY).rmdir()
    (data_dir / "worktrees" / KEY).symlink_to(victim)

    with pytest.raises(NotADirectoryError):
        back_up_trees(data_dir)  # that folder's name is the server's own to give
    (data_dir / "worktrees" / KEY).unlink()
    content, _ = back_up_trees(data_dir)

    assert WORK not in gzip.decompress(content)
    assert names(content, f"homes/{KEY}") == {"link", "file"}


def test_what_is_swapped_while_it_is_read_leads_nowhere(data_dir: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "private").write_bytes(WORK)
    tree = data_dir / "worktrees" / KEY
    (tree / "own").mkdir()
    (tree / "own" / "private").write_text("own")
    (tree / "link").symlink_to(victim)
    (tree / "text").write_text("own")
    (tree / "out").symlink_to(victim / "private")
    os.mkfifo(tree / "pipe")
    stop = threading.Event()
    rounds = 0

    def swap() -> None:
        nonlocal rounds
        while not stop.is_set():
            for one, other in (("own", "link"), ("text", "out"), ("text", "pipe")):
                (tree / one).rename(tree / "aside")
                (tree / other).rename(tree / one)
                (tree / "aside").rename(tree / other)
            rounds += 1

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        contents_of = [gzip.decompress(back_up_trees(data_dir)[0]) for _ in range(1000)]
    finally:
        stop.set()
        swapping.join()

    assert rounds > 100
    assert [one for one in contents_of if WORK in one] == []


def test_another_file_system_is_not_entered(data_dir: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "private").write_bytes(WORK)
    place = data_dir / "homes" / KEY / "mounted"
    place.mkdir()
    # The same device once more: only the kernel's number of the mount tells them apart.
    if subprocess.run(["mount", "--bind", victim, place], check=False).returncode != 0:
        missing("a folder cannot be mounted here")
    try:
        content, written = back_up_trees(data_dir)
    finally:
        subprocess.run(["umount", place], check=True)

    assert WORK not in gzip.decompress(content)
    assert sum(written.left_out.values()) == 1


def test_holes_are_kept_and_take_no_time(data_dir: Path, tmp_path: Path) -> None:
    file = data_dir / "worktrees" / KEY / "huge"
    size = 1 << 40
    with file.open("wb") as out:
        out.write(b"begin")
        out.seek(300 << 30)
        out.write(b"middle" * 1000)
        out.truncate(size)
    empty = data_dir / "worktrees" / KEY / "nothing but a hole"
    empty.touch()
    os.truncate(empty, size)

    tracemalloc.start()
    content, _ = back_up_trees(data_dir)
    put_back_trees(content, tmp_path / "restored")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    restored = tmp_path / "restored" / "worktrees" / KEY
    with (restored / "huge").open("rb") as back:
        assert back.read(6) == b"begin\0"
        back.seek(300 << 30)
        assert back.read(6001) == b"middle" * 1000 + b"\0"
    for name in ("huge", "nothing but a hole"):
        assert (restored / name).stat().st_size == size
        assert (restored / name).stat().st_blocks < 1000
    assert len(content) < 1 << 20
    assert peak < 16 << 20


def test_memory_does_not_grow_with_what_is_read(data_dir: Path, tmp_path: Path) -> None:
    tree = data_dir / "homes" / KEY
    for number in range(20):
        (tree / str(number)).mkdir()
        for file in range(200):
            (tree / str(number) / f"{file}").write_bytes(b"x")
    (tree / "large").write_bytes(bytes(64 << 20))
    file = tmp_path / "archive"

    tracemalloc.start()
    with file.open("wb") as out:
        archive = ArchiveWriter(out)
        archive.manifest(MANIFEST)
        add_trees(archive, data_dir, ENVIRONMENT)
        archive.close()
    put_back_trees(file.read_bytes(), tmp_path / "restored")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert archive.written.files == 4001
    assert peak < 12 << 20


def test_what_is_too_much_is_left_out_and_told(data_dir: Path) -> None:
    deep = data_dir / "repos" / KEY
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(MAX_DEPTH * 3):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    torn = data_dir / "worktrees" / KEY / "torn"
    with torn.open("wb") as out:
        for place in range(MAX_EXTENTS + 10):
            os.pwrite(out.fileno(), b"x", place * 8192)

    content, written = back_up_trees(data_dir)

    assert written.left_out[TOO_DEEP] == 1
    assert len(written.left_out) == 2
    assert names(content, f"worktrees/{KEY}") == set()
    remove_deep(deep)


def remove_deep(folder: Path) -> None:
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_a_folder_that_loses_a_name_is_listed_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    folder = os.open(tmp_path, os.O_RDONLY)
    budget = Budget()
    listing_of = Listing(folder, budget)
    found: list[str] = []

    for name in listing_of:
        found.append(name)
        if len(found) == 1:  # as git does: the new pack is there before the old ones go
            (tmp_path / "new").touch()
            (tmp_path / ("b" if name == "a" else "a")).unlink()
        elif not (tmp_path / name).exists():
            listing_of.lost = True

    os.close(folder)
    assert "new" in found
    assert len(found) == len(set(found))
    listing_of.close()
    assert budget == Budget()


def test_no_more_names_are_remembered_than_there_is_room_for(
    data_dir: Path,
) -> None:
    tree = data_dir / "homes" / KEY
    for number in range(20):
        (tree / str(number)).touch()
    out = BytesIO()
    archive = ArchiveWriter(out)
    descriptor = os.open(tree, os.O_RDONLY)

    reader = TreeReader(archive, mount_of(descriptor), caches=False, budget=Budget(10))
    reader.folder(descriptor, f"homes/{KEY}")

    os.close(descriptor)
    assert archive.written.left_out == {TOO_MANY: 1}
    assert archive.written.files == 10


def test_a_file_that_becomes_shorter_spoils_nothing(data_dir: Path, tmp_path: Path) -> None:
    tree = data_dir / "worktrees" / KEY
    (tree / "after").write_text("whole")
    shrinking = tree / "shrinking"
    shrinking.write_bytes(b"x" * 1000)

    class Shrunk:
        def read_at(self, offset: int, length: int) -> bytes:
            return b"abc"[offset : offset + length]

    out = BytesIO()
    archive = ArchiveWriter(out)
    archive.manifest(MANIFEST)
    archive.folder(f"worktrees/{KEY}", 0o700, 1)
    archive.file(f"worktrees/{KEY}/s", Shrunk(), mode=0o600, mtime=1, size=1000)
    archive.file(f"worktrees/{KEY}/t", Shrunk(), mode=0o600, mtime=1, size=3)
    archive.close()
    put_back_trees(out.getvalue(), tmp_path / "restored")

    restored = tmp_path / "restored" / "worktrees" / KEY
    assert (restored / "s").read_bytes() == b"abc" + bytes(997)
    assert (restored / "t").read_bytes() == b"abc"
    assert sum(archive.written.left_out.values()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_server_that_is_not_root_tells_what_it_cannot_read(
    data_dir: Path, tmp_path: Path
) -> None:
    tree = data_dir / "homes" / KEY
    (tree / "mine").write_text("x")
    (tree / "closed").write_text("x")
    (tree / "closed").chmod(0)
    for path in (data_dir, *data_dir.rglob("*")):
        os.chown(path, 65534, 65534)
    opened_dir = os.open(data_dir, os.O_RDONLY)  # its parents are closed to others
    child = os.fork()
    if child == 0:
        try:
            os.fchdir(opened_dir)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            _, written = back_up_trees(Path())
            os._exit(0 if written.left_out == {UNREADABLE: 1} and written.files == 1 else 1)
        finally:
            os._exit(2)

    os.close(opened_dir)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_repository_is_whole_whatever_git_does_meanwhile(data_dir: Path, tmp_path: Path) -> None:
    bare, tree = data_dir / "repos" / KEY / "r.git", data_dir / "worktrees" / KEY / "main"
    git("init", "-q", "-b", "main", "--bare", str(bare))
    empty = git("-C", str(bare), "hash-object", "-w", "-t", "tree", "/dev/null").strip()
    first = git("-C", str(bare), "commit-tree", "-m", "first", empty).strip()
    git("-C", str(bare), "worktree", "add", "-q", "-b", "main", str(tree), first)
    stop = threading.Event()
    commits = 0

    def work() -> None:
        nonlocal commits
        while not stop.is_set():
            (tree / f"file{commits % 20}").write_text(str(commits))
            git("-C", str(tree), "add", "-A")
            git("-C", str(tree), "commit", "-q", "-m", str(commits))
            commits += 1
            if commits % 7 == 0:
                git("-C", str(bare), "gc", "-q", "--prune=now")

    git_at_work = threading.Thread(target=work)
    git_at_work.start()
    try:
        while commits < 3:
            stop.wait(0.01)
        copies = [back_up_trees(data_dir) for _ in range(10)]
        while commits < 25:
            copies.append(back_up_trees(data_dir))
    finally:
        stop.set()
        git_at_work.join()

    for number, (content, written) in enumerate(copies):
        folder = tmp_path / f"restored{number}"
        put_back_trees(content, folder)
        checked = subprocess.run(
            ["git", "-C", str(folder / "repos" / KEY / "r.git"), "fsck", "--full", "--strict"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr + str(written)
        assert "missing" not in checked.stdout + checked.stderr


def git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_ends_a_backup_with_a_sentence(data_dir: Path) -> None:
    (data_dir / "homes" / KEY / "large").write_bytes(os.urandom(4 << 20))

    class Full(BytesIO):
        def write(self, content: Any, /) -> int:
            if self.tell() + len(content) > 1 << 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(content)

    archive = ArchiveWriter(Full())

    with pytest.raises(BackupNotWritten, match="No space left"):
        add_trees(archive, data_dir, ENVIRONMENT)


# ---- archives that are not what they say --------------------------------------------------------

MANIFEST = Manifest("0", "0001", "sqlite", "2026-01-01T00:00:00+00:00", {KEY: NUMBER})

Member = tuple[str, bytes, str | bytes]
"""Its name, its type, and its link or content."""

TOP: tuple[Member, ...] = ((f"worktrees/{KEY}", tarfile.DIRTYPE, b""),)


def write(file: Path, manifest: Manifest, members: tuple[Member, ...]) -> None:
    out = BytesIO()
    archive = ArchiveWriter(out)
    archive.manifest(manifest)
    for name, kind, content in members:
        add(archive, name, kind, content)
    archive.close()
    file.write_bytes(out.getvalue())


def add(archive: ArchiveWriter, name: str, kind: bytes, link_or_content: str | bytes) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o6777
    content = b"" if isinstance(link_or_content, str) else link_or_content
    info.linkname = link_or_content if isinstance(link_or_content, str) else ""
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    archive._begin(info)
    if info.size:
        archive._write(content)
        archive._pad(len(content))


DIR, FILE, LINK, HARD = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
W = f"worktrees/{KEY}"
HOSTILE: dict[str, tuple[Member, ...]] = {
    "an absolute name": (("/VICTIM/x", FILE, b"x"),),
    "an absolute name of a tree": (*TOP, (f"/{W}/x", FILE, b"x")),
    "a name that leads upwards": (*TOP, (f"{W}/../../../victim/x", FILE, b"x")),
    "a folder that leads upwards": (*TOP, (f"{W}/..", DIR, b"")),
    "through a link": (*TOP, (f"{W}/l", LINK, "VICTIM"), (f"{W}/l/x", FILE, b"x")),
    "a folder over a link": (*TOP, (f"{W}/l", LINK, "VICTIM"), (f"{W}/l", DIR, b"")),
    "a file over a link": (*TOP, (f"{W}/l", LINK, "VICTIM/there"), (f"{W}/l", FILE, b"x")),
    "a tree that is a link": (("worktrees", LINK, "VICTIM"), ("worktrees/x", FILE, b"x")),
    "an environment that is a link": ((W, LINK, "VICTIM"), (f"{W}/x", FILE, b"x")),
    "a link out by another name": (
        *TOP,
        (f"{W}/l", LINK, "VICTIM"),
        (f"{W}/h", HARD, f"{W}/l/there"),
    ),
    "another name of a file outside": (*TOP, (f"{W}/h", HARD, "VICTIM/there")),
    "another name that leads upwards": (*TOP, (f"{W}/h", HARD, f"{W}/../../x")),
    "another name of what is not there": (*TOP, (f"{W}/h", HARD, f"{W}/none")),
    "another name of another tree's": (
        (f"repos/{KEY}", DIR, b""),
        (f"repos/{KEY}/f", FILE, b"x"),
        *TOP,
        (f"{W}/h", HARD, f"repos/{KEY}/f"),
    ),
    "a device": (*TOP, (f"{W}/d", tarfile.BLKTYPE, b"")),
    "a pipe": (*TOP, (f"{W}/p", tarfile.FIFOTYPE, b"")),
    "a file twice": (*TOP, (f"{W}/f", FILE, b"x"), (f"{W}/f", FILE, b"y")),
    "an unknown environment": ((f"worktrees/{uuid4()}", DIR, b""),),
    "an id in another spelling": ((f"worktrees/{{{KEY}}}", DIR, b""),),
    "a file beside the trees": (("worktrees/x", FILE, b"x"),),
    "a file without its folder": ((f"{W}/f", FILE, b"x"),),
    "a folder without its folder": (*TOP, (f"{W}/a/b", DIR, b"")),
    "a folder that was left": (
        *TOP,
        (f"{W}/a", DIR, b""),
        (f"{W}/b", DIR, b""),
        (f"{W}/a/f", FILE, b"x"),
    ),
    "a key that was not asked for": (("keys/encryption-key", FILE, b"x" * 64),),
    "a file of its own choice": (("server.lock", FILE, b"x"),),
    "a module for the server": (("agent-types/x.py", FILE, b"x"),),
    "a file behind an agent's manifest": (("agent-types/../x.toml", FILE, b"x"),),
    "no database": TOP,
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_a_backup_cannot_write_outside_its_folder(
    members: tuple[Member, ...], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "there").write_bytes(WORK)
    before = contents(victim)
    settings = whole_settings(tmp_path / "in", f"sqlite:///{tmp_path}/in/data/craftastic.db")
    file = tmp_path / "backup"
    placed = tuple(
        (
            name.replace("VICTIM", str(victim)[1:]),
            kind,
            content.replace("VICTIM", str(victim)) if isinstance(content, str) else content,
        )
        for name, kind, content in members
    )
    write(file, MANIFEST, placed)

    with pytest.raises(BackupBroken) as refused:
        restore.restore(settings, str(file))

    # It is refused for what is wrong with it, and not at its end for what it lacks as well.
    assert ("no database" in refused.value.message) == (members == TOP)

    assert contents(victim) == before
    assert contents(settings.data_dir) == {}
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "in", "backup"}


def test_no_file_comes_back_with_the_rights_of_its_owner_for_others(tmp_path: Path) -> None:
    file = tmp_path / "backup"
    write(file, MANIFEST, (*TOP, (f"{W}/suid", FILE, b"x")))

    put_back_trees(file.read_bytes(), tmp_path / "restored")

    assert stat.S_IMODE((tmp_path / "restored" / W / "suid").stat().st_mode) == 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_belong_to_the_user_of_their_environments_number(
    data_dir: Path, tmp_path: Path
) -> None:
    tree = data_dir / "worktrees" / KEY
    (tree / "folder").mkdir()
    (tree / "folder" / "file").write_text("x")
    (tree / "link").symlink_to("folder")
    owners = restore.Owners((0, 0), 300_000, {KEY: NUMBER})
    content, _ = back_up_trees(data_dir)

    put_back_trees(content, tmp_path / "restored", owners.of(ENVIRONMENT))

    found = tmp_path / "restored" / W
    for path in (found, found / "folder", found / "folder" / "file", found / "link"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (300_007, 300_007)
    assert found.parent.stat().st_uid == 0
    assert restore.Owners((1000, 1000), 300_000, {KEY: NUMBER}).of(ENVIRONMENT) == (1000, 1000)


@pytest.mark.parametrize(
    "environments",
    [{KEY: -1}, {KEY: 1 << 16}, {KEY: "1"}, {KEY: True}, {"x": 1}, {KEY: 1, str(uuid4()): 1}],
)
def test_a_strange_owner_of_files_is_refused(environments: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "backup"
    write(file, replace(MANIFEST, environments=environments), ())

    with opened(BytesIO(file.read_bytes())) as archive, pytest.raises(BackupBroken):
        archive.manifest()


@pytest.mark.parametrize(
    "content",
    [b"", b"text", os.urandom(4096), gzip.compress(b"x" * 9999)],
    ids=["empty", "text", "noise", "gzip"],
)
def test_a_file_that_is_no_backup_is_told_so(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    settings = whole_settings(tmp_path / "in", f"sqlite:///{tmp_path}/in/data/craftastic.db")

    with pytest.raises(CraftasticError, match="no backup"):
        restore.restore(settings, str(file))


def test_no_room_for_a_restore_leaves_nothing_behind(tmp_path: Path, data_dir: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        missing("nothing can be mounted here")
    file = tmp_path / "backup"
    (data_dir / "worktrees" / KEY / "large").write_bytes(os.urandom(4 << 20))
    file.write_bytes(back_up_trees(data_dir)[0])
    try:
        settings = whole_settings(small, f"sqlite:///{small}/data/craftastic.db")
        with pytest.raises(NotRestored, match="No space left"):
            restore.restore(settings, str(file))
        assert contents(settings.data_dir) == {}
    finally:
        subprocess.run(["umount", small], check=True)


def names(content: bytes, folder: str) -> set[str]:
    """Return the names that a backup has below one of its folders."""
    with opened(BytesIO(content)) as archive:
        found = {one.name for one in archive.members()}
    return {name.removeprefix(folder + "/") for name in found if name.startswith(folder + "/")}
