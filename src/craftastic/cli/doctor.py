"""`craftastic doctor`: what this machine has, what it lacks, and what to do about it."""

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import httpx

from craftastic.cli.output import printable, show_json
from craftastic.errors import CraftasticError
from craftastic.keys import ENCRYPTION_KEY
from craftastic.runtimes.base import Finding, Runtime
from craftastic.settings import Settings

PYTHON = (3, 11)
GIT = (2, 25)
TMUX = (3, 2)
PROGRAM_TIMEOUT_S = 10.0
CHECK_TIMEOUT_S = 60.0
LITTLE_DISK_BYTES = 5 << 30
NO_DISK_BYTES = 1 << 30
WORLD_WRITABLE = stat.S_IWOTH
PRIVATE = 0o077


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything that serving needs; changes nothing."""
    return [
        _python(),
        *await anyio.to_thread.run_sync(_programs),
        _disk(settings.data_dir),
        *_folders(settings),
        await _database(settings),
        *await _secrets(settings),
        *await _listeners(settings),
        *await _runtimes(settings),
    ]


def show(findings: Sequence[Finding], *, as_json: bool) -> None:
    if as_json:
        show_json(
            [
                {
                    "name": one.name,
                    "status": status(one),
                    "message": one.message,
                    "remedy": one.remedy,
                }
                for one in findings
            ]
        )
        return
    for one in findings:
        print(f"{status(one):4}  {printable(one.name):22}  {printable(one.message)}")
        if one.remedy and one.ok is not True:
            # A remedy may be several commands to copy: its lines stay lines.
            for line in one.remedy.splitlines():
                print(f"{'':6}→ {printable(line)}")
    failed = sum(one.ok is False for one in findings)
    print("\nThis machine can serve." if not failed else f"\n{failed} to mend before it can serve.")


def status(finding: Finding) -> str:
    return {True: "ok", None: "warn", False: "fail"}[finding.ok]


# ---- programs -------------------------------------------------------------------------------


def _python() -> Finding:
    have = sys.version_info[:3]
    text = "Python " + ".".join(map(str, have))
    if have >= PYTHON:
        return Finding("python", True, text)
    return Finding("python", False, f"{text} is too old", "Install Python 3.11 or newer.")


def _programs() -> list[Finding]:
    return [
        program("git", ["git", "--version"], GIT, needed=None),
        program("tmux", ["tmux", "-V"], TMUX, needed=None),
        program("bubblewrap", ["bwrap", "--version"], (0, 4), needed=None),
        program("pasta", ["pasta", "--version"], None, needed=None, package="passt"),
    ]


def program(
    name: str,
    command: Sequence[str],
    least: tuple[int, ...] | None,
    *,
    needed: bool | None,
    package: str | None = None,
) -> Finding:
    """Check that a program is there and new enough.

    Args:
        name: Of the finding, and of the package unless `package` says another.
        command: Prints its version.
        least: Oldest version that serves; None where any does.
        needed: What its absence means: False fails, None warns.
        package: Debian's name for it, where it differs.
    """
    remedy = f"Install it: apt-get install {package or name} (the local runtime needs it)."
    if shutil.which(command[0]) is None:
        return Finding(name, needed, f"{name} is not installed", remedy)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, needed, f"{name} does not run: {error}", remedy)
    text = (done.stdout or done.stderr).strip().partition("\n")[0]
    version = parse_version(text)
    if least is not None and version < least:
        wanted = ".".join(map(str, least))
        return Finding(name, needed, f"{text} is older than {wanted}", f"Install {name} {wanted}.")
    return Finding(name, True, text or name)


def parse_version(text: str) -> tuple[int, ...]:
    """Return the first dotted number in a text: `tmux 3.3a` is (3, 3)."""
    match = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


# ---- storage --------------------------------------------------------------------------------


def _nearest(path: Path) -> Path:
    """Return the path or the first of its parents that is there."""
    return next((one for one in (path, *path.parents) if one.exists()), Path("/"))


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(_nearest(folder)).free
    text = f"{free / (1 << 30):.1f} GiB free for {folder}"
    if free >= LITTLE_DISK_BYTES:
        return Finding("disk", True, text)
    remedy = "Free some space, or set CRAFTASTIC_DATA_DIR to a larger disk."
    return Finding("disk", None if free >= NO_DISK_BYTES else False, text, remedy)


def _folders(settings: Settings) -> list[Finding]:
    folder, keys = settings.data_dir, settings.keys_dir
    if not folder.exists():
        parent = _nearest(folder)
        if os.access(parent, os.W_OK | os.X_OK):
            return [Finding("data", True, f"{folder} will be made at the first start")]
        remedy = f"Make {folder} for the server's user, or set CRAFTASTIC_DATA_DIR."
        return [Finding("data", False, f"{folder} cannot be made in {parent}", remedy)]
    found = [_data_folder(folder)]
    if keys.exists():
        found.append(_keys_folder(keys))
    return found


def _data_folder(folder: Path) -> Finding:
    about = folder.stat()
    if not stat.S_ISDIR(about.st_mode):
        remedy = "Move it away, or set CRAFTASTIC_DATA_DIR to a folder."
        return Finding("data", False, f"{folder} is not a folder", remedy)
    if not os.access(folder, os.W_OK | os.X_OK):
        remedy = f"chown it to the server's user: chown -R USER {folder}"
        return Finding("data", False, f"{folder} cannot be written", remedy)
    if about.st_mode & WORLD_WRITABLE:
        return Finding(
            "data", False, f"{folder} can be written by everybody", f"chmod o-w {folder}"
        )
    return Finding("data", True, f"{folder} can be written")


def _keys_folder(keys: Path) -> Finding:
    try:
        open_ones = [
            path.name
            for path in (keys, *keys.iterdir())
            if path.lstat().st_mode & PRIVATE and not path.is_symlink()
        ]
    except PermissionError:
        remedy = "Run doctor as the server's user."
        return Finding("keys", None, f"{keys} belongs to another user", remedy)
    if open_ones:
        remedy = f"chmod -R go= {keys}"
        return Finding("keys", False, f"others can read {', '.join(sorted(open_ones))}", remedy)
    return Finding("keys", True, f"{keys} is the server's alone")


async def _database(settings: Settings) -> Finding:
    if settings.database_url is None:
        file = settings.data_dir / "craftastic.db"
        if not file.exists():
            return Finding("database", True, "SQLite; made at the first start")
    from craftastic.database import Database

    kind = settings.sqlalchemy_url.partition("+")[0].partition(":")[0]
    database = Database(settings.sqlalchemy_url)
    try:
        with anyio.fail_after(CHECK_TIMEOUT_S / 2):
            await database.ping()
    except (CraftasticError, TimeoutError):
        remedy = "Start it, and check DATABASE_URL and the rights of its file."
        return Finding("database", False, f"{kind} does not answer", remedy)
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()
    return Finding("database", True, f"{kind} answers")


async def _secrets(settings: Settings) -> list[Finding]:
    """Check that every secret's key is there; nothing where the database is not ready anyhow."""
    from craftastic.cli.key_commands import DatabaseNotReady, opened
    from craftastic.migrations.runner import MigrationRefused

    file = settings.keys_dir / ENCRYPTION_KEY
    if file.exists() and not (os.access(file, os.R_OK) and not file.stat().st_mode & PRIVATE):
        return []  # told above; to read the file would close it to others
    try:
        with anyio.fail_after(CHECK_TIMEOUT_S / 2):
            async with opened(settings) as credentials:
                counts = await credentials.counts()
                missing = sorted(set(counts) - set(credentials.keyring.ids))
    except (DatabaseNotReady, MigrationRefused, TimeoutError):
        return []
    except CraftasticError as error:
        return [Finding("secrets", False, error.message, error.details)]
    if not missing:
        return [Finding("secrets", True, f"{sum(counts.values())} secrets, and all their keys")]
    lost = sum(counts[key_id] for key_id in missing)
    text = f"{lost} secrets are under keys that are not there: {', '.join(missing)}"
    remedy = "Put them into the key file, or into CRAFTASTIC_ENCRYPTION_OLD_KEYS."
    return [Finding("secrets", None, text, remedy)]


