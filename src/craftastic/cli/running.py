"""What the commands share: how they run, their options, what they print. Imports are light."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from craftastic.cli.failures import Failure
from craftastic.errors import InvalidInput

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only.")]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Look without typing.")]
DetachKeys = Annotated[
    str, typer.Option("--detach-keys", help="Keys that detach, in this order; empty for none.")
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.1, help="Leave after so many seconds, with exit code 6."),
]
Email = Annotated[str | None, typer.Option("--email", help="E-mail address of the account.")]
PersonName = Annotated[str | None, typer.Option("--name", help="Your name, for a new account.")]
PasswordStdin = Annotated[
    bool,
    typer.Option("--password-stdin", help="The password is the first line of standard input."),
]
Branch = Annotated[str | None, typer.Option("--branch", "-b", help="Branch to work on.")]
DETACH_KEYS = "ctrl-p,ctrl-q"
NAMED = "Its id, the beginning of it, or its name."


chosen: dict[str, str] = {}
"""The server that `--url` or its variable named, under `url`."""


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run a command's async part; of several failures at once the first is told."""
    import anyio

    try:
        return anyio.run(work)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = cast("BaseExceptionGroup[BaseException]", first).exceptions[0]
    return first


def with_remote(work: Callable[[Any], Awaitable[Any]], url: str | None = None) -> Any:
    """Run work with the API of the chosen server."""
    from craftastic.cli.remote import DEFAULT_URL, connected, parse_url
    from craftastic.cli.store import SignIns

    sign_ins = SignIns(Path(typer.get_app_dir("craftastic")))
    address = parse_url(url or chosen.get("url") or sign_ins.current() or DEFAULT_URL)

    async def connect_and_work() -> Any:
        async with connected(address, sign_ins) as remote:
            return await work(remote)

    return run(connect_and_work)


def checked_settings() -> Any:
    """Read the settings; a wrong one is the user's to mend, not a bug.

    Raises:
        InvalidInput: A setting does not parse.
    """
    from pydantic import ValidationError

    from craftastic.settings import load_settings

    try:
        return load_settings()
    except ValidationError as error:
        faults = "; ".join(
            f"{_variable(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise InvalidInput(f"The settings are wrong: {faults}.") from error


def _variable(place: tuple[int | str, ...]) -> str:
    """Return what the user wrote: the variable, where only the field's own name is known."""
    from craftastic.cli.settings_page import variables
    from craftastic.settings import Settings

    name = str(place[0]) if place else ""
    field = Settings.model_fields.get(name)
    return variables(name, field)[0] if field else ".".join(str(part) for part in place)


ENVIRONMENT_FIELDS = (
    "id",
    "name",
    "status",
    "reason",
    "runtime",
    "branch",
    "repositoryUrl",
    "cloneStatus",
    "cloneReason",
    "isolation",
    "pushPolicy",
    "createdAt",
)
SESSION_FIELDS = ("id", "name", "status", "gitBranch", "workingDirectory", "createdAt")


def show_one(
    row: Mapping[str, Any], *, as_json: bool, quiet: bool, fields: tuple[str, ...]
) -> None:
    from craftastic.cli.output import printable, show_ids, show_json

    if as_json:
        show_json(row)
    elif quiet:
        show_ids([row["id"]])
    else:
        for field in fields:
            if row.get(field) is not None:
                print(f"{field:16} {printable(row[field])}")
        if isinstance(row.get("progress"), dict):
            progress = row["progress"]
            print(f"{'progress':16} {printable(progress.get('message') or progress.get('step'))}")


def lost_or_kept(row: Mapping[str, Any]) -> str:
    """Say what work a removal found that was nowhere else."""
    parts: list[str] = []
    if row.get("uncommitted"):
        parts.append("changes that were not committed")
    unpushed = row.get("unpushed")
    if isinstance(unpushed, int) and unpushed > 0:
        parts.append(
            "1 commit that was not pushed"
            if unpushed == 1
            else f"{unpushed} commits that were not pushed"
        )
    return " and ".join(parts) or "work"


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is gone for good.

    Raises:
        InvalidInput: Nobody can be asked.
        Failure: The answer is no.
    """
    from craftastic.cli.output import ask, interactive, printable

    if yes:
        return
    if not interactive():
        raise InvalidInput("There is no terminal to ask you; say --yes.")
    if ask(f"{printable(question)} (yes/no)").lower() not in {"y", "yes"}:
        raise Failure("Nothing was removed.", 1)


async def attach_terminal(
    remote: Any,
    session: Mapping[str, Any],
    environment: Mapping[str, Any],
    *,
    detach_keys: str,
    read_only: bool = False,
    timeout_s: float | None = None,
) -> None:
    """Attach, and end the command as the terminal ended.

    Raises:
        InvalidInput: The detach keys are none.
        Failure: It ended with an exit code other than 0.
    """
    from craftastic.cli._escape_keys import parse_detach_keys
    from craftastic.cli.output import printable
    from craftastic.cli.terminal import Manner, Target, attach

    try:
        keys = parse_detach_keys(detach_keys)
    except ValueError as error:
        raise InvalidInput(f"--detach-keys: {error}.") from error
    label = printable(f"{environment['name']}/{session.get('name') or session['id'][:8]}")
    target = Target(session["id"], environment["id"], label)
    end = await attach(remote, target, Manner(read_only, keys, timeout_s))
    if end.exit_code:
        raise Failure(end.message, end.exit_code)
    if end.message:
        print(end.message, file=sys.stderr)
