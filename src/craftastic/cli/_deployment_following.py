"""Follows a deployment to its end: its states, its log as it grows, and how the command ends."""

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from craftastic.cli._deployment_wishes import PATH, load_applications
from craftastic.cli._git_text import without_escapes
from craftastic.cli.failures import Failure
from craftastic.cli.output import printable, say, show_json
from craftastic.cli.remote import Remote, segment
from craftastic.cli.up import interruption_told
from craftastic.errors import Conflict, CraftasticError, RateLimited, Unavailable

Row = Mapping[str, Any]

FIRST_LOOK_S, LAST_LOOK_S, SLOWER = 1.0, 3.0, 1.3
"""The server is asked at this pace, in seconds, which slows down while nothing happens."""

PATIENCE_S = 600.0
"""For so long a server that does not answer is asked again, in seconds: it may be restarted."""

REST_S = 15.0
"""For so long the rest of the log is waited for when the deployment has ended, in seconds."""

MAX_PAGES = 1000
SHORT = 7


def has_ended(row: Row) -> bool:
    """Tell whether nothing more will be known about a deployment and its application."""
    if not row["live"] or row["status"] in {"failed", "cancelled"}:
        return True
    return row["status"] == "succeeded" and row.get("health") not in {None, "waiting"}


async def follow(remote: Remote, row: Row, *, as_json: bool) -> None:
    """Show a deployment's states and its log until it ends, and end the command as it did.

    Args:
        remote: The API.
        row: As it is now.
        as_json: Show how it ended as JSON, and no log.

    Raises:
        Failure: It failed or was cancelled, or its application is not healthy.
        Unavailable: The server did not answer for `PATIENCE_S`.
    """
    id_ = str(row["id"])
    log = _Log(remote, id_, shown=not as_json)
    left = (
        f"Left. The deployment goes on: `craftastic deployment logs {id_[:8]} --follow` shows it,"
        f" `craftastic deployment cancel {id_[:8]}` ends it."
    )
    with interruption_told(left):
        row = await _until_ended(remote, row, log)
        await log.rest()
    if as_json:
        show_json(row)
    await _end_as(remote, row, as_json=as_json)


async def show_log(remote: Remote, deployment_id: str) -> None:
    """Print the log of a build as far as it is known.

    Raises:
        Conflict: There is none to be had; the message says why.
    """
    log = _Log(remote, deployment_id, shown=True)
    for _page in range(MAX_PAGES):
        if not await log.more() or log.complete:
            break
    if log.missing and not log.began:
        raise Conflict(log.missing)
    if not log.complete:
        say("The log goes on; --follow shows it to the end.")


async def _until_ended(remote: Remote, row: Row, log: "_Log") -> Row:
    told, wait_s = "", FIRST_LOOK_S
    while True:
        state = state_of(row)
        if news := state != told:
            say(state)
        told = state
        if row.get("coolify_deployment_id"):
            news = await log.look() or news
        if has_ended(row):
            return row
        wait_s = FIRST_LOOK_S if news else min(wait_s * SLOWER, LAST_LOOK_S)
        await anyio.sleep(wait_s)
        row = await _asked(remote, f"{PATH}/status/{segment(row['id'])}")


async def _asked(remote: Remote, path: str) -> Row:
    """Ask until the server answers; it may be on its way up again."""
    give_up_at = anyio.current_time() + PATIENCE_S
    told = False
    while True:
        try:
            row = await remote.get(path)
        except (Unavailable, RateLimited) as error:
            if anyio.current_time() > give_up_at:
                raise
            if not told:
                say(f"{error.message} The deployment goes on; asking again.")
            told = True
            await anyio.sleep(LAST_LOOK_S)
        else:
            if told:
                say("The server answers again.")
            return row


