"""One server with one hostile environment, and every question that makes git or tmux run there."""

import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx

from craftastic.runtimes.base import Runtime, SandboxRef
from craftastic.runtimes.docker import DockerRuntime
from craftastic.runtimes.local import LocalRuntime
from craftastic.settings import Settings
from tests.e2e.canaries import Perch, Sung, Victims, upstream_files
from tests.e2e.exec_recorder import ExecRecorder
from tests.e2e.harness import Api, Server, until
from tests.fakes.git_http_server import git, make_repository

ANSWER_S = 60.0
"""The longest that any answer may take here, where nothing is waited for by a rule."""

UNAVAILABLE = {"JOB_NOT_STARTED", "TMUX_REFUSED"}
"""How the server says that a sandbox's own programs do not do what they should."""

AT_ONCE = 3


@dataclass
class Answer:
    """What was asked, and what came of it."""

    asked: str
    status: int
    code: str
    took_s: float
    said: str
    text: str = field(repr=False)

    @property
    def clear(self) -> bool:
        """Whether it says what happened: done, or why not."""
        return self.status < 500 or (self.status == 503 and self.code in UNAVAILABLE)


@dataclass
class Life:
    """A recorded server with one environment, its sandbox as the test reaches it, and answers."""

    server: Server
    api: Api
    perch: Perch
    victims: Victims
    recorder: ExecRecorder
    runtime: Runtime
    environment: dict[str, Any]
    answers: list[Answer] = field(default_factory=list[Answer])
    sung: list[Sung] = field(default_factory=list[Sung])

    @property
    def id(self) -> str:
        return self.environment["id"]

    @property
    def repository(self) -> str:
        return f"/home/dev/.craftastic/repos/{self.id}"

    def worktree(self, branch: str) -> str:
        return f"/home/dev/.craftastic/worktrees/{self.id}/{branch}"

    async def sh(
        self, script: str, *arguments: str, stdin: bytes = b"", timeout_s: float = 60.0
    ) -> str:
        """Run a script in the sandbox, past every program of the sandbox's own."""
        ref = SandboxRef(self.runtime.name, self.environment["containerId"])
        beginning = "PATH=/usr/local/bin:/usr/bin:/bin; export PATH GIT_CONFIG_GLOBAL=/dev/null\n"
        result = await self.runtime.run(
            ref,
            ["/bin/sh", "-c", beginning + script, "sh", *arguments],
            stdin=stdin,
            timeout_s=timeout_s,
        )
        assert result.exit_code == 0, (script[:200], result.stdout[-2000:], result.stderr[-2000:])
        return result.stdout.decode(errors="replace")

    async def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, /, **query: Any
    ) -> httpx.Response:
        """Ask the server and keep the answer."""
        begun = time.monotonic()
        with anyio.fail_after(ANSWER_S):
            answer = await self.api.client.request(
                method, path, json=body, params=query or None, timeout=None
            )
        took_s = time.monotonic() - begun
        code = answer.json().get("code", "") if answer.status_code >= 400 else ""
        asked = f"{method} {path} {body or ''} {query or ''}".strip()
        text = answer.text
        self.answers.append(Answer(asked, answer.status_code, code, took_s, text[-500:], text))
        return answer

    async def listen(self) -> set[str]:
        """Return the canaries that ran in the sandbox since the last time."""
        file = f"{self.perch.folder}/sung"
        text = await self.sh('[ ! -e "$1" ] || { cat "$1"; rm -f "$1"; }', file)
        lines = [words for line in text.splitlines() if len(words := line.split()) == 3]
        found = [Sung(*words) for words in lines]
        self.sung += found
        return {one.name for one in found}


async def looks(life: Life, session: str) -> None:
    """Ask what looks at a worktree, its repository and its jobs, once each."""
    await life.ask("GET", f"/api/git/status/{session}")
    await life.ask("GET", f"/api/git/diff/{session}", base="main")
    await life.ask("GET", f"/api/git/log/{session}", limit=5)
    await life.ask("GET", f"/api/git/branches/{life.id}")
    await life.ask("GET", f"/api/sessions/{session}/setup")
    await life.ask("GET", f"/api/sessions/{session}/commands")


async def looks_closely(life: Life, session: str) -> None:
    """Ask everything that only looks, with all that can be said to it."""
    await looks(life, session)
    for query in (
        {}, {"staged": "true"}, {"base": "topic", "file": "a.txt"}, {"path": "other"},
        {"filenameBase64": "YS50eHQ="}, {"file": "--output=x"},
    ):  # fmt: skip
        await life.ask("GET", f"/api/git/diff/{session}", **query)
    await life.ask("GET", f"/api/git/log/{session}", ref="topic")
    await life.ask("GET", f"/api/git/repo/{life.id}")
    await life.ask("GET", f"/api/sessions/{session}/status")
    await life.ask("GET", f"/api/sessions/check-branch/{life.id}/main")


