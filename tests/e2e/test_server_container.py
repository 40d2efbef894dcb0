"""The server in a container, as deploy/ has it: built, started, used, stopped and started again."""

import io
import json
import os
import re
import secrets
import shutil
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from craftastic.runtimes._docker_engine import Engine
from craftastic.runtimes._docker_image import OWN_REPOSITORY, ImageBuilder, authorities
from craftastic.runtimes.base import GATEWAY_HOST, Progress
from tests.conftest import in_a_thread, missing
from tests.e2e.conftest import PROJECT
from tests.e2e.harness import Api, Server, Viewer, until
from tests.leaks import RUN

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(2400)]

BUILD_S = 1800
COMMAND_S = 120
HEALTHY_S = 120.0
GRACE_S = 15.0
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

POSTGRES = r"""
FROM {base}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql \
 && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/*
COPY start /usr/local/bin/
STOPSIGNAL SIGINT
ENTRYPOINT ["start"]
"""
START = r"""#!/bin/sh
# As much of the official image as the composition asks for.
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
export PGDATA=/var/lib/postgresql/data
as="setpriv --reuid postgres --regid postgres --init-groups"
chown postgres: $PGDATA /var/run/postgresql
chmod 700 $PGDATA
if ! [ -s $PGDATA/PG_VERSION ]; then
    $as initdb -U "$POSTGRES_USER" -A "$POSTGRES_HOST_AUTH_METHOD"
    echo "CREATE DATABASE \"$POSTGRES_DB\"" | $as postgres --single postgres
fi
exec $as "$@"
"""


def docker(*arguments: str, given: bytes | None = None, timeout_s: float = COMMAND_S) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-3000:]
    return said


def packed(files: dict[str, tuple[bytes, int]]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def checkout() -> dict[str, tuple[bytes, int]]:
    """Return what a clean checkout has, and the authorities that this machine trusts."""
    listed = subprocess.run(
        ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    names = sorted(name for name in listed.stdout.decode().split("\0") if name)
    paths = [(name, PROJECT / name) for name in names]
    files = {name: (path.read_bytes(), 0o644) for name, path in paths if path.is_file()}
    extra = {
        f"deploy/ca/{n:03}.crt": (content + b"\n", 0o644)
        for n, content in enumerate(authorities(None))
    }
    return {**files, **extra}


def base_image() -> str:
    """Return a base image that is there, fetched or made as for the sandboxes' image."""
    found: list[str] = []

    async def quietly(_: Progress) -> None: ...

    async def ask() -> None:
        engine = Engine(None)
        try:
            builder = ImageBuilder(engine, f"{OWN_REPOSITORY}:latest", None, None)
            found.append(await builder._base(quietly))
        finally:
            await engine.close()

    in_a_thread(ask)
    return found[0]


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, str]]:
    """Build the server's image as the project ships it, and a database's for the composition."""
    base, tag = base_image(), RUN.mark
    names = {"server": f"craftastic-server:{tag}", "database": f"craftastic-database:{tag}"}
    label = f"craftastic.test-run={tag}"
    build = ["build", "-q", "--force-rm", "--label", label]
    recipe = {
        "Dockerfile": (POSTGRES.format(base=base).encode(), 0o644),
        "start": (START.encode(), 0o755),
    }
    before = stages()
    try:
        docker(
            *(*build, "-f", "deploy/Dockerfile", "--build-arg", f"BASE={base}"),
            *("-t", names["server"], "-"),
            given=packed(checkout()),
            timeout_s=BUILD_S,
        )
        docker(*build, "-t", names["database"], "-", given=packed(recipe), timeout_s=BUILD_S)
        yield names
    finally:
        for image in [*names.values(), *(stages() - before)]:
            subprocess.run(["docker", "image", "rm", "-f", image], capture_output=True, check=False)
        assert stages() <= before


def stages() -> set[str]:
    """Return what the builder has left of the stage that the packages are installed in."""
    left = ("--filter", "dangling=true", "--filter", "label=craftastic.stage=build")
    return set(docker("images", "-q", "--no-trunc", *left).split())


