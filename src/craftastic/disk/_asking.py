"""What is asked of the program in the sandbox, and its answers, which are hostile."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from craftastic.disk._model import Freed, Report, Tokens
from craftastic.errors import Unavailable
from craftastic.runtimes.base import HOME, Runtime, SandboxRef
from craftastic.worktrees.service import WORKSPACE, repository_path, worktrees_path

PYTHON = "/usr/bin/python3"
"""The image's own: the one that the PATH leads to may be the sandbox's, and never end."""

PARTS = ("_inside_walk", "_inside_git", "_inside_removal", "_inside")
LOADER = """\
import sys, types
for name, text in SOURCES[:-1]:
    sys.modules[name] = module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
exec(compile(SOURCES[-1][1], SOURCES[-1][0], "exec"), globals())
"""
"""Runs the program's parts as the modules by whose names they find each other."""

MAX_ENTRIES = 2_000_000
MEASURE_S = 60.0
RECLAIM_S = 300.0
QUICK_S = 20.0
GRACE_S = 45.0
"""How much longer than its own limit the program may take, before it is ended."""

MAX_ANSWER_BYTES = 4 << 20
MAX_SAID_CHARACTERS = 200

Answer = TypeVar("Answer", bound=BaseModel)


class DiskNotMeasured(Unavailable):
    """The sandbox gave no answer about its disk that makes sense; trying again may help."""

    code = "DISK_NOT_MEASURED"


@dataclass(frozen=True, slots=True)
class Worktree:
    """A worktree that sessions have, or the folder of those without a repository.

    Args:
        path: Inside the sandbox.
        branch: None without a repository.
        state: `living` where any session in it is alive.
    """

    path: str
    branch: str | None
    state: Literal["living", "ended"]


@dataclass(frozen=True, slots=True)
class Questions:
    """Asks one sandbox."""

    runtime: Runtime
    sandbox: SandboxRef
    environment_id: UUID
    has_repository: bool

    async def measure(self, worktrees: Sequence[Worktree]) -> Report:
        """Look at everything that is stored; changes nothing.

        Raises:
            DiskNotMeasured: The answer is none.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        return await self._ask("measure", Report, MEASURE_S, worktrees)

    async def tokens(self, worktrees: Sequence[Worktree]) -> Mapping[str, str]:
        """Return words that are others once a session was given its worktree again.

        Raises:
            DiskNotMeasured: The answer is none.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        return (await self._ask("tokens", Tokens, QUICK_S, worktrees)).tokens

    async def reclaim(
        self, worktrees: Sequence[Worktree], tokens: Mapping[str, str], tier: int
    ) -> Freed:
        """Free what nobody would miss; each thing is looked at again right before it goes.

        Cancellation ends it; what it had moved aside is put back or finished by `tidy`.

        Raises:
            DiskNotMeasured: The answer is none.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        return await self._ask(
            "reclaim", Freed, RECLAIM_S, worktrees, tokens=dict(tokens), tier=tier
        )

    async def tidy(self) -> None:
        """Put back or finish what a reclaim that was cut short has left aside.

        Raises:
            DiskNotMeasured: The answer is none.
            SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
        """
        await self._ask("tidy", Nothing, RECLAIM_S, ())

    async def _ask(
        self,
        command: str,
        form: type[Answer],
        seconds: float,
        worktrees: Sequence[Worktree],
        **more: Any,
    ) -> Answer:
        asked = {
            "command": command,
            "home": HOME,
            "repository": repository_path(self.environment_id),
            "worktrees": worktrees_path(self.environment_id),
            "workspace": WORKSPACE,
            "has_repository": self.has_repository,
            "sessions": [asdict(one) for one in worktrees],
            "entries": MAX_ENTRIES,
            "seconds": seconds,
            **more,
        }
        result = await self.runtime.run(
            self.sandbox,
            [PYTHON, "-I", "-S", "-c", program()],
            stdin=json.dumps(asked).encode(),
            timeout_s=seconds + GRACE_S,
            max_output_bytes=MAX_ANSWER_BYTES,
        )
        if result.exit_code != 0 or result.truncated:
            said = result.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            shown = "".join(one for one in said if one.isprintable())[:MAX_SAID_CHARACTERS]
            raise DiskNotMeasured(
                "The sandbox does not tell what its disk is used for", details=shown or None
            )
        try:
            return form.model_validate_json(result.stdout)
        except ValidationError:
            raise DiskNotMeasured("The sandbox answered nonsense about its disk") from None


class Nothing(BaseModel):
    """An answer that only has to be one."""


@cache
def program() -> str:
    """Return the program that runs in sandboxes."""
    package = files("craftastic.disk")
    sources = [
        (f"craftastic.disk.{name}", (package / f"{name}.py").read_text("utf-8")) for name in PARTS
    ]
    return f"SOURCES = {sources!r}\n{LOADER}"
