"""The web page: from opening it to a prompt of a running session, and what has to come for that.

Run from the project's root: `python -m bench.page`. Times are the browser's own, from the start of
the navigation, of somebody who is signed in already. Cold: a browser that was never here. Warm: the
same one once more. There is no floor: what nothing of the product does is to open its page.
"""

import json
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from playwright.async_api import Browser, BrowserContext

from bench._common import PROMPTS, Options, Report, WebTerminal, options, product, read_until
from tests.e2e.browser import DESKTOP, opened_browser
from tests.e2e.harness import PASSWORD, Api, Server, until

KIB = 1024
FAR_MS = 40
"""What each request waits for longer, as if the server were in another country."""

WATCH = """
const look = () => {
  const terminal = document.querySelector('[data-terminal-state="live"]');
  const shown = terminal?.querySelector('.xterm-rows')?.textContent ?? '';
  if (!/[$#] /.test(shown)) return;
  window.promptAt ??= performance.now();
  watching.disconnect();
};
const watching = new MutationObserver(look);
const all = { subtree: true, childList: true, characterData: true, attributes: true };
watching.observe(document, all);
"""
SIGN_IN = "localStorage.setItem('craftastic.auth', {});"
FIGURES = """() => {
  const all = performance.getEntriesByType('resource');
  const code = all.filter((one) => /\\.(js|css)$/.test(one.name));
  const sum = (list) => list.reduce((total, one) => total + one.transferSize, 0);
  const paint = performance.getEntriesByName('first-contentful-paint')[0];
  return {
    prompt: window.promptAt,
    paint: paint === undefined ? null : paint.startTime,
    files: code.length,
    bytes: sum(code),
    before: sum(code.filter((one) => one.responseEnd <= window.promptAt)),
  };
}"""


async def open_once(
    context: BrowserContext, address: str, latency_ms: float = 0.0
) -> dict[str, Any]:
    """Open the session's page in a new tab and return what the browser measured."""
    page = await context.new_page()
    try:
        if latency_ms:
            devtools = await context.new_cdp_session(page)
            await devtools.send("Network.enable")
            line = {"offline": False, "latency": latency_ms, "downloadThroughput": -1}
            await devtools.send(
                "Network.emulateNetworkConditions", {**line, "uploadThroughput": -1}
            )
        await page.goto(address, wait_until="commit")
        await until(lambda: page.evaluate("window.promptAt"), "a prompt", every_s=0.2)
        # What comes after the prompt counts as well, but in the sizes alone.
        await page.wait_for_load_state("load")
        figures: dict[str, Any] = await page.evaluate(FIGURES)
        return figures
    finally:
        await page.close()


def note(report: Report, kind: str, figures: dict[str, Any]) -> None:
    report.row(f"{kind}: until the prompt").add(figures["prompt"])
    if figures["paint"] is not None:
        report.row(f"{kind}: until something is seen").add(figures["paint"])
    report.row(f"{kind}: scripts and styles before the prompt", "KiB").add(figures["before"] / KIB)


async def signed_in_storage(server: Server, api: Api) -> str:
    """Return the sign-in as the page keeps it in its storage."""
    body = {"email": "a@example.com", "password": PASSWORD}
    answer = await api.client.post("/api/auth/login", json=body)
    return json.dumps(json.dumps(answer.json()["data"]))


async def running_session(server: Server, api: Api) -> str:
    """Make a session, have it run, and return its page's address."""
    environment = await api.environment("bench")
    session = await api.post("/api/sessions", environmentId=environment["id"], name="page")
    terminal = WebTerminal(server, api, session, v2=True)
    read_until(terminal, *PROMPTS)
    terminal.close()
    return f"{server.url}/s/{session['id']}"


@asynccontextmanager
async def new_browser(browser: Browser, sign_in: str) -> AsyncGenerator[BrowserContext]:
    """Give a profile that was never here, with somebody signed in."""
    context = await browser.new_context(viewport=DESKTOP)  # pyright: ignore[reportArgumentType] - a mapping
    try:
        await context.add_init_script(SIGN_IN.format(sign_in) + WATCH)
        yield context
    finally:
        await context.close()


async def measure_round(report: Report, browser: Browser, address: str, sign_in: str) -> None:
    async with new_browser(browser, sign_in) as context:
        note(report, "cold", await open_once(context, address))
        note(report, "warm", await open_once(context, address))
    async with new_browser(browser, sign_in) as context:
        far = await open_once(context, address, FAR_MS)
        report.row(f"cold, {FAR_MS} ms away: until the prompt").add(far["prompt"])


async def measure(chosen: Options) -> Report:
    report = Report("the page")
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        print("bench: chromium is not on this machine and the page is left out")
        return report
    async with product(chosen.runtimes[0]) as (server, api), opened_browser(webgl=False) as browser:
        address = await running_session(server, api)
        sign_in = await signed_in_storage(server, api)
        for _ in range(chosen.rounds):
            await measure_round(report, browser, address, sign_in)
    return report


def main(argv: list[str]) -> None:
    chosen = options(__doc__, argv, rounds=10)
    anyio.run(measure, chosen).show(as_json=chosen.as_json)


if __name__ == "__main__":
    main(sys.argv[1:])
