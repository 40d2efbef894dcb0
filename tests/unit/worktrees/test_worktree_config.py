"""What a repository's configuration may say, and what hostile bytes in its place do."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craftastic.worktrees._config import (
    MAX_COMMANDS,
    MAX_FILE_BYTES,
    RawFile,
    WorktreeConfig,
    is_command_name,
    read_config,
)

NOTHING = RawFile()
EVERYTHING = b"""
[worktree]
copy = [".env", "config/*.local.json"]
setup = ["npm ci", " ", "make"]
teardown = "docker compose down"
setup_timeout = 60
[commands]
dev = "npm run dev"
"test:unit" = "npm test"
"""


def read(config: bytes | str, include: bytes = b"") -> WorktreeConfig:
    content = config.encode() if isinstance(config, str) else config
    return read_config(RawFile(content), RawFile(include))


def test_everything_is_read() -> None:
    found = read(EVERYTHING)

    assert found.copy == (".env", "config/*.local.json")
    assert found.setup == ("npm ci", "make")
    assert found.teardown == ("docker compose down",)
    assert found.setup_timeout_s == 60
    assert found.commands == {"dev": "npm run dev", "test:unit": "npm test"}
    assert (found.warnings, found.error) == ((), None)


def test_no_file_says_nothing() -> None:
    assert read_config(NOTHING, NOTHING) == WorktreeConfig()


def test_what_is_not_known_is_a_warning_and_the_rest_counts() -> None:
    found = read('[other]\n[worktree]\nsteup = 1\nsetup = "make"\n')

    assert found.warnings == (
        ".craftastic/config.toml: other means nothing.",
        ".craftastic/config.toml: worktree.steup means nothing.",
    )
    assert found.setup == ("make",)


def test_a_worktreeinclude_adds_its_patterns_even_beside_a_broken_configuration() -> None:
    include = b"# a comment\n\n.env\r\n!not.this\n caf\xe9\n"

    assert read('[worktree]\ncopy = ["a"]', include).copy == (
        "a",
        ".env",
        "!not.this",
        " caf\udce9",
    )
    broken = read("[", include)
    assert broken.copy == (".env", "!not.this", " caf\udce9")
    assert broken.error is not None


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("worktree = 1", "a table [worktree]"),
        ("[[worktree]]", "a table [worktree]"),
        ("commands = []", "a table [commands]"),
        ("[worktree]\ncopy = '.env'", "worktree.copy"),
        ("[worktree]\ncopy = [1]", "worktree.copy"),
        ('[worktree]\ncopy = ["a\\nb"]', "line break"),
        ('[worktree]\ncopy = ["a\\u0000b"]', "line break"),
        ("[worktree]\nsetup = 1", "worktree.setup"),
        ("[worktree]\nsetup = [['a']]", "worktree.setup"),
        ('[worktree]\nsetup = "a\\u0000b"', "NUL"),
        ("[worktree]\nteardown = {a = 1}", "worktree.teardown"),
        ("[worktree]\nsetup_timeout = 0", "1 to 86400 seconds"),
        ("[worktree]\nsetup_timeout = 86401", "1 to 86400 seconds"),
        ("[worktree]\nsetup_timeout = true", "whole number"),
        ("[worktree]\nsetup_timeout = 1.5", "whole number"),
        ("[worktree]\nsetup_timeout = '60'", "whole number"),
        ("[commands]\ndev = ['a']", "commands.dev"),
        ("[commands]\ndev = ''", "commands.dev"),
        ("[commands]\n'a/b' = 'x'", "names are"),
        ("[commands]\n'..' = 'x'", "names are"),
        ("[commands.dev]\nrun = 'x'", "commands.dev"),
        ("a = 1\na = 2", "not valid TOML"),
        ("a = 99999-99-99", "not valid TOML"),
        ("a = " + "1" * 5000, "not valid TOML"),
        ("a = " + "[" * 20_000, "nested too deeply"),
        (b"\xff", "not UTF-8"),
        (b"#" * (MAX_FILE_BYTES + 1), "longer than 64 KiB"),
    ],
)
def test_a_fault_is_told_in_words_and_nothing_counts(config: bytes | str, says: str) -> None:
    found = read(config)

    assert found.error is not None
    assert says in found.error
    assert found == WorktreeConfig(error=found.error, warnings=found.warnings)


def test_there_are_at_most_sixteen_commands() -> None:
    lines = [f"c{number} = 'x'" for number in range(MAX_COMMANDS + 1)]

    assert len(read("\n".join(["[commands]", *lines[:-1]])).commands) == MAX_COMMANDS
    assert "at most 16" in (read("\n".join(["[commands]", *lines])).error or "")


@pytest.mark.parametrize(
    "config",
    [
        "a" + ".a" * 32_000 + " = 1",
        "[a" + ".a" * 32_000 + "]",
        "a" + " . a" * 16_000 + " = 1",
        "\n".join("a" + ".b" * 190 + f".c{number} = 1" for number in range(160)),
        "a = {" * 13_000,
        "a = [" + "{}," * 20_000 + "]",
    ],
    ids=["key", "table", "spaced", "many", "inline", "list"],
)
def test_no_text_takes_long_to_read(config: str) -> None:
    begun = time.process_time()

    read(config[:MAX_FILE_BYTES])

    assert time.process_time() - begun < 2.0, "the first three would take 18 s"


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(config: bytes, include: bytes) -> None:
    found = read(config, include)

    assert all("\n" not in one and "\0" not in one for one in found.copy)
    assert all(is_command_name(name) for name in found.commands)


@given(st.text(max_size=80))
def test_a_command_name_is_the_name_of_one_folder(name: str) -> None:
    if is_command_name(name):
        assert name.isascii()
        assert not set(name) & set("/\0\n \\")
        assert name not in {".", ".."}
        assert not name.startswith(("-", "."))
