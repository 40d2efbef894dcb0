"""The settings of older keys: several in one variable, none of them shown."""

import pytest
from pydantic import ValidationError

from craftastic.settings import Settings

FIRST, SECOND = "1" * 32, "2" * 32


def test_older_keys_are_separated_by_commas() -> None:
    settings = Settings.model_validate({"encryption_old_keys": f" {FIRST} ,{SECOND},"})

    assert settings.old_encryption_keys == [FIRST, SECOND]
    assert Settings.model_validate({}).old_encryption_keys == []


def test_older_keys_do_not_show() -> None:
    settings = Settings.model_validate({"encryption_old_keys": f"{FIRST},{SECOND}"})

    assert settings.old_encryption_keys
    assert FIRST not in repr(settings) + str(settings) + settings.model_dump_json()


def test_an_older_key_that_is_too_short_is_refused_without_showing_it() -> None:
    with pytest.raises(ValidationError, match="each key needs at least 32 bytes") as caught:
        Settings.model_validate({"encryption_old_keys": f"{FIRST},short-canary"})

    assert "short-canary" not in str(caught.value)
