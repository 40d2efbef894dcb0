"""Worktrees against real git: clone over HTTP, branches, kept work, damage."""

import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest

from craftastic.runtimes.base import Progress, SandboxRef, SandboxSpec
from craftastic.worktrees.service import (
    BadBranchName,
    BranchConflict,
    BranchInUseElsewhere,
    CloneFailed,
    Kept,
    RepositoryCorrupt,
    RepositoryMissing,
    WorktreeRefused,
    WorktreeService,
    check_branch,
    repository_path,
    worktree_path,
)
from tests.fakes.git_http_server import GitHttpServer
from tests.fakes.git_runtime import GitRuntime, runtimes_of

ENVIRONMENT = UUID("6f9d5b7e-1c1f-4a86-9a53-0d4a2d7c8f11")
OWNER = uuid4()
GIT = [
    "git",
    "-c",
    "user.name=a",
    "-c",
    "user.email=a@example.com",
    "-c",
    "init.defaultBranch=main",
]


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run([*GIT, "-C", str(folder), *arguments], check=True, capture_output=True)
    return done.stdout.decode().strip()


class Upstream:
    """The repository that the sandbox's `origin` leads to, and a checkout to change it from."""

    def __init__(self, root: Path) -> None:
        self.bare = root / "served" / "git" / f"{ENVIRONMENT}.git"
        self.bare.parent.mkdir(parents=True)
        self.work = root / "upstream-work"
        subprocess.run(
            [*GIT, "init", "-q", "--bare", str(self.bare)], check=True, capture_output=True
        )
        git(self.bare, "config", "http.receivepack", "true")
        subprocess.run([*GIT, "init", "-q", str(self.work)], check=True, capture_output=True)
        git(self.work, "remote", "add", "origin", str(self.bare))

    def commit(self, branch: str, file: str = "a.txt", text: str = "one\n") -> None:
        found = subprocess.run(
            [*GIT, "-C", str(self.work), "rev-parse", "-q", "--verify", f"refs/heads/{branch}"],
            check=False,
            capture_output=True,
        )
        if found.returncode == 0:
            git(self.work, "switch", "-q", branch)
        else:
            git(self.work, "switch", "-q", "-c", branch)
        (self.work / file).write_text(text)
        git(self.work, "add", "-A")
        git(self.work, "commit", "-q", "--allow-empty", "-m", f"{branch}: {file}")
        git(self.work, "push", "-q", "origin", branch)


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return Upstream(tmp_path)


@pytest.fixture
def server(upstream: Upstream) -> Iterator[GitHttpServer]:
    with GitHttpServer(upstream.bare.parent.parent) as server:
        yield server


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[GitRuntime]:
    folder = tmp_path / "sandboxes"
    folder.mkdir()
    runtime = GitRuntime(folder)
    yield runtime
    await runtime.close()


@pytest.fixture
async def sandbox(runtime: GitRuntime) -> SandboxRef:
    return await runtime.create(SandboxSpec(ENVIRONMENT, OWNER, 1, "one"))


@pytest.fixture
def worktrees(runtime: GitRuntime, server: GitHttpServer) -> WorktreeService:
    return WorktreeService(runtimes_of(runtime), server.port)


@pytest.fixture
async def cloned(upstream: Upstream, worktrees: WorktreeService, sandbox: SandboxRef) -> SandboxRef:
    upstream.commit("main")
    await worktrees.clone(sandbox, ENVIRONMENT, "token")
    return sandbox


class Shell:
    """Runs what a person types in a worktree, in the sandbox."""

    def __init__(self, runtime: GitRuntime, sandbox: SandboxRef) -> None:
        self.runtime = runtime
        self.sandbox = sandbox

    async def __call__(self, path: str, command: str) -> str:
        result = await self.runtime.run(
            self.sandbox,
            ["sh", "-ec", f'cd "$1"; {command}', "sh", path],
        )
        assert result.exit_code == 0, result.stderr.decode()
        return result.stdout.decode().strip()


@pytest.fixture
async def shell(runtime: GitRuntime, sandbox: SandboxRef, worktrees: WorktreeService) -> Shell:
    await worktrees.identify(sandbox, "A Person", "a@example.com")
    return Shell(runtime, sandbox)


