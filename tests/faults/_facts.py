"""What there is of one server at a moment: rows, sandboxes, what runs in them, files, processes.

Everything is read from outside of the server, which may be stopped, paused or dead meanwhile.
"""

import os
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import select

from craftastic.audit.service import AuditService, Verification
from craftastic.clock import SystemClock
from craftastic.database import Database
from craftastic.runtimes.base import Runtime, RuntimeUnavailable, SandboxState, SandboxSummary
from craftastic.runtimes.docker import DockerRuntime
from craftastic.runtimes.local import LocalRuntime
from craftastic.settings import Settings
from craftastic.tables import METADATA
from tests.conftest import driver_url
from tests.e2e.harness import Server
from tests.leaks import CGROUPS, USERS

Row = Mapping[str, Any]

TREES = ("homes", "repos", "worktrees", "sandboxes", "run")
IN_A_SANDBOX = """
tmux -N -u -S /run/craftastic/tmux.sock list-sessions -F 'tmux #{session_name}' 2>/dev/null
tmux -N -u -S /run/craftastic/tmux.sock list-clients -F 'client #{session_name}' 2>/dev/null
for one in /run/craftastic/*; do
    # The folder of a pane whose reader was killed goes with the next reader.
    case $one in */pane.*) flock -n "$one/lock" true 2>/dev/null && continue ;; esac
    [ -e "$one" ] && echo "file ${one##*/}"
done
for one in /proc/[0-9]*/cmdline; do
    printf 'process '
    tr '\\0\\n' '  ' <"$one" 2>/dev/null
    echo
done
echo whole
"""


@dataclass(frozen=True, slots=True)
class Inside:
    """What is in one running sandbox, by its own account."""

    tmux: list[str]
    clients: list[str]
    files: list[str]
    processes: list[str]


