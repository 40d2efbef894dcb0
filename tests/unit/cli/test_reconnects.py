import pytest

from craftastic.cli._reconnect import LONGEST_WAIT_S, Next, Reconnects


def test_the_end_of_the_session_is_the_end_of_the_client() -> None:
    verdict = Reconnects().judge(1000, "Terminal session ended", 1.0)

    assert (verdict.next, verdict.exit_code) == (Next.STOP, 0)


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1012, 1013])
def test_a_lost_connection_is_made_again_for_ever_once_attached(code: int) -> None:
    reconnects = Reconnects()
    reconnects.ready()

    verdicts = {reconnects.judge(code, "", 0.1).next for _ in range(50)}

    assert verdicts == {Next.RECONNECT}


def test_a_terminal_that_never_opened_is_given_up() -> None:
    reconnects = Reconnects()

    verdicts = [reconnects.judge(1013, "Too many terminals", 0.1) for _ in range(4)]

    assert [one.next for one in verdicts[:3]] == [Next.RECONNECT] * 3
    assert verdicts[3].next is Next.STOP
    assert (verdicts[3].exit_code, verdicts[3].message) == (7, "Too many terminals")


def test_a_bad_token_is_renewed_a_few_times_only() -> None:
    reconnects = Reconnects()

    verdicts = [reconnects.judge(1008, "Invalid authentication token", 0.1) for _ in range(3)]

    assert [one.next for one in verdicts] == [Next.SIGN_IN, Next.SIGN_IN, Next.STOP]
    assert verdicts[2].exit_code == 3


@pytest.mark.parametrize(
    ("reason", "exit_code"),
    [("Session not found", 4), ("The branch is in use by another session", 5)],
)
def test_a_refusal_ends_with_its_reason(reason: str, exit_code: int) -> None:
    verdict = Reconnects().judge(1008, reason, 0.1)

    assert (verdict.next, verdict.exit_code) == (Next.STOP, exit_code)
    assert verdict.message is not None
    assert verdict.message.startswith(reason)


def test_a_cut_line_is_tried_again_at_once() -> None:
    reconnects = Reconnects(spread=lambda: 0.999)
    for _ in range(8):
        reconnects.ready()
        reconnects.judge(1006, "", 0.1)

    assert reconnects.wait_s() < 0.3


def test_waiting_grows_to_its_limit_and_begins_anew_after_a_good_connection() -> None:
    reconnects = Reconnects(spread=lambda: 0.999)
    reconnects.ready()
    waits: list[float] = []
    for _ in range(8):
        reconnects.judge(1006, "", 0.1)
        waits.append(reconnects.wait_s())
    reconnects.judge(1011, "", 60.0)

    assert waits == sorted(waits)
    assert waits[-1] <= LONGEST_WAIT_S
    assert reconnects.wait_s() < 0.3
