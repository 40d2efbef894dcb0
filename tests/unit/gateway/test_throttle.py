"""How often an environment may push in vain."""

from http import HTTPStatus
from uuid import UUID, uuid4

import pytest

from craftastic.gateway import _throttle
from craftastic.gateway._throttle import AT_ONCE, RECOVERY_S, PushThrottle
from craftastic.gateway._transfer import Refusal
from tests.fakes.clock import FakeClock


def is_refused(throttle: PushThrottle, environment_id: UUID) -> bool:
    try:
        throttle.check(environment_id)
    except Refusal as refusal:
        return refusal.status == HTTPStatus.TOO_MANY_REQUESTS
    return False


def test_so_many_failures_at_once_and_then_one_at_a_time() -> None:
    clock, environment, other = FakeClock(), uuid4(), uuid4()
    throttle = PushThrottle(clock)
    for _ in range(AT_ONCE):
        assert not is_refused(throttle, environment)
        throttle.charge(environment, 1)

    assert is_refused(throttle, environment)
    assert not is_refused(throttle, other)
    clock.advance(RECOVERY_S)
    assert not is_refused(throttle, environment)
    throttle.charge(environment, 1)
    assert is_refused(throttle, environment)
    clock.advance(AT_ONCE * RECOVERY_S)
    for _ in range(AT_ONCE):
        assert not is_refused(throttle, environment)
        throttle.charge(environment, 1)
    assert is_refused(throttle, environment)


def test_large_failure_counts_as_several_and_a_success_as_none() -> None:
    environment, throttle = uuid4(), PushThrottle(FakeClock())

    throttle.charge(environment, 0)
    assert throttle._paid_at == {}
    throttle.charge(environment, AT_ONCE + 1)
    with pytest.raises(Refusal, match="try again in 2 min"):
        throttle.check(environment)


def test_what_has_been_forgotten_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_throttle, "MANY_ENVIRONMENTS", 3)
    clock = FakeClock()
    throttle = PushThrottle(clock)
    for _ in range(5):
        throttle.charge(uuid4(), 1)
        clock.advance(RECOVERY_S)

    throttle.charge(uuid4(), 1)

    assert len(throttle._paid_at) <= 3
