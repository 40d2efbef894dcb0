"""What an attacker runs inside a sandbox: it keeps all that a program there can come to see.

    python3 trap.py dump NAME [ARGUMENT …]   arguments, input, and every process at this moment
    python3 trap.py watch                    every process for as long as this runs
    python3 trap.py listen                   two servers on loopback; `ports` says where

It is copied into sandboxes, so it needs nothing but Python. What it keeps is in `caught`, beside
it.
"""

import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
CAUGHT = HERE / "caught"
KINDS = ("environ", "cmdline")
PAUSE_S = 0.01
WAIT_FOR_INPUT_S = 0.2
MAX_HEAD = 1 << 20
ANSWER = (
    b'HTTP/1.1 401 Who are you?\r\nWWW-Authenticate: Basic realm="git"\r\n'
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)  # fmt: skip


def keep(name: str, content: bytes) -> None:
    with (CAUGHT / name).open("ab") as file:
        file.write(content + b"\n")


def processes(kind: str) -> Iterator[bytes]:
    """Yield the environment or the command line of every process that lets itself be read."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield (entry / kind).read_bytes()
            except OSError:
                continue


def given() -> bytes:
    """Return the standard input, unless it is a person's keyboard or nothing ever ends it."""
    found = b""
    while not os.isatty(0) and select.select([0], [], [], WAIT_FOR_INPUT_S)[0]:
        more = os.read(0, 1 << 16)
        if not more:
            break
        found += more
    return found


def dump(name: str, *arguments: str) -> None:
    seen = [f"== {name} {arguments}".encode(), given(), Path("/proc/self/environ").read_bytes()]
    keep(name, b"\n".join([*seen, *(one for kind in KINDS for one in processes(kind))]))


def watch() -> None:
    known = set[bytes]()
    while True:
        for kind in KINDS:
            for content in processes(kind):
                if content not in known:
                    known.add(content)
                    keep(f"watched-{kind}", content)
        time.sleep(PAUSE_S)


def head_of(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD:
        more = connection.recv(1 << 16)
        if not more:
            break
        head += more
    return head


def ask_who(connection: socket.socket) -> None:
    """Be a git server, or a proxy in front of one, that asks everybody for a password."""
    keep("heard-asking", head_of(connection))
    connection.sendall(ANSWER)


def forward(connection: socket.socket) -> None:
    """Be a proxy that does what is asked, and keeps what goes through, both ways."""
    method, url, rest = head_of(connection).split(b" ", 2)
    place, _, path = url.partition(b"://")[2].partition(b"/")
    host, _, port = place.decode().partition(":")
    with socket.create_connection((host, int(port or 80))) as other:
        line, _, more = rest.partition(b"\r\n")
        request = b"%b /%b %b\r\nConnection: close\r\n%b" % (method, path, line, more)
        keep("heard-forwarding", request)
        other.sendall(request)
        back = threading.Thread(target=relay, args=(connection, other), daemon=True)
        back.start()
        relay(other, connection)


def relay(source: socket.socket, target: socket.socket) -> None:
    try:
        while more := source.recv(1 << 16):
            keep("heard-forwarding", more)
            target.sendall(more)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def listen() -> None:
    ports: list[int] = []
    for answer in (ask_who, forward):
        server = socket.create_server(("127.0.0.1", 0))
        ports.append(server.getsockname()[1])
        threading.Thread(target=serve, args=(server, answer)).start()
    (HERE / "ports.new").write_text(" ".join(map(str, ports)) + "\n")
    (HERE / "ports.new").rename(HERE / "ports")


def serve(server: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=one, args=(connection, answer), daemon=True).start()


def one(connection: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    with connection:
        try:
            answer(connection)
        except (OSError, ValueError) as error:
            keep("heard-asking", f"it went away: {error}".encode())


if __name__ == "__main__":
    CAUGHT.mkdir(exist_ok=True)
    {"dump": dump, "watch": watch, "listen": listen}[sys.argv[1]](*sys.argv[2:])
