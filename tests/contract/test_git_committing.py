"""Commits through the API: what goes in, as whom, and every way to be refused; real git."""

import base64
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from craftastic.database import Database
from craftastic.git import _committing, _looking
from tests.conftest import driver_url
from tests.fakes.clock import FakeClock
from tests.fakes.git_rig import GitRig, git_rig
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.workshop import rows


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
    """Install a hook of the repository."""
    await rig.sh(
        "file=$(git rev-parse --git-common-dir)/hooks/$1;"
        'printf "#!/bin/sh\\n%s\\n" "$2" > "$file"; chmod 755 "$file"',
        name,
        script,
    )


async def files_of(rig: GitRig, commit: str = "HEAD") -> list[str]:
    """Return what a commit changes."""
    shown = await rig.sh(f"git show --format= --name-status --no-renames {commit}")
    return sorted(shown.replace("\t", " ").splitlines())


async def test_without_files_everything_is_committed_as_the_owner(rig: GitRig) -> None:
    await rig.sh(
        "echo x >> a.txt; rm b.txt; mv c.txt d.txt; mkdir f; echo n > f/new; ln -s a.txt link;"
        "git config user.name Somebody; git config user.email else@example.com"
    )

    answer = await rig.post("commit", message="All of it")

    assert answer["message"] == "Changes committed successfully"
    assert answer["data"] == {
        "commit": await rig.head(),
        "branch": "work",
        "summary": "All of it",
        "filesChanged": 5,
        "insertions": 3,
        "deletions": 1,
    }
    assert await files_of(rig) == [
        "A d.txt", "A f/new", "A link", "D b.txt", "D c.txt", "M a.txt",
    ]  # fmt: skip
    assert await rig.sh("git log -1 '--format=%an <%ae> %cn <%ce>'") == (
        "Ada Lovelace <ada@example.com> Ada Lovelace <ada@example.com>"
    )
    assert (await rig.get("status"))["clean"] is True


async def test_named_files_are_committed_and_nothing_else_moves(rig: GitRig) -> None:
    await rig.sh(
        "git rm -q a.txt; git mv b.txt moved.txt; echo st >> c.txt; git add c.txt;"
        "echo wt >> c.txt; mkdir d; echo 1 > d/one; echo 2 > d/two; echo s > staged;"
        "git add staged; echo u > other"
    )
    before = await rig.sh("git ls-files -s staged c.txt; cat c.txt other")

    await rig.post("commit", message="some", files=["a.txt", "moved.txt", "d"])

    assert await files_of(rig) == ["A d/one", "A d/two", "A moved.txt", "D a.txt", "D b.txt"]
    assert await rig.sh("git ls-files -s staged c.txt; cat c.txt other") == before
    assert await rig.sh("git status --porcelain") == "MM c.txt\nA  staged\n?? other"


async def test_a_repository_inside_the_worktree_is_left_out(rig: GitRig) -> None:
    await rig.sh(
        "git init -q nested; echo 1 > nested/f; echo 1 > new; mkdir -p a/b; git init -q a/b"
    )

    await rig.post("commit", message="m")
    await rig.refused(409, "NOTHING_TO_COMMIT", "commit", message="m")

    assert await files_of(rig) == ["A new"]
    assert await rig.sh("git status --porcelain -uall") == "?? a/b/\n?? nested/"


async def test_a_file_that_is_staged_and_changed_again_goes_in_as_it_is_now(rig: GitRig) -> None:
    await rig.sh("echo 1 >> a.txt; git add a.txt; echo 2 >> a.txt")

    await rig.post("commit", message="m", files=["a.txt"])

    assert await rig.sh("git show HEAD:a.txt") == "one\n1\n2"


async def test_what_is_staged_can_be_committed_alone(rig: GitRig) -> None:
    await rig.sh("echo 1 >> a.txt; git add a.txt; echo 2 >> a.txt; echo u > u")

    await rig.post("commit", message="m", staged=True)

    assert await rig.sh("git show HEAD:a.txt") == "one\n1"
    assert await rig.sh("git status --porcelain") == "M a.txt\n?? u"


async def test_a_commit_can_be_amended(rig: GitRig) -> None:
    await rig.commit_typed("n.txt", message="before")
    author = await rig.sh("git log -1 --format=%an")
    parent = await rig.sh("git rev-parse HEAD~1")

    await rig.post("commit", message="only the message", amend=True, staged=True)
    await rig.sh("echo more > m.txt")
    answer = await rig.post("commit", message="and a file", amend=True)

    assert await rig.sh("git rev-parse HEAD~1") == parent
    assert await files_of(rig) == ["A m.txt", "A n.txt"]
    assert await rig.sh("git log -1 '--format=%an, %cn'") == f"{author}, Ada Lovelace"
    assert answer["data"]["summary"] == "and a file"


