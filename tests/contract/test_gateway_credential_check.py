"""A key is tried against its provider's list of models, and the reasons are plain words."""

import json
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import anyio
import pytest

from craftastic.gateway.credential_check import (
    FIRST_BYTE_S,
    ModelCredentialCheck,
    build_credential_check,
)
from craftastic.settings import Settings
from tests.fakes.agent_gateway import OPEN, SCHEMES
from tests.fakes.model_api import KEY, ModelApi
from tests.fakes.toy_upstream import Canary, Connection, Toy, answering, toy

JSON = "Content-Type: application/json\r\n"
GOOGLE = json.dumps({"error": {"details": [{"reason": "API_KEY_INVALID"}]}})


@pytest.fixture
async def check() -> AsyncIterator[ModelCredentialCheck]:
    made = build_credential_check(OPEN)
    yield made
    await made.aclose()


@pytest.mark.parametrize(
    ("provider", "target"),
    [
        ("anthropic", "/v1/models"),
        ("openai", "/v1/models"),
        ("openai-compatible", "/v1/models"),
        ("gemini", "/v1beta/models"),
    ],
)
async def test_good_key_is_good_and_a_wrong_one_is_not(
    check: ModelCredentialCheck, provider: str, target: str
) -> None:
    scheme = SCHEMES.get(provider, "bearer")
    with ModelApi() as api:
        good = await check.check(provider, scheme, api.url, KEY)
        wrong = await check.check(provider, scheme, api.url, "sk-wrong-000000")

    assert (good.ok, good.message) == (True, "127.0.0.1 takes this key.")
    assert wrong.ok is False
    assert wrong.message == ("127.0.0.1 does not take this key (401): it is wrong, or was revoked.")
    assert [(call.method, call.target) for call in api.calls] == [("GET", target)] * 2


@pytest.mark.parametrize(
    ("status", "headers", "body", "ok", "text"),
    [
        (200, JSON, "{}", True, "takes this key"),
        (200, "Content-Type: text/html\r\n", "<html>", None, "does not answer as a model API"),
        (302, "Location: https://example.com/\r\n", "", None, "answered with an error (302)"),
        (400, JSON, GOOGLE, False, "does not take this key (400)"),
        (400, JSON, "x" * 100_000, None, "answered with an error (400)"),
        (401, JSON, "{}", False, "wrong, or was revoked"),
        (402, JSON, "{}", False, "to pay first"),
        (403, JSON, "{}", False, "lacks a right"),
        (404, JSON, "{}", None, "no list of models at this address"),
        (429, JSON, "{}", None, "slow down"),
        (500, JSON, "{}", None, "try again later"),
        (529, JSON, "{}", None, "answered with an error (529)"),
    ],
)
async def test_each_answer_has_a_reason(
    check: ModelCredentialCheck, status: int, headers: str, body: str, ok: bool | None, text: str
) -> None:
    head = f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    async with toy(answering(head.encode() + body.encode())) as upstream:
        result = await check.check("openai", "bearer", f"http://127.0.0.1:{upstream.port}", KEY)

    assert result.ok is ok
    assert text in result.message
    assert KEY not in result.message
    assert len(upstream.heads) == 1


@pytest.mark.parametrize(
    ("scheme", "key"), [("bearer", ""), ("bearer", "a b"), ("bearer", "a\r\nX: y"), ("basic", "k")]
)
async def test_key_that_cannot_be_sent_is_not_sent(
    check: ModelCredentialCheck, scheme: str, key: str
) -> None:
    canary = Canary()
    with canary.socket:
        result = await check.check("openai", scheme, f"http://127.0.0.1:{canary.port}", key)
        assert canary.connections() == 0

    assert result.ok is False
    assert result.message.startswith("The key cannot be sent: ")


async def test_unknown_kind_of_api_is_no_verdict(check: ModelCredentialCheck) -> None:
    assert (await check.check("nobody", "bearer", None, KEY)).ok is None


async def test_provider_without_an_address_is_no_verdict(check: ModelCredentialCheck) -> None:
    result = await check.check("openai-compatible", "bearer", None, KEY)

    assert (result.ok, "base URL" in result.message) == (None, True)


async def test_provider_that_is_not_there_is_no_verdict(check: ModelCredentialCheck) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    result = await check.check("openai", "bearer", f"http://127.0.0.1:{port}", KEY)

    assert (result.ok, result.message) == (None, "127.0.0.1 does not take connections.")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\n"])
async def test_silent_provider_ends_within_the_deadline(
    check: ModelCredentialCheck, head: bytes
) -> None:
    async def silent(upstream: Toy, connection: Connection) -> None:
        if head:
            await connection.send(head)
        await connection.until_closed()

    quick = replace(check, total_s=0.3)
    async with toy(silent) as upstream:
        with anyio.fail_after(FIRST_BYTE_S * 0.8):  # before the connection's own deadline
            result = await quick.check("openai", "bearer", f"http://127.0.0.1:{upstream.port}", KEY)
            await upstream.closed.wait()

    assert (result.ok, "in time" in result.message) == (None, True)


async def test_address_of_a_user_follows_the_rules_of_upstreams() -> None:
    class Inside:
        async def resolve(self, host: str, port: int) -> Sequence[str]:
            return ["10.0.0.1"]

    check = build_credential_check(Settings.model_validate({}), resolver=Inside())
    try:
        inside = await check.check("openai", "bearer", "https://api.example.com/v1", KEY)
        plain = await check.check("openai", "bearer", "http://api.example.com/v1", KEY)
    finally:
        await check.aclose()

    assert (inside.ok, plain.ok) == (None, None)
    assert "not at a public address" in inside.message
    assert "Plain http is not allowed" in plain.message


async def test_address_of_the_operator_is_asked_when_the_user_has_none() -> None:
    with ModelApi() as api:
        own = Settings.model_validate({"model_upstreams": f"anthropic={api.url}"})
        check = build_credential_check(own)
        try:
            result = await check.check("anthropic", "x-api-key", None, KEY)
        finally:
            await check.aclose()

    assert result.ok is True
