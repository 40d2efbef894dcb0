"""What the login endpoints say, in every form that they say it in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.github._device_flow import (
    DeviceCode,
    Grant,
    Later,
    LoginAnswer,
    Refused,
    missing_scopes,
    read_device_code,
    read_grant,
    slower,
    split_scopes,
)

BEGUN = {
    "device_code": "d" * 40,
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://github.com/login/device",
    "expires_in": 900,
    "interval": 5,
}
GIVEN = {"access_token": "gho_abc", "token_type": "bearer", "scope": "repo,gist"}
APP = {
    "access_token": "ghu_abc",
    "expires_in": 28800,
    "refresh_token": "ghr_abc",
    "refresh_token_expires_in": 15811200,
    "scope": "",
    "token_type": "bearer",
}


def answer(body: Any, status: int = 200, retry_after_s: float | None = None) -> LoginAnswer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return LoginAnswer(status, content, retry_after_s)


def test_a_device_code_is_read_from_json_and_from_a_form() -> None:
    code = DeviceCode("d" * 40, "WDJB-MJHT", "https://github.com/login/device", 900, 5)
    form = (
        b"device_code=" + b"d" * 40 + b"&user_code=WDJB-MJHT&expires_in=900&interval=5"
        b"&verification_uri=https%3A%2F%2Fgithub.com%2Flogin%2Fdevice"
    )

    assert read_device_code(answer(BEGUN)) == code
    assert read_device_code(answer(form)) == code


def test_a_device_code_without_times_gets_githubs_usual_ones() -> None:
    without = {key: BEGUN[key] for key in ("device_code", "user_code")}

    code = read_device_code(answer(without))

    assert isinstance(code, DeviceCode)
    assert (code.expires_in_s, code.interval_s, code.verification_uri) == (900, 5, "")


@pytest.mark.parametrize(
    "change",
    [
        {"user_code": "<b>hello</b>"},
        {"user_code": 7},
        {"user_code": "x" * 33},
        {"device_code": ""},
        {"device_code": "a b"},
        {"device_code": None},
        {"device_code": "d" * 2000},
    ],
)
def test_a_device_code_that_makes_no_sense_is_no_answer(change: dict[str, Any]) -> None:
    assert isinstance(read_device_code(answer(BEGUN | change)), Later)


@pytest.mark.parametrize("value", [0, -1, "x", True, None, [], 1e400, float("nan"), 10**400])
def test_times_that_make_no_sense_are_not_taken(value: Any) -> None:
    code = read_device_code(answer(BEGUN | {"interval": value, "expires_in": value}))

    assert isinstance(code, DeviceCode)
    assert (code.interval_s, code.expires_in_s) == (5, 900)


def test_times_are_bounded() -> None:
    code = read_device_code(answer(BEGUN | {"interval": 10**6, "expires_in": 10**9}))

    assert isinstance(code, DeviceCode)
    assert (code.interval_s, code.expires_in_s) == (300, 3600)


def test_tokens_of_both_kinds_of_app_are_read() -> None:
    oauth, app = read_grant(answer(GIVEN)), read_grant(answer(APP))
    form = read_grant(answer(b"access_token=gho_abc&scope=repo%2Cgist&token_type=bearer"))

    assert oauth == form == Grant("gho_abc", None, "oauth", ("repo", "gist"), None, None)
    assert app == Grant("ghu_abc", "ghr_abc", "app", (), 28800, 15811200)


def test_an_app_without_expiry_is_still_an_app() -> None:
    grant = read_grant(answer({"access_token": "ghu_abc", "scope": "", "token_type": "bearer"}))

    assert grant == Grant("ghu_abc", None, "app", (), None, None)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
@pytest.mark.parametrize(
    "error",
    [
        "authorization_pending",
        "slow_down",
        "expired_token",
        "access_denied",
        "incorrect_device_code",
        "incorrect_client_credentials",
        "unsupported_grant_type",
        "device_flow_disabled",
        "unverified_user_email",
        "bad_refresh_token",
    ],
)
def test_a_known_error_counts_whatever_the_status(error: str, status: int) -> None:
    assert read_grant(answer({"error": error}, status)) == Refused(error)
    assert read_grant(answer(f"error={error}".encode(), status)) == Refused(error)


def test_both_words_for_an_expired_code_mean_it() -> None:
    assert read_grant(answer({"error": "token_expired"})) == Refused("expired_token")


def test_an_error_counts_more_than_tokens_beside_it() -> None:
    assert read_grant(answer(GIVEN | {"error": "access_denied"})) == Refused("access_denied")


def test_a_client_id_that_github_does_not_know_is_the_operators_to_mend() -> None:
    said = read_device_code(answer({"error": "Not Found"}, 404))

    assert said == Refused("incorrect_client_credentials")


@pytest.mark.parametrize(
    ("error", "shown"),
    [("brand_new_word", "brand_new_word"), ("<b>", "unknown_error"), (7, "unknown_error")],
)
def test_an_unknown_error_ends_the_flow_under_a_safe_name(error: Any, shown: str) -> None:
    assert read_grant(answer({"error": error})) == Refused(shown)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>unicorn</html>", 502),
        (b"", 0),
        (b"", 200),
        (b"{", 200),
        (b"[]", 200),
        ({"message": "rate limit"}, 403),
        ({"error": "Internal"}, 503),
        ({"access_token": "a b"}, 200),
        ({"access_token": "x" * 2000}, 200),
        ({"access_token": 7}, 200),
    ],
)
def test_what_means_nothing_means_later(body: Any, status: int) -> None:
    assert read_grant(answer(body, status, 9.0)) == Later(status, 9.0)


@given(st.binary(max_size=300), st.integers(0, 599))
def test_no_bytes_break_the_reading(body: bytes, status: int) -> None:
    for read in (read_device_code, read_grant):
        assert isinstance(read(LoginAnswer(status, body)), DeviceCode | Grant | Refused | Later)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_no_value_of_a_field_breaks_the_reading(value: Any) -> None:
    for name in (*BEGUN, *APP, "error"):
        body = BEGUN | APP | {name: value}
        assert read_device_code(answer(body)) is not None
        assert read_grant(answer(body)) is not None


@pytest.mark.parametrize(
    ("interval", "named", "next_interval"),
    [(5, None, 10), (5, 10, 10), (10, 15, 15), (20, 10, 20), (298, None, 300)],
)
def test_slow_down_only_ever_makes_the_interval_longer(
    interval: float, named: float | None, next_interval: float
) -> None:
    assert slower(interval, Refused("slow_down", named)) == next_interval


def test_slow_down_carries_its_interval() -> None:
    said = read_grant(answer({"error": "slow_down", "interval": 10}))

    assert said == Refused("slow_down", 10)


def test_scopes_are_split_at_commas_and_spaces() -> None:
    assert split_scopes("repo, read:user\tgist,,repo <b>") == ("repo", "read:user", "gist")


@pytest.mark.parametrize(
    ("asked", "granted", "missing"),
    [
        (["repo", "read:user", "user:email"], ["repo", "user"], ()),
        (["repo"], ["public_repo"], ("repo",)),
        (["public_repo"], ["repo"], ()),
        (["read:org"], ["admin:org"], ()),
        (["repo", "gist"], [], ("repo", "gist")),
        ([], ["repo"], ()),
    ],
)
def test_a_scope_includes_its_parts(
    asked: list[str], granted: list[str], missing: tuple[str, ...]
) -> None:
    assert missing_scopes(asked, granted) == missing


def test_nothing_that_holds_a_secret_shows_it() -> None:
    held = [answer(APP), read_grant(answer(APP)), read_device_code(answer(BEGUN))]

    shown = repr(held)

    for secret in ("ghu_abc", "ghr_abc", "d" * 40):
        assert secret not in shown
