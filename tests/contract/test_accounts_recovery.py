"""Confirmed addresses and other passwords, by real mail, on both databases."""

import io
import logging
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import httpx
import pytest
import structlog
from fastapi import APIRouter
from sqlalchemy import event, update

from craftastic import logs
from craftastic.accounts._passwords import PasswordHasher
from craftastic.accounts._repository import User
from craftastic.accounts.current_user import CurrentUser
from craftastic.database import Base, Database
from tests.contract.conftest import until
from tests.fakes.account_rig import (
    BASE_URL,
    NEW_PASSWORD,
    PASSWORD,
    AccountRig,
    account_rig,
    asked,
    bearer,
    logged_in,
    quick_hasher,
    registered,
)
from tests.fakes.clock import FakeClock
from tests.fakes.mail_server import text_of

BAD_VERIFICATION = (400, "INVALID_VERIFICATION_TOKEN", "Invalid or expired verification token")
BAD_RESET = (400, "INVALID_RESET_TOKEN", "Invalid or expired reset token")
MOST_TELLING_MS = 10.0
"""How much longer one of two cases may take that must not be told apart."""


@pytest.fixture
async def rig(database: Database, clock: FakeClock, tmp_path: Path) -> AsyncIterator[AccountRig]:
    async with account_rig(database, clock, tmp_path, attempts_per_minute=10_000) as made:
        yield made


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    assert body["success"] is False
    return answer.status_code, body["code"], body["error"]


def done(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"success", "message"}
    return answer.json()["message"]


async def reset_token(rig: AccountRig, client: httpx.AsyncClient) -> str:
    """Ask for a reset of the account that was just registered, and return the mailed token."""
    before = len(rig.server.taken)
    done(await asked(client, "request-password-reset", email="a@example.com"))
    return await rig.server.token(before + 1)


async def test_a_new_address_is_confirmed_by_the_mailed_link_once(rig: AccountRig) -> None:
    """SEC-37."""
    client = rig.client()
    tokens = await registered(client)
    assert tokens["user"]["emailVerified"] is False
    token = await rig.server.token(1)
    assert f"{BASE_URL}/verify-email#token={token}" in text_of(rig.server.taken[0])

    first = await asked(client, "verify-email", token=token)
    second = await asked(client, "verify-email", token=token)

    assert done(first) == "Email verified successfully"
    assert refusal(second) == BAD_VERIFICATION
    rig.accounts.look_again([(await rig.accounts.authenticate(tokens["accessToken"])).sign_in_id])
    me = await client.get("/api/auth/me", headers=bearer(tokens))
    assert me.json()["data"]["user"]["emailVerified"] is True
    again = await client.post("/api/auth/resend-verification", headers=bearer(tokens))
    assert again.status_code == 200
    assert len(rig.server.taken) == 1


async def test_a_mailed_password_replaces_the_old_one_and_ends_every_sign_in(
    rig: AccountRig,
) -> None:
    """SEC-36, SEC-37."""
    client = rig.client()
    tokens = await registered(client)
    await rig.server.mails(1)
    token = await reset_token(rig, client)
    assert f"{BASE_URL}/reset-password#token={token}" in text_of(rig.server.taken[1])

    weak = await asked(client, "reset-password", token=token, password="password123")
    answer = await asked(client, "reset-password", token=token, password=NEW_PASSWORD)

    assert refusal(weak)[1] == "BAD_PASSWORD"
    assert done(answer) == "Password reset successfully"
    assert refusal(await logged_in(client))[0] == 401
    fresh = (await logged_in(client, NEW_PASSWORD)).json()["data"]
    assert fresh["user"]["emailVerified"] is True
    assert (await client.get("/api/auth/me", headers=bearer(tokens))).status_code == 401
    old = await asked(client, "refresh", refreshToken=tokens["refreshToken"])
    assert old.status_code == 401
    again = await asked(client, "reset-password", token=token, password=NEW_PASSWORD)
    assert refusal(again) == BAD_RESET
    told = (await rig.server.mails(3))[2]
    assert (told["Subject"], "token" in text_of(told)) == ("Your password was changed", False)


