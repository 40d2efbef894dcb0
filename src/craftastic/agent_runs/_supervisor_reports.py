"""What the supervisor of an agent session tells the gateway, and the answers that it gets there.

Sent to the sandbox with `_supervisor`. Every event is told in order and again and again until the
gateway has taken it; the gateway knows by nonce and number what it already has.
"""

import contextlib
import json
import os
import threading
import time
from collections import deque
from typing import Any, cast

MAX_EVENTS = 1000
MAX_QUEUE_BYTES = 4 << 20
MAX_ANSWER_BYTES = 256 << 10
MAX_FOLLOWERS = 32
MAX_FAULTS = 30
ASK_S = 600.0
RETRY_S = 0.3
CONNECT_S = 3.0
REQUEST_S = 15.0
POLL_S = 35.0
"""How long an answer about an ask may take: the gateway holds it for 20 s."""

OK, FAULT = 200, 500
OVER = frozenset({401, 403, 404, 410})
"""The run has ended for the gateway."""

LATER = frozenset({0, 408, 425, 429})
"""0: it is away."""

OWN = "craftastic:"
"""What the names of this program's own events begin with; no hook can use them."""

Json = dict[str, Any]


class Gateway:
    """One connection to the gateway, kept open; for one thread."""

    def __init__(self, url: str, token: str) -> None:
        host, _, path = url.removeprefix("http://").partition("/")
        self.host, self.path = host, f"/{path}".rstrip("/")
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.connection: Any = None

    def call(
        self, method: str, path: str, body: bytes | None = None, limit_s: float = REQUEST_S
    ) -> tuple[int, Json]:
        """Ask once and return status and answer; 0 where the gateway is away."""
        import http.client  # noqa: PLC0415 - starts slowly, and the CLI does not wait for it

        used = self.connection is not None
        try:
            return self._call(http.client, method, path, body, limit_s)
        except (OSError, ValueError, http.client.HTTPException):
            self.close()
        if not used:
            return 0, {}
        try:  # what was open may have been closed long ago
            return self._call(http.client, method, path, body, limit_s)
        except (OSError, ValueError, http.client.HTTPException):
            self.close()
            return 0, {}

    def _call(
        self, client: Any, method: str, path: str, body: bytes | None, limit_s: float
    ) -> tuple[int, Json]:
        if self.connection is None:
            self.connection = client.HTTPConnection(self.host, timeout=CONNECT_S)
            self.connection.connect()
        self.connection.sock.settimeout(limit_s)
        self.connection.request(method, self.path + path, body, self.headers)
        response = self.connection.getresponse()
        text = response.read(MAX_ANSWER_BYTES + 1)
        if len(text) > MAX_ANSWER_BYTES or response.will_close:
            self.close()
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        return response.status, cast("Json", answer) if isinstance(answer, dict) else {}

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None


class Ask:
    """A hook that waits for an answer."""

    def __init__(self, wake: int) -> None:
        self.answer: str | None = None
        self.gone = False
        self.until = time.monotonic() + ASK_S
        self._wake = wake

    def finish(self, answer: str) -> None:
        if self.answer is None:
            self.answer = answer
            with contextlib.suppress(OSError):
                os.write(self._wake, b"1")

    @property
    def waits(self) -> bool:
        return self.answer is None and not self.gone and time.monotonic() < self.until


class Event:
    """One thing to tell, with its place in the order."""

    def __init__(self, name: str, body: bytes, ask: Ask | None) -> None:
        self.name, self.body, self.ask = name, body, ask


class Reports:
    """Tells the gateway every event in order, again and again until it has taken it."""

    def __init__(self, launch: Json) -> None:
        self.url, self.token, self.nonce = launch["gateway"], launch["token"], launch["nonce"]
        self.lock = threading.Condition()
        self.queue: deque[Event] = deque()
        self.bytes = self.seq = self.dropped = 0
        self.busy = self.over = False
        self.followers = threading.Semaphore(MAX_FOLLOWERS)

    def put(self, name: str, payload: Json, ask: Ask | None = None) -> None:
        """Add an event; where the queue is full, the oldest one of a hook is lost."""
        with self.lock:
            if self.over:
                if ask is not None:
                    ask.finish("")
                return
            self.seq += 1
            said = {"nonce": self.nonce, "seq": self.seq, "event": name, "payload": payload}
            # The gateway takes whole characters only, and texts as long as a hook's line can be.
            text = json.dumps({**said, "at": time.time()}, ensure_ascii=False)
            body = text.encode(errors="replace")
            self.queue.append(Event(name, body, ask))
            self.bytes += len(body)
            while len(self.queue) > MAX_EVENTS or self.bytes > MAX_QUEUE_BYTES:
                if not self._drop():
                    break
            self.lock.notify_all()

    def _drop(self) -> bool:
        for place, event in enumerate(self.queue):
            if not event.name.startswith(OWN):
                del self.queue[place]
                self.bytes -= len(event.body)
                self.dropped += 1
                if event.ask is not None:
                    event.ask.finish("")
                return True
        return False

    def run(self) -> None:
        gateway = Gateway(self.url, self.token)
        while True:
            with self.lock:
                self.busy = False
                self.lock.notify_all()
                self.lock.wait_for(lambda: self.queue)
                event = self.queue.popleft()
                self.bytes -= len(event.body)
                self.busy = True
            self._tell(gateway, event)

    def _tell(self, gateway: Gateway, event: Event) -> None:
        faults = 0
        while faults < MAX_FAULTS:
            # A hook that does not wait any more asks nothing; what it said has still happened.
            ask = event.ask if event.ask is not None and event.ask.waits else None
            path = "/events" if ask is None else "/asks"
            status, answer = gateway.call("POST", path, event.body)
            if status < FAULT and status not in LATER:
                break
            # An event that the gateway cannot bear must not keep back all that follow.
            faults += status == FAULT
            time.sleep(RETRY_S)
        else:
            status, answer, ask = 0, {}, None
        if status in OVER:
            self.stop()
        if event.ask is None:
            return
        approval = answer.get("approval")
        if ask is None or status in OVER or answer.get("settled") or not isinstance(approval, str):
            event.ask.finish(text_of(answer))
        elif not self.followers.acquire(blocking=False):
            event.ask.finish("")
        else:
            threading.Thread(target=self._follow, args=(event.ask, approval), daemon=True).start()

    def _follow(self, ask: Ask, approval: str) -> None:
        """Ask for one answer until it is there, whatever happens to the gateway meanwhile."""
        gateway = Gateway(self.url, self.token)
        answer: Json = {}
        while ask.waits:
            began = time.monotonic()
            status, answer = gateway.call("GET", f"/asks/{approval}", limit_s=POLL_S)
            later = status >= FAULT or status in LATER
            if answer.get("settled") or (status != OK and not later):
                break
            if later or time.monotonic() - began < RETRY_S:
                time.sleep(RETRY_S)
        gateway.close()
        self.followers.release()
        ask.finish(text_of(answer))

    def stop(self) -> None:
        """Tell nothing any more: for the gateway this run is over."""
        with self.lock:
            self.over = True
            for event in self.queue:
                if event.ask is not None:
                    event.ask.finish("")
            self.queue.clear()
            self.bytes = 0
            self.lock.notify_all()

    def flush(self, limit_s: float) -> None:
        """Wait until everything is told, at most so long."""
        with self.lock:
            self.lock.wait_for(lambda: not self.queue and not self.busy, limit_s)


def text_of(answer: Json) -> str:
    text = answer.get("answer")
    return text if isinstance(text, str) else ""
