"""The gate of secrets: a test fails whose secrets can be read where nobody may read them.

A pytest plugin that is always on. While a test runs, everything logs at DEBUG, and every secret
that comes through the product's own doors is noted (`tests/secrecy_doors.py`): passwords, tokens
that are made or shown, what is encrypted, the operator's own keys, and what tests send to servers
that are other processes. `canary` gives tests a secret of their own that is like no other.

After the test, what was noted is looked for in what was logged, in a dump of each database that
was used, in the arguments and environments of processes, and in what Docker tells of containers.
A find fails the test. It tells the place and the kind of the secret, and never its value.

Where a test shows a secret on purpose it says so by `allow`, for that secret and that place alone;
an allowance that nothing needs is a failure too.
"""

import base64
import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import structlog

from craftastic import logs
from tests import secrecy_dumps

LEAST_CHARS = 12
"""Shorter texts stand in many places by chance."""

LEAST_DIFFERENT = 6
"""A text of fewer different characters is no secret, but a test of lengths."""

MOST_WRITTEN = 8 << 20
"""Bytes of log that are kept before they are searched."""

TOOL_S = 30.0
AROUND = 60
"""How much of what stands around a find is shown."""

NO_SECRET = re.compile(
    r"[a-z+]+://\S*|[^@\s]+@[^@\s]+\.[a-z]+|[\d\W]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    re.IGNORECASE,
)
"""Origins go through the same function as tokens; some tests try addresses as passwords, and take
users' ids for their tokens."""

OWN_NAME = re.compile(rb"(?:^|(?<=\0))PYTEST_CURRENT_TEST=[^\0]*")
"""Children inherit the name of the test that runs, with its parameters."""

VARIABLES = "what is stored for variable"
"""Users' variables are stored to be in the environment of their shells; the tests of variables say
which shells these are.
"""

SHAPES = {
    "a token of the form of a JWT": re.compile(
        rb"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}"
    ),
    "a token of the form of a personal access token": re.compile(rb"\bcraft_[A-Za-z0-9_-]{32,}"),
    "a token of the form of GitHub's": re.compile(
        rb"\b(?:gh[opusr]_|github_pat_)[A-Za-z0-9_]{20,}"
    ),
}
"""What says by itself that it is a secret, whether or not it came through a door."""


class Place(StrEnum):
    """Where a secret must not be."""

    LOG = "log"
    DATABASE = "database"
    ARGUMENTS = "arguments of a process"
    ENVIRONMENT = "environment of a process"
    DOCKER = "docker inspect"


SHAPED = frozenset({Place.LOG, Place.DATABASE, Place.DOCKER})
"""Not the processes: others' are among them, with others' tokens."""


@dataclass
class Allowance:
    """A secret that a test shows on purpose in one place."""

    place: Place
    because: str
    value: str | None
    kind: str | None
    used: bool = False

    def covers(self, place: Place, kind: str, value: str | None) -> bool:
        if place is not self.place:
            return False
        if self.value is not None:
            return value is not None and self.value in value
        return self.kind is None or self.kind == kind

    def __str__(self) -> str:
        return f"{self.kind or 'a value'} in the {self.place}, because {self.because}"


@dataclass
class Evidence:
    """What one place holds, and which part of it a find stands in."""

    place: Place
    name: str
    content: bytes
    part: Callable[[bytes], str] = lambda _form: ""


@dataclass
class Written:
    """The stream that all logs of this process are written to as well."""

    gate: "Gate"
    pieces: list[str] = field(default_factory=list[str])
    size: int = 0

    def write(self, text: str) -> int:
        self.pieces.append(text)
        self.size += len(text)
        if self.size > MOST_WRITTEN:
            self.gate.search([self.taken()])
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return False

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def taken(self) -> Evidence:
        """Return what was written so far, and forget it."""
        content = self.text.encode("utf-8", "replace")
        self.pieces, self.size = [], 0
        return Evidence(Place.LOG, "what this process logged", content)


