"""F14, F26, F27, F28: a full disk in a clone, and worktrees and repositories that are damaged."""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import missing
from tests.e2e.harness import Api, Server, Viewer, until
from tests.fakes.git_http_server import GitHttpServer
from tests.faults._figures import note
from tests.faults._invariants import hold

pytestmark = [pytest.mark.fault, pytest.mark.slow]

ANSWERS_S = 60.0
"""How long any answer about a damaged repository may take: the longest of git's own deadlines."""

LONG_AGO = 1_700_000_000
DISK_BYTES = 40 << 20
BIG_BYTES = 64 << 20
LOOKS = ("status", "diff", "log")


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def _commit(work: Path, bare: Path) -> None:
    named = ("-c", "user.name=Someone", "-c", "user.email=someone@example.com")
    for command in (["add", "."], [*named, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(work), *command], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHttpServer]:
    """Serve a small repository, and one that is larger than the test's disk."""
    root = tmp_path_factory.mktemp("upstream")
    for name, size in (("small", 100), ("big", BIG_BYTES)):
        work = root / f"{name}-work"
        subprocess.run(["git", "init", "-q", "-b", "main", str(work)], check=True)
        (work / "file").write_text("one\n")
        (work / "noise").write_bytes(os.urandom(size))
        _commit(work, root / f"{name}.git")
        subprocess.run(
            ["git", "-C", str(root / f"{name}.git"), "config", "http.receivepack", "true"],
            check=True,
        )
    with GitHttpServer(root) as served:
        yield served


class Life:
    """One environment with one session, as their owner sees them."""

    def __init__(self, server: Server, api: Api, environment: dict[str, Any]) -> None:
        self.server = server
        self.api = api
        self.environment = environment
        self.session: dict[str, Any] = {}

    @property
    def key(self) -> str:
        return str(self.environment["id"])

    @property
    def repository(self) -> Path:
        return self.server.data_dir / "repos" / self.key

    @property
    def worktree(self) -> Path:
        return self.server.data_dir / "worktrees" / self.key / "work"

    @property
    def entry(self) -> Path:
        (found,) = (self.repository / "worktrees").iterdir()
        return found

    async def start_session(self) -> None:
        self.session = await self.api.post(
            "/api/sessions", environmentId=self.key, branch="work", name="work"
        )

    def viewer(self) -> Viewer:
        return Viewer(self.server.url, self.session["id"], self.key, self.api.token)

    async def typed(self, command: str) -> str:
        viewer = self.viewer()
        async with viewer.attached():
            return await viewer.run(command)

    async def git(self, route: str, **body: object) -> httpx.Response:
        """Ask one of git's routes, and see that it answers in time."""
        path, began = f"/api/git/{route}/{self.session['id']}", time.monotonic()
        client = self.api.client
        answer = await (client.get(path) if route in LOOKS else client.post(path, json=body))
        assert time.monotonic() - began < ANSWERS_S
        return answer

    async def refused(self, *codes: str) -> None:
        """See that routes refuse with one of these codes and a way on, or do their work."""
        for route in ("status", "log", "commit"):
            answer = await self.git(route, message="x")
            if answer.status_code != 200:
                assert (answer.status_code, answer.json()["code"]) in {(409, one) for one in codes}
                assert "epair" in answer.json()["details"]

    async def repair_session(self) -> list[str]:
        return (await self.api.post(f"/api/sessions/{self.session['id']}/repair"))["done"]

    async def repair_environment(self) -> dict[str, Any]:
        return await self.api.post(f"/api/environments/{self.key}/repair")

    async def works(self) -> None:
        """Work in the session as its owner does, from a terminal and by the API."""
        assert "committed" in await self.typed(
            'cd "$PWD" && date +%N >>now && git add now && git commit -qm now && echo committed'
        )
        answer = await self.git("status")
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"]["files"] == []
        await self.api.post(f"/api/git/push/{self.session['id']}")


@pytest.fixture
async def server(data_dir: Path, runtime: str) -> AsyncIterator[Server]:
    server = Server(
        data_dir, runtime=runtime, database_url=None, CRAFTASTIC_SANDBOX_SELF_TEST="false"
    )
    try:
        server.start()
        await server.ready()
        yield server
    finally:
        await server.clean()


@pytest.fixture
async def life(server: Server, upstream: GitHttpServer) -> AsyncIterator[Life]:
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        life = Life(server, api, await environment(api, "one", upstream.url("small.git")))
        await life.start_session()
        yield life


