"""The unix socket of an agent session's supervisor, where the hooks of the CLI report.

Sent to the sandbox with `_supervisor`. One line of JSON in, one out; the words are told there.
"""

import contextlib
import errno
import json
import os
import re
import select
import socket
import time
from pathlib import Path
from typing import Any, cast

from craftastic.agent_runs._supervisor_reports import OWN, RETRY_S, Ask, Json, Reports
from craftastic.agent_runs._supervisor_terminal import foreground

MAX_LINE = 256 << 10
MAX_CONNECTIONS = 64
MAX_ASKS = 16
CHUNK = 65536
LINE_S = 10.0
"""How long a connection may take to say its line, in seconds."""

TICK_S = 0.5
MAX_DEPTH = 50
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{0,63}(\[[A-Za-z0-9_./-]{1,64}\])?")
CONVERSATION = re.compile(r"[A-Za-z0-9_.-]{1,100}")


class Caller:
    """One connection of a hook."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.said = bytearray()
        self.until = time.monotonic() + LINE_S
        self.ask: Ask | None = None


class Door:
    """The socket that hooks speak to, and what they have said last."""

    def __init__(self, path: str, launch: Json, reports: Reports) -> None:
        self.path, self.reports = Path(path), reports
        self.idle_events, self.ask_event = set(launch["idle_events"]), launch["ask_event"]
        self.callers: dict[int, Caller] = {}
        self.last, self.front, self.conversation = "", -1, ""
        self.shell = 0
        """The process of the login shell, once the CLI has ended."""
        self.running = False
        self.failed = ""
        self.closing = False
        self.woken, self.wake = os.pipe()
        os.set_blocking(self.woken, False)
        os.set_blocking(self.wake, False)
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Its name may be longer than a socket's address can be; this one never is.
        folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mask = os.umask(0o177)
        try:
            self.listener.bind(f"/proc/self/fd/{folder}/{self.path.name}")
        finally:
            os.umask(mask)
            os.close(folder)
        self.listener.listen(128)
        self.listener.setblocking(False)

    def run(self) -> None:
        """Serve until `close`; what goes wrong with one connection is that one's affair."""
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(self.woken, select.POLLIN)
        while not self.closing:
            for fd, _ in poll.poll(TICK_S * 1000):
                if fd == self.listener.fileno():
                    self._accept(poll)
                elif fd == self.woken:
                    with contextlib.suppress(OSError):
                        os.read(self.woken, CHUNK)
                elif (caller := self.callers.get(fd)) is not None:
                    self._hear(caller, poll)
            self._serve(poll)

    def _accept(self, poll: Any) -> None:
        if len(self.callers) >= MAX_CONNECTIONS:
            # Whoever has not said anything yet makes place for whoever comes.
            silent = min(
                (one for one in self.callers.values() if one.ask is None), key=lambda one: one.until
            )
            self._leave(silent, poll)
        try:
            connection, _ = self.listener.accept()
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ECONNABORTED}:
                time.sleep(RETRY_S)  # no file can be opened now
            return
        connection.setblocking(False)
        self.callers[connection.fileno()] = Caller(connection)
        poll.register(connection, select.POLLIN)

    def _hear(self, caller: Caller, poll: Any) -> None:
        try:
            data = caller.connection.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._leave(caller, poll)
        elif caller.ask is None:
            caller.said += data
            if b"\n" in data:
                try:
                    answer = self._answer(caller)
                except (ValueError, RecursionError):
                    answer = {}  # no JSON, or deeper than can be read or passed on
                if answer is not None:
                    self._reply(caller, answer, poll)
            elif len(caller.said) > MAX_LINE:
                self._leave(caller, poll)

    def _serve(self, poll: Any) -> None:
        """Answer the asks that are settled, and let go of whoever takes too long."""
        now = time.monotonic()
        for caller in list(self.callers.values()):
            if caller.ask is None:
                if now > caller.until:
                    self._leave(caller, poll)
            elif caller.ask.answer is not None or not caller.ask.waits:
                self._reply(caller, {"answer": caller.ask.answer or ""}, poll)

    def _reply(self, caller: Caller, answer: Json, poll: Any) -> None:
        with contextlib.suppress(OSError):
            caller.connection.settimeout(TICK_S)
            caller.connection.sendall(json.dumps(answer).encode() + b"\n")
        self._leave(caller, poll)

    def _leave(self, caller: Caller, poll: Any) -> None:
        if caller.ask is not None:
            caller.ask.gone = True
        fd = caller.connection.fileno()
        poll.unregister(fd)
        del self.callers[fd]
        caller.connection.close()

    def _answer(self, caller: Caller) -> Json | None:
        """Return what is said to a line at once; None for an ask that waits."""
        line = bytes(caller.said.partition(b"\n")[0])
        caller.said.clear()
        said = json.loads(line)
        if not isinstance(said, dict) or len(line) > MAX_LINE:
            return {}
        said = cast("Json", said)
        if said.get("op") == "event":
            return self._event(said, caller)
        if said.get("op") == "idle?":
            return {"idle": self.idle, "last": self.last}
        if said.get("op") == "state":
            return self.state
        return {}

    def _event(self, said: Json, caller: Caller) -> Json | None:
        name, payload = said.get("event"), said.get("payload")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            return {}
        if not self.running and foreground() in {-1, os.getpgrp(), self.shell}:
            return {"answer": ""}  # the last words of an agent that has ended, or nobody's
        payload = shallow(cast("Json", payload)) if isinstance(payload, dict) else {}
        # What its subagents do says nothing about the agent itself.
        if payload.get("agent_id") in (None, ""):
            self.last, self.front = name, foreground()
        conversation = payload.get("session_id")
        if isinstance(conversation, str) and CONVERSATION.fullmatch(conversation):
            self.conversation = conversation
        if name == self.ask_event and self.asks < MAX_ASKS:
            caller.ask = Ask(self.wake)
        self.reports.put(name, payload, caller.ask)
        return {"answer": ""} if caller.ask is None else None

    @property
    def asks(self) -> int:
        return sum(one.ask is not None and one.ask.waits for one in list(self.callers.values()))

    @property
    def idle(self) -> bool:
        front = foreground()
        ours = front > 0 and front == self.front and front != self.shell
        return ours and self.last in self.idle_events and not self.asks

    @property
    def state(self) -> Json:
        reports = self.reports
        return {
            "running": self.running,
            "last": self.last,
            "asks": self.asks,
            "connections": len(self.callers),
            "queued": len(reports.queue),
            "dropped": reports.dropped,
            "over": reports.over,
            "failed": self.failed,
        }

    def agent_ended(self) -> None:
        """End what waits: nobody is there any more who could take an answer."""
        self.last, self.front = f"{OWN}exited", -1
        self.running = False
        for caller in list(self.callers.values()):
            if caller.ask is not None:
                caller.ask.finish("")

    def close(self) -> None:
        self.closing = True
        with contextlib.suppress(OSError):
            self.path.unlink()


def shallow(payload: Json) -> Json:
    """Return a payload, or only its plain values where it is nested deeper than anybody reads."""
    level: list[Any] = [payload]
    for _ in range(MAX_DEPTH):
        level = [part for one in level for part in parts(one) if isinstance(part, dict | list)]
    if not level:
        return payload
    return {key: one for key, one in payload.items() if not isinstance(one, dict | list)}


def parts(one: Any) -> list[Any]:
    return list(one.values() if hasattr(one, "values") else one)
