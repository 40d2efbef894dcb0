"""Signing in from a terminal or a script, and the first account of a server on this machine."""

from dataclasses import dataclass, replace
from pathlib import Path

from craftastic.cli.output import ask, ask_secret, interactive, read_secret_line, say
from craftastic.cli.remote import NotCraftastic, Remote, ServerUnreachable, is_local
from craftastic.cli.store import SignIn
from craftastic.errors import CraftasticError, Forbidden, InvalidInput, Unauthenticated

MAX_TOKEN_BYTES = 4096
PERSONAL_PREFIX = "craft_"
"""What personal access tokens begin with, as the API has it."""

LEAST_PASSWORD = 8
"""In characters, as the API has it."""

SETUP_TOKEN_NEEDED = "SETUP_TOKEN_NEEDED"  # noqa: S105 - a code of the API


@dataclass(frozen=True, slots=True)
class Person:
    """Who signs in, as far as the command line said.

    Args:
        password_on_stdin: The password is the first line of standard input.
    """

    email: str | None = None
    name: str | None = None
    password_on_stdin: bool = False

    @property
    def answers(self) -> bool:
        """Whether the person is at a terminal and can be asked once more."""
        return interactive() and not self.password_on_stdin


def first_account_token(url: str) -> str | None:
    """Return the one-time token of a server on this machine that has no account yet, or None.

    The file is readable by the server's own user alone, so whoever can read it owns the server.
    """
    if not is_local(url):
        return None
    from craftastic.keys import KeyFileBroken, read_first_account_token
    from craftastic.settings import load_settings

    try:
        return read_first_account_token(load_settings().keys_dir)
    except (OSError, KeyFileBroken):
        return None  # another user's server on this machine, or a damaged file


async def ensure_signed_in(remote: Remote, person: Person) -> SignIn:
    """Return the sign-in; without one register the first account, or log in.

    Raises:
        Unauthenticated: Not signed in, and nobody can be asked.
    """
    found = remote.sign_ins.find(remote.url)
    if found is not None:
        return found
    await _insist_on_a_server(remote)
    return await log_in(remote, person)


async def log_in(remote: Remote, person: Person) -> SignIn:
    """Log in, or register the first account where this machine's server waits for it.

    Raises:
        Unauthenticated: Wrong e-mail or password, or nobody can be asked for them.
    """
    _warn_of_plain_http(remote.url)
    token = first_account_token(remote.url)
    if token is not None:
        say(f"The server at {remote.url} has no account yet: this one becomes its administrator.")
        first = _complete(person, registers=True)
        try:
            return await _register(remote, first, {"setupToken": token}, asks=person.answers)
        except (Forbidden, Unauthenticated):
            say("The server has an account by now; logging in.")
            return await _log_in(remote, first, asks=person.answers)
    return await _log_in(remote, _complete(person, registers=False), asks=person.answers)


async def register(remote: Remote, person: Person, invitation: str | None) -> SignIn:
    """Make an account: the first one by this machine's token, others by an invitation.

    Raises:
        CraftasticError: The server refused; its sentence says why.
    """
    _warn_of_plain_http(remote.url)
    token = first_account_token(remote.url)
    if invitation is None and token is not None:
        first = _complete(person, registers=True)
        return await _register(remote, first, {"setupToken": token}, asks=person.answers)
    if invitation is None and interactive():
        asked = ask_secret("Invitation or one-time token (empty where registration is open)")
        invitation = asked.strip() or None
    answers = _complete(person, registers=True)
    try:
        more = {"invitation": invitation} if invitation else {}
        return await _register(remote, answers, more, asks=person.answers)
    except CraftasticError as error:
        # Only the server knows whether it waits for its first account.
        if invitation is None or error.answer.get("code") != SETUP_TOKEN_NEEDED:
            raise
        return await _register(remote, answers, {"setupToken": invitation}, asks=person.answers)


