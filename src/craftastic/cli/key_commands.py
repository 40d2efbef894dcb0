"""`craftastic keys …`: the keys of secrets at rest, on the server's own database and key file."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from craftastic.cli.running import Json, checked_settings, run
from craftastic.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from craftastic.credentials.service import CredentialService, RotationResult
    from craftastic.settings import Settings

keys = typer.Typer(help="The keys of secrets at rest, on this machine.", no_args_is_help=True)


class DatabaseNotReady(Unavailable):
    """There is no database yet, or it has another version's schema."""


class WrongKeys(Conflict):
    """No secret of this database is under one of these keys: the settings are not the server's."""


class KeysInUse(Conflict):
    """Old keys cannot be removed while secrets are under them."""


@keys.command("ls", short_help="List the keys of secrets at rest.")
def key_list(as_json: Json = False) -> None:
    """List the keys of secrets at rest, and how many secrets each one has."""
    from craftastic.cli.output import say, show_json, show_table

    async def work() -> list[dict[str, Any]]:
        async with opened(checked_settings()) as credentials:
            return rows(credentials, await credentials.counts())

    found = _run(work)
    if as_json:
        show_json(found)
        return
    show_table(
        ("KEY", "USE", "FROM", "SECRETS"),
        [(row["id"], row["use"], row["from"] or "-", row["secrets"]) for row in found],
    )
    if any(row["use"] == "missing" for row in found):
        say(
            "Secrets under a missing key cannot be read: put the key into the key file, or into "
            "CRAFTASTIC_ENCRYPTION_OLD_KEYS."
        )


