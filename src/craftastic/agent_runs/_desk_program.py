"""Types a prompt into an agent's terminal, or says how the agent is. Runs in the sandbox.

Its text is sent to the sandbox's python3 and is constant: what differs comes as one JSON object on
its input, and its answer is one JSON object. It types nothing unless the agent's supervisor says,
at that moment, that the agent is idle: text that is typed into a dialog answers the dialog.
"""

import json
import os
import socket
import subprocess
import sys
import time
from typing import cast

SOCKET_S = 3.0
TMUX_S = 5.0
PAUSE_S = 0.25
"""Between a pasted text and the key that sends it: programs take what comes at once for pasted."""

MOST_BYTES = 65536


def main() -> int:
    """Do what the input says, and print how it went."""
    given = json.load(sys.stdin)
    said = asked(given["supervisor"])
    if given["op"] == "look":
        answer = {"last": None if said is None else str(said.get("last"))[:100]}
    elif said is None:
        answer = {"pasted": False, "why": "gone"}
    elif said.get("idle") is not True:
        answer = {"pasted": False, "why": "busy"}
    else:
        answer = typed(given)
    sys.stdout.write(json.dumps(answer))
    return 0


def asked(path: str) -> "dict[str, object] | None":
    """Ask the supervisor whether the agent is idle; None when it does not answer."""
    try:
        # Its path may be longer than a socket's address can be; its name never is.
        os.chdir(os.path.dirname(path))  # noqa: PTH120 - pathlib is slow to import
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(SOCKET_S)
            line.connect(os.path.basename(path))  # noqa: PTH119
            line.sendall(b'{"op":"idle?"}\n')
            data = b""
            while b"\n" not in data and len(data) < MOST_BYTES:
                part = line.recv(4096)
                if not part:
                    break
                data += part
        said = json.loads(data)
    except (OSError, ValueError):
        return None
    return cast("dict[str, object]", said) if isinstance(said, dict) else None


def typed(given: "dict[str, object]") -> "dict[str, object]":
    """Paste the text and press the keys that send it; `pasted` is null where nobody can know."""
    name, target = f"craftastic-{given['id']}", f"={given['name']}:"
    keys = cast("list[str]", given["keys"])
    if not tmux(given, ["load-buffer", "-b", name, "-"], str(given["text"])):
        return {"pasted": False, "why": "tmux"}
    if not tmux(given, ["paste-buffer", "-p", "-d", "-b", name, "-t", target]):
        tmux(given, ["delete-buffer", "-b", name])
        return {"pasted": None}
    time.sleep(PAUSE_S)
    sent = tmux(given, ["send-keys", "-t", target, "--", *keys])
    return {"pasted": True if sent else None}


def tmux(given: "dict[str, object]", words: "list[str]", text: str = "") -> bool:
    """Run one command of the product's own tmux server."""
    try:
        done = subprocess.run(
            [*cast("list[str]", given["tmux"]), *words],
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TMUX_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
