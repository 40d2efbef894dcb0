"""The one network of Docker sandboxes, and the host's rules on its bridge.

Sandboxes reach the gateway's port on the bridge's own address, the internet, and the name servers;
nothing else of the host, no private range and not each other. IPv6 is off on the network.
"""

import contextlib
import math
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, cast

import anyio
import anyio.to_thread
import structlog

from craftastic.runtimes._docker_engine import Engine, EngineRefused, Json, unavailable
from craftastic.runtimes._firewall import (
    PRIVATE_V4,
    REJECT_TCP,
    REJECT_V4,
    Firewall,
    FirewallUnavailable,
    address_family,
    resolvers,
)
from craftastic.runtimes._probe import host_addresses
from craftastic.runtimes.base import RuntimeUnavailable

NETWORK = "craftastic"
LABEL = "craftastic.network"
MAX_PORTS = 16
"""Most gateways of one host whose ports are kept open on the bridge."""

DNS_PORT = "53"
IPV4 = 4
LISTEN_S = 0.3

Rule = tuple[str, ...]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain of the packet filter and where it hooks in."""

    chain: str
    hook: str
    hook_match: Rule
    rules: Sequence[Rule]

    def arguments(self) -> dict[str, Any]:
        return {
            "chain": self.chain,
            "hook": self.hook,
            "hook_match": self.hook_match,
            "rules": self.rules,
        }


@dataclass(slots=True)
class SandboxNetwork:
    """Makes the network and its rules, and reads them.

    Args:
        engine: Where the network lives.
        gateway_port: Port of the server's gateway listener on the bridge's address.
        name: The network's name; the bridge's interface and the chains are named after it.
    """

    engine: Engine
    gateway_port: int
    name: str = NETWORK
    firewall: Firewall = field(default_factory=Firewall)
    rules_set: bool = False
    """Whether the rules were set by this process."""

    rules_problem: str | None = None
    _warned: bool = False
    _set_at: float = -math.inf
    _set_for: str = ""
    _last: tuple[list[Chain], list[list[str] | None]] | None = None
    _setting: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def bridge(self) -> str:
        """Name of the bridge's interface; at most 15 bytes."""
        return f"{self.name[:14]}0"

    async def find(self) -> str | None:
        """Return the host's address on the bridge, or None where there is no network yet.

        Raises:
            RuntimeUnavailable: The engine does not answer, or another program has a network of
                this name.
        """
        found = await self.engine.get(f"networks/{self.name}", "looking for the network")
        return None if found is None else self._address(found)

    async def ensure(self) -> str:
        """Return the host's address on the bridge; the network is made first if need be.

        Raises:
            RuntimeUnavailable: See `find`; or the engine could not make the network.
        """
        address = await self.find()
        if address is None:
            await self._create()
            address = await self.find()
        if address is None:
            raise RuntimeUnavailable("The sandboxes' network was made and is gone again.")
        return address

    async def protect(self, address: str | None = None, *, unless_within_s: float = 0.0) -> None:
        """Set the host's rules; where that is not allowed, note why and go on.

        Rules that this process looked at for the same address at most `unless_within_s` ago are
        taken to be there still. The address is looked up where it is not given.
        """
        address = address or await self.ensure()
        async with self._setting:
            is_recent = anyio.current_time() - self._set_at < unless_within_s
            if not (is_recent and self.rules_set and self._set_for == address):
                await self._protect(address)

    async def _protect(self, address: str) -> None:
        try:
            listed = await self.firewall.rules()
            chains = await self._chains(address, listed)
            seen = [self.firewall.seen(chain.chain, chain.hook, listed) for chain in chains]
            # What stands there as it did after it was set needs no setting.
            if None in seen or (chains, seen) != self._last:
                for chain in chains:
                    await self.firewall.apply(**chain.arguments())
                listed = await self.firewall.rules()
                seen = [self.firewall.seen(chain.chain, chain.hook, listed) for chain in chains]
                self._last = chains, seen
        except FirewallUnavailable as error:
            self.rules_set, self.rules_problem = False, error.message
            if not self._warned:
                self._warned = True
                log.warning("network.unprotected", reason=error.message)
        else:
            self.rules_set, self.rules_problem = True, None
            self._set_at, self._set_for = anyio.current_time(), address

    async def protected(self) -> bool:
        """Report whether the rules are in place.

        Raises:
            FirewallUnavailable: They cannot be read.
        """
        return await self.firewall.is_set(
            chain=self._chain_name("IN"), hook="INPUT"
        ) and await self.firewall.is_set(chain=self._chain_name("FWD"), hook="DOCKER-USER")

    def commands(self, address: str) -> list[str]:
        """Return the rules as commands for an operator's root shell."""
        return [
            line
            for chain in (self._input(address, [self.gateway_port]), self._forward())
            for line in self.firewall.as_commands(**chain.arguments())
        ]

    async def _chains(self, address: str, listed: Sequence[str]) -> list[Chain]:
        others = await self._other_ports(address, listed)
        return [self._input(address, [self.gateway_port, *others]), self._forward()]

    def _chain_name(self, kind: str) -> str:
        return f"{self.name.upper()[:20]}-{kind}"

    def _input(self, address: str, ports: Sequence[int]) -> Chain:
        """Say what sandboxes may send to this host: the gateway's port, and answers."""
        accept: list[Rule] = [
            ("-d", f"{address}/32", "-p", "tcp", "-m", "tcp", "--dport", str(port), "-j", "ACCEPT")
            for port in ports
        ]
        answers: Rule = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
        return Chain(
            self._chain_name("IN"),
            "INPUT",
            ("-i", self.bridge),
            [*accept, answers, REJECT_TCP, REJECT_V4],
        )

    def _forward(self) -> Chain:
        """Say what sandboxes may send through this host: the internet and the name servers.

        The engine's own name server asks the host's from inside the sandbox's namespace, and those
        are often at a private address.
        """
        servers: list[Rule] = [
            ("-d", f"{server}/32", "-p", kind, "-m", kind, "--dport", DNS_PORT, "-j", "RETURN")
            for server in resolvers()
            if address_family(server) == IPV4
            for kind in ("udp", "tcp")
        ]
        # Docker's own rules turn a published port's address before they come here, and a host's
        # public address is in no private range.
        own = [one for one in host_addresses() if ":" not in one]
        closed: list[Rule] = [
            rule
            for where in dict.fromkeys([*PRIVATE_V4, *(f"{one}/32" for one in own)])
            for rule in (("-d", where, *REJECT_TCP), ("-d", where, *REJECT_V4))
        ]
        return Chain(
            self._chain_name("FWD"), "DOCKER-USER", ("-i", self.bridge), [*servers, *closed]
        )

    async def _other_ports(self, address: str, listed: Sequence[str]) -> list[int]:
        """Return the ports of other servers on this host whose gateways still listen.

        The bridge is shared by all of them, and each would otherwise shut the others out.
        """
        start = f"-A {self._chain_name('IN')} "
        pattern = re.compile(rf"-d {re.escape(address)}/32 -p tcp .*--dport (\d+) -j ACCEPT$")
        ports = [
            int(match[1])
            for line in listed
            if line.startswith(start) and (match := pattern.search(line))
        ]
        return [
            port
            for port in dict.fromkeys(ports)
            if port != self.gateway_port and await anyio.to_thread.run_sync(_listens, address, port)
        ][: MAX_PORTS - 1]

    async def _create(self) -> None:
        wanted: Final[Json] = {
            "Name": self.name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "EnableIPv6": False,
            "Internal": False,
            "Options": {
                "com.docker.network.bridge.name": self.bridge,
                "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.bridge.enable_ip_masquerade": "true",
            },
            "Labels": {LABEL: "1"},
        }
        try:
            async with self.engine.border("making the network") as docker:
                await docker.networks.create(wanted)
        except EngineRefused as error:
            # Another server made it in between: it is looked at again.
            if error.status != HTTPStatus.CONFLICT and "already exists" not in error.message:
                raise unavailable(error, "making the network") from error

    def _address(self, network: Json) -> str:
        labels = cast("dict[str, str]", network.get("Labels") or {})
        options = cast("dict[str, str]", network.get("Options") or {})
        if (
            LABEL not in labels
            or options.get("com.docker.network.bridge.enable_icc") != "false"
            or options.get("com.docker.network.bridge.name") != self.bridge
        ):
            raise RuntimeUnavailable(
                f"Docker has a network named {self.name} that this server did not make. "
                "Rename or remove it."
            )
        configured = cast("list[dict[str, str]]", (network.get("IPAM") or {}).get("Config") or [])
        for one in configured:
            gateway = one.get("Gateway", "").partition("/")[0]
            if gateway and address_family(gateway) == IPV4:
                return gateway
        raise RuntimeUnavailable(f"Docker's network {self.name} has no gateway address.")


def _listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), LISTEN_S):
        return True
    return False
