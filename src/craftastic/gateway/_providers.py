"""The model APIs that a sandbox may call through the gateway: what passes and how each one speaks.

Pure: nothing is asked here. Sources: the API references of Anthropic, OpenAI and Google, and what
their command-line agents were seen to send.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

MAX_TOKEN_CHARACTERS = 512
MAX_KEY_CHARACTERS = 4096

_MODEL = rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_GEMINI_MODEL = rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_VALUE = re.compile(rb"[A-Za-z0-9._-]{1,200}")
_TOKEN = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_TOKEN_CHARACTERS)
_VERSIONED = re.compile(r"/v[0-9]+[a-z0-9]{0,10}(?=/|$)")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY_CHARACTERS}}}")

Headers = Mapping[bytes, bytes]


class BadKey(ValueError):
    """A key that no header can carry, or a scheme that nobody knows."""


@dataclass(frozen=True, slots=True)
class Route:
    """One call that an API offers.

    Attributes:
        path: Matches the whole path below the API's address, with its leading slash.
        query: Names of the parameters that pass.
        generates: It costs tokens.
    """

    method: str
    path: re.Pattern[bytes]
    query: frozenset[bytes] = frozenset()
    generates: bool = False


@dataclass(frozen=True, slots=True)
class Provider:
    """One kind of model API.

    Attributes:
        base_url: The vendor's own address; None where there are many vendors.
        version: First part of every path.
        error: Makes the body of an error: status, text.
        version_is_in_base: Addresses have a version in them, which may be another one.
        token_in_query: Its clients may send their key as the parameter `key`.
    """

    name: str
    base_url: str | None
    version: str
    routes: tuple[Route, ...]
    error: Callable[[int, str], Any]
    version_is_in_base: bool = False
    token_in_query: bool = False

    @property
    def models(self) -> str:
        """The path of the list of models."""
        return f"/{self.version}/models"

    def refuses_key(self, status: int, body: bytes) -> bool:
        """Say whether an error means that the key is wrong; Google says so with 400."""
        told = status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        return told or (status == HTTPStatus.BAD_REQUEST and b'"API_KEY_INVALID"' in body)

    def url(self, base_url: str, path: str) -> str:
        """Return the URL of a path of this API below an address, which is not checked here.

        By custom the address of an OpenAI-like API has a version in it (`https://host/api/v1`,
        and vendors number differently), that of the others has none. An address of either form
        is taken.
        """
        base = base_url.rstrip("/")
        below = "/" + base.partition("://")[2].partition("/")[2]
        has_version = below.endswith(f"/{self.version}") or (
            self.version_is_in_base and _VERSIONED.search(below) is not None
        )
        return base + (path.removeprefix(f"/{self.version}") if has_version else path)


def _anthropic_error(status: int, text: str) -> Any:
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
    }
    return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": text}}


def _openai_error(status: int, text: str) -> Any:
    kinds = {
        401: ("invalid_request_error", "invalid_api_key"),
        403: ("invalid_request_error", "permission_denied"),
        404: ("invalid_request_error", "not_found"),
        413: ("invalid_request_error", "request_too_large"),
        429: ("requests", "rate_limit_exceeded"),
    }
    unknown = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "api_error"
    kind, code = kinds.get(status, (unknown, None))
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}


def _gemini_error(status: int, text: str) -> Any:
    names = {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
    return {"error": {"code": status, "message": text, "status": names.get(status, "INTERNAL")}}


def _post(pattern: bytes, *query: bytes, generates: bool = True) -> Route:
    return Route("POST", re.compile(pattern), frozenset(query), generates)


def _get(pattern: bytes, *query: bytes) -> Route:
    return Route("GET", re.compile(pattern), frozenset(query))


_ANTHROPIC = (
    _post(rb"/v1/messages", b"beta"),
    _post(rb"/v1/messages/count_tokens", b"beta", generates=False),
    _get(rb"/v1/models", b"beta", b"limit", b"after_id", b"before_id"),
    _get(rb"/v1/models/" + _MODEL, b"beta"),
)
_OPENAI = (
    _post(rb"/v1/responses"),
    _post(rb"/v1/responses/compact"),
    _post(rb"/v1/chat/completions"),
    _post(rb"/v1/embeddings"),
    _get(rb"/v1/models", b"client_version", b"limit", b"after"),
    _get(rb"/v1/models/" + _MODEL),
)
_GEMINI = (
    _post(rb"/v1beta/models/" + _GEMINI_MODEL + rb":(generateContent|embedContent)"),
    _post(rb"/v1beta/models/" + _GEMINI_MODEL + rb":streamGenerateContent", b"alt"),
    _post(rb"/v1beta/models/" + _GEMINI_MODEL + rb":countTokens", generates=False),
    _get(rb"/v1beta/models", b"pageSize", b"pageToken"),
    _get(rb"/v1beta/models/" + _GEMINI_MODEL),
)

PROVIDERS: Mapping[str, Provider] = {
    one.name: one
    for one in (
        Provider("anthropic", "https://api.anthropic.com", "v1", _ANTHROPIC, _anthropic_error),
        Provider(
            "openai",
            "https://api.openai.com/v1",
            "v1",
            _OPENAI,
            _openai_error,
            version_is_in_base=True,
        ),
        Provider("openai-compatible", None, "v1", _OPENAI, _openai_error, version_is_in_base=True),
        Provider(
            "gemini",
            "https://generativelanguage.googleapis.com",
            "v1beta",
            _GEMINI,
            _gemini_error,
            token_in_query=True,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Call:
    """A request that an API offers, and that may pass.

    Attributes:
        path: As it came; it is plain ASCII without anything encoded.
        query: What of it passes, without a token.
    """

    provider: Provider
    method: str
    path: str
    query: str
    generates: bool

    def url(self, base_url: str) -> str:
        """Return the URL below an address, without the query."""
        return self.provider.url(base_url, self.path)


def recognise(provider: str | None, method: str, path: bytes, query: bytes) -> Call | None:
    """Recognise a call byte for byte: no decoding, so no encoding tricks. None when it is none.

    Args:
        provider: The one that the session may call.
        method: The request's.
        path: What follows `/agent/<id>/model`.
        query: As it came.
    """
    api = PROVIDERS.get(provider or "")
    if api is None:
        return None
    route = next((one for one in api.routes if one.path.fullmatch(path)), None)
    if route is None or route.method != method:
        return None
    passed = _query(api, route, query)
    return None if passed is None else Call(api, method, path.decode(), passed, route.generates)


def _query(api: Provider, route: Route, query: bytes) -> str | None:
    found: dict[bytes, bytes] = {}
    for pair in query.split(b"&") if query else ():
        name, _, value = pair.partition(b"=")
        if name in found:
            return None
        if name == b"key" and api.token_in_query:
            found[name] = b""
        elif name in route.query and _VALUE.fullmatch(value):
            found[name] = value
        else:
            return None
    found.pop(b"key", None)
    return "&".join(f"{name.decode()}={value.decode()}" for name, value in found.items())


def speaks(path: bytes) -> Provider:
    """Return whose errors a caller expects, by the path that it asked; before it is known."""
    if path.startswith(b"/v1beta/"):
        return PROVIDERS["gemini"]
    return PROVIDERS["anthropic" if path.startswith(b"/v1/messages") else "openai"]


def token_of(headers: Headers, query: bytes) -> str | None:
    """Take the session's token from where any of the APIs has its key.

    Args:
        headers: Lower-case names.
        query: Of the URL, as it came.
    """
    scheme, _, value = headers.get(b"authorization", b"").partition(b" ")
    keys = [pair[4:] for pair in query.split(b"&") if pair.startswith(b"key=")]
    places = (
        value.strip() if scheme.lower() == b"bearer" else b"",
        headers.get(b"x-api-key", b"").strip(),
        headers.get(b"x-goog-api-key", b"").strip(),
        keys[0] if keys else b"",
    )
    token = next((one for one in places if one), b"")
    return token.decode("ascii") if _TOKEN.fullmatch(token) else None


def key_header(scheme: str, key: str) -> tuple[bytes, bytes]:
    """Return the header that carries the real key.

    Raises:
        BadKey: No header can carry it.
    """
    if not _KEY.fullmatch(key):
        raise BadKey("the stored key is empty, too long, or has spaces or other such characters")
    match scheme:
        case "x-api-key":
            return b"x-api-key", key.encode()
        case "x-goog-api-key":
            return b"x-goog-api-key", key.encode()
        case "bearer":
            return b"Authorization", b"Bearer " + key.encode()
        case _:
            raise BadKey(f"its agent type sends keys in a way that is not known: {scheme[:40]}")


def error_body(provider: Provider, status: int, text: str) -> bytes:
    """Return an error as the provider itself would word its form."""
    return json.dumps(provider.error(status, text), ensure_ascii=False).encode(errors="replace")
