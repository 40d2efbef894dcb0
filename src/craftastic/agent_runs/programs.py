"""What is sent into a sandbox for an agent's session: the supervisor, what it is to know, the hook.

The supervisor is the first process of the session's pane and starts the agent's CLI. It comes
through `TmuxService.ensure(program=…)`, so nothing of it is in an argument or on a disk. What is in
`Launch.env` is in the environment of the CLI, and of the shell that goes on after its end.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from craftastic.errors import InvalidInput

__all__ = ["HOOK_NAME", "BadAgentLaunch", "Launch", "LaunchFile", "hook_file", "hook_text", "pack"]

HOOK_NAME = "hook"
"""The name of the hook's program in the CLI's home."""

SOCKET_VARIABLE = "CRAFTASTIC_AGENT_SOCKET"
"""Where the CLI finds, in its environment, the path of the socket that its hooks report to."""

MAX_WORDS = 200
MAX_FILES = 50
MAX_EVENTS = 100
MAX_WORD_BYTES = (128 << 10) - 1
"""The longest argument or variable with its name that Linux passes on. Source: execve(2)."""

MAX_STARTED_BYTES = 1 << 20
"""Of all arguments and variables together; Linux takes 2 MiB and its own are added."""

MAX_FILES_BYTES = 2 << 20
MAX_TAKEN_BACK_BYTES = 256 << 10
MAX_TEXT = 4000
PARTS = ("reports", "terminal", "door", "files")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
GATEWAY = re.compile(r"http://[A-Za-z0-9.-]+:[0-9]{1,5}/[A-Za-z0-9/_-]{1,200}")
WORD = re.compile(r"[A-Za-z0-9_-]{1,100}")
LOADER = """\
import sys, types
for name, text in SOURCES[:-1]:
    sys.modules[name] = module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
exec(compile(SOURCES[-1][1], SOURCES[-1][0], "exec"), globals())
"""
"""Runs the supervisor's parts as the modules by whose names they find each other."""


class BadAgentLaunch(InvalidInput):
    """What an agent's session is to be started with is too large, or cannot be."""

    code = "BAD_AGENT_LAUNCH"


@dataclass(frozen=True, slots=True)
class LaunchFile:
    """A file in the CLI's home; `path` is relative to that.

    With `memory` it lies in memory and only a link is in the home; it goes with the CLI's end.
    With `take_back` the supervisor tells when it has changed and is a whole JSON object.
    """

    path: str
    text: str = field(repr=False)
    mode: int = 0o600
    memory: bool = False
    take_back: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """All that a supervisor knows.

    Args:
        session: The session's id.
        home: The CLI's home, a folder inside the sandbox that is made.
        memory: The folder for files in memory; where `/dev/shm` is not in memory, the supervisor
            takes another and puts its name wherever this one stands.
        cwd: Where the CLI and the shell start.
        argv: The CLI's command line; its first word is looked up on the PATH.
        env: The variables of the CLI, and of the shell that goes on afterwards.
        files: What is written into the home before.
        gateway: The run's URL at the gateway.
        token: What the supervisor shows there.
        nonce: Told with every event; one for each launch.
        idle_events: The events after which the CLI waits for a prompt. Any other event of the
            agent itself says that it does not.
        ask_event: The event whose hook waits for an answer.
        missing: What the pane shows where the command is not there.
        title: The CLI's name in the pane's last words.
        resume: How to go on with the conversation, for a shell; `{conversation}` becomes the id
            that hooks have told as `session_id`, and without one there is no hint.
    """

    session: str
    home: str
    memory: str
    cwd: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    files: tuple[LaunchFile, ...]
    gateway: str
    token: str = field(repr=False)
    nonce: str
    idle_events: tuple[str, ...]
    ask_event: str | None
    missing: str
    title: str
    resume: str = ""


def pack(launch: Launch) -> bytes:
    """Return a pane's program: the supervisor with what it is to know.

    Raises:
        BadAgentLaunch: Something of it is too large, or cannot be.
    """
    _check_names(launch)
    _check_start(launch)
    _check_files(launch)
    known = {
        "session": launch.session,
        "home": launch.home,
        "memory": launch.memory,
        "cwd": launch.cwd,
        "argv": list(launch.argv),
        "env": dict(launch.env),
        "files": [
            {
                "path": one.path,
                "text": one.text,
                "mode": one.mode,
                "memory": one.memory,
                "take_back": one.take_back,
            }
            for one in launch.files
        ],
        "gateway": launch.gateway,
        "token": launch.token,
        "nonce": launch.nonce,
        "idle_events": list(launch.idle_events),
        "ask_event": launch.ask_event,
        "missing": launch.missing,
        "title": launch.title,
        "resume": launch.resume,
    }
    return json.dumps({"program": _supervisor(), "launch": known}, ensure_ascii=False).encode()


