"""A refusal is told with what to do about it, in commands that exist."""

import re
import shlex

import pytest
import typer.main

from craftastic.cli._ways_on import MAX_FILES_TOLD, WAYS_ON, access_way_on, ways_on
from craftastic.cli.main import app
from craftastic.cli.remote import refusal
from craftastic.errors import Conflict, CraftasticError, Forbidden
from craftastic.gateway._refusals import refused_by_upstream
from craftastic.git import endpoints as git_endpoints
from craftastic.github import endpoints as github_endpoints
from tests.unit.cli.test_cli_reference import commands

SESSION = {"id": "1", "name": "my work"}
ENVIRONMENT = {"id": "2", "name": "one", "repositoryUrl": "https://example.com/a/b"}


def told(status: int, **body: object) -> CraftasticError:
    with pytest.raises(CraftasticError) as raised, ways_on(SESSION, ENVIRONMENT):
        raise refusal(status, body)
    return raised.value


KNOWN = (git_endpoints, github_endpoints)
"""The routes that the commands ask: their errors are there once these are imported."""


def codes_of_the_product() -> set[str]:
    found: set[str] = set()
    classes: list[type[CraftasticError]] = [CraftasticError]
    while classes:
        one = classes.pop()
        found.add(one.code)
        classes += one.__subclasses__()
    return found


def test_every_way_on_is_about_a_code_that_the_server_has() -> None:
    assert set(WAYS_ON) - codes_of_the_product() == set()


def test_every_way_on_names_commands_and_options_that_there_are() -> None:
    known = dict(commands(typer.main.get_command(app)))
    seen = 0
    for text in WAYS_ON.values():
        for line in re.findall(r"`(craftastic [^`]*)`", text):
            words = shlex.split(line)
            path = max(
                (" ".join(words[:count]) for count in (1, 2, 3)),
                key=lambda path: len(path) if path in known else 0,
            )
            assert path in known, line
            assert path != "craftastic", line
            options = {opt for one in known[path].params for opt in one.opts}
            assert {word for word in words if word.startswith("-")} <= options, line
            seen += 1
    assert seen > 5


def test_the_session_in_a_way_on_can_be_copied_into_a_shell() -> None:
    error = told(409, error="moved", code="PUSH_REJECTED", details="first\nsecond")

    assert isinstance(error, Conflict)
    assert error.message == "moved"
    assert error.details is not None
    assert error.details.splitlines()[:2] == ["first", "second"]
    assert "`craftastic pull 'one/my work'`" in error.details


def test_files_of_a_refusal_are_listed_harmlessly_and_not_all() -> None:
    files = [f"f{number}" for number in range(MAX_FILES_TOLD + 5)]
    error = told(409, error="no", code="PULL_CONFLICT", files=["a\x1b[2J\nb", *files])

    lines = (error.details or "").splitlines()
    assert lines[0] == '"a\\u001b[2J\\nb"'
    assert lines[MAX_FILES_TOLD] == "and 6 more"
    assert "\x1b" not in "".join(lines)


def test_a_missing_account_is_no_mistake_in_the_command_line() -> None:
    error = told(
        400, error="GitHub authentication required", code="GIT_AUTHENTICATION_REQUIRED", details="x"
    )

    assert isinstance(error, Forbidden)
    assert "craftastic host add" in (error.details or "")


def test_an_unknown_refusal_stays_as_it_is() -> None:
    error = told(409, error="no", code="SOMETHING_NEW", files="not a list")

    assert (error.message, error.details) == ("no", None)


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("tried", [True, False])
def test_every_answer_of_a_gateway_about_access_is_understood(status: int, tried: bool) -> None:
    way = "add a credential for the git host https://gitlab.example to Craftastic, then try again"
    said = refused_by_upstream(status, "gitlab.example", way, tried=tried)

    found = access_way_on("https://gitlab.example:8443/a/b", f"fatal: remote:\n  {said.text}  gone")

    assert found is not None
    assert "`craftastic host add https://gitlab.example:8443`" in found


def test_a_github_repository_leads_to_connecting_github() -> None:
    way = "connect GitHub to Craftastic, then try again"
    said = refused_by_upstream(401, "ghe.example", way, tried=False).text

    assert "craftastic github connect" in (access_way_on("https://ghe.example/a/b", said) or "")


@pytest.mark.parametrize(
    "reason", ["", "example.com did not answer in time.", "example.com does not take connections."]
)
def test_a_clone_that_failed_for_another_reason_leads_to_no_account(reason: str) -> None:
    assert access_way_on("https://example.com/a/b", reason) is None
