"""Whose tokens these are: kept encrypted until GitHub says so, then bound to the user's account.

An account is known by GitHub's number for it, since names change hands, and belongs to one user.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import anyio
import structlog

from craftastic.credentials.service import SecretNotFound
from craftastic.database import Transaction
from craftastic.errors import CraftasticError
from craftastic.github._api_answers import Person
from craftastic.github._client import CALL_TIMEOUT_S, TokenRejected
from craftastic.github._device_flow import Grant, missing_scopes, split_scopes
from craftastic.github._repository import Account, AccountRepository, Flow, GitHubAccountTaken
from craftastic.github._tokens import Pair, Tokens

GRANT = "github.grant"
FRESH_PAUSES_S = (0.5, 1.0, 2.0)
PERSON_TIMEOUT_S = 12.0
CHECK_AFTER_S = 600.0
CHECK_UNIDENTIFIED_AFTER_S = 30.0
LEFT_OVERS = 20
MAX_SCOPES_CHARACTERS = 1000

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Confirm = Callable[[Transaction], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Binding:
    """Connects accounts, and looks now and then whether they still are.

    Args:
        fresh_pauses_s: How long to wait before each new try of a token that is not known yet.
    """

    tokens: Tokens
    fresh_pauses_s: Sequence[float] = FRESH_PAUSES_S

    async def keep(self, tx: Transaction, owner: UUID, grant: Grant) -> UUID:
        """Encrypt tokens until it is known whose they are; return the secret's id."""
        text = json.dumps(
            {
                "access": grant.access_token,
                "refresh": grant.refresh_token,
                "kind": grant.kind,
                "scopes": list(grant.scopes),
                "access_ttl_s": grant.access_ttl_s,
                "refresh_ttl_s": grant.refresh_ttl_s,
                "issued_at": self.tokens.clock.now().isoformat(),
            }
        )
        return await self.tokens.credentials.store(tx, owner, GRANT, text)

    async def kept_pair(self, tx: Transaction, flow: Flow) -> Pair | None:
        """Return the tokens of a flow that are kept; None when they cannot be read."""
        try:
            grant, _ = await self._kept(tx, flow.user_id, flow.secret_id)
        except CraftasticError:
            return None
        return grant.access_token, grant.refresh_token

    async def bind(self, owner: UUID, secret_id: UUID | None, confirm: Confirm) -> None:
        """Connect the account of kept tokens, once `confirm` says that this is still wanted.

        When GitHub does not say whose they are, the account is connected without a name, which is
        found later: its tokens are good. The tokens of an account that cannot be connected are
        ended, and those of the connection whose place is taken.

        Raises:
            GitHubAccountTaken: The account is another user's.
            TokenRejected: GitHub does not take its own token, not even after a while.
        """
        async with self.tokens.database.read() as tx:
            grant, issued_at = await self._kept(tx, owner, secret_id)
        try:
            person = await self._person(grant)
            before = await self._connect(owner, grant, issued_at, person, confirm)
        except (TokenRejected, GitHubAccountTaken):
            await self.tokens.end((grant.access_token, grant.refresh_token))
            raise
        if before is not None:
            await self.tokens.end(before)

    async def check(self, account: Account, timeout_s: float) -> None:
        """Ask GitHub about an account, if nobody did for a while; no answer changes nothing.

        Args:
            account: As it was read.
            timeout_s: How long it may take.
        """
        tokens = self.tokens
        now = tokens.clock.now()
        alive = account.state != "reconnect" and account.host == tokens.host
        if not alive or now < account.checked_at + _check_after(account):
            return
        async with tokens.database.begin() as tx:
            if not await AccountRepository(tx).claim_check(account, now):
                return
        with anyio.move_on_after(timeout_s):
            try:
                asked, person = await tokens.ask(account.user_id, tokens.client.person)
                await self._name(asked, person)
            except CraftasticError as error:
                log.info("a GitHub account could not be checked", reason=error.code)

    async def identify_left_overs(self) -> None:
        """Ask whose the accounts are that were connected without a name."""
        tokens = self.tokens
        before = tokens.clock.now() - timedelta(seconds=CHECK_UNIDENTIFIED_AFTER_S)
        async with tokens.database.read() as tx:
            accounts = await AccountRepository(tx).unidentified(before, LEFT_OVERS)
        for account in accounts:
            await self.check(account, CALL_TIMEOUT_S)

    async def disconnect(self, owner: UUID, why: str) -> Pair | None:
        """Delete a user's account, also when GitHub is down; return the tokens to be ended."""
        async with self.tokens.database.begin() as tx:
            account = await AccountRepository(tx).remove(owner)
            if account is None:
                return None
            pair = await self.tokens.reveal_pair(tx, account)
            await self.tokens.remove_secrets(tx, account)
            await self.tokens.audit.record(
                "github.disconnect",
                actor_id=owner,
                object_type="github_account",
                object_id=None if account.github_id is None else str(account.github_id),
                details={"host": account.host, "login": account.login, "why": why},
                tx=tx,
            )
        # A token is for the GitHub that gave it; no other gets to see it.
        return pair if account.host == self.tokens.host else None

    async def _person(self, grant: Grant) -> Person | None:
        """Return whose a fresh token is; None when GitHub does not say now.

        Raises:
            TokenRejected: Not even after a while.
        """
        with anyio.move_on_after(PERSON_TIMEOUT_S):
            for pause_s in (*self.fresh_pauses_s, None):
                try:
                    return await self.tokens.client.person(grant.access_token)
                except TokenRejected:
                    if pause_s is None:
                        raise
                    await anyio.sleep(pause_s)
                except CraftasticError as error:
                    log.info("GitHub does not say whose a token is", reason=error.code)
                    break
        return None

    async def _connect(
        self,
        owner: UUID,
        grant: Grant,
        issued_at: datetime,
        person: Person | None,
        confirm: Confirm,
    ) -> Pair | None:
        """Make the tokens those of the user's account; return the pair that they take the place of.

        Raises:
            GitHubAccountTaken: The account is another user's.
        """
        tokens, now = self.tokens, self.tokens.clock.now()
        scopes = grant.scopes
        if person is not None and person.scopes is not None:
            scopes = split_scopes(person.scopes)
        async with tokens.database.begin() as tx:
            if not await confirm(tx):
                return None
            columns = await tokens.store(tx, owner, grant, issued_at)
            before = await AccountRepository(tx).put(
                owner,
                host=tokens.host,
                github_id=None if person is None else person.github_id,
                login=None if person is None else person.login,
                name=None if person is None else person.name,
                kind=grant.kind,
                scopes=" ".join(scopes)[:MAX_SCOPES_CHARACTERS],
                state="unidentified" if person is None else "connected",
                reason=None,
                checked_at=now,
                connected_at=now,
                **columns,
            )
            pair = await self._replaced(tx, before)
            await self._record_connect(tx, owner, grant, scopes, person)
        return pair

    async def _replaced(self, tx: Transaction, before: Account | None) -> Pair | None:
        if before is None:
            return None
        pair = await self.tokens.reveal_pair(tx, before)
        await self.tokens.remove_secrets(tx, before)
        usable = before.host == self.tokens.host and before.state != "reconnect"
        return pair if usable else None

    async def _record_connect(
        self,
        tx: Transaction,
        owner: UUID,
        grant: Grant,
        scopes: Sequence[str],
        person: Person | None,
    ) -> None:
        asked = split_scopes(self.tokens.client.settings.github_scopes)
        await self.tokens.audit.record(
            "github.connect",
            actor_id=owner,
            object_type="github_account",
            object_id=None if person is None else str(person.github_id),
            details={
                "host": self.tokens.host,
                "login": None if person is None else person.login,
                "kind": grant.kind,
                "scopes": list(scopes),
                "missing": list(missing_scopes(asked, scopes)) if grant.kind == "oauth" else [],
            },
            tx=tx,
        )

    async def _name(self, account: Account, person: Person) -> None:
        """Write down whom an account's tokens act for; another user's account is not kept."""
        scopes = None
        if person.scopes is not None:
            scopes = " ".join(split_scopes(person.scopes))[:MAX_SCOPES_CHARACTERS]
        try:
            async with self.tokens.database.begin() as tx:
                await AccountRepository(tx).identify(
                    account,
                    github_id=person.github_id,
                    login=person.login,
                    name=person.name,
                    scopes=scopes,
                )
        except GitHubAccountTaken:
            pair = await self.disconnect(account.user_id, "it is another user's account")
            await self.tokens.end(pair)

    async def _kept(
        self, tx: Transaction, owner: UUID, secret_id: UUID | None
    ) -> tuple[Grant, datetime]:
        """Return kept tokens, and when GitHub gave them.

        Raises:
            SecretNotFound, SecretUnreadable: They are gone, or cannot be read.
        """
        if secret_id is None:
            raise SecretNotFound("Secret not found")
        kept = json.loads(await self.tokens.credentials.reveal(tx, owner, GRANT, secret_id))
        grant = Grant(
            access_token=kept["access"],
            refresh_token=kept["refresh"],
            kind=kept["kind"],
            scopes=tuple(kept["scopes"]),
            access_ttl_s=kept["access_ttl_s"],
            refresh_ttl_s=kept["refresh_ttl_s"],
        )
        return grant, datetime.fromisoformat(kept["issued_at"])


def _check_after(account: Account) -> timedelta:
    unidentified = account.state == "unidentified"
    return timedelta(seconds=CHECK_UNIDENTIFIED_AFTER_S if unidentified else CHECK_AFTER_S)