async def ensure(worktrees: WorktreeService, sandbox: SandboxRef, branch: str) -> str:
    return (await worktrees.ensure(sandbox, ENVIRONMENT, branch, "main")).path


async def release(worktrees: WorktreeService, sandbox: SandboxRef, branch: str) -> Kept | None:
    return await worktrees.release(sandbox, ENVIRONMENT, branch, keep_as="s1")


async def test_a_clone_reports_progress_and_tells_the_default_branch(
    upstream: Upstream, worktrees: WorktreeService, sandbox: SandboxRef
) -> None:
    for number in range(150):  # git unpacks fewer objects without a word
        (upstream.work / f"f{number}").write_text(str(number))
    upstream.commit("main")
    seen: list[Progress] = []

    async def report(progress: Progress) -> None:
        seen.append(progress)

    answer = await worktrees.clone(sandbox, ENVIRONMENT, "token", report, branch="main")

    assert answer.default_branch == "main"
    assert answer.has_branch
    assert {one.step for one in seen} == {"clone"}
    assert any(one.percent is not None for one in seen)


async def test_the_token_is_sent_to_the_gateway_and_is_in_no_argument(
    upstream: Upstream,
    worktrees: WorktreeService,
    runtime: GitRuntime,
    sandbox: SandboxRef,
    server: GitHttpServer,
) -> None:
    upstream.commit("main")

    await worktrees.clone(sandbox, ENVIRONMENT, "canary-token")

    assert {headers.get("authorization") for _, _, headers in server.requests} == {
        "Bearer canary-token"
    }
    assert not any("canary-token" in part for call in runtime.calls for part in call.argv)


async def test_a_clone_may_be_repeated_and_takes_the_new_token(
    upstream: Upstream, worktrees: WorktreeService, cloned: SandboxRef, server: GitHttpServer
) -> None:
    upstream.commit("later")
    server.requests.clear()

    await worktrees.clone(cloned, ENVIRONMENT, "second")
    await ensure(worktrees, cloned, "later")

    assert {headers["authorization"] for _, _, headers in server.requests} == {"Bearer second"}


async def test_a_clone_that_was_cut_short_is_done_again(
    upstream: Upstream, worktrees: WorktreeService, runtime: GitRuntime, sandbox: SandboxRef
) -> None:
    upstream.commit("main")
    repository = runtime.inside(ENVIRONMENT, repository_path(ENVIRONMENT))
    (repository / "objects" / "pack").mkdir(parents=True)
    (repository / "objects" / "pack" / "tmp_pack_x").write_bytes(b"half")
    (repository / "HEAD").write_text("nonsense")
    (repository / "config.lock").write_text("")

    answer = await worktrees.clone(sandbox, ENVIRONMENT, "token")

    assert answer.has_branch
    assert not (repository / "objects" / "pack" / "tmp_pack_x").exists()


async def test_a_clone_fails_with_what_git_said(
    worktrees: WorktreeService, sandbox: SandboxRef, upstream: Upstream
) -> None:
    upstream.bare.rename(upstream.bare.with_suffix(".away"))

    with pytest.raises(CloneFailed) as failure:
        await worktrees.clone(sandbox, ENVIRONMENT, "token")

    assert "not found" in (failure.value.details or "")
    with pytest.raises(RepositoryMissing):
        await ensure(worktrees, sandbox, "main")


async def test_a_damaged_finished_clone_is_reported_and_left_alone(
    worktrees: WorktreeService, runtime: GitRuntime, cloned: SandboxRef
) -> None:
    repository = runtime.inside(ENVIRONMENT, repository_path(ENVIRONMENT))
    (repository / "HEAD").write_text("nonsense")

    with pytest.raises(RepositoryCorrupt):
        await ensure(worktrees, cloned, "main")
    with pytest.raises(RepositoryCorrupt):
        await worktrees.clone(cloned, ENVIRONMENT, "token")

    assert any((repository / "objects" / "pack").iterdir()) or any(
        (repository / "objects").iterdir()
    )


