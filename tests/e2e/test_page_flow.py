"""The whole way through the page in a real browser, from a new server to a pushed commit.

At a desk in light colours and on a phone in dark ones; nothing may go wrong in the page meanwhile:
no exception, nothing that its own policy forbids, no request to anywhere else.
"""

import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.e2e._cuts import BreakingLine
from tests.e2e._page import (
    EMAIL,
    WORK_MS,
    Person,
    built_page,
    files_of_commit,
    make_project,
)
from tests.e2e.browser import opened_browser, opened_page
from tests.e2e.harness import Api, Server
from tests.fakes.git_http_server import GitHttpServer, git

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NUMBERS = 300
"""Lines that are printed while the connection is cut in their midst."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    built_page()
    async with opened_browser(webgl=False) as one:
        yield one


@pytest.fixture
def password() -> str:
    return f"token-{secrets.token_hex(8)}"


@pytest.fixture
def project(tmp_path: Path, password: str) -> Iterator[tuple[Path, str]]:
    """Give a repository that only a password opens: its folder and its address."""
    bare = make_project(tmp_path / "upstream")
    with GitHttpServer(bare.parent, password=password) as server:
        yield bare, server.url(bare.name)


@pytest.mark.parametrize(
    ("runtime", "phone", "dark"),
    [
        pytest.param("local", False, False, id="desk-light", marks=pytest.mark.local),
        pytest.param("docker", True, True, id="phone-dark", marks=pytest.mark.docker),
    ],
)
async def test_from_a_new_server_to_a_pushed_commit_and_back_to_nothing(
    server: Server,
    browser: Browser,
    project: tuple[Path, str],
    password: str,
    phone: bool,
    dark: bool,
) -> None:
    bare, address = project
    async with (
        BreakingLine(server.port).laid() as line,
        opened_page(browser, line.url, phone=phone, dark=dark) as (page, faults),
    ):
        flow = Flow(Person(page, phone), line, faults)
        await page.goto("/")
        await flow.person.register(server.setup_token)
        await flow.look_whether_all_is_ready(address, password)
        await flow.make_the_environment(address)
        await flow.begin_a_session()
        await flow.split()
        await flow.lose_the_connection_while_lines_are_printed()
        await flow.change_files()
        await flow.commit_one_of_them()
        assert await flow.push() == git("rev-parse", "fix-rounding", cwd=bare).strip()[:8]
        assert files_of_commit(bare, "fix-rounding") == ["src/cart.py"]
        await flow.delete_the_session()
        await flow.delete_the_environment()
        assert faults == []
    async with Api(server.url) as api:
        await api.login(EMAIL)
        mine = await api.get(f"/api/environments/user/{api.user['id']}")
        assert mine == {"environments": []}


class Flow:
    """The steps of the way, each beginning where the one before ended."""

    def __init__(self, person: Person, line: BreakingLine, faults: list[str]) -> None:
        self.person = person
        self.page = person.page
        self.line = line
        self.faults = faults

    async def look_whether_all_is_ready(self, address: str, password: str) -> None:
        """Be led to what has to be there, and give the git server's password."""
        person, page = self.person, self.page
        await expect(person.heading("Welcome, Ada")).to_be_visible()
        steps = page.get_by_role("list", name="To begin").get_by_role("listitem")
        await expect(steps).to_contain_text(
            [
                re.compile("The server is ready: Done"),
                re.compile("You have an account: Done"),
                re.compile("Your GitHub account: Skipped"),
                re.compile("Your first environment: Waiting"),
            ]
        )
        await page.get_by_role("link", name="Add a git host").click()
        await person.button("Add a git host").click()
        dialog = person.dialog
        await dialog.get_by_label("Address").fill(address)
        await dialog.get_by_label("User name").fill("ada")
        await dialog.get_by_label("Token or password").fill(password)
        await person.button("Save").click()
        await expect(page.get_by_role("list", name="Git hosts")).to_contain_text("as ada")
        await page.goto("/welcome")
        await page.get_by_role("link", name="New environment").click()

    async def make_the_environment(self, address: str) -> None:
        """Name a repository, and see each step of the making done."""
        person, page = self.person, self.page
        dialog = person.dialog
        await dialog.get_by_label("Repository", exact=True).last.fill(address)
        await expect(dialog.get_by_label("Name", exact=True)).to_have_value("shop")
        await expect(dialog.get_by_text("The name is free.")).to_be_visible()
        await person.button("Create environment").click()
        steps = page.get_by_role("list", name="How far the start is").get_by_role("listitem")
        await expect(steps).to_contain_text(
            [
                re.compile("Prepare the sandbox image: Done"),
                re.compile("Start the sandbox: Done"),
                re.compile("Clone the repository: Done"),
            ],
            timeout=WORK_MS,
        )
        await person.button("Open", within=dialog).click()
        await expect(person.heading("shop")).to_be_visible()

    async def begin_a_session(self) -> None:
        person, page = self.person, self.page
        await person.button(re.compile("New session")).first.click()
        await self.name_the_session("fix-rounding")
        await person.terminal_is_live("fix-rounding")
        await person.run("fix-rounding", "echo one$((1+1))three", "one2three")
        if person.phone:
            await person.run("fix-rounding", "sleep 600")
            await person.button("Ctrl").click()
            await page.keyboard.type("c")
            await person.run("fix-rounding", "echo ended with $?", "ended with 130")

    async def name_the_session(self, name: str) -> None:
        dialog = self.person.dialog
        await dialog.get_by_label("Name", exact=True).fill(name)
        await self.person.button("Create session", within=dialog).click()

    async def split(self) -> None:
        """Show a second session beside the first, on a phone behind it, and type into both."""
        person, page = self.person, self.page
        await person.button("New tab" if person.phone else "Split right (Ctrl+Shift+D)").click()
        await expect(page.get_by_text("What should this pane show?")).to_be_visible()
        await person.button("New session").last.click()
        await self.name_the_session("second")
        await person.terminal_is_live("second")
        await person.run("second", "echo $((20+2))-beside", "22-beside")
        if person.phone:
            tabs = page.get_by_role("group", name="Terminal tabs")
            await person.button("fix-rounding", within=tabs).click()
        await person.run("fix-rounding", "echo $((30+3))-still", "33-still")

    async def lose_the_connection_while_lines_are_printed(self) -> None:
        """Go offline in mid-output, type, come back: nothing is missing and nothing is doubled."""
        person, page = self.person, self.page
        terminal = person.terminal("fix-rounding")
        await person.run(
            "fix-rounding",
            f"clear; for n in $(seq {NUMBERS}); do printf 'row%s\\n' -$n; sleep 0.02; done",
            "row-20",
        )
        await page.context.set_offline(True)
        await self.line.cut()
        await expect(page.get_by_text("You are offline. What you see")).to_be_visible()
        await expect(terminal).to_have_attribute("data-terminal-state", "reconnecting")
        await page.keyboard.type("echo typed-$((40+4))\n")
        await expect(terminal).to_contain_text("held and will be sent")

        self.line.mend()
        await page.context.set_offline(False)
        await person.terminal_is_live("fix-rounding")
        await person.shows("fix-rounding", "typed-44")
        await page.keyboard.press("Control+Shift+F")
        search = page.get_by_role("search")
        await search.get_by_role("textbox").fill("row-")
        await expect(search).to_contain_text(re.compile(rf"of {NUMBERS}\b"))
        await page.keyboard.press("Escape")
        # A browser tells of each request that the cut line took away.
        cut = re.compile(r"net::ERR_(?!BLOCKED)")
        assert [one for one in self.faults if not cut.search(one)] == []
        self.faults.clear()

    async def change_files(self) -> None:
        await self.person.run(
            "fix-rounding",
            "sed -i 's/sum(prices)/round(sum(prices), 2)/' src/cart.py; echo later > NOTES; clear",
        )

    async def commit_one_of_them(self) -> None:
        """Review what changed, and commit one of the two files."""
        person, page = self.person, self.page
        if person.phone:
            await page.get_by_role("radio", name=re.compile("Changes")).click()
        changed = page.get_by_role("list", name="Changed files")
        await expect(changed).to_contain_text("cart.py", timeout=WORK_MS)
        await expect(changed).to_contain_text("NOTES")
        await person.button("Review").click()

        if person.phone:
            await page.get_by_role("tab", name=re.compile("Changes")).click()
        await expect(page.get_by_text("round(sum(prices), 2)")).to_be_visible()
        await expect(page.get_by_text("later", exact=True)).to_be_visible()
        if person.phone:
            await page.get_by_role("tab", name=re.compile("Files")).click()
        await page.get_by_role("checkbox", name="NOTES into the commit").click()
        await page.get_by_label("Commit message").fill("Round the total")
        await person.button("Commit 1 of 2 files").click()
        await expect(page.get_by_text("Committed 1 file")).to_be_visible(timeout=WORK_MS)

    async def push(self) -> str:
        """Publish the branch; return the commit that the page says is there now."""
        page = self.page
        await self.person.button("Publish").first.click()
        await expect(page.get_by_text("Pushed fix-rounding")).to_be_visible(timeout=WORK_MS)
        refs = page.get_by_role("list", name="Pushed refs")
        await expect(refs).to_contain_text("arrived")
        found = re.search(r"new → ([0-9a-f]{8})", await refs.inner_text())
        assert found
        return found[1]

    async def delete_the_session(self) -> None:
        """Delete a session with uncommitted work, and be told where the work is kept."""
        person, page = self.person, self.page
        assert self.faults == []
        if person.phone:
            await page.get_by_role("link", name="Terminal").click()
        await person.button("More about fix-rounding").last.click()
        await page.get_by_role("menuitem", name="Delete…").click()
        question = page.get_by_role("alertdialog")
        await expect(question).to_contain_text("1 uncommitted file")
        gone = page.url.split("/s/")[1].split("/")[0].split("?")[0]
        await person.button("Delete session", within=question).click()
        await expect(page.get_by_text("fix-rounding is deleted")).to_be_visible(timeout=WORK_MS)
        await expect(person.heading("shop")).to_be_visible()
        self.forgive_who_asked_for(gone)
        await expect(page.get_by_text("refs/craftastic")).to_be_visible()

    async def delete_the_environment(self) -> None:
        person, page = self.person, self.page
        await page.get_by_role("tab", name="Settings").click()
        await person.button("Delete environment…").click()
        question = page.get_by_role("alertdialog")
        confirm = person.button("Delete environment", within=question)
        await expect(confirm).to_be_disabled()
        await question.get_by_role("textbox").fill("shop")
        gone = page.url.split("/e/")[1].split("?")[0]
        await confirm.click()
        await expect(page.get_by_text("shop is deleted")).to_be_visible(timeout=WORK_MS)
        await expect(page).to_have_url(re.compile("/envs$"))
        await expect(page.get_by_text("No environments yet")).to_be_visible()
        self.forgive_who_asked_for(gone)

    def forgive_who_asked_for(self, gone: str) -> None:
        """Let by that what was in view was asked for once more, just when it was deleted."""
        # A terminal whose socket closes asks for a ticket, by whose refusal it learns the rest.
        what = rf"\S*{re.escape(gone)}|terminal/ticket$"
        asked = re.compile(rf"404 \(Not Found\) \S+/api/(?:{what})")
        self.faults[:] = [one for one in self.faults if not asked.search(one)]
