"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 24, 15, 3, 8, 354000, tzinfo=UTC)


class FakeClock:
    """Both of its times move together, and only by `advance`."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._passed_s = 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed_s)

    def monotonic(self) -> float:
        return 1000.0 + self._passed_s

    def advance(self, seconds: float) -> None:
        self._passed_s += seconds
