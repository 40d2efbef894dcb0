"""Key files: made once, closed to others, never replaced; keys of secrets come and go."""

import multiprocessing
import os
import stat
import threading
from pathlib import Path

import pytest
import structlog.testing

from craftastic import keys as keys_module
from craftastic.keys import (
    MAX_KEYS,
    KeyChangeRefused,
    KeyFileBroken,
    KeyFileMissing,
    Keyring,
    derive_key,
    load_keys,
    make_first_account_token,
    read_first_account_token,
    remove_first_account_token,
)


def _load(directory: str, results: "multiprocessing.Queue[tuple[str, bytes, str, str]]") -> None:
    keys = load_keys(Path(directory))
    token = make_first_account_token(Path(directory))
    results.put((keys.instance, keys.jwt_secret, keys.keyring.current.id, token))


def test_keys_are_made_once_and_stay(tmp_path: Path) -> None:
    first = load_keys(tmp_path / "keys")

    again = load_keys(tmp_path / "keys")
    assert (again.instance, again.jwt_secret) == (first.instance, first.jwt_secret)
    assert again.keyring.current == first.keyring.current
    assert len(first.jwt_secret) >= 32
    assert first.keyring.current.id != derive_key(first.jwt_secret.decode()).id
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert modes == {"instance": 0o600, "jwt-secret": 0o600, "encryption-key": 0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_processes_that_start_at_once_get_the_same_keys(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[str, bytes, str, str]] = context.Queue()
    processes = [
        context.Process(target=_load, args=(str(tmp_path / "keys"), results)) for _ in range(4)
    ]
    for process in processes:
        process.start()

    found = {results.get(timeout=60) for _ in processes}

    for process in processes:
        process.join(60)
    assert len(found) == 1
    names = {path.name for path in (tmp_path / "keys").iterdir()}
    assert names == {"instance", "jwt-secret", "encryption-key", "first-account-token"}


def test_settings_come_first_and_make_no_file(tmp_path: Path) -> None:
    keys = load_keys(tmp_path / "keys", jwt_secret="j" * 32, encryption_key="e" * 32)

    assert keys.jwt_secret == b"j" * 32
    assert keys.keyring.current == derive_key("e" * 32)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["instance"]


@pytest.mark.parametrize("name", ["jwt-secret", "encryption-key"])
@pytest.mark.parametrize("content", ["", "\n", "short"])
def test_a_damaged_key_stops_the_start_and_is_left_alone(
    tmp_path: Path, name: str, content: str
) -> None:
    load_keys(tmp_path)
    (tmp_path / name).write_text(content)

    with pytest.raises(KeyFileBroken, match=name):
        load_keys(tmp_path)

    assert (tmp_path / name).read_text() == content


def test_a_key_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    load_keys(tmp_path)
    (tmp_path / "jwt-secret").chmod(0o644)

    load_keys(tmp_path)

    assert (tmp_path / "jwt-secret").stat().st_mode & 0o777 == 0o600


def test_a_link_in_a_keys_place_is_not_followed(tmp_path: Path) -> None:
    load_keys(tmp_path)
    (tmp_path / "jwt-secret").unlink()
    (tmp_path / "jwt-secret").symlink_to("/etc/hostname")

    with pytest.raises(KeyFileBroken):
        load_keys(tmp_path)


def test_keys_do_not_show_in_texts(tmp_path: Path) -> None:
    keys = load_keys(tmp_path)

    text = (tmp_path / "encryption-key").read_text().strip()
    assert keys.jwt_secret.decode() not in repr(keys)
    assert text not in repr(keys) + repr(vars(keys.keyring)["_keys"])
    assert repr(keys.keyring.current.aes) not in repr(keys.keyring.current)


def test_the_one_time_token_is_there_until_it_is_used(tmp_path: Path) -> None:
    token = make_first_account_token(tmp_path)

    assert make_first_account_token(tmp_path) == token
    assert read_first_account_token(tmp_path) == token
    remove_first_account_token(tmp_path)
    remove_first_account_token(tmp_path)
    assert read_first_account_token(tmp_path) is None


# ---- keys of secrets at rest ----------------------------------------------------------------


FIRST, SECOND, THIRD = ("1" * 32, "2" * 32, "3" * 32)


def ids(*texts: str) -> tuple[str, ...]:
    return tuple(derive_key(text).id for text in texts)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "encryption-key"
    path.write_text(f"{SECOND}\n{FIRST}\n")
    path.chmod(0o600)
    return path


def test_a_key_stays_the_same_in_every_version() -> None:
    key = derive_key(FIRST)

    assert (key.id, key.aes.hex()) == (
        "80a71912d101",
        "d13b4318d40765708b4c344a10e4ecc448438d55ac60312115b6202fbd9df976",
    )
    assert key.id not in key.aes.hex()


def test_the_first_line_encrypts_and_every_line_decrypts(file: Path) -> None:
    ring = Keyring(file)

    assert ring.ids == ids(SECOND, FIRST)
    assert ring.current == derive_key(SECOND)
    assert ring.find(derive_key(FIRST).id) == derive_key(FIRST)
    assert ring.find("0" * 12) is None


def test_spaces_and_empty_lines_around_keys_do_not_count(file: Path) -> None:
    file.write_text(f"\n  {SECOND}\r\n\n{FIRST}")

    assert Keyring(file).ids == ids(SECOND, FIRST)


def test_what_the_operator_set_comes_before_the_file_and_what_is_older_after_it(file: Path) -> None:
    ring = Keyring(file, current=THIRD, old=["4" * 32, FIRST])

    assert ring.ids == ids(THIRD, SECOND, FIRST, "4" * 32)
    assert [ring.in_file(key_id) for key_id in ring.ids] == [False, True, True, False]


def test_a_key_of_the_operators_that_is_too_short_is_refused(file: Path) -> None:
    with pytest.raises(KeyFileBroken, match="fewer than 32 bytes"):
        Keyring(file, current=" " * 40 + "short")
    with pytest.raises(KeyFileBroken, match="fewer than 32 bytes"):
        Keyring(file, old=["short"])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (f"{FIRST}\nshort\n".encode(), "line 2"),
        (FIRST.encode() + b"\xff\xfe", "damaged in line 1"),
        (FIRST.encode() + b"\0", "damaged in line 1"),
        (f"{FIRST}\n".encode() * 1000, "longer than"),
    ],
)
def test_a_damaged_line_is_never_passed_over(file: Path, content: bytes, why: str) -> None:
    file.write_bytes(content)

    with pytest.raises(KeyFileBroken, match=why):
        Keyring(file)


