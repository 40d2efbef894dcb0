"""Pushes of real git through the gateway: what the policy lets by, and what is kept of each."""

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import CompletedProcess
from uuid import UUID, uuid4

import anyio
import pytest
import structlog

from craftastic.accounts.service import UserId
from craftastic.audit.service import AuditService
from craftastic.database import Database
from craftastic.errors import Unavailable
from craftastic.gateway import _pushing, git_proxy
from craftastic.gateway._pkt_line import FLUSH, pkt_line
from craftastic.gateway._pushing import CUT
from craftastic.gateway._throttle import AT_ONCE
from craftastic.pushes.service import (
    MAX_REFS,
    GatewayEnvironment,
    PushIntent,
    PushOutcome,
    PushPolicy,
    PushRefusal,
    PushService,
    RecordedUpdate,
    RefResult,
)
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.settings import Settings
from tests.fakes.clock import FakeClock
from tests.fakes.gateway import (
    BranchesOnly,
    FakeEnvironment,
    Recorded,
    Sandboxes,
    ServedGateway,
    gateway_of,
    origin,
    served,
)
from tests.fakes.git_http_server import GitHttpServer, git, make_repository, run_git
from tests.fakes.toy_upstream import (
    RECEIVE_PACK,
    WAIT_S,
    Answer,
    Connection,
    Toy,
    answering,
    ask,
    refs_of,
    toy,
)
from tests.fakes.workshop import build, opened, rows

SETTINGS = Settings.model_validate({"git_allow_http": True, "git_allow_private": True})
NONE, ONE = "0" * 40, "1" * 40
PUSH_ID = "0123456789abcdef" * 2
OK = RefResult(PushOutcome.OK)
RESULT = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-receive-pack-result\r\n"
    b"Connection: close\r\n"
)


@dataclass
class Stage:
    """A clone in a sandbox, the gateway with the whole push service, and the upstream."""

    gateway: ServedGateway
    upstream: GitHttpServer
    sandboxes: Sandboxes
    environment: FakeEnvironment
    pushes: PushService
    work: Path
    session_branches: set[str] = field(default_factory=set)

    @property
    def bare(self) -> Path:
        return self.upstream.root / "project.git"

    async def push(self, *arguments: str, push_id: str | None = None) -> CompletedProcess[str]:
        options = [*origin(self.environment)]
        if push_id is not None:
            options += ["-c", f"http.extraHeader=X-Craftastic-Push: {push_id}"]
        argv = (*options, "push", *arguments)
        return await anyio.to_thread.run_sync(lambda: run_git(*argv, cwd=self.work))

    def commit(self, name: str = "change") -> str:
        (self.work / name).write_text(name)
        git("add", ".", cwd=self.work)
        git("commit", "--quiet", "-m", name, cwd=self.work)
        return git("rev-parse", "HEAD", cwd=self.work).strip()

    def refs(self) -> dict[str, str]:
        lines = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=self.bare)
        return dict(line.split() for line in lines.splitlines())

    def allow(self, policy: PushPolicy) -> None:
        self.environment = replace(self.environment, push_policy=policy)
        self.sandboxes.environments[self.environment.id] = self.environment

    async def recorded(self, limit: int = 50) -> list[RecordedUpdate]:
        return await self.pushes.list_for_environment(
            UserId(self.environment.owner_id), self.environment.id, limit=limit
        )


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[GitHttpServer]:
    root = tmp_path / "upstream"
    root.mkdir()
    make_repository(root / "project.git")
    with GitHttpServer(root) as server:
        yield server


@pytest.fixture
async def stage(
    database: Database, clock: FakeClock, upstream: GitHttpServer, tmp_path: Path
) -> AsyncIterator[Stage]:
    branches: set[str] = set()

    async def branches_of(_environment_id: UUID) -> set[str]:
        return branches

    async with opened(build(database, clock, MemoryRuntime())) as shop:
        made = await shop.create()
        environment = FakeEnvironment(
            upstream.url("project.git"), id=made.id, owner_id=made.owner_id
        )
        sandboxes = Sandboxes({environment.id: environment})
        pushes = PushService(database, AuditService(database, clock), clock, branches_of)
        async with served(gateway_of(SETTINGS, sandboxes, ref_policy=pushes)) as gateway:
            work = tmp_path / "work"
            await anyio.to_thread.run_sync(
                lambda: git(*origin(environment), "clone", gateway.url(environment), str(work))
            )
            yield Stage(gateway, upstream, sandboxes, environment, pushes, work, branches)


