"""How calls of model APIs end when a provider, a sandbox or an address is hostile or broken."""

import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest

from craftastic.agent_runs.service import Usage
from craftastic.gateway.model_proxy import ModelLimits
from craftastic.settings import Settings
from tests.fakes.agent_gateway import (
    WAIT_S,
    FakeRun,
    FakeRuns,
    agent_gateway_process,
    serving,
)
from tests.fakes.gateway import ServedGateway
from tests.fakes.model_api import KEY, ModelApi
from tests.fakes.model_shapes import INPUT_TOKENS, OUTPUT_TOKENS, Chat
from tests.fakes.model_shapes import Answer as Said
from tests.fakes.toy_upstream import (
    CHUNK,
    Answer,
    Canary,
    Connection,
    Toy,
    answering,
    ask,
    toy,
)

LIMITS = ModelLimits(
    request_bytes=1 << 20,
    answer_bytes=1 << 20,
    first_byte_s=0.5,
    idle_s=0.5,
    sandbox_s=0.5,
    total_s=3.0,
)
JSON = "Content-Type: application/json\r\n"
BODY = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()
OK_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
OK_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHAT = "/v1/chat/completions"
WHOLE = json.dumps(Chat().whole({}, Said(("hi",)))).encode()


@pytest.fixture
def runs() -> FakeRuns:
    return FakeRuns()


@pytest.fixture
async def gateway(runs: FakeRuns) -> AsyncIterator[ServedGateway]:
    async with serving(runs, limits=LIMITS) as gateway:
        yield gateway


async def call(gateway: ServedGateway, run: FakeRun, **more: Any) -> Answer:
    given: dict[str, Any] = {"headers": JSON, "body": BODY} | more
    return await ask(gateway, run.model(CHAT), method="POST", token=run.token, **given)


def at(upstream: Toy) -> str:
    return f"http://127.0.0.1:{upstream.port}"


def message_of(answer: Answer) -> str:
    return json.loads(answer.body)["error"]["message"]


def sized(head: bytes, body: bytes) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


# ---- providers ------------------------------------------------------------------------------

ERROR_PAGE = b"HTTP/1.1 500 No\r\nContent-Type: text/html\r\n"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (sized(b"HTTP/1.1 302 No\r\nLocation: http://127.0.0.1:{port}/\r\n", b""), 502),
        (sized(b"HTTP/1.1 307 No\r\nLocation: https://example.com/\r\n", b"secret"), 502),
        (sized(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n", b"secret"), 502),
        (sized(b"HTTP/1.1 200 OK\r\n", b"secret"), 502),
        (sized(b"HTTP/1.1 206 OK\r\nContent-Type: application/json\r\n", b"secret"), 502),
        (b"HTTP/1.1 204 No\r\n\r\n", 502),
        (sized(ERROR_PAGE, b"secret"), 500),
        (sized(ERROR_PAGE.replace(b"text/html", b"application/json"), b"x" * 70_000), 500),
        (sized(ERROR_PAGE.replace(b"500", b"418"), b"secret"), 418),
        (sized(b"HTTP/1.1 599 No\r\n", b"secret"), 599),
        (sized(OK_JSON + b"Content-Encoding: br\r\n", b"secret"), 502),
        (b"not http at all\r\n\r\n", 502),
        (b"", 502),
        (OK_JSON + b"X: " + b"x" * 200_000, 502),
    ],
)
async def test_failing_provider_is_explained_and_asked_once(
    gateway: ServedGateway, runs: FakeRuns, answer: bytes, status: int
) -> None:
    async with toy(answering(answer)) as upstream:
        got = await call(gateway, runs.add("openai", at(upstream)))

    assert got.status == status
    assert "application/json" in got.headers
    assert "127.0.0.1" in message_of(got) or "compressed" in message_of(got)
    assert b"secret" not in got.body
    assert len(upstream.heads) == 1


