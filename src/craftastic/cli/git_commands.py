"""`craftastic status`, `diff`, `log`, `commit`, `push`, `pull`, `branches`: git in a session."""

import base64
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from craftastic.cli.running import NAMED, Json, with_remote
from craftastic.errors import InvalidInput

git = typer.Typer()

LOOKING_S = 90.0
COMMIT_S = 240.0
NETWORK_S = 900.0
"""How long requests may take, in seconds: the server's own limits, and some more."""

INTERRUPTED = "Interrupted. `craftastic status` and `craftastic log` show how far it came."
MAX_MESSAGE_BYTES = 64 << 10
MAX_PATHS = 50
SHORT = 7
"""How many characters of a commit are shown to people."""

OneSession = Annotated[
    str | None, typer.Argument(metavar="[SESSION]", help=f"{NAMED} ENVIRONMENT/NAME too.")
]
Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE", help="Only these, from the top of the worktree."),
]
Expected = Annotated[
    str | None,
    typer.Option("--expected", metavar="COMMIT", help="Only if the branch is at this commit."),
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Without the repository's own hooks.")]


@git.command("status", short_help="Show what has changed in a session.")
def git_status(session: OneSession = None, as_json: Json = False) -> None:
    """Show what has changed in a session, as `git status --short`, with the lines counted."""
    from craftastic.cli import _git_text as text
    from craftastic.cli._pager import colours
    from craftastic.cli.output import say, show_json

    async def work(remote: Any) -> Any:
        return await _ask(remote, session, "status")

    status = with_remote(work)
    if as_json:
        show_json(status)
        return
    paint = text.coloured if colours() else text.plain
    for line in text.status_lines(status, paint, separator=_separator()):
        print(line)
    if status["clean"]:
        say("Nothing has changed.")
    if status["truncated"]:
        say("There is more: not everything could be listed or counted.")


@git.command("diff", short_help="Show the changes themselves.")
def git_diff(
    session: OneSession = None,
    paths: Paths = None,
    staged: Annotated[bool, typer.Option("--staged", help="Only what is staged.")] = False,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="REF", help="Everything since this branch or commit."),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="As git wrote it, for `git apply`; not on a terminal."),
    ] = False,
    pager: Annotated[
        str | None, typer.Option(envvar="PAGER", help="Shows it on a terminal; `cat` for none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a session's changes against what is staged, new files too; colours on a terminal.

    Control characters are shown as signs (`^[`); `--raw` leaves them in.
    """
    from craftastic.cli import _git_text as text
    from craftastic.cli._pager import colours, show_lines
    from craftastic.cli.output import show_json

    if raw and sys.stdout.isatty():
        raise InvalidInput("--raw is for a file or a pipe: it could drive your terminal.")
    query = {"staged": "true"} if staged else {}
    query |= {"base": base} if base else {}

    async def work(remote: Any) -> Any:
        found = await _find(remote, session)
        asked = [query | _one_name(path) for path in _apart(paths or [])]
        return [await _get(remote, found, "diff", one) for one in asked or [query]]

    diff = text.joined_diffs(with_remote(work))
    if as_json:
        show_json(diff)
    elif raw:
        sys.stdout.buffer.write(diff["diff"].encode(errors="replace"))
    else:
        paint = text.coloured if colours() else text.plain
        show_lines(text.diff_lines(diff["diff"], paint), pager)
    _tell_about(diff)


@git.command("log", short_help="List a session's commits.")
def git_log(
    session: OneSession = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="So many.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many of the newest.")] = 0,
    ref: Annotated[
        str | None, typer.Option("--ref", help="Of this branch, tag or commit instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the commits of a session's branch, newest first."""
    from craftastic.cli.output import show_json, show_table

    query = {"limit": str(limit), "offset": str(offset), **({"ref": ref} if ref else {})}

    async def work(remote: Any) -> Any:
        return await _ask(remote, session, "log", query)

    log = with_remote(work)
    if as_json:
        show_json(log)
        return
    show_table(
        ("COMMIT", "DATE", "AUTHOR", "PUSHED", "MESSAGE"),
        [
            (
                one["hash"][:SHORT],
                one["date"],
                one["author"],
                "yes" if one["pushed"] else "no",
                one["message"],
            )
            for one in log["commits"]
        ],
    )


@git.command("commit", short_help="Commit a session's changes.")
def git_commit(  # noqa: PLR0913, PLR0917 - one parameter for each option of the command
    session: OneSession = None,
    files: Paths = None,
    message: Annotated[
        list[str] | None,
        typer.Option("--message", "-m", help="The message; each further one is a paragraph."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", "-F", help="Read the message from a file, `-` for standard input."),
    ] = None,
    staged: Annotated[bool, typer.Option("--staged", help="Only what is staged.")] = False,
    amend: Annotated[
        bool, typer.Option("--amend", help="Change the last commit; its message stays by default.")
    ] = False,
    no_verify: NoVerify = False,
    expected: Expected = None,
    as_json: Json = False,
) -> None:
    """Commit everything that has changed, or exactly the files named, deleted ones too."""
    from craftastic.cli.output import printable, show_json

    if staged and files:
        raise InvalidInput("Give files or --staged, not both.")
    text = _message(message, file, amend=amend)
    body = _flags(staged=staged, amend=amend, noVerify=no_verify) | _names(files or [])
    body |= {"expectedSha": expected} if expected else {}

    async def work(remote: Any) -> Any:
        found = await _find(remote, session)
        kept = {"message": text} if text else await _last_message(remote, found)
        return await _post(remote, found, "commit", kept | body, COMMIT_S)

    made = with_remote(work)["data"]
    if as_json:
        show_json(made)
        return
    branch = printable(made["branch"] or "no branch")
    print(f"[{branch} {printable(made['commit'])[:SHORT]}] {printable(made['summary'])}")
    changed = _counted(made["filesChanged"], "file")
    print(f"{changed} changed, +{made['insertions']} -{made['deletions']}")


@git.command("push", short_help="Push a session's branch.")
def git_push(
    session: OneSession = None,
    branch: Annotated[
        str | None, typer.Option("--branch", "-b", help="Another one than the session's.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Take the place of what is there, if it is what you know."),
    ] = False,
    expected: Expected = None,
    no_verify: NoVerify = False,
    as_json: Json = False,
) -> None:
    """Push a session's branch to the repository it came from; says what really arrived there."""
    from craftastic.cli._ways_on import say_lines
    from craftastic.cli.output import printable, show_json

    body = _flags(force=force, noVerify=no_verify)
    body |= {"branch": branch} if branch else {}
    body |= {"expectedSha": expected} if expected else {}

    async def work(remote: Any) -> Any:
        return await _post(remote, await _find(remote, session), "push", body, NETWORK_S)

    answer = with_remote(work)
    pushed = answer["data"]
    if as_json:
        show_json(pushed)
        return
    print(printable(answer["message"]))
    for one in pushed["updates"]:
        print(printable(f"{_span(one['old'], one['new'])} {one['ref']}: {_outcome(one)}"))
    # What the server says of its own accord, such as where to open a pull request.
    said = [line for line in pushed["stderr"].splitlines() if line.startswith("remote:")]
    say_lines("\n".join(said))


@git.command("pull", short_help="Bring a session's branch up to date.")
def git_pull(
    session: OneSession = None,
    rebase: Annotated[
        bool, typer.Option("--rebase", help="Put your own commits on top of the new ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring a session's branch up to date with its upstream, or change nothing at all."""
    from craftastic.cli.output import printable, show_json

    body = {"mode": "rebase" if rebase else "ff-only"}

    async def work(remote: Any) -> Any:
        return await _post(remote, await _find(remote, session), "pull", body, NETWORK_S)

    answer = with_remote(work)
    pulled = answer["data"]
    if as_json:
        show_json(pulled)
        return
    print(printable(answer["message"]))
    if pulled["updated"]:
        came = _counted(pulled["commits"], "new commit")
        print(printable(f"{came}, {_span(pulled['before'], pulled['after'])}"))
    else:
        print("There was nothing new.")


@git.command("branches", short_help="List the branches of a repository.")
def git_branches(
    session: OneSession = None,
    environment: Annotated[
        str | None, typer.Option("--env", "-e", help=f"Of this environment instead. {NAMED}")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the branches of the repository that a session works in, newest commits first."""
    from craftastic.cli._ways_on import ways_on
    from craftastic.cli.names import load_names
    from craftastic.cli.output import say, show_json, show_table
    from craftastic.cli.remote import segment

    if session and environment:
        raise InvalidInput("Give a session or --env, not both.")

    async def work(remote: Any) -> Any:
        names = await load_names(remote)
        owner = names.environment(environment) if environment else names.session(session)[1]
        with ways_on(None, owner):
            path = f"/api/git/branches/{segment(owner['id'])}"
            answer = await remote.get(path, timeout_s=LOOKING_S)
        return answer["data"], {one["id"]: one.get("name") for one in owner["sessions"]}

    found, sessions = with_remote(work)
    if as_json:
        show_json(found)
        return
    show_table(
        ("BRANCH", "COMMIT", "WHERE", "AHEAD", "BEHIND", "SESSION", "MESSAGE"),
        [
            (
                one["name"],
                one["head"][:SHORT],
                "both" if one["local"] and one["remote"] else "here" if one["local"] else "remote",
                one["ahead"],
                one["behind"],
                sessions.get(one.get("sessionId")) or "-",
                one["subject"],
            )
            for one in found["branches"]
        ],
    )
    if found["truncated"]:
        say("There are more branches than can be listed.")


# ---- what the commands share ------------------------------------------------------------------

Found = tuple[Mapping[str, Any], Mapping[str, Any]]
"""A session and its environment."""


async def _find(remote: Any, session: str | None) -> Found:
    from craftastic.cli.names import load_names

    return (await load_names(remote)).session(session)


async def _ask(
    remote: Any, session: str | None, route: str, query: Mapping[str, str] | None = None
) -> Any:
    return await _get(remote, await _find(remote, session), route, query or {})


async def _get(remote: Any, found: Found, route: str, query: Mapping[str, str]) -> Any:
    from craftastic.cli._ways_on import ways_on
    from craftastic.cli.remote import segment

    path = f"/api/git/{route}/{segment(found[0]['id'])}"
    with ways_on(*found):
        answer = await remote.get(
            f"{path}?{urlencode(query)}" if query else path, timeout_s=LOOKING_S
        )
    return answer["data"]


async def _post(
    remote: Any, found: Found, route: str, body: Mapping[str, Any], timeout_s: float
) -> Any:
    from craftastic.cli._ways_on import ways_on
    from craftastic.cli.remote import segment
    from craftastic.cli.up import interruption_told

    path = f"/api/git/{route}/{segment(found[0]['id'])}"
    with ways_on(*found), interruption_told(INTERRUPTED):
        return await remote.post(path, body, timeout_s=timeout_s)


def _flags(**flags: bool) -> dict[str, Any]:
    return {name: True for name, value in flags.items() if value}


def _one_name(path: str) -> dict[str, str]:
    text, encoded = _text_or_base64(path)
    return {"file": text} if encoded is None else {"filenameBase64": encoded}


def _names(paths: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a request that name files, whatever bytes their names have."""
    pairs = [_text_or_base64(path) for path in paths]
    if not pairs:
        return {}
    return {
        "files": [text for text, encoded in pairs if encoded is None],
        "filenamesBase64": [encoded for _text, encoded in pairs if encoded is not None],
    }


def _text_or_base64(path: str) -> tuple[str, str | None]:
    # A shell passes bytes; those that are no UTF-8 come as surrogates in an argument.
    content = os.fsencode(path)
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return "", base64.b64encode(content).decode()


def _apart(paths: Sequence[str]) -> list[str]:
    """Return the paths without those that are inside of another one.

    Raises:
        InvalidInput: There are too many: each one is a request.
    """
    names = list(dict.fromkeys(path.rstrip("/") or path for path in paths))
    if len(names) > MAX_PATHS:
        raise InvalidInput(f"Name at most {MAX_PATHS} files or folders.")
    return [one for one in names if not any(one.startswith(f"{other}/") for other in names)]


def _message(messages: Sequence[str] | None, file: str | None, *, amend: bool) -> str | None:
    """Return the message of a commit; None for that of the commit that is changed.

    Raises:
        InvalidInput: There is none, or two, or it cannot be read.
    """
    from craftastic.cli.output import ask, interactive

    if messages and file:
        raise InvalidInput("Give the message with -m or with -F, not both.")
    if messages:
        return "\n\n".join(messages)
    if file:
        return _read_message(file)
    if amend:
        return None
    if interactive():
        return ask("Message")
    raise InvalidInput("Give the message: -m MESSAGE, or -F FILE.")


def _read_message(file: str) -> str:
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MAX_MESSAGE_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(MAX_MESSAGE_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise InvalidInput(f"The message in {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The message in {file} is not UTF-8 text.") from error
    if len(content) > MAX_MESSAGE_BYTES:
        raise InvalidInput(f"A message has at most {MAX_MESSAGE_BYTES >> 10} KiB.")
    if not text.strip():
        raise InvalidInput(f"The message in {file} is empty.")
    return text


async def _last_message(remote: Any, found: Found) -> dict[str, str]:
    """Return the last commit's message, and that the commit has to be the one that has it."""
    log = await _get(remote, found, "log", {"limit": "1"})
    if not log["commits"]:
        raise InvalidInput("There is no commit yet that could be changed.")
    if log["truncated"]:
        raise InvalidInput("The last commit's message is too long to be kept; give one with -m.")
    (last,) = log["commits"]
    body = last["body"].strip("\n")
    text = f"{last['message']}\n\n{body}" if body else last["message"]
    return {"message": text, "expectedSha": last["hash"]}


def _tell_about(diff: Mapping[str, Any]) -> None:
    from craftastic.cli.output import say

    if diff["masked"]:
        say("Values of your secrets are masked in this diff.")
    if diff["truncated"]:
        say("The diff is cut: it is too long. Name files to see theirs.")


def _separator() -> str:
    return "  " if sys.stdout.isatty() else "\t"


def _span(old: str | None, new: str) -> str:
    if old is None or not old.strip("0"):
        return f"{new[:SHORT]} (new)"
    return f"{old[:SHORT]}..{new[:SHORT]}"


def _outcome(update: Mapping[str, Any]) -> str:
    return f"{update['outcome']}, {update['reason']}" if update.get("reason") else update["outcome"]


def _counted(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"
