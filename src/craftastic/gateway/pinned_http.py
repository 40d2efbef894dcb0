"""An HTTP client for addresses that users choose: by the rules of git's upstreams, pinned.

A name is looked up once for each connection, every address that it has must be allowed, and the
socket goes to what was checked. So no name can lead to the operator's own network, not even one
that changes between two lookups.
"""

import ssl
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast

import httpcore
import httpx

from craftastic import __version__
from craftastic.gateway._upstream import (
    DEFAULT_PORTS,
    PinnedBackend,
    Resolver,
    SystemResolver,
    UpstreamPolicy,
    UpstreamRefused,
    UpstreamRules,
    UpstreamUnresolved,
)
from craftastic.settings import Settings

CONNECT_S = 5.0
READ_S = 10.0
KEEP_ALIVE_S = 15.0
MAX_CONNECTIONS = 50

# Source: httpx 0.28, "Exceptions"; what is not named here is a bug, and is raised as it is.
_AS_HTTPX: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    UpstreamUnresolved: httpx.ConnectError,
}


class PinnedTransport(httpx.AsyncBaseTransport):
    """Sends requests only to where users may point this server.

    Args:
        rules: What an address may be.
        open_to: Origins (`https://host`, `http://host:port`) that the operator lets users name
            wherever they are.
        resolver: Name resolution.
        tls: Trust.
    """

    def __init__(
        self, rules: UpstreamRules, open_to: Sequence[str], resolver: Resolver, tls: ssl.SSLContext
    ) -> None:
        self._rules = rules
        self._open_rules = UpstreamRules(allow_http=True, allow_private=True)
        self._open_to = frozenset(_origin(httpx.URL(one)) for one in open_to)
        self._pool = _pool(rules, resolver, tls)
        self._open_pool = _pool(self._open_rules, resolver, tls)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request.

        Raises:
            UpstreamRefused: The address, or one that its name leads to, is outside the rules.
            ResolverUnavailable: Name resolution failed; trying again may help.
            httpx.TransportError: The connection failed; `httpx.ConnectError` also when no host
                has that name.
        """
        origin = _origin(request.url)
        is_open = origin in self._open_to
        with _in_words_of_httpx():
            scheme, host, port = origin
            shown = f"[{host}]" if ":" in host else host
            # Names are checked when they are looked up; this is about the form, and the port.
            rules = self._open_rules if is_open else self._rules
            upstream = rules.parse(f"{scheme}://{shown}:{port}/any")
            answer = await (self._open_pool if is_open else self._pool).handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=upstream.scheme,
                        host=upstream.host,
                        port=upstream.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Stream(answer),
            extensions=cast("dict[str, Any]", answer.extensions),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()
        await self._open_pool.aclose()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _in_words_of_httpx():
            async for part in self._answer.aiter_stream():
                yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


def pinned_client(
    settings: Settings,
    *,
    open_to: Sequence[str] = (),
    resolver: Resolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> httpx.AsyncClient:
    """Make the client; no connection is opened. Whoever makes it closes it.

    It follows no redirect, keeps no cookies, and takes no proxy and no password from its
    surroundings. A request raises what `PinnedTransport.handle_async_request` raises.

    Args:
        settings: The rules of upstreams.
        open_to: Origins that are allowed besides.
        resolver: Name resolution; the machine's own when None.
        tls: Trust; the machine's and certifi's authorities when None.
    """
    return httpx.AsyncClient(
        transport=PinnedTransport(
            UpstreamRules.of(settings),
            open_to,
            resolver or SystemResolver(),
            tls or httpcore.default_ssl_context(),
        ),
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
        headers={"User-Agent": f"craftastic/{__version__}", "Accept-Encoding": "identity"},
    )


def _pool(
    rules: UpstreamRules, resolver: Resolver, tls: ssl.SSLContext
) -> httpcore.AsyncConnectionPool:
    return httpcore.AsyncConnectionPool(
        ssl_context=tls,
        max_connections=MAX_CONNECTIONS,
        keepalive_expiry=KEEP_ALIVE_S,
        http2=False,
        retries=0,
        network_backend=PinnedBackend(UpstreamPolicy(rules, resolver)),
    )


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    host = url.raw_host.decode("ascii").lower()
    return url.scheme, host, url.port or DEFAULT_PORTS.get(url.scheme, 0)


@contextmanager
def _in_words_of_httpx() -> Generator[None]:
    try:
        yield
    except UpstreamRefused as error:
        raise UpstreamRefused(_of_no_repository(error.message), details=error.details) from error
    except tuple(_AS_HTTPX) as error:
        kinds = (kind for kind in type(error).__mro__ if kind in _AS_HTTPX)
        raise _AS_HTTPX[cast("type[Exception]", next(kinds))](str(error)) from error


def _of_no_repository(text: str) -> str:
    return text.replace("The repository's URL", "The address")
