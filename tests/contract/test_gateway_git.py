"""Real git through the gateway to a real git server: clone, fetch, push, and what is refused."""

import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from craftastic.githosts.service import ASKS_FOR_ACCOUNT, asks_for_account
from craftastic.pushes.service import GatewayEnvironment, PushOutcome, RefResult
from craftastic.settings import Settings
from tests.fakes.gateway import (
    BranchesOnly,
    FakeEnvironment,
    Sandboxes,
    ServedGateway,
    Strangers,
    gateway_of,
    origin,
    served,
)
from tests.fakes.git_http_server import GitHttpServer, git, make_repository, run_git

SETTINGS = Settings.model_validate({"git_allow_http": True, "git_allow_private": True})


@dataclass
class Stage:
    """A served gateway, a git server behind it, one environment, one clone's place."""

    gateway: ServedGateway
    upstream: GitHttpServer
    sandboxes: Sandboxes
    environment: FakeEnvironment
    folder: Path
    recorder: BranchesOnly
    bare: Path = field(init=False)

    def __post_init__(self) -> None:
        self.bare = self.upstream.root / "project.git"

    async def git(self, *arguments: str, cwd: Path | None = None) -> CompletedProcess[str]:
        options = (*origin(self.environment), *arguments)
        return await anyio.to_thread.run_sync(lambda: run_git(*options, cwd=cwd))

    async def clone(self, name: str = "clone") -> Path:
        target = self.folder / name
        done = await self.git("clone", self.gateway.url(self.environment), str(target))
        assert done.returncode == 0, done.stderr
        return target

    async def commit(self, work: Path, name: str = "change") -> str:
        (work / name).write_text(name)
        await self.git("add", ".", cwd=work)
        done = await self.git("commit", "-m", name, cwd=work)
        assert done.returncode == 0, done.stderr
        return git("rev-parse", "HEAD", cwd=work).strip()

    def refs(self) -> dict[str, str]:
        lines = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=self.bare)
        return dict(line.split() for line in lines.splitlines())


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[GitHttpServer]:
    root = tmp_path / "upstream"
    root.mkdir()
    make_repository(root / "project.git")
    with GitHttpServer(root) as server:
        yield server


@pytest.fixture
async def stage(upstream: GitHttpServer, tmp_path: Path) -> AsyncIterator[Stage]:
    sandboxes, recorder = Sandboxes(), BranchesOnly()
    environment = sandboxes.add(upstream.url("project.git"))
    async with served(gateway_of(SETTINGS, sandboxes, ref_policy=recorder)) as gateway:
        yield Stage(gateway, upstream, sandboxes, environment, tmp_path, recorder)


async def test_clone_brings_the_upstreams_commit(stage: Stage) -> None:
    work = await stage.clone()

    assert (work / "README").read_text() == "hello\n"
    assert git("rev-parse", "HEAD", cwd=work).strip() == stage.refs()["refs/heads/main"]


async def test_fetch_brings_what_is_new(stage: Stage) -> None:
    work = await stage.clone()
    other = await stage.clone("other")
    head = await stage.commit(other)
    git("push", "--quiet", str(stage.bare), "HEAD:refs/heads/main", cwd=other)

    done = await stage.git("fetch", "origin", cwd=work)

    assert done.returncode == 0, done.stderr
    assert git("rev-parse", "origin/main", cwd=work).strip() == head


async def test_push_moves_a_branch_and_is_recorded(stage: Stage) -> None:
    work = await stage.clone()
    before = stage.refs()["refs/heads/main"]
    head = await stage.commit(work)

    done = await stage.git("push", "origin", "HEAD:refs/heads/main", cwd=work)

    assert done.returncode == 0, done.stderr
    assert stage.refs()["refs/heads/main"] == head
    (push,) = stage.recorder.pushes
    assert push.updates == [("refs/heads/main", before, head)]
    assert push.results == {"refs/heads/main": RefResult(PushOutcome.OK)}


