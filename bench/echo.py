"""Time from a key to its echo: the product over each runtime and protocol, beside bare attach.

Run from the project's root: `python -m bench.echo`. All terminals are open at once; each round
types into every one of them, in another order, so that a busy moment of the machine hits all.
"""

import random
import sys
import time

import anyio

from bench._common import Options, Report, Terminal, drain, options, terminals

KEYS = 50
KEY = b"z"
PAUSE_S = (0.004, 0.015)
ANSWER_S = 5.0


def key_to_echo(terminal: Terminal) -> float:
    """Return the milliseconds from a key to its echo."""
    started = time.perf_counter()
    terminal.send(KEY)
    while KEY not in terminal.receive(ANSWER_S):
        if time.perf_counter() - started > ANSWER_S:
            raise TimeoutError("no echo")
    return (time.perf_counter() - started) * 1000


def type_some(terminal: Terminal, dice: random.Random) -> list[float]:
    taken: list[float] = []
    for _ in range(KEYS):
        taken.append(key_to_echo(terminal))
        time.sleep(dice.uniform(*PAUSE_S))
    terminal.send(b"\x15")  # Ctrl-U: the next keys stay on one line
    drain(terminal)
    return taken


async def measure(chosen: Options) -> Report:
    report = Report("key to echo", tail=True)
    dice = random.Random(1)  # noqa: S311 - repeatable, not secret
    async with terminals(chosen.runtimes, json_too=True) as (found, _, floors):
        rows = {name: report.row(name, "ms", floors.get(name)) for name in found}
        for _ in range(chosen.rounds):
            order = list(found)
            dice.shuffle(order)
            for name in order:
                rows[name].values += type_some(found[name], dice)
    return report


def main(argv: list[str]) -> None:
    chosen = options(__doc__, argv, rounds=9)
    anyio.run(measure, chosen).show(as_json=chosen.as_json)


if __name__ == "__main__":
    main(sys.argv[1:])
