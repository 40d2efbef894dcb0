"""What the tests of faults measured: a line for each, and `python -m tests.faults._figures` to see.

The table of docs/explanation/reliability.md takes its figures from here.
"""

import json
import sys
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / ".cache" / "faults.jsonl"


def note(fault: str, what: str, value: float, unit: str) -> None:
    """Keep one figure; a line is short enough to be written by several processes at once."""
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a", encoding="utf-8") as file:
        file.write(json.dumps([fault, what, round(value, 3), unit]) + "\n")


def shown() -> list[str]:
    """Return a line for each fault and each thing that was measured: count, median and worst."""
    found: dict[tuple[str, str, str], list[float]] = {}
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.is_file() else []
    for fault, what, value, unit in map(json.loads, lines):
        found.setdefault((fault, what, unit), []).append(value)
    return [
        f"{fault} {what}: n={len(values)} p50={percentile(values, 50):g} {unit}"
        f" p95={percentile(values, 95):g} {unit} max={max(values):g} {unit}"
        for (fault, what, unit), values in sorted(found.items())
    ]


def percentile(values: list[float], percent: int) -> float:
    """Return the smallest value that at least this part of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


if __name__ == "__main__":
    sys.stdout.write("\n".join([*shown(), ""]))
