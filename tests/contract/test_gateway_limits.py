"""How hostile or broken transfers end, whichever side they come from."""

import socket
from collections.abc import AsyncIterator

import anyio
import pytest

from craftastic.gateway._pkt_line import FLUSH, pkt_line
from craftastic.pushes.service import PushOutcome, RefResult
from craftastic.settings import Settings
from tests.fakes.gateway import (
    BranchesOnly,
    FakeEnvironment,
    Sandboxes,
    ServedGateway,
    gateway_of,
    served,
)
from tests.fakes.toy_upstream import (
    ADVERTISEMENT,
    CHUNK,
    GOOD,
    RECEIVE_PACK,
    RESULT,
    WAIT_S,
    Connection,
    Toy,
    answering,
    ask,
    refs_of,
    toy,
)

MAX_BYTES = 1 << 20
IDLE_S = 0.5
TOTAL_S = 3.0
SETTINGS = Settings.model_validate(
    {
        "git_allow_http": True,
        "git_allow_private": True,
        "git_max_bytes": MAX_BYTES,
        "git_timeout_s": TOTAL_S,
        "git_idle_timeout_s": IDLE_S,
    }
)


@pytest.fixture
def sandboxes() -> Sandboxes:
    return Sandboxes()


@pytest.fixture
async def gateway(sandboxes: Sandboxes) -> AsyncIterator[ServedGateway]:
    async with served(gateway_of(SETTINGS, sandboxes)) as gateway:
        yield gateway


# ---- upstreams that fail --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", 403),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", 403),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", 404),
        (b"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n", 429),
        (b"HTTP/1.1 500 No\r\nContent-Length: 6\r\n\r\nsecret", 502),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 204 No\r\n\r\n", 502),
        (b"HTTP/1.1 302 No\r\nContent-Length: 0\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\nsecret", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret", 502),
        (RESULT + b"Content-Length: 6\r\n\r\nsecret", 502),
        (ADVERTISEMENT + b"Content-Length: 99999999999\r\n\r\n", 502),
        (b"not http at all\r\n\r\n", 502),
        (b"", 502),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, 502),
    ],
)
async def test_failing_upstream_is_explained_and_asked_once(
    gateway: ServedGateway, sandboxes: Sandboxes, answer: bytes, status: int
) -> None:
    async with toy(answering(answer)) as upstream:
        got = await ask(gateway, refs_of(sandboxes.add(upstream.url)))

    assert got.status == status
    assert got.headers.count("text/plain") == 1
    assert b"secret" not in got.body
    assert got.body.strip()
    assert len(upstream.heads) == 1


