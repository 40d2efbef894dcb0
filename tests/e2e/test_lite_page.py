"""The small page in a real browser: sign-in, a new session, a terminal that comes back."""

import re
import time
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, expect

from tests.e2e.browser import WAIT_MS, opened_browser, opened_page
from tests.e2e.harness import PASSWORD, Api, Server
from tests.fakes.event_rig import following

pytestmark = [
    pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

EMAIL = "a@example.com"
ENDS_S = 6.0


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with opened_browser() as one:
        yield one


async def sign_in(page: Page) -> None:
    await page.goto("/lite/")
    await page.get_by_label("E-mail").fill(EMAIL)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()


async def test_from_sign_in_to_a_terminal_that_comes_back_where_it_was(
    server: Server, browser: Browser
) -> None:
    async with Api(server.url) as api:
        await api.register(EMAIL, setupToken=server.setup_token)
        await api.environment("shared")

        async with opened_page(browser, server.url, phone=True) as (page, faults):
            await sign_in(page)
            await expect(page.get_by_role("heading", name="shared (running)")).to_be_visible()
            page.once("dialog", lambda dialog: dialog.accept("on-the-phone"))
            await page.get_by_role("button", name="New session").click()

            rows = page.locator("#terminal .xterm-rows")
            await expect(rows).to_contain_text(re.compile(r"[$#]"), timeout=WAIT_MS)
            await page.locator("#terminal .xterm-helper-textarea").focus()
            await page.keyboard.type("echo one$((1+1))three\n")
            await expect(rows).to_contain_text("one2three")
            await page.keyboard.type("sleep 600\n")
            await page.get_by_role("button", name="Ctrl").click()
            await page.keyboard.type("c")
            await page.keyboard.type("echo $?\n")
            await expect(rows).to_contain_text("130")
            assert faults == []

            # The server goes away and comes back; so does the terminal, with what was there.
            server.stop()
            await expect(page.get_by_role("status")).to_contain_text("Reconnecting")
            faults.clear()  # a browser tells of each connection that is refused
            server.start()
            await server.ready()
            await expect(page.get_by_role("status")).to_be_empty(timeout=WAIT_MS)
            await page.keyboard.type("echo back$((40+2))\n")
            await expect(rows).to_contain_text("back42")
            await expect(rows).to_contain_text("one2three")

            await page.keyboard.type("exit\n")
            await expect(page.get_by_role("status")).to_contain_text("Terminal session ended")
            assert [one for one in faults if "ERR_CONNECTION_REFUSED" not in one] == []


async def test_a_wrong_password_and_an_ended_sign_in_lead_to_the_form(
    server: Server, browser: Browser
) -> None:
    async with Api(server.url) as api:
        await api.register(EMAIL, setupToken=server.setup_token)
        async with opened_page(browser, server.url) as (page, _):
            await page.goto("/lite/")
            await page.get_by_label("E-mail").fill(EMAIL)
            await page.get_by_label("Password").fill("wrong")
            await page.get_by_role("button", name="Sign in").click()
            await expect(page.get_by_role("status")).to_contain_text("Invalid email or password")

            await sign_in(page)
            await expect(page.get_by_text("No environment yet")).to_be_visible()
            await page.reload()
            await expect(page.get_by_text("No environment yet")).to_be_visible()

            await api.post("/api/auth/logout-all")
            await page.reload()
            await expect(page.get_by_role("button", name="Sign in")).to_be_visible()


async def test_a_server_with_open_streams_of_events_ends_at_once(server: Server) -> None:
    async with Api(server.url) as api:
        await api.register(EMAIL, setupToken=server.setup_token)
        async with following(server.url, api.token) as reader:
            await reader.next()
            began = time.monotonic()

            code = server.stop()

            # What does not end by itself is waited for, for 8 seconds.
            assert time.monotonic() - began < ENDS_S
            assert code == 0
            assert await reader.next() is None
