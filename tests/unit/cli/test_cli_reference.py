"""The command line's page says everything that its help does."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from craftastic.cli.main import app

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md"


def commands(command: Any, path: str = "craftastic") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{path} {name}")


def missing(page: str) -> list[str]:
    """List commands without a section and options that their section does not name."""
    sections = dict(re.findall(r"(?ms)^#+ `(craftastic[^`]*)`\n(.*?)(?=^#|\Z)", page))
    sections = {re.sub(r" [A-Z\[].*", "", head): text for head, text in sections.items()}
    found: list[str] = []
    for path, command in commands(typer.main.get_command(app)):
        if path not in sections:
            found.append(path)
            continue
        options = [
            option
            for parameter in command.params
            for option in parameter.opts
            if option.startswith("--") and "completion" not in option and option != "--help"
        ]
        found += [f"{path} {one}" for one in options if f"`{one}" not in sections[path]]
    return found


def test_every_command_and_every_option_is_documented() -> None:
    assert missing(PAGE.read_text(encoding="utf-8")) == []


def test_an_option_that_is_not_documented_is_found() -> None:
    page = re.sub(r"`--detach-keys[^`]*`", "", PAGE.read_text(encoding="utf-8"))

    assert "craftastic up --detach-keys" in missing(page)