def hook_text() -> str:
    """Return the program that hooks call, an executable file of the CLI's home."""
    return f"#!/usr/bin/python3 -IS\n{_text('_hook')}"


def hook_file() -> LaunchFile:
    """Return the hook's program as a file of a launch."""
    return LaunchFile(HOOK_NAME, hook_text(), mode=0o700)


@cache
def _supervisor() -> str:
    names = [*(f"_supervisor_{part}" for part in PARTS), "_supervisor"]
    sources = [(f"craftastic.agent_runs.{name}", _text(name)) for name in names]
    return f"SOURCES = {sources!r}\n{LOADER}"


@cache
def _text(name: str) -> str:
    return (files("craftastic.agent_runs") / f"{name}.py").read_text("utf-8")


def _check_names(launch: Launch) -> None:
    if not all(WORD.fullmatch(one) for one in (launch.session, launch.nonce)):
        raise BadAgentLaunch("A session's id or nonce has characters that are not allowed.")
    if not GATEWAY.fullmatch(launch.gateway):
        raise BadAgentLaunch("The gateway's URL is not one that a supervisor can ask.")
    if not re.fullmatch(r"[!-~]{1,500}", launch.token):
        raise BadAgentLaunch("A run's token has characters that are not allowed.")
    for path in (launch.home, launch.memory, launch.cwd):
        if not path.startswith("/") or len(path) > MAX_TEXT or _unclean(path):
            raise BadAgentLaunch("An agent's folders must be absolute paths.")
    texts = (launch.missing, launch.title, launch.resume)
    if any(len(text) > MAX_TEXT or "\0" in text or not _is_text(text) for text in texts):
        raise BadAgentLaunch(f"A text for an agent's terminal has at most {MAX_TEXT} characters.")
    if len(launch.idle_events) > MAX_EVENTS:
        raise BadAgentLaunch(f"An agent can have at most {MAX_EVENTS} events that mean idle.")


def _check_start(launch: Launch) -> None:
    if not launch.argv or not launch.argv[0] or len(launch.argv) > MAX_WORDS:
        raise BadAgentLaunch(f"An agent's command has 1 to {MAX_WORDS} words.")
    if len(launch.env) > MAX_WORDS:
        raise BadAgentLaunch(f"An agent can have at most {MAX_WORDS} variables.")
    if not all(VARIABLE.fullmatch(name) for name in launch.env):
        raise BadAgentLaunch("A variable's name has characters that are not allowed.")
    total = 0
    for text in (*launch.argv, *(f"{name}={value}" for name, value in launch.env.items())):
        if "\0" in text or not _is_text(text):
            raise BadAgentLaunch("A word of an agent's command, or a variable, is not valid text.")
        size = len(text.encode()) + 1
        total += size
        if size > MAX_WORD_BYTES or total > MAX_STARTED_BYTES:
            raise BadAgentLaunch(
                "What an agent is started with is too long, such as its first prompt: one text has"
                f" at most {MAX_WORD_BYTES >> 10} KiB."
            )


def _check_files(launch: Launch) -> None:
    if len(launch.files) > MAX_FILES:
        raise BadAgentLaunch(f"An agent's home can be given at most {MAX_FILES} files.")
    if len({one.path for one in launch.files}) < len(launch.files):
        raise BadAgentLaunch("Two files of an agent's home have one name.")
    total = 0
    for one in launch.files:
        path = PurePosixPath(one.path)
        bad = path.is_absolute() or ".." in path.parts or str(path) != one.path
        if bad or not path.name or len(one.path) > 200 or _unclean(one.path):  # noqa: PLR2004
            raise BadAgentLaunch("A file of an agent's home must have a plain path inside it.")
        if not _is_text(one.text) or one.mode & ~0o700:
            raise BadAgentLaunch(f"The file {one.path} is not valid text, or open to others.")
        size = len(one.text.encode())
        total += size
        if total > MAX_FILES_BYTES or (one.take_back and size > MAX_TAKEN_BACK_BYTES):
            raise BadAgentLaunch(f"The file {one.path} is too large.")


def _unclean(path: str) -> bool:
    return not _is_text(path) or not path.isprintable()


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
