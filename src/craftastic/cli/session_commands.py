"""`craftastic session …`."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from craftastic.cli.running import (
    DETACH_KEYS,
    NAMED,
    SESSION_FIELDS,
    Branch,
    DetachKeys,
    Json,
    Quiet,
    ReadOnly,
    Timeout,
    attach_terminal,
    confirm,
    lost_or_kept,
    show_one,
    with_remote,
)
from craftastic.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from craftastic.cli.progress import Checklist

COMMIT = re.compile("[0-9a-fA-F]{7,64}")

sessions = typer.Typer(
    help="Create, list, attach and remove sessions: terminals on branches.", no_args_is_help=True
)


OneSession = Annotated[
    str | None, typer.Argument(metavar="[SESSION]", help=f"{NAMED} ENVIRONMENT/NAME too.")
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Show its output until it ends, and end as it does.")
]


@sessions.command("create", short_help="Create a session on a branch.")
def session_create(
    environment: Annotated[str | None, typer.Argument(metavar="[ENVIRONMENT]", help=NAMED)] = None,
    branch: Branch = None,
    name: Annotated[str | None, typer.Option(help="Of the session; its branch by default.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="BRANCH|COMMIT", help="Where a new branch begins."),
    ] = None,
    pull_request: Annotated[
        int | None,
        typer.Option("--pr", min=1, metavar="NUMBER", help="Begin with what this one proposes."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Create a session: a terminal in a worktree of its own branch."""
    from craftastic.cli.names import load_names
    from craftastic.cli.progress import checklist
    from craftastic.cli.up import interruption_told

    if start is not None and pull_request is not None:
        raise InvalidInput("Give --from or --pr, not both.")

    async def work(remote: Any) -> None:
        found = (await load_names(remote)).environment(environment)
        body = {
            "environmentId": found["id"],
            "branch": branch,
            "name": name,
            "pullRequest": pull_request,
        }
        body = {key: value for key, value in body.items() if value is not None}
        with interruption_told(), checklist() as shown:
            made = await _create_from(remote, body, start, shown)
            shown.finish()
        show_one(made, as_json=as_json, quiet=quiet, fields=SESSION_FIELDS)

    with_remote(work)


async def _create_from(
    remote: Any, body: dict[str, Any], start: str | None, shown: "Checklist"
) -> dict[str, Any]:
    """Create a session; what looks like a commit and is none may be a branch of that name."""
    from craftastic.cli.up import create_session

    if start is None:
        return await create_session(remote, body, shown)
    if COMMIT.fullmatch(start):
        try:
            return await create_session(remote, body | {"baseCommit": start}, shown)
        except NotFound as error:
            if error.answer.get("code") != "BASE_NOT_FOUND":
                raise
    return await create_session(remote, body | {"baseBranch": start}, shown)


