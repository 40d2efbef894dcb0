"""Disk use and health in the page: what there is, what is freed, what is kept and why."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.e2e._page import EMAIL, WORK_MS, Life, Person, built_page, lived
from tests.e2e.browser import opened_browser, opened_page
from tests.e2e.harness import Api, Server, Viewer, until

pytestmark = [
    pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

WALK_MS = 120_000
"""How long a walk over all files of a sandbox may take on a machine that is busy."""

MODULES_MIB, CACHE_MIB = 3, 2
OVERFLOW = "() => document.documentElement.scrollWidth - window.innerWidth"

FILL = f"""
set -e
echo node_modules/ >> "$(git rev-parse --git-path info/exclude)"
mkdir -p node_modules/left-pad ~/.cache/pip
head -c {MODULES_MIB << 20} /dev/urandom > node_modules/left-pad/index.js
head -c {CACHE_MIB << 20} /dev/urandom > ~/.cache/pip/wheel
echo half-done > HALF
"""
"""Run in a session that is ended afterwards: what can be made again, a cache, and unsaved work."""


def own(faults: list[str]) -> list[str]:
    """Leave out requests that a change of the host's networks has cut: the page repeats them."""
    return [one for one in faults if "net::ERR_NETWORK_CHANGED" not in one]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    built_page()
    expect.set_options(timeout=WORK_MS)  # on a machine that is busy with other things, too
    try:
        async with opened_browser(webgl=False) as one:
            yield one
    finally:
        expect.set_options(timeout=5_000)


@dataclass(frozen=True)
class Filled:
    """An environment with a living session "rounding", and an ended one "old"."""

    life: Life
    api: Api
    server: Server

    async def run(self, command: str) -> str:
        """Run something in the living session's terminal."""
        viewer = Viewer(self.server.url, self.life.session, self.life.environment, self.api.token)
        async with viewer.attached():
            return await viewer.run(command, 60)


@pytest.fixture
async def filled(server: Server, tmp_path: Path) -> AsyncIterator[Filled]:
    async with lived(server, tmp_path) as life, Api(server.url) as api:
        await api.login(EMAIL)
        old: dict[str, Any] = await api.post(
            "/api/sessions",
            environmentId=life.environment,
            name="old",
            branch="old",
            baseBranch="main",
        )
        viewer = Viewer(server.url, old["id"], life.environment, api.token)
        async with viewer.attached():
            for line in FILL.strip().splitlines()[1:]:
                await viewer.run(line, 60)
        ended = await api.client.patch(f"/api/sessions/{old['id']}", json={"status": "dead"})
        assert ended.status_code == 200, ended.text
        yield Filled(life, api, server)


async def opened_disk(page: Page, life: Life) -> Person:
    """Sign in at an environment's disk use, which was not measured yet, and have it measured."""
    person = Person(page)
    await page.goto(f"/e/{life.environment}?tab=disk")
    await person.sign_in()
    await expect(page.get_by_text("Not measured yet")).to_be_visible()
    await person.button("Measure now").click()
    await expect(page.get_by_role("list", name="What can be freed")).to_be_visible(timeout=WALK_MS)
    return person


async def test_use_is_shown_and_what_can_be_made_again_is_freed(
    browser: Browser, server: Server, filled: Filled
) -> None:
    async with opened_page(browser, server.url) as (page, faults):
        person = await opened_disk(page, filled.life)

        # The whole, its parts, and each session's share.
        parts = page.get_by_role("tabpanel", name="Disk")
        for part in ("Working trees", "Repository", "Home folder", "Caches"):
            await expect(parts.get_by_role("term").filter(has_text=part)).to_be_visible()
        await expect(parts).to_contain_text(re.compile("Measured just now"))
        by_session = page.get_by_role("list", name="Disk use by session").get_by_role("listitem")
        old = by_session.filter(has_text="old")
        await expect(old).to_contain_text(re.compile(r"ended.*only here.*3\.\d MiB of it can be"))
        await expect(old).to_contain_text("has work that is only here")

        # Before anything goes it is named, and it can be called off.
        freeable = page.get_by_role("list", name="What can be freed")
        free = person.button(re.compile("up to What can be built again"), within=freeable)
        await free.click()
        asked = page.get_by_role("alertdialog")
        await expect(asked).to_contain_text("not committed or not pushed is never touched")
        await expect(asked.get_by_role("list", name="What is removed: Caches")).to_contain_text(
            "/home/dev/.cache/pip"
        )
        again = asked.get_by_role("list", name="What is removed: What can be built again")
        await expect(again).to_contain_text(re.compile(r"old/node_modules"))
        await expect(asked).not_to_contain_text("rounding")
        await person.button("Cancel", within=asked).click()
        await expect(asked).to_have_count(0)
        assert "node_modules" in await filled.run("ls ~/.craftastic/worktrees/*/old*")

        # Freed: what is gone, what is left, and why.
        await free.click()
        await person.button(re.compile("^Free"), within=asked).click()
        freed = page.get_by_role("status").filter(has_text="freed")
        await expect(freed).to_contain_text(re.compile(r"[5-9](\.\d)? MiB freed"), timeout=WALK_MS)
        kept = freed.get_by_role("list", name="What was kept")
        await expect(kept).to_contain_text(re.compile("rounding: its session is alive"))
        await expect(freeable).to_contain_text(re.compile("2. What can be built again.?nothing"))
        left = await filled.run("ls ~/.craftastic/worktrees/*/old*; git status --porcelain")
        assert "HALF" in left
        assert "node_modules" not in left
        assert "NOTES" in left  # the living session's own work

        # The list of sessions tells the size too.
        await page.get_by_role("tab", name="Sessions").click()
        row = page.get_by_role("list", name="Sessions", exact=True).get_by_role("listitem")
        await expect(row.filter(has_text="rounding")).to_contain_text(re.compile(r"on the disk"))

        # Everybody's, for who administers the server.
        await page.goto("/settings/disk")
        meter = page.get_by_role("meter", name=re.compile("server.s disk"))
        await expect(meter).to_have_attribute("aria-valuetext", re.compile(r"free of"))
        everybody = page.get_by_role("list", name="Disk use of environments")
        await expect(everybody.get_by_role("listitem")).to_contain_text(f"shop{EMAIL}")
        assert own(faults) == []


