"""The client of Coolify against a small Coolify over real HTTP, of an old and a new version."""

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream

from craftastic.circuit import VAIN
from craftastic.coolify._http import AT_ONCE
from craftastic.coolify.api import (
    Abilities,
    Coolify,
    CoolifyHttp,
    RollbackImage,
    RunStatus,
    open_coolify,
    operator_client,
)
from craftastic.coolify.errors import (
    BadApplicationId,
    BadCommit,
    BadCoolifyUrl,
    CoolifyAbilityMissing,
    CoolifyAddressRefused,
    CoolifyApiOff,
    CoolifyBusy,
    CoolifyNotFound,
    CoolifyRefused,
    CoolifyTokenRejected,
    CoolifyUnavailable,
)
from craftastic.errors import CraftasticError
from craftastic.gateway._upstream import UpstreamUnresolved
from craftastic.gateway.pinned_http import pinned_client
from craftastic.settings import Settings
from tests.fakes.git_http_server import GitHttpServer
from tests.fakes.proxies import make_certificate
from tests.fakes.toy_coolify import EVERYTHING, ToyCoolify, line
from tests.secrecy import canary

OLD, NEW = "4.1.2", "4.3.11"
BOTH = [OLD, NEW]
SHA = "0123456789abcdef0123456789abcdef01234567"
SHORT_S = 0.6
"""The deadline of calls in tests of slow answers."""

STRICT = Settings.model_validate({})


@pytest.fixture(params=BOTH)
def toy(request: pytest.FixtureRequest) -> Iterator[ToyCoolify]:
    with ToyCoolify(request.param) as coolify:
        yield coolify


@pytest.fixture
async def http() -> AsyncIterator[CoolifyHttp]:
    async with open_coolify(pinned_client(STRICT)) as coolify:
        yield coolify


@pytest.fixture
async def hurried() -> AsyncIterator[CoolifyHttp]:
    async with pinned_client(STRICT) as users, operator_client() as operator:
        yield CoolifyHttp(users, operator, call_s=SHORT_S)


def of(http: CoolifyHttp, toy: ToyCoolify, *abilities: str, **more: Any) -> Coolify:
    return http.api(toy.url, toy.token(*abilities, **more), trusted=True)


# ---- the whole of it ------------------------------------------------------------------------


