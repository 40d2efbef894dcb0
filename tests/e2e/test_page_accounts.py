"""Accounts at the page, in a real browser: an invitation, mailed links, passwords, tokens, an end.

SEC-36: an administrator disables a user, whose open page is signed out within seconds. SEC-37: the
links of the mails work at the page. At a desk and on a phone; nothing else may go wrong meanwhile.
"""

import re
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import anyio
import httpx
import pytest
from playwright.async_api import Browser, expect

from tests.e2e._page import Person, built_page
from tests.e2e.browser import opened_browser, opened_page
from tests.e2e.harness import PASSWORD, Api, Server, until
from tests.fakes.mail_server import LINK, MailServer, mail_server, text_of

pytestmark = [
    pytest.mark.local,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

ADMIN = "ada@example.com"
SECOND = "a staple that is correct 17"
THIRD = "the horse and its battery 93"
SIGNED_OUT_MS = 12_000
"""The server ends streams within 5 s; the page then asks once more, and believes it."""

REFUSED = re.compile(r"status of 40[01] ")
"""A browser says as an error what the flow is about: wrong passwords, ended sign-ins."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    built_page()
    async with opened_browser(webgl=False) as one:
        yield one


@pytest.fixture
async def mails() -> AsyncIterator[MailServer]:
    async with mail_server() as one:
        yield one


@pytest.fixture
async def server(
    data_dir: Path, database_url: str | None, mails: MailServer
) -> AsyncIterator[Server]:
    server = Server(
        data_dir,
        runtime="local",
        database_url=database_url,
        SMTP_URL=f"smtp://127.0.0.1:{mails.port}?security=none",
        CRAFTASTIC_REGISTRATION="invite",
    )
    try:
        server.start()
        await server.ready()
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await server.clean()


async def test_a_user_comes_by_invitation_and_goes_by_the_administrator(
    server: Server, browser: Browser, mails: MailServer
) -> None:
    async with Api(server.url) as api:
        await api.register(ADMIN, setupToken=server.setup_token)
    await life_of("bob@example.com", server, browser, mails, phone=False)
    await life_of("eve@example.com", server, browser, mails, phone=True)


async def life_of(
    email: str, server: Server, browser: Browser, mails: MailServer, *, phone: bool
) -> None:
    async with (
        opened_page(browser, server.url, phone=phone) as (page, faults),
        opened_page(browser, server.url, phone=phone) as (other, more_faults),
    ):
        ada = Account(Person(page, phone), ADMIN)
        new = Account(Person(other, phone), email)
        await page.goto("/settings/invitations")
        await ada.sign_in(PASSWORD)
        await new.registers(await ada.invites(email))
        await new.confirms(await link_to(mails, email, "Confirm"))
        await new.sees_no_administration()
        await new.uses_a_token(server)
        await new.changes_the_password(PASSWORD, SECOND)
        await new.forgets_the_password(mails, THIRD)
        await ada.disables_the_user(email)
        await expect(new.person.heading("Sign in")).to_be_visible(timeout=SIGNED_OUT_MS)
        await expect(other.get_by_text("This sign-in has ended")).to_be_visible()
        await ada.finds_it_in_the_log(email)
        assert [one for one in faults + more_faults if not REFUSED.search(one)] == []


async def link_to(mails: MailServer, address: str, subject: str) -> str:
    """Wait for a mail, and return the link in it."""

    def arrived() -> EmailMessage | None:
        found = (one for one in mails.taken if one["To"] == address and subject in one["Subject"])
        return next(found, None)

    found = LINK.search(text_of(await until(arrived, f"a mail {subject!r} to {address}")))
    assert found is not None
    return found[0]


class Account:
    """Somebody at the page, with an account."""

    def __init__(self, person: Person, email: str) -> None:
        self.person = person
        self.email = email
        self.page = person.page

    async def sign_in(self, password: str) -> None:
        await self.page.get_by_label("E-mail address").fill(self.email)
        await self.page.get_by_label("Password", exact=True).fill(password)
        await self.person.button("Sign in").click()

    async def settings(self, part: str) -> None:
        """Go to a part of the settings by its link there."""
        if await self.page.get_by_role("navigation", name="Settings").count() == 0:
            await self.page.goto("/settings")
        nav = self.page.get_by_role("navigation", name="Settings")
        await nav.get_by_role("link", name=part, exact=True).click()
        await expect(self.person.heading(part)).to_be_visible()

    async def shown_once(self, label: str) -> str:
        """Take the secret out of the dialog that shows it, and close that."""
        secret = await self.person.dialog.get_by_label(label, exact=True).inner_text()
        await self.person.button("Done", within=self.person.dialog).click()
        await expect(self.person.dialog).to_have_count(0)
        return secret.strip()

    async def invites(self, email: str) -> str:
        await self.person.button("Invite somebody").click()
        await self.person.dialog.get_by_label("E-mail address").fill(email)
        await self.person.button("Make the link").click()
        return await self.shown_once("The invitation's link")

    async def registers(self, link: str) -> None:
        await self.page.goto(link)
        await expect(self.page.get_by_label("E-mail address")).to_have_value(self.email)
        await self.page.get_by_label("Name", exact=True).fill("Bo")
        await self.page.get_by_label("Password", exact=True).fill(PASSWORD)
        await self.person.button("Create account").click()
        await expect(self.person.heading("Welcome, Bo")).to_be_visible()

    async def confirms(self, link: str) -> None:
        await self.settings("Account")
        await expect(self.page.get_by_text("not verified")).to_be_visible()
        await self.page.goto(link)
        await self.person.button("It is my address").click()
        await expect(self.person.heading("Your address is confirmed")).to_be_visible()
        await self.settings("Account")
        await expect(self.page.get_by_text("verified", exact=True)).to_be_visible()

    async def sees_no_administration(self) -> None:
        nav = self.page.get_by_role("navigation", name="Settings")
        await expect(nav.get_by_role("link", name="Activity")).to_be_visible()
        await expect(nav.get_by_role("link", name="Users")).to_have_count(0)
        await self.page.goto("/settings/users")
        await expect(self.person.heading("Not found")).to_be_visible()

    async def uses_a_token(self, server: Server) -> None:
        await self.settings("Access tokens")
        await self.person.button("New token").click()
        await self.person.dialog.get_by_label("Name").fill("nightly")
        await self.person.button("Make the token").click()
        secret = await self.shown_once("The token")
        assert await answer_to(server, secret) == 200
        row = self.page.get_by_role("list", name="Access tokens").get_by_role("listitem")
        await expect(row).to_contain_text(re.compile("nightly.*look only"))
        assert secret not in await self.page.content()
        await self.person.button("Revoke nightly").click()
        await self.person.button("Revoke").click()
        await expect(self.page.get_by_text("No access tokens yet")).to_be_visible()
        assert await answer_to(server, secret) == 401

    async def changes_the_password(self, old: str, new: str) -> None:
        await self.settings("Password")
        await expect(self.page.get_by_text("ends all your sign-ins, this one too")).to_be_visible()
        present = self.page.get_by_label("Present password")
        await present.fill("not this one")
        await self.page.get_by_label("New password").fill(new)
        await self.person.button("Change the password").click()
        await expect(self.page.get_by_text("This is not your present password")).to_be_visible()
        await present.fill(old)
        await self.person.button("Change the password").click()
        await expect(self.page.get_by_text("Sign in with the new one")).to_be_visible()
        await self.sign_in(new)
        await expect(self.person.heading("Password")).to_be_visible()

    async def forgets_the_password(self, mails: MailServer, new: str) -> None:
        await self.settings("Sign-ins")
        row = self.page.get_by_role("list", name="Where you are signed in").get_by_role("listitem")
        await expect(row).to_contain_text(re.compile("Chrome.*this one"))
        await self.person.button("Sign out here").click()
        await self.page.get_by_label("E-mail address").fill(self.email)
        await self.page.get_by_role("link", name="Forgotten your password?").click()
        await expect(self.page.get_by_label("E-mail address")).to_have_value(self.email)
        await self.person.button("Send me a link").click()
        await expect(self.page.get_by_text("a mail is on its way")).to_be_visible()
        link = await link_to(mails, self.email, "Set a new password")
        await self.page.goto(link)
        await self.page.get_by_label("New password").fill(new)
        await self.person.button("Set the password").click()
        await expect(self.page.get_by_text("Your password is changed")).to_be_visible()
        await self.page.goto(link)
        await self.page.get_by_label("New password").fill(SECOND)
        await self.person.button("Set the password").click()
        await expect(self.person.heading("This link does not work")).to_be_visible()
        await self.page.get_by_role("link", name="Back to the sign-in").click()
        await self.sign_in(new)
        await expect(self.person.heading("Home")).to_be_visible()

    async def disables_the_user(self, email: str) -> None:
        await self.settings("Users")
        await self.person.button(f"More about {email}").click()
        await self.page.get_by_role("menuitem", name="Disable…").click()
        await self.person.button("Disable").click()
        row = self.page.get_by_role("list", name="Users").get_by_role("listitem")
        await expect(row.filter(has_text=email)).to_contain_text("disabled")

    async def finds_it_in_the_log(self, email: str) -> None:
        await self.settings("Audit log")
        await self.person.button("Check the chain").click()
        await expect(self.page.get_by_text(re.compile(r"All \d+ events are sound"))).to_be_visible()
        async with self.page.expect_download() as saved:
            await self.person.button("Save as a file").click()
        file = anyio.Path(await (await saved.value).path())
        assert '"user.disable"' in await file.read_text()
        await self.page.get_by_label("What").click()
        await self.page.get_by_role("option", name="Users").click()
        events = self.page.get_by_role("list", name="Audit log").get_by_role("listitem")
        await expect(events.first).to_contain_text(f"Disabled a user{email}")


async def answer_to(server: Server, secret: str) -> int:
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
        return (await client.get("/api/auth/me")).status_code
