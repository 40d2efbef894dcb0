"""git's smart HTTP, passed through: one upstream per environment, nothing held in memory."""

import re
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Generator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urljoin
from uuid import UUID

import anyio
import httpcore
import structlog

from craftastic.clock import Clock
from craftastic.errors import CraftasticError
from craftastic.gateway._pkt_line import (
    MalformedPush,
    PushHead,
    PushHeadReader,
    report_refused,
)
from craftastic.gateway._transfer import (
    Cut,
    Message,
    Receive,
    Refusal,
    RememberedBases,
    RequestBody,
    Send,
    TransferLimits,
    TransferSlots,
)
from craftastic.gateway._upstream import (
    CONNECT_TIMEOUT_S,
    Upstream,
    UpstreamPolicy,
    UpstreamRefused,
    UpstreamUnresolved,
)
from craftastic.gateway.push_policy import (
    GatewayEnvironment,
    PushOutcome,
    PushRefusal,
    RefUpdatePolicy,
)
from craftastic.http.answers import answer_for

MAX_REDIRECTS = 3
RECORD_TIMEOUT_S = 5.0
KEEP_ALIVE_S = 3.0
"""Shorter than servers keep idle connections, so that none is used as it is being closed."""

_GIT_PROTOCOL = re.compile(rb"[a-z0-9=:.-]{1,100}")
_AGENT = re.compile(rb"[\x21-\x7e][\x20-\x7e]{0,199}")
_REDIRECTS = {301, 302, 303, 307, 308}
_ANSWER_HEADERS = {b"content-encoding", b"cache-control", b"expires", b"pragma"}

log = structlog.get_logger(__name__)


class EnvironmentLookup(Protocol):
    async def by_gateway_token(self, environment_id: UUID, token: str) -> GatewayEnvironment | None:
        """Return the environment when the token is its own; compare in constant time."""
        ...


class UpstreamCredentials(Protocol):
    async def authorization(
        self, environment: GatewayEnvironment, scheme: str, host: str, port: int
    ) -> str | None:
        """Return the value of an Authorization header for this upstream, or None.

        It is asked for the environment's own upstream only, never for where that redirects to
        on another host; what it returns goes nowhere else.
        """
        ...


class NoCredentials:
    async def authorization(
        self, environment: GatewayEnvironment, scheme: str, host: str, port: int
    ) -> str | None:
        """Return None: every upstream is asked as a stranger."""
        return None


@dataclass(frozen=True, slots=True)
class GitRequest:
    """One request as the sandbox sent it, its route already recognised.

    Attributes:
        service: `git-upload-pack` or `git-receive-pack`.
        advertises: Whether it is `info/refs`; else the service itself.
        headers: Lower-case names; the first of each.
    """

    service: str
    advertises: bool
    headers: Mapping[bytes, bytes]
    receive: Receive
    send: Send

    @property
    def answer_type(self) -> str:
        return f"application/x-{self.service}-{'advertisement' if self.advertises else 'result'}"

    @property
    def body_type(self) -> str:
        return f"application/x-{self.service}-request"

    @property
    def target(self) -> str:
        return f"/info/refs?service={self.service}" if self.advertises else f"/{self.service}"


