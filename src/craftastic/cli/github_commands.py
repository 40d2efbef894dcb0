"""`craftastic github …`: the GitHub account that repositories are read and pushed with."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import typer

from craftastic.cli.running import Json, with_remote

github = typer.Typer(help="Connect a GitHub account, list its repositories.", no_args_is_help=True)

FAILED = "GITHUB_DEVICE_FLOW_FAILED"
EXPIRED = "expired_token"
LEAST_S, MOST_S = 1.0, 60.0
"""Bounds of the pace at which the server is asked, in seconds."""


@github.command("connect", short_help="Connect your GitHub account.")
def github_connect(
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the address in your browser.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Connect your GitHub account: type the code that is shown at the address that is shown.

    Never type a code that somebody sent you: it would connect your account to theirs.
    """
    from craftastic.cli.output import say, show_json
    from craftastic.cli.up import interruption_told

    async def work(remote: Any) -> None:
        status = await _status(remote)
        if status["connected"] and not status["needsReconnect"]:
            say("To connect another account, or once more: `craftastic github disconnect` first.")
        else:
            with interruption_told("Left. Nothing was connected; the code expires by itself."):
                await _connect(remote, open_browser=open_browser)
            status = await _status(remote)
        if as_json:
            show_json(status)
        else:
            print(_connected(status))
        _tell_missing(status)
        if status["installUrl"]:
            say(f"Choose which repositories this server may use: {status['installUrl']}")

    with_remote(work)


@github.command("status", short_help="Tell whether a GitHub account is connected.")
def github_status(as_json: Json = False) -> None:
    """Tell whether a GitHub account is connected, and what there is to do about it."""
    from craftastic.cli.output import printable, say, show_json

    async def work(remote: Any) -> None:
        status = await _status(remote)
        if as_json:
            show_json(status)
            return
        if not status["configured"]:
            print("This server has no GitHub app; its operator has to set GITHUB_CLIENT_ID.")
        elif status["needsReconnect"]:
            who = printable(status["username"] or "The account")
            print(f"{who} has to be connected to GitHub again: `craftastic github connect`.")
            say(status["reason"] or "GitHub no longer takes what was stored.")
        elif status["connected"]:
            print(_connected(status))
        else:
            print("No GitHub account is connected; `craftastic github connect` does it.")
        _tell_missing(status)

    with_remote(work)


@github.command("disconnect", short_help="Forget your GitHub account.")
def github_disconnect() -> None:
    """Forget your GitHub account: what is stored here is deleted, and ended at GitHub."""
    from craftastic.cli.output import printable

    async def work(remote: Any) -> None:
        answer = await remote.delete("/api/auth/github/disconnect")
        print(printable(f"{answer['message']}."))

    with_remote(work)


@github.command("repos", short_help="List the repositories of your GitHub account.")
def github_repositories(
    words: Annotated[
        str | None, typer.Argument(metavar="[WORDS]", help="Only those that these words fit.")
    ] = None,
    page: Annotated[int, typer.Option(min=1, max=1000, help="Which page.")] = 1,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="So many.")] = 30,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print addresses only.")] = False,
    as_json: Json = False,
) -> None:
    """List the repositories of your GitHub account, the ones changed last first."""
    from craftastic.cli._ways_on import ways_on
    from craftastic.cli.output import show_ids, show_json, show_table

    query = {"page": str(page), "per_page": str(limit), **({"q": words} if words else {})}

    async def work(remote: Any) -> None:
        with ways_on():
            answer = await remote.get(f"/api/auth/github/repos?{urlencode(query)}")
        found = answer["data"]
        rows = found["repositories"]
        if as_json:
            show_json(found)
            return
        if quiet:
            show_ids([one["clone_url"] for one in rows])
        else:
            show_table(
                ("REPOSITORY", "ACCESS", "LANGUAGE", "CHANGED", "ADDRESS"),
                [
                    (
                        one["full_name"],
                        "private" if one["private"] else "public",
                        one["language"] or "-",
                        one["updated_at"],
                        one["clone_url"],
                    )
                    for one in rows
                ],
            )
        _tell_more(found)

    with_remote(work)


async def _status(remote: Any) -> Mapping[str, Any]:
    return (await remote.get("/api/auth/github/status"))["data"]


async def _connect(remote: Any, *, open_browser: bool) -> None:
    """Show a code and wait until it was typed at GitHub.

    Raises:
        Failure: It was refused there, or the time is over.
    """
    from craftastic.cli.output import say

    flow = (await remote.post("/api/auth/github/initiate"))["data"]
    address = str(flow["verification_uri"])
    say(f"Open   {address}")
    say(f"Type   {flow['user_code']}")
    if open_browser:
        _open(address)
    minutes = max(1, int(flow["expires_in"]) // 60)
    say(f"Waiting for you to do so; the code is good for {minutes} minutes. Ctrl-C leaves.")
    await _wait(remote, flow)


async def _wait(remote: Any, flow: Mapping[str, Any]) -> None:
    import anyio

    from craftastic.cli.failures import TimedOut
    from craftastic.cli.output import say

    interval_s, told = float(flow["interval"]), ""
    with anyio.move_on_after(float(flow["expires_in"]) + MOST_S):
        while True:
            await anyio.sleep(min(max(interval_s, LEAST_S), MOST_S))
            answer = await _poll(remote, str(flow["device_code"]))
            if answer.get("success"):
                return
            interval_s = float(answer.get("interval") or interval_s)
            # "Still waiting" is no news; that GitHub does not answer is.
            news = str(answer["message"]) if answer["error"] != "authorization_pending" else ""
            if news and news != told:
                say(news)
            told = news
    raise TimedOut("The code was not typed in time; the same command shows a new one.")


async def _poll(remote: Any, device_code: str) -> Mapping[str, Any]:
    """Ask once; a server that does not answer for a while is asked again later.

    Raises:
        Failure: The flow has ended without an account.
    """
    from craftastic.cli.failures import Failure, TimedOut
    from craftastic.errors import InvalidInput, RateLimited, Unavailable

    try:
        return await remote.post("/api/auth/github/poll", {"deviceCode": device_code})
    except (RateLimited, Unavailable) as error:
        return {"error": "unavailable", "message": f"{error.message} Still waiting."}
    except InvalidInput as error:
        if error.answer.get("code") != FAILED:
            raise
        if error.answer.get("error") == EXPIRED:
            raise TimedOut(error.message) from error
        raise Failure(error.message, 3) from error


def _open(address: str) -> None:
    """Open a page in the user's browser; only a page, whatever the server said."""
    from craftastic.cli.output import say

    if urlsplit(address).scheme not in {"http", "https"}:
        say("That is no address of a page, so it is not opened.")
    elif typer.launch(address):
        say("No browser could be started; open the address yourself.")


def _connected(status: Mapping[str, Any]) -> str:
    from craftastic.cli.output import printable

    return f"Connected to GitHub as {printable(status['username'] or 'somebody')}."


def _tell_missing(status: Mapping[str, Any]) -> None:
    from craftastic.cli.output import say

    if status["missingScopes"]:
        say(f"You granted less than was asked for: {', '.join(status['missingScopes'])}.")


def _tell_more(found: Mapping[str, Any]) -> None:
    from craftastic.cli.output import say

    if found["has_more"]:
        say(f"There are more: --page {found['next_page']}.")
    if found["sso_url"]:
        say(f"An organization hides some behind its single sign-on: {found['sso_url']}")
    if not found["repositories"] and found["install_url"]:
        say(f"None is visible. Choose which ones this server may use: {found['install_url']}")
