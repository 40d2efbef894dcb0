"""SEC-22: what a sandbox must not reach, each with a listener that the host itself does reach."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import pytest

from craftastic.runtimes._probe import host_addresses
from craftastic.runtimes.base import GATEWAY_HOST
from tests.conftest import missing
from tests.contract.conftest import Bench

METADATA = "169.254.169.254"
LISTEN = """
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    listener.accept()[0].sendall(b"reached")
"""
CONNECT = """
import concurrent.futures, socket, sys
def reached(word):
    address, port = word.rsplit(",", 1)
    try:
        with socket.create_connection((address, int(port)), 2) as one:
            one.settimeout(2)
            return one.recv(9) or b"connected"
    except socket.timeout:
        return b""
    except OSError:
        return b""
def shout(word):
    address, port = word.rsplit(",", 1)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.socket(family, socket.SOCK_DGRAM).sendto(word.encode(), (address, int(port)))
    except OSError:
        pass
with concurrent.futures.ThreadPoolExecutor(32) as pool:
    list(pool.map(shout, sys.argv[1:]))
    for word, found in zip(sys.argv[1:], pool.map(reached, sys.argv[1:])):
        if found:
            print(word)
"""


@dataclass
class Services:
    """Something that listens on every address of the host, by TCP and UDP; notes who came."""

    port: int
    heard: list[str] = field(default_factory=list[str])


@contextlib.contextmanager
def services() -> Generator[Services]:
    tcp = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    port = int(tcp.getsockname()[1])
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", port))
    found = Services(port)

    def serve() -> None:
        while True:
            try:
                one, peer = tcp.accept()
            except OSError:
                return
            found.heard.append(f"tcp from {peer[0]}")
            with one:
                one.sendall(b"reached")

    def listen() -> None:
        while True:
            try:
                data, peer = udp.recvfrom(100)
            except OSError:
                return
            if not peer:
                return
            found.heard.append(f"udp to {data.decode()} from {peer[0]}")

    threads = [threading.Thread(target=one, daemon=True) for one in (serve, listen)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        # Closing alone does not wake who waits.
        for one in (tcp, udp):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in threads:
            thread.join(5)


@dataclass(frozen=True)
class Neighbour:
    """A machine beside this one, with a private address and the metadata service's."""

    private: str
    port: int


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def neighbour() -> Iterator[Neighbour]:
    """Make a network namespace with a listener, reached from this host by a link of its own."""
    if os.geteuid() != 0:
        missing("only root makes network namespaces")
    name = f"cft{secrets.token_hex(4)}"
    base = f"10.77.{secrets.randbelow(250)}"
    port = 20_000 + secrets.randbelow(10_000)
    ip("netns", "add", name)
    listener = None
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "e0", "netns", name)
        ip("address", "add", f"{base}.1/24", "dev", name)
        ip("link", "set", name, "up")
        for words in (
            ("address", "add", f"{base}.2/24", "dev", "e0"),
            ("address", "add", f"{METADATA}/32", "dev", "e0"),
            ("link", "set", "e0", "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", f"{base}.1"),
        ):
            ip("-n", name, *words)
        ip("route", "add", f"{METADATA}/32", "via", f"{base}.2")
        listener = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-c", LISTEN, str(port)],
            stdout=subprocess.PIPE,
        )
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"ready\n"
        yield Neighbour(f"{base}.2", port)
    finally:
        if listener is not None:
            listener.kill()
            listener.wait()
            assert listener.stdout is not None
            listener.stdout.close()
        ip("netns", "delete", name)


def reached_from_here(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1) as one:
        # Its words say that it has noted the visit, which is forgotten before the sandbox's try.
        return one.recv(9) == b"reached"
    return False


async def test_nothing_of_the_host_and_of_private_networks_is_reached(
    gateway: Bench, neighbour: Neighbour
) -> None:
    ref = await gateway.sandbox()
    inside = (
        await gateway.sh(
            ref,
            "python3 -c \"import socket; print(socket.gethostbyname('craftastic-gateway'))\"; "
            'awk \'$2 == "00000000" && $3 != "00000000" { print $3 }\' /proc/net/route',
        )
    ).split()
    gateway_address, *routes = inside
    default = [socket.inet_ntoa(bytes.fromhex(one)[::-1]) for one in routes]
    with services() as host:
        addresses = {"127.0.0.1", "127.8.9.10", "0.0.0.0", "::1", "::ffff:127.0.0.1",
                     *host_addresses(), gateway_address, GATEWAY_HOST, *default}  # fmt: skip
        closed = [f"{one},{host.port}" for one in sorted(addresses)]
        closed += [f"{neighbour.private},{neighbour.port}", f"{METADATA},{neighbour.port}"]
        # What cannot be reached from here either would prove nothing.
        reachable = [one for one in closed if reached_from_here(*split(one))]
        assert f"{neighbour.private},{neighbour.port}" in reachable
        assert f"{METADATA},{neighbour.port}" in reachable
        assert len(reachable) >= 6, reachable
        host.heard.clear()

        result = await gateway.runtime.run(ref, ["python3", "-c", CONNECT, *closed], timeout_s=60)

        assert (result.exit_code, result.stdout) == (0, b""), result
        assert host.heard == []
        open_one = [f"{GATEWAY_HOST},{gateway.settings.gateway_port}"]
        result = await gateway.runtime.run(ref, ["python3", "-c", ASK, *open_one])
        assert b"gateway" in result.stdout, "the sandbox has a network at all"


ASK = """
import sys, urllib.request
print(urllib.request.urlopen("http://" + sys.argv[1].replace(",", ":")).read())
"""


def split(word: str) -> tuple[str, int]:
    address, port = word.rsplit(",", 1)
    # A name of sandboxes only; here it is the same as the address.
    return ("127.0.0.1" if address == GATEWAY_HOST else address), int(port)


async def test_no_way_to_the_engine_is_in_a_sandbox(real: Bench) -> None:
    ref = await real.sandbox()

    found = await real.sh(
        ref,
        "for one in /var/run/docker.sock /run/docker.sock /run/containerd/containerd.sock "
        "/run/podman/podman.sock /run/user/*/docker.sock; do [ -e $one ] && echo $one; done; "
        "find / -xdev -type s -not -path '/proc/*' 2>/dev/null; "
        "env | grep -i docker_host; grep -o '@[^ ]*' /proc/net/unix; true",
    )

    assert found == ""
