"""The border to the engine: its address, its silence, its errors."""

import socket
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import anyio
import pytest
from aiohttp import web

from craftastic.errors import NotConfigured
from craftastic.runtimes import _docker_engine
from craftastic.runtimes._docker_container import (
    Host,
    Place,
    container_config,
    hostname,
    write_accounts,
)
from craftastic.runtimes._docker_engine import (
    SILENT_S,
    Engine,
    EngineRefused,
    engine_url,
    start_failure,
)
from craftastic.runtimes._docker_image import authorities, context, sources, version
from craftastic.runtimes._docker_network import SandboxNetwork
from craftastic.runtimes._storage import storage_of
from craftastic.runtimes.base import (
    RuntimeUnavailable,
    SandboxExhausted,
    SandboxGone,
    SandboxSpec,
)
from craftastic.runtimes.docker import DockerRuntime
from craftastic.settings import Settings

ONE = b"-----BEGIN CERTIFICATE-----\nMTE=\n-----END CERTIFICATE-----"
TWO = b"-----BEGIN CERTIFICATE-----\nMjI=\n-----END CERTIFICATE-----"
VERSION = {"Version": "1", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
SPEC = SandboxSpec(UUID(int=1), UUID(int=2), 3, "name", cpus=64.0)


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("/run/user/1000/docker.sock", "unix:///run/user/1000/docker.sock"),
        ("unix:///run/podman/podman.sock", "unix:///run/podman/podman.sock"),
        ("tcp://127.0.0.1:2375", "http://127.0.0.1:2375"),
        ("http://127.0.0.1:2375", "http://127.0.0.1:2375"),
    ],
)
def test_every_documented_form_of_docker_host_is_taken(setting: str, url: str) -> None:
    assert engine_url(setting) == url


@pytest.mark.parametrize("setting", ["ssh://host", "npipe:////./pipe/docker", "nonsense"])
def test_another_form_of_docker_host_is_refused(setting: str) -> None:
    with pytest.raises(NotConfigured):
        engine_url(setting)


def test_without_a_setting_the_usual_socket_is_taken() -> None:
    assert engine_url(None).endswith("/run/docker.sock")


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (409, "Container abc is not running", SandboxGone),
        (409, "Container abc is paused, unpause it", SandboxGone),
        (404, "No such container: abc", SandboxGone),
        (
            400,
            "OCI runtime exec failed: fork/exec: resource temporarily unavailable",
            SandboxExhausted,
        ),
        (
            500,
            "can't get final child's PID from pipe: EOF: cannot allocate memory",
            SandboxExhausted,
        ),
        (400, 'exec: "/usr/bin/python3": executable file not found', RuntimeUnavailable),
        (500, "the disk is on fire", RuntimeUnavailable),
    ],
)
def test_the_engines_refusals_become_the_ports(
    status: int, said: str, error: type[Exception]
) -> None:
    assert isinstance(start_failure(EngineRefused(status, said)), error)


@pytest.fixture
def silent_engine() -> Iterator[str]:
    """Give the address of an engine that takes connections and never answers."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/docker.sock"
        listener.bind(path)
        listener.listen()
        yield path


async def test_a_silent_engine_is_given_up_after_the_deadline(silent_engine: str) -> None:
    """F06."""
    engine = Engine(silent_engine)
    try:
        with anyio.fail_after(5), pytest.raises(RuntimeUnavailable, match="did not answer within"):
            async with engine.border("a test", 0.2) as docker:
                await docker.version()
    finally:
        await engine.close()


async def test_a_silent_engine_is_asked_for_a_word_before_anything_else(
    silent_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F06: one call waits for its deadline, the next for a short one, all others not at all."""
    monkeypatch.setattr(_docker_engine, "PING_S", 0.2)
    engine = Engine(silent_engine)

    async def ask(timeout_s: float) -> float:
        began = anyio.current_time()
        with pytest.raises(RuntimeUnavailable, match="did not answer within"):
            async with engine.border("a test", timeout_s) as docker:
                await docker.version()
        return anyio.current_time() - began

    try:
        with anyio.fail_after(20):
            assert await ask(0.4) >= 0.4
            async with anyio.create_task_group() as tasks:
                for _ in range(20):  # they share one question
                    tasks.start_soon(ask, 60.0)
            began = anyio.current_time()
            for _ in range(100):
                await ask(60.0)
            assert anyio.current_time() - began < SILENT_S / 2
    finally:
        await engine.close()


