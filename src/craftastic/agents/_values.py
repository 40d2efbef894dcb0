"""The rules of what an agent may be called and be given; errors never hold a credential."""

import json
import re
from typing import Any

from craftastic.agents._agent import BadAgent, BadAgentCredential, UnknownCredentialType
from craftastic.agents._manifest import check_address
from craftastic.agents._model import AgentType, CredentialKind, Delivery

MAX_NAME_CHARS = 255
MAX_CREDENTIAL_BYTES = 64 << 10
MAX_MODEL_CHARS = 100
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+\[\]-]{0,99}")
KEY = re.compile(r"[\x21-\x7e]+")


def checked_name(text: str) -> str:
    """Return a name without what surrounds it.

    Raises:
        BadAgent: Nothing is in it, or too much, or what is not printable.
    """
    name = text.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise BadAgent(f"name must have 1 to {MAX_NAME_CHARS} characters, and printable ones only")
    return name


def checked_address(text: str) -> str:
    """Return an address of a model API without a slash at its end.

    Its form is checked here; whether it may be reached is decided at each use.

    Raises:
        BadAgent: It is none.
    """
    try:
        check_address(text)
    except ValueError as error:
        raise BadAgent(f"baseUrl {error}") from None
    return text.rstrip("/")


def checked_model(text: str) -> str:
    """Return the name of a model, which becomes a word of a command line.

    Raises:
        BadAgent: It is none.
    """
    if MODEL.fullmatch(text) is None:
        raise BadAgent(
            f"model must have at most {MAX_MODEL_CHARS} characters: letters, digits and . _ : / -"
        )
    return text


def kind_of(agent_type: AgentType, credential_type: str) -> CredentialKind:
    """Return a kind of credential by its name or an alias.

    Raises:
        UnknownCredentialType: The agent's type does not take it.
    """
    kind = agent_type.kind(credential_type)
    if kind is None:
        allowed = ", ".join(one.type for one in agent_type.credentials) or "none"
        raise UnknownCredentialType(
            f"{agent_type.title} takes no credential {credential_type[:50]!r}",
            details=f"It takes {allowed}.",
        )
    return kind


def checked_value(kind: CredentialKind, value: str) -> str:
    """Return a credential's value as it is stored: keys without blanks around them.

    Raises:
        BadAgentCredential: It cannot be one of this kind.
    """
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # not chained: the error holds the value
        raise BadAgentCredential("The credential must be text") from None
    if size > MAX_CREDENTIAL_BYTES:
        raise BadAgentCredential(
            f"The credential may have at most {MAX_CREDENTIAL_BYTES >> 10} KiB"
        )
    if kind.delivery is Delivery.FILE:
        return _checked_file(kind, value)
    key = value.strip()
    if KEY.fullmatch(key) is None:
        raise BadAgentCredential(
            "The credential must be one word of printable ASCII characters",
            details="It is sent in a header, which can carry nothing else.",
        )
    return key


def _checked_file(kind: CredentialKind, value: str) -> str:
    if "\0" in value or not value.strip():
        raise BadAgentCredential("The login file must be text, and not empty")
    if kind.format == "json" and not is_json_object(value):
        raise BadAgentCredential(
            "The login file is no JSON object", details=f"Give the content of {kind.path}."
        )
    return value


def is_json_object(text: str) -> bool:
    try:
        parsed: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(parsed, dict)
