"""What happens around every request, as plain ASGI: no task, no copy of a body, no buffering."""

import errno
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import ClassVar, cast
from uuid import uuid4

import anyio
import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from craftastic.errors import CraftasticError, InvalidInput, TooLarge
from craftastic.http.client import TrustedProxies
from craftastic.http.errors import (
    EMPTY_JSON,
    REQUEST_ID,
    OutOfFiles,
    internal_error,
    respond,
    respond_framework,
)
from craftastic.http.hosts import ANY, AllowedHosts
from craftastic.http.paths import SegmentPaths, shown_path
from craftastic.http.static import HSTS
from craftastic.metrics import Metrics

log = structlog.stdlib.get_logger(__name__)

SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9-]{1,64}")
NUL_ESCAPE = re.compile(rb"%00|\x00")
QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})
BODYLESS = frozenset({"GET", "HEAD", "OPTIONS"})
BODY_TIMEOUT_S = 30.0
"""How long a request's body may be waited for, beside what its size allows."""
MIN_BODY_BYTES_PER_S = 32 << 10
"""A body may take as long as this rate needs for what has come of it, in addition."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "clipboard-read=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def install(
    app: FastAPI,
    *,
    metrics: Metrics,
    max_body_bytes: int,
    cors_origins: Sequence[str] = (),
    host_names: Sequence[str] = (ANY,),
    trusted_proxies: Sequence[str] = (),
    https: bool = False,
) -> None:
    """Put the edge around an app; call it once, after nothing in particular.

    Args:
        app: The app; its error handlers are `http.errors.install`'s.
        metrics: Where requests are counted.
        max_body_bytes: Longer request bodies are refused with 413, slow ones with 408.
        cors_origins: Origins whose pages may read answers; none by default.
        host_names: Names that requests may be for; all by default.
        trusted_proxies: Addresses and networks whose forwarded headers count; none by default.
        https: Whether browsers reach the server by https, and are told to insist on it.
    """
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    app.add_middleware(SegmentPaths)
    if cors_origins:
        app.add_middleware(
            OtherOrigins,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[
                *("Authorization", "Content-Type", "X-Request-Id"),
                *("Idempotency-Key", "Last-Event-ID"),
            ],
            expose_headers=["X-Request-Id", "Retry-After", "Idempotent-Replayed"],
        )
    app.add_middleware(AllowedHosts, names=host_names)
    app.add_middleware(RequestContext, metrics=metrics, https=https)
    if trusted_proxies:
        app.add_middleware(TrustedProxies, proxies=trusted_proxies)


class OriginRefused(InvalidInput):
    """A page of an origin that may not asked what it may do."""

    code = "ORIGIN_REFUSED"


class OtherOrigins(CORSMiddleware):
    """Lets the pages of named origins in; refuses in the form of all errors."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope)
        if (
            scope["type"] != "http"
            or scope["method"] != "OPTIONS"
            or "origin" not in asked
            or "access-control-request-method" not in asked
        ):
            await super().__call__(scope, receive, send)
            return
        answer = self.preflight_response(asked)
        if answer.status_code != HTTPStatus.OK:
            vary = answer.headers["Vary"]
            answer = respond(scope, OriginRefused("Pages of that origin may not ask for this"))
            answer.headers["Vary"] = vary
        await answer(scope, receive, send)


