"""Who may push what: the hook that is asked about every push, and the rule when none is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

import structlog

from craftastic.gateway._pkt_line import RefUpdate

log = structlog.get_logger(__name__)


class GatewayEnvironment(Protocol):
    """What the gateway needs to know of an environment."""

    @property
    def id(self) -> UUID: ...
    @property
    def owner_id(self) -> UUID: ...
    @property
    def repository_url(self) -> str | None: ...


class PushOutcome(StrEnum):
    REFUSED = "refused"
    """By the policy; the upstream saw nothing."""
    DELIVERED = "delivered"
    """The upstream took the request and answered; its report went to git."""
    FAILED = "failed"
    """The upstream refused the request, or the transfer was cut: refs may have moved."""


@dataclass(frozen=True, slots=True)
class PushRefusal:
    """Why a push may not go on: a reason for each refused ref, in plain words, on one line."""

    reasons: Mapping[str, str]


class RefUpdatePolicy(Protocol):
    async def check(
        self, environment: GatewayEnvironment, updates: Sequence[RefUpdate]
    ) -> PushRefusal | None:
        """Return None to let the push go on, or why it is refused, as a whole."""
        ...

    async def recorded(
        self,
        environment: GatewayEnvironment,
        updates: Sequence[RefUpdate],
        outcome: PushOutcome,
    ) -> None:
        """Take note of a push that ended; called once for each, also when it was cut."""
        ...


class BranchesOnly:
    """Branches may be created and updated; deletions and refs of other kinds are refused."""

    async def check(
        self, environment: GatewayEnvironment, updates: Sequence[RefUpdate]
    ) -> PushRefusal | None:
        """Refuse the push when any ref is deleted or is not a branch."""
        reasons: dict[str, str] = {}
        for update in updates:
            if not update.ref.startswith("refs/heads/"):
                reasons[update.ref] = "only branches can be pushed from here"
            elif update.deletes:
                reasons[update.ref] = "branches cannot be deleted from here"
        return PushRefusal(reasons) if reasons else None

    async def recorded(
        self,
        environment: GatewayEnvironment,
        updates: Sequence[RefUpdate],
        outcome: PushOutcome,
    ) -> None:
        """Write the push to the log."""
        log.info(
            "git push",
            environment=str(environment.id),
            outcome=outcome.value,
            refs=[f"{update.ref} {update.old} {update.new}" for update in updates[:20]],
            count=len(updates),
        )
