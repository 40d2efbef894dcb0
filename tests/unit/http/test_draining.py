"""What the edge of a server that ends says and does."""

import json
from typing import Any

import anyio

from craftastic.http.connection import ABORT
from craftastic.http.draining import Draining

Message = dict[str, Any]


class Exchange:
    """One request and what was answered."""

    def __init__(self, path: str = "/api/environments", kind: str = "http") -> None:
        self.sent: list[Message] = []
        self.aborted = False
        self.scope: Message = {"type": kind, "path": path, "method": "GET", "headers": []}
        self.scope[ABORT] = self.abort

    def abort(self) -> None:
        self.aborted = True

    async def run(self, edge: Draining) -> None:
        async def receive() -> Message:
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Any) -> None:
            self.sent.append(message)

        await edge(self.scope, receive, send)

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}


class Inner:
    """An application that answers when it is let."""

    def __init__(self) -> None:
        self.go_on = anyio.Event()
        self.begun = anyio.Event()
        self.first_words = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.first_words:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        self.begun.set()
        await self.go_on.wait()
        if not self.first_words:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


async def test_what_is_under_way_ends_while_nothing_new_begins() -> None:
    inner = Inner()
    edge = Draining(inner)
    old, new, probe = Exchange(), Exchange(), Exchange("/healthz")

    async with anyio.create_task_group() as group:
        group.start_soon(old.run, edge)
        await inner.begun.wait()
        edge.begin()
        await new.run(edge)
        assert edge.under_way == 1
        inner.go_on.set()
    await probe.run(edge)

    assert edge.under_way == 0
    assert [one["status"] for one in (old.sent[0], new.sent[0], probe.sent[0])] == [200, 503, 200]
    assert json.loads(new.sent[1]["body"])["code"] == "SHUTTING_DOWN"
    assert int(new.headers["retry-after"]) >= 1
    assert new.headers["connection"] == "close"
    assert new.headers["x-content-type-options"] == "nosniff"
    assert new.headers["x-request-id"] == json.loads(new.sent[1]["body"])["requestId"]


async def test_who_has_no_answer_when_the_time_is_over_gets_one() -> None:
    inner = Inner()
    edge = Draining(inner)
    one = Exchange()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(one.run, edge)
            await inner.begun.wait()
            edge.begin()
            edge.cut()

    assert one.sent[0]["status"] == 503
    assert "goes on when it is back" in json.loads(one.sent[1]["body"])["error"]
    assert not one.aborted


async def test_an_answer_that_has_begun_is_cut_so_that_nobody_takes_it_for_whole() -> None:
    inner = Inner()
    inner.first_words = True
    edge = Draining(inner)
    one = Exchange()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(one.run, edge)
            await inner.begun.wait()
            edge.cut()

    assert [message["type"] for message in one.sent] == ["http.response.start"]
    assert one.aborted


async def test_a_terminal_that_comes_late_is_answered_in_http_where_that_is_possible() -> None:
    edge = Draining(Inner())
    edge.begin()
    denied, closed = Exchange(kind="websocket"), Exchange(kind="websocket")
    denied.scope["extensions"] = {"websocket.http.response": {}}

    await denied.run(edge)
    await closed.run(edge)

    assert denied.sent[0]["type"] == "websocket.http.response.start"
    assert denied.sent[0]["status"] == 503
    assert denied.headers["retry-after"]
    assert closed.sent == [{"type": "websocket.close", "code": 1012, "reason": "Server restarting"}]
