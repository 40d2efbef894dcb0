"""What an upstream lists before a push, read as it passes by.

Source: gitprotocol-http(5) "Smart Server Response", gitprotocol-pack(5) "Reference Discovery".
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field

import anyio
import structlog

from craftastic.errors import CraftasticError
from craftastic.gateway._pkt_line import MAX_REF_BYTES, MalformedPush, PktReader
from craftastic.gateway._pushing import RefUpdatePolicy
from craftastic.pushes.service import GatewayEnvironment

MAX_LIST_BYTES = 64 << 20
MAX_OTHER_BRANCHES = 2000
MAX_OTHER_BYTES = 128 << 10
KEEP_TIMEOUT_S = 15.0

_LINE = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) ([^\x00-\x20\x7f]+)")
_SERVICE = b"# service="

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RefListReader:
    """Takes the bytes of a list of refs, in any pieces; no input or output happens here.

    Nothing in the bytes makes it raise. It keeps the refs of interest, and of the other branches
    the first ones, up to a number and a size.

    Args:
        interest: Names of refs that are kept in any case.
    """

    interest: Collection[str]
    found: dict[str, str] = field(default_factory=dict[str, str])
    whole: bool = False
    """The list came to its end, and all of it made sense."""
    _packets: PktReader = field(default_factory=PktReader)
    _read: int = 0
    _others: int = 0
    _other_bytes: int = 0
    _announced: bool = False
    _ended: bool = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._ended:
            self.whole = self.whole and not chunk
            return
        self._read += len(chunk)
        if self._read > MAX_LIST_BYTES:
            self.stop()
            return
        self._packets.feed(chunk)
        try:
            while not self._ended and (packet := self._packets.next()) is not None:
                self._take(packet)
        except MalformedPush:
            self.stop()

    def stop(self) -> None:
        """Read no further; the list does not count as whole."""
        self._ended, self.whole = True, False
        self._packets = PktReader()

    def _take(self, packet: bytes) -> None:
        if packet.startswith(_SERVICE):
            self._announced = True
        elif not packet and self._announced:
            self._announced = False  # the flush that follows the service's name
        elif not packet:
            self._ended = True
            self.whole = not self._packets.pending
        else:
            self._take_line(packet.partition(b"\0")[0].removesuffix(b"\n"))

    def _take_line(self, line: bytes) -> None:
        match = _LINE.fullmatch(line)
        if match is None or len(match[2]) > MAX_REF_BYTES:
            return
        ref, value = match[2].decode(errors="replace"), match[1].decode()
        if ref in self.interest or self._has_room(match[2]):
            self.found[ref] = value

    def _has_room(self, name: bytes) -> bool:
        if not name.startswith(b"refs/heads/") or self._others >= MAX_OTHER_BRANCHES:
            return False
        self._others += 1
        self._other_bytes += len(name)
        return self._other_bytes <= MAX_OTHER_BYTES


@dataclass(slots=True)
class Listing:
    """A list of refs on its way to a push that somebody finds by its id."""

    policy: RefUpdatePolicy
    environment: GatewayEnvironment
    push_id: str
    interest: Collection[str]
    reader: RefListReader = field(init=False)

    def __post_init__(self) -> None:
        self.reader = RefListReader(self.interest)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the answer."""
        self.reader.feed(chunk)

    def unreadable(self, _why: str) -> None:
        """Read no further."""
        self.reader.stop()

    async def through(self) -> None:
        """Keep what was listed; the push goes on whether that works or not."""
        if not self.reader.whole:
            return
        try:
            with anyio.fail_after(KEEP_TIMEOUT_S):
                await self.policy.listed(self.environment, self.push_id, self.reader.found)
        except (CraftasticError, TimeoutError) as error:
            log.warning(
                "a list of refs could not be kept",
                environment=str(self.environment.id),
                reason=str(error) or "it took too long",
            )
