"""git as it is typed in real sandboxes, on a private repository: it works and meets no secret."""

import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from craftastic.accounts._repository import User
from craftastic.audit.service import AuditService
from craftastic.database import Database
from craftastic.gateway.listener import GatewayListener
from craftastic.pushes.service import PushService
from craftastic.runtimes.base import SandboxRef
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from craftastic.worktrees.service import WorktreeService, repository_path
from tests.conftest import driver_url
from tests.contract.conftest import Bench, until
from tests.fakes.clock import FakeClock
from tests.fakes.gateway import FakeEnvironment, Sandboxes, gateway_of
from tests.fakes.git_hosts import git_hosts_of
from tests.fakes.git_http_server import GitHttpServer, git, make_repository
from tests.secrecy import Place, allow

CANARY = "glpat-canary-3f9c0e"
FORMS = (CANARY, base64.b64encode(f"oauth2:{CANARY}".encode()).decode())
SETTINGS = Settings.model_validate({"git_allow_http": True, "git_allow_private": True})

ARM = """
cat >"$HOME/poll" <<'END'
while :; do cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline >>"$HOME/polled" 2>/dev/null; done
END
sh "$HOME/poll" >/dev/null 2>&1 &
echo $! >"$HOME/poller"
cat >"$1/hooks/pre-push" <<'END'
#!/bin/sh
{ env; cat; } >>"$HOME/dumped"
END
chmod 755 "$1/hooks/pre-push"
printf '#!/bin/sh\\necho "$@" >>"$HOME/asked"\\ncat >>"$HOME/asked"\\n' >"$HOME/helper"
chmod 755 "$HOME/helper"
git config --file "$1/config" credential.helper "$HOME/helper"
"""
TYPED = """
export GIT_CURL_VERBOSE=1 GIT_TRACE=1 GIT_TRACE_REDACT=0
git --git-dir="$1" worktree add -q -b mine "$HOME/work" origin/main
cd "$HOME/work"
git config user.name a; git config user.email a@example.com
echo more >more; git add more; git commit -qm more
git push -q 2>>"$HOME/said"
git fetch -q 2>>"$HOME/said"
git pull -q 2>>"$HOME/said"
git rev-parse HEAD
"""
DISARM = 'kill "$(cat "$HOME/poller")"'
LOOK = """
grep -c PATH= "$HOME/dumped"
grep -ac git-remote-http "$HOME/polled"
grep -c Authorization "$HOME/said"
grep -raFl -e "$1" -e "$2" "$HOME" /tmp /run 2>/dev/null || true
"""


@dataclass
class Yard:
    """A sandbox, its environment, and the private upstream behind the gateway."""

    bench: Bench
    sandbox: SandboxRef
    environment: FakeEnvironment
    worktrees: WorktreeService
    pushes: PushService
    upstream: GitHttpServer


@pytest.fixture
async def yard(
    real: Bench, tmp_path: Path, clock: FakeClock, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Yard]:
    async def no_branches(_environment_id: object) -> set[str]:
        return set()

    (tmp_path / "upstream").mkdir()
    make_repository(tmp_path / "upstream" / "project.git")
    database = Database(driver_url(copy_of_template("sqlite")))
    owner, now = uuid4(), clock.now()
    async with database.begin() as tx:
        tx.add(User(id=owner, email="a@example.com", name="a", created_at=now, updated_at=now))
    hosts = git_hosts_of(database, clock, tmp_path, settings=SETTINGS)
    pushes = PushService(database, AuditService(database, clock), clock, no_branches)
    with GitHttpServer(tmp_path / "upstream", password=CANARY) as upstream:
        await hosts.put(owner, upstream.url(""), CANARY)
        sandboxes = Sandboxes()
        environment = sandboxes.add(upstream.url("project.git"), owner_id=owner)
        gateway = gateway_of(SETTINGS, sandboxes, credentials=hosts, ref_policy=pushes)
        port = real.settings.gateway_port
        listener = GatewayListener(gateway, port)
        sandbox = await real.sandbox()
        runtimes = Runtimes(
            real.settings, real.instance, real.kind, "a test", {}, {real.kind: real.runtime}
        )
        worktrees = WorktreeService(runtimes, port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, real.runtime, tasks)
            await until(lambda: listener.bound, "the gateway listens")
            yield Yard(real, sandbox, environment, worktrees, pushes, upstream)
            listener.stop()
        await gateway.aclose()
    await database.close()


async def test_typed_git_works_on_a_private_repository_and_an_armed_sandbox_finds_no_secret(
    yard: Yard,
) -> None:
    environment, sandbox = yard.environment, yard.sandbox
    path = repository_path(environment.id)
    await yard.worktrees.clone(sandbox, environment.id, environment.token)
    await yard.bench.sh(sandbox, ARM, path)

    head = (await yard.bench.sh(sandbox, TYPED, path)).strip()
    for one in FORMS:
        allow(Place.ARGUMENTS, value=one, because="it is looked for inside", always=False)
    await yard.bench.sh(sandbox, DISARM)  # before the secret is an argument of what looks for it
    dumped, polled, said, *leaks = (await yard.bench.sh(sandbox, LOOK, *FORMS)).split("\n")

    bare = yard.upstream.root / "project.git"
    assert git("rev-parse", "refs/heads/mine", cwd=bare).strip() == head
    assert int(dumped) > 0
    assert int(polled) > 0
    assert int(said) > 0
    assert [leak for leak in leaks if leak] == []
    events = await yard.pushes.audit.list_for(environment.owner_id)
    assert [
        (one.action, one.outcome, one.details["refs"][0]["new"])
        for one in events
        if one.action == "git.push"
    ] == [("git.push", "ok", head)]
