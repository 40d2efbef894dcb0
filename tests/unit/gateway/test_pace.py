"""How fast a session may report."""

from uuid import uuid4

import pytest

from craftastic.gateway._pace import AT_ONCE, EACH_S, MANY_SESSIONS, Pace
from tests.fakes.clock import FakeClock


def test_burst_passes_at_once_and_the_rest_is_spread_out(clock: FakeClock) -> None:
    pace, session_id = Pace(clock), uuid4()

    waits = [pace.wait_s(session_id) for _ in range(AT_ONCE + 3)]

    assert waits[:AT_ONCE] == [0.0] * AT_ONCE
    assert waits[AT_ONCE:] == pytest.approx([EACH_S, 2 * EACH_S, 3 * EACH_S])
    assert pace.wait_s(uuid4()) == 0.0


def test_reports_are_forgotten_with_time(clock: FakeClock) -> None:
    pace, session_id = Pace(clock), uuid4()
    for _ in range(AT_ONCE):
        pace.wait_s(session_id)

    clock.advance(10 * EACH_S)

    assert [pace.wait_s(session_id) for _ in range(10)] == [0.0] * 10
    assert pace.wait_s(session_id) > 0


def test_many_sessions_do_not_pile_up(clock: FakeClock) -> None:
    pace = Pace(clock)
    for _ in range(2 * MANY_SESSIONS + 10):
        pace.wait_s(uuid4())
        clock.advance(2 * EACH_S)

    assert len(pace._paid_at) <= MANY_SESSIONS + 1


def test_a_flood_that_has_ended_is_forgotten_within_two_minutes(clock: FakeClock) -> None:
    pace, session_id = Pace(clock), uuid4()
    for _ in range(100_000):
        pace.wait_s(session_id)

    clock.advance(120)

    assert pace.wait_s(session_id) == 0.0


def test_a_large_report_counts_for_many(clock: FakeClock) -> None:
    pace, session_id = Pace(clock), uuid4()

    waits = [pace.wait_s(session_id, 512 << 10) for _ in range(8)]

    assert waits[:6] == [0.0] * 6
    assert waits[6:] == pytest.approx([31 * EACH_S, 64 * EACH_S])
