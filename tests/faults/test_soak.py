"""F45 in little: a minute of the soak, and what it is judged by."""

from pathlib import Path

import pytest

from tests.faults._nemesis import FAULTS, PER_MINUTE, schedule
from tests.faults._soakers import hole_in
from tests.faults.soak import slope, soak

pytestmark = pytest.mark.fault

MINUTES = 1.0
SEED = 45


def test_one_seed_always_gives_the_same_faults_in_their_order() -> None:
    faults = schedule(SEED, 30)

    assert faults == schedule(SEED, 30)
    assert faults != schedule(SEED + 1, 30)
    assert len(faults) == 30 * PER_MINUTE
    assert [one.at_s for one in faults] == sorted(one.at_s for one in faults)
    assert {one.kind for one in faults[: len(FAULTS)]} == set(FAULTS)


def test_the_slope_is_that_of_the_nearest_line() -> None:
    assert slope([(0, 10), (1, 12), (2, 14)]) == pytest.approx(2)
    assert slope([(0, 10), (1, 12), (2, 8), (3, 10)]) == pytest.approx(-0.4)
    assert slope([(5, 10)]) == 0


def test_a_line_that_is_missing_or_comes_twice_is_found() -> None:
    assert hole_in("n1 abc\nt5\nn2 abc\nn9 other\nn3 abc\nn4 a", "abc") == ""
    assert hole_in("n1 abc\nn3 abc", "abc") == "3 after 1"
    assert hole_in("n1 abc\nn1 abc", "abc") == "1 after 1"


@pytest.mark.slow
@pytest.mark.local
@pytest.mark.postgres
@pytest.mark.timeout(900)
async def test_a_minute_of_faults_at_random_violates_nothing(tmp_path: Path) -> None:
    with (tmp_path / "soak.jsonl").open("w", encoding="utf-8") as record:
        world = await soak(MINUTES, SEED, "local", record)

    assert world.violations == []
    assert world.summary["acknowledged"] > 0
    assert world.summary["attached_and_going_on"] > 0