# ---- listeners ------------------------------------------------------------------------------


async def _listeners(settings: Settings) -> list[Finding]:
    answers = await _healthy(settings)
    if answers:
        return [Finding("server", True, f"a server answers at {settings.base_url}")]
    found = [Finding("server", None, "no server is running", "Start it with `craftastic serve`.")]
    for name, host, port, variable in (
        ("port.api", settings.host, settings.port, "CRAFTASTIC_PORT"),
        ("port.gateway", "127.0.0.1", settings.gateway_port, "CRAFTASTIC_GATEWAY_PORT"),
    ):
        found.append(_port(name, host, port, variable))
    return found


async def _healthy(settings: Settings) -> bool:
    host = settings.host if settings.host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        try:
            answer = await client.get(f"http://{host}:{settings.port}/healthz")
        except (httpx.TransportError, httpx.InvalidURL):
            return False
    return answer.is_success


def _port(name: str, host: str, port: int, variable: str) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # The server sets it too: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            remedy = f"End what listens there, or set {variable} to another port."
            return Finding(name, False, f"{host}:{port} cannot be used: {error.strerror}", remedy)
    return Finding(name, True, f"{host}:{port} is free")


# ---- runtimes -------------------------------------------------------------------------------


async def _runtimes(settings: Settings) -> list[Finding]:
    """Ask every driver; with `auto` one that works is enough."""
    from craftastic.runtimes.registry import build_runtimes

    try:
        instance = (settings.keys_dir / "instance").read_text().strip()
    except OSError:
        instance = "00000000-0000-4000-8000-000000000000"  # nothing is made under it
    runtimes = await build_runtimes(settings, instance)
    try:
        found = {name: await _check(runtime) for name, runtime in runtimes.items()}
    finally:
        await runtimes.close()
    return judge_runtimes(found, settings.runtime)