@dataclass
class Both:
    """A stream of a test's own, and the gate's."""

    one: Any
    written: Written

    def write(self, text: str) -> int:
        self.written.write(text)
        return self.one.write(text)

    def flush(self) -> None:
        self.one.flush()

    def isatty(self) -> bool:
        return self.one.isatty()


class Gate:
    """What is secret now, where it may be seen, and where it was found."""

    def __init__(self) -> None:
        self.canaries: dict[str, str] = {}
        self.of_servers: dict[str, str] = {}
        self.known: dict[str, str] = {}
        self.written = Written(self)
        self.allowances: list[Allowance] = []
        self.finds: dict[str, None] = {}
        self.spawned: dict[tuple[Place, str, bytes], None] = {}
        self.evidence: dict[str, Evidence] = {}
        self.databases: dict[str, None] = {}
        self.logs: dict[Path, int] = {}
        self._forms: dict[str, tuple[bytes, ...]] = {}
        self._lock = threading.Lock()

    # ---- what is secret ---------------------------------------------------------------------

    def canary(self, what: str) -> str:
        """Return a text that is like no other, to be used as a secret; it counts until the end."""
        value = f"Canary-{what}-{secrets.token_hex(8)}"
        self.canaries[value] = f"the canary of {what}"
        return value

    def know(self, value: str, kind: str, *, of_a_server: bool = False) -> None:
        """Note a secret; with `of_a_server`, for as long as other tests may use that server."""
        if value.startswith("eyJ") and value.count(".") == 2:
            value = value.partition(".")[2]  # what its first part says is no secret
        if counts(value):
            (self.of_servers if of_a_server else self.known).setdefault(value, kind)

    def allow(
        self,
        place: Place,
        *,
        because: str,
        value: str | None = None,
        kind: str | None = None,
        always: bool = True,
    ) -> None:
        """Allow a secret in a place; with `always` off it may be over before anybody looks."""
        if value is None and kind is None:
            raise ValueError("an allowance is for a value, or for a kind of secret")
        self.allowances.append(Allowance(place, because, value, kind, used=not always))

    def forget(self, *, because: str) -> None:
        """Forget what was noted in this test: its secrets are shown elsewhere on purpose.

        Canaries, and what has the form of a token, are looked for all the same.
        """
        assert because
        self.known.clear()

    # ---- where it may be --------------------------------------------------------------------

    def show(self, evidence: Evidence) -> None:
        """Keep what a place holds until all secrets of the test are known; the latest counts."""
        self.evidence[evidence.name] = evidence

    def log_file(self, path: Path) -> None:
        """Take what was added to a server's log."""
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(self.logs.get(path, 0))
            content = file.read()
            start = self.logs.get(path, 0)
            self.logs[path] = start + len(content)
            name = f"the server's {path.name} from byte {start}"
            self.show(Evidence(Place.LOG, name, content))

    def logged(self, content: bytes, name: str) -> None:
        """Take what a server said to its standard error."""
        self.show(Evidence(Place.LOG, name, content))

    def database(self, url: str) -> None:
        """Dump a database as it is now."""
        for table, rows in secrecy_dumps.tables(url):
            name = f"{url.rpartition('/')[2]}, table {table}"
            content, part = secrecy_dumps.as_bytes(rows)
            self.show(Evidence(Place.DATABASE, name, content, part))

    def processes(self) -> None:
        """Take the arguments and environments of all processes, whoever started them."""
        own = str(os.getpid())
        seen: dict[str, dict[bytes, None]] = {"environ": {}, "cmdline": {}}
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit() or entry.name == own:
                continue
            with contextlib.suppress(OSError):
                program = Path(entry.path, "cmdline").read_bytes()
                seen["cmdline"][program] = None
                name = program.partition(b"\0")[0].rpartition(b"/")[2]
                found = OWN_NAME.sub(b"", Path(entry.path, "environ").read_bytes())
                seen["environ"][name + b"\0" + found] = None
        for place, kind in ((Place.ARGUMENTS, "cmdline"), (Place.ENVIRONMENT, "environ")):
            contents = seen[kind]
            if before := self.evidence.get(f"/proc/*/{kind}"):
                contents[before.content] = None
            self.show(Evidence(place, f"/proc/*/{kind}", b"\n".join(contents)))

    def docker(self, instances: Iterable[str]) -> None:
        """Take what the engine tells of the containers of these installations."""
        docker = shutil.which("docker")
        wanted = set(instances)
        if docker is None or not wanted:
            return
        form = '{{.ID}} {{.Label "craftastic.instance"}}'
        listed = _output(docker, "ps", "--all", "--format", form)
        pairs = [line.split(" ") for line in listed.decode().splitlines()]
        ids = [one for one, instance in pairs if instance in wanted]
        if ids:
            content = _output(docker, "inspect", *ids)
            self.show(Evidence(Place.DOCKER, f"docker inspect of {' '.join(ids)}", content))

    def process_starts(self, argv: Any, environment: Any) -> None:
        """Note a process that is being started: a short one has ended when anybody looks."""
        words = [argv] if isinstance(argv, str | bytes | os.PathLike) else list(argv)
        own = os.environ  # noqa: TID251 - what a child inherits
        pairs = (own if environment is None else environment).items()
        # The test's own name, with its parameters, is no work of the product.
        pairs = [(name, value) for name, value in pairs if name != "PYTEST_CURRENT_TEST"]
        program = os.fsdecode(words[0]) if words else ""
        name = f"a started {Path(program).name}"
        line = b"\0".join(map(os.fsencode, words))
        block = b"\0".join(os.fsencode(key) + b"=" + os.fsencode(one) for key, one in pairs)
        self.spawned[Place.ARGUMENTS, name, line] = None
        self.spawned[Place.ENVIRONMENT, name, block] = None

    # ---- the search -------------------------------------------------------------------------

    def search(self, places: Iterable[Evidence]) -> None:
        """Look for all that is known now in what places hold, and keep the finds."""
        with self._lock:
            known = {**self.canaries, **self.of_servers, **self.known}
            for evidence in places:
                for kind, value, form in self._found(known, evidence):
                    self._judge(evidence, kind, value, form, known)

    def _found(
        self, known: dict[str, str], evidence: Evidence
    ) -> Iterator[tuple[str, str | None, bytes]]:
        content = evidence.content
        for value, kind in known.items():
            for form in self._forms_of(value):
                if form in content:
                    yield kind, value, form
                    break
        if evidence.place in SHAPED:
            for kind, shape in SHAPES.items():
                if match := shape.search(content):
                    yield kind, None, match[0]

    def _forms_of(self, value: str) -> tuple[bytes, ...]:
        if value not in self._forms:
            self._forms[value] = forms(value)
        return self._forms[value]

    def _judge(
        self, evidence: Evidence, kind: str, value: str | None, form: bytes, known: dict[str, str]
    ) -> None:
        covering = [one for one in self.allowances if one.covers(evidence.place, kind, value)]
        for one in covering:
            one.used = True
        meant = evidence.place is Place.ENVIRONMENT and kind.startswith(VARIABLES)
        if not covering and not meant:
            around = self._around(evidence.content, form, known)
            where = f"{evidence.name}{evidence.part(form)}"
            self.finds[f"{kind} is in the {evidence.place} ({where}): {around}"] = None

    def _around(self, content: bytes, form: bytes, known: dict[str, str]) -> str:
        at = content.index(form)
        near = content[max(0, at - 4 * AROUND) : at + len(form) + 4 * AROUND]
        for value in known:
            for one in self._forms_of(value):
                near = near.replace(one, b"[secret]")
        near = near.replace(form, b"[secret]")
        middle = near.find(b"[secret]")
        return repr(near[max(0, middle - AROUND) : middle + AROUND])[1:]

    # ---- the life of a test -----------------------------------------------------------------

    def begin(self) -> None:
        """Log at DEBUG, as the product does, into what is searched."""
        root = logging.getLogger()
        ours = any(getattr(one, "stream", None) is self.stream for one in root.handlers)
        if not ours or not structlog.is_configured() or root.level != logging.DEBUG:
            logs.configure(level="debug", format="json", stream=self.written)  # type: ignore[arg-type] - enough of a stream
            (handler,) = root.handlers
            self.stream = handler.stream  # type: ignore[attr-defined] - it is a stream's

    stream: Any = object()

    def look(self, *, at_docker: Iterable[str] = ()) -> None:
        """Take what can only be seen while the test's fixtures are still there."""
        if self.spawned or self.logs:
            self.processes()
        for path in list(self.logs):
            self.log_file(path)
        self.docker(at_docker)

    def end(self, *, passed: bool) -> list[str]:
        """Search everything; return what is wrong, and begin anew."""
        for url in self.databases:
            if secrecy_dumps.is_there(url):
                self.database(url)
        started = [Evidence(*one) for one in self.spawned]
        self.search([self.written.taken(), *self.evidence.values(), *started])
        wrong = list(self.finds)
        if passed:
            wrong += [f"nothing needs to allow {one}" for one in self.allowances if not one.used]
        self.known.clear()
        self.allowances.clear()
        self.finds.clear()
        self.spawned.clear()
        self.evidence.clear()
        self.databases.clear()
        self._forms = {value: self._forms[value] for value in self.canaries if value in self._forms}
        return wrong

    def new_module(self) -> None:
        """Forget the servers of a file of tests, which end with it."""
        self.of_servers.clear()
        self.logs.clear()


