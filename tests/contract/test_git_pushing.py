"""Pushes through the API and the real gateway; every refusal is a real one."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from craftastic.database import Database
from craftastic.environments.service import PushPolicy
from craftastic.git import _pushing
from tests.conftest import driver_url
from tests.fakes.clock import FakeClock
from tests.fakes.git_http_server import git
from tests.fakes.git_rig import GitRig, git_rig
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.workshop import rows

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


async def hook(rig: GitRig, name: str, script: str) -> None:
    await rig.sh(
        "file=$(git rev-parse --git-common-dir)/hooks/$1;"
        'printf "#!/bin/sh\\n%s\\n" "$2" > "$file"; chmod 755 "$file"',
        name,
        script,
    )


# ---- push -----------------------------------------------------------------------------------


async def test_a_push_tells_what_the_gateway_saw(rig: GitRig) -> None:
    commit = await rig.commit_typed("n.txt")

    answer = await rig.post("push")
    again = await rig.post("push")
    second = await rig.commit_typed("m.txt")
    update = await rig.post("push", remote="origin", branch="work")

    assert answer["message"] == "Changes pushed to origin/work"
    assert answer["data"]["branch"] == "work"
    assert answer["data"]["commit"] == commit
    assert "refs/heads/work" in answer["data"]["stdout"]
    assert answer["data"]["updates"] == [
        {"ref": "refs/heads/work", "old": ZEROS, "new": commit, "outcome": "ok"}
    ]
    assert again["data"]["updates"] == []
    assert "everything already" in again["message"]
    assert update["data"]["updates"][0]["old"] == commit
    assert rig.upstream.refs()["refs/heads/work"] == second
    status = await rig.get("status")
    assert (status["upstream"], status["ahead"], status["behind"]) == ("origin/work", 0, 0)


async def test_the_id_of_a_push_is_in_no_argument_and_goes_no_further(rig: GitRig) -> None:
    await rig.commit_typed("n.txt")
    await hook(rig, "pre-push", 'tr "\\\\0" " " < /proc/$PPID/cmdline > "$HOME/seen"')

    await rig.post("push")

    assert "push" in await rig.sh('cat "$HOME/seen"')
    assert "X-Craftastic" not in await rig.sh('cat "$HOME/seen"')
    assert not any("x-craftastic-push" in headers for _, _, headers in rig.server.requests)


async def test_exactly_the_expected_commit_is_pushed(rig: GitRig) -> None:
    first = await rig.commit_typed("n.txt")
    second = await rig.commit_typed("m.txt")

    body = await rig.refused(409, "BRANCH_MOVED", "push", expectedSha=first)
    await rig.refused(400, "COMMIT_ID_INVALID", "push", expectedSha="work")
    await hook(rig, "pre-push", "git commit -q --allow-empty -m later")
    answer = await rig.post("push", expectedSha=second)

    assert body["head"] == second
    assert answer["data"]["updates"][0]["new"] == second
    assert rig.upstream.refs()["refs/heads/work"] == second
    assert (await rig.get("status"))["upstream"] == "origin/work"


async def test_the_upstream_of_a_branch_can_be_left_as_it_is(rig: GitRig) -> None:
    await rig.commit_typed("n.txt")

    await rig.post("push", setUpstream=False)

    assert (await rig.get("status"))["upstream"] == "origin/main"


async def test_a_branch_that_moved_upstream_is_not_pushed_over(rig: GitRig) -> None:
    await rig.commit_typed("n.txt")
    await rig.post("push")
    theirs = rig.upstream.commit({"t.txt": "1"}, branch="work")
    await rig.commit_typed("m.txt")

    unknown = await rig.refused(409, "PUSH_REJECTED", "push")
    forced = await rig.refused(409, "PUSH_REJECTED", "push", force=True)
    await rig.post("fetch")
    known = await rig.refused(409, "PUSH_REJECTED", "push")

    assert rig.upstream.refs()["refs/heads/work"] == theirs
    assert "Pull first" in unknown["details"]
    assert "fetch first" in unknown["details"]
    assert "stale info" in forced["details"]
    assert "non-fast-forward" in known["details"]
    mine = (await rig.post("push", force=True))["data"]["commit"]
    assert rig.upstream.refs()["refs/heads/work"] == mine


async def test_a_forced_first_push_does_not_overwrite_what_was_never_seen(rig: GitRig) -> None:
    theirs = rig.upstream.commit({"t.txt": "1"}, branch="work")
    await rig.commit_typed("n.txt")

    await rig.refused(409, "PUSH_REJECTED", "push", force=True)

    assert rig.upstream.refs()["refs/heads/work"] == theirs


async def test_the_push_policy_is_told_with_its_reason(rig: GitRig) -> None:
    await rig.sh("git branch -f main HEAD; git checkout -q main")
    await rig.commit_typed("n.txt")
    main = rig.upstream.refs()["refs/heads/main"]

    body = await rig.refused(403, "PUSH_NOT_ALLOWED", "push", branch="main")
    await rig.shop.environments.update(
        rig.shop.owner, rig.environment.id, push_policy=PushPolicy.NONE
    )
    nothing = await rig.refused(403, "PUSH_NOT_ALLOWED", "push")

    assert "push policy" in body["details"]
    assert "push policy" in nothing["details"]
    assert rig.upstream.refs() == {"refs/heads/main": main}


async def test_a_hook_of_the_upstream_is_heard(rig: GitRig) -> None:
    rig.upstream.hook("pre-receive", "echo 'Ticket number missing' >&2; exit 1")
    await rig.commit_typed("n.txt")

    body = await rig.refused(409, "UPSTREAM_REJECTED", "push")

    assert "pre-receive hook declined" in body["error"]
    assert "Ticket number missing" in body["details"]
    assert "refs/heads/work" not in rig.upstream.refs()


async def test_a_hook_of_the_repository_is_heard_and_can_be_skipped(rig: GitRig) -> None:
    rig.secrets.words.append("hunter2hunter2")
    await hook(rig, "pre-push", "echo 'tests fail: hunter2hunter2' >&2; exit 1")
    await rig.commit_typed("n.txt")

    body = await rig.refused(409, "PUSH_HOOK_REFUSED", "push")

    assert "tests fail: ••••••" in body["details"]
    await rig.post("push", noVerify=True)
    assert "refs/heads/work" in rig.upstream.refs()


async def test_an_upstream_that_wants_an_account_says_so(rig: GitRig) -> None:
    await rig.commit_typed("n.txt")
    before = await rig.fingerprint()
    rig.server.password = "secret"

    for route in ("push", "fetch", "pull"):
        body = await rig.refused(400, "GIT_AUTHENTICATION_REQUIRED", route)
        assert body["error"] == "GitHub authentication required"
        assert "ask the test" in body["details"]
    assert await rig.fingerprint() == before


async def test_an_upstream_that_is_not_there_or_has_no_repository(rig: GitRig) -> None:
    await rig.commit_typed("n.txt")
    rig.upstream.bare.rename(rig.upstream.root / "away.git")
    for route in ("push", "fetch", "pull"):
        body = await rig.refused(409, "UPSTREAM_REFUSES_ACCESS", route)
        assert "no such repository" in body["details"]

    rig.server.__exit__()
    for route in ("push", "fetch", "pull"):
        body = await rig.refused(503, "UPSTREAM_UNAVAILABLE", route)
        assert "does not take connections" in body["details"]


async def test_what_cannot_be_pushed_is_refused(rig: GitRig) -> None:
    for remote in ("upstream", "--mirror", "https://example.com/x", ""):
        await rig.refused(400, "REMOTE_INVALID", "push", remote=remote)
    for branch in ("-D", "a..b", "refs/heads/work", ":work", "a\nb"):
        await rig.refused(400, "BRANCH_NAME_INVALID", "push", branch=branch)
    for branch in ("nowhere", "+work", "origin/main"):
        await rig.refused(404, "BRANCH_NOT_FOUND", "push", branch=branch)

    assert list(rig.upstream.refs()) == ["refs/heads/main"]


async def test_a_push_that_went_elsewhere_is_no_success(rig: GitRig, tmp_path: Path) -> None:
    await rig.commit_typed("n.txt")
    elsewhere = rig.upstream.root / "elsewhere.git"
    git("clone", "-q", "--bare", str(rig.upstream.bare), str(elsewhere))
    git("config", "http.receivepack", "true", cwd=elsewhere)
    await rig.sh('git config remote.origin.pushurl "$1"', rig.server.url("elsewhere.git"))

    await rig.refused(409, "PUSH_NOT_SEEN", "push")

    assert "refs/heads/work" not in rig.upstream.refs()


async def test_what_is_already_elsewhere_is_no_success_either(rig: GitRig) -> None:
    await rig.commit_typed("n.txt")
    elsewhere = rig.upstream.root / "elsewhere.git"
    git("clone", "-q", "--bare", str(rig.upstream.bare), str(elsewhere))
    git("config", "http.receivepack", "true", cwd=elsewhere)
    await rig.sh('git config remote.origin.pushurl "$1"', rig.server.url("elsewhere.git"))
    await rig.sh("git push -q origin work")

    for more in ({}, {"setUpstream": False}, {"expectedSha": await rig.head()}):
        await rig.refused(409, "PUSH_NOT_SEEN", "push", **more)

    assert "refs/heads/work" not in rig.upstream.refs()


async def test_a_branch_that_moves_while_it_is_pushed_is_told_as_it_arrived(rig: GitRig) -> None:
    first = await rig.commit_typed("n.txt")
    rig.replace_git(
        'case "$*" in *"--porcelain --no-follow-tags"*)'
        " /usr/bin/git commit -q --allow-empty -m meanwhile;; esac"
    )

    pushed = (await rig.post("push"))["data"]
    again = await rig.refused(409, "BRANCH_MOVED", "push", expectedSha=first)

    assert pushed["commit"] == pushed["updates"][0]["new"] == await rig.head() != first
    assert rig.upstream.refs()["refs/heads/work"] == pushed["commit"] == again["head"]


async def test_a_push_that_arrived_is_told_even_when_its_script_does_not_end(
    rig: GitRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = await rig.commit_typed("n.txt")
    monkeypatch.setattr(_pushing, "MARGIN_S", 8.0 - _pushing.PUSH_S)
    wait = "while [ ! -e ~/go ]; do sleep 0.1; done"
    rig.replace_git(f'case "$*" in *"branch --quiet --set-upstream-to"*) {wait};; esac')

    pushed = (await rig.post("push"))["data"]

    assert (pushed["commit"], pushed["updates"][0]["outcome"]) == (commit, "ok")
    await rig.sh("touch ~/go; flock -w 30 $(git rev-parse --git-dir)/craftastic.lock rm ~/go")
    rig.replace_git(f'case "$*" in *"--porcelain --no-follow-tags"*) {wait};; esac')
    monkeypatch.setattr(_pushing, "MARGIN_S", 2.0 - _pushing.PUSH_S)
    await rig.refused(503, "GIT_TIMEOUT", "push")
    await rig.sh("touch ~/go; flock -w 30 $(git rev-parse --git-dir)/craftastic.lock true")


async def test_a_configuration_pushes_no_more_than_was_asked_for(rig: GitRig) -> None:
    await rig.commit_typed("n.txt")
    await rig.sh(
        "git tag -a -m t v1; git config push.followTags true; git config push.default matching;"
        "git config push.recurseSubmodules on-demand; git config push.gpgSign if-asked;"
        "git config remote.origin.push '+refs/*:refs/*'; git branch extra"
    )

    await rig.post("push")

    assert set(rig.upstream.refs()) == {"refs/heads/main", "refs/heads/work"}


async def test_pushes_are_on_record(rig: GitRig) -> None:
    commit = await rig.commit_typed("n.txt")
    await rig.post("push")
    await rig.refused(404, "BRANCH_NOT_FOUND", "push", branch="nowhere")

    found = await rows(
        rig.shop.database,
        "SELECT outcome, object_id, details FROM audit_events"
        " WHERE action = 'git.push_requested' AND object_type = 'session' ORDER BY seq",
    )
    assert [one[:2] for one in found] == [
        ("ok", str(rig.session.id)),
        ("BRANCH_NOT_FOUND", str(rig.session.id)),
    ]
    assert f"refs/heads/work {ZEROS} {commit} ok" in str(found[0][2])
