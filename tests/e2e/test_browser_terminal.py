"""The page's terminal in a real browser: lines that break, a server that dies, hostile output."""

import base64
import json
import random
import re
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from playwright.async_api import Browser, Locator, Page, WebSocket, WebSocketRoute, expect
from playwright.async_api import TimeoutError as PlaywrightTimeout

from tests.e2e._cuts import BreakingLine
from tests.e2e._page import built_page
from tests.e2e.browser import opened_browser, opened_page
from tests.e2e.harness import PASSWORD, Api, Server, until

pytestmark = [
    pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)]),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

EMAIL = "a@example.com"
LINES = 10_000
LINE_BYTES = len("line 00000\r\n")
CUTS = 20
FIRST_LINES = 6000
FIRST_CUTS = 5
PAUSE_S = 0.07
AT_ONCE_S = 2.0
LONG_WAIT = re.compile(r"Reconnecting in [3-9] s")
"""So long that a try within `AT_ONCE_S` has another reason than that it was time."""

STOLEN = "EVIL"
"""In everything that the hostile output would like to have typed."""

SECRET = "what was in the clipboard"
FILLED = f"{STOLEN} for the clipboard"
HEADLINE = f"<img src=x onerror=window.evil=1> {STOLEN}"
HOSTILE = b"".join(
    [
        b"\x1b[H\x1b[2J",
        # Titles: markup, controls and marks that turn text around; then a request to type one.
        f"\x1b]0;{HEADLINE}\u0001\x07\x1b]2;{HEADLINE}\u202e\x07".encode(),
        b"\x1b[21t\x1b[20t\x1b]l\x1b\\",
        # Questions whose answers would be typed: settings, attributes, modes, colours.
        b'\x1bP$q"p%s\x1b\\\x1bP$qm\x1b\\\x1bP+q%s\x1b\\' % (STOLEN.encode(), b"4556494c"),
        b"\x1b[c\x1b[>c\x1b[=c\x1b[>q\x1b[5n\x1b[6n\x1b[?6n\x1b[?2004$p\x1b[18t\x1b[?u\x05",
        b"\x1b]4;1;?\x07\x1b]10;?\x1b\\\x1b]11;?\x07\x1b]12;?;%s\x07" % STOLEN.encode(),
        # The clipboard: to read it in all its names, and to fill it.
        b"\x1b]52;c;?\x07\x1b]52;;?\x1b\\\x1b]52;p;?\x07\x1b]52;cs01;?\x07",
        b"\x1b]52;c;%s\x07" % base64.b64encode(FILLED.encode()),
        # Links: one that runs, one that reads files, one of the web.
        b"\x1b]8;;javascript:window.evil=2\x1b\\link-that-runs\x1b]8;;\x1b\\\r\n",
        b"\x1b]8;;file:///etc/passwd\x1b\\link-to-a-file\x1b]8;;\x1b\\\r\n",
        b"\x1b]8;;%s/lite/\x1b\\link-of-the-web\x1b]8;;\x1b\\\r\n",
        b"end-of-hostile\r\n",
    ]
)
LONG_MS = 90_000
"""How long what a sandbox does may take on a machine that is busy, in milliseconds."""


@pytest.fixture
async def server(data_dir: Path, runtime: str, database_url: str | None) -> AsyncIterator[Server]:
    more = {"CRAFTASTIC_SANDBOX_SELF_TEST": "0"}  # another test's work, and some seconds
    one = Server(data_dir, runtime=runtime, database_url=database_url, **more)
    try:
        one.start()
        await one.ready()
        yield one
    finally:
        with anyio.CancelScope(shield=True):
            await one.clean()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    built_page()
    async with opened_browser(webgl=False) as one:
        yield one


@dataclass(frozen=True)
class Terminal:
    """A session's terminal on the page, as somebody has it in front of them."""

    page: Page
    name: str

    @property
    def place(self) -> Locator:
        return self.page.get_by_label(f"Terminal: {self.name}", exact=True)

    @property
    def rows(self) -> Locator:
        return self.place.locator(".xterm-rows")

    async def is_live(self, timeout_ms: float = LONG_MS) -> None:
        await expect(self.place).to_have_attribute(
            "data-terminal-state", "live", timeout=timeout_ms
        )

    async def is_cut(self) -> None:
        await expect(self.place).to_have_attribute("data-terminal-state", "reconnecting")

    async def type(self, text: str) -> None:
        await self.place.locator(".xterm-helper-textarea").focus()
        await self.page.keyboard.type(text)

    async def insert(self, command: str) -> None:
        """Give the terminal a long command in one piece, and have it run."""
        await self.place.locator(".xterm-helper-textarea").focus()
        await self.page.keyboard.insert_text(command)
        await self.page.keyboard.press("Enter")

    async def saved(self, folder: Path) -> str:
        """Return all output, as the page saves it for its user."""
        await self.page.get_by_role("button", name="More about this terminal").click()
        async with self.page.expect_download() as downloading:
            await self.page.get_by_role("menuitem", name="Save all output").click()
        file = folder / "output.txt"
        await (await downloading.value).save_as(file)
        return file.read_text()


