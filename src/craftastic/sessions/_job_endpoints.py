"""HTTP face of the jobs of sessions' worktrees: their setup and their commands."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from craftastic.accounts.current_user import CurrentUser
from craftastic.http.wire import Wire
from craftastic.sessions._wire import Absent, Sessions, Timestamp
from craftastic.sessions.service import CommandState, SetupState
from craftastic.worktrees.service import MAX_LOG_BYTES, JobStatus

router = APIRouter()

Tail = Annotated[int, Query(alias="logBytes", ge=0, le=MAX_LOG_BYTES)]
"""How much of the newest output is wanted, in bytes."""


class SetupView(Wire):
    """How a worktree was prepared: the files that it got, its setup, and what the setup said."""

    status: JobStatus
    command: str | None = Absent
    exit_code: int | None = Absent
    started_at: Timestamp | None = Absent
    finished_at: Timestamp | None = Absent
    reason: str | None = Absent
    log: str
    truncated: bool
    copied: Sequence[str]
    warnings: Sequence[str]
    error: str | None = Absent


class CommandLine(Wire):
    name: str
    command: str
    status: JobStatus
    exit_code: int | None = Absent
    started_at: Timestamp | None = Absent
    finished_at: Timestamp | None = Absent
    reason: str | None = Absent


class CommandView(CommandLine):
    log: str
    truncated: bool


class CommandList(Wire):
    commands: Sequence[CommandLine]
    warnings: Sequence[str]
    error: str | None = Absent


def _setup_view(setup: SetupState) -> SetupView:
    return SetupView(
        status=setup.job.status,
        command=setup.job.command,
        exit_code=setup.job.exit_code,
        started_at=setup.job.started_at,
        finished_at=setup.job.finished_at,
        reason=setup.job.reason,
        log=setup.log,
        truncated=setup.truncated,
        copied=setup.copied,
        warnings=setup.warnings,
        error=setup.error,
    )


def _command_line(command: CommandState) -> CommandLine:
    return CommandLine(
        name=command.name,
        command=command.command,
        status=command.job.status,
        exit_code=command.job.exit_code,
        started_at=command.job.started_at,
        finished_at=command.job.finished_at,
        reason=command.job.reason,
    )


def _command_view(command: CommandState) -> CommandView:
    line = _command_line(command)
    return CommandView(**line.model_dump(), log=command.log, truncated=command.truncated)


@router.get("/{session_id}/setup")
async def get_session_setup(
    session_id: UUID, caller: CurrentUser, sessions: Sessions, tail: Tail = MAX_LOG_BYTES
) -> SetupView:
    """Return how a session's worktree was prepared, with the newest output of its setup."""
    return _setup_view(await sessions.jobs.setup(caller.user_id, session_id, tail))


@router.post("/{session_id}/setup")
async def run_session_setup(session_id: UUID, caller: CurrentUser, sessions: Sessions) -> SetupView:
    """Run the worktree's setup again, in the background."""
    return _setup_view(await sessions.jobs.run_setup(caller.user_id, session_id))


@router.get("/{session_id}/commands")
async def list_session_commands(
    session_id: UUID, caller: CurrentUser, sessions: Sessions
) -> CommandList:
    """List the commands that the repository offers, and how their last runs are."""
    found = await sessions.jobs.commands(caller.user_id, session_id)
    return CommandList(
        commands=[_command_line(one) for one in found.commands],
        warnings=found.warnings,
        error=found.error,
    )


@router.get("/{session_id}/commands/{name}")
async def get_session_command(
    session_id: UUID,
    name: str,
    caller: CurrentUser,
    sessions: Sessions,
    tail: Tail = MAX_LOG_BYTES,
) -> CommandView:
    """Return a command with the newest of its output."""
    return _command_view(await sessions.jobs.command(caller.user_id, session_id, name, tail))


@router.post("/{session_id}/commands/{name}")
async def start_session_command(
    session_id: UUID, name: str, caller: CurrentUser, sessions: Sessions
) -> CommandView:
    """Run a command in the background, until it ends or is stopped."""
    return _command_view(await sessions.jobs.start(caller.user_id, session_id, name))


@router.delete("/{session_id}/commands/{name}")
async def stop_session_command(
    session_id: UUID, name: str, caller: CurrentUser, sessions: Sessions
) -> CommandView:
    """End a command and its processes."""
    return _command_view(await sessions.jobs.stop(caller.user_id, session_id, name))
