"""Fetch and pull through the API and the real gateway: done, or nothing is changed."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from craftastic.database import Database
from craftastic.git import _pulling
from craftastic.git._scripts import Place
from tests.conftest import driver_url
from tests.fakes.clock import FakeClock
from tests.fakes.git_http_server import git
from tests.fakes.git_rig import GitRig, git_rig
from tests.fakes.git_runtime import GitRuntime

ZEROS = "0" * 40


@pytest.fixture
async def database(copy_of_template: Callable[[str], str]) -> AsyncIterator[Database]:
    """Give one kind only: nothing here depends on the database."""
    database = Database(driver_url(copy_of_template("sqlite")))
    yield database
    await database.close()


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[GitRuntime]:
    folder = tmp_path / "sandboxes"
    folder.mkdir()
    runtime = GitRuntime(folder)
    yield runtime
    await runtime.close()


@pytest.fixture
async def rig(
    database: Database, clock: FakeClock, runtime: GitRuntime, tmp_path: Path
) -> AsyncIterator[GitRig]:
    async with git_rig(database, clock, runtime, tmp_path) as rig:
        yield rig


# ---- fetch ----------------------------------------------------------------------------------


async def test_a_fetch_brings_the_remotes_branches(rig: GitRig) -> None:
    old = rig.upstream.refs()["refs/heads/main"]
    new = rig.upstream.commit({"x.txt": "1"})
    far = rig.upstream.commit({"y.txt": "1"}, branch="far")
    head = await rig.head()

    fetched = (await rig.post("fetch"))["data"]
    again = (await rig.post("fetch"))["data"]
    git("update-ref", "-d", "refs/heads/far", cwd=rig.upstream.bare)
    pruned = (await rig.post("fetch"))["data"]

    assert fetched == {
        "branch": "work",
        "upstream": "origin/main",
        "ahead": 0,
        "behind": 1,
        "updates": [
            {"ref": "refs/remotes/origin/far", "old": None, "new": far},
            {"ref": "refs/remotes/origin/main", "old": old, "new": new},
        ],
    }
    assert again["updates"] == []
    assert pruned["updates"] == [{"ref": "refs/remotes/origin/far", "old": far, "new": None}]
    assert await rig.head() == head


# ---- pull -----------------------------------------------------------------------------------


async def test_a_pull_moves_branch_index_and_files_forward(rig: GitRig) -> None:
    before = await rig.head()
    new = rig.upstream.commit({"x/y.txt": "1\n", "a.txt": "changed\n"})
    await rig.sh("echo mine >> b.txt; echo st >> c.txt; git add c.txt; echo u > untracked")
    mine = await rig.sh("git status --porcelain")

    pulled = await rig.post("pull")
    again = await rig.post("pull")

    assert pulled["data"] == {
        "branch": "work",
        "upstream": "origin/main",
        "before": before,
        "after": new,
        "updated": True,
        "commits": 1,
    }
    assert (again["data"]["updated"], again["data"]["commits"]) == (False, 0)
    assert await rig.head() == new
    assert await rig.sh("cat a.txt x/y.txt") == "changed\n1"
    assert await rig.sh("git status --porcelain") == mine
    assert await rig.sh("git rev-parse ORIG_HEAD HEAD@{1}") == f"{before}\n{before}"


async def test_diverged_branches_are_rebased_only_when_asked(rig: GitRig) -> None:
    await rig.commit_typed("m1.txt", message="mine 1")
    await rig.commit_typed("m2.txt", message="mine 2")
    theirs = rig.upstream.commit({"t.txt": "1\n"})
    await rig.sh("echo wip >> a.txt; echo u > untracked; git add -N untracked")
    before = await rig.fingerprint()

    body = await rig.refused(409, "PULL_DIVERGED", "pull")
    same = await rig.fingerprint()
    pulled = await rig.post("pull", mode="rebase")

    assert (body["ahead"], body["behind"]) == (2, 1)
    assert same == before
    assert pulled["data"]["commits"] == 1
    assert await rig.sh("git log -3 --format=%s") == "mine 2\nmine 1\nchange"
    assert await rig.sh("git rev-parse HEAD~2") == theirs
    assert await rig.sh("git log -1 '--format=%an, %cn'") == "A Person, Ada Lovelace"
    assert await rig.sh("cat m2.txt t.txt; tail -1 a.txt") == "x\n1\nwip"
    assert await rig.sh("git worktree list | wc -l") == "2"
    assert await rig.sh("ls -A ..") == "work"


@pytest.mark.parametrize("mode", ["ff-only", "rebase"])
async def test_changes_that_are_not_committed_are_never_overwritten(mode: str, rig: GitRig) -> None:
    if mode == "rebase":
        await rig.commit_typed("m.txt")
    rig.upstream.commit({"a.txt": "theirs\n", "new.txt": "theirs\n", "d/e": "1\n", "f": "1\n"})
    for change, names in (
        ("echo mine >> a.txt", ["a.txt"]),
        ("echo mine >> a.txt; git add a.txt", ["a.txt"]),
        ("echo mine > new.txt", ["new.txt"]),
        ("echo new.txt > .gitignore; echo mine > new.txt", ["new.txt"]),
        ("echo mine > d", ["d"]),
        ("echo d > .gitignore; ln -s /nowhere d", ["d"]),
        ("echo f > .gitignore; mkdir f; echo mine > f/g", ["f/g"]),
        ("mkdir f; echo mine > f/g", ["f/g"]),
    ):
        await rig.sh(change)
        before = await rig.fingerprint()

        body = await rig.refused(409, "UNCOMMITTED_CHANGES", "pull", mode=mode)

        assert body["files"] == names, change
        assert await rig.fingerprint() == before, change
        await rig.sh("git reset -q --hard; git clean -qfdx")


@pytest.mark.parametrize("ignored", [True, False])
async def test_a_repository_in_the_worktree_is_not_pulled_over(ignored: bool, rig: GitRig) -> None:
    if ignored:
        await rig.sh("echo vendor/ > $(git rev-parse --git-common-dir)/info/exclude")
    await rig.sh(
        "mkdir -p vendor/lib; cd vendor/lib; git init -q; echo mine > file; git add .;"
        "git commit -qm mine; mkdir other; echo mine > other/file"
    )
    rig.upstream.commit({"vendor/lib/file": "theirs\n", "vendor/lib/other": "theirs\n"})
    before = await rig.fingerprint()

    body = await rig.refused(409, "UNCOMMITTED_CHANGES", "pull")

    assert body["files"] == ["vendor/lib/file", "vendor/lib/other/file"]
    assert await rig.fingerprint() == before


async def test_files_that_the_index_has_give_way_to_those_of_the_upstream(rig: GitRig) -> None:
    rig.upstream.commit({"x": "1\n", "d/e": "1\n"})
    await rig.post("pull")
    git("rm", "-q", "-r", "x", "d", cwd=rig.upstream.work)
    git("commit", "-q", "-m", "gone", cwd=rig.upstream.work)
    git("push", "-q", "origin", "main", cwd=rig.upstream.work)
    rig.upstream.commit({"x/y": "2\n", "d": "2\n"})

    await rig.post("pull")

    assert await rig.sh("cat x/y d; git status --porcelain") == "2\n2"


# What git does when the sandbox is ended in the last step of a pull.
CUT_SHORT = {
    "before anything": ("read-tree -m -u", "", False),
    "some files": (
        "read-tree -m -u",
        "rm gone; /usr/bin/git show origin/main:a.txt > a.txt; mkdir d; echo theirs > d/new;",
        True,
    ),
    "all files": ("update-ref -m pull", "", True),
}


@pytest.mark.parametrize("cut", CUT_SHORT)
@pytest.mark.parametrize("then", ["pull", "commit"])
async def test_a_pull_that_was_cut_short_is_ended_or_undone_by_what_comes_next(
    cut: str, then: str, rig: GitRig
) -> None:
    step, done, begun = CUT_SHORT[cut]
    rig.upstream.commit({"gone": "1\n"})
    await rig.post("pull")
    git("rm", "-q", "gone", cwd=rig.upstream.work)
    new = rig.upstream.commit({"a.txt": "theirs\n", "d/new": "theirs\n", "b.txt": "theirs\n"})
    await rig.sh("echo mine >> c.txt; echo st > staged; git add staged; echo u > untracked")
    old = await rig.head()
    rig.replace_git(f'case "$*" in *"{step}"*) {done} kill -9 $PPID; exit 1;; esac')
    answer = await rig.ask("POST", "pull", json={})
    assert answer.status_code == 409, answer.text
    assert await rig.head() == old
    rig.replace_git("")

    if then == "pull":
        await rig.post("pull")
        assert await rig.head() == new
    else:
        await rig.post("commit", message="m")
        assert await rig.sh("git rev-parse HEAD~1") == (new if begun else old)
        assert await rig.sh("git show --format= --name-only") == "c.txt\nstaged\nuntracked"

    left = "A  staged\n M c.txt\n?? untracked" if then == "pull" else ""
    assert sorted((await rig.sh("git status --porcelain")).splitlines()) == sorted(
        " M c.txt\nA  staged\n?? untracked".strip().splitlines() if left else []
    )
    assert await rig.sh("ls $(git rev-parse --git-dir) | grep craftastic-pull || true") == ""


@pytest.mark.parametrize(
    ("meanwhile", "status"),
    [
        ("git reset -q --hard", ""),
        ("echo mine > a.txt; git reset -q", "M a.txt"),
        ("git commit -qm own", ""),
        ("git checkout -q -f -b other", ""),
    ],
)
async def test_a_pull_that_was_cut_short_takes_nothing_from_who_went_on_from_there(
    meanwhile: str, status: str, rig: GitRig
) -> None:
    rig.upstream.commit({"a.txt": "theirs\n", "d/new": "theirs\n"})
    rig.replace_git('case "$*" in *"update-ref -m pull"*) kill -9 $PPID; exit 1;; esac')
    await rig.ask("POST", "pull", json={})
    rig.replace_git("")
    await rig.sh(meanwhile)
    head, files = await rig.head(), await rig.sh("cat a.txt")

    await rig.ask("POST", "push", json={})

    assert await rig.sh("cat a.txt") == files
    if status:
        assert await rig.sh("git diff --name-only; git ls-files -d") == "a.txt"
    else:
        assert await rig.head() == head
        assert await rig.sh("git status --porcelain") == ""


async def test_a_conflict_leaves_everything_as_it_was(rig: GitRig) -> None:
    await rig.commit_typed("a.txt", "mine\n")
    rig.upstream.commit({"a.txt": "theirs\n"})
    await rig.sh("echo wip >> b.txt; echo st >> c.txt; git add c.txt; echo u > untracked")
    before = await rig.fingerprint()

    body = await rig.refused(409, "PULL_CONFLICT", "pull", mode="rebase")

    assert body["files"] == ["a.txt"]
    assert await rig.fingerprint() == before
    assert (await rig.get("status"))["operation"] is None
    assert await rig.sh("git worktree list | wc -l") == "2"


async def test_a_pull_that_is_cancelled_at_any_step_is_done_or_not_done(
    rig: GitRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.commit_typed("m.txt")
    rig.upstream.commit({"a.txt": "theirs\n", "t.txt": "1\n"})
    await rig.sh("echo wip >> b.txt; echo u > untracked")
    before = await rig.fingerprint()
    run = Place.run

    for step in ("fetch", "combine", "move"):
        begun = anyio.Event()

        async def noted(
            place: Place,
            name: str,
            *rest: Any,
            begun: anyio.Event = begun,
            step: str = step,
            **more: Any,
        ) -> Any:
            if name == step:
                begun.set()
            return await run(place, name, *rest, **more)

        monkeypatch.setattr(Place, "run", noted)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: rig.ask("POST", "pull", json={"mode": "rebase"}))
            await begun.wait()
            tasks.cancel_scope.cancel()
        monkeypatch.setattr(Place, "run", run)

        if step != "move":
            assert await rig.fingerprint() == before, step
    assert await rig.sh("git log -2 --format=%s") == "typed\nchange"
    assert await rig.sh("git status --porcelain") == "M b.txt\n?? untracked"


async def test_a_pull_that_takes_too_long_changes_nothing(
    rig: GitRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pulling, "COMBINE_S", 1)
    await rig.commit_typed("a.txt", "mine\n")
    rig.upstream.commit({"a.txt": "theirs\n"})
    await rig.sh(
        "echo 'a.txt merge=slow' > $(git rev-parse --git-common-dir)/info/attributes;"
        "git config merge.slow.driver 'sleep 300'"
    )
    before = await rig.fingerprint()

    await rig.refused(503, "GIT_TIMEOUT", "pull", mode="rebase")

    assert await rig.fingerprint() == before
    assert await rig.sh("git worktree list | wc -l") == "2"


async def test_where_a_pull_makes_no_sense_it_says_why(rig: GitRig) -> None:
    await rig.sh("git branch --unset-upstream")
    await rig.refused(409, "NO_UPSTREAM", "pull")
    await rig.refused(400, "INVALID_INPUT", "pull", mode="merge")
    await rig.sh("git checkout -q --detach")
    await rig.refused(409, "NOT_ON_BRANCH", "pull")
    await rig.sh("git checkout -q work")
    await rig.commit_typed("a.txt", "mine\n")
    await rig.sh("git checkout -q -b other HEAD~1")
    await rig.commit_typed("a.txt", "other\n")
    await rig.sh("git merge work || true")
    before = await rig.fingerprint()

    await rig.refused(409, "OPERATION_IN_PROGRESS", "pull")

    assert await rig.fingerprint() == before


async def test_a_branch_without_a_commit_is_pulled_into(rig: GitRig) -> None:
    await rig.sh("git checkout -q --orphan fresh; git rm -rqf .; git branch -u origin/main || true")
    rig.upstream.commit({"x.txt": "1\n"}, branch="fresh")

    pulled = (await rig.post("pull"))["data"]

    assert (pulled["before"], pulled["updated"]) == (None, True)
    assert await rig.head() == pulled["after"]
    assert await rig.sh("git status --porcelain; ls") != ""
