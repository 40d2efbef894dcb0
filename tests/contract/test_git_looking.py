"""Looking at a worktree through the API: status, diff, log, branches; everything real."""

import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic, process_time
from typing import Any
from uuid import uuid4

import anyio
import pytest

from craftastic.database import Database
from craftastic.git._turns import Turns
from tests.conftest import driver_url
from tests.fakes.clock import FakeClock
from tests.fakes.git_http_server import git
from tests.fakes.git_rig import GitRig, git_rig, refusal
from tests.fakes.git_runtime import GitRuntime


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


def by_name(files: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["filename"]: one for one in files}


# ---- status ---------------------------------------------------------------------------------


async def test_a_clean_worktree(rig: GitRig) -> None:
    status = await rig.get("status")

    assert status == {
        "branch": "work",
        "upstream": "origin/main",
        "ahead": 0,
        "behind": 0,
        "files": [],
        "clean": True,
        "head": await rig.head(),
        "detached": False,
        "operation": None,
        "truncated": False,
    }


async def test_every_kind_of_change_is_told_with_its_lines(rig: GitRig) -> None:
    await rig.sh(
        "echo more >> a.txt; git add a.txt; echo again >> a.txt; git mv b.txt d.txt; rm c.txt;"
        "printf '1\\n2\\n3' > new.txt; printf '\\0\\1' > blob; mkdir folder; ln -s /dev/zero link;"
        "echo 1 > folder/staged; git add folder/staged; mkfifo pipe; git init -q nested;"
        "printf '*.log\\n' > .gitignore; touch x.log"
    )

    status = await rig.get("status")

    files = by_name(status["files"])
    base = {"staged": False, "modified": False, "untracked": False, "conflicted": False}
    new = base | {"status": "??", "modified": True, "untracked": True}
    assert (status["clean"], status["truncated"]) == (False, False)
    assert files == {
        "a.txt": base
        | {"filename": "a.txt", "status": "MM", "staged": True, "modified": True}
        | {"added": 2, "deleted": 0, "binary": False},
        "d.txt": base
        | {"filename": "d.txt", "status": "R", "staged": True, "originalFilename": "b.txt"}
        | {"added": 0, "deleted": 0, "binary": False},
        "c.txt": base
        | {"filename": "c.txt", "status": "D", "modified": True}
        | {"added": 0, "deleted": 1, "binary": False},
        "folder/staged": base
        | {"filename": "folder/staged", "status": "A", "staged": True}
        | {"added": 1, "deleted": 0, "binary": False},
        "new.txt": new | {"filename": "new.txt", "added": 3, "deleted": 0, "binary": False},
        "blob": new | {"filename": "blob", "binary": True},
        "link": new | {"filename": "link"},
        ".gitignore": new | {"filename": ".gitignore", "added": 1, "deleted": 0, "binary": False},
        "nested/": new | {"filename": "nested/"},
    }


async def test_ahead_behind_and_a_detached_head_are_told(rig: GitRig) -> None:
    await rig.commit_typed("mine.txt")
    rig.upstream.commit({"theirs.txt": "1"})
    await rig.post("fetch")

    moved = await rig.get("status")
    await rig.sh("git checkout -q --detach")
    detached = await rig.get("status")

    assert (moved["ahead"], moved["behind"], moved["upstream"]) == (1, 1, "origin/main")
    assert (detached["branch"], detached["detached"], detached["ahead"]) == ("HEAD", True, 0)
    assert detached["head"] == moved["head"]


async def test_an_upstream_that_is_not_there_is_none(rig: GitRig) -> None:
    await rig.sh("git config branch.work.remote origin; git config branch.work.merge refs/heads/no")

    told = await rig.get("status")

    assert "upstream" not in told
    assert (told["ahead"], told["behind"]) == (0, 0)


