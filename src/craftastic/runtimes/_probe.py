"""What a sandbox can reach that it must not: tried from inside, with listeners outside as witness.

The server opens canary listeners for the time of one probe, and a small program in the sandbox
tries to reach them in every way that is known to lead to a host. A canary that was reached is
certain, whatever the program in the sandbox says; so is one that was not.
"""

import contextlib
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from craftastic.errors import CraftasticError
from craftastic.runtimes.base import Isolation, RunResult

Run = Callable[[list[str]], Awaitable[RunResult]]

CONNECT_S = 1.0
"""How long one connection may take, in seconds. All are tried at once."""

AT_ONCE_S = 0.5
"""A refusal that comes later than this came from the network, not from a rule of this host."""

PYTHON = "/usr/bin/python3"
"""By its path: the first `python3` on a sandbox's search path may be the sandbox's own."""

MAX_HOST_ADDRESSES = 64
METADATA = ("169.254.169.254", 80)
SILENT = {
    "private range 10/8": "10.254.253.252",
    "private range 172.16/12": "172.30.253.252",
    "private range 192.168/16": "192.168.253.252",
    "link-local range 169.254/16": "169.254.253.252",
    "shared range 100.64/10": "100.127.253.252",
    "private range fc00::/7": "fdfe:fdfc:fbfa::1",
}
"""One address of each closed range where most likely nobody answers."""

ACCESSIBLE = "connected"
REFUSED = "refused"
SILENCE = "timeout"
NO_ROUTE = "unsupported"

SCRIPT = r"""
import errno, json, select, socket, struct, sys, time
plan = json.loads(sys.argv[1])
wait = plan["wait"]
tries = [tuple(one) for one in plan["targets"]]
routes4, routes6 = [], []
try:
    for line in open("/proc/net/route").read().splitlines()[1:]:
        word = line.split()
        if word[1] == "00000000" and int(word[3], 16) & 2:
            routes4.append(socket.inet_ntoa(struct.pack("<L", int(word[2], 16))))
except (OSError, ValueError, IndexError):
    pass
try:
    for line in open("/proc/net/ipv6_route").read().splitlines():
        word = line.split()
        if word[0] == "0" * 32 and word[1] == "00" and word[4] != "0" * 32:
            routes6.append((socket.inet_ntop(socket.AF_INET6, bytes.fromhex(word[4])), word[-1]))
except (OSError, ValueError, IndexError):
    pass
named = []
try:
    for info in socket.getaddrinfo(plan["gateway"][0], None, type=socket.SOCK_STREAM):
        named.append(info[4][0])
except OSError:
    pass
derived = [("the gateway's address", address) for address in named]
derived += [("the default route's address", address) for address in routes4]
derived += [("the default route's address", a + "%" + i if a[:4] == "fe80" else a)
            for a, i in routes6]
for what, address in derived:
    for port in plan["canaries6" if ":" in address else "canaries4"]:
        tries.append((what, address, port, "tcp"))
    for port in plan["udp6" if ":" in address else "udp4"]:
        tries.append((what, address, port, "udp"))
gateway = ["gateway", named[0] if named else "", plan["gateway"][1], "tcp"]

def destination(address, port):
    if ":" in address:
        return socket.getaddrinfo(address, port, socket.AF_INET6, socket.SOCK_STREAM,
                                  0, socket.AI_NUMERICHOST)[0][4]
    return (address, port)

def name(number):
    if number == 0:
        return "connected"
    if number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
        return "unsupported"
    if number == errno.ETIMEDOUT:
        return "timeout"
    return "refused"

results, waiting = [], {}
start = time.monotonic()
for what, address, port, kind in tries:
    row = [what, address, port, kind, "refused", 0.0]
    results.append(row)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        one = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        one.setblocking(False)
        where = destination(address, port)
        if kind == "udp":
            one.sendto(b"craftastic-probe " + address.encode(), where)
            row[4] = "sent"
            continue
        number = one.connect_ex(where)
    except OSError as error:
        row[4] = name(error.errno)
        continue
    if number == errno.EINPROGRESS:
        waiting[one.fileno()] = (one, row)
        row[4] = "timeout"
    else:
        row[4] = name(number)
poll = select.poll()
for fd in waiting:
    poll.register(fd, select.POLLOUT)
while waiting and time.monotonic() - start < wait:
    for fd, _ in poll.poll(max(1, int((start + wait - time.monotonic()) * 1000))):
        one, row = waiting.pop(fd)
        poll.unregister(fd)
        row[4] = name(one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        row[5] = time.monotonic() - start
        one.close()
status = "no such name"
if named:
    try:
        with socket.create_connection((named[0], plan["gateway"][1]), timeout=wait) as one:
            one.sendall(b"GET / HTTP/1.0\r\nHost: probe\r\n\r\n")
            status = "answered" if one.recv(1) else "closed at once"
    except socket.timeout:
        status = "silent"
    except OSError as error:
        status = "not reachable: " + (error.strerror or "no reason")
print(json.dumps({"results": results, "gateway": status}))
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Something of which the caller knows that it listens, and that must be closed.

    Args:
        what: In plain words, for people: "another sandbox's port".
        address: Literal IPv4 or IPv6 address.
        port: TCP port.
    """

    what: str
    address: str
    port: int


