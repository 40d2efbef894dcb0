"""The `craftastic` command: what there is to say, and which code the process ends with.

Only the command line's own grammar is imported here; what a command needs is imported by it, so
that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from craftastic import __version__
from craftastic.cli.admin_commands import admin
from craftastic.cli.agent_commands import agents
from craftastic.cli.agent_run_commands import waiting
from craftastic.cli.coolify_commands import coolify
from craftastic.cli.deploy_commands import deploying, deployments
from craftastic.cli.disk_commands import disk
from craftastic.cli.environment_commands import environments
from craftastic.cli.failures import INTERRUPTED, Failure
from craftastic.cli.git_commands import git
from craftastic.cli.github_commands import github
from craftastic.cli.host_commands import hosts
from craftastic.cli.key_commands import keys
from craftastic.cli.running import (
    DETACH_KEYS,
    Branch,
    DetachKeys,
    Email,
    Json,
    PasswordStdin,
    PersonName,
    attach_terminal,
    checked_settings,
    chosen,
    run,
    with_remote,
)
from craftastic.cli.session_commands import sessions
from craftastic.cli.token_commands import tokens
from craftastic.cli.variable_commands import variables
from craftastic.errors import CraftasticError, InvalidInput

app = typer.Typer(
    name="craftastic",
    help="A repository in, a terminal on its own branch out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
images = typer.Typer(help="The image of Docker sandboxes.", no_args_is_help=True)
app.add_typer(environments, name="env")
app.add_typer(sessions, name="session")
app.add_typer(disk, name="disk")
app.add_typer(agents, name="agent")
app.add_typer(waiting)
app.add_typer(images, name="image")
app.add_typer(variables, name="var")
app.add_typer(git)
app.add_typer(deploying)
app.add_typer(deployments, name="deployment")
app.add_typer(coolify, name="coolify")
app.add_typer(github, name="github")
app.add_typer(hosts, name="host")
app.add_typer(tokens, name="token")
app.add_typer(admin, name="admin")
app.add_typer(keys, name="keys")


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    try:
        app()
    except CraftasticError as error:
        _end_with(error)
    except Failure as failure:
        if failure.message:
            _complain(failure.message)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _end_with(error: CraftasticError) -> NoReturn:
    from craftastic.http.answers import answer_for

    _complain(error.message)
    # Some details begin with the whole message: nobody wants to read it twice.
    details = (error.details or "").removeprefix(error.message).strip()
    for line in details.splitlines():
        _complain(line, "  ")
    sys.exit(answer_for(error).exit_code)


def _complain(text: str, start: str = "craftastic: ") -> None:
    from craftastic.cli.output import printable

    print(start + printable(text), file=sys.stderr)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"craftastic {__version__}")
        raise typer.Exit


@app.callback()
def choose_server(
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="CRAFTASTIC_URL",
            help="Server to talk to; else the one signed in to last, else http://127.0.0.1:3000.",
        ),
    ] = None,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    chosen.clear()
    if url:
        chosen["url"] = url


# ---- this machine ---------------------------------------------------------------------------


@app.command(short_help="Run the server until it is interrupted.")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.")] = None,
) -> None:
    """Run the server until it is interrupted; sandboxes and their terminals go on after it."""
    checked_settings()
    from craftastic.cli.serve import serve as run_server

    run_server(host, port)


@app.command(short_help="Check this machine; say what to do about what is missing.")
def doctor(as_json: Json = False) -> None:
    """Check this machine and say what to do about what is missing; 7 if it cannot serve."""
    from craftastic.cli import doctor as checks
    from craftastic.logs import configure

    settings = checked_settings()
    configure(level="error")
    findings = run(lambda: checks.examine(settings))
    checks.show(findings, as_json=as_json)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(7)


@images.command("build")
def image_build() -> None:
    """Build the sandbox image now; the server does it by itself when the image is missing."""
    from craftastic.cli import image
    from craftastic.logs import configure

    settings = checked_settings()
    configure(level="error")
    run(lambda: image.build(settings))


@app.command("settings", short_help="Print every setting and where its value comes from.")
def show_settings(as_json: Json = False) -> None:
    """Print every setting, its variable and where its value comes from; secrets are masked."""
    from craftastic.cli import settings_page

    settings_page.show(checked_settings(), as_json=as_json)


@app.command(short_help="Bring the database to this version's schema.")
def migrate() -> None:
    """Bring the database to this version's schema; the server does it by itself at its start."""
    from craftastic.migrations import runner

    settings = checked_settings()
    revision = run(lambda: runner.upgrade(settings.sqlalchemy_url))
    print(f"The database is at revision {revision}." if revision else "There are no revisions.")


@app.command("backup", short_help="Write everything of the server into one file.")
def back_up(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A new file, or - for standard output.")
    ],
    with_keys: Annotated[
        bool,
        typer.Option("--with-keys", help="With the keys: whoever has the file has every secret."),
    ] = False,
) -> None:
    """Write everything of the server into one file, while it and its sandboxes go on."""
    from craftastic.cli import backup
    from craftastic.logs import configure

    settings = checked_settings()
    configure(level="error")
    backup.tell(backup.back_up(settings, file, with_keys=with_keys), file, with_keys=with_keys)


