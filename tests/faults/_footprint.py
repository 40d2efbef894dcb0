"""What a server's own process holds: memory, descriptors, threads, tasks, viewers, panes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.e2e.harness import Server

SPARE_FDS = 4
SPARE_TASKS = 4
"""What comes and goes by itself: a reconciler's round, a connection to the database."""
POOL_THREADS = 40
"""Worker threads are kept for the next work; there are never more."""


@dataclass(frozen=True, slots=True)
class Footprint:
    fds: int
    threads: int
    tasks: int
    viewers: int
    panes: int
    requests: int


def rss(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(psutil.Process(pid).memory_info().rss)


def pid_of(server: Server) -> int:
    assert server.process is not None
    return server.process.pid


async def footprint(server: Server) -> Footprint:
    """Look at a server that answers; the question itself is not counted."""
    process = Path("/proc") / str(pid_of(server))
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{server.url}/metrics")).text
        fds = len(list((process / "fd").iterdir())) - 1
    threads = re.search(r"^Threads:\s+(\d+)$", (process / "status").read_text(), re.MULTILINE)
    assert threads is not None

    def number(name: str) -> int:
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, name
        return int(float(found[1]))

    return Footprint(
        fds=fds,
        threads=int(threads[1]),
        tasks=number("craftastic_tasks") - 1,
        viewers=number("craftastic_terminal_viewers"),
        panes=number("craftastic_terminal_panes"),
        requests=number("craftastic_http_requests_in_progress") - 1,
    )


def i6_the_server_has_leaked_nothing(before: Footprint, now: Footprint) -> Iterator[str]:
    for what, spare in (
        ("fds", SPARE_FDS),
        ("tasks", SPARE_TASKS),
        ("threads", POOL_THREADS),
        ("viewers", 0),
        ("panes", 0),
        ("requests", 0),
    ):
        was, is_now = getattr(before, what), getattr(now, what)
        if is_now > was + spare:
            yield f"the server has {is_now} {what}, and had {was}"
