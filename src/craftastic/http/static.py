"""The web page: files that are part of the package, and nothing else of the disk.

The files are listed and read once. A request picks one by its exact path, so no path leads
anywhere else. They hang behind the routes: what no route takes comes here.
"""

import hashlib
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

WEB = Path(__file__).resolve().parent.parent / "web"
INDEX = "/index.html"
LITE = "/lite"
HASHED = "/assets/"
"""Names in this folder of the built page hold a hash of what is in the file."""

HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
ENCODINGS = (("br", ".br"), ("gzip", ".gz"))
FOREVER = "public, max-age=31536000, immutable"
HSTS = "max-age=31536000"
PERMISSIONS = ", ".join(
    [
        *(
            f"{feature}=()"
            for feature in (
                *("accelerometer", "camera", "display-capture", "geolocation"),
                *("gyroscope", "hid", "magnetometer", "microphone", "midi", "payment", "serial"),
                *("usb", "xr-spatial-tracking"),
            )
        ),
        # The terminal's paste button; the browser asks the person, and no terminal's bytes can.
        "clipboard-read=(self)",
    ]
)
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
NOT_BUILT = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Craftastic: the page was not built</title>
<style>:root{color-scheme:light dark}body{font:16px/1.6 system-ui,sans-serif;max-width:38rem;
margin:15vh auto;padding:0 1.2rem}code{font:.95em ui-monospace,monospace;background:#8882;
padding:.1em .35em;border-radius:4px}</style></head><body>
<h1>The web page was not built</h1>
<p>The server works: its API answers, and so does the command line (<code>craftastic --help</code>).
Only the files of this page are missing from the installation.</p>
<p><strong>In a checkout</strong>, run <code>make web</code> and start the server again. It says
what went wrong, should it fail: most often the network, since the page's parts come from an npm
registry.</p>
<p><strong>Otherwise</strong> install a released package; it has the page in it.</p>
<p>Until then the <a href="/lite/">small page</a> has sign-in, sessions and terminals.</p>
</body></html>
"""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is and compressed."""

    body: bytes = field(repr=False)
    media_type: str
    etag: str
    immutable: bool
    encoded: Mapping[str, bytes] = field(repr=False, default_factory=dict[str, bytes])


def load(folder: Path, prefix: str = "") -> dict[str, Asset]:
    """Read a folder: every file by its path in an address; symbolic links are left out.

    Args:
        folder: May be absent.
        prefix: What comes before the files' own paths.
    """
    if not folder.is_dir():
        return {}
    found = {
        f"{prefix}/{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not _is_hidden(path.relative_to(folder))
    }
    known = set(found)
    return {
        name: _asset(name, path)
        for name, path in found.items()
        if not any(name.endswith(end) and name.removesuffix(end) in known for _, end in ENCODINGS)
    }


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _asset(name: str, path: Path) -> Asset:
    body = path.read_bytes()
    encoded: dict[str, bytes] = {}
    for encoding, end in ENCODINGS:
        beside = path.with_name(path.name + end)
        if beside.is_file() and not beside.is_symlink():
            encoded[encoding] = beside.read_bytes()
    suffix = path.suffix.lower()
    guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Asset(
        body=body,
        media_type=TYPES.get(suffix, guessed),
        etag=f'W/"{hashlib.sha256(body).hexdigest()[:32]}"',
        immutable=name.startswith(HASHED),
        encoded=encoded,
    )


