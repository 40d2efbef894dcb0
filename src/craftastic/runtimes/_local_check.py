"""What the local runtime needs of its host: looked at for `doctor`, and before the first start."""

import os
import platform
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from craftastic.runtimes import _local_seccomp
from craftastic.runtimes._local_launch import tool
from craftastic.runtimes._local_limits import may_limit
from craftastic.runtimes._local_mounts import PYTHON
from craftastic.runtimes._local_process import TOOL_PATH
from craftastic.runtimes.base import Finding

TUN = Path("/dev/net/tun")
TUN_MODE = 0o666
TRIAL_S = 20.0
INSIDE_TOOLS = ("git", "tmux", "bash", "sh")


@dataclass(frozen=True, slots=True)
class HostCheck:
    """Looks at the host without changing anything. All of it blocks.

    Args:
        trial_uid: A user id that no sandbox has, for trying things as an unprivileged user.
        share_network: The operator lets sandboxes share the host's network.
        firewall: Why the firewall's rules are not set, or None when they are.
    """

    trial_uid: int
    share_network: bool
    firewall: str | None
    firewall_commands: Sequence[str]

    def findings(self) -> Iterator[Finding]:
        yield self._bubblewrap()
        yield from self._network()
        yield self._inside()
        yield self._user()
        if os.geteuid() == 0:
            yield self._firewall()
        yield self._limits()
        yield self._calls()

    def blockers(self) -> list[Finding]:
        """Return what keeps any sandbox from starting."""
        return [one for one in self.findings() if one.ok is False]

    def _bubblewrap(self) -> Finding:
        name = "local.bubblewrap"
        if tool("bwrap") is None:
            return Finding(
                name, False, "bubblewrap is not installed.", "Install the package bubblewrap."
            )
        argv = [
            "bwrap", "--unshare-user", "--unshare-pid", "--disable-userns", "--ro-bind", "/", "/",
            "--proc", "/proc", "--dev", "/dev", "--", "/usr/bin/true",
        ]  # fmt: skip
        code, said = attempt(argv, self.trial_uid)
        if code == 0:
            return Finding(name, True, "bubblewrap makes sandboxes for unprivileged users.")
        return Finding(
            name,
            False,
            f"bubblewrap cannot make a sandbox here: {said}",
            "Allow user namespaces (user.max_user_namespaces, kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns); bubblewrap must be 0.8 or newer.",
        )

    def _network(self) -> Iterator[Finding]:
        if self.share_network:
            yield Finding(
                "local.network",
                None,
                "Sandboxes share the host's network: they reach everything the host reaches.",
                "Unset CRAFTASTIC_LOCAL_SHARE_NETWORK and install the package passt.",
            )
            return
        if tool("pasta") is None:
            yield Finding(
                "local.network",
                False,
                "pasta is not installed, and sandboxes get no network without it.",
                "Install the package passt.",
            )
            return
        yield Finding("local.network", True, "pasta gives sandboxes a network of their own.")
        yield self._tun()

    def _tun(self) -> Finding:
        name = "local.tun"
        try:
            mode = stat.S_IMODE(TUN.stat().st_mode)
        except OSError:
            return Finding(
                name, False, f"{TUN} is not there.", "Load the kernel module: modprobe tun"
            )
        if mode & TUN_MODE == TUN_MODE:
            return Finding(name, True, f"{TUN} is open to unprivileged users, as is usual.")
        return Finding(
            name,
            None if os.geteuid() == 0 else False,
            f"{TUN} is closed to unprivileged users; a server that is root opens it as it starts.",
            f"chmod 0666 {TUN}",
        )

    def _inside(self) -> Finding:
        found = [Path("/usr/bin", name).exists() for name in INSIDE_TOOLS]
        absent = [name for name, there in zip(INSIDE_TOOLS, found, strict=True) if not there]
        if not Path(PYTHON).exists():
            absent.append("python3")
        if absent:
            names = " ".join(absent)
            message = f"Sandboxes use the host's /usr/bin, which lacks {names}."
            return Finding("local.programs", False, message, f"Install {names} from packages.")
        return Finding("local.programs", True, "git, tmux, bash and python3 are in /usr/bin.")

    def _user(self) -> Finding:
        if os.geteuid() == 0:
            return Finding("local.users", True, "Each sandbox runs as a user of its own.")
        return Finding(
            "local.users",
            None,
            "The server is not root: all sandboxes run as its own user, so it is for one person.",
            "For several people use Docker, or run the server as root.",
        )

    def _firewall(self) -> Finding:
        if self.firewall is None:
            return Finding("local.firewall", True, "Firewall rules keep sandboxes off the host.")
        return Finding(
            "local.firewall",
            None,
            f"The firewall rules are not set: {self.firewall}.",
            "\n".join(self.firewall_commands),
        )

    def _limits(self) -> Finding:
        if may_limit():
            return Finding("local.limits", True, "Memory, processes and processors are limited.")
        return Finding(
            "local.limits",
            None,
            "No control group can be made: the memory and processors of sandboxes are not limited.",
            "Run the server as root with a writable /sys/fs/cgroup, or use Docker.",
        )

    def _calls(self) -> Finding:
        machine = platform.machine()
        if _local_seccomp.build(machine) is not None:
            return Finding("local.calls", True, "System calls of sandboxes are filtered.")
        return Finding("local.calls", None, f"There is no filter of system calls for {machine}.")


def attempt(argv: Sequence[str], uid: int) -> tuple[int, str]:
    """Run a program of the host to its end as a user; return its exit code and what it said."""
    user = None if uid == os.geteuid() else uid
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=TRIAL_S,
            env={"PATH": TOOL_PATH, "LC_ALL": "C"},
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, " ".join(done.stderr.decode(errors="replace").split())[-300:]


def open_tun() -> None:
    """Open the tunnel device to unprivileged users, where the server may.

    That is its usual mode: it only attaches to networks that the caller owns anyway. A machine
    without udev leaves it closed.

    Source: systemd's 50-udev-default.rules; the kernel's networking/tuntap.
    """
    if os.geteuid() == 0 and TUN.exists() and stat.S_IMODE(TUN.stat().st_mode) & 0o666 != TUN_MODE:
        TUN.chmod(TUN_MODE)
