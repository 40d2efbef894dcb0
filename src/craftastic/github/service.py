"""GitHub accounts: connected by the device flow, kept alive, used, disconnected."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import anyio
import httpx
import structlog

from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.credentials.service import CredentialService, SecretUnreadable
from craftastic.database import Database
from craftastic.errors import Forbidden, InvalidInput, NotConfigured
from craftastic.github._api_answers import Repository, origin_of
from craftastic.github._binding import FRESH_PAUSES_S, Binding
from craftastic.github._client import (
    GitHubAuthenticationRequired,
    GitHubClient,
    GitHubNotConfigured,
    GitHubRateLimited,
    GitHubRefused,
    GitHubUnavailable,
    open_client,
)
from craftastic.github._device_flow import missing_scopes, split_scopes
from craftastic.github._flows import (
    SAFETY_S,
    FlowFailed,
    FlowNotFound,
    FlowRefused,
    Flows,
    NewFlow,
    PollAnswer,
    TooManyFlows,
)
from craftastic.github._lists import Lists, RepositoryPage, Wanted
from craftastic.github._repository import AccountRepository, GitHubAccountTaken
from craftastic.github._tokens import Tokens
from craftastic.settings import Settings

__all__ = [
    "FlowFailed",
    "FlowNotFound",
    "FlowRefused",
    "GitHubAccountTaken",
    "GitHubAuthenticationRequired",
    "GitHubNotConfigured",
    "GitHubRateLimited",
    "GitHubRefused",
    "GitHubService",
    "GitHubUnavailable",
    "NewFlow",
    "Pace",
    "PollAnswer",
    "Repository",
    "RepositoryPage",
    "Status",
    "TooManyFlows",
    "open_client",
]

CHECK_TIMEOUT_S = 4.0
REVOKE_TIMEOUT_S = 8.0
MAX_EVENT_CHARACTERS = 64
REVOKED_EVENT = "github_app_authorization"

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class WebhookNotConfigured(NotConfigured):
    """There is no secret to know GitHub's messages by."""

    code = "GITHUB_WEBHOOK_NOT_CONFIGURED"


class BadSignature(Forbidden):
    """The message was not signed with the webhook's secret."""

    code = "GITHUB_WEBHOOK_SIGNATURE_WRONG"