async def test_deployment_is_asked_for_and_followed_to_its_end(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    coolify = of(http, toy)
    web = toy.application("web", head=SHA)

    asked = await coolify.deploy(web.uuid)
    assert asked.run_id is not None
    queued = await coolify.run(asked.run_id)
    waiting = await coolify.queue()
    toy.start()
    building = await coolify.run(asked.run_id)
    toy.say(toy.runs[0], line("done"), line("TOKEN=1", hidden=True))
    toy.finish()
    finished = await coolify.run(asked.run_id)

    assert asked.message == "Application web deployment queued."
    assert (queued.status, queued.commit) == (RunStatus.QUEUED, None)
    assert [run.id for run in waiting] == [asked.run_id]
    assert (building.status, building.commit) == (RunStatus.IN_PROGRESS, SHA)
    assert (finished.status, finished.commit) == (RunStatus.FINISHED, SHA)
    assert [one.text for one in finished.log or ()] == ["done"]
    assert finished.path == f"/project/toy/environment/toy/application/{web.uuid}/deployment/" + (
        asked.run_id
    )
    assert await coolify.queue() == []
    assert [run.id for run in await coolify.runs(web.uuid)] == [asked.run_id]


@pytest.mark.parametrize("suffix", ["", "/", "/api/v1", "/api/v1/"])
async def test_address_may_be_given_in_each_form(http: CoolifyHttp, suffix: str) -> None:
    with ToyCoolify(NEW, prefix="/tools") as toy:
        coolify = http.api(toy.url + suffix, toy.token(), trusted=True)

        assert await coolify.version() == NEW
        assert coolify.web_url == toy.url
        assert toy.calls[0].path == "/tools/api/v1/version"


async def test_whole_token_is_sent_and_nothing_of_the_surroundings(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    token = toy.token()
    coolify = http.api(toy.url, token, trusted=True)

    await coolify.version()
    await coolify.version()

    assert "|" in token
    for call in toy.calls:
        assert call.headers["authorization"] == f"Bearer {token}"
        assert call.headers["accept"] == "application/json"
        assert "cookie" not in call.headers  # although one was set
    assert token not in repr(coolify)


@pytest.mark.parametrize("token", ["", "a b", "a\nX-Header: 1", "ä", "a\0"])
async def test_token_that_no_header_can_carry_is_refused(http: CoolifyHttp, token: str) -> None:
    with pytest.raises(CoolifyTokenRejected):
        http.api("https://coolify.example.com", token, trusted=True)


async def test_applications_are_listed_whether_as_a_list_or_keyed(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    coolify = of(http, toy)
    names = [toy.application(name).name for name in ("web", "api", "worker")]

    for toy.keyed_lists in (True, False):
        assert [one.name for one in await coolify.applications()] == names


# ---- trap 1: POST, and the query ------------------------------------------------------------


async def test_deployment_is_posted_with_everything_in_the_query(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    web = toy.application("web")
    web.previews.add(12)

    await of(http, toy).deploy(web.uuid, force=True, pull_request_id=12)

    (call,) = toy.calls
    assert (call.method, call.path) == ("POST", "/api/v1/deploy")
    assert call.query == {"uuid": web.uuid, "force": "true", "pr": "12"}
    assert call.body == b""
    assert (toy.runs[0].force, toy.runs[0].pull_request_id) == (True, 12)


async def test_force_is_left_out_unless_it_is_meant(toy: ToyCoolify, http: CoolifyHttp) -> None:
    web = toy.application("web")

    await of(http, toy).deploy(web.uuid, force=False)

    assert "force" not in toy.calls[0].raw_query
    assert toy.runs[0].force is False


# ---- trap 2: an id that does not exist ------------------------------------------------------


async def test_deployment_that_was_queued_already_has_no_id_of_its_own(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    coolify = of(http, toy)
    web = toy.application("web")
    first = await coolify.deploy(web.uuid)

    again = await coolify.deploy(web.uuid)
    forced = await coolify.deploy(web.uuid, force=True)

    assert (again.run_id, again.already_queued) == (None, True)
    assert (await coolify.runs(web.uuid, 10))[1].id == first.run_id
    assert forced.run_id == toy.runs[1].uuid
    assert len(toy.runs) == 2


async def test_answer_of_200_may_mean_that_nothing_is_deployed(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    service = toy.application("postgres", kind="service")
    web = toy.application("web")
    coolify = of(http, toy)

    started = await coolify.deploy(service.uuid)
    preview = await coolify.deploy(web.uuid, pull_request_id=99)

    assert started.run_id is preview.run_id is None
    assert started.message == "Service postgres started. Be patient."
    assert preview.message == "Pull request 99 not found for this resource."
    assert toy.runs == []


async def test_run_that_coolify_does_not_know_is_not_found(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    coolify = of(http, toy)

    for ask in (coolify.run, coolify.application, coolify.runs, coolify.deploy, coolify.cancel):
        with pytest.raises(CoolifyNotFound):
            await ask("nothere")


# ---- trap 3: later --------------------------------------------------------------------------


async def test_full_queue_says_when_to_come_again(toy: ToyCoolify, http: CoolifyHttp) -> None:
    toy.queue_limit = 0
    web = toy.application("web")

    with pytest.raises(CoolifyBusy) as refused:
        await of(http, toy).deploy(web.uuid)

    assert (refused.value.retry_after_s, refused.value.queue_full) == (60, True)
    assert "queue" in refused.value.message


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [("7", 7), ("0", 1), ("999999", 3600), ("-5", 60), ("soon", 60), ("1e9", 60), (None, 60)],
)
async def test_too_many_requests_is_no_full_queue(
    http: CoolifyHttp, header: str | None, wait_s: float
) -> None:
    with ToyCoolify(NEW) as toy:
        headers = {} if header is None else {"Retry-After": header}
        toy.fault("/version", 429, body={"message": "Too Many Attempts."}, headers=headers)

        with pytest.raises(CoolifyBusy) as refused:
            await of(http, toy).version()

    assert (refused.value.retry_after_s, refused.value.queue_full) == (wait_s, False)


# ---- trap 5 and 6: who may what -------------------------------------------------------------


async def test_api_that_is_turned_off_is_told_from_a_missing_ability(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    toy.api_enabled = False

    with pytest.raises(CoolifyApiOff):
        await of(http, toy).version()


async def test_address_that_is_not_on_the_list_is_told_from_a_missing_ability(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    toy.allow_ips = ["198.51.100.7"]

    with pytest.raises(CoolifyAddressRefused):
        await of(http, toy).version()


async def test_token_that_is_unknown_or_whose_team_is_gone_is_rejected(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    gone, wrong = toy.token(), f"9|{canary('wrong')}"
    toy.tokens[gone].team_gone = True

    for token in (gone, wrong):
        with pytest.raises(CoolifyTokenRejected) as refused:
            await http.api(toy.url, token, trusted=True).version()
        assert token.rpartition("|")[2] not in f"{refused.value.message}{refused.value.details}"


async def test_missing_ability_is_named_with_the_order_of_the_ticks(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    web = toy.application("web")

    with pytest.raises(CoolifyAbilityMissing) as refused:
        await of(http, toy, "read").deploy(web.uuid)
    with pytest.raises(CoolifyAbilityMissing) as unread:
        await of(http, toy, "deploy").application(web.uuid)
    with pytest.raises(CoolifyAbilityMissing) as role:
        await of(http, toy, *EVERYTHING, role="member").deploy(web.uuid)

    assert refused.value.abilities == ("deploy",)
    assert unread.value.abilities == ("read",)
    assert role.value.abilities == ()
    assert "tick deploy first" in (refused.value.details or "")
    assert "admin" in (role.value.details or "")


@pytest.mark.parametrize(
    ("abilities", "role", "found"),
    [
        (("read", "read:sensitive", "deploy"), "admin", Abilities(True, True, True)),
        (("read", "deploy"), "admin", Abilities(True, True, False)),
        (("read",), "admin", Abilities(True, False, False)),
        (("deploy",), "admin", Abilities(False, True, None)),
        (("root",), "owner", Abilities(True, True, True)),
        (("read", "read:sensitive", "deploy"), "member", Abilities(True, False, False)),
        (("write",), "admin", Abilities(False, False, None)),
    ],
)
async def test_what_a_token_may_do_is_found_out_without_changing_anything(
    toy: ToyCoolify, http: CoolifyHttp, abilities: Sequence[str], role: Any, found: Abilities
) -> None:
    toy.application("empty")
    toy.finish(toy.queue(toy.application("web")))
    coolify = of(http, toy, *abilities, role=role)

    assert await coolify.abilities() == found
    assert len(toy.runs) == 1
    assert {call.method for call in toy.calls} == {"GET"}


async def test_sensitive_reading_stays_unknown_where_no_run_shows_it(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    toy.application("web")

    assert await of(http, toy).abilities() == Abilities(True, True, None)

    toy.fault("/applications", 500)
    assert await of(http, toy).abilities() == Abilities(True, True, None)


async def test_abilities_of_a_token_that_is_rejected_are_an_error(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    token = toy.token()
    toy.kill_token(token)

    with pytest.raises(CoolifyTokenRejected):
        await http.api(toy.url, token, trusted=True).abilities()


# ---- trap 7 and 8: logs, ids ----------------------------------------------------------------


async def test_log_is_none_where_the_token_may_not_read_it(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    run = toy.fail(toy.queue(toy.application("web")), log=[line("broke", stream="stderr")])

    for abilities, role, log in [
        (("read",), "admin", None),
        (("read", "read:sensitive"), "member", None),
        (("read", "read:sensitive"), "owner", ["broke"]),
    ]:
        found = await of(http, toy, *abilities, role=role).run(run.uuid)
        assert found.status is RunStatus.FAILED
        assert (found.log if found.log is None else [one.text for one in found.log]) == log


# ---- cancel, roll back, logs ----------------------------------------------------------------


async def test_cancel_tells_whether_it_was_in_time(toy: ToyCoolify, http: CoolifyHttp) -> None:
    coolify = of(http, toy)
    running, ended = (toy.queue(toy.application(name)) for name in ("a", "b"))
    toy.finish(ended)

    assert await coolify.cancel(running.uuid) is True
    assert await coolify.cancel(ended.uuid) is False
    assert await coolify.cancel(running.uuid) is False
    assert (await coolify.run(running.uuid)).status is RunStatus.CANCELLED


async def test_rollback_asks_for_the_image_of_a_commit(http: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        web = toy.application("web")
        web.images = [{"tag": SHA, "created_at": "2026-07-19", "is_current": True}]
        coolify = of(http, toy)

        images = await coolify.rollback_images(web.uuid)
        asked = await coolify.rollback(web.uuid, SHA.upper())

    assert images == [RollbackImage(SHA, "2026-07-19", current=True)]
    assert asked.run_id == toy.runs[0].uuid
    assert (toy.runs[0].rollback, toy.runs[0].asked_commit) == (True, SHA)


async def test_rollback_meets_a_full_queue_as_a_400(http: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        web, toy.queue_limit = toy.application("web"), 0

        with pytest.raises(CoolifyBusy) as refused:
            await of(http, toy).rollback(web.uuid, SHA)

    assert (refused.value.retry_after_s, refused.value.queue_full) == (60, True)


async def test_rollback_by_an_old_coolify_says_which_one_it_needs(http: CoolifyHttp) -> None:
    with ToyCoolify(OLD) as toy:
        web, coolify = toy.application("web"), of(http, toy)

        for ask in (coolify.rollback(web.uuid, SHA), coolify.rollback_images(web.uuid)):
            with pytest.raises(CoolifyRefused, match=r"needs Coolify 4\.2 or newer"):
                await ask


async def test_rollback_of_what_is_not_there_is_not_the_versions_fault(http: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        coolify = of(http, toy)

        with pytest.raises(CoolifyNotFound):
            await coolify.rollback("nothere", SHA)
        with pytest.raises(CoolifyNotFound):
            await coolify.rollback_images("nothere")
        calls = len(toy.calls)
        with pytest.raises(BadCommit):
            await coolify.rollback("nothere", "main; rm")

    assert len(toy.calls) == calls


async def test_application_that_does_not_run_has_no_log(toy: ToyCoolify, http: CoolifyHttp) -> None:
    coolify = of(http, toy)
    web, off = toy.application("web"), toy.application("off", status="exited:unhealthy")
    web.runtime_log = "\x1b[31mlistening\x1b[0m\n"

    assert await coolify.application_log(web.uuid, 100) == "listening\n"
    assert await coolify.application_log(off.uuid, 100_000) is None
    assert [call.query["lines"] for call in toy.calls] == ["100", "1000"]


# ---- hostile answers ------------------------------------------------------------------------


HUGE = b'{"deployment_uuid":"a","status":"' + b"x" * (9 << 20) + b'"}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502 Bad Gateway</html>",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"1" * 10_000,
        b'"a string"',
        b"[]",
        b'{"deployments":{"x":1}}',
        HUGE,
    ],
    ids=["empty", "html", "binary", "deep", "deeper", "number", "string", "list", "keys", "huge"],
)
async def test_answer_that_cannot_be_read_is_unavailable(http: CoolifyHttp, body: bytes) -> None:
    with ToyCoolify(NEW) as toy:
        coolify = of(http, toy)
        toy.fault("*", 200, body=body, times=20)

        for ask in (
            coolify.version,
            lambda: coolify.application("a"),
            lambda: coolify.run("a"),
            lambda: coolify.deploy("a"),
            lambda: coolify.rollback("a", SHA),
        ):
            with pytest.raises(CoolifyUnavailable) as refused:
                await ask()
            assert len(f"{refused.value.message}{refused.value.details}") < 500


async def test_answer_of_other_types_breaks_nothing(http: CoolifyHttp) -> None:
    body = {
        "uuid": "a",
        "deployment_uuid": "a",
        "name": ["x"],
        "status": {"running": True},
        "fqdn": 7,
        "commit": True,
        "logs": {"x": 1},
        "created_at": -1,
        "pull_request_id": 10**400,
    }
    with ToyCoolify(NEW) as toy:
        coolify = of(http, toy)
        toy.fault("*", 200, body=json.dumps(body).encode(), times=2)

        application, run = await coolify.application("a"), await coolify.run("a")

    assert (application.name, application.state, application.address) == ("a", "unknown", None)
    assert (run.status, run.commit, run.pull_request_id, run.log) == (
        RunStatus.UNKNOWN, None, 0, (),
    )  # fmt: skip


async def test_packed_answer_is_not_unpacked(http: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        toy.fault("/version", 200, body=b"4.3.11", headers={"Content-Encoding": "gzip"})
        coolify = of(http, toy)

        assert await coolify.version() == NEW
        assert toy.calls[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirect_is_not_followed_and_the_token_stays_here(
    http: CoolifyHttp, status: int
) -> None:
    with ToyCoolify(NEW) as toy, ToyCoolify(NEW) as other:
        toy.fault("/version", status, headers={"Location": f"{other.api_url}/version"})

        with pytest.raises(CoolifyUnavailable, match="leads on to another"):
            await of(http, toy).version()

    assert other.calls == []


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_broken_coolify_is_unavailable(http: CoolifyHttp, status: int) -> None:
    with ToyCoolify(NEW) as toy:
        toy.fault("/version", status, body={"message": "Server \x1b[31mError\n" + "x" * 5000})

        with pytest.raises(CoolifyUnavailable) as refused:
            await of(http, toy).version()

    assert str(status) in refused.value.message
    assert "\x1b" not in (refused.value.details or "")
    assert len(refused.value.details or "") < 400


async def test_not_found_by_what_stands_before_coolify_is_no_missing_run(
    http: CoolifyHttp,
) -> None:
    with ToyCoolify(NEW) as toy:
        toy.fault("/deployments/*", 404, body=b"404 page not found")

        with pytest.raises(CoolifyUnavailable):
            await of(http, toy).run("a")


async def test_forbidden_by_what_stands_before_coolify_is_no_missing_ability(
    http: CoolifyHttp,
) -> None:
    with ToyCoolify(NEW) as toy:
        toy.fault("/version", 403, body=b"<html>Attention required</html>")

        with pytest.raises(CoolifyRefused, match="403"):
            await of(http, toy).version()


async def test_texts_of_coolify_are_cleaned_and_short(http: CoolifyHttp) -> None:
    text = "no\x1b[31m\r\nSet-Cookie: a=b\u202e" + "x" * 5000
    with ToyCoolify(NEW) as toy:
        toy.fault("/deploy", 422, body={"message": text})

        with pytest.raises(CoolifyRefused) as refused:
            await of(http, toy).deploy("a")

    assert refused.value.said.startswith("no [31m Set-Cookie: a=b xxx")
    assert refused.value.said.isprintable()
    assert len(refused.value.said) == 300
    assert refused.value.status == 422


@pytest.mark.parametrize("status", [200, 400, 404, 422, 500])
async def test_answer_that_repeats_the_token_does_not_show_it(
    http: CoolifyHttp, status: int
) -> None:
    with ToyCoolify(NEW) as toy:
        token = toy.token()
        secret = token.rpartition("|")[2]
        body = {"message": f"Bearer {token} / {secret} is odd", "uuid": "a", "name": secret}
        toy.fault("*", status, body=body)

        try:
            told = repr(await http.api(toy.url, token, trusted=True).application("a"))
        except CraftasticError as error:
            told = f"{error.message} {error.details} {error.context} {error.__dict__}"

    assert secret not in told
    assert "[token]" in told


async def test_answer_that_comes_byte_by_byte_has_one_deadline(hurried: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        toy.fault("/version", 200, body=b"4.3.11" + b" " * 1000, drip_s=0.05)

        with anyio.fail_after(10 * SHORT_S), pytest.raises(CoolifyUnavailable, match="too long"):
            await of(hurried, toy).version()


async def test_no_answer_has_a_deadline(hurried: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        toy.fault("/version", hang=True)

        with anyio.fail_after(10 * SHORT_S), pytest.raises(CoolifyUnavailable, match="too long"):
            await of(hurried, toy).version()


async def test_connection_that_ends_without_an_answer_is_unavailable(http: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        coolify = of(http, toy)
        toy.fault("/version", drop=True)

        with pytest.raises(CoolifyUnavailable, match="broke"):
            await coolify.version()
    with pytest.raises(CoolifyUnavailable, match="cannot be reached"):
        await coolify.version()


async def test_certificate_that_is_not_valid_is_told(http: CoolifyHttp, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.key)
    with GitHttpServer(tmp_path, tls=context) as https:
        coolify = http.api(https.url("").rstrip("/"), f"7|{canary('token')}", trusted=True)

        with pytest.raises(
            CoolifyUnavailable, match=r"certificate of 127\.0\.0\.1:\d+ is not valid"
        ):
            await coolify.version()

        assert https.requests == []


@pytest.mark.parametrize("trusted", [False, True])
async def test_connection_that_stops_speaking_tls_is_unavailable(
    tmp_path: Path, trusted: bool
) -> None:
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.key)
    trust = ssl.create_default_context(cafile=str(certificate.file))
    trust.check_hostname = False
    settings = Settings.model_validate({"git_allow_private": True})

    async def serve(stream: SocketStream) -> None:
        async with stream:
            await TLSStream.wrap(stream, server_side=True, ssl_context=context)
            await stream.receive()
            await stream.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            await stream.receive()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        pinned_client(settings, tls=trust) as users,
        httpx.AsyncClient(verify=trust, trust_env=False) as operator,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django here
        url = f"https://127.0.0.1:{port}"
        coolify = CoolifyHttp(users, operator).api(url, f"7|{canary('token')}", trusted=trusted)

        with pytest.raises(CoolifyUnavailable, match="does not speak TLS as it should"):
            await coolify.version()
        tasks.cancel_scope.cancel()


async def test_slow_coolify_keeps_no_connections_from_others(hurried: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as slow, ToyCoolify(NEW) as fast:
        slow.fault("/version", hang=True, times=60)
        held, free = of(hurried, slow), of(hurried, fast)

        async def wait() -> None:
            with pytest.raises(CoolifyUnavailable):
                await held.version()

        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(wait)
            await anyio.to_thread.run_sync(lambda: slow.wait_for("GET", "/version", times=8))
            assert await free.version() == NEW

    assert len(slow.calls) < 50


async def many(ask: Callable[[], Awaitable[object]], count: int) -> None:
    """Ask at once, and see no answer to any."""

    async def one() -> None:
        with pytest.raises(CoolifyUnavailable):
            await ask()

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)


async def test_who_waits_for_ones_own_turn_in_vain_shuts_nobody_out(hurried: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        token = toy.token()
        one = hurried.api(toy.url, token, trusted=True, asker="one")
        other = hurried.api(toy.url, token, trusted=True, asker="other")
        turns = hurried._turns.of("one")
        async with AsyncExitStack() as held:
            for _ in range(AT_ONCE):
                await held.enter_async_context(turns.semaphore)
            await many(one.version, 2 * VAIN)

        assert toy.calls == []
        assert await other.version() == NEW


async def test_who_waits_for_a_connection_in_vain_shuts_nobody_out() -> None:
    limits, free = httpx.Limits(max_connections=1), anyio.Event()
    with ToyCoolify(NEW) as slow, ToyCoolify(NEW) as fast:
        slow.fault("/version", hang=True)
        async with (
            pinned_client(STRICT) as users,
            httpx.AsyncClient(trust_env=False, limits=limits, timeout=60) as operator,
            anyio.create_task_group() as tasks,
        ):
            patient = of(CoolifyHttp(users, operator, call_s=60), slow)

            async def ask() -> None:
                await patient.version()
                free.set()

            tasks.start_soon(ask)
            await anyio.to_thread.run_sync(lambda: slow.wait_for("GET", "/version"))
            hurried = CoolifyHttp(users, operator, call_s=SHORT_S)
            await many(of(hurried, fast).version, VAIN)
            assert fast.calls == []
            slow.release()
            await free.wait()
            assert await of(hurried, fast).version() == NEW


async def test_an_answer_that_is_too_long_is_an_answer(hurried: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        coolify = of(hurried, toy)
        for _ in range(2):
            toy.fault("/version", hang=True, times=VAIN - 1)
            await many(coolify.version, VAIN - 1)
            toy.heal()
            toy.fault("/version", 200, body=b"x" * (2 << 20))
            with pytest.raises(CoolifyUnavailable, match="too long to be read"):
                await coolify.version()

        assert await coolify.version() == NEW


async def test_answers_that_come_too_slowly_shut_nobody_out(hurried: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        coolify = of(hurried, toy)
        toy.fault("/version", 200, body=b"4.3.11" + b" " * 1000, drip_s=0.05, times=VAIN)

        await many(coolify.version, VAIN)

        assert await coolify.version() == NEW


async def test_a_coolify_that_does_not_answer_is_left_alone(hurried: CoolifyHttp) -> None:
    with ToyCoolify(NEW) as toy:
        coolify = of(hurried, toy)
        toy.fault("/version", hang=True, times=VAIN)
        await many(coolify.version, VAIN)
        toy.heal()

        with pytest.raises(CoolifyUnavailable, match="did not a moment ago"):
            await coolify.version()


async def test_runs_that_are_too_long_together_come_in_smaller_numbers(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    web = toy.application("web")
    for _ in range(6):
        toy.say(toy.finish(toy.queue(web)), line("x" * (2 << 20)))

    runs = await of(http, toy).runs(web.uuid, 5)

    assert [run.id for run in runs] == [run.uuid for run in toy.runs[:2:-1]]
    assert [call.query["take"] for call in toy.calls] == ["5", "3"]


# ---- ids reach nothing else -----------------------------------------------------------------


ODD = [
    "../servers/x",
    "..%2fservers%2fx",
    "%2e%2e/servers/x",
    "a/../../servers/x",
    "a/b",
    "a\\b",
    "..",
    ".",
    "",
    " ",
    "a?x=1",
    "a#x",
    "a,b",
    "a\r\nX: 1",
    "a\0",
    "a" * 65,
    "ä",
    "a;b",
    "*",
]


@pytest.mark.parametrize("odd", ODD)
async def test_odd_id_reaches_nothing(toy: ToyCoolify, http: CoolifyHttp, odd: str) -> None:
    coolify = of(http, toy)
    asks: list[Callable[[], Awaitable[object]]] = [
        lambda: coolify.application(odd),
        lambda: coolify.runs(odd),
        lambda: coolify.run(odd),
        lambda: coolify.deploy(odd),
        lambda: coolify.rollback(odd, SHA),
        lambda: coolify.rollback_images(odd),
        lambda: coolify.cancel(odd),
        lambda: coolify.application_log(odd, 10),
    ]

    for ask in asks:
        with pytest.raises(BadApplicationId):
            await ask()

    assert toy.calls == []


async def test_paths_are_those_of_deployments_and_applications_alone(
    toy: ToyCoolify, http: CoolifyHttp
) -> None:
    coolify = of(http, toy)
    web = toy.application("web")

    for ask in (coolify.application, coolify.runs, coolify.run, coolify.deploy, coolify.cancel):
        try:
            await ask(web.uuid)
        except CoolifyNotFound:
            continue

    assert {call.path for call in toy.calls} == {
        f"/api/v1/applications/{web.uuid}",
        f"/api/v1/deployments/applications/{web.uuid}",
        f"/api/v1/deployments/{web.uuid}",
        "/api/v1/deploy",
        f"/api/v1/deployments/{web.uuid}/cancel",
    }
    assert all(unquote(call.path) == call.path for call in toy.calls)


# ---- where users' own may be ----------------------------------------------------------------


class Names:
    """Name resolution that answers what it is given, one answer after the other."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if not self.answers:
            raise UpstreamUnresolved(f"No host is called {host}.")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@asynccontextmanager
async def users(resolver: Names, *open_to: str) -> AsyncGenerator[CoolifyHttp]:
    client = pinned_client(
        STRICT, open_to=open_to, resolver=resolver, tls=ssl.create_default_context()
    )
    async with open_coolify(client) as http:
        yield http


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}",
        "http://localhost:{port}",
        "https://127.0.0.1",
        "https://10.0.0.5",
        "https://169.254.169.254",
        "https://[::1]",
        "https://[fd00::1]",
        "https://0.0.0.0",
        "https://2130706433",
        "https://0x7f.1",
        "https://coolify.example.com:{port}",
        "http://coolify.example.com",
    ],
)
async def test_users_own_address_must_be_public_https(url: str) -> None:
    names = Names(["127.0.0.1"])
    with ToyCoolify(NEW) as toy:
        address = url.format(port=toy.origin.rpartition(":")[2])
        async with users(names) as http:
            coolify = http.api(address, toy.token(), trusted=False)
            with pytest.raises(BadCoolifyUrl) as refused:
                await coolify.version()

    assert toy.calls == []
    assert "repository" not in f"{refused.value.message}{refused.value.details}"
    assert "_GIT_" not in f"{refused.value.message}{refused.value.details}"


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.0.0.5"], ["169.254.169.254"], ["::1"], ["93.184.216.34", "127.0.0.1"]],
)
async def test_name_that_leads_to_a_private_address_is_refused(addresses: Sequence[str]) -> None:
    async with users(Names(addresses)) as http:
        coolify = http.api("https://rebind.example", f"7|{canary('token')}", trusted=False)

        with pytest.raises(BadCoolifyUrl, match="public address"):
            await coolify.version()


async def test_place_that_the_operator_opens_may_be_private() -> None:
    with ToyCoolify(NEW) as toy:
        async with users(Names(), toy.origin) as http:
            coolify = http.api(f"{toy.origin}/api/v1", toy.token(), trusted=False)

            assert await coolify.version() == NEW


async def test_open_place_opens_no_other_port_and_no_other_scheme() -> None:
    with ToyCoolify(NEW) as toy, ToyCoolify(NEW) as other:
        async with users(Names(["127.0.0.1"]), toy.origin) as http:
            for url in (other.origin, toy.origin.replace("http:", "https:")):
                with pytest.raises(BadCoolifyUrl):
                    await http.api(url, toy.token(), trusted=False).version()

    assert toy.calls == other.calls == []


async def test_name_that_nobody_has_is_unavailable_for_now() -> None:
    async with users(Names()) as http:
        coolify = http.api("https://gone.example", f"7|{canary('token')}", trusted=False)

        with pytest.raises(CoolifyUnavailable, match=r"gone\.example cannot be reached"):
            await coolify.version()


async def test_operators_own_may_be_private(toy: ToyCoolify, http: CoolifyHttp) -> None:
    assert await of(http, toy).version() == toy.version


async def test_operators_client_knows_no_proxy_and_no_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with ToyCoolify(NEW) as toy:
        async with open_coolify(httpx.AsyncClient()) as http:
            assert await of(http, toy).version() == NEW