async def test_a_branch_of_the_remote_is_followed(
    upstream: Upstream, worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    upstream.commit("feature/x", "x.txt", "x\n")

    path = await ensure(worktrees, cloned, "feature/x")

    assert path == worktree_path(ENVIRONMENT, "feature/x")
    assert path.endswith(f"/.craftastic/worktrees/{ENVIRONMENT}/feature/x")
    assert await shell(path, "cat x.txt") == "x"
    assert await shell(path, "git rev-parse --abbrev-ref @{u}") == "origin/feature/x"


async def test_a_new_branch_begins_at_the_base(
    upstream: Upstream, worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    upstream.commit("main", "b.txt", "two\n")
    repository = shell.runtime.inside(ENVIRONMENT, repository_path(ENVIRONMENT))
    (repository / "FETCH_HEAD").unlink()

    path = await ensure(worktrees, cloned, "new")

    assert await shell(path, "git branch --show-current; cat b.txt") == "new\ntwo"


@pytest.mark.parametrize("only", ["master", "trunk"])
async def test_a_new_branch_begins_at_what_there_is_when_the_base_is_absent(
    only: str, upstream: Upstream, worktrees: WorktreeService, sandbox: SandboxRef, shell: Shell
) -> None:
    upstream.commit(only)
    git(upstream.bare, "symbolic-ref", "HEAD", f"refs/heads/{only}")
    answer = await worktrees.clone(sandbox, ENVIRONMENT, "token", branch="main")

    path = await ensure(worktrees, sandbox, "new")

    assert answer.default_branch == only
    assert not answer.has_branch
    assert await shell(path, "git log --format=%s") == f"{only}: a.txt"


async def test_an_empty_repository_gets_a_worktree_on_a_branch_to_be_born(
    worktrees: WorktreeService, sandbox: SandboxRef, shell: Shell, upstream: Upstream
) -> None:
    answer = await worktrees.clone(sandbox, ENVIRONMENT, "token")

    path = await ensure(worktrees, sandbox, "main")

    assert answer.default_branch is None
    assert await shell(path, "git status --porcelain -b") == "## No commits yet on main"
    await shell(path, "echo 1 > a; git add a; git commit -qm first; git push -q")
    assert git(upstream.bare, "log", "--format=%s", "main") == "first"


async def test_typed_fetch_pull_and_push_need_no_configuration(
    upstream: Upstream, worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "mine")

    await shell(path, "git fetch && git pull")
    await shell(path, "echo 1 > n; git add n; git commit -qm n; git push")
    await shell(path, "git fetch && git pull")

    assert git(upstream.bare, "log", "-1", "--format=%s %an", "mine") == "n A Person"
    assert await shell(path, "git rev-parse --abbrev-ref @{u}") == "origin/mine"


async def test_a_worktree_is_reused(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "main")
    await shell(path, "echo mine > mine.txt")

    again = await ensure(worktrees, cloned, "main")

    assert again == path
    assert await shell(path, "cat mine.txt") == "mine"


async def test_a_branch_that_is_checked_out_elsewhere_is_refused(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "main")
    await shell(path, "git switch -q -c other")

    with pytest.raises(BranchInUseElsewhere) as refusal:
        await ensure(worktrees, cloned, "other")

    assert refusal.value.message == "Branch 'other' is already in use by another session."


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a")])
async def test_a_branch_cannot_be_a_folder_of_another(
    first: str, second: str, worktrees: WorktreeService, cloned: SandboxRef
) -> None:
    await ensure(worktrees, cloned, first)

    with pytest.raises(BranchConflict):
        await ensure(worktrees, cloned, second)


async def test_hostile_branch_names_stay_arguments(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    for branch in ("$(touch${IFS}pwned)", 'a"b', "a;id", "a`id`", "üñ/ï", "a'b", "%2E"):
        path = await ensure(worktrees, cloned, branch)
        assert await shell(path, "git branch --show-current") == branch
    with pytest.raises(BadBranchName):
        await ensure(worktrees, cloned, "--upload-pack=x")
    assert await shell("/home/dev", "find . -name pwned") == ""


async def test_many_worktrees_are_made_at_once(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(ensure, worktrees, cloned, f"b{number}")

    listed = await shell(repository_path(ENVIRONMENT), "git worktree list")
    assert listed.count("[b") == 6


async def test_a_clean_worktree_is_removed_without_a_trace(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    await ensure(worktrees, cloned, "a/b/c")

    kept = await release(worktrees, cloned, "a/b/c")

    assert kept is None
    folder = f"/home/dev/.craftastic/worktrees/{ENVIRONMENT}"
    assert await shell(folder, "ls -A") == ""
    assert await shell(repository_path(ENVIRONMENT), "git for-each-ref refs/craftastic") == ""
    assert await release(worktrees, cloned, "a/b/c") is None


async def test_uncommitted_work_is_kept_under_a_ref(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "main")
    await shell(
        path,
        "echo changed > a.txt; mkdir d; echo new > 'd/né w'; echo '*.log' > .gitignore;"
        " echo x > x.log; printf '#!/bin/sh\\nexit 1\\n' >"
        ' "$(git rev-parse --git-common-dir)/hooks/pre-commit"',
    )

    kept = await release(worktrees, cloned, "main")

    assert kept is not None
    assert kept.ref == "refs/craftastic/kept/s1"
    assert kept.uncommitted
    assert kept.unpushed == 0
    repository = repository_path(ENVIRONMENT)
    shown = await shell(repository, f"git show {kept.ref}:a.txt; git show '{kept.ref}:d/né w'")
    assert shown == "changed\nnew"
    assert "x.log" not in await shell(repository, f"git ls-tree -r --name-only {kept.ref}")
    assert await shell(repository, f"git rev-parse {kept.ref}^") == await shell(
        repository, "git rev-parse main"
    )
    assert await shell(f"/home/dev/.craftastic/worktrees/{ENVIRONMENT}", "ls") == ""


async def test_unpushed_commits_are_kept_and_counted_even_off_any_branch(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "main")
    await shell(
        path,
        "git switch -q --detach; for n in 1 2; do echo $n > n; git add n; git commit -qm $n; done",
    )
    head = await shell(path, "git rev-parse HEAD")

    kept = await release(worktrees, cloned, "main")

    assert kept == Kept(ref="refs/craftastic/kept/s1", commit=head, unpushed=2)


async def test_what_was_only_staged_is_kept_too(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "main")
    await shell(path, "echo staged > a.txt; git add a.txt; echo one > a.txt")

    kept = await release(worktrees, cloned, "main")

    assert kept is not None
    shown = await shell(repository_path(ENVIRONMENT), f"git show {kept.ref}^2:a.txt")
    assert shown == "staged"


async def test_work_of_an_unfinished_merge_is_kept(
    upstream: Upstream, worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    upstream.commit("other", "a.txt", "other\n")
    path = await ensure(worktrees, cloned, "main")
    await shell(
        path, "git fetch -q; echo x > a.txt; git commit -qam x; git merge origin/other || true"
    )

    kept = await release(worktrees, cloned, "main")

    assert kept is not None
    assert kept.uncommitted
    assert kept.unpushed == 1
    shown = await shell(repository_path(ENVIRONMENT), f"git show {kept.ref}:a.txt")
    assert "<<<<<<<" in shown


async def test_a_repository_inside_the_worktree_keeps_the_folder(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "main")
    await shell(path, "git init -q inner; cd inner; echo 1 > i; git add i; git commit -qm inner")

    kept = await release(worktrees, cloned, "main")

    assert kept == Kept(path=path)
    assert await shell(f"{path}/inner", "git log --format=%s") == "inner"
    assert await ensure(worktrees, cloned, "main") == path


async def test_work_in_a_repository_without_commits_is_kept(
    worktrees: WorktreeService, sandbox: SandboxRef, shell: Shell
) -> None:
    await worktrees.clone(sandbox, ENVIRONMENT, "token")
    path = await ensure(worktrees, sandbox, "main")
    await shell(path, "echo first > a")

    kept = await release(worktrees, sandbox, "main")

    assert kept is not None
    assert await shell(repository_path(ENVIRONMENT), f"git show {kept.ref}:a") == "first"


@pytest.mark.parametrize(
    "damage",
    [
        "rm -rf {path}",
        "rm {path}/.git",
        "echo nonsense > {path}/.git",
        "rm {path}/.git; mkdir {path}/.git",
        "touch $(git -C {path} rev-parse --git-dir)/index.lock",
        "echo nonsense > $(git -C {path} rev-parse --git-dir)/index",
        "git -C {path} worktree lock {path}",
        "rm -rf {path}; mkdir {path}",
    ],
)
async def test_a_broken_worktree_can_be_deleted_and_made_again_and_loses_no_file(
    damage: str, worktrees: WorktreeService, runtime: GitRuntime, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "main")
    await shell(path, "echo precious > precious.txt")
    await shell("/home/dev", damage.format(path=path))
    had_file = runtime.inside(ENVIRONMENT, f"{path}/precious.txt").exists()

    kept = await release(worktrees, cloned, "main")

    if had_file:
        assert kept is not None
        command = (
            f"git show {kept.ref}:precious.txt"
            if kept.ref is not None
            else f"cat {kept.path}/precious.txt"
        )
        assert await shell(repository_path(ENVIRONMENT), command) == "precious"
    else:
        assert kept is None
    again = await ensure(worktrees, cloned, "main")
    assert await shell(again, "cat a.txt; git branch --show-current") == "one\nmain"


@pytest.mark.parametrize(
    "damage",
    [
        "rm -rf {path}",
        "echo nonsense > {path}/.git",
        "rm {path}/.git",
        "rm -rf {path}; touch {path}",
        "rm -rf {path}; ln -s /etc {path}",
    ],
)
async def test_a_broken_worktree_is_repaired_or_made_again(
    damage: str, worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "main")
    await shell("/home/dev", damage.format(path=path))

    assert await ensure(worktrees, cloned, "main") == path

    assert await shell(path, "cat a.txt; git branch --show-current") == "one\nmain"


async def test_a_worktree_whose_making_was_cut_short_is_made_again(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "main")
    await shell(path, 'echo -n initializing > "$(git rev-parse --git-dir)/locked"; rm a.txt')

    await ensure(worktrees, cloned, "main")

    assert await shell(path, "cat a.txt; git status --porcelain") == "one"


async def test_a_missing_locked_worktree_is_refused_with_the_way_out(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    path = await ensure(worktrees, cloned, "main")
    await shell("/home/dev", f"git -C {path} worktree lock {path}; rm -rf {path}")

    with pytest.raises(WorktreeRefused) as refusal:
        await ensure(worktrees, cloned, "main")

    assert "git worktree unlock" in refusal.value.message


async def test_the_sandboxes_own_hooks_do_not_run_in_our_commands(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    hook = f"{repository_path(ENVIRONMENT)}/hooks/post-checkout"
    await shell(
        "/home/dev", f"printf '#!/bin/sh\\ntouch /home/dev/ran\\n' > {hook}; chmod +x {hook}"
    )

    await ensure(worktrees, cloned, "new")

    assert await shell("/home/dev", "ls ran 2>/dev/null || echo no") == "no"


async def test_a_silent_upstream_does_not_keep_a_session_on_a_known_branch_waiting(
    worktrees: WorktreeService, cloned: SandboxRef, upstream: Upstream, shell: Shell
) -> None:
    upstream.bare.rename(upstream.bare.with_suffix(".away"))
    repository = shell.runtime.inside(ENVIRONMENT, repository_path(ENVIRONMENT))
    (repository / "FETCH_HEAD").unlink()

    path = await ensure(worktrees, cloned, "offline")

    assert await shell(path, "git branch --show-current") == "offline"


async def test_unsaved_work_is_listed(
    worktrees: WorktreeService, cloned: SandboxRef, shell: Shell
) -> None:
    await ensure(worktrees, cloned, "clean")
    path = await ensure(worktrees, cloned, "dirty")
    await shell(path, "echo 1 > n; git add n; git commit -qm n; echo 2 > m")

    (found,) = await worktrees.unsaved(cloned, ENVIRONMENT)

    assert (found.branch, found.uncommitted, found.unpushed) == ("dirty", True, 1)


NAMES = [
    *("a", "a/b", "a-b", "a.b", "a@b", "a{b", "a]", "@/a", "-a", "a/-b", "/a", "a/", "a//b", "a."),
    *("a./b", ".a", "a/.b", "a..b", "a.lock", "a.lock/b", "a b", "a~b", "a^b", "a:b", "a?b", "a*b"),
    *("a[b", "a\\b", "a@{b", "@", "HEAD", "a/HEAD", "refs/heads/x", "ü", "a\x7fb", "a\tb", "%41"),
    *("a;id", "$(id)", "`id`", 'a"b', "a'b", "a|b", "a&b", "#1", "a,b", "a=b", "a+b", "a!b", "(a)"),
]
STRICTER = {"@", "refs/heads/x"}


@pytest.mark.parametrize("name", NAMES)
def test_the_rules_of_branch_names_are_those_of_git(name: str) -> None:
    done = subprocess.run(
        ["git", "check-ref-format", "--branch", name], check=False, capture_output=True
    )
    allowed_by_git = done.returncode == 0
    try:
        allowed = check_branch(name) == name
    except BadBranchName:
        allowed = False

    assert allowed == (allowed_by_git and name not in STRICTER)


async def test_a_clone_sets_whom_commits_are_by_unless_the_user_has(
    upstream: Upstream, worktrees: WorktreeService, runtime: GitRuntime, sandbox: SandboxRef
) -> None:
    upstream.commit("main")

    async def named() -> tuple[str, str]:
        said = await runtime.run(
            sandbox, ["sh", "-c", "git config --global user.name; git config --global user.email"]
        )
        name, email = said.stdout.decode().splitlines()
        return name, email

    first, later = ("A Person", "a@example.com"), ("Another", "b@example.com")
    await worktrees.clone(sandbox, ENVIRONMENT, "token", identity=first)
    assert await named() == first

    await worktrees.clone(sandbox, ENVIRONMENT, "token", identity=later)
    assert await named() == first


@dataclass(frozen=True)
class Following:
    argv: Sequence[str]
    stdin: bytes = b""


@pytest.mark.parametrize("code", [0, 3])
async def test_a_command_follows_a_worktree_and_says_how_it_ended(
    worktrees: WorktreeService, cloned: SandboxRef, runtime: GitRuntime, code: int
) -> None:
    words = ["sh", "-c", f'cat >"$1/got"; echo said; echo more >&2; exit {code}', "sh"]
    path = (await worktrees.ensure(cloned, ENVIRONMENT, "main", "main")).path
    calls = len(runtime.calls)

    then = Following([*words, path], b"input")
    made = await worktrees.ensure(cloned, ENVIRONMENT, "main", "main", then=then)

    assert len(runtime.calls) == calls + 1
    assert made.then is not None
    assert (made.then.exit_code, made.then.stderr) == (code, b"said\nmore\n")
    got = await runtime.run(cloned, ["cat", f"{path}/got"])
    assert got.stdout == b"input"


async def test_no_command_follows_a_worktree_that_is_still_to_be_prepared(
    upstream: Upstream, worktrees: WorktreeService, sandbox: SandboxRef
) -> None:
    (upstream.work / ".worktreeinclude").write_text(".env\n")
    upstream.commit("main")
    await worktrees.clone(sandbox, ENVIRONMENT, "token")

    made = await worktrees.ensure(
        sandbox, ENVIRONMENT, "main", "main", session_id=uuid4(), then=Following(["false"])
    )

    assert made.fresh
    assert made.then is None


async def test_no_command_follows_a_worktree_that_is_refused(
    worktrees: WorktreeService, cloned: SandboxRef, runtime: GitRuntime
) -> None:
    path = (await worktrees.ensure(cloned, ENVIRONMENT, "a", "main")).path

    with pytest.raises(BranchConflict):
        await worktrees.ensure(
            cloned, ENVIRONMENT, "a/b", "main", then=Following(["touch", f"{path}/never"])
        )

    assert (await runtime.run(cloned, ["ls", path])).stdout == b"a.txt\n"
