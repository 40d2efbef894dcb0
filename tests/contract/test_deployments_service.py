"""What is deployed of the work at hand: sessions of a real repository, a toy Coolify."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from craftastic.accounts.service import UserId
from craftastic.coolify.errors import BadApplicationId, BadCommit, CoolifyBusy, CoolifyNotFound
from craftastic.coolify.service import DeploymentNotConfigured
from craftastic.database import Database
from craftastic.deployments.service import (
    ApplicationNeeded,
    DeploymentNotFound,
    DeploymentRunning,
    DeploymentService,
    OtherBranch,
    Status,
    TargetNotFound,
    UncommittedWork,
    UnpushedWork,
)
from craftastic.errors import InvalidInput, NotFound
from craftastic.git.service import NewCommit, NewPush
from tests.fakes.clock import FakeClock
from tests.fakes.deployment_rig import DeploymentRig, deployment_git_rig
from tests.fakes.git_rig import GitRig, git_rig
from tests.fakes.git_runtime import GitRuntime


@pytest.fixture
async def git(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[GitRig]:
    folder = tmp_path / "sandboxes"
    folder.mkdir()
    runtime = GitRuntime(folder)
    async with git_rig(database, clock, runtime, tmp_path) as rig:
        yield rig
    await runtime.close()


@pytest.fixture
async def rig(
    database: Database, clock: FakeClock, tmp_path: Path, git: GitRig
) -> AsyncIterator[DeploymentRig]:
    async with deployment_git_rig(database, clock, tmp_path, git) as rig:
        yield rig


@pytest.fixture
async def service(rig: DeploymentRig) -> DeploymentService:
    return await rig.server()


async def pushed(git: GitRig, name: str = "new.txt") -> str:
    """Commit and push, and return the commit."""
    await git.commit_typed(name)
    await git.git.push(git.shop.owner, git.session.id, NewPush())
    return await git.head()


async def test_pushed_work_is_deployed_and_its_application_remembered(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    commit = await pushed(git)
    rig.web.head = commit

    taken = await service.deploy(rig.owner, rig.wish())
    rig.toy.finish()
    ended = await rig.stepped(service, taken)
    again = await service.deploy(rig.owner, rig.wish(app_id=None))

    assert (taken.branch, taken.commit, taken.session_id) == ("work", commit, git.session.id)
    assert (ended.status, ended.built_commit) == (Status.SUCCEEDED, commit)
    assert again.app_id == rig.web.uuid
    assert again.app_name == "web"
    assert await service.remembered(rig.owner, rig.environment_id) == (rig.web.uuid, "web")
    assert (await rig.coolify.actions())[-2:] == ["deployment.start"] * 2


async def test_work_that_no_commit_has_is_refused_with_what_helps(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await pushed(git)
    await git.sh("for one in 1 2 3 4 5 6 7; do echo x > file-$one; done")

    with pytest.raises(UncommittedWork) as raised:
        await service.deploy(rig.owner, rig.wish())

    error = raised.value
    assert error.message == (
        "Commit and push first: on 'work' 7 files have changes that no commit has."
    )
    assert "file-1, file-2, file-3, file-4, file-5 and 2 more" in (error.details or "")
    assert "`craftastic commit`" in (error.details or "")
    assert rig.toy.runs == []
    assert await service.list_owned(rig.owner, rig.target) == []


async def test_work_that_is_not_pushed_is_refused_with_how_much(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await pushed(git)
    await git.commit_typed("one")
    await git.commit_typed("two")

    with pytest.raises(UnpushedWork, match="Push 'work' first: 2 commits are not pushed") as raised:
        await service.deploy(rig.owner, rig.wish())

    assert "`craftastic push`" in (raised.value.details or "")
    await git.git.push(git.shop.owner, git.session.id, NewPush())
    assert (await service.deploy(rig.owner, rig.wish())).commit == await git.head()


async def test_branch_that_was_never_pushed_is_refused_though_nothing_is_ahead(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    with pytest.raises(UnpushedWork, match="Push 'work' first"):
        await service.deploy(rig.owner, rig.wish())

    await git.sh("git branch --unset-upstream")
    with pytest.raises(UnpushedWork, match="Push 'work' first"):
        await service.deploy(rig.owner, rig.wish())


async def test_branch_that_was_pushed_without_an_upstream_is_pushed(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await git.commit_typed("new")
    await git.sh("git push -q origin work")

    check = await service.check(rig.owner, rig.wish())

    assert check.ready
    assert check.commit == await git.head()


async def test_application_of_another_branch_is_refused_with_what_can_be_done(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    rig.web.branch = "main"
    await git.sh("echo x > new")

    with pytest.raises(OtherBranch) as raised:
        await service.deploy(rig.owner, rig.wish(pushed_only=True))
    check = await service.check(rig.owner, rig.wish())

    assert raised.value.message == "The application 'web' builds branch 'main', not 'work'."
    assert "pull request" in (raised.value.details or "")
    assert [one.code for one in check.problems] == [
        "OTHER_BRANCH", "UNCOMMITTED_WORK", "UNPUSHED_WORK",
    ]  # fmt: skip
    assert not check.ready
    assert (check.branch, check.builds_branch) == ("work", "main")


async def test_worktree_that_was_switched_to_another_branch_is_not_what_is_built(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await pushed(git)
    await git.sh("git checkout -q -b other; git push -q -u origin other")

    with pytest.raises(OtherBranch, match="builds branch 'work', not 'other'"):
        await service.deploy(rig.owner, rig.wish())


async def test_naming_the_branch_that_is_built_deploys_it(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    rig.web.branch = "main"
    await git.sh("echo x > new")

    taken = await service.deploy(rig.owner, rig.wish(branch="main"))

    assert taken.branch == "main"
    with pytest.raises(OtherBranch):
        await service.deploy(rig.owner, rig.wish(branch="other"))


async def test_pushed_only_deploys_what_is_pushed_whatever_else_there_is(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await pushed(git)
    await git.commit_typed("more")
    await git.sh("echo x > new")

    taken = await service.deploy(rig.owner, rig.wish(pushed_only=True))

    assert (taken.run_id, taken.commit) == (rig.toy.runs[0].uuid, None)


async def test_preview_of_a_pull_request_is_deployed_from_a_session(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    rig.web.branch = "main"
    rig.web.previews.add(12)

    with pytest.raises(UnpushedWork):
        await service.deploy(rig.owner, rig.wish(pull_request_id=12))
    commit = await pushed(git)
    taken = await service.deploy(rig.owner, rig.wish(pull_request_id=12))

    assert (taken.branch, taken.commit, taken.pull_request_id) == ("work", commit, 12)
    assert rig.toy.runs[0].pull_request_id == 12
    for number in (0, -1, 1 << 31):
        with pytest.raises(InvalidInput):
            await service.deploy(rig.owner, rig.wish(pull_request_id=number))


async def test_environment_is_deployed_by_what_its_sessions_have_pushed(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    wish = rig.wish(target_id=rig.environment_id)

    with pytest.raises(UnpushedWork):
        await service.deploy(rig.owner, wish)
    commit = await pushed(git)
    taken = await service.deploy(rig.owner, wish)

    assert (taken.session_id, taken.branch, taken.commit) == (None, "work", commit)
    assert await service.list_owned(rig.owner, rig.environment_id) == [taken]
    assert await service.list_owned(rig.owner, git.session.id) == []


async def test_same_commit_is_not_deployed_twice_at_once_unless_forced(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await pushed(git)
    taken = await service.deploy(rig.owner, rig.wish())

    with pytest.raises(DeploymentRunning) as raised:
        await service.deploy(rig.owner, rig.wish())
    forced = await service.deploy(rig.owner, rig.wish(force=True))
    check = await service.check(rig.owner, rig.wish())
    rig.toy.finish(rig.toy.runs[0])
    rig.toy.finish(rig.toy.runs[1])
    await rig.stepped(service, taken)
    after = await service.check(rig.owner, rig.wish())

    assert raised.value.answer == {"deploymentId": str(taken.id)}
    assert forced.id != taken.id
    assert check.live is not None
    assert check.live.id in {taken.id, forced.id}
    assert after.live is None
    assert (await service.deploy(rig.owner, rig.wish())).run_id == rig.toy.runs[2].uuid


async def test_check_tells_of_the_application_and_changes_nothing(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    commit = await pushed(git)
    rig.web.repository = rig.rig.server.url("project.git") if rig.rig else None

    check = await service.check(rig.owner, rig.wish())
    rig.web.repository = "example/other"
    other = await service.check(rig.owner, rig.wish())

    assert check.ready
    assert (check.application.name, check.source, check.commit) == ("web", "user", commit)
    assert (check.branch, check.builds_branch, check.live) == ("work", "work", None)
    assert other.matches_repository is False
    assert await service.list_owned(rig.owner, rig.target) == []
    assert await service.remembered(rig.owner, rig.environment_id) is None
    assert {call.method for call in rig.toy.calls} == {"GET"}


async def test_what_is_somebody_elses_is_as_what_is_not_there(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await pushed(git)
    taken = await service.deploy(rig.owner, rig.wish())
    bob, nobody = rig.coolify.bob, uuid4()
    calls = len(rig.toy.calls)

    async def refusals(owner: UserId, deployment: object, target: object) -> list[str]:
        found: list[str] = []
        for call in (
            service.get_owned(owner, deployment),  # type: ignore[arg-type]
            service.cancel(owner, deployment),  # type: ignore[arg-type]
            service.log(owner, deployment, 0),  # type: ignore[arg-type]
            service.application_log(owner, deployment, 10),  # type: ignore[arg-type]
            service.list_owned(owner, target),  # type: ignore[arg-type]
            service.deploy(owner, rig.wish(target_id=target)),
            service.check(owner, rig.wish(target_id=target)),
            service.rollback(owner, target, rig.web.uuid, "c0ffee0"),  # type: ignore[arg-type]
            service.commits(owner, target, rig.web.uuid),  # type: ignore[arg-type]
            service.remembered(owner, target),  # type: ignore[arg-type]
            service.remember(owner, target, rig.web.uuid),  # type: ignore[arg-type]
            service.forget_application(owner, target),  # type: ignore[arg-type]
        ):
            with pytest.raises(NotFound) as raised:
                await call
            found.append(f"{raised.value.code} {raised.value.message}")
        return found

    foreign = await refusals(bob, taken.id, rig.environment_id)
    absent = await refusals(rig.owner, nobody, nobody)
    sessions = await refusals(bob, taken.id, git.session.id)

    assert foreign == absent == sessions
    assert set(foreign) == {
        "DEPLOYMENT_NOT_FOUND Deployment not found",
        "DEPLOYMENT_TARGET_NOT_FOUND Session or environment not found",
        "ENVIRONMENT_NOT_FOUND Environment not found",
    }
    assert len(rig.toy.calls) == calls
    after = await service.get_owned(rig.owner, taken.id)
    assert not after.cancel_wanted
    assert isinstance(DeploymentNotFound(), NotFound)
    assert isinstance(TargetNotFound(), NotFound)


async def test_application_has_to_be_known(rig: DeploymentRig, service: DeploymentService) -> None:
    with pytest.raises(ApplicationNeeded):
        await service.deploy(rig.owner, rig.wish(app_id=None))
    with pytest.raises(BadApplicationId):
        await service.deploy(rig.owner, rig.wish(app_id="../x"))
    with pytest.raises(CoolifyNotFound):
        await service.deploy(rig.owner, rig.wish(app_id="absent"))
    with pytest.raises(BadCommit):
        await service.rollback(rig.owner, rig.target, rig.web.uuid, "HEAD~1")
    with pytest.raises(CoolifyNotFound):
        await service.remember(rig.owner, rig.environment_id, "absent")

    assert await service.remember(rig.owner, rig.environment_id, rig.web.uuid) == (
        rig.web.uuid,
        "web",
    )
    await service.forget_application(rig.owner, rig.environment_id)
    assert await service.remembered(rig.owner, rig.environment_id) is None


async def test_without_a_connection_nothing_is_configured(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await pushed(git)
    taken = await service.deploy(rig.owner, rig.wish())
    await service.coolify.remove(rig.owner)

    for call in (
        service.deploy(rig.owner, rig.wish()),
        service.check(rig.owner, rig.wish()),
        service.commits(rig.owner, rig.target, None),
        service.application_log(rig.owner, taken.id),
    ):
        with pytest.raises(DeploymentNotConfigured, match="Deployment not configured"):
            await call
    log = await service.log(rig.owner, taken.id)
    assert (log.available, log.complete) == (False, True)


async def test_coolify_that_asks_for_peace_is_not_asked_for_people_either(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    rig.toy.fault("/applications/*", 429, headers={"Retry-After": "40"})

    with pytest.raises(CoolifyBusy):
        await service.check(rig.owner, rig.wish())
    calls = len(rig.toy.calls)
    with pytest.raises(CoolifyBusy) as raised:
        await service.check(rig.owner, rig.wish())

    assert len(rig.toy.calls) == calls
    assert 30 < raised.value.retry_after_s <= 40


async def test_what_the_application_prints_is_shown_without_secrets(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await pushed(git)
    rig.secrets.words.append("hunter2hunter2")
    rig.web.runtime_log = "password=hunter2hunter2\n"
    taken = await service.deploy(rig.owner, rig.wish())

    shown = await service.application_log(rig.owner, taken.id, 10)
    rig.web.status = "exited:unhealthy"
    stopped = await service.application_log(rig.owner, taken.id, 10)

    assert (shown or "").strip() == "password=••••••"
    assert stopped is None


async def test_images_to_go_back_to_are_listed(
    rig: DeploymentRig, service: DeploymentService
) -> None:
    commit = "c0ffee" + "0" * 34
    rig.web.images = [{"tag": commit, "created_at": "2026-07-19", "is_current": True}]
    await service.remember(rig.owner, rig.environment_id, rig.web.uuid)

    found = await service.commits(rig.owner, rig.target)

    assert [(one.commit, one.current) for one in found] == [(commit, True)]


async def test_commit_that_is_behind_the_remote_is_not_said_to_be_built(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await pushed(git)
    git.upstream.commit({"z.txt": "z\n"}, branch="work")
    await git.git.fetch(git.shop.owner, git.session.id)

    check = await service.check(rig.owner, rig.wish())

    assert check.ready
    assert check.commit is None


async def test_committing_and_pushing_makes_work_deployable(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await git.sh("echo x > new")
    before = await service.check(rig.owner, rig.wish())
    await git.git.commit(git.shop.owner, git.session.id, NewCommit("new"))
    await git.git.push(git.shop.owner, git.session.id, NewPush())

    after = await service.check(rig.owner, rig.wish())

    assert [one.code for one in before.problems] == ["UNCOMMITTED_WORK", "UNPUSHED_WORK"]
    assert after.ready


async def test_git_of_a_sandbox_that_makes_commits_up_is_not_believed(
    rig: DeploymentRig, service: DeploymentService, git: GitRig
) -> None:
    await pushed(git)
    told = "# branch.oid %0300d\\0# branch.head work\\0# branch.upstream origin/work\\0"
    git.replace_git(
        f"""case "$*" in
        *status*) printf '{told}# branch.ab +0 -0\\0'; exit 0 ;;
        esac"""
    )

    with pytest.raises(UnpushedWork):
        await service.deploy(rig.owner, rig.wish())

    assert rig.toy.runs == []
