"""Users, environments and sessions in any order, with faults between: a model and the API agree.

REL-17: whatever happened, no answer is a fault of the server, nothing of one user is seen by
another, what is deleted is gone, every session belongs to an environment, names are unique, and
what is in between becomes settled when the fault is over.
"""

import shutil
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

import anyio
import httpx
import hypothesis
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from craftastic.settings import Settings
from tests.contract.conftest import until
from tests.fakes.fuzzing import only_errors_logged
from tests.fakes.people import PASSWORD, bearer, signed_in, state_of
from tests.fakes.tmux_runtime import TmuxRuntime
from tests.fakes.whole_app import whole_app, whole_settings

NAMES = st.sampled_from(["one", "two", "\U0001f680", "$(x)"])
BAD_NAMES = st.sampled_from(["", " ", "a\nb", "x" * 65, "a\0b", "\u202e", " a"])
WHICH = st.integers(0, 23)
MAX_USERS = 3
IN_BETWEEN = (
    "SELECT id FROM environments WHERE status = 'starting'",
    "SELECT id FROM environments WHERE desired = 'deleted' OR claimed_by IS NOT NULL",
    "SELECT id FROM sessions WHERE NOT ready AND NOT deleted AND status <> 'dead'",
    (
        # What a deleted session has in a sandbox that is stopped is removed when that runs again.
        "SELECT id FROM sessions WHERE deleted AND environment_id NOT IN"
        " (SELECT id FROM environments WHERE status <> 'running')"
    ),
)
"""Rows that may not be there when nothing goes on any more."""

SANDBOX_OF = "SELECT id FROM environments WHERE status = 'running'"
TERMINALS = (
    "SELECT s.tmux_name FROM sessions s JOIN environments e ON e.id = s.environment_id"
    " WHERE s.status <> 'dead' AND e.status = 'running'"
)
WAIT_S = 60.0
FOREIGN = [
    ("GET", "/api/environments/{environment}", None),
    ("PATCH", "/api/environments/{environment}", {"name": "mine now"}),
    ("POST", "/api/environments/{environment}/retry", None),
    ("DELETE", "/api/environments/{environment}", None),
    ("GET", "/api/environments/{environment}/variables", None),
    ("GET", "/api/sessions/environment/{environment}", None),
    ("GET", "/api/sessions/check-name/{environment}/one", None),
    ("POST", "/api/sessions", {"environmentId": "{environment}", "name": "mine"}),
    ("POST", "/api/cleanup/environment/{environment}", None),
    ("GET", "/api/sessions/{session}", None),
    ("GET", "/api/sessions/{session}/status", None),
    ("PATCH", "/api/sessions/{session}", {"status": "dead"}),
    ("DELETE", "/api/sessions/{session}", None),
    ("POST", "/api/terminal/ticket", {"sessionId": "{session}"}),
]
"""What a user may ask for of others' things, and gets nothing of."""


@dataclass
class User:
    email: str
    headers: dict[str, str] = field(repr=False)
    id: str
    environments: dict[str, str] = field(default_factory=dict[str, str])
    """Names by id."""
    sessions: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """Environments' ids and names by id."""


@dataclass
class Server:
    """A server process on a database and a runtime that outlive it."""

    settings: Settings
    runtime: TmuxRuntime = field(default_factory=TmuxRuntime)
    portal: BlockingPortal = field(init=False)
    client: httpx.AsyncClient = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self.portal = self._stack.enter_context(start_blocking_portal())
        self.client = self._stack.enter_context(
            self.portal.wrap_async_context_manager(self._running())
        )

    def stop(self) -> None:
        self._stack.close()

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[httpx.AsyncClient]:
        async with whole_app(self.settings, self.runtime) as (client, _):
            yield client

    def ask(self, method: str, path: str, user: User | None, body: Any = None) -> httpx.Response:
        return self.portal.call(self._ask, method, path, user, body)

    def ask_twice(
        self, method: str, path: str, user: User, body: Any
    ) -> tuple[httpx.Response, httpx.Response]:
        """Send a request twice at the same time."""
        asked = [self.portal.start_task_soon(self._ask, method, path, user, body) for _ in range(2)]
        return asked[0].result(), asked[1].result()

    def begin(self, method: str, path: str, user: User, body: Any) -> Future[httpx.Response]:
        return self.portal.start_task_soon(self._ask, method, path, user, body)

    async def _ask(self, method: str, path: str, user: User | None, body: Any) -> httpx.Response:
        headers = user.headers if user else {}
        return await self.client.request(method, path, json=body, headers=headers)

    async def rows(self, statement: str) -> list[str]:
        database = state_of(self.client)["environments"].database
        async with database.read() as tx:
            return [str(row[0]) for row in await tx.execute(text(statement))]


