"""`craftastic admin …`: accounts and invitations, on the server's own database."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from craftastic.cli.key_commands import check_schema
from craftastic.cli.running import Json, Quiet, checked_settings, run

if TYPE_CHECKING:
    from craftastic.admin.service import AdminService, PasswordLink, Person
    from craftastic.settings import Settings

admin = typer.Typer(help="Accounts and invitations, on this machine.", no_args_is_help=True)
users = typer.Typer(help="Add, list, disable, enable and reset accounts.", no_args_is_help=True)
admin.add_typer(users, name="user")

Account = Annotated[
    str, typer.Argument(metavar="EMAIL", help="E-mail address of the account, or its id.")
]
NOTICED = "A server that runs notices within 5 seconds."


@users.command("add", short_help="Make an account, and a link that sets its password.")
def user_add(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="E-mail address of the person.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Of the person; from the address by default.")
    ] = None,
    is_admin: Annotated[bool, typer.Option("--admin", help="Make an administrator.")] = False,
    as_json: Json = False,
) -> None:
    """Make an account and print a link, once, by which its person sets the password.

    It asks nobody: neither registration nor mail has to be open. The first account is an
    administrator.
    """

    async def work(service: "AdminService") -> tuple["Person", "PasswordLink"]:
        known_as = name or email.partition("@")[0]
        return await service.add_user(None, email, known_as, is_admin=is_admin)

    _show_link(*_with_service(work), as_json=as_json)


@users.command("ls", short_help="List accounts.")
def user_list(as_json: Json = False, quiet: Quiet = False) -> None:
    """List accounts by their addresses."""
    from craftastic.cli.output import show_ids, show_json, show_table

    listed: list[Person] = _with_service(_all_users)
    if as_json:
        show_json([_as_json(one) for one in listed])
    elif quiet:
        show_ids([one.id for one in listed])
    else:
        show_table(
            ("EMAIL", "NAME", "ROLE", "STATE", "LAST LOGIN"),
            [
                (
                    one.email,
                    one.name,
                    "administrator" if one.is_admin else "user",
                    _state(one),
                    _day(one.last_login_at),
                )
                for one in listed
            ],
        )


@users.command("disable", short_help="Let an account in no more.")
def user_disable(account: Account) -> None:
    """Let an account in no more: its sign-ins and access tokens end, its sandboxes go on."""
    from craftastic.cli.output import printable, say

    async def work(service: "AdminService") -> "Person":
        return await service.disable(None, await _meant(service, account))

    print(f"Disabled {printable(_with_service(work).email)}.")
    say(NOTICED)


@users.command("enable", short_help="Let a disabled account in again.")
def user_enable(account: Account) -> None:
    """Let a disabled account in again; access tokens have to be made anew."""
    from craftastic.cli.output import printable

    async def work(service: "AdminService") -> "Person":
        return await service.enable(None, await _meant(service, account))

    print(f"Enabled {printable(_with_service(work).email)}.")


@users.command("reset", short_help="Void a password, and print a link that sets a new one.")
def user_reset(account: Account, as_json: Json = False) -> None:
    """Void an account's password, end all its sign-ins and access tokens, and print a way back.

    The link sets a new password, once.
    """

    async def work(service: "AdminService") -> tuple["Person", "PasswordLink"]:
        return await service.reset_password(None, await _meant(service, account))

    _show_link(*_with_service(work), as_json=as_json)


@admin.command("invite", short_help="Make an invitation to a new account.")
def invite(
    email: Annotated[
        str | None,
        typer.Argument(metavar="[EMAIL]", help="Only this address may use it; anybody by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an invitation to a new account and print it once."""
    from craftastic.cli.output import say, show_json

    async def work(service: "AdminService") -> Any:
        return await service.accounts.create_invitation(None, email=email)

    made = _with_service(work)
    if as_json:
        show_json(
            {
                "id": made.id,
                "token": made.token,
                "email": made.email,
                "expiresAt": _moment(made.expires_at),
            }
        )
        return
    print(made.token)
    say(f"It is for {email or 'anybody'}, good until {_day(made.expires_at)}, and shown this once.")


@asynccontextmanager
async def opened(settings: "Settings") -> "AsyncGenerator[AdminService]":
    """Open the database as the server would, for changes of accounts; make nothing.

    Raises:
        DatabaseNotReady: There is no database yet, or its schema is another version's.
        MigrationRefused: The database does not answer.
    """
    import secrets

    from craftastic.access_tokens.service import AccessTokenService
    from craftastic.accounts.service import AccountService, access_tokens
    from craftastic.admin.service import AdminService
    from craftastic.audit.service import AuditService
    from craftastic.clock import SystemClock
    from craftastic.database import Database

    await check_schema(settings)
    reason = await _only_one_user(settings)
    clock = SystemClock()
    database = Database(settings.sqlalchemy_url)
    audit = AuditService(database, clock)
    personal = AccessTokenService(database, audit, clock)
    accounts = AccountService(
        database,
        clock,
        access_tokens(secrets.token_bytes(32), 60),  # nobody signs in here: any key will do
        settings.keys_dir,
        registration=settings.registration,
        single_user=lambda: reason,
        personal=personal,
        audit=audit,
        base_url=settings.base_url,
    )
    try:
        yield AdminService(accounts, personal, audit)
    finally:
        await database.close()


async def _only_one_user(settings: "Settings") -> str | None:
    from craftastic.runtimes.registry import build_runtimes

    runtimes = await build_runtimes(settings, "")
    try:
        return runtimes.only_one_user
    finally:
        await runtimes.close()


async def _all_users(service: "AdminService") -> "list[Person]":
    listed: list[Person] = []
    while page := await service.list_users(listed[-1].email if listed else None):
        listed += page
    return listed


async def _meant(service: "AdminService", account: str) -> UUID:
    """Return the id of the account that was named.

    Raises:
        BadEmail, UserNotFound: It names none.
    """
    try:
        return UUID(account)
    except ValueError:
        return (await service.find(account)).id


def _with_service(work: "Callable[[AdminService], Awaitable[Any]]") -> Any:
    from craftastic.logs import configure

    configure(level="error")
    settings = checked_settings()

    async def open_and_work() -> Any:
        async with opened(settings) as service:
            return await work(service)

    return run(open_and_work)


def _show_link(person: "Person", link: "PasswordLink", *, as_json: bool) -> None:
    from craftastic.cli.output import say, show_json

    if as_json:
        show_json(
            {
                "user": _as_json(person),
                "link": {"url": link.url, "expiresAt": _moment(link.expires_at)},
            }
        )
        return
    print(link.url)
    say(
        f"Give this link to {person.email}, and to nobody else: it sets the password, once, until"
        f" {link.expires_at:%Y-%m-%d %H:%M} UTC."
    )


def _as_json(person: "Person") -> dict[str, Any]:
    return {
        "id": person.id,
        "email": person.email,
        "name": person.name,
        "isAdmin": person.is_admin,
        "emailVerified": person.email_verified,
        "hasPassword": person.has_password,
        "createdAt": _moment(person.created_at),
        "lastLoginAt": _moment(person.last_login_at),
        "disabledAt": _moment(person.disabled_at),
    }


def _state(person: "Person") -> str:
    if person.disabled_at is not None:
        return "disabled"
    return "enabled" if person.has_password else "no password yet"


def _day(moment: Any) -> str:
    return "-" if moment is None else f"{moment:%Y-%m-%d}"


def _moment(moment: Any) -> str | None:
    from craftastic.http.wire import timestamp

    return None if moment is None else timestamp(moment)
