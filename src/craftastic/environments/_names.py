"""Names that people give, and what to offer when one is taken. Pure."""

import unicodedata
from datetime import datetime

from craftastic.errors import InvalidInput

MAX_NAME_CHARACTERS = 64


class BadName(InvalidInput):
    """Nothing can be called that."""

    code = "NAME_INVALID"


def check_name(name: str, limit: int = MAX_NAME_CHARACTERS) -> str:
    """Return the name in Unicode's composed form.

    Raises:
        BadName: It is blank, too long, or has characters that cannot be seen.
    """
    name = unicodedata.normalize("NFC", name)
    if not name.strip():
        raise BadName("The name is empty.")
    if name != name.strip():
        raise BadName("The name must not begin or end with a space.")
    if len(name) > limit:
        raise BadName(f"The name is longer than {limit} characters.")
    if any(unicodedata.category(one) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for one in name):
        raise BadName("The name has an invisible character.")
    return name


def suggestions(name: str, now: datetime) -> list[str]:
    """Return three other names; they may be taken too."""
    return [f"{name}-2", f"{name}-copy", f"{name}-{now:%Y-%m-%d}"]