async def test_an_engine_that_answers_again_is_trusted_again(
    silent_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_docker_engine, "PING_S", 0.2)
    monkeypatch.setattr(_docker_engine, "SILENT_S", 0.2)
    engine = Engine(silent_engine)
    try:
        for _ in range(2):
            with pytest.raises(RuntimeUnavailable):
                async with engine.border("a test", 0.2) as docker:
                    await docker.version()
        await anyio.Path(silent_engine).unlink()
        async with answering(silent_engine):
            await anyio.sleep(0.2)

            async with engine.border("a test", 20.0) as docker:
                assert await docker.version() == VERSION
            async with engine.border("a test", 20.0) as docker:
                assert await docker.version() == VERSION
    finally:
        await engine.close()


async def test_an_engine_that_is_gone_is_not_taken_for_a_silent_one(
    silent_engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_docker_engine, "PING_S", 0.2)
    engine = Engine(silent_engine)
    try:
        with pytest.raises(RuntimeUnavailable):
            async with engine.border("a test", 0.2) as docker:
                await docker.version()
        await anyio.Path(silent_engine).unlink()
        with pytest.raises(RuntimeUnavailable, match="does not answer"):
            await engine.ping()

        async with answering(silent_engine):
            assert await engine.ping() == VERSION
    finally:
        await engine.close()


@asynccontextmanager
async def answering(path: str) -> AsyncGenerator[None]:
    """Be an engine that tells its version, as long as the block goes on."""

    async def version(_request: web.Request) -> web.Response:
        return web.json_response(VERSION)

    app = web.Application()
    app.router.add_get("/{any:.*}", version)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def test_an_absent_engine_is_unavailable_in_every_call(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "docker_host": str(tmp_path / "none.sock")}
    )
    runtime = DockerRuntime(settings, "instance")
    try:
        assert not await runtime.answers()
        for call in (
            runtime.prepare(),
            runtime.create(SPEC),
            runtime.list(),
            runtime.remove(SPEC, storage=True),
            runtime.gateway_address(),
        ):
            with pytest.raises(RuntimeUnavailable, match="does not answer"):
                await call
        (finding,) = await runtime.check()
        assert finding.ok is False
        assert finding.remedy
    finally:
        await runtime.close()


async def test_closing_may_be_repeated() -> None:
    runtime = DockerRuntime(Settings.model_validate({}), "instance")

    await runtime.close()
    await runtime.close()


# ---- the container --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("My env!", "my-env"),
        ("--x--", "x"),
        ("", "sandbox"),
        ("ünïcode", "n-code"),
        ("日本", "sandbox"),
        ("a" * 100, "a" * 40),
    ],
)
def test_a_sandboxs_host_name_is_always_valid(name: str, host: str) -> None:
    assert hostname(name) == host


def config(host: Host) -> dict[str, object]:
    place = Place(storage_of(Path("/data"), SPEC.environment_id), Path("/data/s"), 7, 7, "1.2.3.4")
    made = container_config(SPEC, place, host, instance="i", image="sha256:1", network="n")
    return made["HostConfig"]


def test_a_container_gets_no_more_processors_than_there_are() -> None:
    assert config(Host(1, cgroup_v2=False))["NanoCpus"] == 1_000_000_000


def test_the_control_group_namespace_is_private_where_there_is_one() -> None:
    assert config(Host(1, cgroup_v2=True))["CgroupnsMode"] == "private"
    assert "CgroupnsMode" not in config(Host(1, cgroup_v2=False))