async def test_new_branch_is_made_and_pushed_to_again(stage: Stage) -> None:
    first = stage.commit("one")
    made = await stage.push("origin", "HEAD:refs/heads/mine")
    second = stage.commit("two")
    moved = await stage.push("origin", "HEAD:refs/heads/mine")

    assert [made.returncode, moved.returncode] == [0, 0], made.stderr + moved.stderr
    assert stage.refs()["refs/heads/mine"] == second
    assert [(one.ref, one.old, one.new, one.outcome) for one in await stage.recorded()] == [
        ("refs/heads/mine", first, second, PushOutcome.OK),
        ("refs/heads/mine", NONE, first, PushOutcome.OK),
    ]


async def test_branch_of_a_session_may_be_pushed_to_and_another_one_not(stage: Stage) -> None:
    stage.commit()
    git("branch", "release", "main~0", cwd=stage.bare)
    refused = await stage.push("origin", "HEAD:refs/heads/main")
    stage.session_branches.add("main")
    allowed = await stage.push("origin", "HEAD:refs/heads/main")
    other = await stage.push("origin", "HEAD:refs/heads/release")

    assert refused.returncode != 0
    assert allowed.returncode == 0, allowed.stderr
    assert other.returncode != 0
    assert "start a session on this branch, or change its push policy" in other.stderr


@pytest.mark.parametrize(
    ("refspec", "says"),
    [
        ("HEAD:refs/tags/v1", "change its push policy to push tags"),
        (":refs/heads/main", "change its push policy to delete branches"),
        ("+HEAD:refs/heads/main", "start a session on this branch"),
        ("HEAD:refs/notes/x", "change its push policy to push refs that are not branches"),
        ("HEAD:refs/craftastic/kept/1", "refs/craftastic is for this environment's own use"),
        ("HEAD:refs/heads/-x", "not the name of a ref that can be pushed"),
    ],
)
async def test_what_the_policy_refuses_is_explained_kept_and_unheard_of_upstream(
    stage: Stage, refspec: str, says: str
) -> None:
    stage.commit()
    before = stage.refs()
    stage.upstream.requests.clear()

    done = await stage.push("origin", "HEAD:refs/heads/also", refspec)

    assert done.returncode != 0
    assert says in done.stderr
    assert "refused together with the others" in done.stderr
    assert stage.refs() == before
    assert all(method == "GET" for method, _, _ in stage.upstream.requests)
    kept = await stage.recorded()
    assert [one.outcome for one in kept] == [PushOutcome.REFUSED] * 2
    assert any(says in (one.reason or "") for one in kept)


async def test_wider_policy_lets_tags_deletions_and_other_branches_by(stage: Stage) -> None:
    stage.allow(PushPolicy.ANY)
    head = stage.commit()
    git("branch", "old", "main", cwd=stage.bare)

    done = await stage.push(
        "origin", "HEAD:main", "HEAD:refs/tags/v1", ":refs/heads/old", "HEAD:refs/notes/x"
    )
    ours = await stage.push("origin", "HEAD:refs/craftastic/x")

    assert done.returncode == 0, done.stderr
    assert stage.refs() == {
        "refs/heads/main": head,
        "refs/tags/v1": head,
        "refs/notes/x": head,
    }
    assert ours.returncode != 0


async def test_narrowest_policy_lets_nothing_by(stage: Stage) -> None:
    stage.allow(PushPolicy.NONE)
    stage.session_branches.add("main")
    stage.commit()

    done = await stage.push("origin", "HEAD:refs/heads/new", "HEAD:refs/heads/main")

    assert done.returncode != 0
    assert done.stderr.count("this environment allows no pushes; change its push policy") == 2