async def environment(api: Api, name: str, url: str) -> dict[str, Any]:
    made = await api.environment(name, url)

    async def settled() -> dict[str, Any] | None:
        now = await api.get(f"/api/environments/{made['id']}")
        return now if now["cloneStatus"] in {"ready", "failed"} else None

    return await until(settled, "the clone has ended", timeout_s=120)


def fingerprint(folder: Path) -> str:
    """Return one word for all names and contents below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(f"{path.relative_to(folder)}\0".encode())
        if path.is_file() and not path.is_symlink():
            found.update(path.read_bytes())
    return found.hexdigest()


# ---- F26 --------------------------------------------------------------------------------------


async def test_worktree_that_its_user_deletes_is_refused_repaired_and_can_be_deleted(
    life: Life,
) -> None:
    precious = await life.typed(
        "echo precious >new && git add new && git commit -qm new && git rev-parse HEAD"
    )
    await life.typed('rm -rf "$PWD"')

    await life.refused("WORKTREE_MISSING")
    began = time.monotonic()
    done = await life.repair_session()
    note("F26", "worktree made again", time.monotonic() - began, "s")

    assert "made again from its branch" in " ".join(done)
    assert await life.typed('cd "$PWD"; git rev-parse HEAD; cat new') == precious + "precious\n"
    await life.works()
    await hold(life.server)

    shutil.rmtree(life.worktree)
    await life.refused("WORKTREE_MISSING")
    await life.api.delete(f"/api/sessions/{life.session['id']}")
    await hold(life.server)
    await life.start_session()
    assert (life.worktree / "new").read_text() == "precious\n"


# ---- F27 --------------------------------------------------------------------------------------


async def test_worktree_whose_git_file_is_replaced_touches_nothing_else_and_is_linked_again(
    life: Life, upstream: GitHttpServer, data_dir: Path
) -> None:
    other = await environment(life.api, "other", upstream.url("small.git"))
    theirs = data_dir / "repos" / other["id"]
    host = data_dir / "host"
    run("git", "init", "-q", str(host))
    for hook in ("pre-commit", "post-checkout", "post-index-change"):
        file = host / ".git" / "hooks" / hook
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\ntouch {data_dir}/canary\n")
        file.chmod(0o755)
    (host / ".git" / "config").write_text(
        "[core]\n\trepositoryformatversion = 0\n\tbare = false\n"
        f"\tfsmonitor = touch {data_dir}/canary\n"
    )
    for place in (host, *host.rglob("*")):
        os.chown(place, life.worktree.stat().st_uid, life.worktree.stat().st_gid)
    await life.typed("echo mine >new; echo more >>file")
    untouched = fingerprint(theirs), fingerprint(host)
    pointer = life.worktree / ".git"

    def points_to(place: Path) -> None:
        pointer.write_text(f"gitdir: {place}\n")

    for put in (
        lambda: points_to(host / ".git"),
        lambda: points_to(theirs),
        lambda: os.mkfifo(pointer),
        lambda: pointer.symlink_to(host / ".git"),
        lambda: pointer.symlink_to("/etc/passwd"),
        lambda: shutil.copytree(host / ".git", pointer, symlinks=True),
        lambda: pointer.write_bytes(os.urandom(5000)),
    ):
        pointer.unlink()
        put()
        os.chown(
            pointer,
            life.worktree.stat().st_uid,
            life.worktree.stat().st_gid,
            follow_symlinks=False,
        )

        await life.refused("WORKTREE_MISSING")
        done = await life.repair_session()

        assert "is a worktree again" in " ".join(done)
        changed = (await life.git("status")).json()["data"]["files"]
        assert sorted(one["filename"] for one in changed) == ["file", "new"]
        assert (life.worktree / "new").read_text() == "mine\n"
        assert not (data_dir / "canary").exists()
        assert (fingerprint(theirs), fingerprint(host)) == untouched
    await life.git("commit", message="mine")
    await life.works()
    await hold(life.server)


# ---- F28 --------------------------------------------------------------------------------------


def loose_object(life: Life, name: str) -> Path:
    return life.repository / "objects" / name[:2] / name[2:]


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    owner = file.stat()
    file.chmod(0o600)
    file.write_bytes(raw)
    os.chown(file, owner.st_uid, owner.st_gid)


async def test_damaged_repository_is_told_and_repaired_beside_what_is_kept(life: Life) -> None:
    await life.typed(
        "git config --global gc.auto 0; echo new >new; git add new; git commit -qm new"
    )
    damages = ("bit in a pack", "bit in an object", "object missing", "no HEAD")
    for kept, damage in enumerate(damages, start=1):
        await life.typed("echo more >>new; git commit -qam more; echo uncommitted >>new")
        head = (await life.typed("git rev-parse HEAD")).strip()
        tree = (await life.typed("git rev-parse HEAD^{tree}")).strip()
        match damage:
            case "bit in a pack":
                # Of the remote's objects alone: what is nowhere else can still be read.
                await life.typed(
                    "git rev-list --objects origin/main | cut -c 1-40 | git pack-objects -q"
                    ' "$(git rev-parse --git-common-dir)/objects/pack/pack"; git prune-packed'
                )
                for pack in (life.repository / "objects" / "pack").glob("*.pack"):
                    flip(pack)
            case "bit in an object":
                flip(loose_object(life, tree))
            case "object missing":
                loose_object(life, head).unlink()
            case _:
                (life.repository / "HEAD").unlink()

        await life.refused("REPOSITORY_CORRUPT")
        if damage == "bit in a pack":  # what it hits need not keep anybody from a commit
            head = (await life.typed("git rev-parse HEAD")).strip()
        began = time.monotonic()
        repaired = await life.repair_environment()
        note("F28", f"repaired: {damage}", time.monotonic() - began, "s")

        assert len(repaired["kept"]) == kept
        assert (life.worktree / "new").read_text().endswith("more\nuncommitted\n")
        if damage in {"bit in a pack", "no HEAD"}:
            assert (await life.typed("git rev-parse HEAD")).strip() == head
        await life.git("commit", message="uncommitted")
        await life.works()
    await hold(life.server)


async def test_locks_that_were_left_are_told_and_removed_once_nobody_holds_them(
    life: Life,
) -> None:
    await life.typed("echo new >new")
    for lock in (
        life.entry / "index.lock",
        life.repository / "refs" / "heads" / "work.lock",
        life.repository / "packed-refs.lock",
        life.entry / "HEAD.lock",
    ):
        lock.touch()
        os.utime(lock, (LONG_AGO, LONG_AGO))

        await life.refused("GIT_LOCKED")
        done = await life.repair_session()

        assert f"{lock.name}, which a git command that was cut short had left" in " ".join(done)
        assert not lock.exists()
        (life.worktree / "new").write_text(f"{lock.name}\n")
    (life.entry / "locked").write_text("on a stick\n")
    shutil.rmtree(life.worktree)
    path = f"/api/sessions/{life.session['id']}"
    await life.api.client.patch(path, json={"status": "dead"})
    refused = await life.api.client.patch(path, json={"status": "inactive"})
    assert (refused.status_code, refused.json()["code"]) == (409, "WORKTREE_LOCKED")
    await life.refused("WORKTREE_MISSING")

    done = await life.repair_session()

    assert "was locked (on a stick)" in " ".join(done)
    assert (await life.api.client.patch(path, json={"status": "inactive"})).status_code == 200
    await life.works()
    await hold(life.server)


# ---- F14 --------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Generator[None]:
    """Have a small file system of its own at a folder."""
    folder.mkdir(mode=0o711)
    options = f"size={DISK_BYTES},mode=0711"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        missing("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# The daemon of Docker need not see what is mounted here.
@pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)])
async def test_clone_that_fills_the_disk_is_told_tidied_up_and_works_once_there_is_room(
    data_dir: Path, runtime: str, upstream: GitHttpServer
) -> None:
    repos = data_dir / "repos"
    with small_disk(repos):
        server = Server(
            data_dir, runtime=runtime, database_url=None, CRAFTASTIC_SANDBOX_SELF_TEST="false"
        )
        try:
            server.start()
            await server.ready()
            async with Api(server.url) as api:
                await api.register("a@example.com", setupToken=server.setup_token)
                life = Life(server, api, await environment(api, "one", upstream.url("small.git")))
                await life.start_session()
                used = shutil.disk_usage(repos).used

                big = await environment(api, "big", upstream.url("big.git"))

                assert (big["cloneStatus"], big["reasonCode"]) == ("failed", "DISK_FULL")
                assert "disk is full" in big["cloneReason"]
                body = {"environmentId": big["id"], "branch": "work"}
                refused = await api.client.post("/api/sessions", json=body)
                assert (refused.status_code, refused.json()["code"]) == (507, "DISK_FULL")
                assert shutil.disk_usage(repos).used - used < 1 << 20
                await life.works()
                await hold(server)

                run("mount", "-o", f"remount,size={8 * DISK_BYTES}", str(repos))
                await api.post(f"/api/environments/{big['id']}/retry")
                await api.post("/api/sessions", environmentId=big["id"], branch="work")
                await life.works()
                await hold(server)
        finally:
            await server.clean()
