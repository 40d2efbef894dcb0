"""The firewall's own chains: real iptables where the tests run as root, else the pure parts."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import anyio
import pytest

from craftastic.runtimes import _firewall
from craftastic.runtimes._firewall import Firewall, FirewallUnavailable, resolvers

CHAIN = "CRAFTASTIC-UNIT"
MATCH = ("-m", "owner", "--uid-owner", "4000000-4000001")
RULES = (
    ("-p", "tcp", "-d", "127.0.0.1", "--dport", "3010", "-j", "ACCEPT"),
    ("-d", "10.0.0.0/8", *_firewall.REJECT_V4),
)
STRICT = bool(os.environ.get("CRAFTASTIC_TEST_STRICT"))  # noqa: TID251


def can_set_rules() -> bool:
    if os.geteuid() != 0 or shutil.which("iptables", path=_firewall.TOOL_PATH) is None:
        return False
    listed = subprocess.run(
        ["iptables", "-w", "-S", "OUTPUT"],
        capture_output=True,
        check=False,
        env={"PATH": _firewall.TOOL_PATH},
    )
    return listed.returncode == 0


needs_rules = pytest.mark.skipif(
    not STRICT and not can_set_rules(), reason="needs root and iptables"
)


def listed(chain: str, tool: str = "iptables") -> list[str]:
    done = subprocess.run(
        [tool, "-w", "-S", chain],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": _firewall.TOOL_PATH},
    )
    return [line for line in done.stdout.splitlines() if line.startswith("-A ")]


@pytest.fixture
async def firewall():
    firewall = Firewall()
    yield firewall
    for ipv6 in (False, True):
        await firewall.remove(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, ipv6=ipv6)


@needs_rules
async def test_the_hook_jumps_first_and_once_however_often_the_rules_are_applied(firewall):
    for _ in range(3):
        await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=RULES)

    assert len(listed(CHAIN)) == len(RULES)
    hook = listed("OUTPUT")
    assert [line.endswith(f"-j {CHAIN}") for line in hook].count(True) == 1
    assert hook[0].endswith(f"-j {CHAIN}")
    assert await firewall.is_set(chain=CHAIN, hook="OUTPUT")


@pytest.mark.parametrize(
    ("before", "ours", "safe"),
    [
        ("-i other0", "-i ours0", True),
        ("-i ours0", "-i ours0", False),
        ("-i o+", "-i ours0", False),
        ("! -i other0", "-i ours0", False),
        ("", "-i ours0", False),
        ("-m owner --uid-owner 1-9", "-m owner --uid-owner 10-19", True),
        ("-m owner --uid-owner 20", "-m owner --uid-owner 10-19", True),
        ("-m owner --uid-owner 19", "-m owner --uid-owner 10-19", False),
        ("-m owner --uid-owner 5-10", "-m owner --uid-owner 10-19", False),
        ("-m owner ! --uid-owner 1-9", "-m owner --uid-owner 10-19", False),
        ("-m owner --uid-owner nobody", "-m owner --uid-owner 10-19", False),
        ("-i other0", "-m owner --uid-owner 10-19", False),
    ],
)
async def test_only_what_is_about_others_may_stand_before_the_jump(
    before: str, ours: str, safe: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    firewall = Firewall()

    async def listing(_self: Firewall, hook: str, *, ipv6: bool) -> list[str]:
        first = " ".join(f"-A {hook} {before} -j ACCEPT".split())
        return [first, f"-A {hook} {ours} -j {CHAIN}"]

    monkeypatch.setattr(Firewall, "_listing", listing)

    assert await firewall.is_set(chain=CHAIN, hook="INPUT") is safe


@needs_rules
async def test_two_installations_on_one_host_are_both_protected(firewall):
    other = "CRAFTASTIC-UNIT-2"
    others = ("-m", "owner", "--uid-owner", "4000002-4000003")
    await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=RULES)
    try:
        await firewall.apply(chain=other, hook="OUTPUT", hook_match=others, rules=RULES)

        assert await firewall.is_set(chain=CHAIN, hook="OUTPUT")
        assert await firewall.is_set(chain=other, hook="OUTPUT")
    finally:
        await firewall.remove(chain=other, hook="OUTPUT", hook_match=others)


@needs_rules
async def test_applying_other_rules_replaces_the_old_ones_and_the_old_match(firewall):
    await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=RULES)
    other = ("-m", "owner", "--uid-owner", "4000005")

    await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=other, rules=RULES[1:])

    assert len(listed(CHAIN)) == 1
    jumps = [line for line in listed("OUTPUT") if line.endswith(f"-j {CHAIN}")]
    assert len(jumps) == 1
    assert "4000005" in jumps[0]


@needs_rules
async def test_a_refused_rule_changes_nothing(firewall):
    await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=RULES)
    before = listed(CHAIN), listed("OUTPUT")

    with pytest.raises(FirewallUnavailable, match="iptables refused"):
        await firewall.apply(
            chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=[["-j", "NO-SUCH-TARGET"]]
        )

    assert (listed(CHAIN), listed("OUTPUT")) == before


@needs_rules
async def test_a_jump_stays_while_rules_are_applied_again_and_again(firewall):
    await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=RULES)
    seen: list[int] = []
    done = anyio.Event()

    async def watch() -> None:
        while not done.is_set():
            lines = await anyio.to_thread.run_sync(listed, "OUTPUT")
            seen.append([line.endswith(f"-j {CHAIN}") for line in lines].count(True))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        for _ in range(10):
            await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=RULES)
        done.set()

    assert seen
    assert set(seen) == {1}


@needs_rules
async def test_ipv6_rules_are_set_in_their_own_tables_and_removed_again(firewall):
    rules = [["-d", one, *_firewall.REJECT_V6] for one in _firewall.PRIVATE_V6]

    await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=rules, ipv6=True)

    assert len(listed(CHAIN, "ip6tables")) == len(rules)
    await firewall.remove(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, ipv6=True)
    await firewall.remove(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, ipv6=True)
    assert listed(CHAIN, "ip6tables") == []


@needs_rules
async def test_every_private_range_is_one_that_iptables_takes(firewall):
    rules = [["-d", one, *_firewall.REJECT_V4] for one in _firewall.PRIVATE_V4]

    await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=rules)

    assert len(listed(CHAIN)) == len(rules)


async def test_without_iptables_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(_firewall, "TOOL_PATH", "/nonexistent")

    with pytest.raises(FirewallUnavailable, match="not installed"):
        await Firewall().apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=RULES)


@pytest.mark.parametrize("word", ['a"b', "a\nb", "a\\b", ""])
async def test_a_word_that_could_become_another_rule_is_refused(word):
    with pytest.raises(ValueError, match="firewall rule"):
        _firewall._line(["-m", "comment", "--comment", word])


@pytest.mark.parametrize("name", ["", "-A", "a b", "a\nCOMMIT", "x" * 29])
async def test_a_chain_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="chain"):
        await Firewall().apply(chain=name, hook="OUTPUT", hook_match=MATCH, rules=RULES)


async def test_the_commands_for_the_operator_name_every_rule_and_the_jump():
    commands = Firewall.as_commands(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=RULES)

    assert len(commands) == 2 + len(RULES)
    assert commands[-1] == (
        f"iptables -w -I OUTPUT 1 -m owner --uid-owner 4000000-4000001 -j {CHAIN}"
    )
    assert re.search(r"-d 10\.0\.0\.0/8 -j REJECT", "\n".join(commands))


async def test_the_name_servers_behind_a_stub_are_found(tmp_path: Path):
    stub = tmp_path / "resolv.conf"
    stub.write_text("# comment\nnameserver 127.0.0.53\noptions edns0\n")
    upstream = tmp_path / "upstream.conf"
    upstream.write_text("nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver fe80::1%eth0\n")

    assert resolvers(stub, upstream) == ("192.0.2.53", "2001:db8::53")
    assert resolvers(upstream, stub) == ("192.0.2.53", "2001:db8::53")
    assert resolvers(stub, tmp_path / "absent") == ()


@needs_rules
async def test_what_is_seen_of_a_chain_tells_of_every_change(firewall: Firewall) -> None:
    async def seen() -> list[str] | None:
        return firewall.seen(CHAIN, "OUTPUT", await firewall.rules())

    def iptables(*words: str) -> None:
        subprocess.run(["iptables", "-w", *words], check=True, env={"PATH": _firewall.TOOL_PATH})

    assert await seen() is None

    await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=RULES)
    first = await seen()
    await firewall.apply(chain=CHAIN, hook="OUTPUT", hook_match=MATCH, rules=RULES)
    assert first is not None
    assert len(first) == len(RULES) + 1
    assert await seen() == first

    iptables("-D", CHAIN, "1")
    assert await seen() not in (first, None)
    iptables("-D", "OUTPUT", *MATCH, "-j", CHAIN)
    assert await seen() is None
