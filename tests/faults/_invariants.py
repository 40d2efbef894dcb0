"""The invariants I1 to I9: what is true of a server whenever nothing is under way.

`violations` looks at the database, the runtime and the files from outside. While something is still
being put right some of them do not hold; `hold` waits until all do.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from uuid import UUID

import anyio

from craftastic.errors import CraftasticError
from craftastic.runtimes.base import SandboxState
from craftastic.runtimes.self_test import is_self_test
from craftastic.worktrees.service import worktree_path, worktrees_path
from tests.e2e.harness import Server
from tests.faults._facts import Facts, Row, containers_of, gather, seen_by_others
from tests.faults._footprint import Footprint, footprint, i6_the_server_has_leaked_nothing
from tests.faults._journal import Journal

CONVERGED_S = 30.0
"""How long a server that has come back may need until everything is as it should be."""


def i1_every_sandbox_and_tmux_session_has_its_row(facts: Facts) -> Iterator[str]:
    rows = {one["id"]: one for one in facts.environments}
    for environment_id, count in Counter(s.environment_id for s in facts.sandboxes).items():
        if count > 1:
            yield f"{count} sandboxes of environment {environment_id}"
    for sandbox in facts.sandboxes:
        row = rows.get(sandbox.environment_id)
        if row is None or row["desired"] == "deleted":
            yield f"sandbox {sandbox.ref.id} of no environment"
        elif sandbox.state is SandboxState.RUNNING and (
            row["status"] != "running" or row["sandbox_id"] != sandbox.ref.id
        ):
            yield f"sandbox {sandbox.ref.id} runs, its environment is {row['status']}"
    if facts.server.environment["CRAFTASTIC_RUNTIME"] == "docker":
        listed = {one.ref.id for one in facts.sandboxes}
        yield from (f"container {one}" for one in containers_of(facts.server) if one not in listed)
    for environment_id, inside in facts.inside.items():
        known = Counter(one["tmux_name"] for one in _living(facts, environment_id))
        for name, count in (Counter(inside.tmux) - known).items():
            yield f"tmux session {name} in {environment_id} has {count} too few rows"


def i2_every_row_that_lives_has_what_it_says(facts: Facts) -> Iterator[str]:
    running = {one.environment_id for one in facts.sandboxes if one.state is SandboxState.RUNNING}
    for row in facts.environments:
        if row["status"] == "running" and row["id"] not in running:
            yield f"environment {row['id']} is said to run, and has no sandbox"
        for session in _living(facts, row["id"]):
            inside = facts.inside.get(row["id"])
            if session["ready"] and (inside is None or session["tmux_name"] not in inside.tmux):
                yield f"session {session['id']} is {session['status']}, and has no terminal"


def i3_names_and_branches_have_one_living_session(facts: Facts) -> Iterator[str]:
    living = [one for one in facts.sessions if one["status"] != "dead"]
    for what in ("name", "branch_key", "tmux_name"):
        counts = Counter((one["environment_id"], one[what]) for one in living if one[what])
        yield from (f"{what} {key[1]!r}: {n} sessions" for key, n in counts.items() if n > 1)
    names = Counter(
        (one["owner_id"], one["name"]) for one in facts.environments if one["desired"] != "deleted"
    )
    yield from (f"environment {key[1]!r}: {n} times" for key, n in names.items() if n > 1)
    numbers = Counter(one["number"] for one in facts.environments)
    yield from (f"number {key}: {n} environments" for key, n in numbers.items() if n > 1)


def i4_every_folder_has_its_row(facts: Facts) -> Iterator[str]:
    known = {str(one["id"]) for one in facts.environments}
    for tree, names in facts.folders.items():
        for name in names:
            if name not in known and not _of_the_self_test(name):
                yield f"folder {tree}/{name} of no environment"
    for row in facts.environments:
        trees = facts.trees[row["id"]]
        kept = [one for one in facts.sessions if one["environment_id"] == row["id"]]
        branches = {one["branch"] for one in kept if one["branch"] and not one["deleted"]}
        places = {_place(row["id"], one) for one in branches}
        yield from (f"worktree {one} of no session" for one in trees.worktrees if one not in places)
        if Counter(trees.worktrees) != Counter(trees.entries):
            yield f"worktrees are {trees.worktrees}, git knows {trees.entries}"
        if row["clone_status"] != "ready":
            continue
        for one in kept:
            if one["ready"] and one["status"] != "dead" and one["branch"]:
                place = _place(row["id"], one["branch"])
                if place not in trees.worktrees:
                    yield f"session {one['id']} has no worktree {place}"


def i5_nothing_is_under_way_for_ever(facts: Facts) -> Iterator[str]:
    for row in facts.environments:
        if row["desired"] == "deleted" or row["status"] == "starting":
            yield f"environment {row['id']} is {row['status']}, to be {row['desired']}"
        elif row["desired"] == "stopped" and row["status"] not in {"stopped", "error"}:
            yield f"environment {row['id']} is {row['status']}, to be stopped"
        elif row["status"] == "running" and row["clone_status"] in {
            "pending",
            "cloning",
            "repairing",
        }:
            yield f"environment {row['id']} is {row['clone_status']}"
    stopped = {one["id"] for one in facts.environments if one["status"] != "running"}
    for row in facts.sessions:
        # What it has in a sandbox that is stopped is removed when that runs again.
        if row["deleted"] and row["environment_id"] not in stopped:
            yield f"session {row['id']} is to be removed"
        elif not (row["deleted"] or row["ready"]) and row["status"] != "dead":
            yield f"session {row['id']} is to be made"


def i6_nothing_has_leaked(facts: Facts) -> Iterator[str]:
    numbers = {one["number"] for one in facts.environments if one["status"] == "running"}
    for number, processes in facts.processes.items():
        if number not in numbers:
            yield f"processes of user {number}, who has no running environment: {processes}"
    if facts.server.environment["CRAFTASTIC_RUNTIME"] == "local":
        yield from _twice(facts)
    known = {str(one["id"]) for one in facts.environments}
    listened = {
        one["session_id"] for one in facts.leases if one["expires_at"].timestamp() > facts.now
    }
    tmux_names = {one["id"]: one["tmux_name"] for one in facts.sessions}
    allowed = Counter(tmux_names.get(one, "") for one in listened)
    for environment_id, inside in facts.inside.items():
        for name in Counter(inside.clients) - allowed:
            yield f"a client of {name} in {environment_id} that nobody holds"
        yield from (
            f"{one} in {environment_id}"
            for one in inside.files
            if one.startswith(("variables.", "program.", "new."))
        )
        panes = sum(one.startswith("pane.") for one in inside.files)
        if panes > sum(allowed.values()):
            yield f"{panes} folders of panes in {environment_id}, {sum(allowed.values())} in use"
    for environment_id, trees in facts.trees.items():
        yield from (f"{one} in the repository of {environment_id}" for one in trees.leftovers)
    for folder in (facts.server.data_dir / "sandboxes").glob("*"):
        yield from (f"temporary file {one}" for one in folder.glob(".*-*"))
        if folder.name not in known and not _of_the_self_test(folder.name):
            yield f"{folder} of no environment"


def i7_no_secret_is_seen(facts: Facts, secrets: Collection[str]) -> Iterator[str]:
    if secrets:
        yield from seen_by_others(facts.server, secrets)


def i8_the_audit_log_is_whole(facts: Facts) -> Iterator[str]:
    if not facts.audit.ok:
        yield f"event {facts.audit.broken_at}: {facts.audit.reason}"


INVARIANTS: dict[str, Callable[[Facts], Iterator[str]]] = {
    "I1": i1_every_sandbox_and_tmux_session_has_its_row,
    "I2": i2_every_row_that_lives_has_what_it_says,
    "I3": i3_names_and_branches_have_one_living_session,
    "I4": i4_every_folder_has_its_row,
    "I5": i5_nothing_is_under_way_for_ever,
    "I6": i6_nothing_has_leaked,
    "I8": i8_the_audit_log_is_whole,
}


async def violations(
    server: Server,
    *,
    journal: Journal | None = None,
    secrets: Collection[str] = (),
    ahead_s: float = 0,
    before: Footprint | None = None,
) -> list[str]:
    """Return what does not hold now, each with the invariant's name.

    I9 needs the journal and a server that answers; I7 is about `secrets` (the gate of secrets looks
    for all others at the end of each test). The server's clock is `ahead_s` before the true one.
    With `before`, a server that answers holds no more than it did then.
    """
    try:
        facts = await gather(server, ahead_s=ahead_s)
    except CraftasticError as error:
        # Something was removed while it was looked at; whoever waits looks again.
        return [f"not seen: {type(error).__name__}: {error.message}"]
    found = [f"{name}: {one}" for name, check in INVARIANTS.items() for one in check(facts)]
    found += [f"I7: {one}" for one in i7_no_secret_is_seen(facts, secrets)]
    if journal is not None:
        found += [f"I9: {one}" for one in await journal.lost()]
    if before is not None:
        now = await footprint(server)
        found += [f"I6: {one}" for one in i6_the_server_has_leaked_nothing(before, now)]
    return found


async def hold(
    server: Server,
    *,
    within_s: float = CONVERGED_S,
    journal: Journal | None = None,
    secrets: Collection[str] = (),
    ahead_s: float = 0,
    before: Footprint | None = None,
) -> float:
    """Wait until all invariants hold, and return after how many seconds they did.

    Raises:
        AssertionError: They do not in time; it says which.
    """
    began = time.monotonic()
    while found := await violations(
        server, journal=journal, secrets=secrets, ahead_s=ahead_s, before=before
    ):
        if time.monotonic() - began > within_s:
            raise AssertionError(f"after {within_s} s:\n" + "\n".join(found))
        await anyio.sleep(0.2)
    return time.monotonic() - began


def _living(facts: Facts, environment_id: UUID) -> list[Row]:
    return [
        one
        for one in facts.sessions
        if one["environment_id"] == environment_id
        and one["status"] != "dead"
        and not one["deleted"]
    ]


def _place(environment_id: UUID, branch: str) -> str:
    path = worktree_path(environment_id, branch)
    return path.removeprefix(f"{worktrees_path(environment_id)}/")


def _of_the_self_test(name: str) -> bool:
    try:
        return is_self_test(UUID(name))
    except ValueError:
        return False


def _twice(facts: Facts) -> Iterator[str]:
    """A local sandbox has one pasta and one bubblewrap outside; a second set is a lost one."""
    for number, processes in facts.processes.items():
        for program in ("pasta ", "bwrap "):
            found = [one for one in processes if one.partition(" ")[2].startswith(program)]
            if len(found) > 1 + (program == "bwrap "):
                yield f"user {number} has {found}"
