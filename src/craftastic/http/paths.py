"""Paths as clients wrote them: an escaped slash (`%2F`) belongs to its segment.

Servers decode a path before it is routed, so `feature%2Fx` would look like two segments. The
middleware decodes segment by segment and lets a character that no decoded path contains (a lone
surrogate) stand for such a slash; the convertor of path parameters turns it back.

Source: ASGI specification, HTTP connection scope: `path` is decoded, `raw_path` is not.
"""

import re
from urllib.parse import unquote, unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

SLASH = "\udc2f"
ESCAPED = re.compile(rb"%2f", re.IGNORECASE)
COLLECTION = re.compile(r"/api/[a-z-]+/")
HOOK = re.compile(rb"/deployment/+hook/+(?=.)", re.IGNORECASE | re.DOTALL)
"""Behind it stands a key that opens the hook: whoever reads it in a log could call it too."""


class Segment(Convertor[str]):
    """One path segment, whose escaped slashes are slashes again."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return value.replace(SLASH, "/")

    def to_string(self, value: str) -> str:
        return value.replace("/", "%2F")


def register() -> None:
    """Make `Segment` the convertor of plain path parameters."""
    register_url_convertor("str", Segment())


class SegmentPaths:
    """Middleware: keeps escaped slashes out of routing, and one slash at a collection's end."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            raw: bytes = scope.get("raw_path") or b""
            if ESCAPED.search(raw):
                parts = raw.decode("latin-1").split("/")
                path = "/".join(unquote(part).replace("/", SLASH) for part in parts)
                scope["path"] = path  # in place: the outer layers see the route that is chosen
            elif COLLECTION.fullmatch(scope["path"]):
                scope["path"] = scope["path"][:-1]
        await self.app(scope, receive, send)


def shown_path(scope: Scope) -> str:
    """Return the path for logs and messages: as it was sent, without the query, bounded.

    The key of a hook is not shown, in whatever way it was written.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    path = raw.split(b"?", 1)[0]
    plain = unquote_to_bytes(path)
    if hook := HOOK.search(plain):
        path = plain[: hook.end()] + b"***"
    return path[:300].decode("ascii", "replace")
