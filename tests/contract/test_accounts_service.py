"""What accounts promise, on both databases: registration, sign-ins, revocation."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import anyio
import pytest
import sqlalchemy
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import event, select, update

from craftastic import keys
from craftastic.accounts._passwords import PasswordHasher
from craftastic.accounts._repository import RefreshToken, SignIn, User
from craftastic.accounts._tokens import AccessTokens
from craftastic.accounts.service import (
    AccountService,
    BadCredentials,
    BadEmail,
    BadRefreshToken,
    EmailTaken,
    InvitationNeeded,
    NewAccount,
    RegistrationClosed,
    SetupTokenNeeded,
    SingleUser,
    TokenRevoked,
    Tokens,
    UserId,
)
from craftastic.database import Base, Database
from craftastic.errors import Unauthenticated
from tests.fakes.clock import FakeClock
from tests.secrecy import canary

PASSWORD = canary("password")
Make = Callable[..., AccountService]


@pytest.fixture
def make(database: Database, clock: FakeClock, tmp_path: Path) -> Make:
    def service(**settings: object) -> AccountService:
        options = {"registration": "open"} | settings
        return AccountService(
            database,
            clock,
            AccessTokens(b"k" * 32, 900),
            tmp_path / "keys",
            **options,  # type: ignore[arg-type]
        )

    return service


@pytest.fixture
def accounts(make: Make) -> AccountService:
    return make()


def new(email: str = "a@example.com", **more: str) -> NewAccount:
    return NewAccount(email=email, password=PASSWORD, name="A", **more)


async def register(accounts: AccountService, email: str = "a@example.com") -> Tokens:
    return await accounts.register(new(email))


async def test_an_account_can_sign_in_and_is_recognised(accounts: AccountService) -> None:
    registered = await register(accounts, "A@Example.com")

    tokens = await accounts.login("a@EXAMPLE.com", PASSWORD)
    caller = await accounts.authenticate(tokens.access_token)

    assert caller.user_id == registered.user.id
    assert (caller.email, caller.name, caller.is_admin) == ("a@example.com", "A", False)
    assert len(tokens.refresh_token) == 64
    assert int(tokens.refresh_token, 16) >= 0


async def test_an_address_has_one_account_whatever_its_case(accounts: AccountService) -> None:
    await register(accounts)

    with pytest.raises(EmailTaken, match="User with this email already exists"):
        await register(accounts, " A@EXAMPLE.COM")


async def test_of_many_registrations_of_one_address_exactly_one_wins(
    accounts: AccountService,
) -> None:
    outcomes: list[str] = []

    async def attempt() -> None:
        try:
            await register(accounts)
            outcomes.append("won")
        except EmailTaken:
            outcomes.append("taken")

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(attempt)

    assert sorted(outcomes) == ["taken"] * 19 + ["won"]


@pytest.mark.parametrize(
    "address",
    ["", "a", "a@", "@b.example", "a@b", "a b@example.com", "a@example.com\n.b", "a" * 300],
)
async def test_what_is_no_address_is_refused(accounts: AccountService, address: str) -> None:
    with pytest.raises(BadEmail):
        await register(accounts, address)


async def test_wrong_password_and_unknown_address_answer_alike(accounts: AccountService) -> None:
    await register(accounts)
    errors: list[BadCredentials] = []

    for email, password in [("a@example.com", "wrong-password"), ("b@example.com", PASSWORD)]:
        with pytest.raises(BadCredentials) as caught:
            await accounts.login(email, password)
        errors.append(caught.value)

    assert errors[0].message == errors[1].message == "Invalid email or password"
    assert errors[0].code == errors[1].code


async def test_an_account_without_a_password_is_never_signed_in(
    accounts: AccountService, database: Database
) -> None:
    await register(accounts)
    async with database.begin() as tx:
        await tx.execute(update(User).values(password_hash=None))

    with pytest.raises(BadCredentials):
        await accounts.login("a@example.com", PASSWORD)
    with pytest.raises(EmailTaken):
        await register(accounts)


async def test_a_disabled_account_is_out_at_once_or_in_five_seconds(
    accounts: AccountService, database: Database, clock: FakeClock
) -> None:
    tokens = await register(accounts)
    caller = await accounts.authenticate(tokens.access_token)
    async with database.begin() as tx:
        await tx.execute(update(User).values(disabled_at=clock.now()))

    clock.advance(5)

    with pytest.raises(TokenRevoked):
        await accounts.authenticate(tokens.access_token)
    assert not await accounts.still_signed_in(caller)
    with pytest.raises(BadRefreshToken):
        await accounts.refresh(tokens.refresh_token)
    with pytest.raises(BadCredentials):
        await accounts.login("a@example.com", PASSWORD)


async def test_a_hash_of_lesser_cost_is_replaced_at_login(
    accounts: AccountService, database: Database
) -> None:
    await register(accounts)
    weak = Argon2Hasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    async with database.begin() as tx:
        await tx.execute(update(User).values(password_hash=weak))

    await accounts.login("a@example.com", PASSWORD)

    async with database.read() as tx:
        stored = await tx.scalar(select(User.password_hash))
    assert stored is not None
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    await accounts.login("a@example.com", PASSWORD)


async def test_the_first_account_needs_the_one_time_token(make: Make, tmp_path: Path) -> None:
    accounts = make(registration="invite")
    token = await accounts.first_account_token()
    assert token is not None
    assert (tmp_path / "keys" / "first-account-token").stat().st_mode & 0o777 == 0o600

    with pytest.raises(SetupTokenNeeded):
        await accounts.register(new())
    with pytest.raises(SetupTokenNeeded):
        await accounts.register(new(setup_token="x" * 43))
    tokens = await accounts.register(new(setup_token=token))

    assert (await accounts.authenticate(tokens.access_token)).is_admin
    assert await accounts.first_account_token() is None
    assert keys.read_first_account_token(tmp_path / "keys") is None
    with pytest.raises(SetupTokenNeeded):
        await accounts.register(new("b@example.com", setup_token=token))


async def test_one_token_makes_one_administrator_under_a_race(
    make: Make, database: Database
) -> None:
    accounts = make(registration="invite")
    token = await accounts.first_account_token()
    refused: list[str] = []

    async def attempt(number: int) -> None:
        try:
            await accounts.register(new(f"{number}@example.com", setup_token=token or ""))
        except SetupTokenNeeded as error:
            refused.append(error.message)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(attempt, number)

    async with database.read() as tx:
        users = list(await tx.scalars(select(User)))
    assert len(users) == 1
    assert users[0].is_admin
    assert len(refused) == 9


async def test_an_invitation_lets_one_account_in(make: Make) -> None:
    accounts = make(registration="invite")
    token = await accounts.first_account_token()
    admin = await accounts.register(new(setup_token=token or ""))
    invited = await accounts.create_invitation(UserId(admin.user.id))
    outcomes: list[str] = []

    with pytest.raises(InvitationNeeded):
        await accounts.register(new("b@example.com"))

    async def attempt(number: int) -> None:
        try:
            await accounts.register(new(f"{number}@example.com", invitation=invited.token))
            outcomes.append("won")
        except InvitationNeeded:
            outcomes.append("refused")

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(attempt, number)

    assert sorted(outcomes) == ["refused"] * 4 + ["won"]


async def test_an_invitation_for_an_address_is_for_that_address_and_ends(
    make: Make, clock: FakeClock
) -> None:
    accounts = make(registration="invite")
    token = await accounts.first_account_token()
    await accounts.register(new(setup_token=token or ""))
    invited = await accounts.create_invitation(None, email="B@example.com", ttl_s=60)

    with pytest.raises(InvitationNeeded):
        await accounts.register(new("c@example.com", invitation=invited.token))
    clock.advance(61)
    with pytest.raises(InvitationNeeded):
        await accounts.register(new("b@example.com", invitation=invited.token))


async def test_closed_means_closed_after_the_first(make: Make) -> None:
    accounts = make(registration="closed")
    token = await accounts.first_account_token()
    await accounts.register(new(setup_token=token or ""))

    with pytest.raises(RegistrationClosed):
        await accounts.register(new("b@example.com"))


async def test_a_single_user_server_refuses_a_second_account_with_the_reason(make: Make) -> None:
    accounts = make(single_user=lambda: "sandboxes have no user ids of their own")
    await register(accounts)

    with pytest.raises(SingleUser) as caught:
        await register(accounts, "b@example.com")

    assert caught.value.details == "sandboxes have no user ids of their own"


async def test_a_refresh_token_works_once_and_its_reuse_ends_the_family(
    accounts: AccountService,
) -> None:
    first = await register(accounts)
    other_device = await accounts.login("a@example.com", PASSWORD)
    second = await accounts.refresh(first.refresh_token)
    assert second.refresh_token != first.refresh_token
    await accounts.authenticate(second.access_token)

    with pytest.raises(BadRefreshToken, match="Invalid or expired refresh token"):
        await accounts.refresh(first.refresh_token)

    with pytest.raises(BadRefreshToken):
        await accounts.refresh(second.refresh_token)
    with pytest.raises(TokenRevoked):
        await accounts.authenticate(second.access_token)
    await accounts.authenticate(other_device.access_token)
    await accounts.refresh(other_device.refresh_token)


async def test_of_fifty_parallel_uses_exactly_one_gets_tokens(accounts: AccountService) -> None:
    tokens = await register(accounts)
    outcomes: list[str] = []

    async def use() -> None:
        try:
            await accounts.refresh(tokens.refresh_token)
            outcomes.append("tokens")
        except BadRefreshToken:
            outcomes.append("refused")

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(use)

    assert sorted(outcomes) == ["refused"] * 49 + ["tokens"]


async def test_a_refresh_token_ends_with_its_time(
    accounts: AccountService, clock: FakeClock
) -> None:
    tokens = await register(accounts)

    clock.advance(30 * 86400 + 1)

    with pytest.raises(BadRefreshToken):
        await accounts.refresh(tokens.refresh_token)


async def test_logout_ends_the_sign_in_and_no_other(accounts: AccountService) -> None:
    one = await register(accounts)
    two = await accounts.login("a@example.com", PASSWORD)
    caller = await accounts.authenticate(one.access_token)
    assert await accounts.still_signed_in(caller)

    await accounts.logout(one.refresh_token)
    await accounts.logout("f" * 64)

    assert not await accounts.still_signed_in(caller)
    with pytest.raises(TokenRevoked):
        await accounts.authenticate(one.access_token)
    with pytest.raises(BadRefreshToken):
        await accounts.refresh(one.refresh_token)
    await accounts.authenticate(two.access_token)


async def test_logout_all_is_seen_by_another_process_within_five_seconds(
    make: Make, clock: FakeClock
) -> None:
    here, elsewhere = make(), make()
    tokens = await register(here)
    caller = await elsewhere.authenticate(tokens.access_token)

    await here.logout_all(caller.user_id)

    with pytest.raises(TokenRevoked):
        await here.authenticate(tokens.access_token)
    clock.advance(5)
    with pytest.raises(TokenRevoked):
        await elsewhere.authenticate(tokens.access_token)
    assert not await elsewhere.still_signed_in(caller)
    with pytest.raises(BadRefreshToken):
        await here.refresh(tokens.refresh_token)
    again = await here.login("a@example.com", PASSWORD)
    await here.authenticate(again.access_token)


async def test_an_access_token_without_its_sign_in_is_nothing(
    accounts: AccountService, database: Database, clock: FakeClock
) -> None:
    tokens = await register(accounts)
    async with database.begin() as tx:
        await tx.execute(sqlalchemy.delete(SignIn))

    with pytest.raises(Unauthenticated):
        await accounts.authenticate(tokens.access_token)


async def test_checking_a_token_again_costs_no_query(
    accounts: AccountService, database: Database
) -> None:
    tokens = await register(accounts)
    await accounts.authenticate(tokens.access_token)
    statements: list[str] = []

    def record(*execution: object) -> None:
        statements.append(str(execution[2]))

    event.listen(database.engine.sync_engine, "before_cursor_execute", record)
    for _ in range(10):
        await accounts.authenticate(tokens.access_token)

    assert statements == []


async def test_what_expired_is_forgotten(
    accounts: AccountService, database: Database, clock: FakeClock
) -> None:
    await register(accounts)
    clock.advance(10 * 86400)
    tokens = await accounts.login("a@example.com", PASSWORD)
    clock.advance(25 * 86400)

    assert await accounts.forget_expired() == 2

    async with database.read() as tx:
        assert len(list(await tx.scalars(select(RefreshToken)))) == 1
    await accounts.refresh(tokens.refresh_token)


async def test_the_database_holds_no_secret_as_it_is(make: Make, database: Database) -> None:
    accounts = make(registration="invite")
    setup = await accounts.first_account_token()
    tokens = await accounts.register(new(setup_token=setup or ""))
    renewed = await accounts.refresh(tokens.refresh_token)
    invited = await accounts.create_invitation(None)
    secrets = [PASSWORD, setup, tokens.refresh_token, renewed.refresh_token, invited.token,
               tokens.access_token]  # fmt: skip

    dump = ""
    async with database.read() as tx:
        for table in Base.metadata.sorted_tables:
            dump += "".join(str(tuple(row)) for row in await tx.execute(table.select()))

    assert hashlib.sha256(renewed.refresh_token.encode()).hexdigest() in dump
    assert [secret for secret in secrets if secret and secret in dump] == []


async def test_sign_ins_belong_to_their_user(accounts: AccountService, database: Database) -> None:
    one = await register(accounts)
    await register(accounts, "b@example.com")

    await accounts.logout_all(UserId(UUID(str(one.user.id))))

    other = await accounts.login("b@example.com", PASSWORD)
    await accounts.authenticate(other.access_token)


@pytest.mark.slow
async def test_two_hundred_logins_at_once_are_bounded_and_leave_the_loop_free(
    make: Make,
) -> None:
    accounts = make(passwords=PasswordHasher(workers=2))
    tokens = await register(accounts)
    outcomes: list[str] = []
    slowest_s = 0.0

    async def attempt() -> None:
        try:
            await accounts.login("a@example.com", PASSWORD)
            outcomes.append("in")
        except Exception as error:  # noqa: BLE001 - counted below
            outcomes.append(type(error).__name__)

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(attempt)
        while len(outcomes) < 200:
            before = anyio.current_time()
            await accounts.authenticate(tokens.access_token)
            await anyio.sleep(0.005)
            slowest_s = max(slowest_s, anyio.current_time() - before)

    assert set(outcomes) <= {"in", "TooBusy"}
    assert outcomes.count("in") >= 20
    assert slowest_s < 1.0
