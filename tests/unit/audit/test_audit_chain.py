"""What an event's hash covers, and the form in which events are stored."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.audit._chain import (
    MAX_DETAILS_CHARS,
    NOTHING_BEFORE,
    Entry,
    bounded,
    chained,
    details_text,
)

ENTRY = Entry(
    at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    actor_id=UUID(int=1),
    action="git.push",
    object_type="environment",
    object_id="7",
    outcome="ok",
    request_id="r",
    details="{}",
)
OTHERS: dict[str, Any] = {
    "at": ENTRY.at + timedelta(microseconds=1),
    "actor_id": uuid4(),
    "action": "git.pull",
    "object_type": "session",
    "object_id": None,
    "outcome": "failed",
    "request_id": None,
    "details": '{"a":1}',
}


@pytest.mark.parametrize("name", [one.name for one in fields(Entry)])
def test_the_hash_covers_every_field(name: str) -> None:
    changed = replace(ENTRY, **{name: OTHERS[name]})

    assert chained(1, NOTHING_BEFORE, changed) != chained(1, NOTHING_BEFORE, ENTRY)


def test_the_hash_covers_the_place_in_the_chain() -> None:
    first = chained(1, NOTHING_BEFORE, ENTRY)

    assert len({first, chained(2, NOTHING_BEFORE, ENTRY), chained(1, first, ENTRY)}) == 3


def test_the_hash_does_not_depend_on_the_form_of_the_time() -> None:
    elsewhere = replace(ENTRY, at=ENTRY.at.astimezone(timezone(timedelta(hours=9))))

    assert chained(1, NOTHING_BEFORE, elsewhere) == chained(1, NOTHING_BEFORE, ENTRY)


def test_the_hash_stays_what_it_is() -> None:
    # Written down: a change of the form would make every log that exists look forged.
    assert chained(1, NOTHING_BEFORE, ENTRY) == (
        "bbb68d93df8b3cc53628c25f154f63dec12deffff66cb864059143b9b4f150ed"
    )


def test_details_do_not_depend_on_the_order_of_their_keys() -> None:
    assert details_text({"a": 1, "b": [2]}) == details_text({"b": [2], "a": 1}) == '{"a":1,"b":[2]}'


def test_details_hide_what_looks_like_a_secret() -> None:
    text = details_text(
        {
            "password": "canary-1",
            "nested": {"access_token": "canary-2"},
            "url": "https://user:canary-3@example.com/x",
            "header": "Basic Y2FuYXJ5LTQ=",
            "ref": "refs/heads/main",
        }
    )

    assert "canary" not in text
    assert "Y2FuYXJ5LTQ" not in text
    assert "refs/heads/main" in text


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.text(max_size=9000) | st.floats() | st.none() | st.binary() | st.uuids(),
        max_size=40,
    )
)
def test_details_are_ascii_json_of_a_bounded_length(details: dict[str, object]) -> None:
    text = details_text(details)

    assert len(text) <= MAX_DETAILS_CHARS
    assert text.isascii()
    assert text.isprintable()
    assert isinstance(json.loads(text), dict)


@given(st.text())
def test_texts_fit_their_columns(text: str) -> None:
    found = bounded(text, 32)

    assert len(found) <= 32
    assert "\0" not in found
    found.encode()
