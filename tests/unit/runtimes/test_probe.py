"""The isolation probe, run on the host itself: everything is open, and it must say so."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from craftastic.runtimes._probe import METADATA, SILENT, Target, host_addresses, judge, probe
from craftastic.runtimes.base import RunResult, SandboxGone


async def on_the_host(argv: list[str]) -> RunResult:
    done = await anyio.run_process([sys.executable, *argv[1:]], check=False, stderr=subprocess.PIPE)
    return RunResult(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def report(*rows: tuple[str, str, int, str, float], gateway: str = "answered") -> RunResult:
    everything = {METADATA[0]: METADATA[1], **dict.fromkeys(SILENT.values(), 80)}
    closed = [
        [address, address, port, "tcp", "refused", 0.01]
        for address, port in everything.items()
        if address not in {row[1] for row in rows}
    ]
    given = [
        [what, address, port, "tcp", status, took] for what, address, port, status, took in rows
    ]
    text = json.dumps({"results": [*closed, *given], "gateway": gateway})
    return RunResult(0, text.encode(), b"")


def verdict(result: RunResult, *, extra: tuple[Target, ...] = (), rules_set: bool = False):
    return judge(result, extra=extra, rules_set=rules_set, gateway=("craftastic-gateway", 3010))


async def test_the_host_itself_is_found_open_at_loopback_and_at_its_own_addresses(listener):
    found = await probe(
        on_the_host,
        gateway=("localhost", listener),
        extra=[Target("another sandbox's port", "127.0.0.1", listener)],
        wait_s=0.3,
    )

    assert not found.verified
    assert "the host at 127.0.0.1 (tcp)" in found.open
    assert "the host at 127.0.0.1 (udp)" in found.open
    assert f"another sandbox's port (127.0.0.1:{listener})" in found.open
    for address in host_addresses():
        if ":" not in address and not address.startswith("127."):
            assert f"the host at {address} (tcp)" in found.open


async def test_a_sandbox_that_cannot_be_probed_is_not_verified():
    async def gone(_argv: list[str]) -> RunResult:
        raise SandboxGone("the sandbox is not running")

    found = await probe(gone, gateway=("craftastic-gateway", 1))

    assert not found.verified
    assert found.unchecked == ("everything: the sandbox is not running",)


@pytest.mark.parametrize(
    "output", [b"", b"{}", b"[1]", b'{"results": [[1]], "gateway": ""}', b"\xff"]
)
async def test_a_probe_that_lies_or_dies_verifies_nothing(output: bytes):
    opened, unchecked = verdict(RunResult(127, output, b"python3: not found"))

    assert opened == []
    assert unchecked == ["everything: the probe did not run in the sandbox (python3: not found)"]


async def test_everything_refused_at_once_is_closed():
    assert verdict(report()) == ([], [])


async def test_an_answer_that_leaves_targets_out_is_not_verified():
    opened, unchecked = verdict(RunResult(0, b'{"results": [], "gateway": "answered"}', b""))

    assert opened == []
    assert len(unchecked) == 1 + len(SILENT)


async def test_silence_is_closed_only_where_a_rule_is_known():
    silent = report(("metadata address", *METADATA, "timeout", 0.0))

    assert verdict(silent)[1] == [
        "metadata address (169.254.169.254: no answer, and no rule is known)"
    ]
    assert verdict(silent, rules_set=True) == ([], [])


async def test_a_late_refusal_came_from_the_network_and_not_from_a_rule():
    late = report(("private range 10/8", SILENT["private range 10/8"], 80, "refused", 0.9))

    assert len(verdict(late)[1]) == 1


async def test_a_service_that_answers_in_a_private_range_is_open():
    opened, _ = verdict(report(("metadata address", *METADATA, "connected", 0.01)), rules_set=True)

    assert opened == ["metadata address (169.254.169.254:80)"]


async def test_a_neighbour_known_to_listen_is_closed_by_silence_and_open_by_an_answer():
    neighbour = Target("a neighbour", "192.0.2.9", 8000)

    silent = report(("a neighbour", "192.0.2.9", 8000, "timeout", 0.0))
    open_ = report(("a neighbour", "192.0.2.9", 8000, "connected", 0.0))

    assert verdict(silent, extra=(neighbour,)) == ([], [])
    assert verdict(open_, extra=(neighbour,))[0] == ["a neighbour (192.0.2.9:8000)"]
    assert verdict(report(), extra=(neighbour,))[1] == ["192.0.2.9 was not tried"]


async def test_a_gateway_that_cannot_be_reached_is_trouble():
    _, unchecked = verdict(report(gateway="not reachable: Connection refused"))

    assert unchecked == ["the gateway craftastic-gateway:3010 (not reachable: Connection refused)"]


async def test_the_hosts_addresses_are_read_from_the_kernels_tables(tmp_path: Path):
    net = tmp_path / "net"
    net.mkdir()
    (net / "fib_trie").write_text(
        "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n"
        "     |-- 192.0.2.2\n        /32 host LOCAL\n     |-- 192.0.2.255\n"
        "        /32 link BROADCAST\n"
    )
    (net / "if_inet6").write_text("fd000000000000000000000000000002 02 40 00 80     eth0\n")

    assert host_addresses(tmp_path) == ["192.0.2.2", "fd00::2"]
    assert host_addresses(tmp_path / "absent") == []
