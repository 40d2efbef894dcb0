"""A stub of the model APIs of Anthropic, OpenAI and Google, on a port of loopback.

It answers "stub says: " and the last text of the user, unless words in that text ask for more:

    RUNTOOL <command>   first calls the shell tool on offer with this command, then answers
    SLOW <n>            streams n parts; each of them waits for `go` (or the pause, run by hand)
    FAIL <status>       answers with this error: 401, 429, 529, …

By hand: `python -m tests.fakes.model_api --port 8000 --key secret` (`--help` says more).
"""

import argparse
import json
import re
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.fakes.model_shapes import (
    Answer,
    Anthropic,
    Asked,
    Chat,
    Gemini,
    Responses,
    Shape,
    instance,
)

KEY = "sk-real-0123456789abcdef"
MODELS = ("stub-large", "stub-small")
WAIT_S = 30.0
_GENERATE = re.compile(r"/v1beta/models/[^/:]+:(generateContent|streamGenerateContent)")
_COUNT = re.compile(r"/v1beta/models/[^/:]+:countTokens")


@dataclass
class ModelCall:
    """A request as it came; `headers` has lower-case names."""

    method: str
    target: str
    headers: dict[str, str]
    raw: bytes
    status: int = 0
    text: str = ""
    finished: threading.Event = field(default_factory=threading.Event)
    """Set once it is answered, or the caller has gone."""
    broken: bool = False
    """The caller had gone before its answer was whole."""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def body(self) -> Any:
        return json.loads(self.raw or b"{}")

    @property
    def everything(self) -> str:
        """Return all that came, for a search of what should not have come."""
        return f"{self.target}\n{self.headers}\n{self.raw.decode(errors='replace')}"


