"""The agent types that there are: those of the package, and those of the server's data folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import structlog

from craftastic.agents._manifest import (
    MAX_MANIFEST_BYTES,
    BadManifest,
    check_address,
    read_manifest,
)
from craftastic.agents._model import (
    AgentType,
    CredentialKind,
    Delivery,
    HookWords,
    Problem,
    SeedFile,
)
from craftastic.agents._templates import PlaceholderMissing, render
from craftastic.errors import InvalidInput

__all__ = [
    "AgentType",
    "AgentTypes",
    "BadManifest",
    "CredentialKind",
    "Delivery",
    "HookWords",
    "PlaceholderMissing",
    "Problem",
    "SeedFile",
    "UnknownAgentType",
    "check_address",
    "read_file",
    "read_manifest",
    "render",
]

BUILT_IN = Path(__file__).parent / "types"
FOLDER = "agent-types"
MAX_FILES = 100

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class UnknownAgentType(InvalidInput):
    code = "UNKNOWN_AGENT_TYPE"


@dataclass(frozen=True, slots=True)
class AgentTypes:
    """The agent types of a server, and what was wrong with files that describe none.

    Attributes:
        problems: One for each thing that is wrong; the files they are of are left out.
    """

    types: Mapping[str, AgentType]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def load(cls, data_dir: Path) -> "AgentTypes":
        """Read all manifests; one in `<data_dir>/agent-types` replaces a built-in of its name.

        It reads files: call it in a thread. What is wrong is logged, and in `problems`.
        """
        types, problems = _read_all(BUILT_IN, BUILT_IN.glob("*.toml"))
        own, more = _read_all(data_dir, (data_dir / FOLDER).glob("*.toml"))
        problems += more
        for problem in problems:
            log.warning(
                "an agent type was left out",
                file=problem.file,
                place=problem.place,
                why=problem.message,
            )
        return cls({**types, **own}, tuple(problems))

    def get(self, name: str) -> AgentType:
        """Return the type of a name.

        Raises:
            UnknownAgentType: There is none.
        """
        found = self.types.get(name)
        if found is None:
            raise UnknownAgentType(
                f"There is no agent type {name[:40]!r}",
                details=f"There are {', '.join(sorted(self.types)) or 'none'}.",
            )
        return found

    def all(self) -> Sequence[AgentType]:
        """Return all types by their names."""
        return [self.types[name] for name in sorted(self.types)]


def read_file(path: Path, shown: str) -> AgentType:
    """Read one manifest from a file.

    Args:
        path: Of the file.
        shown: What to call it in problems.

    Raises:
        BadManifest: It cannot be read, or does not describe an agent type.
    """
    try:
        if not S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
            raise BadManifest([Problem(shown, "", "is no file")])
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BadManifest([Problem(shown, "", f"cannot be read: {error.strerror}")]) from None
    except ValueError:
        raise BadManifest([Problem(shown, "", "is no path")]) from None
    return read_manifest(content, shown)


def _read_all(folder: Path, found: Iterable[Path]) -> tuple[dict[str, AgentType], list[Problem]]:
    types: dict[str, AgentType] = {}
    problems: list[Problem] = []
    paths = sorted(found)
    for path in paths[:MAX_FILES]:
        shown = path.relative_to(folder).as_posix()
        try:
            one = read_file(path, shown)
        except BadManifest as error:
            problems += error.problems
            continue
        if one.name in types:
            problems.append(Problem(shown, "name", f"another file describes {one.name!r} already"))
        else:
            types[one.name] = one
    if len(paths) > MAX_FILES:
        problems.append(Problem(folder.name, "", f"only {MAX_FILES} files are read"))
    return types, problems
