"""What goes in and out of accounts, and the forms in which texts of theirs are accepted."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from email_validator import EmailNotValidError, validate_email

from craftastic.accounts._repository import User
from craftastic.errors import InvalidInput, Unauthenticated

MAX_EMAIL_CHARS = 254


class BadEmail(InvalidInput):
    code = "BAD_EMAIL"


class BadName(InvalidInput):
    code = "BAD_NAME"


class BadCredentials(Unauthenticated):
    """Unknown address, wrong password and disabled account answer alike."""

    code = "INVALID_CREDENTIALS"

    def __init__(self, details: str | None = None) -> None:
        super().__init__("Invalid email or password", details=details)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client gets when it signs in."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    user: User


@dataclass(frozen=True, slots=True)
class Device:
    """What is kept about where a sign-in came from.

    Attributes:
        address: The client's own, behind whichever proxies; None when nobody knows it.
    """

    user_agent: str | None = None
    address: str | None = None


NOWHERE = Device()


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What a registration asks for."""

    email: str
    password: str = field(repr=False)
    name: str
    invitation: str | None = field(default=None, repr=False)
    setup_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Invited:
    """A fresh invitation; the token is known to nobody once this is gone."""

    id: UUID
    token: str = field(repr=False)
    email: str | None
    expires_at: datetime


def normal_email(text: str) -> str:
    """Return the form in which addresses are stored and compared.

    No question to DNS: a team's own domain may exist only inside its network.

    Raises:
        BadEmail: The text is not an e-mail address.
    """
    if len(text) > MAX_EMAIL_CHARS:
        raise BadEmail("email is not a valid e-mail address")
    try:
        found = validate_email(text.strip(), check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise BadEmail("email is not a valid e-mail address") from error
    if "." not in found.domain:
        raise BadEmail("email is not a valid e-mail address")
    return found.normalized.lower()


def checked_name(text: str) -> str:
    """Return a person's name with single spaces.

    Raises:
        BadName: It is empty or has characters that cannot be shown.
    """
    name = " ".join(text.split())
    if not name or not name.isprintable():
        raise BadName("name must have at least one character, and printable ones only")
    return name
