"""Requests all the time and a terminal that is watched, while something is wrong."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from tests.e2e.harness import Api, Server, Viewer, until
from tests.faults._journal import Journal

ECHO_S = 8.0
"""More than a busy machine needs for a command that does nothing, less than any fault lasts."""


@dataclass
class Asked:
    """What many requests of one kind were answered during a fault."""

    statuses: set[int] = field(default_factory=set[int])
    codes: set[str] = field(default_factory=set[str])
    without_way_on: list[str] = field(default_factory=list[str])
    slowest_s: float = 0.0
    asked: int = 0
    unanswered: int = 0

    def take(self, answer: httpx.Response) -> None:
        self.asked += 1
        self.statuses.add(answer.status_code)
        self.slowest_s = max(self.slowest_s, answer.elapsed.total_seconds())
        if answer.status_code >= 300:
            self.codes.add(answer.json()["code"])
            if "retry-after" not in answer.headers:
                self.without_way_on.append(answer.text)


@dataclass
class Load:
    """One user with an environment, a terminal that is watched, and requests all the time."""

    journal: Journal
    environment: dict[str, Any]
    viewer: Viewer
    shell: str
    reads: Asked = field(default_factory=Asked)
    writes: Asked = field(default_factory=Asked)
    slowest_echo_s: float = 0.0

    @asynccontextmanager
    async def going_on(self) -> AsyncGenerator[None]:
        """Ask, write and type all the time inside of the block.

        Raises:
            AssertionError: The terminal ended, missed something, or is another one now.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self.read)
            group.start_soon(self.write, "one")
            group.start_soon(self.write, "another")
            group.start_soon(self.echo)
            await until(lambda: self.journal.acknowledged > 4, "the load has begun")
            yield
            group.cancel_scope.cancel()
        assert (await self.viewer.run("echo $$")).strip() == self.shell
        assert self.viewer.ended is None
        assert self.viewer.gaps == []

    async def taken_again(self) -> float:
        """Wait until writes are acknowledged, and return after how many seconds they were."""
        began, before = time.monotonic(), self.journal.acknowledged
        await until(lambda: self.journal.acknowledged > before + 2, "writes are taken again")
        return time.monotonic() - began

    async def status(self, path: str) -> int:
        return (await self.journal.api.client.get(path)).status_code

    async def take(self, answer: httpx.Response) -> None:
        await answer.aread()
        if answer.request.url.path.startswith("/api/sessions"):
            (self.reads if answer.request.method == "GET" else self.writes).take(answer)

    async def read(self) -> None:
        path = f"/api/sessions/environment/{self.environment['id']}"
        while True:
            try:
                await self.journal.api.client.get(path)
            except httpx.TransportError:
                self.reads.unanswered += 1
            await anyio.sleep(0.1)

    async def write(self, whose: str) -> None:
        """Make sessions and rename them; the journal has what was acknowledged."""
        number = 0
        while True:
            number += 1
            before = len(self.journal.refused)
            made = await self.journal.create(
                "/api/sessions", environmentId=self.environment["id"], name=f"{whose} {number}"
            )
            if made is not None:
                path = f"/api/sessions/{made['id']}"
                await self.journal.change(path, name=f"{whose} {number} renamed")
            if len(self.journal.refused) == before:
                await anyio.sleep(0.5)

    async def echo(self) -> None:
        while True:
            began = time.monotonic()
            await self.viewer.run("true", timeout_s=ECHO_S)
            self.slowest_echo_s = max(self.slowest_echo_s, time.monotonic() - began)
            await anyio.sleep(0.1)


@asynccontextmanager
async def load(server: Server) -> AsyncGenerator[Load]:
    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        journal = Journal(api)
        environment = await journal.create(
            "/api/environments", userId=api.user["id"], name="watched"
        )
        assert environment is not None
        session = await journal.create(
            "/api/sessions", environmentId=environment["id"], name="watched"
        )
        assert session is not None
        viewer = Viewer(server.url, session["id"], environment["id"], api.token)
        async with viewer.attached():
            shell = (await viewer.run("echo $$")).strip()
            work = Load(journal, environment, viewer, shell)
            api.client.event_hooks["response"].append(work.take)
            yield work
