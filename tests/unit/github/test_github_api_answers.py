"""What GitHub's API says: limits, pages, people, repositories."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.github._api_answers import (
    Repository,
    is_limit,
    matching,
    next_url,
    ordered,
    origin_of,
    read_installations,
    read_person,
    read_repositories,
    sso_url,
    wait_s,
)

NOW = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)
API = "https://api.github.com"
ITEM: dict[str, Any] = {
    "id": 1,
    "name": "a",
    "full_name": "o/a",
    "clone_url": "https://github.com/o/a.git",
    "private": True,
    "stargazers_count": 3,
}


@pytest.mark.parametrize(
    ("status", "headers", "body", "limited"),
    [
        (429, {}, b"", True),
        (403, {"x-ratelimit-remaining": "0"}, b"", True),
        (403, {"retry-after": "60"}, b"", True),
        (403, {}, b'{"message": "You have exceeded a secondary Rate Limit"}', True),
        (403, {"x-ratelimit-remaining": "12"}, b"no access", False),
        (401, {"x-ratelimit-remaining": "0"}, b"rate limit", False),
        (500, {"retry-after": "1"}, b"", False),
    ],
)
def test_a_403_is_a_limit_only_when_it_says_so(
    status: int, headers: dict[str, str], body: bytes, limited: bool
) -> None:
    assert is_limit(status, headers, body) is limited


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30", "x-ratelimit-reset": "1"}, 30),
        ({"x-ratelimit-reset": str(int(NOW.timestamp()) + 90)}, 90),
        ({"x-ratelimit-reset": "1"}, 1),
        ({"retry-after": "0"}, 1),
        ({"retry-after": "999999"}, 3600),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 60),
        ({"retry-after": "9" * 400}, 60),
        ({"retry-after": "²"}, 60),
        ({}, 60),
    ],
)
def test_the_time_to_wait_is_read_and_bounded(headers: dict[str, str], seconds: float) -> None:
    assert wait_s(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("link", "url"),
    [
        (f'<{API}/user/repos?page=2>; rel="next", <{API}/x>; rel="last"', "/user/repos?page=2"),
        (f'<{API}/x>; rel="last"', None),
        ('<https://api.github.com.evil.example/x>; rel="next"', None),
        ('<https://evil.example/x>; rel="next"', None),
        ('<http://api.github.com/x>; rel="next"', None),
        ("<" * 10_000, None),
        ("", None),
    ],
)
def test_a_next_page_is_followed_inside_the_api_only(link: str, url: str | None) -> None:
    assert next_url({"link": link}, API) == (None if url is None else API + url)


def test_single_sign_on_has_an_address_at_github_only() -> None:
    web = "https://github.com"
    good = "https://github.com/orgs/acme/sso?authorization_request=x"

    assert sso_url({"x-github-sso": f"required; url={good}"}, web) == good
    for other in ("https://evil.example/x", "javascript:alert(1)", "https://github.com@evil/x"):
        assert sso_url({"x-github-sso": f"required; url={other}"}, web) is None
    assert sso_url({}, web) is None


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://github.com", ("https", "github.com", 443)),
        ("https://GitHub.com:443/a", ("https", "github.com", 443)),
        ("http://ghes.local:8080", ("http", "ghes.local", 8080)),
        ("ftp://github.com", None),
        ("https://user@github.com", None),
        ("https://github.com:99999", None),
        ("", None),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: tuple[str, str, int] | None) -> None:
    assert origin_of(url) == origin


def test_a_person_is_known_by_a_number() -> None:
    person = read_person({"id": 7, "login": "octo-cat", "name": "O"}, {"x-oauth-scopes": "repo"})

    assert person is not None
    assert (person.github_id, person.login, person.scopes) == (7, "octo-cat", "repo")
    for body in ({"login": "a"}, {"id": True, "login": "a"}, {"id": 1, "login": "a b"}, [], None):
        assert read_person(body, {}) is None
    assert read_person({"id": 1 << 70, "login": "a"}, {}) is None


def test_repositories_are_read_bare_or_as_an_installations() -> None:
    bare, wrapped = read_repositories([ITEM]), read_repositories({"repositories": [ITEM]})

    assert bare == wrapped
    assert (bare[0].full_name, bare[0].private, bare[0].description) == ("o/a", True, None)
    assert bare[0].stargazers_count == 3


def test_what_is_no_repository_is_left_out() -> None:
    broken = [None, 1, "x", {}, ITEM | {"id": "1"}, ITEM | {"clone_url": None}, [ITEM]]

    assert len(read_repositories([*broken, ITEM])) == 1


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_value_breaks_the_reading(value: Any) -> None:
    for name in (*ITEM, "description", "language", "updated_at"):
        for one in read_repositories([ITEM | {name: value}]):
            assert isinstance(one, Repository)
            one.name.encode()
    read_installations({"installations": value})
    read_person(value, {})
    read_repositories(value)


def test_texts_are_bounded_and_can_be_sent_on() -> None:
    (one,) = read_repositories([ITEM | {"description": "\ud800\0" + "x" * 9000}])

    assert one.description is not None
    assert len(one.description) == 2000
    assert "\0" not in one.description
    one.description.encode()


def made(name: str, number: int, **times: str) -> Repository:
    (one,) = read_repositories(
        [ITEM | {"id": number, "name": name, "full_name": f"o/{name}"} | times]
    )
    return one


def test_repositories_come_once_in_githubs_order() -> None:
    a = made("a", 1, updated_at="2026-01-01T00:00:00Z", pushed_at="2026-03-01T00:00:00Z")
    b = made("B", 2, updated_at="2026-02-01T00:00:00Z", pushed_at="2026-01-01T00:00:00Z")

    assert ordered([b, a, b], "full_name") == [a, b]
    assert ordered([a, b], "updated") == [b, a]
    assert ordered([b, a], "pushed") == [a, b]


def test_every_word_has_to_be_there() -> None:
    one, two = made("web-shop", 1), made("shop", 2, description="The web")

    assert matching([one, two], "WEB shop") == [one, two]
    assert matching([one, two], "web-shop") == [one]
    assert matching([one, two], "  ") == [one, two]
    assert matching([one, two], None) == [one, two]
