"""What operators can do to accounts, on both databases; and what users can to their sign-ins."""

from dataclasses import replace
from uuid import uuid4

import anyio
import pytest

from craftastic import keys
from craftastic.accounts._passwords import PasswordHasher
from craftastic.accounts.administration import (
    InvitationNotFound,
    LastAdministrator,
    SignInNotFound,
    UserDisabled,
    UserNotFound,
)
from craftastic.accounts.service import (
    BadCredentials,
    BadRefreshToken,
    EmailTaken,
    InvitationNeeded,
    NewAccount,
    SingleUser,
    TokenRevoked,
    UserId,
)
from craftastic.accounts.sign_ins import SignInService
from craftastic.admin.service import AdminService
from tests.contract.test_personal_tokens import Rig, elsewhere, rig
from tests.fakes.people import PASSWORD
from tests.secrecy import canary

__all__ = ["elsewhere", "rig"]

OTHER_PASSWORD = canary("other-password")


async def set_password(rig: Rig, url: str, password: str = PASSWORD) -> None:
    await rig.accounts.recovery.reset_password(url.partition("#token=")[2], password)


async def test_an_account_that_was_made_is_its_persons_by_the_link(rig: Rig) -> None:
    actor = await rig.user("chief")

    person, link = await rig.admin.add_user(actor, "New@Example.com", "New")

    assert (person.email, person.is_admin, person.has_password) == ("new@example.com", False, False)
    assert link.url.startswith("http://127.0.0.1:3000/reset-password#token=")
    assert link.url not in repr(link)
    with pytest.raises(BadCredentials):
        await rig.accounts.login("new@example.com", PASSWORD)
    await set_password(rig, link.url)
    assert (await rig.accounts.login("new@example.com", PASSWORD)).user.id == person.id
    with pytest.raises(EmailTaken):
        await rig.admin.add_user(actor, "new@example.com", "Again")


async def test_the_first_account_is_an_administrator_and_uses_the_one_time_token_up(
    rig: Rig,
) -> None:
    token = await rig.accounts.first_account_token()

    first, _ = await rig.admin.add_user(None, "first@example.com", "First")
    second, _ = await rig.admin.add_user(None, "second@example.com", "Second", is_admin=True)
    third, _ = await rig.admin.add_user(None, "third@example.com", "Third")

    assert token is not None
    assert keys.read_first_account_token(rig.accounts.keys_dir) is None
    assert [one.is_admin for one in (first, second, third)] == [True, True, False]


async def test_a_server_for_one_user_gets_no_second_one(rig: Rig) -> None:
    one_only = AdminService(
        replace(rig.accounts, single_user=lambda: "no room"), rig.tokens, rig.audit
    )
    await one_only.add_user(None, "first@example.com", "First")

    with pytest.raises(SingleUser):
        await one_only.add_user(None, "second@example.com", "Second")


async def test_who_is_disabled_is_out_everywhere_and_can_be_let_in_again(
    rig: Rig, elsewhere: Rig
) -> None:
    chief, victim = await rig.user("chief"), await rig.user("victim")
    tokens = await rig.accounts.login("victim@example.com", PASSWORD)
    caller = await elsewhere.accounts.authenticate(tokens.access_token)

    person = await rig.admin.disable(chief, victim)

    assert person.disabled_at == rig.clock.now()
    with pytest.raises(TokenRevoked):
        await rig.accounts.authenticate(tokens.access_token)
    elsewhere.clock.advance(5)
    assert not await elsewhere.accounts.still_signed_in(caller)
    with pytest.raises(BadRefreshToken):
        await rig.accounts.refresh(tokens.refresh_token)
    with pytest.raises(BadCredentials):
        await rig.accounts.login("victim@example.com", PASSWORD)

    assert (await rig.admin.enable(chief, victim)).disabled_at is None
    with pytest.raises(TokenRevoked):
        await rig.accounts.authenticate(tokens.access_token)
    await rig.accounts.login("victim@example.com", PASSWORD)


async def test_administrators_who_disable_each_other_at_once_leave_one(rig: Rig) -> None:
    both = [
        (await rig.admin.add_user(None, f"{name}@example.com", name, is_admin=True))[0]
        for name in ("one", "two")
    ]
    refused: list[str] = []

    async def disable(by: int, whom: int) -> None:
        try:
            await rig.admin.disable(UserId(both[by].id), both[whom].id)
        except LastAdministrator:
            refused.append(both[whom].email)

    async with anyio.create_task_group() as group:
        group.start_soon(disable, 0, 1)
        group.start_soon(disable, 1, 0)

    enabled = [one.email for one in await rig.admin.list_users() if one.disabled_at is None]
    assert refused == enabled
    assert len(enabled) == 1


