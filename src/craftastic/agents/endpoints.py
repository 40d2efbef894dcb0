"""HTTP face of agents: /api/agents. An agent's own fields are snake_case, all else camelCase."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ConfigDict, Field, PlainSerializer, SecretStr

from craftastic.accounts.current_user import CurrentUser, ReadOnlyToken
from craftastic.accounts.service import Caller
from craftastic.agents.agent_types import AgentType, CredentialKind, Delivery
from craftastic.agents.service import (
    MAX_CREDENTIAL_BYTES,
    MAX_MODEL_CHARS,
    MAX_NAME_CHARS,
    Agent,
    AgentChanges,
    AgentService,
    NewCredential,
    acting_for,
)
from craftastic.agents.setting_up import AgentSetupService
from craftastic.errors import Forbidden
from craftastic.http.policy import Policy, declares
from craftastic.http.wire import Wire, timestamp

router = APIRouter(prefix="/api/agents", tags=["agents"])

MAX_ADDRESS_CHARS = 300
Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]
Absent = Field(None, exclude_if=lambda value: value is None)
"""For fields that are left out where there is nothing."""

WHO_CAN_READ = {
    Delivery.GATEWAY: "It stays on the server and never enters a sandbox; the server adds it to"
    " what the agent sends to its model.",
    Delivery.FILE: "While the agent runs, its login file is in the memory of the sandbox: every"
    " program there can read it.",
    Delivery.ENV: "The key is a variable of the agent's process, and of the shell that goes on"
    " after it: every program in the sandbox can read it.",
}


class CredentialReadsOff(Forbidden):
    """Credentials of agents cannot be read back on this server."""

    code = "CREDENTIAL_READS_OFF"


class AccessTokenNeeded(Forbidden):
    """The route is for programs: a sign-in, which a browser has, does not open it."""

    code = "ACCESS_TOKEN_NEEDED"


async def agent_service(request: Request) -> AgentService:
    service: AgentService = request.state.agents
    return service


async def agent_setup_service(request: Request) -> AgentSetupService:
    service: AgentSetupService = request.state.agent_setup
    return service


Agents = Annotated[AgentService, Depends(agent_service)]
Setup = Annotated[AgentSetupService, Depends(agent_setup_service)]


@declares(Policy.USER)
async def credential_reader(request: Request, caller: CurrentUser) -> Caller:
    """Return the caller, who may read credentials back: a program, where the operator allows it.

    Raises:
        Unauthenticated: No token, or a bad one.
        CredentialReadsOff: This server does not do that.
        AccessTokenNeeded: The request came by a sign-in.
        ReadOnlyToken: The access token may only look.
    """
    if not request.state.settings.agent_credential_reads:
        raise CredentialReadsOff(
            "Credentials of agents cannot be read back on this server",
            details="Its operator can allow it with CRAFTASTIC_AGENT_CREDENTIAL_READS.",
        )
    if caller.by_sign_in:
        raise AccessTokenNeeded(
            "Only a program with a personal access token may read an agent's credential"
        )
    if caller.scope != "write":
        raise ReadOnlyToken(
            "This access token may only read; it was made without the right to this"
        )
    return caller


CredentialReader = Annotated[Caller, Depends(credential_reader)]


class GivenCredential(Wire):
    type: str = Field(min_length=1, max_length=50)
    value: SecretStr = Field(min_length=1, max_length=MAX_CREDENTIAL_BYTES)

    @property
    def given(self) -> NewCredential:
        return NewCredential(self.type, self.value.get_secret_value())


class NewAgent(Wire):
    user_id: str | None = Field(None, min_length=1, max_length=255)
    name: str = Field(min_length=1, max_length=MAX_NAME_CHARS)
    type: str = Field(min_length=1, max_length=50)
    credential: GivenCredential | None = None
    base_url: str | None = Field(None, max_length=MAX_ADDRESS_CHARS)
    model: str | None = Field(None, max_length=MAX_MODEL_CHARS)


class AgentChange(Wire):
    """What is left out stays as it is; an address or model of `null` is removed."""

    name: str | None = Field(None, min_length=1, max_length=MAX_NAME_CHARS)
    credential: GivenCredential | None = None
    base_url: str | None = Field(None, max_length=MAX_ADDRESS_CHARS)
    model: str | None = Field(None, max_length=MAX_MODEL_CHARS)


class SnakeWire(Wire):
    """A body whose fields are called outside as they are inside."""

    model_config = ConfigDict(alias_generator=None)


class AgentView(SnakeWire):
    id: UUID
    user_id: UUID
    name: str
    type: str
    base_url: str | None
    model: str | None
    created_at: Timestamp
    updated_at: Timestamp


class AgentWithCredential(AgentView):
    credential_type: str | None


class AgentList(Wire):
    agents: Sequence[AgentWithCredential]


class CredentialKindView(Wire):
    """A kind of credential; `readable_by` says in a sentence who could read it."""

    type: str
    title: str
    delivery: Delivery
    enters_sandbox: bool
    readable_by: str
    aliases: Sequence[str]
    takes_base_url: bool


class AgentTypeView(Wire):
    """A type of agent; `installed` is null, since no sandbox was asked.

    `installable` tells whether a package registry has its command line; `missing` is what a session
    without it says.
    """

    name: str
    title: str
    version: str | None
    installable: bool
    missing: str
    credentials: Sequence[CredentialKindView]
    installed: bool | None = None


class ProblemView(Wire):
    file: str
    place: str
    message: str


class AgentTypeList(Wire):
    """The types; administrators are told what is wrong with files that describe none."""

    types: Sequence[AgentTypeView]
    problems: Sequence[ProblemView] | None = Absent


class CheckView(Wire):
    """What a check found; `ok` is null where only the agent itself can find out."""

    ok: bool | None
    message: str


class DeletedAnswer(Wire):
    message: Literal["Agent deleted successfully"] = "Agent deleted successfully"


class RevealedCredential(Wire):
    type: str
    value: str = Field(repr=False)


class CredentialAnswer(Wire):
    credential: RevealedCredential


class NewSetup(Wire):
    environment_id: UUID


class SetupAnswer(Wire):
    session_id: UUID
    container_home: str


class Ingest(Wire):
    """A token; without one, the login file of the set-up is taken."""

    token: SecretStr | None = Field(None, max_length=MAX_CREDENTIAL_BYTES)


class IngestAnswer(Wire):
    success: Literal[True] = True
    mode: Literal["token", "file"]
    path: str | None = Absent


@router.get("/types")
async def list_agent_types(caller: CurrentUser, agents: Agents) -> AgentTypeList:
    """List the agent types, the credentials that each takes, and who could read these."""
    problems = [ProblemView.model_validate(one) for one in agents.types.problems]
    return AgentTypeList(
        types=[_type_view(one) for one in agents.types.all()],
        problems=problems if caller.is_admin else None,
    )


@router.get("/user/{user_id}")
async def list_agents(user_id: str, caller: CurrentUser, agents: Agents) -> AgentList:
    """List a user's agents, the oldest first, without their credentials."""
    listed = await agents.list_owned(acting_for(caller, user_id))
    return AgentList(agents=[_full_view(one) for one in listed])


