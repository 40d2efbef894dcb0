"""Take the pictures of docs/images anew: `.venv/bin/python -m scripts.screenshots`.

A server of its own with sandboxes on this machine, filled with a small made-up project, is looked
at with Debian's Chromium. Needs what the end-to-end tests need: the built page, bubblewrap, pasta.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from playwright.async_api import Browser, Page, expect

from tests.e2e._page import BUILT, WORK_MS, Person
from tests.e2e.browser import opened_browser, opened_page
from tests.e2e.harness import PASSWORD, Api, Server, Viewer, until
from tests.fakes.git_http_server import GitHttpServer, git
from tests.leaks import RUN

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
LARGEST_BYTES = 200_000
EMAIL = "dev@example.com"
STILL = "* { transition: none !important; animation: none !important; caret-color: transparent }"

CART = '''"""What is in the cart, and what it costs."""

from dataclasses import dataclass, field


@dataclass
class Line:
    name: str
    price: float
    count: int = 1


@dataclass
class Cart:
    lines: list[Line] = field(default_factory=list)

    def add(self, name: str, price: float, count: int = 1) -> None:
        self.lines.append(Line(name, price, count))

    def total(self) -> float:
        return sum(line.price * line.count for line in self.lines)
'''
BETTER = '''"""What is in the cart, and what it costs."""

from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

CENT = Decimal("0.01")


@dataclass
class Line:
    name: str
    price: Decimal
    count: int = 1


@dataclass
class Cart:
    lines: list[Line] = field(default_factory=list)

    def add(self, name: str, price: str, count: int = 1) -> None:
        self.lines.append(Line(name, Decimal(price), count))

    def total(self) -> Decimal:
        total = sum((line.price * line.count for line in self.lines), Decimal())
        return total.quantize(CENT, ROUND_HALF_UP)
'''
TEST = """import unittest

from cart import Cart


class TheTotal(unittest.TestCase):
    def test_of_an_empty_cart_is_nothing(self):
        self.assertEqual(Cart().total(), 0)

    def test_counts_each_line_as_often_as_it_is_wanted(self):
        cart = Cart()
        cart.add("tea", "4.20", count=3)
        self.assertEqual(str(cart.total()), "12.60")

    def test_is_exact_to_the_cent(self):
        cart = Cart()
        for _ in range(3):
            cart.add("biscuit", "0.10")
        self.assertEqual(str(cart.total()), "0.30")
"""
HISTORY = (
    (
        "Begin with an empty shop",
        {"README.md": "# shop\n\nA small shop.\n", ".gitignore": "__pycache__/\n"},
    ),
    ("Add the cart", {"cart.py": CART}),
    ("Describe how to run the tests", {"README.md": "# shop\n\n`python -m unittest`\n"}),
)


@dataclass(frozen=True)
class Place:
    """Sessions by their names, as the server knows them."""

    server: Server
    api: Api
    environment: str
    sessions: dict[str, str]

    @asynccontextmanager
    async def typing(self, name: str) -> AsyncGenerator[Viewer]:
        viewer = Viewer(self.server.url, self.sessions[name], self.environment, self.api.token)
        async with viewer.attached():
            yield viewer

    async def write(self, name: str, files: dict[str, str]) -> None:
        """Put files into a session's worktree."""
        async with self.typing(name) as viewer:
            for path, text in files.items():
                await viewer.run(f"cat >{path} <<'END'\n{text}END\n:")
            await viewer.run("PS1='\\[\\e[32m\\]\\W\\[\\e[0m\\] \\$ '; clear")


def make_project(folder: Path, name: str) -> None:
    bare, work = folder / f"{name}.git", folder / f"{name}.work"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git("config", "http.receivepack", "true", cwd=bare)
    git("clone", "--quiet", str(bare), str(work))
    for subject, files in HISTORY:
        for path, text in files.items():
            (work / path).write_text(text)
        git("add", ".", cwd=work)
        git("commit", "--quiet", "-m", subject, cwd=work)
    git("push", "--quiet", "origin", "HEAD:main", cwd=work)


