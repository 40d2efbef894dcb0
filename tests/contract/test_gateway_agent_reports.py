"""The supervisor in a sandbox reports to the gateway what its agent does."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from craftastic.agent_runs.service import Asked, GatewayRun
from craftastic.errors import Conflict, RateLimited, Unavailable
from tests.fakes.agent_gateway import WAIT_S, FakeRun, FakeRuns, serving
from tests.fakes.gateway import ServedGateway
from tests.fakes.toy_upstream import Answer, ask

JSON = "Content-Type: application/json\r\n"
EVENT: dict[str, Any] = {
    "nonce": "n-1",
    "seq": 0,
    "event": "PreToolUse",
    "payload": {"tool_name": "Bash", "n": 1, "list": [None, True, 1.5]},
    "at": 1_790_000_000.25,
}
FILE = {"path": ".credentials.json", "was": "a" * 64, "text": '{"token": "x"}'}


@pytest.fixture
def runs() -> FakeRuns:
    return FakeRuns()


@pytest.fixture
async def gateway(runs: FakeRuns) -> AsyncIterator[ServedGateway]:
    async with serving(runs) as gateway:
        yield gateway


async def post(
    gateway: ServedGateway, run: FakeRun, name: str, body: object, *, token: str | None = None
) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await ask(
        gateway,
        run.path(f"/{name}"),
        method="POST",
        token=run.token if token is None else token,
        headers=JSON,
        body=content,
    )


async def test_event_is_passed_on_as_it_came(gateway: ServedGateway, runs: FakeRuns) -> None:
    run = runs.add()

    answer = await post(gateway, run, "events", EVENT)

    ((session_id, event),) = runs.events
    assert (answer.status, answer.body) == (204, b"")
    assert session_id == run.id
    assert (event.nonce, event.seq, event.name) == ("n-1", 0, "PreToolUse")
    assert (event.payload, event.at) == (EVENT["payload"], EVENT["at"])


async def test_session_without_a_model_api_reports_too(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    assert (await post(gateway, runs.add(None), "events", EVENT)).status == 204


async def test_question_is_passed_on_and_its_answer_can_be_waited_for(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    run = runs.add()
    asked = json.loads((await post(gateway, run, "asks", EVENT)).body)
    answers: list[Answer] = []

    async def wait() -> None:
        answers.append(await ask(gateway, run.path(f"/asks/{asked['approval']}"), token=run.token))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        with anyio.fail_after(WAIT_S):
            await runs.polled.wait()
        assert answers == []
        approval = UUID(asked["approval"])
        runs.answers[approval] = Asked(approval, settled=True, answer='{"x": 1}')

    assert asked == {"approval": asked["approval"], "settled": False, "answer": ""}
    assert json.loads(answers[0].body) == {
        "approval": asked["approval"],
        "settled": True,
        "answer": '{"x": 1}',
    }


async def test_wait_for_an_answer_ends_when_the_supervisor_goes_away(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    run = runs.add()
    asked = json.loads((await post(gateway, run, "asks", EVENT)).body)
    request = (
        f"GET {run.path('/asks/' + asked['approval'])} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {run.token}\r\n\r\n"
    )

    with anyio.fail_after(WAIT_S):
        async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
            await stream.send(request.encode())
            await runs.polled.wait()
        await runs.poll_cancelled.wait()


@pytest.mark.parametrize(("was", "taken"), [("a" * 64, True), ("0" * 64, False)])
async def test_changed_file_is_taken_back(
    gateway: ServedGateway, runs: FakeRuns, was: str, taken: bool
) -> None:
    run = runs.add()

    answer = await post(gateway, run, "files", FILE | {"was": was})

    assert json.loads(answer.body) == {"taken": taken}
    assert runs.files == [(run.id, FILE["path"], was, FILE["text"])]


async def test_what_no_database_can_keep_is_taken_out_of_a_payload(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    nested = b"[" * 100 + b"]" * 100
    body = (
        b'{"nonce": "n", "seq": 1, "event": "E", "at": 1, "payload": {"a\\u0000": "b\\u0000c", '
        b'"n": NaN, "i": [-Infinity], "big": 99999999999999999999999, "ok": 5, "deep": %b}}'
    )

    answer = await post(gateway, runs.add(), "events", body % nested)

    payload = runs.events[0][1].payload
    depth, inner = 0, payload["deep"]
    while inner:
        depth, inner = depth + 1, inner[0]
    assert answer.status == 204
    assert {name: value for name, value in payload.items() if name != "deep"} == {
        "a\ufffd": "b\ufffdc",
        "n": None,
        "i": [None],
        "big": None,
        "ok": 5,
    }
    assert depth < 100


BAD_EVENTS: list[Any] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"a": "\\ud800"}',
    b"[" * 100_000,
    {},
    EVENT | {"extra": 1},
    *({name: value for name, value in EVENT.items() if name != out} for out in EVENT),
    EVENT | {"nonce": ""},
    EVENT | {"nonce": "n" * 65},
    EVENT | {"nonce": "a b"},
    EVENT | {"nonce": "a\n"},
    EVENT | {"nonce": 1},
    EVENT | {"seq": -1},
    EVENT | {"seq": "1"},
    EVENT | {"seq": 1.5},
    EVENT | {"seq": 2**53},
    EVENT | {"seq": True},
    EVENT | {"event": ""},
    EVENT | {"event": "E" * 101},
    EVENT | {"event": "E\0"},
    EVENT | {"payload": None},
    EVENT | {"payload": []},
    EVENT | {"payload": "{}"},
    EVENT | {"at": "now"},
    EVENT | {"at": -1},
    EVENT | {"at": float("nan")},
    EVENT | {"at": float("inf")},
]
BAD_FILES: list[Any] = [
    {},
    FILE | {"path": ""},
    FILE | {"path": "x" * 401},
    FILE | {"path": "a\0b"},
    FILE | {"was": "A" * 64},
    FILE | {"was": "a" * 63},
    FILE | {"was": None},
    FILE | {"text": "a\0b"},
    FILE | {"text": 5},
    FILE | {"more": 5},
]


async def test_malformed_reports_are_400_in_plain_words(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    run = runs.add()
    answers = [
        (body, await post(gateway, run, name, body))
        for name, bodies in (("events", BAD_EVENTS), ("asks", BAD_EVENTS), ("files", BAD_FILES))
        for body in bodies
    ]

    assert [body for body, answer in answers if answer.status != 400] == []
    assert all(json.loads(answer.body)["error"] for _, answer in answers)
    assert (runs.events, runs.files) == ([], [])


@pytest.mark.parametrize("chunked", [True, False])
async def test_report_that_is_too_large_is_413(
    gateway: ServedGateway, runs: FakeRuns, chunked: bool
) -> None:
    run = runs.add()
    body = json.dumps(EVENT | {"payload": {"x": "y" * (512 << 10)}}).encode()

    answer = await ask(
        gateway,
        run.path("/events"),
        method="POST",
        token=run.token,
        headers=JSON + ("Transfer-Encoding: chunked\r\n" if chunked else ""),
        body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body,
    )

    assert (answer.status, runs.events) == (413, [])


async def test_report_that_is_not_json_is_415(gateway: ServedGateway, runs: FakeRuns) -> None:
    run = runs.add()

    answer = await ask(
        gateway,
        run.path("/events"),
        method="POST",
        token=run.token,
        body=json.dumps(EVENT).encode(),
    )

    assert (answer.status, runs.events) == (415, [])


async def test_nobody_reports_without_the_sessions_own_token(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    run, other, over = runs.add(), runs.add(), runs.add()
    runs.end(over)

    assert (await post(gateway, run, "events", EVENT, token="wrong")).status == 403
    assert (await post(gateway, run, "asks", EVENT, token=other.token)).status == 403
    assert (await post(gateway, over, "files", FILE)).status == 403
    nobody = await ask(gateway, run.path("/events"), method="POST", token=None, headers=JSON)
    assert nobody.status == 401
    assert (runs.events, runs.files) == ([], [])


async def test_only_the_listed_routes_are_there(gateway: ServedGateway, runs: FakeRuns) -> None:
    run = runs.add()
    targets = [
        ("GET", "/events"),
        ("PUT", "/events"),
        ("POST", "/events/"),
        ("POST", "/events?x=y"),
        ("POST", "/%65vents"),
        ("POST", "/Events"),
        ("GET", "/asks"),
        ("POST", f"/asks/{uuid4()}"),
        ("GET", f"/asks/{str(uuid4()).upper()}"),
        ("GET", f"/asks/{uuid4().hex}"),
        ("GET", f"/asks/{uuid4()}/x"),
        ("GET", f"/asks/{uuid4()}?x=y"),
        ("GET", "/files"),
        ("POST", "/other"),
        ("HEAD", "/events"),
    ]

    statuses = {
        (method, target): (
            await ask(gateway, run.path(target), method=method, token=run.token, headers=JSON)
        ).status
        for method, target in targets
    }

    assert {row: status for row, status in statuses.items() if status != 404} == {}


async def test_question_of_another_session_is_404(gateway: ServedGateway, runs: FakeRuns) -> None:
    answer = await ask(gateway, (run := runs.add()).path(f"/asks/{uuid4()}"), token=run.token)

    assert (answer.status, json.loads(answer.body)) == (404, {"error": "Approval not found"})


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (Unavailable("The database does not answer; try again."), 503, ""),
        (Conflict("This run is over."), 409, ""),
        (RateLimited("Too much.", retry_after_s=7), 429, "retry-after: 7"),
    ],
)
async def test_errors_of_the_domain_keep_their_status_and_words(
    gateway: ServedGateway, runs: FakeRuns, error: Any, status: int, header: str
) -> None:
    run = runs.add()
    runs.broken = error

    answers = [
        await post(gateway, run, "events", EVENT),
        await post(gateway, run, "asks", EVENT),
        await post(gateway, run, "files", FILE),
        await ask(gateway, run.path(f"/asks/{uuid4()}"), token=run.token),
    ]

    for answer in answers:
        assert (answer.status, json.loads(answer.body)) == (status, {"error": error.message})
        assert header in answer.headers


async def test_database_that_is_down_when_the_token_is_checked_is_503() -> None:
    class Down(FakeRuns):
        async def by_token(
            self, session_id: UUID, token: str, *, leaving: bool = False
        ) -> GatewayRun | None:
            raise Unavailable("The database does not answer; try again.")

    runs = Down()
    async with serving(runs) as gateway:
        answer = await post(gateway, runs.add(), "events", EVENT)

    assert (answer.status, b"try again" in answer.body) == (503, True)


async def test_session_cannot_hold_more_than_its_requests(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    run, other = runs.add(), runs.add()
    asked = json.loads((await post(gateway, run, "asks", EVENT)).body)
    target = run.path("/asks/" + asked["approval"])
    statuses: list[int] = []

    async def wait() -> None:
        statuses.append((await ask(gateway, target, token=run.token)).status)

    async with anyio.create_task_group() as tasks:
        for _ in range(65):
            tasks.start_soon(wait)
        with anyio.fail_after(WAIT_S):
            while not statuses:  # noqa: ASYNC110 - the one too many is answered at once
                await anyio.sleep(0.01)
        assert statuses == [429]
        assert (await post(gateway, other, "events", EVENT)).status == 204
        approval = UUID(asked["approval"])
        runs.answers[approval] = Asked(approval, settled=True)

    assert sorted(statuses) == [200] * 64 + [429]


async def test_session_that_reports_without_end_is_slowed_down_and_others_are_not(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    run, other = runs.add(), runs.add()
    agents = gateway.gateway.agents
    assert agents
    for _ in range(1000):  # as if they had come
        agents.pace.wait_s(run.id)

    answers = [await post(gateway, one, "events", EVENT) for one in (run, other)]

    assert [answer.status for answer in answers] == [429, 204]


async def test_session_that_asks_for_answers_without_end_is_slowed_down_too(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    run = runs.add()
    agents = gateway.gateway.agents
    assert agents
    for _ in range(1000):  # as if they had come
        agents.pace.wait_s(run.id)

    answer = await ask(gateway, run.path(f"/asks/{uuid4()}"), token=run.token)

    assert answer.status == 429


async def test_large_reports_count_for_many_and_wait_unread(
    gateway: ServedGateway, runs: FakeRuns
) -> None:
    """Half a megabyte of empty lists is 20 MiB once it is read, and takes 50 ms."""
    run = runs.add()
    lists = {**EVENT, "payload": {"lists": [[]] * (120 << 10)}}
    statuses: set[int] = set()

    async def report() -> None:
        statuses.add((await post(gateway, run, "events", lists)).status)

    async with anyio.create_task_group() as tasks:
        for _ in range(32):
            tasks.start_soon(report)
        with anyio.fail_after(4 * WAIT_S):
            while 429 not in statuses:  # noqa: ASYNC110 - those that are too many
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    refused = await post(gateway, run, "events", b"{")

    assert len(runs.events) < 16
    assert refused.status == 429  # it was not even read