@dataclass
class Wire:
    """What terminals of a page send; and a hand in what comes to them."""

    typed: bytearray = field(default_factory=bytearray)
    following: int = 0
    _route: WebSocketRoute | None = None

    async def listen(self, page: Page) -> None:
        """Stand between a page, before it is opened, and its terminals' sockets."""
        await page.route_web_socket(re.compile("/api/terminal/ws/"), self._stand_between)

    def show(self, output: bytes) -> None:
        """Give the terminal output that no filter of the server's has seen."""
        assert self._route is not None
        self._route.send(b"\x02" + struct.pack(">Q", self.following) + output)

    def _stand_between(self, route: WebSocketRoute) -> None:
        self._route = route
        server = route.connect_to_server()
        route.on_message(lambda frame: self._sent(frame, server))
        server.on_message(lambda frame: self._came(frame, route))

    def _sent(self, frame: str | bytes, server: WebSocketRoute) -> None:
        if isinstance(frame, bytes) and frame[:1] == b"\x01":
            self.typed += frame[1:]
        server.send(frame)

    def _came(self, frame: str | bytes, route: WebSocketRoute) -> None:
        if isinstance(frame, bytes):
            number = struct.unpack_from(">Q", frame, 1)[0]
            self.following = number + (len(frame) - 9 if frame[:1] == b"\x01" else 0)
        route.send(frame)


async def opened_session(server: Server, page: Page, name: str = "work") -> Terminal:
    """Make a user with a session, sign in on the page and open the session's terminal."""
    async with Api(server.url) as api:
        await api.register(EMAIL, setupToken=server.setup_token)
        environment = await api.environment("shared")
        session = await api.post("/api/sessions", environmentId=environment["id"], name=name)
    await page.goto(f"/login?return=/s/{session['id']}")
    await page.get_by_label("E-mail address").fill(EMAIL)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    terminal = Terminal(page, name)
    await terminal.is_live()
    await expect(terminal.rows).to_contain_text(re.compile(r"[$#]"), timeout=LONG_MS)
    return terminal