async def test_ref_that_an_upstreams_hook_rejects_is_kept_as_rejected_beside_the_others(
    stage: Stage,
) -> None:
    hook = stage.bare / "hooks" / "update"
    hook.write_text("#!/bin/sh\necho looking at $1\n[ $1 != refs/heads/bad ]\n")
    hook.chmod(0o755)
    stage.commit()

    done = await stage.push("origin", "HEAD:refs/heads/good", "HEAD:refs/heads/bad")

    assert done.returncode != 0
    assert "remote: looking at refs/heads/bad" in done.stderr
    results = {one.ref: (one.outcome, one.reason) for one in await stage.recorded()}
    assert results == {
        "refs/heads/good": (PushOutcome.OK, None),
        "refs/heads/bad": (PushOutcome.REJECTED, "hook declined"),
    }


async def test_history_that_an_upstream_does_not_let_be_rewritten_is_kept_as_rejected(
    stage: Stage,
) -> None:
    git("config", "receive.denyNonFastForwards", "true", cwd=stage.bare)
    stage.commit("one")
    await stage.push("origin", "HEAD:refs/heads/mine")
    git("reset", "--quiet", "--hard", "HEAD~1", cwd=stage.work)
    stage.commit("two")

    done = await stage.push("--force", "origin", "HEAD:refs/heads/mine")

    assert done.returncode != 0
    newest, _ = await stage.recorded()
    assert (newest.outcome, newest.reason) == (PushOutcome.REJECTED, "non-fast-forward")


async def test_branch_that_was_made_by_somebody_else_meanwhile_is_not_taken_for_the_environments(
    stage: Stage,
) -> None:
    body = pkt_line(
        f"{NONE} {stage.refs()['refs/heads/main']} refs/heads/main\0report-status".encode()
    )
    pack = b"PACK\0\0\0\2\0\0\0\0"  # nothing is in it
    pack += hashlib.sha1(pack, usedforsecurity=False).digest()

    answer = await ask(
        stage.gateway,
        f"/git/{stage.environment.id}.git/git-receive-pack",
        method="POST",
        headers=RECEIVE_PACK,
        body=body + FLUSH + pack,
    )
    stage.commit()
    done = await stage.push("origin", "HEAD:refs/heads/main")

    assert answer.status == 200
    assert b"ng refs/heads/main" in answer.body
    assert done.returncode != 0
    assert [one.outcome for one in await stage.recorded()] == [
        PushOutcome.REFUSED,
        PushOutcome.REJECTED,
    ]


async def test_push_is_found_by_its_id_as_soon_as_git_has_ended_and_no_upstream_hears_the_id(
    stage: Stage,
) -> None:
    head = stage.commit()

    await stage.push("origin", "HEAD:refs/heads/mine", push_id=PUSH_ID)

    (seen,) = await stage.pushes.seen(stage.environment.id, PUSH_ID)
    assert (seen.ref, seen.old, seen.new, seen.outcome) == (
        "refs/heads/mine",
        NONE,
        head,
        PushOutcome.OK,
    )
    assert all(
        PUSH_ID not in str(headers) and "x-craftastic-push" not in headers
        for _, _, headers in stage.upstream.requests
    )


# ---- what is told of pushes, whatever way they end --------------------------------------------


@pytest.fixture
def sandboxes() -> Sandboxes:
    return Sandboxes()


def push_request(capabilities: str = "report-status side-band-64k", refs: int = 1) -> bytes:
    lines = [f"{NONE} {ONE} refs/heads/x{number}" for number in range(refs)]
    lines[0] += f"\0{capabilities}"
    return b"".join(pkt_line(line.encode()) for line in lines) + FLUSH


async def post_push(
    gateway: ServedGateway, environment: FakeEnvironment, body: bytes, headers: str = ""
) -> Answer:
    return await ask(
        gateway,
        f"/git/{environment.id}.git/git-receive-pack",
        method="POST",
        headers=RECEIVE_PACK + headers,
        body=body,
    )


async def pushed(
    sandboxes: Sandboxes,
    answer: bytes,
    request: bytes,
    headers: str = "",
    recorder: BranchesOnly | None = None,
) -> Mapping[str, RefResult]:
    """Push to an upstream that answers with given bytes; return what the one note of it says."""
    recorder = recorder or BranchesOnly()
    async with (
        toy(answering(answer)) as upstream,
        served(gateway_of(SETTINGS, sandboxes, ref_policy=recorder)) as gateway,
    ):
        await post_push(gateway, sandboxes.add(upstream.url), request, headers)
    (push,) = recorder.pushes
    return push.results