EDIT = """
# What sings while the test itself adds a file does not count.
path=$1 perch=$2
shift 2
cd "$path"
touch $perch/sung
cp $perch/sung $perch/before
echo x | tee -a a.txt "$@" >>staged.txt
git add -f staged.txt || true
mv $perch/before $perch/sung
"""


async def edit(life: Life, branch: str, *more: str) -> None:
    await life.sh(EDIT, life.worktree(branch), str(life.perch.folder), *more)


async def changes(life: Life, session: str, branch: str) -> None:
    """Ask everything that changes a worktree, its repository or the upstream."""
    commit, push = f"/api/git/commit/{session}", f"/api/git/push/{session}"
    await edit(life, branch)
    await life.ask("POST", commit, {"message": "staged", "staged": True})
    await life.ask("POST", commit, {"message": "one", "files": ["a.txt"]})
    await life.ask("POST", push, {})
    await edit(life, branch, "new.txt")
    await life.ask("POST", commit, {"message": "all"})
    await life.ask("POST", commit, {"message": "again", "amend": True})
    await life.ask("POST", push, {"force": True, "setUpstream": False})
    await edit(life, branch)
    await life.ask("POST", commit, {"message": "rest", "noVerify": True})
    await life.ask("POST", push, {"noVerify": True, "branch": branch})
    await life.ask("POST", f"/api/git/fetch/{session}")
    await life.ask("POST", f"/api/git/pull/{session}")
    await life.ask("POST", f"/api/git/pull/{session}", {"mode": "rebase"})
    await life.ask("POST", f"/api/sessions/{session}/setup")
    await life.ask("POST", f"/api/sessions/{session}/commands/dev")
    await life.ask("GET", f"/api/sessions/{session}/commands/dev")
    await life.ask("DELETE", f"/api/sessions/{session}/commands/dev")


async def tries(life: Life, session: str) -> None:
    """Ask once for each kind of change."""
    await life.ask("POST", f"/api/git/commit/{session}", {"message": "x", "files": ["a.txt"]})
    await life.ask("POST", f"/api/git/commit/{session}", {"message": "x"})
    await life.ask("POST", f"/api/git/push/{session}", {})
    await life.ask("POST", f"/api/git/fetch/{session}")
    await life.ask("POST", f"/api/git/pull/{session}", {"mode": "rebase"})
    await life.ask("POST", f"/api/sessions/{session}/setup")


async def created(life: Life, **body: Any) -> str | None:
    """Create a session; None where that is refused."""
    answer = await life.ask("POST", "/api/sessions", {"environmentId": life.id, **body})
    return answer.json()["id"] if answer.status_code == 200 else None


STARTS = {
    "plain": {},
    "base": {"baseBranch": "topic"},
    "linked": {"baseBranch": "linked"},
    "pull": {"pullRequest": 7},
}
UNSAVED = """
for one in plain base linked pull; do
	if cd "$1/$one"; then echo unsaved | tee new.txt >>a.txt; fi
done 2>/dev/null
"""


async def lives(life: Life, word: str, *starts: str) -> None:
    """Create sessions in every way; end, revive and delete them with work that is nowhere else."""
    begun = [await created(life, branch=f"{word}/{one}", **STARTS[one]) for one in starts or STARTS]
    if not starts:
        commit = {"baseCommit": life.environment["commit"]}
        begun.append(await created(life, branch=f"{word}/commit", **commit))
    made = [one for one in begun if one is not None]
    await life.sh(UNSAVED, life.worktree(word))
    for one in made[:1]:
        await life.ask("PATCH", f"/api/sessions/{one}", {"status": "dead"})
        await life.ask("PATCH", f"/api/sessions/{one}", {"status": "inactive"})
    for one in made:
        await life.ask("DELETE", f"/api/sessions/{one}")


async def cleans(life: Life) -> None:
    """Ask for every cleanup; the first runs the reconciler, the last ends all sessions."""
    await life.ask("POST", "/api/cleanup/sessions")
    await life.ask("POST", f"/api/cleanup/container/{life.environment['containerId']}")
    await life.ask("POST", f"/api/cleanup/environment/{life.id}")


