"""A credential goes to its upstream and to nobody else, and git in a sandbox never meets it."""

import base64
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from uuid import UUID, uuid4

import anyio
import pytest
import structlog

from craftastic.accounts._repository import User
from craftastic.database import Database
from craftastic.errors import Unavailable
from craftastic.gateway import git_proxy
from craftastic.gateway._pkt_line import FLUSH
from craftastic.githosts.service import GitHostService, asks_for_account
from craftastic.pushes.service import GatewayEnvironment
from craftastic.settings import Settings
from tests.conftest import driver_url
from tests.fakes.clock import FakeClock
from tests.fakes.gateway import (
    FakeEnvironment,
    Sandboxes,
    ServedGateway,
    Strangers,
    gateway_of,
    origin,
    served,
)
from tests.fakes.git_hosts import PlayedGitHub, git_hosts_of
from tests.fakes.git_http_server import GitHttpServer, git, make_repository, run_git
from tests.fakes.toy_upstream import (
    GOOD,
    UPLOAD_PACK,
    Connection,
    Toy,
    answering,
    ask,
    refs_of,
    toy,
)

SETTINGS = Settings.model_validate({"git_allow_http": True, "git_allow_private": True})
CANARY = "glpat-canary-3f9c0e"
UNAUTHORIZED = b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
FORMS = (CANARY, base64.b64encode(f"oauth2:{CANARY}".encode()).decode())
"""The secret as it stands in the store, and as it goes over the wire."""


@dataclass
class Stage:
    """A private repository behind a gateway that has its owner's password."""

    gateway: ServedGateway
    upstream: GitHttpServer
    sandboxes: Sandboxes
    hosts: GitHostService
    github: PlayedGitHub
    owner: UUID
    environment: FakeEnvironment
    folder: Path
    printed: list[str] = field(default_factory=list)
    logged: Sequence[object] = ()

    @property
    def url(self) -> str:
        return self.gateway.url(self.environment)

    @property
    def place(self) -> tuple[str, str, int]:
        return "http", self.upstream.host, self.upstream.port

    async def git(
        self, *arguments: str, cwd: Path | None = None, **variables: str
    ) -> CompletedProcess[str]:
        """Run git as in a sandbox, with all that it can tell of its requests."""
        loud = {"GIT_TRACE_CURL": "1", "GIT_TRACE_REDACT": "0", "GIT_TRACE_PACKET": "1"}
        options = (*origin(self.environment), *arguments)
        done = await anyio.to_thread.run_sync(
            lambda: run_git(*options, cwd=cwd, variables=loud | variables)
        )
        self.printed += [done.stdout, done.stderr]
        return done

    async def commit(self, work: Path, name: str) -> str:
        (work / name).write_text(name)
        git("add", ".", cwd=work)
        git("commit", "--quiet", "-m", name, cwd=work)
        return git("rev-parse", "HEAD", cwd=work).strip()

    def leaks(self) -> list[str]:
        """Return where on the sandbox's side, or in the log, the secret is."""
        places = {"git's output": "".join(self.printed), "the log": str(self.logged)}
        for file in (self.folder / "sandbox").rglob("*"):
            if file.is_file():
                places[str(file)] = file.read_bytes().decode("latin-1")
        assert "Authorization" in places["git's output"]  # it does show headers
        return [place for place, text in places.items() if any(form in text for form in FORMS)]


@pytest.fixture
async def database(copy_of_template: Callable[[str], str]) -> AsyncIterator[Database]:
    database = Database(driver_url(copy_of_template("sqlite")))
    yield database
    await database.close()


@pytest.fixture
async def owner(database: Database, clock: FakeClock) -> UUID:
    owner, now = uuid4(), clock.now()
    async with database.begin() as tx:
        tx.add(User(id=owner, email="a@example.com", name="a", created_at=now, updated_at=now))
    return owner


@pytest.fixture
def github() -> PlayedGitHub:
    return PlayedGitHub()


@pytest.fixture
def hosts(
    database: Database, clock: FakeClock, tmp_path: Path, github: PlayedGitHub
) -> GitHostService:
    return git_hosts_of(database, clock, tmp_path, github=github, settings=SETTINGS)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[GitHttpServer]:
    root = tmp_path / "upstream"
    root.mkdir()
    make_repository(root / "project.git")
    with GitHttpServer(root, password=CANARY) as server:
        yield server


