"""`craftastic disk …`."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from craftastic.cli.running import NAMED, Json, confirm, with_remote

MEASURE_S = 180.0
RECLAIM_S = 900.0
SHOWN = 20
STATES = {"living": "alive", "ended": "ended", "none": "no session"}
SAVED = {True: "yes", False: "no", None: "?"}
TIERS = {
    1: "caches, and what git packs",
    2: "what tools make again, in worktrees of ended sessions",
    3: "worktrees of ended sessions with all work in them saved",
}


class _ShowByDefault(TyperGroup):
    """`craftastic disk NAME` shows the environment of that name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["show", *args]
        return super().parse_args(ctx, args)


disk = typer.Typer(
    cls=_ShowByDefault, help="Show what environments use of the disk, and free some of it."
)


def size(count: int) -> str:
    """Return a number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004 - the step from unit to unit
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


@disk.command("show", short_help="Show what an environment uses, and what could be freed.")
def disk_show(
    environment: Annotated[str | None, typer.Argument(metavar="[ENVIRONMENT]", help=NAMED)] = None,
    fresh: Annotated[
        bool, typer.Option("--measure", "-m", help="Look now; the environment has to run.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what an environment uses of the disk, per session, and what each tier would free."""
    from craftastic.cli.names import load_names
    from craftastic.cli.output import show_json
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        found = (await load_names(remote)).environment(environment)
        path = f"/api/environments/{segment(found['id'])}/disk"
        if fresh:
            use = await remote.post(f"{path}/measure", timeout_s=MEASURE_S)
        else:
            use = await remote.get(path)
        if as_json:
            show_json(use)
        else:
            show(use)

    with_remote(work)


@disk.command("reclaim", short_help="Free disk space without losing work.")
def disk_reclaim(
    environment: Annotated[str | None, typer.Argument(metavar="[ENVIRONMENT]", help=NAMED)] = None,
    tier: Annotated[
        int,
        typer.Option(
            min=1,
            max=3,
            help="1: caches; 2: also what tools make again, in worktrees of ended sessions; 3: also"
            " those worktrees, where all work is committed and pushed.",
        ),
    ] = 1,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Free disk space in an environment; work that is nowhere else stays, and it says why."""
    from craftastic.cli.names import load_names
    from craftastic.cli.output import printable, show_json
    from craftastic.cli.remote import segment

    async def work(remote: Any) -> None:
        found = (await load_names(remote)).environment(environment)
        what = "; ".join(TIERS[one] for one in range(1, tier + 1))
        confirm(f"Remove in {found['name']}: {what}", yes=yes)
        path = f"/api/environments/{segment(found['id'])}/disk/reclaim"
        done = await remote.post(path, {"tier": tier}, timeout_s=RECLAIM_S)
        if as_json:
            show_json(done)
            return
        print(f"Freed {size(done['freedBytes'])}; {size(done['use']['totalBytes'])} are in use.")
        for one in done["kept"]:
            print(printable(f"Kept {one['path']}: {one['why']}."))

    with_remote(work)


def show(use: dict[str, Any]) -> None:
    from craftastic.cli.output import printable, say, show_table

    if use["state"] == "never":
        say(use.get("reason") or "It was not looked at yet; --measure does that now.")
        return
    quota = use["quotaBytes"]
    of_it = "" if quota is None else f" of {size(quota)}"
    more = "" if use["complete"] else " or more"
    print(f"{'total':16} {size(use['totalBytes'])}{more}{of_it}")
    for field in ("repository", "home", "cache", "other"):
        print(f"{field:16} {size(use[f'{field}Bytes'])}")
    print(f"{'measured':16} {printable(use['measuredAt'])}")
    if use["sessions"]:
        show_table(
            ("SESSION", "STATE", "SAVED", "USES", "MADE AGAIN", "PATH"),
            [
                (
                    one["name"] or "-",
                    STATES[one["state"]],
                    SAVED[one["saved"]],
                    size(one["bytes"]),
                    size(one["regenerableBytes"]),
                    one["path"],
                )
                for one in use["sessions"]
            ],
        )
    for tier in use["tiers"]:
        print(f"tier {tier['tier']} would free {size(tier['bytes'])}: {TIERS[tier['tier']]}")
        for one in tier["items"][:SHOWN]:
            print(printable(f"  {size(one['bytes'])}  {one['path']}"))
    if use.get("reason"):
        say(use["reason"])
    if use["overQuota"]:
        say("It is over its quota: new sessions are refused until some of it is freed.")
    elif use["nearQuota"]:
        say("It is near its quota: over it, new sessions are refused.")
