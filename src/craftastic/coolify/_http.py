"""Sends one question to a Coolify: with a deadline, a bound, and an error for each refusal."""

import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import anyio
import httpx

from craftastic import __version__
from craftastic.circuit import Circuit
from craftastic.coolify._answers import clean, is_object, said, unreadable
from craftastic.coolify.errors import (
    BadCoolifyUrl,
    CoolifyAbilityMissing,
    CoolifyAddressRefused,
    CoolifyApiOff,
    CoolifyBusy,
    CoolifyNotFound,
    CoolifyRefused,
    CoolifyTokenRejected,
    CoolifyUnavailable,
)
from craftastic.errors import CraftasticError, InvalidInput, Unavailable

CONNECT_S = 5.0
CALL_S = 10.0
MAX_ANSWER_BYTES = 1 << 20
MAX_LOG_BYTES = 8 << 20
MAX_REFUSAL_BYTES = 64 << 10
"""Of a refusal no more is read; a longer one says nothing."""

AT_ONCE = 8
"""Most questions to one Coolify at once: a slow one keeps no connections from the others."""

MAY_BE_ALLOWED = (
    "The operator of this server can allow the address with CRAFTASTIC_COOLIFY_ORIGINS."
)
NOT_ANSWERED = (
    "Check Coolify's address and whether it is up; when both are right, try again in a minute."
)
FULL_QUEUE_WAIT_S = 60.0
MAX_WAIT_S = 3600.0
MIN_SECRET_CHARS = 12

_PERMISSIONS = re.compile(r"missing required permissions?:\s*([a-z:, ]{1,100})", re.IGNORECASE)
_OF_A_ROLE = re.compile(r"\b(?:role|permission)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Received:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, weakref_slot=True)
class Turns:
    """How many questions to one Coolify may run at once."""

    semaphore: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(AT_ONCE))


class AllTurns:
    """The turns of each Coolify, or of each user, that is asked or asks now."""

    def __init__(self) -> None:
        self._of: WeakValueDictionary[str, Turns] = WeakValueDictionary()

    def of(self, whose: str) -> Turns:
        return self._of.setdefault(whose, Turns())


@dataclass(frozen=True, slots=True)
class Line:
    """Questions to one Coolify with one token."""

    http: httpx.AsyncClient
    base: str
    token: str = field(repr=False)
    turns: Turns
    circuit: Circuit
    call_s: float = CALL_S

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: object = None,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Received:
        """Send one request and return the answer that is a success; nothing is tried again.

        Args:
            method: The verb.
            path: After the base; its variable parts are checked by the caller.
            params: The query.
            content: The body, as JSON.
            max_bytes: The longest answer.

        Raises:
            CraftasticError: One of `coolify.errors`. Cancellation closes the connection; whether
                the request had its effect is not known then, nor after `CoolifyUnavailable`.
        """
        received = await self._send(method, path, params, content, max_bytes)
        if not httpx.codes.is_success(received.status):
            raise refusal(replace(received, body=received.body[:MAX_REFUSAL_BYTES]))
        return received

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        content: object,
        max_bytes: int,
    ) -> Received:
        host = urlsplit(self.base).netloc
        if self.circuit.is_open():
            raise CoolifyUnavailable(
                f"Coolify does not answer: {host} did not a moment ago.", details=NOT_ANSWERED
            )
        question = _Question(self.circuit)
        try:
            request = self.http.build_request(
                method,
                self.base + path,
                params=params,
                json=content,
                headers={"Accept": "application/json", "Authorization": f"Bearer {self.token}"},
                extensions={"trace": question.trace},
            )
            async with self._turn():
                with anyio.fail_after(self.call_s):
                    response = await self.http.send(request, stream=True)
                    question.answered()
                    try:
                        body = await _bounded(response, max_bytes)
                    finally:
                        await response.aclose()
        # What is wrong inside of TLS comes as it is, an OSError, through every layer above it.
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
            question.failed()
            raise CoolifyUnavailable(
                f"Coolify does not answer: {_why(host, error)}.",
                details=NOT_ANSWERED,
                reason=type(error).__name__,
            ) from error
        except CoolifyUnavailable:
            raise
        except InvalidInput as error:
            # The client for users' own addresses says so of what is no public one. It names the
            # settings of git where the operator can help; there is one for Coolify.
            raise BadCoolifyUrl(
                f"Coolify cannot be asked at that address: {error.message}",
                details=MAY_BE_ALLOWED if error.details else None,
            ) from error
        except Unavailable as error:
            raise CoolifyUnavailable(error.message, details=error.details) from error
        return Received(response.status_code, response.headers, self._without_token(body))

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        """Wait for one of the turns, no longer than for an answer.

        Raises:
            TimeoutError: Those that have one kept it.
        """
        with anyio.fail_after(self.call_s):
            await self.turns.semaphore.acquire()
        try:
            yield
        finally:
            self.turns.semaphore.release()

    def _without_token(self, body: bytes) -> bytes:
        """Take the token out of an answer that repeats it, so that no text can show it."""
        for secret in (self.token, self.token.rpartition("|")[2]):
            if len(secret) >= MIN_SECRET_CHARS:
                for form in {secret, secret.replace("/", "\\/")}:
                    body = body.replace(form.encode(), b"[token]")
        return body


