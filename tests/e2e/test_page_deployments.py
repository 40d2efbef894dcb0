"""Deploying from the page: connecting Coolify, watching a build, failing, going back."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
import pytest
from playwright.async_api import Browser, Locator, expect

from tests.e2e._page import EMAIL, WORK_MS, Life, Person, built_page, lived
from tests.e2e.browser import opened_browser, opened_page
from tests.e2e.harness import Api, Server
from tests.fakes.git_http_server import git
from tests.fakes.toy_coolify import ToyApplication, ToyCoolify, ToyRun, line

pytestmark = [
    pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

SEEN_MS = 40_000
"""How long until the page shows what Coolify did: it is asked every 15 s at the least."""

MANY_LINES = 1_500

OVERFLOW = "() => document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    built_page()
    async with opened_browser(webgl=False) as one:
        yield one


@pytest.fixture
async def life(server: Server, tmp_path: Path) -> AsyncIterator[Life]:
    async with lived(server, tmp_path) as one:
        yield one


@pytest.fixture
def toy() -> Iterator[ToyCoolify]:
    with ToyCoolify() as coolify:
        yield coolify


@dataclass(frozen=True)
class Shop:
    """The application of the session's repository, and what its Coolify does."""

    toy: ToyCoolify
    application: ToyApplication

    async def queued(self, number: int) -> ToyRun:
        """Wait until that many deployments were asked for, and return the newest."""
        await anyio.to_thread.run_sync(
            lambda: self.toy.wait_until(
                lambda: len(self.toy.runs) >= number, f"{number} deployments"
            )
        )
        return self.toy.runs[-1]


def shop_of(toy: ToyCoolify, branch: str) -> Shop:
    """Make an application that builds a branch of the session's repository, and another one."""
    toy.application("another", repository="example/another")
    return Shop(toy, toy.application("shop", branch=branch, repository="example/shop"))


def head_of(bare: Path, branch: str) -> str:
    return git("rev-parse", branch, cwd=bare).strip()


async def test_work_is_connected_pushed_deployed_watched_and_taken_back(
    server: Server, browser: Browser, life: Life, toy: ToyCoolify
) -> None:
    shop = shop_of(toy, "rounding")
    before = head_of(life.bare, "main")
    async with opened_page(browser, server.url) as (page, faults):
        person = Person(page)
        await page.goto(f"/s/{life.session}")
        await person.sign_in()
        await person.terminal_is_live("rounding")

        # Nothing is connected; a token that may only deploy is not enough, and it is said why.
        await page.get_by_role("tab", name="Deploy", exact=True).click()
        await page.get_by_role("link", name="Connect Coolify").click()
        await page.get_by_label("Address").fill(f"{toy.url}/")
        await page.get_by_label("API token").fill(toy.token("deploy"))
        await person.button("Connect").click()
        abilities = page.get_by_role("list", name="What the token may do")
        await expect(abilities).to_contain_text("read (missing)")
        await expect(page.get_by_role("alert")).to_contain_text("ticking deploy")
        await person.button("Replace the token…").click()
        await person.dialog.get_by_label("API token").fill(toy.token())
        await person.button("Connect", within=person.dialog).click()
        await expect(abilities).to_contain_text("read (granted)")
        await expect(page.get_by_text(f"Coolify {toy.version}")).to_be_visible()

        # Coolify is told where to tell news to; the address is shown once.
        await person.button("Make an address").click()
        shown = person.dialog.get_by_label(re.compile("^The webhook.s address$"))
        hook = (await shown.inner_text()).strip()
        await person.button("Done").click()
        await expect(person.button("Make a new address…")).to_be_visible()

        # The application is chosen once; what is not pushed would not be deployed.
        await page.goto(f"/s/{life.session}")
        await page.get_by_role("tab", name="Deploy", exact=True).click()
        choices = page.get_by_role("list", name="Applications")
        await expect(choices.get_by_role("button")).to_have_count(2)
        await person.button(re.compile("shop"), within=choices).click()
        panel = page.get_by_role("region", name="Deploy", exact=True)
        deploy = person.button("Deploy", within=panel)
        await expect(panel).to_contain_text("NOTES")
        await expect(deploy).to_be_disabled()
        await person.run("rounding", "git add -A && git commit -qm first; echo committed-$?")
        await person.shows("rounding", "committed-0")
        await expect(panel).not_to_contain_text("NOTES", timeout=WORK_MS)
        await person.button("Push", within=panel).click()
        await expect(page.get_by_text("Pushed rounding")).to_be_visible(timeout=WORK_MS)
        commit = head_of(life.bare, "rounding")
        await expect(panel).to_contain_text(commit[:8], timeout=WORK_MS)
        await deploy.click()

        # It is watched: in the queue, while it builds, until it is healthy.
        run = await shop.queued(1)
        now = page.get_by_role("region", name="Under way")
        steps = now.get_by_role("list", name="Steps of the deployment")
        await expect(steps).to_contain_text(re.compile("queue: Working"))
        toy.start(run, commit=commit)
        toy.say(run, *(line(f"step {number}") for number in range(1, MANY_LINES)))
        await expect(steps).to_contain_text("Build: Working", timeout=SEEN_MS)
        log = now.get_by_role("log", name="Build log of shop")
        await expect(log).to_contain_text(f"step {MANY_LINES - 1}", timeout=SEEN_MS)
        await expect(log.get_by_text("step 1", exact=True)).to_be_attached()
        await follows_its_end(log)
        toy.say(run, line("<b>the last</b> word"))
        await expect(log).to_contain_text("<b>the last</b> word")
        await follows_its_end(log)
        toy.finish(run)
        assert await anyio.to_thread.run_sync(lambda: toy.webhook(hook)) == 200
        last = page.get_by_role("region", name="Last deployment")
        await expect(last).to_contain_text("Healthy: Done", timeout=SEEN_MS)

        # The next one fails: its page has the reason, and the log.
        await person.run(
            "rounding", "git commit -q --allow-empty -m second && git push -q; echo at-$?"
        )
        await person.shows("rounding", "at-0")
        second = head_of(life.bare, "rounding")
        await expect(panel).to_contain_text(second[:8], timeout=WORK_MS)
        await deploy.click()
        run = await shop.queued(2)
        broken = line("npm ERR! missing script: build", stream="stderr")
        toy.start(run, commit=second)
        toy.fail(run, log=[line("npm run build"), broken])
        await expect(last).to_contain_text("Build: Failed", timeout=SEEN_MS)
        await expect(last).to_contain_text("npm ERR! missing script: build")
        await last.get_by_role("link", name=re.compile("^All about it")).click()
        await expect(person.heading("shop")).to_be_visible()
        await expect(page.get_by_role("log", name="Build log of shop")).to_contain_text(
            "npm run build"
        )
        await page.get_by_role("tab", name=re.compile("^The application.s log$")).click()
        await expect(page.get_by_role("log", name="Log of shop")).to_contain_text("listening")

        # An earlier commit, of which Coolify has an image, is gone back to.
        shop.application.images = [
            {"commit": commit, "is_current": True, "created_at": "2026-07-19T10:00:00Z"},
            {"commit": before, "is_current": False, "created_at": "2026-07-18T10:00:00Z"},
        ]
        await person.button("Roll back…").click()
        await person.dialog.get_by_role("radio", name=before[:8]).click()
        await person.button(f"Roll back to {before[:8]}", within=person.dialog).click()
        run = await shop.queued(3)
        assert (run.rollback, run.asked_commit) == (True, before)
        toy.finish(run, commit=before)
        await expect(page.get_by_role("list", name="Steps of the deployment")).to_contain_text(
            "Healthy: Done", timeout=SEEN_MS
        )

        # The environment has all three, each with what became of it in a word.
        await page.get_by_role("link", name="All deployments of shop").click()
        rows = page.get_by_role("list", name="Deployments").get_by_role("listitem")
        await expect(rows).to_have_count(3)
        for row, words in enumerate(("Rolled back", "Failed", "Replaced|Healthy")):
            await expect(rows.nth(row)).to_contain_text(re.compile(words))
        assert faults == []


