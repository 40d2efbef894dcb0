"""The page in many tabs of one browser: all of them live, by one stream that they share."""

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Request, expect

from tests.e2e._page import EMAIL, Person, built_page, lived
from tests.e2e.browser import WAIT_MS, opened_browser
from tests.e2e.harness import Api, Server, Viewer, until

pytestmark = [
    pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

TABS = 8
QUIET_S = 6.0
BACK_MS = 45_000
"""How long the page may take to notice that the server is back, in milliseconds."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    built_page()
    async with opened_browser(webgl=False) as one:
        yield one


@pytest.fixture
async def context(browser: Browser, server: Server) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(base_url=server.url)
    context.set_default_timeout(WAIT_MS)
    yield context
    await context.close()


class Streams:
    """Which tabs have opened a stream of events, in turn, and what was asked of the server."""

    def __init__(self, context: BrowserContext) -> None:
        self.by: list[Page] = []
        self.asked: list[str] = []
        self.last = time.monotonic()
        context.on("request", self._on_request)

    @property
    def silent_s(self) -> float:
        """Return for how long nothing was asked."""
        return time.monotonic() - self.last

    def _on_request(self, request: Request) -> None:
        path = request.url.partition("/api/")[2]
        self.asked.append(path)
        self.last = time.monotonic()
        if re.fullmatch(r"events(\?.*)?", path):
            self.by.append(request.frame.page)


async def sign_in(page: Page) -> None:
    await page.goto("/")
    await Person(page).sign_in()
    await expect(Person(page).button("Sign in")).not_to_be_visible()
    await expect(page.get_by_role("navigation").first).to_be_visible()


async def all_show(pages: list[Page], name: str, timeout_ms: float = WAIT_MS) -> None:
    for number, page in enumerate(pages):
        shown = page.get_by_role("main").get_by_text(name, exact=True).first
        await expect(shown, f"tab {number}").to_be_visible(timeout=timeout_ms)


async def test_eight_tabs_live_from_one_stream_whatever_becomes_of_its_tab(
    server: Server, context: BrowserContext
) -> None:
    async with Api(server.url) as api:
        await api.register(EMAIL, setupToken=server.setup_token)
        environment = (await api.environment("zero"))["id"]
        streams = Streams(context)

        async def rename(name: str) -> None:
            answer = await api.client.patch(f"/api/environments/{environment}", json={"name": name})
            assert answer.status_code == 200, answer.text

        tabs = [await context.new_page()]
        await sign_in(tabs[0])
        for _ in range(TABS - 1):
            tabs.append(page := await context.new_page())
            await page.goto("/")
        await all_show(tabs, "zero")
        assert set(streams.by) == {tabs[0]}

        # More than a browser's connections to one server: with a stream each, some would wait.
        await rename("one")
        await all_show(tabs, "one")
        assert set(streams.by) == {tabs[0]}

        await tabs.pop(0).close()
        await until(lambda: streams.by[-1] in tabs, "another tab has taken over")
        await rename("two")
        await all_show(tabs, "two")

        # One that hangs answers no more: who looks at another tab does not wait for it.
        leader = streams.by[-1]
        others = [one for one in tabs if one is not leader]
        devtools = await context.new_cdp_session(leader)
        await devtools.send("Debugger.enable")
        await devtools.send("Debugger.pause")
        await others[0].evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        await until(lambda: streams.by[-1] is others[0], "another tab has taken over")
        await rename("three")
        await all_show(others, "three")
        await devtools.send("Debugger.disable")
        await all_show([leader], "three")

        server.kill()
        await expect(others[0].get_by_role("status").first).to_contain_text(
            "Reconnecting", timeout=BACK_MS
        )
        opened = len(streams.by)
        server.start()
        await server.ready()
        await rename("four")  # before any tab has come back
        await all_show(tabs, "four", BACK_MS)
        assert len(set(streams.by[opened:])) == 1

        # Signed out in one tab, all are.
        await tabs[0].evaluate("localStorage.clear()")
        await tabs[0].reload()
        for page in tabs:
            await expect(Person(page).button("Sign in")).to_be_visible()


async def test_what_happens_in_a_sandbox_is_shown_by_itself_while_somebody_looks(
    server: Server, context: BrowserContext, tmp_path: Path
) -> None:
    async with lived(server, tmp_path) as life:
        streams = Streams(context)
        page = await context.new_page()
        await sign_in(page)
        await page.goto(f"/s/{life.session}")
        changes = page.get_by_role("tabpanel", name="Changes")
        await expect(changes).to_contain_text("2 changed files", timeout=WAIT_MS)
        await until(
            lambda: any(f"watch={life.session}" in one for one in streams.asked), "it is watched"
        )

        async with Api(server.url) as api:
            await api.login(EMAIL)
            viewer = Viewer(server.url, life.session, life.environment, api.token)
            async with viewer.attached():
                await viewer.run("echo x >third", 60)
                await expect(changes).to_contain_text("3 changed files", timeout=WAIT_MS)
                await viewer.run("git add -A && git commit -qm all", 60)
                await expect(changes).to_contain_text("No changes", timeout=WAIT_MS)

        # Nothing happens, and so nothing is asked: no list, no status, no log.
        await until(lambda: streams.silent_s > QUIET_S, "the page asks for nothing", timeout_s=60)
