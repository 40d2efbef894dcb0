"""What is kept of pushes, and what the policy learns from it, on both databases."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from craftastic import logs
from craftastic.audit import _chain
from craftastic.audit.service import AuditService
from craftastic.database import Database, Transaction
from craftastic.environments.service import Environment, EnvironmentNotFound
from craftastic.gateway._pkt_line import RefUpdate
from craftastic.pushes import _events
from craftastic.pushes import _repository as pushes_repository
from craftastic.pushes.service import (
    MAX_REFS,
    PushIntent,
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
        intent = PushIntent([RefUpdate(*move) for move in moves], push_id=push_id)
        results = {update.ref: result for update in intent.updates}
        await self.pushes.begun(self.environment, intent)
        await self.pushes.ended(self.environment, intent, results)

    async def refuse(
        self, *moves: tuple[str, str, str], options: Sequence[str] = (), why: str = "no"
    ) -> None:
        intent = PushIntent([RefUpdate(*move) for move in moves], options)
        await self.pushes.refused(
            self.environment, intent, {update.ref: why for update in intent.updates}
        )

    async def refused(self, *moves: tuple[str, str, str]) -> set[str]:
        intent = PushIntent([RefUpdate(*one) for one in moves])
        refusal = await self.pushes.check(self.environment, intent)
        return set(refusal.reasons) if refusal else set()

    async def told(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return action, outcome and details of what the audit log has of git, oldest first."""
        found = await rows(
            self.shop.database,
            "SELECT action, outcome, details FROM audit_events"
            " WHERE action LIKE 'git.%' ORDER BY seq",
        )
        return [
            (str(action), str(outcome), json.loads(str(details)))
            for action, outcome, details in found
        ]

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

    refusal = await yard.pushes.check(other, PushIntent([RefUpdate(*moved("mine"))]))

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


async def test_push_is_named_in_the_audit_log_before_it_goes_on_and_at_its_end(
    yard: Yard,
) -> None:
    a, b = RefUpdate(*new("a")), RefUpdate(*moved("b"))
    intent = PushIntent([a, b], ["ci.skip"])
    ref_a = {"ref": a.ref, "old": NONE, "new": ONE}
    ref_b = {"ref": b.ref, "old": ONE, "new": TWO}
    push = {"push": intent.id.hex}

    await yard.pushes.begun(yard.environment, intent)
    begun = await yard.told()
    await yard.pushes.ended(yard.environment, intent, {a.ref: OK, b.ref: REJECTED})

    assert begun == [
        ("git.push_started", "started", push | {"options": ["ci.skip"]}),
        ("git.push_started", "started", push | {"refs": [ref_a, ref_b]}),
    ]
    assert (await yard.told())[2:] == [
        ("git.push", "ok", push | {"refs": [ref_a]}),
        ("git.push", "rejected", push | {"refs": [ref_b | {"reason": REJECTED.reason}]}),
    ]
    (last, *_) = await yard.pushes.audit.list_for(yard.shop.owner)
    assert (last.object_type, last.object_id) == ("environment", str(yard.environment.id))
    assert (await yard.pushes.audit.verify()).ok


