"""Names and repository URLs."""

from datetime import UTC, datetime

import pytest

from craftastic.environments._names import BadName, check_name, suggestions
from craftastic.environments._repository_url import BadRepositoryUrl, normalise_repository_url


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://github.com/a/b", "https://github.com/a/b"),
        (" https://github.com/a/b.git/ ", "https://github.com/a/b.git"),
        ("HTTPS://GitHub.com/A/b", "https://github.com/A/b"),
        ("git@github.com:a/b.git", "https://github.com/a/b.git"),
        ("github.com:a/b", "https://github.com/a/b"),
        ("ssh://git@github.com/a/b.git", "https://github.com/a/b.git"),
        ("ssh://git@gitlab.com:22/a/b/c", "https://gitlab.com/a/b/c"),
        ("http://127.0.0.1:8080/git/x.git", "http://127.0.0.1:8080/git/x.git"),
        ("https://[2001:db8::1]:8443/a", "https://[2001:db8::1]:8443/a"),
    ],
)
def test_the_forms_people_write_become_one(written: str, url: str) -> None:
    assert normalise_repository_url(written) == url
    assert normalise_repository_url(url) == url


@pytest.mark.parametrize(
    "written",
    [
        *("", "   ", "--upload-pack=x", "-u", "ext::sh -c x", "file:///etc", "/etc", "../x"),
        *("git://github.com/a/b", "ssh://git@example.com/a/b", "git@example.com:a/b", "ftp://a/b"),
        *("https://user:secret@github.com/a/b", "https://token@github.com/a/b"),
        *("https://github.com", "https://github.com/", "https://github.com/a/../b"),
        *("https://github.com/-a/b", "https://-h/a", "https://github.com/a?x=1"),
        *("https://github.com/a#x", "https://github.com/a\r\nX: y", "https://github.com/a\x00"),
        *("https://github.com\\@evil/a", "https://h:99999/a", "https://h:x/a", "https://a b/c"),
        "https://github.com/" + "a" * 2100,
    ],
)
def test_what_is_no_address_of_a_repository_is_refused(written: str) -> None:
    with pytest.raises(BadRepositoryUrl):
        normalise_repository_url(written)


@pytest.mark.parametrize("name", ["", " ", "a\n", "a\x00", "\u202ea", " a", "x" * 65, "a\u200b"])
def test_a_name_that_cannot_be_seen_or_shown_is_refused(name: str) -> None:
    with pytest.raises(BadName):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "my project", "ünïcode 日本", "a/b", "x" * 64])
def test_a_name_in_any_script_is_taken(name: str) -> None:
    assert check_name(name) == name


def test_three_other_names_are_suggested() -> None:
    now = datetime(2026, 11, 24, 23, 59, tzinfo=UTC)

    assert suggestions("x", now) == ["x-2", "x-copy", "x-2026-11-24"]
