"""Agents through the page in a real browser: a prompt, a question, its answer, the end.

The CLI is the scripted one of the tests. It comes with the repository, so that it is in every
sandbox, and its type is one that somebody has added to the server.
"""

import re
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.e2e._page import EMAIL, WORK_MS, Person, built_page, make_project
from tests.e2e.browser import opened_browser, opened_page
from tests.e2e.harness import Api, Server, Viewer, until
from tests.fakes.git_http_server import GitHttpServer, git

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

FAKES = Path(__file__).parents[1] / "fakes"
IN_REPOSITORY = "tools/fake-agent"

LOCAL_ONLY = pytest.mark.parametrize("runtime", [pytest.param("local", marks=pytest.mark.local)])

NOTIFICATIONS = """
  window.asked = 0;
  window.shown = [];
  window.Notification = class {
    static permission = 'default';
    static async requestPermission() {
      window.asked += 1;
      return (window.Notification.permission = 'granted');
    }
    constructor(title, options) {
      this.title = title;
      this.body = options.body;
      window.shown.push(this);
    }
    close() {}
  };
"""
"""Stands for the system's notifications, which a browser without a window has not."""

LEAVE = """
  Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
"""


@pytest.fixture
def data_dir(data_dir: Path) -> Path:
    """Add the type of the scripted CLI to the server before it starts."""
    manifest = (FAKES / "fake_agent.toml").read_text()
    started = f'argv = ["python3", "{{worktree}}/{IN_REPOSITORY}",'
    changed = manifest.replace('argv = ["fake-agent",', started).replace(
        '"fake-agent"', '"python3"'
    )
    changed = changed.replace('name = "python3"', 'name = "fake-agent"')
    assert changed.count('"python3"') == 3, "the manifest has changed"
    folder = data_dir / "agent-types"
    folder.mkdir()
    (folder / "fake-agent.toml").write_text(changed)
    return data_dir


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    built_page()
    async with opened_browser(webgl=False) as one:
        yield one


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """Give the address of a repository that has the scripted CLI in it."""
    bare = make_project(tmp_path / "upstream")
    work = tmp_path / "more"
    git("clone", "--quiet", str(bare), str(work))
    program = work / IN_REPOSITORY
    program.parent.mkdir()
    program.write_bytes((FAKES / "fake_agent.py").read_bytes())
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    git("add", ".", cwd=work)
    git("commit", "--quiet", "-m", "Add the agent", cwd=work)
    git("push", "--quiet", "origin", "main", cwd=work)
    with GitHttpServer(bare.parent) as server:
        yield server.url(bare.name)


@pytest.mark.parametrize(
    ("runtime", "phone", "dark"),
    [
        pytest.param("local", False, False, id="desk-light", marks=pytest.mark.local),
        pytest.param("docker", True, True, id="phone-dark", marks=pytest.mark.docker),
    ],
)
async def test_an_agent_is_given_a_task_asks_is_allowed_and_finishes(
    server: Server, browser: Browser, repository: str, phone: bool, dark: bool
) -> None:
    async with (
        Api(server.url) as api,
        opened_page(browser, server.url, phone=phone, dark=dark) as (page, faults),
    ):
        environment = await make_environment(api, server, repository)
        flow = Flow(Person(page, phone), api, environment)
        await flow.sign_in()
        await flow.make_an_agent()
        await flow.begin("ask permission: touch allowed", "ask-permission-touch-allowed")
        await expect(flow.bar).to_contain_text("Wants to use Bash", timeout=WORK_MS)

        card = await flow.find_in_the_inbox("ask-permission-touch-allowed")
        await expect(card).to_contain_text("touch allowed")
        await expect(page).to_have_title("(1) Home · Craftastic")
        await expect(page.locator("link[rel=icon]")).to_have_attribute("href", re.compile("needs"))
        await flow.allow(card)
        await expect(card).to_have_count(0)

        finished = page.get_by_role("list", name="Finished")
        await expect(finished).to_contain_text("ran touch allowed", timeout=WORK_MS)
        await expect(page).to_have_title("Home · Craftastic")
        await finished.get_by_role("link").click()
        await expect(flow.bar).to_contain_text("Finished")
        await flow.person.shows("ask-permission-touch-allowed", "Allowed by PermissionRequest hook")
        # What was looked at is no news any more.
        await flow.go_home()
        await expect(page.get_by_role("list", name="Sessions", exact=True)).to_contain_text(
            "ask-permission-touch-allowed"
        )
        await expect(finished).to_have_count(0)
        assert faults == []