@dataclass(slots=True)
class _Canaries:
    """Sockets of the host that nobody has any business with."""

    tcp: list[socket.socket] = field(default_factory=list[socket.socket])
    udp: list[socket.socket] = field(default_factory=list[socket.socket])

    def ports(self, kind: str, family: int) -> list[int]:
        sockets = self.tcp if kind == "tcp" else self.udp
        return [one.getsockname()[1] for one in sockets if one.family == family]

    def reached(self) -> Iterator[tuple[str, str]]:
        """Yield the kind and the host's own address of everything that arrived."""
        for one in self.tcp:
            with contextlib.suppress(OSError):  # BlockingIOError: nobody is left in the queue.
                while True:
                    connection, _ = one.accept()
                    with connection:
                        yield "tcp", str(connection.getsockname()[0])
        for one in self.udp:
            with contextlib.suppress(OSError):
                while True:
                    word, _, address = one.recv(128).partition(b" ")
                    if word == b"craftastic-probe":
                        yield "udp", _printable(address)


@contextlib.contextmanager
def _canaries() -> Generator[_Canaries]:
    canaries = _Canaries()
    with contextlib.ExitStack() as stack:
        for family, addresses in (
            (socket.AF_INET, ("0.0.0.0", "127.0.0.1")),  # noqa: S104 - open for a moment, on purpose
            (socket.AF_INET6, ("::", "::1")),
        ):
            for address in addresses:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with contextlib.suppress(OSError):  # A host without IPv6 has less to close.
                        one = stack.enter_context(socket.socket(family, kind))
                        one.setblocking(False)
                        if family == socket.AF_INET6:
                            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                        one.bind((address, 0))
                        if kind == socket.SOCK_STREAM:
                            one.listen(128)
                            canaries.tcp.append(one)
                        else:
                            canaries.udp.append(one)
        yield canaries


def _printable(address: bytes) -> str:
    """Return what the sandbox says it had sent to, if that is an address."""
    try:
        return str(ipaddress.ip_address(address.decode("ascii")))
    except ValueError:
        return "an address"


def host_addresses(proc: Path = Path("/proc")) -> list[str]:
    """Return the addresses of this host, loopback and link-local ones without their zone.

    Source: proc_net(5): fib_trie's `host LOCAL` leaves and if_inet6.
    """
    found: dict[str, None] = {}
    leaf = ""
    with contextlib.suppress(OSError):
        for line in (proc / "net/fib_trie").read_text().splitlines():
            words = line.split()
            if words and words[0] == "|--":
                leaf = words[1]
            elif words[:3] == ["/32", "host", "LOCAL"]:
                found[leaf] = None
    with contextlib.suppress(OSError):
        for line in (proc / "net/if_inet6").read_text().splitlines():
            found[str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0])))] = None
    return list(found)[:MAX_HOST_ADDRESSES]


