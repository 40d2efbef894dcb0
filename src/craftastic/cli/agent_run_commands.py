"""What agents wait for, and what they are told: `inbox`, `approve`, `deny`, `session send`."""

import sys
from typing import Annotated, Any

import typer

from craftastic.cli.running import NAMED, Json, Quiet, with_remote
from craftastic.cli.session_commands import OneSession, sessions
from craftastic.errors import InvalidInput

PATH = "/api/approvals"
MAX_PROMPT_BYTES = 400_000
SHOWN = 100
OneRequest = Annotated[
    str, typer.Argument(metavar="ID", help="Of the request, or the beginning of it.")
]

waiting = typer.Typer()


@waiting.command("inbox", short_help="List what agents wait for.")
def inbox(as_json: Json = False, quiet: Quiet = False) -> None:
    """List what your agents wait for you to allow, the oldest first."""
    from craftastic.cli.output import say, show_ids, show_json, show_table

    async def work(remote: Any) -> None:
        found = await remote.get(PATH)
        if as_json:
            show_json(found["approvals"])
        elif quiet:
            show_ids([one["id"] for one in found["approvals"]])
        elif not found["approvals"]:
            say("No agent waits for you.")
        else:
            show_table(
                ("ID", "SESSION", "WANTS", "SINCE"),
                [
                    (one["id"][:8], one["sessionName"], _wants(one), one["createdAt"])
                    for one in found["approvals"]
                ],
            )

    with_remote(work)


@waiting.command("approve", short_help="Allow what an agent waits for.")
def approve(wanted: OneRequest) -> None:
    """Allow what an agent waits for; 5 if it was answered before."""
    _decide(wanted, {"decision": "allow"})


@waiting.command("deny", short_help="Deny what an agent waits for.")
def deny(
    wanted: OneRequest,
    because: Annotated[
        str | None, typer.Option("--because", metavar="TEXT", help="What the agent is told.")
    ] = None,
) -> None:
    """Deny what an agent waits for; it goes on without it. 5 if it was answered before."""
    _decide(wanted, {"decision": "deny"} | ({} if because is None else {"message": because}))


@sessions.command("send", short_help="Give an agent something to do.")
def session_send(
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help=f"{NAMED} ENVIRONMENT/NAME too.")
    ],
    text: Annotated[str, typer.Argument(metavar="TEXT|-", help="`-` takes standard input.")],
    as_json: Json = False,
) -> None:
    """Queue a text for the agent of a session; it is typed as soon as the agent is idle."""
    from craftastic.cli.output import printable, show_json

    prompt = _read_text() if text == "-" else text

    async def work(remote: Any) -> None:
        receipt = await remote.post(f"{await _path(remote, session)}/prompt", {"text": prompt})
        if as_json:
            show_json(receipt)
            return
        why = f": {receipt['reason']}" if receipt.get("reason") else ""
        print(printable(f"{receipt['status']}{why}"))

    with_remote(work)


@sessions.command("interrupt", short_help="Interrupt an agent.")
def session_interrupt(session: OneSession = None) -> None:
    """Press the key that interrupts the agent of a session; 5 if it does not work or wait."""
    from craftastic.cli.output import printable
    from craftastic.errors import Conflict

    async def work(remote: Any) -> None:
        done = await remote.post(f"{await _path(remote, session)}/interrupt")
        if not done["interrupted"]:
            raise Conflict(f"It was not interrupted. {done.get('reason') or ''}".strip())
        print(printable("Interrupted."))

    with_remote(work)


def _decide(wanted: str, body: dict[str, str]) -> None:
    from craftastic.cli.output import printable
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        # A whole id goes to the server as it is: what was answered before is no longer listed.
        id_, what = wanted, "it"
        if len(wanted) < len("00000000-0000-0000-0000-000000000000"):
            one = await _meant(remote, wanted)
            id_, what = one["id"], f"{_wants(one)} ({one['sessionName']})"
        answer = await remote.post(f"{PATH}/{segment(id_)}", body)
        print(printable(f"{answer['status'].capitalize()}: {what}"))

    with_remote(work)


async def _meant(remote: Any, text: str) -> dict[str, Any]:
    from craftastic.cli.names import meant

    absent = f"Nothing that waits is called {text}; `craftastic inbox` lists it."
    return meant((await remote.get(PATH))["approvals"], text, lambda _one: False, absent)


def _wants(one: dict[str, Any]) -> str:
    said = " ".join(str(one["input"]).split())
    shown = said if len(said) <= SHOWN else said[: SHOWN - 1] + "…"
    return ": ".join(part for part in (one["tool"], shown) if part) or "a permission"


def _read_text() -> str:
    """Return standard input as the text of a prompt.

    Raises:
        InvalidInput: It is too long, or no text.
    """
    data = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
    if len(data) > MAX_PROMPT_BYTES:
        raise InvalidInput("The text on standard input is too long.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput("Standard input is not text.") from None


async def _path(remote: Any, session: str | None) -> str:
    from craftastic.cli.names import load_names
    from craftastic.cli.remote import segment

    found, _owner = (await load_names(remote)).session(session)
    return f"/api/sessions/{segment(found['id'])}"
