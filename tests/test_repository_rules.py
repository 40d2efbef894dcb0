"""Rules of this repository that no tool knows, each shown to find what it is there to find."""

import ast
import re
import subprocess
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "craftastic"
MAX_LINES = 600

SPAWNING = {
    "subprocess.run",
    "subprocess.Popen",
    "subprocess.call",
    "subprocess.check_call",
    "subprocess.check_output",
    "anyio.run_process",
    "anyio.open_process",
    "asyncio.create_subprocess_exec",
    "os.execv",
    "os.execve",
    "os.execvp",
    "os.execvpe",
    "os.posix_spawn",
    "os.posix_spawnp",
    "pty.spawn",
}
SHELLS = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell",
}
TASKS = {"create_task", "ensure_future"}
CHANCES = {
    *("uuid1", "uuid4", "urandom", "randbytes", "token_bytes", "token_hex", "token_urlsafe"),
    *("time", "monotonic", "now", "compress", "mkdtemp"),
}
"""Functions that return something else in each process; gzip writes the time down."""


# ---- what a rule looks at -------------------------------------------------------------------


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Map each name of the module to what it was imported from."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                names[one.asname or one.name.split(".")[0]] = (
                    one.name if one.asname else (one.name.split(".")[0])
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for one in node.names:
                names[one.asname or one.name] = f"{node.module}.{one.name}"
    return names


def called(node: ast.Call, names: dict[str, str]) -> str:
    """Return the dotted name of what is called, as far as the module's imports tell."""
    parts: list[str] = []
    target: ast.expr = node.func
    while isinstance(target, ast.Attribute):
        parts.append(target.attr)
        target = target.value
    root = names.get(target.id, target.id) if isinstance(target, ast.Name) else "?"
    return ".".join([root, *reversed(parts)])


def calls(source: str) -> Iterator[tuple[ast.Call, str]]:
    tree = ast.parse(source)
    names = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, called(node, names)


def text_of(node: ast.expr | None) -> str | None:
    """Return a constant text, else None."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def is_constant_script(node: ast.expr) -> bool:
    """Tell whether a shell's script is the same text at every call."""
    if text_of(node) is not None:
        return True
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return isinstance(node, ast.Name | ast.Attribute) and name == name.upper()


# ---- rules over one source file -------------------------------------------------------------


def no_shell_on_the_host(source: str) -> list[str]:
    """SEC-09: no shell is started on the host, and no command is one string."""
    found: list[str] = []
    for call, name in calls(source):
        if name in SHELLS:
            found.append(f"line {call.lineno}: {name} starts a shell")
        if any(one.arg == "shell" and not is_false(one.value) for one in call.keywords):
            found.append(f"line {call.lineno}: shell= is not for this project")
        if (
            name in SPAWNING
            and name.split(".")[0] in {"subprocess", "anyio"}
            and call.args
            and (text_of(call.args[0]) is not None or isinstance(call.args[0], ast.JoinedStr))
        ):
            found.append(f"line {call.lineno}: {name} is given a string, not a list of arguments")
    return found


