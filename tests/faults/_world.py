"""What the nemesis and the clients of a soak share: two servers over one database."""

import json
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import anyio

from craftastic.runtimes.base import RunResult, SandboxRef, SandboxSummary
from tests.conftest import PostgresServer
from tests.e2e.harness import Server, Viewer, until
from tests.faults._facts import runtime_of
from tests.faults._journal import Journal

EMAIL = "soak@example.com"
REST_S = 900.0
"""Longer than any client waits for an answer."""

TMUX = ("tmux", "-S", "/run/craftastic/tmux.sock")

PRODUCER = """
import itertools, sys, threading, time
lock = threading.Lock()
def say(line):
    with lock:
        print(line, flush=True)
def listen():
    for line in sys.stdin:
        say("t" + line.strip())
threading.Thread(target=listen, daemon=True).start()
for number in itertools.count(1):
    say(f"n{number} {sys.argv[1]}")
    time.sleep(0.1)
"""
"""Prints numbered lines, and every line that it is given once."""


@dataclass
class Counted:
    """A session with a producer in it, and the one terminal that looks at it.

    Attributes:
        run: The name of the producer that was started last.
        seen: Whether it was seen to go on: what is typed to a server that dies is lost.
        ends: How often the environment had been ended by then.
        typed: Every line that was given to that producer.
        echoed: Those of them that the terminal then showed.
    """

    environment_id: str
    session: dict[str, Any]
    viewer: Viewer
    run: str = ""
    seen: bool = False
    ends: int = 0
    typed: set[str] = field(default_factory=set[str])
    echoed: set[str] = field(default_factory=set[str])
    attached: bool = False

    def latest(self) -> tuple[str, int]:
        """Return the producer that is on the terminal and its last number; 0 without one."""
        found = re.findall(r"^n(\d+) (\w+)$", self.viewer.lately, re.MULTILINE)
        return (found[-1][1], int(found[-1][0])) if found else (self.run, 0)

    def goes_on(self, run: str) -> None:
        """Note a producer that goes on; it may be one whose start was given up too early."""
        if run != self.run:
            self.run, self.typed, self.echoed = run, set(), set()
        self.seen = True

    async def start(self, ends: int) -> None:
        """Type what starts a new producer."""
        self.run, self.seen, self.ends = secrets.token_hex(3), False, ends
        self.typed, self.echoed = set(), set()
        await self.viewer.type(f"\rstty -echo; clear; python3 ~/producer.py {self.run}\r")


@dataclass
class World:
    """Everything that a soak has; deeds wait while it is looked at.

    Attributes:
        ends: How often each environment's programs were ended by somebody who may.
        cut_short: How many servers that were told to end did so by their limit.
        doubtful: Environments whose stop was not answered: it may come yet.
        half_s: When the nemesis turns from one server to the other.
        out: Takes what becomes a line of the record.
    """

    servers: list[Server]
    postgres: PostgresServer
    journals: list[Journal]
    dice: random.Random
    out: Callable[[dict[str, Any]], None]
    environments: list[str] = field(default_factory=list[str])
    counted: list[Counted] = field(default_factory=list[Counted])
    ends: Counter[str] = field(default_factory=Counter[str])
    doubtful: set[str] = field(default_factory=set[str])
    violations: list[str] = field(default_factory=list[str])
    reattached_s: list[float] = field(default_factory=list[float])
    drained_s: list[float] = field(default_factory=list[float])
    cut_short: int = 0
    refused_sockets: Counter[str] = field(default_factory=Counter[str])
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    half_s: float = 0.0
    rested_s: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _go: anyio.Event = field(default_factory=anyio.Event)
    _deeds: int = 0

    def violated(self, what: str) -> None:
        """Note what must not be."""
        self.violations.append(what)
        self.out({"violation": what})

    @property
    def elapsed_s(self) -> float:
        """Return the seconds of work so far, without those of rest."""
        return time.monotonic() - self._began - self.rested_s

    async def reach(self, elapsed_s: float) -> None:
        """Wait until there were so many seconds of work."""
        await until(
            lambda: self.elapsed_s >= elapsed_s,
            "the time of work",
            timeout_s=24 * 3600,
            every_s=0.1,
        )

    @asynccontextmanager
    async def deed(self) -> AsyncGenerator[None]:
        """Do something that must not be under way while everything is looked at."""
        await self._go.wait()
        self._deeds += 1
        try:
            yield
        finally:
            self._deeds -= 1

    def begin(self) -> None:
        """Let deeds begin, and the time of work with them."""
        self._began = time.monotonic()
        self._go.set()

    @asynccontextmanager
    async def rest(self) -> AsyncGenerator[None]:
        """Wait until no deed is under way, and let none begin inside the block."""
        self._go = anyio.Event()
        await until(lambda: not self._deeds, "all deeds are done", timeout_s=REST_S)
        began = time.monotonic()
        try:
            yield
        finally:
            self.rested_s += time.monotonic() - began
            self._go.set()

    @asynccontextmanager
    async def ending(self, environment_id: str) -> AsyncGenerator[None]:
        """End an environment's programs inside the block; one that begins meanwhile may end too."""
        self.ends[environment_id] += 1
        try:
            yield
        finally:
            self.ends[environment_id] += 1

    def may_have_ended(self, counted: Counted) -> bool:
        """Tell whether somebody may have ended the session's producer."""
        one = counted.environment_id
        return not counted.seen or self.ends[one] != counted.ends or one in self.doubtful

    @property
    def journal(self) -> Journal:
        """Return the journal at one of the two servers."""
        return self.dice.choice(self.journals)

    def aim(self, viewer: Viewer) -> None:
        """Let a terminal's next connection be to one of the two servers."""
        viewer.url = self.dice.choice(self.servers).url
        viewer.token = self.journals[0].api.token

    async def sandbox(self, environment_id: str) -> SandboxSummary | None:
        """Return the environment's sandbox, as the runtime has it now."""
        runtime = runtime_of(self.servers[0])
        try:
            for one in await runtime.list():
                if one.environment_id == UUID(environment_id):
                    return one
        finally:
            await runtime.close()
        return None

    async def inside(self, environment_id: str, *argv: str) -> RunResult | None:
        """Run a command in the environment's sandbox; None while it has none."""
        found = await self.sandbox(environment_id)
        if found is None:
            return None
        runtime = runtime_of(self.servers[0])
        try:
            ref = SandboxRef(runtime.name, found.ref.id)
            return await runtime.run(ref, argv, max_output_bytes=32 << 20)
        finally:
            await runtime.close()


def as_line(record: dict[str, Any]) -> str:
    """Return one line of the record, with the time of day."""
    return json.dumps({"at": time.strftime("%H:%M:%S"), **record})