def test_without_a_file_none_is_made_where_secrets_are_stored(tmp_path: Path) -> None:
    load_keys(tmp_path)
    (tmp_path / "encryption-key").unlink()

    with pytest.raises(KeyFileMissing, match="encryption-key is missing"):
        load_keys(tmp_path, make_encryption_key=False)

    assert not (tmp_path / "encryption-key").exists()


def test_older_keys_alone_are_no_current_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFileMissing):
        Keyring(tmp_path / "encryption-key", old=[FIRST])


def test_a_changed_file_is_noticed_before_the_next_secret_is_encrypted(file: Path) -> None:
    running, rotating = Keyring(file), Keyring(file)

    made = rotating.add()

    assert running.current == made
    assert running.ids == (made.id, *ids(SECOND, FIRST))


def test_an_unknown_key_is_looked_for_in_a_changed_file(file: Path) -> None:
    running, rotating = Keyring(file), Keyring(file)

    made = rotating.add()

    assert running.find(made.id) == made


def test_a_file_that_gets_damaged_or_lost_while_a_server_runs_is_told_once(file: Path) -> None:
    ring = Keyring(file)

    with structlog.testing.capture_logs() as written:
        file.write_text("short")
        assert ring.current == derive_key(SECOND)
        assert ring.ids == ids(SECOND, FIRST)
        file.unlink()
        assert ring.current == derive_key(SECOND)
        assert ring.current == derive_key(SECOND)

    assert [entry["log_level"] for entry in written] == ["error", "error"]
    assert "short" not in str(written[0]["event"])


def test_a_new_key_is_closed_to_others_and_the_old_ones_stay(file: Path) -> None:
    before = file.read_text()

    Keyring(file).add()

    first, rest = file.read_text().split("\n", 1)
    assert len(first) == 64
    assert rest == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["encryption-key"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_file_still_belongs_to_the_servers_user_when_root_has_changed_it(file: Path) -> None:
    os.chown(file, 12345, 12346)

    Keyring(file).add()

    about = file.stat()
    assert (about.st_uid, about.st_gid) == (12345, 12346)
    assert stat.S_IMODE(about.st_mode) == 0o600


def test_keys_that_are_made_at_once_are_all_kept(file: Path) -> None:
    threads = [threading.Thread(target=lambda: Keyring(file).add()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(set(Keyring(file).ids)) == 10


def test_a_change_that_is_cut_short_leaves_the_file_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_text()

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(keys_module.os, "fsync", no_space)
        with pytest.raises(KeyFileBroken, match="No space left"):
            Keyring(file).add()

    assert file.read_text() == before
    assert [path.name for path in file.parent.iterdir()] == ["encryption-key"]


def test_the_draft_of_a_change_that_was_killed_goes_with_the_next_change(file: Path) -> None:
    (file.parent / ".encryption-key.0011223344556677").write_text(FIRST)

    Keyring(file).add()

    assert [path.name for path in file.parent.iterdir()] == ["encryption-key"]


def test_the_file_does_not_grow_without_end(file: Path) -> None:
    file.write_text("".join(f"{number:032}\n" for number in range(MAX_KEYS)))

    with pytest.raises(KeyChangeRefused, match="32 keys") as caught:
        Keyring(file).add()

    assert "craftastic keys prune" in (caught.value.details or "")


def test_old_keys_can_be_removed_and_the_current_one_cannot(file: Path) -> None:
    ring = Keyring(file)

    assert ring.remove([*ids(FIRST), "0" * 12]) == ids(FIRST)
    with pytest.raises(KeyChangeRefused, match="current"):
        ring.remove(ids(SECOND))

    assert file.read_text() == f"{SECOND}\n"
    assert ring.ids == ids(SECOND)


def test_a_file_goes_when_the_operator_sets_the_current_key_and_its_last_one_is_removed(
    file: Path,
) -> None:
    ring = Keyring(file, current=THIRD)

    assert ring.remove(ids(FIRST, SECOND)) == ids(SECOND, FIRST)

    assert not file.exists()
    assert ring.ids == ids(THIRD)
    assert ring.remove(ids(FIRST)) == ()


def test_no_key_is_made_in_the_file_where_the_operator_sets_it(file: Path) -> None:
    with pytest.raises(KeyChangeRefused, match="CRAFTASTIC_ENCRYPTION_KEY"):
        Keyring(file, current=THIRD).add()
