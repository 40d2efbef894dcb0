"""`craftastic disk`: which command a word is, and what is printed of a sandbox's figures."""

from typing import Any

import pytest
import typer.main

from craftastic.cli.disk_commands import disk, show


@pytest.mark.parametrize(
    ("words", "command", "rest"),
    [
        ([], "show", []),
        (["project"], "show", ["project"]),
        (["project", "--measure"], "show", ["project", "--measure"]),
        (["--json"], "show", ["--json"]),
        (["show", "reclaim"], "show", ["reclaim"]),
        (["reclaim", "project", "--tier", "2"], "reclaim", ["project", "--tier", "2"]),
    ],
)
def test_a_name_is_an_environment_unless_it_is_a_command(
    words: list[str], command: str, rest: list[str]
) -> None:
    group: Any = typer.main.get_command(disk)
    context = group.make_context("disk", list(words))

    assert [*context._protected_args, *context.args] == [command, *rest]


def use(**changes: object) -> dict[str, Any]:
    session = {
        "name": "one\x1b[2J", "state": "ended", "saved": False, "bytes": 2048,
        "regenerableBytes": 1024, "path": "/home/dev/a",
    }  # fmt: skip
    item = {"path": "/home/dev/.cache/pip", "bytes": 1 << 20}
    return {
        "state": "measured",
        "measuredAt": "2026-01-01T00:00:00.000Z",
        "reason": None,
        "complete": True,
        "quotaBytes": 1 << 30,
        "nearQuota": False,
        "overQuota": False,
        **dict.fromkeys(
            ("totalBytes", "repositoryBytes", "homeBytes", "cacheBytes", "otherBytes"), 3 << 20
        ),
        "sessions": [session],
        "tiers": [{"tier": tier, "bytes": 1 << 20, "items": [item]} for tier in (1, 2, 3)],
        **changes,
    }


def test_figures_are_shown_for_people_and_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(use(overQuota=True, complete=False, reason="It is not running."))

    said = capsys.readouterr()
    assert "total            3.0 MiB or more of 1.0 GiB" in said.out
    assert "one[2J\tended\tno\t2.0 KiB\t1.0 KiB\t/home/dev/a" in said.out
    assert "tier 2 would free 1.0 MiB" in said.out
    assert "\x1b" not in said.out
    assert said.err.splitlines() == [
        "It is not running.",
        "It is over its quota: new sessions are refused until some of it is freed.",
    ]


def test_what_was_never_measured_says_how_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show(use(state="never"))

    assert "--measure" in capsys.readouterr().err