@dataclass(slots=True)
class _Question:
    """Tells the circuit what became of one question.

    One that waited in vain for its turn, or for a connection, says nothing of the Coolify; nor
    does one that was answered with more than could be read in time.
    """

    circuit: Circuit
    _begun: bool = field(default=False, init=False)
    _answered: bool = field(default=False, init=False)

    async def trace(self, _event: str, _info: object) -> None:
        """Notice that there is a connection for it, or that one is being opened."""
        self._begun = True

    def answered(self) -> None:
        self._answered = True
        self.circuit.answered()

    def failed(self) -> None:
        if self._begun and not self._answered:
            self.circuit.unanswered()


async def _bounded(response: httpx.Response, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise TooLong
    return bytes(body)


class TooLong(CoolifyUnavailable):
    """The answer is longer than anything that is kept."""

    def __init__(self) -> None:
        super().__init__("Coolify's answer is too long to be read.")


def refusal(received: Received) -> CraftasticError:
    """Return the error that an answer is which is no success."""
    status = received.status
    message = said(received.body)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return CoolifyUnavailable(
            f"Coolify answered with an error ({status}).",
            details=f"It said: {message}" if message else "Try again in a minute.",
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        full = "queue" in message.lower()
        return CoolifyBusy(retry_after_s=_wait_s(received.headers), queue_full=full)
    if status == HTTPStatus.UNAUTHORIZED or _is_old_word_for_it(status, received.body, message):
        return CoolifyTokenRejected()
    if status == HTTPStatus.FORBIDDEN:
        return _forbidden(received.body, message)
    if status < HTTPStatus.BAD_REQUEST:
        return CoolifyUnavailable(
            "Coolify's address leads on to another one.",
            details="Give the address where it ends, as in https://coolify.example.com.",
        )
    if status == HTTPStatus.NOT_FOUND:
        # What stands before a Coolify that is down, or another program, has its own 404.
        return CoolifyNotFound(message) if message else unreadable()
    return CoolifyRefused(message, status=status)


def _is_old_word_for_it(status: int, body: bytes, message: str) -> bool:
    """Tell the 400 of 4.1 about a token whose team is gone."""
    return (
        status == HTTPStatus.BAD_REQUEST and is_object(body, "docs") and "token" in message.lower()
    )


def _forbidden(body: bytes, message: str) -> CraftasticError:
    if is_object(body, "success", True):  # on a refusal, indeed
        return CoolifyApiOff() if "disabled" in message.lower() else CoolifyAddressRefused()
    if match := _PERMISSIONS.search(message):
        named = clean(match[1], 100).lower().replace(",", " ").split()
        return CoolifyAbilityMissing(tuple(dict.fromkeys(named[:8])))
    if _OF_A_ROLE.search(message):
        return CoolifyAbilityMissing()
    return CoolifyRefused(message, status=HTTPStatus.FORBIDDEN)


def _wait_s(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        return FULL_QUEUE_WAIT_S
    return min(MAX_WAIT_S, max(1.0, float(text)))


def _why(host: str, error: BaseException) -> str:
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return f"{host} took too long"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate of {host} is not valid ({clean(cause.verify_message, 100)})"
    if cause is not None:
        return f"{host} does not speak TLS as it should"
    if isinstance(error, httpx.ConnectError):
        return f"{host} cannot be reached"
    return f"the connection to {host} broke"


def operator_client() -> httpx.AsyncClient:
    """Make the client for the Coolify that the operator set, which may be anywhere.

    It keeps no cookies and takes no proxy and no password from its surroundings.
    """
    return httpx.AsyncClient(
        verify=ssl.create_default_context(),
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx.Timeout(CALL_S, connect=CONNECT_S),
        limits=httpx.Limits(max_connections=50, max_keepalive_connections=10),
        headers={"User-Agent": f"craftastic/{__version__}", "Accept-Encoding": "identity"},
    )
