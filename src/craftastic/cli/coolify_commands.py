"""`craftastic coolify …`: the Coolify that deployments go to. Its token is never an argument."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from craftastic.cli.running import NAMED, Json, Quiet, with_remote
from craftastic.errors import InvalidInput

coolify = typer.Typer(
    help="Connect a Coolify, list its applications, make its webhook.", no_args_is_help=True
)

PATH = "/api/coolify"
CHECK_S = 90.0
"""How long the server may ask Coolify what a token may do, in seconds."""

ABILITIES = (
    ("read", "read", "to follow deployments"),
    ("deploy", "deploy", "to deploy, cancel and roll back"),
    ("readSensitive", "read:sensitive", "to show build logs"),
)


@coolify.command("connect", short_help="Connect your Coolify.")
def coolify_connect(
    url: Annotated[str, typer.Argument(metavar="URL", help="As https://coolify.example.com.")],
    token_stdin: Annotated[
        bool,
        typer.Option("--token-stdin", help="The token is the first line of standard input."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Connect your Coolify; asks for an API token of it, or takes it from a pipe.

    The token is checked, stored encrypted and never shown again. A second one takes its place.
    """
    from craftastic.cli.output import ask_secret, interactive, printable, read_secret_line

    address = full_url(url)
    if not token_stdin and not interactive():
        raise InvalidInput("There is no terminal to ask you; pipe it in with --token-stdin.")
    asked = f"API token of {printable(address)}"
    token = (read_secret_line() if token_stdin else ask_secret(asked)).strip()
    if not token:
        raise InvalidInput("An empty token cannot be stored.")

    async def work(remote: Any) -> None:
        _show(await remote.put(f"{PATH}/connection", {"url": address, "token": token}), as_json)

    with_remote(work)


@coolify.command("status", short_help="Tell which Coolify is connected.")
def coolify_status(
    check: Annotated[
        bool, typer.Option("--check", help="Ask Coolify now, instead of what is known.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell which Coolify is connected, what its token may do, and what there is to do about it."""

    async def work(remote: Any) -> None:
        path = f"{PATH}/connection"
        if check:
            _show(await remote.post(f"{path}/check", timeout_s=CHECK_S), as_json)
        else:
            _show(await remote.get(path), as_json)

    with_remote(work)


@coolify.command("apps", short_help="List Coolify's applications.")
def coolify_applications(
    environment: Annotated[
        str | None,
        typer.Option(
            "--env", "--environment", "-e", help=f"Those of its repository first. {NAMED}"
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the applications that Coolify shows to the token, and how they are."""
    from craftastic.cli.output import say, show_ids, show_json, show_table

    async def work(remote: Any) -> None:
        from craftastic.cli._deployment_wishes import load_applications, refusals_told
        from craftastic.cli.names import load_names

        names = await load_names(remote) if environment else None
        only = names.environment(environment)["id"] if names else None
        with refusals_told():
            rows = await load_applications(remote, only)
        if as_json:
            show_json(rows)
        elif quiet:
            show_ids([one["id"] for one in rows])
        elif not rows:
            say("Coolify shows no application to this token.")
        else:
            show_table(
                ("ID", "NAME", "BRANCH", "STATUS", "ADDRESS", "REPOSITORY"),
                [
                    (
                        one["id"],
                        one["name"],
                        one["branch"] or "-",
                        one["status"],
                        one["address"] or "-",
                        _repository(one),
                    )
                    for one in rows
                ],
            )

    with_remote(work)


@coolify.command("disconnect", short_help="Forget your Coolify.")
def coolify_disconnect() -> None:
    """Forget your Coolify and its token; at Coolify the token stays valid."""
    from craftastic.cli.output import printable

    async def work(remote: Any) -> None:
        answer = await remote.delete(f"{PATH}/connection")
        print(printable(f"{str(answer['message']).rstrip('.')}."))

    with_remote(work)


@coolify.command("hook", short_help="Make an address for Coolify's notifications.")
def coolify_hook(
    delete: Annotated[bool, typer.Option("--delete", help="Take the address away.")] = False,
    server: Annotated[
        bool, typer.Option("--server", help="Of the server's own Coolify; for administrators.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make an address that Coolify tells its news to, and print it, this once.

    A new one takes the place of the one before. Whoever has it can only make the server look.
    """
    from craftastic.cli.output import printable, say, show_json

    path = f"{PATH}/server-hook" if server else f"{PATH}/hook"

    async def work(remote: Any) -> None:
        answer = await (remote.delete(path) if delete else remote.post(path))
        if as_json:
            show_json(answer)
        elif delete:
            print("The address is no longer taken.")
        else:
            print(printable(answer["url"]))
            say(
                "Enter it in Coolify under Notifications, Webhook, and tick the events of"
                " deployments. It is shown this once."
            )

    with_remote(work)


def full_url(text: str) -> str:
    """Return a Coolify's address with its scheme, which is https where none is said.

    Raises:
        InvalidInput: A user or password is in it: arguments are seen by others and kept by shells.
    """
    address = text.strip() if "://" in text else f"https://{text.strip()}"
    parts = urlsplit(address)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidInput("Give the address alone; the token is asked for.")
    return address.rstrip("/")


def _show(status: Mapping[str, Any], as_json: bool) -> None:
    from craftastic.cli.output import printable, say, show_json

    if as_json:
        show_json(status)
        return
    if not status["configured"]:
        print("No Coolify is connected; `craftastic coolify connect URL` does it.")
        return
    whose = "The server's own Coolify" if status["source"] == "server" else "Your Coolify"
    version = f", version {status['version']}" if status.get("version") else ""
    print(printable(f"{whose}: {status['url']}{version}"))
    abilities: Mapping[str, Any] = status.get("abilities") or {}
    for key, name, purpose in ABILITIES if abilities else ():
        word = "not known" if abilities.get(key) is None else "yes" if abilities[key] else "no"
        print(f"{name:16} {word:10} {purpose}")
    if not status.get("checkedAt"):
        say("It was not asked yet; `craftastic coolify status --check` does it.")
    if problem := status.get("problem"):
        say(problem["message"])
    if status.get("advice"):
        say(status["advice"])


def _repository(app: Mapping[str, Any]) -> str:
    mark = " (this one)" if app.get("matches") else ""
    return f"{app.get('repository') or '-'}{mark}"
