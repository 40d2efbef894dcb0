"""`craftastic env …`."""

from typing import Annotated, Any, Literal

import typer

from craftastic.cli.running import (
    ENVIRONMENT_FIELDS,
    NAMED,
    Branch,
    Json,
    Quiet,
    confirm,
    lost_or_kept,
    show_one,
    with_remote,
)
from craftastic.errors import InvalidInput

environments = typer.Typer(help="Create, list, show and remove environments.", no_args_is_help=True)


@environments.command("create", short_help="Create an environment.")
def environment_create(
    repository: Annotated[
        str | None,
        typer.Argument(
            metavar="[REPOSITORY]", help="Address of a repository, or a folder whose origin it is."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the environment.")] = None,
    branch: Branch = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Create an environment: a sandbox, with a clone of the repository if one is given."""
    from craftastic.cli import up as bringing_up
    from craftastic.cli.names import repository_name
    from craftastic.cli.progress import checklist

    if repository is None and name is None:
        raise InvalidInput("Give a repository, or a --name for an environment without one.")
    address = bringing_up.find_repository(repository) if repository else ""
    wanted = bringing_up.Wanted(address, branch, name or repository_name(address))

    async def work(remote: Any) -> None:
        with bringing_up.interruption_told(), checklist() as shown:
            made = await bringing_up.create_environment(remote, wanted, shown)
            shown.finish()
        show_one(made, as_json=as_json, quiet=quiet, fields=ENVIRONMENT_FIELDS)

    with_remote(work)


@environments.command("ls")
def environment_list(as_json: Json = False, quiet: Quiet = False) -> None:
    """List your environments, newest first."""
    from craftastic.cli.names import load_names
    from craftastic.cli.output import show_ids, show_json, show_table

    async def work(remote: Any) -> None:
        rows = list((await load_names(remote)).environments)
        if as_json:
            show_json(rows)
        elif quiet:
            show_ids([row["id"] for row in rows])
        else:
            show_table(
                ("ID", "NAME", "STATUS", "BRANCH", "REPOSITORY", "SESSIONS"),
                [
                    (
                        row["id"][:8],
                        row["name"],
                        row["status"],
                        row["branch"],
                        row.get("repositoryUrl") or "-",
                        sum(session["status"] != "dead" for session in row["sessions"]),
                    )
                    for row in rows
                ],
            )

    with_remote(work)


@environments.command("show", short_help="Show one, with its progress or its error.")
def environment_show(
    environment: Annotated[str | None, typer.Argument(metavar="[ENVIRONMENT]", help=NAMED)] = None,
    as_json: Json = False,
) -> None:
    """Show one environment with its progress, or the reason of its error."""
    from craftastic.cli.names import load_names
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        found = (await load_names(remote)).environment(environment)
        row = await remote.get(f"/api/environments/{segment(found['id'])}")
        show_one(row, as_json=as_json, quiet=False, fields=ENVIRONMENT_FIELDS)

    with_remote(work)


@environments.command("stop", short_help="End all that runs in one; its work stays.")
def environment_stop(
    environment: Annotated[str | None, typer.Argument(metavar="[ENVIRONMENT]", help=NAMED)] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also while agents are at work in it.")
    ] = False,
) -> None:
    """End all that runs in an environment; its working trees stay, and sessions come back."""
    from craftastic.cli.names import load_names
    from craftastic.cli.output import printable, say
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        found = (await load_names(remote)).environment(environment)
        path = f"/api/environments/{segment(found['id'])}/stop"
        row = await remote.post(path, {"force": force})
        if row["status"] == "stopped":
            print(f"Stopped {printable(row['name'])}.")
        else:
            say(f"{printable(row['name'])} is not stopped yet; that goes on by itself.")

    with_remote(work)


@environments.command("start", short_help="Start one that is stopped or failed.")
def environment_start(
    environment: Annotated[str | None, typer.Argument(metavar="[ENVIRONMENT]", help=NAMED)] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start an environment that is stopped or failed; 5 if it does not come up."""
    from craftastic.cli.names import load_names
    from craftastic.cli.remote import segment
    from craftastic.errors import Conflict

    async def work(remote: Any) -> None:
        found = (await load_names(remote)).environment(environment)
        row = await remote.post(f"/api/environments/{segment(found['id'])}/start")
        if row["status"] != "running":
            raise Conflict(f"It is {row['status']}.", details=row.get("reason"))
        show_one(row, as_json=as_json, quiet=quiet, fields=ENVIRONMENT_FIELDS)

    with_remote(work)


@environments.command("repair", short_help="Look its repository through, and put it right.")
def environment_repair(
    environment: Annotated[str | None, typer.Argument(metavar="[ENVIRONMENT]", help=NAMED)] = None,
    as_json: Json = False,
) -> None:
    """Look an environment's repository through; a damaged one is cloned anew, and kept."""
    from craftastic.cli.names import load_names
    from craftastic.cli.output import printable, say, show_json
    from craftastic.cli.remote import CREATE_TIMEOUT_S, segment

    async def work(remote: Any) -> None:
        found = (await load_names(remote)).environment(environment)
        say("Looking through the repository; this takes a while for a large one.")
        repaired = await remote.post(
            f"/api/environments/{segment(found['id'])}/repair", timeout_s=CREATE_TIMEOUT_S
        )
        if as_json:
            show_json(repaired)
            return
        if repaired["pending"]:
            say("It goes on by itself; the same command again waits for it.")
            return
        for one in repaired["done"] or ["Nothing was damaged."]:
            print(printable(one))
        for one in repaired["kept"]:
            print(printable(f"A damaged repository is kept in {one}"))

    with_remote(work)


@environments.command("set", short_help="Change its name, its policies.")
def environment_set(
    environment: Annotated[str | None, typer.Argument(metavar="[ENVIRONMENT]", help=NAMED)] = None,
    push_policy: Annotated[
        Literal["any", "sessions", "none"] | None,
        typer.Option(
            help="What may be pushed: anything, its sessions' branches and new ones, or nothing."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    idle_stop: Annotated[
        str | None,
        typer.Option(
            metavar="MINUTES",
            help="Stop it after so many minutes without use: `never`, or `default` for the"
            " server's own.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Change an environment's name or policies; the rest stays."""
    from craftastic.cli.names import load_names
    from craftastic.cli.remote import segment

    given = {"pushPolicy": push_policy, "name": name}
    body: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if idle_stop is not None:
        body["idleStopMinutes"] = _minutes(idle_stop)
    if not body:
        raise InvalidInput("Say what to change: --push-policy, --idle-stop or --name.")

    async def work(remote: Any) -> None:
        found = (await load_names(remote)).environment(environment)
        row = await remote.patch(f"/api/environments/{segment(found['id'])}", body)
        show_one(row, as_json=as_json, quiet=quiet, fields=ENVIRONMENT_FIELDS)

    with_remote(work)


@environments.command("rm", short_help="Remove environments and everything in them.")
def environment_remove(
    wanted: Annotated[
        list[str] | None, typer.Argument(metavar="ENVIRONMENT...", help=NAMED)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove environments with their sandboxes, clones and everything in them."""
    from craftastic.cli.names import load_names
    from craftastic.cli.output import printable
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        names = await load_names(remote)
        for found in [names.environment(one) for one in wanted or [None]]:
            confirm(f"Remove {found['name']} and all work in it that was not pushed", yes=yes)
            answer = await remote.delete(f"/api/environments/{segment(found['id'])}")
            print(f"Removed {printable(found['name'])}.")
            discarded: list[dict[str, Any]] = answer.get("discarded") or []
            for gone in discarded:
                print(printable(f"Gone with it, on {gone['branch']}: {lost_or_kept(gone)}"))

    with_remote(work)


def _minutes(text: str) -> int | None:
    """Return an idle policy as the API has it.

    Raises:
        InvalidInput: It is none.
    """
    if text == "default":
        return None
    if text == "never":
        return 0
    if text.isascii() and text.isdigit() and len(text) < 8 and int(text) > 0:  # noqa: PLR2004
        return int(text)
    raise InvalidInput("--idle-stop takes a number of minutes, `never` or `default`.")
