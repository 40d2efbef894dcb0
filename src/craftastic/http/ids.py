"""Ids in paths: one that is malformed is simply not there."""

from typing import NamedTuple
from uuid import UUID

from craftastic.errors import NotFound


class Absent(NamedTuple):
    message: str
    code: str


ABSENT = {
    "environment_id": Absent("Environment not found", "ENVIRONMENT_NOT_FOUND"),
    "session_id": Absent("Session not found", "SESSION_NOT_FOUND"),
    "approval_id": Absent("Approval not found", "APPROVAL_NOT_FOUND"),
    "prompt_id": Absent("Prompt not found", "PROMPT_NOT_FOUND"),
    "agent_id": Absent("Agent not found", "AGENT_NOT_FOUND"),
    "container_id": Absent("Container not found", "CONTAINER_NOT_FOUND"),
    "host_id": Absent("Git host not found", "GIT_HOST_NOT_FOUND"),
    "deployment_id": Absent("Deployment not found", "DEPLOYMENT_NOT_FOUND"),
    "target_id": Absent("Session or environment not found", "DEPLOYMENT_TARGET_NOT_FOUND"),
    "key": Absent("There is no such hook", "DEPLOYMENT_HOOK_NOT_FOUND"),
    "user_id": Absent("User not found", "USER_NOT_FOUND"),
    "token_id": Absent("Access token not found", "ACCESS_TOKEN_NOT_FOUND"),
    "sign_in_id": Absent("Sign-in not found", "SIGN_IN_NOT_FOUND"),
    "invitation_id": Absent("Invitation not found", "INVITATION_NOT_FOUND"),
}
"""What a path parameter's absence is called, by the parameter's name; routes that declare a
parameter as `UUID` get it for malformed ids without doing anything."""


def parse_id(text: str, absent: NotFound) -> UUID:
    """Return the UUID that a path names.

    Raises:
        NotFound: The given one; the text is not a UUID in its usual form of 36 characters.
    """
    try:
        parsed = UUID(text)
    except ValueError:
        raise absent from None
    if str(parsed) != text.lower():
        raise absent
    return parsed