async def test_operations_that_are_not_ended_and_conflicts_are_told(rig: GitRig) -> None:
    await rig.commit_typed("a.txt", "mine\n")
    await rig.sh("git checkout -q -b other HEAD~1")
    await rig.commit_typed("a.txt", "other\n")
    await rig.sh("git checkout -q work")
    seen: dict[str, str] = {}
    for begin, end in (
        ("git merge other", "git merge --abort"),
        ("git rebase other", "git rebase --abort"),
        ("git cherry-pick other", "git cherry-pick --abort"),
        ("git revert --no-commit HEAD", "git revert --abort"),
        ("git bisect start; git bisect bad", "git bisect reset"),
    ):
        await rig.sh(begin, check=False)
        status = await rig.get("status")
        seen[begin.split()[1]] = status["operation"]
        if begin == "git merge other":
            (file,) = status["files"]
            assert (file["status"], file["conflicted"]) == ("UU", True)
            assert "<<<<<<<" in (await rig.get("diff"))["diff"]
        await rig.sh(end)

    assert seen == {
        "merge": "merge",
        "rebase": "rebase",
        "cherry-pick": "cherry-pick",
        "revert": "revert",
        "bisect": "bisect",
    }


async def test_more_files_than_are_shown_are_cut_and_said_so(rig: GitRig) -> None:
    await rig.sh("mkdir many; cd many; seq 1 5100 | xargs touch")

    status = await rig.get("status")
    diff = await rig.get("diff")

    assert len(status["files"]) == 5000
    assert status["truncated"]
    assert not status["clean"]
    assert diff["truncated"]
    assert len(diff["files"]) == 5000


async def test_looking_takes_no_lock_and_leaves_the_index_alone(rig: GitRig) -> None:
    await rig.sh("echo more >> a.txt; echo new > new.txt; touch b.txt")
    index = rig.folder.parent.parent.parent / "repos" / str(rig.environment.id)
    (file,) = index.glob("worktrees/*/index")
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    (file.parent / "index.lock").touch()
    names = sorted(one.name for one in file.parent.iterdir())

    await rig.get("status")
    shown = await rig.get("diff")
    await rig.get("diff", base="main")

    assert "new.txt" in by_name(shown["files"])
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert sorted(one.name for one in file.parent.iterdir()) == names


# ---- diff -----------------------------------------------------------------------------------


async def test_a_diff_shows_the_working_tree_with_new_files(rig: GitRig) -> None:
    await rig.sh("echo more >> a.txt; echo st >> b.txt; git add b.txt; printf 'n\\n' > new.txt")

    everything = await rig.get("diff")
    one = await rig.get("diff", file="new.txt")
    staged = await rig.get("diff", staged="true", path="")
    not_staged = await rig.get("diff", staged="false", file="b.txt")

    assert everything["diff"].startswith("diff --git a/a.txt b/a.txt\n")
    assert "+more\n" in everything["diff"]
    assert "+st\n" not in everything["diff"]
    assert (everything["file"], everything["staged"], everything["masked"]) == (None, False, False)
    assert by_name(everything["files"]) == {
        "a.txt": {"filename": "a.txt", "status": "M", "added": 1, "deleted": 0, "binary": False},
        "new.txt": {
            "filename": "new.txt", "status": "A", "added": 1, "deleted": 0, "binary": False
        },
    }  # fmt: skip
    assert one["diff"].endswith("--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+n\n")
    assert one["file"] == "new.txt"
    assert "+st\n" in staged["diff"]
    assert staged["staged"] is True
    assert list(by_name(staged["files"])) == ["b.txt"]
    assert (not_staged["diff"], not_staged["staged"]) == ("", False)


async def test_a_diff_since_a_base_has_everything_of_the_branch(rig: GitRig) -> None:
    await rig.commit_typed("committed.txt")
    rig.upstream.commit({"theirs.txt": "1"})
    await rig.post("fetch")
    await rig.sh("git mv b.txt moved.txt; echo w >> a.txt; mkdir d; echo n > d/new.txt")
    base = await rig.sh("git merge-base HEAD origin/main")

    answers = [await rig.get("diff", base=one) for one in ("main", "origin/main", base, base[:8])]
    folder = await rig.get("diff", base="main", path="d")

    files = by_name(answers[0]["files"])
    assert {name: one["status"] for name, one in files.items()} == {
        "a.txt": "M",
        "committed.txt": "A",
        "d/new.txt": "A",
        "moved.txt": "R",
    }
    assert files["moved.txt"]["originalFilename"] == "b.txt"
    assert {one["diff"] for one in answers} == {answers[0]["diff"]}
    assert {one["baseCommit"] for one in answers} == {base}
    assert list(by_name(folder["files"])) == ["d/new.txt"]


