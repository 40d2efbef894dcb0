"""`craftastic serve` and `migrate` where something is missing: a sentence and no trace."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from craftastic.cli.starting import DataFolderTaken, DataFolderUnusable, data_folder, listen
from craftastic.settings import Settings

TIMEOUT_S = 60.0


async def serve(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run a command that is bound to fail; return its exit code and what it said."""
    environment = {
        "HOME": str(folder),
        "PATH": os.environ["PATH"],  # noqa: TID251 - a child's environment
        "CRAFTASTIC_DATA_DIR": str(folder / "data"),
        "CRAFTASTIC_PORT": "0",
        "CRAFTASTIC_RUNTIME": "local",
        **variables,
    }
    with anyio.fail_after(TIMEOUT_S):
        done = await anyio.run_process(
            [sys.executable, "-m", "craftastic", *(arguments or ("serve",))],
            env=environment,
            cwd=folder,
            check=False,
        )
    told = done.stderr.decode()
    assert "Traceback" not in told
    assert done.stdout == b""
    return done.returncode, told


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


async def test_a_port_that_is_taken_is_told_before_anything_is_made(
    tmp_path: Path, taken: int
) -> None:
    code, told = await serve(tmp_path, CRAFTASTIC_PORT=str(taken))

    assert code == 5
    assert told.startswith(f"craftastic: The server cannot listen on 127.0.0.1:{taken}: ")
    assert "CRAFTASTIC_PORT" in told
    assert not (tmp_path / "data").exists()


async def test_an_address_that_is_not_this_machines_is_told(tmp_path: Path) -> None:
    code, told = await serve(tmp_path, CRAFTASTIC_HOST="192.0.2.1")

    assert code == 5
    assert "CRAFTASTIC_HOST" in told


async def test_a_data_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    code, told = await serve(tmp_path)

    assert code == 7
    assert "CRAFTASTIC_DATA_DIR" in told


@pytest.mark.parametrize("command", ["serve", "migrate"])
async def test_a_database_that_does_not_answer_is_told_without_its_password(
    tmp_path: Path, command: str
) -> None:
    code, told = await serve(tmp_path, command, DATABASE_URL="postgresql://u:secret@127.0.0.1:1/d")

    assert code == 7
    assert told.startswith("craftastic: The database cannot be used: ")
    assert "DATABASE_URL" in told
    assert "secret" not in told


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_text("certainly no database " * 100)

    code, told = await serve(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/junk.db")

    assert code == 7
    assert "file is not a database" in told


def test_two_servers_never_share_a_data_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path / "data"})

    with (
        data_folder(settings),
        pytest.raises(DataFolderTaken, match=f"process {os.getpid()}"),
        data_folder(settings, wait_s=0.2),
    ):
        pass
    assert "waiting for it to end" in capsys.readouterr().err
    with data_folder(settings, wait_s=0):
        pass


def test_a_server_knows_whether_it_was_alone_in_its_data_folder(tmp_path: Path) -> None:
    shared = {"data_dir": tmp_path / "data", "database_url": "postgresql://nowhere/one"}
    settings = Settings.model_validate(shared)

    def nobody_else_gets_in() -> None:
        with pytest.raises(DataFolderTaken), data_folder(settings, wait_s=0):
            pass
        called.append("first")

    called: list[str] = []
    with (
        data_folder(settings, first=nobody_else_gets_in) as first,
        data_folder(settings, first=lambda: called.append("beside")) as beside,
    ):
        pass
    with data_folder(settings) as after_them:
        pass

    assert (first, beside, after_them) == (True, False, True)
    assert called == ["first"]


def test_a_data_folder_that_cannot_be_made_is_told() -> None:
    settings = Settings.model_validate({"data_dir": Path("/proc/no/such")})

    with pytest.raises(DataFolderUnusable, match="/proc/no/such"), data_folder(settings):
        pass


def test_a_name_of_several_addresses_is_listened_on_where_it_can_be() -> None:
    listening = listen(Settings.model_validate({"host": "localhost", "port": 0}))

    names = [one.getsockname()[0] for one in listening]
    for one in listening:
        one.close()
    assert "127.0.0.1" in names


async def test_a_key_that_is_damaged_is_told(tmp_path: Path) -> None:
    keys = tmp_path / "data" / "keys"
    keys.mkdir(parents=True)
    keys.chmod(0o700)
    (keys / "instance").write_text("")

    code, told = await serve(tmp_path, LOG_LEVEL="error")

    assert code != 0
    assert f"{keys}/instance" in told
