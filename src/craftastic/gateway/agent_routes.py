"""The gateway's routes of agent sessions: the model API, and what the supervisor reports.

    *     /agent/<session id>/model/…         the model API of the session's provider
    POST  /agent/<session id>/events          {nonce, seq, event, payload, at} -> 204
    POST  /agent/<session id>/asks            the same -> {approval, settled, answer}
    GET   /agent/<session id>/asks/<id>       the same answer, after at most `POLL_S` seconds
    POST  /agent/<session id>/files           {path, was, text} -> {taken}

Each wants the token of exactly this session, and answers 403 when the session is over.
"""

import json
import math
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Protocol, TypeVar, cast
from uuid import UUID

import anyio
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from craftastic.agent_runs.service import Asked, GatewayRun, RunEvent
from craftastic.errors import CraftasticError, RateLimited
from craftastic.gateway._model_headers import answer_error, answer_json
from craftastic.gateway._pace import Pace
from craftastic.gateway._providers import speaks, token_of
from craftastic.gateway._transfer import (
    Cut,
    Receive,
    Refusal,
    RequestBody,
    Send,
    TransferLimits,
    TransferSlots,
)
from craftastic.gateway.model_proxy import ModelProxy, ModelRequest, ModelRuns
from craftastic.http.answers import answer_for

PREFIX = b"/agent/"
MAX_BODY_BYTES = 512 << 10
BODY_IDLE_S = 15.0
POLL_S = 20.0
DOMAIN_S = 30.0
MAX_DEPTH = 64

_UUID = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PATH = re.compile(rb"/agent/(" + _UUID + rb")/(?:model(?P<model>/[!-~]*)?|(?P<own>[!-~]+))")
_ASK = re.compile(rb"asks/(" + _UUID + rb")")

_LIMITS = TransferLimits(MAX_BODY_BYTES, DOMAIN_S, BODY_IDLE_S)
_JSON = re.compile(rb"application/json *(;.*)?", re.IGNORECASE)

Scope = dict[str, Any]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
Body = TypeVar("Body", bound=BaseModel)


class AgentRuns(ModelRuns, Protocol):
    """What the domain of agent sessions does for requests from their sandboxes."""

    async def by_token(
        self, session_id: UUID, token: str, *, leaving: bool = False
    ) -> GatewayRun | None:
        """Return the run when the token is its own and it lives; compare in constant time.

        With `leaving`, a run that ended a moment ago counts as well.
        """
        ...

    async def event(self, run: GatewayRun, event: RunEvent) -> None:
        """Take note of what happened; a pair of nonce and number counts once."""
        ...

    async def ask(self, run: GatewayRun, event: RunEvent) -> Asked:
        """Ask the session's owner for a permission."""
        ...

    async def answer(self, run: GatewayRun, approval_id: UUID, wait_s: float) -> Asked:
        """Return how a request stands, at the latest after the seconds given.

        Raises:
            NotFound: It is none of this session.
        """
        ...

    async def take_back(self, run: GatewayRun, path: str, was_sha256: str, text: str) -> bool:
        """Store a credential file that the CLI has renewed; False when another was first."""
        ...


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class EventBody(_Strict):
    """A report of the supervisor."""

    nonce: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    seq: Annotated[int, Field(ge=0, lt=2**53)]
    event: Annotated[str, Field(pattern=r"^[A-Za-z0-9_:.\[\]-]{1,100}$")]
    payload: dict[str, Any]
    at: Annotated[float, Field(ge=0, lt=2**53)]

    def to_event(self) -> RunEvent:
        return RunEvent(self.nonce, self.seq, self.event, plain(self.payload), self.at)


class FileBody(_Strict):
    """A file that the CLI has changed; `was` is the SHA-256 of what it was given."""

    path: Annotated[Text, Field(min_length=1, max_length=400)]
    was: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    text: Text


