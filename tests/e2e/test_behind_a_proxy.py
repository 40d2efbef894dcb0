"""The server behind nginx and Caddy, with TLS and the configurations that the project ships."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from craftastic.cli.serve import PING_S
from tests.e2e.harness import PASSWORD, Api, Server, until
from tests.fakes.proxies import DEPLOY, NAME, Certificate, Proxy, caddy, make_certificate, nginx

pytestmark = pytest.mark.local

EMAIL = "a@example.com"
CLIENT = "127.0.0.2"
"""Where the test's client calls from; the proxies call the server from 127.0.0.1."""
FORGED = "198.51.100.7"
TIMEOUT_S = 4
OFTEN = "from craftastic.cli import serve; serve.PING_S = 0.5; serve.serve()"


class OftenAsking(Server):
    """A server that asks its terminals' sockets far more often whether they live."""

    program = ("-c", OFTEN)


@dataclass
class Site:
    """A server with a session in it, and its proxies."""

    server: Server
    certificate: Certificate
    environment_id: str
    session_id: str
    proxies: list[Proxy]

    @asynccontextmanager
    async def browsing(self, proxy: Proxy) -> AsyncGenerator[httpx.AsyncClient]:
        """Give a client of a proxy, which claims to be somebody else."""
        transport = httpx.AsyncHTTPTransport(verify=self.certificate.trust, local_address=CLIENT)
        headers = {
            "Host": f"{NAME}:{proxy.port}",
            "Origin": proxy.origin,
            "X-Forwarded-For": FORGED,
            "X-Real-IP": FORGED,
            "Forwarded": f"for={FORGED}",
        }
        async with httpx.AsyncClient(
            transport=transport,
            base_url=f"https://127.0.0.1:{proxy.port}",
            headers=headers,
            event_hooks={"request": [by_name]},
            timeout=30,
        ) as client:
            yield client

    @asynccontextmanager
    async def terminal(self, proxy: Proxy, ticket: str) -> AsyncGenerator[ClientConnection]:
        query = f"environmentId={self.environment_id}&ticket={ticket}"
        async with connect(
            f"wss://{NAME}:{proxy.port}/api/terminal/ws/{self.session_id}?{query}",
            host="127.0.0.1",
            port=proxy.port,
            ssl=self.certificate.trust,
            local_addr=(CLIENT, 0),
            origin=proxy.origin,  # type: ignore[arg-type]
            ping_interval=None,
            proxy=None,
        ) as connection:
            yield connection


async def by_name(request: httpx.Request) -> None:
    """Ask for the certificate of the proxies' name."""
    request.extensions["sni_hostname"] = NAME


@pytest.fixture
async def site(data_dir: Path, tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    settings = {
        "CRAFTASTIC_PUBLIC_URL": f"https://{NAME}",
        "CRAFTASTIC_TRUSTED_PROXIES": "127.0.0.1",
    }
    server = OftenAsking(data_dir, runtime="local", database_url=database_url, **settings)
    certificate = make_certificate(tmp_path)
    try:
        with ExitStack() as running:
            server.start()
            folders = [tmp_path / name for name in ("nginx", "caddy")]
            for folder in folders:
                folder.mkdir()
            proxies = [
                running.enter_context(nginx(folders[0], server.port, certificate, TIMEOUT_S)),
                running.enter_context(caddy(folders[1], server.port, certificate)),
            ]
            await server.ready()
            async with Api(server.url) as api:
                await api.register(EMAIL, setupToken=server.setup_token)
                environment = await api.environment("shared")
                session = await api.post("/api/sessions", environmentId=environment["id"], name="x")
            yield Site(server, certificate, environment["id"], session["id"], proxies)
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_everything_works_through_nginx_and_through_caddy(site: Site) -> None:
    async with anyio.create_task_group() as tasks:
        for proxy in site.proxies:
            tasks.start_soon(use, site, proxy)


async def use(site: Site, proxy: Proxy) -> None:
    async with site.browsing(proxy) as client:

        async def answers() -> bool:
            try:
                return (await client.get("/healthz")).status_code == 200
            except httpx.TransportError:
                return False

        await until(answers, f"{proxy.name} answers")
        await the_page_comes_with_its_headers(client, proxy)
        token = await the_clients_own_address_is_on_record(client, proxy)
        client.headers["Authorization"] = f"Bearer {token}"
        await what_is_too_large_is_refused_by_the_server(client, proxy)
        await events_come_at_once(client, proxy)
        asked = await client.post("/api/terminal/ticket", json={"sessionId": site.session_id})
        ticket = asked.json()["ticket"]
        await a_terminal_that_is_silent_lives_on(site, proxy, ticket)
    written = proxy.log.read_text()
    assert "/api/terminal/ws/" in written, proxy.name
    assert ticket not in written, proxy.name
    assert "environmentId" not in written, proxy.name


async def the_page_comes_with_its_headers(client: httpx.AsyncClient, proxy: Proxy) -> None:
    page = await client.get("/lite/", headers={"Accept": "text/html"})

    assert page.status_code == 200, proxy.name
    assert page.headers["strict-transport-security"] == "max-age=31536000"
    assert f"wss://{NAME}:{proxy.port}" in page.headers["content-security-policy"]


async def the_clients_own_address_is_on_record(client: httpx.AsyncClient, proxy: Proxy) -> str:
    """Sign in while claiming to be somebody else; return the access token."""
    body = {"email": EMAIL, "password": PASSWORD}
    signed_in = await client.post("/api/auth/login", json=body)
    assert signed_in.status_code == 200, (proxy.name, signed_in.text)
    token: str = signed_in.json()["data"]["accessToken"]
    headers = {"Authorization": f"Bearer {token}"}
    listed = (await client.get("/api/auth/sign-ins", headers=headers)).json()["data"]["signIns"]

    (mine,) = [one for one in listed if one["current"]]
    assert mine["address"] == CLIENT, proxy.name
    return token


async def what_is_too_large_is_refused_by_the_server(
    client: httpx.AsyncClient, proxy: Proxy
) -> None:
    answer = await client.post("/api/environments", content=b"x" * ((1 << 20) + 1))

    assert (answer.status_code, answer.json()["code"]) == (413, "TOO_LARGE"), proxy.name


async def events_come_at_once(client: httpx.AsyncClient, proxy: Proxy) -> None:
    with anyio.fail_after(TIMEOUT_S):
        async with client.stream("GET", "/api/events") as stream:
            assert stream.status_code == 200, proxy.name
            async for line in stream.aiter_lines():
                if line.startswith("event:"):
                    return


async def a_terminal_that_is_silent_lives_on(site: Site, proxy: Proxy, ticket: str) -> None:
    """Be silent for longer than the proxy's patience: only the server's pings go over the line."""
    async with site.terminal(proxy, ticket) as connection:
        await connection.send('{"type":"input","data":"echo be\'\'fore; stty -echo\\r"}')
        await shown(connection, "before")
        with anyio.move_on_after(TIMEOUT_S + 1):
            while True:
                await connection.recv()
        await connection.send('{"type":"input","data":"echo af\'\'ter\\r"}')
        await shown(connection, "after")


async def shown(connection: ClientConnection, text: str) -> None:
    seen = ""
    with anyio.fail_after(20):
        while text not in seen:
            seen += str(await connection.recv())


def test_a_proxys_patience_is_longer_than_the_servers_silence() -> None:
    shipped = (DEPLOY / "nginx" / "craftastic.conf").read_text()

    for kind in ("read", "send"):
        (hours,) = re.findall(rf"proxy_{kind}_timeout (\d+)h;", shipped)
        assert int(hours) * 3600 > 3 * PING_S
