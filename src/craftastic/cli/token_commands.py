"""`craftastic token …`: personal access tokens, for programs that act in one's name."""

from typing import Annotated, Any, Literal

import typer

from craftastic.cli.running import Json, Quiet, confirm, with_remote

tokens = typer.Typer(help="Make, list and revoke access tokens.", no_args_is_help=True)

PATH = "/api/auth/tokens"


@tokens.command("create", short_help="Make an access token, and print it once.")
def token_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you will know it by.")],
    scope: Annotated[
        Literal["read", "write"],
        typer.Option("--scope", help="`read` to look, `write` to do what you may do."),
    ] = "read",
    days: Annotated[
        int, typer.Option("--days", min=1, max=366, help="After how many days it expires.")
    ] = 90,
    as_json: Json = False,
) -> None:
    """Make an access token for a program and print it, this once.

    The program signs in with it by `craftastic login --token-stdin`, or sends it as a bearer token.
    """
    from craftastic.cli.output import printable, say, show_json

    async def work(remote: Any) -> None:
        body = {"name": name, "scope": scope, "expiresInDays": days}
        made = (await remote.post(PATH, body))["data"]
        if as_json:
            show_json(made)
            return
        print(printable(made["secret"]))
        say(
            f"It may {scope}, until {made['token']['expiresAt'][:10]}. It is shown this once;"
            f" whoever has it acts as you."
        )

    with_remote(work)


@tokens.command("ls", short_help="List access tokens; they themselves are not shown.")
def token_list(as_json: Json = False, quiet: Quiet = False) -> None:
    """List your access tokens, what each may do, and when it was used last."""
    from craftastic.cli.output import show_ids, show_json, show_table

    async def work(remote: Any) -> None:
        found = await _tokens(remote)
        if as_json:
            show_json(found)
        elif quiet:
            show_ids([one["id"] for one in found])
        else:
            show_table(
                ("ID", "NAME", "SCOPE", "EXPIRES", "LAST USED"),
                [
                    (
                        one["id"][:8],
                        one["name"],
                        one["scope"],
                        one["expiresAt"][:10],
                        one["lastUsedAt"] or "-",
                    )
                    for one in found
                ],
            )

    with_remote(work)


@tokens.command("rm", short_help="Revoke access tokens.")
def token_remove(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Its name, its id, or the beginning of that."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Revoke access tokens; programs that use them are refused within 5 seconds."""
    from craftastic.cli.output import printable
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        known = await _tokens(remote)
        for token in [_meant(known, one) for one in names]:
            confirm(f"Revoke the access token {token['name']}", yes=yes)
            await remote.delete(f"{PATH}/{segment(token['id'])}")
            print(f"Revoked {printable(token['name'])}.")

    with_remote(work)


async def _tokens(remote: Any) -> list[dict[str, Any]]:
    return (await remote.get(PATH))["data"]["tokens"]


def _meant(known: list[dict[str, Any]], text: str) -> dict[str, Any]:
    from craftastic.cli.names import meant

    absent = f"There is no access token {text}; `craftastic token ls` lists them."
    return meant(known, text, lambda one: one["name"] == text, absent)