async def test_secrets_of_the_sessions_variables_are_masked_in_a_diff(rig: GitRig) -> None:
    rig.secrets.words.append("hunter2hunter2")
    await rig.sh("echo 'password = hunter2hunter2' > new.txt")

    shown = await rig.get("diff")

    assert shown["masked"] is True
    assert "hunter2" not in shown["diff"]
    assert "+password = ••••••\n" in shown["diff"]


async def test_secrets_of_the_sessions_variables_are_masked_in_commits(rig: GitRig) -> None:
    rig.secrets.words.append("hunter2hunter2")
    await rig.commit_typed("n.txt", message="uses hunter2hunter2\n\nthat is hunter2hunter2 here")

    answers = [(await rig.ask("GET", route)).text for route in ("log", "branches", "repo")]
    made = await rig.post("commit", message="again hunter2hunter2", amend=True)

    (commit,) = (await rig.get("log", limit=1))["commits"]
    assert not any("hunter2" in one for one in answers)
    assert "that is •••••• here" in answers[0]
    assert "uses ••••••" in answers[1]
    assert made["data"]["summary"] == commit["message"] == "again ••••••"


async def test_secrets_are_masked_in_what_git_says_of_a_failure(rig: GitRig) -> None:
    rig.secrets.words.append("hunter2hunter2")
    rig.replace_git(
        'case "$*" in *"status --porcelain"*) yes hunter2hunter2 | head -n 4500 >&2;'
        " echo 'fatal: hunter2hunter2 is wrong' >&2; exit 3;; esac"
    )

    body = refusal(await rig.ask("GET", "status"), 409, "GIT_FAILED")

    assert body["details"].endswith("\nfatal: •••••• is wrong")
    assert "hunter2" not in body["details"]


# ---- more than anybody asked for ------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "command", "record", "most"),
    [
        ("status", "status --porcelain", "? a\\0", 5000),
        ("log", "log -z", "\\0", 10),
        ("log", "rev-list", "a\\n", 10),
        ("branches", "for-each-ref", "r\\0\\0\\0\\0\\0\\0\\0\\0", 5000),
        ("diff", "--raw", ":000000 100644 0000 aaaa A\\0x\\0", 5000),
        ("diff", "--numstat", "1\\t1\\tx\\0", 5000),
    ],
)
async def test_a_flood_of_records_holds_up_nobody_and_is_not_passed_on(
    route: str, command: str, record: str, most: int, rig: GitRig
) -> None:
    await rig.get("log")
    rig.replace_git(
        f"""case "$*" in *"{command}"*) exec python3 -c 'import os, signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
data = b"{record}" * (1 << 16)
while True: os.write(1, data)';; esac"""
    )
    waits: list[float] = []
    ended = anyio.Event()

    async def watch() -> None:
        while not ended.is_set():
            begun = monotonic()
            await anyio.sleep(0.01)
            waits.append(monotonic() - begun)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        begun = process_time()
        answer = await rig.ask("GET", route)
        took = process_time() - begun
        ended.set()
        assert answer.status_code == 200, answer.text
        assert len(answer.content) < most * 1000
        assert took < 4

    assert max(waits) < 5


async def test_more_looks_at_once_than_there_are_turns_are_refused(rig: GitRig) -> None:
    rig.use(looking=Turns(1, 1, wait_s=0.1))
    async with rig.git.looking.take(rig.environment.id, rig.shop.owner):
        for route in ("status", "diff", "log", "branches", "repo"):
            body = refusal(await rig.ask("GET", route), 503, "GIT_BUSY")
            assert "Try again" in body["details"]
    rig.use(changing=Turns(1, 1, wait_s=0.1))
    async with rig.git.changing.take(rig.environment.id, rig.shop.owner):
        for route in ("commit", "push", "pull", "fetch"):
            await rig.refused(503, "GIT_BUSY", route, message="m")
        await rig.get("status")


