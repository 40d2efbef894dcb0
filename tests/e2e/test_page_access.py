"""Every screen of the page is for everybody: with a screen reader, by keys alone, in both themes.

axe-core looks at each screen, from the page's own packages; it knows what is meant to be read,
named and reached, and whether colours can be told apart.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.conftest import missing
from tests.e2e._page import EMAIL, PROJECT, WORK_MS, Life, Person, built_page, lived
from tests.e2e.browser import opened_browser, opened_page
from tests.e2e.harness import PASSWORD, Server

pytestmark = [
    pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

AXE = PROJECT / "web" / "node_modules" / "axe-core" / "axe.min.js"
GRAVE = ("serious", "critical")
OF_COLOUR = ["color-contrast", "link-in-text-block"]
"""What may differ between a light and a dark theme; the rest is asked for once."""

STILL = "* { transition: none !important; animation: none !important }"
LOOK = """async (rules) => {
  const options = rules === null ? {} : {runOnly: {type: 'rule', values: rules}};
  const {violations} = await axe.run(document, {...options, resultTypes: ['violations']});
  return violations.map(({id, impact, help, nodes}) => ({
    id, impact, help, where: nodes.slice(0, 3).map(({target, failureSummary}) =>
      `${target.join(' ')}: ${failureSummary}`),
  }));
}"""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    built_page()
    async with opened_browser(webgl=False) as one:
        yield one


@pytest.fixture
async def life(server: Server, tmp_path: Path) -> AsyncIterator[Life]:
    async with lived(server, tmp_path) as one:
        yield one


@dataclass
class Look:
    """Screens that are looked at one after the other, and what is wrong with them."""

    page: Page
    found: list[str]

    async def at(self, name: str) -> None:
        """Look at what is shown, in light colours and then in dark ones."""
        for scheme, rules in (("light", None), ("dark", OF_COLOUR)):
            await self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            violations: list[dict[str, Any]] = await self.page.evaluate(LOOK, rules)
            self.found += [
                f"{name}, {scheme}: {one['id']} ({one['impact']}): {one['help']}\n  "
                + "\n  ".join(one["where"])
                for one in violations
                if one["impact"] in GRAVE
            ]

    async def goes(self, path: str, name: str, heading: str) -> None:
        """Go to a screen as a link does, wait until it is there, and look."""
        await self.page.evaluate(
            """path => {
                history.pushState({}, '', path);
                dispatchEvent(new PopStateEvent('popstate'));
            }""",
            path,
        )
        await expect(Person(self.page).heading(re.compile(heading))).to_be_visible()
        await expect(
            self.page.get_by_role("status", name=re.compile("Loading|Reading"))
        ).to_have_count(0)
        await self.at(name)


async def test_axe_finds_nothing_grave_on_any_screen(
    server: Server, browser: Browser, life: Life
) -> None:
    if not AXE.is_file():
        missing("axe-core is not there: `make web-check` brings the page's packages")
    found: list[str] = []
    for phone in (False, True):
        async with opened_page(browser, server.url, phone=phone) as (page, _):
            await page.goto("/login")
            await page.evaluate(AXE.read_text())
            await sees_what_is_wrong(page)
            await page.goto("/register")
            await page.evaluate(AXE.read_text())
            await page.add_style_tag(content=STILL)
            look = Look(page, [])
            await look_at_everything(Person(page, phone), look, life)
            found += [f"{'phone' if phone else 'desk'}, {one}" for one in look.found]
    assert not found, "\n".join(found)


async def look_at_everything(person: Person, look: Look, life: Life) -> None:
    await look.goes("/register#setupToken=x", "register", "Create the first account")
    await look.goes("/forgot-password", "forgotten password", "Forgotten password")
    await look.goes("/reset-password#token=x", "new password", "Set a new password")
    await look.goes("/reset-password", "spent link", "This link does not work")
    await look.goes("/verify-email#token=x", "confirm the address", "Confirm your e-mail address")
    await look.goes("/login", "sign in", "Sign in")
    await person.sign_in()
    await expect(person.heading("Home")).to_be_visible()
    await look.goes("/welcome", "welcome", "All is ready")
    for path, name, heading in (
        ("/", "home", "Home"),
        ("/envs", "environments", "Environments"),
        (f"/e/{life.environment}", "environment", "shop"),
        (f"/e/{life.environment}?tab=branches", "branches", "shop"),
        (f"/e/{life.environment}?tab=pushes", "pushes", "shop"),
        (f"/e/{life.environment}?tab=deployments", "environment's deployments", "shop"),
        (f"/e/{life.environment}?tab=settings", "environment's settings", "shop"),
        ("/settings/account", "account", "Account"),
        ("/settings/password", "password", "Password"),
        ("/settings/sign-ins", "sign-ins", "Sign-ins"),
        ("/settings/tokens", "access tokens", "Access tokens"),
        ("/settings/activity", "activity", "Activity"),
        ("/settings/users", "users", "Users"),
        ("/settings/invitations", "invitations", "Invitations"),
        ("/settings/audit", "audit log", "Audit log"),
        ("/settings/appearance", "appearance", "Appearance"),
        ("/settings/keys", "keys", "Keys"),
        ("/settings/github", "GitHub", "GitHub"),
        ("/settings/hosts", "git hosts", "Git hosts"),
        ("/settings/coolify", "Coolify", "Deployments"),
        ("/settings/variables", "variables", "Variables"),
        ("/nowhere", "no such screen", "Not found"),
    ):
        await look.goes(path, name, heading)
    await look_at_dialogs(person, look, life)
    await look_at_work(person, look, life)


async def look_at_dialogs(person: Person, look: Look, life: Life) -> None:
    page = person.page
    for keys, name in (("c", "new environment"), ("?", "all keys"), ("Control+K", "palette")):
        await look.goes("/envs", "environments", "Environments")
        await page.keyboard.press(keys)
        await expect(person.dialog.get_by_role("heading").first).to_be_attached()
        await look.at(name)
        await page.keyboard.press("Escape")
        await expect(person.dialog).to_have_count(0)
    await look.goes(f"/e/{life.environment}?new=session", "environment", "shop")
    await expect(person.dialog.get_by_text("New branch").first).to_be_visible()
    await look.at("new session")
    await page.keyboard.press("Escape")
    await look.goes("/envs", "environments", "Environments")
    await person.button("More about shop").last.click()
    await look.at("menu")
    await page.get_by_role("menuitem", name="Delete…").click()
    await expect(page.get_by_role("alertdialog")).to_be_visible()
    await look.at("deletion")
    await page.keyboard.press("Escape")


async def look_at_work(person: Person, look: Look, life: Life) -> None:
    page = person.page
    await look.goes(f"/s/{life.session}", "session", "rounding")
    await person.terminal_is_live("rounding")
    await look.at("terminal")
    for part in ("Changes", "Deploy", "Info", "Commands"):
        await page.get_by_role("radio" if person.phone else "tab", name=re.compile(part)).click()
        await look.at(f"{part} of the session")
    await look.goes(f"/s/{life.session}/diff", "review", "Review")
    if person.phone:
        await look.at("files of the review")
        await page.get_by_role("tab", name=re.compile("Changes")).click()
    await expect(page.get_by_text("round(prices)")).to_be_visible(timeout=WORK_MS)
    await look.at("changes of the review")
    await page.get_by_role("tab", name="History").click()
    await look.at("history of the review")


async def sees_what_is_wrong(page: Page) -> None:
    """See that the look at the screens is worth something."""
    look = Look(page, [])
    await expect(page.get_by_label("Password", exact=True)).to_be_visible()
    await page.evaluate("document.querySelector('label').remove()")
    await page.add_style_tag(content="h1 { color: #888; background: #999 }")
    await look.at("broken")
    found = {one.split(": ")[1].split(" ")[0] for one in look.found}
    assert found >= {"label", "color-contrast"}


async def test_a_way_through_the_page_by_keys_alone(
    server: Server, browser: Browser, life: Life
) -> None:
    async with opened_page(browser, server.url) as (page, faults):
        person, keys = Person(page), page.keyboard
        await page.goto("/login")
        await expect(page.get_by_label("E-mail address")).to_be_focused()
        await keys.type(EMAIL)
        await keys.press("Tab")
        await keys.type(PASSWORD)
        await keys.press("Enter")
        await expect(person.heading("Home")).to_be_visible()

        # After a move the focus is where the screen begins; after loading, one stop leads there.
        await expect(person.heading("Home")).to_be_focused()
        await page.reload()
        await expect(person.heading("Home")).to_be_visible()
        await keys.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await keys.press("Enter")
        await expect(page.get_by_role("main")).to_be_focused()

        await chord(page, "g", "e")
        await expect(person.heading("Environments")).to_be_visible()
        shop = page.get_by_role("list", name="Environments").get_by_role("link", name="shop")
        await expect(shop).to_be_visible()
        await keys.press("j")
        await expect(shop).to_be_focused()
        await keys.press("Enter")
        await expect(person.heading("shop")).to_be_visible()

        await keys.press("n")
        await expect(person.dialog.get_by_label("Name", exact=True)).to_be_focused()
        await keys.type("by-keys")
        await keys.press("Enter")
        await person.terminal_is_live("by-keys")
        await keys.type("echo $((20+3))-typed\n")
        await person.shows("by-keys", "23-typed")

        # A way out of the terminal, which takes the Tab key for itself.
        await keys.press("Control+Shift+Escape")
        outside = person.button(re.compile("Outside the terminal")).first
        await expect(outside).to_be_focused()
        await keys.press("Control+K")
        await expect(person.dialog.get_by_role("combobox")).to_be_focused()
        await keys.press("Escape")
        await expect(outside).to_be_focused()
        await keys.press("Control+K")
        await expect(person.dialog.get_by_role("combobox")).to_be_focused()
        await keys.type("rounding")
        await keys.press("Enter")
        await person.terminal_is_live("rounding")
        await keys.press("Control+Shift+Escape")
        await chord(page, "v", "d")
        await expect(page.get_by_text("round(prices)")).to_be_visible(timeout=WORK_MS)
        await chord(page, "x", "c")
        await expect(page.get_by_label("Commit message")).to_be_focused()

        # Where somebody types, only keys with Ctrl and Shift are the page's.
        await keys.press("Control+Shift+P")
        await expect(person.dialog.get_by_role("combobox")).to_be_focused()
        await keys.type("go to settings")
        await keys.press("Enter")
        await expect(person.heading("Account")).to_be_visible()
        await tab_to(page, "Appearance")
        await keys.press("Enter")
        await tab_to(page, "As the system")
        for theme in ("Light", "Dark"):
            await keys.press("ArrowDown")
            await expect(page.get_by_role("radio", name=theme)).to_be_focused()
        await keys.press("Space")
        await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert faults == []


async def chord(page: Page, *keys: str) -> None:
    for key in keys:
        await page.keyboard.press(key)


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until something of a name has the focus."""
    at = "document.activeElement?.labels?.[0]?.innerText ?? document.activeElement?.innerText ?? ''"
    for _ in range(80):
        await page.keyboard.press("Tab")
        if str(await page.evaluate(at)).strip() == name:
            return
    raise AssertionError(f"80 steps of Tab lead nowhere to {name!r}")