async def use_token(remote: Remote, token: str) -> SignIn:
    """Sign in with a personal access token, or with a refresh token, which is used up by that.

    Raises:
        Unauthenticated: The server does not take it.
    """
    _warn_of_plain_http(remote.url)
    if token.startswith(PERSONAL_PREFIX):
        return await remote.sign_in_by_access_token(token)
    return await remote.sign_in("/api/auth/refresh", {"refreshToken": token})


def read_invitation(path: Path | None) -> str | None:
    """Return the invitation in a file, or None without one.

    Raises:
        InvalidInput: The file cannot be read or is empty.
    """
    if path is None:
        return None
    try:
        with path.open() as file:
            text = file.read(MAX_TOKEN_BYTES).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The invitation in {path} cannot be read: {_reason(error)}.") from error
    if not text:
        raise InvalidInput(f"The file {path} is empty; it should hold the invitation.")
    return text


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or "" if isinstance(error, OSError) else "it is not text"


@dataclass(frozen=True, slots=True)
class _Answers:
    email: str
    password: str
    name: str


def _complete(person: Person, *, registers: bool) -> _Answers:
    """Ask for what the command line did not say."""
    asks = interactive()
    missing = [
        flag
        for flag, value in (
            ("--email", person.email),
            ("--password-stdin", person.password_on_stdin),
        )
        if not value
    ]
    if missing and not asks:
        raise Unauthenticated(
            "You are not signed in, and there is no terminal to ask you: give "
            f"{', '.join(missing)}, or sign in from a terminal first."
        )
    email = person.email or _ask_email()
    name = person.name or (ask("Your name") if registers and asks else email.partition("@")[0])
    if person.password_on_stdin:
        return _Answers(email, read_secret_line(), name)
    if not registers:
        return _Answers(email, ask_secret("Password"), name)
    return _Answers(email, _new_password(), name)


def _ask_email() -> str:
    while True:
        email = ask("E-mail")
        local, at, host = email.rpartition("@")
        if local and at and host and " " not in email:
            return email
        say(f"{email} is no e-mail address; once more.")


def _new_password() -> str:
    """Ask for a new password twice; the server has the last word on it."""
    while True:
        password = ask_secret(f"New password ({LEAST_PASSWORD} characters or more)")
        if len(password) < LEAST_PASSWORD:
            say("That is too short; once more.")
        elif ask_secret("The same again") == password:
            return password
        else:
            say("The two differ; once more.")


async def _register(
    remote: Remote, answers: _Answers, more: dict[str, str], *, asks: bool
) -> SignIn:
    """Register; a person whose password the server does not take is asked for another."""
    while True:
        body = {"email": answers.email, "password": answers.password, "name": answers.name, **more}
        try:
            return await remote.sign_in("/api/auth/register", body)
        except InvalidInput as error:
            if not asks or "password" not in error.message.lower():
                raise
            say(error.message)
            answers = replace(answers, password=_new_password())


async def _log_in(remote: Remote, answers: _Answers, *, asks: bool) -> SignIn:
    """Log in; a person who mistypes the password has three tries."""
    for tries_left in (2, 1, 0):
        body = {"email": answers.email, "password": answers.password}
        try:
            return await remote.sign_in("/api/auth/login", body)
        except Unauthenticated as error:
            if not asks or not tries_left:
                raise
            say(error.message)
            answers = replace(answers, password=ask_secret("Password"))
    raise AssertionError("unreachable")


async def _insist_on_a_server(remote: Remote) -> None:
    """Fail before the user has typed a password.

    Raises:
        ServerUnreachable: Nothing answers.
        NotCraftastic: It is something else.
    """
    try:
        await remote.public("GET", "/healthz")
    except (ServerUnreachable, NotCraftastic):
        raise
    except CraftasticError:
        return  # something answers; the sign-in itself will tell what


def _warn_of_plain_http(url: str) -> None:
    if url.startswith("http://") and not is_local(url):
        say(
            f"Warning: the connection to {url} is not encrypted;"
            " what you sign in with can be read on the way."
        )
