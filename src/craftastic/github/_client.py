"""Calls to GitHub, each with a deadline and a bound; answers become values or our own errors."""

import json
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote

import anyio
import httpx

from craftastic import __version__
from craftastic.circuit import Circuit
from craftastic.clock import Clock
from craftastic.errors import Forbidden, InvalidInput, NotConfigured, RateLimited, Unavailable
from craftastic.github._api_answers import (
    Person,
    is_limit,
    next_url,
    read_person,
    sso_url,
    wait_s,
)
from craftastic.github._device_flow import (
    DeviceCode,
    Grant,
    Later,
    LoginAnswer,
    Refused,
    read_device_code,
    read_grant,
)
from craftastic.settings import Settings

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1 << 20
MAX_LIST_BYTES = 8 << 20

USER_AGENT = f"craftastic/{__version__}"
API_VERSION = "2022-11-28"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
GONE = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY}


class GitHubNotConfigured(NotConfigured):
    """The operator has not said which app of GitHub this server is."""

    code = "GITHUB_NOT_CONFIGURED"


class GitHubUnavailable(Unavailable):
    """GitHub did not answer, or not with anything that could be read."""

    code = "GITHUB_UNAVAILABLE"


class GitHubRateLimited(RateLimited):
    """GitHub wants fewer requests; nothing is wrong with the token."""

    code = "GITHUB_RATE_LIMITED"


class GitHubRefused(Forbidden):
    """GitHub knows the token and does not allow this."""

    code = "GITHUB_REFUSED"


class GitHubAuthenticationRequired(InvalidInput):
    """The user has no GitHub account connected, or its tokens are dead."""

    code = "GITHUB_AUTHENTICATION_REQUIRED"

    def __init__(self, details: str | None = None) -> None:
        super().__init__("GitHub authentication required", details=details)


class TokenRejected(GitHubAuthenticationRequired):
    """GitHub answered 401 to a token: the one answer that says that it is dead."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    Args:
        body: Parsed; None when the page is still the one with the given ETag.
        next_url: Where the list goes on.
        sso_url: Where a person opens what single sign-on hides.
    """

    body: Any
    etag: str | None
    next_url: str | None
    sso_url: str | None


@dataclass(frozen=True, slots=True)
class _Received:
    status: int
    headers: Mapping[str, str]
    body: bytes


