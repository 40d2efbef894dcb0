"""`craftastic up`: from a repository to a session, finding what is there before making it anew."""

import contextlib
import subprocess
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio

from craftastic.cli._ways_on import access_way_on
from craftastic.cli.names import (
    Names,
    Row,
    load_names,
    normal_repository,
    repository_name,
    without_user,
)
from craftastic.cli.output import printable, say
from craftastic.cli.progress import Checklist, checklist
from craftastic.cli.remote import CREATE_TIMEOUT_S, Remote, ServerUnreachable, segment
from craftastic.errors import Conflict, CraftasticError, InvalidInput, NotFound, Unavailable

POLL_S = 0.5
GIT_TIMEOUT_S = 10.0
MAX_NAME_TRIES = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for.

    Args:
        repository: Its address; empty for an environment without one.
        branch: None for the environment's own.
        name: Of the environment; None for one made from the repository's.
    """

    repository: str
    branch: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A session that is ready to be attached."""

    environment: Row
    session: Row


def find_repository(text: str) -> str:
    """Return the address that was meant: a folder stands for its clone's origin.

    Raises:
        InvalidInput: The folder is no clone or has no origin.
    """
    folder = Path(text).expanduser()
    if text not in {".", ".."} and not text.startswith(("./", "../", "/", "~")):
        return _spoken(text)
    try:
        # The user's own folder on the user's own machine: git's own rules about it are right here.
        done = subprocess.run(
            ["git", "-C", str(folder), "remote", "get-url", "origin"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise InvalidInput("git is not installed here; give the repository's address.") from error
    except subprocess.TimeoutExpired as error:
        raise InvalidInput("git did not answer; give the repository's address.") from error
    if done.returncode != 0 or not done.stdout.strip():
        raise InvalidInput(
            f"{printable(folder)} is no git clone with an origin; give the repository's address."
        )
    return _spoken(done.stdout.strip())


def _spoken(url: str) -> str:
    plain = without_user(url)
    if plain != url:
        say("The user name and password in the address stay here; the server has its own access.")
    return plain


async def bring_up(remote: Remote, wanted: Wanted) -> Place:
    """Find or create the environment and the session.

    Raises:
        Conflict: The environment's name is taken for another repository, or it is in error.
        CraftasticError: What the server refused.
    """
    with interruption_told(), checklist() as shown:
        environment = await bring_environment(remote, wanted, shown)
        try:
            session = await ensure_session(remote, environment, wanted.branch, shown)
        except (Conflict, Unavailable) as error:
            await _add_way_on(remote, environment, error)
            raise
        shown.finish()
    return Place(environment, session)


async def bring_environment(remote: Remote, wanted: Wanted, shown: Checklist) -> Row:
    """Find or create the environment, and wait until it runs.

    Raises:
        Conflict: The environment's name is taken for another repository, or it is in error.
        CraftasticError: What the server refused.
    """
    environment = _existing(await load_names(remote), wanted)
    if environment is None:
        environment = await _create(remote, wanted, shown)
    else:
        await start_again(remote, environment, shown)
    return await _until_running(remote, environment["id"], shown)


async def start_again(remote: Remote, environment: Row, shown: Checklist) -> None:
    """Start an environment that stopped, or failed; one that runs is left as it is."""
    if environment["status"] in {"error", "stopped"} or _clone_failed(environment):
        await _retry(remote, environment["id"], shown)


@contextmanager
def interruption_told(
    text: str = "Interrupted. What the server has begun goes on; the same command finds it again.",
) -> Generator[None]:
    """Say, when Ctrl-C ends the waiting, what that means; the server goes on, where nothing is."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        say(text)
        raise


async def _add_way_on(remote: Remote, environment: Row, error: CraftasticError) -> None:
    """Say what may be done about an environment whose clone failed."""
    with contextlib.suppress(CraftasticError):
        now = await remote.get(f"/api/environments/{segment(environment['id'])}")
        if _clone_failed(now):
            name = printable(now["name"])
            why = access_way_on(now.get("repositoryUrl") or "", now.get("cloneReason") or "")
            way_on = (
                f"The environment {name} is there: the same command tries again,"
                f" `craftastic env rm {name}` removes it."
            )
            error.details = "\n".join(one for one in (error.details, why, way_on) if one)


def _existing(names: Names, wanted: Wanted) -> Row | None:
    """Return the environment of that repository, a running one first, then the newest."""
    key = normal_repository(wanted.repository)
    if wanted.name is not None:
        for row in names.environments:
            if row["name"] == wanted.name:
                if normal_repository(row.get("repositoryUrl") or "") != key:
                    raise Conflict(
                        f"The environment {wanted.name} is one of another repository;"
                        " choose another --name."
                    )
                return row
        return None
    same = [
        row
        for row in names.environments
        if row.get("repositoryUrl") and normal_repository(row["repositoryUrl"]) == key
    ]
    order = {"running": 0, "starting": 1, "stopped": 2}
    return min(same, key=lambda row: order.get(row["status"], 3), default=None)


async def _create(remote: Remote, wanted: Wanted, shown: Checklist) -> Row:
    """Create the environment under the first of its names that is free."""
    name = wanted.name or repository_name(wanted.repository)
    tried: set[str] = set()
    while True:
        tried.add(name)
        try:
            # The branch is the session's: the environment starts from the repository's own.
            return await create_environment(remote, replace(wanted, name=name, branch=None), shown)
        except Conflict as error:
            offered: Any = error.answer.get("suggestions")
            free = [one for one in _texts(offered) if one not in tried]
            if wanted.name is not None or not free or len(tried) >= MAX_NAME_TRIES:
                raise
            name = free[0]


def _texts(value: Any) -> Sequence[str]:
    found = cast("list[object]", value) if isinstance(value, list) else []
    return [one for one in found if isinstance(one, str)]


async def create_environment(remote: Remote, wanted: Wanted, shown: Checklist) -> Row:
    """Create an environment while its progress is shown.

    A connection that breaks does not end the create on the server: what is being made is found
    again by its name and waited for.

    Raises:
        Conflict: The name is taken; the answer's suggestions are in the error.
    """
    body: dict[str, Any] = {"userId": remote.signed_in().user_id, "name": wanted.name}
    if wanted.repository:
        body["repositoryUrl"] = wanted.repository
    if wanted.branch:
        body["branch"] = wanted.branch
    try:
        return await _while(
            partial(remote.post, "/api/environments", body, timeout_s=CREATE_TIMEOUT_S),
            partial(_follow_by_name, remote, str(wanted.name), shown),
        )
    except ServerUnreachable:
        for row in (await load_names(remote)).environments:
            if row["name"] == wanted.name:
                return row
        raise


async def _while(work: Callable[[], Awaitable[Row]], follow: Callable[[], Awaitable[None]]) -> Row:
    """Return what the work returns; `follow` runs beside it and is ended with it.

    Raises:
        CraftasticError: What the work raised, itself and not in a group.
    """
    done: list[Row] = []
    failed: list[CraftasticError] = []
    async with anyio.create_task_group() as group:

        async def run() -> None:
            try:
                done.append(await work())
            except CraftasticError as error:
                failed.append(error)
            group.cancel_scope.cancel()

        group.start_soon(run)
        await follow()
    if failed:
        raise failed[0]
    return done[0]


async def _follow_by_name(remote: Remote, name: str, shown: Checklist) -> None:
    """Show the progress of an environment whose id is not known yet; until cancelled."""
    shown.show("sandbox", "asking the server", None)
    found: str | None = None
    while True:
        await anyio.sleep(POLL_S)
        try:
            if found is None:
                rows = (await load_names(remote)).environments
                found = next((str(row["id"]) for row in rows if row["name"] == name), None)
            else:
                _show(await remote.get(f"/api/environments/{segment(found)}"), shown)
        except (Unavailable, NotFound):
            continue  # the create itself tells what went wrong


def _object(value: Any) -> Row:
    """Return a JSON object, or an empty one for anything else."""
    return cast("Row", value) if isinstance(value, dict) else {}


def _show(environment: Row, shown: Checklist) -> None:
    progress = _object(environment.get("progress"))
    if progress:
        percent = progress.get("percent")
        shown.show(
            str(progress.get("step")),
            str(progress.get("message") or ""),
            int(percent) if isinstance(percent, (int, float)) else None,
        )


def _clone_failed(environment: Row) -> bool:
    return environment.get("cloneStatus") == "failed"


async def _retry(remote: Remote, environment_id: str, shown: Checklist) -> None:
    """Start an environment that failed or stopped while its progress is shown."""
    path = f"/api/environments/{segment(environment_id)}/retry"
    await _while(
        partial(remote.post, path, timeout_s=CREATE_TIMEOUT_S),
        partial(_follow, remote, environment_id, shown, "sandbox", "starting again"),
    )


async def _until_running(remote: Remote, environment_id: str, shown: Checklist) -> Row:
    """Wait until a create that is under way has ended.

    Raises:
        Conflict: The environment is in error; the message says why.
        Unavailable: It did not end in time.
    """
    with anyio.move_on_after(CREATE_TIMEOUT_S):
        while True:
            environment = await remote.get(f"/api/environments/{segment(environment_id)}")
            _show(environment, shown)
            if environment["status"] == "error":
                raise Conflict(_in_error(environment))
            if environment["status"] != "starting":
                return environment
            await anyio.sleep(POLL_S)
    raise Unavailable("The environment is still starting; look at it with `craftastic env show`.")


def _in_error(environment: Row) -> str:
    reason = printable(environment.get("reason") or "the server does not say why").rstrip(".")
    name = printable(environment["name"])
    return (
        f"The environment {name} is in error: {reason}. Remove it with"
        f" `craftastic env rm {name}` and try again."
    )


async def ensure_session(
    remote: Remote, environment: Row, branch: str | None, shown: Checklist
) -> Row:
    """Return the living session of a branch, or create it; the clone's progress is shown."""
    wanted = branch or environment["branch"]
    answer = await remote.get(f"/api/sessions/environment/{segment(environment['id'])}")
    for session in answer["sessions"]:
        if session["status"] != "dead" and session.get("gitBranch") == wanted:
            return session
    return await _while(
        partial(_find_or_create_session, remote, environment["id"], branch),
        partial(_follow, remote, environment["id"], shown, "session", "making the worktree"),
    )


async def create_session(remote: Remote, body: Row, shown: Checklist) -> Row:
    """Create a session; the progress of a clone that it waits for is shown.

    Raises:
        Conflict: Its name or branch is taken, or the repository could not be cloned.
    """
    return await _while(
        partial(remote.post, "/api/sessions", body, timeout_s=CREATE_TIMEOUT_S),
        partial(_follow, remote, body["environmentId"], shown, "session", "making it"),
    )


async def _find_or_create_session(remote: Remote, environment_id: str, branch: str | None) -> Row:
    body = {"environmentId": environment_id}
    if branch:
        body["branch"] = branch
    try:
        return await remote.post("/api/sessions", body, timeout_s=CREATE_TIMEOUT_S)
    except Conflict as error:
        # Another command made it between our look and our create: that one is ours too.
        existing = _object(error.answer.get("existingSession"))
        if not existing.get("id"):
            raise
        found = await remote.get(f"/api/sessions/{segment(existing['id'])}")
        if branch is not None and found.get("gitBranch") != branch:
            raise  # its name is taken by a session on another branch
        return found


async def _follow(
    remote: Remote, environment_id: str, shown: Checklist, step: str, message: str
) -> None:
    """Show an environment's progress, or else the step; until cancelled."""
    while True:
        environment: Row = {}
        with contextlib.suppress(Unavailable):
            environment = await remote.get(f"/api/environments/{segment(environment_id)}")
        if _object(environment.get("progress")):
            _show(environment, shown)
        else:
            shown.show(step, message, None)
        await anyio.sleep(POLL_S)