async def test_a_diff_that_is_too_long_ends_with_a_whole_line(rig: GitRig) -> None:
    await rig.sh("seq 1 2000000 > long.txt; echo small > z.txt")

    shown = await rig.get("diff")

    assert shown["truncated"] is True
    assert len(shown["diff"]) <= 5 << 20
    assert shown["diff"].endswith("\n")
    assert shown["diff"].splitlines()[-1][0] == "+"
    assert by_name(shown["files"])["long.txt"]["added"] == 2_000_000


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"file": "/etc/passwd"}, 400, "FILE_NAME_INVALID"),
        ({"file": "a/../../b"}, 400, "FILE_NAME_INVALID"),
        ({"path": ".."}, 400, "FILE_NAME_INVALID"),
        ({"filenameBase64": base64.b64encode(b"a\0b").decode()}, 400, "FILE_NAME_INVALID"),
        ({"filenameBase64": "%"}, 400, "FILE_NAME_INVALID"),
        ({"file": "a", "filenameBase64": "YQ=="}, 400, "FILE_NAME_INVALID"),
        ({"file": "x" * 7000}, 400, "INVALID_INPUT"),
        ({"staged": "maybe"}, 400, "INVALID_INPUT"),
        ({"staged": "true", "base": "main"}, 400, "INVALID_INPUT"),
        ({"base": "--output=/tmp/x"}, 400, "REF_INVALID"),
        ({"base": "main~1"}, 400, "REF_INVALID"),
        ({"base": "main..work"}, 400, "REF_INVALID"),
        ({"base": "nowhere"}, 404, "REF_NOT_FOUND"),
        ({"base": "0" * 40}, 404, "REF_NOT_FOUND"),
    ],
    ids=str,
)
async def test_what_cannot_be_compared_is_refused(
    query: dict[str, str], status: int, code: str, rig: GitRig
) -> None:
    refusal(await rig.ask("GET", "diff", params=query), status, code)


async def test_branches_without_a_common_commit_cannot_be_compared(rig: GitRig) -> None:
    await rig.sh("git branch alone $(git commit-tree -m x $(git hash-object -t tree -w /dev/null))")

    refusal(await rig.ask("GET", "diff", params={"base": "alone"}), 409, "NO_COMMON_COMMIT")


# ---- log ------------------------------------------------------------------------------------


async def test_the_log_tells_commits_page_by_page(rig: GitRig) -> None:
    first = await rig.head()
    await rig.sh("git tag -a -m t v1; git commit -q --allow-empty -m 'Subject here' -m 'The body'")

    everything = await rig.get("log")
    second_page = await rig.get("log", limit=1, offset=1)
    of_main = await rig.get("log", ref="origin/main")

    newest, oldest = everything["commits"]
    assert (everything["limit"], everything["offset"]) == (10, 0)
    assert newest["message"] == "Subject here"
    assert newest["body"] == "The body"
    assert newest["parents"] == [first]
    assert newest["refs"] == ["refs/heads/work"]
    assert (newest["pushed"], oldest["pushed"]) == (False, True)
    assert set(oldest["refs"]) >= {"refs/remotes/origin/main", "refs/tags/v1"}
    assert oldest["author"] == "a"
    assert oldest["email"] == "a@example.com"
    assert len(oldest["date"].split()) == 3
    assert second_page["commits"] == [oldest]
    assert (second_page["limit"], second_page["offset"]) == (1, 1)
    assert of_main["commits"] == [oldest]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"limit": "0"}, 400, "INVALID_INPUT"),
        ({"limit": "201"}, 400, "INVALID_INPUT"),
        ({"limit": "x"}, 400, "INVALID_INPUT"),
        ({"offset": "-1"}, 400, "INVALID_INPUT"),
        ({"ref": "--all"}, 400, "REF_INVALID"),
        ({"ref": "nowhere"}, 404, "REF_NOT_FOUND"),
    ],
    ids=str,
)
async def test_what_the_log_cannot_tell_is_refused(
    query: dict[str, str], status: int, code: str, rig: GitRig
) -> None:
    refusal(await rig.ask("GET", "log", params=query), status, code)


# ---- repository and branches ----------------------------------------------------------------