@router.post("", status_code=201)
async def create_agent(body: NewAgent, caller: CurrentUser, agents: Agents) -> AgentView:
    """Make an agent: a type, and a credential, which is stored encrypted."""
    given = AgentChanges(
        name=body.name,
        credential=body.credential.given if body.credential else None,
        base_url=body.base_url,
        model=body.model,
    )
    owner = acting_for(caller, body.user_id)
    return _view(await agents.create(owner, body.type, given, actor=caller.user_id))


@router.get("/{agent_id}")
async def get_agent(agent_id: UUID, caller: CurrentUser, agents: Agents) -> AgentWithCredential:
    """Return an agent, without its credential."""
    return _full_view(await agents.get_owned(caller.user_id, agent_id))


@router.patch("/{agent_id}")
async def update_agent(
    agent_id: UUID, body: AgentChange, caller: CurrentUser, agents: Agents
) -> AgentView:
    """Change an agent; a new address of its model API needs the credential given again."""
    changes = AgentChanges(
        name=body.name,
        credential=body.credential.given if body.credential else None,
        base_url=_changed(body, "base_url", body.base_url),
        model=_changed(body, "model", body.model),
    )
    return _view(await agents.update(caller.user_id, agent_id, changes))


@router.delete("/{agent_id}")
async def delete_agent(agent_id: UUID, caller: CurrentUser, agents: Agents) -> DeletedAnswer:
    """Delete an agent and its credential; its sessions stay, without an agent."""
    await agents.delete(caller.user_id, agent_id)
    return DeletedAnswer()