async def test_large_push_arrives_in_chunks(stage: Stage) -> None:
    work = await stage.clone()
    (work / "noise").write_bytes(os.urandom(5 << 20))
    head = await stage.commit(work)

    done = await stage.git("push", "origin", "HEAD:refs/heads/big", cwd=work)

    assert done.returncode == 0, done.stderr
    assert stage.refs()["refs/heads/big"] == head
    posts = [h for m, p, h in stage.upstream.requests if m == "POST" and "receive-pack" in p]
    assert any(headers.get("transfer-encoding") == "chunked" for headers in posts)


def add_branches(bare: Path, count: int) -> None:
    """Give a repository many branches, each with a commit of its own."""
    stream = "".join(
        f"commit refs/heads/b{number}\ncommitter a <a@example.com> {number} +0000\ndata 0\n\n"
        for number in range(count)
    )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=bare, input=stream.encode(), check=True)


async def test_compressed_fetch_request_is_passed_on_as_it_is(stage: Stage) -> None:
    work = await stage.clone()
    add_branches(stage.bare, 60)  # many wants make a request that git compresses

    done = await stage.git("fetch", "origin", cwd=work)

    assert done.returncode == 0, done.stderr
    assert len(git("branch", "--remotes", cwd=work).splitlines()) > 60
    assert any(h.get("content-encoding") == "gzip" for _, _, h in stage.upstream.requests)


async def test_second_protocol_version_is_passed_on(stage: Stage) -> None:
    await stage.clone()

    assert {h.get("git-protocol") for _, _, h in stage.upstream.requests} == {"version=2"}


async def test_sandboxs_token_never_reaches_the_upstream(stage: Stage) -> None:
    await stage.clone()

    assert all("authorization" not in headers for _, _, headers in stage.upstream.requests)
    assert all(stage.environment.token not in str(row) for row in stage.upstream.requests)


@pytest.mark.parametrize(
    ("refspec", "reason"),
    [
        ("HEAD:refs/tags/v1", "only branches can be pushed"),
        ("HEAD:refs/craftastic/x", "only branches can be pushed"),
        (":refs/heads/main", "branches cannot be deleted"),
    ],
)
async def test_refused_ref_is_explained_and_never_reaches_the_upstream(
    stage: Stage, refspec: str, reason: str
) -> None:
    work = await stage.clone()
    await stage.commit(work)
    before = stage.refs()
    stage.upstream.requests.clear()

    done = await stage.git("push", "origin", "HEAD:refs/heads/also", refspec, cwd=work)

    assert done.returncode != 0
    assert reason in done.stderr
    assert "refused together with the others" in done.stderr
    assert "remote: Craftastic refused this push." in done.stderr
    assert stage.refs() == before
    assert all(method == "GET" for method, _, _ in stage.upstream.requests)
    (push,) = stage.recorder.pushes
    assert push.outcomes == [PushOutcome.REFUSED, PushOutcome.REFUSED]


async def test_push_options_do_not_hide_a_refused_ref(stage: Stage) -> None:
    git("config", "receive.advertisePushOptions", "true", cwd=stage.bare)
    work = await stage.clone()
    await stage.commit(work)

    good = await stage.git("push", "-o", "a=b", "origin", "HEAD:refs/heads/x", cwd=work)
    bad = await stage.git("push", "-o", "a=b", "origin", "HEAD:refs/tags/x", cwd=work)

    assert good.returncode == 0, good.stderr
    assert bad.returncode != 0
    assert "refs/tags/x" not in stage.refs()


async def test_push_from_a_shallow_clone_arrives(stage: Stage) -> None:
    other = await stage.clone("other")
    await stage.commit(other)
    git("push", "--quiet", str(stage.bare), "HEAD:refs/heads/main", cwd=other)
    target = stage.folder / "shallow"
    url = stage.gateway.url(stage.environment)
    assert (await stage.git("clone", "--depth=1", url, str(target))).returncode == 0
    head = await stage.commit(target, "more")

    done = await stage.git("push", "origin", "HEAD:refs/heads/from-shallow", cwd=target)

    assert done.returncode == 0, done.stderr
    assert stage.refs()["refs/heads/from-shallow"] == head


