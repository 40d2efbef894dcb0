"""What the command line shows of a session's jobs: its setup, and the repository's commands."""

import sys
from collections.abc import Mapping
from typing import Any

import anyio

from craftastic.cli._git_text import GrowingLog, without_escapes
from craftastic.cli.failures import Failure
from craftastic.cli.output import printable, say, show_json, show_table
from craftastic.cli.remote import Remote
from craftastic.cli.up import interruption_told
from craftastic.errors import Unavailable

Row = Mapping[str, Any]

LOOK_S = 1.0
LOG_BYTES = 256 << 10
PATIENCE_S = 120.0
"""For so long a server that does not answer is asked again, in seconds."""

MAX_EXIT_CODE = 125


def tell_setup(setup: Row) -> None:
    """Say what is known about a setup beside its run."""
    if setup.get("error"):
        say(f"The repository's configuration cannot be used: {setup['error']}")
    for warning in setup["warnings"]:
        say(f"Warning: {warning}")
    if copied := len(setup["copied"]):
        say(f"Copied into the new working tree: {copied} file{'s' if copied > 1 else ''}.")


def show_state(job: Row) -> None:
    """Print how a job is, then its output."""
    for field in ("command", "status", "exitCode", "startedAt", "finishedAt", "reason"):
        if job.get(field) is not None:
            print(f"{field:16} {printable(job[field])}")
    if job["log"]:
        print()
        _print(without_escapes(job["log"]))
    if job["truncated"]:
        say("Older output is not kept.")


def show_commands(found: Row) -> None:
    if found.get("error"):
        say(f"The repository's configuration cannot be used: {found['error']}")
    for warning in found["warnings"]:
        say(f"Warning: {warning}")
    show_table(
        ("NAME", "STATUS", "EXIT CODE", "STARTED", "COMMAND"),
        [
            (
                one["name"],
                one["status"],
                one.get("exitCode", "-"),
                one.get("startedAt") or "-",
                one["command"],
            )
            for one in found["commands"]
        ],
    )


async def follow(remote: Remote, path: str, job: Row, *, as_json: bool) -> Row:
    """Show a job's output as it grows, and return how it ended.

    Args:
        remote: The API.
        path: Of the job, in it.
        job: As it is now.
        as_json: Show the end's answer instead of the output.

    Raises:
        Unavailable: The server did not answer for `PATIENCE_S`.
    """
    log = GrowingLog()
    with interruption_told("Left. It goes on in the sandbox."):
        while True:
            ended = job["status"] != "running"
            if not as_json:
                _print(log.new(job["log"], cut=job["truncated"], ended=ended))
            if ended:
                break
            await anyio.sleep(LOOK_S)
            job = await _look(remote, f"{path}?logBytes={LOG_BYTES}")
    if as_json:
        show_json(job)
    return job


async def _look(remote: Remote, path: str) -> Row:
    give_up_at = anyio.current_time() + PATIENCE_S
    while True:
        try:
            return await remote.get(path)
        except Unavailable:
            if anyio.current_time() > give_up_at:
                raise
            await anyio.sleep(LOOK_S)


def end_as(job: Row, what: str) -> None:
    """End the command as the job ended.

    Raises:
        Failure: With the job's own exit code, 1 where it has none.
    """
    match job["status"]:
        case "succeeded":
            say(f"{what} has ended well.")
        case "none":
            say(f"{what} has not run." if job.get("command") else "There is no setup to run.")
        case status:
            code = job.get("exitCode") or 1
            why = f"{what}: {status}, {job.get('reason') or f'exit code {code}'}."
            raise Failure(why, code if 0 < code <= MAX_EXIT_CODE else 1)


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
