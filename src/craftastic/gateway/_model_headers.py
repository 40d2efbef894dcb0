"""Which headers and bodies pass between sandboxes and model APIs, and what is said otherwise."""

import re
from collections.abc import Mapping
from http import HTTPStatus

import httpcore

from craftastic.agent_runs.service import GatewayRun, ModelCredential
from craftastic.gateway._providers import BadKey, Call, Provider, error_body, key_header
from craftastic.gateway._transfer import Refusal, Send

Header = tuple[bytes, bytes]
Headers = Mapping[bytes, bytes]

_PASSING: Mapping[bytes, re.Pattern[bytes]] = {
    b"accept": re.compile(rb"[\x20-\x7e]{1,200}"),
    b"anthropic-version": re.compile(rb"[A-Za-z0-9.-]{1,40}"),
    b"anthropic-beta": re.compile(rb"[A-Za-z0-9., _-]{1,2000}"),
    b"openai-beta": re.compile(rb"[A-Za-z0-9., _=-]{1,500}"),
    b"user-agent": re.compile(rb"[\x20-\x7e]{1,300}"),
}
_ANSWER_HEADER = re.compile(
    rb"retry-after(-ms)?|request-id|x-request-id|x-should-retry"
    rb"|(anthropic|x)-ratelimit-[a-z0-9-]{1,60}"
)
_ANSWER_VALUE = re.compile(rb"[\x20-\x7e]{1,300}")
JSON = re.compile(rb"application/json *(;[\x20-\x7e]{0,100})?")
EVENTS = re.compile(rb"text/event-stream *(;[\x20-\x7e]{0,100})?")
_ENCODINGS = {b"identity", b"gzip", b"zstd"}


def not_offered(run: GatewayRun) -> str:
    if run.provider is None:
        return "This session's agent signs in by itself; it has no model API here."
    return f"The gateway does not offer this call of {run.provider}'s API to this session."


def key_refused(host: str, status: int) -> Refusal:
    if status == HTTPStatus.UNAUTHORIZED:
        why = f"{host} did not take this agent's API key (401): it is wrong, or was revoked."
    else:
        why = (
            f"{host} refuses this agent's API key (403): the key may lack a right, "
            "or its account may not use this model or this place."
        )
    return Refusal(
        HTTPStatus(status),
        f"{why} Put a working key into this agent in Craftastic, then send the prompt again.",
    )


def check_headers(method: str, headers: Headers, most_bytes: int) -> None:
    """Refuse what cannot be a call of a model API.

    Raises:
        Refusal: It is too large, or not JSON.
    """
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 12 or int(length) > most_bytes:  # noqa: PLR2004
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The request is larger than {most_bytes >> 20} MiB.",
        )
    if headers.get(b"content-encoding", b"identity").lower() not in _ENCODINGS:
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "This encoding is not supported.")
    kind = headers.get(b"content-type", b"").lower()
    if method == "POST" and not JSON.fullmatch(kind):
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The request must be JSON.")


def request_headers(call: Call, given: Headers, credential: ModelCredential) -> list[Header]:
    """Return what goes upstream of a sandbox's headers, with the key.

    Raises:
        Refusal: The key is none that can be sent.
    """
    if credential.provider != call.provider.name:
        raise Refusal(HTTPStatus.FORBIDDEN, "The agent's key is for another provider.")
    try:
        headers = [key_header(credential.scheme, credential.key)]
    except BadKey as error:
        raise Refusal(
            HTTPStatus.FORBIDDEN, f"The agent's key cannot be sent: {error}. Put it in again."
        ) from error
    for name, allowed in _PASSING.items():
        if allowed.fullmatch(given.get(name, b"")):
            headers.append((name, given[name]))
    if call.method != "POST":
        return headers
    headers.append((b"content-type", b"application/json"))
    if b"content-encoding" in given:
        headers.append((b"content-encoding", given[b"content-encoding"].lower()))
    if b"content-length" in given and b"transfer-encoding" not in given:
        headers.append((b"content-length", given[b"content-length"]))
    else:
        headers.append((b"transfer-encoding", b"chunked"))
    return headers


def answer_headers(answer: httpcore.Response, credential: ModelCredential) -> list[Header]:
    """Return what of a provider's headers may go into a sandbox."""
    key = credential.key.encode()
    return [
        (name.lower(), value)
        for name, value in answer.headers
        if _ANSWER_HEADER.fullmatch(name.lower())
        and _ANSWER_VALUE.fullmatch(value)
        and key not in value
    ]


async def answer_json(
    send: Send, status: int, body: bytes, headers: list[Header] | None = None
) -> None:
    """Answer with a short JSON value."""
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send(
        {"type": "http.response.start", "status": status, "headers": fixed + (headers or [])}
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def answer_error(
    send: Send, provider: Provider, refusal: Refusal, *, retry_after_s: float | None = None
) -> None:
    """Answer as the provider itself would word an error, so that its clients show the text."""
    headers = [] if retry_after_s is None else [(b"retry-after", b"%d" % max(1, retry_after_s))]
    status = refusal.status.value
    if status < HTTPStatus.TOO_MANY_REQUESTS:  # the vendors' clients would try again and again
        headers.append((b"x-should-retry", b"false"))
    await answer_json(send, status, error_body(provider, status, refusal.text), headers)
