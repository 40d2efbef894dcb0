"""What the masker promises: no secret in what it returns, and nothing else changed."""

import base64
import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craftastic.variables._masker import MIN_CHARS, PIECE_BYTES, REPLACEMENT, Masker

PLAIN = st.characters(exclude_characters="•", exclude_categories=["Cs"])
FEW = st.sampled_from("ab-é\n")
SECRETS = st.lists(
    st.one_of(
        st.text(PLAIN, min_size=1, max_size=40), st.text(FEW, min_size=MIN_CHARS, max_size=20)
    ),
    min_size=1,
    max_size=6,
)


def long_enough(secrets: list[str]) -> list[str]:
    return [one for one in secrets if len(one.strip()) >= MIN_CHARS]


@given(SECRETS, st.lists(st.one_of(st.text(PLAIN), st.text(FEW), st.integers(0, 5)), max_size=12))
def test_no_secret_is_in_masked_text(secrets: list[str], parts: list[str | int]) -> None:
    text = "".join(
        secrets[part % len(secrets)] if isinstance(part, int) else part for part in parts
    )

    masked = Masker(secrets).mask_text(text)

    assert [one for one in long_enough(secrets) if one in masked] == []


@given(SECRETS, st.binary(max_size=20), st.binary(max_size=20), st.integers(0, 5))
def test_no_encoded_secret_is_in_masked_bytes(
    secrets: list[str], before: bytes, after: bytes, which: int
) -> None:
    secret = secrets[which % len(secrets)]
    if not long_enough([secret]):
        return
    for encoded in (
        base64.b64encode(before + secret.encode() + after),
        base64.urlsafe_b64encode(before + secret.encode() + after),
    ):
        masked = Masker(secrets).mask_bytes(encoded)
        assert REPLACEMENT.encode() in masked
    for form in (
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    ):
        masked = Masker(secrets).mask_bytes(b"a=" + form.encode() + b"&")
        assert form.encode() not in masked


@given(SECRETS, st.text(PLAIN))
def test_text_without_a_secret_is_returned_as_it_is(secrets: list[str], text: str) -> None:
    masker = Masker(secrets)
    digits = "".join(f"{ord(char) % 10}" for char in text)

    # Six digits in a row are a secret's only where a secret has them.
    if not any(char.isdigit() for one in secrets for char in one):
        assert masker.mask_text(digits) is digits


@given(SECRETS, st.binary())
def test_bytes_that_are_no_text_go_through(secrets: list[str], data: bytes) -> None:
    masked = Masker(secrets).mask_bytes(data)

    assert masked == data or REPLACEMENT.encode() in masked


@given(SECRETS, st.text(PLAIN))
def test_masking_twice_is_masking_once(secrets: list[str], text: str) -> None:
    masker = Masker(secrets)
    once = masker.mask_text(text)

    assert masker.mask_text(once) == once


@pytest.mark.parametrize(
    ("secrets", "text", "masked"),
    [
        (["hunter2-x"], "a hunter2-x b", "a •••••• b"),
        (["hunter2-x", "hunter2-xyz"], "hunter2-xyz!", "••••••!"),
        (["hunter2-x", "hunter2-xyz"], "hunter2-xy!", "••••••y!"),
        (["abcdefgh", "efghijkl"], "-abcdefghijkl-", "-••••••-"),
        (["abcdefgh"], "abcdefghabcdefgh", "••••••••••••"),
        (["  padded  "], "a padded b", "a •••••• b"),
        (["line one\nline two\n{\n"], "+line one\r\n+line two\r\n+{", "+••••••\r\n+••••••\r\n+{"),
        (["a/b/c d&e"], "x=a%2Fb%2Fc%20d%26e", "x=••••••"),
        (["a/b/c d&e"], "x=a%2fb%2fc+d%26e", "x=••••••"),
        (["it's (1)*"], "x=it's%20(1)*", "x=••••••"),
        (['say "hi"/'], r'{"a": "say \"hi\"\/"}', '{"a": "••••••"}'),
        (["schlüssel"], r"schl\u00fcssel", "••••••"),
        (["abcdefgh"], "abcdefg", "abcdefg"),
        ([], "anything", "anything"),
        (["", "   ", "\n\n\n\n\n\n\n"], "a   \n\n\n\n\n\n\n\n\nb", "a   \n\n\n\n\n\n\n\n\nb"),
    ],
)
def test_forms_of_secrets_are_masked(secrets: list[str], text: str, masked: str) -> None:
    assert Masker(secrets).mask_text(text) == masked
    assert Masker(secrets).mask_bytes(text.encode()) == masked.encode()


