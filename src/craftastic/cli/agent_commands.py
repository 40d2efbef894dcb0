"""`craftastic agent …`: agents and their types. A credential is never an argument."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from craftastic.cli.failures import Failure
from craftastic.cli.running import (
    DETACH_KEYS,
    DetachKeys,
    Json,
    Quiet,
    attach_terminal,
    confirm,
    with_remote,
)
from craftastic.errors import InvalidInput

MAX_CREDENTIAL_BYTES = 64 << 10
PATH = "/api/agents"
Named = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name, its id, or the beginning of that.")
]

agents = typer.Typer(
    help="Coding agents: their types, and yours with their credentials.", no_args_is_help=True
)


@agents.command("types", short_help="List the agent types of the server.")
def agent_types(as_json: Json = False, quiet: Quiet = False) -> None:
    """List the agent types, the credentials that each takes, and who could read these."""
    from craftastic.cli.output import printable, say, show_ids, show_json, show_table

    async def work(remote: Any) -> None:
        found = await remote.get(f"{PATH}/types")
        if as_json:
            show_json(found)
            return
        if quiet:
            show_ids([one["name"] for one in found["types"]])
            return
        rows = [
            (
                one["name"],
                one["title"],
                kind["type"] if kind else "-",
                _where(kind) if kind else "-",
            )
            for one in found["types"]
            for kind in one["credentials"] or [None]
        ]
        show_table(("TYPE", "TITLE", "CREDENTIAL", "IN THE SANDBOX"), rows)
        for problem in found.get("problems", []):
            say(printable(_line(problem)))

    with_remote(work)


@agents.command("validate", short_help="Check files that describe agent types; needs no server.")
def agent_validate(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Descriptions of agent types.")
    ],
    as_json: Json = False,
) -> None:
    """Check files that describe agent types, and say where each is wrong; 2 if one is."""
    from craftastic.agents.agent_types import BadManifest, read_file
    from craftastic.cli.output import printable, say, show_json

    results: list[dict[str, Any]] = []
    for path in files:
        shown = str(path)
        try:
            name, problems = read_file(path, shown).name, []
        except BadManifest as error:
            name = None
            problems = [
                {"file": one.file, "place": one.place, "message": one.message}
                for one in error.problems
            ]
        results.append({"file": shown, "name": name, "problems": problems})
    if as_json:
        show_json(results)
    for one in [] if as_json else results:
        if one["name"] is not None:
            print(printable(f"{one['file']}: describes the agent type {one['name']}"))
        for problem in one["problems"]:
            say(printable(_line(problem)))
    if any(one["problems"] for one in results):
        raise Failure(None, 2)


@agents.command("add", short_help="Make an agent, and store its credential.")
def agent_add(  # noqa: PLR0913, PLR0917 - one parameter for each option of the command
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you will know it by.")],
    agent_type: Annotated[
        str, typer.Option("--type", "-t", help="Its type; `craftastic agent types` lists them.")
    ],
    credential: Annotated[
        str | None,
        typer.Option("--credential", help="Kind of its credential; the type's first by default."),
    ] = None,
    credential_file: Annotated[
        Path | None, typer.Option(help="File that holds the credential, as a login file.")
    ] = None,
    credential_stdin: Annotated[
        bool, typer.Option("--credential-stdin", help="Take the credential from standard input.")
    ] = False,
    no_credential: Annotated[bool, typer.Option("--no-credential", help="Store none now.")] = False,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Address of its model API, if another.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model that it is to use.")] = None,
    as_json: Json = False,
) -> None:
    """Make an agent; asks for its credential, or takes it from a file or a pipe.

    It is stored encrypted and never shown again.
    """
    from craftastic.cli.output import printable, show_json

    ways = (credential_file is not None, credential_stdin, no_credential)
    if sum(ways) > 1 or (no_credential and credential):
        raise InvalidInput("Give the credential in one way: a file, standard input, or none.")

    async def work(remote: Any) -> None:
        body: dict[str, Any] = {"name": name, "type": agent_type}
        body |= {"baseUrl": base_url} if base_url else {}
        body |= {"model": model} if model else {}
        if not no_credential:
            kind = await _kind(remote, agent_type, credential)
            value = _read_credential(kind, credential_file, piped=credential_stdin)
            body["credential"] = {"type": kind["type"], "value": value}
        made = await remote.post(PATH, body)
        if as_json:
            show_json(made)
        else:
            print(printable(f"Made the agent {made['name']} ({made['id'][:8]}), {made['type']}."))

    with_remote(work)


@agents.command("ls", short_help="List your agents; credentials are not shown.")
def agent_list(as_json: Json = False, quiet: Quiet = False) -> None:
    """List your agents, and which kind of credential each has."""
    from craftastic.cli.output import show_ids, show_json, show_table

    async def work(remote: Any) -> None:
        from craftastic.cli.agent_names import own_agents

        found = await own_agents(remote)
        if as_json:
            show_json(found)
        elif quiet:
            show_ids([one["id"] for one in found])
        else:
            show_table(
                ("ID", "NAME", "TYPE", "CREDENTIAL", "MODEL"),
                [
                    (
                        one["id"][:8],
                        one["name"],
                        one["type"],
                        one["credential_type"] or "-",
                        one["model"] or "-",
                    )
                    for one in found
                ],
            )

    with_remote(work)


@agents.command("rm", short_help="Delete agents and their credentials.")
def agent_remove(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Its name, its id, or the beginning of that."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete agents and their credentials; sessions that were theirs stay."""
    from craftastic.cli.output import printable
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        from craftastic.cli.agent_names import meant_agent, own_agents

        known = await own_agents(remote)
        for agent in [meant_agent(known, one) for one in names]:
            confirm(f"Delete the agent {agent['name']}", yes=yes)
            await remote.delete(f"{PATH}/{segment(agent['id'])}")
            print(f"Deleted {printable(agent['name'])}.")

    with_remote(work)