class BadWebhook(InvalidInput):
    code = "GITHUB_WEBHOOK_INVALID"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things wait, in seconds; tests hurry.

    Args:
        safety_s: Added to the interval at which GitHub is asked about a flow.
        fresh_pauses_s: Before each new try of a token that GitHub does not know yet.
        fresh_pause_s: The same, after git's own address refused a fresh token.
    """

    safety_s: float = SAFETY_S
    fresh_pauses_s: Sequence[float] = FRESH_PAUSES_S
    fresh_pause_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Status:
    """How a user's connection to GitHub is.

    Args:
        configured: Whether this server offers GitHub at all.
        connected: Whether its tokens are believed to be good.
        username: The account's name; None while it is not known.
        needs_reconnect: There was a connection, and the user has to connect again.
        reason: Why, in words.
        missing_scopes: What was asked for and not granted.
    """

    configured: bool
    connected: bool = False
    username: str | None = None
    needs_reconnect: bool = False
    reason: str | None = None
    kind: str | None = None
    scopes: Sequence[str] = ()
    missing_scopes: Sequence[str] = ()
    install_url: str | None = None


@dataclass(frozen=True, slots=True)
class GitHubService:
    """Everything about users' GitHub accounts.

    Args:
        http: Made by `open_client`; whoever made it closes it.
    """

    database: Database
    credentials: CredentialService
    audit: AuditService
    clock: Clock
    http: httpx.AsyncClient = field(repr=False)
    settings: Settings = field(repr=False)
    pace: Pace = Pace()
    _tokens: Tokens = field(init=False, repr=False)
    _binding: Binding = field(init=False, repr=False)
    _flows: Flows = field(init=False, repr=False)
    _lists: Lists = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tokens = Tokens(
            self.database,
            self.credentials,
            self.audit,
            self.clock,
            GitHubClient(self.http, self.settings, self.clock),
            self.settings.github_url.partition("://")[2],
            self.pace.fresh_pause_s,
        )
        binding = Binding(tokens, self.pace.fresh_pauses_s)
        parts = {
            "_tokens": tokens,
            "_binding": binding,
            "_flows": Flows(tokens, binding, self.pace.safety_s),
            "_lists": Lists(tokens),
        }
        for name, part in parts.items():
            object.__setattr__(self, name, part)

    @property
    def origin(self) -> tuple[str, str, int] | None:
        """Where tokens belong; None where no account can be connected."""
        if self.settings.github_client_id is None:
            return None
        return origin_of(self.settings.github_url)

    async def initiate(self, owner: UUID) -> NewFlow:
        """Begin a device flow; an older one of the user's that still waits is ended.

        Raises:
            GitHubNotConfigured, FlowRefused: The operator has something to do.
            TooManyFlows: Too many within an hour.
            GitHubUnavailable, GitHubRateLimited: No answer now.
        """
        return await self._flows.initiate(owner)

    async def poll(self, owner: UUID, handle: str) -> PollAnswer:
        """Tell how a flow is doing. GitHub is asked at its own pace, however often this is.

        Raises:
            FlowNotFound: The caller has no such flow.
            FlowFailed: It has ended without tokens.
            GitHubAccountTaken: The GitHub account is connected to another account of this server.
        """
        return await self._flows.poll(owner, handle)

    async def disconnect(self, owner: UUID) -> None:
        """Delete the user's connection and end its tokens at GitHub, as far as GitHub answers.

        Nothing of it is left here afterwards, whatever GitHub says.
        """
        async with self.database.begin() as tx:
            pairs = await self._flows.end_all(tx, owner)
        pair = await self._binding.disconnect(owner, "asked for")
        self._lists.forget(owner)
        if pair is not None:
            pairs.append(pair)
        with anyio.move_on_after(REVOKE_TIMEOUT_S) as waiting:
            for one in pairs:
                await self._tokens.end(one)
        if waiting.cancelled_caught:
            log.warning("tokens could not be ended at GitHub in time")

    async def status(self, owner: UUID) -> Status:
        """Tell what is known of the user's connection; GitHub is asked now and then only."""
        if self.settings.github_client_id is None:
            return Status(configured=False)
        account = await self._tokens.find(owner)
        if account is None:
            return Status(configured=True)
        await self._binding.check(account, CHECK_TIMEOUT_S)
        account = await self._tokens.find(owner)
        if account is None:
            return Status(configured=True)
        moved = account.host != self._tokens.host
        dead = moved or account.state == "reconnect"
        scopes = split_scopes(account.scopes)
        asked = split_scopes(self.settings.github_scopes)
        return Status(
            configured=True,
            connected=not dead,
            username=account.login,
            needs_reconnect=dead,
            reason=f"It is a connection to {account.host}." if moved else account.reason,
            kind=account.kind,
            scopes=scopes,
            missing_scopes=missing_scopes(asked, scopes) if account.kind == "oauth" else (),
            install_url=self._lists.install_url(account),
        )

    async def repos(
        self, owner: UUID, *, page: int = 1, per_page: int = 30, sort: str = "updated",
        query: str | None = None,
    ) -> RepositoryPage:  # fmt: skip
        """Return one page of the repositories that the user's connection reaches.

        Args:
            owner: The user.
            page: From 1.
            per_page: At most 100.
            sort: `created`, `updated`, `pushed` (newest first) or `full_name`.
            query: Words that the name or the description has to have.

        Raises:
            GitHubAuthenticationRequired: Not connected, or GitHub takes no token of it.
            GitHubRateLimited, GitHubRefused, GitHubUnavailable: As named.
        """
        return await self._lists.page(owner, Wanted(page, per_page, sort, query))

    async def token_for(self, owner: UUID, origin: tuple[str, str, int]) -> str | None:
        """Return a token for git at this origin; None unless it is exactly GitHub's own.

        Args:
            owner: Whose token.
            origin: Scheme, host and port.
        """
        if origin != self.origin:
            return None
        try:
            held = await self._tokens.current(owner)
        except SecretUnreadable:
            return None  # the log says so, and public repositories can still be had
        return None if held is None else held.token

    async def rejected(self, owner: UUID, token: str) -> bool:
        """Take note that git's address answered 401 to a token.

        Returns:
            True when `token_for` has another one, or the same is worth one more try.
        """
        try:
            return await self._tokens.rejected(owner, token)
        except SecretUnreadable:
            return False

    async def webhook(self, event: str, signature: str, body: bytes) -> bool:
        """Take a message of GitHub's: a person who revoked this app is disconnected.

        Returns:
            Whether anything was done.

        Raises:
            WebhookNotConfigured: There is no secret.
            BadSignature: The message is not GitHub's.
            BadWebhook: It is signed, and cannot be read.
        """
        secret = self.settings.github_webhook_secret
        if secret is None:
            raise WebhookNotConfigured(
                "The webhook is not configured", details="Set GITHUB_WEBHOOK_SECRET to its secret."
            )
        right = hmac.new(secret.get_secret_value().encode(), body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(f"sha256={right}".encode(), signature.encode()):
            raise BadSignature("The signature is not that of this server's webhook")
        message = _message(body)
        if event[:MAX_EVENT_CHARACTERS] != REVOKED_EVENT or message.get("action") != "revoked":
            return False
        return await self._revoked_by(message)

    async def reconcile(self) -> None:
        """Finish what a crash left of flows, name nameless accounts, forget what has ended."""
        if self.settings.github_client_id is None:
            return
        await self._flows.tidy()
        await self._binding.identify_left_overs()

    async def _revoked_by(self, message: Mapping[str, Any]) -> bool:
        sender = message.get("sender")
        github_id = (
            cast("Mapping[str, Any]", sender).get("id") if isinstance(sender, dict) else None
        )
        if isinstance(github_id, bool) or not isinstance(github_id, int):
            raise BadWebhook("The message does not say whose it is")
        async with self.database.read() as tx:
            account = await AccountRepository(tx).find_by_github(self._tokens.host, github_id)
        if account is None:
            return False
        self._lists.forget(account.user_id)
        await self._binding.disconnect(account.user_id, "revoked at GitHub")
        return True


def _message(body: bytes) -> Mapping[str, Any]:
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadWebhook("The message is not JSON") from error
    if not isinstance(parsed, dict):
        raise BadWebhook("The message is not a JSON object")
    return cast("Mapping[str, Any]", parsed)
