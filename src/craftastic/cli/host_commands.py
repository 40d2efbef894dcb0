"""`craftastic host …`: credentials of git hosts. A password or token is never an argument."""

from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from craftastic.cli.running import Json, PasswordStdin, Quiet, confirm, with_remote
from craftastic.errors import InvalidInput

hosts = typer.Typer(help="Store, list and remove credentials of git hosts.", no_args_is_help=True)

Origin = Annotated[
    str, typer.Argument(metavar="ORIGIN", help="Address of the host, as https://gitlab.com.")
]


@hosts.command("add", short_help="Store a password or token for a git host.")
def host_add(
    origin: Origin,
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="Most hosts take any with a token.")
    ] = None,
    password_stdin: PasswordStdin = False,
    as_json: Json = False,
) -> None:
    """Store a password or token for a git host; asks for it, or takes it from a pipe.

    A second one takes the place of the first. It is stored encrypted and never shown again.
    """
    from craftastic.cli.output import (
        ask_secret,
        interactive,
        printable,
        read_secret_line,
        show_json,
    )

    address = full_origin(origin)
    if not password_stdin and not interactive():
        raise InvalidInput("There is no terminal to ask you; pipe it in with --password-stdin.")
    asked = f"Password or token for {printable(address)}"
    password = read_secret_line() if password_stdin else ask_secret(asked)
    if not password:
        raise InvalidInput("An empty password cannot be stored.")
    body = {"origin": address, "password": password}
    body |= {"username": username} if username else {}

    async def work(remote: Any) -> None:
        host = (await remote.put("/api/git/hosts", body))["data"]["host"]
        if as_json:
            show_json(host)
        else:
            print(printable(f"Stored for {host['origin']}, user {host['username']}."))

    with_remote(work)


@hosts.command("ls", short_help="List git hosts; passwords are not shown.")
def host_list(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the git hosts that you have stored a credential for, and whether they take it."""
    from craftastic.cli.output import show_ids, show_json, show_table

    async def work(remote: Any) -> None:
        found = await _hosts(remote)
        if as_json:
            show_json(found)
        elif quiet:
            show_ids([one["id"] for one in found])
        else:
            show_table(
                ("ID", "ORIGIN", "USERNAME", "LAST USED", "LAST ERROR"),
                [
                    (
                        one["id"][:8],
                        one["origin"],
                        one["username"],
                        one.get("lastUsedAt") or "-",
                        one.get("lastError") or "-",
                    )
                    for one in found
                ],
            )

    with_remote(work)


@hosts.command("rm", short_help="Forget credentials of git hosts.")
def host_remove(
    origins: Annotated[
        list[str],
        typer.Argument(metavar="ORIGIN...", help="Its address, its id, or the beginning of that."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Forget credentials of git hosts; at the host itself they stay valid."""
    from craftastic.cli.output import printable
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        known = await _hosts(remote)
        for host in [_meant(known, one) for one in origins]:
            confirm(f"Remove the credential for {host['origin']}", yes=yes)
            await remote.delete(f"/api/git/hosts/{segment(host['id'])}")
            print(f"Removed the credential for {printable(host['origin'])}.")

    with_remote(work)


def full_origin(text: str) -> str:
    """Return a host's address with its scheme, which is https where none is said.

    Raises:
        InvalidInput: A user or password is in it: arguments are seen by others and kept by shells.
    """
    address = text.strip() if "://" in text else f"https://{text.strip()}"
    if "@" in urlsplit(address).netloc:
        raise InvalidInput("Leave user and password out of the address; see --username.")
    return address.rstrip("/")


async def _hosts(remote: Any) -> list[dict[str, Any]]:
    return (await remote.get("/api/git/hosts"))["data"]["hosts"]


def _meant(known: list[dict[str, Any]], text: str) -> dict[str, Any]:
    from craftastic.cli.names import meant

    origin = full_origin(text).lower()
    absent = f"There is no credential for {text}; `craftastic host ls` lists them."
    return meant(known, text, lambda one: one["origin"] == origin, absent)
