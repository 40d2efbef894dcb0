"""The host's packet filter, as far as sandboxes need it: one chain of rules, set in one go.

A chain is changed by `iptables-restore --noflush`, which commits all lines of a table at once: at
no moment are the rejects missing, and a second run leaves the same rules.

Source: iptables-restore(8), iptables-extensions(8) (owner, addrtype).
"""

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from craftastic.errors import Unavailable

PRIVATE_V4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
"""IPv4 ranges that are never the internet: private, carrier's, loopback, link-local, multicast."""

PRIVATE_V6 = (
    "::/127",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)
"""The same for IPv6: loopback, mapped and translated IPv4, unique and site local, multicast."""

REJECT_V4 = ("-j", "REJECT", "--reject-with", "icmp-admin-prohibited")
REJECT_V6 = ("-j", "REJECT", "--reject-with", "icmp6-adm-prohibited")
REJECT_TCP = ("-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")
"""Before the plain reject: a reset is what every client understands at once."""

CHAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,27}")
TOOL_PATH = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin"
LOCK_WAIT_S = 10
DEADLINE_S = 30.0
ATTEMPTS = 3
RESOLV_CONF = Path("/etc/resolv.conf")
RESOLVED_CONF = Path("/run/systemd/resolve/resolv.conf")
MAX_RESOLVERS = 3
"""As many as the C library reads. Source: resolv.conf(5), MAXNS."""


class FirewallUnavailable(Unavailable):
    """The host's packet filter cannot be changed by this process; the message says why."""

    code = "FIREWALL_UNAVAILABLE"


def resolvers(
    resolv_conf: Path = RESOLV_CONF, resolved_conf: Path = RESOLVED_CONF
) -> tuple[str, ...]:
    """Return the name servers that this host asks, as addresses a sandbox can ask too.

    A stub on loopback (systemd-resolved's 127.0.0.53) is nobody to a sandbox: the servers behind
    it are taken instead, and there may be none.

    Source: resolv.conf(5), systemd-resolved.service(8).
    """
    for path in (resolv_conf, resolved_conf):
        found = tuple(server for server in _nameservers(path) if _reachable_from_elsewhere(server))
        if found:
            return found[:MAX_RESOLVERS]
    return ()


def _nameservers(path: Path) -> list[str]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]


def _reachable_from_elsewhere(server: str) -> bool:
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False  # A zone (fe80::1%eth0) means nothing in another network namespace.
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)


def address_family(address: str) -> int:
    """Return 4 or 6.

    Raises:
        ValueError: It is no address.
    """
    return ipaddress.ip_address(address).version


