import time

import pytest

from craftastic.cli.remote import claims, is_local, parse_url, refusal, segment, signed_in
from craftastic.errors import (
    Conflict,
    CraftasticError,
    InternalError,
    InvalidInput,
    NotFound,
    RateLimited,
    Unavailable,
)
from tests.fakes.terminal_server import access_token

USER = {"id": "u", "email": "a@example.com", "name": "A"}


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://Craft.example.com/", "https://craft.example.com"),
        ("localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000/api", "http://[::1]:3000"),
        ("https://example.com/craftastic/api/", "https://example.com/craftastic"),
    ],
)
def test_one_server_has_one_form_of_its_address(text: str, url: str) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://example.com",
        "https://u:p@example.com",
        "http://a:b",
        "http://a?x=1",
        "http://a#b",
    ],
)
def test_what_is_no_servers_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_url(text)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000", True),
        ("http://localhost", True),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1", False),
        ("https://127.0.0.1.example.com", False),
    ],
)
def test_only_loopback_is_this_machine(url: str, local: bool) -> None:
    assert is_local(url) is local


@pytest.mark.parametrize(
    ("status", "category"),
    [
        (400, InvalidInput),
        (404, NotFound),
        (409, Conflict),
        (418, InvalidInput),
        (429, RateLimited),
        (500, InternalError),
        (503, Unavailable),
        (599, InternalError),
    ],
)
def test_a_status_becomes_its_category(status: int, category: type[CraftasticError]) -> None:
    assert type(refusal(status, None)) is category


def test_the_sentence_is_found_in_every_form_of_error() -> None:
    coded = refusal(409, {"error": "BRANCH_IN_USE", "message": "The branch is in use."})
    plain = refusal(503, {"error": "No sandbox.", "details": "Start Docker."})

    assert coded.message == "The branch is in use."
    assert (plain.message, plain.details) == ("No sandbox.", "Start Docker.")
    assert refusal(502, "<html>").message == "The server answered 502."


def test_an_error_cannot_drive_the_terminal() -> None:
    assert refusal(400, {"error": "a\x1b]0;x\x07b\nc"}).message == "a]0;xb c"


def test_a_token_lasts_by_the_length_of_its_life_whatever_the_servers_clock() -> None:
    sign_in = signed_in({"accessToken": access_token(1), "refreshToken": "r", "user": USER})

    assert sign_in.expires_at == pytest.approx(time.time() + 900, abs=5)
    assert sign_in.lasts(300)
    assert not sign_in.lasts(100_000) or sign_in.lifetime_s / 3 < 900


def test_a_token_of_unknown_form_is_renewed_at_once() -> None:
    sign_in = signed_in({"accessToken": "opaque", "refreshToken": "r", "user": USER})

    assert claims("a.%%%.c") == {}
    assert not sign_in.lasts(30)


def test_a_sign_in_without_its_fields_is_the_servers_fault() -> None:
    with pytest.raises(InternalError):
        signed_in({"accessToken": "x"})


def test_a_segment_of_a_path_hides_its_slashes() -> None:
    assert segment("feature/x y?") == "feature%2Fx%20y%3F"
