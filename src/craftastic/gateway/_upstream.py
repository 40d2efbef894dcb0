"""Which git servers may be reached: URL rules, one DNS answer, and a connection pinned to it."""

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.parse import unquote_to_bytes

import anyio
import httpcore

from craftastic.errors import InvalidInput, Unavailable
from craftastic.settings import Settings

MAX_URL_CHARACTERS = 2048
MAX_HOST_CHARACTERS = 253
RESOLVE_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
MAX_ADDRESSES = 16

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC_LABEL = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
_PORT = re.compile(r"[1-9][0-9]{0,4}")

DEFAULT_PORTS = {"https": 443, "http": 80}


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


# Source: IANA IPv4 Special-Purpose Address Registry. Python's `is_global` changed between
# releases of 3.11, so the list is written out.
_NEVER_4 = _networks(
    "0.0.0.0/8",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
# 198.18.0.0/15 is here because some resolvers hand it out for names that they tunnel.
_PRIVATE_4 = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
)
# Source: IANA IPv6 Special-Purpose Address Registry. Only 2000::/3 is unicast that is routed;
# inside it, what carries an IPv4 address (Teredo, 6to4), documentation and benchmarks are not.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_NEVER_6 = _networks("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
_PRIVATE_6 = _networks("::1/128", "fc00::/7", "fe80::/10")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class UpstreamRefused(InvalidInput):
    """The URL, or an address that its host has, is outside the rules."""

    code = "UPSTREAM_NOT_ALLOWED"


class UpstreamUnresolved(InvalidInput):
    """The URL's host has no address."""

    code = "UPSTREAM_NOT_FOUND"


class ResolverUnavailable(Unavailable):
    """Name resolution failed or took too long; trying again may help."""

    code = "NAME_RESOLUTION_FAILED"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A URL that passed the rules, in canonical parts.

    Attributes:
        host: Lower-case name, dotted IPv4 or bare IPv6 (no brackets).
        path: Begins with a slash, does not end with one.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host, and port where it is not the scheme's own: the value of a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


class Resolver(Protocol):
    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return every address of a host, as text.

        Raises:
            UpstreamUnresolved: It has none.
            ResolverUnavailable: No answer in time.
        """
        ...


class SystemResolver:
    """The machine's own name resolution, with a deadline of `RESOLVE_TIMEOUT_S`."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return every address of a host; see `Resolver`."""
        try:
            with anyio.fail_after(RESOLVE_TIMEOUT_S):
                rows = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise ResolverUnavailable(f"Looking up {host} took too long; try again.") from error
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise ResolverUnavailable(f"{host} cannot be looked up now; try again.") from error
            raise UpstreamUnresolved(f"No host is called {host}.") from error
        except UnicodeError as error:
            raise UpstreamUnresolved(f"No host is called {host}.") from error
        return list(dict.fromkeys(str(row[4][0]) for row in rows))


