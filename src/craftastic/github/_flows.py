"""Device flows: begun, asked about at the pace that GitHub wants, and bound to an account.

The database's clock decides who may ask: one question for each interval, however many tabs and
servers wait for the answer. The user's browser knows a flow by a name of ours; GitHub's own, which
is worth the tokens, stays on the server.
"""

import hashlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from uuid import UUID

import anyio
import structlog

from craftastic.credentials.service import SecretNotFound, SecretUnreadable
from craftastic.database import Transaction
from craftastic.errors import CraftasticError, InvalidInput, NotConfigured, NotFound, RateLimited
from craftastic.github._api_answers import origin_of
from craftastic.github._binding import Binding
from craftastic.github._client import GitHubRateLimited, GitHubUnavailable, TokenRejected
from craftastic.github._device_flow import (
    BAD_CLIENT,
    EXPIRED,
    PENDING,
    SLOW_DOWN,
    UNKNOWN,
    DeviceCode,
    Grant,
    Later,
    Refused,
    slower,
)
from craftastic.github._repository import Flow, FlowRepository, FlowState, GitHubAccountTaken
from craftastic.github._tokens import Pair, Tokens

DEVICE_CODE = "github.device_code"

MAX_FLOWS = 10
FLOWS_WINDOW_S = 3600.0
STARTING_S = 60.0
ASKING_S = 15.0
SAFETY_S = 1.0
MAX_LATER_S = 60.0
HANDLE_BYTES = 20
LEFT_OVERS = 20

TAKEN = "account_taken"
REJECTED = "token_rejected"

MESSAGES = {
    EXPIRED: "The code has expired, or a newer one has taken its place. Get a new code.",
    "access_denied": "The sign-in was cancelled at GitHub. Get a new code to try again.",
    "incorrect_device_code": "GitHub does not know this code any more. Get a new code.",
    "bad_verification_code": "GitHub does not know this code any more. Get a new code.",
    "unverified_user_email": "GitHub asks you to verify your primary e-mail address first.",
    "device_flow_disabled": "The device flow is switched off: the operator of this server has to "
    'tick "Enable Device Flow" in the settings of its GitHub app.',
    BAD_CLIENT: "GitHub does not know this server's app: the operator has to set GITHUB_CLIENT_ID "
    "to the client id of a GitHub App or OAuth app.",
    "unsupported_grant_type": "GitHub did not understand this server; please report it.",
    REJECTED: "GitHub gave a token and does not accept it. Get a new code to try again.",
}

WAITING = "Waiting for you to enter the code at GitHub"
TOO_FAST = "GitHub asks to be asked less often; still waiting"
NO_ANSWER = "GitHub does not answer now; still waiting"
COMPLETED = "GitHub authentication completed"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class FlowNotFound(NotFound):
    """No flow of the caller's has this name."""

    code = "GITHUB_FLOW_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("This sign-in to GitHub does not exist; start a new one")


class TooManyFlows(RateLimited):
    """The app may only begin so many flows an hour, for all its users."""

    code = "TOO_MANY_GITHUB_FLOWS"


class FlowFailed(InvalidInput):
    """The flow has ended without tokens; the answer's `error` is GitHub's word for why."""

    code = "GITHUB_DEVICE_FLOW_FAILED"

    def __init__(self, error: str) -> None:
        text = MESSAGES.get(error, "GitHub ended the sign-in. Get a new code to try again.")
        super().__init__(error, answer={"message": text})


class FlowRefused(NotConfigured):
    """GitHub begins no flow for this server's app."""

    code = "GITHUB_DEVICE_FLOW_REFUSED"


@dataclass(frozen=True, slots=True)
class NewFlow:
    """What a person needs to sign in at GitHub.

    Args:
        handle: Our name of the flow, for its owner alone.
        interval_s: How often asking about it makes sense.
    """

    handle: str = field(repr=False)
    user_code: str
    verification_uri: str
    expires_in_s: int
    interval_s: int


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """How a flow is doing that has not failed."""

    state: Literal["authorization_pending", "slow_down", "completed"]
    message: str
    interval_s: int = 0