def composer() -> list[str] | None:
    """Return how Compose is called here, or None where it is not."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if asked.returncode == 0 else None


@dataclass
class Contained:
    """A server whose process is a container's; its settings are those of the tests' servers.

    Attributes:
        composed: With a database by deploy/compose.yaml; otherwise alone, over SQLite.
    """

    server: Server
    images: dict[str, str]
    composed: bool

    @property
    def project(self) -> str:
        return f"craftastic-{RUN.mark}"

    @property
    def folder(self) -> Path:
        return self.server.data_dir

    def prepare(self) -> None:
        # Its own file, so that the sandboxes' image is the one that other tests have built.
        if os.environ.get("CRAFTASTIC_IMAGE_CA_BUNDLE"):  # noqa: TID251
            shutil.copy(BUNDLE, self.folder / "ca.pem")
            self.server.environment["CRAFTASTIC_IMAGE_CA_BUNDLE"] = str(self.folder / "ca.pem")
        wanted = {
            name: value
            for name, value in self.server.environment.items()
            if name.startswith(("CRAFTASTIC_", "LOG_", "JWT_"))
        }
        self.file.write_text("".join(f"{name}={value}\n" for name, value in wanted.items()))
        self.file.chmod(0o600)
        # Version 1, which Debian 12 has, does not know the project's name in the file.
        text = (PROJECT / "deploy" / "compose.yaml").read_text()
        self.composition.write_text(re.sub(r"(?m)^name: craftastic$", "", text))

    @property
    def file(self) -> Path:
        return self.folder / "settings.env"

    @property
    def composition(self) -> Path:
        return self.folder / "compose.yaml"

    def compose(self, *arguments: str) -> str:
        program = composer()
        assert program is not None
        done = subprocess.run(
            [*program, "-p", self.project, "-f", str(self.composition), *arguments],
            env={
                "PATH": os.environ["PATH"],  # noqa: TID251
                "CRAFTASTIC_ENV_FILE": str(self.file),
                "CRAFTASTIC_DATA_DIR": str(self.folder),
                "CRAFTASTIC_SERVER_IMAGE": self.images["server"],
                "CRAFTASTIC_DATABASE_IMAGE": self.images["database"],
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    def begin(self) -> None:
        if self.composed:
            self.compose("up", "-d", "--no-build")
            return
        docker(
            *("run", "-d", "--name", self.project, "--network", "host", "--init", "--read-only"),
            *("--tmpfs", "/tmp", "--tmpfs", "/run", "--cap-drop", "ALL"),
            *("--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "--cap-add", "CHOWN"),
            *("--cap-add", "DAC_OVERRIDE", "--cap-add", "FOWNER"),
            *("--security-opt", "no-new-privileges:true", "--restart", "unless-stopped"),
            *("--stop-timeout", str(int(GRACE_S))),
            *("--env-file", str(self.file), "-v", "/var/run/docker.sock:/var/run/docker.sock"),
            *("-v", f"{self.folder}:{self.folder}", self.images["server"]),
        )

    def start(self) -> None:
        if self.composed:
            self.compose("start", "server")
        else:
            docker("start", self.project)

    def stop(self) -> None:
        if self.composed:
            self.compose("stop", "server")
        else:
            docker("stop", self.project)

    @property
    def container(self) -> str:
        """Name of the server's container; the two versions of compose name it differently."""
        if not self.composed:
            return self.project
        of_project = f"label=com.docker.compose.project={self.project}"
        of_service = "label=com.docker.compose.service=server"
        return docker("ps", "-aq", "--filter", of_project, "--filter", of_service).strip()

    def state(self) -> dict[str, Any]:
        return json.loads(docker("inspect", self.container))[0]["State"]

    async def healthy(self) -> None:
        def is_healthy() -> bool:
            state = self.state()
            assert state["Running"], docker("logs", self.container)[-3000:]
            return state["Health"]["Status"] == "healthy"

        await until(is_healthy, "the container is healthy", timeout_s=HEALTHY_S, every_s=0.5)

    def command(self, *arguments: str) -> str:
        return docker("exec", self.container, "craftastic", *arguments)

    def remove(self) -> None:
        for one in docker("ps", "-aq", "--filter", f"name={self.project}").split():
            with self.server.log.open("a") as log:
                log.write(docker("logs", one))
            if not self.composed:
                docker("rm", "-f", one)
        if self.composed:
            self.compose("down", "-v", "-t", "5")


