"""50 MB of output: MB/s, the server's CPU for each MB, and whether every byte arrived.

Run from the project's root: `python -m bench.output`. A file of numbered lines is printed in each
terminal in turn; the clock runs from the key that starts it to the mark that follows it.
"""

import random
import sys
import time
from hashlib import sha256

import anyio
import psutil

from bench._common import (
    Options,
    Report,
    Terminal,
    WebTerminal,
    drain,
    keep_alive,
    options,
    terminals,
)
from tests.e2e.harness import Server

LINES = 625_000
LINE = "%08d " + "abcdefghijklmnopqrstuvwxyz" * 2 + "0123456789ABCDEFGH"
MAKE = (
    f"python3 -c \"open('output.txt','w').writelines('{LINE}\\n' % i for i in range({LINES}))\"; "
    "echo do''ne\r"
)
BEGIN, END = b"BEGIN\r\n", b"END\r\n"
PRINT = b"printf '%s\\n' BE''GIN; cat output.txt; printf '%s\\n' E''ND\r"
SECONDS = 30.0


def expected() -> tuple[int, str]:
    """Return the length and the hash of what a terminal is sent for the file."""
    text = "".join(f"{LINE}\r\n" % number for number in range(LINES)).encode()
    return len(text), sha256(text).hexdigest()


def print_file(terminal: Terminal) -> tuple[float, bytes]:
    """Print the file; return the seconds it took and what arrived."""
    started = time.perf_counter()
    terminal.send(PRINT)
    seen = bytearray()
    while END not in seen[-4096:] and b"END" not in seen[-64:]:
        seen += terminal.receive(1.0)
        if time.perf_counter() - started > SECONDS:
            raise TimeoutError(f"the end did not come: {bytes(seen[-300:])!r}")
    return time.perf_counter() - started, bytes(seen)


def cpu_s(server: Server) -> float:
    assert server.process is not None
    times = psutil.Process(server.process.pid).cpu_times()
    return times.user + times.system


async def measure(chosen: Options) -> Report:
    report = Report("50 MB of output")
    length, fingerprint = expected()
    dice = random.Random(2)  # noqa: S311 - repeatable, not secret
    async with terminals(chosen.runtimes, json_too=True) as (found, servers, floors):
        for terminal in found.values():
            terminal.send(MAKE.encode())
            while b"done" not in terminal.receive(SECONDS):
                pass
            drain(terminal, 0.3)
            keep_alive(found.values())
        for name in found:
            report.row(name, "MB/s", floors.get(name))
        for _ in range(chosen.rounds):
            order = list(found)
            dice.shuffle(order)
            for name in order:
                terminal, server = found[name], servers.get(name)
                before = cpu_s(server) if server else 0.0
                snapshots = terminal.snapshots if isinstance(terminal, WebTerminal) else 0
                try:
                    seconds, seen = print_file(terminal)
                except TimeoutError as error:
                    report.row(name).note += f" the end did not come within {SECONDS:.0f} s"
                    print(f"bench: {name}: {error}")
                    return report
                report.row(name).add(length / 1e6 / seconds)
                body = seen.partition(BEGIN)[2].rpartition(END)[0]
                whole = sha256(body).hexdigest() == fingerprint
                if isinstance(terminal, WebTerminal):
                    snapshots = terminal.snapshots - snapshots
                note = "every byte" if whole else f"{100 * len(seen) / length:.0f} % of the bytes"
                note += f", {snapshots} snapshots" if snapshots else ""
                report.row(name).note += f"{'; ' if report.row(name).note else ''}{note}"
                if server:
                    used = (cpu_s(server) - before) * 1000 / (length / 1e6)
                    report.row(f"{name}: server's CPU", "ms/MB").add(used)
                drain(terminal, 0.3)
                keep_alive(found.values())
    return report


def main(argv: list[str]) -> None:
    chosen = options(__doc__, argv, rounds=3)
    anyio.run(measure, chosen).show(as_json=chosen.as_json)


if __name__ == "__main__":
    main(sys.argv[1:])