async def test_upstream_that_is_not_there_is_explained(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    answer = await ask(gateway, refs_of(sandboxes.add(f"http://127.0.0.1:{port}/o/n")))

    assert answer.status == 502
    assert b"does not take connections" in answer.body


async def test_upstream_that_does_not_speak_tls_is_explained(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    async with toy(answering(b"hello")) as upstream:
        url = upstream.url.replace("http:", "https:")
        answer = await ask(gateway, refs_of(sandboxes.add(url)))

    assert answer.status in {502, 504}


async def test_silent_upstream_ends_within_the_deadline(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    async def silent(upstream: Toy, connection: Connection) -> None:
        await connection.until_closed()

    started = anyio.current_time()
    async with toy(silent) as upstream:
        answer = await ask(gateway, refs_of(sandboxes.add(upstream.url)))
        with anyio.fail_after(WAIT_S):
            await upstream.closed.wait()

    assert answer.status == 504
    assert anyio.current_time() - started < IDLE_S + 2


async def test_upstream_that_falls_silent_leaves_the_answer_unfinished(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    async def stalls(upstream: Toy, connection: Connection) -> None:
        await connection.send(ADVERTISEMENT + b"Transfer-Encoding: chunked\r\n\r\n4\r\n0000\r\n")
        await connection.until_closed()

    started = anyio.current_time()
    async with toy(stalls) as upstream:
        answer = await ask(gateway, refs_of(sandboxes.add(upstream.url)))

    assert (answer.status, answer.complete) == (200, False)
    assert anyio.current_time() - started < IDLE_S + 2


async def test_upstream_that_drips_ends_at_the_total_time(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    async def drips(upstream: Toy, connection: Connection) -> None:
        await connection.send(ADVERTISEMENT + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"1\r\n0\r\n")
            await anyio.sleep(IDLE_S / 5)

    started = anyio.current_time()
    async with toy(drips) as upstream:
        answer = await ask(gateway, refs_of(sandboxes.add(upstream.url)))
        with anyio.fail_after(WAIT_S):
            await upstream.closed.wait()

    assert (answer.status, answer.complete) == (200, False)
    assert TOTAL_S - 0.5 < anyio.current_time() - started < TOTAL_S + 2


async def test_endless_upstream_ends_at_the_limit_of_bytes(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    async def endless(upstream: Toy, connection: Connection) -> None:
        await connection.send(ADVERTISEMENT + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"10000\r\n" + bytes(CHUNK) + b"\r\n")

    async with toy(endless) as upstream:
        answer = await ask(gateway, refs_of(sandboxes.add(upstream.url)))
        with anyio.fail_after(WAIT_S):
            await upstream.closed.wait()

    assert (answer.status, answer.complete) == (200, False)
    assert MAX_BYTES - CHUNK <= len(answer.body) <= MAX_BYTES


async def test_upstream_that_breaks_off_leaves_the_answer_unfinished(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    async def breaks(upstream: Toy, connection: Connection) -> None:
        await connection.send(ADVERTISEMENT + b"Content-Length: 1000\r\n\r\n0000")

    async with toy(breaks) as upstream:
        answer = await ask(gateway, refs_of(sandboxes.add(upstream.url)))

    assert answer.status == 200
    assert "content-length: 1000" in answer.headers
    assert len(answer.body) < 1000


# ---- sandboxes that misbehave ---------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False])
async def test_endless_push_is_cut_at_the_limit_and_the_upstream_gets_no_end(
    sandboxes: Sandboxes, announced: bool
) -> None:
    recorder = BranchesOnly()

    async def swallows(upstream: Toy, connection: Connection) -> None:
        while True:
            upstream.sent += len(await connection.reader.receive(CHUNK))

    head = pkt_line(f"{'0' * 40} {'1' * 40} refs/heads/x\0".encode()) + FLUSH
    body = head + bytes(MAX_BYTES + 4 * CHUNK)
    async with (
        toy(swallows) as upstream,
        served(gateway_of(SETTINGS, sandboxes, ref_policy=recorder)) as gateway,
    ):
        environment = sandboxes.add(upstream.url)
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        answer = await ask(
            gateway,
            f"/git/{environment.id}.git/git-receive-pack",
            method="POST",
            headers=RECEIVE_PACK + ("" if announced else "Transfer-Encoding: chunked\r\n"),
            body=body if announced else chunked,
        )

    assert answer.status == 413
    assert upstream.sent <= MAX_BYTES + 4 * CHUNK
    cut = RefResult(PushOutcome.FAILED, "the transfer was cut: more bytes than the limit")
    told = [dict(push.results) for push in recorder.pushes]
    assert told == ([] if announced else [{"refs/heads/x": cut}])
    assert len(upstream.heads) == (0 if announced else 1)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", "", 400),
        (b"nonsense", "", 400),
        (b"0001", "", 400),
        (pkt_line(b"push-cert\0x\n"), "", 400),
        (pkt_line(f"{'0' * 40} {'1' * 40} refs/heads/x\0".encode()), "", 400),
        (FLUSH + b"PACK", "", 400),
        (b"\x1f\x8b", "Content-Encoding: gzip\r\n", 415),
    ],
)
async def test_malformed_push_is_refused_and_never_completed_upstream(
    gateway: ServedGateway, sandboxes: Sandboxes, body: bytes, headers: str, status: int
) -> None:
    complete: list[bytes] = []

    async def reads(upstream: Toy, connection: Connection) -> None:
        size = int(upstream.heads[-1].lower().partition("content-length: ")[2].split()[0])
        complete.append(await connection.reader.receive_exactly(size))

    async with toy(reads) as upstream:
        environment = sandboxes.add(upstream.url)
        answer = await ask(
            gateway,
            f"/git/{environment.id}.git/git-receive-pack",
            method="POST",
            headers=RECEIVE_PACK + headers,
            body=body,
        )

    assert answer.status == status
    assert complete == []


async def test_sandbox_that_stops_sending_is_cut(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    environment = sandboxes.add("https://example.com/o/n")
    started = anyio.current_time()

    answer = await ask(
        gateway,
        f"/git/{environment.id}.git/git-receive-pack",
        method="POST",
        headers=RECEIVE_PACK + "Transfer-Encoding: chunked\r\n",
        body=b"4\r\n00",
    )

    assert answer.status == 408
    assert anyio.current_time() - started < IDLE_S + 2


async def test_upstream_is_let_go_when_the_sandbox_goes_away(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    reached = anyio.Event()

    async def waits(upstream: Toy, connection: Connection) -> None:
        reached.set()
        await connection.until_closed()

    async with toy(waits) as upstream:
        environment = sandboxes.add(upstream.url)
        request = (
            f"GET {refs_of(environment)} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {environment.token}\r\n\r\n"
        )
        with anyio.fail_after(IDLE_S * 0.9):  # before the silence ends it
            async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
                await stream.send(request.encode())
                await reached.wait()
            await upstream.closed.wait()


async def test_expected_continue_is_not_given_to_strangers(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    environment = sandboxes.add("https://example.com/o/n")

    answer = await ask(
        gateway,
        f"/git/{environment.id}.git/git-receive-pack",
        method="POST",
        token="wrong",
        headers=RECEIVE_PACK + "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
    )

    assert answer.status == 403


async def test_transfers_of_one_environment_wait_for_each_other_but_not_for_others(
    gateway: ServedGateway, sandboxes: Sandboxes
) -> None:
    busy_enough = anyio.Event()

    async def slow(upstream: Toy, connection: Connection) -> None:
        if len(upstream.heads) == 4:
            busy_enough.set()
        if len(upstream.heads) <= 4:
            await connection.until_closed()
        await connection.send(GOOD)

    async with toy(slow) as upstream:
        busy, other = sandboxes.add(upstream.url), sandboxes.add(upstream.url)
        statuses: list[int] = []

        async def one(environment: FakeEnvironment) -> None:
            statuses.append((await ask(gateway, refs_of(environment))).status)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one, busy)
            with anyio.fail_after(IDLE_S):
                await busy_enough.wait()
                await one(other)
            assert statuses == [200]
            assert len(upstream.heads) == 5

    assert sorted(statuses) == [200, 200, *[504] * 4]


async def test_upstream_is_listened_to_when_the_sandbox_stops_reading_what_becomes_of_its_push(
    sandboxes: Sandboxes,
) -> None:
    recorder = BranchesOnly()
    body = pkt_line(f"{'0' * 40} {'1' * 40} refs/heads/x\0report-status side-band-64k".encode())
    body += FLUSH
    report = pkt_line(b"unpack ok\n") + pkt_line(b"ok refs/heads/x\n") + FLUSH
    wide = SETTINGS.model_copy(update={"git_max_bytes": 1 << 30, "git_timeout_s": WAIT_S})
    result = RESULT.replace(b"upload", b"receive")

    async def tells(upstream: Toy, connection: Connection) -> None:
        await connection.send(result + b"Connection: close\r\n\r\n")
        for _ in range(1000):  # more than the buffers on the way hold
            await connection.send(pkt_line(b"\x02" + b"." * 32_000))
        await connection.send(pkt_line(b"\x01" + report) + FLUSH)

    async with (
        toy(tells) as upstream,
        served(gateway_of(wide, sandboxes, ref_policy=recorder)) as gateway,
    ):
        environment = sandboxes.add(upstream.url)
        head = (
            f"POST /git/{environment.id}.git/git-receive-pack HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {environment.token}\r\n{RECEIVE_PACK}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with anyio.fail_after(WAIT_S):
            async with await anyio.connect_tcp("127.0.0.1", gateway.port) as stream:
                await stream.send(head.encode() + body)
                while not recorder.pushes:  # noqa: ASYNC110 - the gateway tells nobody else
                    await anyio.sleep(0.05)

    (push,) = recorder.pushes
    assert push.results == {"refs/heads/x": RefResult(PushOutcome.OK)}
