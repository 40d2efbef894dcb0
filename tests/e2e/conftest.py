"""What end-to-end tests stand on: a real server over each runtime and each database."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from tests.e2e.harness import Server
from tests.fakes.git_http_server import GitHttpServer
from tests.leaks import RUN

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def own_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve this project's own history with git's http-backend and give its URL."""
    root = tmp_path_factory.mktemp("upstream")
    bare = root / "craftastic.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(
        [
            "git",
            "-C",
            str(PROJECT),
            "push",
            "-q",
            str(bare),
            "HEAD:refs/heads/main",
            "HEAD:refs/heads/topic",
        ],
        check=True,
    )
    with GitHttpServer(root) as server:
        yield server.url("craftastic.git")


@pytest.fixture
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a data folder whose parents a sandbox's own user can pass."""
    folder = RUN.new_folder("e2e", 0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("local", marks=pytest.mark.local),
    ]
)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def server(data_dir: Path, runtime: str, database_url: str | None) -> AsyncIterator[Server]:
    server = Server(data_dir, runtime=runtime, database_url=database_url)
    try:
        server.start()
        await server.ready()
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


@pytest.fixture
async def second(server: Server) -> AsyncIterator[Server]:
    """Give a second process that shares everything with the first but its own ports."""
    second = server.beside()
    try:
        second.start()
        await second.ready()
        yield second
    finally:
        second.stop()