@dataclass(frozen=True, slots=True)
class Flows:
    """Every user's flows.

    Args:
        safety_s: Added to each interval; asking exactly at its end is answered with `slow_down`.
    """

    tokens: Tokens
    binding: Binding
    safety_s: float = SAFETY_S

    async def initiate(self, owner: UUID) -> NewFlow:
        """Begin a flow, which ends an older one that still waits.

        Raises:
            GitHubNotConfigured, FlowRefused: The operator has something to do.
            TooManyFlows: The user began `MAX_FLOWS` within an hour.
            GitHubUnavailable, GitHubRateLimited: No answer now.
        """
        client = self.tokens.client
        client.client_id  # noqa: B018 - raises when there is none
        handle = secrets.token_hex(HANDLE_BYTES)
        async with self.tokens.database.begin() as tx:
            flow_id = await FlowRepository(tx).begin(
                owner, _hash(handle), limit=MAX_FLOWS, window_s=FLOWS_WINDOW_S, life_s=STARTING_S
            )
        if not isinstance(flow_id, UUID):
            raise TooManyFlows(
                "You began too many sign-ins to GitHub; try again later", retry_after_s=flow_id
            )
        answer = await client.begin()
        if not isinstance(answer, DeviceCode):
            raise await self._not_begun(flow_id, answer)
        await self._offer(owner, flow_id, answer)
        return NewFlow(
            handle=handle,
            user_code=answer.user_code,
            verification_uri=self._verification_uri(answer),
            expires_in_s=int(answer.expires_in_s),
            interval_s=self._shown(answer.interval_s),
        )

    async def poll(self, owner: UUID, handle: str) -> PollAnswer:
        """Tell how a flow is doing; asks GitHub if nobody did within the interval.

        Raises:
            FlowNotFound: The caller has no such flow.
            FlowFailed: It has ended without tokens, now or before.
            GitHubAccountTaken: The tokens are for an account that is another user's.
        """
        async with self.tokens.database.read() as tx:
            flow = await FlowRepository(tx).find(owner, _hash(handle))
        if flow is None or flow.state == "starting":
            raise FlowNotFound
        if flow.state in {"pending", "redeemed"}:
            async with self.tokens.database.begin() as tx:
                mine = await FlowRepository(tx).claim(flow.id, ASKING_S)
            if mine is not None:
                return await self._ask(mine)
            if flow.state == "pending" and flow.expired:
                return await self._fail(flow, EXPIRED)
        return self._told(flow)

    async def end_all(self, tx: Transaction, owner: UUID) -> list[Pair]:
        """End the user's flows; return the pairs that were redeemed and not bound yet."""
        flows = FlowRepository(tx)
        pairs: list[Pair] = []
        for flow in await flows.open_of(owner, ["starting", "pending", "redeemed"]):
            if flow.state == "redeemed":
                pair = await self.binding.kept_pair(tx, flow)
                pairs += [] if pair is None else [pair]
            await self._finish(tx, flow, "ended", EXPIRED, of=[flow.state])
        return pairs

    async def tidy(self) -> None:
        """Bind what a crash left unbound, end what expired, forget what ended an hour ago."""
        database = self.tokens.database
        async with database.read() as tx:
            due = await FlowRepository(tx).redeemed_and_due(LEFT_OVERS)
        for flow in due:
            async with database.begin() as tx:
                mine = await FlowRepository(tx).claim(flow.id, ASKING_S)
            if mine is not None and mine.state == "redeemed":
                try:
                    await self._bind(mine)
                except CraftasticError as error:
                    log.info("a GitHub account was not connected", reason=error.code)
        async with database.begin() as tx:
            for flow in await FlowRepository(tx).expired(LEFT_OVERS):
                await self._finish(tx, flow, "failed", EXPIRED, of=["starting", "pending"])
            await FlowRepository(tx).forget_ended(FLOWS_WINDOW_S)

    # ---- beginning --------------------------------------------------------------------------

    async def _offer(self, owner: UUID, flow_id: UUID, code: DeviceCode) -> None:
        async with self.tokens.database.begin() as tx:
            flows = FlowRepository(tx)
            await flows.one_at_a_time()  # two that begin at once must see each other
            for older in await flows.open_of(owner, ["pending"]):
                await self._finish(tx, older, "ended", EXPIRED, of=["pending"])
            secret_id = await self.tokens.credentials.store(
                tx, owner, DEVICE_CODE, code.device_code
            )
            offered = await flows.offer(
                flow_id,
                secret_id=secret_id,
                user_code=code.user_code,
                verification_uri=self._verification_uri(code),
                interval_s=code.interval_s,
                wait_s=code.interval_s + self.safety_s,
                expires_in_s=code.expires_in_s,
            )
            if not offered:  # disconnected meanwhile
                await self.tokens.credentials.remove(tx, owner, secret_id)

    async def _not_begun(self, flow_id: UUID, answer: Refused | Later) -> CraftasticError:
        """Return why a flow did not begin; one that GitHub did not begin for now does not count."""
        async with self.tokens.database.begin() as tx:
            if isinstance(answer, Later):
                await FlowRepository(tx).forget(flow_id)
            else:
                await FlowRepository(tx).finish(flow_id, "failed", answer.error, of=["starting"])
        if isinstance(answer, Refused):
            log.error("GitHub begins no device flow for this app", error=answer.error)
            text = MESSAGES.get(answer.error, f"GitHub said {answer.error}.")
            return FlowRefused(f"Device flow initiation failed: {text}", error=answer.error)
        if answer.retry_after_s is not None:
            return GitHubRateLimited(
                "GitHub asks to wait; try again later.", retry_after_s=answer.retry_after_s
            )
        return GitHubUnavailable(
            "Device flow initiation failed: GitHub does not answer; try again.",
            status=answer.status,
        )

    def _verification_uri(self, code: DeviceCode) -> str:
        web = self.tokens.client.settings.github_url
        same = origin_of(code.verification_uri) == origin_of(web)
        return code.verification_uri[:500] if same else f"{web}/login/device"

    def _shown(self, interval_s: float) -> int:
        return math.ceil(interval_s + self.safety_s)

    # ---- asking -----------------------------------------------------------------------------

    def _told(self, flow: Flow) -> PollAnswer:
        """Say again what is known about a flow.

        Raises:
            FlowFailed, GitHubAccountTaken: It ended so.
        """
        if flow.state == "completed":
            return PollAnswer("completed", COMPLETED)
        if flow.error == TAKEN:
            raise GitHubAccountTaken
        if flow.state in {"failed", "ended"}:
            raise FlowFailed(flow.error or UNKNOWN)
        return PollAnswer(PENDING, WAITING, self._shown(flow.interval_s))

    async def _ask(self, flow: Flow) -> PollAnswer:
        if flow.state == "redeemed":
            return await self._bind(flow)
        answer: PollAnswer | Flow = flow
        # Tokens that are cut off between GitHub and the database are lost, and the code is used.
        with anyio.CancelScope(shield=True):
            answer = await self._redeem(flow)
        return await self._bind(answer) if isinstance(answer, Flow) else answer

    async def _redeem(self, flow: Flow) -> PollAnswer | Flow:
        try:
            async with self.tokens.database.read() as tx:
                device_code = await self._device_code(tx, flow)
        except SecretUnreadable:
            return await self._fail(flow, EXPIRED)
        answer = await self.tokens.client.redeem(device_code)
        if isinstance(answer, Grant):
            return await self._keep(flow, answer)
        if isinstance(answer, Later):
            wait_s = max(flow.interval_s * 2, answer.retry_after_s or 0.0)
            await self._wait(flow, flow.interval_s, min(wait_s, max(MAX_LATER_S, flow.interval_s)))
            return PollAnswer(PENDING, NO_ANSWER, self._shown(flow.interval_s))
        if answer.error in {PENDING, SLOW_DOWN}:
            fast = answer.error == SLOW_DOWN
            interval_s = slower(flow.interval_s, answer) if fast else flow.interval_s
            await self._wait(flow, interval_s, interval_s)
            shown = self._shown(interval_s)
            if fast:
                return PollAnswer(SLOW_DOWN, TOO_FAST, shown)
            return PollAnswer(PENDING, WAITING, shown)
        return await self._fail(flow, answer.error)

    async def _wait(self, flow: Flow, interval_s: float, wait_s: float) -> None:
        async with self.tokens.database.begin() as tx:
            await FlowRepository(tx).wait(
                flow.id, interval_s=interval_s, wait_s=wait_s + self.safety_s
            )

    async def _device_code(self, tx: Transaction, flow: Flow) -> str:
        if flow.secret_id is None:
            raise FlowFailed(EXPIRED)
        return await self.tokens.credentials.reveal(tx, flow.user_id, DEVICE_CODE, flow.secret_id)

    async def _fail(self, flow: Flow, error: str) -> PollAnswer:
        """End a flow that is pending, unless another server got further with it meanwhile.

        Raises:
            FlowFailed, GitHubAccountTaken: It has ended.
        """
        async with self.tokens.database.begin() as tx:
            await self._finish(tx, flow, "failed", error, of=["pending"])
        return await self._told_anew(flow)

    async def _told_anew(self, flow: Flow) -> PollAnswer:
        async with self.tokens.database.read() as tx:
            now = await FlowRepository(tx).get(flow.id)
        if now is None:
            raise FlowNotFound
        return self._told(now)

    async def _finish(
        self,
        tx: Transaction,
        flow: Flow,
        state: FlowState,
        error: str | None,
        *,
        of: Sequence[FlowState],
    ) -> bool:
        done = await FlowRepository(tx).finish(flow.id, state, error, of=of)
        if done and flow.secret_id is not None:
            await self.tokens.credentials.remove(tx, flow.user_id, flow.secret_id)
        return done

    # ---- binding ----------------------------------------------------------------------------

    async def _keep(self, flow: Flow, grant: Grant) -> PollAnswer | Flow:
        """Save the tokens before anything else; those of a flow that was ended are ended too."""
        async with self.tokens.database.begin() as tx:
            secret_id = await self.binding.keep(tx, flow.user_id, grant)
            kept = await FlowRepository(tx).redeemed(flow.id, secret_id)
            gone = flow.secret_id if kept else secret_id
            if gone is not None:
                await self.tokens.credentials.remove(tx, flow.user_id, gone)
        if not kept:
            await self.tokens.end((grant.access_token, grant.refresh_token))
            return await self._told_anew(flow)
        return replace(flow, secret_id=secret_id, state="redeemed")

    async def _bind(self, flow: Flow) -> PollAnswer:
        """Connect the account of a flow's tokens.

        Raises:
            GitHubAccountTaken: It is another user's.
            FlowFailed: GitHub does not take its own token, or the flow was ended meanwhile.
        """

        async def completed(tx: Transaction) -> bool:
            return await self._finish(tx, flow, "completed", None, of=["redeemed"])

        try:
            await self.binding.bind(flow.user_id, flow.secret_id, completed)
        except (TokenRejected, GitHubAccountTaken, SecretNotFound, SecretUnreadable) as error:
            why = TAKEN if isinstance(error, GitHubAccountTaken) else REJECTED
            async with self.tokens.database.begin() as tx:
                await self._finish(tx, flow, "failed", why, of=["redeemed"])
        return await self._told_anew(flow)


def _hash(handle: str) -> str:
    return hashlib.sha256(handle.encode("utf-8", "replace")).hexdigest()
