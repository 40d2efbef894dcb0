"""How a terminal is opened without a token in its address, and how soon lost rights end it."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
from websockets.asyncio.client import connect

from craftastic.accounts.service import AccountService, Caller, access_tokens
from craftastic.clock import SystemClock
from craftastic.database import Database
from craftastic.errors import RateLimited
from craftastic.terminals import _tickets
from craftastic.terminals._tickets import BadTicket, Tickets
from tests.fakes.clock import FakeClock
from tests.fakes.event_rig import new_user
from tests.fakes.terminal_desk import Desk, open_desk

BAD_TICKET = (1008, "Invalid authentication ticket")
PAGE = "https://craft.example"


def account_service(database: Database, folder: Path) -> AccountService:
    return AccountService(
        database, SystemClock(), access_tokens(b"k" * 32, 900), folder, registration="open"
    )


@dataclass
class Counter:
    """A session's terminal, its owner's token, and the accounts of another server process."""

    desk: Desk
    token: str
    caller: Caller
    elsewhere: AccountService

    def url(self, **query: str) -> str:
        return self.desk.url(**{"token": "", **query})

    async def ticket(self, origin: str | None = None, session: Any = None) -> str:
        headers = {"Authorization": f"Bearer {self.token}"} | ({"Origin": origin} if origin else {})
        async with httpx.AsyncClient(base_url=self.desk.address, headers=headers) as client:
            answer = await client.post(
                "/api/terminal/ticket", json={"sessionId": str(session or self.desk.session.id)}
            )
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()["expiresInMs"] == 30_000
        return answer.json()["ticket"]


@pytest.fixture
async def counter(database: Database, data_dir: Path) -> AsyncIterator[Counter]:
    accounts, elsewhere = (account_service(database, data_dir) for _ in range(2))
    tokens, caller = await new_user(accounts, "a@example.com")
    async with open_desk(database, data_dir, accounts, caller.user_id) as desk:
        yield Counter(desk, tokens.access_token, caller, elsewhere)


async def test_a_ticket_opens_its_terminal_once(counter: Counter) -> None:
    ticket = await counter.ticket()
    async with counter.desk.open(token="", ticket=ticket) as client:
        await client.type("echo by''ticket\r")
        await client.until("byticket")

    assert await counter.desk.refusal(counter.url(ticket=ticket)) == BAD_TICKET
    assert await counter.desk.refusal(counter.url(ticket="x" * 43)) == BAD_TICKET


async def test_a_ticket_counts_for_the_page_that_asked_for_it(counter: Counter) -> None:
    here = counter.desk.address
    for asked, used, refusal in ((here, PAGE, True), (PAGE, here, True), (here, here, False)):
        url = counter.url(ticket=await counter.ticket(asked))
        if refusal:
            assert await counter.desk.refusal(url, origin=used) == BAD_TICKET
        else:
            async with connect(url, origin=used) as one:  # type: ignore[arg-type]
                assert "request-resize" in str(await one.recv())


async def test_a_ticket_is_worth_no_more_than_the_sign_in_behind_it(counter: Counter) -> None:
    ticket = await counter.ticket()
    await counter.desk.accounts.logout_all(counter.caller.user_id)  # type: ignore[attr-defined]

    assert await counter.desk.refusal(counter.url(ticket=ticket)) == BAD_TICKET


async def test_there_is_no_ticket_for_a_session_that_is_not_ones_own(counter: Counter) -> None:
    headers = {"Authorization": f"Bearer {counter.token}"}
    async with httpx.AsyncClient(base_url=counter.desk.address, headers=headers) as client:
        answer = await client.post("/api/terminal/ticket", json={"sessionId": str(uuid4())})

    assert (answer.status_code, answer.json()["code"]) == (404, "SESSION_NOT_FOUND")


async def test_a_program_gives_its_token_in_a_header_or_as_a_subprotocol(counter: Counter) -> None:
    header = {"Authorization": f"Bearer {counter.token}"}
    async with connect(counter.url(), additional_headers=header) as one:
        assert "request-resize" in str(await one.recv())
    offered: Any = ["bearer", counter.token]
    async with connect(counter.url(), subprotocols=offered) as two:
        assert two.subprotocol == "bearer"
        assert "request-resize" in str(await two.recv())
    offered = ["craftastic.v2", "bearer", counter.token]
    async with connect(counter.url(), subprotocols=offered) as three:
        assert three.subprotocol == "craftastic.v2"

    for wrong in ({"subprotocols": ["bearer"]}, {"additional_headers": {"Authorization": "Basic"}}):
        closed = await counter.desk.refusal(counter.url(), **wrong)
        assert closed == (1008, "Authentication required")


@dataclass
class ReadOnly:
    """Accounts where every token may only read."""

    caller: Caller

    async def authenticate(self, token: str) -> Caller:
        return replace(self.caller, scope="read")

    async def still_signed_in(self, caller: Caller) -> bool:
        return True

    def insist_on_verified(self, caller: Caller) -> None:
        pass


async def test_an_address_that_has_to_be_confirmed_first_opens_no_terminal(
    database: Database, data_dir: Path
) -> None:
    lenient = account_service(database, data_dir)  # as the server was when they signed in
    tokens, caller = await new_user(lenient, "a@example.com")
    strict = replace(lenient, require_verified_email=True)
    async with open_desk(database, data_dir, strict, caller.user_id) as desk:
        code, reason = await desk.refusal(desk.url(token=tokens.access_token))

    assert code == 1008
    assert reason
    assert "Confirm your e-mail address first" in reason
    assert not desk.runtime.processes


async def test_a_token_that_may_only_read_opens_no_terminal(
    database: Database, data_dir: Path
) -> None:
    caller = Caller(uuid4(), "", "", True, False, uuid4())  # type: ignore[arg-type]
    async with open_desk(database, data_dir, ReadOnly(caller), caller.user_id) as desk:
        code, reason = await desk.refusal(desk.url())

    assert (code, reason) == (1008, "Not allowed: this access token may only read")
    assert not desk.runtime.processes


async def test_an_end_of_the_sign_in_at_another_process_closes_within_five_seconds(
    counter: Counter,
) -> None:
    async with counter.desk.open(token=counter.token) as client:
        await client.until_message("request-resize")
        await counter.elsewhere.logout_all(counter.caller.user_id)
        ended_at = time.monotonic()
        assert await client.until_closed() == (1008, "Authentication required")

    assert time.monotonic() - ended_at <= 5


# ---- tickets alone ----------------------------------------------------------------------------


@dataclass
class Booth:
    tickets: Tickets
    caller: Caller
    clock: FakeClock


@pytest.fixture
async def booth(database: Database, data_dir: Path, clock: FakeClock) -> Booth:
    _, caller = await new_user(account_service(database, data_dir), "a@example.com")
    return Booth(Tickets(database, clock), caller, clock)


async def test_of_many_uses_of_a_ticket_exactly_one_succeeds(booth: Booth) -> None:
    session = uuid4()
    ticket = await booth.tickets.issue(booth.caller, session, None)
    outcomes: list[bool] = []

    async def use() -> None:
        try:
            found = await booth.tickets.redeem(ticket, session, None)
        except BadTicket:
            outcomes.append(False)
        else:
            outcomes.append(found.user_id == booth.caller.user_id)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(use)

    assert sorted(outcomes) == [False] * 19 + [True]


async def test_a_ticket_is_too_old_after_thirty_seconds(booth: Booth) -> None:
    session = uuid4()
    for age_s, good in ((29, True), (30, False)):
        ticket = await booth.tickets.issue(booth.caller, session, None)
        booth.clock.advance(age_s)
        if good:
            assert (await booth.tickets.redeem(ticket, session, None)).scope == "full"
        else:
            with pytest.raises(BadTicket):
                await booth.tickets.redeem(ticket, session, None)


async def test_a_ticket_for_another_session_is_refused_and_used_up(booth: Booth) -> None:
    session = uuid4()
    ticket = await booth.tickets.issue(booth.caller, session, None)

    for tried in (uuid4(), None, session):
        with pytest.raises(BadTicket):
            await booth.tickets.redeem(ticket, tried, None)


async def test_tickets_that_nobody_uses_are_bounded_and_forgotten(
    booth: Booth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tickets, "MOST_TICKETS_PER_USER", 3)
    for _ in range(3):
        await booth.tickets.issue(booth.caller, uuid4(), None)
    with pytest.raises(RateLimited):
        await booth.tickets.issue(booth.caller, uuid4(), None)

    booth.clock.advance(31)

    assert await booth.tickets.issue(booth.caller, uuid4(), None)
