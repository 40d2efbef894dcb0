"""Many terminals at once: key to echo while everybody types, and the server's memory for each.

Run from the project's root: `python -m bench.many`. Each terminal gets five keys a second. One
thread types and reads for all of them, as one client would not: its own share is in the figures.
`--most N` takes other numbers than the usual 1, 10 and 50: 200 need about 3 GiB for their shells.
"""

import argparse
import random
import selectors
import sys
import time
from contextlib import AsyncExitStack

import anyio

from bench._common import (
    PROMPTS,
    Options,
    Report,
    WebTerminal,
    drain,
    keep_alive,
    options,
    product,
    read_until,
)
from bench.server import rss_mib

NUMBERS = (1, 10, 50, 200, 1000)
USUAL_MOST = 50
KEYS_PER_S = 5.0
SECONDS = 8.0
TO_ONE_SANDBOX = 40
KEY = b"z"
LINE = 60
"""Keys after which the line is emptied: one that wraps would be drawn anew."""


def type_into_all(terminals: list[WebTerminal], dice: random.Random) -> list[float]:
    """Type into every terminal at its own times; return the milliseconds to each echo."""
    taken: list[float] = []
    waiting: dict[int, float] = {}
    typed = [0] * len(terminals)
    began = time.perf_counter()
    due = [began + dice.uniform(0, 1 / KEYS_PER_S) for _ in terminals]
    with selectors.DefaultSelector() as selector:
        for number, one in enumerate(terminals):
            selector.register(one.socket, selectors.EVENT_READ, number)
        while (now := time.perf_counter()) < began + SECONDS or (
            waiting and now < began + 2 * SECONDS
        ):
            if now < began + SECONDS:
                for number, at in enumerate(due):
                    if at <= now and number not in waiting:
                        typed[number] += 1
                        is_key = typed[number] % LINE != 0
                        terminals[number].send(KEY if is_key else b"\x15")
                        if is_key:
                            waiting[number] = time.perf_counter()
                        due[number] = now + 1 / KEYS_PER_S
            for key, _ in selector.select(max(0.0, min(due) - time.perf_counter(), 0.001)):
                number = int(key.data)
                if KEY in terminals[number].receive(0) and number in waiting:
                    taken.append((time.perf_counter() - waiting.pop(number)) * 1000)
    if waiting:
        print(f"bench: {len(waiting)} keys had no echo within {SECONDS:.0f} s")
    return taken


async def measure(chosen: Options, most: int) -> Report:
    report = Report("many terminals", tail=True)
    dice = random.Random(3)  # noqa: S311 - repeatable, not secret
    limits = {"CRAFTASTIC_MAX_TERMINALS_PER_USER": str(most + 1)}
    for runtime in chosen.runtimes:
        async with AsyncExitStack() as stack:
            server, api = await stack.enter_async_context(product(runtime, **limits))
            terminals: list[WebTerminal] = []
            environment = await api.environment("bench")
            first = f"{runtime}: key to echo, 1 terminal"
            before = rss_mib(server.process)
            for number in (one for one in NUMBERS if one <= most):
                while len(terminals) < number:
                    if terminals and len(terminals) % TO_ONE_SANDBOX == 0:
                        environment = await api.environment(f"bench{len(terminals)}")
                    session = await api.post(
                        "/api/sessions",
                        environmentId=environment["id"],
                        name=f"s{len(terminals)}",
                    )
                    one = WebTerminal(server, api, session, v2=True)
                    stack.callback(one.close)
                    read_until(one, *PROMPTS)
                    one.send(b"PS1='> '; set +o history; clear\r")
                    drain(one, 0.2)
                    terminals.append(one)
                    if len(terminals) == 1:
                        before = rss_mib(server.process)
                    keep_alive(terminals)
                named = f"{runtime}: key to echo, {number} terminals" if number > 1 else first
                row = report.row(named, "ms", None if number == 1 else first)
                row.values += type_into_all(terminals, dice)
                if number > 1:
                    grown = (rss_mib(server.process) - before) * 1024 / (number - 1)
                    report.row(f"{runtime}: memory of each of {number}", "KiB").add(grown)
    return report


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--most", type=int, default=USUAL_MOST)
    own, rest = parser.parse_known_args(argv)
    chosen = options(__doc__, rest, rounds=1)
    anyio.run(measure, chosen, own.most).show(as_json=chosen.as_json)


if __name__ == "__main__":
    main(sys.argv[1:])
