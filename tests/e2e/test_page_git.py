"""The page's way to the remote and back, renaming, and what it shows while the network is away."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.e2e._cuts import BreakingLine
from tests.e2e._page import EMAIL, WORK_MS, Life, Person, built_page, lived
from tests.e2e.browser import opened_browser, opened_page
from tests.e2e.harness import Server
from tests.fakes.git_http_server import git

pytestmark = [
    pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

SCREENS_ARE_FETCHED = """() => {
  const fetched = performance.getEntriesByType("resource").filter((one) => one.responseEnd > 0);
  const count = (name) => fetched.filter((one) => one.name.includes(`/assets/${name}-`)).length;
  return ["home", "environment", "review"].every(count) && count("settings") > 1;
}"""
"""The page fetches its other screens some seconds after its start."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    built_page()
    async with opened_browser(webgl=False) as one:
        yield one


@pytest.fixture
async def life(server: Server, tmp_path: Path) -> AsyncIterator[Life]:
    async with lived(server, tmp_path) as one:
        yield one


async def test_a_branch_is_published_pulled_rebased_and_overwritten_from_its_bar(
    server: Server, browser: Browser, life: Life
) -> None:
    async with opened_page(browser, server.url) as (page, _):
        person = Person(page)
        await page.goto(f"/s/{life.session}")
        await person.sign_in()
        await person.terminal_is_live("rounding")
        await person.run("rounding", "git commit -qam first && rm NOTES")
        bar = page.get_by_role("group", name="Git")
        await person.button(re.compile("^Publish"), within=bar).click()
        await expect(page.get_by_text("Pushed rounding")).to_be_visible(timeout=WORK_MS)
        await expect(bar).to_contain_text("Up to date")

        async def choose(item: str) -> None:
            await person.button(re.compile("^Branch"), within=bar).click()
            await page.get_by_role("menuitem", name=item, exact=True).click()

        # Somebody else pushes: it is seen when asked for, and pulled.
        theirs = somebody_pushes(life.bare, "THEIRS")
        await choose("Look at the remote")
        await expect(page.get_by_text("1 branch changed on the remote")).to_be_visible()
        await person.button(re.compile("^Pull"), within=bar).click()
        await expect(page.get_by_text("1 commit came from origin/rounding")).to_be_visible()
        await person.run("rounding", "git log -1 --format=at-%h", f"at-{theirs[:7]}")

        # Both go on: a plain pull cannot bring that together, a rebase can.
        somebody_pushes(life.bare, "MORE")
        await person.run("rounding", "git commit -q --allow-empty -m mine")
        await choose("Pull")
        refusal = page.get_by_role("alert")
        await expect(refusal).to_be_visible(timeout=WORK_MS)
        await person.button("Pull and rebase", within=refusal).click()
        await expect(page.get_by_text("1 commit came from origin/rounding")).to_be_visible()
        await person.button(re.compile("^Push"), within=bar).click()
        await expect(page.get_by_text("Pushed rounding")).to_be_visible(timeout=WORK_MS)
        assert subject_of(life.bare) == "mine"

        # What was pushed is changed: only overwriting brings that there, and it is asked about.
        await person.run("rounding", "git commit -q --allow-empty --amend -m changed")
        await expect(bar).to_contain_text("Push", timeout=WORK_MS)
        await choose("Push and overwrite…")
        question = page.get_by_role("alertdialog")
        await person.button("Push and overwrite", within=question).click()
        await expect(page.get_by_text("Pushed rounding")).to_be_visible(timeout=WORK_MS)
        assert subject_of(life.bare) == "changed"


def somebody_pushes(bare: Path, name: str) -> str:
    """Push a commit with a new file to the session's branch; return its hash."""
    work = bare.with_name(f"somebody-{name}")
    git("clone", "--quiet", "--branch=rounding", str(bare), str(work))
    (work / name).write_text("theirs\n")
    git("add", ".", cwd=work)
    git("commit", "--quiet", "-m", name, cwd=work)
    git("push", "--quiet", "origin", "rounding", cwd=work)
    return git("rev-parse", "HEAD", cwd=work).strip()


def subject_of(bare: Path) -> str:
    return git("log", "-1", "--format=%s", "rounding", cwd=bare).strip()


async def test_names_are_changed_and_screens_wait_for_the_network(
    server: Server, browser: Browser, life: Life
) -> None:
    async with (
        BreakingLine(server.port).laid() as line,
        opened_page(browser, line.url) as (page, _),
    ):
        person = Person(page)
        sidebar = page.get_by_role("complementary", name="Sidebar")
        await page.goto(f"/e/{life.environment}?tab=settings")
        await page.get_by_label("E-mail address").fill(EMAIL)
        await person.sign_in()
        await page.get_by_role("tabpanel").get_by_label("Name", exact=True).fill("store")
        await person.button("Rename").click()
        await expect(person.heading("store")).to_be_visible()
        await expect(sidebar.get_by_role("link", name="store")).to_be_visible()

        await sidebar.get_by_role("link", name="rounding").click()
        await person.terminal_is_live("rounding")
        await person.button("More about rounding").last.click()
        await page.get_by_role("menuitem", name="Rename…").click()
        await person.dialog.get_by_label("Name", exact=True).fill("rounding up")
        await page.keyboard.press("Enter")
        await expect(person.heading(re.compile("rounding up"))).to_be_visible()
        await person.terminal_is_live("rounding up")

        # Every screen can be gone to without a network: with what is known, or with a way on.
        await page.wait_for_function(SCREENS_ARE_FETCHED)
        await page.context.set_offline(True)
        await line.cut()
        await expect(page.get_by_text("You are offline. What you see")).to_be_visible()
        await sidebar.get_by_role("link", name="Home").click()
        await expect(page.get_by_role("main").get_by_role("link", name="store")).to_be_visible()
        await sidebar.get_by_role("link", name="store").click()
        await page.get_by_role("tab", name="Pushes").click()
        await expect(page.get_by_text("The pushes could not be read")).to_be_visible()
        await page.get_by_role("tab", name="Settings").click()
        await person.button("Delete environment…").click()
        await page.get_by_role("alertdialog").get_by_role("textbox").fill("store")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alertdialog").get_by_role("alert")).to_be_visible()
        await page.keyboard.press("Escape")
        await page.keyboard.press("g")
        await page.keyboard.press(",")
        await page.get_by_role("link", name="Git hosts").click()
        await expect(page.get_by_text("could not be read")).to_be_visible()

        line.mend()
        await page.context.set_offline(False)
        await expect(page.get_by_text("You are offline")).to_have_count(0)
        await expect(page.get_by_text("could not be read")).to_have_count(0)
        await expect(person.button("Add a git host")).to_be_visible()
