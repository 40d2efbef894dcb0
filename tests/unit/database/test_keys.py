"""Key files: made once, closed to others, never replaced."""

import multiprocessing
from pathlib import Path

import pytest

from craftastic.keys import (
    KeyFileBroken,
    load_keys,
    make_first_account_token,
    read_first_account_token,
    remove_first_account_token,
)


def _load(directory: str, results: "multiprocessing.Queue[tuple[str, bytes, bytes, str]]") -> None:
    keys = load_keys(Path(directory))
    token = make_first_account_token(Path(directory))
    results.put((keys.instance, keys.jwt_secret, keys.encryption_key, token))


def test_keys_are_made_once_and_stay(tmp_path: Path) -> None:
    first = load_keys(tmp_path / "keys")

    assert load_keys(tmp_path / "keys") == first
    assert len(first.jwt_secret) >= 32
    assert first.jwt_secret != first.encryption_key
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()}
    assert modes == {"instance": 0o600, "jwt-secret": 0o600, "encryption-key": 0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_processes_that_start_at_once_get_the_same_keys(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[tuple[str, bytes, bytes, str]] = context.Queue()
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

    assert (keys.jwt_secret, keys.encryption_key) == (b"j" * 32, b"e" * 32)
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["instance"]


@pytest.mark.parametrize("content", ["", "\n", "short"])
def test_a_damaged_key_stops_the_start_and_is_left_alone(tmp_path: Path, content: str) -> None:
    load_keys(tmp_path)
    (tmp_path / "jwt-secret").write_text(content)

    with pytest.raises(KeyFileBroken, match="jwt-secret"):
        load_keys(tmp_path)

    assert (tmp_path / "jwt-secret").read_text() == content


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

    assert keys.jwt_secret.decode() not in repr(keys)


def test_the_one_time_token_is_there_until_it_is_used(tmp_path: Path) -> None:
    token = make_first_account_token(tmp_path)

    assert make_first_account_token(tmp_path) == token
    assert read_first_account_token(tmp_path) == token
    remove_first_account_token(tmp_path)
    remove_first_account_token(tmp_path)
    assert read_first_account_token(tmp_path) is None
