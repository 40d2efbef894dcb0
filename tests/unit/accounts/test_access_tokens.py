"""Access tokens: everything that is not exactly ours is refused (SEC-35)."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from craftastic.accounts._tokens import AccessTokens, BadToken, TokenExpired
from craftastic.errors import Unauthenticated
from tests.fakes.clock import FakeClock

SECRET = b"s" * 32
USER, SIGN_IN = uuid4(), uuid4()
CLOCK = FakeClock()
NOW = int(CLOCK.now().timestamp())
PUBLIC_KEY = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)


def tokens(secret: bytes = SECRET, *old: bytes) -> AccessTokens:
    return AccessTokens(secret, 900, old)


def issue(maker: AccessTokens) -> str:
    return maker.issue(
        user_id=USER,
        sign_in_id=SIGN_IN,
        token_version=1,
        email="a@example.com",
        name="A",
        email_verified=False,
        now=CLOCK.now(),
    )


def encode(part: dict[str, Any] | bytes) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(part: str) -> dict[str, Any]:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


GOOD = issue(tokens())
HEADER, CLAIMS = decode(GOOD.split(".")[0]), decode(GOOD.split(".")[1])


def signed(
    header: dict[str, Any],
    claims: dict[str, Any] | bytes,
    key: bytes = SECRET,
    digest: str = "sha256",
) -> str:
    text = f"{encode(header)}.{encode(claims)}"
    return f"{text}.{encode(hmac.new(key, text.encode(), digest).digest())}"


def changed(**claims: Any) -> str:
    return signed(HEADER, {k: v for k, v in (CLAIMS | claims).items() if v is not ...})


def headed(**header: Any) -> str:
    return signed({k: v for k, v in (HEADER | header).items() if v is not ...}, CLAIMS)


def swapped_signature() -> str:
    head, body, _ = GOOD.split(".")
    other = signed(HEADER, CLAIMS, b"o" * 32)
    return f"{head}.{body}.{other.split('.')[2]}"


TABLE: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "not a token": lambda: "not.a.token",
    "two parts": lambda: ".".join(GOOD.split(".")[:2]),
    "five parts": lambda: GOOD + ".a.b",
    "cut signature": lambda: GOOD[:-4],
    "no signature": lambda: GOOD.rsplit(".", 1)[0] + ".",
    "another key's signature": swapped_signature,
    "alg none": lambda: f"{encode(HEADER | {'alg': 'none'})}.{encode(CLAIMS)}.",
    "alg None with our kid and signature": lambda: headed(alg="None"),
    "alg HS512": lambda: signed(HEADER | {"alg": "HS512"}, CLAIMS, digest="sha512"),
    "alg RS256 signed with its public key": lambda: signed(
        HEADER | {"alg": "RS256"}, CLAIMS, PUBLIC_KEY
    ),
    "alg missing": lambda: headed(alg=...),
    "typ JWT": lambda: headed(typ="JWT"),
    "typ missing": lambda: headed(typ=...),
    "kid missing": lambda: headed(kid=...),
    "kid a path": lambda: signed(HEADER | {"kid": "../../../../dev/null"}, CLAIMS, b""),
    "kid unknown": lambda: headed(kid="0" * 16),
    "kid a list": lambda: headed(kid=[HEADER["kid"]]),
    "jku": lambda: headed(jku="https://attacker.example/keys"),
    "jwk": lambda: headed(jwk={"kty": "oct", "k": encode(SECRET)}),
    "x5u": lambda: headed(x5u="https://attacker.example/cert"),
    "crit": lambda: headed(crit=["exp"]),
    "b64 false": lambda: headed(b64=False, crit=["b64"]),
    "iss of another": lambda: changed(iss="other"),
    "iss missing": lambda: changed(iss=...),
    "aud of another": lambda: changed(aud="other"),
    "aud a list": lambda: changed(aud=["craftastic-api", "other"]),
    "aud missing": lambda: changed(aud=...),
    "expired": lambda: changed(exp=NOW - 31, iat=NOW - 900),
    "exp missing": lambda: changed(exp=...),
    "exp a text": lambda: changed(exp=str(NOW + 900)),
    "exp true": lambda: changed(exp=True),
    "exp infinite": lambda: changed(exp=float("inf")),
    "exp far away": lambda: changed(exp=NOW + 10 * 365 * 86400),
    "iat in the future": lambda: changed(iat=NOW + 31),
    "iat missing": lambda: changed(iat=...),
    "nbf in the future": lambda: changed(nbf=NOW + 31),
    "sub missing": lambda: changed(sub=...),
    "sub no id": lambda: changed(sub="admin"),
    "sid missing": lambda: changed(sid=...),
    "ver missing": lambda: changed(ver=...),
    "ver a text": lambda: changed(ver="1"),
    "jti missing": lambda: changed(jti=...),
    "claims a list": lambda: signed(HEADER, b"[]"),
    "claims no JSON": lambda: signed(HEADER, b"{"),
    "claims deep": lambda: signed(HEADER, b"[" * 1500),
    "very long": lambda: GOOD + "A" * 5000,
    "not ASCII": lambda: GOOD[:-1] + "ä",
}


@pytest.mark.parametrize("token", TABLE.values(), ids=TABLE.keys())
def test_is_refused(token: Callable[[], str]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        tokens().check(token(), CLOCK.now())

    assert caught.value.message == "Unauthorized"


def test_the_tables_own_signature_is_ours() -> None:
    assert tokens().check(signed(HEADER, CLAIMS), CLOCK.now()).user_id == USER
    assert tokens().check(changed(nbf=NOW), CLOCK.now()).sign_in_id == SIGN_IN


def test_a_token_has_the_claims_of_the_contract() -> None:
    assert {"alg": "HS256", "typ": "at+jwt", "kid": HEADER["kid"]} == HEADER
    assert CLAIMS["exp"] - CLAIMS["iat"] == 900
    assert CLAIMS["sub"] == str(USER)
    assert (CLAIMS["email"], CLAIMS["name"], CLAIMS["emailVerified"]) == (
        "a@example.com",
        "A",
        False,
    )


def test_a_remembered_token_ends_with_its_time_too() -> None:
    clock, checked = FakeClock(), tokens()
    checked.check(GOOD, clock.now())

    clock.advance(900 + 29)
    checked.check(GOOD, clock.now())
    clock.advance(2)

    for _ in range(2):
        with pytest.raises(TokenExpired):
            checked.check(GOOD, clock.now())


def test_a_refused_token_is_not_remembered() -> None:
    checked = tokens()
    for _ in range(2):
        with pytest.raises(BadToken):
            checked.check(swapped_signature(), CLOCK.now())


def test_the_key_before_is_still_verified_and_no_longer_signs() -> None:
    new = tokens(b"n" * 32, SECRET)

    assert new.check(GOOD, CLOCK.now()).user_id == USER
    assert decode(issue(new).split(".")[0])["kid"] != HEADER["kid"]


def test_the_key_id_tells_nothing_of_the_key() -> None:
    assert HEADER["kid"] != hashlib.sha256(SECRET).hexdigest()[:16]
