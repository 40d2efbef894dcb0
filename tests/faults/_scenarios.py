"""What is done with a server that dies on the way: each operation, and the failpoints on it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scenario:
    """One operation, and the failpoints that it passes in both runtimes or in one.

    Args:
        name: What is done, in words for the test's name.
        failpoints: Those that it passes; each is tried once.
    """

    name: str
    failpoints: tuple[str, ...]


SCENARIOS = (
    Scenario(
        "environment is made",
        (
            "environment.create.inserted",
            "environment.create.committed",
            "environment.claimed",
            "sandbox.storage.made",
            "docker.container.created",
            "docker.container.started",
            "local.state.written",
            "local.network.up",
            "local.sandbox.up",
            "sandbox.create.made",
            "sandbox.create.recorded",
            "sandbox.create.probed",
            "clone.token.recorded",
            "clone.asked",
            "clone.ended",
            "clone.recorded",
        ),
    ),
    Scenario(
        "repository is repaired",
        (
            "environment.repair.wished",
            "repository.checked",
            "repair.token.recorded",
            "repository.carried",
            "environment.repair.recorded",
        ),
    ),
    Scenario("worktree is repaired", ("worktree.mended",)),
    Scenario(
        "environment is stopped",
        ("environment.stop.wished", "environment.stop.removed", "environment.stop.sessions.ended"),
    ),
    Scenario(
        "environment is deleted",
        (
            "environment.delete.wished",
            "docker.container.removed",
            "local.sandbox.ended",
            "sandbox.storage.aside",
            "sandbox.storage.removed",
            "environment.delete.removed",
            "environment.delete.forgotten",
        ),
    ),
    Scenario(
        "session is made",
        (
            "session.make.begun",
            "worktree.made",
            "session.make.prepared",
            "session.make.tmux",
            "session.make.recorded",
        ),
    ),
    Scenario(
        "session is removed",
        (
            "session.remove.begun",
            "session.remove.tmux",
            "session.remove.jobs",
            "session.remove.teardown",
            "worktree.released",
            "session.remove.forgotten",
        ),
    ),
    Scenario(
        "disk space is freed",
        ("disk.reclaim.wished", "disk.reclaim.removed", "disk.reclaim.recorded"),
    ),
)

PASSED_BEFORE = {("sandbox.storage.aside", "local"): 1}
"""How often a failpoint is passed before its scenario: a start empties the last /run."""


def of_one_runtime(failpoint: str) -> str | None:
    """Return the runtime that alone has the failpoint; None for one that both have."""
    kind = failpoint.partition(".")[0]
    return kind if kind in {"docker", "local"} else None
