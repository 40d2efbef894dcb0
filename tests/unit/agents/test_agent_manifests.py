"""What may stand in the description of an agent type, and which types there are."""

import json
import os
import tomllib
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craftastic.agents._manifest import MAX_MANIFEST_BYTES
from craftastic.agents._templates import PLACEHOLDERS
from craftastic.agents.agent_types import (
    BUILT_IN,
    AgentType,
    AgentTypes,
    BadManifest,
    Delivery,
    Problem,
    UnknownAgentType,
    read_file,
    read_manifest,
    render,
)

GOOD = """
name = "robot"
title = "The robot"
command = "robot"
[install]
npm = "@makers/robot"
version = "1.2.3"
missing = "Install it with `npm install -g @makers/robot`."
[launch]
argv = ["robot", "--home", "{home}"]
prompt = ["{prompt}"]
resume = ["--resume", "{conversation}"]
model = ["--model", "{model}"]
interrupt = ["Escape"]
submit = ["C-Enter"]
[launch.env]
ROBOT_HOME = "{home}/robot"
[[credentials]]
type = "robot_key"
title = "API key"
delivery = "gateway"
provider = "openai"
scheme = "bearer"
aliases = ["api_key"]
base_url = "https://robots.example/api"
env = { ROBOT_URL = "{gateway}", ROBOT_KEY = "{token}" }
[[credentials]]
type = "robot_login"
title = "Login file"
delivery = "file"
path = ".robot/login.json"
format = "json"
take_back = true
[[credentials]]
type = "robot_env"
title = "Key in the sandbox"
delivery = "env"
env = { ROBOT_KEY = "{credential}" }
[[files]]
path = "settings.json"
text = '{"cwd": {json:worktree}, "hook": "{hook}"}'
when = ["robot_key"]
[states]
Start = "idle"
Ask = "waiting_permission"
"Before[Ask User]" = "waiting_question"
[hooks]
ask = "Ask"
allow = '{"allow":true}'
deny = '{"allow":false,"why":{json:message}}'
conversation = "session_id"
[check]
version = ["robot", "--version"]
"""

Change = Callable[[dict[str, Any]], object]


