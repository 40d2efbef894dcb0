"""What a deployment is asked for: of which session, at which application; and refusals' ways on."""

import shlex
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from craftastic.cli._ways_on import ways_on
from craftastic.cli.failures import Failure
from craftastic.cli.names import Names, Row, load_names, meant
from craftastic.cli.output import choose, interactive, printable, say
from craftastic.cli.remote import Remote, ServerUnreachable, segment
from craftastic.cli.up import interruption_told
from craftastic.errors import CraftasticError, Forbidden, InvalidInput, NotFound

PATH = "/api/deployment"
APPLICATIONS = "/api/coolify/applications"

ASKING_S = 120.0
"""How long the server may look at the work and ask Coolify, in seconds: its own limits and more."""

MAX_TOLD = 30
ID_LENGTH = len("00000000-0000-0000-0000-000000000000")

CONNECT = "`craftastic coolify connect URL` stores another token."
PUSHED_ONLY = "--pushed-only deploys what is pushed, without the rest."
WAYS_ON = {
    "COOLIFY_ABILITY_MISSING": CONNECT,
    "COOLIFY_TOKEN_REJECTED": CONNECT,
    "DEPLOYMENT_NOT_CONFIGURED": "`craftastic coolify connect URL` connects your Coolify.",
    "DEPLOYMENT_RUNNING": "`craftastic deployment logs {deployment} --follow` follows it; --force"
    " asks for another one.",
    "UNCOMMITTED_WORK": "`craftastic commit {session} -m MESSAGE`, then"
    f" `craftastic push {{session}}`. {PUSHED_ONLY}",
    "UNPUSHED_WORK": f"`craftastic push {{session}}` pushes it. {PUSHED_ONLY}",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A session with its environment, or an environment by itself."""

    session: Row | None
    environment: Row

    @property
    def body(self) -> dict[str, str]:
        """Return the field of a request that names it."""
        if self.session is None:
            return {"environmentId": str(self.environment["id"])}
        return {"sessionId": str(self.session["id"])}

    @property
    def id(self) -> str:
        return str((self.session or self.environment)["id"])

    @property
    def label(self) -> str:
        """Return what a command line takes for it."""
        name = str(self.environment["name"])
        if self.session is not None:
            name += f"/{self.session.get('name') or self.session['id']}"
        return shlex.quote(printable(name))


def find_target(names: Names, wanted: str | None) -> Target:
    """Return the session or environment that was meant; a person chooses a session.

    Raises:
        NotFound: There is neither.
        InvalidInput: Several fit, or nothing was said and nobody can be asked.
    """
    called = [one for one in names.environments if wanted in {one["name"], one["id"]}]
    if called and not any(session.get("name") == wanted for session, _owner in names.sessions):
        # The whole name of an environment wins over the beginning of a session's id.
        return Target(None, names.environment(wanted))
    try:
        return Target(*names.session(wanted))
    except NotFound:
        if wanted is None:
            raise
    try:
        return Target(None, names.environment(wanted))
    except NotFound as error:
        raise NotFound(f"There is no session and no environment {wanted}.") from error


# ---- asking -----------------------------------------------------------------------------------


async def ask(remote: Remote, route: str, target: Target, body: Row, app: str | None) -> Row:
    """Ask for a deployment and return its row as it is then.

    Args:
        remote: The API.
        route: `deploy` or `rollback`.
        target: What is deployed.
        body: The other fields of the request.
        app: What the user called the application; None for the one remembered, or to be asked.

    Raises:
        Failure: Coolify refused, with exit code 1: there is a deployment, and it has failed.
        CraftasticError: The server refused; nothing was begun.
    """
    begun = f"`craftastic deployment ls {target.label}` shows whether it began."

    async def ask_for(app_id: str | None) -> Row:
        chosen = {"appId": app_id} if app_id else {}
        fields = target.body | chosen | body
        try:
            return await remote.post(f"{PATH}/{route}", fields, timeout_s=ASKING_S)
        except ServerUnreachable as error:
            error.details = begun
            raise

    with refusals_told(target), interruption_told(f"Interrupted. {begun}"):
        answer = await with_application(remote, target, app, ask_for)
    return answer["deployment"]


async def with_application(
    remote: Remote, target: Target, app: str | None, work: Callable[[str | None], Awaitable[Any]]
) -> Any:
    """Do something at the application named, else the one remembered, else one that is chosen.

    Args:
        remote: The API.
        target: Whose application it is.
        app: What the user called it.
        work: Is given its id; None for the one remembered.

    Raises:
        InvalidInput: None is remembered, and nobody can be asked.
        NotFound: There is no such application.
    """
    if app is not None:
        known = await load_applications(remote, target.environment["id"])
        return await work(_meant(known, app)["id"])
    try:
        return await work(None)
    except (InvalidInput, NotFound) as error:
        code = error.answer.get("code")
        if code not in {"APPLICATION_NEEDED", "COOLIFY_NOT_FOUND"}:
            raise
        if code == "COOLIFY_NOT_FOUND":
            say("The application that was deployed to last is no longer at Coolify.")
    known = await load_applications(remote, target.environment["id"])
    return await work(_choose(known)["id"])


async def load_applications(remote: Remote, environment_id: str | None = None) -> list[Row]:
    """List what Coolify shows; what builds the environment's repository first."""
    query = f"?{urlencode({'environmentId': environment_id})}" if environment_id else ""
    return (await remote.get(f"{APPLICATIONS}{query}"))["applications"]


def _meant(known: Sequence[Row], text: str) -> Row:
    named = [one for one in known if one["name"] == text]
    if len(named) > 1 and not any(one["id"] == text for one in known):
        ids = ", ".join(str(one["id"]) for one in named[:MAX_TOLD])
        raise InvalidInput(f"Several applications are called {text}; give the id: {ids}")
    absent = f"Coolify shows no application {text}; `craftastic coolify apps` lists them."
    return meant(known, text, lambda one: one["name"] == text, absent)


def _choose(known: Sequence[Row]) -> Row:
    if not known:
        raise NotFound(
            "Coolify shows no application to this token.",
            details="Make one in Coolify, in the team that the token belongs to.",
        )
    lines = [_line(one) for one in known]
    if interactive():
        return known[choose("application", lines)]
    more = len(lines) - MAX_TOLD
    told = [*lines[:MAX_TOLD], *([f"and {more} more"] if more > 0 else [])]
    raise InvalidInput(
        "Name the application with --app; it is remembered for the environment.",
        details="\n".join(told),
    )


def _line(app: Row) -> str:
    mark = "this repository" if app.get("matches") else app.get("repository")
    parts = (app["id"], app["name"], app.get("branch"), app.get("status"), mark)
    return "  ".join(printable(part) for part in parts if part)


# ---- refusals ---------------------------------------------------------------------------------


@contextmanager
def refusals_told(target: Target | None = None) -> Generator[None]:
    """Add to a refusal inside the block what to do about it.

    Raises:
        Failure: A deployment was begun, and Coolify refused it.
    """
    session, environment = (target.session, target.environment) if target else (None, None)
    try:
        with ways_on(session, environment):
            yield
    except CraftasticError as error:
        code = str(error.answer.get("code"))
        if code == "DEPLOYMENT_FAILED":
            text = " ".join(one for one in (error.message, error.details) if one)
            raise Failure(" ".join(text.split()), 1) from error
        if way_on := WAYS_ON.get(code):
            deployment = printable(error.answer.get("deploymentId") or "ID")[:ID_LENGTH]
            label = target.label if target and target.session else "SESSION"
            told = way_on.format(session=label, deployment=deployment)
            error.details = "\n".join(one for one in (error.details, told) if one)
        if code == "COOLIFY_TOKEN_REJECTED":  # nothing on this command line is wrong
            raise Forbidden(error.message, details=error.details) from error
        raise


# ---- deployments there are --------------------------------------------------------------------


async def load_deployments(remote: Remote, names: Names, target: Target | None) -> list[Row]:
    """List deployments, newest first: those of a session or environment, or all there are."""
    ids = [target.id] if target else [one["id"] for one in names.environments]
    found: list[Row] = []
    for one in ids:
        found += (await remote.get(f"{PATH}/list/{segment(one)}"))["deployments"]
    return sorted(found, key=lambda row: str(row["created_at"]), reverse=True)


async def find_deployment(remote: Remote, text: str) -> str:
    """Return the id of the deployment that was meant: by the beginning of it, or Coolify's own.

    Raises:
        NotFound: There is none.
        InvalidInput: Several fit.
    """
    if len(text) >= ID_LENGTH:
        return text
    rows = await load_deployments(remote, await load_names(remote), None)
    absent = f"There is no deployment {text}; `craftastic deployment ls` lists them."
    return str(meant(rows, text, partial(_is_run, text), absent)["id"])


def _is_run(text: str, row: Row) -> bool:
    return row.get("coolify_deployment_id") == text
