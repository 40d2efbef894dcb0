"""From `POST /api/environments` to the first prompt, beside the same made by hand.

Run from the project's root: `python -m bench.create`. The repository has 20 files and is served by
git's http-backend on loopback. In each round the product and its floor go one after the other, the
order changing. The floor clones and makes the worktree on the host, beside the start of the
sandbox; the product does both inside.
"""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from bench._common import (
    PROMPTS,
    BareContainer,
    BareTmux,
    Clock,
    Engine,
    Options,
    Pty,
    Report,
    WebTerminal,
    folder,
    options,
    product,
    read_until,
    upstream,
)
from tests.e2e.harness import Api, Server
from tests.fakes.git_http_server import git

FILES = 20
CLONE_POLL_S = 0.01
NOBODY = 64_999
BWRAP = [
    "bwrap", "--die-with-parent", "--unshare-all", "--share-net",
    "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run", "--tmpfs", "/tmp",  # noqa: S108
]  # fmt: skip
PASTA = [
    "pasta", "--quiet", "--config-net", "--no-map-gw",
    "-t", "none", "-u", "none", "-U", "none", "-T", "none", "--",
]  # fmt: skip


async def prompt(server: Server, api: Api, session: dict[str, Any]) -> WebTerminal:
    """Attach a viewer and wait until it shows a prompt."""
    terminal = WebTerminal(server, api, session, v2=True)
    read_until(terminal, *PROMPTS)
    return terminal


async def ours(report: Report, runtime: str, server: Server, api: Api, url: str, name: str) -> str:
    """Create an environment, open a session, a second one, and come back; return its sandbox."""
    all_of_it, clock = Clock(), Clock()
    environment = await api.environment(name, url)
    report.row(f"{runtime}: part: POST environment").add(clock.lap())
    session = await session_on(api, environment, "main")
    report.row(f"{runtime}: part: POST session, waits for the clone").add(clock.lap())
    first = await prompt(server, api, session)
    report.row(f"{runtime}: part: attach to prompt").add(clock.lap())
    report.row(f"{runtime}: create to prompt").add(all_of_it.lap())

    clock.lap()
    second_session = await session_on(api, environment, "second")
    second = await prompt(server, api, second_session)
    report.row(f"{runtime}: second branch to prompt").add(clock.lap())

    first.close()
    clock.lap()
    again = await prompt(server, api, session)
    report.row(f"{runtime}: reconnect to prompt").add(clock.lap())
    again.close()
    second.close()
    return str(environment["id"])


async def clone_alone(report: Report, runtime: str, api: Api, url: str, name: str) -> str:
    """Watch how long the clone goes on after the environment runs."""
    environment = await api.environment(name, url)
    clock = Clock()
    with anyio.fail_after(60):
        while environment["cloneStatus"] != "ready":
            await anyio.sleep(CLONE_POLL_S)
            environment = await api.get(f"/api/environments/{environment['id']}")
    report.row(f"{runtime}: part: clone, after POST environment").add(clock.lap())
    return str(environment["id"])


async def session_on(api: Api, environment: dict[str, Any], branch: str) -> dict[str, Any]:
    return await api.post("/api/sessions", environmentId=environment["id"], branch=branch)


def clone_by_hand(url: str, home: Path) -> None:
    git("clone", "--quiet", "--bare", url, str(home / "bare"))
    worktree_by_hand(home, "main")


def worktree_by_hand(home: Path, branch: str) -> None:
    arguments = [] if branch == "main" else ["-b", branch]
    place = [str(home / branch), *(["main"] if branch == "main" else [])]
    git("worktree", "add", "--quiet", *arguments, *place, cwd=home / "bare")


def beside(one: Callable[[], object], other: Callable[[], object]) -> None:
    """Run two things at the same time."""
    thread = threading.Thread(target=one)
    thread.start()
    other()
    thread.join()


def docker_by_hand(report: Report, engine: Engine, like: str, url: str) -> None:
    with folder("floor") as home:
        box = BareContainer(engine, like, home)
        os.chown(home, box.uid, box.gid)
        try:
            all_of_it, clock = Clock(), Clock()
            beside(lambda: clone_by_hand(url, home), box.start)
            clock.lap()
            first = box.tmux("main", "/home/dev/main")
            read_until(first, *PROMPTS)
            report.row("docker floor: attach").add(clock.lap())
            report.row("docker floor: clone and worktree, create, start, tmux").add(all_of_it.lap())
            clock.lap()
            worktree_by_hand(home, "second")
            second = box.tmux("second", "/home/dev/second")
            read_until(second, *PROMPTS)
            report.row("docker floor: worktree, tmux").add(clock.lap())
            first.close()
            second.close()
        finally:
            box.remove()