def test_values_that_stand_all_over_ordinary_text_are_not_masked() -> None:
    switches = ["true", "3000", "debug", "info", "", "a"]

    assert Masker(switches).mask_text("true 3000 debug info a") == "true 3000 debug info a"


def test_the_frame_of_a_key_is_no_secret_and_its_lines_are() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END PRIVATE KEY-----\n"
    masker = Masker([key])

    assert masker.mask_text("-----BEGIN PRIVATE KEY-----\nother") == (
        "-----BEGIN PRIVATE KEY-----\nother"
    )
    assert masker.mask_text("> MIIEvQIBADANBg\n> kqhkiG9w0BAQEF") == "> ••••••\n> ••••••"
    assert masker.mask_text(f"a{key}b") == "a••••••b"


def test_half_surrogates_and_broken_bytes_are_kept() -> None:
    masker = Masker(["hunter2-x"])

    assert masker.mask_text("\udcff hunter2-x \ud800") == "\udcff •••••• \ud800"
    assert masker.mask_bytes(b"\xff hunter2-x \xc3") == b"\xff " + REPLACEMENT.encode() + b" \xc3"


def test_a_masker_does_not_show_what_it_masks() -> None:
    assert "hunter2" not in repr(Masker(["hunter2-x"])) + str(Masker(["hunter2-x"]))


@pytest.mark.parametrize("length", [6, 31, 32, 33, 500])
def test_a_secret_is_found_wherever_it_begins_in_long_text(length: int) -> None:
    secret = ("hunter2-" * 100)[:length]
    masker = Masker([secret, secret + "y", secret[:6] + "z"])

    for before in range(PIECE_BYTES - length - 2, PIECE_BYTES + 3):
        data = b"." * before + secret.encode() + b"." * 50
        assert masker.mask_bytes(data) == b"." * before + REPLACEMENT.encode() + b"." * 50


# ---- time -----------------------------------------------------------------------------------

LONGEST_S = 8.0
"""What the worst case may take on a busy machine; it takes about a second on an idle one."""


def elapsed(masker: Masker, data: bytes) -> tuple[float, bytes]:
    start = time.process_time()
    masked = masker.mask_bytes(data)
    return time.process_time() - start, masked


@pytest.mark.parametrize(
    ("secrets", "data"),
    [
        (["a" * 32_000 + "b", "a" * 31_000 + "c"], b"a" * (5 << 20)),
        (["a" * size for size in range(6, 106)], b"a" * (5 << 20)),
        ([f"{'prefix-' * 3}{n:05}" for n in range(200)], (b"prefix-" * 3) * 250_000),
        (["\n".join("x" * 24 + f"{n:04}" for n in range(1100))], (b"x" * 24) * 200_000),
        ([f"{n:06}" for n in range(200)], b"000000" * 800_000),
    ],
)
def test_text_that_is_made_to_be_slow_is_masked_as_a_whole(secrets: list[str], data: bytes) -> None:
    took, masked = elapsed(Masker(secrets), data)

    assert took < LONGEST_S
    assert [one for one in secrets if one.encode() in masked] == []


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 60))
def test_ordinary_text_is_not_masked_as_a_whole(count: int) -> None:
    secrets = [f"postgresql://user:pass{n:04}@db.example.com/app" for n in range(count)]
    line = "DATABASE_URL=postgresql://user:wrong@db.example.com/app # comment\n"
    text = line * 5000 + secrets[-1] + "\n" + line * 5000

    masked = Masker(secrets).mask_text(text)

    assert masked == line * 5000 + "••••••\n" + line * 5000