@dataclass(slots=True)
class _Log:
    """The log of one build, shown as far as it was not shown yet.

    Args:
        shown: Whether its lines are printed at all.
        after: The number of the last line that was shown; None at the beginning.
        missing: Why there is none, while that is so.
        complete: Whether everything that will ever be in it has been shown.
        began: Whether a line was shown.
    """

    remote: Remote
    deployment_id: str
    shown: bool
    after: int | None = None
    missing: str | None = None
    complete: bool = False
    began: bool = False
    _cut: bool = False

    async def look(self) -> bool:
        """Show what is new, and tell whether something was; a log is never worth an error."""
        was = self.missing
        try:
            new = await self.more()
        except CraftasticError as error:
            new, self.missing = False, error.message
        if self.missing and self.missing != was and self.shown:
            say(f"No build log: {self.missing}")
        return new

    async def more(self) -> bool:
        """Show the next lines, and tell whether there were any."""
        if self.complete or not self.shown:
            return False
        query = "" if self.after is None else f"?after={self.after}"
        page = await self.remote.get(f"{PATH}/logs/{segment(self.deployment_id)}{query}")
        for line in page["lines"]:
            show_line(str(line["text"]))
        moved = page["next"] != self.after
        self.after, self.complete = page["next"], bool(page["complete"])
        self.missing = None if page["available"] else str(page["reason"] or "there is none")
        self.began = self.began or bool(page["lines"])
        if page["truncated"] and not self._cut:
            self._cut = True
            say("The log is too long to be shown whole: lines are missing.")
        return moved and bool(page["lines"])

    async def rest(self) -> None:
        """Show what came in the last moment before the end."""
        with anyio.move_on_after(REST_S):
            while self.shown and self.began and not self.complete:
                if not await self.look():
                    await anyio.sleep(FIRST_LOOK_S)


def show_line(text: str) -> None:
    """Print a line of a log, which may be several, at once and without a control character."""
    sys.stdout.write(without_escapes(text.rstrip("\r\n")) + "\n")
    sys.stdout.flush()


# ---- in words ---------------------------------------------------------------------------------


def state_of(row: Row) -> str:
    """Return one line about how a deployment is."""
    status, reason = row["status"], row.get("reason")
    words = {
        "pending": "Waits for Coolify." if row.get("coolify_deployment_id") else "Asks Coolify.",
        "building": "Coolify builds it.",
        "succeeded": "Built.",
        "failed": "Failed.",
        "cancelled": "Cancelled.",
    }
    parts = [words.get(status, f"{status}.")]
    if row.get("cancel_wanted") and status in {"pending", "building"}:
        parts.append("It is to be cancelled.")
    if status == "pending" and row.get("queue_ahead"):
        parts.append(f"{row['queue_ahead']} before it in the queue.")
    if status == "succeeded" and row.get("health") == "waiting":
        text = row.get("health_text")
        parts.append(f"Waiting for the application{f' ({text})' if text else ''}.")
    if reason and status in {"pending", "building"}:
        parts.append(str(reason))
    return printable(" ".join(parts))


async def _end_as(remote: Remote, row: Row, *, as_json: bool) -> None:
    """Say what runs now, and end the command as the deployment ended.

    Raises:
        Failure: It failed or was cancelled, or its application is not healthy.
    """
    if row.get("url"):
        say(f"Coolify's page about it: {row['url']}")
    if failure := failure_of(row):
        raise Failure(failure, 1)
    if row.get("reason"):
        say(row["reason"])
    if not as_json:
        print(await _what_runs(remote, row))


def failure_of(row: Row) -> str | None:
    """Return why a deployment that is over did not come to what was wanted; None if it did."""
    reason = row.get("reason") or row.get("health_text") or "there is no reason known"
    if row["status"] == "succeeded":
        unwell = row.get("health") == "unhealthy"
        return f"{row['app_name']} was built, and is not healthy: {reason}" if unwell else None
    if row["status"] == "cancelled":
        return "The deployment was cancelled."
    return f"The deployment failed: {reason}"


async def _what_runs(remote: Remote, row: Row) -> str:
    commit = row.get("built_commit") or row.get("commit")
    what = f"commit {commit[:SHORT]}" if commit else "what was built"
    name = row["app_name"]
    if row.get("pull_request_id"):
        return printable(f"{name}: built {what} for pull request {row['pull_request_id']}")
    health = {
        "healthy": f"{name} runs {what}, healthy",
        "running": f"{name} runs {what}, without a health check",
        "superseded": f"{name}: {what} was built, and a newer deployment has taken its place",
    }
    words = health.get(str(row.get("health")), f"{name}: {what} was built; how it runs is unknown")
    address = await _address(remote, row)
    return printable(f"{words}: {address}" if address else words)


async def _address(remote: Remote, row: Row) -> str | None:
    """Return where the application is reached, if it is easily known."""
    with contextlib.suppress(CraftasticError):
        for one in await load_applications(remote):
            if one["id"] == row["app_id"]:
                return one.get("address")
    return None
