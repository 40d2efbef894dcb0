"""The web page as the app serves it: its files, their headers, and nothing beside them."""

import gzip
import http.client
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import httpx
import pytest
from fastapi import FastAPI

from craftastic.app import build_app
from craftastic.http import static
from craftastic.settings import Settings
from tests.fakes.asgi import client_of
from tests.fakes.event_rig import serving

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SCRIPT = b"console.log('" + b"a" * 2000 + b"')"
NAME = "/assets/main-4f2a91.js"
CANARY = "canary-4711"
HOST = "127.0.0.1:3000"

PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        f"img-src 'self' data:; connect-src 'self' ws://{HOST} wss://{HOST}; font-src 'self'; "
        "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": (
        "accelerometer=(), camera=(), display-capture=(), geolocation=(), "
        "gyroscope=(), hid=(), magnetometer=(), microphone=(), midi=(), payment=(), serial=(), "
        "usb=(), xr-spatial-tracking=(), clipboard-read=(self)"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a built page, with something beside it that must not be served."""
    app = tmp_path / "web" / "app"
    (app / "assets").mkdir(parents=True)
    (tmp_path / "web" / "lite").mkdir()
    (app / "index.html").write_text("<!doctype html><title>the page</title>")
    (app / "theme.js").write_text("1")
    (app / "favicon.svg").write_text("<svg/>")
    (app / ".stamp").write_text("hidden")
    script = app / NAME[1:]
    script.write_bytes(SCRIPT)
    script.with_name(script.name + ".gz").write_bytes(gzip.compress(SCRIPT))
    script.with_name(script.name + ".br").write_bytes(b"as brotli")
    (tmp_path / "web" / "lite" / "index.html").write_text("lite")
    (tmp_path / "secret").write_text(CANARY)
    (app / "link").symlink_to(tmp_path / "secret")
    return tmp_path / "web"


def built(folder: Path, **settings: object) -> FastAPI:
    """Make the app with another folder of pages."""
    values = {"data_dir": "/nonexistent", "port": 3000, **settings}
    app = build_app(Settings.model_validate(values))
    site = app.router.default
    assert isinstance(site, static.Site)
    site.folder = folder
    return app


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(built(folder)) as one:
        yield one


async def test_the_page_answers_every_address_that_a_browser_opens(
    client: httpx.AsyncClient,
) -> None:
    for path in ("/", "/index.html", "/e/1", "/s/1/diff", "/settings/keys", "/a%2Fb", "/apis"):
        answer = await client.get(path, headers=HTML)

        assert answer.status_code == 200, path
        assert answer.text.endswith("<title>the page</title>"), path
        assert answer.headers["cache-control"] == "no-cache", path
        assert answer.headers["content-type"] == "text/html; charset=utf-8", path


async def test_the_headers_of_a_page_are_these(client: httpx.AsyncClient) -> None:
    for path in ("/", NAME, "/lite/"):
        answer = await client.get(path, headers=HTML)

        found = {name: answer.headers.get(name) for name in PAGE_HEADERS}
        assert found == PAGE_HEADERS, path
        assert "strict-transport-security" not in answer.headers


async def test_browsers_are_told_to_insist_on_https_where_the_public_address_has_it(
    folder: Path,
) -> None:
    app = built(folder, public_url="https://craft.example.com")
    async with client_of(app) as client:
        answer = await client.get("/", headers=HTML)

    assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("host", ["a.example.com:8443", "[::1]:3000", "localhost"])
def test_a_socket_to_where_the_page_came_from_is_allowed(host: str) -> None:
    assert f"connect-src 'self' ws://{host} wss://{host};" in static.content_policy(host)


@pytest.mark.parametrize("host", ["", "a; script-src *", "a b", "*", "a.example:x", "a\n", "//a"])
def test_a_host_that_is_none_gets_into_no_policy(host: str) -> None:
    assert "connect-src 'self'; " in static.content_policy(host)


async def test_files_with_a_hash_in_their_names_are_kept_for_ever_and_others_are_not(
    client: httpx.AsyncClient,
) -> None:
    script = await client.get(NAME)
    theme = await client.get("/theme.js")
    icon = await client.get("/favicon.svg")

    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert theme.headers["cache-control"] == icon.headers["cache-control"] == "no-cache"
    assert icon.headers["content-type"] == "image/svg+xml"


async def test_a_file_that_is_known_already_is_not_sent_again(client: httpx.AsyncClient) -> None:
    etag = (await client.get("/theme.js")).headers["etag"]

    for known in (etag, f'"x", {etag}', "*", etag.removeprefix("W/")):
        answer = await client.get("/theme.js", headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b""), known
        assert answer.headers["etag"] == etag
    other = await client.get("/theme.js", headers={"If-None-Match": '"x"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("accepts", "encoding"),
    [
        ("br, gzip", "br"),
        ("gzip, deflate, BR", "br"),
        ("gzip", "gzip"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("*", "br"),
        ("br;q=0.0, *;q=0", None),
        ("identity", None),
        ("", None),
    ],
)
async def test_what_is_sent_is_compressed_as_the_client_likes_it(
    accepts: str, encoding: str | None, client: httpx.AsyncClient
) -> None:
    async with client.stream("GET", NAME, headers={"Accept-Encoding": accepts}) as answer:
        raw = b"".join([part async for part in answer.aiter_raw()])

    wanted = {"br": b"as brotli", "gzip": gzip.compress(SCRIPT), None: SCRIPT}[encoding]
    assert answer.headers.get("content-encoding") == encoding
    assert raw[:4] == wanted[:4]
    assert len(raw) == len(wanted) == int(answer.headers["content-length"])
    assert answer.headers["vary"] == "Accept-Encoding"


async def test_head_answers_like_get_without_a_body(folder: Path) -> None:
    async with serving(built(folder)) as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/", NAME, "/lite/"):
            get = await client.get(path, headers=HTML | {"Accept-Encoding": "identity"})
            head = await client.head(path, headers=HTML | {"Accept-Encoding": "identity"})

            assert head.content == b""
            assert head.status_code == 200
            for name in ("content-length", "etag", "content-type", "cache-control"):
                assert head.headers[name] == get.headers[name], (path, name)


async def test_errors_of_the_api_stay_what_they_were(client: httpx.AsyncClient) -> None:
    for path in ("/api", "/api/", "/api/nothing", "/api/environments/x/y/z"):
        answer = await client.get(path, headers=HTML)
        assert answer.status_code == 404, path
        assert answer.json()["code"] == "ROUTE_NOT_FOUND", path
    for method, path, status in (
        ("POST", "/nothing", 404),
        ("POST", "/", 404),
        ("DELETE", NAME, 404),
        ("GET", "/api/auth/login", 405),
        ("POST", "/healthz", 405),
    ):
        answer = await client.request(method, path, headers=HTML)
        assert answer.status_code == status, (method, path)
        assert answer.json()["statusCode"] == status
    assert (await client.get("/healthz", headers=HTML)).json() == {"status": "ok"}


async def test_who_asks_for_no_page_gets_none_for_an_address_that_is_not_there(
    client: httpx.AsyncClient,
) -> None:
    for path, accept in (
        ("/nothing.js", "*/*"),
        ("/assets/main-old.js", HTML["Accept"]),
        ("/lite/nothing.js", HTML["Accept"]),
        ("/e/1", "application/json"),
    ):
        answer = await client.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.json()["code"]) == (404, "ROUTE_NOT_FOUND"), path


@pytest.mark.parametrize("accept", ["*/*", "application/json", "", None])
async def test_the_bare_address_shows_the_page_to_every_tool(
    accept: str | None, client: httpx.AsyncClient
) -> None:
    for method in ("GET", "HEAD"):
        request = client.build_request(method, "/")
        request.headers.pop("accept")
        if accept is not None:
            request.headers["accept"] = accept
        answer = await client.send(request)

        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert ("the page" in answer.text) is (method == "GET")


async def test_no_path_leads_out_of_the_page(folder: Path) -> None:
    async with serving(built(folder)) as url:
        port = int(url.rpartition(":")[2])

        def ask(path: str) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            with closing(connection):
                connection.request("GET", path, headers={"Accept": "*/*"})
                answer = connection.getresponse()
                return answer.status, answer.read()

        for path in (
            "/../secret", "/../../secret", "/%2e%2e/secret", "/..%2fsecret", "/assets/../../secret",
            "/assets/%2e%2e/%2e%2e/secret", "/link", "/.stamp", "//etc/passwd", "/etc/passwd",
            "/..\\secret", "/%5c..%5csecret", "/assets/main-4f2a91.js.gz", "/assets/", "/%00",
            "/index.html%00.js", "/lite/%2e%2e/app/index.html", f"/{folder}/app/index.html",
            "/lite/../link",
        ):  # fmt: skip
            status, body = await anyio.to_thread.run_sync(ask, path)
            assert status == 404, path
            assert CANARY.encode() not in body, path


async def test_a_page_that_was_not_built_says_so_and_how_to_build_it(tmp_path: Path) -> None:
    (tmp_path / "lite").mkdir()
    (tmp_path / "lite" / "index.html").write_text("lite")
    async with client_of(built(tmp_path)) as client:
        answer = await client.get("/e/1", headers=HTML)
        lite = await client.get("/lite/", headers=HTML)
        script = await client.get("/theme.js")

    assert answer.status_code == 503
    assert answer.headers["cache-control"] == "no-store"
    assert "make web" in answer.text
    assert re.search(r'href="/lite/"', answer.text)
    assert "script" not in answer.headers["content-security-policy"].partition("script-src")[0]
    assert lite.text == "lite"
    assert script.status_code == 404


async def test_the_small_page_has_one_address(client: httpx.AsyncClient) -> None:
    answer = await client.get("/lite", headers=HTML)

    assert (answer.status_code, answer.headers["location"]) == (308, "/lite/")
    assert (await client.get("/lite/")).text == "lite"


@asynccontextmanager
async def real_app() -> AsyncGenerator[httpx.AsyncClient]:
    async with client_of(built(static.WEB)) as client:
        yield client


async def test_the_real_small_page_has_all_that_it_names() -> None:
    async with real_app() as client:
        page = await client.get("/lite/", headers=HTML)
        assert page.status_code == 200
        assert "<script>" not in page.text, "the policy lets nothing inline run"
        names = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        assert len(names) >= 2
        pending = [f"/lite/{name}" for name in names if not name.startswith("data:")]
        seen = set[str]()
        while pending:
            path = pending.pop()
            if path in seen:
                continue
            seen.add(path)
            answer = await client.get(path)
            assert answer.status_code == 200, path
            if path.endswith(".js"):
                pending += [
                    f"/lite/{name}" for name in re.findall(r"from '\./([^']+)'", answer.text)
                ]
        assert any("xterm" in path for path in seen)


async def test_the_page_of_the_api_keeps_its_own_stricter_policy(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.get("/api/docs", headers=HTML)

    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src")