async def follows_its_end(log: Locator) -> None:
    """Wait until the end of a log is in view."""
    away = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
    await log.page.wait_for_function(
        f"log => ({away})(log) < 24", arg=await log.element_handle(), timeout=SEEN_MS
    )


async def test_on_a_phone_the_pushed_branch_is_deployed_and_cancelled(
    server: Server, browser: Browser, life: Life, toy: ToyCoolify
) -> None:
    shop = shop_of(toy, "main")
    async with Api(server.url) as api:
        await api.login(EMAIL)
        body = {"url": toy.url, "token": toy.token()}
        answer = await api.client.put("/api/coolify/connection", json=body)
        assert answer.status_code == 200, answer.text
    async with opened_page(browser, server.url, phone=True, dark=True) as (page, faults):
        person = Person(page, phone=True)
        await page.goto(f"/s/{life.session}")
        await person.sign_in()
        await page.get_by_role("radio", name="Deploy", exact=True).click()
        await person.button(re.compile("Healthy ?shop")).click()
        panel = page.get_by_role("region", name="Deploy", exact=True)
        await expect(panel).to_contain_text("rounding")
        await expect(person.button("Deploy", within=panel)).to_be_disabled()
        assert await page.evaluate(OVERFLOW) <= 0

        # Another branch is built than the session is on: that one is deployed when it is said so.
        await person.button("Deploy main", within=panel).click()
        run = await shop.queued(1)
        toy.start(run)
        now = page.get_by_role("region", name="Under way")
        await expect(now).to_contain_text("Build: Working", timeout=SEEN_MS)
        toy.say(run, line("a long line " + "without an end" * 40))
        await expect(now.get_by_role("log")).to_contain_text("a long line", timeout=SEEN_MS)
        assert await page.evaluate(OVERFLOW) <= 0
        await person.button("Cancel", within=now).click()
        await person.button("Cancel the deployment").click()
        last = page.get_by_role("region", name="Last deployment")
        await expect(last).to_contain_text("Cancelled", timeout=SEEN_MS)
        assert run.status == "cancelled-by-user"

        # Disconnected, nothing can be deployed, and what was stays to be read.
        await page.goto("/settings/coolify")
        await person.button("Disconnect").click()
        await person.button("Disconnect", within=page.get_by_role("alertdialog")).click()
        await expect(page.get_by_label("API token")).to_be_visible()
        await page.goto(f"/e/{life.environment}?tab=deployments")
        await expect(page.get_by_text("Deployments are not set up")).to_be_visible()
        await expect(page.get_by_role("list", name="Deployments")).to_contain_text("Cancelled")
        assert await page.evaluate(OVERFLOW) <= 0
        assert faults == []