ASTRAY = {
    "url.ext::$2/is/instead x.insteadOf": "http://",
    "url.file://$3/repo.git#.insteadOf": "http://",
    "remote.origin.vcs": "canary",
    "remote.origin.pushurl": "ext::$2/is/instead x",
    "core.worktree": "$3/folder",
}
"""Settings that lead git elsewhere; $2 is the canaries' folder, $3 one of the host."""


async def astray(life: Life, session: str) -> None:
    """Ask for what goes to the remote while something leads git somewhere else."""
    places = (life.repository, str(life.perch.folder), str(life.victims.folder))
    for key, value in ASTRAY.items():
        await life.sh(f'git config --file "$1/config" "{key}" "{value}"', *places)
        await life.ask("POST", f"/api/git/push/{session}", {})
        await life.ask("POST", f"/api/git/fetch/{session}")
        await life.ask("GET", f"/api/git/status/{session}")
        await life.sh(f'git config --file "$1/config" --unset "{key}"', *places)


PLACES = {
    "gitfile-elsewhere": """
echo "gitdir: $HOME/other.git" >.git
rm -rf .craftastic .worktreeinclude .gitignore .gitattributes
ln -s $victims/folder .craftastic
for one in .worktreeinclude .gitignore .gitattributes; do ln -s $victims/file $one; done
""",
    "gitfile-host": """
echo "gitdir: $victims/repo.git" >.git
rm -f .craftastic/config.toml .worktreeinclude
mkfifo .craftastic/config.toml .worktreeinclude a-fifo.txt
""",
    "gitfile-link": """
ln -sfn $victims/file .git
rm -rf ~/.craftastic/jobs/$session
mkdir -p ~/.craftastic/jobs
ln -s $victims/folder ~/.craftastic/jobs/$session
""",
    "git-folder": """
rm .git
cp -r ~/other.git .git
ln -s $victims/folder .git/logs
""",
    "git-fifo": "rm .git; mkfifo .git",
    "commondir": "echo $HOME/other.git >$own/commondir",
    "commondir-host": "echo $victims/repo.git >$own/commondir",
    "gitdir": "echo $victims/folder/.git >$own/gitdir",
    "own-link": "mv $own ~/own; ln -s $victims/folder $own",
    "worktree-link": "cd ..; mv $path $path.moved; ln -s $victims/folder $path",
    "worktree-file": "cd ..; rm -rf $path; echo x >$path",
    "head-link": "ln -sfn $victims/file $own/HEAD",
    "index-link": """
ln -sfn $victims/file $own/index
ln -sfn $victims/file $own/MERGE_HEAD
mkdir $own/rebase-merge
ln -s $victims/file $own/rebase-merge/autostash
""",
    "index-fifo": "rm $own/index; mkfifo $own/index",
    "locks": "ln -sfn $victims/file $own/index.lock; ln -sfn $victims/file $own/craftastic.lock",
    "own-settings": """
git config --file $repo/config extensions.worktreeConfig true
cp $repo/config.canaries $own/config.worktree
git config --file $own/config.worktree core.worktree $victims/folder
git config --file $own/config.worktree core.bare false
""",
}
"""What a sandbox can put in the place of a worktree's parts, each in a worktree of its own."""

PLACE = """
repo=$1 path=$2 victims=$3 session=$4
cd "$path"
own=$(git rev-parse --path-format=absolute --git-dir)
"""


async def places(life: Life) -> None:
    """Put something else in the place of each worktree's parts, and ask for everything there."""
    sessions: dict[str, str] = {}
    for name in PLACES:
        session = await created(life, branch=f"place/{name}")
        assert session is not None, life.answers[-1].text
        sessions[name] = session
    for name, session in sessions.items():
        await broken(life, f"place/{name}", session, PLACES[name])
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def one(session: str) -> None:
        async with limiter:
            await life.ask("GET", f"/api/git/status/{session}")
            await life.ask("POST", f"/api/git/commit/{session}", {"message": "x"})
            await life.ask("POST", f"/api/git/push/{session}", {})
            await life.ask("POST", f"/api/sessions/{session}/setup")
            await life.ask("PATCH", f"/api/sessions/{session}", {"status": "dead"})
            await life.ask("PATCH", f"/api/sessions/{session}", {"status": "inactive"})
            await life.ask("DELETE", f"/api/sessions/{session}")

    # Here git waits for ever, and each question takes as long as it may: one is enough.
    endless = sessions.pop("index-fifo")
    async with anyio.create_task_group() as group:
        group.start_soon(life.ask, "GET", f"/api/git/status/{endless}")
        for session in sessions.values():
            group.start_soon(one, session)
    await life.ask("DELETE", f"/api/sessions/{endless}")
    await cleans(life)


