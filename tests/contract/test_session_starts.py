"""Sessions that begin at a branch, a commit or a pull request, over real git."""

import hashlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from craftastic.database import Database
from craftastic.errors import CraftasticError
from craftastic.sessions.service import Session
from craftastic.worktrees.service import (
    BadBase,
    BadBranchName,
    BaseAmbiguous,
    BaseNotFound,
    BaseUnreachable,
    BranchExists,
    Start,
    start_of,
)
from tests.fakes.clock import FakeClock
from tests.fakes.served import Rig, client_for, rigged
from tests.fakes.workshop import rows, until

PULLS = ["refs/pull/7/head", "refs/merge-requests/7/head", "refs/pull-requests/7/from"]


@pytest.fixture
async def rig(tmp_path: Path, database: Database, clock: FakeClock) -> AsyncIterator[Rig]:
    async with rigged(tmp_path, database, clock, {"a.txt": "one\n"}) as rig:
        yield rig


def branch(name: str) -> Start | None:
    return start_of(name, None, None)


def commit(name: str) -> Start | None:
    return start_of(None, name, None)


def pull(number: int) -> Start | None:
    return start_of(None, None, number)


async def head(rig: Rig, session: Session) -> str:
    return await rig.git(session, "rev-parse", "HEAD")


async def upstream_of(rig: Rig, session: Session) -> str:
    return await rig.git(
        session, "for-each-ref", "--format=%(upstream)", f"refs/heads/{session.branch}"
    )


async def test_a_branch_of_the_remote_is_begun_at_as_it_is_there_now(rig: Rig) -> None:
    newest = rig.upstream.commit("develop", {"d.txt": "new\n"})

    made = await rig.make("mine", branch("develop"))

    assert await head(rig, made) == newest
    assert await upstream_of(rig, made) == "refs/remotes/origin/develop"
    assert made.start is not None
    assert made.start.commit == newest


async def test_a_branch_that_was_never_pushed_can_be_begun_at(rig: Rig) -> None:
    first = await rig.make("first")
    own = await rig.commit(first, "own.txt")

    made = await rig.make("second", branch("first"))

    assert await head(rig, made) == own
    assert await upstream_of(rig, made) == ""


@pytest.mark.parametrize("parted", [False, True])
async def test_work_on_top_of_the_remotes_branch_counts_until_they_part(
    parted: bool, rig: Rig
) -> None:
    rig.upstream.commit("develop", {"d.txt": "new\n"})
    local = await rig.commit(await rig.make("develop"), "own.txt")
    remote = rig.upstream.commit("develop", {"e.txt": "newer\n"}) if parted else None

    made = await rig.make("mine", branch("develop"))

    assert await head(rig, made) == (remote or local)


@pytest.mark.parametrize("digits", [7, 12, 40])
async def test_a_commit_is_found_by_its_id_and_fetched_where_it_is_not_known(
    digits: int, rig: Rig
) -> None:
    older = rig.upstream.commit("develop", {"d.txt": "1\n"})
    rig.upstream.commit("develop", {"d.txt": "2\n"})

    made = await rig.make("mine", commit(older[:digits].upper()))

    assert await head(rig, made) == older
    assert await upstream_of(rig, made) == ""


async def test_a_branch_that_is_called_like_a_commit_is_not_taken_for_it(rig: Rig) -> None:
    older = rig.upstream.commit("develop", {"d.txt": "1\n"})
    rig.upstream.commit(older[:8], {"trap.txt": "2\n"})

    made = await rig.make("mine", commit(older[:8]))

    assert await head(rig, made) == older


def twins(tree: str) -> tuple[bytes, bytes]:
    """Return two commits whose ids begin with the same seven digits."""
    seen: dict[str, bytes] = {}
    for number in range(1_000_000):
        body = f"tree {tree}\nauthor a <a> {number} +0000\ncommitter a <a> 0 +0000\n\nx\n".encode()
        found = hashlib.sha1(b"commit %d\0" % len(body) + body, usedforsecurity=False)
        name = found.hexdigest()[:7]
        if name in seen:
            return seen[name], body
        seen[name] = body
    raise AssertionError("no twins")


def push_object(rig: Rig, body: bytes) -> str:
    """Store a commit in the upstream, on a branch of its own, and return its id."""
    done = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=rig.upstream.work,
        input=body,
        check=True,
        capture_output=True,
    )
    name = done.stdout.decode().strip()
    rig.upstream.git("push", "-q", "origin", f"{name}:refs/heads/twin-{name}")
    return name


async def test_an_id_that_two_commits_begin_with_is_refused(rig: Rig) -> None:
    names = [push_object(rig, body) for body in twins(rig.upstream.git("rev-parse", "HEAD^{tree}"))]
    assert names[0][:7] == names[1][:7]

    with pytest.raises(BaseAmbiguous, match="More than one"):
        await rig.make("mine", commit(names[0][:7]))

    assert await head(rig, await rig.make("mine", commit(names[0][:39]))) == names[0]