def as_nobody(home: Path) -> list[str]:
    """Return what runs a program as somebody with no rights: pasta gives up root's and fails."""
    if os.geteuid() != 0:
        return []
    os.chown(home, NOBODY, NOBODY)
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def local_by_hand(report: Report, url: str) -> None:
    """Make a sandbox by bubblewrap alone, and once more with the network stack in front."""
    for name, before in (("bwrap", []), ("pasta, bwrap", PASTA)):
        with folder("floor") as home:
            user = as_nobody(home)
            tmux = BareTmux(home, user)
            clock = Clock()
            started: list[Pty] = []

            def sandbox(
                home: Path = home,
                tmux: BareTmux = tmux,
                before: list[str] = before,
                started: list[Pty] = started,
            ) -> None:
                inside = [*BWRAP, "--bind", str(home), str(home), *tmux.argv]
                argv = [*tmux.user, *before, *inside, "new-session", "-s", "main"]
                started.append(Pty(argv, str(home)))

            beside(lambda home=home: clone_by_hand(url, home), sandbox)
            read_until(started[0], *PROMPTS)
            report.row(f"local floor: clone and worktree, {name}, tmux").add(clock.lap())
            if name == "bwrap":
                worktree_by_hand(home, "second")
                second = tmux.attach("second", str(home / "second"))
                read_until(second, *PROMPTS)
                report.row("local floor: worktree, tmux").add(clock.lap())
                second.close()
                again = tmux.attach("second")
                clock.lap()
                read_until(again, *PROMPTS)
                report.row("local floor: attach").add(clock.lap())
                again.close()
            tmux.end()
            started[0].close()


def rows(report: Report, runtime: str) -> None:
    """Fix the table's order and what each row is compared with."""
    whole = {
        "docker": "docker floor: clone and worktree, create, start, tmux",
        "local": "local floor: clone and worktree, bwrap, tmux",
    }[runtime]
    report.row(whole)
    if runtime == "local":
        report.row("local floor: clone and worktree, pasta, bwrap, tmux", floor=whole)
    report.row(f"{runtime}: create to prompt", floor=whole)
    for part in (
        "POST environment",
        "clone, after POST environment",
        "POST session, waits for the clone",
        "attach to prompt",
    ):
        report.row(f"{runtime}: part: {part}")
    report.row(f"{runtime} floor: worktree, tmux")
    report.row(f"{runtime}: second branch to prompt", floor=f"{runtime} floor: worktree, tmux")
    report.row(f"{runtime} floor: attach")
    report.row(f"{runtime}: reconnect to prompt", floor=f"{runtime} floor: attach")


async def measure(chosen: Options) -> Report:
    report = Report(f"create to first prompt, {FILES} files")
    with upstream(FILES) as url:
        for runtime in chosen.runtimes:
            rows(report, runtime)
            async with product(runtime) as (server, api):
                await measure_one(report, runtime, server, api, url, chosen.rounds)
    return report


async def measure_one(
    report: Report, runtime: str, server: Server, api: Api, url: str, rounds: int
) -> None:
    # The first of all pays for what is made once: the network, the firewall's rules.
    model = await api.environment("model", url)
    await session_on(api, model, "main")

    async def by_product(number: int) -> None:
        made = await ours(report, runtime, server, api, url, f"e{number}")
        await api.delete(f"/api/environments/{made}")
        made = await clone_alone(report, runtime, api, url, f"c{number}")
        await api.delete(f"/api/environments/{made}")

    async def by_hand(number: int) -> None:
        if runtime == "docker":
            docker_by_hand(report, Engine(), model["containerId"], url)
        else:
            local_by_hand(report, url)

    for number in range(rounds):
        both = [by_product, by_hand]
        for one in both if number % 2 else reversed(both):
            await one(number)


def main(argv: list[str]) -> None:
    chosen = options(__doc__, argv, rounds=4)
    anyio.run(measure, chosen).show(as_json=chosen.as_json)


if __name__ == "__main__":
    main(sys.argv[1:])