def toml(value: Any) -> str:
    """Write a value as TOML, all tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(value)


def written(document: dict[str, Any]) -> bytes:
    return "".join(f"{json.dumps(k)} = {toml(v)}\n" for k, v in document.items()).encode()


def changed(change: Change) -> bytes:
    document = deepcopy(tomllib.loads(GOOD))
    change(document)
    return written(document)


def put(path: str, value: Any) -> Change:
    """Return a change that puts a value at a place as `credentials.0.path`."""

    def change(document: dict[str, Any]) -> None:
        target: Any = document
        *way, last = path.split(".")
        for part in way:
            target = target[int(part) if part.isdigit() else part]
        if isinstance(target, list):
            target.append(value)
        else:
            target[last] = value

    return change


def dropped(path: str) -> Change:
    """Return a change that takes away what is at a place."""

    def change(document: dict[str, Any]) -> None:
        target: Any = document
        *way, last = path.split(".")
        for part in way:
            target = target[int(part) if part.isdigit() else part]
        del target[last]

    return change


def problems_of(content: bytes) -> list[Problem]:
    with pytest.raises(BadManifest) as caught:
        read_manifest(content, "robot.toml")
    return list(caught.value.problems)


def test_a_good_manifest_becomes_its_type() -> None:
    robot = read_manifest(GOOD.encode(), "robot.toml")

    assert (robot.name, robot.title, robot.command) == ("robot", "The robot", "robot")
    assert (robot.npm, robot.version) == ("@makers/robot", "1.2.3")
    assert robot.argv == ("robot", "--home", "{home}")
    assert (robot.prompt, robot.model) == (("{prompt}",), ("--model", "{model}"))
    assert (robot.interrupt, robot.submit) == (("Escape",), ("C-Enter",))
    assert [one.delivery for one in robot.credentials] == list(Delivery)
    assert [one.enters_sandbox for one in robot.credentials] == [False, True, True]
    assert robot.kind("api_key") is robot.kind("robot_key") is robot.credentials[0]
    assert robot.kind("other") is None
    assert robot.files[0].when == ("robot_key",)
    assert robot.states["Before[Ask User]"] == "waiting_question"
    assert (robot.hooks.ask, robot.hooks.tool) == ("Ask", None)
    assert read_manifest(written(tomllib.loads(GOOD)), "robot.toml") == robot


WRONG: dict[str, tuple[Change, str]] = {
    # what is not known, missing, or of another kind
    "an unknown key": (put("colour", "red"), "colour"),
    "an unknown key below": (put("launch.cwd", "x"), "launch.cwd"),
    "an unknown key of a credential": (put("credentials.0.secret", "x"), "credentials[0].secret"),
    "no command": (dropped("command"), "command"),
    "no words on how to get it": (dropped("install.missing"), "install.missing"),
    "no check": (dropped("check"), "check"),
    "a number for a text": (put("title", 1), "title"),
    "a text for a list": (put("launch.argv", "robot"), "launch.argv"),
    "a text for a truth": (put("credentials.1.take_back", "yes"), "credentials[1].take_back"),
    # names
    "a name in capitals": (put("name", "Robot"), "name"),
    "a name that is a path": (put("name", "../robot"), "name"),
    "a long name": (put("name", "a" * 41), "name"),
    "a title of two lines": (put("title", "a\nb"), "title"),
    "a bad package": (put("install.npm", "robot; rm"), "install.npm"),
    "a bad version": (put("install.version", "1 2"), "install.version"),
    # commands
    "a command that is a path": (put("command", "/bin/robot"), "command"),
    "a command that is an option": (put("command", "-robot"), "command"),
    "another program": (put("launch.argv", ["sh", "-c", "x"]), "launch.argv[0]"),
    "another program to check": (put("check.version", ["curl", "x"]), "check.version[0]"),
    "no words": (put("launch.argv", []), "launch.argv"),
    "too many words": (put("launch.argv", ["robot"] * 33), "launch.argv"),
    "a long word": (put("launch.argv", ["robot", "x" * 4001]), "launch.argv[1]"),
    "a NUL": (put("launch.argv", ["robot", "a\0"]), "launch.argv[1]"),
    "a way out of the home": (put("launch.argv", ["robot", "{home}/../x"]), "launch.argv[1]"),
    "a way out by a variable": (put("launch.env", {"A": "{home}/.."}), "launch.env.A"),
    "a key that tmux has not": (put("launch.interrupt", ["C-c; kill"]), "launch.interrupt[0]"),
    "no key": (put("launch.submit", []), "launch.submit"),
    # variables
    "a variable's bad name": (put("launch.env", {"A B": "x"}), "launch.env.A B"),
    "a variable of loaders": (put("launch.env", {"LD_PRELOAD": "x"}), "launch.env.LD_PRELOAD"),
    "the path": (put("launch.env", {"PATH": "x"}), "launch.env.PATH"),
    "a variable of ours": (put("launch.env", {"CRAFTASTIC_X": "x"}), "launch.env.CRAFTASTIC_X"),
    # placeholders
    "an unknown placeholder": (put("launch.argv", ["robot", "{hom}"]), "launch.argv[1]"),
    "an unknown form": (put("launch.argv", ["robot", "{yaml:home}"]), "launch.argv[1]"),
    "an unknown name in JSON": (put("files.0.text", "{json:hom}"), "files[0].text"),
    "a prompt where there may be none": (
        put("launch.argv", ["robot", "{prompt}"]),
        "launch.argv[1]",
    ),
    "a token on a command line": (put("launch.argv", ["robot", "{token}"]), "launch.argv[1]"),
    "a token with a credential": (put("credentials.0.argv", ["{token}"]), "credentials[0].argv[0]"),
    "a credential on a command line": (
        put("launch.argv", ["robot", "{credential}"]),
        "launch.argv[1]",
    ),
    "a credential in a file": (put("files.0.text", "{credential}"), "files[0].text"),
    "a real key for the gateway's client": (
        put("credentials.0.env", {"A": "{credential}"}),
        "credentials[0].env.A",
    ),
    "a placeholder in the check": (put("check.version", ["robot", "{home}"]), "check.version[1]"),
    "a home in an answer": (put("hooks.allow", "{home}"), "hooks.allow"),
    # credentials
    "no provider": (dropped("credentials.0.provider"), "credentials[0].provider"),
    "an unknown provider": (put("credentials.0.provider", "acme"), "credentials[0].provider"),
    "an unknown scheme": (put("credentials.0.scheme", "basic"), "credentials[0].scheme"),
    "an unknown delivery": (put("credentials.0.delivery", "argv"), "credentials[0].delivery"),
    "a path for a key": (put("credentials.0.path", "x"), "credentials[0].path"),
    "a provider for a file": (put("credentials.1.provider", "openai"), "credentials[1].provider"),
    "no format": (dropped("credentials.1.format"), "credentials[1].format"),
    "a key to take back": (put("credentials.2.take_back", True), "credentials[2].take_back"),
    "a variable without the key": (put("credentials.2.env", {"A": "x"}), "credentials[2].env"),
    "a type with blanks": (put("credentials.0.type", "a b"), "credentials[0].type"),
    "two of one name": (put("credentials.1.type", "robot_key"), "credentials[1]"),
    "an alias that is a name": (put("credentials.1.aliases", ["api_key"]), "credentials[1]"),
    "an address of no kind": (put("credentials.0.base_url", "robots"), "credentials[0].base_url"),
    "an address with a password": (
        put("credentials.0.base_url", "https://u:p@robots.example"),
        "credentials[0].base_url",
    ),
    "an address with a query": (
        put("credentials.0.base_url", "https://robots.example/?x"),
        "credentials[0].base_url",
    ),
    "an address with a bad port": (
        put("credentials.0.base_url", "https://robots.example:x"),
        "credentials[0].base_url",
    ),
    # files
    "an absolute file": (put("files.0.path", "/etc/passwd"), "files[0].path"),
    "a file outside": (put("files.0.path", "a/../../b"), "files[0].path"),
    "a file with a backslash": (put("files.0.path", "a\\b"), "files[0].path"),
    "a file in no folder": (put("files.0.path", "a//b"), "files[0].path"),
    "a file in the place of the hook": (put("files.0.path", "hook"), "files[0].path"),
    "a file whose name varies": (put("files.0.path", "{token}"), "files[0].path"),
    "a login file outside": (put("credentials.1.path", "../login"), "credentials[1].path"),
    "a file for no credential": (put("files.0.when", ["other"]), "files[0].when[0]"),
    "a long file": (put("files.0.text", "x" * ((64 << 10) + 1)), "files[0].text"),
    "a file twice": (
        put("files.1", {"path": "settings.json", "text": ""}),
        "files[1].path",
    ),
    "a file over the login file": (
        put("files.1", {"path": ".robot/login.json", "text": ""}),
        "files[1].path",
    ),
    # states and hooks
    "an unknown state": (put("states", {"Start": "happy"}), "states.Start"),
    "an event of ours": (put("states", {"craftastic:started": "idle"}), "states"),
    "an answer to nothing": (dropped("hooks.ask"), "hooks."),
    "no way to deny": (dropped("hooks.deny"), "hooks.deny"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_manifest_is_refused_with_its_place(name: str) -> None:
    change, place = WRONG[name]

    problems = problems_of(changed(change))

    assert all(one.place.startswith(place) for one in problems), problems
    assert all(one.file == "robot.toml" and one.message for one in problems)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"name = \n", "line 1"),
        (b'name = "a"\nx = [\n', ""),
        (b'name = "a"\n\nx = \xff', "line 3"),
        (b"x = " + b"9" * 5000, ""),
        (b"x = " + b"[" * 100_000, ""),
        (b"#" * (MAX_MANIFEST_BYTES + 1), ""),
        (b"", "name"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(content: bytes, place: str) -> None:
    problems = problems_of(content)

    assert problems[0].place == place


def test_the_number_of_problems_that_are_told_is_bounded() -> None:
    unknown = {f"x{number}": 1 for number in range(1000)}

    assert len(problems_of(changed(lambda document: document.update(unknown)))) == 20


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_refused(content: bytes) -> None:
    assert problems_of(content)


VALUES = st.recursive(
    st.one_of(st.text(max_size=20), st.integers(-9, 9), st.booleans(), st.sampled_from(["{home}"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    "name", "title", "command", "install", "install.version", "launch", "launch.argv",
    "launch.env", "launch.interrupt", "credentials", "credentials.0.env", "credentials.0.aliases",
    "credentials.1.path", "credentials.0.base_url", "files", "files.0.text", "files.0.path",
    "states", "hooks", "hooks.deny", "check.version", "other",
]  # fmt: skip


@settings(max_examples=300)
@given(st.sampled_from(PLACES), VALUES)
def test_a_manifest_with_anything_in_any_place_is_good_or_refused_and_renders(
    place: str, value: Any
) -> None:
    try:
        content = changed(put(place, value))
    except UnicodeEncodeError:
        return
    with suppress(BadManifest):
        render_all(read_manifest(content, "robot.toml"))


def render_all(one: AgentType) -> list[str]:
    """Render every template of a type."""
    templates = [
        *one.argv, *one.prompt, *one.resume, *one.model, *one.version_argv, *one.env.values(),
        one.hooks.allow, one.hooks.deny, *(file.text for file in one.files),
    ]  # fmt: skip
    for kind in one.credentials:
        templates += [*kind.argv, *kind.env.values()]
    return [render(template, dict.fromkeys(PLACEHOLDERS, "a/b")) for template in templates]


# ---- the types that there are -----------------------------------------------------------------


def test_the_six_built_in_types_are_there_and_right(tmp_path: Path) -> None:
    types = AgentTypes.load(tmp_path)

    assert [one.name for one in types.all()] == [
        "claude-code", "codex", "cursor-cli", "gemini-cli", "opencode", "qwen-coder",
    ]  # fmt: skip
    assert types.problems == ()
    assert {path.stem for path in BUILT_IN.iterdir()} == set(types.types)
    for one in types.all():
        assert render_all(one)
        assert one.credentials


@pytest.mark.parametrize("path", sorted(BUILT_IN.glob("*.toml")), ids=lambda path: path.stem)
def test_the_files_and_answers_of_a_built_in_type_are_sound_whatever_the_values(
    path: Path,
) -> None:
    one = read_file(path, path.name)
    values = dict.fromkeys(PLACEHOLDERS, 'a "quoted"\\ one')
    values |= dict.fromkeys(("home", "hook", "gateway"), "/home/dev/x")

    for file in one.files:
        text = render(file.text, values)
        if file.path.endswith(".json"):
            assert json.loads(text)
        if file.path.endswith(".toml"):
            assert tomllib.loads(text)
    for answer in (one.hooks.allow, one.hooks.deny):
        if answer.startswith("{"):
            assert json.loads(render(answer, values))


def test_an_unknown_type_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownAgentType) as caught:
        AgentTypes.load(tmp_path).get("robot")

    assert caught.value.details == (
        "There are claude-code, codex, cursor-cli, gemini-cli, opencode, qwen-coder."
    )


def test_a_file_in_the_data_folder_adds_a_type_or_replaces_a_built_in_one(tmp_path: Path) -> None:
    folder = tmp_path / "agent-types"
    folder.mkdir()
    (folder / "robot.toml").write_text(GOOD)
    (folder / "mine.toml").write_text(GOOD.replace('name = "robot"', 'name = "codex"'))
    (folder / "notes.txt").write_text("no type")

    types = AgentTypes.load(tmp_path)

    assert types.problems == ()
    assert types.get("robot").title == types.get("codex").title == "The robot"
    assert len(types.all()) == 7


def test_a_wrong_file_in_the_data_folder_is_told_of_and_the_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "agent-types"
    folder.mkdir()
    (folder / "a.toml").write_text(GOOD)
    (folder / "b.toml").write_text(GOOD)
    (folder / "codex.toml").write_text("name = 1")
    (folder / "folder.toml").mkdir()
    os.mkfifo(folder / "pipe.toml")

    types = AgentTypes.load(tmp_path)

    told = {one.file: one.message for one in types.problems}
    assert told["agent-types/b.toml"] == "another file describes 'robot' already"
    assert told["agent-types/folder.toml"] == told["agent-types/pipe.toml"] == "is no file"
    assert "agent-types/codex.toml" in told
    assert types.get("robot").name == "robot"
    assert types.get("codex").title == "Codex"