def has_environments(life: "Life") -> bool:
    return any(user.environments for user in life.users)


def has_sessions(life: "Life") -> bool:
    return any(user.sessions for user in life.users)


class Life(RuleBasedStateMachine):
    """What users do, and what happens to the server meanwhile."""

    servers: ClassVar[Iterator[Server]]

    def __init__(self) -> None:
        super().__init__()
        self.server = next(self.servers)
        self.server.start()
        self.users: list[User] = []
        self.gone: list[tuple[User, str]] = []
        """Paths of what was deleted, with whose it was."""

    @initialize()
    def an_administrator_and_two_users(self) -> None:
        token = self.server.portal.call(self._setup_token)
        self.chief = self._registered("chief@example.com", setupToken=token)
        for number in range(2):
            self.another_signs_up()
            self.makes_an_environment(number, "one")
            self.begins_a_session(number, "two")

    # ---- users --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.users) < MAX_USERS)
    @rule()
    def another_signs_up(self) -> None:
        self.users.append(self._registered(f"user{len(self.users)}@example.com"))

    @rule(who=WHICH)
    def signs_out_everywhere(self, who: int) -> None:
        user = self._user(who)
        old = User(user.email, user.headers, user.id)
        assert self.ask("POST", "/api/auth/logout-all", user).status_code == 200
        assert self.ask("GET", f"/api/environments/user/{user.id}", old).status_code == 401
        self._sign_in(user)

    @rule(who=WHICH)
    def is_disabled_for_a_while(self, who: int) -> None:
        user = self._user(who)
        path = f"/api/admin/users/{user.id}"
        assert self.ask("POST", f"{path}/disable", self.chief).status_code == 200
        assert self.ask("GET", "/api/auth/me", user).status_code == 401
        assert self.ask("POST", f"{path}/enable", self.chief).status_code == 200
        self._sign_in(user)

    # ---- environments -------------------------------------------------------------------------

    @rule(who=WHICH, name=NAMES)
    def makes_an_environment(self, who: int, name: str) -> None:
        user = self._user(who)
        answer = self.ask("POST", "/api/environments", user, {"name": name})
        taken = name in user.environments.values()
        assert answer.status_code == (409 if taken else 200), answer.text
        if not taken:
            self._keep_environment(user, answer)
            assert answer.json()["status"] == ("error" if self._unavailable else "running")

    @rule(who=WHICH, name=BAD_NAMES)
    def gives_a_name_that_is_none(self, who: int, name: str) -> None:
        user = self._user(who)
        answer = self.ask("POST", "/api/environments", user, {"name": name})
        assert answer.status_code == 400, answer.text

    @rule(who=WHICH, name=NAMES)
    def makes_it_twice_at_once(self, who: int, name: str) -> None:
        user = self._user(who)
        answers = self.server.ask_twice("POST", "/api/environments", user, {"name": name})
        taken = name in user.environments.values()
        statuses = sorted(one.status_code for one in answers)
        assert statuses == ([409, 409] if taken else [200, 409]), statuses
        for answer in answers:
            if answer.status_code == 200:
                self._keep_environment(user, answer)

    @precondition(has_environments)
    @rule(which=WHICH, name=NAMES)
    def renames_an_environment(self, which: int, name: str) -> None:
        user, environment = self._environment(which)
        others = {one for key, one in user.environments.items() if key != environment}
        answer = self.ask("PATCH", f"/api/environments/{environment}", user, {"name": name})
        assert answer.status_code == (409 if name in others else 200), answer.text
        if answer.is_success:
            user.environments[environment] = name

    @precondition(has_environments)
    @rule(which=WHICH)
    def retries_an_environment(self, which: int) -> None:
        user, environment = self._environment(which)
        answer = self.ask("POST", f"/api/environments/{environment}/retry", user)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] in {"running", "stopped", "error"}

    @precondition(has_environments)
    @rule(which=WHICH)
    def deletes_an_environment(self, which: int) -> None:
        user, environment = self._environment(which)
        answer = self.ask("DELETE", f"/api/environments/{environment}", user)
        assert answer.status_code == 200, answer.text
        assert answer.json().get("pending", False) == self._unavailable
        del user.environments[environment]
        self.gone.append((user, f"/api/environments/{environment}"))
        for session in [key for key, one in user.sessions.items() if one[0] == environment]:
            del user.sessions[session]
            self.gone.append((user, f"/api/sessions/{session}"))

    # ---- sessions -----------------------------------------------------------------------------

    @precondition(has_environments)
    @rule(which=WHICH, name=NAMES)
    def begins_a_session(self, which: int, name: str) -> None:
        user, environment = self._environment(which)
        expected = self._expected_of_session(user, environment, name)
        body = {"environmentId": environment, "name": name}
        answer = self.ask("POST", "/api/sessions", user, body)
        assert answer.status_code in expected, answer.text
        self._keep_session(user, environment, name, answer)

    @precondition(has_environments)
    @rule(which=WHICH, name=NAMES)
    def begins_it_twice_at_once(self, which: int, name: str) -> None:
        user, environment = self._environment(which)
        expected = self._expected_of_session(user, environment, name)
        body = {"environmentId": environment, "name": name}
        answers = self.server.ask_twice("POST", "/api/sessions", user, body)
        statuses = sorted(one.status_code for one in answers)
        assert set(statuses) <= expected | {409}, [one.text for one in answers]
        assert statuses != [200, 200]
        assert 200 in statuses or expected != {200}, statuses
        for answer in answers:
            self._keep_session(user, environment, name, answer)

    @precondition(has_sessions)
    @rule(which=WHICH, name=NAMES)
    def renames_a_session(self, which: int, name: str) -> None:
        user, session = self._session(which)
        environment = user.sessions[session][0]
        seen = self._sessions_of(user, environment)
        others = {
            one["name"] for key, one in seen.items() if key != session and one["status"] != "dead"
        }
        taken = seen[session]["status"] != "dead" and name in others
        answer = self.ask("PATCH", f"/api/sessions/{session}", user, {"name": name})
        assert answer.status_code == (409 if taken else 200), answer.text
        if answer.is_success:
            user.sessions[session] = (environment, name)

    @precondition(has_sessions)
    @rule(which=WHICH)
    def ends_a_session(self, which: int) -> None:
        self._set_status(which, "dead", {200})

    @precondition(has_sessions)
    @rule(which=WHICH)
    def brings_a_session_back(self, which: int) -> None:
        self._set_status(which, "inactive", {200, 400, 409})

    @precondition(has_sessions)
    @rule(which=WHICH)
    def asks_how_a_session_is(self, which: int) -> None:
        user, session = self._session(which)
        answer = self.ask("GET", f"/api/sessions/{session}/status", user)
        assert answer.status_code == 200, answer.text

    @precondition(has_sessions)
    @rule(which=WHICH)
    def deletes_a_session(self, which: int) -> None:
        user, session = self._session(which)
        answer = self.ask("DELETE", f"/api/sessions/{session}", user)
        assert answer.status_code == 200, answer.text
        del user.sessions[session]
        self.gone.append((user, f"/api/sessions/{session}"))

    # ---- others' things -----------------------------------------------------------------------

    @precondition(has_sessions)
    @rule(who=WHICH, which=WHICH, what=st.sampled_from(FOREIGN))
    def tries_what_is_anothers(self, who: int, which: int, what: tuple[str, str, Any]) -> None:
        owner, session = self._session(which)
        others = [user for user in self.users if user is not owner]
        user = others[who % len(others)]
        told: list[str] = []
        for ids in (
            {"session": session, "environment": owner.sessions[session][0]},
            {"session": str(uuid4()), "environment": str(uuid4())},
        ):
            method, path, body = what
            sent = body and {key: value.format(**ids) for key, value in body.items()}
            answer = self.ask(method, path.format(**ids), user, sent)
            assert answer.status_code == 404, answer.text
            told.append(answer.text.replace(answer.headers["x-request-id"], ""))
        assert told[0] == told[1]
        assert self.ask("GET", f"/api/environments/user/{owner.id}", user).status_code == 403

    # ---- what happens to the server -----------------------------------------------------------

    @rule(down=st.booleans())
    def runtime_goes_and_comes(self, down: bool) -> None:
        self.server.runtime.faults.unavailable = "The runtime does not answer." if down else None

    @precondition(has_environments)
    @rule(which=WHICH)
    def sandbox_vanishes(self, which: int) -> None:
        _, environment = self._environment(which)
        self.server.runtime.vanish(UUID(environment))

    @rule()
    def server_starts_again(self) -> None:
        self.server.stop()
        self.server.start()

    @precondition(lambda self: not self._unavailable)
    @rule(who=WHICH, name=NAMES)
    def server_dies_while_an_environment_starts(self, who: int, name: str) -> None:
        user = self._user(who)
        if name in user.environments.values():
            return
        runtime = self.server.runtime
        runtime.shut()
        asked = self.server.begin("POST", "/api/environments", user, {"name": name})
        self.server.portal.call(_within, runtime.at_the_gate)
        asked.cancel()
        self.server.stop()
        runtime.gate = None
        self.server.start()
        # The client has no answer; what was committed is there.
        listed = self._listed(user)
        new = [key for key in listed if key not in user.environments]
        assert [listed[key]["name"] for key in new] == [name]
        user.environments[new[0]] = name
        self.server.portal.call(self._started, user, new[0])

    @rule()
    def everything_settles(self) -> None:
        self.server.runtime.faults.unavailable = None
        self.server.portal.call(self._settled)
        running = self.server.portal.call(self.server.rows, SANDBOX_OF)
        kept = self.server.runtime.kept
        assert {UUID(one) for one in running} == kept
        assert self.server.runtime.storage <= {
            UUID(key) for user in self.users for key in user.environments
        }
        names = set[str]().union(*self.server.runtime.sessions.values())
        assert set(self.server.portal.call(self.server.rows, TERMINALS)) <= names
        chain = self.ask("GET", "/api/admin/audit/verify", self.chief)
        assert chain.status_code == 200, chain.text

    # ---- what always holds --------------------------------------------------------------------

    @invariant()
    def each_sees_exactly_what_is_theirs(self) -> None:
        for user in self.users:
            listed = self._listed(user)
            assert {key: one["name"] for key, one in listed.items()} == user.environments
            assert len(set(user.environments.values())) == len(user.environments)
            sessions = {
                one["id"]: (one["environmentId"], one["name"])
                for environment in listed.values()
                for one in environment["sessions"]
            }
            assert sessions == user.sessions
            for environment in listed.values():
                living = [one["name"] for one in environment["sessions"] if one["status"] != "dead"]
                assert len(living) == len(set(living))

    @invariant()
    def what_is_deleted_is_gone(self) -> None:
        for user, path in self.gone[-2:]:
            assert self.ask("GET", path, user).status_code == 404

    def teardown(self) -> None:
        try:
            if self.users:
                self.everything_settles()
                self.each_sees_exactly_what_is_theirs()
        finally:
            self.server.stop()

    # ---- parts --------------------------------------------------------------------------------

    def ask(self, method: str, path: str, user: User | None, body: Any = None) -> httpx.Response:
        answer = self.server.ask(method, path, user, body)
        allowed = {503} if self._unavailable else set[int]()
        assert answer.status_code < 500 or answer.status_code in allowed, answer.text
        return answer

    @property
    def _unavailable(self) -> bool:
        return self.server.runtime.faults.unavailable is not None

    def _user(self, which: int) -> User:
        return self.users[which % len(self.users)]

    def _environment(self, which: int) -> tuple[User, str]:
        every = [(user, one) for user in self.users for one in user.environments]
        return every[which % len(every)]

    def _session(self, which: int) -> tuple[User, str]:
        every = [(user, one) for user in self.users for one in user.sessions]
        return every[which % len(every)]

    def _listed(self, user: User) -> dict[str, Any]:
        answer = self.ask("GET", f"/api/environments/user/{user.id}", user)
        assert answer.status_code == 200, answer.text
        return {one["id"]: one for one in answer.json()["environments"]}

    def _sessions_of(self, user: User, environment: str) -> dict[str, Any]:
        answer = self.ask("GET", f"/api/sessions/environment/{environment}", user)
        assert answer.status_code == 200, answer.text
        return {one["id"]: one for one in answer.json()["sessions"]}

    def _expected_of_session(self, user: User, environment: str, name: str) -> set[int]:
        if self._unavailable:
            return {400, 409, 503}
        if self._listed(user)[environment]["status"] == "error":
            return {400}
        seen = self._sessions_of(user, environment).values()
        taken = any(one["name"] == name and one["status"] != "dead" for one in seen)
        return {409} if taken else {200}

    def _set_status(self, which: int, status: str, expected: set[int]) -> None:
        user, session = self._session(which)
        answer = self.ask("PATCH", f"/api/sessions/{session}", user, {"status": status})
        allowed = expected | ({400, 409, 503} if self._unavailable else set())
        assert answer.status_code in allowed, answer.text

    def _keep_environment(self, user: User, answer: httpx.Response) -> None:
        made = answer.json()
        user.environments[made["id"]] = made["name"]

    def _keep_session(
        self, user: User, environment: str, name: str, answer: httpx.Response
    ) -> None:
        if answer.is_success:
            made = answer.json()
            assert (made["environmentId"], made["name"]) == (environment, name)
            user.sessions[made["id"]] = (environment, name)

    def _registered(self, email: str, **more: str) -> User:
        headers = self.server.portal.call(lambda: signed_in(self.server.client, email, **more))
        user = User(email, headers, "")
        user.id = self.ask("GET", "/api/auth/me", user).json()["data"]["user"]["id"]
        return user

    def _sign_in(self, user: User) -> None:
        body = {"email": user.email, "password": PASSWORD}
        answer = self.ask("POST", "/api/auth/login", None, body)
        assert answer.status_code == 200, answer.text
        user.headers = bearer(answer.json()["data"]["accessToken"])

    async def _setup_token(self) -> str:
        return await state_of(self.server.client)["accounts"].first_account_token() or ""

    async def _started(self, user: User, environment: str) -> None:
        """Wait until an environment that the last server left half made is begun again."""

        async def begun() -> bool:
            path = f"/api/environments/{environment}"
            answer = await self.server.client.get(path, headers=user.headers)
            return answer.json()["status"] == "running"

        await until(begun, "the environment runs")

    async def _settled(self) -> None:
        """Wait until the server has done what is left to do."""
        reconcile = state_of(self.server.client)["reconcile"]
        left: list[str] = []

        async def nothing_is_left() -> bool:
            assert await reconcile.run_now()
            left[:] = [row for each in IN_BETWEEN for row in await self.server.rows(each)]
            return not left

        try:
            await until(nothing_is_left, "no row is in between")
        except AssertionError:
            raise AssertionError(f"not settled: {left}") from None