class RequestContext:
    """Gives a request its id, answers its bugs, secures, counts and logs its answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, https: bool = False) -> None:
        self.app = app
        self.metrics = metrics
        headers = SECURITY_HEADERS | ({"Strict-Transport-Security": HSTS} if https else {})
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope[REQUEST_ID] = request_id
        with bound_contextvars(request_id=request_id):
            await _Exchange(self, scope, request_id).run(receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, edge: RequestContext, scope: Scope, request_id: str) -> None:
        self.app = edge.app
        self.metrics = edge.metrics
        self.headers = edge.headers
        self.scope = scope
        self.request_id = request_id
        self.is_http = scope["type"] == "http"
        self.method: str = scope["method"] if self.is_http else "WEBSOCKET"
        self.status = 0
        self.send: Send

    async def run(self, receive: Receive, send: Send) -> None:
        self.send = send
        started = time.monotonic()
        self.metrics.request_started()
        try:
            await self._answer(receive)
        finally:
            seconds = time.monotonic() - started
            route: str | None = getattr(self.scope.get("route"), "path", None)
            self.metrics.request_ended(self.method, route, self.status, seconds)
            (log.debug if route in QUIET_ROUTES else log.info)(
                "request",
                method=self.method,
                path=shown_path(self.scope),
                status=self.status,
                ms=round(seconds * 1000, 1),
            )

    async def _answer(self, receive: Receive) -> None:
        try:
            if self.is_http and NUL_ESCAPE.search(self.scope.get("query_string", b"")):
                raise InvalidInput("The query must not contain NUL characters")  # noqa: TRY301
            if NUL_ESCAPE.search(self.scope.get("raw_path") or b""):
                raise HTTPException(404)  # noqa: TRY301
            await self.app(self.scope, receive, self._send)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the edge: what nobody caught ends here
            await self._fail(error)

    async def _fail(self, error: Exception) -> None:
        known = _only_leaf(error)
        if isinstance(known, OSError) and known.errno in {errno.EMFILE, errno.ENFILE}:
            known = OutOfFiles()
        if isinstance(known, HTTPException) and self.is_http and self.status == 0:
            await respond_framework(self.scope, known)(self.scope, _nothing, self._send)
            return
        if not isinstance(known, CraftasticError):
            path = shown_path(self.scope)
            log.error("unhandled error", method=self.method, path=path, exc_info=error)
        if not self.is_http:
            if self.status in {0, 101}:
                await self._send(
                    {"type": "websocket.close", "code": 1011, "reason": "Internal error"}
                )
            return
        if self.status != 0:
            raise error  # the answer has begun: only a cut connection tells that it is not whole
        response = (
            respond(self.scope, known)
            if isinstance(known, CraftasticError)
            else internal_error(self.scope)
        )
        await response(self.scope, _nothing, self._send)

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._secured(message.get("headers", ()))
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close":
            self.status = message.get("code", 1000)
        await self.send(message)

    def _secured(self, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        headers = [one for one in given if one[0] != b"x-request-id"]
        has = {name for name, _ in headers}
        headers.append((b"x-request-id", self.request_id.encode()))
        headers += [one for one in self.headers if one[0] not in has]
        if b"cache-control" not in has and self.scope["path"].startswith("/api/"):
            headers.append((b"cache-control", b"no-store"))
        return headers


class BodyLimit:
    """Refuses request bodies that are too large, announced or not, or that come too slowly.

    Only the time that a body is waited for counts: `body_timeout_s` seconds for all of it, and as
    many more as `MIN_BODY_BYTES_PER_S` needs for what has come.
    """

    body_timeout_s: ClassVar[float] = BODY_TIMEOUT_S

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in BODYLESS:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > self.max_bytes):  # noqa: PLR2004
            await respond(scope, TooLarge("The request's body is too large"))(scope, receive, send)
            return
        limited = self._limited(receive)
        if _announces_json(headers):
            try:
                first = await limited()
                while not first.get("body") and first.get("more_body", False):
                    first = await limited()
            except HTTPException as error:
                await respond_framework(scope, error)(scope, receive, send)
                return
            scope[EMPTY_JSON] = first["type"] == "http.request" and not first.get("body")
            limited = _again(first, limited)
        await self.app(scope, limited, send)

    def _limited(self, receive: Receive) -> Receive:
        seen = 0
        left_s = self.body_timeout_s
        is_whole = False

        async def limited() -> Message:
            nonlocal seen, left_s, is_whole
            if is_whole:
                return await receive()  # there may be no more but the client's leaving
            began = anyio.current_time()
            # FastAPI lets errors of this class through while it reads the body.
            try:
                with anyio.fail_after(left_s):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None
            came = len(message.get("body", b""))
            seen += came
            if seen > self.max_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            left_s += came / MIN_BODY_BYTES_PER_S - (anyio.current_time() - began)
            is_whole = not message.get("more_body", False)
            return message

        return limited


def _again(first: Message, receive: Receive) -> Receive:
    pending = [first]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again


def _announces_json(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return str(uuid4())


def _only_leaf(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        inside = cast("ExceptionGroup[Exception]", error).exceptions
        if len(inside) != 1:
            return cast("Exception", error)
        error = inside[0]
    return error


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
