"""A gateway as an agent's run sees it: it takes events and asks, and can be away for a while.

A plain HTTP server in threads of its own, on one port for its whole life. It knows by nonce and
number what it already has, as the real one does.
"""

import hashlib
import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

HOLD_S = 20.0
"""How long an answer is waited for, as the real one does."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class RunGateway:
    """`events` are in the order of their arrival, each once; `deliveries` counts repeated ones.

    Sandboxes know it by `name`. `refuses` is a status that every request gets instead of an
    answer; `loses` is how many of the next answers are lost after what was asked has been done.
    """

    def __init__(
        self, session: str, token: str, place: tuple[str, int] = ("127.0.0.1", 0), name: str = ""
    ) -> None:
        self.session, self.token = session, token
        self.events: list[dict[str, Any]] = []
        self.asks: dict[str, dict[str, Any]] = {}
        self.files: dict[str, str] = {}
        self.posted: list[dict[str, Any]] = []
        self.deliveries = self.loses = self.polls = self.unauthorized = 0
        self.refuses = self.refused = 0
        self.models: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        self._live: set[socket.socket] = set()
        self._seen: dict[tuple[str, int], dict[str, Any]] = {}
        self._server: _Server | None = None
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            self.host, self.port = probe.getsockname()
        self.name = name or self.host

    @property
    def url(self) -> str:
        return f"http://{self.name}:{self.port}/agent/{self.session}"

    @property
    def names(self) -> list[str]:
        return [one["event"] for one in self.events]

    def start(self) -> None:
        self._server = _Server((self.host, self.port), _handler(self))
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()

    def stop(self) -> None:
        """Go away: nothing listens any more, and what was open is cut."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        with self.changed:
            for one in list(self._live):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self.changed.notify_all()

    def waiting(self) -> list[str]:
        return [key for key, one in self.asks.items() if not one["settled"]]

    def settle(self, approval: str, answer: str) -> None:
        with self.changed:
            self.asks[approval] |= {"settled": True, "answer": answer}
            self.changed.notify_all()

    # ---- what a request does ------------------------------------------------------------------

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        base = f"/agent/{self.session}"
        place = path.removeprefix(base)
        if self.refuses:
            self.refused += 1
            return self.refuses, {"error": "refused"}
        if not path.startswith(base):
            return 404, {"error": "no such run"}
        if method == "POST" and place in ("/events", "/asks"):
            return self._event(body, asks=place == "/asks")
        if method == "POST" and place == "/files":
            return 200, {"taken": self._file(body)}
        if method == "GET" and place.startswith("/asks/"):
            return self._ask(place.removeprefix("/asks/"))
        if method == "POST" and place == "/model/v1/messages":
            self.models.append(body)
            said = body["messages"][-1]["content"]
            return 200, {"content": [{"type": "text", "text": f"you said {said}"}]}
        return 404, {"error": "no such path"}

    def _event(self, body: dict[str, Any], *, asks: bool) -> tuple[int, dict[str, Any]]:
        with self.changed:
            self.deliveries += 1
            key = (body["nonce"], body["seq"])
            if key not in self._seen:
                self.events.append(body)
                self._seen[key] = {}
                if asks:
                    approval = str(uuid4())
                    self.asks[approval] = {"event": body, "settled": False, "answer": ""}
                    self._seen[key] = {"approval": approval}
            if not asks:
                return 204, {}
            approval = self._seen[key]["approval"]
            return 200, {"approval": approval, **self._settled(approval)}

    def _settled(self, approval: str) -> dict[str, Any]:
        one = self.asks[approval]
        return {"settled": one["settled"], "answer": one["answer"]}

    def _ask(self, approval: str) -> tuple[int, dict[str, Any]]:
        with self.changed:
            self.polls += 1
            if approval not in self.asks:
                return 404, {"error": "no such ask"}
            self.changed.wait_for(
                lambda: self.asks[approval]["settled"] or self._server is None, HOLD_S
            )
            return 200, {"approval": approval, **self._settled(approval)}

    def _file(self, body: dict[str, Any]) -> bool:
        with self.changed:
            self.posted.append(body)
            stored = self.files.get(body["path"], "")
            if hashlib.sha256(stored.encode()).hexdigest() != body["was"]:
                return False
            self.files[body["path"]] = body["text"]
            return True

    def allowed(self, headers: Any) -> bool:
        given = {headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer ")}
        return self.token in given


def _handler(gateway: RunGateway) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            gateway._live.add(self.connection)

        def finish(self) -> None:
            gateway._live.discard(self.connection)
            with suppress(OSError, ValueError):
                super().finish()

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

        def do_GET(self) -> None:
            self.serve("GET")

        def do_POST(self) -> None:
            self.serve("POST")

        def serve(self, method: str) -> None:
            text = self.rfile.read(int(self.headers.get("content-length") or 0))
            if not gateway.allowed(self.headers):
                gateway.unauthorized += 1
                status, answer = 403, {"error": "not this run's token"}
            else:
                status, answer = gateway.answer(method, self.path, json.loads(text or "{}"))
            if gateway.loses:
                gateway.loses -= 1
                self.close_connection = True
                return
            body = b"" if status == 204 else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
