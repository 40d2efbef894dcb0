"""A client that stops reading while a program prints without end: what the server keeps for it.

Run from the project's root: `python -m bench.stalled`. The client reads nothing for eight seconds,
then reads on and presses Ctrl-C; the clock runs from that key to the prompt.
"""

import sys

import anyio
import psutil

from bench._common import (
    PROMPTS,
    Clock,
    Options,
    Report,
    WebTerminal,
    drain,
    options,
    product,
    read_until,
)
from bench.server import rss_mib

STALL_S = 8.0
MARK = b"unmistakable> "


def tmux_mib() -> float:
    """Return the memory of the largest tmux server of this machine, in a sandbox or not."""
    found = (one.info for one in psutil.process_iter(["name", "memory_info"]))
    sizes = (one["memory_info"].rss for one in found if one["name"] == "tmux: server")
    return max(sizes, default=0) / 2**20


async def measure(chosen: Options) -> Report:
    report = Report("a client that stops reading")
    for runtime in chosen.runtimes:
        for v2 in (True, False):
            kind = f"{runtime}, {'v2' if v2 else 'JSON'}"
            async with product(runtime) as (server, api):
                environment = await api.environment("bench")
                session = await api.post(
                    "/api/sessions", environmentId=environment["id"], name="stalled"
                )
                terminal = WebTerminal(server, api, session, v2=v2)
                try:
                    read_until(terminal, *PROMPTS)
                    terminal.send(b"PS1='unmistak''able> '; clear\r")
                    drain(terminal, 0.5)
                    before, tmux_before = rss_mib(server.process), tmux_mib()
                    terminal.send(b"yes\r")
                    await anyio.sleep(STALL_S)
                    grown = rss_mib(server.process) - before
                    report.row(f"{kind}: the server grows by", "MiB").add(grown)
                    report.row(f"{kind}: tmux grows by", "MiB").add(tmux_mib() - tmux_before)
                    clock = Clock()
                    terminal.send(b"\x03")
                    read_until(terminal, MARK)
                    report.row(f"{kind}: Ctrl-C to prompt").add(clock.lap())
                finally:
                    terminal.close()
    return report


def main(argv: list[str]) -> None:
    chosen = options(__doc__, argv, rounds=1)
    anyio.run(measure, chosen).show(as_json=chosen.as_json)


if __name__ == "__main__":
    main(sys.argv[1:])
