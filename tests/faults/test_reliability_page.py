"""The page about faults and the tests agree: each fault has a row, each row a test that exists."""

import ast
import re
from pathlib import Path

import pytest

from tests.faults._invariants import INVARIANTS

pytestmark = pytest.mark.fault

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "explanation" / "reliability.md"
FAULTS = [f"F{number:02}" for number in range(1, 46)]
NOT_YET = {"F45"}
"""Faults without a test. Whoever writes one takes the fault out of here, and names it there."""


def rows(page: str, id_of_row: str) -> dict[str, list[str]]:
    """Return the cells of each row of a table, by the id in its first one."""
    found = (re.split(r"\s*\|\s*", line.strip("| \n")) for line in page.splitlines())
    return {cells[0]: cells[1:] for cells in found if re.fullmatch(id_of_row, cells[0])}


def names_of_tests(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def absent(cell: str) -> list[str]:
    """List the tests that a cell names and that are not there; of an empty one, itself."""
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", cell)
    return [
        f"{file}::{name}"
        for file, name in named
        if not (TESTS / file).is_file() or name not in names_of_tests(TESTS / file)
    ] or ([] if named else [f"no test in {cell!r}"])


def test_every_fault_has_one_row_in_order() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert list(rows(page, r"F\d+")) == FAULTS


def test_every_fault_has_a_test_that_exists_or_is_known_to_have_none() -> None:
    found = rows(PAGE.read_text(encoding="utf-8"), r"F\d+")

    without = {fault for fault, cells in found.items() if cells[2] == "not yet"}
    missing = {
        fault: names
        for fault, cells in found.items()
        if fault not in without and (names := absent(cells[2]))
    }
    assert without == NOT_YET
    assert missing == {}


def test_tests_that_do_not_exist_are_found() -> None:
    here = "faults/test_reliability_page.py"

    assert absent(f"`{here}::test_tests_that_do_not_exist_are_found`") == []
    assert absent(f"`{here}::test_of_nothing`") == [f"{here}::test_of_nothing"]
    assert absent("`no/such_file.py::test_of_nothing`") == ["no/such_file.py::test_of_nothing"]
    assert absent("soon") == ["no test in 'soon'"]


def test_every_invariant_is_told_and_checked() -> None:
    told = rows(PAGE.read_text(encoding="utf-8"), r"I\d")

    # I7 needs to be told the secrets, I9 a server that answers.
    assert list(told) == sorted({*INVARIANTS, "I7", "I9"})
