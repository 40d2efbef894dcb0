"""What templates of manifests become."""

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.agents._templates import PLACEHOLDERS
from craftastic.agents.agent_types import PlaceholderMissing, render

EVERY = dict.fromkeys(PLACEHOLDERS, "v")
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("template", "becomes"),
    [
        ("{home}/x", "/h/x"),
        ("{home}{home}", "/h/h"),
        ("{json:home}", '"/h"'),
        ("{toml:home}", '"/h"'),
        ('{"a":{"b":{json:model}}}', '{"a":{"b":"m {home}"}}'),
        ("{model}", "m {home}"),
        ("{ home } {HOME} {} {{x}} {home", "{ home } {HOME} {} {{x}} {home"),
        ("{unknown} {yaml:home} {a:b}", "{unknown} {yaml:home} {a:b}"),
    ],
)
def test_known_placeholders_are_replaced_once_and_other_braces_stay(
    template: str, becomes: str
) -> None:
    assert render(template, {"home": "/h", "model": "m {home}"}) == becomes


@pytest.mark.parametrize("template", ["{token}", "a {json:token}", "{home}{toml:token}"])
def test_a_placeholder_without_a_value_is_an_error_and_never_left_in_the_text(
    template: str,
) -> None:
    with pytest.raises(PlaceholderMissing):
        render(template, {"home": "/h"})


@given(TEXT)
def test_a_value_stays_itself_in_json_and_in_toml(value: str) -> None:
    values = EVERY | {"prompt": value}

    assert json.loads(render("{json:prompt}", values)) == value
    assert tomllib.loads(render("x = {toml:prompt}\n", values)) == {"x": value}


@given(st.text(), st.text())
def test_any_template_with_any_value_becomes_a_text(template: str, value: str) -> None:
    assert isinstance(render(template, dict.fromkeys(PLACEHOLDERS, value)), str)


@given(
    st.lists(st.sampled_from(["{home}", "{json:home}", "{token}", "{", "}", "{{", "home", "x"])),
    st.text(),
)
def test_rendering_fails_only_for_values_that_are_missing(parts: list[str], value: str) -> None:
    template = "".join(parts)
    try:
        render(template, {"home": value})
    except PlaceholderMissing:
        assert "{token}" in template
    else:
        assert "{token}" not in template
