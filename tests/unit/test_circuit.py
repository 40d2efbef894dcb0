"""When one who does not answer is asked, and when not."""

from craftastic.circuit import PAUSE_S, VAIN, Circuit
from tests.fakes.clock import FakeClock


def opened(clock: FakeClock) -> Circuit:
    circuit = Circuit(clock.monotonic)
    for _ in range(VAIN):
        assert not circuit.is_open()
        circuit.unanswered()
    return circuit


def test_after_some_questions_in_vain_nobody_is_asked_for_a_while(clock: FakeClock) -> None:
    circuit = opened(clock)

    assert circuit.is_open()
    clock.advance(PAUSE_S - 0.1)
    assert circuit.is_open()


def test_one_question_decides_after_the_pause(clock: FakeClock) -> None:
    circuit = opened(clock)

    clock.advance(PAUSE_S)

    assert not circuit.is_open()
    assert circuit.is_open()  # the others wait for what comes of it
    circuit.unanswered()
    assert circuit.is_open()
    clock.advance(PAUSE_S)
    assert not circuit.is_open()
    circuit.answered()
    assert not circuit.is_open()


def test_question_of_which_nothing_is_heard_keeps_the_next_one_from_nothing(
    clock: FakeClock,
) -> None:
    circuit = opened(clock)
    clock.advance(PAUSE_S)
    assert not circuit.is_open()  # and whoever asked was cancelled

    clock.advance(PAUSE_S)

    assert not circuit.is_open()


def test_answer_among_failures_counts(clock: FakeClock) -> None:
    circuit = Circuit(clock.monotonic)
    for _ in range(3):
        for _ in range(VAIN - 1):
            circuit.unanswered()
        circuit.answered()

    assert not circuit.is_open()
