"""One push on its way: what the upstream says of it, and the one note that is taken of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import structlog

from craftastic.errors import CraftasticError
from craftastic.gateway._pkt_line import PushHead
from craftastic.gateway._report_status import ReportReader
from craftastic.pushes.service import (
    GatewayEnvironment,
    PushOutcome,
    PushRefusal,
    RefResult,
    RefUpdate,
)

RECORD_TIMEOUT_S = 15.0
CUT = "the transfer was cut; whether the upstream took it is not known"
TOGETHER = "refused together with the others"

_PUSH_ID = re.compile(rb"[0-9a-f]{32}")

log = structlog.get_logger(__name__)


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
        results: Mapping[str, RefResult],
        push_id: str | None = None,
    ) -> None:
        """Take note of a push that ended; called once for each, also when it was cut."""
        ...


def push_id_of(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the id that whoever started the push finds it by; None when there is none."""
    value = headers.get(b"x-craftastic-push", b"")
    return value.decode() if _PUSH_ID.fullmatch(value) else None


@dataclass(slots=True)
class Push:
    """A push whose head was read.

    Attributes:
        report: Is fed with the upstream's answer.
        failure: Why it did not get through, once that is known.
    """

    policy: RefUpdatePolicy
    environment: GatewayEnvironment
    head: PushHead
    push_id: str | None
    report: ReportReader = field(init=False)
    failure: str | None = CUT
    _noted: bool = False

    def __post_init__(self) -> None:
        refs = {update.ref for update in self.head.updates}
        self.report = ReportReader(refs, self.head.capabilities)

    async def refused(self, refusal: PushRefusal) -> list[tuple[str, str]]:
        """Take note of a push that the policy refused; return the reason for each ref."""
        reasons = [
            (update.ref, refusal.reasons.get(update.ref, TOGETHER)) for update in self.head.updates
        ]
        await self._note({ref: RefResult(PushOutcome.REFUSED, why) for ref, why in reasons})
        return reasons

    async def ended(self) -> None:
        """Take note of how the push ended, unless that was done already.

        A cancellation takes effect afterwards. What cannot be noted is in the log at least: the
        upstream has the push, whatever happens here.
        """
        await self._note(self.report.results(self.failure))

    async def _note(self, results: Mapping[str, RefResult]) -> None:
        if self._noted:
            return
        self._noted = True
        try:
            with anyio.fail_after(RECORD_TIMEOUT_S, shield=True):
                await self.policy.recorded(
                    self.environment, self.head.updates, results, self.push_id
                )
        except (CraftasticError, TimeoutError) as error:
            log.exception(
                "a push could not be recorded",
                environment=str(self.environment.id),
                reason=str(error) or "it took too long",
                count=len(self.head.updates),
                refs=[
                    f"{update.ref} {update.old} {update.new} {results[update.ref].outcome.value}"
                    for update in self.head.updates[:20]
                ],
            )
