"""Tells the session's supervisor what the agent's CLI has just done; never hinders the CLI.

Its text lies in the CLI's home as an executable file: it imports nothing of this project, and only
what starts fast. Usage: EVENT [JSON]; without the second argument the JSON is read from the input.
It prints the answer to the event that asks (CRAFTASTIC_AGENT_ASK), waits 2 s for any other, and
ends with 0 in any case.
"""

import _signal  # pyright: ignore[reportMissingImports]
import _socket  # pyright: ignore[reportMissingImports]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST, LONGEST = 200 << 10, 32 << 20
SIGALRM, TOLD_S, ASKED_S = 14, 2, 610


def main() -> None:
    """Pass the event on, and print what is answered."""
    path = os.environ.get("CRAFTASTIC_AGENT_SOCKET")  # noqa: TID251 - the sandbox's
    if not path or len(sys.argv) < 2:  # noqa: PLR2004
        return
    _signal.alarm(TOLD_S)
    event = sys.argv[1]
    payload = sys.argv[2].encode() if len(sys.argv) > 2 else sys.stdin.buffer.read(LONGEST)  # noqa: PLR2004
    if len(payload) > MOST:
        payload = shortened(payload)
    if event == os.environ.get("CRAFTASTIC_AGENT_ASK"):  # noqa: TID251
        _signal.alarm(ASKED_S)
    # A line break in JSON is never part of a text. The address of a socket is short: go there.
    os.chdir(os.path.dirname(path))  # noqa: PTH120
    door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    door.connect(os.path.basename(path))  # noqa: PTH119
    line = b'{"op":"event","event":"%s","payload":%s}\n'
    send(door, line % (event.encode(), payload.translate(None, b"\r\n").strip() or b"{}"))
    said = b""
    while not said.endswith(b"\n") and (data := door.recv(65536)):
        said += data
    if said.strip() not in (b"", b"{}", b'{"answer": ""}'):
        import json  # noqa: PLC0415 - starts slowly

        sys.stdout.write(json.loads(said).get("answer", ""))
        sys.stdout.flush()


def leave(*_: object) -> None:
    os._exit(0)


def send(door: "_socket.socket", data: bytes) -> None:
    while data:
        data = data[door.send(data) :]


def shortened(payload: bytes) -> bytes:
    """Return a large payload without the middle of its long texts."""
    import json  # noqa: PLC0415

    def short(value: "Any", most: int) -> "Any":
        if isinstance(value, str):
            return value if len(value) <= most else value[: most // 2] + " … " + value[-most // 2 :]
        rows: Any = value
        if isinstance(value, dict):
            return {key: short(rows[key], most) for key in list(rows)[:200]}
        return [short(one, most) for one in rows[:200]] if isinstance(value, list) else rows

    said = json.loads(payload)
    for most in (20_000, 2_000, 200):
        if len(text := json.dumps(short(said, most)).encode()) <= MOST:
            return text
    return json.dumps({key: one for key, one in said.items() if isinstance(one, str)})[
        :MOST
    ].encode()


if __name__ == "__main__":
    _signal.signal(SIGALRM, leave)
    try:
        main()
    finally:
        leave()  # an agent does not fail because nobody listens