async def test_a_password_is_changed_by_the_present_one_and_the_caller_is_signed_out_too(
    rig: AccountRig, clock: FakeClock
) -> None:
    """SEC-36."""
    client = rig.client()
    tokens = await registered(client)
    await rig.server.mails(1)
    elsewhere = rig.client(attempts_per_minute=10_001)  # another process: it remembers for itself
    assert (await elsewhere.get("/api/auth/me", headers=bearer(tokens))).status_code == 200

    async def change(current: str) -> httpx.Response:
        body = {"currentPassword": current, "newPassword": NEW_PASSWORD}
        return await client.post("/api/auth/change-password", json=body, headers=bearer(tokens))

    wrong = await change("not-the-password")
    assert refusal(wrong) == (400, "WRONG_PASSWORD", "Current password is incorrect")
    assert done(await change(PASSWORD)) == "Password changed successfully"

    assert (await client.get("/api/auth/me", headers=bearer(tokens))).status_code == 401
    clock.advance(5)
    assert (await elsewhere.get("/api/auth/me", headers=bearer(tokens))).status_code == 401
    old = await asked(client, "refresh", refreshToken=tokens["refreshToken"])
    assert old.status_code == 401
    assert (await logged_in(client)).status_code == 401
    assert (await logged_in(client, NEW_PASSWORD)).status_code == 200
    assert (await rig.server.mails(2))[1]["Subject"] == "Your password was changed"


@pytest.mark.parametrize("purpose", ["verify", "reset"])
async def test_of_many_uses_of_one_token_at_once_exactly_one_works(
    rig: AccountRig, purpose: str
) -> None:
    """SEC-37."""
    client = rig.client()
    await registered(client)
    token = await rig.server.token(1)
    if purpose == "reset":
        token = await reset_token(rig, client)
    statuses: list[int] = []

    async def use(number: int) -> None:
        if purpose == "verify":
            answer = await asked(client, "verify-email", token=token)
        else:
            password = f"{NEW_PASSWORD}-{number}"
            answer = await asked(client, "reset-password", token=token, password=password)
        statuses.append(answer.status_code)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(use, number)

    assert sorted(statuses) == [200] + [400] * 19


async def test_a_token_has_its_time_and_a_newer_one_ends_it(
    rig: AccountRig, clock: FakeClock
) -> None:
    """SEC-37."""
    client = rig.client()
    tokens = await registered(client)
    old = await rig.server.token(1)
    await client.post("/api/auth/resend-verification", headers=bearer(tokens))
    new = await rig.server.token(2)

    assert refusal(await asked(client, "verify-email", token=old)) == BAD_VERIFICATION
    clock.advance(24 * 3600 - 1)
    reset = await reset_token(rig, client)
    newer = await reset_token(rig, client)
    gone = await asked(client, "reset-password", token=reset, password=NEW_PASSWORD)
    assert refusal(gone) == BAD_RESET
    clock.advance(1)
    assert refusal(await asked(client, "verify-email", token=new)) == BAD_VERIFICATION
    clock.advance(30 * 60)
    late = await asked(client, "reset-password", token=newer, password=NEW_PASSWORD)
    assert refusal(late) == BAD_RESET
    assert (await logged_in(client)).status_code == 200


async def test_a_token_is_good_for_its_purpose_only(rig: AccountRig) -> None:
    """SEC-37."""
    client = rig.client()
    await registered(client)
    verification = await rig.server.token(1)
    reset = await reset_token(rig, client)

    crossed = await asked(client, "reset-password", token=verification, password=NEW_PASSWORD)

    assert refusal(crossed) == BAD_RESET
    assert refusal(await asked(client, "verify-email", token=reset)) == BAD_VERIFICATION
    for token in (verification, reset):
        as_refresh = await asked(client, "refresh", refreshToken=token)
        as_access = await client.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"})
        assert (as_refresh.status_code, as_access.status_code) == (401, 401)
    assert (await asked(client, "verify-email", token=verification)).status_code == 200
    final = await asked(client, "reset-password", token=reset, password=NEW_PASSWORD)
    assert final.status_code == 200


