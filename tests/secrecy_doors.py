"""The doors through which secrets come into the product, or are made by it, each with an eye on it.

What passes is what it was: the eyes note secrets for the gate and change nothing. Servers that run
as other processes are watched from here, by what tests send them and are answered.
"""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, cast

import httpx
import structlog.testing
from pydantic import SecretStr

import craftastic.accounts.caller
import craftastic.credentials._cipher
import craftastic.environments._converge
import craftastic.keys
from craftastic import logs
from craftastic.accounts._passwords import PasswordHasher
from craftastic.accounts._tokens import AccessTokens
from craftastic.database import Database
from craftastic.settings import Settings
from tests.secrecy import GATE, Both

MOST_BODY = 256 << 10
FIELDS = {
    "password": "a password",
    "currentPassword": "a password",
    "newPassword": "a password",
    "accessToken": "an access token",
    "refreshToken": "a refresh token",
    "setupToken": "the first account's token",
    "invitation": "an invitation",
    "token": "a token",
    "ticket": "a terminal's ticket",
    "secret": "a personal access token",
}
"""Names of JSON's fields that hold secrets wherever they stand."""

WHOLE = ("jwt_secret", "encryption_key", "encryption_old_keys", "github_client_secret",
         "github_webhook_secret", "coolify_api_token")  # fmt: skip
"""Settings that are secrets from end to end; the others are URLs with a password in them."""

_opened = False


def open_doors() -> None:
    """Put the eyes in place, once in a process."""
    global _opened  # noqa: PLW0603
    if _opened:
        return
    _opened = True
    _passwords()
    _tokens()
    _stored()
    _settings()
    _logs()
    _clients(httpx.AsyncClient)
    _clients(httpx.Client)
    _processes()
    _databases()