async def _check(runtime: Runtime) -> list[Finding]:
    try:
        with anyio.fail_after(CHECK_TIMEOUT_S):
            return [_set_at_start(one) for one in await runtime.check()]
    except CraftasticError as error:
        return [Finding(runtime.name, False, error.message, error.details)]
    except TimeoutError:
        return [Finding(runtime.name, False, "it did not answer in time")]


def _set_at_start(one: Finding) -> Finding:
    """Return the finding without commands that a server which runs as root gives by itself."""
    if os.geteuid() != 0 or one.ok is not None or not one.name.endswith(".firewall"):
        return one
    remedy = "The server, as root, sets them at its start; its log says so if it cannot."
    return replace(one, message="No rules keep sandboxes off this host yet", remedy=remedy)


def judge_runtimes(found: dict[str, list[Finding]], wanted: str) -> list[Finding]:
    """Weigh what the drivers found: only the one that will be used has to work.

    Args:
        found: By driver.
        wanted: The setting: a driver's name, or `auto` for the first that works.
    """
    works = {name for name, all_of in found.items() if all(one.ok is not False for one in all_of)}
    weighed: list[Finding] = []
    for name, all_of in found.items():
        fatal = name == wanted if wanted != "auto" else not works
        weighed += [
            one if fatal or one.ok is not False else replace(one, ok=None) for one in all_of
        ]
    usable = works if wanted == "auto" else works & {wanted}
    if usable:
        return [*weighed, Finding("runtime", True, f"can be used: {', '.join(sorted(usable))}")]
    remedy = "Mend one of the runtimes above; `local` needs the least: bubblewrap, pasta and tmux."
    return [*weighed, Finding("runtime", False, "no runtime works", remedy)]
