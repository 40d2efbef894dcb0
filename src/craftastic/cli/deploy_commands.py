"""`craftastic deploy` and `craftastic deployment …`: what was pushed, built and run by Coolify."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from craftastic.cli.running import NAMED, Json, Quiet, show_one, with_remote
from craftastic.errors import InvalidInput, NotFound

deploying = typer.Typer()
deployments = typer.Typer(
    help="Deployments: how they are, their logs; cancel, roll back.", no_args_is_help=True
)

MIN_COMMIT = 4
SHORT = 7
FIELDS = (
    "id",
    "app_name",
    "app_id",
    "kind",
    "status",
    "reason",
    "health",
    "health_text",
    "branch",
    "pull_request_id",
    "commit",
    "built_commit",
    "queue_ahead",
    "coolify_deployment_id",
    "coolify_status",
    "url",
    "environment_id",
    "session_id",
    "created_at",
    "building_at",
    "ended_at",
    "health_at",
)

OneTarget = Annotated[
    str | None,
    typer.Argument(metavar="[SESSION]", help=f"Or an environment. {NAMED} ENVIRONMENT/NAME too."),
]
App = Annotated[
    str | None,
    typer.Option("--app", metavar="ID|NAME", help="Application of Coolify; then remembered."),
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Show it until it ends, and end as it does.")
]
OneDeployment = Annotated[
    str, typer.Argument(metavar="ID", help="Of the deployment, or the beginning of it.")
]


@deploying.command("deploy", short_help="Deploy what was pushed, through Coolify.")
def deploy(  # noqa: PLR0913, PLR0917 - one parameter for each option of the command
    session: OneTarget = None,
    app: App = None,
    branch: Annotated[
        str | None,
        typer.Option("--branch", "-b", help="The one that Coolify builds, if not the session's."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Build anew, even if the same is being deployed already."),
    ] = False,
    pull_request: Annotated[
        int | None,
        typer.Option("--pull-request", min=1, metavar="N", help="Its preview instead."),
    ] = None,
    pushed_only: Annotated[
        bool, typer.Option("--pushed-only", help="Deploy what is pushed, without what is not.")
    ] = False,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Deploy what a session has pushed, through Coolify; refuses work that is not pushed.

    Exit code 1 if the deployment failed, 5 if it was refused and nothing was begun.
    """
    body: dict[str, Any] = {"branch": branch, "pullRequestId": pull_request}
    body = {key: value for key, value in body.items() if value is not None}
    body |= {"force": True} if force else {}
    body |= {"pushedOnly": True} if pushed_only else {}

    async def work(remote: Any) -> None:
        from craftastic.cli._deployment_wishes import ask, find_target
        from craftastic.cli.names import load_names

        target = find_target(await load_names(remote), session)
        row = await ask(remote, "deploy", target, body, app)
        await _show_begun(remote, row, follow=follow, as_json=as_json)

    with_remote(work)


