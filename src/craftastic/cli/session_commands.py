"""`craftastic session …`."""

from typing import Annotated, Any

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

sessions = typer.Typer(
    help="Create, list, attach and remove sessions: terminals on branches.", no_args_is_help=True
)


@sessions.command("create", short_help="Create a session on a branch.")
def session_create(
    environment: Annotated[str | None, typer.Argument(metavar="[ENVIRONMENT]", help=NAMED)] = None,
    branch: Branch = None,
    name: Annotated[str | None, typer.Option(help="Of the session; its branch by default.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Create a session: a terminal in a worktree of its own branch."""
    from craftastic.cli.names import load_names
    from craftastic.cli.progress import checklist
    from craftastic.cli.up import create_session, interruption_told

    async def work(remote: Any) -> None:
        found = (await load_names(remote)).environment(environment)
        body = {"environmentId": found["id"], "branch": branch, "name": name}
        body = {key: value for key, value in body.items() if value is not None}
        with interruption_told(), checklist() as shown:
            made = await create_session(remote, body, shown)
            shown.finish()
        show_one(made, as_json=as_json, quiet=quiet, fields=SESSION_FIELDS)

    with_remote(work)


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
