"""Model APIs, passed through: a sandbox calls them with its session's token, never with a key."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import NoReturn, Protocol

import anyio
import anyio.lowlevel
import httpcore
import structlog

from craftastic.agent_runs.service import GatewayRun, ModelCredential, Usage
from craftastic.clock import Clock
from craftastic.errors import CraftasticError, RateLimited
from craftastic.gateway._answers import header_of
from craftastic.gateway._model_headers import (
    EVENTS,
    JSON,
    answer_error,
    answer_headers,
    answer_json,
    check_headers,
    key_refused,
    not_offered,
    request_headers,
)
from craftastic.gateway._model_upstream import ModelUpstreams, check_encoding, pieces
from craftastic.gateway._providers import Call, error_body, recognise
from craftastic.gateway._transfer import (
    Cut,
    Message,
    Receive,
    Refusal,
    RequestBody,
    Send,
    TransferLimits,
    TransferSlots,
)
from craftastic.gateway._usage import UsageReader
from craftastic.http.answers import answer_for

MAX_ERROR_BYTES = 1 << 16
DOMAIN_S = 10.0
"""Longest wait for what is kept of a call."""

SLICE_BYTES = 8 << 10
"""How much of an answer is read for its usage at a stretch."""

BYTES_PER_TOKEN = 4
MOST_ESTIMATED_TOKENS = 200_000
MOST_TOKENS = 10**9

log = structlog.get_logger(__name__)


class ModelRuns(Protocol):
    """What the domain of agent sessions does for calls of models."""

    async def admit(self, run: GatewayRun) -> None:
        """Return when the session may call; waits while its owner is asked about a limit.

        Raises:
            RateLimited: It may not, or nobody answered in time.
        """
        ...

    async def credential(self, run: GatewayRun) -> ModelCredential:
        """Return what the provider asks for.

        Raises:
            CraftasticError: There is none any more.
        """
        ...

    async def used(self, run: GatewayRun, usage: Usage) -> None:
        """Add to what the session has used."""
        ...

    async def rejected(self, run: GatewayRun, status: int) -> None:
        """Take note that the provider answered 401 or 403 to the key."""
        ...


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """The bounds of one call; times in seconds.

    Attributes:
        request_bytes: Of what the sandbox sends.
        answer_bytes: Of what the provider sends, unpacked.
        first_byte_s: Models think before they answer.
        idle_s: Longest silence of the provider within an answer.
        sandbox_s: Longest silence of the sandbox, in both directions.
        total_s: Of the whole call.
    """

    request_bytes: int = 32 << 20
    answer_bytes: int = 1 << 30
    first_byte_s: float = 600.0
    idle_s: float = 300.0
    sandbox_s: float = 60.0
    total_s: float = 3600.0

    @property
    def of_request(self) -> TransferLimits:
        return TransferLimits(self.request_bytes, self.total_s, self.sandbox_s)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request of a sandbox whose token was right.

    Attributes:
        path: What follows `/agent/<id>/model`, as it came.
        headers: Lower-case names; the first of each.
    """

    method: str
    path: bytes
    query: bytes
    headers: Mapping[bytes, bytes]
    receive: Receive
    send: Send


