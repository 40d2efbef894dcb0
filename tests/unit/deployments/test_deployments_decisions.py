"""What follows from what Coolify says, without a Coolify."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from craftastic.coolify.api import Application, LogLine, Run, RunStatus
from craftastic.deployments import _following as following
from craftastic.deployments._following import Look
from craftastic.deployments._model import Deployment, Health, Kind, Pace, Status

AT = datetime(2026, 7, 19, tzinfo=UTC)
PACE = Pace()
OURS = "c0ffee" + "0" * 34
OTHER = "decade" + "0" * 34


def row(**changed: object) -> Deployment:
    made = Deployment(
        id=uuid4(),
        owner_id=uuid4(),
        environment_id=uuid4(),
        session_id=None,
        app_id="app",
        app_name="web",
        source="user",
        connection_id=uuid4(),
        web_url="https://coolify.example.com",
        kind=Kind.DEPLOY,
        status=Status.PENDING,
        reason=None,
        branch="main",
        commit=OURS,
        pull_request_id=None,
        force=False,
        run_id=None,
        run_word=None,
        run_path=None,
        known_run_id=None,
        asked_at=None,
        vain_asks=0,
        built_commit=None,
        health=None,
        health_text=None,
        queue_ahead=None,
        cancel_wanted=False,
        looks=0,
        next_look_at=0.0,
        deadline_at=7200.0,
        live=True,
        created_at=AT,
        updated_at=AT,
        building_at=None,
        ended_at=None,
        health_at=None,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def run(run_id: str, status: RunStatus = RunStatus.QUEUED, **changed: object) -> Run:
    made = Run(
        id=run_id,
        status=status,
        word=status.value,
        commit=OURS,
        pull_request_id=0,
        created_at=None,
        path=f"/deployment/{run_id}",
        log=(),
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def look(now: float = 100.0) -> Look:
    return Look(now, AT, PACE)


def named(found: Run | None) -> str | None:
    return None if found is None else found.id


# ---- whose run it is --------------------------------------------------------------------------


def test_lost_answer_is_a_run_that_is_newer_than_the_newest_known() -> None:
    runs = [run("c"), run("b"), run("known"), run("a")]

    assert named(following.made_since(runs, row(known_run_id="known"), ())) == "c"
    assert named(following.made_since(runs, row(known_run_id="c"), ())) is None
    assert named(following.made_since(runs, row(known_run_id=None), ())) == "c"
    assert named(following.made_since([], row(known_run_id=None), ())) is None


def test_lost_answer_is_no_run_of_another_deployment_or_preview() -> None:
    runs = [run("c"), run("b", pull_request_id=7), run("a"), run("known")]

    assert named(following.made_since(runs, row(known_run_id="known"), {"c"})) == "a"
    preview = row(known_run_id="known", pull_request_id=7)
    assert named(following.made_since(runs, preview, ())) == "b"


def test_lost_answer_is_rather_a_run_of_our_commit() -> None:
    runs = [run("other", commit=OTHER), run("unknown", commit=None), run("ours")]

    assert named(following.made_since(runs, row(), ())) == "ours"
    assert named(following.made_since(runs[:2], row(), ())) == "unknown"
    assert named(following.made_since(runs[:1], row(), ())) == "other"
    assert named(following.made_since(runs, row(commit=None), ())) == "other"


def test_lost_rollback_is_no_run_of_another_commit() -> None:
    runs = [run("other", commit=OTHER)]

    assert named(following.made_since(runs, row(kind=Kind.ROLLBACK), ())) is None


def test_run_that_is_joined_is_the_newest_that_goes_on() -> None:
    runs = [
        run("ended", RunStatus.FINISHED),
        run("newest", RunStatus.UNKNOWN, commit=None),
        run("older", RunStatus.IN_PROGRESS, commit=None),
        run("preview", pull_request_id=7),
    ]

    assert named(following.joined(runs, row(), already_queued=True)) == "newest"
    preview = row(pull_request_id=7)
    assert named(following.joined(runs, preview, already_queued=True)) == "preview"


def test_run_that_just_ended_is_joined_if_the_same_was_on_its_way() -> None:
    runs = [run("ended", RunStatus.FINISHED), run("old", RunStatus.FINISHED)]
    known = row(known_run_id="ended")

    assert named(following.joined(runs, known, already_queued=True)) == "ended"
    assert named(following.joined(runs, known, already_queued=False)) is None
    assert named(following.joined(runs, row(commit=None), already_queued=True)) is None


def test_refused_deployment_joins_no_run_of_another_commit() -> None:
    runs = [run("other", RunStatus.IN_PROGRESS, commit=OTHER)]

    assert named(following.joined(runs, row(), already_queued=False)) is None
    assert named(following.joined(runs, row(), already_queued=True)) == "other"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (OURS, OURS[:7], True),
        (OURS.upper(), OURS, True),
        (OURS, OURS[:6], False),
        (OURS, OTHER, False),
        (None, None, False),
        (OURS, None, False),
    ],
)
def test_commits_are_the_same_when_both_are_known(
    one: str | None, other: str | None, same: bool
) -> None:
    assert following.same_commit(one, other) is same


# ---- following --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (RunStatus.QUEUED, Status.PENDING),
        (RunStatus.IN_PROGRESS, Status.BUILDING),
        (RunStatus.UNKNOWN, Status.BUILDING),
        (RunStatus.FINISHED, Status.SUCCEEDED),
        (RunStatus.FAILED, Status.FAILED),
        (RunStatus.CANCELLED, Status.CANCELLED),
    ],
)
def test_every_word_of_coolify_has_its_status(status: RunStatus, expected: Status) -> None:
    outcome = following.after_run(row(run_id="a"), run("a", status), look())

    assert outcome.changes["status"] is expected
    ended = expected in {Status.FAILED, Status.CANCELLED}
    assert (outcome.delay_s is None) is ended


def test_looks_become_rarer_until_something_changes() -> None:
    pending = row(run_id="a", looks=3)

    same = following.after_run(pending, run("a"), look())
    other = following.after_run(pending, run("a", RunStatus.IN_PROGRESS), look())

    assert same.delay_s == PACE.pause(4)
    assert other.delay_s == PACE.pause(0) == 2.0
    assert [PACE.pause(looks) for looks in (1, 5, 1000)] == [3.0, 15.0, 15.0]


def test_finished_run_gets_five_minutes_for_its_health() -> None:
    outcome = following.after_run(row(run_id="a"), run("a", RunStatus.FINISHED), look())

    assert outcome.changes["health"] is Health.WAITING
    assert outcome.changes["deadline_at"] == 400.0


def test_time_that_is_over_ends_what_is_still_going_on_and_not_what_ended() -> None:
    late = look(7200.0)

    over = following.after_run(row(run_id="a"), run("a", RunStatus.IN_PROGRESS), late)
    ended = following.after_run(row(run_id="a"), run("a", RunStatus.FINISHED), late)

    assert (over.delay_s, over.changes["status"]) == (None, Status.FAILED)
    assert over.changes["reason"] == (
        "It is not known how this deployment ended: it took too long. Look at its page in Coolify."
    )
    assert ended.changes["status"] is Status.SUCCEEDED


def test_commit_that_was_not_wanted_is_told_until_the_end() -> None:
    finished = run("a", RunStatus.FINISHED, commit=OTHER)

    outcome = following.after_run(row(run_id="a"), finished, look())
    healthy = following.after_application(
        row(run_id="a", built_commit=OTHER), application("running:healthy"), look()
    )
    same = following.after_run(row(run_id="a"), run("a", RunStatus.FINISHED), look())

    said = "Coolify built commit decade0000, not c0ffee0000: the branch has moved on meanwhile."
    assert outcome.changes["reason"] == healthy.changes["reason"] == said
    assert same.changes["reason"] is None


def test_refusal_lets_the_question_be_asked_anew_and_silence_does_not() -> None:
    asked = row(asked_at=90.0, known_run_id="a")

    refused = following.ask_again(asked, "Busy.", 60.0, look(), surely_not_started=True)
    silent = following.ask_again(asked, "Silent.", 15.0, look(), surely_not_started=False)
    over = following.ask_again(asked, "Silent.", 15.0, look(7200), surely_not_started=False)
    never = following.ask_again(row(), "Silent.", 15.0, look(7200), surely_not_started=False)

    assert (refused.delay_s, refused.changes["asked_at"]) == (60.0, None)
    assert "asked_at" not in silent.changes
    assert (over.delay_s, over.changes["status"]) == (None, Status.FAILED)
    assert "not known how this deployment ended" in str(over.changes["reason"])
    assert (never.delay_s, never.changes["status"]) == (None, Status.FAILED)
    assert "could not be asked" in str(never.changes["reason"])


def test_queue_counts_what_is_older() -> None:
    ours = run("ours", created_at=AT)
    queue = [
        run("older", created_at=AT - timedelta(minutes=1)),
        run("newer", created_at=AT + timedelta(minutes=1)),
        run("ageless"),
        ours,
    ]

    assert following.ahead_of(queue, ours) == 2
    assert following.ahead_of(queue, run("ours")) == 3


def test_texts_of_others_are_one_short_line() -> None:
    assert following.plain("a\x1b[31m\n\tb\u202ec\x00", 100) == "a [31m b c"
    assert following.plain("x" * 600) == "x" * 499 + "…"


def test_failure_is_the_last_line_of_the_last_error() -> None:
    log = (
        LogLine(1, "first\n", "stderr", None),
        LogLine(2, "one\nlast of it\n\n", "stderr", None),
        LogLine(3, " \n", "stderr", None),
        LogLine(4, "bye", "stdout", None),
    )
    failed = run("a", RunStatus.FAILED, log=log)

    text = following.failing_text(failed)

    assert text == "one\nlast of it\n\n"
    assert following.failure_of(failed, text) == "last of it"
    assert following.failing_text(run("a", log=())) is None
    assert following.failure_of(run("a", log=()), None) == following.NO_LINE
    assert following.failure_of(run("a", log=None), None) == following.NO_LOG


# ---- health -----------------------------------------------------------------------------------


def application(status: str) -> Application:
    state, _, health = status.partition(":")
    return Application("app", "web", "main", None, state, health or None, status, None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("running:healthy", Health.HEALTHY),
        ("running", Health.RUNNING),
        ("running:unknown", Health.RUNNING),
        ("running:unhealthy", None),
        ("running:starting", None),
        ("exited:unhealthy", None),
        ("degraded:unhealthy", None),
        ("exited", None),
    ],
)
def test_health_is_what_coolify_shows_or_is_waited_for(
    status: str, expected: Health | None
) -> None:
    finished = row(run_id="a", status=Status.SUCCEEDED, health=Health.WAITING, deadline_at=400.0)

    early = following.after_application(finished, application(status), look(399.0))
    late = following.after_application(finished, application(status), look(400.0))

    assert early.changes.get("health") is expected
    assert (early.delay_s is None) is (expected is not None)
    assert late.changes["health"] is (expected or Health.UNHEALTHY)
    assert late.delay_s is None


def test_only_newer_finished_runs_of_the_application_itself_supersede() -> None:
    ours = row(run_id="ours")
    done = RunStatus.FINISHED

    assert following.is_superseded(ours, [run("newer", done), run("ours", done)])
    assert not following.is_superseded(ours, [run("newer"), run("ours", done), run("old", done)])
    assert not following.is_superseded(ours, [run("pr", done, pull_request_id=3), run("ours")])
    assert following.is_superseded(ours, [run("newest", done), run("newer", done)])
    assert not following.is_superseded(ours, [])