async def fill(server: Server, api: Api, upstream: GitHttpServer) -> Place:
    """Make what a week of work leaves behind."""
    await api.register(EMAIL, name="Dev", setupToken=server.setup_token)
    made: dict[str, Any] = {}
    for name in ("shop", "docs-site", "mail-worker"):
        made[name] = await api.environment(name, upstream.url(f"{name}.git"))

    async def cloned() -> bool:
        states = [await api.get(f"/api/environments/{one['id']}") for one in made.values()]
        return all(one["cloneStatus"] == "ready" for one in states)

    await until(cloned, "all repositories are cloned", timeout_s=120)
    sessions: dict[str, str] = {}
    for environment, name in (
        ("docs-site", "dark-mode"),
        ("mail-worker", "retry-queue"),
        ("shop", "search-page"),
        ("shop", "fix-rounding"),
    ):
        session = await api.post(
            "/api/sessions",
            environmentId=made[environment]["id"],
            name=name,
            branch=name,
            baseBranch="main",
        )
        sessions[name] = session["id"]
    place = Place(server, api, made["shop"]["id"], sessions)
    await place.write("search-page", {})
    await place.write("fix-rounding", {"cart.py": BETTER, "test_cart.py": TEST})
    return place


async def sign_in(page: Page) -> None:
    await page.goto("/login")
    await page.add_style_tag(content=STILL)
    await page.get_by_label("E-mail address").fill(EMAIL)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Home", level=1)).to_be_visible()


async def go(page: Page, path: str) -> None:
    await page.goto(path)
    await page.add_style_tag(content=STILL)


async def take(page: Page, name: str) -> None:
    await page.mouse.move(0, 0)
    picture = await page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")
    print(f"{name}.png: {len(picture) // 1000} kB", file=sys.stderr)
    if len(picture) > LARGEST_BYTES:
        raise SystemExit(f"{name}.png has {len(picture)} bytes; {LARGEST_BYTES} are the most")


async def show_work(person: Person) -> None:
    await person.run("fix-rounding", "clear; python3 -m unittest; git status -sb")
    await person.shows("fix-rounding", re.compile(r"OK.*test_cart\.py\s*fix-rounding \$ *$"))


async def at_the_desk(browser: Browser, place: Place, *, dark: bool) -> None:
    theme = "dark" if dark else "light"
    async with opened_page(browser, place.server.url, dark=dark) as (page, _):
        person = Person(page)
        await sign_in(page)
        await expect(page.get_by_role("main").get_by_text("fix-rounding").first).to_be_visible()
        await take(page, f"home-{theme}")

        await go(page, f"/s/{place.sessions['fix-rounding']}")
        await person.terminal_is_live("fix-rounding")
        await page.keyboard.press("Control+Shift+D")
        await person.button("search-page", within=page.get_by_role("main")).last.click()
        await person.terminal_is_live("search-page")
        await person.run("search-page", "clear; git log --oneline --stat", "Begin with")
        await show_work(person)
        changed = page.get_by_role("list", name="Changed files")
        await expect(changed).to_contain_text("test_cart.py", timeout=WORK_MS)
        await take(page, f"workspace-{theme}")
        await person.run("search-page", "clear")
        await person.run("fix-rounding", "clear")

        await go(page, f"/s/{place.sessions['fix-rounding']}/diff")
        await expect(page.get_by_text("ROUND_HALF_UP").first).to_be_visible(timeout=WORK_MS)
        await page.get_by_role("radio", name="Split").click()
        await page.get_by_label("Commit message").fill("Count money in cents, not in floats")
        await page.get_by_role("heading", name="Review", level=1).click()
        await take(page, f"review-{theme}")


async def on_the_phone(browser: Browser, place: Place) -> None:
    async with opened_page(browser, place.server.url, phone=True, dark=True) as (page, _):
        person = Person(page, phone=True)
        await sign_in(page)
        await go(page, f"/s/{place.sessions['fix-rounding']}")
        await person.terminal_is_live("fix-rounding")
        await show_work(person)
        await expect(page.get_by_role("radio", name=re.compile("Changes"))).to_be_visible()
        await take(page, "phone-dark")


async def main() -> None:
    if not BUILT.is_file():
        raise SystemExit("The page is not built: `make web` builds it")
    IMAGES.mkdir(parents=True, exist_ok=True)
    upstreams = Path(tempfile.mkdtemp(prefix="craftastic-upstreams-"))
    for name in ("shop", "docs-site", "mail-worker"):
        make_project(upstreams, name)
    server = Server(RUN.new_folder("pictures", 0o711), runtime="local", database_url=None)
    server.start()
    try:
        await server.ready()
        with GitHttpServer(upstreams) as upstream:
            async with Api(server.url) as api, opened_browser(webgl=False) as browser:
                place = await fill(server, api, upstream)
                await at_the_desk(browser, place, dark=False)
                await at_the_desk(browser, place, dark=True)
                await on_the_phone(browser, place)
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()
        shutil.rmtree(server.data_dir, ignore_errors=True)
        shutil.rmtree(upstreams, ignore_errors=True)


if __name__ == "__main__":
    anyio.run(main)