@dataclass(slots=True)
class _Exchange:
    """What is known of a call while it runs."""

    run: GatewayRun
    call: Call
    request: ModelRequest
    body: RequestBody
    host: str = ""
    status: int = 0
    asked: bool = False
    """The provider may have begun to work on it."""
    answered: bool = False
    complete: bool = False
    counted: bool = False
    gone: bool = False
    received: int = 0
    reader: UsageReader | None = None
    failure: str | None = None
    retry_after_s: float | None = None

    def usage(self) -> Usage:
        """Return what the provider said, or an estimate of what it did not say.

        Without the estimate, a sandbox could hide what it uses: it hangs up before the end, or
        does not ask for the numbers.
        """
        if not self.call.generates:
            return Usage()
        read = self.reader
        if read is None and not self.gone:
            return Usage(1) if self.status else Usage()  # an error costs nothing
        given, written = (read.input_tokens, read.output_tokens) if read else (None, None)
        if given is None:
            given = min(self.body.bytes // BYTES_PER_TOKEN, MOST_ESTIMATED_TOKENS)
        if read is not None and (written is None or not self.complete):
            seen = read.events or min(self.received // BYTES_PER_TOKEN, MOST_ESTIMATED_TOKENS)
            written = max(written or 0, seen)
        return Usage(1, min(given, MOST_TOKENS), min(written or 0, MOST_TOKENS))


@dataclass(frozen=True, slots=True)
class ModelProxy:
    """Streams calls of agent sessions to the model API of their provider.

    The key is added here. Of the sandbox's headers a few pass, and nothing that could be a
    credential, a cookie or a word about the way; of the answer's likewise. Bytes flow chunk by
    chunk, so that a call holds some hundred KiB whatever its size. Nothing is tried again.
    """

    runs: ModelRuns
    upstreams: ModelUpstreams
    slots: TransferSlots
    limits: ModelLimits
    clock: Clock

    async def serve(self, run: GatewayRun, request: ModelRequest) -> None:
        """Answer a request of a session.

        An answer that is cut is left incomplete, and the server closes the connection.
        Cancellation closes the provider's connection; what was used by then is counted first.

        Raises:
            Refusal: It is no call that this session may make.
        """
        call = recognise(run.provider, request.method, request.path, request.query)
        if call is None:
            raise Refusal(HTTPStatus.NOT_FOUND, not_offered(run))
        exchange = _Exchange(
            run, call, request, RequestBody(request.receive, self.limits.of_request)
        )
        started = self.clock.monotonic()
        refusal: Refusal | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_when_gone, exchange, tasks.cancel_scope)
            refusal = await self._attempt(exchange)
            tasks.cancel_scope.cancel()
        log.info(
            "model call",
            session=str(run.session_id),
            provider=call.provider.name,
            path=call.path,
            upstream=exchange.host,
            status=refusal.status.value if refusal else exchange.status,
            complete=exchange.complete,
            failure=refusal.text if refusal else exchange.failure,
            sent_bytes=exchange.received,
            seconds=round(self.clock.monotonic() - started, 3),
        )
        if refusal is not None and not exchange.answered:
            await answer_error(
                request.send, call.provider, refusal, retry_after_s=exchange.retry_after_s
            )

    async def _attempt(self, exchange: _Exchange) -> Refusal | None:
        try:
            check_headers(
                exchange.request.method, exchange.request.headers, self.limits.request_bytes
            )
            with anyio.move_on_after(self.limits.total_s) as total:
                await self.runs.admit(exchange.run)
                async with self.slots.take(exchange.run.session_id):
                    await self._exchange(exchange)
            if total.cancelled_caught:
                return Refusal(HTTPStatus.GATEWAY_TIMEOUT, "The call took too long.")
        except Refusal as error:
            return error
        except Cut as error:
            return Refusal(error.status, f"The call was cut: {error.reason}.")
        except CraftasticError as error:
            if isinstance(error, RateLimited):
                exchange.retry_after_s = error.retry_after_s
            return Refusal(HTTPStatus(answer_for(error).status), error.message)
        finally:
            await self._count(exchange)
        return None

    async def _exchange(self, exchange: _Exchange) -> None:
        call, body = exchange.call, exchange.body
        credential = await self.runs.credential(exchange.run)
        place = self.upstreams.find(call, credential.base_url)
        exchange.host = place.upstream.host
        headers = request_headers(call, exchange.request.headers, credential)
        first = await body.next()  # who has gone while it waited is not asked for
        has_body = call.method == "POST"
        if not has_body:
            await body.drain()
        exchange.asked = True
        async with self.upstreams.ask(
            place,
            call,
            headers,
            _chunks(body, first) if has_body else None,
            self.limits.first_byte_s,
        ) as answer:
            exchange.status = answer.status
            await self._relay(exchange, credential, answer)

    async def _relay(
        self, exchange: _Exchange, credential: ModelCredential, answer: httpcore.Response
    ) -> None:
        exchange.body.release()
        host, status = exchange.host, answer.status
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            await self._key_refused(exchange, status)
        if status >= HTTPStatus.BAD_REQUEST:
            await self._relay_error(exchange, credential, answer)
            return
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            raise Refusal(
                HTTPStatus.BAD_GATEWAY,
                f"{host} redirects elsewhere ({status}), and a key does not go along: "
                "give the agent the address that it redirects to.",
            )
        kind = header_of(answer, b"content-type") or b""
        streams = EVENTS.fullmatch(kind.lower()) is not None
        # The gateway is no way to read the pages of other services.
        if status != HTTPStatus.OK or not (streams or JSON.fullmatch(kind.lower())):
            raise Refusal(
                HTTPStatus.BAD_GATEWAY, f"{host} does not answer as a model API does ({status})."
            )
        check_encoding(answer)
        exchange.answered, exchange.reader = True, UsageReader(streams=streams)
        passing = [(b"content-type", kind), (b"cache-control", b"no-store")]
        passing += answer_headers(answer, credential)
        await self._send(
            exchange, {"type": "http.response.start", "status": status, "headers": passing}
        )
        await self._stream(exchange, exchange.reader, answer)

    async def _key_refused(self, exchange: _Exchange, status: int) -> NoReturn:
        try:
            await self.runs.rejected(exchange.run, status)
        except CraftasticError as error:
            log.warning("refusal is not recorded", reason=error.message, **_whose(exchange))
        raise key_refused(exchange.host, status)

    async def _stream(
        self, exchange: _Exchange, reader: UsageReader, answer: httpcore.Response
    ) -> None:
        async with aclosing(pieces(answer, self.limits.idle_s)) as parts:
            async for part in parts:
                exchange.received += len(part)
                if exchange.received > self.limits.answer_bytes:
                    raise Cut(HTTPStatus.BAD_GATEWAY, "the answer is over the limit")
                await _read(reader, part)
                await self._send(
                    exchange, {"type": "http.response.body", "body": part, "more_body": True}
                )
        exchange.complete = True
        await self._count(exchange)  # before the caller sees the end, and calls again
        await self._send(exchange, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _relay_error(
        self, exchange: _Exchange, credential: ModelCredential, answer: httpcore.Response
    ) -> None:
        found = bytearray()
        async with aclosing(pieces(answer, self.limits.idle_s)) as parts:
            async for part in parts:
                found += part
                if len(found) > MAX_ERROR_BYTES:
                    break
        if exchange.call.provider.refuses_key(answer.status, bytes(found)):
            await self._key_refused(exchange, HTTPStatus.UNAUTHORIZED)
        kind = (header_of(answer, b"content-type") or b"").lower()
        if len(found) > MAX_ERROR_BYTES or not JSON.fullmatch(kind):
            text = f"{exchange.host} answered with an error ({answer.status})."
            content = error_body(exchange.call.provider, answer.status, text)
        else:
            # Some providers repeat what they were sent.
            content = bytes(found).replace(credential.key.encode(), b"[key]")
        exchange.answered = exchange.complete = True
        await answer_json(
            exchange.request.send, answer.status, content, answer_headers(answer, credential)
        )

    async def _send(self, exchange: _Exchange, message: Message) -> None:
        with anyio.move_on_after(self.limits.sandbox_s) as silence:
            await exchange.request.send(message)
        if silence.cancelled_caught:
            raise Cut(HTTPStatus.REQUEST_TIMEOUT, "the sandbox stopped reading")

    async def _count(self, exchange: _Exchange) -> None:
        if exchange.counted or not exchange.asked:
            return
        exchange.counted = True
        usage = exchange.usage()
        if usage == Usage():
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(DOMAIN_S) as waiting:
            try:
                await self.runs.used(exchange.run, usage)
            except CraftasticError as error:
                log.warning("usage is not recorded", reason=error.message, **_whose(exchange))
        if waiting.cancelled_caught:
            log.warning("usage is not recorded", reason="it took too long", **_whose(exchange))


def _whose(exchange: _Exchange) -> dict[str, str]:
    return {"session": str(exchange.run.session_id)}


async def _read(reader: UsageReader, part: bytes) -> None:
    for start in range(0, len(part), SLICE_BYTES):
        if start:  # others have their turn
            await anyio.lowlevel.checkpoint()
        reader.feed(part[start : start + SLICE_BYTES])


async def _chunks(body: RequestBody, first: bytes) -> AsyncGenerator[bytes]:
    if first:
        yield first
    while chunk := await body.next():
        yield chunk


async def _end_when_gone(exchange: _Exchange, scope: anyio.CancelScope) -> None:
    await exchange.body.until_gone()
    if not exchange.complete:
        exchange.failure, exchange.gone = "the sandbox went away", True
        scope.cancel()
