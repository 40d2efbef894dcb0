"""git's smart HTTP, passed through: one upstream per environment, nothing held in memory."""

import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Generator,
    Mapping,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol
from uuid import UUID

import anyio
import httpcore
import structlog

from craftastic.clock import Clock
from craftastic.errors import CraftasticError
from craftastic.gateway._answers import answer_bytes, answer_text, header_of, redirect_target
from craftastic.gateway._listing import Listing
from craftastic.gateway._pkt_line import (
    MalformedPush,
    PushHead,
    PushHeadReader,
    report_refused,
)
from craftastic.gateway._pushing import Push, RefUpdatePolicy, push_id_of
from craftastic.gateway._refusals import REDIRECTS, AsksForAccount, explained, refused_by_upstream
from craftastic.gateway._throttle import PushThrottle
from craftastic.gateway._transfer import (
    Cut,
    Message,
    Receive,
    Refusal,
    Remembered,
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
)
from craftastic.http.answers import answer_for
from craftastic.pushes.service import GatewayEnvironment, PushRefusal

MAX_REDIRECTS = 3
CREDENTIAL_TIMEOUT_S = 30.0
REPORT_WAIT_S = 30.0
"""How long an upstream is listened to for how a whole push ended, when the sandbox is gone."""

KEEP_ALIVE_S = 3.0
"""Shorter than servers keep idle connections, so that none is used as it is being closed."""

_GIT_PROTOCOL = re.compile(rb"[a-z0-9=:.-]{1,100}")
_AGENT = re.compile(rb"[\x21-\x7e][\x20-\x7e]{0,199}")
_ANSWER_HEADERS = {b"content-encoding", b"cache-control", b"expires", b"pragma"}

log = structlog.get_logger(__name__)


class EnvironmentLookup(Protocol):
    async def by_gateway_token(self, environment_id: UUID, token: str) -> GatewayEnvironment | None:
        """Return the environment when the token is its own; compare in constant time."""
        ...


class UpstreamCredentials(Protocol):
    """Asked about the environment's own upstream only, never about where that redirects to."""

    async def authorization(
        self, environment: GatewayEnvironment, scheme: str, host: str, port: int
    ) -> str | None:
        """Return the value of an Authorization header for exactly this origin, or None."""
        ...

    async def rejected(
        self, environment: GatewayEnvironment, scheme: str, host: str, port: int, value: str
    ) -> bool:
        """Take note that the upstream answered 401 to a value; True for one more try."""
        ...

    async def accepted(
        self, environment: GatewayEnvironment, scheme: str, host: str, port: int
    ) -> None:
        """Take note that the upstream took what `authorization` gave."""
        ...

    def way_on(self, scheme: str, host: str, port: int, *, tried: bool) -> str:
        """Return, in half a sentence, what helps when an upstream asks for an account."""
        ...


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
    base: Upstream | None = None
    """The upstream, or where it redirected to."""
    strayed: bool = False
    """A redirect has left the upstream's origin, wherever it led in the end."""
    status: int = 0
    answered: bool = False
    complete: bool = False
    """The upstream's answer was good and came to its end."""
    sent: int = 0
    failure: str | None = None
    authorization: str | None = field(default=None, repr=False)
    """What the last request carried; it goes to the upstream's own origin only."""
    push: Push | None = None
    listing: Listing | None = None
    gone: bool = False
    """The sandbox does not read on; only what the upstream says of its push is waited for."""
    patience: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def listens(self) -> Push | Listing | None:
        return self.push or self.listing

    @property
    def is_sent(self) -> bool:
        """Whether it is a push that the upstream has all of, and may take at any time."""
        return self.push is not None and self.body.ended

    def leave(self, why: str) -> None:
        """Go on without the sandbox, for as long as there is something to hear yet."""
        self.failure, self.gone = why, True
        self.patience.deadline = anyio.current_time() + (REPORT_WAIT_S if self.is_sent else 0.0)


