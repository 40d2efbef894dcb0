"""Tickets: a terminal's address is opened with something that is worthless a moment later."""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import cast
from uuid import UUID

from craftastic.accounts.caller import Caller, Scope, UserId, digest
from craftastic.clock import Clock
from craftastic.database import Database
from craftastic.errors import RateLimited, Unauthenticated
from craftastic.terminals._repository import TerminalTicket, TicketRepository

TICKET_TTL_S = 30.0
MOST_TICKETS_PER_USER = 200
NO_ORIGIN = frozenset({"", "null"})


class BadTicket(Unauthenticated):
    """The ticket is unknown, used, too old, or for something else."""

    code = "BAD_TICKET"


class TooManyTickets(RateLimited):
    code = "TOO_MANY_TICKETS"


@dataclass(frozen=True, slots=True)
class Tickets:
    """Makes tickets and takes them back, over every process on the database."""

    database: Database
    clock: Clock

    async def issue(self, caller: Caller, session_id: UUID, origin: str | None) -> str:
        """Return a new ticket for one connection to one session.

        Args:
            caller: Who asks; the ticket is worth nothing once their sign-in has ended.
            session_id: Whose terminal it opens; that it is the caller's is settled before.
            origin: Of the page that asks: only pages of it can use the ticket. None for what is
                no page, or does not say; then any page may that may open terminals at all.

        Raises:
            TooManyTickets: The caller has too many that are unused.
        """
        now = self.clock.now()
        ticket = secrets.token_urlsafe(32)
        row = TerminalTicket(
            ticket_hash=digest(ticket),
            user_id=caller.user_id,
            session_id=session_id,
            sign_in_id=caller.sign_in_id,
            token_version=caller.token_version,
            scope=caller.scope,
            origin_hash=None if (origin or "") in NO_ORIGIN else digest(origin or ""),
            expires_at=now + timedelta(seconds=TICKET_TTL_S),
        )
        async with self.database.begin() as tx:
            tickets = TicketRepository(tx)
            await tickets.forget_expired(now)
            if await tickets.count(caller.user_id) >= MOST_TICKETS_PER_USER:
                raise TooManyTickets("Too many terminals are being opened; try again in a moment")
            await tickets.add(row)
        return ticket

    async def redeem(self, ticket: str, session_id: UUID | None, origin: str | None) -> Caller:
        """Return who a ticket is of; it is used up, also when it is refused.

        Raises:
            BadTicket: It is unknown, used, too old, or for another session or origin.
        """
        async with self.database.begin() as tx:
            found = await TicketRepository(tx).take(digest(ticket))
        if (
            found is None
            or found.expires_at <= self.clock.now()
            or found.session_id != session_id
            or found.origin_hash not in {None, digest(origin or "")}
        ):
            raise BadTicket("Invalid authentication ticket")
        # What a terminal needs of a caller; the rest is not kept with the ticket.
        return Caller(
            user_id=UserId(found.user_id),
            email="",
            name="",
            email_verified=False,
            is_admin=False,
            sign_in_id=found.sign_in_id,
            token_version=found.token_version,
            scope=cast("Scope", found.scope),
        )