GATE = Gate()
canary = GATE.canary
allow = GATE.allow
forget = GATE.forget


def counts(value: str) -> bool:
    """Tell whether a text can be looked for without finding what is something else."""
    if len(value) < LEAST_CHARS or len(set(value)) < LEAST_DIFFERENT:
        return False
    return NO_SECRET.fullmatch(value) is None


def forms(value: str) -> tuple[bytes, ...]:
    """Return how a secret may be written: as it is, escaped, in a URL, in base64."""
    raw = value.encode("utf-8", "surrogatepass")
    found = {raw}
    if not value.isalnum():
        found |= {
            json.dumps(value)[1:-1].encode(),
            json.dumps(value, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass"),
            repr(value)[1:-1].encode("utf-8", "surrogatepass"),
            quote(value, safe="", errors="replace").encode(),
        }
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=")
        # The first and the last characters also depend on what stands beside the secret.
        core = encoded[-(-shift * 8 // 6) : -2]
        found |= {core, core.replace(b"+", b"-").replace(b"/", b"_")}
    return tuple(found)


def _output(*argv: str) -> bytes:
    done = subprocess.run(argv, check=False, capture_output=True, timeout=TOOL_S)
    return done.stdout if done.returncode == 0 else b""


class Plugin:
    """Puts the gate around each test.

    Args:
        instances: Returns the ids of the installations that this run has made so far.
    """

    def __init__(self, instances: Callable[[], Iterable[str]]) -> None:
        self._instances = instances
        self._module: str | None = None
        self._failed = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        module = item.nodeid.partition("::")[0]
        if module != self._module:
            GATE.new_module()
            self._module = module
        self._failed = False
        GATE.begin()
        yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self._failed = self._failed or not report.passed
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        with_docker = item.get_closest_marker("docker") is not None
        GATE.look(at_docker=self._instances() if with_docker else ())
        try:
            yield
        except BaseException:
            self._failed = True
            raise
        finally:
            text = GATE.written.text if self._failed else ""
            wrong = GATE.end(passed=not self._failed)
        if text:
            item.add_report_section("teardown", "log", text[-20_000:])
        if wrong:
            pytest.fail("The gate of secrets found:\n" + "\n".join(wrong), pytrace=False)
