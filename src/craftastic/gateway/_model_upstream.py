"""Where model APIs are, and how they are asked: by the rules of upstreams, at pinned addresses."""

import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import anyio
import httpcore

from craftastic.gateway._answers import header_of
from craftastic.gateway._model_headers import Header
from craftastic.gateway._providers import Call
from craftastic.gateway._refusals import explained
from craftastic.gateway._transfer import Cut, Refusal
from craftastic.gateway._upstream import (
    CONNECT_TIMEOUT_S,
    PinnedBackend,
    Resolver,
    SystemResolver,
    Upstream,
    UpstreamPolicy,
    UpstreamRefused,
    UpstreamRules,
)
from craftastic.gateway.git_proxy import KEEP_ALIVE_S
from craftastic.settings import Settings

WRITE_S = 60.0
PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Place:
    """A URL that may be asked, and the connections that may ask it."""

    upstream: Upstream
    pool: httpcore.AsyncConnectionPool


class ModelUpstreams:
    """The addresses of model APIs, and connections to them.

    An address that a user stored follows the rules of git's upstreams. One that the operator set
    may be anywhere, also on the operator's own network, and plain http.

    Args:
        settings: The rules, and the operator's own addresses.
        connections: Most of each kind at once.
        resolver: Name resolution; the machine's own when None.
        tls: Trust; the machine's and certifi's authorities when None.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        connections: int,
        resolver: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._own: Mapping[str, str] = settings.model_upstreams_by_provider
        tls = tls or httpcore.default_ssl_context()
        resolver = resolver or SystemResolver()

        def kind(rules: UpstreamRules) -> tuple[UpstreamRules, httpcore.AsyncConnectionPool]:
            return rules, httpcore.AsyncConnectionPool(
                ssl_context=tls,
                max_connections=connections,
                keepalive_expiry=KEEP_ALIVE_S,
                http2=False,
                retries=0,
                network_backend=PinnedBackend(UpstreamPolicy(rules, resolver)),
            )

        self._of_users = kind(UpstreamRules.of(settings))
        self._of_operator = kind(UpstreamRules(allow_http=True, allow_private=True))

    def find(self, call: Call, base_url: str | None) -> Place:
        """Return where a call goes; nothing is looked up yet.

        Args:
            call: What is asked.
            base_url: The credential's own; the operator's or the vendor's when None.

        Raises:
            Refusal: There is no address, or not one that may be asked.
        """
        own = self._own.get(call.provider.name) if base_url is None else None
        base = base_url or own or call.provider.base_url
        if base is None:
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "It is not known where this agent's model API is: give the agent a base URL.",
            )
        rules, pool = self._of_users if own is None else self._of_operator
        try:
            return Place(rules.parse(call.url(base)), pool)
        except UpstreamRefused as error:
            raise Refusal(HTTPStatus.FORBIDDEN, _in_other_words(error)) from error

    @asynccontextmanager
    async def ask(
        self,
        place: Place,
        call: Call,
        headers: Sequence[Header],
        content: AsyncIterator[bytes] | None,
        first_byte_s: float,
    ) -> AsyncGenerator[httpcore.Response]:
        """Send one request; redirects are not followed, nothing is tried again.

        Args:
            place: From `find`.
            call: What is asked.
            headers: All but Host and those that every request has.
            content: The body; None without one.
            first_byte_s: Longest wait for the answer's head, and for any part of its body.

        Raises:
            Refusal: The connection failed, in plain words.
        """
        upstream = place.upstream
        with explained(upstream.host):
            async with place.pool.stream(
                call.method.encode(),
                httpcore.URL(
                    scheme=upstream.scheme,
                    host=upstream.host,
                    port=upstream.port,
                    target=f"{upstream.path}?{call.query}" if call.query else upstream.path,
                ),
                headers=[
                    (b"Host", upstream.authority.encode()),
                    (b"Accept-Encoding", b"identity"),
                    *headers,
                ],
                content=content,
                extensions={
                    "timeout": {
                        "connect": CONNECT_TIMEOUT_S,
                        "read": first_byte_s,
                        "write": WRITE_S,
                        "pool": CONNECT_TIMEOUT_S,
                    }
                },
            ) as answer:
                yield answer

    async def aclose(self) -> None:
        """Close all connections."""
        for _, pool in (self._of_users, self._of_operator):
            await pool.aclose()


def _in_other_words(error: UpstreamRefused) -> str:
    text = error.message.replace("The repository's URL", "The address of the model API")
    return f"{text} {error.details}" if error.details else text


def check_encoding(answer: httpcore.Response) -> None:
    """Refuse an answer that `pieces` could not read.

    Raises:
        Refusal: It is compressed in a way that is not known.
    """
    _unpacking(answer)


async def pieces(answer: httpcore.Response, idle_s: float) -> AsyncGenerator[bytes]:
    """Yield an answer's body as it comes, decompressed where the upstream compressed it unasked.

    Args:
        answer: Its head has come.
        idle_s: Longest wait for each part.

    Raises:
        Cut: Nothing came for too long, or what came is not what it says to be.
        Refusal: See `check_encoding`.
    """
    unpack = _unpacking(answer)
    stream = answer.aiter_stream()
    while True:
        try:
            with anyio.fail_after(idle_s):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise Cut(HTTPStatus.GATEWAY_TIMEOUT, "the provider stopped sending") from None
        if chunk is None:
            break
        for part in [chunk] if unpack is None else _unpacked(unpack, chunk):
            yield part
    if unpack is not None and not unpack.eof:
        raise _damaged()


def _unpacking(answer: httpcore.Response) -> Any:
    match (header_of(answer, b"content-encoding") or b"identity").strip().lower():
        case b"identity":
            return None
        case b"gzip" | b"x-gzip" | b"deflate":
            return zlib.decompressobj(zlib.MAX_WBITS | 32)
        case _:
            raise Refusal(HTTPStatus.BAD_GATEWAY, "The provider's answer is compressed unasked.")


def _unpacked(unpack: Any, chunk: bytes) -> Generator[bytes]:
    """Yield what a chunk holds in bounded parts, however well it was compressed."""
    while True:
        try:
            part: bytes = unpack.decompress(chunk, PIECE_BYTES)
        except zlib.error:
            raise _damaged() from None
        chunk = unpack.unconsumed_tail
        if part:
            yield part
        if not chunk and len(part) < PIECE_BYTES:
            return


def _damaged() -> Cut:
    return Cut(HTTPStatus.BAD_GATEWAY, "the provider's answer is damaged")