@pytest.fixture
async def stage(
    upstream: GitHttpServer,
    hosts: GitHostService,
    github: PlayedGitHub,
    owner: UUID,
    tmp_path: Path,
) -> AsyncIterator[Stage]:
    sandboxes = Sandboxes()
    environment = sandboxes.add(upstream.url("project.git"), owner_id=owner)
    (tmp_path / "sandbox").mkdir()
    async with served(gateway_of(SETTINGS, sandboxes, credentials=hosts)) as gateway:
        with structlog.testing.capture_logs() as logged:
            yield Stage(
                gateway,
                upstream,
                sandboxes,
                hosts,
                github,
                owner,
                environment,
                tmp_path,
                [],
                logged,
            )


async def test_private_repository_is_cloned_fetched_pulled_and_pushed_without_its_password(
    stage: Stage,
) -> None:
    await stage.hosts.put(stage.owner, stage.upstream.url(""), CANARY)
    work, other = stage.folder / "sandbox" / "one", stage.folder / "sandbox" / "two"

    cloned = await stage.git("clone", stage.url, str(work))
    assert cloned.returncode == 0, cloned.stderr
    await stage.git("clone", stage.url, str(other))
    head = await stage.commit(work, "change")
    pushed = await stage.git("push", "origin", "HEAD:refs/heads/main", cwd=work)
    fetched = await stage.git("fetch", "origin", cwd=other)
    pulled = await stage.git("pull", "--ff-only", "origin", "main", cwd=other)

    assert [pushed.returncode, fetched.returncode, pulled.returncode] == [0, 0, 0]
    assert git("rev-parse", "main", cwd=stage.upstream.root / "project.git").strip() == head
    assert git("rev-parse", "HEAD", cwd=other).strip() == head
    sent = {headers.get("authorization") for _, _, headers in stage.upstream.requests}
    assert sent == {f"Basic {FORMS[1]}"}
    assert stage.leaks() == []
    (host,) = await stage.hosts.list_owned(stage.owner)
    assert host.last_used_at is not None