async def test_nothing_printed_is_missing_or_twice_after_twenty_cuts_and_a_killed_server(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    dice = random.Random(7)  # noqa: S311 - repeatable, not secret
    line = BreakingLine(server.port)

    def break_within(lines: int, times: int) -> None:
        """Have the line break so often while so many lines are on their way."""
        room = range(line.carried + 100, line.carried + lines * LINE_BYTES)
        line.moments.extend(sorted(dice.sample(room, times)))

    async with line.laid(), opened_page(browser, line.url) as (page, _):
        terminal = await opened_session(server, page)
        resumed: list[bool] = []
        page.on("websocket", lambda socket: note_resumption(socket, resumed))
        break_within(FIRST_LINES // 2, FIRST_CUTS)
        await terminal.insert(
            f"for i in $(seq -w 1 {LINES}); do echo line $i; "
            f"case $i in {FIRST_LINES:05}) read;; *00) sleep {PAUSE_S};; esac; "
            "done; echo end$((6*7))"
        )

        # While the server is dead, more is printed. What it then shows anew is cut once as well.
        await until(lambda: not line.moments, "the first cuts")
        server.kill()
        break_within(FIRST_LINES // 2, 1)
        server.start()
        await server.ready()
        await expect(terminal.rows).to_contain_text(f"line {FIRST_LINES:05}", timeout=LONG_MS)
        assert line.moments == []

        break_within(LINES - FIRST_LINES, CUTS - FIRST_CUTS - 1)
        await terminal.type("\n")
        await expect(terminal.rows).to_contain_text("end42", timeout=LONG_MS)
        output = await terminal.saved(tmp_path)

    assert line.moments == []
    assert line.terminals > CUTS
    # What is shown anew mends what was wrong before. It has to where a reconnection took so long
    # that the server had let go of the stream, on a busy machine; not where most go on.
    assert resumed.count(True) > CUTS // 2
    printed = re.findall(r"^line (\d{5})$", output, re.MULTILINE)
    assert printed == [f"{number:05}" for number in range(1, LINES + 1)]


def note_resumption(socket: WebSocket, into: list[bool]) -> None:
    """Note of each attach to a terminal whether output went on where it was."""

    def look(frame: str | bytes) -> None:
        if isinstance(frame, str) and (message := json.loads(frame))["type"] == "ready":
            into.append(message["resumed"])

    socket.on("framereceived", look)


async def retry_now(terminal: Terminal) -> None:
    """Press the button, unless the page has come back by itself just before."""
    with suppress(PlaywrightTimeout):
        await terminal.place.get_by_role("button", name="Retry now").click(timeout=3000)


async def test_what_is_typed_during_a_cut_is_marked_and_sent_once(
    server: Server, browser: Browser
) -> None:
    line = BreakingLine(server.port)
    async with line.laid(), opened_page(browser, line.url) as (page, _):
        terminal = await opened_session(server, page)
        held = terminal.place.get_by_text(re.compile(r"held and will be sent"))
        await terminal.type('n=0; while read -r l; do n=$((n+1)); echo "got $n: $l"; done\n')

        await line.cut()
        await terminal.is_cut()
        await terminal.type("one\n")
        await expect(held).to_be_visible()
        line.mend()
        await retry_now(terminal)
        await expect(terminal.rows).to_contain_text("got 1: one", timeout=LONG_MS)
        await expect(held).to_be_hidden()

        # What was thought better of is not sent.
        await line.cut()
        await terminal.is_cut()
        await terminal.type("two\n")
        await terminal.place.get_by_role("button", name="Discard").click()
        await expect(held).to_be_hidden()
        line.mend()
        await retry_now(terminal)
        await terminal.is_live()
        await terminal.type("three\n")
        await expect(terminal.rows).to_contain_text("got 2: three", timeout=LONG_MS)


async def test_a_network_that_is_there_again_is_used_at_once(
    server: Server, browser: Browser
) -> None:
    line = BreakingLine(server.port)
    async with line.laid(), opened_page(browser, line.url) as (page, _):
        terminal = await opened_session(server, page)
        await line.cut()
        await page.context.set_offline(True)
        await expect(terminal.place).to_contain_text("This device is offline")
        await expect(terminal.place).to_contain_text(LONG_WAIT, timeout=LONG_MS)
        before = line.refused

        await page.context.set_offline(False)

        await until(lambda: line.refused > before, "a try at once", timeout_s=AT_ONCE_S)
        line.mend()
        await terminal.is_live()


@pytest.mark.parametrize("filtered", [True, False], ids=["printed", "past-the-filter"])
async def test_hostile_output_reads_no_clipboard_types_nothing_and_opens_nothing(
    server: Server, browser: Browser, filtered: bool
) -> None:
    wire = Wire()
    async with opened_page(browser, server.url) as (page, faults):
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await wire.listen(page)
        terminal = await opened_session(server, page)
        await page.evaluate("text => navigator.clipboard.writeText(text)", SECRET)
        hostile = HOSTILE % server.url.encode()
        if filtered:
            encoded = base64.b64encode(hostile).decode()
            await terminal.type(
                f"echo {encoded} | base64 -d > hostile; clear; cat hostile; "
                "IFS= read -rs -t 2 -d '' answer; "
                f"case $answer in *{STOLEN}*) echo ty''ped;; *) echo no''thing;; esac\n"
            )
            await expect(terminal.rows).to_contain_text("nothing", timeout=LONG_MS)
            await expect(terminal.rows).not_to_contain_text("typed")
            assert wire.typed.endswith(b"esac\r")
        else:
            wire.typed.clear()
            wire.show(hostile)
            await expect(terminal.rows).to_contain_text("end-of-hostile")
            await terminal.type("x")
            await until(lambda: wire.typed, "what was typed")
            assert wire.typed == b"x"

        # The title is text, and only that of it which can be seen.
        tab = page.get_by_role("group", name="Terminal tabs").get_by_title(HEADLINE, exact=True)
        await expect(tab).to_be_visible()

        # A program fills the clipboard when its user agrees, and not before.
        question = page.get_by_role("alertdialog", name="Copy to the clipboard?")
        await expect(question).to_contain_text(FILLED)
        assert await clipboard(page) == SECRET
        await question.get_by_role("button", name="Copy", exact=True).click()
        await expect(terminal.place).to_contain_text("Copied.")
        assert await clipboard(page) == FILLED

        # Links lead to the web, in a tab that knows nothing of this one; others are just text.
        for text in ("link-that-runs", "link-to-a-file"):
            await follow(terminal, text)
        async with page.context.expect_page() as opening:
            await follow(terminal, "link-of-the-web")
        opened = await opening.value
        assert opened.url == f"{server.url}/lite/"
        assert await opened.evaluate("window.opener") is None
        assert len(page.context.pages) == 2
        assert await page.evaluate("window.evil") is None
        assert faults == []


async def clipboard(page: Page) -> str:
    return str(await page.evaluate("navigator.clipboard.readText()"))


async def follow(terminal: Terminal, text: str) -> None:
    """Click a text with the key that opens links."""
    shown = terminal.rows.get_by_text(text)
    # The screen lies over its rows and takes the pointer for them.
    await shown.hover(force=True)
    await shown.click(force=True, modifiers=["Control"])
