"""What an agent type is, once its manifest has been read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Delivery(StrEnum):
    """How a credential gets to its agent."""

    GATEWAY = "gateway"
    """It never enters a sandbox: the gateway adds it to what the agent sends."""
    FILE = "file"
    """A login file, written into the sandbox's memory for the time of the run."""
    ENV = "env"
    """A variable of the agent's process in the sandbox."""


@dataclass(frozen=True, slots=True)
class CredentialKind:
    """One kind of credential that an agent type takes.

    Attributes:
        provider: Of the model API that the gateway forwards to; `gateway` only.
        scheme: How the key goes upstream: `x-api-key`, `bearer` or `x-goog-api-key`.
        aliases: Other names that clients may use for it.
        env: Variables of the agent's process with this credential.
        argv: Further words of its command line.
        path: Of the login file, in the run's home; `file` only.
        format: `json` or `text`; `file` only.
        take_back: Whether a file that the agent changed is stored in the old one's place.
        base_url: Upstream other than the provider's own.
        prefix: What values of this kind begin with, where they tell their kind themselves.
    """

    type: str
    title: str
    delivery: Delivery
    provider: str | None = None
    scheme: str | None = None
    aliases: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    argv: tuple[str, ...] = ()
    path: str | None = None
    format: str | None = None
    take_back: bool = False
    base_url: str | None = None
    prefix: str | None = None

    @property
    def enters_sandbox(self) -> bool:
        """Whether everything in the agent's sandbox can read it."""
        return self.delivery is not Delivery.GATEWAY


@dataclass(frozen=True, slots=True)
class SeedFile:
    """A file that is written into a run's home before the start.

    Attributes:
        when: Types of credential it is for; empty for always.
    """

    path: str
    text: str
    when: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HookWords:
    """How an agent's hooks are understood and answered.

    Attributes:
        ask: The event that waits for an answer, if there is one.
        allow: What its hook prints to allow.
        deny: What its hook prints to deny; `{json:message}` is the reason.
        conversation, message, tool, input: Keys of the payloads: the agent's own id of the
            conversation, its last message, the tool it asks for and what that is to do.
    """

    ask: str | None = None
    allow: str = ""
    deny: str = ""
    conversation: str | None = None
    message: str | None = None
    tool: str | None = None
    input: str | None = None


@dataclass(frozen=True, slots=True)
class AgentType:
    """A kind of agent, as its manifest describes it; texts are templates for `render`.

    Attributes:
        command: Name of the program, looked up on the sandbox's PATH.
        npm, version: The package of the image that has it.
        missing: What a person can do where the program is not there.
        argv: The command line without a prompt.
        prompt: Words after it when there is a first prompt.
        resume: Words after it, instead of a prompt's, to go on with a conversation.
        interrupt, submit: tmux's names of the keys that interrupt it, and that send a pasted text.
        env: Variables of its process.
        states: The state that each hook event means; `Event[tool]` is more specific.
        version_argv: Prints the program's version.
        model: Words of the command line when the agent has a model of its own.
    """

    name: str
    title: str
    command: str
    npm: str | None
    version: str | None
    missing: str
    argv: tuple[str, ...]
    prompt: tuple[str, ...]
    resume: tuple[str, ...]
    interrupt: tuple[str, ...]
    submit: tuple[str, ...]
    env: Mapping[str, str]
    credentials: tuple[CredentialKind, ...]
    files: tuple[SeedFile, ...]
    states: Mapping[str, str]
    hooks: HookWords
    version_argv: tuple[str, ...]
    model: tuple[str, ...] = ()

    def kind(self, credential_type: str) -> CredentialKind | None:
        """Return the kind of credential of this name or alias; None when there is none."""
        for kind in self.credentials:
            if credential_type == kind.type or credential_type in kind.aliases:
                return kind
        return None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong in a manifest.

    Attributes:
        file: Name or path of the file.
        place: Where in it, as `credentials[0].path` or `line 3`; empty for the whole.
        message: What is wrong.
    """

    file: str
    place: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.place, self.message) if part)
