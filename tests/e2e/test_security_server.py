"""A whole life of the server, recorded: what it starts and what it writes down.

One life for each runtime (Docker with PostgreSQL, `local` with SQLite) holds all of it: every step
costs seconds, and what is looked at afterwards does not depend on the others.
"""

import base64
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.conftest import PostgresServer
from tests.e2e.harness import PASSWORD, Api, Server, Viewer

PROGRAMS = ("git", "tmux")
REAL = "/usr/local/src"
"""A folder that exists on Debian and that `local` sandboxes see; the programs themselves go there
in the recorded server's view of the file system."""

MOUNTS = """
set -e
mount --bind "$1/real" "$2"
for one in git tmux; do mount --bind "$1/recorder" "$(readlink -f "/usr/bin/$one")"; done
shift 2
exec "$@"
"""
RECORDER = """#!/bin/sh
# Inside a sandbox the folder of records does not exist.
name=${{0##*/}}
if [ -d {records} ]; then echo "$name $*" >>{records}/started; fi
exec {real}/"$name" "$@"
"""


class RecordedServer(Server):
    """A server in a mount namespace where every git and tmux of the host is a recorder.

    Whatever way a program is started by, with a search path or without, its file is the recorder.
    Sandboxes of `local` see the same files; there a recorder finds no folder and goes on to the
    real program.
    """

    def __init__(self, data_dir: Path, records: Path, **more: Any) -> None:
        super().__init__(data_dir, **more)
        self.records = records
        real = records / "real"
        real.mkdir()
        for one in PROGRAMS:
            shutil.copy(Path(f"/usr/bin/{one}").resolve(), real / one)
        recorder = records / "recorder"
        recorder.write_text(RECORDER.format(records=records / "seen", real=REAL))
        recorder.chmod(0o755)
        (records / "seen").mkdir()
        (records / "seen").chmod(0o777)

    @property
    def started(self) -> list[str]:
        """What was started on the host, one command line each."""
        file = self.records / "seen" / "started"
        return file.read_text().splitlines() if file.exists() else []

    def wrapped(self, *argv: str) -> list[str]:
        script = ["sh", "-c", MOUNTS, "sh", str(self.records), REAL]
        return ["unshare", "--mount", "--propagation", "private", *script, *argv]

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.wrapped(sys.executable, "-m", "craftastic", "serve"),
                env=self.environment,
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@dataclass
class Life:
    """One recorded server, and everything secret that it gave out."""

    server: RecordedServer
    canaries: Path
    postgres: PostgresServer | None
    database: str | None
    secrets: dict[str, str] = field(default_factory=dict[str, str])

    def dump(self) -> bytes:
        """Return the whole database as text or bytes."""
        if self.postgres is None:
            folder = self.server.data_dir
            return b"".join(file.read_bytes() for file in folder.glob("craftastic.db*"))
        done = subprocess.run(
            [
                str(self.postgres.binaries / "pg_dump"),
                "--inserts",
                *self.postgres._address,
                self.database or "",
            ],
            capture_output=True,
            check=True,
        )
        return done.stdout


