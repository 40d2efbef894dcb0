"""Addresses of git hosts as people write them, and what a credential may consist of."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.errors import InvalidInput
from craftastic.gateway.app import upstream_origin
from craftastic.githosts._origins import (
    BadGitHost,
    basic,
    checked_password,
    checked_username,
    normalised_origin,
    password_of,
    shown_origin,
)
from craftastic.settings import Settings

STRICT = upstream_origin(Settings.model_validate({}))
LOOSE = upstream_origin(
    Settings.model_validate({"git_allow_http": True, "git_allow_private": True})
)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://gitlab.example.com", "https://gitlab.example.com"),
        ("  HTTPS://GitLab.Example.COM/ ", "https://gitlab.example.com"),
        ("https://gitlab.example.com:443", "https://gitlab.example.com"),
        ("https://gitlab.example.com:8443", "https://gitlab.example.com:8443"),
        ("http://git.example", "http://git.example"),
        ("http://git.example:80", "http://git.example"),
        ("http://git.example:443", "http://git.example:443"),
        ("https://[2001:4860:4860::8888]", "https://[2001:4860:4860::8888]"),
        ("https://[2001:4860:4860:0::8888]:443/", "https://[2001:4860:4860::8888]"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://Bücher.example:8443", "https://xn--bcher-kva.example:8443"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://127.0.0.1:3000", "https://127.0.0.1:3000"),
    ],
)
def test_forms_of_one_host_are_one_origin(text: str, origin: str) -> None:
    assert shown_origin(LOOSE(normalised_origin(text))) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gitlab.example.com",
        "git@gitlab.example.com",
        "ssh://gitlab.example.com",
        "file:///etc",
        "https://",
        "https:///x",
        "https://gitlab.example.com/group",
        "https://gitlab.example.com//",
        "https://gitlab.example.com?x",
        "https://gitlab.example.com#x",
        "https://user@gitlab.example.com",
        "https://user:password@gitlab.example.com",
        "https://gitlab.example.com\\@evil.example",
        "https://gitlab.example.com\r\nX: y",
        "https://a b.example",
        "https://gitlab.example.com.",
        "https://gitlab.example.com:0",
        "https://gitlab.example.com:99999",
        "https://gitlab.example.com:x",
        "https://faß.example",
        "https://a\u200db.example",
        "https://" + "ü" * 80 + ".example",
        "https://" + "x" * 400,
        "https://2130706433",
        "https://0x7f.1",
        "https://[fe80::1%eth0]",
        "https://%67itlab.example.com",
        "https://-x.example",
    ],
)
def test_what_is_no_address_of_a_host_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LOOSE(normalised_origin(text))

    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    "text",
    [
        "http://git.example",
        "https://git.example:8443",
        "https://127.0.0.1",
        "https://10.0.0.1",
        "https://[::1]",
        "https://169.254.169.254",
    ],
)
def test_upstream_rules_hold_for_hosts_too(text: str) -> None:
    with pytest.raises(InvalidInput):
        STRICT(normalised_origin(text))


@pytest.mark.parametrize("text", ["", "a:b", "a\n", "a\0", "a\u2028", "x" * 256])
def test_username_that_no_header_can_carry_is_refused(text: str) -> None:
    with pytest.raises(BadGitHost):
        checked_username(text)


@pytest.mark.parametrize("text", ["", "a\n", "a\r", "a\0", "\ta", "a\u200b", "\ud800", "x" * 2001])
def test_password_that_no_header_can_carry_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadGitHost) as caught:
        checked_password(text)

    assert not text or text not in f"{caught.value}"


@given(st.text(min_size=1, max_size=50), st.text(min_size=1, max_size=80))
def test_what_is_accepted_makes_a_header_that_holds_both(username: str, password: str) -> None:
    try:
        checked_username(username)
        checked_password(password)
    except BadGitHost:
        return

    value = basic(username, password)

    assert value.isascii()
    assert value.isprintable()
    assert base64.b64decode(value[6:]).decode() == f"{username}:{password}"
    assert password_of(value) == password
