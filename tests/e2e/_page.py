"""The built page as a person uses it: one sign-in, one repository, sessions, terminals."""

import re
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Locator, Page, expect

from tests.conftest import missing
from tests.e2e.harness import PASSWORD, Api, Server, Viewer, until
from tests.fakes.git_http_server import GitHttpServer, git, make_repository

PROJECT = Path(__file__).parents[2]
BUILT = PROJECT / "src" / "craftastic" / "web" / "app" / "index.html"
EMAIL = "ada@example.com"
NAME = "Ada"

WORK_MS = 60_000
"""How long what a sandbox does may take, in milliseconds: a clone, a worktree, a push."""


def built_page() -> None:
    """Skip the test where the page was not built; where everything has to be there, fail it."""
    if not BUILT.is_file():
        missing("the web page is not built: `make web` builds it")


@dataclass(frozen=True)
class Person:
    """Somebody at the page, with a mouse or a finger."""

    page: Page
    phone: bool = False

    def button(self, name: str | re.Pattern[str], *, within: Locator | None = None) -> Locator:
        return (within or self.page).get_by_role("button", name=name, exact=isinstance(name, str))

    def heading(self, name: str | re.Pattern[str]) -> Locator:
        """Return what names the screen that is shown."""
        return self.page.get_by_role("heading", name=name, level=1, exact=isinstance(name, str))

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    def terminal(self, name: str) -> Locator:
        """Return the terminal of a session."""
        return self.page.get_by_label(f"Terminal: {name}", exact=True)

    async def terminal_is_live(self, name: str) -> Locator:
        terminal = self.terminal(name)
        await expect(terminal).to_have_attribute("data-terminal-state", "live", timeout=WORK_MS)
        return terminal

    async def shows(self, name: str, text: str | re.Pattern[str]) -> None:
        """Wait until a terminal shows a text on what is in view of it."""
        rows = self.terminal(name).locator(".xterm-rows")
        await expect(rows).to_contain_text(text, timeout=WORK_MS)

    async def run(self, name: str, command: str, answer: str | None = None) -> None:
        """Type a command into a terminal, and wait for what it answers."""
        await self.terminal(name).locator(".xterm-helper-textarea").focus()
        await self.page.keyboard.type(f"{command}\n")
        if answer is not None:
            await self.shows(name, answer)

    async def register(self, token: str) -> None:
        """Make the first account, from the page that somebody sees who is not signed in."""
        await self.page.get_by_role("link", name="Create one").click()
        await self.button("I have a token").click()
        await self.button("The one-time token of a new server").click()
        await self.page.get_by_label("One-time token").fill(token)
        await self.page.get_by_label("Name", exact=True).fill(NAME)
        await self.page.get_by_label("E-mail address").fill(EMAIL)
        await self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        await self.button("Create account").click()

    async def sign_in(self) -> None:
        await self.page.get_by_label("E-mail address").fill(EMAIL)
        await self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        await self.button("Sign in").click()


@dataclass(frozen=True)
class Life:
    """An environment with a repository, and a session in it with work to be reviewed."""

    environment: str
    session: str
    bare: Path


@asynccontextmanager
async def lived(server: Server, folder: Path) -> AsyncGenerator[Life]:
    """Make the first account, an environment "shop" and in it a session "rounding"."""
    bare = make_project(folder / "upstream")
    with GitHttpServer(bare.parent) as upstream:
        async with Api(server.url) as api:
            await api.register(EMAIL, setupToken=server.setup_token)
            environment = (await api.environment("shop", upstream.url(bare.name)))["id"]

            async def cloned() -> bool:
                state = await api.get(f"/api/environments/{environment}")
                return state["cloneStatus"] == "ready"

            await until(cloned, "the repository is cloned", timeout_s=60)
            session = await api.post(
                "/api/sessions",
                environmentId=environment,
                name="rounding",
                branch="rounding",
                baseBranch="main",
            )
            viewer = Viewer(server.url, session["id"], environment, api.token)
            async with viewer.attached():
                await viewer.run("sed -i s/sum/round/ src/cart.py && echo more >NOTES", 60)
        yield Life(environment, session["id"], bare)


def make_project(folder: Path) -> Path:
    """Make a small bare repository with something to change in it."""
    folder.mkdir(exist_ok=True)
    bare = make_repository(folder / "shop.git")
    work = folder / "work"
    git("clone", "--quiet", str(bare), str(work))
    (work / "src").mkdir()
    (work / "src" / "cart.py").write_text(
        "def total(prices: list[float]) -> float:\n    return sum(prices)\n"
    )
    (work / "README").write_text("# shop\n\nA small shop.\n")
    git("add", ".", cwd=work)
    git("commit", "--quiet", "-m", "Add the cart", cwd=work)
    git("push", "--quiet", "origin", "main", cwd=work)
    return bare


def files_of_commit(bare: Path, ref: str) -> list[str]:
    """Return the names of the files that the newest commit of a branch changes."""
    done = subprocess.run(
        ["git", "-C", str(bare), "show", "--format=", "--name-only", ref],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()
