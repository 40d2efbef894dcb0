"""Asks a model API whether it takes a key, by its list of models: that costs nothing."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import anyio
import httpcore

from craftastic.agents.service import CheckResult
from craftastic.gateway._answers import header_of
from craftastic.gateway._model_headers import JSON, Header
from craftastic.gateway._model_upstream import ModelUpstreams
from craftastic.gateway._providers import PROVIDERS, BadKey, Call, Provider, key_header
from craftastic.gateway._transfer import Refusal
from craftastic.gateway._upstream import Resolver
from craftastic.settings import Settings

TOTAL_S = 20.0
FIRST_BYTE_S = 10.0
MAX_ERROR_BYTES = 16 << 10
AT_ONCE = 8

_HEADERS: Sequence[Header] = (
    (b"Accept", b"application/json"),
    (b"User-Agent", b"craftastic"),
    (b"anthropic-version", b"2023-06-01"),
)
_OTHERWISE: Mapping[int, tuple[bool | None, str]] = {
    402: (False, "wants this key's account to pay first"),
    404: (
        None,
        "has no list of models at this address, so the key cannot be tried: check the address",
    ),
    429: (None, "asks to slow down; try again later"),
}


@dataclass(frozen=True, slots=True)
class ModelCredentialCheck:
    """Tells in plain words what a model API says to a key.

    Attributes:
        upstreams: By the same rules as the calls of sessions.
        at_once: Bounds the questions of all users.
        total_s: Longest time of one question.
    """

    upstreams: ModelUpstreams
    at_once: anyio.Semaphore
    total_s: float = TOTAL_S

    async def check(
        self, provider: str, scheme: str, base_url: str | None, key: str
    ) -> CheckResult:
        """Ask once. Whatever goes wrong is a result; cancellation closes the connection."""
        api = PROVIDERS.get(provider)
        if api is None:
            return CheckResult(None, "This server does not know this kind of model API.")
        try:
            header = key_header(scheme, key)
        except BadKey as error:
            return CheckResult(False, f"The key cannot be sent: {error}.")
        try:
            with anyio.fail_after(self.total_s):
                async with self.at_once:
                    return await self._ask(api, base_url, header)
        except TimeoutError:
            return CheckResult(None, "The model API did not answer in time; try again.")
        except Refusal as refusal:
            return CheckResult(None, refusal.text)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.upstreams.aclose()

    async def _ask(self, api: Provider, base_url: str | None, header: Header) -> CheckResult:
        call = Call(api, "GET", api.models, "", generates=False)
        place = self.upstreams.find(call, base_url)
        headers = [header, *_HEADERS]
        async with self.upstreams.ask(place, call, headers, None, FIRST_BYTE_S) as answer:
            start = b""
            if answer.status == HTTPStatus.BAD_REQUEST:
                start = await _beginning(answer)
            return _result(api, place.upstream.host, answer, start)


async def _beginning(answer: httpcore.Response) -> bytes:
    found = b""
    async for chunk in answer.aiter_stream():
        found += chunk
        if len(found) >= MAX_ERROR_BYTES:
            break
    return found[:MAX_ERROR_BYTES]


def _result(api: Provider, host: str, answer: httpcore.Response, start: bytes) -> CheckResult:
    status = answer.status
    if status == HTTPStatus.OK:
        kind = (header_of(answer, b"content-type") or b"").lower()
        if JSON.fullmatch(kind):
            return CheckResult(True, f"{host} takes this key.")
        return CheckResult(
            None, f"{host} does not answer as a model API does; check the agent's address."
        )
    if status == HTTPStatus.FORBIDDEN:
        return CheckResult(
            False,
            f"{host} knows this key and refuses it (403): it lacks a right, or its account may "
            "not use the API from here.",
        )
    if api.refuses_key(status, start):
        return CheckResult(
            False, f"{host} does not take this key ({status}): it is wrong, or was revoked."
        )
    ok, text = _OTHERWISE.get(status, (None, f"answered with an error ({status}); try again later"))
    return CheckResult(ok, f"{host} {text}.")


def build_credential_check(
    settings: Settings,
    *,
    resolver: Resolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> ModelCredentialCheck:
    """Make the check; no connection is opened. Close it with `aclose`.

    Args:
        settings: Rules of upstreams, and the operator's own model APIs.
        resolver: Name resolution; the machine's own when None.
        tls: Trust; the machine's and certifi's authorities when None.
    """
    upstreams = ModelUpstreams(settings, connections=AT_ONCE, resolver=resolver, tls=tls)
    return ModelCredentialCheck(upstreams, anyio.Semaphore(AT_ONCE))
