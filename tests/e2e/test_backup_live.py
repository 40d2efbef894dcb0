"""A backup of a server whose sessions are at work, restored as a server of its own."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.e2e.harness import Api, Server, Viewer, until
from tests.leaks import RUN

pytestmark = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)

NOTICED_S = 60.0
COMMAND_S = 120.0


@pytest.fixture
def other_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str | None]:
    """Give an empty database for the restored server, of the same kind."""
    if database_url.startswith("sqlite"):
        yield None
        return
    postgres = request.getfixturevalue("postgres_server")
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
async def restored(runtime: str, other_url: str | None) -> AsyncIterator[Server]:
    """Give a server that has nothing yet, with user ids of its own for its sandboxes."""
    folder = RUN.new_folder("restored", 0o711)
    (folder / "data").mkdir(mode=0o711)
    server = Server(folder / "data", runtime=runtime, database_url=other_url)
    server.log = folder / "server.log"  # the data folder has to be empty
    try:
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()
            shutil.rmtree(folder, ignore_errors=True)


async def command(server: Server, *arguments: str) -> str:
    """Run the command line as the server's operator; return what it said."""
    with anyio.fail_after(COMMAND_S):
        done = await anyio.run_process(
            [sys.executable, "-m", "craftastic", *arguments],
            env=server.environment,
            cwd=server.data_dir.parent,
            check=False,
        )
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, said
    return said


async def test_sessions_at_work_come_back_with_work_that_was_committed_nowhere(
    server: Server, restored: Server, own_history: str, tmp_path: Path
) -> None:
    """REL-19: nothing stops for the backup; everything is there after it."""
    file = tmp_path / "backup"
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        cloned = await api.environment("cloned", own_history)
        plain = await api.environment("plain")
        session = await api.post("/api/sessions", environmentId=cloned["id"], branch="topic")
        other = await api.post("/api/sessions", environmentId=plain["id"], name="other")
        viewer = Viewer(server.url, session["id"], cloned["id"], api.token)
        workshop = Viewer(server.url, other["id"], plain["id"], api.token)
        async with viewer.attached(), workshop.attached():
            await viewer.run(
                "echo mine > uncommitted; echo changed >> README.md; git add README.md"
            )
            await workshop.run("pwd; echo mine > uncommitted")
            await viewer.type("i=0; while :; do i=$((i+1)); echo line$i; sleep 0.02; done\r")
            await viewer.shows("\nline20\n")

            began = time.monotonic()
            said = await command(server, "backup", str(file), "--with-keys")
            took_s = time.monotonic() - began

            seen = viewer.numbers("line")[-1]
            await until(lambda: viewer.numbers("line")[-1] > seen, "the program goes on")
            numbers = viewer.numbers("line")
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            assert viewer.ended is workshop.ended is None
    assert "Left out" not in said
    server.stop()

    began = time.monotonic()
    await command(restored, "restore", str(file))
    restore_s = time.monotonic() - began
    restored.start()
    await restored.ready()
    size = file.stat().st_size / (1 << 20)
    print(f"\n{said.splitlines()[-2]} {size:.1f} MiB; {took_s:.1f} s, back in {restore_s:.1f} s")  # noqa: T201

    async with Api(restored.url) as api:
        await api.login("a@example.com")
        environments = (await api.get(f"/api/environments/user/{api.user['id']}"))["environments"]
        assert {one["id"] for one in environments} == {cloned["id"], plain["id"]}

        async def noticed() -> bool:
            found = [await api.get(f"/api/sessions/{one['id']}") for one in (session, other)]
            return {one["status"] for one in found} == {"dead"}

        await until(noticed, "the end of the sandboxes is noticed", timeout_s=NOTICED_S)
        viewer = Viewer(restored.url, session["id"], cloned["id"], api.token)
        async with viewer.attached():
            await viewer.shows("$")
            status = await viewer.run("git status --porcelain", timeout_s=60)
            assert "M  README.md" in status
            assert "?? uncommitted" in status
            assert (await viewer.run("cat uncommitted")).strip() == "mine"
            assert (await viewer.run("tail -n 1 README.md")).strip() == "changed"
            checked = await viewer.run("git fsck --full --strict && echo whole", timeout_s=60)
            assert checked.strip().endswith("whole")
        workshop = Viewer(restored.url, other["id"], plain["id"], api.token)
        async with workshop.attached():
            await workshop.shows("$")
            assert (await workshop.run("cat uncommitted", timeout_s=60)).strip() == "mine"
    check_owners(restored, [cloned, plain])


def check_owners(server: Server, environments: list[dict[str, Any]]) -> None:
    """Every file belongs to its sandbox's user, whose number is from the new server's range."""
    for one in environments:
        for tree in ("homes", "repos", "worktrees"):
            folder = server.data_dir / tree / one["id"]
            listed = subprocess.run(
                ["find", str(folder), "-printf", "%U\\n"],
                capture_output=True,
                text=True,
                check=True,
            )
            owners = set(re.findall(r"\d+", listed.stdout))
            assert len(owners) == 1
            assert int(owners.pop()) - server.uid_base in range(1 << 16)
