"""How an environment stands to its quota, and which answers of sandboxes are believed."""

import json
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from craftastic.disk._model import DiskUse, Freed, Level, Report, level, size

QUOTA = 1000


def known(total: int, *, over: bool = False, mark: int | None = None) -> DiskUse:
    return DiskUse(uuid4(), None, None, total, None, False, None, over, over, mark)


def after(*totals: int) -> Level:
    """Return the level after measurements one after the other."""
    found, before = Level(), None
    for total in totals:
        found = level(total, QUOTA, before)
        before = known(total, over=found.over, mark=found.mark)
    return found


@pytest.mark.parametrize(
    ("totals", "near", "over", "stop"),
    [
        ((899,), False, False, False),
        ((900,), True, False, False),
        ((1000,), True, False, False),
        ((1001,), True, True, False),
        ((1001, 950), True, True, False),
        ((1001, 899), False, False, False),
        ((1001, 899, 950), True, False, False),
        ((1100, 1100), True, True, False),
        ((1101,), True, True, False),
        ((1101, 1101), True, True, False),
        ((1101, 1111), True, True, False),
        ((1101, 1112), True, True, True),
        ((1101, 1112, 1112), True, True, False),
        ((1101, 1112, 1130), True, True, True),
        ((1101, 1106, 1112), True, True, True),
        ((1101, 1112, 1050, 1112), True, True, False),
    ],
)
def test_a_quota_is_near_then_over_and_growth_far_over_it_stops(
    totals: tuple[int, ...], near: bool, over: bool, stop: bool
) -> None:
    found = after(*totals)

    assert (found.near, found.over, found.stop) == (near, over, stop)


@given(st.integers(0, 1 << 60), st.booleans(), st.none() | st.integers(0, 1 << 60))
def test_without_a_quota_nothing_is_ever_too_much(total: int, over: bool, mark: int | None) -> None:
    assert level(total, None, known(total, over=over, mark=mark)) == Level()


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20))
def test_only_what_grows_far_over_its_quota_is_stopped(totals: list[int]) -> None:
    found = after(*totals)

    if found.stop:
        assert totals[-1] > QUOTA * 1.1
        assert totals[-1] > min(totals[:-1])
    assert found.over <= found.near


def report(**changes: Any) -> dict[str, Any]:
    item = {"path": "/home/dev/.cache/a", "bytes": 1, "kind": "cache", "worktree": None}
    tree = {"path": "/home/dev/a", "bytes": 1, "regenerable": 0, "saved": None}
    tiers = [{"tier": tier, "bytes": 1, "items": [item]} for tier in (1, 2, 3)]
    parts = {"complete": True, "repository": 1, "home": 2, "cache": 3, "other": 4}
    return {**parts, "sessions": [tree], "tiers": tiers, **changes}


def path(text: object) -> dict[str, Any]:
    return report(sessions=[{"path": text, "bytes": 1, "regenerable": 0, "saved": None}])


def test_a_report_of_the_right_form_is_believed() -> None:
    assert Report.model_validate_json(json.dumps(report())).total == 11


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {},
        report(home=-1),
        report(home=1 << 51),
        report(home=1.5),
        report(home="1"),
        report(home=True),
        report(complete=1),
        report(more=1),
        report(tiers=[]),
        report(sessions=[{"path": "/home/dev/a"}]),
        report(sessions=report()["sessions"] * 501),
        path("/etc/passwd"),
        path("/home/dev"),
        path("/home/dev/../../etc"),
        path("/home/dev//a"),
        path("/home/dev/a\x1b[2J"),
        path("/home/dev/a\nb"),
        path("/home/dev/\u202eexe"),
        path("/home/dev/" + "a" * 1024),
        path(7),
    ],
    ids=str,
)
def test_a_report_of_another_form_is_not_believed(told: object) -> None:
    with pytest.raises(ValidationError):
        Report.model_validate_json(json.dumps(told))


@pytest.mark.parametrize("raw", [b"", b"[" * 100_000, b'{"freed": NaN}', b"\xff", b"1" * 10_000])
def test_what_is_no_json_is_not_believed(raw: bytes) -> None:
    with pytest.raises(ValidationError):
        Freed.model_validate_json(raw)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 << 30, "3.0 GiB"),
        (1 << 50, "1024.0 TiB"),
    ],
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert size(count) == text