@pytest.fixture(params=["alone", "composed"])
async def contained(
    request: pytest.FixtureRequest, data_dir: Path, images: dict[str, str]
) -> AsyncIterator[Contained]:
    composed = request.param == "composed"
    if composed and composer() is None:
        missing("neither docker-compose nor docker compose is here")
    server = Server(data_dir, runtime="docker", database_url=None)
    server.environment["JWT_SECRET"] = secrets.token_hex(32)
    contained = Contained(server, images, composed)
    contained.prepare()
    try:
        yield contained
    finally:
        with anyio.CancelScope(shield=True):
            try:
                contained.remove()
            finally:
                await server.clean()


def in_an_argument(text: str) -> list[str]:
    """Return the processes of this machine that have a text in their command line."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if text.encode() in words:
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


async def test_a_session_outlives_the_servers_container(contained: Contained) -> None:
    server = contained.server
    contained.begin()
    await contained.healthy()
    assert in_an_argument(server.environment["JWT_SECRET"]) == []

    async with Api(server.url) as api:
        await api.register("a@example.com", setupToken=server.setup_token)
        environment = await api.environment("plain")
        session = await api.post("/api/sessions", environmentId=environment["id"], name="one")
        viewer = Viewer(server.url, session["id"], environment["id"], api.token)
        async with viewer.attached():
            assert (await viewer.run("echo mine > kept; cat kept")).strip() == "mine"
            # The gateway answers at the bridge, though not to just anybody.
            asked = f"http://{GATEWAY_HOST}:{server.gateway_port}/"
            code = await viewer.run(f"curl -s -m 10 -o /dev/null -w '%{{http_code}}\\n' {asked}")
            assert re.fullmatch(r"4\d\d", code.strip())
            # The API, on the same machine, does not.
            refused = await viewer.run(
                f"curl -s -m 10 http://{GATEWAY_HOST}:{server.port}/healthz || echo refused"
            )
            assert refused.strip() == "refused"
            await viewer.type("i=0; while :; do i=$((i+1)); echo line$i; sleep 0.1; done\r")
            await viewer.shows("\nline5\n")
            found = {one["name"]: one for one in json.loads(contained.command("doctor", "--json"))}
            for name in ("database", "server", "docker.network", "docker.firewall", "runtime"):
                assert found[name]["status"] == "ok", found[name]

            began = time.monotonic()
            await anyio.to_thread.run_sync(contained.stop)
            took_s = time.monotonic() - began
            await until(lambda: viewer.ended, "the viewer is told")

        state = contained.state()
        # 143 would be a server that SIGTERM ended as it stood, 137 one that was killed.
        assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False)
        assert viewer.ended is not None
        assert viewer.ended[0] == 1012
        assert took_s < GRACE_S + 10  # the command's own time is in it; the exit code says the rest
        with pytest.raises(httpx.TransportError):
            await api.client.get("/healthz")

        contained.start()
        await contained.healthy()
        again = Viewer(server.url, session["id"], environment["id"], api.token)
        async with again.attached():
            await again.shows("\nline", timeout_s=30)
            seen = again.numbers("line")
            await until(lambda: again.numbers("line")[-1] > seen[-1], "the program goes on")
            assert seen == list(range(seen[0], seen[-1] + 1))
            await again.type("\x03")
            assert (await again.run("cat kept")).strip() == "mine"
        mode = (contained.folder / "keys").stat().st_mode & 0o777
        assert mode == 0o700
        assert "/tmp/backup is complete" in contained.command("backup", "/tmp/backup")
        await api.delete(f"/api/environments/{environment['id']}")
