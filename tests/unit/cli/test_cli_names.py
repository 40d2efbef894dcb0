from typing import Any

import pytest

from craftastic.cli.names import Names, normal_repository, repository_name, without_user
from craftastic.errors import InvalidInput, NotFound


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/owner/name",
        "https://GitHub.com/owner/name.git",
        "https://github.com:443/owner/name/",
        "https://user:secret@github.com/owner/name.git/",
        "git@github.com:owner/name.git",
        "ssh://git@github.com/owner/name",
        "ssh://git@github.com:22/owner/name.git",
    ],
)
def test_one_repository_is_the_same_in_every_spelling(url: str) -> None:
    assert normal_repository(url) == "github.com/owner/name"


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/owner/Name",
        "https://github.com:8443/owner/name",
        "https://gitlab.com/owner/name",
        "https://github.com/owner/name/more",
    ],
)
def test_another_repository_is_another(url: str) -> None:
    assert normal_repository(url) != "github.com/owner/name"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.com/a/my-project.git", "my-project"),
        ("git@example.com:a/b c", "b-c"),
        ("https://example.com/", "repository"),
        ("https://example.com/a/" + "x" * 100, "x" * 64),
    ],
)
def test_an_environment_is_named_after_its_repository(url: str, name: str) -> None:
    assert repository_name(url) == name


def test_a_password_in_an_address_is_taken_out() -> None:
    assert without_user("https://u:p@example.com:1/a") == "https://example.com:1/a"
    assert without_user("git@example.com:a/b") == "git@example.com:a/b"


def environment(id_: str, name: str, *sessions: tuple[str, str, str]) -> dict[str, Any]:
    listed = [{"id": one, "name": called, "status": status} for one, called, status in sessions]
    return {"id": id_, "name": name, "status": "running", "sessions": listed}


NAMES = Names(
    [
        environment("aa1", "one", ("s1", "main", "dead"), ("s2", "main", "active")),
        environment("aa2", "two", ("t1", "main", "inactive"), ("t2", "old", "dead")),
        environment("bb", "aa1"),
    ]
)


def test_a_whole_id_wins_over_a_beginning() -> None:
    names = Names([environment("abc", "x"), environment("abcd", "y")])

    assert names.environment("abc")["name"] == "x"


def test_what_fits_several_is_told_with_all_of_them() -> None:
    with pytest.raises(InvalidInput, match=r"one.*two"):
        NAMES.environment("aa")
    with pytest.raises(InvalidInput, match=r"one.*two"):
        NAMES.session("main")


def test_what_fits_nothing_is_not_found() -> None:
    with pytest.raises(NotFound):
        NAMES.environment("zz")
    with pytest.raises(NotFound):
        NAMES.session("")


def test_a_living_session_is_meant_before_a_dead_one_of_its_name() -> None:
    session, owner = NAMES.session("one/main")

    assert (session["id"], owner["name"]) == ("s2", "one")


def test_a_dead_session_is_found_where_no_living_one_fits() -> None:
    assert NAMES.session("old")[0]["id"] == "t2"
    assert NAMES.session("s1")[0]["status"] == "dead"
