"""The check at the end of a run: one that leaves something behind on the machine failed.

Tests start servers, sandboxes and containers that are made to outlive whoever started them, so a
clean-up that was forgotten shows nowhere else. What belongs to this run is told by its mark (in
the environment of its processes, in the names of its folders), by the ranges of user ids and by
the labels that it chose; what other runs on the same machine do is nobody's business here.
"""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from craftastic.runtimes._firewall import Firewall, FirewallUnavailable

MARK_NAME = "CRAFTASTIC_TEST_RUN"
FOLDERS = Path("/var/tmp")
CGROUPS = Path("/sys/fs/cgroup")
USERS = 65_536
"""User ids in the range of one server."""

GRACE_S = 5.0
"""How long what was told to end may still take after the last test."""

TOOL_S = 30.0
TOOL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Run:
    """What this run has made so far."""

    mark: str = field(default_factory=lambda: secrets.token_hex(6))
    instances: set[str] = field(default_factory=set[str])
    environments: set[str] = field(default_factory=set[str])
    networks: set[str] = field(default_factory=set[str])
    uid_bases: set[int] = field(default_factory=set[int])

    def new_folder(self, kind: str, mode: int = 0o755) -> Path:
        """Make a folder whose parents any user can pass: pytest's own are closed to others."""
        folder = Path(tempfile.mkdtemp(prefix=f"craftastic-{kind}-{self.mark}-", dir=FOLDERS))
        folder.chmod(mode)
        return folder

    def new_instance(self) -> str:
        """Return a new installation's id, which its containers carry as a label."""
        instance = secrets.token_hex(16)
        self.instances.add(instance)
        return instance

    def new_uid_base(self) -> int:
        """Return the first of a range of user ids: two servers in one would share a firewall."""
        base = 1_000_000 + USERS * secrets.randbelow(30_000)
        self.uid_bases.add(base)
        return base


RUN = Run()
os.environ[MARK_NAME] = RUN.mark  # noqa: TID251 - for the processes that tests start


async def remove_local_rules(uid_base: int) -> None:
    """Remove the firewall rules of local runtimes with this range; a server keeps them for ever."""
    with contextlib.suppress(FirewallUnavailable):
        for ipv6 in (False, True):
            await Firewall().remove(chain=f"CRAFTASTIC-LOCAL-{uid_base}", hook="OUTPUT", ipv6=ipv6)


def left_behind(run: Run) -> list[str]:
    """List what this run made and did not remove."""
    return [
        *_processes(run),
        *(f"folder {path}" for path in sorted(FOLDERS.glob(f"craftastic-*-{run.mark}-*"))),
        *_cgroups(run),
        *_chains(run),
        *_docker(run),
    ]


def _processes(run: Run) -> Iterator[str]:
    mark = f"{MARK_NAME}={run.mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            uid = entry.stat().st_uid
            of_a_sandbox = any(base <= uid < base + USERS for base in run.uid_bases)
            if of_a_sandbox or mark in (entry / "environ").read_bytes().split(b"\0"):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                # A zombie has none; Python's own tracker of shared memory ends with this process.
                if words and b"multiprocessing.resource_tracker" not in words:
                    shown = words.decode(errors="replace")[:120]
                    yield f"process {entry.name} of user {uid}: {shown}"


def _cgroups(run: Run) -> Iterator[str]:
    if not run.environments:
        return
    for pattern in ("craftastic/*", "*/craftastic/*"):
        for group in CGROUPS.glob(pattern):
            if any(one in group.name for one in run.environments):
                yield f"control group {group}"


def _chains(run: Run) -> Iterator[str]:
    if not run.uid_bases and not run.networks:
        return
    names = {str(base) for base in run.uid_bases} | {name.upper() for name in run.networks}
    for tool in ("iptables", "ip6tables"):
        for line in _output(tool, "--wait", "10", "-S"):
            chain = re.fullmatch(r"-N (\S+)", line)
            if chain and names & set(chain[1].upper().split("-")):
                yield f"{tool} chain {chain[1]}"


def _docker(run: Run) -> Iterator[str]:
    if run.instances:
        form = '{{.Label "craftastic.instance"}} {{.Names}}'
        for line in _output("docker", "ps", "--all", "--format", form):
            instance, _, name = line.partition(" ")
            if instance in run.instances:
                yield f"container {name}"
    if run.networks:
        for name in _output("docker", "network", "ls", "--format", "{{.Name}}"):
            if name in run.networks:
                yield f"Docker network {name}"


def _output(program: str, *arguments: str) -> list[str]:
    found = shutil.which(program, path=TOOL_PATH)
    if found is None or os.geteuid() != 0:
        return []
    done = subprocess.run(
        [found, *arguments], check=False, capture_output=True, text=True, timeout=TOOL_S
    )
    return done.stdout.splitlines() if done.returncode == 0 else []


def fail_if_something_is_left(session: pytest.Session) -> None:
    """Report what is left as one more failure."""
    deadline = time.monotonic() + GRACE_S
    while (left := left_behind(RUN)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if not left:
        return
    report = pytest.TestReport(
        nodeid="the machine after the tests",
        location=("", None, "the machine after the tests"),
        keywords={},
        outcome="failed",
        longrepr="These were left behind:\n" + "\n".join(left),
        when="teardown",
    )
    session.config.hook.pytest_runtest_logreport(report=report)
    if session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