@dataclass(slots=True)
class _Transfer:
    """What is known of a request while it runs, for the log and for a cut answer."""

    environment: GatewayEnvironment
    request: GitRequest
    body: RequestBody
    upstream_host: str = ""
    status: int = 0
    answered: bool = False
    complete: bool = False
    """The upstream's answer was good and came to its end."""
    sent: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class GitProxy:
    """Streams one environment's git requests to its one upstream.

    Bytes flow chunk by chunk, each side waiting for the other, so that a transfer holds a few
    hundred KiB whatever its size. There is no retry anywhere.
    """

    policy: UpstreamPolicy
    pool: httpcore.AsyncConnectionPool
    limits: TransferLimits
    slots: TransferSlots
    credentials: UpstreamCredentials
    ref_policy: RefUpdatePolicy
    bases: RememberedBases
    clock: Clock

    async def serve(self, environment: GatewayEnvironment, request: GitRequest) -> None:
        """Answer a request of an authenticated sandbox.

        A transfer that is cut after its answer began is left incomplete, and the server closes
        the connection: git sees a failure, never a shorter success. Cancellation closes the
        upstream's connection too.
        """
        transfer = _Transfer(environment, request, RequestBody(request.receive, self.limits))
        started = self.clock.monotonic()
        refusal: Refusal | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_gone, transfer, tasks.cancel_scope)
            refusal = await self._attempt(transfer)
            tasks.cancel_scope.cancel()
        log.info(
            "git transfer",
            environment=str(environment.id),
            service=request.service,
            advertises=request.advertises,
            upstream=transfer.upstream_host,
            status=refusal.status.value if refusal else transfer.status,
            complete=transfer.complete,
            failure=refusal.text if refusal else transfer.failure,
            received_bytes=transfer.body.bytes,
            sent_bytes=transfer.sent,
            seconds=round(self.clock.monotonic() - started, 3),
        )
        if refusal is not None and not transfer.answered:
            await answer_text(request.send, refusal.status, refusal.text)

    async def _attempt(self, transfer: _Transfer) -> Refusal | None:
        try:
            async with self.slots.take(transfer.environment.id):
                with anyio.move_on_after(self.limits.timeout_s) as total:
                    await self._transfer(transfer)
            if total.cancelled_caught:
                return Refusal(HTTPStatus.GATEWAY_TIMEOUT, "The transfer took too long.")
        except Refusal as error:
            return error
        except Cut as error:
            return Refusal(error.status, f"The transfer was cut: {error.reason}.")
        except CraftasticError as error:
            return Refusal(HTTPStatus(answer_for(error).status), error.message)
        return None

    async def _transfer(self, transfer: _Transfer) -> None:
        upstream = self._upstream(transfer.environment)
        self._check_headers(transfer.request)
        if transfer.request.advertises:
            await transfer.body.drain()
            await self._advertise(transfer, upstream)
        elif transfer.request.service == "git-receive-pack":
            await self._push(transfer, upstream)
        else:
            await self._post(transfer, upstream, _chunks(transfer.body))

    def _upstream(self, environment: GatewayEnvironment) -> Upstream:
        if environment.repository_url is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "This environment has no repository.")
        try:
            return self.policy.rules.parse(environment.repository_url)
        except UpstreamRefused as error:
            raise Refusal(HTTPStatus.FORBIDDEN, error.message) from error

    def _check_headers(self, request: GitRequest) -> None:
        headers = request.headers
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.limits.max_bytes:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large.")
        if request.advertises:
            return
        if headers.get(b"content-type") != request.body_type.encode():
            raise Refusal(HTTPStatus.FORBIDDEN, "This is not a request of git.")
        encoding = headers.get(b"content-encoding", b"identity")
        # The refs of a push are read here, and git never compresses one.
        if encoding != b"identity" and (
            encoding not in {b"gzip", b"x-gzip"} or request.service == "git-receive-pack"
        ):
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "This encoding is not supported.")

    async def _advertise(self, transfer: _Transfer, upstream: Upstream) -> None:
        environment, request = transfer.environment, transfer.request
        url = f"{upstream}{request.target}"
        for _ in range(MAX_REDIRECTS + 1):
            base = self._base_of(url, request)
            async with self._answer(transfer, upstream, base, None) as answer:
                location = _header(answer, b"location")
                if answer.status not in _REDIRECTS or not location:
                    if answer.status == HTTPStatus.OK:
                        self.bases.remember(environment, request.service, base)
                    await self._relay(transfer, answer)
                    return
                url = redirect_target(url, location)
        raise Refusal(HTTPStatus.BAD_GATEWAY, "The upstream redirects too often.")

    def _base_of(self, url: str, request: GitRequest) -> Upstream:
        # As git itself demands: a redirect may change what comes before the service's own path,
        # and nothing of that.
        base = url.removesuffix(request.target)
        if base == url:
            raise Refusal(HTTPStatus.BAD_GATEWAY, "The upstream redirects to something else.")
        try:
            return self.policy.rules.parse(base)
        except UpstreamRefused as error:
            raise Refusal(
                HTTPStatus.FORBIDDEN, f"The upstream redirects where it may not: {error.message}"
            ) from error

    async def _post(
        self, transfer: _Transfer, upstream: Upstream, body: AsyncIterator[bytes]
    ) -> None:
        base = self.bases.find(transfer.environment, transfer.request.service) or upstream
        async with self._answer(transfer, upstream, base, body) as answer:
            await self._relay(transfer, answer)

    async def _push(self, transfer: _Transfer, upstream: Upstream) -> None:
        environment = transfer.environment
        head = await self._read_head(transfer.body)
        if not head.updates:
            await self._post(transfer, upstream, _probe(head, transfer.body))
            return
        refusal = await self.ref_policy.check(environment, head.updates)
        outcome = PushOutcome.REFUSED if refusal else PushOutcome.FAILED
        try:
            if refusal:
                await transfer.body.drain()
                await self._refuse_push(transfer, head, refusal)
            else:
                await self._post(transfer, upstream, _chunks(transfer.body, head.raw, head.rest))
        finally:
            if not refusal and transfer.complete:
                outcome = PushOutcome.DELIVERED
            with anyio.move_on_after(RECORD_TIMEOUT_S, shield=True):
                await self.ref_policy.recorded(environment, head.updates, outcome)

    async def _read_head(self, body: RequestBody) -> PushHead:
        reader = PushHeadReader()
        try:
            while chunk := await body.next():
                if (head := reader.feed(chunk)) is not None:
                    return head
        except MalformedPush as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"Not an acceptable push: {error}.") from error
        raise Refusal(HTTPStatus.BAD_REQUEST, "Not a push: it ends before its list of refs does.")

    async def _refuse_push(self, transfer: _Transfer, head: PushHead, refusal: PushRefusal) -> None:
        reasons = [
            (update.ref, refusal.reasons.get(update.ref, "refused together with the others"))
            for update in head.updates
        ]
        report = report_refused(head, reasons, "Craftastic refused this push.")
        if report is None:
            text = "; ".join(f"{ref}: {reason}" for ref, reason in refusal.reasons.items())
            raise Refusal(HTTPStatus.FORBIDDEN, text[:1000])
        transfer.status, transfer.answered, transfer.failure = 200, True, "refused by policy"
        await answer_bytes(
            transfer.request.send, HTTPStatus.OK, transfer.request.answer_type, report
        )
        transfer.complete = True

    @asynccontextmanager
    async def _answer(
        self,
        transfer: _Transfer,
        upstream: Upstream,
        base: Upstream,
        body: AsyncIterator[bytes] | None,
    ) -> AsyncGenerator[httpcore.Response]:
        request = transfer.request
        transfer.upstream_host = base.host
        headers = await self._headers(transfer, upstream, base)
        idle = self.limits.idle_timeout_s
        connect = min(CONNECT_TIMEOUT_S, idle)
        with _explained(base.host):
            async with self.pool.stream(
                b"POST" if body is not None else b"GET",
                httpcore.URL(
                    scheme=base.scheme,
                    host=base.host,
                    port=base.port,
                    target=base.path + request.target,
                ),
                headers=headers,
                content=body,
                extensions={
                    "timeout": {"connect": connect, "read": idle, "write": idle, "pool": idle}
                },
            ) as answer:
                yield answer

    async def _headers(
        self, transfer: _Transfer, upstream: Upstream, base: Upstream
    ) -> list[tuple[bytes, bytes]]:
        request, given = transfer.request, transfer.request.headers
        agent = given.get(b"user-agent", b"")
        headers = [
            (b"Host", base.authority.encode()),
            (b"User-Agent", agent if _AGENT.fullmatch(agent) else b"git/craftastic"),
            (b"Accept", b"*/*" if request.advertises else request.answer_type.encode()),
            (b"Accept-Encoding", b"identity"),
        ]
        if _GIT_PROTOCOL.fullmatch(given.get(b"git-protocol", b"")):
            headers.append((b"Git-Protocol", given[b"git-protocol"]))
        if not request.advertises:
            headers.append((b"Content-Type", request.body_type.encode()))
            if b"content-encoding" in given:
                headers.append((b"Content-Encoding", given[b"content-encoding"]))
            if b"content-length" in given and b"transfer-encoding" not in given:
                headers.append((b"Content-Length", given[b"content-length"]))
            else:
                headers.append((b"Transfer-Encoding", b"chunked"))
        # A credential belongs to the host that the environment names: a redirect to another
        # host, scheme or port goes without it.
        if base.origin == upstream.origin:
            value = await self.credentials.authorization(transfer.environment, *upstream.origin)
            if value is not None:
                headers.append((b"Authorization", value.encode()))
        return headers

    async def _relay(self, transfer: _Transfer, answer: httpcore.Response) -> None:
        request = transfer.request
        transfer.status = answer.status
        self._check_answer(transfer, answer)
        transfer.body.release()
        headers = [(b"content-type", request.answer_type.encode())]
        for name, value in answer.headers:
            if name.lower() in _ANSWER_HEADERS:
                headers.append((name.lower(), value))
        length = _header(answer, b"content-length")
        if length is not None and _header(answer, b"transfer-encoding") is None:
            headers.append((b"content-length", length))
        transfer.answered = True
        await self._send(
            transfer, {"type": "http.response.start", "status": 200, "headers": headers}
        )
        async for chunk in answer.aiter_stream():
            if transfer.sent + len(chunk) > self.limits.max_bytes:
                raise Cut(HTTPStatus.BAD_GATEWAY, "more bytes than the limit")
            transfer.sent += len(chunk)
            await self._send(
                transfer, {"type": "http.response.body", "body": chunk, "more_body": True}
            )
        transfer.complete = True
        await self._send(transfer, {"type": "http.response.body", "body": b"", "more_body": False})

    def _check_answer(self, transfer: _Transfer, answer: httpcore.Response) -> None:
        if answer.status != HTTPStatus.OK:
            raise _refused_by_upstream(answer.status, transfer.upstream_host)
        # Anything else than a git server's own answer stays here: the gateway is no way to read
        # the pages of other services.
        kind = (_header(answer, b"content-type") or b"").split(b";")[0].strip().lower()
        if kind != transfer.request.answer_type.encode():
            raise Refusal(
                HTTPStatus.BAD_GATEWAY,
                f"{transfer.upstream_host} does not speak git's smart HTTP at this address.",
            )
        length = _header(answer, b"content-length") or b"0"
        if not length.isdigit() or int(length) > self.limits.max_bytes:
            raise Refusal(HTTPStatus.BAD_GATEWAY, "The upstream's answer is over the limit.")

    async def _send(self, transfer: _Transfer, message: Message) -> None:
        with anyio.move_on_after(self.limits.idle_timeout_s) as silence:
            await transfer.request.send(message)
        if silence.cancelled_caught:
            raise Cut(HTTPStatus.REQUEST_TIMEOUT, "the sandbox stopped reading")