def failed(reason: str) -> RefResult:
    return RefResult(PushOutcome.FAILED, reason)


REPORT = pkt_line(b"unpack ok\n") + pkt_line(b"ok refs/heads/x0\n") + FLUSH
BANDED = pkt_line(b"\x02hello\n") + pkt_line(b"\x01" + REPORT) + FLUSH


@pytest.mark.parametrize(
    ("answer", "capabilities", "result"),
    [
        (b"\r\n" + BANDED, "report-status side-band-64k", OK),
        (b"\r\n" + REPORT, "report-status-v2", OK),
        (
            b"\r\n",
            "side-band-64k",
            failed("git asked for no report, so whether the upstream took it is not known"),
        ),
        (b"\r\n", "report-status", failed("the upstream did not say whether it took it")),
        (
            b"\r\nrubbish",
            "report-status",
            failed("the upstream's report of the push could not be read"),
        ),
        (
            b"Content-Encoding: gzip\r\n\r\n" + BANDED,
            "report-status side-band-64k",
            failed("the upstream's report of the push was compressed"),
        ),
        (
            b"Content-Length: 5000\r\n\r\n" + BANDED[:20],
            "report-status side-band-64k",
            failed("The connection to 127.0.0.1 broke during the transfer."),
        ),
        (b"Content-Length: 5000\r\n\r\n" + BANDED, "report-status side-band-64k", OK),
    ],
)
async def test_answer_of_an_upstream_says_how_a_push_ended(
    sandboxes: Sandboxes, answer: bytes, capabilities: str, result: RefResult
) -> None:
    results = await pushed(sandboxes, RESULT + answer, push_request(capabilities))

    assert results == {"refs/heads/x0": result}


@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "asks for an account"), (403, "refuses access"), (500, "answered with an error (500)")],
)
async def test_upstream_that_refuses_the_whole_request_is_the_reason(
    sandboxes: Sandboxes, status: int, says: str
) -> None:
    no = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()

    results = await pushed(sandboxes, no, push_request(refs=2))

    assert {one.outcome for one in results.values()} == {PushOutcome.FAILED}
    assert all(says in (one.reason or "") for one in results.values())


@pytest.mark.parametrize(
    ("value", "push_id"),
    [
        (PUSH_ID, PUSH_ID),
        (PUSH_ID.upper(), None),
        (PUSH_ID[:-1], None),
        (PUSH_ID + "0", None),
        (PUSH_ID[:-1] + "g", None),
        ("", None),
        ("'; drop table git_pushes; --", None),
    ],
)
async def test_only_a_well_formed_push_id_is_taken(
    sandboxes: Sandboxes, value: str, push_id: str | None
) -> None:
    recorder = BranchesOnly()

    await pushed(
        sandboxes,
        RESULT + b"\r\n" + BANDED,
        push_request(),
        f"X-Craftastic-Push: {value}\r\n",
        recorder,
    )

    assert recorder.pushes[0].push_id == push_id


class Slow(BranchesOnly):
    """Takes its time to note a push."""

    async def ended(
        self,
        environment: GatewayEnvironment,
        intent: PushIntent,
        results: Mapping[str, RefResult],
    ) -> None:
        await anyio.sleep(0.4)
        await super().ended(environment, intent, results)


