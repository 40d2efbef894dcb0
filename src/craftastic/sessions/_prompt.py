"""The agent that a session is made with, and its first prompt."""

from dataclasses import dataclass
from uuid import UUID

from craftastic.errors import InvalidInput
from craftastic.sessions._model import SessionType

MAX_PROMPT_BYTES = 100_000
"""Of the prompt that an agent starts with: it is one argument, and Linux passes 128 KiB on."""


class BadPrompt(InvalidInput):
    """A session's first prompt is too long, no text, or for nobody."""

    code = "BAD_PROMPT"


@dataclass(frozen=True, slots=True)
class WithAgent:
    """The agent that a session is made with, and what it is to do first."""

    id: UUID | None = None
    prompt: str | None = None


def check_prompt(prompt: str | None, session_type: SessionType, agent_id: UUID | None) -> None:
    """Check the prompt that an agent starts with.

    Raises:
        BadPrompt: See there.
    """
    if prompt is None:
        return
    if session_type is not SessionType.AGENT or agent_id is None:
        raise BadPrompt("A prompt needs an agent (sessionType agent and agentId) that takes it.")
    if "\0" in prompt or not prompt.strip():
        raise BadPrompt("The prompt must be text, without NUL characters.")
    try:
        size = len(prompt.encode())
    except UnicodeEncodeError:
        raise BadPrompt("The prompt is not valid Unicode text.") from None
    if size > MAX_PROMPT_BYTES:
        raise BadPrompt(
            f"The prompt has {size} bytes; {MAX_PROMPT_BYTES} are the most. Put the rest into a "
            "file of the repository."
        )