async def broken(life: Life, branch: str, session: str, script: str) -> None:
    await life.sh(
        PLACE + script, life.repository, life.worktree(branch), str(life.victims.folder), session
    )


async def mood(life: Life, *words: str) -> None:
    """Say how the programs in the sandbox behave from now on."""
    await life.sh(
        'cd "$1"; shift; rm -f rude lying refusing; touch . "$@"', str(life.perch.folder), *words
    )


def make_upstream(bare: Path, perch: Perch) -> str:
    """Make a repository as somebody unknown would push it; return its first commit."""
    make_repository(bare)
    work = bare.with_name("author")
    git("clone", "--quiet", str(bare), str(work))
    first = git("rev-parse", "HEAD", cwd=work).strip()
    for name, text in upstream_files(perch.folder).items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(text)
    (work / "link").symlink_to("/etc/passwd")
    git("add", "--all", cwd=work)
    git("commit", "--quiet", "-m", "as its author wants it", cwd=work)
    for branch in ("main", "topic", "linked"):
        git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}", cwd=work)
    git("push", "--quiet", "origin", "HEAD:refs/pull/7/head", cwd=work)
    return first


@asynccontextmanager
async def inside(server: Server) -> AsyncGenerator[Runtime]:
    """Give the runtime of a server, for what its user does in the sandbox."""
    settings = Settings.model_validate(
        {
            "data_dir": server.data_dir,
            "gateway_port": server.gateway_port,
            "sandbox_uid_base": server.uid_base,
            "docker_host": server.environment.get("DOCKER_HOST"),
        }
    )
    instance = (server.data_dir / "keys" / "instance").read_text().strip()
    kinds = {"local": LocalRuntime, "docker": DockerRuntime}
    runtime = kinds[server.environment["CRAFTASTIC_RUNTIME"]](settings, instance)
    try:
        yield runtime
    finally:
        await runtime.close()


def watch_the_sandbox(life: Life) -> None:
    """Have the recorder see the sandbox's own git and tmux too, where they are other files."""
    if life.runtime.name != "docker":
        return
    form = ["docker", "inspect", "--format", "{{.State.Pid}}", life.environment["containerId"]]
    pid = subprocess.run(form, capture_output=True, text=True, check=True).stdout.strip()
    for name in ("git", "tmux"):
        life.recorder.watch(Path(f"/proc/{pid}/root/usr/bin/{name}"))


async def furnish(life: Life) -> None:
    """Put canaries in the sandbox's home, on its search path and where its shells begin."""
    await life.sh(
        "/usr/bin/tar --extract --directory / --no-overwrite-dir", stdin=life.perch.furnish()
    )
    watch_the_sandbox(life)


async def lies(life: Life, session: str) -> None:
    """Ask for everything while every program of the sandbox answers with lies."""
    for words in (["lying"], ["lying", "refusing"]):
        await mood(life, *words)
        await looks(life, session)
        await tries(life, session)
        await lives(life, "-".join(words), "plain", "pull")
        await cleans(life)
    await mood(life)


AWAY = """
cd
mv .craftastic moved
rm -rf workspace .config
for one in .craftastic workspace .config .local/share; do ln -sfn "$1" $one; done
"""


async def begins_again(life: Life) -> None:
    """End the sandbox, and start it where links to the host are in the place of its folders."""
    await life.sh(AWAY, str(life.victims.folder))
    await life.ask("DELETE", f"/api/containers/{life.environment['containerId']}")
    await life.ask("POST", f"/api/environments/{life.id}/retry")

    async def runs() -> bool:
        shown = (await life.ask("GET", f"/api/environments/{life.id}")).json()
        life.environment |= shown
        return shown["status"] == "running" and "containerId" in shown

    await until(runs, "the sandbox runs again", every_s=0.5)
    await life.sh("cd; rm -f .config .local/share")
    await furnish(life)
    await life.ask("POST", f"/api/environments/{life.id}/retry")


def sings_on_the_host(life: Life) -> set[str]:
    """Run git on the host in the sandbox's repository, as a server must not; return what ran."""
    repository = life.server.data_dir / "repos" / life.id
    for command in (["canary"], ["fetch", "near"], ["update-ref", "refs/x", "HEAD"]):
        subprocess.run(
            ["git", "-c", "safe.directory=*", f"--git-dir={repository}", *command],
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
            capture_output=True,
            check=False,
            timeout=30,
        )
    sung = {line.split()[0] for line in life.perch.sung_on_the_host() if " " in line}
    (life.perch.folder / "sung").unlink(missing_ok=True)
    return sung