class ModelApi:
    """The stub; a context manager that serves from its own thread, for any kind of test.

    Args:
        key: What it wants, in the place where each API has it; anything else is 401.
        pause_s: Seconds before each part of `SLOW`; None waits for `go`.
        prefix: Path that comes before each API's own, as other vendors have one.

    Attributes:
        calls: Every request in order.
    """

    def __init__(
        self,
        *,
        key: str = KEY,
        pause_s: float | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        prefix: str = "",
        log: bool = False,
    ) -> None:
        self.key = key
        self.pause_s = pause_s
        self.prefix = prefix
        self.log = log
        self.calls: list[ModelCall] = []
        self._steps = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._number = 0
        owner = self

        class Handler(_Handler):
            api = owner

        self._server = _Server((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go(1000)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    def go(self, parts: int = 1) -> None:
        """Let this many parts of a `SLOW` answer go."""
        self._steps.release(parts)

    def hold(self) -> None:
        """Let nothing of the next `SLOW` answer go before `go`, whatever was let go before."""
        while self._steps.acquire(blocking=False):
            pass

    def called(self, path: str) -> list[ModelCall]:
        """Return the requests for a path that ends so."""
        with self._lock:
            return [call for call in self.calls if call.path.endswith(path)]

    # ---- how it answers ---------------------------------------------------------------------

    def note(self, call: ModelCall) -> int:
        with self._lock:
            self.calls.append(call)
            self._number += 1
            return self._number

    def step(self) -> None:
        if self.pause_s is not None:
            time.sleep(self.pause_s)
        else:
            self._steps.acquire(timeout=WAIT_S)

    def knows(self, call: ModelCall, path: str) -> bool:
        """Say whether the call carries the key, where its API has it."""
        bearer = call.headers.get("authorization") == f"Bearer {self.key}"
        if path.startswith("/v1beta/"):
            in_url = parse_qs(urlsplit(call.target).query).get("key") == [self.key]
            return in_url or call.headers.get("x-goog-api-key") == self.key
        return bearer or call.headers.get("x-api-key") == self.key


def answer_to(asked: Asked, number: int) -> Answer:
    """Decide what the model says."""
    wants = re.search(r"RUNTOOL (.+)", asked.text)
    if wants and asked.tool and not asked.tool_results:
        command = wants[1].strip()
        if asked.text.startswith('"'):  # as opencode passes its arguments on
            command = command.removesuffix('"')
        return Answer(tool=asked.tool, command=command, number=number)
    if asked.schema is not None:
        return Answer((json.dumps(instance(asked.schema)),), number=number)
    if slow := re.search(r"SLOW (\d+)", asked.text):
        return Answer(tuple(f"part {n} " for n in range(1, int(slow[1]) + 1)), number=number)
    if wants and asked.tool_results:
        said = f"the tool said {asked.tool_results[-1][:80]}"
        return Answer(("stub says: ", said), number=number)
    return Answer(("stub says: ", asked.text[:80]), number=number)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many agents call at once


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: ModelApi

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = ModelCall(self.command, self.path, headers, self._body(headers))
        number = self.api.note(call)
        try:
            self._answer(call, number)
        except OSError:
            call.broken, self.close_connection = True, True
        finally:
            call.finished.set()
            if self.api.log:
                sys.stderr.write(f"{call.method} {call.target} {call.status} {call.text[:60]!r}\n")

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", "0")))
        found = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _answer(self, call: ModelCall, number: int) -> None:
        path = call.path.removeprefix(self.api.prefix)
        if call.method == "HEAD":
            self._json(call, {})
        elif not self.api.knows(call, path):
            self._fail(call, path, 401)
        elif call.method == "GET":
            self._models(call, path)
        elif path == "/v1/messages/count_tokens":
            self._json(call, {"input_tokens": 11})
        elif _COUNT.fullmatch(path):
            self._json(call, {"totalTokens": 11})
        elif (shape := _shape(path)) is None:
            self._fail(call, path, 404)
        else:
            self._generate(call, path, shape, number)

    def _generate(self, call: ModelCall, path: str, shape: Shape, number: int) -> None:
        asked = shape.asked(call.body)
        call.text = asked.text
        if fail := re.search(r"FAIL (\d{3})", asked.text):
            self._fail(call, path, int(fail[1]))
            return
        answer = answer_to(asked, number)
        if call.body.get("stream") or path.endswith(":streamGenerateContent"):
            self._stream(call, shape.stream(call.body, answer), slow="SLOW" in asked.text)
        else:
            self._json(call, shape.whole(call.body, answer))

    def _models(self, call: ModelCall, path: str) -> None:
        if path in {"/v1/models", "/models"}:
            data = [{"id": one, "type": "model", "object": "model"} for one in MODELS]
            self._json(call, {"object": "list", "data": data, "has_more": False})
        elif path == "/v1beta/models":
            self._json(call, {"models": [{"name": f"models/{one}"} for one in MODELS]})
        elif path.rpartition("/")[2] in MODELS and path.count("/") == 3:
            self._json(call, {"id": path.rpartition("/")[2], "object": "model"})
        else:
            self._fail(call, path, 404)

    def _json(self, call: ModelCall, value: object, status: int = 200) -> None:
        content = json.dumps(value).encode()
        call.status = status
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self._extra(status)
        self.end_headers()
        if call.method != "HEAD":
            self.wfile.write(content)

    def _extra(self, status: int) -> None:
        self.send_header("Set-Cookie", "session=stub")
        self.send_header("request-id", "req_stub")
        self.send_header("anthropic-ratelimit-requests-remaining", "9")
        if status in {429, 529}:
            self.send_header("Retry-After", "1")

    def _fail(self, call: ModelCall, path: str, status: int) -> None:
        text = f"stub fails with {status}"
        if status == 401:
            text += f": {call.headers.get('authorization', '')}{call.headers.get('x-api-key', '')}"
        value: object = {"error": {"message": text, "type": "stub_error", "code": str(status)}}
        if path.startswith("/v1/messages"):
            value = {"type": "error", "error": {"type": "stub_error", "message": text}}
        elif path.startswith("/v1beta/"):
            value = {"error": {"code": status, "message": text, "status": "STUB"}}
        self._json(call, value, status)

    def _stream(self, call: ModelCall, events: Iterable[bytes], *, slow: bool) -> None:
        call.status = 200
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self._extra(200)
        self.end_headers()
        for one in events:
            if slow and b"part " in one and b".done" not in one and b".completed" not in one:
                self.api.step()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(one), one))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def _shape(path: str) -> Shape | None:
    if _GENERATE.fullmatch(path):
        return Gemini()
    shapes: dict[str, Shape] = {
        "/v1/messages": Anthropic(),
        "/v1/responses": Responses(),
        "/v1/chat/completions": Chat(),
    }
    return shapes.get(path)


def main() -> None:
    """Serve by hand until it is interrupted; requests are printed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--key", default=KEY, help="what it wants (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between SLOW parts")
    given = parser.parse_args()
    with ModelApi(
        key=given.key, pause_s=given.pause, host=given.host, port=given.port, log=True
    ) as api:
        sys.stderr.write(f"{api.url} with key {api.key}\n")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
