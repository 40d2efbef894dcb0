"""How long the steps of a start took: one after another, bounded, and kept beside older ones."""

from craftastic.environments._timings import MAX_STEPS, StepTime, Timings, unpacked
from craftastic.metrics import Metrics
from tests.fakes.clock import FakeClock


def test_a_step_lasts_until_the_next_begins(clock: FakeClock) -> None:
    times = Timings(clock)

    times.begin("image")
    clock.advance(2.5)
    times.begin("sandbox")
    clock.advance(0.25)
    times.begin("sandbox")
    clock.advance(0.25)

    assert times.end() == {"image": 2.5, "sandbox": 0.5}
    assert unpacked(times.packed()) == (StepTime("image", 2500), StepTime("sandbox", 500))


def test_a_step_that_is_done_again_takes_the_place_of_the_older_one(clock: FakeClock) -> None:
    times = Timings(clock, (StepTime("sandbox", 500), StepTime("clone", 900)))

    times.begin("clone")
    clock.advance(0.1)
    times.end()

    assert unpacked(times.packed()) == (StepTime("sandbox", 500), StepTime("clone", 100))


def test_what_is_kept_is_bounded_whatever_a_runtime_reports(clock: FakeClock) -> None:
    times = Timings(clock)

    for number in range(100):
        times.begin(f"{number:03}" + "x" * 100)
        clock.advance(1e9)
    times.end()

    assert len(unpacked(times.packed())) == MAX_STEPS
    assert len(times.packed()) <= 1000


def test_nothing_stored_is_nothing_known() -> None:
    assert unpacked(None) == ()


async def test_metrics_have_few_steps_whatever_a_runtime_reports() -> None:
    metrics = Metrics()

    metrics.step_took("clone", "docker", 0.3)
    metrics.step_took("something else", "docker", 0.3)

    text = metrics.text().decode()
    for step in ("clone", "other"):
        line = f'craftastic_create_step_seconds_count{{runtime="docker",step="{step}"}} 1.0'
        assert line in text
