"""Accounts over a real mail server, and clients of them at addresses of their own."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI
from pwdlib.hashers.argon2 import Argon2Hasher

from craftastic.accounts import endpoints
from craftastic.accounts._passwords import PasswordHasher
from craftastic.accounts.service import AccountService, access_tokens
from craftastic.audit.service import AuditService
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.http import errors, middleware
from craftastic.mail.service import MailService
from craftastic.metrics import Metrics
from craftastic.settings import Settings
from tests.fakes.asgi import WithState
from tests.fakes.mail_server import MailServer, mail_server
from tests.secrecy import canary

BASE_URL = "https://craftastic.example"
PASSWORD = canary("password")
NEW_PASSWORD = canary("new-password")
HOME = "198.51.100.7"
ELSEWHERE = "203.0.113.9"


def quick_hasher() -> PasswordHasher:
    """Return a hasher of little cost, for tests that are not about the cost."""
    hasher = PasswordHasher()
    hasher._argon2 = Argon2Hasher(time_cost=1, memory_cost=64, parallelism=1)
    return hasher


@dataclass
class AccountRig:
    """One server process's accounts, and the mail that they send."""

    accounts: AccountService
    server: MailServer
    mail: MailService
    audit: AuditService
    trusted_proxies: tuple[str, ...] = ()

    def client(
        self, address: str = HOME, *, more_routes: APIRouter | None = None, **changes: Any
    ) -> httpx.AsyncClient:
        """Return a client at an address; with changes, of accounts with other settings."""
        app = FastAPI(openapi_url=None, redirect_slashes=False)
        errors.install(app)
        middleware.install(
            app,
            metrics=Metrics(),
            max_body_bytes=1 << 20,
            trusted_proxies=self.trusted_proxies,
        )
        app.include_router(endpoints.router)
        if more_routes is not None:
            app.include_router(more_routes)
        accounts = replace(self.accounts, **changes) if changes else self.accounts
        transport = httpx.ASGITransport(
            WithState(app, {"accounts": accounts}), client=(address, 1234)
        )
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:3000")


@asynccontextmanager
async def account_rig(
    database: Database, clock: Clock, folder: Path, **changes: Any
) -> AsyncGenerator[AccountRig]:
    """Run the background work of accounts, registration being open."""
    async with mail_server() as server:
        settings = Settings.model_validate(
            {
                "data_dir": folder,
                "smtp_url": f"smtp://127.0.0.1:{server.port}?security=none",
                "public_url": BASE_URL,
            }
        )
        mail = MailService(settings, clock)
        audit = AuditService(database, clock)
        options: dict[str, Any] = {"registration": "open", "passwords": quick_hasher(), **changes}
        accounts = AccountService(
            database,
            clock,
            access_tokens(b"k" * 32, 900),
            folder / "keys",
            mail=mail,
            audit=audit,
            base_url=settings.base_url,
            **options,
        )
        async with mail.running():
            yield AccountRig(accounts, server, mail, audit)


async def asked(client: httpx.AsyncClient, route: str, **body: object) -> httpx.Response:
    """Send a body to a route of accounts."""
    return await client.post(f"/api/auth/{route}", json=body)


async def registered(
    client: httpx.AsyncClient, email: str = "a@example.com", password: str = PASSWORD
) -> dict[str, Any]:
    """Register an account and return its tokens."""
    answer = await asked(client, "register", email=email, password=password, name="A")
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def logged_in(
    client: httpx.AsyncClient, password: str = PASSWORD, email: str = "a@example.com"
) -> httpx.Response:
    return await asked(client, "login", email=email, password=password)


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['accessToken']}"}
