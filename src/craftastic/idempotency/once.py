"""`ONCE`: what a route declares whose requests may carry an `Idempotency-Key`."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import anyio
import structlog
from fastapi import Depends, Header, Request
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from craftastic.accounts.current_user import CurrentUser
from craftastic.errors import CraftasticError, InvalidInput
from craftastic.http.policy import calls
from craftastic.idempotency.service import Claim, IdempotencyService, Kept

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])

HEADER = "Idempotency-Key"
RAW_HEADER = HEADER.lower().encode()
CLAIM = "craftastic.idempotency_claim"
MAX_KEPT_BYTES = 256 << 10
"""Answers that are longer are not kept: the routes' own are far shorter."""
SETTLE_S = 5.0


class IdempotencyKeyNotTaken(InvalidInput):
    """The route keeps no answers: it may be called again anyhow, or its answer is shown once."""

    code = "IDEMPOTENCY_KEY_NOT_TAKEN"


class Replayed(Exception):
    """Ends a request whose answer is there already."""

    def __init__(self, answer: Kept) -> None:
        super().__init__()
        self.answer = answer


async def once(
    request: Request,
    caller: CurrentUser,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[!-~]+$",
            max_length=200,
            description="A text of the client's own choice, new for each thing that it wants: "
            "sent again within a day, the request has no effect and gets the first answer.",
        ),
    ] = None,
) -> None:
    """Let a request with a key happen once; the same again gets what was answered.

    Raises:
        IdempotencyKeyReused, IdempotencyKeyInUse, TooManyIdempotencyKeys: See the service.
    """
    if idempotency_key is None:
        return
    service: IdempotencyService = request.state.idempotency
    place = f"{request.method} {request.scope['path']}"
    asked = request.scope.get("query_string", b"") + b"\n" + await request.body()
    found = await service.claim(caller.user_id, place, idempotency_key, asked)
    if isinstance(found, Kept):
        raise Replayed(found)
    request.scope[CLAIM] = found


ONCE: Any = Depends(once)
"""For `dependencies=[ONCE]` of a route that creates something and answers without a secret."""


async def refuse_key(connection: HTTPConnection) -> None:
    """Refuse a key where it would promise what is not kept.

    Raises:
        IdempotencyKeyNotTaken: The route takes none.
    """
    if (
        connection.scope.get("method") == "POST"
        and HEADER in connection.headers
        and not takes_keys(connection.scope.get("route"))
    ):
        raise IdempotencyKeyNotTaken(
            f"This route takes no {HEADER}: send the request without it",
        )


def takes_keys(route: Any) -> bool:
    """Tell whether a route declares `ONCE`."""
    dependant = getattr(route, "dependant", None)
    return dependant is not None and any(call is once for call in calls(dependant))


class KeptAnswers:
    """Middleware: keeps the answers of requests whose key was claimed, and gives them again."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or all(name != RAW_HEADER for name, _ in scope["headers"]):
            await self.app(scope, receive, send)
            return
        recording = _Recording(scope, send)
        try:
            await self.app(scope, receive, recording.send)
        except Replayed as found:
            kept = found.answer
            response = Response(kept.body, kept.status, media_type=kept.media_type)
            response.headers["Idempotent-Replayed"] = "true"
            await response(scope, receive, send)
        finally:
            await recording.settle(None)


class _Recording:
    """Holds an answer back until it is kept: whoever has it may rely on that."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.downstream = send
        self.held: list[Message] = []
        self.held_bytes = 0

    async def send(self, message: Message) -> None:
        if CLAIM not in self.scope:
            await self.downstream(message)
            return
        self.held.append(message)
        self.held_bytes += len(message.get("body", b""))
        if message["type"] == "http.response.start" or (
            message.get("more_body", False) and self.held_bytes <= MAX_KEPT_BYTES
        ):
            return
        await self.settle(self._answer())
        for one in self.held:
            await self.downstream(one)
        self.held.clear()

    async def settle(self, answer: Kept | None) -> None:
        """Keep the answer, or without one give the key back; nothing the second time."""
        claim: Claim | None = self.scope.pop(CLAIM, None)
        if claim is None:
            return
        with anyio.move_on_after(SETTLE_S, shield=True) as scope:
            try:
                await (claim.release() if answer is None else claim.finish(answer))
            except CraftasticError as error:
                log.warning("an answer could not be kept for its key", reason=error.message)
        if scope.cancelled_caught:
            log.warning("an answer could not be kept for its key", reason="no answer in time")

    def _answer(self) -> Kept | None:
        """Return what is to be kept: a refusal is not, since trying again may help."""
        start = self.held[0]
        whole = not self.held[-1].get("more_body", False)
        if not whole or not 200 <= start["status"] < 300 or self.held_bytes > MAX_KEPT_BYTES:  # noqa: PLR2004
            return None
        body = b"".join(one.get("body", b"") for one in self.held[1:])
        return Kept(start["status"], Headers(raw=start["headers"]).get("content-type"), body)
