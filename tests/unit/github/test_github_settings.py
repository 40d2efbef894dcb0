"""Where GitHub is, as an operator writes it."""

from typing import Any

import pytest
from pydantic import ValidationError

from craftastic.github.service import GitHubService
from craftastic.settings import Settings


def settings(**values: Any) -> Settings:
    return Settings.model_validate({"github_client_id": "Iv1.a", **values})


@pytest.mark.parametrize(
    ("url", "api"),
    [
        ("https://github.com", "https://api.github.com"),
        ("https://github.com/", "https://api.github.com"),
        ("https://GHES.example.com", "https://ghes.example.com/api/v3"),
        ("https://ghes.example.com:8443", "https://ghes.example.com:8443/api/v3"),
        ("https://acme.ghe.com", "https://api.acme.ghe.com"),
    ],
)
def test_the_apis_address_follows_from_githubs(url: str, api: str) -> None:
    assert settings(github_url=url).github_api == api


def test_the_apis_address_can_be_set() -> None:
    assert settings(github_api_url="https://api.x.example/v3/").github_api == (
        "https://api.x.example/v3"
    )


@pytest.mark.parametrize("name", ["github_url", "github_api_url"])
@pytest.mark.parametrize(
    "url",
    [
        "http://github.com",
        "github.com",
        "ftp://x",
        "https://",
        "https://a@b.c",
        "https://a/?b",
        "https://a:99999",
        "https://a:x",
        "https://[a",
    ],
)
def test_an_address_is_https_and_plain(name: str, url: str) -> None:
    with pytest.raises(ValidationError, match=name):
        settings(**{name: url})


def test_githubs_own_address_has_no_path() -> None:
    with pytest.raises(ValidationError, match="path"):
        settings(github_url="https://example.com/github")


def test_plain_http_goes_with_the_setting_for_git() -> None:
    url = "http://127.0.0.1:8080"

    assert settings(github_url=url, git_allow_http=True).github_url == url


def test_an_empty_value_is_as_if_it_were_not_set() -> None:
    unset = settings(
        github_client_id=" ",
        github_client_secret="",
        github_webhook_secret="",
        github_api_url="",
        github_app_slug="",
    )

    assert unset.github_client_id is unset.github_api_url is unset.github_app_slug is None
    assert unset.github_client_secret is None
    assert unset.github_webhook_secret is None


def test_secrets_of_the_app_do_not_show() -> None:
    shown = repr(settings(github_client_secret="canary-1", github_webhook_secret="canary-2"))

    assert "canary" not in shown


@pytest.mark.parametrize("scopes", ["repo;x", "repo\nx", "x" * 501])
def test_scopes_are_words(scopes: str) -> None:
    with pytest.raises(ValidationError):
        settings(github_scopes=scopes)


def test_the_service_names_the_origin_of_its_tokens() -> None:
    def origin(**values: Any) -> Any:
        made = settings(**values)
        nothing: Any = None
        return GitHubService(nothing, nothing, nothing, nothing, nothing, made).origin

    assert origin() == ("https", "github.com", 443)
    assert origin(github_url="https://ghes.example.com:8443") == ("https", "ghes.example.com", 8443)
    assert origin(github_client_id=None) is None
