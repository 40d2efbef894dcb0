"""HTTP face of agent runs: requests that wait, prompts, interrupting, and how an agent is."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import Field, PlainSerializer

from craftastic.accounts.current_user import CurrentUser
from craftastic.agent_runs.service import (
    MAX_TEXT,
    AgentRun,
    AgentRunService,
    AgentState,
    ApprovalStatus,
    Kind,
    Prompt,
    PromptStatus,
)
from craftastic.agents.agent_types import Delivery
from craftastic.http.wire import Wire, timestamp
from craftastic.idempotency.once import ONCE

router = APIRouter(tags=["agents"])

MAX_LIMIT = 10**12
NOBODY_ELSE = "Nothing in the sandbox: the gateway adds it to what the agent sends."
EVERYTHING = (
    "Every program in the environment's sandbox, in any of its sessions, as long as the agent runs."
)

Timestamp = Annotated[datetime, PlainSerializer(timestamp, return_type=str)]
Absent = Field(None, exclude_if=lambda value: value is None)


async def agent_run_service(request: Request) -> AgentRunService:
    service: AgentRunService = request.state.agent_runs
    return service


Runs = Annotated[AgentRunService, Depends(agent_run_service)]


class ApprovalView(Wire):
    """A request that waits; `input` is what the sandbox says, as text."""

    id: UUID
    session_id: UUID
    session_name: str
    environment_id: UUID
    agent_id: UUID | None
    kind: Kind
    tool: str
    input: str
    created_at: Timestamp


class ApprovalList(Wire):
    approvals: Sequence[ApprovalView]


class Decision(Wire):
    """`message` is what the agent is told when it is denied."""

    decision: Literal["allow", "deny"]
    message: str | None = Field(None, max_length=2000)


class DecisionAnswer(Wire):
    id: UUID
    status: ApprovalStatus


class NewPrompt(Wire):
    text: str = Field(min_length=1, max_length=MAX_TEXT)


class PromptReceipt(Wire):
    id: UUID
    status: PromptStatus
    reason: str | None = Absent


class PromptView(PromptReceipt):
    """A prompt; of one that has arrived the text's beginning is kept."""

    text: str
    created_at: Timestamp


class PromptList(Wire):
    prompts: Sequence[PromptView]


class TakenBack(Wire):
    success: Literal[True] = True


class InterruptionAnswer(Wire):
    interrupted: bool
    reason: str | None = Absent


class UsageView(Wire):
    requests: int
    input_tokens: int
    output_tokens: int


class CredentialView(Wire):
    """What the agent's calls carry, and who in the sandbox could read it."""

    type: str
    delivery: Delivery
    enters_sandbox: bool
    readable_by: str


class RunView(Wire):
    session_id: UUID
    agent_id: UUID | None
    type: str
    title: str
    state: AgentState
    state_since: Timestamp
    message: str | None = Absent
    waits_for: str | None = Absent
    kind: str | None = Absent
    exit_code: int | None = Absent
    conversation: str | None = Absent
    credential: CredentialView | None = Absent
    usage: UsageView
    limit_tokens: int | None
    allowed_tokens: int | None
    launched_at: Timestamp | None = Absent
    ended_at: Timestamp | None = Absent


class RunChanges(Wire):
    """After how many tokens the owner is asked, counted from now on; null for never."""

    limit_tokens: int | None = Field(ge=1, le=MAX_LIMIT)


@router.get("/api/approvals")
async def list_approvals(caller: CurrentUser, runs: Runs) -> ApprovalList:
    """List what waits for the caller, oldest first."""
    found = await runs.approvals.list_waiting(caller.user_id)
    return ApprovalList(approvals=[ApprovalView.model_validate(one) for one in found])


@router.post("/api/approvals/{approval_id}")
async def decide_approval(
    approval_id: UUID, body: Decision, caller: CurrentUser, runs: Runs
) -> DecisionAnswer:
    """Allow or deny what waits; whoever answers first wins, the terminal included."""
    status = await runs.approvals.decide(
        caller.user_id, approval_id, allow=body.decision == "allow", message=body.message
    )
    return DecisionAnswer(id=approval_id, status=status)


@router.post("/api/sessions/{session_id}/prompt", status_code=202, dependencies=[ONCE])
async def send_prompt(
    session_id: UUID, body: NewPrompt, caller: CurrentUser, runs: Runs
) -> PromptReceipt:
    """Queue a text for an agent; it is typed as soon as the agent is positively idle."""
    made = await runs.send(caller.user_id, session_id, body.text)
    return PromptReceipt(id=made.id, status=made.status, reason=made.reason)


@router.get("/api/sessions/{session_id}/prompts")
async def list_prompts(session_id: UUID, caller: CurrentUser, runs: Runs) -> PromptList:
    """List an agent's prompts in their order: those that wait, and the newest others."""
    found = await runs.sent(caller.user_id, session_id)
    return PromptList(prompts=[_prompt(one) for one in found])


@router.delete("/api/sessions/{session_id}/prompts/{prompt_id}")
async def take_back_prompt(
    session_id: UUID, prompt_id: UUID, caller: CurrentUser, runs: Runs
) -> TakenBack:
    """Take a prompt out of the queue."""
    await runs.unsend(caller.user_id, session_id, prompt_id)
    return TakenBack()


@router.post("/api/sessions/{session_id}/interrupt")
async def interrupt_agent(session_id: UUID, caller: CurrentUser, runs: Runs) -> InterruptionAnswer:
    """Press the key that interrupts an agent, while it works or waits."""
    done = await runs.interrupt(caller.user_id, session_id)
    return InterruptionAnswer(interrupted=done.interrupted, reason=done.reason)


@router.get("/api/sessions/{session_id}/agent")
async def get_agent_run(session_id: UUID, caller: CurrentUser, runs: Runs) -> RunView:
    """Return how a session's agent is, what it has used, and what it was given."""
    return _run(await runs.get_owned(caller.user_id, session_id))


@router.patch("/api/sessions/{session_id}/agent")
async def change_agent_run(
    session_id: UUID, body: RunChanges, caller: CurrentUser, runs: Runs
) -> RunView:
    """Change after how many tokens the owner is asked."""
    return _run(await runs.set_limit(caller.user_id, session_id, body.limit_tokens))


def _prompt(prompt: Prompt) -> PromptView:
    return PromptView(
        id=prompt.id,
        status=prompt.status,
        reason=prompt.reason,
        text=prompt.text,
        created_at=prompt.created_at,
    )


def _run(run: AgentRun) -> RunView:
    credential = None
    if run.credential_type is not None and run.delivery is not None:
        enters = run.delivery is not Delivery.GATEWAY
        credential = CredentialView(
            type=run.credential_type,
            delivery=run.delivery,
            enters_sandbox=enters,
            readable_by=EVERYTHING if enters else NOBODY_ELSE,
        )
    return RunView(
        session_id=run.session_id,
        agent_id=run.agent_id,
        type=run.type,
        title=run.title,
        state=run.state.state,
        state_since=run.state.since,
        message=run.state.message,
        waits_for=run.state.waits_for,
        kind=run.state.kind,
        exit_code=run.state.exit_code,
        conversation=run.state.conversation,
        credential=credential,
        usage=UsageView(
            requests=run.usage.requests,
            input_tokens=run.usage.input_tokens,
            output_tokens=run.usage.output_tokens,
        ),
        limit_tokens=run.limit_tokens,
        allowed_tokens=run.allowed_tokens,
        launched_at=run.launched_at,
        ended_at=run.ended_at,
    )