async def test_branches_are_told_with_where_they_are(rig: GitRig) -> None:
    rig.upstream.commit({"x.txt": "1"}, "On the remote only", branch="feature/far")
    await rig.post("fetch")
    await rig.commit_typed("mine.txt", message="Mine")
    await rig.sh("git branch idle")

    answer = await rig.get("branches")
    told = {one["name"]: one for one in answer["branches"]}
    repository = await rig.get("repo")

    assert (answer["defaultBranch"], answer["truncated"]) == ("main", False)
    assert set(told) == {"main", "work", "idle", "feature/far"}
    work = told["work"]
    assert (work["local"], work["remote"], work["current"]) == (True, False, True)
    assert (work["sessionId"], work["head"]) == (str(rig.session.id), await rig.head())
    assert (work["upstream"], work["ahead"], work["behind"]) == ("origin/main", 1, 0)
    assert (work["subject"], len(work["date"].split())) == ("Mine", 3)
    far = told["feature/far"]
    assert (far["local"], far["remote"], far["current"]) == (False, True, False)
    assert "sessionId" not in far
    assert repository == {
        "path": f"/home/dev/.craftastic/repos/{rig.environment.id}",
        "branches": ["feature/far", "idle", "main", "work"],
        "currentBranch": "main",
        "remoteUrl": rig.server.url("project.git"),
    }


async def test_an_environment_without_a_repository_has_none_to_tell_of(rig: GitRig) -> None:
    plain = await rig.shop.create("plain")
    session = await rig.shop.sessions.create(rig.shop.owner, plain.id)

    for route in ("repo", "branches"):
        answer = await rig.client.get(f"/api/git/{route}/{plain.id}")
        body = refusal(answer, 404, "REPOSITORY_NOT_FOUND")
        assert body["error"] == "No repository found for this environment"
    for method, route in ROUTES:
        answer = await rig.client.request(
            method, f"/api/git/{route}/{session.id}", json={"message": "x"}
        )
        assert refusal(answer, 400, "NO_WORKTREE")["error"] == "Session has no git worktree"


# ---- what every route does ------------------------------------------------------------------

ROUTES = [
    ("GET", "status"),
    ("GET", "diff"),
    ("GET", "log"),
    ("POST", "commit"),
    ("POST", "push"),
    ("POST", "pull"),
    ("POST", "fetch"),
]


async def test_what_is_absent_or_somebody_elses_is_not_found(rig: GitRig) -> None:
    stranger = {"Authorization": f"Bearer {await rig.shop.add_user()}"}
    for headers, key in ((stranger, rig.session.id), ({}, uuid4()), ({}, "x")):
        for method, route in ROUTES:
            answer = await rig.client.request(
                method, f"/api/git/{route}/{key}", json={"message": "x"}, headers=headers
            )
            assert refusal(answer, 404, "SESSION_NOT_FOUND")["error"] == "Session not found"
    for headers, key in ((stranger, rig.environment.id), ({}, uuid4()), ({}, "x")):
        for route in ("repo", "branches"):
            answer = await rig.client.get(f"/api/git/{route}/{key}", headers=headers)
            body = refusal(answer, 404, "ENVIRONMENT_NOT_FOUND")
            assert body["error"] == "Environment not found"


async def test_a_worktree_that_is_gone_says_how_to_get_it_back(rig: GitRig) -> None:
    await rig.sh('cd ..; rm -rf "$1"', rig.path)
    for method, route in ROUTES:
        answer = await rig.ask(method, route, json={"message": "x"})
        body = refusal(answer, 409, "WORKTREE_MISSING")
        assert "no git worktree" in body["error"]
        assert "Repair the session" in body["details"]

    await rig.shop.sessions.revive(rig.shop.owner, rig.session.id)

    assert (await rig.get("status"))["clean"] is True


async def test_a_sandbox_that_does_not_run_is_not_started_by_looking(rig: GitRig) -> None:
    await rig.runtime.stop(rig.environment.sandbox)
    for method, route in [*ROUTES, ("GET", "branches"), ("GET", "repo")]:
        answer = await rig.ask(method, route, json={"message": "x"})
        body = refusal(answer, 409, "SANDBOX_NOT_RUNNING")
        assert "Open a terminal" in body["details"]