@dataclass(frozen=True, slots=True)
class GitProxy:
    """Streams one environment's git requests to its one upstream.

    Bytes flow chunk by chunk, each side waiting for the other, so that a transfer holds a few
    hundred KiB whatever its size. Nothing is tried again but the list of refs, once, where the
    upstream did not take the credential and there is another.
    """

    policy: UpstreamPolicy
    pool: httpcore.AsyncConnectionPool
    limits: TransferLimits
    slots: TransferSlots
    credentials: UpstreamCredentials
    ref_policy: RefUpdatePolicy
    bases: RememberedBases
    throttle: PushThrottle
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
            tasks.start_soon(_leave_when_gone, transfer)
            with transfer.patience:
                refusal = await self._attempt(transfer)
            tasks.cancel_scope.cancel()
        log.info(
            "git transfer",
            environment=str(environment.id),
            service=request.service,
            advertises=request.advertises,
            upstream=transfer.base.host if transfer.base else "",
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
        if transfer.request.service == "git-receive-pack":
            self.throttle.check(transfer.environment.id)
        if transfer.request.advertises:
            await transfer.body.drain()
            transfer.listing = await self._listing(transfer)
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
        environment = transfer.environment
        try:
            await self._list_refs(transfer, upstream)
        except AsksForAccount:
            value = transfer.authorization
            if value is None:
                raise
            with _in_time():
                again = await self.credentials.rejected(environment, *upstream.origin, value)
            if not again:
                raise
            await self._list_refs(transfer, upstream)
        if transfer.authorization is not None:
            with suppress(CraftasticError, Refusal), _in_time():  # git has its answer by now
                await self.credentials.accepted(environment, *upstream.origin)

    async def _listing(self, transfer: _Transfer) -> Listing | None:
        request, environment = transfer.request, transfer.environment
        push_id = push_id_of(request.headers)
        if request.service != "git-receive-pack" or push_id is None:
            return None
        refs = await self.ref_policy.of_interest(environment)
        return Listing(self.ref_policy, environment, push_id, refs)

    async def _list_refs(self, transfer: _Transfer, upstream: Upstream) -> None:
        environment, request = transfer.environment, transfer.request
        url = f"{upstream}{request.target}"
        transfer.strayed = False
        for _ in range(MAX_REDIRECTS + 1):
            base = self._base_of(url, request)
            transfer.strayed |= base.origin != upstream.origin
            async with self._answer(transfer, upstream, base, None) as answer:
                location = header_of(answer, b"location")
                if answer.status not in REDIRECTS or not location:
                    if answer.status == HTTPStatus.OK:
                        found = Remembered(base, transfer.strayed)
                        self.bases.remember(environment, request.service, found)
                    await self._relay(transfer, upstream, answer)
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
        known = self.bases.find(transfer.environment, transfer.request.service)
        found = known or Remembered(upstream)
        transfer.strayed = found.strayed
        async with self._answer(transfer, upstream, found.base, body) as answer:
            await self._relay(transfer, upstream, answer)

    async def _push(self, transfer: _Transfer, upstream: Upstream) -> None:
        environment, body = transfer.environment, transfer.body
        head = await self._read_head(body)
        if not head.updates:
            await self._post(transfer, upstream, _probe(head, body))
            return
        push = Push(self.ref_policy, environment, head, push_id_of(transfer.request.headers))
        refusal = await self.ref_policy.check(environment, push.intent)
        if refusal is not None:
            await self._refuse_push(transfer, push, refusal)
            return
        await push.begun()
        transfer.push = push
        try:
            await self._post(transfer, upstream, _chunks(body, head.raw, head.rest))
        except Refusal as error:
            push.failure = error.text
            raise
        except Cut as error:
            push.failure = f"the transfer was cut: {error.reason}"
            raise
        except CraftasticError as error:
            push.failure = error.message
            raise
        finally:
            self.throttle.charge(environment.id, push.wasted())
            await push.ended()

    async def _read_head(self, body: RequestBody) -> PushHead:
        reader = PushHeadReader()
        try:
            while chunk := await body.next():
                if (head := reader.feed(chunk)) is not None:
                    return head
        except MalformedPush as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"Not an acceptable push: {error}.") from error
        raise Refusal(HTTPStatus.BAD_REQUEST, "Not a push: it ends before its list of refs does.")

    async def _refuse_push(self, transfer: _Transfer, push: Push, refusal: PushRefusal) -> None:
        try:
            await transfer.body.drain()
        finally:
            self.throttle.charge(transfer.environment.id, 1)
            reasons = await push.refused(refusal)
        report = report_refused(push.head, reasons, "Craftastic refused this push.")
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
        transfer.base = base
        headers = await self._headers(transfer, upstream, base)
        idle = self.limits.idle_timeout_s
        connect = min(CONNECT_TIMEOUT_S, idle)
        with explained(base.host):
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
        # host, scheme or port goes without it, and so does one that comes back from there, since
        # it is the other host that chose the path.
        transfer.authorization = None
        if base.origin == upstream.origin and not transfer.strayed:
            with _in_time():
                value = await self.credentials.authorization(transfer.environment, *upstream.origin)
            if value is not None:
                transfer.authorization = value
                headers.append((b"Authorization", value.encode()))
        return headers

    async def _relay(
        self, transfer: _Transfer, upstream: Upstream, answer: httpcore.Response
    ) -> None:
        request, listens = transfer.request, transfer.listens
        transfer.status = answer.status
        self._check_answer(transfer, upstream, answer)
        transfer.body.release()
        headers = [(b"content-type", request.answer_type.encode())]
        for name, value in answer.headers:
            if name.lower() in _ANSWER_HEADERS:
                headers.append((name.lower(), value))
        encoded = header_of(answer, b"content-encoding") not in {None, b"identity"}
        if listens is not None and encoded:
            listens.unreadable("the upstream's report of the push was compressed")
        length = header_of(answer, b"content-length")
        # git waits for the end of the answer to a push. With a length it would see it before the
        # push is recorded; in chunks the end is sent after that.
        announced = listens is None and header_of(answer, b"transfer-encoding") is None
        if length is not None and announced:
            headers.append((b"content-length", length))
        transfer.answered = True
        await self._send(
            transfer, {"type": "http.response.start", "status": 200, "headers": headers}
        )
        async for chunk in answer.aiter_stream():
            if transfer.sent + len(chunk) > self.limits.max_bytes:
                raise Cut(HTTPStatus.BAD_GATEWAY, "more bytes than the limit")
            transfer.sent += len(chunk)
            if listens is not None:
                listens.feed(chunk)
            await self._send(
                transfer, {"type": "http.response.body", "body": chunk, "more_body": True}
            )
        if listens is not None:
            await listens.through()
        transfer.complete = True
        await self._send(transfer, {"type": "http.response.body", "body": b"", "more_body": False})

    def _check_answer(
        self, transfer: _Transfer, upstream: Upstream, answer: httpcore.Response
    ) -> None:
        host = transfer.base.host if transfer.base else upstream.host
        if answer.status != HTTPStatus.OK:
            tried = transfer.authorization is not None
            way_on = self._way_on(transfer, upstream, tried=tried)
            raise refused_by_upstream(answer.status, host, way_on, tried=tried)
        # Anything else than a git server's own answer stays here: the gateway is no way to read
        # the pages of other services.
        kind = (header_of(answer, b"content-type") or b"").split(b";")[0].strip().lower()
        if kind != transfer.request.answer_type.encode():
            raise Refusal(
                HTTPStatus.BAD_GATEWAY,
                f"{host} does not speak git's smart HTTP at this address.",
            )
        length = header_of(answer, b"content-length") or b"0"
        if not length.isdigit() or int(length) > self.limits.max_bytes:
            raise Refusal(HTTPStatus.BAD_GATEWAY, "The upstream's answer is over the limit.")

    def _way_on(self, transfer: _Transfer, upstream: Upstream, *, tried: bool) -> str:
        if transfer.strayed:
            return (
                f"{upstream.host} redirects there, and no credential goes along; "
                "make an environment with the repository's new address"
            )
        return self.credentials.way_on(*upstream.origin, tried=tried)

    async def _send(self, transfer: _Transfer, message: Message) -> None:
        if transfer.gone:
            return
        with anyio.move_on_after(self.limits.idle_timeout_s) as silence:
            await transfer.request.send(message)
        if silence.cancelled_caught:
            if not transfer.is_sent:
                raise Cut(HTTPStatus.REQUEST_TIMEOUT, "the sandbox stopped reading")
            transfer.leave("the sandbox stopped reading")


@contextmanager
def _in_time() -> Generator[None]:
    """Bound what is asked about a credential, which may ask others in turn."""
    try:
        with anyio.fail_after(CREDENTIAL_TIMEOUT_S):
            yield
    except TimeoutError as error:
        raise Refusal(
            HTTPStatus.GATEWAY_TIMEOUT, "The credential for the upstream took too long; try again."
        ) from error


async def _leave_when_gone(transfer: _Transfer) -> None:
    await transfer.body.until_gone()
    if not transfer.complete:
        transfer.leave("the sandbox went away")


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
