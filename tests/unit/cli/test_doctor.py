import socket
from pathlib import Path

import pytest

from craftastic.cli import doctor
from craftastic.cli.doctor import judge_runtimes, parse_version, program, status
from craftastic.runtimes.base import Finding
from craftastic.settings import Settings

GOOD = Finding("good", True, "fine")
BAD = Finding("bad", False, "broken", "mend it")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("tmux 3.3a", (3, 3)),
        ("git version 2.39.5", (2, 39, 5)),
        ("tmux next-3.4", (3, 4)),
        ("bubblewrap 0.8.0", (0, 8, 0)),
        ("nothing", ()),
    ],
)
def test_versions_are_read_from_what_programs_print(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_a_program_that_is_not_there_is_told_with_its_package() -> None:
    found = program("pasta", ["no-such-program"], None, needed=None, package="passt")

    assert status(found) == "warn"
    assert "apt-get install passt" in (found.remedy or "")


def test_a_program_that_is_too_old_is_told() -> None:
    found = program("tool", ["echo", "tool 3.1"], (3, 2), needed=False)

    assert (status(found), found.message) == ("fail", "tool 3.1 is older than 3.2")
    assert status(program("tool", ["echo", "tool 3.10"], (3, 2), needed=False)) == "ok"


def of(findings: list[Finding]) -> dict[str, str]:
    return {one.name: status(one) for one in findings}


def test_with_auto_one_runtime_that_works_is_enough() -> None:
    found = judge_runtimes({"docker": [BAD], "local": [GOOD]}, "auto")

    assert of(found) == {"bad": "warn", "good": "ok", "runtime": "ok"}


def test_without_any_runtime_the_machine_cannot_serve() -> None:
    found = judge_runtimes({"docker": [BAD], "local": [BAD]}, "auto")

    assert [status(one) for one in found] == ["fail", "fail", "fail"]


def test_the_runtime_that_was_chosen_has_to_work() -> None:
    found = judge_runtimes({"docker": [BAD], "local": [GOOD]}, "docker")

    assert of(found) == {"bad": "fail", "good": "ok", "runtime": "fail"}


def test_a_port_in_use_is_told_with_its_variable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = doctor._port("port.api", "127.0.0.1", taken.getsockname()[1], "CRAFTASTIC_PORT")

    assert status(found) == "fail"
    assert "CRAFTASTIC_PORT" in (found.remedy or "")


def test_keys_that_others_can_read_are_told(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    (keys / "jwt-secret").touch(mode=0o600)
    settings = Settings.model_validate({"data_dir": tmp_path})
    assert of(doctor._folders(settings)) == {"data": "ok", "keys": "ok"}

    (keys / "jwt-secret").chmod(0o644)

    assert of(doctor._folders(settings)) == {"data": "ok", "keys": "fail"}


def test_a_data_folder_that_everybody_can_write_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o777)

    found = doctor._folders(Settings.model_validate({"data_dir": folder}))

    assert of(found) == {"data": "fail"}


async def test_a_database_that_does_not_answer_is_told_without_its_password(
    tmp_path: Path,
) -> None:
    url = "postgresql://u:secret@127.0.0.1:1/d"
    settings = Settings.model_validate({"data_dir": tmp_path, "database_url": url})

    found = await doctor._database(settings)

    assert status(found) == "fail"
    assert "secret" not in str(found)


async def test_looking_at_a_fresh_machine_makes_nothing(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path / "data", "database_url": None})

    found = await doctor._database(settings)

    assert status(found) == "ok"
    assert not (tmp_path / "data").exists()