async def test_the_first_commit_of_a_repository_can_be_made(rig: GitRig) -> None:
    await rig.sh("git checkout -q --orphan fresh; git rm -rqf .; echo 1 > n")
    await rig.refused(409, "NOTHING_TO_COMMIT", "commit", message="m", amend=True)

    answer = await rig.post("commit", message="first")

    assert answer["data"]["branch"] == "fresh"
    assert answer["data"]["filesChanged"] == 1
    assert await rig.sh("git log --format=%s") == "first"


async def test_a_merge_is_ended_by_a_commit(rig: GitRig) -> None:
    await rig.commit_typed("a.txt", "mine\n")
    await rig.sh("git checkout -q -b other HEAD~1")
    await rig.commit_typed("a.txt", "other\n")
    await rig.sh("git checkout -q work; git merge other || true")

    body = await rig.refused(409, "MERGE_CONFLICTS", "commit", message="m")
    named = await rig.refused(409, "MERGE_CONFLICTS", "commit", message="m", files=["a.txt"])
    await rig.sh("echo both > a.txt; git add a.txt")
    for refused in ({"files": ["a.txt"]}, {"amend": True}):
        await rig.refused(409, "OPERATION_IN_PROGRESS", "commit", message="m", **refused)
    await rig.post("commit", message="merged")

    assert body["files"] == named["files"] == ["a.txt"]
    assert len((await rig.sh("git log -1 --format=%P")).split()) == 2
    assert (await rig.get("status"))["operation"] is None


async def test_there_must_be_something_to_commit(rig: GitRig) -> None:
    await rig.refused(409, "NOTHING_TO_COMMIT", "commit", message="m")
    await rig.refused(409, "NOTHING_TO_COMMIT", "commit", message="m", staged=True)
    for name in ("a.txt", "nowhere"):
        body = await rig.refused(409, "NOTHING_TO_COMMIT", "commit", message="m", files=[name])
        assert name in body["details"]
    await rig.sh("echo 1 >> a.txt")
    before = await rig.fingerprint()
    await rig.refused(409, "NOTHING_TO_COMMIT", "commit", message="m", files=["a.txt", "b.txt"])
    await rig.refused(409, "NOTHING_TO_COMMIT", "commit", message="m", staged=True)

    assert await rig.fingerprint() == before


@pytest.mark.parametrize("chosen", [{}, {"files": ["a.txt", "new"]}, {"staged": True}], ids=str)
async def test_a_refusing_hook_is_heard_and_leaves_everything_as_it_was(
    chosen: dict[str, object], rig: GitRig
) -> None:
    rig.secrets.words.append("hunter2hunter2")
    await hook(rig, "pre-commit", "echo 'lint: a.txt is wrong, hunter2hunter2' >&2; exit 1")
    await rig.sh("echo 1 >> a.txt; git add a.txt; echo 2 >> a.txt; echo n > new; rm b.txt")
    before = await rig.fingerprint()

    body = await rig.refused(409, "COMMIT_REFUSED", "commit", message="m", **chosen)

    assert body["details"] == "lint: a.txt is wrong, ••••••"
    assert await rig.fingerprint() == before
    await rig.post("commit", message="m", noVerify=True, **chosen)
    assert await rig.fingerprint() != before


@pytest.mark.parametrize("chosen", [{}, {"files": ["a.txt"]}], ids=str)
async def test_a_failing_filter_is_not_taken_for_nothing_to_commit(
    chosen: dict[str, object], rig: GitRig
) -> None:
    rig.secrets.words.append("hunter2hunter2")
    await rig.sh(
        "echo 'a.txt filter=x' > .gitattributes; git add .gitattributes; git commit -qm attributes;"
        "echo more >> a.txt; git config filter.x.required true;"
        "git config filter.x.clean 'echo noise hunter2hunter2 >&2; exit 1'"
    )
    before = await rig.sh("git rev-parse HEAD; git ls-files -s; cat a.txt")

    body = await rig.refused(409, "GIT_FAILED", "commit", message="m", **chosen)

    assert "noise ••••••" in body["details"]
    assert "clean filter 'x' failed" in body["details"]
    assert await rig.sh("git rev-parse HEAD; git ls-files -s; cat a.txt") == before