@app.command(short_help="Put a backup into an empty data folder and database.")
def restore(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Of `craftastic backup`, or - for standard input.")
    ],
) -> None:
    """Put a backup into an empty data folder and an empty database, or change nothing."""
    from craftastic.cli import restore as restoring
    from craftastic.logs import configure

    settings = checked_settings()
    configure(level="error")
    restoring.tell(restoring.restore(settings, file), settings)


@app.command()
def version() -> None:
    """Print the version."""
    print(f"craftastic {__version__}")


# ---- the account ----------------------------------------------------------------------------


@app.command(short_help="Sign in, or make an account.")
def login(
    server: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="Server to sign in to.")
    ] = None,
    email: Email = None,
    password_stdin: PasswordStdin = False,
    token_stdin: Annotated[
        bool,
        typer.Option(
            "--token-stdin", help="Sign in with an access or refresh token from standard input."
        ),
    ] = False,
    register: Annotated[bool, typer.Option("--register", help="Make a new account.")] = False,
    name: PersonName = None,
    invitation_file: Annotated[
        Path | None, typer.Option(help="File that holds the invitation to a new account.")
    ] = None,
) -> None:
    """Sign in, or make an account; the first account of this machine's server needs no token."""
    from craftastic.cli import signing_in
    from craftastic.cli.output import printable, read_secret_line

    person = signing_in.Person(email, name, password_stdin)

    async def work(remote: Any) -> None:
        if token_stdin:
            done = await signing_in.use_token(remote, read_secret_line())
        elif register or invitation_file is not None:
            invitation = signing_in.read_invitation(invitation_file)
            done = await signing_in.register(remote, person, invitation)
        else:
            done = await signing_in.log_in(remote, person)
        print(f"Signed in at {remote.url} as {printable(done.email)}.")

    if token_stdin and (password_stdin or register or email):
        raise InvalidInput("--token-stdin goes with none of the other ways to sign in.")
    with_remote(work, server)


@app.command()
def logout() -> None:
    """End the sign-in at the server and forget it here; an access token is only forgotten."""
    from craftastic.cli.output import say

    async def work(remote: Any) -> None:
        left = await remote.sign_out()
        print(f"Signed out at {remote.url}.")
        if left is not None and left.is_access_token:
            say("The access token stays good; `craftastic token rm` revokes it.")

    with_remote(work)


@app.command()
def whoami(as_json: Json = False) -> None:
    """Print who is signed in, and where."""
    from craftastic.cli.output import printable, show_json

    async def work(remote: Any) -> None:
        user = (await remote.get("/api/auth/me"))["data"]["user"]
        if as_json:
            show_json({"url": remote.url, "user": user})
        else:
            print(f"{printable(user['email'])} ({printable(user['name'])}) at {remote.url}")

    with_remote(work)


@app.command(short_help="Make an invitation to a new account.")
def invite(
    email: Annotated[
        str | None,
        typer.Argument(metavar="[EMAIL]", help="Only this address may use it; anybody by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an invitation to a new account and print it once; for administrators."""
    from craftastic.cli.output import printable, show_json

    async def work(remote: Any) -> None:
        body = {"email": email} if email else {}
        invitation = (await remote.post("/api/auth/invitations", body))["data"]
        if as_json:
            show_json(invitation)
        else:
            print(printable(invitation["token"]))

    with_remote(work)


@app.command(short_help="From a repository to a terminal on a branch.")
def up(  # noqa: PLR0913, PLR0917 - one parameter for each option of the command
    repository: Annotated[
        str,
        typer.Argument(
            metavar="REPOSITORY",
            help="Address of a repository, or a folder such as `.` for its origin.",
        ),
    ],
    branch: Branch = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the environment.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the ids, do not attach.")] = False,
    as_json: Json = False,
    email: Email = None,
    your_name: Annotated[
        str | None, typer.Option("--your-name", help="Your name, for the first account.")
    ] = None,
    password_stdin: PasswordStdin = False,
    detach_keys: DetachKeys = DETACH_KEYS,
) -> None:
    """Make or find an environment and a session on a branch, and attach this terminal to it."""
    from craftastic.cli import up as bringing_up
    from craftastic.cli.output import show_json
    from craftastic.cli.signing_in import Person, ensure_signed_in
    from craftastic.worktrees.service import check_branch

    address = bringing_up.find_repository(repository)

    if branch:
        check_branch(branch)  # before anything is made that a wrong name would leave behind

    async def work(remote: Any) -> None:
        await ensure_signed_in(remote, Person(email, your_name, password_stdin))
        wanted = bringing_up.Wanted(address, branch, name)
        place = await bringing_up.bring_up(remote, wanted)
        if as_json:
            show_json({"environment": place.environment, "session": place.session})
        elif detach:
            print(f"environment {place.environment['id']}\nsession {place.session['id']}")
        else:
            await attach_terminal(remote, place.session, place.environment, detach_keys=detach_keys)

    with_remote(work)