@dataclass(frozen=True, slots=True)
class Firewall:
    """Sets chains of the filter table.

    Args:
        lock_wait_s: Longest wait for another program that is changing the tables.
        deadline_s: Longest run of one tool.
    """

    lock_wait_s: int = LOCK_WAIT_S
    deadline_s: float = DEADLINE_S

    async def apply(
        self,
        *,
        chain: str,
        hook: str,
        hook_match: Sequence[str],
        rules: Sequence[Sequence[str]],
        ipv6: bool = False,
    ) -> None:
        """Make `chain` equal to `rules`, and `hook` jump to it first and exactly once.

        Args:
            chain: Our own chain; whatever it held is replaced.
            hook: A chain that exists: INPUT, OUTPUT, DOCKER-USER.
            hook_match: Which packets are sent to the chain (`-m owner --uid-owner 200000-265535`).
            rules: Match and target of each rule, without `-A chain`.
            ipv6: The IPv6 tables instead of the IPv4 ones.

        Raises:
            FirewallUnavailable: Not root, no iptables, or iptables refused; nothing was changed.
        """
        _check_chain(chain)
        restore = _tool("ip6tables-restore" if ipv6 else "iptables-restore")
        refusal = ""
        for _ in range(ATTEMPTS):
            old_jumps = await self._jumps(hook, chain, ipv6=ipv6)
            lines = [
                "*filter",
                f":{chain} - [0:0]",
                f"-F {chain}",
                *(f"-A {chain} {_line(rule)}" for rule in rules),
                *(f"-D {jump}" for jump in old_jumps),
                f"-I {hook} 1 {_line([*hook_match, '-j', chain])}",
                "COMMIT",
                "",
            ]
            argv = [restore, "--noflush", "--wait", str(self.lock_wait_s)]
            status, _, refusal = await self._run(argv, "\n".join(lines).encode())
            if status == 0:
                return
            # A jump that another process removed in between fails the whole commit: look again.
        raise FirewallUnavailable(f"iptables refused the rules: {refusal}", chain=chain)

    async def remove(
        self, *, chain: str, hook: str, hook_match: Sequence[str] = (), ipv6: bool = False
    ) -> None:
        """Remove the chain and every jump to it from `hook`; absent is fine.

        Raises:
            FirewallUnavailable: See `apply`.
        """
        _check_chain(chain)
        tool = _tool("ip6tables" if ipv6 else "iptables")
        status, _, _ = await self._run([tool, "--wait", str(self.lock_wait_s), "-n", "-L", chain])
        if status != 0:
            return
        jumps = await self._jumps(hook, chain, ipv6=ipv6)
        lines = ["*filter", *(f"-D {jump}" for jump in jumps), f"-F {chain}", f"-X {chain}"]
        restore = _tool("ip6tables-restore" if ipv6 else "iptables-restore")
        argv = [restore, "--noflush", "--wait", str(self.lock_wait_s)]
        status, _, refusal = await self._run(argv, "\n".join([*lines, "COMMIT", ""]).encode())
        if status != 0:
            raise FirewallUnavailable(f"iptables refused to remove {chain}: {refusal}")

    async def is_set(self, *, chain: str, hook: str, ipv6: bool = False) -> bool:
        """Report whether `hook` jumps to `chain` exactly once, before what could take its packets.

        Another installation on the host puts its own jump first too: what is only about other
        interfaces, or only about other users, may stand before ours.

        Raises:
            FirewallUnavailable: See `apply`.
        """
        _check_chain(chain)
        return _is_hooked(chain, await self._listing(hook, ipv6=ipv6))

    async def rules(self) -> list[str]:
        """List the rules of all IPv4 chains as iptables itself writes them.

        Raises:
            FirewallUnavailable: See `apply`.
        """
        return await self._list([])

    @staticmethod
    def seen(chain: str, hook: str, listed: Sequence[str]) -> list[str] | None:
        """Return the chain's own rules and its jump, None where it is not hooked in, of `rules`."""
        hooked = [line for line in listed if line.startswith(f"-A {hook} ")]
        if not _is_hooked(chain, hooked):
            return None
        own = [line for line in listed if line.startswith(f"-A {chain} ")]
        return [*own, *(line for line in hooked if _jumps_to(line, chain))]

    @staticmethod
    def as_commands(
        *,
        chain: str,
        hook: str,
        hook_match: Sequence[str],
        rules: Sequence[Sequence[str]],
        ipv6: bool = False,
    ) -> list[str]:
        """Return the same as commands that an operator can paste into a root shell."""
        tool = "ip6tables" if ipv6 else "iptables"
        return [
            f"{tool} -w -N {chain} 2>/dev/null || {tool} -w -F {chain}",
            *(shlex.join([tool, "-w", "-A", chain, *rule]) for rule in rules),
            shlex.join([tool, "-w", "-I", hook, "1", *hook_match, "-j", chain]),
        ]

    async def _jumps(self, hook: str, chain: str, *, ipv6: bool) -> list[str]:
        """Return the jumps to `chain` as iptables itself writes them, without their `-A`."""
        listed = await self._listing(hook, ipv6=ipv6)
        return [line.removeprefix("-A ") for line in listed if _jumps_to(line, chain)]

    async def _listing(self, hook: str, *, ipv6: bool) -> list[str]:
        _check_chain(hook)
        listed = await self._list([hook], ipv6=ipv6)
        return [line for line in listed if line.startswith(f"-A {hook} ")]

    async def _list(self, chains: Sequence[str], *, ipv6: bool = False) -> list[str]:
        tool = _tool("ip6tables" if ipv6 else "iptables")
        status, output, refusal = await self._run(
            [tool, "--wait", str(self.lock_wait_s), "-S", *chains]
        )
        if status != 0:
            named = " ".join(chains) or "its rules"
            raise FirewallUnavailable(f"iptables cannot list {named}: {refusal}", hook=named)
        return output.splitlines()

    async def _run(self, argv: Sequence[str], stdin: bytes = b"") -> tuple[int, str, str]:
        if os.geteuid() != 0:
            raise FirewallUnavailable("only root can set firewall rules, and this is not root")
        try:
            with anyio.fail_after(self.deadline_s):
                done = await anyio.run_process(
                    list(argv),
                    input=stdin,
                    check=False,
                    stderr=subprocess.PIPE,
                    env={"PATH": TOOL_PATH, "LC_ALL": "C"},
                )
        except TimeoutError as error:
            message = f"{Path(argv[0]).name} did not answer within {self.deadline_s:.0f} s"
            raise FirewallUnavailable(message) from error
        except OSError as error:
            raise FirewallUnavailable(f"{argv[0]} does not start: {error.strerror}") from error
        refusal = " ".join(done.stderr.decode(errors="replace").split())[:400]
        return done.returncode, done.stdout.decode(errors="replace"), refusal


def _tool(name: str) -> str:
    found = shutil.which(name, path=TOOL_PATH)
    if found is None:
        raise FirewallUnavailable(
            f"{name} is not installed", details="Install the iptables package."
        )
    return found


def _check_chain(name: str) -> None:
    if CHAIN_NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a name for a chain")


def _is_hooked(chain: str, listed: Sequence[str]) -> bool:
    ours = [number for number, line in enumerate(listed) if _jumps_to(line, chain)]
    return len(ours) == 1 and all(_never_both(line, listed[ours[0]]) for line in listed[: ours[0]])


def _jumps_to(line: str, chain: str) -> bool:
    return line.endswith(f" -j {chain}")


def _never_both(one: str, other: str) -> bool:
    """Tell whether no packet can match two rules: of two interfaces, or of two users' ranges."""
    interfaces = _value(one, "-i"), _value(other, "-i")
    if None not in interfaces and interfaces[0] != interfaces[1]:
        return not any(name.endswith("+") for name in interfaces if name)
    users = _user_range(one), _user_range(other)
    if users[0] is None or users[1] is None:
        return False
    return users[0][1] < users[1][0] or users[1][1] < users[0][0]


def _value(line: str, option: str) -> str | None:
    """Return what a rule's option names; None without it, and where it names all others."""
    found = re.search(rf"(?<! !) {option} (\S+)", line)
    return found[1] if found else None


def _user_range(line: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", _value(line, "--uid-owner") or "")
    return (int(found[1]), int(found[2] or found[1])) if found else None


def _line(words: Sequence[str]) -> str:
    """Write one rule as iptables-restore reads it.

    Raises:
        ValueError: A word holds a quote, a backslash or a control character.
    """
    for word in words:
        if not word or re.search(r'["\\\x00-\x1f\x7f]', word):
            raise ValueError(f"{word!r} cannot stand in a firewall rule")
    return " ".join(f'"{word}"' if " " in word else word for word in words)
