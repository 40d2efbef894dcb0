"""Access tokens: signed claims that are checked strictly, and remembered for a while."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast
from uuid import UUID, uuid4

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry

from craftastic.errors import Unauthenticated

ALGORITHM = "HS256"
TYPE = "at+jwt"
ISSUER = "craftastic"
AUDIENCE = "craftastic-api"
LEEWAY_S = 30
MAX_LIFE_S = 3600
MAX_TOKEN_CHARS = 4096
MAX_REMEMBERED = 4096
HEADER_FIELDS = frozenset({"alg", "typ", "kid"})
UNAUTHORIZED = "Unauthorized"


class TokenExpired(Unauthenticated):
    """The access token was good, and its time is over: refresh it."""

    code = "TOKEN_EXPIRED"


class BadToken(Unauthenticated):
    """No access token, or one that this server did not make as it stands."""

    code = "UNAUTHENTICATED"


@dataclass(frozen=True, slots=True)
class Claims:
    user_id: UUID
    sign_in_id: UUID
    token_version: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class AccessTokens:
    """Makes and checks access tokens.

    Args:
        secret: At least 32 bytes.
        ttl_s: Life of a new token, in seconds.
        old_secrets: Keys that no longer sign, while tokens that they signed may live.
    """

    secret: bytes
    ttl_s: int
    old_secrets: tuple[bytes, ...] = ()
    _keys: dict[str, OctKey] = field(init=False, default_factory=dict[str, OctKey])
    _remembered: OrderedDict[str, Claims] = field(
        init=False, default_factory=OrderedDict[str, Claims]
    )

    def __post_init__(self) -> None:
        for secret in (self.secret, *self.old_secrets):
            self._keys[_key_id(secret)] = OctKey.import_key(secret)

    def issue(
        self,
        *,
        user_id: UUID,
        sign_in_id: UUID,
        token_version: int,
        email: str,
        name: str,
        email_verified: bool,
        now: datetime,
    ) -> str:
        """Return a new token; what it says about the user is for the client alone."""
        issued_at = int(now.timestamp())
        kid = _key_id(self.secret)
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "exp": issued_at + self.ttl_s,
            "iat": issued_at,
            "jti": uuid4().hex,
            "sid": str(sign_in_id),
            "ver": token_version,
            "email": email,
            "name": name,
            "emailVerified": email_verified,
        }
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": kid}
        return jwt.encode(header, claims, self._keys[kid], algorithms=[ALGORITHM])

    def check(self, token: str, now: datetime) -> Claims:
        """Return what a token claims, once signature, form and times are right.

        A token that was good is remembered, and only its end is looked at again.

        Raises:
            TokenExpired: It ended more than `LEEWAY_S` ago.
            BadToken: Anything else is wrong with it.
        """
        moment = now.timestamp()
        claims = self._remembered.get(token)
        if claims is None:
            claims = self._verify(token, moment)
            self._remembered[token] = claims
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        if moment > claims.expires_at + LEEWAY_S:
            self._remembered.pop(token, None)
            raise TokenExpired(UNAUTHORIZED)
        return claims

    def _verify(self, token: str, moment: float) -> Claims:
        if len(token) > MAX_TOKEN_CHARS or not token.isascii():
            raise BadToken(UNAUTHORIZED)
        try:
            found = jwt.decode(
                token,
                self._key_for,
                algorithms=[ALGORITHM],
                registry=JWSRegistry(algorithms=[ALGORITHM]),
            )
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadToken(UNAUTHORIZED) from error
        return _checked(found.claims, moment)

    def _key_for(self, token: Any) -> OctKey:
        # Called before the signature is looked at: nothing in the header may choose anything
        # but one of our own keys, and nothing that we do not write may be in it.
        header: dict[str, Any] = token.headers()
        if header.keys() != HEADER_FIELDS or header["typ"] != TYPE or header["alg"] != ALGORITHM:
            raise BadToken(UNAUTHORIZED)
        key = self._keys.get(header["kid"]) if isinstance(header["kid"], str) else None
        if key is None:
            raise BadToken(UNAUTHORIZED)
        return key


def _checked(claims: dict[str, Any], moment: float) -> Claims:
    if claims.get("iss") != ISSUER or claims.get("aud") != AUDIENCE:
        raise BadToken(UNAUTHORIZED)
    ends, begins = _number(claims, "exp"), _number(claims, "iat")
    valid_from = _number(claims, "nbf") if "nbf" in claims else begins
    if max(begins, valid_from) > moment + LEEWAY_S or ends - begins > MAX_LIFE_S:
        raise BadToken(UNAUTHORIZED)
    if not isinstance(claims.get("jti"), str) or not claims["jti"]:
        raise BadToken(UNAUTHORIZED)
    return Claims(
        user_id=_id(claims, "sub"),
        sign_in_id=_id(claims, "sid"),
        token_version=_number(claims, "ver"),
        expires_at=ends,
    )


def _number(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadToken(UNAUTHORIZED)
    return value


def _id(claims: dict[str, Any], name: str) -> UUID:
    try:
        return UUID(cast("str", claims.get(name)))
    except (ValueError, TypeError, AttributeError) as error:
        raise BadToken(UNAUTHORIZED) from error


def _key_id(secret: bytes) -> str:
    return hashlib.sha256(b"craftastic access token key " + secret).hexdigest()[:16]