class Trap:
    """A listener of an attacker's: it keeps what it is sent, and answers 404."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.heard = b""
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self.socket.accept()
                with stream:
                    stream.settimeout(5)
                    self.heard += stream.recv(1 << 16)
                    stream.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)


@pytest.fixture
def trap() -> Iterator[Trap]:
    trap = Trap()
    yield trap
    trap.close()


@pytest.mark.parametrize("how", ["http.proxy", "insteadOf", "pushInsteadOf"])
async def test_request_that_is_led_to_an_attacker_carries_nothing_of_the_upstreams(
    stage: Stage, trap: Trap, how: str
) -> None:
    await stage.hosts.put(stage.owner, stage.upstream.url(""), CANARY)
    work = stage.folder / "sandbox" / "one"
    await stage.git("clone", stage.url, str(work))
    evil = f"http://127.0.0.1:{trap.port}/"
    name = "http.proxy" if how == "http.proxy" else f"url.{evil}.{how}"
    git("config", name, evil if how == "http.proxy" else stage.url.rpartition("/")[0], cwd=work)
    await stage.commit(work, "change")

    done = await stage.git("push", "origin", "HEAD:refs/heads/x", cwd=work)

    assert done.returncode != 0
    assert trap.heard
    assert not any(form.encode() in trap.heard for form in FORMS)
    assert stage.leaks() == []


async def test_hooks_and_credential_helpers_of_a_sandbox_meet_no_password(stage: Stage) -> None:
    await stage.hosts.put(stage.owner, stage.upstream.url(""), CANARY)
    work = stage.folder / "sandbox" / "one"
    await stage.git("clone", stage.url, str(work))
    dump = stage.folder / "sandbox" / "dump"
    for name in ("pre-push", "reference-transaction", "post-checkout"):
        hook = work / ".git" / "hooks" / name
        hook.write_text(
            f"#!/bin/sh\nexec >>{dump}\nenv\ncat /proc/$PPID/environ /proc/$PPID/cmdline\ncat\n"
        )
        hook.chmod(0o755)
    helper = work / "helper"
    helper.write_text(f"#!/bin/sh\necho asked $1 >>{dump}\ncat >>{dump}\n")
    helper.chmod(0o755)
    git("config", "credential.helper", str(helper), cwd=work)
    await stage.commit(work, "change")

    pushed = await stage.git("push", "origin", "HEAD:refs/heads/x", cwd=work)
    stage.upstream.password = "changed"
    refused = await stage.git("fetch", "origin", cwd=work)

    assert pushed.returncode == 0, pushed.stderr
    assert refused.returncode != 0
    assert "PATH=" in dump.read_text()
    assert "asked" not in dump.read_text()  # git is never asked for a password at all
    assert stage.leaks() == []


async def test_credential_is_the_owners_and_another_environments_token_does_not_reach_it(
    stage: Stage,
) -> None:
    await stage.hosts.put(stage.owner, stage.upstream.url(""), CANARY)
    url = stage.upstream.url("project.git")
    foreign = stage.sandboxes.add(url, "a-foreign-token")

    as_foreign = await ask(stage.gateway, refs_of(stage.environment), token=foreign.token)
    asked = len(stage.upstream.requests)
    of_foreign = await ask(stage.gateway, refs_of(foreign), token=foreign.token)

    assert (as_foreign.status, asked) == (403, 0)
    assert of_foreign.status == 403
    assert ["authorization" in headers for _, _, headers in stage.upstream.requests] == [False]


async def test_wrong_password_is_told_in_one_line_and_noted(stage: Stage) -> None:
    await stage.hosts.put(stage.owner, stage.upstream.url(""), f"{CANARY}-wrong")

    done = await stage.git("ls-remote", stage.url)

    address = stage.upstream.url("").rstrip("/")
    assert done.returncode != 0
    assert (
        "remote: 127.0.0.1 asks for an account with the right to this repository and did not take "
        f"the stored credential: replace the credential of the git host {address}.\n"
    ) in done.stderr
    assert asks_for_account(done.stderr)
    assert "Username" not in done.stderr
    assert len(stage.upstream.requests) == 1
    (host,) = await stage.hosts.list_owned(stage.owner)
    assert host.last_error
    assert stage.leaks() == []


async def test_private_repository_without_a_credential_says_what_to_do(stage: Stage) -> None:
    other = await ask(stage.gateway, refs_of(stage.environment))
    stage.github.origin = stage.place
    with_github = gateway_of(
        SETTINGS, stage.sandboxes, credentials=_at_github(stage.hosts, stage.place)
    )
    async with served(with_github) as gateway:
        at_github = await ask(gateway, refs_of(stage.environment))

    address = stage.upstream.url("").rstrip("/")
    wants = "127.0.0.1 asks for an account with the right to this repository"
    assert other.status == at_github.status == 403
    assert other.body.decode() == (
        f"{wants}: add a credential for the git host {address} to Craftastic, then try again.\n"
    )
    assert at_github.body.decode() == f"{wants}: connect GitHub to Craftastic, then try again.\n"


def _at_github(hosts: GitHostService, place: tuple[str, str, int]) -> GitHostService:
    return GitHostService(
        hosts.database,
        hosts.credentials,
        hosts.github,
        hosts.audit,
        hosts.clock,
        hosts.parse_origin,
        place,
    )


async def test_token_that_github_no_longer_takes_is_renewed_and_tried_once_more(
    stage: Stage,
) -> None:
    stage.github.origin = stage.place
    stage.github.tokens[stage.owner] = "expired"
    stage.github.renewed[stage.owner] = CANARY

    done = await stage.git("ls-remote", stage.url)

    assert "refs/heads/main" in done.stdout, done.stderr
    assert stage.github.rejections == [(stage.owner, "expired")]
    lists = [path for _, path, _ in stage.upstream.requests if "info/refs" in path]
    assert len(lists) == 2
    assert stage.leaks() == []


async def test_renewed_token_that_is_not_taken_either_is_not_tried_for_ever(stage: Stage) -> None:
    stage.github.origin = stage.place
    stage.github.tokens[stage.owner] = "expired"
    stage.github.renewed[stage.owner] = "expired too"

    answer = await ask(stage.gateway, refs_of(stage.environment))

    assert answer.status == 403
    assert asks_for_account(answer.body.decode())
    assert len(stage.upstream.requests) == 2


async def test_dead_token_does_not_close_a_public_repository(
    hosts: GitHostService, github: PlayedGitHub, owner: UUID
) -> None:
    async def takes_no_tokens(upstream: Toy, connection: Connection) -> None:
        told = "authorization:" in upstream.heads[-1].lower()
        await connection.send(UNAUTHORIZED if told else GOOD)

    sandboxes = Sandboxes()
    github.tokens[owner] = "revoked"
    async with (
        toy(takes_no_tokens) as upstream,
        served(gateway_of(SETTINGS, sandboxes, credentials=hosts)) as gateway,
    ):
        github.origin = ("http", "127.0.0.1", upstream.port)
        answer = await ask(gateway, refs_of(sandboxes.add(upstream.url, owner_id=owner)))

    assert answer.status == 200
    assert len(upstream.heads) == 2


def redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("to", ["another port", "another name", "itself"])
async def test_credential_follows_no_redirect_away_neither_now_nor_later(
    hosts: GitHostService, owner: UUID, to: str
) -> None:
    sandboxes = Sandboxes()

    async def behave(upstream: Toy, connection: Connection) -> None:
        if connection.path.startswith("/o/n/info"):
            await connection.send(redirect(target(second.port, upstream.port)))
        else:
            await connection.send(GOOD)

    def target(second_port: int, own_port: int) -> str:
        place = {
            "another port": f"http://127.0.0.1:{second_port}",
            "another name": f"http://localhost:{own_port}",
            "itself": "",
        }[to]
        return f"{place}/moved/n/info/refs?service=git-upload-pack"

    async with (
        toy(behave) as first,
        toy(answering(GOOD)) as second,
        served(gateway_of(SETTINGS, sandboxes, credentials=hosts)) as gateway,
    ):
        await hosts.put(owner, first.url.removesuffix("/o/n"), CANARY)
        environment = sandboxes.add(first.url, owner_id=owner)
        listed = await ask(gateway, refs_of(environment))
        await ask(
            gateway,
            f"/git/{environment.id}.git/git-upload-pack",
            method="POST",
            headers=UPLOAD_PACK,
            body=FLUSH,
        )

    assert listed.status == 200
    heads = [*first.heads, *second.heads]
    moved = [FORMS[1] in head for head in heads if "/moved/" in head]
    assert FORMS[1] in first.heads[0]
    assert moved == [to == "itself"] * 2


async def test_redirects_target_that_wants_an_account_is_not_taken_for_the_upstream(
    hosts: GitHostService, owner: UUID
) -> None:
    sandboxes = Sandboxes()
    async with toy(answering(UNAUTHORIZED)) as second:
        target = f"{second.url}/info/refs?service=git-upload-pack"
        async with (
            toy(answering(redirect(target))) as first,
            served(gateway_of(SETTINGS, sandboxes, credentials=hosts)) as gateway,
        ):
            await hosts.put(owner, first.url.removesuffix("/o/n"), CANARY)
            answer = await ask(gateway, refs_of(sandboxes.add(first.url, owner_id=owner)))

    (host,) = await hosts.list_owned(owner)
    assert answer.status == 403
    assert b"127.0.0.1 redirects there, and no credential goes along" in answer.body
    assert host.last_error is None
    assert len(second.heads) == 1


@pytest.mark.parametrize(
    ("status", "stored", "says"),
    [
        (403, True, "the stored credential's account has no right to do this there"),
        (403, False, "if it needs an account, add a credential"),
        (404, True, "or does not show it to the stored credential's account"),
        (404, False, "or does not show it without an account: add a credential"),
    ],
)
async def test_other_refusals_say_whether_a_credential_was_sent(
    hosts: GitHostService, owner: UUID, status: int, stored: bool, says: str
) -> None:
    sandboxes = Sandboxes()
    no = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
    async with (
        toy(answering(no)) as upstream,
        served(gateway_of(SETTINGS, sandboxes, credentials=hosts)) as gateway,
    ):
        if stored:
            await hosts.put(owner, upstream.url.removesuffix("/o/n"), CANARY)
        answer = await ask(gateway, refs_of(sandboxes.add(upstream.url, owner_id=owner)))

    assert answer.status == status
    assert says in answer.body.decode()
    assert not asks_for_account(answer.body.decode())
    assert len(upstream.heads) == 1


class Broken(Strangers):
    """Credentials that cannot be had."""

    def __init__(self, how: str) -> None:
        self.how = how

    async def authorization(
        self, environment: GatewayEnvironment, scheme: str, host: str, port: int
    ) -> str | None:
        if self.how == "raises":
            raise Unavailable("A stored secret cannot be read; enter it anew.")
        await anyio.sleep_forever()


@pytest.mark.parametrize(
    ("how", "status", "says"),
    [("raises", 503, "enter it anew"), ("hangs", 504, "took too long")],
)
async def test_credential_that_cannot_be_had_is_explained_and_no_stranger_asks(
    monkeypatch: pytest.MonkeyPatch, how: str, status: int, says: str
) -> None:
    monkeypatch.setattr(git_proxy, "CREDENTIAL_TIMEOUT_S", 0.2)
    sandboxes = Sandboxes()
    async with (
        toy(answering(GOOD)) as upstream,
        served(gateway_of(SETTINGS, sandboxes, credentials=Broken(how))) as gateway,
    ):
        answer = await ask(gateway, refs_of(sandboxes.add(upstream.url)))

    assert answer.status == status
    assert says in answer.body.decode()
    assert upstream.heads == []