@dataclass(frozen=True, slots=True)
class UpstreamRules:
    """What an upstream may be. With both settings off: https on port 443 at public addresses.

    Attributes:
        allow_http: Also plain http, on port 80.
        allow_private: Also private, shared, loopback and link-local addresses, on any port.
    """

    allow_http: bool = False
    allow_private: bool = False

    @classmethod
    def of(cls, settings: Settings) -> "UpstreamRules":
        return cls(settings.git_allow_http, settings.git_allow_private)

    def parse(self, url: str) -> Upstream:
        """Parse a URL strictly; nothing is looked up.

        Raises:
            UpstreamRefused: It is not an http(s) URL of the plain form that is allowed.
        """
        if len(url) > MAX_URL_CHARACTERS:
            raise UpstreamRefused("The repository's URL is too long.")
        if any(not "!" <= character <= "~" for character in url) or "\\" in url:
            raise UpstreamRefused(
                "The repository's URL has a character that URLs cannot have; "
                "write other letters as %XX, and a host's name in its ASCII form (xn--…)."
            )
        match = _URL.fullmatch(url)
        if match is None:
            raise UpstreamRefused("The repository's URL must have the form https://host/path.")
        scheme = self._scheme(match["scheme"])
        host, port = self._authority(match["authority"], scheme)
        upstream = Upstream(scheme, host, port, _path(match["path"] or ""))
        if (address := _literal(host)) is not None:
            self.check_addresses(host, [str(address)])
        return upstream

    def check_addresses(self, host: str, addresses: Iterable[str]) -> list[str]:
        """Return the addresses when every one of them may be connected to.

        Raises:
            UpstreamRefused: At least one may not.
            UpstreamUnresolved: There is none.
        """
        checked = [_address(text) for text in addresses]
        if not checked:
            raise UpstreamUnresolved(f"No host is called {host}.")
        if not all(address is not None and self._allows(address) for address in checked):
            raise UpstreamRefused(
                f"{host} is not at a public address.",
                details="The operator can allow private ones with CRAFTASTIC_GIT_ALLOW_PRIVATE.",
            )
        return [str(address) for address in checked[:MAX_ADDRESSES]]

    def _scheme(self, text: str) -> str:
        scheme = text.lower()
        if scheme == "http" and not self.allow_http:
            raise UpstreamRefused(
                "Plain http is not allowed; use https.",
                details="The operator can allow it with CRAFTASTIC_GIT_ALLOW_HTTP.",
            )
        if scheme not in DEFAULT_PORTS:
            raise UpstreamRefused(f"{scheme}:// is not allowed; use https://.")
        return scheme

    def _authority(self, authority: str, scheme: str) -> tuple[str, int]:
        if "@" in authority:
            raise UpstreamRefused("The repository's URL must not contain a user or a password.")
        match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::(.*))?", authority)
        if match is None:
            raise UpstreamRefused("The repository's URL has no valid host.")
        host = _host(match[1].lower())
        if match[2] is None:
            return host, DEFAULT_PORTS[scheme]
        if _PORT.fullmatch(match[2]) is None or int(match[2]) > 65535:  # noqa: PLR2004
            raise UpstreamRefused("The repository's URL has no valid port.")
        port = int(match[2])
        if not self.allow_private and port != DEFAULT_PORTS[scheme]:
            raise UpstreamRefused(
                f"Port {port} is not allowed.",
                details="The operator can allow other ports with CRAFTASTIC_GIT_ALLOW_PRIVATE.",
            )
        return host, port

    def _allows(self, address: Address) -> bool:
        if isinstance(address, ipaddress.IPv4Address):
            if any(address in network for network in _NEVER_4):
                return False
            return self.allow_private or not any(address in network for network in _PRIVATE_4)
        if address.scope_id is not None:
            return False
        if address in _GLOBAL_6:
            return not any(address in network for network in _NEVER_6)
        if not self.allow_private:
            return False
        if address in _NAT64:
            return self._allows(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        return any(address in network for network in _PRIVATE_6)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _literal(host: str) -> Address | None:
    return _address(host)


def _host(text: str) -> str:
    if text.startswith("["):
        return _ipv6(text[1:-1])
    labels = text.split(".")
    # Programs disagree about what 127.1, 0x7f.1, 017700000001 or 2130706433 mean. A host whose
    # last label is a number is an IPv4 address (WHATWG URL, "ends in a number"), and it must be
    # in the one form that all agree on.
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise UpstreamRefused("Write the host's address as four decimal numbers.") from None
    if len(text) > MAX_HOST_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        raise UpstreamRefused("The repository's URL has no valid host.")
    return text


def _ipv6(text: str) -> str:
    if "%" in text:
        raise UpstreamRefused("The repository's URL has an address with a zone.")
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise UpstreamRefused("The repository's URL has no valid host.") from None


def _path(path: str) -> str:
    path = path.removesuffix("/")
    if not path:
        raise UpstreamRefused("The repository's URL has no path.")
    for segment in path[1:].split("/"):
        plain = unquote_to_bytes(segment)
        if (
            _SEGMENT.fullmatch(segment) is None
            or plain in {b".", b".."}
            or plain.startswith(b"-")
            or any(byte < 0x20 or byte in b"/\\\x7f" for byte in plain)  # noqa: PLR2004
        ):
            raise UpstreamRefused(
                "The repository's URL has a part that is not allowed: empty, a dot or two, "
                "beginning with a dash, or with an encoded slash or control character."
            )
    return path


def parse_upstream(url: str, *, allow_http: bool = False, allow_private: bool = False) -> Upstream:
    """Parse a URL by the rules; pure.

    Raises:
        UpstreamRefused: See `UpstreamRules.parse`.
    """
    return UpstreamRules(allow_http, allow_private).parse(url)


@dataclass(frozen=True, slots=True)
class UpstreamPolicy:
    """The rules together with name resolution."""

    rules: UpstreamRules
    resolver: Resolver = field(default_factory=SystemResolver)

    async def check(self, url: str) -> None:
        """Refuse a URL that clones would be refused for, when an environment is made.

        The answer is good for now only: each connection checks and pins anew.

        Raises:
            UpstreamRefused: The URL or one of the host's addresses is outside the rules.
            UpstreamUnresolved: The host has no address.
            ResolverUnavailable: Name resolution failed; trying again may help.
        """
        upstream = self.rules.parse(url)
        await self.addresses(upstream.host, upstream.port)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Resolve a host once and return its addresses, all of them allowed.

        Raises:
            UpstreamRefused: At least one address is outside the rules.
            UpstreamUnresolved: The host has no address.
            ResolverUnavailable: Name resolution failed.
        """
        literal = _literal(host)
        found = [str(literal)] if literal else await self.resolver.resolve(host, port)
        return self.rules.check_addresses(host, found)


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects only to addresses that were checked, in the same step that looked them up.

    The pool above still uses the host's name for SNI, the certificate and the Host header; only
    the socket goes to the address. So nothing can answer a second, different lookup.
    """

    def __init__(self, policy: UpstreamPolicy) -> None:
        self._policy = policy
        self._network = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first checked address that answers.

        Raises:
            UpstreamRefused, UpstreamUnresolved, ResolverUnavailable: See `UpstreamPolicy`.
            httpcore.ConnectError, httpcore.ConnectTimeout: No address took the connection.
        """
        last: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in await self._policy.addresses(host, port):
            try:
                return await self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last or httpcore.ConnectError("no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise NotImplementedError("an upstream is never a socket file")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
