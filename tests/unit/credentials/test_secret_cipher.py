"""What encryption promises: only the same place, and an unchanged text, decrypt."""

import base64
import os
import traceback
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given
from hypothesis import strategies as st

from craftastic.credentials._cipher import (
    MAX_PLAIN_BYTES,
    Place,
    SecretRefused,
    Unreadable,
    seal,
    unseal,
)
from craftastic.keys import Key, derive_key

KEY = derive_key("k" * 32)
OTHER = derive_key("o" * 32)
PLACE = Place(UUID(int=1), UUID(int=2), "github.access")
CANARY = "canary-5e1f"


def find(key_id: str) -> Key | None:
    return {KEY.id: KEY, OTHER.id: OTHER}.get(key_id)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=2000))
@example("")
@example("\x00\n'\"\\ \u202e 🔑")
def test_every_text_comes_back(plain: str) -> None:
    assert unseal(find, PLACE, seal(KEY, PLACE, plain)) == plain


def test_the_stored_form_names_its_version_and_key_and_shows_nothing() -> None:
    stored = seal(KEY, PLACE, CANARY)

    version, key_id, nonce, sealed = stored.split(".")
    assert (version, key_id) == ("v1", KEY.id)
    assert len(base64.urlsafe_b64decode(nonce)) == 12
    assert len(base64.urlsafe_b64decode(sealed + "==")) == len(CANARY) + 16
    assert CANARY not in stored


def test_what_was_stored_by_the_first_version_is_still_read() -> None:
    stored = "v1.c1e06bd3b875.BcFg5pKkFu7ivD91.vPKK6L7N_cYKqr72zfJhQdICzbn4k92FIC9P"

    assert unseal(find, PLACE, stored) == CANARY


def test_one_text_is_never_stored_twice_alike() -> None:
    assert len({seal(KEY, PLACE, CANARY) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(PLACE, row_id=uuid4()),
        replace(PLACE, owner_id=uuid4()),
        replace(PLACE, purpose="github.refresh"),
        replace(PLACE, table="other"),
        replace(PLACE, column="other"),
        replace(PLACE, row_id=PLACE.owner_id, owner_id=PLACE.row_id),
    ],
    ids=["row", "owner", "purpose", "table", "column", "row and owner swapped"],
)
def test_a_text_that_was_moved_does_not_decrypt(elsewhere: Place) -> None:
    with pytest.raises(Unreadable, match="another place"):
        unseal(find, elsewhere, seal(KEY, PLACE, CANARY))


def test_places_whose_parts_only_join_alike_are_different() -> None:
    one = Place(UUID(int=1), UUID(int=2), "c", table="a", column="b")
    two = Place(UUID(int=1), UUID(int=2), "c", table="ab", column="")

    assert one.bound(KEY.id) != two.bound(KEY.id)


def test_every_changed_character_is_noticed() -> None:
    stored = seal(KEY, PLACE, CANARY)

    for place, char in enumerate(stored):
        for other in "A_.z0":
            if other == char:
                continue
            with pytest.raises(Unreadable):
                unseal(find, PLACE, stored[:place] + other + stored[place + 1 :])


def test_every_cut_is_noticed() -> None:
    stored = seal(KEY, PLACE, CANARY)

    for length in range(len(stored)):
        with pytest.raises(Unreadable):
            unseal(find, PLACE, stored[:length])


def test_the_key_id_cannot_be_exchanged_for_anothers() -> None:
    stored = seal(KEY, PLACE, CANARY).replace(KEY.id, OTHER.id)

    with pytest.raises(Unreadable):
        unseal(find, PLACE, stored)


def test_an_unknown_key_is_named() -> None:
    lost = derive_key("lost" * 8)

    with pytest.raises(Unreadable, match=lost.id):
        unseal(find, PLACE, seal(lost, PLACE, CANARY))


@given(st.text(max_size=200) | st.text("v1.AZ09-_=", max_size=60).map(lambda t: f"v1.{KEY.id}.{t}"))
@example(f"v1.{KEY.id}.é.é")
def test_no_stored_text_makes_another_error(stored: str) -> None:
    with pytest.raises(Unreadable):
        unseal(find, PLACE, stored)


def test_what_is_no_text_after_all_is_unreadable_and_not_shown() -> None:
    nonce = os.urandom(12)
    sealed = AESGCM(KEY.aes).encrypt(nonce, CANARY.encode() + b"\xff", PLACE.bound(KEY.id))

    with pytest.raises(Unreadable) as caught:
        unseal(find, PLACE, f"v1.{KEY.id}.{b64(nonce)}.{b64(sealed)}")

    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None


def test_a_secret_has_a_longest_length_in_bytes() -> None:
    longest = "é" * (MAX_PLAIN_BYTES // 2)

    assert unseal(find, PLACE, seal(KEY, PLACE, longest)) == longest
    with pytest.raises(SecretRefused, match="64 KiB"):
        seal(KEY, PLACE, longest + "a")


def test_half_a_surrogate_pair_is_refused_without_showing_the_text() -> None:
    with pytest.raises(SecretRefused) as caught:
        seal(KEY, PLACE, CANARY + "\ud800")

    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__cause__ is None
