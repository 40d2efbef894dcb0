"""An environment's folders: made with the right owner, removed whatever is in them (SEC-10)."""

import os
import stat
import subprocess
import threading
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from craftastic.runtimes._storage import TREES, prepare_storage, remove_storage, storage_of

AS_ROOT = os.geteuid() == 0
UID = 200_123 if AS_ROOT else os.geteuid()
GID = 200_123 if AS_ROOT else os.getegid()


def prepare(data_dir: Path, environment_id: UUID) -> Path:
    return prepare_storage(data_dir, environment_id, UID, GID).home


def left(data_dir: Path) -> list[str]:
    return sorted(path.name for tree in TREES for path in (data_dir / tree).iterdir())


def test_folders_are_the_sandboxs_and_their_parents_are_not_listed(tmp_path: Path) -> None:
    one = uuid4()

    prepare(tmp_path, one)
    home = prepare(tmp_path, one)

    for tree in TREES:
        folder = tmp_path / tree / str(one)
        assert (folder.stat().st_uid, folder.stat().st_gid) == (UID, GID)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / tree).stat().st_mode) == 0o711
        assert (tmp_path / tree).stat().st_uid == os.geteuid()
    assert (home / ".craftastic" / "worktrees" / str(one)).stat().st_uid == UID
    assert (home / "workspace").is_dir()


@pytest.mark.parametrize("what", ["link", "file", "fifo"])
def test_what_stands_in_a_mounts_place_is_moved_aside_and_kept(tmp_path: Path, what: str) -> None:
    one = uuid4()
    victim = tmp_path / "victim"
    victim.mkdir()
    home = prepare(tmp_path / "data", one)
    subprocess.run(["rm", "-r", str(home / ".craftastic")], check=True)
    {
        "link": lambda: (home / ".craftastic").symlink_to(victim),
        "file": lambda: (home / ".craftastic").write_text("mine"),
        "fifo": lambda: os.mkfifo(home / ".craftastic"),
    }[what]()

    prepare(tmp_path / "data", one)

    assert stat.S_ISDIR((home / ".craftastic").lstat().st_mode)
    assert len(list(home.glob(".craftastic.replaced-*"))) == 1
    assert list(victim.iterdir()) == []
    assert victim.stat().st_uid == os.geteuid()


def test_removal_takes_one_environment_and_no_other(tmp_path: Path) -> None:
    one, other = uuid4(), uuid4()
    prepare(tmp_path, one)
    (prepare(tmp_path, other) / "kept").write_text("kept")

    remove_storage(tmp_path, one)
    remove_storage(tmp_path, one)

    assert left(tmp_path) == [str(other)] * 3
    assert (storage_of(tmp_path, other).home / "kept").read_text() == "kept"


def test_removal_follows_no_link_and_minds_no_mode(tmp_path: Path) -> None:
    one, victim = uuid4(), tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("kept")
    home = prepare(tmp_path / "data", one)
    (home / "link").symlink_to(victim)
    (home / "closed" / "inner").mkdir(parents=True)
    (home / "closed" / "inner" / "file").write_text("x")
    (home / "closed" / "link").symlink_to(victim / "precious")
    (home / "closed" / "inner").chmod(0)
    (home / "closed").chmod(0o500)

    remove_storage(tmp_path / "data", one)

    assert left(tmp_path / "data") == []
    assert (victim / "precious").read_text() == "kept"


def test_removal_of_a_tree_deeper_than_any_path_needs_no_recursion(tmp_path: Path) -> None:
    one = uuid4()
    home = prepare(tmp_path, one)
    folder = os.open(home, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 20, dir_fd=folder)
        deeper = os.open("d" * 20, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)

    remove_storage(tmp_path, one)

    assert left(tmp_path) == []


def test_what_an_earlier_crash_left_aside_is_removed_too(tmp_path: Path) -> None:
    one = uuid4()
    prepare(tmp_path, one)
    aside = tmp_path / "homes" / f".trash-{one}-0badcafe"
    (aside / "0" / "deep").mkdir(parents=True)

    remove_storage(tmp_path, one)

    assert left(tmp_path) == []


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount")
def test_removal_stops_at_a_mounted_folder(tmp_path: Path) -> None:
    one, victim = uuid4(), tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("kept")
    data = tmp_path / "data"
    place = prepare(data, one) / "mounted"
    place.mkdir()
    subprocess.run(["mount", "--bind", str(victim), str(place)], check=True)
    try:
        with pytest.raises(OSError, match="busy"):
            remove_storage(data, one)
    finally:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mounted in (one for one in mounts if one.startswith(str(data))):
            subprocess.run(["umount", mounted], check=True)
    assert (victim / "precious").read_text() == "kept"

    remove_storage(data, one)

    assert left(data) == []


def test_removal_is_safe_while_something_still_changes_the_tree(tmp_path: Path) -> None:
    """A folder and a link to a victim change places as fast as they can, meanwhile."""
    victim = tmp_path / "victim"
    (victim / "inner").mkdir(parents=True)
    (victim / "inner" / "precious").write_text("kept")
    done = threading.Event()

    def swap(root: int) -> None:
        while not done.is_set():
            try:
                os.rename("a", "b", src_dir_fd=root, dst_dir_fd=root)
                os.symlink(victim, "a", dir_fd=root)
                os.unlink("a", dir_fd=root)
                os.rename("b", "a", src_dir_fd=root, dst_dir_fd=root)
            except OSError:
                pass

    for _ in range(100):
        one = uuid4()
        home = prepare(tmp_path / "data", one)
        (home / "a" / "inner").mkdir(parents=True)
        (home / "a" / "inner" / "file").write_text("x")
        root = os.open(home, os.O_RDONLY)
        done.clear()
        swapping = threading.Thread(target=swap, args=(root,))
        swapping.start()
        try:
            remove_storage(tmp_path / "data", one)
        finally:
            done.set()
            swapping.join()
            os.close(root)

    assert left(tmp_path / "data") == []
    assert (victim / "inner" / "precious").read_text() == "kept"