@pytest.fixture
def canaries() -> Iterator[Path]:
    """Give a folder that anybody on the host may write to, and no sandbox sees."""
    folder = Path(tempfile.mkdtemp(prefix="craftastic-canary-", dir="/var/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def records_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="craftastic-records-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def life(
    request: pytest.FixtureRequest,
    data_dir: Path,
    canaries: Path,
    records_folder: Path,
    runtime: str,
) -> AsyncIterator[Life]:
    records = records_folder
    postgres: PostgresServer | None = None
    name: str | None = None
    if runtime == "docker":
        found: PostgresServer = request.getfixturevalue("postgres_server")
        postgres, name = found, found.create()
    server = RecordedServer(
        data_dir,
        records,
        runtime=runtime,
        database_url=postgres.url(name) if postgres and name else None,
        CRAFTASTIC_REGISTRATION="invite",
        SANDBOX_MEMORY_LIMIT="1g",
    )
    server.start()
    await server.ready()
    yield Life(server, canaries, postgres, name)
    await server.clean()
    if postgres and name:
        postgres.drop(name)


def hostile(canaries: Path) -> str:
    """Return a script that plants every known way of making git run a program.

    Each would make a file of its own name in the canaries' folder, if it ran on the host.
    """

    def run(name: str) -> str:
        return f"touch {canaries}/{name}; false"

    configured = {
        name: run(name.replace(".", "-"))
        for name in (
            "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass",
            "core.gitProxy", "core.alternateRefsCommand", "diff.external", "sequence.editor",
            "diff.canary.command", "diff.canary.textconv", "merge.canary.driver",
            "filter.canary.clean", "filter.canary.smudge", "filter.canary.process",
            "gpg.program", "gpg.ssh.program", "gpg.ssh.defaultKeyCommand", "interactive.diffFilter",
            "pager.log", "pager.status", "pager.diff", "pager.branch", "pager.worktree",
            "uploadpack.packObjectsHook", "trailer.canary.command", "browser.canary.cmd",
            "mergetool.canary.cmd", "difftool.canary.cmd", "submodule.sub.update",
            "remote.origin.uploadpack", "remote.origin.receivepack",
        )
    }  # fmt: skip
    shell = (
        "alias.status",
        "alias.worktree",
        "alias.rev-parse",
        "alias.fetch",
        "credential.helper",
    )
    configured |= {name: f"!{run(name.replace('.', '-'))}" for name in shell}
    configured |= {
        "commit.gpgSign": "true",
        "tag.gpgSign": "true",
        "url.ext::sh -c touch% .insteadOf": "http://craftastic-gateway",
        "protocol.ext.allow": "always",
        "core.attributesFile": "attributes-of-the-canary",
    }
    hooks = (
        "post-checkout", "pre-commit", "commit-msg", "post-commit", "pre-push", "post-index-change",
        "reference-transaction", "post-rewrite", "pre-auto-gc", "fsmonitor-watchman", "update",
        "pre-receive", "post-receive", "proc-receive", "post-update", "push-to-checkout",
    )  # fmt: skip
    submodule = (
        '[submodule "sub"]\\n\\tpath = sub\\n'
        f"\\turl = ext::sh -c touch%% {canaries}/submodule\\n"
        f"\\tupdate = !touch {canaries}/submodule\\n"
    )
    lines = ["set +e", "repo=$(git rev-parse --path-format=absolute --git-common-dir)"]
    lines += [
        f"git --git-dir=$repo config {shlex.quote(name)} {shlex.quote(value)}"
        for name, value in configured.items()
    ]
    for hook in hooks:
        body = f"#!/bin/sh\n{run('hook-' + hook)}\n"
        lines += [
            f"printf %s {shlex.quote(body)} >$repo/hooks/{hook}",
            f"chmod +x $repo/hooks/{hook}",
        ]
    lines += [
        "printf '[core]\\n\\tfsmonitor = touch %s/included; false\\n' " + f"{canaries} >$repo/more",
        "git --git-dir=$repo config include.path ./more",
        "git --git-dir=$repo config core.hooksPath $repo/hooks",
        "echo '* filter=canary diff=canary merge=canary' >.gitattributes",
        "echo '* filter=canary' >$repo/info/attributes",
        f"printf {shlex.quote(submodule)} >.gitmodules",
        # A `.git` file that leads to a repository of the sandbox's own making.
        "mkdir -p other sub && cp -r $repo own.git && echo gitdir: ../own.git >other/.git",
        f"ln -s {canaries} link-to-host; ln -sfn / root; echo x >changed",
    ]
    return "\n".join(lines)


async def typed(viewer: Viewer, script: str) -> str:
    """Run a long script in the terminal's shell."""
    text = base64.b64encode(script.encode()).decode()
    await viewer.run("rm -f /tmp/script; touch /tmp/script")
    for start in range(0, len(text), 2000):
        await viewer.run(f"printf %s {text[start : start + 2000]} >>/tmp/script")
    return await viewer.run("base64 -d /tmp/script | sh", timeout_s=60)


async def test_a_whole_life_runs_nothing_on_the_host_and_tells_no_secret(
    life: Life, own_history: str, runtime: str
) -> None:
    """SEC-01, SEC-08, SEC-29, SEC-41, SEC-45."""
    server, told = life.server, life.secrets
    told["password"] = PASSWORD
    told["setup token"] = server.setup_token
    async with Api(server.url) as api, Api(server.url) as second:
        answer = await api.client.post(
            "/api/auth/register",
            json={
                "email": "a@example.com",
                "password": PASSWORD,
                "name": "A",
                "setupToken": server.setup_token,
            },
        )
        first = answer.json()["data"]
        api.signed_in(first)
        told["refresh token"] = first["refreshToken"]
        renewed = await api.post("/api/auth/refresh", refreshToken=first["refreshToken"])
        api.signed_in(renewed["data"])
        told |= {"first access token": first["accessToken"], "access token": api.token}
        told["renewed refresh token"] = renewed["data"]["refreshToken"]
        invited = await api.post("/api/auth/invitations", email="b@example.com")
        told["invitation"] = invited["data"]["token"]
        # Spent or wrong secrets are secrets too, and are what errors like to quote.
        await api.client.post("/api/auth/refresh", json={"refreshToken": first["refreshToken"]})
        await second.register("b@example.com", invitation=told["invitation"])
        await second.client.post(
            "/api/auth/register",
            json={"email": "c@example.com", "password": PASSWORD, "name": "C",
                  "invitation": told["invitation"], "setupToken": told["setup token"]},
        )  # fmt: skip
        await api.login("a@example.com")
        told["later access token"] = api.token

        environment = await api.environment("hostile", own_history)
        main = await api.post("/api/sessions", environmentId=environment["id"], branch="main")
        viewer = Viewer(server.url, main["id"], environment["id"], api.token)
        async with viewer.attached():
            repo = f"/home/dev/.craftastic/repos/{environment['id']}"
            header = await viewer.run(
                f"git --git-dir={repo} config --get-regexp 'http.*extraheader' | cat"
            )
            told["gateway token"] = header.split("Bearer ")[1].strip()
            one = await viewer.run("tr '\\0' '\\n' </proc/1/environ")
            await typed(viewer, hostile(life.canaries))
            planted = await viewer.run(f"git --git-dir={repo} config --list | grep -c canary")
            assert int(planted) > 30, "the hostile configuration is in place"
        assert [name for name, value in told.items() if value in one] == []
        if runtime == "docker":
            inspected = ["docker", "inspect", environment["containerId"]]
            shown = (await anyio.run_process(inspected)).stdout.decode()
            assert [name for name, value in told.items() if value in shown] == []

        # Everything that makes the server have git or tmux run for it, over the planted tree.
        made = await api.client.post(
            "/api/sessions", json={"environmentId": environment["id"], "branch": "other/branch"}
        )
        assert made.status_code < 500, made.text
        for path in (
            f"/api/sessions/{main['id']}/status",
            f"/api/environments/{environment['id']}",
        ):
            assert (await api.client.get(path)).status_code == 200
        await api.post("/api/cleanup/sessions")
        await api.post(f"/api/cleanup/container/{environment['containerId']}")
        for session in (main, made.json() if made.status_code == 200 else None):
            if session is not None:
                gone = await api.client.delete(f"/api/sessions/{session['id']}")
                assert gone.status_code < 500, gone.text
        again = await api.client.post(
            "/api/sessions", json={"environmentId": environment["id"], "branch": "main"}
        )
        assert again.status_code < 500, again.text
        await api.post(f"/api/cleanup/environment/{environment['id']}")

        dump = life.dump()
        assert b"a@example.com" in dump, "the dump is of this database"
        assert [name for name, value in told.items() if value.encode() in dump] == []
        assert list(life.canaries.iterdir()) == []
        control = server.data_dir / "repos" / environment["id"]
        fires_on_the_host(control, life.canaries)

        await api.delete(f"/api/environments/{environment['id']}")
        assert not control.exists()
        ended = await api.client.post("/api/auth/logout-all")
        assert ended.status_code == 200

    assert list(life.canaries.iterdir()) == []
    assert server.started == []
    log = server.log.read_text()
    assert '"level": "debug"' in log, "the log is as talkative as it can be"
    assert log.count("\n") > 30
    assert [name for name, value in told.items() if value in log] == []
    fires_when_the_server_starts_a_program(server)


def fires_on_the_host(repository: Path, canaries: Path) -> None:
    """Show that the planted repository would have run programs if git had run on the host."""
    environment = {"PATH": "/usr/bin:/bin", "GIT_TERMINAL_PROMPT": "0", "HOME": "/nonexistent"}
    for command in (["fetch", "origin"], ["log", "-p", "-1"], ["update-ref", "refs/x", "HEAD"]):
        subprocess.run(
            ["git", "-c", "safe.directory=*", f"--git-dir={repository}", *command],
            env=environment,
            capture_output=True,
            check=False,
            timeout=30,
        )
    fired = list(canaries.iterdir())
    assert fired, "the canaries can sing"
    for one in fired:
        one.unlink()


def fires_when_the_server_starts_a_program(server: RecordedServer) -> None:
    """Show that the recorder records what runs where the server runs."""
    assert server.process is not None
    subprocess.run(
        ["nsenter", f"--mount=/proc/{server.process.pid}/ns/mnt", "/usr/bin/git", "--version"],
        check=True,
        capture_output=True,
    )
    assert server.started == ["git --version"]