@dataclass(frozen=True, slots=True)
class Trees:
    """One environment's storage on the host.

    Args:
        worktrees: Folders with a `.git` file, relative to where all of them are.
        entries: Where each entry of git's own list says its worktree is, likewise relative.
        leftovers: Files that a git command, or a script of ours, holds only while it runs.
    """

    worktrees: list[str]
    entries: list[str]
    leftovers: list[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the invariants are about."""

    server: Server
    now: float
    environments: list[Row]
    sessions: list[Row]
    leases: list[Row]
    audit: Verification
    sandboxes: list[SandboxSummary]
    inside: dict[UUID, Inside]
    folders: dict[str, list[str]]
    trees: dict[UUID, Trees]
    processes: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    """Of sandboxes' own users on the host, by the user's number in the server's range."""

    groups: list[str] = field(default_factory=list[str])


def settings_of(server: Server) -> Settings:
    return Settings.model_validate(
        {
            "data_dir": server.data_dir,
            "gateway_port": server.gateway_port,
            "sandbox_uid_base": server.uid_base,
            "agent_tools": "none",
            "docker_host": server.environment.get("DOCKER_HOST"),
        }
    )


def database_url_of(server: Server) -> str:
    return server.environment.get("DATABASE_URL") or f"sqlite:///{server.data_dir}/craftastic.db"


def runtime_of(server: Server) -> Runtime:
    """Return the server's runtime, as a second pair of eyes."""
    instance = (server.data_dir / "keys" / "instance").read_text().strip()
    kind = LocalRuntime if server.environment["CRAFTASTIC_RUNTIME"] == "local" else DockerRuntime
    return kind(settings_of(server), instance)


async def rows_of(database: Database, table: str) -> list[Row]:
    async with database.read() as tx:
        found = await tx.execute(select(METADATA.tables[table]))
        return [dict(one) for one in found.mappings()]


async def gather(server: Server, *, ahead_s: float = 0) -> Facts:
    """Look at everything once; the server's clock is so much ahead of the true one."""
    database = Database(driver_url(database_url_of(server)))
    runtime = runtime_of(server)
    try:
        sandboxes = await runtime.list()
        inside = {
            one.environment_id: await _look_inside(runtime, one)
            for one in sandboxes
            if one.state is SandboxState.RUNNING
        }
        environments = await rows_of(database, "environments")
        return Facts(
            server=server,
            now=SystemClock().now().timestamp() + ahead_s,
            environments=environments,
            sessions=await rows_of(database, "sessions"),
            leases=await rows_of(database, "terminal_leases"),
            audit=await AuditService(database, SystemClock()).verify(),
            sandboxes=sandboxes,
            inside=inside,
            folders={tree: _names(server.data_dir / tree) for tree in TREES},
            trees={one["id"]: _trees(server.data_dir, one["id"]) for one in environments},
            processes=dict(_processes(server)),
            groups=[one.name for one in _groups()],
        )
    finally:
        await runtime.close()
        await database.close()


async def _look_inside(runtime: Runtime, one: SandboxSummary) -> Inside:
    result = await runtime.run(one.ref, ["sh", "-c", IN_A_SANDBOX], timeout_s=20)
    lines = result.stdout.decode(errors="replace").splitlines()
    if lines[-1:] != ["whole"]:
        raise RuntimeUnavailable(f"what looked inside ended with {result.exit_code}: {lines[-1:]}")
    found: dict[str, list[str]] = {"tmux": [], "client": [], "file": [], "process": []}
    for line in lines[:-1]:
        kind, _, rest = line.partition(" ")
        found[kind].append(rest.strip())
    processes = [one for one in found["process"] if one and "echo whole" not in one]
    return Inside(found["tmux"], found["client"], found["file"], processes)


def _names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []


def _trees(data_dir: Path, environment_id: UUID) -> Trees:
    """Read what git and the scripts left; only names and one line of each pointer are looked at."""
    root = data_dir / "worktrees" / str(environment_id)
    repository = data_dir / "repos" / str(environment_id)
    worktrees: list[str] = []
    for folder, names, files in os.walk(root):
        here = Path(folder).relative_to(root).as_posix()
        if here == ".":
            names[:] = [one for one in names if one != ".kept"]
        elif ".git" in files:
            worktrees.append(here)
            names.clear()
    entries: list[str] = []
    for pointer in (repository / "worktrees").glob("*/gitdir"):
        with suppress(FileNotFoundError):
            text = pointer.read_text().strip()
            found = re.fullmatch(rf".*/worktrees/{environment_id}/(.*)/\.git", text)
            entries.append(found[1] if found else f"? {text}")
    leftovers = [
        path.relative_to(repository).as_posix()
        for path in repository.rglob("*")
        # What a repair has set aside is kept with all that was in it.
        if not path.relative_to(repository).parts[0].startswith("damaged-")
        and (
            (path.suffix == ".lock" and path.name != "craftastic.lock")
            or path.name in {"craftastic.config.new", "craftastic.found", "craftastic.head"}
            or path.name.startswith(("tmp_", "craftastic-index", "craftastic-new"))
        )
    ]
    return Trees(sorted(worktrees), sorted(entries), sorted(leftovers))


def _processes(server: Server) -> Iterator[tuple[int, list[str]]]:
    found: dict[int, list[str]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            number = entry.stat().st_uid - server.uid_base
            if 0 <= number < USERS:
                words = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                if words:  # a zombie has none
                    found.setdefault(number, []).append(f"{entry.name} {words[:200]}")
    yield from found.items()


def _groups() -> Iterator[Path]:
    for pattern in ("craftastic/*", "*/craftastic/*"):
        yield from (one for one in CGROUPS.glob(pattern) if one.is_dir())


def containers_of(server: Server) -> list[str]:
    """List the containers that carry the installation's label, by Docker's own client."""
    instance = (server.data_dir / "keys" / "instance").read_text().strip()
    listed = subprocess.run(
        ["docker", "ps", "-aq", "--no-trunc", "--filter", f"label=craftastic.instance={instance}"],
        env=server.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return listed.stdout.split()


def seen_by_others(server: Server, secrets: Collection[str]) -> Iterator[str]:
    """Yield where a secret stands that others than its owner can read, and never its value."""
    from tests.secrecy_dumps import tables  # noqa: PLC0415 - a thread of its own for PostgreSQL

    wanted = [one.encode() for one in secrets]
    for table, cells in tables(database_url_of(server)):
        for column, cell in cells:
            if any(one in cell for one in wanted):
                yield f"table {table}, column {column}"
    if any(one in server.log.read_bytes() for one in wanted):
        yield f"log {server.log.name}"
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            said = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
            if int(entry.name) != os.getpid() and any(one in said for one in wanted):
                yield f"process {entry.name}"
    if server.environment["CRAFTASTIC_RUNTIME"] == "docker" and (ids := containers_of(server)):
        shown = subprocess.run(
            ["docker", "inspect", *ids],
            env=server.environment,
            capture_output=True,
            check=True,
            timeout=60,
        )
        if any(one in shown.stdout for one in wanted):
            yield "docker inspect"