@LOCAL_ONLY
async def test_what_is_answered_elsewhere_leaves_the_inbox_and_a_denial_gives_its_reason(
    server: Server, browser: Browser, repository: str
) -> None:
    async with (
        Api(server.url) as api,
        opened_page(browser, server.url) as (page, faults),
    ):
        environment = await make_environment(api, server, repository)
        flow = Flow(Person(page), api, environment)
        await flow.sign_in()
        agent = await flow.agent_by_api()
        session = await flow.session_by_api(agent, "elsewhere", "ask permission: rm -r build")
        await flow.go_home()
        card = flow.card("elsewhere")
        await expect(card).to_contain_text("rm -r build", timeout=WORK_MS)
        await flow.answer_by_api("elsewhere", "allow")
        await expect(card).to_have_count(0)
        finished = page.get_by_role("list", name="Finished")
        await expect(finished).to_contain_text("ran rm -r build", timeout=WORK_MS)

        # The second time in the session itself, with a reason.
        await page.goto(f"/s/{session['id']}")
        await flow.prompt("ask permission: rm -r src")
        await expect(flow.bar).to_contain_text("rm -r src", timeout=WORK_MS)
        await flow.person.button("Deny and say why", within=flow.bar).click()
        await flow.bar.get_by_label("Why not").fill("the sources stay")
        await page.keyboard.press("Enter")
        await expect(flow.bar).to_contain_text("Error: the sources stay", timeout=WORK_MS)
        await flow.person.shows("elsewhere", "Denied by PermissionRequest hook")

        # Whoever answers in the terminal is first: the page follows.
        await flow.prompt("ask permission: ls")
        waiting = flow.bar.get_by_role("list", name="Waiting for you")
        await expect(waiting).to_contain_text("ls", timeout=WORK_MS)
        await flow.person.terminal("elsewhere").locator(".xterm-helper-textarea").focus()
        await page.keyboard.type("y")
        await expect(waiting).to_have_count(0, timeout=WORK_MS)
        await expect(flow.bar).to_contain_text("ran ls")

        # With the focus on what is asked, its keys count over the screen's own.
        await flow.prompt("ask permission: pwd")
        await flow.person.button(re.compile("^Allow"), within=waiting).focus(timeout=WORK_MS)
        await page.keyboard.press("n")
        await expect(flow.bar).to_contain_text("Error: ", timeout=WORK_MS)
        await expect(flow.person.dialog).to_have_count(0)
        assert faults == []


@LOCAL_ONLY
async def test_a_prompt_waits_for_the_agent_is_taken_back_or_given_and_work_is_interrupted(
    server: Server, browser: Browser, repository: str
) -> None:
    async with (
        Api(server.url) as api,
        opened_page(browser, server.url) as (page, faults),
    ):
        environment = await make_environment(api, server, repository)
        flow = Flow(Person(page), api, environment)
        await flow.sign_in()
        agent = await flow.agent_by_api()
        session = await flow.session_by_api(agent, "steps", "work 1")
        await page.goto(f"/s/{session['id']}")
        await expect(flow.bar).to_contain_text("Working", timeout=WORK_MS)

        prompts = flow.bar.get_by_role("list", name="Prompts")
        await flow.prompt("say never")
        await expect(prompts).to_contain_text("Queued")
        await flow.prompt("say hello there")
        await expect(prompts.get_by_role("listitem")).to_have_count(2)
        await flow.person.button("Take back: say never", within=prompts).click()
        await expect(prompts.get_by_role("listitem")).to_have_count(1)
        await flow.touch(session, "go-1")
        await expect(flow.bar).to_contain_text("hello there", timeout=WORK_MS)
        await expect(flow.bar).to_contain_text("Finished", timeout=WORK_MS)
        await expect(prompts).to_contain_text("Delivered")
        assert "never" not in await flow.person.terminal("steps").inner_text()

        await flow.prompt("work 1")
        await expect(flow.bar).to_contain_text("Working", timeout=WORK_MS)
        await flow.person.shows("steps", re.compile("waits for go-1.*waits for go-1", re.DOTALL))
        await flow.box.press("Escape")
        await flow.box.press("Escape")
        question = page.get_by_role("alertdialog")
        await flow.person.button("Interrupt", within=question).click()
        await expect(page.get_by_text("steps is interrupted")).to_be_visible(timeout=WORK_MS)
        await flow.person.shows("steps", "Interrupted by user")
        assert faults == []


