"""Sandboxes call model APIs through the gateway: with their session's token, never with a key."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import anyio
import pytest
from anyio.abc import SocketStream

from craftastic.agent_runs.service import GatewayRun, Usage
from craftastic.errors import RateLimited, Unavailable
from tests.fakes.agent_gateway import WAIT_S, FakeRun, FakeRuns, agent_gateway, serving
from tests.fakes.gateway import ServedGateway, served
from tests.fakes.model_api import KEY, ModelApi
from tests.fakes.model_shapes import INPUT_TOKENS, OUTPUT_TOKENS
from tests.fakes.toy_upstream import Answer, ask

ONE = Usage(1, INPUT_TOKENS, OUTPUT_TOKENS)
JSON = "Content-Type: application/json\r\n"
MESSAGES, RESPONSES, CHAT = "/v1/messages", "/v1/responses", "/v1/chat/completions"
GEMINI = "/v1beta/models/stub-large:"


def anthropic(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def gemini(text: str) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}]}


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("anthropic", MESSAGES, anthropic("hello")),
    ("anthropic", f"{MESSAGES}?beta=true", anthropic("hello", stream=True)),
    ("openai", RESPONSES, {"input": "hello"}),
    ("openai", RESPONSES, {"input": "hello", "stream": True}),
    ("openai", CHAT, anthropic("hello")),
    ("openai", CHAT, anthropic("hello", stream=True, stream_options={"include_usage": True})),
    ("openai-compatible", CHAT, anthropic("hello")),
    ("gemini", f"{GEMINI}generateContent", gemini("hello")),
    ("gemini", f"{GEMINI}streamGenerateContent?alt=sse", gemini("hello")),
]


@pytest.fixture
def runs() -> FakeRuns:
    return FakeRuns()


@pytest.fixture
def api() -> Iterator[ModelApi]:
    with ModelApi() as api:
        yield api


@pytest.fixture
async def gateway(runs: FakeRuns) -> AsyncIterator[ServedGateway]:
    async with serving(runs) as gateway:
        yield gateway


async def call(
    gateway: ServedGateway,
    run: FakeRun,
    target: str,
    body: object = None,
    *,
    token: str | None = None,
    headers: str = "",
    method: str = "",
) -> Answer:
    """Call a path of a session's model API with its own token, and read the whole answer."""
    return await ask(
        gateway,
        run.model(target),
        method=method or ("GET" if body is None else "POST"),
        token=run.token if token is None else token,
        headers=headers + ("" if body is None else JSON),
        body=b"" if body is None else json.dumps(body).encode(),
    )


def message_of(answer: Answer) -> str:
    return json.loads(answer.body)["error"]["message"]


# ---- what passes ----------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "target", "body"), CALLS)
async def test_call_reaches_its_provider_with_the_key_and_without_the_token(
    gateway: ServedGateway,
    runs: FakeRuns,
    api: ModelApi,
    provider: str,
    target: str,
    body: dict[str, Any],
) -> None:
    run = runs.add(provider, api.url)

    answer = await call(gateway, run, target, body)

    (asked,) = api.calls
    text = b"".join(answer.body.split(b"stub says: ")[1:])
    assert (answer.status, answer.complete) == (200, True)
    assert b"hello" in text
    assert ("event-stream" in answer.headers) == (b"data: " in answer.body)
    assert asked.status == 200
    assert asked.target == target
    assert asked.body == body
    assert run.token not in asked.everything
    assert KEY in str(asked.headers)
    assert KEY.encode() not in answer.body
    assert runs.usages == [(run.id, ONE)]


@pytest.mark.parametrize(
    ("provider", "target"),
    [
        ("anthropic", "/v1/models?limit=5"),
        ("anthropic", "/v1/models/stub-large"),
        ("openai", "/v1/models"),
        ("gemini", "/v1beta/models?pageSize=5"),
    ],
)
async def test_lists_of_models_pass_and_cost_nothing(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi, provider: str, target: str
) -> None:
    answer = await call(gateway, runs.add(provider, api.url), target)

    assert answer.status == 200
    assert b"stub-large" in answer.body
    assert [one.target for one in api.calls] == [target]
    assert runs.usages == []