def open_client() -> httpx.AsyncClient:
    """Make the HTTP client of a server; whoever makes it closes it.

    It keeps no cookies, which would tie one user's requests to another's, and takes no proxy and
    no password from its surroundings.
    """
    return httpx.AsyncClient(
        verify=ssl.create_default_context(),
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx.Timeout(CALL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        limits=httpx.Limits(max_connections=50, max_keepalive_connections=10),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )


@dataclass(frozen=True, slots=True)
class GitHubClient:
    """GitHub as one server sees it.

    Its API and where people sign in are two hosts: one that hangs keeps nobody from the other.
    """

    http: httpx.AsyncClient
    settings: Settings
    clock: Clock
    _circuits: dict[bytes, Circuit] = field(default_factory=dict[bytes, Circuit], init=False)

    @property
    def client_id(self) -> str:
        """Return the app's client id.

        Raises:
            GitHubNotConfigured: There is none.
        """
        if self.settings.github_client_id is None:
            raise GitHubNotConfigured(
                "GitHub is not configured",
                details="Register a GitHub App with the device flow enabled, and set "
                "GITHUB_CLIENT_ID to its client id.",
            )
        return self.settings.github_client_id

    async def begin(self) -> DeviceCode | Refused | Later:
        """Ask for a device code; `Later` also when GitHub cannot be reached."""
        scopes = " ".join(self.settings.github_scopes.replace(",", " ").split())
        form = {"client_id": self.client_id, "scope": scopes}
        return read_device_code(await self._login("/login/device/code", form))

    async def redeem(self, device_code: str) -> Grant | Refused | Later:
        """Ask for the tokens of a device code, once."""
        return await self._grant(grant_type=DEVICE_GRANT, device_code=device_code)

    async def refresh(self, refresh_token: str) -> Grant | Refused | Later:
        """Exchange a refresh token for a new pair; the old pair is dead after that.

        Tokens of the device flow are refreshed without the client's secret.
        """
        return await self._grant(grant_type="refresh_token", refresh_token=refresh_token)

    async def person(self, token: str, timeout_s: float = CALL_TIMEOUT_S) -> Person:
        """Return whom a token acts for.

        Raises:
            TokenRejected: It is dead.
            GitHubRateLimited, GitHubRefused, GitHubUnavailable: Nothing is known about it.
        """
        url = f"{self.settings.github_api}/user"
        received = await self._api("GET", url, headers=_bearer(token), timeout_s=timeout_s)
        self._check(received)
        person = read_person(_parsed(received.body), received.headers)
        if person is None:
            raise GitHubUnavailable("GitHub's answer could not be read; try again.")
        return person

    async def page(self, token: str, url: str, etag: str | None = None) -> Page:
        """Return one page of a list.

        Raises:
            TokenRejected: The token is dead.
            GitHubRateLimited, GitHubRefused, GitHubUnavailable: As named.
        """
        headers = _bearer(token) | ({} if etag is None else {"If-None-Match": etag})
        received = await self._api("GET", url, headers=headers, max_bytes=MAX_LIST_BYTES)
        unchanged = received.status == HTTPStatus.NOT_MODIFIED and etag is not None
        if not unchanged:
            self._check(received)
        return Page(
            body=None if unchanged else _parsed(received.body),
            etag=received.headers.get("etag", "")[:200] or None,
            next_url=next_url(received.headers, self.settings.github_api),
            sso_url=sso_url(received.headers, self.settings.github_url),
        )

    async def revoke(self, access_token: str, refresh_token: str | None) -> bool:
        """End tokens at GitHub; False when it is not known that they ended.

        With the app's secret an access token is ended by the app; everything else by whoever
        holds it, without authentication, of which GitHub tells the account's owner by mail.

        Raises:
            GitHubUnavailable: No answer.
        """
        left = [refresh_token] if refresh_token else []
        if not await self._revoke_as_app(access_token):
            left.insert(0, access_token)
        return not left or await self._revoke_as_holder(left)

    async def _revoke_as_app(self, token: str) -> bool:
        secret, client_id = self.settings.github_client_secret, self.settings.github_client_id
        if secret is None or client_id is None:
            return False
        received = await self._api(
            "DELETE",
            f"{self.settings.github_api}/applications/{quote(client_id, safe='')}/token",
            headers=_basic(client_id, secret.get_secret_value()),
            content={"access_token": token},
        )
        return received.status in GONE

    async def _revoke_as_holder(self, tokens: Sequence[str]) -> bool:
        url = f"{self.settings.github_api}/credentials/revoke"
        received = await self._api("POST", url, content={"credentials": list(tokens)})
        return httpx.codes.is_success(received.status)

    async def _grant(self, **form: str) -> Grant | Refused | Later:
        form["client_id"] = self.client_id
        return read_grant(await self._login("/login/oauth/access_token", form))

    async def _login(self, path: str, form: Mapping[str, str]) -> LoginAnswer:
        request = self.http.build_request(
            "POST",
            self.settings.github_url + path,
            data=dict(form),
            headers={"Accept": "application/json"},
        )
        try:
            received = await self._send(request, MAX_ANSWER_BYTES, CALL_TIMEOUT_S)
        except GitHubUnavailable:
            return LoginAnswer(0, b"")
        limited = is_limit(received.status, received.headers, received.body)
        later_s = wait_s(received.headers, self.clock.now()) if limited else None
        return LoginAnswer(received.status, received.body, later_s)

    async def _api(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: object = None,
        max_bytes: int = MAX_ANSWER_BYTES,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> _Received:
        sent = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": API_VERSION}
        request = self.http.build_request(
            method, url, headers=sent | dict(headers or {}), json=content
        )
        return await self._send(request, max_bytes, timeout_s)

    async def _send(self, request: httpx.Request, max_bytes: int, timeout_s: float) -> _Received:
        # There are as many as hosts in the settings: no request is built for another one.
        circuit = self._circuits.setdefault(request.url.netloc, Circuit())
        if circuit.is_open():
            raise GitHubUnavailable(
                "GitHub does not answer; try again.", reason="nor did it lately"
            )
        try:
            with anyio.fail_after(timeout_s):
                response = await self.http.send(request, stream=True)
                circuit.answered()
                try:
                    body = await _bounded(response, max_bytes)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
            circuit.unanswered()
            raise GitHubUnavailable(
                "GitHub does not answer; try again.", reason=type(error).__name__
            ) from error
        return _Received(response.status_code, response.headers, body)

    def _check(self, received: _Received) -> None:
        """Turn a failed answer into its error.

        Raises:
            TokenRejected, GitHubRateLimited, GitHubRefused, GitHubUnavailable: As named.
        """
        status = received.status
        if httpx.codes.is_success(status):
            return
        if status == HTTPStatus.UNAUTHORIZED:
            raise TokenRejected
        if is_limit(status, received.headers, received.body):
            raise GitHubRateLimited(
                "GitHub asks to wait; try again later.",
                retry_after_s=wait_s(received.headers, self.clock.now()),
            )
        if status in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            url = sso_url(received.headers, self.settings.github_url)
            error = GitHubRefused("GitHub does not allow this", status=status)
            if url is not None:
                error.details = "The organization asks for its single sign-on first."
                error.answer["sso_url"] = url
            raise error
        raise GitHubUnavailable("GitHub does not answer; try again.", status=status)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}


async def _bounded(response: httpx.Response, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise GitHubUnavailable("GitHub's answer is too large.", bytes=len(body))
    return bytes(body)


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise GitHubUnavailable("GitHub's answer could not be read; try again.") from error