@LOCAL_ONLY
async def test_notifications_are_asked_for_by_a_button_and_lead_to_the_session(
    server: Server, browser: Browser, repository: str
) -> None:
    async with (
        Api(server.url) as api,
        opened_page(browser, server.url) as (page, faults),
    ):
        await page.add_init_script(NOTIFICATIONS)
        environment = await make_environment(api, server, repository)
        flow = Flow(Person(page), api, environment)
        await flow.sign_in()
        await page.goto("/settings/notifications")
        await expect(page.get_by_text("Off", exact=True)).to_be_visible()
        assert await page.evaluate("window.asked") == 0
        await flow.person.button("Turn on").click()
        await expect(page.get_by_text("On", exact=True)).to_be_visible()
        assert await page.evaluate("window.asked") == 1

        await page.evaluate(LEAVE)
        agent = await flow.agent_by_api()
        session = await flow.session_by_api(agent, "asks", "ask permission: make")

        async def shown() -> int | None:
            """Which says what is asked; a slow page may hear first that something is."""
            titles: list[str] = await page.evaluate("window.shown.map((one) => one.title)")
            wanted = "asks: wants to use Bash"
            return titles.index(wanted) + 1 if wanted in titles else None

        number = await until(shown, "a notification is shown", timeout_s=60) - 1
        assert "make" in await page.evaluate(f"window.shown[{number}].body")
        await page.evaluate(f"window.shown[{number}].onclick()")
        await expect(page).to_have_url(re.compile(session["id"]))
        assert faults == []


async def make_environment(api: Api, server: Server, repository: str) -> str:
    """Make the first account and an environment "shop"; return its id when it is cloned."""
    await api.register(EMAIL, setupToken=server.setup_token)
    environment: str = (await api.environment("shop", repository))["id"]

    async def cloned() -> bool:
        return (await api.get(f"/api/environments/{environment}"))["cloneStatus"] == "ready"

    await until(cloned, "the repository is cloned", timeout_s=60)
    return environment