async def test_a_filter_that_prints_does_not_hide_that_there_is_nothing_to_commit(
    rig: GitRig,
) -> None:
    await rig.sh(
        "git config filter.x.clean 'echo a note >&2; cat'; echo 'a.txt filter=x' > .gitattributes;"
        "git add .gitattributes; git commit -qm attributes; touch -d '1 hour ago' a.txt"
    )

    await rig.refused(409, "NOTHING_TO_COMMIT", "commit", message="m")


@pytest.mark.parametrize("before", range(7990, 8020, 3))
async def test_what_a_hook_printed_is_never_cut_inside_a_secret(before: int, rig: GitRig) -> None:
    rig.secrets.words.append("hunter2hunter2")
    await hook(
        rig,
        "pre-commit",
        f"echo first hunter2hunter2 >&2; yes x | head -c {before - 14} >&2; echo >&2; echo end >&2;"
        " exit 1",
    )
    await rig.sh("echo 1 >> a.txt")

    body = await rig.refused(409, "COMMIT_REFUSED", "commit", message="m")

    assert body["details"].endswith("end")
    assert "unter2" not in body["details"]
    assert "hunter" not in body["details"]


async def test_named_files_are_found_among_more_than_are_looked_at(
    rig: GitRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_looking, "MAX_CHOSEN_FROM", 50)
    await rig.sh("mkdir many zz; cd many; seq 1 60 | xargs touch; touch 0 ../zz/new")

    made = await rig.post("commit", message="m", files=["many/0"])
    for files in (["zz/new"], ["many"]):
        body = await rig.refused(409, "GIT_FAILED", "commit", message="m", files=files)
        assert "terminal" in body["details"]

    assert made["data"]["filesChanged"] == 1
    assert await files_of(rig) == ["A many/0"]


async def test_a_flood_of_changes_does_not_hold_up_a_commit_of_named_files(rig: GitRig) -> None:
    rig.replace_git(
        """case "$*" in *"status --porcelain"*) yes '? a' | tr '\\n' '\\0'; exit 141;; esac"""
    )
    begun = time.process_time()

    await rig.refused(409, "GIT_FAILED", "commit", message="m", files=["b"])

    assert time.process_time() - begun < 5


async def test_hooks_see_a_usual_git_and_may_change_message_and_files(rig: GitRig) -> None:
    await hook(
        rig,
        "pre-commit",
        "git diff --cached --name-only -- '*.txt' > seen; pwd >> seen; git add seen;"
        " sleep 300 & echo $! > pid",
    )
    await hook(rig, "commit-msg", 'echo "Ticket: 1" >> "$1"')
    await rig.sh("echo 1 >> a.txt")

    with anyio.fail_after(60):
        await rig.post("commit", message="subject\n\n", staged=False)

    assert (await rig.sh("git show HEAD:seen")).splitlines() == ["a.txt", rig.path]
    assert await rig.sh("git log -1 --format=%B") == "subject\n\nTicket: 1"
    await rig.sh("kill $(cat pid)")  # the one that the hook started, and no other


async def test_a_hook_that_takes_too_long_is_ended(
    rig: GitRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_committing, "COMMIT_S", 1)
    await hook(rig, "pre-commit", "sleep 300")
    await rig.sh("echo 1 >> a.txt; echo n > new")
    before = await rig.fingerprint()

    await rig.refused(503, "GIT_TIMEOUT", "commit", message="m")

    assert await rig.fingerprint() == before
    assert (
        await rig.sh("ls $(git rev-parse --git-dir) | grep lock$ | grep -v craftastic || true")
        == ""
    )


async def test_a_lock_is_waited_for_and_then_said(rig: GitRig) -> None:
    await rig.sh("echo 1 >> a.txt; touch $(git rev-parse --git-dir)/index.lock")

    body = await rig.refused(409, "GIT_LOCKED", "commit", message="m")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rig.sh, "sleep 1; rm $(git rev-parse --git-dir)/index.lock")
        await rig.post("commit", message="m")

    assert "/index.lock: repair the session" in body["details"]


async def test_only_the_branch_that_was_looked_at_is_committed_to(rig: GitRig) -> None:
    looked_at = await rig.head()
    moved = await rig.commit_typed("n.txt")
    await rig.sh("echo 1 >> a.txt")

    body = await rig.refused(409, "BRANCH_MOVED", "commit", message="m", expectedSha=looked_at)
    await rig.post("commit", message="m", expectedSha=moved)

    assert body["head"] == moved
    assert await rig.sh("git rev-parse HEAD~1") == moved