async def _within(event: anyio.Event) -> None:
    with anyio.fail_after(WAIT_S):
        await event.wait()


@pytest.fixture
def machine(tmp_path: Path, sqlite_template: Path) -> Iterator[type[Life]]:
    """Give the machine, each of whose lives has a server of its own."""

    def servers() -> Iterator[Server]:
        while True:
            folder = tmp_path / uuid4().hex
            folder.mkdir()
            shutil.copy(sqlite_template, folder / "a.db")
            # The server's own rounds would come at another moment in every run.
            url = f"sqlite:///{folder / 'a.db'}"
            yield Server(whole_settings(folder, url, reconcile_interval_s=3600))

    with only_errors_logged():
        yield type("ALife", (Life,), {"servers": servers()})


def settings_of(lives: int, steps: int, *, same: bool) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=lives,
        stateful_step_count=steps,
        deadline=None,
        derandomize=same,
        phases=[Phase.generate] if same else [Phase.generate, Phase.shrink],
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def test_whatever_users_do_and_whatever_happens_the_api_agrees_with_the_model(
    machine: type[Life],
) -> None:
    run_state_machine_as_test(machine, settings=settings_of(12, 25, same=True))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_same_for_many_long_lives(machine: type[Life]) -> None:
    run_state_machine_as_test(machine, settings=settings_of(40, 40, same=False))
