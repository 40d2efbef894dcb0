"""Limits of a local sandbox: resource limits always, control groups where the server is root."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PARENT = "craftastic"
CPU_PERIOD_US = 100_000
MAX_FILE_BYTES = 64 << 30
MAX_OPEN_FILES = 65_536
OWN_PROCESSES = 8
"""Processes outside the sandbox that run as its user: pasta and what it holds open."""

V1 = ("memory", "pids", "cpu")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use."""

    memory_bytes: int
    cpus: float
    pids: int


def resource_limits(limits: Limits, *, own_user: bool) -> dict[str, int]:
    """Return the limits that the sandbox's first process sets for itself and all others.

    Args:
        limits: The sandbox's own.
        own_user: The sandbox has a user id of its own; processes are counted by user.
    """
    found = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": MAX_FILE_BYTES,
        "RLIMIT_NOFILE": MAX_OPEN_FILES,
        "RLIMIT_MEMLOCK": 8 << 20,
        "RLIMIT_MSGQUEUE": 1 << 20,
    }
    if own_user:
        found["RLIMIT_NPROC"] = limits.pids + OWN_PROCESSES
    return found


def hierarchies(root: Path = CGROUPS) -> dict[str, Path]:
    """Return where each needed controller is; a unified hierarchy serves all of them.

    Source: the kernel's admin-guide/cgroup-v1 and cgroup-v2.
    """
    if (root / "cgroup.controllers").is_file():
        with contextlib.suppress(OSError):
            known = (root / "cgroup.controllers").read_text().split()
            return {name: root for name in V1 if name in known}
        return {}
    return {name: root / name for name in V1 if (root / name / "tasks").exists()}


def may_limit(root: Path = CGROUPS) -> bool:
    """Report whether memory and processes can be limited by control groups."""
    found = hierarchies(root)
    return (
        os.geteuid() == 0
        and {"memory", "pids"} <= set(found)
        and all(os.access(path, os.W_OK) and not _read_only(path) for path in found.values())
    )


def _read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _settings(limits: Limits, *, unified: bool) -> Iterator[tuple[str, str, str]]:
    """Yield controller, file and value, in the order in which they must be written."""
    quota = int(limits.cpus * CPU_PERIOD_US)
    memory = str(limits.memory_bytes)
    if unified:
        yield "memory", "memory.max", memory
        yield "memory", "memory.swap.max", "0"
        yield "pids", "pids.max", str(limits.pids)
        yield "cpu", "cpu.max", f"{quota} {CPU_PERIOD_US}"
        return
    yield "memory", "memory.limit_in_bytes", memory
    yield "memory", "memory.memsw.limit_in_bytes", memory
    yield "pids", "pids.max", str(limits.pids)
    yield "cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US)
    yield "cpu", "cpu.cfs_quota_us", str(quota)


def confine(name: str, process: int, limits: Limits, root: Path = CGROUPS) -> list[str]:
    """Put a process into a group of its own with these limits; what it starts stays in it.

    Args:
        name: The group's name.
        process: Its id, as the host sees it.
        limits: What the group may use.
        root: Where control groups are.

    Returns:
        What could not be limited, in plain words; empty when everything is.
    """
    found = hierarchies(root)
    unified = (root / "cgroup.controllers").is_file()
    trouble: list[str] = [f"no {one} control group" for one in V1 if one not in found]
    for controller, path in found.items():
        group = path / PARENT / name
        try:
            if unified:
                _delegate(root)
            group.mkdir(parents=True, exist_ok=True)
            for one, file, value in _settings(limits, unified=unified):
                if one == controller and (group / file).exists():
                    (group / file).write_text(value)
            (group / "cgroup.procs").write_text(str(process))
        except OSError as error:
            trouble.append(f"{controller}: {error.strerror}")
    return trouble


def _delegate(root: Path) -> None:
    wanted = " ".join(f"+{name}" for name in V1)
    (root / PARENT).mkdir(exist_ok=True)
    for path in (root, root / PARENT):
        (path / "cgroup.subtree_control").write_text(wanted)


def release(name: str, root: Path = CGROUPS) -> None:
    """Remove the group; one that is not there, or not empty yet, is left."""
    for path in hierarchies(root).values():
        with contextlib.suppress(OSError):
            (path / PARENT / name).rmdir()


def memory_group(name: str, root: Path = CGROUPS) -> Path | None:
    """Return where a group's use of memory is told, or None where memory is not limited."""
    path = hierarchies(root).get("memory")
    group = None if path is None else path / PARENT / name
    return group if group is not None and group.is_dir() else None


def killed_for_memory(group: Path) -> int:
    """Return how many programs of a group were killed because it was at its limit of memory.

    Source: the kernel's admin-guide/cgroup-v2 (memory.events) and cgroup-v1/memory.rst, section 10.
    """
    for file in ("memory.events", "memory.oom_control"):
        with contextlib.suppress(OSError, ValueError):
            for line in (group / file).read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return 0
