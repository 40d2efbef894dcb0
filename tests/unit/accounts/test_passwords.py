"""Passwords: what is accepted, what hashing costs, what happens when many come at once."""

import re
import time

import anyio
import pytest

from craftastic.accounts import _passwords
from craftastic.accounts._passwords import (
    BadPassword,
    PasswordHasher,
    TooBusy,
    _common_words,
    check_password,
)

GOOD = "a-horse-a-battery-a-staple"


@pytest.mark.parametrize(
    "password",
    [
        "short7!", "x" * 129, "password", "Password1", "P@ssw0rd", "P4ssw0rd123!", "12345678",
        "123456789", "qwertyuiop", "1q2w3e4r5t", "iloveyou", "Football2024!", "aaaaaaaa",
        "abcabcabc", "abababab", "zxcvbnm1", "letmein123", "welcome!!!", "11111111", "Summer2026",
        "asdfghjkl", "87654321", "administrator", "craftastic1",
    ],
)  # fmt: skip
def test_what_is_tried_first_or_of_wrong_length_is_refused(password: str) -> None:
    with pytest.raises(BadPassword):
        check_password(password)


@pytest.mark.parametrize(
    "password",
    [
        GOOD, "correct horse battery staple", "x7#kQ9!mZp", "ünïcødé-pässwörd", "        a bc d",
        "test-password-1", "8 chars!", "y" * 60 + "z" * 68, "日本語のパスワードです",
    ],
)  # fmt: skip
def test_anything_else_is_accepted_as_it_is(password: str) -> None:
    check_password(password)


def test_ones_own_name_and_address_are_refused() -> None:
    for password in ("somebody@example.com", "somebody123", "Anybody99"):
        with pytest.raises(BadPassword):
            check_password(password, email="somebody@example.com", name="Anybody")


def test_the_bundled_list_is_there() -> None:
    assert len(_common_words()) > 1000


async def test_the_hash_has_the_parameters_and_fits_only_its_password() -> None:
    hasher = PasswordHasher(workers=1)

    stored = await hasher.hash(GOOD)

    assert re.match(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$", stored)
    assert await hasher.verify(GOOD, stored) == (True, None)
    assert await hasher.verify(GOOD + " ", stored) == (False, None)
    assert await hasher.hash(GOOD) != stored


async def test_an_unknown_account_costs_the_same_and_never_fits() -> None:
    hasher = PasswordHasher(workers=1)

    assert await hasher.verify(GOOD, None) == (False, None)
    assert hasher._argon2.check_needs_rehash(_passwords.DUMMY_HASH) is False


async def test_the_dummy_is_really_hashed() -> None:
    """One that the library cannot parse would answer in no time, and tell who has an account."""
    hasher = PasswordHasher(workers=1)
    stored = await hasher.hash(GOOD)
    spent: dict[str | None, float] = {}
    for target in (stored, None):
        rounds: list[float] = []
        for _ in range(7):
            started = time.process_time()
            await hasher.verify("another-password", target)
            rounds.append(time.process_time() - started)
        spent[target] = min(rounds)

    assert spent[None] > 0.5 * spent[stored]


async def test_when_too_many_wait_the_rest_are_told_when_to_come_back() -> None:
    hasher = PasswordHasher(workers=1, max_wait_s=0.3)
    outcomes: list[float | None] = []

    async def hash_one() -> None:
        try:
            await hasher.hash(GOOD)
            outcomes.append(None)
        except TooBusy as error:
            outcomes.append(error.retry_after_s)

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(hash_one)

    assert outcomes.count(None) >= 1
    refused = [after for after in outcomes if after is not None]
    assert len(refused) > 50
    assert all(after >= 1 for after in refused)
    await hasher.hash(GOOD)