def scripts_are_constant(source: str) -> list[str]:
    """SEC-09: values reach a shell's script as arguments, never by building its text."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.List | ast.Tuple):
            words = node.elts
        elif isinstance(node, ast.Call):
            words = node.args
        else:
            continue
        for shell, flag, script in zip(words, words[1:], words[2:], strict=False):
            if (
                Path(text_of(shell) or "").name in {"sh", "bash", "dash", "zsh"}
                and re.fullmatch(r"-[a-z]*c", text_of(flag) or "")
                and not is_constant_script(script)
            ):
                found.append(f"line {script.lineno}: a script that is built, not constant")
    return found


def no_git_or_tmux_on_the_host(source: str) -> list[str]:
    """SEC-01, SEC-08: git and tmux run in sandboxes only."""
    found: list[str] = []
    for call, name in calls(source):
        if name not in SPAWNING or not call.args:
            continue
        first = call.args[0]
        if isinstance(first, ast.List | ast.Tuple) and first.elts:
            first = first.elts[0]
        program = Path(text_of(first) or "").name
        if program in {"git", "tmux"}:
            found.append(f"line {call.lineno}: {name} starts {program} on the host")
    return found


def tasks_have_an_owner(source: str) -> list[str]:
    """Tasks are started in task groups, which wait for them and end them."""
    return [
        f"line {call.lineno}: {name}; use a task group"
        for call, name in calls(source)
        if name.rpartition(".")[2] in TASKS or name == "asyncio.gather"
    ]


def module_says_what_it_is(source: str) -> list[str]:
    """Every module that holds code begins with a sentence about it."""
    tree = ast.parse(source)
    return [] if not tree.body or ast.get_docstring(tree) else ["no module docstring"]


def files_are_short(source: str) -> list[str]:
    """A file that has grown over the bound has become two things."""
    lines = len(source.splitlines())
    return [f"{lines} lines; {MAX_LINES} are the most"] if lines > MAX_LINES else []


def no_bypass(source: str) -> list[str]:
    """SEC-40: no header names a user, and no mode of the server lets a request through."""
    pattern = r"(?i)x-(?:test-)?user(?:-id)?\b|x-forwarded-user|NODE_ENV|x-remote-user"
    return [f"{match[0]!r} looks like a bypass" for match in re.finditer(pattern, source)]


# ---- rules over any text --------------------------------------------------------------------


def todos_have_an_issue(source: str) -> list[str]:
    """A note to do something later names the issue that will."""
    words = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X"))
    return [
        f"line {number}: {match[0]} without an issue's number"
        for number, line in enumerate(source.splitlines(), 1)
        for match in re.finditer(rf"\b(?:{words})\b(?!\s*\(?#\d+)", line)
    ]


def no_word_of_a_workplace(source: str) -> list[str]:
    """Nobody's machine and nobody's package index stands in the project."""
    hosts = (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry-1", "docker", "io"),
        ("proxy", "golang", "org"),
    )
    patterns = [
        *(rf"(?<![\w.~$}}-])/{folder}/[\w.]" for folder in ("wo" + "rk", "ro" + "ot", "home/user")),
        *(r"\b" + re.escape(".".join(host)) + r"\b" for host in hosts),
    ]
    return [
        f"line {number}: {match[0]!r}"
        for number, line in enumerate(source.splitlines(), 1)
        for pattern in patterns
        for match in re.finditer(pattern, line)
    ]


def names_of_tests_last(source: str) -> list[str]:
    """Processes that share the tests must give each the same name: none is made of a chance."""
    if "parametrize" not in source:
        return []
    try:
        found = list(calls(source))
    except SyntaxError:  # a text about tests
        return []
    marks = [call for call, name in found if name.endswith("mark.parametrize")]
    return [
        f"line {mark.lineno}: {name} in the name of a test; give ids"
        for mark in marks
        if not any(keyword.arg == "ids" for keyword in mark.keywords)
        for _, name in calls(ast.unparse(_WithoutDictionaries().visit(mark)))
        if name.rpartition(".")[2] in CHANCES
    ]


class _WithoutDictionaries(ast.NodeTransformer):
    """What stands in a dictionary is in no name."""

    def visit_Dict(self, node: ast.Dict) -> ast.expr:
        return ast.copy_location(ast.Constant(None), node)


@dataclass(frozen=True, slots=True)
class Rule:
    check: Callable[[str], list[str]]
    bad: tuple[str, ...]
    good: str
    text: bool = False
    """Whether it holds for every text file of the project, not only for the package."""
    exempt: tuple[str, ...] = ()
    """Folders or files of the package where it does not hold, with the reason beside it."""


RULES = [
    Rule(
        no_shell_on_the_host,
        bad=(
            "import subprocess\nsubprocess.run(['ls'], shell=True)",
            "import os\nos.system('ls')",
            "from os import popen as p\np('ls')",
            "import subprocess as s\ns.Popen('ls -l')",
            "import anyio\nanyio.run_process(f'ls {x}')",
            "import asyncio\nasyncio.create_subprocess_shell('ls')",
        ),
        good="import subprocess\nsubprocess.run(['ls', '-l'], shell=False)",
    ),
    Rule(
        scripts_are_constant,
        bad=(
            "run(['bash', '-c', f'cd {x}'])",
            "run(('/bin/sh', '-ec', 'cd %s' % x))",
            "run(['sh', '-lc', 'cd ' + x])",
            "run(['sh', '-c', 'cd {}'.format(x)])",
            "run('bash', '-c', script)",
        ),
        good="run(['sh', '-c', 'cd \"$1\"', 'cd', x])\nrun(['bash', '-c', SCRIPT, 'cd', x])",
    ),
    Rule(
        no_git_or_tmux_on_the_host,
        bad=(
            "import subprocess\nsubprocess.run(['git', 'status'])",
            "from anyio import open_process\nopen_process(['/usr/bin/tmux', '-C'])",
            "import asyncio\nasyncio.create_subprocess_exec('git', 'log')",
        ),
        good="runtime.run(sandbox, ['git', 'status'])",
        exempt=("cli/",),  # `craftastic up .` asks the user's own checkout for its remote
    ),
    Rule(
        tasks_have_an_owner,
        bad=(
            "import asyncio\nasyncio.create_task(x())",
            "loop.create_task(x())",
            "from asyncio import gather\ngather(x())",
        ),
        good="tasks.start_soon(x)",
    ),
    Rule(module_says_what_it_is, bad=("import os",), good='"""What it is."""\nimport os'),
    Rule(
        files_are_short,
        bad=("x = 1\n" * (MAX_LINES + 1),),
        good="x = 1\n" * MAX_LINES,
    ),
    Rule(
        no_bypass,
        bad=("h.get('X-Test-User-Id')", "h['x-forwarded-user']", "if NODE_ENV == 'x': ..."),
        good="h.get('x-request-id')",
    ),
    Rule(
        todos_have_an_issue,
        bad=("# TO" + "DO: later", "x  # FIX" + "ME"),
        good="# TO" + "DO(#12): later",
        text=True,
    ),
    Rule(
        names_of_tests_last,
        bad=(
            "from uuid import uuid4\n@pytest.mark.parametrize('x', [f'/a/{uuid4()}'])\ndef t(): 0",
            "@pytest.mark.parametrize('x', [gzip.compress(b'x')])\ndef t(): 0",
        ),
        good="@pytest.mark.parametrize('x', [os.urandom(8)], ids=['noise'])\ndef t(): uuid4()",
        text=True,
    ),
    Rule(
        no_word_of_a_workplace,
        bad=("cd /wo" + "rk/main", "see https://pypi" + ".org/simple", "'/ro" + "ot/.ssh'"),
        good="~/.craftastic/worktrees, /home/dev/workspace/x, example.org",
        text=True,
    ),
]


def rule_name(rule: Rule) -> str:
    return rule.check.__name__


def project_files() -> list[Path]:
    """List what git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    paths = {ROOT / name for name in listed.decode().split("\0") if name}
    return sorted(path for path in paths if path.is_file())