async def test_a_token_is_in_no_answer_no_log_and_not_in_the_database(
    rig: AccountRig, database: Database
) -> None:
    """SEC-37."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    said: list[str] = []
    try:
        logs.configure(level="debug", format="json", stream=stream)
        client = rig.client()
        client.event_hooks["response"] = [read_into(said)]
        await registered(client)
        verification = await rig.server.token(1)
        reset = await reset_token(rig, client)
        await asked(client, "verify-email", token="x")
        await asked(client, "reset-password", token=verification, password=NEW_PASSWORD)
        async with database.read() as tx:
            tables = Base.metadata.sorted_tables
            rows = [tuple(row) for table in tables for row in await tx.execute(table.select())]
        await asked(client, "reset-password", token=reset, password=NEW_PASSWORD)
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        structlog.reset_defaults()
        logging.getLogger("uvicorn.access").disabled = False

    assert "mail sent" in stream.getvalue()
    for place in (stream.getvalue(), str(rows), "".join(said)):
        assert "a@example.com" in place
        assert [one for one in (verification, reset, PASSWORD, NEW_PASSWORD) if one in place] == []


def read_into(said: list[str]) -> Callable[[httpx.Response], object]:
    async def read(answer: httpx.Response) -> None:
        await answer.aread()
        said.append(answer.text)

    return read


async def test_links_lead_to_the_configured_place_whatever_the_request_says(
    rig: AccountRig,
) -> None:
    """SEC-37."""
    client = rig.client()
    await registered(client)
    await rig.server.mails(1)
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}

    await client.post(
        "/api/auth/request-password-reset", json={"email": "a@example.com"}, headers=headers
    )

    text = text_of((await rig.server.mails(2))[1])
    assert f"{BASE_URL}/reset-password#token=" in text
    assert "evil" not in text


async def test_no_answer_tells_whether_an_address_has_an_account(
    rig: AccountRig, database: Database
) -> None:
    """SEC-38."""
    client = rig.client()
    await registered(client)
    await registered(client, "disabled@example.com")
    await rig.server.mails(2)
    async with database.begin() as tx:
        gone = update(User).where(User.email == "disabled@example.com")
        await tx.execute(gone.values(disabled_at=rig.accounts.clock.now()))
    answers: list[tuple[int, str, dict[str, str]]] = []

    for email in ("a@example.com", "disabled@example.com", "nobody@example.com"):
        answer = await asked(client, "request-password-reset", email=email)
        headers = {k: v for k, v in answer.headers.items() if k != "x-request-id"}
        answers.append((answer.status_code, answer.text, headers))

    assert answers[0] == answers[1] == answers[2]
    assert answers[0][:2] == (
        200,
        '{"success":true,"message":"Password reset email sent if account exists"}',
    )
    await until(lambda: rig.mail.waiting == 0, "all mail was sent")
    assert [mail["To"] for mail in rig.server.taken[2:]] == ["a@example.com"]


@pytest.mark.parametrize("route", ["request-password-reset", "login", "register"])
async def test_known_and_unknown_addresses_cost_the_same_statements(
    rig: AccountRig, database: Database, route: str
) -> None:
    """SEC-38: what `slow` measures by the clock, without one."""
    await registered(rig.client())
    await until(lambda: rig.mail.waiting == 0, "the mail was sent")
    client = rig.client(require_verified_email=True)
    costs: list[list[str]] = []
    statements: list[str] = []

    def record(*execution: object) -> None:
        statements.append(str(execution[2]))

    event.listen(database.engine.sync_engine, "before_cursor_execute", record)
    for email in ("a@example.com", "nobody@example.com"):
        statements.clear()
        await asked(client, route, email=email, password="wrong-password-of-it", name="A")
        costs.append([one for one in statements if "mailed_tokens" not in one])
        await until(lambda: rig.mail.waiting == 0, "the mail was sent")

    assert costs[0] == costs[1]
    assert len(costs[0]) >= 2


async def test_where_addresses_must_be_confirmed_registering_tells_nothing_and_lets_nobody_in(
    rig: AccountRig,
) -> None:
    """SEC-38."""
    client = rig.client(require_verified_email=True)
    await registered(rig.client(), "old@example.com")
    await rig.server.mails(1)

    answers = [
        await asked(client, "register", email=email, password=PASSWORD, name="A")
        for email in ("new@example.com", "old@example.com", "new@example.com")
    ]

    assert len({done(answer) for answer in answers}) == 1
    sent = {mail["To"]: mail for mail in await rig.server.mails(3)}
    await until(lambda: rig.mail.waiting == 0, "all mail was sent")
    subjects = [mail["Subject"] for mail in rig.server.taken[1:]]
    assert sorted(subjects) == ["Confirm your e-mail address", *["Set a new password"] * 2]
    assert "which has an account" in text_of(sent["old@example.com"])

    before = [await logged_in(client, email=f"{who}@example.com") for who in ("new", "old", "no")]
    assert (
        len({(one.status_code, one.json()["error"], one.json()["details"]) for one in before}) == 1
    )
    assert before[0].status_code == 401

    (confirmation,) = [m for m in rig.server.taken if m["To"] == "new@example.com"
                       and m["Subject"] == "Confirm your e-mail address"]  # fmt: skip
    token = text_of(confirmation).partition("#token=")[2].split()[0]
    assert (await asked(client, "verify-email", token=token)).status_code == 200
    assert (await logged_in(client, email="new@example.com")).status_code == 200


async def test_a_sign_in_with_an_unconfirmed_address_opens_nothing_but_accounts(
    rig: AccountRig,
) -> None:
    """SEC-30."""
    router = APIRouter()

    @router.get("/api/things")
    async def things(caller: CurrentUser) -> str:
        return caller.email

    tokens = await registered(rig.client())
    client = rig.client(more_routes=router, require_verified_email=True)

    refused = await client.get("/api/things", headers=bearer(tokens))
    me = await client.get("/api/auth/me", headers=bearer(tokens))
    let_in = await rig.client(more_routes=router).get("/api/things", headers=bearer(tokens))

    assert (refused.status_code, refused.json()["code"]) == (403, "EMAIL_NOT_VERIFIED")
    assert (me.status_code, let_in.status_code) == (200, 200)


async def test_what_happens_to_accounts_is_on_record_once_each_and_without_secrets(
    rig: AccountRig, database: Database
) -> None:
    """SEC-51."""
    client = rig.client()
    client.headers["User-Agent"] = "a browser"
    tokens = await registered(client)
    verification = await rig.server.token(1)
    reset = await reset_token(rig, client)
    await asked(client, "verify-email", token=verification)
    await logged_in(client, "wrong-password")
    await logged_in(client, "wrong-password", "nobody@example.com")
    login = (await logged_in(client)).json()["data"]
    await asked(client, "refresh", refreshToken=login["refreshToken"])
    for _ in range(2):
        await asked(client, "refresh", refreshToken=login["refreshToken"])
    body = {"currentPassword": "wrong-password", "newPassword": NEW_PASSWORD}
    await client.post("/api/auth/change-password", json=body, headers=bearer(tokens))
    await asked(client, "reset-password", token=reset, password=NEW_PASSWORD)
    login = (await logged_in(client, NEW_PASSWORD)).json()["data"]
    await client.post("/api/auth/logout-all", headers=bearer(login))
    login = (await logged_in(client, NEW_PASSWORD)).json()["data"]
    body = {"currentPassword": NEW_PASSWORD, "newPassword": PASSWORD}
    await client.post("/api/auth/change-password", json=body, headers=bearer(login))

    async with database.read() as tx:
        table = Base.metadata.tables["audit_events"]
        rows = (await tx.execute(table.select().order_by(table.c.seq))).mappings().all()

    assert [(row["action"], row["outcome"]) for row in rows] == [
        ("account.register", "ok"),
        ("account.verify", "ok"),
        ("account.login", "refused"),
        ("account.login", "refused"),
        ("account.login", "ok"),
        ("account.refresh", "reused"),
        ("account.change_password", "refused"),
        ("account.reset_password", "ok"),
        ("account.login", "ok"),
        ("account.logout_all", "ok"),
        ("account.login", "ok"),
        ("account.change_password", "ok"),
    ]
    me = tokens["user"]["id"]
    assert [row["object_id"] for row in rows] == [me, me, me, None, *[me] * 8]
    assert [row["actor_id"] is None for row in rows].count(True) == 3
    assert all('"address":"198.51.100.7"' in row["details"] for row in rows)
    assert all('"device":"a browser"' in row["details"] for row in rows)
    assert (await rig.audit.verify()).ok
    secrets = (PASSWORD, NEW_PASSWORD, "wrong-password", verification, reset, "nobody@example.com")
    assert [one for one in secrets if one in str(rows)] == []


@pytest.mark.slow
@pytest.mark.parametrize("route", ["request-password-reset", "login", "register"])
async def test_over_two_hundred_tries_each_no_clock_tells_whether_an_address_has_an_account(
    database: Database, clock: FakeClock, tmp_path: Path, route: str
) -> None:
    """SEC-38: medians within 10 ms."""
    options = {"attempts_per_minute": 100_000, "require_verified_email": True}
    # At a login of full cost, as the hash that stands for an unknown account's.
    hasher = PasswordHasher() if route == "login" else quick_hasher()
    async with account_rig(database, clock, tmp_path, passwords=hasher, **options) as rig:
        client = rig.client()
        body = {"password": "wrong-password-of-it", "name": "A"}
        await asked(client, "register", email="a@example.com", **body)
        await rig.server.mails(1)
        times_ms: dict[bool, list[float]] = {True: [], False: []}
        for number in range(400):
            known = number % 2 == 0
            # Each address is asked for once in an hour at most, and wrong ones are forgotten.
            clock.advance(7 * 3600)
            email = "a@example.com" if known else f"b{number}@example.com"
            started = time.perf_counter()
            answer = await asked(client, route, email=email, **body)
            times_ms[known].append((time.perf_counter() - started) * 1000)
            assert answer.status_code == (401 if route == "login" else 200), answer.text
            await until(lambda: rig.mail.waiting == 0, "the mail was sent")

    difference_ms = statistics.median(times_ms[True]) - statistics.median(times_ms[False])
    print(f"{route}: {difference_ms:+.2f} ms of {statistics.median(times_ms[True]):.1f}")  # noqa: T201
    assert abs(difference_ms) < MOST_TELLING_MS
