"""A real browser, Debian's Chromium, driven by Playwright: for tests of the web page."""

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from tests.conftest import missing

WAIT_MS = 20_000
"""How long a test waits for what must appear, in milliseconds."""

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}
QUIET = (
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-features=OptimizationHints,MediaRouter,Translate,DialMediaRouteProvider",
    "--disable-gpu",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pings",
    "--password-store=basic",
)
"""Nothing of the browser's own goes over the network."""


@asynccontextmanager
async def opened_browser(*, webgl: bool = True) -> AsyncGenerator[Browser]:
    """Start the browser without a window; the test is skipped where there is none.

    Args:
        webgl: Without it, terminals draw with elements, whose text a test can read.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("chromium is not installed")
    # Its own sandbox needs rights that root's processes in a container do not have.
    arguments = [*QUIET, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    arguments += [] if webgl else ["--disable-3d-apis"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, headless=True, args=arguments
        )
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def opened_page(
    browser: Browser, url: str, *, phone: bool = False, dark: bool = False
) -> AsyncGenerator[tuple[Page, list[str]]]:
    """Open a page of the server in a browser profile of its own.

    Args:
        browser: From `opened_browser`.
        url: Where the server is; paths of the page's `goto` go after it.
        phone: Of a phone's size and with touch.
        dark: Asks for dark colours, as a system does.

    Returns:
        The page, and a list that fills with the errors that it meets: exceptions, what the
        content policy stops, and requests that lead to another place than the server.
    """
    context = await browser.new_context(
        base_url=url,
        viewport=PHONE if phone else DESKTOP,  # pyright: ignore[reportArgumentType] - a mapping
        has_touch=phone,
        is_mobile=phone,
        color_scheme="dark" if dark else "light",
    )
    context.set_default_timeout(WAIT_MS)
    page = await context.new_page()
    faults: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(f"{message.text} {message.location['url']}".strip())

    page.on("console", on_console)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda one: None if _is_ours(one.url, url) else faults.append(f"asked for {one.url}"),
    )
    try:
        yield page, faults
    finally:
        await context.close()


def _is_ours(address: str, url: str) -> bool:
    return address.startswith((url + "/", url.replace("http", "ws", 1) + "/", "data:", "blob:"))
