"""A server's API as the signed-in user: tokens kept fresh, refusals told as sentences."""

import base64
import binascii
import ipaddress
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote, urlsplit

import anyio
import httpx

from craftastic.cli.output import printable
from craftastic.cli.store import SignIn, SignIns
from craftastic.errors import (
    Conflict,
    CraftasticError,
    Forbidden,
    InternalError,
    InvalidInput,
    NotConfigured,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

DEFAULT_URL = "http://127.0.0.1:3000"
TIMEOUT_S = 30.0
CREATE_TIMEOUT_S = 1800.0
"""How long a create may take, in seconds: the first one may build an image."""

REFRESH_TIMEOUT_S = 20.0
SOON_S = 30.0
"""A request renews a token that ends sooner than this, in seconds."""

TERMINAL_S = 300.0
"""A terminal is opened with a token that is good for this long, in seconds."""

MAX_CLAIMS_BYTES = 8 << 10
NEVER = 253_402_300_799.0
"""The last second that four digits of a year can tell."""

CATEGORIES: dict[int, type[CraftasticError]] = {
    HTTPStatus.BAD_REQUEST: InvalidInput,
    HTTPStatus.UNAUTHORIZED: Unauthenticated,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLarge,
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidInput,
    HTTPStatus.TOO_MANY_REQUESTS: RateLimited,
    HTTPStatus.NOT_IMPLEMENTED: NotConfigured,
    HTTPStatus.BAD_GATEWAY: Unavailable,
    HTTPStatus.SERVICE_UNAVAILABLE: Unavailable,
    HTTPStatus.GATEWAY_TIMEOUT: Unavailable,
}


OTHERS_ANSWER = {
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_IMPLEMENTED,
}
"""What servers of other kinds answer to our requests."""


class ServerUnreachable(Unavailable):
    """Nothing answers at the server's address, or the connection broke."""


class NotCraftastic(Unavailable):
    """Something answers at the server's address, and it is no Craftastic server."""


def parse_url(text: str) -> str:
    """Return a server's address in the one form that sign-ins are kept under.

    Raises:
        InvalidInput: It is not an http or https address without user, query and fragment.
    """
    parts = urlsplit(text.strip() if "://" in text else f"http://{text.strip()}")
    try:
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"{text} is not a server's address: bad port.") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInput(
            f"{text} is not a server's address such as https://craftastic.example.com."
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("A server's address holds no user name and no password.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/").removesuffix("/api")
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{path}"


def is_local(url: str) -> bool:
    """Tell whether the server runs on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def segment(value: object) -> str:
    """Return a value as one segment of a path, slashes included."""
    return quote(str(value), safe="")


def refusal(status: int, body: object) -> CraftasticError:
    """Turn an answer that is no success into the error category with the server's sentence.

    The sentence is in `message` where `error` carries a code, else in `error`.
    """
    fields = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    server_failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    category = CATEGORIES.get(status, InternalError if server_failed else InvalidInput)
    texts = [fields.get("message"), fields.get("error"), f"The server answered {status}."]
    message = next(printable(text) for text in texts if isinstance(text, str) and text.strip())
    details = fields.get("details")
    error = category(message)
    if isinstance(details, str) and details != message:
        error.details = "\n".join(printable(line) for line in details.splitlines())
    error.answer = dict(fields)
    return error


def claims(token: str) -> dict[str, Any]:
    """Read an access token's claims without checking it: only to know when it ends."""
    try:
        payload = token.split(".")[1][:MAX_CLAIMS_BYTES]
        value: object = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def signed_in(tokens: Mapping[str, Any]) -> SignIn:
    """Turn the API's token pair into a sign-in.

    Raises:
        InternalError: The answer has not the documented form.
    """
    try:
        token = str(tokens["accessToken"])
        user = tokens["user"]
        told = claims(token)
        lifetime_s = max(float(told.get("exp", 0)) - float(told.get("iat", 0)), 0.0)
        return SignIn(
            access_token=token,
            refresh_token=str(tokens["refreshToken"]),
            # The server's clock may differ from ours, so only the length of the life is used.
            expires_at=time.time() + lifetime_s,
            lifetime_s=lifetime_s,
            user_id=str(user["id"]),
            email=str(user["email"]),
            name=str(user["name"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InternalError("The server's answer to the sign-in has an unknown form.") from error


def with_access_token(token: str, me: Mapping[str, Any]) -> SignIn:
    """Return the sign-in that a personal access token makes.

    Raises:
        InternalError: The answer about its user has not the documented form.
    """
    try:
        user = me["data"]["user"]
        return SignIn(
            access_token=token,
            refresh_token="",
            expires_at=NEVER,  # the server tells when it is over
            lifetime_s=0.0,
            user_id=str(user["id"]),
            email=str(user["email"]),
            name=str(user["name"]),
        )
    except (KeyError, TypeError) as error:
        raise InternalError("The server's answer to the sign-in has an unknown form.") from error


class Remote:
    """The API of one server."""

    def __init__(self, url: str, sign_ins: SignIns, client: httpx.AsyncClient) -> None:
        self.url = url
        self.sign_ins = sign_ins
        self._client = client

    def signed_in(self) -> SignIn:
        """Return the sign-in.

        Raises:
            Unauthenticated: There is none.
        """
        found = self.sign_ins.find(self.url)
        if found is None:
            raise Unauthenticated(f"You are not signed in at {self.url}; run `craftastic login`.")
        return found

    async def get(self, path: str, *, timeout_s: float = TIMEOUT_S) -> Any:
        return await self._signed("GET", path, None, timeout_s)

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> Any:
        return await self._signed("POST", path, body, timeout_s)

    async def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._signed("PUT", path, body, TIMEOUT_S)

    async def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._signed("PATCH", path, body, TIMEOUT_S)

    async def delete(self, path: str) -> Any:
        return await self._signed("DELETE", path, None, CREATE_TIMEOUT_S)

    async def public(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send a request without a token.

        Raises:
            ServerUnreachable: Nothing answered.
            CraftasticError: The server refused; the category is that of the answer.
        """
        return await self._send(method, path, body, TIMEOUT_S, token=None)

    async def alive(self) -> bool:
        """Tell whether a server answers at all."""
        try:
            answer = await self._client.get(f"{self.url}/healthz", timeout=TIMEOUT_S)
        except (httpx.TransportError, httpx.InvalidURL):
            return False
        return answer.status_code == HTTPStatus.OK

    async def sign_in(self, path: str, body: Mapping[str, Any]) -> SignIn:
        """Log in or register and keep the sign-in; its server becomes the current one.

        Raises:
            Unauthenticated: The server wants the address confirmed first; it says so.
        """
        answer = await self.public("POST", path, body)
        if "data" not in answer and "message" in answer:
            raise Unauthenticated(f"{answer['message']}.")
        new = signed_in(answer.get("data") or {})
        async with self.sign_ins.lock():
            self.sign_ins.put(self.url, new, current=True)
        return new

    async def sign_in_by_access_token(self, token: str) -> SignIn:
        """Keep a personal access token as the sign-in; its server becomes the current one.

        Raises:
            Unauthenticated: The server does not take it.
        """
        try:
            answer = await self._send("GET", "/api/auth/me", None, TIMEOUT_S, token=token)
        except Unauthenticated as error:
            raise Unauthenticated(f"{self.url} does not take this access token.") from error
        new = with_access_token(token, answer)
        async with self.sign_ins.lock():
            self.sign_ins.put(self.url, new, current=True)
        return new

    async def sign_out(self) -> SignIn | None:
        """End the sign-in at the server and forget it here, even when the server is away.

        Returns:
            What was forgotten. A personal access token is nothing that the server could end by
            itself: it stays good until it is revoked.
        """
        async with self.sign_ins.lock():
            found = self.sign_ins.find(self.url)
            if found is None:
                return None
            try:
                if not found.is_access_token:
                    body = {"refreshToken": found.refresh_token}
                    await self.public("POST", "/api/auth/logout", body)
            finally:
                self.sign_ins.forget(self.url)
        return found

    async def token(self, *, least_s: float = SOON_S, not_this: str | None = None) -> str:
        """Return an access token that lasts, renewed where needed.

        Args:
            least_s: How long it must be good for, in seconds.
            not_this: A token that the server has refused, whatever its age.

        Raises:
            Unauthenticated: Not signed in, or the sign-in has ended.
        """
        found = self.signed_in()
        if found.access_token != not_this and found.lasts(least_s):
            return found.access_token
        # Once the request is out, the answer must be kept: the old refresh token is used up.
        with anyio.CancelScope(shield=True):
            async with self.sign_ins.lock():
                found = self.signed_in()  # another command may have renewed it while we waited
                if found.access_token == not_this or not found.lasts(least_s):
                    found = await self._renewed(found)
        return found.access_token

    async def _renewed(self, old: SignIn) -> SignIn:
        if old.is_access_token:
            self.sign_ins.forget(self.url)
            raise Unauthenticated(
                f"The access token for {self.url} has expired or was revoked; "
                "run `craftastic login`."
            )
        try:
            answer = await self._send(
                "POST",
                "/api/auth/refresh",
                {"refreshToken": old.refresh_token},
                REFRESH_TIMEOUT_S,
                token=None,
            )
        except Unauthenticated as error:
            self.sign_ins.forget(self.url)
            raise Unauthenticated(
                f"Your sign-in at {self.url} has ended; run `craftastic login`."
            ) from error
        new = signed_in(answer.get("data") or {})
        self.sign_ins.put(self.url, new)
        return new

    async def _signed(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> Any:
        token = await self.token()
        try:
            return await self._send(method, path, body, timeout_s, token=token)
        except Unauthenticated:
            token = await self.token(not_this=token)
            return await self._send(method, path, body, timeout_s, token=token)

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout_s: float,
        *,
        token: str | None,
    ) -> Any:
        try:
            answer = await self._client.request(
                method,
                self.url + path,
                json=None if body is None else dict(body),
                headers={} if token is None else {"Authorization": f"Bearer {token}"},
                timeout=httpx.Timeout(timeout_s, connect=10.0),
            )
        except httpx.ConnectError as error:
            raise ServerUnreachable(self._nobody()) from error
        except httpx.TimeoutException as error:
            raise ServerUnreachable(f"The server at {self.url} did not answer in time.") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ServerUnreachable(
                f"The connection to {self.url} broke: {printable(error) or type(error).__name__}."
            ) from error
        return self._answer(answer)

    def _answer(self, answer: httpx.Response) -> Any:
        try:
            value: object = answer.json()
        except ValueError:
            value = None
        fields = cast("dict[str, Any]", value) if isinstance(value, dict) else None
        if fields is None and (
            answer.is_success or answer.is_redirect or answer.status_code in OTHERS_ANSWER
        ):
            raise NotCraftastic(
                f"What answers at {self.url} is not a Craftastic server: it answered"
                f" {answer.status_code}, and no JSON."
            )
        if fields is None or not answer.is_success:
            raise refusal(answer.status_code, fields)
        return fields

    def _nobody(self) -> str:
        if self.url == DEFAULT_URL:
            return (
                f"No server answers at {self.url}. Start one with `craftastic serve` in another"
                " terminal, or name yours: `craftastic login URL`."
            )
        if is_local(self.url):
            return f"No server answers at {self.url}. Start it with `craftastic serve`."
        return f"No server answers at {self.url}. Is the address right, and is the server up?"


@asynccontextmanager
async def connected(url: str, sign_ins: SignIns) -> AsyncGenerator[Remote]:
    """Open the API of a server for the time of a command."""
    # A proxy of the environment cannot reach this machine's own loopback.
    async with httpx.AsyncClient(trust_env=not is_local(url), follow_redirects=False) as client:
        yield Remote(url, sign_ins, client)
