"""Model APIs of the operator's own, as they are set."""

import pytest
from pydantic import ValidationError

from craftastic.gateway._providers import PROVIDERS
from craftastic.settings import MODEL_PROVIDERS, Settings


def settings(text: str) -> Settings:
    return Settings.model_validate({"model_upstreams": text})


def test_names_of_the_setting_are_those_of_the_gateway() -> None:
    assert set(MODEL_PROVIDERS) == set(PROVIDERS)


def test_addresses_are_read_by_the_names_of_their_apis() -> None:
    text = "anthropic=https://models.example.com , openai=http://10.0.0.5:4000/v1"

    assert settings(text).model_upstreams_by_provider == {
        "anthropic": "https://models.example.com",
        "openai": "http://10.0.0.5:4000/v1",
    }
    assert settings("").model_upstreams_by_provider == {}


@pytest.mark.parametrize(
    "text",
    [
        "https://models.example.com",
        "nobody=https://models.example.com",
        "anthropic",
        "anthropic=",
        "anthropic=models.example.com",
        "anthropic=ftp://models.example.com",
        "anthropic=https://",
        "anthropic=https://user:secret@models.example.com",
        "anthropic=https://models.example.com?x=y",
        "anthropic=https://models.example.com#x",
        "anthropic=https://models.example.com:0",
        "anthropic=https://models.example.com:99999",
        "anthropic=https://models example.com",
        "anthropic=https://a.example,anthropic=https://b.example",
    ],
)
def test_address_that_could_not_be_asked_is_refused_at_start(text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(text)
    assert "secret" not in str(refused.value)