def files_of(rule: Rule) -> Iterator[tuple[Path, str]]:
    """Yield the files that a rule is about, each with its text."""
    for path in project_files():
        inside = path.is_relative_to(SOURCE)
        name = path.relative_to(SOURCE).as_posix() if inside else ""
        if inside and any(name.startswith(one) for one in rule.exempt):
            continue
        if rule.text or (inside and path.suffix == ".py"):
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a picture or the like


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_project_keeps_the_rule(rule: Rule) -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {violation}"
        for path, source in files_of(rule)
        for violation in rule.check(source)
    ]

    assert not broken, f"{rule.check.__doc__}\n" + "\n".join(broken)


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_rule_finds_what_it_is_there_to_find(rule: Rule) -> None:
    missed = [bad for bad in rule.bad if not rule.check(bad)]

    assert not missed


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_rule_leaves_the_right_way_alone(rule: Rule) -> None:
    assert rule.check(rule.good) == []


# ---- rules over the whole -------------------------------------------------------------------


def test_no_two_test_files_have_one_name() -> None:
    # pytest imports them by their bare names; two of one name would hide each other.
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))

    assert [name for name, count in names.items() if count > 1] == []


def test_no_test_puts_a_mock_in_the_place_of_our_own_code() -> None:
    offenders = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and node.module in {"unittest", "unittest.mock"})
        or (isinstance(node, ast.Import) and any(a.name == "unittest.mock" for a in node.names))
    ]

    assert offenders == []


# ---- the lock -------------------------------------------------------------------------------


def normal(name: str) -> str:
    """Return a distribution's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: str) -> dict[str, str]:
    """Read a lock: each distribution's name, and everything that stands in its entry."""
    entries = re.split(r"\n(?=\S)", lock.strip())
    return {normal(re.split(r"[=\[ ;]", entry, maxsplit=1)[0]): entry for entry in entries}


def faults_of(lock: str, wanted: list[str]) -> list[str]:
    """List what is absent from a lock, too old, without a hash, or an address."""
    entries = locked(lock)
    found: list[str] = []
    for requirement in wanted:
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?(?:>=([\d.]+))?", requirement)
        assert match, f"{requirement!r} is no form that this test reads"
        name, least = normal(match[1]), match[2] or "0"
        version = re.search(r"==([\d.]+)", entries.get(name, ""))
        if version is None:
            found.append(f"{name} is not locked")
        elif as_numbers(version[1]) < as_numbers(least):
            found.append(f"{name} {version[1]} is older than {least}")
    found += [f"{name} has no hash" for name, entry in entries.items() if "sha256:" not in entry]
    if re.search(r"https?://|(?m:^-)", lock):
        found.append("an address or an option stands in the lock")
    return found


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.strip(".").split("."))


def test_lock_is_in_step_with_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]

    assert faults_of((ROOT / "requirements.lock").read_text(encoding="utf-8"), wanted) == []


def test_lock_of_the_tools_covers_what_builds_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = ["uv", *project["build-system"]["requires"]]

    assert faults_of((ROOT / "tools.lock").read_text(encoding="utf-8"), wanted) == []


def test_faults_of_a_lock_are_found() -> None:
    lock = "a==1.0 \\\n    --hash=sha256:00\nb==1.9\n--index-url https://example.org/simple"

    faults = faults_of(lock, ["a[extra]>=1.0", "b>=1.10", "c"])

    assert "b 1.9 is older than 1.10" in faults
    assert "c is not locked" in faults
    assert "b has no hash" in faults
    assert "an address or an option stands in the lock" in faults
    assert not any(fault.startswith("a ") for fault in faults)
