"""The file that describes an agent type: what may stand in it, and what it becomes."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from craftastic.agents._model import (
    AgentType,
    CredentialKind,
    Delivery,
    HookWords,
    Problem,
    SeedFile,
)
from craftastic.agents._templates import KINDS, PLACEHOLDERS, used
from craftastic.errors import InvalidInput

MAX_MANIFEST_BYTES = 256 << 10
MAX_PROBLEMS = 20
HOOK_PROGRAM = "hook"
"""The name that our own program has in a run's home."""

EVERYWHERE = frozenset({"home", "worktree", "gateway", "run", "model", "hook", "memory"})
IN_ENV = EVERYWHERE | {"token"}
IN_FILES = IN_ENV
BACK_UP = re.compile(r"(?:^|[/=:])\.\.(?:/|$)")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
SEGMENT = re.compile(r"[^\x00-\x1f\x7f/\\]{1,100}")
OURS = ("CRAFTASTIC_", "TMUX")
LOADERS = frozenset({"PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "TERM"})


class BadManifest(InvalidInput):
    """A file does not describe an agent type; `problems` says where and why."""

    code = "BAD_AGENT_TYPE"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(
            "This is no description of an agent type",
            details="; ".join(str(one) for one in problems),
        )
        self.problems = tuple(problems)


def _plain(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("has a control character")
    return text


def _line(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("must be one line of printable text")
    return text


def _word(text: str) -> str:
    if BACK_UP.search(_plain(text)):
        raise ValueError("leads out of its folder with `..`")
    return text


def _path(text: str) -> str:
    parts = text.split("/")
    if any(part in {"", ".", ".."} or SEGMENT.fullmatch(part) is None for part in parts):
        raise ValueError("must be a path in the run's home, without `..` and backslashes")
    if list(used(text)):
        raise ValueError("a path has no placeholders")
    if parts[0] == HOOK_PROGRAM:
        raise ValueError(f"`{HOOK_PROGRAM}` is the name of the program that reports events")
    return text


def _variable(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name) is None:
        raise ValueError("is no name of a variable")
    if name in LOADERS or name.startswith(OURS):
        raise ValueError("may not be set by an agent type")
    return name


def _address(text: str) -> str:
    check_address(text)
    return text


def check_address(text: str) -> None:
    """Check that a text is the address of a model API, as far as its form goes.

    Raises:
        ValueError: It is not; what it says follows the name of a field.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("is no address") from None
    fits = re.fullmatch(r"[\x21-\x7e]{1,300}", text) and parts.scheme in {"https", "http"}
    if not fits or not parts.hostname or port == 0:
        raise ValueError("must be an address as https://host or https://host/path")
    if "@" in parts.netloc:
        raise ValueError("must not have a user or password in it")
    if "?" in text or "#" in text:
        raise ValueError("must end with its path: no `?` and no `#`")


Name = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$")]
TypeName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,50}$")]
Line = Annotated[str, Field(min_length=1, max_length=80), AfterValidator(_line)]
Sentence = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_plain)]
Program = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}$")]
Word = Annotated[str, Field(max_length=4000), AfterValidator(_word)]
Words = Annotated[list[Word], Field(max_length=32)]
TmuxKeys = Annotated[
    list[Annotated[str, Field(pattern=r"^(?:[CMS]-){0,3}[A-Za-z0-9]{1,12}$")]],
    Field(min_length=1, max_length=8),
]
Variable = Annotated[str, AfterValidator(_variable)]
Environment = Annotated[dict[Variable, Word], Field(max_length=64)]
InHome = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_path)]
Address = Annotated[str, AfterValidator(_address)]
Event = Annotated[
    str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}(?:\[[^\[\]\x00-\x1f]{1,64}\])?$")
]
State = Literal[
    "idle", "working", "waiting_permission", "waiting_question", "done", "exited", "error"
]
Payload = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Answer = Annotated[str, Field(max_length=4000), AfterValidator(_plain)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Install(Strict):
    npm: str | None = Field(
        None, max_length=200, pattern=r"^(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*$"
    )
    version: str | None = Field(None, pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,39}$")
    missing: Sentence


class Launch(Strict):
    argv: Annotated[Words, Field(min_length=1)]
    prompt: Words = []
    resume: Words = []
    model: Words = []
    interrupt: TmuxKeys = ["C-c"]
    submit: TmuxKeys = ["Enter"]
    env: Environment = {}


class Credential(Strict):
    type: TypeName
    title: Line
    delivery: Literal["gateway", "file", "env"]
    provider: Literal["anthropic", "openai", "openai-compatible", "gemini"] | None = None
    scheme: Literal["x-api-key", "bearer", "x-goog-api-key"] | None = None
    aliases: Annotated[list[TypeName], Field(max_length=8)] = []
    env: Environment = {}
    argv: Words = []
    path: InHome | None = None
    format: Literal["json", "text"] | None = None
    take_back: bool = False
    base_url: Address | None = None
    prefix: str | None = Field(None, pattern=r"^[\x21-\x7e]{1,40}$")


class File(Strict):
    path: InHome
    text: Annotated[str, Field(max_length=64 << 10), AfterValidator(_plain)]
    when: Annotated[list[TypeName], Field(max_length=16)] = []


class Hooks(Strict):
    ask: Event | None = None
    allow: Answer = ""
    deny: Answer = ""
    conversation: Payload | None = None
    message: Payload | None = None
    tool: Payload | None = None
    input: Payload | None = None


class Check(Strict):
    version: Annotated[Words, Field(min_length=1, max_length=8)]


class Manifest(Strict):
    name: Name
    title: Line
    command: Program
    install: Install
    launch: Launch
    credentials: Annotated[list[Credential], Field(max_length=16)] = []
    files: Annotated[list[File], Field(max_length=32)] = []
    states: Annotated[dict[Event, State], Field(max_length=64)] = {}
    hooks: Hooks = Hooks()
    check: Check


def read_manifest(content: bytes, file: str) -> AgentType:
    """Read a manifest.

    Args:
        content: The file's bytes.
        file: What to call it in problems.

    Raises:
        BadManifest: It does not describe an agent type.
    """
    document = _document(content, file)
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        problems = [
            Problem(file, _place(one["loc"]), _message(one))
            for one in error.errors()[:MAX_PROBLEMS]
        ]
        raise BadManifest(problems) from None
    problems = [Problem(file, place, said) for place, said in _faults(manifest)]
    if problems:
        raise BadManifest(problems[:MAX_PROBLEMS])
    return _agent_type(manifest)


def _document(content: bytes, file: str) -> dict[str, Any]:
    if len(content) > MAX_MANIFEST_BYTES:
        raise BadManifest([Problem(file, "", f"is over {MAX_MANIFEST_BYTES >> 10} KiB")])
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadManifest([Problem(file, f"line {line}", "is not UTF-8")]) from None
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(error), re.DOTALL)
        place, said = (f"line {found[2]}", found[1]) if found else ("", str(error))
        raise BadManifest([Problem(file, place, f"is no TOML: {said[:200]}")]) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or brackets as deep
        raise BadManifest([Problem(file, "", "is no TOML that can be read")]) from None


def _place(parts: Iterable[int | str]) -> str:
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += ("." if text else "") + str(part)[:64]
    return text


SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "string_too_short": "must not be empty",
    "string_too_long": "may have at most {max_length} characters",
    "too_long": "may have at most {max_length} entries",
    "too_short": "must have at least {min_length} entry",
    "string_pattern_mismatch": "has another form than it must have",
    "literal_error": "must be {expected}",
}


def _message(problem: Mapping[str, Any]) -> str:
    context: dict[str, Any] = dict(problem.get("ctx") or {})
    if problem["type"] == "value_error":
        return str(context.get("error", problem["msg"]))
    template = SENTENCES.get(problem["type"])
    return template.format(**context) if template else str(problem["msg"])


# ---- what only the whole tells ----------------------------------------------------------------

Fault = tuple[str, str]


def _faults(manifest: Manifest) -> Iterator[Fault]:
    yield from _launch_faults(manifest)
    for number, credential in enumerate(manifest.credentials):
        place = f"credentials[{number}]"
        yield from ((f"{place}.{field}", said) for field, said in _credential_faults(credential))
    yield from _name_faults(manifest)
    yield from _file_faults(manifest)
    yield from _hook_faults(manifest)


def _launch_faults(manifest: Manifest) -> Iterator[Fault]:
    launch = manifest.launch
    for place, words in (("launch.argv", launch.argv), ("check.version", manifest.check.version)):
        if words[0] != manifest.command:
            yield f"{place}[0]", "must be the command, which is looked up on the sandbox's PATH"
    allowed = {
        "launch.argv": (launch.argv, EVERYWHERE),
        "launch.prompt": (launch.prompt, EVERYWHERE | {"prompt"}),
        "launch.resume": (launch.resume, EVERYWHERE | {"conversation"}),
        "launch.model": (launch.model, EVERYWHERE),
        "check.version": (manifest.check.version, frozenset[str]()),
    }
    for place, (words, names) in allowed.items():
        for number, word in enumerate(words):
            yield from _unknown(f"{place}[{number}]", word, names)
    for name, value in launch.env.items():
        yield from _unknown(f"launch.env.{name}", value, IN_ENV)


def _credential_faults(credential: Credential) -> Iterator[Fault]:
    wanted: dict[str, frozenset[str]] = {
        "gateway": frozenset({"provider", "scheme"}),
        "file": frozenset({"path", "format"}),
        "env": frozenset(),
    }
    optional = {"gateway": {"base_url"}, "file": {"take_back"}, "env": set[str]()}
    delivery = credential.delivery
    for field in ("provider", "scheme", "path", "format", "take_back", "base_url"):
        given = getattr(credential, field) not in {None, False}
        if field in wanted[delivery] and not given:
            yield field, f"is needed for the delivery {delivery!r}"
        elif given and field not in wanted[delivery] | optional[delivery]:
            yield field, f"does not go with the delivery {delivery!r}"
    for number, word in enumerate(credential.argv):
        yield from _unknown(f"argv[{number}]", word, EVERYWHERE)
    in_env = {"gateway": IN_ENV, "file": EVERYWHERE, "env": EVERYWHERE | {"credential"}}[delivery]
    for name, value in credential.env.items():
        yield from _unknown(f"env.{name}", value, in_env)
    names = {name for value in credential.env.values() for _, name in used(value)}
    if delivery == "env" and "credential" not in names:
        yield "env", "must put {credential} into a variable"


def _name_faults(manifest: Manifest) -> Iterator[Fault]:
    seen: set[str] = set()
    for number, credential in enumerate(manifest.credentials):
        for name in (credential.type, *credential.aliases):
            if name in seen:
                yield f"credentials[{number}]", f"{name!r} is the name of another kind already"
            seen.add(name)


def _file_faults(manifest: Manifest) -> Iterator[Fault]:
    types = {one.type for one in manifest.credentials}
    written = {(one.path, one.type) for one in manifest.credentials if one.path}
    for number, file in enumerate(manifest.files):
        own = {(file.path, name) for name in file.when or ["", *types]}
        if own & written:
            yield f"files[{number}].path", "is written twice with one credential"
        written |= own
        yield from _unknown(f"files[{number}].text", file.text, IN_FILES)
        for position, name in enumerate(file.when):
            if name not in types:
                yield f"files[{number}].when[{position}]", f"there is no credential {name!r}"


def _hook_faults(manifest: Manifest) -> Iterator[Fault]:
    hooks = manifest.hooks
    for field in ("allow", "deny"):
        text: str = getattr(hooks, field)
        if hooks.ask and not text:
            yield f"hooks.{field}", "is needed where `ask` is given"
        elif text and not hooks.ask:
            yield f"hooks.{field}", "answers nothing: there is no `ask`"
        yield from _unknown(f"hooks.{field}", text, frozenset({"message"}))


def _unknown(place: str, template: str, allowed: frozenset[str]) -> Iterator[Fault]:
    for kind, name in used(template):
        shown = f"{{{kind}:{name}}}" if kind else f"{{{name}}}"
        if name not in PLACEHOLDERS or (kind or None) not in KINDS:
            yield place, f"{shown} is no placeholder; put a space into braces that are the text's"
        elif name not in allowed:
            yield place, f"{shown} has no value here"


# ---- what it becomes --------------------------------------------------------------------------


def _agent_type(manifest: Manifest) -> AgentType:
    launch, install = manifest.launch, manifest.install
    return AgentType(
        name=manifest.name,
        title=manifest.title,
        command=manifest.command,
        npm=install.npm,
        version=install.version,
        missing=install.missing,
        argv=tuple(launch.argv),
        prompt=tuple(launch.prompt),
        resume=tuple(launch.resume),
        interrupt=tuple(launch.interrupt),
        submit=tuple(launch.submit),
        env=dict(launch.env),
        credentials=tuple(_kind(one) for one in manifest.credentials),
        files=tuple(SeedFile(one.path, one.text, tuple(one.when)) for one in manifest.files),
        states=cast("dict[str, str]", dict(manifest.states)),
        hooks=HookWords(**manifest.hooks.model_dump()),
        version_argv=tuple(manifest.check.version),
        model=tuple(launch.model),
    )


def _kind(credential: Credential) -> CredentialKind:
    return CredentialKind(
        type=credential.type,
        title=credential.title,
        delivery=Delivery(credential.delivery),
        provider=credential.provider,
        scheme=credential.scheme,
        aliases=tuple(credential.aliases),
        env=dict(credential.env),
        argv=tuple(credential.argv),
        path=credential.path,
        format=credential.format,
        take_back=credential.take_back,
        base_url=credential.base_url,
        prefix=credential.prefix,
    )
