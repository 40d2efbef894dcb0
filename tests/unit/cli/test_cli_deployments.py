"""Deployments on the command line: what a word means, what is shown, and when it is over."""

import re
from typing import Any

import pytest

from craftastic.cli._deployment_following import failure_of, has_ended, show_line, state_of
from craftastic.cli._deployment_wishes import find_target
from craftastic.cli.names import Names
from craftastic.errors import NotFound

HOSTILE = "one\x1b]0;pwned\x07\x1b[2J\u202e\x9b\rtwo\nthree\r\n"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def environment(name: str, *sessions: str, id_: str) -> dict[str, Any]:
    return {
        "id": id_,
        "name": name,
        "status": "running",
        "sessions": [
            {"id": f"{one}-{id_}", "name": one, "status": "active", "gitBranch": one}
            for one in sessions
        ],
    }


NAMES = Names([environment("web", "work", id_="e1"), environment("work-", "both", id_="e2"),
               environment("both", "c", id_="e3")])  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "body"),
    [
        ("work", {"sessionId": "work-e1"}),
        ("web/work", {"sessionId": "work-e1"}),
        ("web", {"environmentId": "e1"}),
        ("e2", {"environmentId": "e2"}),
        ("work-", {"environmentId": "e2"}),  # its whole name, not the beginning of a session's id
        ("both", {"sessionId": "both-e2"}),
    ],
)
def test_a_word_means_a_session_or_else_an_environment(wanted: str, body: dict[str, str]) -> None:
    assert find_target(NAMES, wanted).body == body


def test_a_word_that_means_nothing_is_told_as_it_was_typed() -> None:
    with pytest.raises(NotFound, match="no session and no environment nowhere"):
        find_target(NAMES, "nowhere")


def test_the_name_of_a_target_is_safe_to_be_typed() -> None:
    names = Names([environment("a b\x1b[2J", "$(x)", id_="e1")])

    assert find_target(names, "$(x)").label == "'a b[2J/$(x)'"


def test_a_line_of_a_log_has_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    show_line(HOSTILE)

    shown = capsys.readouterr().out
    assert shown.splitlines()[0].startswith("one")
    assert shown.endswith("two\nthree\n")
    assert not CONTROL.search(shown), shown


def test_a_state_has_no_control_character() -> None:
    row = {"status": "pending", "reason": HOSTILE, "queue_ahead": 3, "coolify_deployment_id": "a"}

    text = state_of(row)

    assert text.startswith("Waits for Coolify. 3 before it in the queue. one")
    assert not CONTROL.search(text), text


@pytest.mark.parametrize(
    ("status", "health", "live", "ended"),
    [
        ("pending", None, True, False),
        ("building", None, True, False),
        ("succeeded", None, True, False),
        ("succeeded", "waiting", True, False),
        ("succeeded", "healthy", True, True),
        ("succeeded", "unhealthy", False, True),
        ("failed", None, True, True),
        ("cancelled", None, True, True),
        ("a new word", None, True, False),
        ("a new word", None, False, True),
    ],
)
def test_a_deployment_is_over_when_nothing_more_will_be_known(
    status: str, health: str | None, live: bool, ended: bool
) -> None:
    assert has_ended({"status": status, "health": health, "live": live}) is ended


@pytest.mark.parametrize(
    ("status", "health", "told"),
    [
        ("succeeded", "healthy", None),
        ("succeeded", "running", None),
        ("succeeded", "superseded", None),
        ("succeeded", "unknown", None),
        ("succeeded", "unhealthy", "web was built, and is not healthy: because"),
        ("failed", None, "The deployment failed: because"),
        ("cancelled", None, "The deployment was cancelled."),
        ("pending", None, "The deployment failed: because"),
    ],
)
def test_only_what_runs_or_cannot_be_known_is_a_success(
    status: str, health: str | None, told: str | None
) -> None:
    row = {"app_name": "web", "status": status, "health": health, "reason": "because"}

    assert failure_of(row) == told