@pytest.mark.parametrize("letters", ["x", "ü", "🦀", '"', "a-"])
async def test_every_ref_that_goes_on_is_named_in_whole_events_of_the_audit_log(
    yard: Yard, letters: str
) -> None:
    room = 1024 - len("refs/heads/123")
    name = letters * (room // len(letters.encode()))
    moves = [new(f"{name}{number:03}") for number in range(MAX_REFS)]

    await yard.push(*moves, result=RefResult(PushOutcome.OK, "🦀" * 500))

    told = await yard.told()
    assert not any("cut" in details for _, _, details in told)
    for action in ("git.push_started", "git.push"):
        named = [
            one["ref"] for which, _, details in told if which == action for one in details["refs"]
        ]
        assert named == [ref for ref, _, _ in moves]
    assert (await yard.pushes.audit.verify()).ok


async def test_refused_push_is_one_event_however_much_it_asked_for(yard: Yard) -> None:
    moves = [(f"refs/tags/{'ü' * 400}{number}", NONE, ONE) for number in range(5000)]

    await yard.refuse(*moves, options=["🦀" * 900] * 100)

    ((action, outcome, details),) = await yard.told()
    assert (action, outcome) == ("git.push", "refused")
    assert "cut" in details or details["more"] + len(details["refs"]) == len(moves)
    long = await rows(yard.shop.database, "SELECT 1 FROM audit_events WHERE length(details) > 4096")
    assert long == []
    assert len(await yard.listed(1000)) == MAX_REFS


async def test_refused_push_tells_its_options_and_how_many_refs_had_no_room(yard: Yard) -> None:
    await yard.refuse(*[new(f"b{number}") for number in range(80)], options=["a=b"])

    ((_, _, details),) = await yard.told()
    assert details["options"] == ["a=b"]
    assert details["refs"][0] == {"ref": "refs/heads/b0", "old": NONE, "new": ONE, "reason": "no"}
    assert len(details["refs"]) + details["more"] == 80


async def test_refused_pushes_push_nothing_else_out_of_the_history(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushes_repository, "KEPT_REFUSED", 3)
    monkeypatch.setattr(pushes_repository, "KEPT_PER_ENVIRONMENT", 5)
    await yard.push(*[new(f"b{number}") for number in range(5)])

    for number in range(9):
        await yard.refuse(new(f"junk{number}"))

    found = await yard.listed()
    assert found[:3] == ["refs/heads/junk8", "refs/heads/junk7", "refs/heads/junk6"]
    assert sorted(found[3:]) == [f"refs/heads/b{number}" for number in range(5)]


async def test_push_whose_end_was_never_written_is_shown_as_unknown(yard: Yard) -> None:
    intent = PushIntent([RefUpdate(*new("a"))], push_id="e" * 32)

    await yard.pushes.begun(yard.environment, intent)

    (seen,) = await yard.pushes.seen(yard.environment.id, "e" * 32)
    assert (seen.outcome, seen.reason) == (
        PushOutcome.UNKNOWN,
        "it is on its way, or how it ended could not be written",
    )
    assert await yard.refused(moved("a")) == {"refs/heads/a"}


async def test_two_pushes_of_the_same_ref_end_each_in_its_own_way(yard: Yard) -> None:
    first, second = (PushIntent([RefUpdate(*new("a"))], push_id=one * 32) for one in "12")
    for intent in (first, second):
        await yard.pushes.begun(yard.environment, intent)

    await yard.pushes.ended(yard.environment, second, {"refs/heads/a": REJECTED})
    await yard.pushes.ended(yard.environment, first, {"refs/heads/a": OK})

    outcomes = [(await yard.pushes.seen(yard.environment.id, one * 32))[0].outcome for one in "12"]
    assert outcomes == [PushOutcome.OK, PushOutcome.REJECTED]


async def test_list_of_refs_is_found_by_the_pushs_id_for_an_hour(
    yard: Yard, clock: FakeClock
) -> None:
    pushes, own = yard.pushes, yard.environment
    other = await yard.shop.create("two")
    await pushes.listed(own, "a" * 32, {"refs/heads/ü": ONE, "refs/heads/b": TWO})
    await pushes.listed(own, "a" * 32, {"refs/heads/ü": TWO})
    await pushes.listed(own, "b" * 32, {})

    assert await pushes.advertised(own.id, "a" * 32) == {"refs/heads/ü": TWO}
    assert await pushes.advertised(own.id, "b" * 32) == {}
    assert await pushes.advertised(own.id, "c" * 32) is None
    assert await pushes.advertised(other.id, "a" * 32) is None

    clock.advance(timedelta(hours=1, seconds=1).total_seconds())
    assert await pushes.advertised(own.id, "a" * 32) is None
    await pushes.listed(other, "d" * 32, {})
    assert await rows(yard.shop.database, "SELECT push_id FROM git_ref_lists") == [("d" * 32,)]


async def test_number_of_kept_lists_of_refs_is_bounded(yard: Yard, clock: FakeClock) -> None:
    for number in range(pushes_repository.KEPT_LISTS + 5):
        clock.advance(1)
        await yard.pushes.listed(yard.environment, f"{number:032}", {"refs/heads/a": ONE})

    kept = await rows(yard.shop.database, "SELECT push_id FROM git_ref_lists ORDER BY push_id")
    assert [int(str(one)) for (one,) in kept] == list(range(5, pushes_repository.KEPT_LISTS + 5))


async def test_branches_of_sessions_are_of_interest(yard: Yard) -> None:
    yard.session_branches.add("feature/x")

    assert await yard.pushes.of_interest(yard.environment) == {"refs/heads/feature/x"}


async def test_transaction_of_a_large_push_does_nothing_but_write(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told is put into words, and cleared of secrets, while nobody waits for it."""
    inside: list[str] = []
    is_open = ContextVar("is_open", default=False)  # of this task: others have theirs
    begin = Database.begin

    @asynccontextmanager
    async def watched(database: Database) -> AsyncGenerator[Transaction]:
        async with begin(database) as tx:
            is_open.set(True)
            try:
                yield tx
            finally:
                is_open.set(False)

    def redact(value: object) -> Any:
        if is_open.get():
            inside.append(str(value)[:80])
        return logs.redact(value)

    monkeypatch.setattr(Database, "begin", watched)
    for module in (_events, _chain):
        monkeypatch.setattr(module, "redact", redact)
    await yard.push(*[new(f"b{number}") for number in range(9)])
    await yard.refuse(new("c"))

    assert inside == []
    async with yard.shop.database.begin() as tx:  # the watch itself tells
        await yard.pushes.audit.record(
            "a.b", actor_id=None, object_type="c", object_id=None, tx=tx, details={"x": "y"}
        )
    assert inside == ["{'x': 'y'}"]


async def test_push_of_an_environment_that_is_gone_is_in_the_audit_log_alone(yard: Yard) -> None:
    gone = FakeEnvironment(None, owner_id=yard.shop.owner)

    intent = PushIntent([RefUpdate(*new("a"))])

    await yard.pushes.begun(gone, intent)
    await yard.pushes.ended(gone, intent, {"refs/heads/a": OK})
    await yard.pushes.listed(gone, "a" * 32, {})

    assert await rows(yard.shop.database, "SELECT id FROM git_pushes") == []
    assert await rows(yard.shop.database, "SELECT push_id FROM git_ref_lists") == []
    events = await yard.pushes.audit.list_for(yard.shop.owner)
    of_git = [event.object_id for event in events if event.action.startswith("git.")]
    assert of_git == [str(gone.id)] * 2


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