@router.post("/{agent_id}/test")
async def check_agent(agent_id: UUID, caller: CurrentUser, agents: Agents) -> CheckView:
    """Find out whether an agent's credential is good: a key is sent to its model API."""
    return CheckView.model_validate(await agents.test(caller.user_id, agent_id))


@router.get("/{agent_id}/credentials")
async def read_agent_credential(
    agent_id: UUID, caller: CredentialReader, agents: Agents, response: Response
) -> CredentialAnswer:
    """Return an agent's credential in clear, to programs only and where the operator allows it."""
    response.headers["Cache-Control"] = "no-store"
    found = await agents.read_credential(caller.user_id, agent_id)
    return CredentialAnswer(credential=RevealedCredential(type=found.kind.type, value=found.value))


@router.post("/{agent_id}/setup/start")
async def start_agent_setup(
    agent_id: UUID, body: NewSetup, caller: CurrentUser, setup: Setup
) -> SetupAnswer:
    """Make a session in which to log the agent in by hand."""
    started = await setup.start(caller.user_id, agent_id, body.environment_id)
    return SetupAnswer(session_id=started.session_id, container_home=started.home)


@router.post("/{agent_id}/setup/ingest")
async def ingest_agent_setup(
    agent_id: UUID, caller: CurrentUser, setup: Setup, body: Ingest | None = None
) -> IngestAnswer:
    """Store a token, or the login file that a set-up left, as the agent's credential."""
    token = None if body is None or body.token is None else body.token.get_secret_value()
    stored = await setup.ingest(caller.user_id, agent_id, token or None)
    return IngestAnswer(mode="file" if stored.path else "token", path=stored.path)


def _changed(body: AgentChange, field: str, value: str | None) -> str | None:
    """Return what the service takes: None for a field that is left out, a text for one that is."""
    return (value or "") if field in body.model_fields_set else None


def _fields(agent: Agent) -> dict[str, object]:
    return {
        "id": agent.id,
        "user_id": agent.owner_id,
        "name": agent.name,
        "type": agent.type,
        "credential_type": agent.credential_type,
        "base_url": agent.base_url,
        "model": agent.model,
        "created_at": agent.created_at,
        "updated_at": agent.updated_at,
    }


def _view(agent: Agent) -> AgentView:
    return AgentView.model_validate(_fields(agent))


def _full_view(agent: Agent) -> AgentWithCredential:
    return AgentWithCredential.model_validate(_fields(agent))


def _type_view(one: AgentType) -> AgentTypeView:
    return AgentTypeView(
        name=one.name,
        title=one.title,
        version=one.version,
        installable=one.npm is not None,
        missing=one.missing,
        credentials=[_kind_view(kind) for kind in one.credentials],
    )


def _kind_view(kind: CredentialKind) -> CredentialKindView:
    return CredentialKindView(
        type=kind.type,
        title=kind.title,
        delivery=kind.delivery,
        enters_sandbox=kind.enters_sandbox,
        readable_by=WHO_CAN_READ[kind.delivery],
        aliases=kind.aliases,
        takes_base_url=kind.delivery is Delivery.GATEWAY,
    )
