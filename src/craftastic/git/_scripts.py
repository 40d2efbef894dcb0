"""The constant scripts, run in a sandbox, and the form of their answers.

An answer is made of fields and parts between lines that begin with a word which was made up for
this one run, so that no output of git can be taken for one. A refusal ends it: a code, a text.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Protocol

from craftastic.environments.service import Environment
from craftastic.errors import CraftasticError
from craftastic.git._refusals import GitFailed, GitLocked, HooksTooSlow, WorktreeMissing
from craftastic.git._turns import Reading
from craftastic.runtimes.base import RunResult, Runtime, RunTimeout, SandboxGone
from craftastic.worktrees.service import (
    DAMAGED,
    LOCK_LEFT,
    PRELUDE,
    REPAIR,
    REPAIR_SESSION,
    RepositoryBusy,
    RepositoryCorrupt,
    damage_in,
    repository_path,
    worktree_path,
)

REFUSED = 40
CUT = 141
"""How a command ends whose output nobody reads any more: 128 and SIGPIPE."""
OUT_OF_TIME = {124, 137}
"""How `timeout` ends, with TERM and with KILL."""

LOOKING_S = 25
RUN_MARGIN_S = 15.0
MAX_BYTES = 5 << 20
"""The most that a status, a diff or a log is read of."""
MAX_ENTRIES = 100
MAX_FIELD_BYTES = 10_000
MAX_SAID_BYTES = 64 << 10
MAX_SAID_SHOWN = 2000

SCRIPTS_FOLDER = files("craftastic.git") / "scripts"
BEGINNING = PRELUDE + (SCRIPTS_FOLDER / "prelude.sh").read_text()
SCRIPTS = {
    name: BEGINNING + (SCRIPTS_FOLDER / f"{name}.sh").read_text()
    for name in (
        *("status", "diff", "log", "branches"),
        *("commit", "push", "fetch", "combine", "move"),
    )
}


class Masker(Protocol):
    """Hides the secrets of an environment's variables; `variables.service.Masker` is it."""

    def mask_text(self, text: str, /) -> str: ...

    def mask_bytes(self, raw: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Output of one command, and how the command ended."""

    output: bytes
    ended: int

    @property
    def complete(self) -> bool:
        return self.ended == 0

    @property
    def failed(self) -> bool:
        """Whether git ended with an error of its own, and was not cut by size or time."""
        return self.ended not in {0, CUT, *OUT_OF_TIME}


NO_PART = Part(b"", 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a script said; `refusal` is a code and a text."""

    fields: dict[str, str] = field(default_factory=dict[str, str])
    parts: dict[str, Part] = field(default_factory=dict[str, Part])
    refusal: tuple[str, str] | None = None

    def part(self, name: str) -> Part:
        return self.parts.get(name, NO_PART)

    def size(self, *names: str) -> int:
        """Return how many bytes some parts have together."""
        return sum(len(self.part(name).output) for name in names)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a script works: an environment's repository, and mostly a worktree of it.

    Args:
        find_masker: What hides secrets in what git says.
        looking_s: How long what only looks may take; then it is cut, and says so.
    """

    runtime: Runtime
    environment: Environment
    reading: Reading
    find_masker: Callable[[], Awaitable[Masker]]
    branch: str | None = None
    looking_s: int = LOOKING_S

    async def run(
        self,
        name: str,
        *arguments: str,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        max_output_bytes: int = 3 * MAX_BYTES,
    ) -> Answer:
        """Run a script and return its answer, a refusal too.

        Raises:
            EnvironmentStopped, SandboxGone: The sandbox is not running.
            WorktreeMissing: There is no worktree where the session's should be.
            GitLocked, RepositoryBusy: Somebody else works there.
            RepositoryCorrupt: git cannot read the repository.
            GitFailed: git ended with an error that the script knows nothing about.
            HooksTooSlow: git and what it runs took too long.
            SandboxExhausted, RuntimeUnavailable: See `Runtime.run`.
        """
        environment, mark = self.environment, secrets.token_hex(16)
        path = worktree_path(environment.id, self.branch) if self.branch is not None else ""
        beginning = (mark, repository_path(environment.id), path, str(self.looking_s))
        try:
            result = await self.runtime.run(
                environment.sandbox,
                ["sh", "-ceu", SCRIPTS[name], "sh", *beginning, *arguments],
                stdin=stdin,
                timeout_s=timeout_s or self.looking_s + RUN_MARGIN_S,
                max_output_bytes=max_output_bytes,
            )
        except SandboxGone as error:
            error.details = error.details or "Open a terminal of the environment: that starts it."
            raise
        except RunTimeout as error:
            raise HooksTooSlow(
                "git did not end in time.",
                details="A filter or hook of the repository may be slow, or the sandbox is busy.",
            ) from error
        if result.exit_code not in {0, REFUSED}:
            raise self._failed(result.stderr, await self._said(result))
        return await self.reading.run(len(result.stdout), lambda: _judged(result, mark.encode()))

    def _failed(self, raw: bytes, said: str | None) -> CraftasticError:
        """Return the error of a git that ended with none of its own."""
        if damage_in(raw):
            return damaged(said)
        if (lock := LOCK_LEFT.search(raw)) is not None:
            left = lock[1].decode(errors="replace")
            return refusal("git_locked", left) or GitFailed("git could not do that.")
        return GitFailed("git could not do that.", details=said)

    async def _said(self, result: RunResult) -> str | None:
        whole = whole_lines(result.stderr) if result.truncated else result.stderr
        said = last_lines(whole, MAX_SAID_BYTES).decode(errors="replace")
        try:
            masker = await self.find_masker()
        except CraftasticError:
            return None  # a secret cannot be read, and so not be hidden
        return masker.mask_text(said).strip()[-MAX_SAID_SHOWN:] or None


def whole_lines(raw: bytes) -> bytes:
    """Return a text that was cut without its last line, as half a secret shows."""
    return raw[: raw.rfind(b"\n") + 1]


def last_lines(raw: bytes, most: int) -> bytes:
    """Return the end of a text, without a line that would be cut."""
    return raw if len(raw) <= most else raw[-most:].partition(b"\n")[2]


def _judged(result: RunResult, mark: bytes) -> Answer:
    answer = parse_answer(result.stdout, mark)
    if result.exit_code == 0:
        if any(part.failed for part in answer.parts.values()) and damage_in(result.stderr):
            raise damaged(None)
        return answer
    code, detail = answer.refusal or ("", "")
    if (error := refusal(code, detail)) is not None:
        raise error
    return answer


def damaged(said: str | None) -> RepositoryCorrupt:
    """Return the error of a repository that git cannot read, with what git said."""
    told = f"{REPAIR} git said: {said}" if said else REPAIR
    return RepositoryCorrupt(DAMAGED, details=told[:MAX_SAID_SHOWN])


def damage(said: str) -> RepositoryCorrupt | None:
    """Return the error where git said that it cannot read something; None for anything else."""
    return damaged(said) if damage_in(said.encode(errors="replace")) else None


def refusal(code: str, detail: str) -> CraftasticError | None:
    """Return the error of a refusal that every script may give."""
    match code:
        case "worktree_missing":
            return WorktreeMissing(
                "The session has no git worktree any more: its folder is gone, or is none.",
                details="Repair the session: that makes the worktree again, with the files that are"
                " there.",
            )
        case "repository_missing":
            return WorktreeMissing(
                "The session has no git worktree any more: the repository is gone.",
                details="Repair the environment: that clones it again.",
            )
        case "repository_corrupt":
            return damaged(None)
        case "busy":
            return RepositoryBusy("Another git operation in this worktree takes too long.")
        case "git_locked":
            return GitLocked(
                "Another git command is working in this worktree.",
                details=f"Try again. If none is running, one was cut short and left {detail}: "
                + REPAIR_SESSION,
            )
        case "too_long":
            return HooksTooSlow(
                "git did not end in time and was ended.",
                details="The repository's hooks take too long; skip them or make them faster.",
            )
        case _:
            return None


def parse_answer(raw: bytes, mark: bytes) -> Answer:
    """Read what a script printed; whatever it is, it makes some answer."""
    fields: dict[str, str] = {}
    parts: dict[str, Part] = {}
    begin, at = mark + b" ", 0
    while len(fields) + len(parts) < MAX_ENTRIES and raw.startswith(begin, at):
        line_end = raw.find(b"\n", at)
        line_end = len(raw) if line_end < 0 else line_end
        head = raw[at + len(begin) : line_end]
        if head.startswith(b"- "):
            name, _, value = head[2:MAX_FIELD_BYTES].partition(b" ")
            fields[_text(name)] = _text(value)
            at = line_end + 1
        else:
            parts[_text(head[:MAX_FIELD_BYTES])], at = _part(
                raw, line_end + 1, b"\n" + begin + b"= "
            )
    return Answer(fields, parts, _refusal(raw[at : at + MAX_FIELD_BYTES]))


def _part(raw: bytes, start: int, end_mark: bytes) -> tuple[Part, int]:
    end = raw.find(end_mark, start)
    if end < 0:  # the whole answer was cut
        return Part(raw[start:], CUT), len(raw)
    after = end + len(end_mark)
    line_end = raw.find(b"\n", after)
    line_end = len(raw) if line_end < 0 else line_end
    ended = raw[after:line_end]
    code = int(ended) if ended.isdigit() and len(ended) <= 3 else CUT  # noqa: PLR2004 (exit codes)
    return Part(raw[start:end], code), line_end + 1


def _refusal(raw: bytes) -> tuple[str, str] | None:
    code, separator, detail = raw.partition(b"\n")
    return (_text(code), _text(detail).strip()) if separator else None


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def only_branch(ref: str) -> str | None:
    """Return the name of the branch that a full ref is, None for another ref."""
    return ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else None


def values(answer: Answer, name: str) -> Mapping[int, int]:
    """Return the numbers of a field, by their place."""
    words = answer.fields.get(name, "").split()
    return {at: int(word) for at, word in enumerate(words) if word.isdecimal() and len(word) < 10}  # noqa: PLR2004 (no count has more)