class Site:
    """An ASGI application: the page's files, then the page for every other address of it.

    Args:
        fallback: What answers everything that is none of the page's.
        https: Whether browsers reach the server by https; they are told to insist on it then.
        folder: Holds `app`, the built page, and `lite`. It is read when a page is first asked
            for: what is built later shows after a new start.
    """

    def __init__(self, fallback: ASGIApp, *, https: bool, folder: Path = WEB) -> None:
        self.fallback = fallback
        self.https = https
        self.folder = folder
        self.assets: dict[str, Asset] = {}
        self._reading = anyio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(scope) if _may_be_a_page(scope) else None
        await (response or self.fallback)(scope, receive, send)

    async def _respond(self, scope: Scope) -> Response | None:
        path: str = scope["path"]
        asked = Headers(scope=scope)
        await self._read_once()
        if path == LITE:
            return Response(status_code=308, headers={"Location": f"{LITE}/"})
        asset = self.assets.get(f"{LITE}{INDEX}" if path == f"{LITE}/" else path)
        if asset is not None:
            return self._answer(asset, asked, scope["method"])
        if not _asks_for_the_page(path, asked):
            return None
        page = self.assets.get(INDEX)
        if page is None:
            headers = {"Cache-Control": "no-store", **self._page_headers(asked)}
            return Response(NOT_BUILT, 503, headers=headers, media_type="text/html")
        return self._answer(page, asked, scope["method"], vary="Accept, Accept-Encoding")

    async def _read_once(self) -> None:
        async with self._reading:
            if not self.assets:
                app = await anyio.to_thread.run_sync(load, self.folder / "app")
                lite = await anyio.to_thread.run_sync(load, self.folder / "lite", LITE)
                self.assets = app | lite

    def _answer(
        self, asset: Asset, asked: Headers, method: str, vary: str = "Accept-Encoding"
    ) -> Response:
        headers = {
            "ETag": asset.etag,
            "Cache-Control": FOREVER if asset.immutable else "no-cache",
            "Vary": vary,
            **self._page_headers(asked),
        }
        if _knows(asked.get("if-none-match", ""), asset.etag):
            return Response(status_code=304, headers=headers)
        body = asset.body
        encoding = _chosen(asked.get("accept-encoding", ""), asset)
        if encoding is not None:
            headers["Content-Encoding"] = encoding
            body = asset.encoded[encoding]
        headers |= {"Content-Type": asset.media_type, "Content-Length": str(len(body))}
        return Response(b"" if method == "HEAD" else body, headers=headers)

    def _page_headers(self, asked: Headers) -> dict[str, str]:
        """Return what keeps the page apart from others; the edge adds what all answers have."""
        headers = {
            "Content-Security-Policy": content_policy(asked.get("host", "")),
            "Permissions-Policy": PERMISSIONS,
        }
        if self.https:
            headers["Strict-Transport-Security"] = HSTS
        return headers


def _may_be_a_page(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
        return False
    path: str = scope["path"]
    return path != "/api" and not path.startswith("/api/")


def _asks_for_the_page(path: str, asked: Headers) -> bool:
    """Tell whether an address that is no file's is answered with the page, which knows its own.

    The server's bare address shows it to everybody: who types that into some tool wants to see
    whether the server is there. Elsewhere only those get it that read pages, and a script that is
    not there any more must not become one.
    """
    if path == "/":
        return True
    return "text/html" in asked.get("accept", "") and not path.startswith((HASHED, f"{LITE}/"))


def content_policy(host: str) -> str:
    """Return what the page may load: its own files, and a socket to where it came from.

    `'self'` covers the socket in today's browsers; Safari before 15.4 has to be told its address.
    """
    sockets = f" ws://{host} wss://{host}" if HOST.fullmatch(host) else ""
    return (
        "default-src 'self'; script-src 'self'; "
        "style-src 'self' 'unsafe-inline'; "  # xterm writes styles
        f"img-src 'self' data:; connect-src 'self'{sockets}; font-src 'self'; object-src 'none'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )


def _knows(text: str, etag: str) -> bool:
    """Tell whether a list of entity tags names this one; weakly, as caches compare."""
    tags = {one.strip().removeprefix("W/") for one in text.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags


def _chosen(accepted: str, asset: Asset) -> str | None:
    """Return the best encoding that both sides have; None for the file as it is."""
    offered: dict[str, bool] = {}
    for part in accepted.lower().split(","):
        name, _, options = part.partition(";")
        quality = options.replace(" ", "").removeprefix("q=")
        offered[name.strip()] = not re.fullmatch(r"0(?:\.0*)?", quality)
    for encoding, _ in ENCODINGS:
        if encoding in asset.encoded and offered.get(encoding, offered.get("*", False)):
            return encoding
    return None