@dataclass(frozen=True)
class Flow:
    """What somebody does with agents at the page, and beside it over the API."""

    person: Person
    api: Api
    environment: str

    @property
    def page(self) -> Page:
        return self.person.page

    @property
    def bar(self) -> Locator:
        """Return what a session shows of its agent."""
        return self.page.get_by_role("region", name="Agent", exact=True)

    @property
    def box(self) -> Locator:
        return self.bar.get_by_label("Prompt for the agent")

    def card(self, session: str) -> Locator:
        """Return what waits for an answer to a session's agent, in the inbox."""
        needs = self.page.get_by_role("region", name="Needs you")
        return needs.get_by_role("listitem").filter(has_text=session)

    async def sign_in(self) -> None:
        await self.page.goto("/login")
        await self.person.sign_in()
        await expect(self.person.heading("Home")).to_be_visible()

    async def go_home(self) -> None:
        await self.page.get_by_role("link", name=re.compile(r"\bHome$")).click()
        await expect(self.person.heading("Home")).to_be_visible()

    async def make_an_agent(self) -> None:
        """Be told what enters the sandbox, and make an agent with a key."""
        page, person = self.page, self.person
        await page.goto("/agents")
        await expect(page.get_by_text("No agents yet")).to_be_visible()
        await person.button("New agent").click()
        dialog = person.dialog
        await dialog.get_by_label("Program").click()
        await page.get_by_role("option", name="Fake Agent").click()
        await dialog.get_by_label("Signs in with").click()
        await page.get_by_role("option", name=re.compile("Login file")).click()
        await expect(dialog).to_contain_text("every program there can read it")
        await dialog.get_by_label("Signs in with").click()
        await page.get_by_role("option", name=re.compile("API key")).click()
        await expect(dialog).to_contain_text("never enters a sandbox")
        await dialog.get_by_label("API key", exact=True).fill("sk-ant-api-test")
        await person.button("Create agent", within=dialog).click()
        await expect(person.heading("Fake Agent")).to_be_visible()
        await expect(page.get_by_text("API key", exact=True)).to_be_visible()

    async def begin(self, prompt: str, name: str) -> None:
        """Give a task from the box on the first screen."""
        page = self.page
        await self.go_home()
        await self.person.button(re.compile("What should an agent do")).click()
        box = self.person.dialog.get_by_label("What should the agent do?")
        await box.fill("the draft")
        await page.keyboard.press("Escape")
        await expect(self.person.dialog).to_have_count(0)
        await self.person.button(re.compile("What should an agent do")).click()
        await expect(box).to_have_value("the draft")
        await box.fill(prompt)
        await box.press("Enter")
        await expect(page).to_have_url(re.compile("/s/"), timeout=WORK_MS)
        await expect(self.person.heading(re.compile(name))).to_be_visible()

    async def find_in_the_inbox(self, session: str) -> Locator:
        await self.go_home()
        card = self.card(session)
        await expect(card).to_contain_text("Wants to use Bash")
        return card

    async def allow(self, card: Locator) -> None:
        """Say yes: with a finger, or by key on the card that has the focus."""
        if self.person.phone:
            allow = self.person.button(re.compile("^Allow"), within=card)
            deny = self.person.button(re.compile("^Deny: "), within=card)
            yes, no = await allow.bounding_box(), await deny.bounding_box()
            assert yes is not None
            assert no is not None
            assert yes["x"] - (no["x"] + no["width"]) >= 44, "a thumb takes one for the other"
            assert min(yes["height"], no["height"]) >= 44
            await allow.tap()
        else:
            await self.page.keyboard.press("j")
            await expect(card.get_by_role("link")).to_be_focused()
            await self.page.keyboard.press("y")

    async def prompt(self, text: str) -> None:
        await self.box.fill(text)
        await self.box.press("Enter")
        await expect(self.box).to_have_value("")

    async def agent_by_api(self) -> str:
        answer = await self.api.client.post(
            "/api/agents",
            json={
                "userId": self.api.user["id"],
                "name": "Scripted",
                "type": "fake-agent",
                "credential": {"type": "anthropic_api_key", "value": "sk-ant-api-test"},
            },
        )
        assert answer.status_code == 201, answer.text
        agent: str = answer.json()["id"]
        return agent

    async def session_by_api(self, agent: str, name: str, prompt: str) -> dict[str, Any]:
        session: dict[str, Any] = await self.api.post(
            "/api/sessions",
            environmentId=self.environment,
            name=name,
            branch=name,
            baseBranch="main",
            sessionType="agent",
            agentId=agent,
            prompt=prompt,
        )
        return session

    async def answer_by_api(self, session: str, decision: str) -> None:
        listed = (await self.api.get("/api/approvals"))["approvals"]
        [one] = [one for one in listed if one["sessionName"] == session]
        await self.api.post(f"/api/approvals/{one['id']}", decision=decision)

    async def touch(self, session: dict[str, Any], name: str) -> None:
        """Make a file in a session's worktree, from a terminal beside it."""
        beside = await self.api.post(
            "/api/sessions", environmentId=self.environment, name="beside", branch="beside"
        )
        viewer = Viewer(self.api_url, beside["id"], self.environment, self.api.token)
        async with viewer.attached():
            await viewer.run(f"touch {session['workingDirectory']}/{name}")

    @property
    def api_url(self) -> str:
        return str(self.api.client.base_url).rstrip("/")
