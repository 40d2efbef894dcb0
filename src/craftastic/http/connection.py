"""What is settled before a request exists: broken HTTP, endless heads, silent or too many clients.

Everything after that is an ASGI application's, and answers in `errors.py`'s forms; the answers
here are made by hand to look the same.
"""

import asyncio
import json
import resource
from http import HTTPStatus
from typing import ClassVar, cast
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from craftastic.http.middleware import SECURITY_HEADERS

MAX_HEAD_BYTES = 64 << 10
"""More of a head may come in one read; what is read after that is refused."""
HEAD_TIMEOUT_S = 30.0
REST_TIMEOUT_S = 30.0
"""How long the rest of a body may come when its request is answered already."""

HURRIED_S = 2.0
"""How long a connection that is one too many has to say what it wants, and be told so."""
RESERVE = 256
RESERVED_PART = 4
"""Of the process's file descriptors a quarter, and no more than `RESERVE`, is for what the accepted
connections need: the database, sandboxes, upstreams."""
MOST_TAKEN = 0.5
"""Of the reserve, by connections that are one too many and wait to be told so."""
RETRY_AFTER_S = 2

ABORT = "craftastic.abort"
"""In a request's scope: cuts its connection, with what the client has not taken yet."""

REFUSALS = {
    HTTPStatus.BAD_REQUEST: ("BROKEN_REQUEST", "What was sent is not HTTP/1.1"),
    HTTPStatus.REQUEST_TIMEOUT: ("REQUEST_TIMEOUT", "The request did not come in time"),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (
        "HEADERS_TOO_LARGE",
        "The request's address and headers are too large",
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "TOO_MANY_CONNECTIONS",
        "The server has too many connections; try again in a moment",
    ),
}


class HttpConnection(HttpToolsProtocol):
    """One connection to the API, whose requests' heads are bounded in size and in time."""

    head_timeout_s: ClassVar[float] = HEAD_TIMEOUT_S
    head_bytes = 0
    head_timer: asyncio.TimerHandle | None = None
    """Runs while the address and headers of a request are awaited."""
    rest_timeout_s: ClassVar[float] = REST_TIMEOUT_S
    rest_timer: asyncio.TimerHandle | None = None
    """Runs while the rest of a body comes whose request is answered."""
    is_one_too_many = False
    """Whether it took a file descriptor that is kept for what others need."""
    in_body = False
    """The rest of a request's body comes, perhaps after its answer: it was too large, say."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] - as uvicorn has it
        super().connection_made(transport)
        taken = _taken_of_reserve(transport)
        self.is_one_too_many = taken > 0
        if taken > MOST_TAKEN:
            transport.abort()  # those that are told why would take all of it
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        self._have_body()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.is_one_too_many:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        if self.head_timer is None and not self.in_body and not self._is_answering():
            self._expect_head()
        if self.head_timer is not None:
            self.head_bytes += len(data)
        super().data_received(data)
        if self.head_timer is not None and self.head_bytes > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[ABORT] = self.transport.abort
        if self.head_timer is None:  # it came right behind another request
            self._expect_head()
            self.head_bytes = 1  # of it at least

    def on_headers_complete(self) -> None:
        self._have_head()
        self.in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._have_body()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        is_of_this = not self.pipeline  # else what comes is of a request behind it
        super().on_response_complete()
        if self.in_body and is_of_this and not self.transport.is_closing():
            self.rest_timer = self.loop.call_later(self.rest_timeout_s, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST)

    def _expect_head(self) -> None:
        self._have_head()
        timeout_s = HURRIED_S if self.is_one_too_many else self.head_timeout_s
        self.head_timer = self.loop.call_later(timeout_s, self._give_up)

    def _have_head(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
        self.head_bytes = 0

    def _have_body(self) -> None:
        self.in_body = False
        if self.rest_timer is not None:
            self.rest_timer.cancel()
            self.rest_timer = None

    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _give_up(self) -> None:
        if self.head_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        self._have_head()
        if self.transport.is_closing():
            return
        if not self._is_answering():  # else it would become a part of that answer
            self.transport.write(_answer(status))
        self.transport.close()


def _taken_of_reserve(transport: asyncio.Transport) -> float:
    """Return which part of the reserve is taken with this connection; 0 while none is."""
    # The kernel gives the lowest number that is free: it tells how many are taken.
    connection = transport.get_extra_info("socket")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if connection is None or soft == resource.RLIM_INFINITY:
        return 0.0
    reserve = max(1, min(RESERVE, soft // RESERVED_PART))
    return max(0.0, (connection.fileno() + 1 - (soft - reserve)) / reserve)


def _answer(status: HTTPStatus) -> bytes:
    code, message = REFUSALS[status]
    request_id = str(uuid4())
    body = json.dumps(
        {
            "error": status.phrase,
            "message": message,
            "statusCode": status.value,
            "code": code,
            "requestId": request_id,
        }
    ).encode()
    headers = {
        **SECURITY_HEADERS,
        "X-Request-Id": request_id,
        "Cache-Control": "no-store",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