@pytest.mark.parametrize("ref", PULLS)
async def test_a_pull_request_gets_a_branch_that_no_push_leads_back_to(ref: str, rig: Rig) -> None:
    proposed = rig.upstream.commit("proposal", {"p.txt": "p\n"}, to=ref)

    made = await rig.make(None, pull(7))

    assert (made.name, made.branch) == ("pr-7", "pr-7")
    assert await head(rig, made) == proposed
    assert await upstream_of(rig, made) == ""
    assert await rig.git(made, "config", "push.default") == "current"
    deleted = await rig.shop.sessions.delete(rig.shop.owner, made.id)
    assert deleted.kept is None, "what others proposed is no work of ours that could be lost"


async def test_a_pull_request_may_be_given_another_branch(rig: Rig) -> None:
    proposed = rig.upstream.commit("proposal", {"p.txt": "p\n"}, to=PULLS[0])

    made = await rig.make("review/seven", pull(7))

    assert made.branch == "review/seven"
    assert await head(rig, made) == proposed


@pytest.mark.parametrize(
    "start", [branch("nowhere"), commit("0123456789"), commit("f" * 40), pull(404)]
)
async def test_a_base_that_does_not_exist_is_not_found_and_leaves_nothing(
    start: Start, rig: Rig, database: Database
) -> None:
    before = rig.refs()

    with pytest.raises(BaseNotFound, match="does not exist"):
        await rig.make("mine", start)

    assert rig.refs() == before
    assert await rows(database, "SELECT * FROM sessions") == []
    assert await rig.shop.sessions.tmux.names(rig.environment.sandbox) == set()
    home = rig.runtime.home(rig.environment.id)
    assert [path.name for path in home.glob(".craftastic/worktrees/*/*")] == []
    assert list(home.glob(".craftastic/jobs/*")) == []
    assert (await rig.make("mine")).ready


async def test_a_branch_that_stands_elsewhere_is_never_moved(rig: Rig) -> None:
    made = await rig.make("mine")
    stands = await rig.commit(made, "own.txt")
    await rig.shop.sessions.delete(rig.shop.owner, made.id)
    rig.upstream.commit("develop", {"d.txt": "d\n"})

    with pytest.raises(BranchExists, match="exists already"):
        await rig.make("mine", branch("develop"))

    back = await rig.make("mine")
    assert await head(rig, back) == stands


async def test_a_branch_of_the_remote_that_stands_elsewhere_is_in_the_way_too(rig: Rig) -> None:
    rig.upstream.commit("mine", {"m.txt": "m\n"})
    rig.upstream.commit("develop", {"d.txt": "d\n"})

    with pytest.raises(BranchExists):
        await rig.make("mine", branch("main"))

    assert "refs/heads/mine" not in rig.refs()


async def test_a_branch_that_stands_where_it_shall_begin_is_taken(rig: Rig) -> None:
    await rig.shop.sessions.delete(rig.shop.owner, (await rig.make("mine")).id)

    made = await rig.make("mine", branch("main"))

    assert made.start is not None
    assert await head(rig, made) == made.start.commit


async def test_a_refusal_does_not_touch_the_worktree_that_is_in_the_way(rig: Rig) -> None:
    made = await rig.make("mine")
    nested = rig.tree(made) / "nested"
    await rig.sh('git init -q "$1"/nested; echo mine >"$1"/nested/x', made.working_directory)
    await rig.shop.sessions.delete(rig.shop.owner, made.id)
    assert nested.exists(), "a commit cannot hold it, so the folder stays"
    rig.upstream.commit("develop", {"d.txt": "d\n"})

    with pytest.raises(BranchExists):
        await rig.make("mine", branch("develop"))

    assert (nested / "x").read_text() == "mine\n"


async def test_a_server_that_is_away_keeps_nobody_from_what_is_here(rig: Rig) -> None:
    rig.upstream.commit("proposal", {"p.txt": "p\n"}, to=PULLS[0])
    known = await rig.make("first", pull(7))
    at = await head(rig, known)
    rig.server.__exit__()

    assert await head(rig, await rig.make("by-commit", commit(at[:10]))) == at
    assert await head(rig, await rig.make("by-pull", pull(7))) == at
    assert await head(rig, await rig.make("by-branch", branch("first"))) == at
    for start in (branch("nowhere"), commit("0123456789"), pull(8)):
        with pytest.raises(BaseUnreachable, match="did not answer"):
            await rig.make("mine", start)


async def test_a_repetition_after_a_crash_begins_at_the_same_commit(
    rig: Rig, database: Database
) -> None:
    first = rig.upstream.commit("develop", {"d.txt": "1\n"})

    async def pinned() -> bool:
        return any(ref.startswith("refs/craftastic/start/") for ref in rig.refs())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.make, "mine", branch("develop"))
        await until(pinned)
        tasks.cancel_scope.cancel()
    # As if the crash had come before the branch was made.
    (session,) = await rig.shop.sessions.list_owned(rig.shop.owner, rig.environment.id)
    if not session.ready:
        await rig.sh(
            'rm -rf "$2"; cd "$1"; git worktree prune; git branch -q -D mine 2>/dev/null || true',
            str(repository_inside(rig)),
            session.working_directory,
        )
    rig.upstream.commit("develop", {"d.txt": "2\n"})

    await rig.shop.sessions.reconcile()

    (session,) = await rig.shop.sessions.list_owned(rig.shop.owner, rig.environment.id)
    assert session.ready
    assert await head(rig, session) == first
    assert session.start is not None
    assert session.start.commit == first


