"""`craftastic var …`: variables and secrets for shells. A value is never an argument."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from craftastic.cli.running import NAMED, Json, Quiet, confirm, with_remote
from craftastic.errors import InvalidInput

MAX_VALUE_BYTES = 32 << 10
MAX_TYPED_BYTES = 4095
"""A terminal gives no longer line to a program. Source: termios(3), canonical mode."""

NOT_SHOWN = "(secret)"
OneEnvironment = Annotated[
    str | None,
    typer.Option(
        "--env", "-e", help=f"Only in this environment; in all of yours by default. {NAMED}"
    ),
]

variables = typer.Typer(
    help="List, set and remove variables and secrets for shells.", no_args_is_help=True
)


@variables.command("ls", short_help="List variables; a secret's value is not shown.")
def variable_list(
    environment: OneEnvironment = None, as_json: Json = False, quiet: Quiet = False
) -> None:
    """List variables: yours, or those of one environment with what it inherits."""
    from craftastic.cli.output import show_ids, show_json, show_table

    async def work(remote: Any) -> None:
        found = await remote.get(await _place(remote, environment))
        if as_json:
            show_json(found)
        elif quiet:
            show_ids([one["name"] for one in found["variables"]])
        else:
            show_table(
                ("NAME", "VALUE", "FROM"),
                [
                    *(
                        (
                            one["name"],
                            one.get("value", NOT_SHOWN),
                            "environment" if environment else "you",
                        )
                        for one in found["variables"]
                    ),
                    *(
                        (one["name"], NOT_SHOWN if one["isSecret"] else "-", _origin(one))
                        for one in found.get("inherited", [])
                    ),
                ],
            )

    with_remote(work)


@variables.command("set", short_help="Set a variable, or all of a .env file.")
def variable_set(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of the variable.")] = None,
    environment: OneEnvironment = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="No secret: its value is shown in lists and output.")
    ] = False,
    from_file: Annotated[
        Path | None, typer.Option(help="Set all variables of a .env file instead.")
    ] = None,
) -> None:
    """Set a variable for shells that start from now on; asks for the value, or takes a pipe's."""
    from craftastic.cli.remote import segment

    if (name is None) == (from_file is None):
        raise InvalidInput("Give the NAME of one variable, or --from-file.")
    values = {name: _read_value(name)} if name is not None else _read_file(from_file or Path())

    async def work(remote: Any) -> None:
        place = await _place(remote, environment)
        for one, value in values.items():
            body = {"value": value, "isSecret": not plain}
            await remote.put(f"{place}/{segment(one)}", body)
        print(f"Set {_counted(len(values))}, for shells that are started from now on.")

    with_remote(work)


@variables.command("rm", short_help="Remove variables.")
def variable_remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Of the variables.")],
    environment: OneEnvironment = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove variables with their values; shells that run keep them."""
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        place = await _place(remote, environment)
        confirm(f"Remove {', '.join(names)}; a secret cannot be read back", yes=yes)
        for one in names:
            await remote.delete(f"{place}/{segment(one)}")
        print(f"Removed {_counted(len(names))}.")

    with_remote(work)


async def _place(remote: Any, environment: str | None) -> str:
    """Return the path of the variables that are meant."""
    from craftastic.cli.names import load_names
    from craftastic.cli.remote import segment

    if environment is None:
        return "/api/variables"
    found = (await load_names(remote)).environment(environment)
    return f"/api/environments/{segment(found['id'])}/variables"


def _origin(inherited: Mapping[str, Any]) -> str:
    return "you, overridden" if inherited["overridden"] else "you"


def _counted(count: int) -> str:
    return "1 variable" if count == 1 else f"{count} variables"


def _read_value(name: str) -> str:
    """Ask a person for a value without showing it; else take all of standard input.

    One line end at the end of a piped value is the pipe's, as of `echo`, and does not count.

    Raises:
        InvalidInput: It is no text, too long for a variable, or too long to be typed.
    """
    from craftastic.cli.output import ask_secret, printable

    if sys.stdin.isatty():
        value = ask_secret(f"Value of {printable(name)}")
        if len(value.encode(errors="replace")) >= MAX_TYPED_BYTES:
            raise InvalidInput("That is too long to be typed here; pipe it into the command.")
        return value
    content = sys.stdin.buffer.read(MAX_VALUE_BYTES + 3)
    if len(content) > MAX_VALUE_BYTES + 2:
        raise InvalidInput(f"A variable's value can have at most {MAX_VALUE_BYTES >> 10} KiB.")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InvalidInput("The value on standard input is not UTF-8 text.") from None
    return text.removesuffix("\n").removesuffix("\r")


def _read_file(path: Path) -> dict[str, str]:
    from craftastic.variables.dotenv import MAX_FILE_BYTES, parse

    try:
        with path.open("rb") as file:
            found = parse(file.read(MAX_FILE_BYTES + 1))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
    if not found:
        raise InvalidInput(f"There are no variables in {path}.")
    return found