async def test_two_commits_at_once_are_two_commits(rig: GitRig) -> None:
    await rig.sh("echo 1 > one; echo 2 > two")

    async with anyio.create_task_group() as tasks:
        for name in ("one", "two"):
            tasks.start_soon(lambda name=name: rig.post("commit", message=name, files=[name]))

    assert sorted((await rig.sh("git log -2 --format=%s")).split()) == ["one", "two"]
    assert await files_of(rig) in (["A one"], ["A two"])


@pytest.mark.parametrize(
    "profile",
    [
        ("Ada\nLovelace", "a@example.com"),
        ("Ada <root@example.com>", "a@example.com"),
        ("Ada", "a@example.com> 0 +0000\nparent 0"),
        ("Ada\0", "a@example.com"),
        ("Ada\r", "a@example.com"),
        (" . ", "a@example.com"),
        ("Ada", ""),
        None,
    ],
    ids=str,
)
async def test_a_name_that_would_break_the_commit_is_refused(
    profile: tuple[str, str] | None, rig: GitRig
) -> None:
    rig.profiles.profile = profile
    await rig.sh("echo 1 >> a.txt")
    head = await rig.head()

    body = await rig.refused(400, "IDENTITY_INVALID", "commit", message="m")

    assert "account" in body["error"]
    assert await rig.head() == head


async def test_a_name_in_any_script_is_written_as_it_is(rig: GitRig) -> None:
    rig.profiles.profile = ("Zoë \u202e$(id) \"quoted' 李", "zoë+x@exämple.com")
    await rig.sh("echo 1 >> a.txt")

    await rig.post("commit", message="m")

    (commit,) = (await rig.get("log", limit=1))["commits"]
    assert (commit["author"], commit["email"]) == rig.profiles.profile


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"message": ""}, "INVALID_INPUT"),
        ({}, "INVALID_INPUT"),
        ({"message": " \n\t "}, "COMMIT_MESSAGE_INVALID"),
        ({"message": "é" * 40_000}, "COMMIT_MESSAGE_INVALID"),
        ({"message": "x" * 70_000}, "INVALID_INPUT"),
        ({"message": "a\0b"}, "INVALID_INPUT"),
        ({"message": "m", "files": ["/etc/passwd"]}, "FILE_NAME_INVALID"),
        ({"message": "m", "files": ["../x"]}, "FILE_NAME_INVALID"),
        ({"message": "m", "files": ["a/../../x"]}, "FILE_NAME_INVALID"),
        ({"message": "m", "files": ["."]}, "FILE_NAME_INVALID"),
        ({"message": "m", "files": [1]}, "INVALID_INPUT"),
        ({"message": "m", "filenamesBase64": ["!"]}, "FILE_NAME_INVALID"),
        ({"message": "m", "filenamesBase64": ["YQBi"]}, "FILE_NAME_INVALID"),
        ({"message": "m", "expectedSha": "main"}, "COMMIT_ID_INVALID"),
        ({"message": "m", "expectedSha": "abc123"}, "COMMIT_ID_INVALID"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_no_commit_can_be_is_refused(
    body: dict[str, object], code: str, rig: GitRig
) -> None:
    await rig.refused(400, code, "commit", **body)


async def test_a_name_that_is_not_utf8_is_chosen_by_its_bytes(rig: GitRig) -> None:
    await rig.sh("printf 1 > $'n\\xff\\xfe'; printf 2 > other")
    name = base64.b64encode(b"n\xff\xfe").decode()

    (file,) = [one for one in (await rig.get("status"))["files"] if "filenameBase64" in one]
    shown = await rig.get("diff", filenameBase64=name)
    await rig.post("commit", message="m", filenamesBase64=[name])

    assert (file["filename"], file["filenameBase64"]) == ("n\ufffd\ufffd", name)
    assert (shown["file"], len(shown["files"])) == ("n\ufffd\ufffd", 1)
    assert await rig.sh("git status --porcelain") == "?? other"


async def test_commits_are_on_record(rig: GitRig) -> None:
    await rig.refused(409, "NOTHING_TO_COMMIT", "commit", message="m")
    await rig.sh("echo 1 >> a.txt")
    made = await rig.post("commit", message="m")

    found = await rows(
        rig.shop.database,
        "SELECT outcome, object_id, details FROM audit_events WHERE action = 'git.commit'"
        " ORDER BY seq",
    )
    (_, _, refused), (_, _, done) = found
    assert [(one[0], one[1]) for one in found] == [
        ("NOTHING_TO_COMMIT", str(rig.session.id)),
        ("ok", str(rig.session.id)),
    ]
    assert str(rig.environment.id) in str(refused)
    assert made["data"]["commit"] in str(done)