async def leave(
    gateway: ServedGateway, environment: FakeEnvironment, body: bytes, when: anyio.Event
) -> None:
    """Send a push and go away at a time."""
    head = (
        f"POST /git/{environment.id}.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {environment.token}\r\n{RECEIVE_PACK}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
        await stream.send(head.encode() + body)
        await when.wait()


async def noted(recorder: BranchesOnly) -> Recorded:
    while not recorder.pushes:  # noqa: ASYNC110 - the gateway tells nobody else
        await anyio.sleep(0.01)
    (push,) = recorder.pushes
    return push


async def test_push_whose_sandbox_goes_away_is_noted_once(
    sandboxes: Sandboxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_proxy, "REPORT_WAIT_S", 0.1)
    recorder, reached = Slow(), anyio.Event()

    async def waits(upstream: Toy, connection: Connection) -> None:
        reached.set()
        await connection.until_closed()

    with anyio.fail_after(WAIT_S):
        async with (
            toy(waits) as upstream,
            served(gateway_of(SETTINGS, sandboxes, ref_policy=recorder)) as gateway,
        ):
            await leave(gateway, sandboxes.add(upstream.url), push_request(), reached)
            await upstream.closed.wait()
            push = await noted(recorder)

    assert push.results == {"refs/heads/x0": failed(CUT)}


@pytest.mark.parametrize("answers_first", [False, True])
async def test_upstream_is_listened_to_after_the_sandbox_has_gone(
    sandboxes: Sandboxes, answers_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, reached, gone = BranchesOnly(), anyio.Event(), anyio.Event()
    leaves = git_proxy._Transfer.leave

    def left(transfer: git_proxy._Transfer, why: str) -> None:
        leaves(transfer, why)
        gone.set()

    monkeypatch.setattr(git_proxy._Transfer, "leave", left)

    async def waits(upstream: Toy, connection: Connection) -> None:
        begin = RESULT + b"\r\n" + pkt_line(b"\x02checking\n")
        if answers_first:
            await connection.send(begin)
        reached.set()
        await gone.wait()
        await connection.send(BANDED if answers_first else begin + BANDED)

    with anyio.fail_after(WAIT_S):
        async with (
            toy(waits) as upstream,
            served(gateway_of(SETTINGS, sandboxes, ref_policy=recorder)) as gateway,
        ):
            await leave(gateway, sandboxes.add(upstream.url), push_request(), reached)
            push = await noted(recorder)

    assert push.results == {"refs/heads/x0": OK}


async def test_push_that_is_cut_in_the_middle_does_not_go_on_without_its_sandbox(
    sandboxes: Sandboxes,
) -> None:
    recorder, reached = BranchesOnly(), anyio.Event()

    async def waits(upstream: Toy, connection: Connection) -> None:
        reached.set()
        await connection.until_closed()

    with anyio.fail_after(WAIT_S):
        async with (
            toy(waits) as upstream,
            served(gateway_of(SETTINGS, sandboxes, ref_policy=recorder)) as gateway,
        ):
            environment = sandboxes.add(upstream.url)
            head = (
                f"POST /git/{environment.id}.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {environment.token}\r\n{RECEIVE_PACK}"
                "Content-Length: 99999\r\n\r\n"
            )
            async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
                await stream.send(head.encode() + push_request())
                await reached.wait()
            await upstream.closed.wait()
            push = await noted(recorder)

    assert {one.outcome for one in push.results.values()} == {PushOutcome.FAILED}


async def test_branch_of_a_push_that_was_interrupted_at_its_end_is_the_environments(
    stage: Stage,
) -> None:
    hook = stage.bare / "hooks" / "pre-receive"
    hook.write_text('#!/bin/sh\ntouch "$GIT_DIR/asked"\nsleep 1\n')
    hook.chmod(0o755)
    stage.commit()
    argv = (*origin(stage.environment), "push", "origin", "HEAD:refs/heads/mine")
    with anyio.fail_after(WAIT_S):
        process = await anyio.open_process(["git", *argv], cwd=stage.work)
        while not (stage.bare / "asked").exists():  # noqa: ASYNC110 - it is a file of git's
            await anyio.sleep(0.01)
        process.kill()
        await process.aclose()
        while (await stage.recorded())[0].outcome is PushOutcome.UNKNOWN:  # noqa: ASYNC110
            await anyio.sleep(0.01)

    head = stage.commit("more")
    again = await stage.push("origin", "HEAD:refs/heads/mine")

    assert again.returncode == 0, again.stderr
    assert stage.refs()["refs/heads/mine"] == head
    assert [one.outcome for one in await stage.recorded()] == [PushOutcome.OK] * 2


@pytest.mark.parametrize("refspec", ["HEAD:refs/heads/mine", "HEAD:refs/tags/refused"])
async def test_git_does_not_end_before_its_push_is_noted(
    upstream: GitHttpServer, tmp_path: Path, refspec: str
) -> None:
    sandboxes, slow = Sandboxes(), Slow()
    environment = sandboxes.add(upstream.url("project.git"))
    work = upstream.root / "project.git.work"
    async with served(gateway_of(SETTINGS, sandboxes, ref_policy=slow)) as gateway:
        argv = (*origin(environment), "push", gateway.url(environment), refspec)
        await anyio.to_thread.run_sync(lambda: run_git(*argv, cwd=work))
        noted = len(slow.pushes)

    assert noted == 1


@dataclass
class Forgetful(BranchesOnly):
    """Cannot note the end of a push the first times."""

    fails: int = 10**6

    async def ended(
        self,
        environment: GatewayEnvironment,
        intent: PushIntent,
        results: Mapping[str, RefResult],
    ) -> None:
        await super().ended(environment, intent, results)
        if len(self.pushes) <= self.fails:
            raise Unavailable("The database does not answer; try again.")


async def push_to(
    upstream: GitHttpServer, policy: BranchesOnly, *refspecs: str
) -> CompletedProcess[str]:
    sandboxes = Sandboxes()
    environment = sandboxes.add(upstream.url("project.git"))
    work = upstream.root / "project.git.work"
    async with served(gateway_of(SETTINGS, sandboxes, ref_policy=policy)) as gateway:
        argv = (*origin(environment), "push", gateway.url(environment), *refspecs)
        return await anyio.to_thread.run_sync(lambda: run_git(*argv, cwd=work))


async def test_push_whose_end_cannot_be_noted_is_in_the_log_and_git_learns_the_truth(
    upstream: GitHttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pushing, "RECORD_TIMEOUT_S", 0.2)
    forgetful = Forgetful()
    names = [f"refs/heads/x{number}" for number in range(120)]
    with structlog.testing.capture_logs() as logged:
        done = await push_to(upstream, forgetful, *[f"HEAD:{name}" for name in names])

    assert done.returncode == 0, done.stderr
    lost = [one for one in logged if one["event"] == "how a push ended could not be recorded"]
    assert {one["log_level"] for one in lost} == {"error"}
    told = [line.split()[0] for one in lost for line in one["refs"]]
    assert sorted(told) == sorted(names)


async def test_end_of_a_push_is_noted_again_until_that_works(
    upstream: GitHttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pushing, "FIRST_PAUSE_S", 0.01)
    forgetful = Forgetful(fails=3)
    with structlog.testing.capture_logs() as logged:
        done = await push_to(upstream, forgetful, "HEAD:refs/heads/x")

    assert done.returncode == 0, done.stderr
    assert [push.outcomes for push in forgetful.pushes] == [[PushOutcome.OK]] * 4
    assert not [one for one in logged if "recorded" in one["event"]]


class Unwilling(BranchesOnly):
    """Cannot note that a push begins."""

    async def begun(self, environment: GatewayEnvironment, intent: PushIntent) -> None:
        raise Unavailable("The database does not answer; try again.")


async def test_push_that_could_not_be_noted_first_does_not_go_on(upstream: GitHttpServer) -> None:
    before = git("for-each-ref", cwd=upstream.root / "project.git")

    done = await push_to(upstream, Unwilling(), "HEAD:refs/heads/x")

    assert done.returncode != 0
    assert "503" in done.stderr
    assert git("for-each-ref", cwd=upstream.root / "project.git") == before
    assert {method for method, _, _ in upstream.requests} == {"GET"}


async def test_push_is_noted_before_the_upstream_hears_of_it(sandboxes: Sandboxes) -> None:
    recorder, known = BranchesOnly(), list[int]()

    async def behave(upstream: Toy, connection: Connection) -> None:
        known.append(len(recorder.begun_pushes))
        await connection.send(RESULT + b"\r\n" + BANDED)

    async with (
        toy(behave) as upstream,
        served(gateway_of(SETTINGS, sandboxes, ref_policy=recorder)) as gateway,
    ):
        environment = sandboxes.add(upstream.url)
        await post_push(gateway, environment, push_request())

    assert known == [1]


async def test_every_ref_of_a_large_push_is_named_in_the_audit_log_whatever_comes_after_it(
    stage: Stage,
) -> None:
    head = stage.commit()
    names = [f"refs/heads/a{number:03}" for number in range(120)]
    done = await stage.push("origin", *[f"HEAD:{name}" for name in names])
    for turn in range(3):
        junk = [f"HEAD:refs/tags/j{turn}-{number}" for number in range(400)]
        await stage.push("origin", *junk)

    assert done.returncode == 0, done.stderr
    events = await stage.pushes.audit.list_for(stage.environment.owner_id, limit=200)
    named = {
        (one["ref"], one["new"])
        for event in events
        if (event.action, event.outcome) == ("git.push", "ok")
        for one in event.details["refs"]
    }
    assert named == {(name, head) for name in names}
    assert len([event for event in events if event.outcome == "refused"]) == 3
    kept = {one.ref for one in await stage.recorded(limit=1000) if one.outcome is PushOutcome.OK}
    assert kept == set(names)


async def test_push_of_too_many_refs_is_refused_in_gits_own_words(stage: Stage) -> None:
    stage.allow(PushPolicy.ANY)
    stage.commit()

    done = await stage.push(
        "origin", *[f"HEAD:refs/heads/b{number}" for number in range(MAX_REFS + 1)]
    )

    assert done.returncode != 0
    assert f"a push may have {MAX_REFS} refs; push fewer of them at once" in done.stderr
    assert set(stage.refs()) == {"refs/heads/main"}


OPTIONS = ("-o", "repo.private=false", "-o", "merge_request.create")


async def test_push_options_stay_here_unless_the_policy_is_the_widest(stage: Stage) -> None:
    git("config", "receive.advertisePushOptions", "true", cwd=stage.bare)
    hook = stage.bare / "hooks" / "post-receive"
    hook.write_text('#!/bin/sh\nenv | grep ^GIT_PUSH_OPTION_ | sort > "$GIT_DIR/options"\n')
    hook.chmod(0o755)
    stage.commit()

    refused = await stage.push(*OPTIONS, "origin", "HEAD:refs/heads/mine")
    unheard = stage.refs()
    stage.allow(PushPolicy.ANY)
    allowed = await stage.push(*OPTIONS, "origin", "HEAD:refs/heads/mine")

    assert refused.returncode != 0
    assert "this environment allows no push options; change its push policy" in refused.stderr
    assert set(unheard) == {"refs/heads/main"}
    assert allowed.returncode == 0, allowed.stderr
    assert "merge_request.create" in (stage.bare / "options").read_text()
    events = await stage.pushes.audit.list_for(stage.environment.owner_id)
    told = [(one.outcome, one.details["options"]) for one in events if "options" in one.details]
    options = ["repo.private=false", "merge_request.create"]
    assert told == [("started", options), ("refused", options)]


async def test_push_options_are_found_however_they_are_announced(stage: Stage) -> None:
    head = stage.refs()["refs/heads/main"]
    line = f"{NONE} {head} refs/heads/x\0report-status push-options=1"
    body = pkt_line(line.encode()) + FLUSH + pkt_line(b"repo.private=false") + FLUSH

    answer = await post_push(stage.gateway, stage.environment, body)

    assert b"allows no push options" in answer.body
    assert "refs/heads/x" not in stage.refs()


async def test_environment_that_pushes_in_vain_has_to_wait_and_others_do_not(
    stage: Stage,
) -> None:
    stage.commit()
    tag = pkt_line(f"{NONE} {ONE} refs/tags/x\0report-status".encode()) + FLUSH
    for _ in range(AT_ONCE):
        await post_push(stage.gateway, stage.environment, tag)
    other = stage.sandboxes.add(stage.upstream.url("project.git"), owner_id=uuid4())

    answer = await post_push(stage.gateway, stage.environment, tag)
    typed = await stage.push("origin", "HEAD:refs/heads/mine")
    read = await anyio.to_thread.run_sync(
        lambda: run_git(*origin(stage.environment), "ls-remote", "origin", cwd=stage.work)
    )
    elsewhere = await ask(stage.gateway, refs_of(other, "git-receive-pack"))

    assert answer.status == 429
    assert typed.returncode != 0
    assert "remote: Too many pushes from this environment were refused or failed" in typed.stderr
    assert (read.returncode, elsewhere.status) == (0, 200), read.stderr
    count = await rows(
        stage.pushes.database, "SELECT count(*) FROM audit_events WHERE action LIKE 'git.%'"
    )
    assert count == [(AT_ONCE,)]


async def test_pushes_that_an_upstream_takes_can_be_as_many_as_one_likes(
    sandboxes: Sandboxes,
) -> None:
    recorder = BranchesOnly()
    async with (
        toy(answering(RESULT + b"\r\n" + BANDED)) as upstream,
        served(gateway_of(SETTINGS, sandboxes, ref_policy=recorder)) as gateway,
    ):
        environment = sandboxes.add(upstream.url)
        answers = [
            await post_push(gateway, environment, push_request()) for _ in range(AT_ONCE + 5)
        ]

    assert {answer.status for answer in answers} == {200}


async def test_list_of_refs_that_a_push_asked_for_is_kept_under_its_id(stage: Stage) -> None:
    head = stage.refs()["refs/heads/main"]
    stage.commit()
    await stage.push("origin", "HEAD:refs/heads/mine")
    before = await stage.pushes.advertised(stage.environment.id, PUSH_ID)

    await stage.push("origin", "HEAD:refs/heads/mine", push_id=PUSH_ID)

    assert before is None
    assert await stage.pushes.advertised(stage.environment.id, PUSH_ID) == {
        "refs/heads/main": head,
        "refs/heads/mine": stage.refs()["refs/heads/mine"],
    }


LISTED = pkt_line(b"# service=git-receive-pack\n") + FLUSH
ADVERTISEMENT = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-receive-pack-advertisement\r\n"
    b"Connection: close\r\n"
)


@pytest.mark.parametrize(
    ("answer", "push_id", "kept"),
    [
        (LISTED + pkt_line(f"{ONE} refs/heads/a\0x".encode()) + FLUSH, PUSH_ID, 1),
        (LISTED + pkt_line(f"{ONE} refs/heads/a\0x".encode()) + FLUSH, "", 0),
        (LISTED + pkt_line(f"{ONE} refs/heads/a\0x".encode()), PUSH_ID, 0),
        (LISTED + b"0003", PUSH_ID, 0),
    ],
    ids=["whole", "without an id", "cut", "malformed"],
)
async def test_only_a_whole_list_that_was_asked_for_is_kept(
    sandboxes: Sandboxes, answer: bytes, push_id: str, kept: int
) -> None:
    recorder = BranchesOnly()
    async with (
        toy(answering(ADVERTISEMENT + b"\r\n" + answer)) as upstream,
        served(gateway_of(SETTINGS, sandboxes, ref_policy=recorder)) as gateway,
    ):
        environment = sandboxes.add(upstream.url)
        given = await ask(
            gateway,
            refs_of(environment, "git-receive-pack"),
            headers=f"X-Craftastic-Push: {push_id}\r\n",
        )

    assert given.body == answer
    assert recorder.lists == [(PUSH_ID, {"refs/heads/a": ONE})] * kept


class Asked(BranchesOnly):
    """Says when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = anyio.Event()

    async def check(
        self, environment: GatewayEnvironment, intent: PushIntent
    ) -> PushRefusal | None:
        self.asked.set()
        return await super().check(environment, intent)


async def test_refused_push_that_is_never_sent_whole_is_noted_too(sandboxes: Sandboxes) -> None:
    policy = Asked()
    body = pkt_line(f"{NONE} {ONE} refs/tags/x\0report-status".encode()) + FLUSH
    async with served(gateway_of(SETTINGS, sandboxes, ref_policy=policy)) as gateway:
        environment = sandboxes.add("https://git.example/o/n")
        head = (
            f"POST /git/{environment.id}.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {environment.token}\r\n{RECEIVE_PACK}"
            "Content-Length: 9999\r\n\r\n"
        )
        with anyio.fail_after(WAIT_S):
            async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
                await stream.send(head.encode() + body)
                await policy.asked.wait()
            while not policy.pushes:  # noqa: ASYNC110 - the gateway tells nobody else
                await anyio.sleep(0.01)

    (push,) = policy.pushes
    assert push.outcomes == [PushOutcome.REFUSED]