def test_labels_of_the_spec_cannot_replace_the_products_own() -> None:
    spec = SandboxSpec(
        UUID(int=1), UUID(int=2), 3, "name", labels={"craftastic.instance": "x", "team": "y"}
    )
    place = Place(storage_of(Path("/data"), spec.environment_id), Path("/d"), 7, 7, "1.2.3.4")

    made = container_config(
        spec, place, Host(1, cgroup_v2=True), instance="i", image="s", network="n"
    )

    assert made["Labels"]["craftastic.instance"] == "i"
    assert made["Labels"]["team"] == "y"


def test_the_account_files_name_the_user_and_may_be_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "sandboxes" / "one"

    write_accounts(folder, 200_001, 200_001)
    inode = (folder / "passwd").stat().st_ino
    write_accounts(folder, 200_001, 200_001)

    assert (folder / "passwd").stat().st_ino == inode
    assert "dev:x:200001:200001:dev:/home/dev:/bin/bash" in (folder / "passwd").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["group", "link", "passwd"]
    assert (folder / "passwd").stat().st_mode & 0o777 == 0o644


# ---- the image ------------------------------------------------------------------------------


def test_authorities_come_from_the_bundle_or_from_the_hosts_own(tmp_path: Path) -> None:
    host, bundle = tmp_path / "host", tmp_path / "bundle.pem"
    host.mkdir()
    (host / "one.crt").write_bytes(b"# comment\n" + ONE + b"\n")
    bundle.write_bytes(TWO + b"\ntext\n" + TWO + b"\n" + ONE)

    assert authorities(None, host) == [ONE]
    assert authorities(bundle, host) == [TWO, ONE]


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_bundle_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)

    with pytest.raises(RuntimeUnavailable, match="CRAFTASTIC_IMAGE_CA_BUNDLE"):
        authorities(bundle)


def test_the_context_carries_each_authority_as_a_file_of_its_own() -> None:
    import io  # noqa: PLC0415
    import tarfile  # noqa: PLC0415

    with tarfile.open(fileobj=io.BytesIO(context(sources(), [ONE, TWO]))) as archive:
        names = archive.getnames()

    assert names == [
        "ca",
        "agents",
        "Dockerfile",
        "node-requirements.txt",
        "ca/craftastic-000.crt",
        "ca/craftastic-001.crt",
    ]


def test_every_part_of_the_recipe_changes_the_version() -> None:
    files = sources()
    changed = {**files, "Dockerfile": files["Dockerfile"] + b"\n"}

    versions = {
        version(files, [], None),
        version(changed, [], None),
        version(files, [ONE], None),
        version(files, [ONE, TWO], None),
        version(files, [], "other:1"),
    }

    assert len(versions) == 5


def test_the_recipe_takes_a_base_and_runs_no_script_from_the_net() -> None:
    text = sources()["Dockerfile"].decode()

    assert "ARG BASE_IMAGE" in text
    assert "| sh" not in text
    assert "| bash" not in text
    assert "--require-hashes" in text


# ---- the network ----------------------------------------------------------------------------


def test_the_rules_open_the_gateway_and_end_with_rejects() -> None:
    network = SandboxNetwork(Engine("/none"), 3010)

    commands = network.commands("172.30.0.1")

    accepts = [line for line in commands if "ACCEPT" in line]
    assert any("-d 172.30.0.1/32 -p tcp" in line and "--dport 3010" in line for line in accepts)
    assert len(accepts) == 2
    assert any("-A CRAFTASTIC-IN -j REJECT" in line for line in commands)
    for closed in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"):
        assert any("CRAFTASTIC-FWD" in line and closed in line for line in commands)


def test_a_bridges_name_fits_the_kernel() -> None:
    assert SandboxNetwork(Engine("/none"), 1).bridge == "craftastic0"
    assert len(SandboxNetwork(Engine("/none"), 1, "a-very-long-network-name").bridge) <= 15
