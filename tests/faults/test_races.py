"""F21 and F24: many want the same at once, or the opposite; one wins, and nothing is left over."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.e2e.harness import Api, Server, Viewer, until
from tests.faults._figures import note
from tests.faults._invariants import hold

pytestmark = [pytest.mark.fault, pytest.mark.slow]

ROUNDS = 20
AT_ONCE = 100
KEY = "Idempotency-Key"
EVERYWHERE = [
    pytest.param("docker", "sqlite", marks=pytest.mark.docker),
    pytest.param("local", "sqlite", marks=pytest.mark.local),
    pytest.param("local", "postgres", marks=[pytest.mark.local, pytest.mark.postgres]),
]
"""Both runtimes and both databases, without the fourth pair: they do not know of each other."""

in_both = pytest.mark.parametrize(("runtime", "database_url"), EVERYWHERE, indirect=True)
in_both_runtimes = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with Api(server.url) as api:
        api.client = httpx.AsyncClient(
            base_url=server.url, timeout=240, limits=httpx.Limits(max_connections=AT_ONCE)
        )
        await api.register("a@example.com", setupToken=server.setup_token)
        yield api


async def at_once(ask: Callable[[int], Awaitable[httpx.Response]]) -> list[httpx.Response]:
    """Send a hundred requests at once and return all answers; none is a fault of the server."""
    answers: list[httpx.Response] = []

    async def one(number: int) -> None:
        answers.append(await ask(number))

    async with anyio.create_task_group() as group:
        for number in range(AT_ONCE):
            group.start_soon(one, number)
    assert [one.text for one in answers if one.status_code >= 500] == []
    return answers


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(one.status_code for one in answers)


@in_both
async def test_of_a_hundred_environments_of_one_name_one_is_made_in_each_of_twenty_rounds(
    server: Server, api: Api
) -> None:
    for number in range(ROUNDS):
        body = {"userId": api.user["id"], "name": f"round {number}"}

        answers = await at_once(
            lambda _, body=body: api.client.post("/api/environments", json=body)
        )

        assert statuses(answers) == {200: 1, 409: AT_ONCE - 1}
        (made,) = (one.json() for one in answers if one.status_code == 200)
        await hold(server)
        await api.delete(f"/api/environments/{made['id']}")
    note("F21", "rounds of 100 environments of one name, one made", ROUNDS, "rounds")
    await hold(server)


@in_both
async def test_of_a_hundred_sessions_on_one_branch_one_is_made_in_each_of_twenty_rounds(
    server: Server, api: Api, own_history: str
) -> None:
    environment = await api.environment("race", own_history)
    for number in range(ROUNDS):
        body = {"environmentId": environment["id"], "branch": f"race/{number}"}

        # Half of them have the name in common too.
        answers = await at_once(
            lambda n, body=body: api.client.post(
                "/api/sessions", json={**body, "name": f"{body['branch']} {n if n % 2 else 0}"}
            )
        )

        assert statuses(answers) == {200: 1, 409: AT_ONCE - 1}
        await hold(server)
    note("F21", "rounds of 100 sessions on one branch, one made", ROUNDS, "rounds")


@in_both
async def test_of_a_hundred_requests_with_one_key_one_has_its_effect_and_all_get_its_answer(
    server: Server, api: Api, own_history: str
) -> None:
    environment = await api.environment("race", own_history)
    for number in range(ROUNDS):
        body = {"environmentId": environment["id"], "branch": f"key/{number}"}
        headers = {KEY: f"key-{number}"}

        async def ask(
            _: int, body: dict[str, Any] = body, headers: dict[str, str] = headers
        ) -> httpx.Response:
            return await api.client.post("/api/sessions", json=body, headers=headers)

        answers = await at_once(ask)

        assert set(statuses(answers)) <= {200, 409}
        assert {one.json()["code"] for one in answers if one.status_code == 409} <= {
            "IDEMPOTENCY_KEY_IN_USE"
        }
        again = await ask(0)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert {one.content for one in answers if one.status_code == 200} == {again.content}
        listed = await api.get(f"/api/sessions/environment/{environment['id']}")
        assert len(listed["sessions"]) == number + 1
        await hold(server)
    note("F21", "rounds of 100 requests with one key, one effect", ROUNDS, "rounds")


@in_both
async def test_of_many_deletions_of_one_session_one_wins_and_all_others_find_nothing(
    server: Server, api: Api, own_history: str
) -> None:
    environment = await api.environment("race", own_history)
    for number in range(ROUNDS):
        session = await api.post(
            "/api/sessions", environmentId=environment["id"], branch=f"gone/{number}"
        )

        path = f"/api/sessions/{session['id']}"
        answers = await at_once(lambda _, path=path: api.client.delete(path))

        assert statuses(answers) == {200: 1, 404: AT_ONCE - 1}
        await hold(server)
    note("F24", "rounds of 100 deletions of one session, one done", ROUNDS, "rounds")


@in_both
async def test_of_many_deletions_of_one_environment_one_wins_and_nothing_is_left(
    server: Server, api: Api, own_history: str
) -> None:
    for number in range(ROUNDS // 4):
        environment = await api.environment(f"race {number}", own_history)
        await api.post("/api/sessions", environmentId=environment["id"], branch="main")

        path = f"/api/environments/{environment['id']}"
        answers = await at_once(lambda _, path=path: api.client.delete(path))

        assert statuses(answers) == {200: 1, 404: AT_ONCE - 1}
        await hold(server)


@in_both_runtimes
async def test_environment_that_is_deleted_while_it_is_made_leaves_nothing(
    server: Server, api: Api, own_history: str
) -> None:
    dice = random.Random(24)  # noqa: S311 - repeatable, not secret
    listed = f"/api/environments/user/{api.user['id']}"
    for number in range(ROUNDS):
        answers: list[httpx.Response] = []

        async def make(
            name: str = f"round {number}", answers: list[httpx.Response] = answers
        ) -> None:
            body = {"userId": api.user["id"], "name": name, "repositoryUrl": own_history}
            answers.append(await api.client.post("/api/environments", json=body))

        async def there() -> list[dict[str, Any]]:
            return (await api.get(listed))["environments"]

        async with anyio.create_task_group() as group:
            group.start_soon(make)
            (environment,) = await until(there, "the environment is there", every_s=0.01)
            await anyio.sleep(dice.uniform(0, 1.5))  # the moment is what is random here
            answers.append(await api.client.delete(f"/api/environments/{environment['id']}"))

        assert {one.status_code for one in answers} <= {200, 404}, [one.text for one in answers]
        assert await there() == []
        await hold(server)
    note("F24", "rounds of a deletion while it is made", ROUNDS, "rounds")


@in_both_runtimes
async def test_session_that_is_deleted_while_it_is_made_or_attached_to_leaves_nothing(
    server: Server, api: Api, own_history: str
) -> None:
    dice = random.Random(25)  # noqa: S311 - repeatable, not secret
    environment = await api.environment("race", own_history)
    listed = f"/api/sessions/environment/{environment['id']}"
    closed: list[tuple[int, str]] = []
    refused: list[int] = []
    for number in range(ROUNDS):
        answers: list[httpx.Response] = []

        async def make(branch: str = f"made/{number}", into: Any = answers) -> None:
            body = {"environmentId": environment["id"], "branch": branch}
            into.append(await api.client.post("/api/sessions", json=body))

        async def there() -> list[dict[str, Any]]:
            return (await api.get(listed))["sessions"]

        async def attach(session_id: str) -> None:
            viewer = Viewer(server.url, session_id, environment["id"], api.token)
            try:
                async with viewer.attached():
                    closed.append(await until(lambda: viewer.ended, "the socket is closed"))
            except InvalidStatus as error:
                refused.append(error.response.status_code)
            except WebSocketException:
                closed.append(viewer.ended or (1006, ""))

        async with anyio.create_task_group() as group:
            group.start_soon(make)
            (session,) = await until(there, "the session is there", every_s=0.01)
            group.start_soon(attach, session["id"])
            await anyio.sleep(dice.uniform(0, 0.5))  # the moment is what is random here
            answers.append(await api.client.delete(f"/api/sessions/{session['id']}"))

        assert max(one.status_code for one in answers) < 500, [one.text for one in answers]
        assert await there() == []
        await hold(server)
    assert all(status < 500 for status in refused)
    assert {code for code, _ in closed} <= {1000, 1008}, closed
    note("F24", "rounds of a deletion while it is made and attached to", ROUNDS, "rounds")
