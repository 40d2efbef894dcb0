"""How one secret is encrypted: AES-256-GCM, bound to the place that it is stored in.

The stored form is `v1.<key id>.<nonce>.<ciphertext and tag>`, the last two in base64url without
padding. What is authenticated with it names table, column, row, owner and purpose, so a value that
is copied to another row, owner, column or use does not decrypt there.

Source: NIST SP 800-38D; a random 96-bit nonce is safe for 2^32 values under one key.
"""

import base64
import binascii
import os
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from craftastic.errors import InvalidInput
from craftastic.keys import Key

VERSION = "v1"
NONCE_BYTES = 12
TAG_BYTES = 16
MAX_PLAIN_BYTES = 64 << 10
PARTS = 4


class SecretRefused(InvalidInput):
    """A secret is too long to be stored, or is no text."""

    code = "SECRET_REFUSED"


class Unreadable(Exception):
    """The stored text cannot be decrypted in this place; the message says why, without it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a secret is stored and what for."""

    row_id: UUID
    owner_id: UUID
    purpose: str
    table: str = "secrets"
    column: str = "value"

    def bound(self, key_id: str) -> bytes:
        """Return what is authenticated: each part after its length, so no two places are alike."""
        parts = (
            VERSION,
            key_id,
            self.table,
            self.column,
            self.row_id.hex,
            self.owner_id.hex,
            self.purpose,
        )
        encoded = [part.encode() for part in parts]
        return b"".join(len(part).to_bytes(4) + part for part in encoded)


def seal(key: Key, place: Place, plain: str) -> str:
    """Encrypt a text for one place.

    Raises:
        SecretRefused: It is longer than 64 KiB, or holds half a surrogate pair.
    """
    try:
        message = plain.encode()
    except UnicodeEncodeError as error:
        # Not chained: the error holds the text.
        raise SecretRefused(f"A secret must be text; character {error.start} is none.") from None
    if len(message) > MAX_PLAIN_BYTES:
        raise SecretRefused(f"A secret may have at most {MAX_PLAIN_BYTES >> 10} KiB.")
    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(key.aes).encrypt(nonce, message, place.bound(key.id))
    return ".".join((VERSION, key.id, _text(nonce), _text(sealed)))


def unseal(find_key: Callable[[str], Key | None], place: Place, stored: str) -> str:
    """Decrypt what was sealed for exactly this place.

    Args:
        find_key: Returns the key of an id, None for an unknown one.
        place: Where it was read from, and what the caller takes it for.
        stored: The text.

    Raises:
        Unreadable: Its form is broken, its key is unknown, or it was changed or moved.
    """
    parts = stored.split(".", PARTS)
    if len(parts) != PARTS or parts[0] != VERSION:
        raise Unreadable("it has not the form of an encrypted secret")
    key = find_key(parts[1])
    if key is None:
        raise Unreadable(f"its key {parts[1][:16]!r} is not among the keys")
    try:
        nonce, sealed = _bytes(parts[2]), _bytes(parts[3])
        if len(nonce) != NONCE_BYTES or len(sealed) < TAG_BYTES:
            raise Unreadable("it is cut short")
        return AESGCM(key.aes).decrypt(nonce, sealed, place.bound(key.id)).decode()
    except ValueError:
        # Not chained: an error of decoding holds what it could not decode.
        raise Unreadable("it is damaged") from None
    except InvalidTag as error:
        raise Unreadable("it was changed, or belongs to another place") from error


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _text(raw) != text:  # bits that do not count were set: nothing of ours writes that
        raise binascii.Error("not the one form of these bytes")
    return raw