async def probe(
    run: Run,
    *,
    gateway: tuple[str, int],
    extra: Sequence[Target] = (),
    rules_set: bool = False,
    wait_s: float = CONNECT_S,
) -> Isolation:
    """Try from inside a sandbox to reach what must be closed, and say what was found.

    Args:
        run: Runs a command in the sandbox, as its user.
        gateway: Name inside the sandbox, and port, of the one thing that must be open.
        extra: What else must be closed.
        rules_set: The caller knows that rules drop private ranges: silence then means closed.
        wait_s: Longest try, in seconds; the whole takes about twice as long.
    """
    with _canaries() as canaries:
        targets = list(_plan(canaries, extra))
        plan = {
            "wait": wait_s,
            "targets": targets,
            "gateway": list(gateway),
            "canaries4": canaries.ports("tcp", socket.AF_INET),
            "canaries6": canaries.ports("tcp", socket.AF_INET6),
            "udp4": canaries.ports("udp", socket.AF_INET),
            "udp6": canaries.ports("udp", socket.AF_INET6),
        }
        try:
            result = await run([PYTHON, "-I", "-S", "-c", SCRIPT, json.dumps(plan)])
        except CraftasticError as error:
            return Isolation(verified=False, unchecked=(f"everything: {error.message}",))
        reached = [f"the host at {address} ({kind})" for kind, address in canaries.reached()]
    opened, unchecked = judge(result, extra=extra, rules_set=rules_set, gateway=gateway)
    opened = list(dict.fromkeys([*reached, *opened]))
    return Isolation(
        verified=not opened and not unchecked, open=tuple(opened), unchecked=tuple(unchecked)
    )


def _plan(canaries: _Canaries, extra: Sequence[Target]) -> Iterator[tuple[str, str, int, str]]:
    for address in host_addresses():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind in ("tcp", "udp"):
            for port in canaries.ports(kind, family):
                yield "canary", address, port, kind
    yield "metadata address", *METADATA, "tcp"
    for what, address in SILENT.items():
        yield what, address, 80, "tcp"
    for target in extra:
        yield target.what, target.address, target.port, "tcp"


def judge(
    result: RunResult, *, extra: Sequence[Target], rules_set: bool, gateway: tuple[str, int]
) -> tuple[list[str], list[str]]:
    """Return what the program in the sandbox found open, and what it could not try.

    Its output is as hostile as the sandbox: it can only make the verdict worse.
    """
    try:
        answer = cast("dict[str, Any]", json.loads(result.stdout))
        rows = [
            (str(what)[:80], str(address)[:60], int(port), str(kind)[:4], str(status), float(took))
            for what, address, port, kind, status, took in answer["results"]
        ]
        gateway_status = str(answer["gateway"])[:80]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        reason = " ".join(result.stderr.decode(errors="replace").split())[-200:]
        return [], [f"everything: the probe did not run in the sandbox ({reason or 'no output'})"]
    opened: list[str] = []
    unchecked: list[str] = []
    listening = {(target.address, target.port) for target in extra}
    watched = {METADATA[0], *SILENT.values()}
    tried = {row[1] for row in rows}
    unchecked += [f"{one} was not tried" for one in sorted(watched - tried)]
    unchecked += [f"{one[0]} was not tried" for one in sorted(listening) if one[0] not in tried]
    for what, address, port, _, status, took in rows:
        if (address, port) not in listening and address not in watched:
            continue  # A canary: what arrived at the host is better evidence than this.
        if status == ACCESSIBLE:
            opened.append(f"{what} ({address}:{port})")
        elif (address, port) in listening or rules_set:
            continue
        elif status == SILENCE or took > AT_ONCE_S:
            unchecked.append(f"{what} ({address}: no answer, and no rule is known)")
    if gateway_status not in {"answered", "silent"}:
        unchecked.append(f"the gateway {gateway[0]}:{gateway[1]} ({gateway_status})")
    return opened, unchecked