async def test_before_the_first_commit_everything_can_be_looked_at(rig: GitRig) -> None:
    await rig.sh("git checkout -q --orphan fresh; git rm -rqf .; echo 1 > n; git add n; echo 2 > u")

    status = await rig.get("status")

    assert (status["branch"], status["head"]) == ("fresh", None)
    assert {one["filename"]: one["added"] for one in status["files"]} == {"n": 1, "u": 1}
    assert (await rig.get("log"))["commits"] == []
    assert "+1\n" in (await rig.get("diff", staged=True))["diff"]
    assert "+2\n" in (await rig.get("diff"))["diff"]


HOSTILE = r"""
echo '#!/bin/sh
echo "$0 $*" >> "$HOME/ran"; cat; exit 1' > "$HOME/evil"; chmod 755 "$HOME/evil"
rm -f "$HOME/ran"
e=$HOME/evil
for hook in pre-commit post-checkout post-index-change reference-transaction fsmonitor-watchman; do
    cp "$e" "$(git rev-parse --git-common-dir)/hooks/$hook"
done
printf '* diff=evil\n' > "$(git rev-parse --git-common-dir)/info/attributes"
printf '[core]\n\tpager = %s\n[color]\n\tui = always\n' "$e" > "$HOME/included"
for setting in core.fsmonitor="$e" diff.external="$e" diff.evil.command="$e" \
    diff.evil.textconv="$e" core.pager="$e" pager.log="$e" pager.diff=true core.editor="$e" \
    core.sshCommand="$e" core.askPass="$e" credential.helper="$e" alias.status="!$e" \
    alias.log="!$e" alias.diff="!$e" gpg.program="$e" log.showSignature=true \
    color.ui=always color.diff=always color.status=always \
    diff.noprefix=true diff.mnemonicPrefix=true diff.relative=true diff.renames=false \
    diff.orderFile="$HOME/nowhere" diff.context=0 diff.submodule=log diff.algorithm=patience \
    diff.wsErrorHighlight=all diff.colorMoved=zebra diff.autoRefreshIndex=false \
    status.showUntrackedFiles=no status.relativePaths=true status.renames=false status.branch=true \
    status.short=true status.aheadBehind=false status.showStash=true core.quotePath=false \
    format.pretty=oneline log.date=relative log.decorate=short log.abbrevCommit=true \
    log.follow=true log.mailmap=true core.abbrev=4 i18n.logOutputEncoding=UTF-16 \
    core.untrackedCache=true "includeIf.gitdir:/home/.path=$HOME/included"; do
    git config "${setting%%=*}" "${setting#*=}"
done
"""


async def test_a_hostile_configuration_changes_no_answer_and_runs_nothing(rig: GitRig) -> None:
    await rig.sh(
        "printf '%s\n' 1 2 3 4 5 6 7 8 9 > long.txt; git add long.txt; git commit -qm 'x é'"
    )
    await rig.sh(
        "printf '%s\n' 1 2 3 4 changed 6 7 8 9 > long.txt; git mv b.txt moved.txt; echo n > new.txt"
    )
    questions: list[tuple[str, dict[str, object]]] = [
        ("status", {}),
        ("diff", {}),
        ("diff", {"staged": True}),
        ("diff", {"base": "main"}),
        ("log", {}),
        ("branches", {}),
        ("repo", {}),
    ]
    before = [await rig.get(route, **query) for route, query in questions]
    await rig.sh(HOSTILE)
    await rig.sh('rm -f "$HOME/ran"; touch a.txt')

    after = [await rig.get(route, **query) for route, query in questions]

    assert await rig.sh('cat "$HOME/ran" 2>/dev/null || true') == ""
    assert after == before
    assert git("status", "--porcelain", cwd=rig.upstream.work) == ""  # the rig itself is sane


async def test_a_clean_filter_that_never_ends_ends_with_an_answer(rig: GitRig) -> None:
    await rig.sh(
        "echo '*.txt filter=slow' > .gitattributes; git config filter.slow.clean 'sleep 600';"
        "echo x >> a.txt"
    )

    rig.take_at_most(2)
    status = await rig.get("status")
    diff = await rig.get("diff")

    assert status["truncated"] is True
    assert diff["truncated"] is True
