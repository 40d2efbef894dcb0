"""A glance at a session's worktree: has anything changed, without what it is now."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from craftastic.runtimes.base import Runtime
from craftastic.worktrees._config import is_command_name
from craftastic.worktrees._jobs import COMMAND_PREFIX, SETUP, TEARDOWN, JobNotStarted, Place

LOOKING_S = 8
"""How long git may look at a worktree; what it did not come to see is not noticed, in seconds."""

TIMEOUT_S = LOOKING_S + 4.0
MAX_ANSWER_BYTES = 32 << 10

PROGRAM = (files("craftastic.worktrees") / "_glance.py").read_text()

Word = Annotated[str, Field(max_length=100)]


@dataclass(frozen=True, slots=True)
class JobGlance:
    """A job; `state` and `log` are other words once the job or its output is another."""

    state: str
    log: str
    running: bool


@dataclass(frozen=True, slots=True)
class Glance:
    """A worktree; `git` is another word once what git tells of it is another."""

    git: str
    jobs: Mapping[str, JobGlance]


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    git: Word
    jobs: dict[Word, Annotated[list[Word | bool], Field(min_length=3, max_length=3)]] = Field(
        default_factory=dict[str, list[str | bool]], max_length=100
    )


async def glance(runtime: Runtime, place: Place) -> Glance:
    """Look whether anything about a worktree and its jobs is another than before.

    Raises:
        JobNotStarted: The sandbox's answer cannot be read.
        SandboxGone, SandboxExhausted, RunTimeout, RuntimeUnavailable: See `Runtime.run`.
    """
    result = await runtime.run(
        place.sandbox,
        ["python3", "-I", "-S", "-c", PROGRAM, place.jobs, place.path, str(LOOKING_S)],
        timeout_s=TIMEOUT_S,
        max_output_bytes=MAX_ANSWER_BYTES,
    )
    if result.exit_code != 0:
        raise JobNotStarted("The sandbox does not tell whether anything changed.")
    try:
        answer = _Answer.model_validate_json(result.stdout)
    except ValidationError:
        raise JobNotStarted("The sandbox answered nonsense about its worktree.") from None
    jobs = {
        name: JobGlance(str(state), str(log), running is True)
        for name, (state, log, running) in answer.jobs.items()
        if is_job_name(name)
    }
    return Glance(answer.git, jobs)


def is_job_name(name: str) -> bool:
    """Tell whether a job may be called so: names are the sandbox's to invent."""
    command = name.removeprefix(COMMAND_PREFIX)
    return name in {SETUP, TEARDOWN} or (command != name and is_command_name(command))
