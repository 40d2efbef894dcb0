"""Which names and values variables may have, and the form in which a pane takes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.tmux import _take as taking
from craftastic.tmux._variables import MAX_BYTES, MAX_COUNT, BadSessionVariables, packed
from craftastic.variables._rules import (
    MAX_PER_SCOPE,
    MAX_SCOPE_BYTES,
    MAX_VALUE_BYTES,
    BadVariableName,
    BadVariableValue,
    check_name,
    size_of,
)

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)


@pytest.mark.parametrize(
    "name", ["A", "_x", "a1", "API_TOKEN", "x" * 128, "path", "LD_LIBRARY_PATH", "ENV", "GIT_DIR"]
)
def test_usual_names_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "1A", "A-B", "A B", "A=B", "A\n", "é", "\u212a", "x" * 129, "A\0", "A.B", "BASH_FUNC_x%%"],
)
def test_names_that_shells_do_not_take_are_refused(name: str) -> None:
    with pytest.raises(BadVariableName, match="letters, digits and _ only"):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "TERM", "TMUX_PANE", "LD_PRELOAD", "PWD", "CRAFTASTIC_URL", "craftastic_x"],
)
def test_names_that_are_not_the_users_to_set_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(BadVariableName, match=f"{name} cannot be set: "):
        check_name(name)


def test_values_are_measured_in_bytes() -> None:
    assert size_of("é\n") == 3
    assert size_of("x" * MAX_VALUE_BYTES) == MAX_VALUE_BYTES
    for value in ("x" * (MAX_VALUE_BYTES + 1), "é" * MAX_VALUE_BYTES, "a\0b", "\ud800"):
        with pytest.raises(BadVariableValue) as caught:
            size_of(value)
        assert value not in str(caught.value)
        assert caught.value.__cause__ is None


def test_two_full_scopes_fit_into_one_session() -> None:
    assert 2 * MAX_PER_SCOPE <= MAX_COUNT
    assert 2 * MAX_SCOPE_BYTES <= MAX_BYTES


@given(st.dictionaries(NAMES, VALUES, max_size=20))
def test_a_pane_takes_exactly_what_was_packed(variables: dict[str, str]) -> None:
    taken = taking.parsed(packed(variables))

    assert taken == {name.encode(): value.encode() for name, value in variables.items()}


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=5), st.integers(0, 3000))
def test_a_pane_takes_nothing_of_what_came_in_part(variables: dict[str, str], cut: int) -> None:
    whole = packed(variables)

    assert taking.parsed(whole[: cut % len(whole)]) is None
    assert taking.parsed(whole + b"x") is None


def test_refusals_do_not_show_the_values() -> None:
    for variables in ({"A": "hunter2\0"}, {"A": "hunter2\ud800"}, {"A": "hunter2" * 30_000}):
        with pytest.raises(BadSessionVariables) as caught:
            packed(variables)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
    with pytest.raises(BadSessionVariables, match="at most 200"):
        packed({f"V{n}": "" for n in range(201)})