@sessions.command("ls")
def session_list(
    environment: Annotated[
        str | None,
        typer.Argument(metavar="[ENVIRONMENT]", help=f"Only those of this environment. {NAMED}"),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Dead ones too.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List your living sessions."""
    from craftastic.cli.names import load_names
    from craftastic.cli.output import show_ids, show_json, show_table

    async def work(remote: Any) -> None:
        names = await load_names(remote)
        only = None if environment is None else names.environment(environment)["id"]
        pairs = [
            (session, owner)
            for session, owner in names.sessions
            if only in {None, owner["id"]} and (everything or session["status"] != "dead")
        ]
        if as_json:
            show_json([session for session, _owner in pairs])
        elif quiet:
            show_ids([session["id"] for session, _owner in pairs])
        else:
            show_table(
                ("ID", "ENVIRONMENT", "NAME", "BRANCH", "STATUS", "LAST ACTIVITY"),
                [
                    (
                        session["id"][:8],
                        owner["name"],
                        session.get("name") or "-",
                        session.get("gitBranch") or "-",
                        session["status"],
                        session.get("lastActivity") or "-",
                    )
                    for session, owner in pairs
                ],
            )

    with_remote(work)


@sessions.command("rm", short_help="End sessions; unsaved work is kept.")
def session_remove(
    wanted: Annotated[list[str] | None, typer.Argument(metavar="SESSION...", help=NAMED)] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """End sessions; work that was not committed or pushed is kept under a ref that is printed."""
    from craftastic.cli.names import load_names
    from craftastic.cli.output import printable
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        names = await load_names(remote)
        for session, _owner in [names.session(one) for one in wanted or [None]]:
            confirm(
                f"End the session {session.get('name')} and everything that runs in it", yes=yes
            )
            answer = await remote.delete(f"/api/sessions/{segment(session['id'])}")
            print(f"Removed {printable(session.get('name') or session['id'])}.")
            kept = answer.get("kept")
            if kept:
                where = kept.get("ref") or kept.get("path") or "the environment"
                print(printable(f"Kept {lost_or_kept(kept)}: {where}"))
            _tell_teardown(answer.get("teardown"))

    with_remote(work)


@sessions.command("attach", short_help="Attach this terminal to a session.")
def session_attach(
    session: Annotated[
        str | None, typer.Argument(metavar="[SESSION]", help=f"{NAMED} ENVIRONMENT/NAME too.")
    ] = None,
    read_only: ReadOnly = False,
    detach_keys: DetachKeys = DETACH_KEYS,
    timeout: Timeout = None,
) -> None:
    """Attach this terminal to a session; `~.` at the start of a line detaches, `~?` helps.

    With pipes instead of a terminal, standard input is typed and what the session shows is
    written, until the session ends or the timeout is over.
    """
    from craftastic.cli.names import load_names

    async def work(remote: Any) -> None:
        found, owner = (await load_names(remote)).session(session)
        await attach_terminal(
            remote, found, owner, detach_keys=detach_keys, read_only=read_only, timeout_s=timeout
        )

    with_remote(work)


@sessions.command("repair", short_help="Make a session's worktree whole again.")
def session_repair(session: OneSession = None, as_json: Json = False) -> None:
    """Make a session's worktree whole again, with the files that are in it; says what was done."""
    from craftastic.cli.output import printable, show_json
    from craftastic.cli.remote import CREATE_TIMEOUT_S

    async def work(remote: Any) -> None:
        path = f"{await _path(remote, session)}/repair"
        repaired = await remote.post(path, timeout_s=CREATE_TIMEOUT_S)
        if as_json:
            show_json(repaired)
            return
        for one in repaired["done"] or ["Nothing was damaged."]:
            print(printable(one))

    with_remote(work)


@sessions.command("setup", short_help="Show how a session was prepared.")
def session_setup(
    session: OneSession = None,
    again: Annotated[bool, typer.Option("--again", help="Run it once more, from now.")] = False,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Show how a session's working tree was prepared: files it got, its setup and the output."""
    from craftastic.cli import _jobs as jobs
    from craftastic.cli.output import show_json

    async def work(remote: Any) -> None:
        path = f"{await _path(remote, session)}/setup"
        setup = await (remote.post(path) if again else remote.get(path))
        if not follow and as_json:
            show_json(setup)
            return
        jobs.tell_setup(setup)
        if follow:
            setup = await jobs.follow(remote, path, setup, as_json=as_json)
            jobs.end_as(setup, "The setup")
        else:
            jobs.show_state(setup)

    with_remote(work)


@sessions.command("commands", short_help="List the repository's commands.")
def session_commands(
    session: OneSession = None,
    log: Annotated[
        str | None, typer.Option("--log", metavar="NAME", help="Show the output of this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the commands that the repository offers for a session, and how they are."""
    from craftastic.cli import _jobs as jobs
    from craftastic.cli.output import show_json
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        path = f"{await _path(remote, session)}/commands"
        found = await remote.get(f"{path}/{segment(log)}" if log else path)
        if as_json:
            show_json(found)
        elif log:
            jobs.show_state(found)
        else:
            jobs.show_commands(found)

    with_remote(work)


@sessions.command("run", short_help="Run one of the repository's commands.")
def session_run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the command.")],
    session: OneSession = None,
    follow: Follow = False,
    stop: Annotated[bool, typer.Option("--stop", help="End it instead.")] = False,
    as_json: Json = False,
) -> None:
    """Run one of the repository's commands beside the terminal, until it ends or is stopped."""
    from craftastic.cli import _jobs as jobs
    from craftastic.cli.output import printable, show_json
    from craftastic.cli.remote import segment

    if stop and follow:
        raise InvalidInput("Give --follow or --stop, not both.")

    async def work(remote: Any) -> None:
        path = f"{await _path(remote, session)}/commands/{segment(name)}"
        command = await (remote.delete(path) if stop else remote.post(path))
        if follow:
            command = await jobs.follow(remote, path, command, as_json=as_json)
            jobs.end_as(command, name)
        elif as_json:
            show_json(command)
        else:
            print(printable(f"{name}: {command['status']}"))

    with_remote(work)


def _tell_teardown(teardown: dict[str, Any] | None) -> None:
    """Say how a teardown ended that did not end well; the session is gone either way."""
    from craftastic.cli._git_text import without_escapes
    from craftastic.cli._ways_on import say_lines
    from craftastic.cli.output import say

    if teardown and teardown["status"] not in {"none", "succeeded"}:
        say(f"Its teardown {teardown['status']}: {_why(teardown)}.")
        say_lines(without_escapes(teardown["log"]))


def _why(job: dict[str, Any]) -> str:
    return str(job.get("reason") or f"exit code {job.get('exitCode')}")


async def _path(remote: Any, session: str | None) -> str:
    from craftastic.cli.names import load_names
    from craftastic.cli.remote import segment

    found, _owner = (await load_names(remote)).session(session)
    return f"/api/sessions/{segment(found['id'])}"