def plain(value: Any, depth: int = 0) -> Any:
    """Return JSON that every database can keep: no NUL, no odd number, no endless nesting."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 63:
        return None
    if depth == MAX_DEPTH and isinstance(value, (dict, list)):
        return None
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value).items()
        return {plain(name): plain(one, depth + 1) for name, one in members}
    if isinstance(value, list):
        return [plain(one, depth + 1) for one in cast("list[Any]", value)]
    return value


@dataclass(frozen=True, slots=True)
class _Own:
    """A request of the supervisor whose token was right."""

    run: GatewayRun
    method: str
    name: bytes
    headers: Mapping[bytes, bytes]
    receive: Receive
    send: Send


@dataclass(frozen=True, slots=True)
class AgentRoutes:
    """Recognises requests of agent sessions, checks their token, and passes them on.

    Attributes:
        rooms: Bounds the requests of a session, also those that only wait.
    """

    runs: AgentRuns
    models: ModelProxy
    rooms: TransferSlots
    pace: Pace

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request below `/agent/`."""
        match = _PATH.fullmatch(scope.get("raw_path") or b"")
        model = None if match is None or match["own"] else match["model"] or b""
        try:
            await self._route(scope, match, model, receive, send)
        except Refusal as refusal:
            if model is not None:
                await answer_error(send, speaks(model), refusal)
            else:
                await _answer(send, refusal.status, {"error": refusal.text})

    async def _route(
        self,
        scope: Scope,
        match: re.Match[bytes] | None,
        model: bytes | None,
        receive: Receive,
        send: Send,
    ) -> None:
        if match is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "Nothing is here.")
        if scope["http_version"] != "1.1":  # a cut answer could not be told from a whole one
            raise Refusal(HTTPStatus.FORBIDDEN, "Only HTTP/1.1 is served here.")
        method: str = scope["method"]
        query: bytes = scope["query_string"]
        if model in {b"", b"/"} and method == "HEAD":  # a CLI asks whether anybody is there
            await answer_json(send, HTTPStatus.OK, b"")
            return
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        run = await self._authenticate(
            UUID(match[1].decode()), headers, query, leaving=match["own"] == b"files"
        )
        async with self.rooms.take(run.session_id):
            if model is not None:
                await self.models.serve(
                    run, ModelRequest(method, model, query, headers, receive, send)
                )
            elif query:
                raise Refusal(HTTPStatus.NOT_FOUND, "Nothing is here.")
            else:
                await self._serve(_Own(run, method, match["own"], headers, receive, send))

    async def _authenticate(
        self, session_id: UUID, headers: Mapping[bytes, bytes], query: bytes, *, leaving: bool
    ) -> GatewayRun:
        token = token_of(headers, query)
        if token is None:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "This address is for agent sessions only.")
        try:
            run = await self.runs.by_token(session_id, token, leaving=leaving)
        except CraftasticError as error:
            raise Refusal(HTTPStatus(answer_for(error).status), error.message) from error
        if run is None or run.session_id != session_id:
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "This token does not open this session, or the session is over: "
                "start the agent again from its session.",
            )
        return run

    async def _serve(self, own: _Own) -> None:
        ask = _ASK.fullmatch(own.name)
        try:
            if own.method == "POST" and own.name == b"events":
                await self._event(own)
            elif own.method == "POST" and own.name == b"asks":
                await self._ask(own)
            elif own.method == "POST" and own.name == b"files":
                await self._file(own)
            elif own.method == "GET" and ask is not None:
                await self._poll(own, UUID(ask[1].decode()))
            else:
                raise Refusal(HTTPStatus.NOT_FOUND, "Nothing is here.")
        except Cut as error:
            text = f"The request was cut: {error.reason}."
            raise Refusal(error.status, text) from error
        except CraftasticError as error:
            await _answer(
                own.send,
                HTTPStatus(answer_for(error).status),
                {"error": error.message},
                error.retry_after_s if isinstance(error, RateLimited) else None,
            )

    async def _event(self, own: _Own) -> None:
        event = (await self._read(own, EventBody)).to_event()
        with _in_time():
            await self.runs.event(own.run, event)
        await own.send({"type": "http.response.start", "status": 204, "headers": []})
        await own.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _ask(self, own: _Own) -> None:
        event = (await self._read(own, EventBody)).to_event()
        with _in_time():
            asked = await self.runs.ask(own.run, event)
        await _answer(own.send, HTTPStatus.OK, _asked(asked))

    async def _file(self, own: _Own) -> None:
        body = await self._read(own, FileBody)
        with _in_time():
            taken = await self.runs.take_back(own.run, body.path, body.was, body.text)
        await _answer(own.send, HTTPStatus.OK, {"taken": taken})

    async def _poll(self, own: _Own, approval_id: UUID) -> None:
        await self._wait_turn(own)
        body = RequestBody(own.receive, _LIMITS)
        await body.drain()
        asked: Asked | None = None
        failure: Exception | None = None

        async def end_when_gone(scope: anyio.CancelScope) -> None:
            await body.until_gone()
            scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end_when_gone, tasks.cancel_scope)
            try:
                with _in_time(POLL_S + DOMAIN_S):
                    asked = await self.runs.answer(own.run, approval_id, POLL_S)
            except (CraftasticError, Refusal) as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if asked is not None:  # else nobody waits any more
            await _answer(own.send, HTTPStatus.OK, _asked(asked))

    async def _read(self, own: _Own, form: type[Body]) -> Body:
        length = own.headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 12 or int(length) > MAX_BODY_BYTES:  # noqa: PLR2004
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large.")
        if not _JSON.fullmatch(own.headers.get(b"content-type", b"")):
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The request must be JSON.")
        body, content = RequestBody(own.receive, _LIMITS), bytearray()
        while chunk := await body.next():
            content += chunk
        await self._wait_turn(own, len(content))
        return _parsed(bytes(content), form)

    async def _wait_turn(self, own: _Own, size: int = 0) -> None:
        wait_s = self.pace.wait_s(own.run.session_id, size)
        if wait_s > DOMAIN_S:
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "This session reports too much.")
        if wait_s:
            await anyio.sleep(wait_s)


def _parsed(content: bytes, form: type[Body]) -> Body:
    """Read a body. Lists and objects take some 40 times as much memory as their text.

    Raises:
        Refusal: It is not of this form.
    """
    try:
        return form.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][:2])
        text = f"{where}: {first['msg']}" if where else first["msg"]
        raise Refusal(HTTPStatus.BAD_REQUEST, text[:300]) from error


@contextmanager
def _in_time(most_s: float = DOMAIN_S) -> Generator[None]:
    try:
        with anyio.fail_after(most_s):
            yield
    except TimeoutError as error:
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "This took too long; try again.") from error


def _asked(asked: Asked) -> dict[str, object]:
    approval = None if asked.approval_id is None else str(asked.approval_id)
    return {"approval": approval, "settled": asked.settled, "answer": asked.answer}


async def _answer(
    send: Send, status: HTTPStatus, value: object, retry_after_s: float | None = None
) -> None:
    headers = [] if retry_after_s is None else [(b"retry-after", b"%d" % max(1, retry_after_s))]
    await answer_json(send, status.value, json.dumps(value).encode(), headers)