async def test_redirect_is_not_followed_and_the_key_does_not_go_along(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    canary = Canary()
    with canary.socket:
        to = f"http://127.0.0.1:{canary.port}/v1/chat/completions"
        head = f"HTTP/1.1 308 Moved\r\nLocation: {to}\r\n".encode()
        async with toy(answering(sized(head, b""))) as upstream:
            answer = await call(gateway, runs.add("openai", at(upstream)))

        assert answer.status == 502
        assert "redirects elsewhere" in message_of(answer)
        assert canary.connections() == 0


async def test_provider_that_is_not_there_is_explained_and_costs_nothing(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    answer = await call(gateway, runs.add("openai", f"http://127.0.0.1:{port}"))

    assert (answer.status, runs.usages) == (502, [])
    assert "does not take connections" in message_of(answer)


async def test_silent_provider_ends_within_the_deadline(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    async def silent(upstream: Toy, connection: Connection) -> None:
        await connection.until_closed()

    async with toy(silent) as upstream:
        answer = await call(gateway, runs.add("openai", at(upstream)))
        with anyio.fail_after(WAIT_S):
            await upstream.closed.wait()

    assert answer.status == 504
    assert message_of(answer) == "127.0.0.1 did not answer in time."


@pytest.mark.parametrize("head", [OK_JSON, OK_EVENTS])
async def test_provider_that_falls_silent_leaves_the_answer_unfinished(
    runs: FakeRuns, head: bytes
) -> None:
    patient = ModelLimits(idle_s=0.5)

    async def stops(upstream: Toy, connection: Connection) -> None:
        await connection.send(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\n{  \r\n")
        await connection.until_closed()

    async with toy(stops) as upstream, serving(runs, limits=patient) as gateway:
        run = runs.add("openai", at(upstream))
        answer = await call(gateway, run)
        with anyio.fail_after(WAIT_S):
            await upstream.closed.wait()

    assert (answer.status, answer.complete) == (200, False)
    assert runs.used_by(run).requests == 1


async def test_endless_answer_is_cut_at_the_limit(gateway: ServedGateway, runs: FakeRuns) -> None:
    async def endless(upstream: Toy, connection: Connection) -> None:
        await connection.send(OK_EVENTS + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"10000\r\n" + b"\n" * CHUNK + b"\r\n")

    async with toy(endless) as upstream:
        answer = await call(gateway, runs.add("openai", at(upstream)))
        with anyio.fail_after(WAIT_S):
            await upstream.closed.wait()

    assert (answer.status, answer.complete) == (200, False)
    assert len(answer.body) <= LIMITS.answer_bytes


async def test_answer_that_trickles_ends_with_the_whole_calls_deadline(runs: FakeRuns) -> None:
    async def trickles(upstream: Toy, connection: Connection) -> None:
        await connection.send(OK_EVENTS + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"3\r\n: x\r\n")
            await anyio.sleep(0.05)

    async with toy(trickles) as upstream, serving(runs, limits=replace(LIMITS, total_s=1)) as short:
        answer = await call(short, runs.add("openai", at(upstream)))
        with anyio.fail_after(WAIT_S):
            await upstream.closed.wait()

    assert (answer.status, answer.complete) == (200, False)


async def test_key_that_a_provider_repeats_does_not_reach_the_sandbox(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    body = json.dumps({"error": {"message": f"no such model for {KEY}"}}).encode()
    head = f"HTTP/1.1 400 No\r\nContent-Type: application/json\r\nrequest-id: {KEY}\r\n".encode()
    async with toy(answering(sized(head, body))) as upstream:
        answer = await call(gateway, runs.add("openai", at(upstream)))

    assert (answer.status, message_of(answer)) == (400, "no such model for [key]")
    assert KEY not in answer.headers


async def test_google_tells_of_a_wrong_key_with_400(gateway: ServedGateway, runs: FakeRuns) -> None:
    error = {"code": 400, "details": [{"reason": "API_KEY_INVALID"}], "message": KEY}
    head = b"HTTP/1.1 400 No\r\nContent-Type: application/json\r\n"
    async with toy(answering(sized(head, json.dumps({"error": error}).encode()))) as upstream:
        run = runs.add("gemini", at(upstream))
        answer = await ask(
            gateway,
            run.model("/v1beta/models/x:generateContent"),
            method="POST",
            token=run.token,
            headers=JSON,
            body=b"{}",
        )

    assert answer.status == 401
    assert "did not take this agent's API key" in message_of(answer)
    assert runs.rejections == [(run.id, 401)]


@pytest.mark.parametrize(
    ("encoding", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_answer_that_comes_compressed_unasked_is_unpacked_and_its_usage_read(
    gateway: ServedGateway, runs: FakeRuns, encoding: str, packed: Callable[[bytes], bytes]
) -> None:
    head = OK_JSON + f"Content-Encoding: {encoding}\r\n".encode()
    async with toy(answering(sized(head, packed(WHOLE)))) as upstream:
        run = runs.add("openai", at(upstream))
        answer = await call(gateway, run)

    assert (answer.complete, answer.body) == (True, WHOLE)
    assert "content-encoding" not in answer.headers
    assert runs.used_by(run) == Usage(1, INPUT_TOKENS, OUTPUT_TOKENS)
    assert "accept-encoding: identity" in upstream.heads[0].lower()


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(bytes(16 << 20)), gzip.compress(WHOLE)[:-9], b"no gzip at all"],
    ids=["a bomb", "cut short", "no gzip"],
)
async def test_damaged_or_swelling_answer_is_cut(
    gateway: ServedGateway, runs: FakeRuns, packed: bytes
) -> None:
    head = OK_JSON + b"Content-Encoding: gzip\r\n"
    async with toy(answering(sized(head, packed))) as upstream:
        answer = await call(gateway, runs.add("openai", at(upstream)))

    assert (answer.status, answer.complete) == (200, False)
    assert len(answer.body) <= LIMITS.answer_bytes


# ---- sandboxes ------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False])
async def test_request_over_the_limit_is_refused_and_never_completed_upstream(
    gateway: ServedGateway, runs: FakeRuns, announced: bool
) -> None:
    async def swallows(upstream: Toy, connection: Connection) -> None:
        while True:
            upstream.sent += len(await connection.reader.receive(CHUNK))

    body = bytes(LIMITS.request_bytes + 4 * CHUNK)
    async with toy(swallows) as upstream:
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        answer = await call(
            gateway,
            runs.add("openai", at(upstream)),
            headers=JSON + ("" if announced else "Transfer-Encoding: chunked\r\n"),
            body=body if announced else chunked,
        )

    assert answer.status == 413
    assert len(upstream.heads) == (0 if announced else 1)
    assert upstream.sent <= LIMITS.request_bytes + 4 * CHUNK


async def test_sandbox_that_stops_sending_is_cut(gateway: ServedGateway, runs: FakeRuns) -> None:
    async def listens(upstream: Toy, connection: Connection) -> None:
        await connection.until_closed()

    async with toy(listens) as upstream:
        answer = await call(
            gateway,
            runs.add("openai", at(upstream)),
            headers=f"{JSON}Transfer-Encoding: chunked\r\n",
            body=b"4\r\n00",
        )
        with anyio.fail_after(WAIT_S):
            await upstream.closed.wait()

    assert answer.status == 408
    assert runs.usages == []


async def test_provider_is_let_go_when_the_sandbox_goes_away_and_what_was_used_is_counted(
    runs: FakeRuns,
) -> None:
    patient = ModelLimits()
    with ModelApi() as api:
        run = runs.add("openai", api.url)
        body = json.dumps(
            {"stream": True, "messages": [{"role": "user", "content": "SLOW 9"}]}
        ).encode()
        head = (
            f"POST {run.model(CHAT)} HTTP/1.1\r\nHost: x\r\n{JSON}"
            f"Authorization: Bearer {run.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with serving(runs, limits=patient) as gateway:
            with anyio.fail_after(WAIT_S):
                async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
                    await stream.send(head.encode() + body)
                    api.go(2)
                    seen = b""
                    while b"part 2" not in seen:
                        seen += await stream.receive()
                while not runs.usages:  # noqa: ASYNC110 - the gateway tells nobody else
                    await anyio.sleep(0.01)
        while not api.calls[0].finished.is_set():
            api.go()
            await anyio.sleep(0.01)

    assert api.calls[0].broken
    used = runs.used_by(run)
    assert (used.requests, used.input_tokens) == (1, len(body) // 4)
    assert 2 <= used.output_tokens <= 4


async def test_sandbox_that_does_not_read_is_cut(runs: FakeRuns) -> None:
    async def endless(upstream: Toy, connection: Connection) -> None:
        await connection.send(OK_EVENTS + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"10000\r\n" + b"\n" * CHUNK + b"\r\n")

    large = replace(LIMITS, answer_bytes=1 << 30, total_s=WAIT_S)
    async with toy(endless) as upstream, serving(runs, limits=large) as gateway:
        run = runs.add("openai", at(upstream))
        head = (
            f"POST {run.model(CHAT)} HTTP/1.1\r\nHost: x\r\n{JSON}"
            f"Authorization: Bearer {run.token}\r\nContent-Length: {len(BODY)}\r\n\r\n"
        )
        with anyio.fail_after(WAIT_S):
            async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
                await stream.send(head.encode() + BODY)
                await upstream.closed.wait()

    assert runs.used_by(run).requests == 1


async def test_calls_of_one_session_wait_for_each_other_but_not_for_others(
    runs: FakeRuns,
) -> None:
    with ModelApi() as api:
        busy, other = runs.add("openai", api.url), runs.add("openai", api.url)
        slow = json.dumps({"stream": True, "messages": [{"role": "user", "content": "SLOW 1"}]})
        statuses: list[int] = []

        async def one() -> None:
            answer = await call(gateway, busy, body=slow.encode())
            statuses.append(answer.status)

        async with serving(runs) as gateway, anyio.create_task_group() as tasks:
            for _ in range(18):
                tasks.start_soon(one)
            with anyio.fail_after(WAIT_S):
                while len(api.calls) < 16:  # noqa: ASYNC110 - the stub lives in a thread
                    await anyio.sleep(0.01)
                assert (await call(gateway, other)).status == 200
            assert len(api.calls) == 17
            api.go(18)

    assert statuses == [200] * 18


# ---- addresses ------------------------------------------------------------------------------

CLOSED = Settings.model_validate({})


class Names:
    """Names of a test's own; every lookup is kept."""

    def __init__(self, **addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.addresses[host.partition(".")[0]]


@pytest.mark.parametrize(
    ("base_url", "text"),
    [
        ("http://127.0.0.1:{port}", "Plain http is not allowed"),
        ("https://127.0.0.1", "not at a public address"),
        ("https://[::1]", "not at a public address"),
        ("https://169.254.169.254/latest", "not at a public address"),
        ("https://inside.example.com", "not at a public address"),
        ("https://mixed.example.com", "not at a public address"),
        ("https://example.com:{port}", "is not allowed"),
        ("https://user:pass@example.com", "must not contain a user"),
        ("https://example.com/a/../b", "not allowed"),
        ("ftp://example.com", "not allowed"),
        ("https://127.1", "four decimal numbers"),
        ("nonsense", "The address of the model API must have the form"),
    ],
)
async def test_address_of_a_user_follows_the_rules_of_upstreams(
    runs: FakeRuns, base_url: str, text: str
) -> None:
    names = Names(inside=["10.0.0.1"], mixed=["93.184.216.34", "127.0.0.1"])
    canary = Canary()
    with canary.socket:
        run = runs.add("openai", base_url.format(port=canary.port))
        async with serving(runs, CLOSED, resolver=names) as gateway:
            answer = await call(gateway, run)

        assert canary.connections() == 0
    assert answer.status == 403
    assert text in message_of(answer)


async def test_address_of_the_operator_may_be_private_and_users_do_not_get_there_by_it(
    runs: FakeRuns,
) -> None:
    with ModelApi() as api:
        own = Settings.model_validate({"model_upstreams": f"openai={api.url}/v1,gemini={api.url}"})
        plain, named = runs.add("openai"), runs.add("openai", f"{api.url}/v1")
        async with serving(runs, own) as gateway:
            answers = [await call(gateway, plain), await call(gateway, named)]

    assert [answer.status for answer in answers] == [200, 403]
    assert [one.target for one in api.calls] == [CHAT]


async def test_vendors_address_is_asked_when_nothing_else_is_set(runs: FakeRuns) -> None:
    names = Names(api=["127.0.0.1"], generativelanguage=["127.0.0.1"])
    paths = {
        "anthropic": "/v1/models",
        "openai": "/v1/models",
        "gemini": "/v1beta/models",
        "openai-compatible": "/v1/models",
    }
    answers: dict[str, str] = {}
    async with serving(runs, CLOSED, resolver=names) as gateway:
        for provider, path in paths.items():
            run = runs.add(provider)
            answers[provider] = message_of(await ask(gateway, run.model(path), token=run.token))

    assert names.asked == [
        "api.anthropic.com",
        "api.openai.com",
        "generativelanguage.googleapis.com",
    ]
    assert "base URL" in answers["openai-compatible"]


# ---- memory ---------------------------------------------------------------------------------

EVENT = b'data: {"choices": [{"delta": {"content": "' + b"x" * 5000 + b'"}}]}\n\n'


def large_answers(size: int) -> Callable[[Toy, Connection], Awaitable[None]]:
    """Answer with this many bytes: as one JSON text, or as events where these are asked for."""

    async def behave(upstream: Toy, connection: Connection) -> None:
        events = b'"stream"' in await connection.reader.receive(CHUNK)
        await connection.send((OK_EVENTS if events else OK_JSON) + b"Connection: close\r\n\r\n")
        part = EVENT * 13 if events else b"y" * CHUNK
        if not events:
            await connection.send(b'{"choices": [{"text": "')
        for _ in range(size // len(part)):
            await connection.send(part)
        usage = b'"usage": {"prompt_tokens": 3, "completion_tokens": 4}}'
        end = b"data: {" + usage + b"\n\n" if events else b'"}], ' + usage
        await connection.send(end)

    return behave


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
async def test_answer_of_200_mb_costs_little_memory_and_its_usage_is_read(stream: bool) -> None:
    peaks: list[int] = []
    for size in (1 << 20, 200 << 20):
        async with toy(large_answers(size)) as upstream:
            with agent_gateway_process("openai", at(upstream)) as (port, run, token, peak):
                body = b'{"stream": true}' if stream else b"{}"
                head = (
                    f"POST /agent/{run}/model{CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    f"{JSON}Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                received = 0
                with anyio.fail_after(120):
                    async with await anyio.connect_tcp("127.0.0.1", port) as socket_:
                        await socket_.send(head.encode() + body)
                        try:
                            while True:
                                received += len(await socket_.receive())
                        except anyio.EndOfStream:
                            pass
                    most, output_tokens = await anyio.to_thread.run_sync(peak)
                peaks.append(most)
        assert received > size - 2 * CHUNK
        assert output_tokens == 4

    assert peaks[1] - peaks[0] <= 16 << 20, peaks