@deployments.command("ls", short_help="List deployments.")
def deployment_list(
    session: Annotated[
        str | None,
        typer.Argument(metavar="[SESSION|ENVIRONMENT]", help=f"Only those of it. {NAMED}"),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List deployments, newest first: all of yours, or those of a session or environment."""
    from craftastic.cli.output import say, show_ids, show_json

    async def work(remote: Any) -> None:
        from craftastic.cli._deployment_wishes import find_target, load_deployments
        from craftastic.cli.names import load_names

        names = await load_names(remote)
        target = None if session is None else find_target(names, session)
        rows = await load_deployments(remote, names, target)
        if as_json:
            show_json(rows)
        elif quiet:
            show_ids([one["id"] for one in rows])
        elif not rows:
            say("Nothing was deployed yet.")
        else:
            _show_rows(rows, {one["id"]: one["name"] for one in names.environments})

    with_remote(work)


@deployments.command("show", short_help="Show how a deployment is.")
def deployment_show(wanted: OneDeployment, as_json: Json = False) -> None:
    """Show how a deployment is, and how the application is that it built."""

    async def work(remote: Any) -> None:
        show_one(await _row(remote, wanted), as_json=as_json, quiet=False, fields=FIELDS)

    with_remote(work)


@deployments.command("logs", short_help="Show the log of a build, or of the application.")
def deployment_logs(
    wanted: OneDeployment,
    follow: Follow = False,
    application: Annotated[
        bool, typer.Option("--application", help="What the application prints now.")
    ] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", min=1, max=1000, help="So many; 100 by default.")
    ] = None,
) -> None:
    """Show the log of a deployment's build, or the newest lines of its application."""
    if follow and application:
        raise InvalidInput("--follow is for the log of the build, --application shows it once.")
    if lines is not None and not application:
        raise InvalidInput("--lines goes with --application.")

    async def work(remote: Any) -> None:
        from craftastic.cli import _deployment_following as following
        from craftastic.cli._deployment_wishes import find_deployment, refusals_told

        with refusals_told():
            if follow:
                await following.follow(remote, await _row(remote, wanted), as_json=False)
            elif application:
                await _show_application_log(remote, wanted, lines or 100)
            else:
                await following.show_log(remote, await find_deployment(remote, wanted))

    with_remote(work)


@deployments.command("cancel", short_help="Cancel a deployment.")
def deployment_cancel(wanted: OneDeployment, as_json: Json = False) -> None:
    """Cancel a deployment that has not ended; 5 if it has. What ran before runs on."""
    from craftastic.cli.output import printable, show_json
    from craftastic.errors import Conflict

    async def work(remote: Any) -> None:
        from craftastic.cli._deployment_wishes import ASKING_S, PATH, find_deployment, refusals_told
        from craftastic.cli.remote import segment

        id_ = await find_deployment(remote, wanted)
        with refusals_told():
            row = await remote.post(f"{PATH}/cancel/{segment(id_)}", timeout_s=ASKING_S)
        if as_json:
            show_json(row)
        elif row["status"] == "cancelled":
            print("Cancelled.")
        elif row["status"] in {"pending", "building"}:
            why = f" {row['reason']}" if row.get("reason") else ""
            print(printable(f"To be cancelled; it is {row['status']} still.{why}"))
        else:
            raise Conflict(f"It had ended already: {row['status']}.")

    with_remote(work)


@deployments.command("rollback", short_help="Go back to what was deployed before.")
def deployment_rollback(
    session: OneTarget = None,
    commit: Annotated[
        str | None,
        typer.Argument(
            metavar="[COMMIT]", help="Or its beginning; without it, lists what there is."
        ),
    ] = None,
    app: App = None,
    follow: Follow = False,
    as_json: Json = False,
) -> None:
    """Go back to an image that Coolify has kept, without a build; or list these images."""
    if follow and commit is None:
        raise InvalidInput("Name the commit to go back to; without one this lists them.")

    async def work(remote: Any) -> None:
        from craftastic.cli._deployment_wishes import ask, find_target
        from craftastic.cli.names import load_names

        target = find_target(await load_names(remote), session)
        kept = await _kept(remote, target, app)
        if commit is None:
            _show_kept(kept, as_json=as_json)
            return
        body = {"commit": _meant_commit(kept, commit)}
        row = await ask(remote, "rollback", target, body, app)
        await _show_begun(remote, row, follow=follow, as_json=as_json)

    with_remote(work)


# ---- what the commands share ------------------------------------------------------------------


async def _row(remote: Any, wanted: str) -> dict[str, Any]:
    from craftastic.cli._deployment_wishes import PATH, find_deployment
    from craftastic.cli.remote import segment

    id_ = await find_deployment(remote, wanted)
    return await remote.get(f"{PATH}/status/{segment(id_)}")


async def _show_begun(remote: Any, row: dict[str, Any], *, follow: bool, as_json: bool) -> None:
    from craftastic.cli import _deployment_following as following
    from craftastic.cli.output import printable, say, show_json

    if follow:
        say(f"Deployment {row['id']} of {row['app_name']}.")
        await following.follow(remote, row, as_json=as_json)
        return
    if as_json:
        show_json(row)
        return
    print(printable(f"deployment {row['id']}"))
    print(printable(f"status {row['status']}"))
    if row.get("reason"):
        say(row["reason"])
    if not following.has_ended(row):
        say(f"`craftastic deployment logs {row['id'][:8]} --follow` shows it to the end.")


def _show_rows(rows: Sequence[dict[str, Any]], environments: dict[str, str]) -> None:
    from craftastic.cli.output import show_table

    show_table(
        ("ID", "ENVIRONMENT", "APPLICATION", "KIND", "STATUS", "HEALTH", "COMMIT", "CREATED"),
        [
            (
                one["id"][:8],
                environments.get(one["environment_id"], "-"),
                one["app_name"],
                one["kind"],
                one["status"],
                one["health"] or "-",
                (one["built_commit"] or one["commit"] or "-")[:SHORT],
                one["created_at"],
            )
            for one in rows
        ],
    )


async def _show_application_log(remote: Any, wanted: str, lines: int) -> None:
    from craftastic.cli._deployment_wishes import PATH, find_deployment
    from craftastic.cli._git_text import without_escapes
    from craftastic.cli.output import say
    from craftastic.cli.remote import segment

    id_ = await find_deployment(remote, wanted)
    found = await remote.get(f"{PATH}/application-logs/{segment(id_)}?lines={lines}")
    if not found["running"]:
        say("The application is not running: Coolify has no log of it.")
    elif found["log"]:
        print(without_escapes(found["log"].rstrip("\n")))


async def _kept(remote: Any, target: Any, app: str | None) -> list[dict[str, Any]]:
    """List the images that an application can go back to."""
    from urllib.parse import urlencode

    from craftastic.cli._deployment_wishes import PATH, refusals_told, with_application
    from craftastic.cli.remote import segment

    async def look(app_id: str | None) -> Any:
        query = f"?{urlencode({'appId': app_id})}" if app_id else ""
        return await remote.get(f"{PATH}/commits/{segment(target.id)}{query}", timeout_s=60.0)

    with refusals_told(target):
        return (await with_application(remote, target, app, look))["commits"]


def _show_kept(kept: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    from craftastic.cli.output import say, show_json, show_table

    if as_json:
        show_json(kept)
    elif not kept:
        say("Coolify has kept no image that could be gone back to.")
    else:
        show_table(
            ("COMMIT", "BUILT", "NOW"),
            [
                (one["commit"], one["createdAt"] or "-", "runs" if one["current"] else "-")
                for one in kept
            ],
        )


def _meant_commit(kept: Sequence[dict[str, Any]], text: str) -> str:
    """Return the commit that was meant among those that are kept.

    Raises:
        NotFound: There is no image of it.
        InvalidInput: Several fit, or it is too short.
    """
    if len(text) < MIN_COMMIT:
        raise InvalidInput(f"Give at least {MIN_COMMIT} characters of the commit.")
    found = {str(one["commit"]) for one in kept if str(one["commit"]).startswith(text.lower())}
    if not found:
        raise NotFound(
            f"Coolify has kept no image of {text}.",
            details="`craftastic deployment rollback SESSION` lists what it has kept.",
        )
    if len(found) > 1:
        raise InvalidInput(f"{text} fits several; say more of the commit.")
    return found.pop()