async def test_counting_tokens_passes_and_costs_nothing(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run = runs.add("anthropic", api.url)

    answer = await call(gateway, run, f"{MESSAGES}/count_tokens", anthropic("hello"))

    assert json.loads(answer.body) == {"input_tokens": 11}
    assert runs.usages == []


@pytest.mark.parametrize(
    ("provider", "place"),
    [
        ("anthropic", "x-api-key: {}\r\n"),
        ("anthropic", "Authorization: Bearer {}\r\n"),
        ("gemini", "x-goog-api-key: {}\r\n"),
        ("gemini", "?key={}"),
    ],
)
async def test_token_is_taken_from_where_the_clients_put_their_key(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi, provider: str, place: str
) -> None:
    run = runs.add(provider, api.url)
    target = f"{GEMINI}generateContent" if provider == "gemini" else MESSAGES
    given = place.format(run.token)
    in_query = given if given.startswith("?") else ""

    answer = await ask(
        gateway,
        run.model(target + in_query),
        method="POST",
        token=None,
        headers=JSON + ("" if in_query else given),
        body=json.dumps(gemini("x") if provider == "gemini" else anthropic("x")).encode(),
    )

    assert answer.status == 200
    assert api.calls[0].target == target
    assert run.token not in api.calls[0].everything


@pytest.mark.parametrize("scheme", ["x-api-key", "bearer"])
async def test_key_goes_upstream_the_way_its_kind_wants(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi, scheme: str
) -> None:
    run = runs.add("anthropic", api.url, scheme=scheme)

    await call(gateway, run, MESSAGES, anthropic("hello"), headers=f"x-api-key: {run.token}\r\n")

    headers = api.calls[0].headers
    assert headers.get("x-api-key") == (KEY if scheme == "x-api-key" else None)
    assert headers.get("authorization") == (f"Bearer {KEY}" if scheme == "bearer" else None)


async def test_address_of_another_vendor_keeps_its_path(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    with ModelApi(prefix="/api") as api:
        run = runs.add("openai-compatible", f"{api.url}/api/v1")
        answer = await call(gateway, run, CHAT, anthropic("hello"))

    assert (answer.status, api.calls[0].target) == (200, "/api/v1/chat/completions")


async def test_only_listed_headers_pass_in_either_direction(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run = runs.add("anthropic", api.url)
    passing = {
        "accept": "application/json",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "one-2025, two",
        "user-agent": "claude-cli/2.1 (external)",
        "content-type": "application/json",
    }
    dropped = (
        "Cookie: a=b\r\nProxy-Authorization: Basic x\r\nX-Forwarded-For: 1.2.3.4\r\n"
        "Forwarded: for=1.2.3.4\r\nVia: 1.1 x\r\nX-Stainless-OS: Linux\r\nTE: trailers\r\n"
        "x-goog-api-key: stolen\r\nOpenAI-Organization: other\r\nReferer: http://x\r\n"
        "Accept-Encoding: gzip, br\r\nX-Real-IP: 1.2.3.4\r\nUpgrade: h2c\r\n"
    )
    given = "".join(f"{k}: {v}\r\n" for k, v in passing.items() if k != "content-type")

    answer = await call(gateway, run, MESSAGES, anthropic("hello"), headers=given + dropped)

    sent = api.calls[0].headers
    own = {"host": f"127.0.0.1:{api.port}", "accept-encoding": "identity", "x-api-key": KEY}
    size = {"content-length": str(len(json.dumps(anthropic("hello"))))}
    assert sent == passing | own | size
    names = {line.partition(":")[0] for line in answer.headers.splitlines()[1:] if line}
    assert {"request-id", "anthropic-ratelimit-requests-remaining", "content-type"} <= names
    assert not names & {"set-cookie", "server", "date-upstream"}


async def test_tool_call_and_its_answer_pass(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run = runs.add("anthropic", api.url)
    tool = {"name": "Bash", "input_schema": {"properties": {"command": {"type": "string"}}}}
    body = anthropic("RUNTOOL echo hi", tools=[tool])

    first = json.loads((await call(gateway, run, MESSAGES, body)).body)
    result = {"type": "tool_result", "tool_use_id": first["content"][0]["id"], "content": "hi"}
    body["messages"] += [
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    second = json.loads((await call(gateway, run, MESSAGES, body)).body)

    assert first["content"][0]["input"] == {"command": "echo hi"}
    assert second["content"][0]["text"] == "stub says: the tool said hi"
    assert runs.used_by(run) == ONE + ONE


async def test_parts_of_a_stream_are_seen_as_they_come(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run = runs.add("anthropic", api.url)
    body = json.dumps(anthropic("SLOW 3", stream=True)).encode()
    head = (
        f"POST {run.model(MESSAGES)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{JSON}"
        f"x-api-key: {run.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    with anyio.fail_after(WAIT_S):
        async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
            await stream.send(head.encode() + body)
            seen = await until(stream, b"message_start", b"")
            assert b"part 1" not in seen
            for number in (1, 2, 3):
                assert not api.calls[0].finished.is_set()
                api.go()
                seen = await until(stream, b"part %d" % number, seen)
            seen = await until(stream, b"\r\n0\r\n\r\n", seen)

    assert b"message_stop" in seen
    assert runs.usages == [(run.id, ONE)]


async def until(stream: SocketStream, text: bytes, seen: bytes) -> bytes:
    while text not in seen:
        seen += await stream.receive()
    return seen


async def test_usage_is_known_before_the_caller_sees_the_end(api: ModelApi) -> None:
    class Slow(FakeRuns):
        counting, counted = anyio.Event(), anyio.Event()

        async def used(self, run: GatewayRun, usage: Usage) -> None:
            self.counting.set()
            await self.counted.wait()

    slow, ended = Slow(), anyio.Event()
    run = slow.add("anthropic", api.url)

    async def one() -> None:
        await call(gateway, run, MESSAGES, anthropic("hello"))
        ended.set()

    async with serving(slow) as gateway, anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        with anyio.fail_after(WAIT_S):
            await slow.counting.wait()
        with anyio.move_on_after(0.3):  # in vain
            await ended.wait()
        assert not ended.is_set()
        slow.counted.set()


async def test_usage_that_a_stream_hides_is_estimated(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run = runs.add("openai", api.url)
    body = anthropic("SLOW 50", stream=True)
    api.go(50)

    await call(gateway, run, CHAT, body)

    used = runs.used_by(run)
    assert used.requests == 1
    assert used.input_tokens == len(json.dumps(body)) // 4
    assert used.output_tokens >= 50


async def test_usage_that_cannot_be_recorded_does_not_break_the_answer(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    class Down(FakeRuns):
        async def used(self, run: GatewayRun, usage: Usage) -> None:
            raise Unavailable("The database does not answer; try again.")

    down = Down()
    run = down.add("anthropic", api.url)
    async with serving(down) as served_so:
        answer = await call(served_so, run, MESSAGES, anthropic("hello"))

    assert (answer.status, answer.complete) == (200, True)


@pytest.mark.parametrize("target", ["", "/"])
async def test_probe_of_the_address_is_answered(
    gateway: ServedGateway, runs: FakeRuns, target: str
) -> None:
    answer = await ask(gateway, runs.add().model(target), method="HEAD", token=None)

    assert (answer.status, answer.body) == (200, b"")


# ---- who is refused -------------------------------------------------------------------------


async def test_nobody_calls_without_the_sessions_own_token(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run, other, over = (runs.add("anthropic", api.url) for _ in range(3))
    runs.end(over)
    absent = FakeRun(runs.add().run, "x", None)
    runs.end(absent)

    async def status(one: FakeRun, token: str | None) -> int:
        answer = await ask(
            gateway,
            one.model(MESSAGES),
            method="POST",
            token=token,
            headers=JSON,
            body=json.dumps(anthropic("hello")).encode(),
        )
        body = json.loads(answer.body)
        assert body["type"] == "error"
        assert body["error"]["message"]
        return answer.status

    assert await status(run, None) == 401
    assert await status(run, "wrong") == 403
    assert await status(run, KEY) == 403
    assert await status(run, other.token) == 403
    assert await status(over, over.token) == 403
    assert await status(absent, run.token) == 403
    assert api.calls == []


@pytest.mark.parametrize(
    ("provider", "target"),
    [
        ("anthropic", RESPONSES),
        ("anthropic", f"{GEMINI}generateContent"),
        ("openai", MESSAGES),
        ("gemini", CHAT),
        (None, MESSAGES),
    ],
)
async def test_path_of_another_provider_is_refused_in_the_form_that_the_caller_knows(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi, provider: str | None, target: str
) -> None:
    answer = await call(gateway, runs.add(provider, api.url), target, anthropic("hello"))

    assert answer.status == 404
    assert message_of(answer)
    assert api.calls == []


NOT_SERVED = [
    ("POST", "/agent/{ID}/model/v1/messages"),
    ("POST", "/agent/{hex}/model/v1/messages"),
    ("POST", "/agent/%7B{id}%7D/model/v1/messages"),
    ("POST", "//agent/{id}/model/v1/messages"),
    ("POST", "/x/../agent/{id}/model/v1/messages"),
    ("POST", "/agent/{other}/../{id}/model/v1/messages"),
    ("POST", "/agent/{id}/model//v1/messages"),
    ("POST", "/agent/{id}/model/v1/messages/"),
    ("POST", "/agent/{id}/model/v1/%6dessages"),
    ("POST", "/agent/{id}/model/v1%2Fmessages"),
    ("POST", "/agent/{id}/model%2Fv1/messages"),
    ("POST", "/agent/{id}/model/v1/messages%00"),
    ("POST", "/agent/{id}/model/v1/messages%3Fbeta=true"),
    ("POST", "/agent/{id}/model/v1/messages;x"),
    ("POST", "/agent/{id}/model/v1/x/../messages"),
    ("POST", "/agent/{id}/model/v1/x/%2e%2e/messages"),
    ("POST", "/agent/{id}/model/http://127.0.0.1/v1/messages"),
    ("POST", "/agent/{id}/model/@127.0.0.1/v1/messages"),
    ("POST", "/agent/{id}/models/v1/messages"),
    ("POST", "/agent/{id}/model/v1/messages?x=y"),
    ("POST", "/agent/{id}/model/v1/messages?beta=true&beta=true"),
    ("POST", "/agent/{id}/model/v1/messages?beta=%74rue"),
    ("POST", "/agent/{id}/model/v1/files"),
    ("POST", "/agent/{id}/model/v1/messages/batches"),
    ("GET", "/agent/{id}/model/v1/messages"),
    ("PUT", "/agent/{id}/model/v1/messages"),
    ("DELETE", "/agent/{id}/model/v1/models/x"),
    ("OPTIONS", "/agent/{id}/model/v1/messages"),
    ("HEAD", "/agent/{id}/model/v1/models"),
    ("GET", "/agent/{id}/model"),
    ("GET", "/agent/{id}/model/"),
    ("GET", "/agent/{id}"),
    ("GET", "/agent/{id}/"),
    ("GET", "/agent"),
    ("GET", "/agent/"),
    ("HEAD", "/agent/{id}"),
]


async def test_nothing_but_the_calls_is_served_and_no_provider_is_asked(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run, other = runs.add("anthropic", api.url), runs.add("anthropic", api.url)
    statuses: dict[tuple[str, str], int] = {}
    for method, target in NOT_SERVED:
        answer = await ask(
            gateway,
            target.format(id=run.id, ID=str(run.id).upper(), hex=run.id.hex, other=other.id),
            method=method,
            token=run.token,
            headers=JSON,
            body=b"{}" if method == "POST" else b"",
        )
        statuses[method, target] = answer.status

    assert {row: status for row, status in statuses.items() if status not in {403, 404}} == {}
    assert api.calls == []


async def test_without_agent_sessions_nothing_is_served_below_agent() -> None:
    async with served(agent_gateway(None)) as gateway:
        for rest in ("model/v1/messages", "events", "model"):
            answer = await ask(gateway, f"/agent/{uuid4()}/{rest}", method="POST")
            assert (answer.status, answer.body) == (404, b"Nothing is here.\n")


async def test_http_1_0_is_refused_since_a_cut_answer_would_look_whole(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run = runs.add("anthropic", api.url)

    answer = await ask(gateway, run.model("/v1/models"), token=run.token, version="1.0")

    assert (answer.status, api.calls) == (403, [])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("", 415),
        ("Content-Type: multipart/form-data; boundary=x\r\n", 415),
        ("Content-Type: text/plain\r\n", 415),
        (f"{JSON}Content-Encoding: br\r\n", 415),
        ("Content-Type: application/json; charset=utf-8\r\n", 200),
    ],
)
async def test_only_json_passes(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi, headers: str, status: int
) -> None:
    run = runs.add("anthropic", api.url)

    answer = await ask(
        gateway,
        run.model(MESSAGES),
        method="POST",
        token=run.token,
        headers=headers,
        body=json.dumps(anthropic("hello")).encode(),
    )

    assert answer.status == status
    assert len(api.calls) == (1 if status == 200 else 0)


# ---- limits of the owner --------------------------------------------------------------------


async def test_call_waits_while_the_owner_is_asked_about_the_limit(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run, runs.gate = runs.add("anthropic", api.url), anyio.Event()
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await call(gateway, run, MESSAGES, anthropic("hello")))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        with anyio.fail_after(WAIT_S):
            await runs.admitted.wait()
        assert (api.calls, answers) == ([], [])
        runs.gate.set()

    assert [answer.status for answer in answers] == [200]


async def test_call_over_the_limit_is_told_so_and_when_to_come_back(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run = runs.add("anthropic", api.url)
    runs.refusal = RateLimited("This session has used its tokens.", retry_after_s=30)

    answer = await call(gateway, run, MESSAGES, anthropic("hello"))

    assert answer.status == 429
    assert "retry-after: 30" in answer.headers
    assert "x-should-retry" not in answer.headers
    assert json.loads(answer.body)["error"] == {
        "type": "rate_limit_error",
        "message": "This session has used its tokens.",
    }
    assert (api.calls, runs.usages) == ([], [])


async def test_domain_that_is_down_is_503_and_says_so(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run = runs.add("openai", api.url)
    runs.broken = Unavailable("The database does not answer; try again.")

    answer = await call(gateway, run, RESPONSES, {"input": "x"})

    assert (answer.status, message_of(answer)) == (503, runs.broken.message)


@pytest.mark.parametrize(("scheme", "key"), [("bearer", "a b"), ("bearer", ""), ("basic", "k")])
async def test_key_that_cannot_be_sent_is_explained(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi, scheme: str, key: str
) -> None:
    run = runs.add("openai", api.url, scheme=scheme, key=key)

    answer = await call(gateway, run, RESPONSES, {"input": "x"})

    assert answer.status == 403
    assert "key cannot be sent" in message_of(answer)
    assert api.calls == []


# ---- what providers refuse ------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["anthropic", "openai", "gemini"])
async def test_refused_key_is_told_to_the_owner_and_explained_in_the_session(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi, provider: str
) -> None:
    run = runs.add(provider, api.url, key="sk-revoked-key-000000")
    target, body = {
        "anthropic": (MESSAGES, anthropic("x")),
        "openai": (RESPONSES, {"input": "x"}),
        "gemini": (f"{GEMINI}generateContent", gemini("x")),
    }[provider]

    answer = await call(gateway, run, target, body)

    assert answer.status == 401
    assert message_of(answer) == (
        "127.0.0.1 did not take this agent's API key (401): it is wrong, or was revoked. Put a "
        "working key into this agent in Craftastic, then send the prompt again."
    )
    assert runs.rejections == [(run.id, 401)]
    assert "x-should-retry: false" in answer.headers  # else clients try for minutes
    assert b"sk-revoked" not in answer.body
    assert len(api.calls) == 1


@pytest.mark.parametrize(("status", "waits"), [(400, False), (429, True), (529, True)])
async def test_other_errors_of_the_provider_pass_as_they_are(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi, status: int, waits: bool
) -> None:
    run = runs.add("anthropic", api.url)

    answer = await call(gateway, run, MESSAGES, anthropic(f"FAIL {status}", stream=True))

    assert answer.status == status
    assert message_of(answer) == f"stub fails with {status}"
    assert ("retry-after: 1" in answer.headers) == waits
    assert runs.rejections == []
    assert runs.usages == [(run.id, Usage(1))]
    assert len(api.calls) == 1


async def test_refusal_of_rights_is_told_too(
    gateway: ServedGateway, runs: FakeRuns, api: ModelApi
) -> None:
    run = runs.add("anthropic", api.url)

    answer = await call(gateway, run, MESSAGES, anthropic("FAIL 403"))

    assert answer.status == 403
    assert "may lack a right" in message_of(answer)
    assert runs.rejections == [(run.id, 403)]
