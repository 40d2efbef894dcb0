"""How the server is: what an administrator is told, how often a runtime is asked, and by whom."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from craftastic.database import Database
from craftastic.health.service import KEPT_S, HealthService, State
from craftastic.runtimes.base import Finding, Isolation, SandboxRef
from craftastic.runtimes.memory import MemoryRuntime
from tests.contract.conftest import until
from tests.fakes.clock import FakeClock
from tests.fakes.git_runtime import runtimes_of
from tests.fakes.people import signed_in, state_of
from tests.fakes.whole_app import whole_app, whole_settings
from tests.fakes.workshop import Workshop, build, opened, settings_of


class Checked(MemoryRuntime):
    """Counts how often it is asked, and says what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.probes: anyio.Event | None = None
        self.says: list[Finding] = [Finding("memory", ok=True, message="Fine")]

    async def check(self) -> list[Finding]:
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        return self.says

    async def isolation(self, sandbox: SandboxRef) -> Isolation:
        if self.probes is not None:
            await self.probes.wait()
        return await super().isolation(sandbox)


@pytest.fixture
def runtime() -> Checked:
    return Checked()


@pytest.fixture
async def shop(database: Database, clock: FakeClock, runtime: Checked) -> AsyncIterator[Workshop]:
    async with opened(build(database, clock, runtime)) as shop:
        yield shop


@pytest.fixture
def health(shop: Workshop, runtime: Checked) -> HealthService:
    runtimes = runtimes_of(runtime, settings=settings_of())
    return HealthService(shop.database, runtimes, shop.environments, shop.reconcile, shop.clock)


async def probed(shop: Workshop, name: str, isolation: Isolation) -> None:
    """Make an environment in whose sandbox the probe finds this, and wait until it has."""
    shop.runtime.isolation_result = isolation
    environment = await shop.create(name)

    async def written() -> bool:
        found = await shop.environments.get_owned(shop.owner, environment.id)
        return found.isolation == isolation.summary

    await until(written, "what the probe found is written")


async def test_a_sound_server_is_all_green(health: HealthService, shop: Workshop) -> None:
    await probed(shop, "one", Isolation(verified=True))

    told = await health.look()

    assert told.state is State.OK
    assert [(one.is_default, one.findings[0].message) for one in told.runtimes] == [(True, "Fine")]
    assert (told.isolation.verified, told.isolation.waiting, told.isolation.unverified) == (
        1,
        0,
        [],
    )
    assert told.database.kind == ("SQLite" if shop.database.is_sqlite else "PostgreSQL")
    assert told.database.version[0].isdigit()
    assert [one.name for one in told.reconcilers] == ["environments", "sessions"]


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        (Finding("a", ok=False, message="No"), State.FAILED),
        (Finding("a", ok=None, message="Perhaps", remedy="Do it"), State.WARNING),
    ],
)
async def test_the_worst_finding_is_the_state(
    health: HealthService, runtime: Checked, finding: Finding, state: State
) -> None:
    runtime.says.append(finding)

    told = await health.look()

    assert told.state is state
    assert finding in told.runtimes[0].findings


async def test_sandboxes_that_are_open_are_named_before_those_that_were_not_checked(
    health: HealthService, shop: Workshop, runtime: Checked
) -> None:
    unchecked = Isolation(verified=False, unchecked=("the host; no address",))
    opened_up = Isolation(verified=False, open=("10.0.0.1", "the host"), unchecked=("IPv6",))
    await probed(shop, "a", unchecked)
    assert (await health.look()).state is State.WARNING
    shop.clock.advance(KEPT_S)
    await probed(shop, "b", opened_up)
    runtime.probes = anyio.Event()
    await shop.create("c")

    told = await health.look()

    assert told.state is State.FAILED
    assert [(one.name, one.open, one.unchecked) for one in told.isolation.unverified] == [
        ("b", ("10.0.0.1", "the host"), ("IPv6",)),
        ("a", (), ("the host; no address",)),
    ]
    assert (told.isolation.verified, told.isolation.waiting, told.isolation.more) == (0, 1, 0)


async def test_a_crowd_costs_one_round_of_checks(
    health: HealthService, shop: Workshop, runtime: Checked
) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(health.look)
    shop.clock.advance(KEPT_S / 2)
    await health.look()
    assert runtime.asked == 1

    shop.clock.advance(KEPT_S)
    await health.look()

    assert runtime.asked == 2


async def test_a_runtime_that_failed_its_self_test_is_red_with_a_way_on(
    health: HealthService,
) -> None:
    health.runtimes.refused[health.runtimes.default_name] = "bwrap is too old"

    told = await health.look()

    assert told.state is State.FAILED
    first = told.runtimes[0].findings[0]
    assert "bwrap is too old" in first.message
    assert first.remedy


async def test_health_over_http_is_for_administrators(tmp_path: Path) -> None:
    settings = whole_settings(tmp_path, f"sqlite:///{tmp_path / 'a.db'}")
    async with whole_app(settings) as (client, _):
        setup = await state_of(client)["accounts"].first_account_token() or ""
        chief = await signed_in(client, "chief@example.com", setupToken=setup)
        user = await signed_in(client, "user@example.com")

        refused = await client.get("/api/admin/health", headers=user)
        answer = await client.get("/api/admin/health", headers=chief)

    assert (refused.status_code, refused.json()["code"]) == (403, "ADMIN_NEEDED")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {
        *("lookedAt", "state", "version", "runtimes", "isolation", "database", "reconcilers")
    }
    assert body["runtimes"] == [
        {
            "name": "memory",
            "isDefault": True,
            "reason": "it is a test",
            "findings": [
                {
                    "name": "memory",
                    "ok": True,
                    "message": "Sandboxes are kept in memory",
                    "remedy": None,
                }
            ],
        }
    ]
    assert body["isolation"] == {"verified": 0, "waiting": 0, "unverified": [], "more": 0}
    assert body["database"]["kind"] == "SQLite"
    assert set(body["reconcilers"][0]) == {"name", "rounds", "failures", "lastAt", "lastError"}


@pytest.mark.parametrize(
    "isolation",
    [
        Isolation(verified=True),
        Isolation(verified=False, open=("a", "b; c"), unchecked=("d",)),
        Isolation(verified=False, unchecked=("e; f; g",)),
        Isolation(verified=False),
    ],
)
def test_a_stored_summary_is_read_as_it_was_written(isolation: Isolation) -> None:
    assert Isolation.of(isolation.summary) == isolation
