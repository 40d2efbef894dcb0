"""How often one may try to sign in, and that no stranger can lock anybody out by trying."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest
from sqlalchemy import func, select

from craftastic.accounts._passwords import PasswordHasher
from craftastic.accounts._throttle import client_of
from craftastic.accounts._throttle_repository import KnownClient, ThrottleRow
from craftastic.database import Database
from tests.fakes.account_rig import (
    ELSEWHERE,
    HOME,
    NEW_PASSWORD,
    PASSWORD,
    AccountRig,
    account_rig,
    asked,
    bearer,
    logged_in,
    registered,
)
from tests.fakes.clock import FakeClock
from tests.fakes.terminal_rig import until

WRONG = "not-the-password"


class HeldHasher(PasswordHasher):
    """Lets hashes wait in the order in which they were asked for, until all are there."""

    _held: anyio.Event | None = None
    _asked: int = 0

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        if self._held is not None:
            self._asked += 1
            await self._held.wait()
        return await super().verify(password, stored)

    def hold(self) -> None:
        self._held = anyio.Event()

    async def until_waiting(self, count: int) -> None:
        await until(lambda: self._asked >= count, f"{count} hashes wait")

    def let_go(self) -> None:
        assert self._held is not None
        self._held.set()


@pytest.fixture
async def rig(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[AccountRig]:
    async with account_rig(database, clock, tmp_path) as made:
        yield made


def wait_s(answer: httpx.Response) -> int:
    """Return how long a refusal says to wait; 0 for an answer that is none."""
    if answer.status_code != 429:
        return 0
    assert answer.json()["code"] == "TOO_MANY_ATTEMPTS"
    seconds = int(answer.headers["retry-after"])
    assert f"try again in {seconds} s" in answer.json()["error"]
    return seconds


async def test_one_client_may_try_thirty_times_a_minute_over_all_accounts(
    rig: AccountRig, clock: FakeClock
) -> None:
    """SEC-39."""
    client = rig.client()
    await registered(client)
    statuses = [
        (await logged_in(client, email=f"b{number}@example.com")).status_code
        for number in range(29)
    ]

    assert set(statuses) == {401}
    for answer in (
        await logged_in(client),
        await asked(client, "register", email="c@example.com", password=PASSWORD, name="A"),
        await asked(client, "refresh", refreshToken="x"),
        await asked(client, "verify-email", token="x"),
        await asked(client, "reset-password", token="x", password=PASSWORD),
    ):
        assert wait_s(answer) == 2
    assert (await logged_in(rig.client(ELSEWHERE))).status_code == 200
    clock.advance(2)
    assert (await logged_in(client)).status_code == 200


async def test_who_signs_in_rightly_is_never_slowed_down(rig: AccountRig) -> None:
    """SEC-39."""
    client = rig.client()
    await registered(client)

    statuses = {(await logged_in(client)).status_code for _ in range(40)}

    assert statuses == {200}


async def test_delays_double_and_end_at_a_quarter_of_an_hour(
    rig: AccountRig, clock: FakeClock
) -> None:
    """SEC-39."""
    client = rig.client()
    await registered(client)
    waits: list[int] = []
    for _ in range(17):
        while wait := wait_s(await logged_in(client, WRONG)):
            waits.append(wait)
            clock.advance(wait)

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
    clock.advance(900)
    assert (await logged_in(client)).status_code == 200
    assert (await logged_in(client, WRONG)).status_code == 401


async def test_attempts_from_before_the_clock_went_back_keep_nobody_out(
    rig: AccountRig, clock: FakeClock
) -> None:
    client = rig.client()
    await registered(client)
    for _ in range(8):
        await logged_in(client, WRONG)
    others = [await logged_in(client, email=f"b{number}@example.com") for number in range(30)]
    assert wait_s(others[-1]) > 0

    clock.advance(-3600)

    assert (await logged_in(client)).status_code == 200
    # What is tried from now on counts as ever.
    statuses = [
        (await logged_in(client, email=f"c{number}@example.com")).status_code
        for number in range(31)
    ]
    assert statuses[-1] == 429
    assert statuses[0] == 401


async def test_a_stranger_who_hammers_an_address_does_not_keep_its_owner_out(
    rig: AccountRig, database: Database, clock: FakeClock
) -> None:
    """SEC-39."""
    owner = rig.client(HOME)
    await registered(owner)
    async with database.begin() as tx:
        for number in range(49):
            stranger = f"203.0.113.{number}"
            await rig.accounts._throttle.failed(tx, "a@example.com", stranger)
    waits: list[int] = []
    for number in range(8):
        assert (await logged_in(rig.client(f"192.0.2.{number}"), WRONG)).status_code == 401
        waits.append(wait_s(await logged_in(rig.client("192.0.2.100"))))
        clock.advance(waits[-1] if number < 7 else 0)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]

    assert (await logged_in(owner)).status_code == 200
    new_place = rig.client("192.0.2.100")
    await asked(new_place, "request-password-reset", email="a@example.com")
    token = await rig.server.token(2)
    reset = await asked(new_place, "reset-password", token=token, password=NEW_PASSWORD)
    assert reset.status_code == 200
    assert (await logged_in(new_place, NEW_PASSWORD)).status_code == 200
    # The new password ended what was known of other places: one may have been a thief's.
    assert wait_s(await logged_in(owner, NEW_PASSWORD)) == 60


async def test_an_address_without_an_account_is_slowed_down_like_one_with(
    rig: AccountRig,
) -> None:
    """SEC-38, SEC-39."""
    await registered(rig.client())
    client = rig.client(ELSEWHERE)

    seen = [
        [(await logged_in(client, WRONG, email)).status_code for _ in range(7)]
        for email in ("a@example.com", "nobody@example.com")
    ]

    assert seen == [[401] * 5 + [429] * 2] * 2


async def test_what_was_counted_survives_a_restart_and_holds_for_every_process(
    rig: AccountRig, database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    """SEC-39."""
    client = rig.client()
    await registered(client)
    for _ in range(9):
        await logged_in(client, WRONG)
    again = Database(str(database.engine.url.render_as_string(hide_password=False)))
    try:
        async with account_rig(again, clock, tmp_path / "again") as other:
            there = other.client()
            assert wait_s(await logged_in(there)) == wait_s(await logged_in(client)) == 1
            clock.advance(1)
            assert (await logged_in(there)).status_code == 200
    finally:
        await again.close()


async def test_of_many_guesses_at_once_those_beyond_the_first_tell_nothing(
    database: Database, clock: FakeClock, tmp_path: Path
) -> None:
    """SEC-39."""
    hasher = HeldHasher(workers=1)
    async with account_rig(database, clock, tmp_path, passwords=hasher) as rig:
        await registered(rig.client())
        client = rig.client(ELSEWHERE)
        answers: dict[int, int] = {}
        hasher.hold()

        async def guess(number: int, password: str) -> None:
            answers[number] = (await logged_in(client, password)).status_code

        async with anyio.create_task_group() as tasks:
            # The right guess was let through as well, and gets its turn last.
            for number in range(15):
                tasks.start_soon(guess, number, WRONG)
            await hasher.until_waiting(15)
            tasks.start_soon(guess, 15, PASSWORD)
            await hasher.until_waiting(16)
            hasher.let_go()

        assert answers[15] == 429


async def test_mail_to_one_account_is_sent_three_times_an_hour_and_no_more(
    rig: AccountRig, clock: FakeClock
) -> None:
    """SEC-37, SEC-39."""
    tokens = await registered(rig.client())
    await rig.server.mails(1)

    async def ask(number: int, email: str = "a@example.com") -> int:
        client = rig.client(f"203.0.113.{number}")
        return wait_s(await asked(client, "request-password-reset", email=email))

    assert [await ask(number) for number in range(4)] == [0, 0, 0, 1200]
    assert [await ask(9, f"b{number}@example.com") for number in range(11)] == [0] * 10 + [360]
    resend = await rig.client().post("/api/auth/resend-verification", headers=bearer(tokens))
    assert wait_s(resend) == 1200
    clock.advance(1200)
    assert await ask(5) == 0
    assert len(await rig.server.mails(5)) == 5


async def test_guesses_of_the_present_password_are_slowed_down_apart_from_logins(
    rig: AccountRig,
) -> None:
    """SEC-39."""
    client = rig.client()
    tokens = await registered(client)
    body = {"currentPassword": WRONG, "newPassword": NEW_PASSWORD}
    change = "/api/auth/change-password"

    answers = [await client.post(change, json=body, headers=bearer(tokens)) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [400] * 5 + [429]
    assert (await logged_in(client)).status_code == 200


@pytest.mark.parametrize(("trusted", "counts"), [((), False), (("192.0.2.0/24",), True)])
async def test_a_forwarded_address_counts_only_from_a_trusted_proxy(
    rig: AccountRig, trusted: tuple[str, ...], *, counts: bool
) -> None:
    """SEC-39."""
    rig.trusted_proxies = trusted
    proxy = rig.client("192.0.2.80")
    statuses: list[int] = []

    for number in range(31):
        body = {"email": f"b{number}@example.com", "password": WRONG}
        headers = {"X-Forwarded-For": f"203.0.113.{number}"}
        statuses.append(
            (await proxy.post("/api/auth/login", json=body, headers=headers)).status_code
        )

    assert statuses == [401] * 30 + [401 if counts else 429]


async def test_what_was_counted_is_forgotten_in_time(
    rig: AccountRig, database: Database, clock: FakeClock
) -> None:
    """SEC-39."""
    client = rig.client()
    await registered(client)
    await logged_in(client, WRONG)
    for number in range(25):
        await logged_in(rig.client(f"203.0.113.{number}"))

    async def counted() -> tuple[int | None, int | None]:
        async with database.read() as tx:
            throttles = await tx.scalar(select(func.count()).select_from(ThrottleRow))
            return throttles, await tx.scalar(select(func.count()).select_from(KnownClient))

    assert (await counted())[1] == 20
    clock.advance(6 * 3600 + 1)
    await rig.accounts.forget_expired()
    assert await counted() == (0, 20)
    clock.advance(90 * 86400)
    await rig.accounts.forget_expired()
    assert await counted() == (0, 0)


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", None),
        (None, None),
    ],
)
def test_one_client_is_an_ipv4_address_or_an_ipv6_network(
    address: str | None, client: str | None
) -> None:
    assert client_of(address) == client
