"""What operators and probes ask: is it alive, is it ready, what does it count, what can it do."""

import html
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from craftastic.clock import Clock, SystemClock
from craftastic.errors import CraftasticError
from craftastic.http.policy import PUBLIC
from craftastic.metrics import CONTENT_TYPE, Metrics

log = structlog.stdlib.get_logger(__name__)

Check = Callable[[], Awaitable[object]]

CHECK_TIMEOUT_S = 5.0
ANSWER_TTL_S = 1.0
OK = "ok"
NOT_READY: dict[str, Any] = {
    "description": "Not ready; `checks` tells why",
    "content": {"application/json": {"schema": {}}},
}
METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(slots=True)
class Readiness:
    """The checks behind `/readyz`: each returns, or raises why the server cannot serve.

    An answer is kept for a second, so that a crowd of probes costs one round of checks.
    """

    clock: Clock = field(default_factory=SystemClock)
    checks: dict[str, Check] = field(default_factory=dict[str, Check])
    _answer: dict[str, str] = field(init=False, default_factory=dict[str, str])
    _answered_at: float | None = field(init=False, default=None)
    _asking: anyio.Lock = field(init=False, default_factory=anyio.Lock)

    def add(self, name: str, check: Check) -> None:
        self.checks[name] = check

    async def ask(self) -> dict[str, str]:
        """Return each check's outcome: `ok`, or a reason that may be shown to anyone."""
        async with self._asking:
            now = self.clock.monotonic()
            if self._answered_at is None or now - self._answered_at >= ANSWER_TTL_S:
                answer = dict.fromkeys(self.checks, "")
                async with anyio.create_task_group() as group:
                    for name, check in self.checks.items():
                        group.start_soon(self._run, name, check, answer)
                self._answer, self._answered_at = answer, self.clock.monotonic()
            return self._answer

    @staticmethod
    async def _run(name: str, check: Check, answer: dict[str, str]) -> None:
        try:
            with anyio.fail_after(CHECK_TIMEOUT_S):
                await check()
        except CraftasticError as error:
            answer[name] = error.message
        except TimeoutError:
            answer[name] = f"no answer within {CHECK_TIMEOUT_S:.0f} seconds"
        except Exception:
            log.exception("readiness check failed", check=name)
            answer[name] = "failed; the server's log tells more"
        else:
            answer[name] = OK


def build_router(metrics: Metrics, readiness: Readiness) -> APIRouter:
    """Return the routes `/healthz`, `/readyz`, `/metrics`, `/api/openapi.json`, `/api/docs`."""
    router = APIRouter(dependencies=[PUBLIC])

    @router.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """Tell that the process is alive; nothing else is looked at."""
        return {"status": OK}

    @router.get("/readyz", tags=["operation"], responses={503: NOT_READY})
    async def readyz() -> JSONResponse:
        """Tell whether requests can be served; 503 with the reasons when not."""
        outcomes = await readiness.ask()
        ready = all(outcome == OK for outcome in outcomes.values())
        body = {"status": OK if ready else "unavailable", "checks": outcomes}
        return JSONResponse(body, 200 if ready else 503)

    @router.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Return the server's numbers in Prometheus's text form."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @router.get("/api/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> JSONResponse:
        return JSONResponse(schema(request.app))

    @router.get("/api/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        headers = {
            "Content-Security-Policy": (
                "default-src 'none'; style-src 'self' 'unsafe-inline'; base-uri 'none'; "
                "form-action 'none'; frame-ancestors 'none'"
            )
        }
        return HTMLResponse(page(schema(request.app)), headers=headers)

    return router


def schema(app: FastAPI) -> dict[str, Any]:
    """Return the app's OpenAPI document, with the errors that it really answers."""
    document = app.openapi()
    components = document.setdefault("components", {}).setdefault("schemas", {})
    if "Error" in components:
        return document
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    components["Error"] = {
        "type": "object",
        "required": ["error", "code", "requestId"],
        "properties": {
            "error": {"type": "string", "description": "For people to read."},
            "code": {"type": "string", "description": "Stable; for programs to compare."},
            "requestId": {"type": "string", "description": "Finds the request in the log."},
            "details": {"type": "string"},
            "success": {"type": "boolean", "const": False},
        },
    }
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"description": "An error", "content": content}
    return document


def page(document: dict[str, Any]) -> str:
    """Return a page that lists the routes: no script, nothing from elsewhere."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        "<title>Craftastic API</title><style>",
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}",
        "code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.5rem 1rem;",
        "background:#8881}summary{cursor:pointer}b{display:inline-block;min-width:4.5rem}",
        ":root{color-scheme:light dark}</style>",
        "<h1>Craftastic API</h1><p>The same, for programs: ",
        "<a href=openapi.json>openapi.json</a>. Most routes need the header ",
        "<code>Authorization: Bearer …</code> with an access token of ",
        "<code>POST /api/auth/login</code>.</p>",
    ]
    group = ""
    for path, operations in document["paths"].items():
        for method in METHODS:
            operation = cast("dict[str, Any] | None", operations.get(method))
            if operation is None:
                continue
            tag = (operation.get("tags") or ["other"])[0]
            if tag != group:
                group = tag
                parts.append(f"<h2>{html.escape(group)}</h2>")
            parts.append(_entry(method, path, operation))
    return "".join(parts)


def _entry(method: str, path: str, operation: dict[str, Any]) -> str:
    text = html.escape(operation.get("description") or operation.get("summary") or "")
    lock = " 🔒" if operation.get("security") else ""
    head = f"<summary><b>{method.upper()}</b> <code>{html.escape(path)}</code>{lock}</summary>"
    return f"<details>{head}<p>{text}</p></details>"