@agents.command("test", short_help="Find out whether an agent's credential is good.")
def agent_test(name: Named, as_json: Json = False) -> None:
    """Ask the agent's model API whether it accepts the credential; exit code 1 if it does not."""
    from craftastic.cli.output import printable, show_json
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        from craftastic.cli.agent_names import meant_agent, own_agents

        agent = meant_agent(await own_agents(remote), name)
        found = await remote.post(f"{PATH}/{segment(agent['id'])}/test")
        if as_json:
            show_json(found)
        if found["ok"] is False:
            raise Failure(None if as_json else found["message"], 1)
        if not as_json:
            print(printable(found["message"]))

    with_remote(work)


@agents.command("run", short_help="Let an agent work on a task, in a session of its own.")
def agent_run(  # noqa: PLR0913, PLR0917 - one parameter for each option of the command
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="[WHERE]",
            help="An environment, or a repository: its address, or a folder such as `.`.",
        ),
    ] = None,
    message: Annotated[
        str | None,
        typer.Option("--message", "-m", metavar="TEXT|-", help="What to do; - reads it."),
    ] = None,
    agent: Annotated[
        str | None, typer.Option("--agent", "-a", help="Its name, id, or the beginning of that.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option("--branch", "-b", help="A new one, named after the task.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--from", metavar="BRANCH|COMMIT", help="Where a new branch begins."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the ids, do not attach.")] = False,
    as_json: Json = False,
    detach_keys: DetachKeys = DETACH_KEYS,
) -> None:
    """Start an agent on a branch of its own, and attach this terminal to it.

    Without a message it waits for you. `craftastic inbox` shows what it asks for meanwhile.
    """
    from craftastic.cli import agent_starting
    from craftastic.cli.output import show_json
    from craftastic.worktrees.service import check_branch

    if branch:
        check_branch(branch)  # before anything is made that a wrong name would leave behind
    prompt = agent_starting.read_prompt(message)
    task = agent_starting.Task(prompt, where, agent, branch, base)

    async def work(remote: Any) -> None:
        place = await agent_starting.run(remote, task)
        if as_json:
            show_json({"environment": place.environment, "session": place.session})
        elif detach:
            print(f"environment {place.environment['id']}\nsession {place.session['id']}")
        else:
            await attach_terminal(remote, place.session, place.environment, detach_keys=detach_keys)

    with_remote(work)


def _where(kind: Mapping[str, Any]) -> str:
    return "yes" if kind["entersSandbox"] else "no"


def _line(problem: Mapping[str, str]) -> str:
    return ": ".join(problem[part] for part in ("file", "place", "message") if problem[part])


async def _kind(remote: Any, agent_type: str, wanted: str | None) -> dict[str, Any]:
    """Return the kind of credential that is meant, as the server describes it."""
    types: Sequence[dict[str, Any]] = (await remote.get(f"{PATH}/types"))["types"]
    found = next((one for one in types if one["name"] == agent_type), None)
    if found is None:
        known = ", ".join(one["name"] for one in types)
        raise InvalidInput(f"There is no agent type {agent_type}; there are {known}.")
    kinds: Sequence[dict[str, Any]] = found["credentials"]
    for kind in kinds:
        if wanted in {None, kind["type"], *kind["aliases"]}:
            return kind
    takes = ", ".join(one["type"] for one in kinds) or "none; say --no-credential"
    raise InvalidInput(f"{agent_type} takes no such credential; it takes {takes}.")


def _read_credential(kind: Mapping[str, Any], path: Path | None, *, piped: bool) -> str:
    """Read a credential from a file, from standard input, or from a person who is asked.

    Raises:
        InvalidInput: It cannot be read, is too long or no text, or nobody can be asked.
    """
    from craftastic.cli.output import ask_secret, interactive, printable

    if path is not None:
        try:
            with path.open("rb") as file:
                return _text(file.read(MAX_CREDENTIAL_BYTES + 1))
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
    if piped:
        return _text(sys.stdin.buffer.read(MAX_CREDENTIAL_BYTES + 1))
    if kind["delivery"] == "file":
        raise InvalidInput("A login file is too long to be typed; say --credential-file.")
    if not interactive():
        raise InvalidInput("There is no terminal to ask you; see --credential-stdin.")
    value = ask_secret(printable(kind["title"]))
    if not value.strip():
        raise InvalidInput("An empty credential cannot be stored; see --no-credential.")
    return value.strip()


def _text(content: bytes) -> str:
    if len(content) > MAX_CREDENTIAL_BYTES:
        raise InvalidInput(f"A credential can have at most {MAX_CREDENTIAL_BYTES >> 10} KiB.")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InvalidInput("The credential is not UTF-8 text.") from None
    if not text.strip():
        raise InvalidInput("The credential is empty.")
    return text
