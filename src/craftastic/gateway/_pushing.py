"""One push on its way: what the upstream says of it, and the one note that is taken of it."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

import anyio
import structlog

from craftastic.errors import CraftasticError
from craftastic.gateway._pkt_line import PushHead
from craftastic.gateway._report_status import ReportReader
from craftastic.gateway._transfer import Refusal
from craftastic.pushes.service import (
    GatewayEnvironment,
    PushIntent,
    PushOutcome,
    PushRefusal,
    RefResult,
)

ATTEMPT_TIMEOUT_S = 15.0
RECORD_TIMEOUT_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
LOGGED_AT_ONCE = 50
FAILURE_BYTES = 4096
"""Names and hashes of refs that were pushed in vain count as one failure for each so many."""

CUT = "the transfer was cut; whether the upstream took it is not known"
TOGETHER = "refused together with the others"

_PUSH_ID = re.compile(rb"[0-9a-f]{32}")

log = structlog.get_logger(__name__)


class RefUpdatePolicy(Protocol):
    async def check(
        self, environment: GatewayEnvironment, intent: PushIntent
    ) -> PushRefusal | None:
        """Return None to let the push go on, or why it is refused, as a whole."""
        ...

    async def refused(
        self, environment: GatewayEnvironment, intent: PushIntent, reasons: Mapping[str, str]
    ) -> None:
        """Take note of a push that was refused."""
        ...

    async def begun(self, environment: GatewayEnvironment, intent: PushIntent) -> None:
        """Take note of a push that is about to go on; when that fails, it does not."""
        ...

    async def ended(
        self,
        environment: GatewayEnvironment,
        intent: PushIntent,
        results: Mapping[str, RefResult],
    ) -> None:
        """Take note of how a push ended that was begun, also when it was cut."""
        ...

    async def of_interest(self, environment: GatewayEnvironment) -> Collection[str]:
        """Return the refs that `listed` should be told of, however many there are upstream."""
        ...

    async def listed(
        self, environment: GatewayEnvironment, push_id: str, refs: Mapping[str, str]
    ) -> None:
        """Take note of what an upstream listed before the push with this id."""
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
    intent: PushIntent = field(init=False)
    report: ReportReader = field(init=False)
    failure: str | None = CUT
    _noted: bool = False

    def __post_init__(self) -> None:
        self.intent = PushIntent(self.head.updates, self.head.options, self.push_id)
        refs = {update.ref for update in self.head.updates}
        self.report = ReportReader(refs, self.head.capabilities)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the upstream's answer."""
        self.report.feed(chunk)

    def unreadable(self, why: str) -> None:
        """Read no further."""
        self.report.unreadable(why)

    async def refused(self, refusal: PushRefusal) -> list[tuple[str, str]]:
        """Take note of a push that the policy refused; return the reason for each ref.

        Nothing came of it: what cannot be noted is in the log.
        """
        reasons = {
            update.ref: refusal.reasons.get(update.ref, TOGETHER) for update in self.head.updates
        }
        try:
            with anyio.fail_after(ATTEMPT_TIMEOUT_S, shield=True):
                await self.policy.refused(self.environment, self.intent, reasons)
        except (CraftasticError, TimeoutError) as error:
            self._lost("a refused push could not be recorded", error, self._lines()[:1])
        return list(reasons.items())

    async def begun(self) -> None:
        """Take note that the push is about to go on; a cancellation takes effect afterwards.

        Raises:
            CraftasticError: It could not be written, so the push must not go on.
            Refusal: It took too long; the same.
        """
        try:
            with anyio.fail_after(ATTEMPT_TIMEOUT_S, shield=True):
                await self.policy.begun(self.environment, self.intent)
        except TimeoutError as error:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "The push could not be recorded; try again."
            ) from error

    async def through(self) -> None:
        """Take note that the upstream's answer came to its end."""
        self.failure = None
        await self.ended()

    async def ended(self) -> None:
        """Take note of how the push ended, unless that was done already.

        A cancellation takes effect afterwards. The upstream has the push, whatever happens here:
        it is tried again for a minute, and what cannot be noted by then is in the log.
        """
        if self._noted:
            return
        self._noted = True
        results = self.report.results(self.failure)
        last: Exception | None = None
        with anyio.move_on_after(RECORD_TIMEOUT_S, shield=True):
            pause_s = FIRST_PAUSE_S
            while True:
                try:
                    with anyio.fail_after(ATTEMPT_TIMEOUT_S):
                        await self.policy.ended(self.environment, self.intent, results)
                except (CraftasticError, TimeoutError) as error:
                    last = error
                else:
                    return
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        self._lost("how a push ended could not be recorded", last, self._lines(results))

    def wasted(self) -> int:
        """Return for how many failures the push counts: none when the upstream took all of it."""
        results = self.report.results(self.failure)
        size = sum(
            len(one.ref.encode()) + len(one.old) + len(one.new)
            for one in self.head.updates
            if results[one.ref].outcome is not PushOutcome.OK
        )
        return -(-size // FAILURE_BYTES)

    def _lines(self, results: Mapping[str, RefResult] | None = None) -> list[str]:
        ends = results or {}
        return [
            f"{one.ref} {one.old} {one.new} {ends[one.ref].outcome.value if ends else 'refused'}"
            for one in self.head.updates
        ]

    def _lost(self, event: str, error: Exception | None, lines: list[str]) -> None:
        for start in range(0, len(lines), LOGGED_AT_ONCE):
            log.error(
                event,
                environment=str(self.environment.id),
                reason=str(error or "") or "it took too long",
                count=len(self.head.updates),
                refs=lines[start : start + LOGGED_AT_ONCE],
            )
