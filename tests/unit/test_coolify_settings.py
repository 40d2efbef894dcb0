"""Where Coolify is, as an operator writes it."""

from typing import Any

import pytest
from pydantic import ValidationError

from craftastic.cli.running import checked_settings
from craftastic.coolify.api import base_of
from craftastic.errors import InvalidInput
from craftastic.settings import Settings
from tests.secrecy import canary

URL = "https://coolify.example.com"


def settings(**values: Any) -> Settings:
    return Settings.model_validate(values)


def test_a_server_without_coolify_has_neither_address_nor_token() -> None:
    unset = settings(coolify_api_url=" ", coolify_api_token="", coolify_origins="")

    assert unset.coolify_api_url is unset.coolify_api_token is None
    assert unset.coolify_origins == ()


def test_the_token_is_kept_whole_and_does_not_show() -> None:
    token = canary("7|coolify-server-token")

    made = settings(coolify_api_url=f"{URL}/api/v1/", coolify_api_token=f" {token}\n")

    assert made.coolify_api_token is not None
    assert made.coolify_api_token.get_secret_value() == token
    assert token not in repr(made)


@pytest.mark.parametrize(
    "url",
    [
        "coolify.example.com",
        "ftp://coolify.example.com",
        "https://",
        "https://user:secret@coolify.example.com",
        "https://coolify.example.com?x=y",
        "https://coolify.example.com?",
        "https://coolify.example.com#x",
        "https://coolify.example.com:0",
        "https://coolify.example.com:99999",
        "https://coolify example.com",
        "https://coolify.example.com\\x",
        "https://[a",
        "https://coolify.example.com/a%2Fb",
        "https://coolify.example.com/a;b",
        "https://köln.example.com",
    ],
)
def test_address_that_could_not_be_asked_is_refused_at_start(url: str) -> None:
    with pytest.raises(ValidationError, match=r"(?i)coolify_api_url") as refused:
        settings(coolify_api_url=url, coolify_api_token="t")

    assert "secret" not in str(refused.value)
    assert len(refused.value.errors()) == 1


@pytest.mark.parametrize(
    "url",
    [
        URL,
        f"{URL}/",
        f"{URL}/api/v1",
        f"{URL}/behind/a-proxy/api/v1//",
        "http://10.0.0.5:8000",
        "http://coolify:8000/api/v1/",
        "https://[fd00::5]:8443",
        "HTTPS://Coolify.Example.com",
    ],
)
def test_address_that_is_taken_is_one_that_can_be_asked(url: str) -> None:
    made = settings(coolify_api_url=url, coolify_api_token="7|x")

    assert base_of(made.coolify_api_url or "").endswith("/api/v1")


@pytest.mark.parametrize("token", ["a b", "a\nb", "ä", "\x7f"])
def test_token_that_no_header_can_carry_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValidationError, match="the token alone") as refused:
        settings(coolify_api_url=URL, coolify_api_token=f"canary{token}")

    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("name", ["COOLIFY_API_URL", "CRAFTASTIC_COOLIFY_API_URL"])
def test_address_alone_stops_the_server_with_the_names_of_both(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, URL)

    with pytest.raises(InvalidInput) as refused:
        checked_settings()

    assert refused.value.message == (
        "The settings are wrong: COOLIFY_API_TOKEN: COOLIFY_API_URL and COOLIFY_API_TOKEN go "
        "together: set both or none."
    )


@pytest.mark.parametrize("name", ["COOLIFY_API_TOKEN", "CRAFTASTIC_COOLIFY_API_TOKEN"])
def test_token_alone_stops_the_server_with_the_names_of_both(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "7|x")

    with pytest.raises(InvalidInput, match="go together"):
        checked_settings()


def test_origins_of_users_own_coolify_are_a_list() -> None:
    text = "https://Coolify.example.com/ , http://10.0.0.5:8000"

    assert settings(coolify_origins=text).coolify_origins == (
        "https://coolify.example.com",
        "http://10.0.0.5:8000",
    )


@pytest.mark.parametrize(
    "text", ["*", "coolify.example.com", "https://a/b", "https://a@b", "https://a:x", "ftp://a"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="coolify_origins"):
        settings(coolify_origins=text)