def _replace(function: Any, other: Any) -> None:
    """Put a function in another's place, also where it was imported before."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(("craftastic", "tests")):
            for name, value in list(vars(module).items()):
                if value is function:
                    setattr(module, name, other)


def _passwords() -> None:
    for name in ("hash", "verify"):
        real = getattr(PasswordHasher, name)

        def eye(
            self: PasswordHasher, password: str, *rest: Any, real: Callable[..., Any] = real
        ) -> Any:
            GATE.know(password, "a password")
            return real(self, password, *rest)

        setattr(PasswordHasher, name, wraps(real)(eye))


def _tokens() -> None:
    issue, check = AccessTokens.issue, AccessTokens.check

    @wraps(issue)
    def issued(self: AccessTokens, **claims: Any) -> str:
        token = issue(self, **claims)
        GATE.know(token, "an access token")
        return token

    @wraps(check)
    def checked(self: AccessTokens, token: str, now: Any) -> Any:
        GATE.know(token, "an access token")
        return check(self, token, now)

    AccessTokens.issue, AccessTokens.check = issued, checked
    # Refresh tokens, mailed ones, personal ones, invitations and tickets: made or shown.
    for real in (craftastic.accounts.caller.digest, craftastic.environments._converge.token_hash):

        def eye(token: str, real: Callable[[str], str] = real) -> str:
            if not WORD.fullmatch(token):
                GATE.know(token, "a token")
            return real(token)

        _replace(real, wraps(real)(eye))


WORD = re.compile(r"[a-z]+(?:_[a-z]+)*")
"""What a fuzzer shows for a token may be a word of the API, and that stands where such words do."""


def _stored() -> None:
    seal, unseal = craftastic.credentials._cipher.seal, craftastic.credentials._cipher.unseal
    derive_key = craftastic.keys.derive_key

    @wraps(seal)
    def sealed(key: Any, place: Any, plain: str) -> str:
        GATE.know(plain, f"what is stored for {place.purpose}")
        return seal(key, place, plain)

    @wraps(unseal)
    def unsealed(find_key: Any, place: Any, stored: str) -> str:
        plain = unseal(find_key, place, stored)
        GATE.know(plain, f"what is stored for {place.purpose}")
        return plain

    @wraps(derive_key)
    def derived(text: str) -> Any:
        GATE.know(text, "a key of secrets at rest")
        return derive_key(text)

    _replace(seal, sealed)
    _replace(unseal, unsealed)
    _replace(derive_key, derived)


def _settings() -> None:
    init = Settings.__init__

    @wraps(init)
    def made(self: Settings, *arguments: Any, **values: Any) -> None:
        init(self, *arguments, **values)
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr):
                text = value.get_secret_value()
                if name not in WHOLE:  # of a URL only the password is secret
                    text = text.partition("://")[2].rpartition("@")[0].partition(":")[2]
                GATE.know(text, f"the setting {name}")

    Settings.__init__ = made


def _logs() -> None:
    configure, capture = logs.configure, structlog.testing.LogCapture.__call__

    @wraps(configure)
    def configured(*, stream: Any = None, **options: Any) -> None:
        target: Any = stream
        if stream is not GATE.written:
            target = Both(stream or sys.stderr, GATE.written)
        configure(stream=target, **options)

    @wraps(capture)
    def captured(self: Any, _: Any, method_name: str, event_dict: Any) -> NoReturn:
        # A test that looks at events keeps them from being written: the last step is done here.
        clean = logs._redact_event(None, method_name, dict(event_dict))
        GATE.written.write(json.dumps(clean, default=repr) + "\n")
        capture(self, _, method_name, event_dict)

    _replace(configure, configured)
    structlog.testing.LogCapture.__call__ = captured


def _clients(kind: type[Any]) -> None:
    send = kind.send

    if kind is httpx.AsyncClient:

        @wraps(send)
        async def asked(self: Any, request: httpx.Request, **options: Any) -> httpx.Response:
            if isinstance(self._transport, httpx.ASGITransport):
                return await send(self, request, **options)  # the product's own doors see it
            _look_at_request(request)
            answer = await send(self, request, **options)
            _look_at_answer(answer)
            return answer

        kind.send = asked
        return

    @wraps(send)
    def asked_at_once(self: Any, request: httpx.Request, **options: Any) -> httpx.Response:
        _look_at_request(request)
        answer = send(self, request, **options)
        _look_at_answer(answer)
        return answer

    kind.send = asked_at_once


def _look_at_request(request: httpx.Request) -> None:
    try:
        content = request.content
    except httpx.RequestNotRead:
        return
    body = _json(request.headers, content)
    _note(body)
    if request.url.path.rpartition("/")[0].endswith("/variables") and isinstance(body, dict):
        _know(cast("dict[str, Any]", body).get("value"), "a variable")


def _look_at_answer(answer: httpx.Response) -> None:
    try:
        content = answer.content
    except httpx.ResponseNotRead:
        return
    _note(_json(answer.headers, content))


def _json(headers: httpx.Headers, content: bytes) -> Any:
    if not content or len(content) > MOST_BODY or "json" not in headers.get("content-type", ""):
        return None
    try:
        return json.loads(content)
    except ValueError:
        return None


def _note(body: Any, depth: int = 0) -> None:
    if isinstance(body, dict) and depth < 4:
        for name, value in cast("dict[str, Any]", body).items():
            if name in FIELDS:
                _know(value, FIELDS[name])
            _note(value, depth + 1)


def _know(value: Any, kind: str) -> None:
    if isinstance(value, str):
        GATE.know(value, kind, of_a_server=True)


def _processes() -> None:
    init = subprocess.Popen.__init__

    @wraps(init)
    def started(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        GATE.process_starts(args, options.get("env"))
        log = options.get("stderr")
        if isinstance(log, io.IOBase | io.BufferedWriter) and _is_a_server(args):
            GATE.logs.setdefault(Path(cast("Any", log).name), 0)
        init(self, args, *rest, **options)

    subprocess.Popen.__init__ = started


def _is_a_server(args: Any) -> bool:
    return not isinstance(args, str | bytes) and any(
        str(word) in {"serve", "up"} or "serve.serve()" in str(word) for word in args
    )


def _databases() -> None:
    init, close = Database.__init__, Database.close

    @wraps(init)
    def opened(self: Any, url: str) -> None:
        init(self, url)
        GATE.databases[url] = None

    @wraps(close)
    async def closed(self: Any) -> None:
        await close(self)
        url = self.engine.url.render_as_string(hide_password=False)
        if self.is_sqlite:  # its folder may be gone when the test has ended
            GATE.database(url)

    Database.__init__, Database.close = opened, closed