async def _cancel_when_gone(transfer: _Transfer, scope: anyio.CancelScope) -> None:
    await transfer.body.until_gone()
    if not transfer.complete:
        transfer.failure = "the sandbox went away"
        scope.cancel()


async def _chunks(body: RequestBody, *first: bytes) -> AsyncGenerator[bytes]:
    for chunk in first:
        if chunk:
            yield chunk
    while chunk := await body.next():
        yield chunk


async def _probe(head: PushHead, body: RequestBody) -> AsyncGenerator[bytes]:
    yield head.raw
    if head.rest or await body.next():
        raise Refusal(HTTPStatus.BAD_REQUEST, "Not an acceptable push: a pack without refs.")


def redirect_target(url: str, location: bytes) -> str:
    """Resolve a redirect's Location against the URL that was asked.

    Raises:
        Refusal: It would leave https.
    """
    try:
        target = urljoin(url, location.decode("latin-1"))
    except ValueError:
        raise Refusal(HTTPStatus.BAD_GATEWAY, "The upstream redirects to something else.") from None
    if url.startswith("https:") and not target.lower().startswith("https:"):
        raise Refusal(HTTPStatus.BAD_GATEWAY, "The upstream redirects away from https.")
    return target


def _header(answer: httpcore.Response, name: bytes) -> bytes | None:
    return next((value for key, value in answer.headers if key.lower() == name), None)