async def test_a_stopped_environment_says_why_and_how_to_go_on(
    browser: Browser, server: Server, filled: Filled
) -> None:
    life = filled.life
    async with opened_page(browser, server.url) as (page, faults):
        person = await opened_disk(page, life)
        stopped = await filled.api.post(f"/api/environments/{life.environment}/stop", force=True)
        assert stopped["desired"] == "stopped"

        # Its own page: the figures stay, with the reason why there are no new ones.
        await expect(page.get_by_text("The sandbox is stopped")).to_be_visible(timeout=WORK_MS)
        await expect(page.get_by_text("It was stopped; the next session")).to_be_visible()
        await expect(person.button("Measure again")).to_be_disabled()
        await expect(
            page.get_by_text("figures are from when it was looked at last")
        ).to_be_visible()

        # The list, and home.
        for place in ("/envs", "/"):
            await page.goto(place)
            row = page.get_by_role("listitem").filter(has_text="It was stopped; the next session")
            await expect(row.filter(has_text="shop")).to_be_visible()
        await person.button("Start shop").click()

        async def runs() -> bool:
            state = await filled.api.get(f"/api/environments/{life.environment}")
            return state["status"] == "running"

        await until(runs, "the environment runs again", timeout_s=WORK_MS / 1000)
        await expect(person.button("Start shop")).to_have_count(0)
        assert own(faults) == []


async def test_health_shows_verified_isolation_and_each_check(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    async with lived(server, tmp_path) as life, Api(server.url) as api:
        await api.login(EMAIL)

        async def probed() -> bool:
            return bool((await api.get(f"/api/environments/{life.environment}")).get("isolation"))

        await until(probed, "the sandbox was looked at from inside", timeout_s=60)
        async with opened_page(browser, server.url) as (page, faults):
            person = Person(page)
            await page.goto("/settings/health")
            await person.sign_in()
            told = page.get_by_role("region", name="Isolation of sandboxes")
            await expect(told).to_contain_text("Verified")
            await expect(told).to_contain_text("neither the host nor private networks")
            checks = page.get_by_role("list", name="Checks of the runtime local")
            sound = checks.get_by_role("listitem").filter(has_text="local.bubblewrap")
            await expect(sound).to_contain_text(re.compile("^OK"))
            steps = page.get_by_role("list", name="What the server repeats")
            await expect(steps).to_contain_text("environments")
            await expect(page.get_by_role("definition").filter(has_text="SQLite")).to_be_visible()
            await person.button("Refresh").click()
            await expect(person.button("Refresh")).to_be_enabled()
            assert own(faults) == []


async def test_who_administers_nothing_gets_a_line_and_no_details(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    del tmp_path
    async with Api(server.url) as chief, Api(server.url) as other:
        await chief.register("chief@example.com", setupToken=server.setup_token)
        await other.register(EMAIL)
    async with opened_page(browser, server.url, phone=True) as (page, faults):
        person = Person(page, phone=True)
        await page.goto("/settings/health")
        await person.sign_in()
        await expect(page.get_by_text("Environments can be made and started.")).to_be_visible()
        await expect(page.get_by_role("list", name="What the server repeats")).to_have_count(0)
        await expect(page.get_by_role("link", name="Disk use")).to_have_count(0)
        await page.goto("/settings/disk")
        await expect(page.get_by_role("heading", name="Not found")).to_be_visible()
        assert own(faults) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_on_a_phone_nothing_is_wider_than_the_screen(
    browser: Browser, server: Server, filled: Filled, dark: bool
) -> None:
    async with opened_page(browser, server.url, phone=True, dark=dark) as (page, faults):
        await opened_disk(page, filled.life)
        assert await page.evaluate(OVERFLOW) <= 0
        for path, shown in (
            ("/settings/disk", "Disk use of environments"),
            ("/settings/health", "What the server repeats"),
        ):
            await page.goto(path)
            await expect(page.get_by_role("list", name=shown)).to_be_visible()
            assert await page.evaluate(OVERFLOW) <= 0
        assert own(faults) == []
