"""What is kept of pushes, and what the policy learns from it, on both databases."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

import anyio
import pytest

from craftastic.audit.service import AuditService
from craftastic.database import Database
from craftastic.environments.service import Environment, EnvironmentNotFound
from craftastic.gateway._pkt_line import RefUpdate
from craftastic.pushes import _repository as pushes_repository
from craftastic.pushes.service import (
    MAX_AUDITED_REFS,
    PushOutcome,
    PushPolicy,
    PushService,
    RefResult,
)
from craftastic.runtimes.memory import MemoryRuntime
from tests.fakes.clock import FakeClock
from tests.fakes.gateway import FakeEnvironment
from tests.fakes.workshop import Workshop, build, opened, rows

NONE, ONE, TWO = "0" * 40, "1" * 40, "2" * 40
OK = RefResult(PushOutcome.OK)
REJECTED = RefResult(PushOutcome.REJECTED, "pre-receive hook declined")


@dataclass
class Yard:
    """An environment, and the service that knows about its pushes."""

    shop: Workshop
    environment: Environment
    pushes: PushService
    session_branches: set[str] = field(default_factory=set)

    async def push(
        self, *moves: tuple[str, str, str], result: RefResult = OK, push_id: str | None = None
    ) -> None:
        updates = [RefUpdate(*move) for move in moves]
        results = {update.ref: result for update in updates}
        await self.pushes.recorded(self.environment, updates, results, push_id)

    async def refused(self, *moves: tuple[str, str, str]) -> set[str]:
        refusal = await self.pushes.check(self.environment, [RefUpdate(*one) for one in moves])
        return set(refusal.reasons) if refusal else set()

    async def listed(self, limit: int = 50) -> Sequence[str]:
        found = await self.pushes.list_for_environment(
            self.shop.owner, self.environment.id, limit=limit
        )
        return [one.ref for one in found]


@pytest.fixture
async def yard(database: Database, clock: FakeClock) -> AsyncIterator[Yard]:
    branches: set[str] = set()

    async def branches_of(_environment_id: UUID) -> set[str]:
        return branches

    async with opened(build(database, clock, MemoryRuntime())) as shop:
        pushes = PushService(database, AuditService(database, clock), clock, branches_of)
        yield Yard(shop, await shop.create(), pushes, branches)


def new(name: str) -> tuple[str, str, str]:
    return f"refs/heads/{name}", NONE, ONE


def moved(name: str) -> tuple[str, str, str]:
    return f"refs/heads/{name}", ONE, TWO


def deleted(name: str) -> tuple[str, str, str]:
    return f"refs/heads/{name}", TWO, NONE


async def test_branch_that_the_environment_made_may_be_pushed_to_again(yard: Yard) -> None:
    before = await yard.refused(moved("mine"))
    await yard.push(new("mine"))

    assert before == {"refs/heads/mine"}
    assert await yard.refused(moved("mine")) == set()
    assert await yard.refused(deleted("mine")) == {"refs/heads/mine"}


@pytest.mark.parametrize(
    "result",
    [
        REJECTED,
        RefResult(PushOutcome.REFUSED, "x"),
        RefResult(PushOutcome.FAILED, "x"),
        RefResult(PushOutcome.OK, "the upstream made it refs/changes/1"),
    ],
)
async def test_branch_that_was_not_made_so_is_not_the_environments(
    yard: Yard, result: RefResult
) -> None:
    await yard.push(new("mine"), result=result)

    assert await yard.refused(moved("mine")) == {"refs/heads/mine"}


async def test_moving_a_branch_does_not_make_it_the_environments(yard: Yard) -> None:
    yard.session_branches.add("main")
    allowed = await yard.refused(moved("main"))
    await yard.push(moved("main"))
    yard.session_branches.clear()

    assert allowed == set()
    assert await yard.refused(moved("main")) == {"refs/heads/main"}


async def test_branch_that_was_deleted_is_forgotten(yard: Yard) -> None:
    await yard.push(new("mine"), new("other"))
    await yard.push(deleted("mine"))

    assert await yard.refused(moved("mine"), moved("other")) == {"refs/heads/mine"}


async def test_made_branches_are_remembered_longer_than_pushes(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushes_repository, "KEPT_PER_ENVIRONMENT", 3)
    await yard.push(new("first"))

    for number in range(5):
        await yard.push(moved(f"b{number}"), result=REJECTED)

    assert await yard.listed() == ["refs/heads/b4", "refs/heads/b3", "refs/heads/b2"]
    assert await yard.refused(moved("first")) == set()


async def test_push_of_more_refs_than_are_kept_keeps_as_many(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushes_repository, "KEPT_PER_ENVIRONMENT", 3)

    await yard.push(*[new(f"b{number}") for number in range(9)])

    assert len(await yard.listed()) == 3
    assert await yard.refused(*[moved(f"b{number}") for number in range(9)]) == set()


async def test_number_of_made_branches_is_bounded(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushes_repository, "MAX_OWN_BRANCHES", 2)

    await yard.push(new("a"), new("b"), new("c"))
    await yard.push(new("a"), new("d"))

    wanted = [moved(name) for name in "abcd"]
    assert await yard.refused(*wanted) == {"refs/heads/c", "refs/heads/d"}


async def test_what_is_known_of_one_environment_says_nothing_about_another(yard: Yard) -> None:
    other = await yard.shop.create("two")
    await yard.push(new("mine"), push_id="a" * 32)

    refusal = await yard.pushes.check(other, [RefUpdate(*moved("mine"))])

    assert refusal is not None
    assert await yard.pushes.list_for_environment(yard.shop.owner, other.id) == []
    assert await yard.pushes.seen(other.id, "a" * 32) == []


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        (PushPolicy.ANY, set[str]()),
        (PushPolicy.SESSIONS, {"refs/heads/main"}),
        (PushPolicy.NONE, {"refs/heads/main", "refs/heads/new"}),
    ],
)
async def test_environments_own_policy_decides(
    yard: Yard, policy: PushPolicy, refused: set[str]
) -> None:
    yard.environment = replace(yard.environment, push_policy=policy)

    assert await yard.refused(new("new"), moved("main")) == refused


async def test_push_is_found_by_its_id_with_its_results(yard: Yard) -> None:
    await yard.push(new("before"))
    await yard.push(new("a"), moved("b"), result=REJECTED, push_id="b" * 32)

    seen = await yard.pushes.seen(yard.environment.id, "b" * 32)

    assert [(one.ref, one.old, one.new) for one in seen] == [new("a"), moved("b")]
    assert {(one.outcome, one.reason) for one in seen} == {
        (PushOutcome.REJECTED, "pre-receive hook declined")
    }
    assert await yard.pushes.seen(yard.environment.id, "c" * 32) == []


async def test_each_ref_of_a_push_is_one_event_of_the_audit_log(yard: Yard) -> None:
    await yard.push(new("a"), moved("b"))
    await yard.push(moved("c"), result=REJECTED)

    events = await yard.pushes.audit.list_for(yard.shop.owner)

    told = [(one.action, one.object_id, one.outcome, dict(one.details)) for one in events]
    own = str(yard.environment.id)
    assert told == [
        (
            "git.push",
            own,
            "rejected",
            {"ref": "refs/heads/c", "old": ONE, "new": TWO, "reason": REJECTED.reason},
        ),
        ("git.push", own, "ok", {"ref": "refs/heads/b", "old": ONE, "new": TWO}),
        ("git.push", own, "ok", {"ref": "refs/heads/a", "old": NONE, "new": ONE}),
    ]
    assert (await yard.pushes.audit.verify()).ok


async def test_refs_beyond_a_bound_share_one_event(yard: Yard) -> None:
    await yard.push(*[new(f"b{number}") for number in range(MAX_AUDITED_REFS + 7)])

    (last, *_) = await yard.pushes.audit.list_for(yard.shop.owner, limit=200)
    count = await rows(yard.shop.database, "SELECT count(*) FROM audit_events")

    assert count == [(MAX_AUDITED_REFS + 1,)]
    assert (last.outcome, last.details["refs"], last.details["outcomes"]) == ("ok", 7, {"ok": 7})


async def test_push_of_an_environment_that_is_gone_is_in_the_audit_log_alone(yard: Yard) -> None:
    gone = FakeEnvironment(None, owner_id=yard.shop.owner)

    await yard.pushes.recorded(gone, [RefUpdate(*new("a"))], {"refs/heads/a": OK})

    assert await rows(yard.shop.database, "SELECT id FROM git_pushes") == []
    (event,) = await yard.pushes.audit.list_for(yard.shop.owner)
    assert event.object_id == str(gone.id)


async def test_pushes_go_with_their_environment(yard: Yard) -> None:
    await yard.push(new("a"))

    await yard.shop.environments.delete(yard.shop.owner, yard.environment.id)

    assert await rows(yard.shop.database, "SELECT id FROM git_pushes") == []
    assert await rows(yard.shop.database, "SELECT branch FROM git_own_branches") == []
    with pytest.raises(EnvironmentNotFound):
        await yard.listed()


async def test_strangers_environment_is_not_there(yard: Yard) -> None:
    other = await yard.shop.add_user()

    for environment_id in (yard.environment.id, uuid4()):
        with pytest.raises(EnvironmentNotFound):
            await yard.pushes.list_for_environment(other, environment_id)


async def test_pushes_that_end_at_once_are_all_kept(yard: Yard) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(yard.push, new("same"))

    assert len(await yard.listed()) == 20
    assert await yard.refused(moved("same")) == set()
    assert (await yard.pushes.audit.verify()).ok


async def test_ref_of_any_characters_is_kept(yard: Yard) -> None:
    names = ["ü/🦀", "a;id", "$(id)", 'a"b\\c', "x" * 1000, "\u202eevil"]

    await yard.push(*[new(name) for name in names], push_id="d" * 32)

    seen = await yard.pushes.seen(yard.environment.id, "d" * 32)
    assert [one.ref.removeprefix("refs/heads/") for one in seen] == names
    assert await yard.refused(*[moved(name) for name in names]) == set()