def _refused_by_upstream(status: int, host: str) -> Refusal:
    # Never 401: git would ask the person in the sandbox for a password of the upstream.
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Refusal(
            HTTPStatus.FORBIDDEN,
            f"{host} refuses access to this repository: it is private, or this needs an account "
            "with the right to it.",
        )
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        return Refusal(
            HTTPStatus.NOT_FOUND,
            f"{host} has no such repository, or does not show it without an account.",
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"{host} asks to slow down; try again later.")
    if status in _REDIRECTS:
        return Refusal(HTTPStatus.BAD_GATEWAY, f"{host} moved the repository; fetch again.")
    return Refusal(HTTPStatus.BAD_GATEWAY, f"{host} answered with an error ({status}).")


@contextmanager
def _explained(host: str) -> Generator[None]:
    """Turn what can go wrong with a connection into an answer in plain words."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, f"{host} did not answer in time.") from error
    except httpcore.ConnectError as error:
        raise Refusal(HTTPStatus.BAD_GATEWAY, _why_not_connected(host, error)) from error
    except UpstreamRefused as error:
        raise Refusal(HTTPStatus.FORBIDDEN, error.message) from error
    except UpstreamUnresolved as error:
        raise Refusal(HTTPStatus.BAD_GATEWAY, error.message) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError) as error:
        raise Refusal(
            HTTPStatus.BAD_GATEWAY, f"The connection to {host} broke during the transfer."
        ) from error


def _why_not_connected(host: str, error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"The certificate of {host} is not valid: {cause.verify_message}."
    if cause is not None:
        return f"{host} does not speak TLS as it should."
    return f"{host} does not take connections."


async def answer_text(
    send: Send, status: HTTPStatus, text: str, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with a line of plain text, which git shows after `remote:`."""
    await answer_bytes(
        send, status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="replace"), headers
    )


async def answer_bytes(
    send: Send,
    status: HTTPStatus,
    content_type: str,
    body: bytes,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Answer with a short body."""
    await send(
        {
            "type": "http.response.start",
            "status": status.value,
            "headers": [
                (b"content-type", content_type.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