async def test_upstreams_own_refusal_reaches_git(stage: Stage) -> None:
    hook = stage.bare / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho protected by the upstream\nexit 1\n")
    hook.chmod(0o755)
    work = await stage.clone()
    await stage.commit(work)

    done = await stage.git("push", "origin", "HEAD:refs/heads/main", cwd=work)

    assert done.returncode != 0
    assert "protected by the upstream" in done.stderr
    (push,) = stage.recorder.pushes
    rejected = RefResult(PushOutcome.REJECTED, "pre-receive hook declined")
    assert push.results == {"refs/heads/main": rejected}


async def test_token_may_be_the_password_of_basic_authentication(stage: Stage) -> None:
    url = stage.gateway.url(stage.environment).replace("//", f"//x:{stage.environment.token}@")

    done = await anyio.to_thread.run_sync(lambda: run_git("ls-remote", url))

    assert "refs/heads/main" in done.stdout


async def test_private_upstream_is_reported_without_a_prompt(stage: Stage, tmp_path: Path) -> None:
    with GitHttpServer(stage.upstream.root, password="secret") as private:
        environment = stage.sandboxes.add(private.url("project.git"))

        done = await stage.git("ls-remote", stage.gateway.url(environment))

    assert done.returncode != 0
    assert f"remote: 127.0.0.1 {ASKS_FOR_ACCOUNT}: ask the test." in done.stderr
    assert asks_for_account(done.stderr)
    assert "Username" not in done.stderr


async def test_credential_is_added_for_the_upstream(stage: Stage, tmp_path: Path) -> None:
    class Basic(Strangers):
        async def authorization(
            self, environment: GatewayEnvironment, scheme: str, host: str, port: int
        ) -> str | None:
            return "Basic eDpzZWNyZXQ="  # x:secret

    with GitHttpServer(stage.upstream.root, password="secret") as private:
        sandboxes = Sandboxes()
        environment = sandboxes.add(private.url("project.git"))
        async with served(gateway_of(SETTINGS, sandboxes, credentials=Basic())) as gateway:
            target = tmp_path / "private"
            done = await stage.git("clone", gateway.url(environment), str(target))

    assert done.returncode == 0, done.stderr
    assert "c2VjcmV0" not in (target / ".git" / "config").read_text()


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]]:
    """Give a function that makes a server's and a client's TLS context for `localhost`."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"

    def make() -> tuple[ssl.SSLContext, ssl.SSLContext]:
        _write_certificate(key, cert)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(cert, key)
        return server, ssl.create_default_context(cafile=str(cert))

    return make


def _write_certificate(key: Path, cert: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


async def test_https_upstream_is_checked_by_name_though_the_address_is_pinned(
    stage: Stage, certificate: Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]]
) -> None:
    for_server, for_client = certificate()
    with GitHttpServer(stage.upstream.root, tls=for_server) as https:
        sandboxes = Sandboxes()
        by_name = sandboxes.add(https.url("project.git").replace("127.0.0.1", "localhost"))
        by_address = sandboxes.add(https.url("project.git"))
        async with served(gateway_of(SETTINGS, sandboxes, tls=for_client)) as gateway:
            right = await stage.git("ls-remote", gateway.url(by_name))
            wrong = await stage.git("ls-remote", gateway.url(by_address))

    assert "refs/heads/main" in right.stdout, right.stderr
    assert wrong.returncode != 0
    assert "remote: The certificate of 127.0.0.1 is not valid" in wrong.stderr


async def test_untrusted_certificate_is_explained(
    stage: Stage, certificate: Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]]
) -> None:
    for_server, _ = certificate()
    with GitHttpServer(stage.upstream.root, tls=for_server) as https:
        environment = stage.sandboxes.add(https.url("project.git"))

        done = await stage.git("ls-remote", stage.gateway.url(environment))

    assert "remote: The certificate of 127.0.0.1 is not valid" in done.stderr