async def test_a_reset_voids_the_password_and_everything_that_it_opened(
    rig: Rig, elsewhere: Rig
) -> None:
    chief, victim = await rig.user("chief"), await rig.user("victim")
    tokens = await rig.accounts.login("victim@example.com", PASSWORD)
    access = await rig.tokens.create(victim, "one", "write")
    caller = await elsewhere.accounts.authenticate(access.text)

    person, link = await rig.admin.reset_password(chief, victim)
    _, newer = await rig.admin.reset_password(chief, victim)

    assert not person.has_password
    with pytest.raises(TokenRevoked):
        await rig.accounts.authenticate(tokens.access_token)
    elsewhere.clock.advance(5)
    assert not await elsewhere.accounts.still_signed_in(caller)
    with pytest.raises(BadCredentials):
        await rig.accounts.login("victim@example.com", PASSWORD)
    with pytest.raises(Exception, match="Invalid or expired reset token"):
        await set_password(rig, link.url)
    await set_password(rig, newer.url, OTHER_PASSWORD)
    await rig.accounts.login("victim@example.com", OTHER_PASSWORD)


@pytest.mark.parametrize("act", ["disable", "reset_password"])
async def test_a_login_that_goes_on_meanwhile_leaves_no_sign_in(rig: Rig, act: str) -> None:
    await rig.user("chief")
    victim = await rig.user("victim")

    class Slow(PasswordHasher):
        async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
            found = await rig.accounts.passwords.verify(password, stored)
            await getattr(rig.admin, act)(None, victim)
            return found

    slow = replace(rig.accounts, passwords=Slow())
    with pytest.raises(BadCredentials):
        await slow.login("victim@example.com", PASSWORD)

    assert await SignInService(rig.accounts, rig.audit).list_owned(victim) == []


async def test_what_is_not_there_or_not_enabled_is_refused(rig: Rig) -> None:
    await rig.user("chief")
    victim = await rig.user("victim")
    for act in (rig.admin.disable, rig.admin.enable, rig.admin.reset_password):
        with pytest.raises(UserNotFound):
            await act(None, uuid4())
    await rig.admin.disable(None, victim)

    with pytest.raises(UserDisabled):
        await rig.admin.reset_password(None, victim)
    with pytest.raises(InvitationNotFound):
        await rig.admin.revoke_invitation(None, uuid4())


async def test_users_are_listed_by_address_page_by_page(rig: Rig) -> None:
    for name in ("c", "a", "b"):
        await rig.user(name)

    first = await rig.admin.list_users(limit=2)
    second = await rig.admin.list_users(after=first[-1].email, limit=2)

    assert [one.email[0] for one in (*first, *second)] == ["a", "b", "c"]


async def test_an_invitation_that_was_taken_back_opens_nothing(rig: Rig) -> None:
    chief = await rig.user("chief")
    invite_only = replace(rig.accounts, registration="invite")
    kept = await rig.accounts.create_invitation(chief, email="kept@example.com")
    gone = await rig.accounts.create_invitation(chief)

    await rig.admin.revoke_invitation(chief, gone.id)

    (listed,) = await rig.admin.list_invitations()
    assert (listed.id, listed.email, listed.created_by) == (kept.id, "kept@example.com", chief)
    with pytest.raises(InvitationNeeded):
        await invite_only.register(
            NewAccount(email="x@example.com", password=PASSWORD, name="x", invitation=gone.token)
        )
    with pytest.raises(InvitationNotFound):
        await rig.admin.revoke_invitation(chief, gone.id)


async def test_ones_own_sign_ins_are_listed_and_ended_one_by_one(rig: Rig, elsewhere: Rig) -> None:
    sign_ins = SignInService(rig.accounts, rig.audit)
    owner, other = await rig.user(), await rig.user("b")
    rig.clock.advance(60)
    tokens = await rig.accounts.login("a@example.com", PASSWORD)
    caller = await elsewhere.accounts.authenticate(tokens.access_token)

    newest, first = await sign_ins.list_owned(owner)

    assert newest.id == caller.sign_in_id
    for stranger, sign_in_id in ((other, newest.id), (owner, uuid4())):
        with pytest.raises(SignInNotFound):
            await sign_ins.end(stranger, sign_in_id)
    await sign_ins.end(owner, newest.id)
    assert [one.id for one in await sign_ins.list_owned(owner)] == [first.id]
    with pytest.raises(TokenRevoked):
        await rig.accounts.authenticate(tokens.access_token)
    elsewhere.clock.advance(5)
    assert not await elsewhere.accounts.still_signed_in(caller)
    with pytest.raises(BadRefreshToken):
        await rig.accounts.refresh(tokens.refresh_token)


async def test_what_operators_do_is_on_record_by_whom_and_to_whom(rig: Rig) -> None:
    chief = await rig.user("chief")
    person, link = await rig.admin.add_user(chief, "new@example.com", "New")
    await rig.admin.disable(chief, person.id)
    await rig.admin.enable(chief, person.id)
    await rig.admin.reset_password(chief, person.id)
    invited = await rig.accounts.create_invitation(chief)
    await rig.admin.revoke_invitation(chief, invited.id)

    listed = await rig.audit.list_for(chief)
    found = [(one.action, one.object_id) for one in listed if "." in one.action][::-1]

    assert found[-6:] == [
        *(
            (f"user.{what}", str(person.id))
            for what in ("add", "disable", "enable", "reset_password")
        ),
        ("invitation.create", str(invited.id)),
        ("invitation.revoke", str(invited.id)),
    ]
    assert link.url.partition("=")[2] not in repr(listed)
    assert invited.token not in repr(listed)