def repository_inside(rig: Rig) -> str:
    return f"/home/dev/.craftastic/repos/{rig.environment.id}"


async def test_a_session_whose_branch_went_on_is_revived_even_in_a_new_worktree(rig: Rig) -> None:
    rig.upstream.commit("develop", {"d.txt": "1\n"})
    made = await rig.make("mine", branch("develop"))
    went_on = await rig.commit(made, "own.txt")
    rig.upstream.commit("develop", {"d.txt": "2\n"})
    await rig.sh('rm -rf "$1"', made.working_directory)
    await rig.shop.sessions.tmux.kill(rig.environment.sandbox, made.tmux_name)
    await rig.shop.sessions.reconcile()

    revived = await rig.shop.sessions.revive(rig.shop.owner, made.id)

    assert await head(rig, revived) == went_on


async def test_a_deleted_session_leaves_no_mark_of_where_it_began(rig: Rig) -> None:
    rig.upstream.commit("develop", {"d.txt": "1\n"})
    made = await rig.make("mine", branch("develop"))
    assert f"refs/craftastic/start/{made.id}" in rig.refs()

    await rig.shop.sessions.delete(rig.shop.owner, made.id)

    assert [ref for ref in rig.refs() if ref.startswith("refs/craftastic/")] == []


@pytest.mark.parametrize(
    ("named", "refused"),
    [
        (("main", "0123456", None), BadBase),
        (("main", None, 1), BadBase),
        ((None, "0123456", 1), BadBase),
        ((None, "012345", None), BadBase),
        ((None, "main123", None), BadBase),
        ((None, "0" * 65, None), BadBase),
        ((None, "--all--", None), BadBase),
        ((None, None, 0), BadBase),
        ((None, None, 2**31), BadBase),
        (("-x", None, None), BadBranchName),
        (("refs/heads/main", None, None), BadBranchName),
        (("a..b", None, None), BadBranchName),
    ],
)
def test_a_base_that_can_never_be_right_is_refused(
    named: tuple[str | None, str | None, int | None], refused: type[CraftasticError]
) -> None:
    with pytest.raises(refused):
        start_of(*named)


async def test_a_base_needs_a_repository_and_a_new_branch(rig: Rig) -> None:
    plain = await rig.shop.create("plain")

    with pytest.raises(BadBase, match="no repository"):
        await rig.shop.sessions.create(rig.shop.owner, plain.id, branch="x", start=branch("main"))
    with pytest.raises(BadBase, match="Name the new branch"):
        await rig.make(None, branch("main"))


async def test_the_branches_of_an_environment_are_those_of_sessions_that_are_not_deleted(
    rig: Rig,
) -> None:
    gone, dead, alive = [await rig.make(name) for name in ("gone", "dead", "alive")]
    await rig.shop.sessions.delete(rig.shop.owner, gone.id)
    await rig.shop.sessions.end_in(rig.shop.owner, rig.environment.id)
    await rig.shop.sessions.revive(rig.shop.owner, alive.id)

    assert await rig.shop.sessions.branches_of(rig.environment.id) == {dead.branch, alive.branch}


async def test_the_answer_tells_where_a_session_began(rig: Rig) -> None:
    at = rig.upstream.commit("develop", {"d.txt": "1\n"})
    rig.upstream.commit("proposal", {"p.txt": "p\n"}, to=PULLS[0])

    async def post(**body: object) -> tuple[int, dict[str, object]]:
        answer = await client.post(
            "/api/sessions", json={"environmentId": str(rig.environment.id), **body}
        )
        return answer.status_code, answer.json()

    async with client_for(rig) as client:
        _, plain = await post(branch="plain")
        _, by_branch = await post(branch="b", baseBranch="develop")
        _, by_commit = await post(branch="c", baseCommit=at[:9])
        _, by_pull = await post(pullRequest=7)
        two = await post(branch="d", baseBranch="develop", pullRequest=7)
        none = await post(branch="d", baseBranch="nowhere")
        exists = await post(branch="develop", baseBranch="main")
        large = await post(pullRequest=2**31)
        seen = (await client.get(f"/api/sessions/{by_branch['id']}")).json()

    assert "startedFrom" not in plain
    assert by_branch["startedFrom"] == {"baseBranch": "develop", "commit": at}
    assert seen["startedFrom"] == by_branch["startedFrom"]
    assert by_commit["startedFrom"] == {"baseCommit": at[:9], "commit": at}
    started = by_pull["startedFrom"]
    assert isinstance(started, dict)
    assert started["pullRequest"] == 7
    assert (two[0], two[1]["code"]) == (400, "BASE_INVALID")
    assert (none[0], none[1]["code"]) == (404, "BASE_NOT_FOUND")
    assert (exists[0], exists[1]["code"]) == (409, "BRANCH_EXISTS")
    assert large[0] == 400