@keys.command("rotate", short_help="Make a new key and put every secret under it.")
def key_rotate(
    no_new_key: Annotated[
        bool,
        typer.Option("--no-new-key", help="Go on with the current key: after an interruption."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a new current key and put every secret under it; a server may run meanwhile."""
    from craftastic.cli.output import say, show_json

    async def work() -> Any:
        async with opened(checked_settings()) as credentials:
            await _refuse_wrong_keys(credentials)
            if credentials.keyring.is_set:
                say(
                    "CRAFTASTIC_ENCRYPTION_KEY sets the current key, so none is made. To change "
                    "it: put its value into CRAFTASTIC_ENCRYPTION_OLD_KEYS and a new one in its "
                    "place, restart the servers, and run this again."
                )
            elif not no_new_key:
                say(f"The current key is now {await credentials.add_key()}.")
            return await _rotate(credentials)

    try:
        done: RotationResult = _run(work)
    except KeyboardInterrupt:
        say("Interrupted; nothing is lost. Go on with `craftastic keys rotate --no-new-key`.")
        raise
    if as_json:
        show_json(
            {
                "current": done.key_id,
                "moved": done.moved,
                "unreadable": done.unreadable,
                "left": done.left,
            }
        )
    else:
        print(f"{done.moved} secrets were put under the key {done.key_id}.")
    _judge(done)


@keys.command("prune", short_help="Remove old keys that no secret uses.")
def key_prune(as_json: Json = False) -> None:
    """Remove old keys that no secret uses from the key file; 5 if others are still in use."""
    from craftastic.cli.output import show_ids, show_json

    async def work() -> tuple[tuple[str, ...], list[dict[str, Any]]]:
        async with opened(checked_settings()) as credentials:
            await _refuse_wrong_keys(credentials)
            gone = await credentials.prune()
            return gone, rows(credentials, await credentials.counts())

    gone, left = _run(work)
    if as_json:
        show_json({"removed": gone})
    else:
        show_ids(gone)
    _tell_kept(left)


@asynccontextmanager
async def opened(settings: "Settings") -> "AsyncGenerator[CredentialService]":
    """Open the database and the keys as the server would; make neither.

    Raises:
        DatabaseNotReady: There is no database yet, or its schema is another version's.
        MigrationRefused: The database does not answer.
        KeyFileBroken, KeyFileMissing: The keys cannot be read.
    """
    from craftastic.audit.service import AuditService
    from craftastic.clock import SystemClock
    from craftastic.credentials.service import CredentialService
    from craftastic.database import Database
    from craftastic.keys import load_keyring

    await check_schema(settings)
    current = settings.encryption_key
    keyring = load_keyring(
        settings.keys_dir,
        current.get_secret_value() if current else None,
        settings.old_encryption_keys,
    )
    clock = SystemClock()
    database = Database(settings.sqlalchemy_url)
    try:
        yield CredentialService(database, keyring, clock, AuditService(database, clock))
    finally:
        await database.close()


def rows(credentials: "CredentialService", counts: dict[str, int]) -> list[dict[str, Any]]:
    """Return one row a key, the current one first, those that secrets need and lack last."""
    ring = credentials.keyring.ids
    missing = sorted(set(counts) - set(ring))
    return [
        {
            "id": key_id,
            "use": "missing" if key_id in missing else "old" if place else "current",
            "from": None
            if key_id in missing
            else "file"
            if credentials.keyring.in_file(key_id)
            else "setting",
            "secrets": counts.get(key_id, 0),
        }
        for place, key_id in enumerate((*ring, *missing))
    ]


async def check_schema(settings: "Settings") -> None:
    """Make sure that the database is there, and of this version; make nothing.

    Raises:
        DatabaseNotReady: See the class.
        MigrationRefused: The database does not answer.
    """
    import anyio
    from sqlalchemy.engine import make_url

    from craftastic.migrations import runner

    url = make_url(settings.sqlalchemy_url)
    is_file = url.get_backend_name() == "sqlite"
    if is_file and not await anyio.Path(url.database or "").exists():
        raise DatabaseNotReady(
            f"There is no database at {url.database}.",
            details="The server makes it; run this command with the server's settings.",
        )
    found = await runner.current(settings.sqlalchemy_url)
    if found != runner.newest():
        raise DatabaseNotReady(
            f"The database is at revision {found or 'none'}, this program at {runner.newest()}.",
            details="Start the server of this version, or run `craftastic migrate`, first.",
        )


async def _refuse_wrong_keys(credentials: "CredentialService") -> None:
    counts = await credentials.counts()
    if counts and not any(key_id in counts for key_id in credentials.keyring.ids):
        raise WrongKeys(
            "None of the secrets is under a key that is known here.",
            details="Run this command with the server's settings and its user's rights; "
            "`craftastic keys ls` shows which keys the secrets need.",
        )


async def _rotate(credentials: "CredentialService") -> "RotationResult":
    from craftastic.cli.progress import checklist

    with checklist() as shown:

        def report(done: int, total: int) -> None:
            percent = 100 * done // total if total else None
            shown.show("Secrets", f"{min(done, total)} of {total}", percent)

        result = await credentials.rotate(report)
        shown.finish()
    return result


def _judge(done: "RotationResult") -> None:
    """Say what a rotation left.

    Raises:
        KeysInUse: Some secrets are under older keys still.
    """
    from craftastic.cli.output import say

    if done.unreadable:
        raise KeysInUse(
            f"{len(done.unreadable)} secrets cannot be read and stay as they are.",
            details="Their ids: " + ", ".join(str(one) for one in done.unreadable[:20]),
        )
    if done.left:
        raise KeysInUse(
            f"{done.left} secrets were put under older keys meanwhile.",
            details="Another server has an older key file: copy this one there, then go on with "
            "`craftastic keys rotate --no-new-key`.",
        )
    say("Back the key file up; then `craftastic keys prune` removes the keys nothing uses.")


def _tell_kept(left: list[dict[str, Any]]) -> None:
    """Say which old keys are still there, and why.

    Raises:
        KeysInUse: Secrets are under some of them.
    """
    from craftastic.cli.output import say

    used = [row for row in left if row["use"] == "old" and row["secrets"]]
    if used:
        raise KeysInUse(
            "Still in use: "
            + ", ".join(f"{row['id']} ({row['secrets']} secrets)" for row in used)
            + ".",
            details="Run `craftastic keys rotate --no-new-key` first.",
        )
    for row in left:
        if row["use"] == "old":
            say(f"{row['id']} is unused: take it out of CRAFTASTIC_ENCRYPTION_OLD_KEYS.")


def _run(work: Any) -> Any:
    from craftastic.logs import configure

    configure(level="error")
    return run(work)
