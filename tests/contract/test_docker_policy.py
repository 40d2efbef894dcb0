"""What only the Docker driver promises: the container's policy, its network, its image."""

import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest

from craftastic.errors import Conflict
from craftastic.runtimes._docker_container import container_name
from craftastic.runtimes._docker_engine import Engine, EngineRefused
from craftastic.runtimes._docker_image import ImageBuilder, label_of
from craftastic.runtimes._firewall import Firewall
from craftastic.runtimes.base import (
    GATEWAY_HOST,
    HOME,
    Progress,
    RuntimeUnavailable,
    SandboxGone,
    SandboxRef,
    SandboxState,
)
from craftastic.runtimes.docker import DockerRuntime
from craftastic.settings import Settings
from tests.contract.conftest import Bench

pytestmark = pytest.mark.docker

FORBIDDEN_TRUE = ("Privileged", "PublishAllPorts", "AutoRemove")
EMPTY = (
    "CapAdd",
    "Devices",
    "DeviceRequests",
    "DeviceCgroupRules",
    "PortBindings",
    "VolumesFrom",
    "Links",
    "GroupAdd",
    "Binds",
    "Sysctls",
    "StorageOpt",
    "PidMode",
    "UTSMode",
    "UsernsMode",
    "CgroupParent",
)


@pytest.fixture
async def engine(docker: Bench) -> AsyncIterator[Engine]:
    engine = Engine(None)
    yield engine
    await engine.close()


async def inspect(engine: Engine, container: str) -> dict[str, Any]:
    found = await engine.get(f"containers/{container}/json", "a test")
    assert found is not None
    return found


async def test_a_container_has_the_whole_policy_and_nothing_more(
    docker: Bench, engine: Engine
) -> None:
    """SEC-20, against what the engine itself says."""
    spec = docker.spec(pids=300)
    ref = await docker.runtime.create(spec)
    gateway = await docker.runtime.gateway_address()
    uid = docker.settings.sandbox_uid_base + spec.number if os.geteuid() == 0 else os.geteuid()

    found = await inspect(engine, ref.id)
    config, host = found["Config"], found["HostConfig"]

    assert found["Name"] == f"/{container_name(docker.instance, spec.environment_id)}"
    assert config["User"].split(":")[0] == str(uid) != "0"
    assert config["Tty"] is config["OpenStdin"] is False
    assert [key for key in FORBIDDEN_TRUE if host[key]] == []
    assert {key: host[key] for key in EMPTY if host.get(key)} == {}
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Init"] is True
    assert host["PidsLimit"] == 300
    assert host["Memory"] == host["MemorySwap"] == spec.memory_bytes
    assert 0 < host["NanoCpus"] <= 2_000_000_000
    limits = {one["Name"]: (one["Soft"], one["Hard"]) for one in host["Ulimits"]}
    assert limits["core"] == (0, 0)
    assert 0 < limits["nofile"][0] == limits["nofile"][1] <= 65536
    assert host["OomScoreAdj"] == 500
    assert host["ReadonlyRootfs"] is True
    assert set(host["Tmpfs"]) == {"/tmp", "/var/tmp", "/run", "/run/craftastic"}
    assert all("nosuid" in how and "size=" in how for how in host["Tmpfs"].values())
    assert host["IpcMode"] == "private"
    assert host["NetworkMode"] == docker.runtime._network.name  # type: ignore[attr-defined]
    assert host["LogConfig"]["Type"] == "local"
    assert host["LogConfig"]["Config"]["max-size"] == "1m"
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["ExtraHosts"] == [f"{GATEWAY_HOST}:{gateway}"]
    assert found["Image"].startswith("sha256:")
    assert config["Image"] == found["Image"]
    assert found["AppArmorProfile"] != "unconfined"
    key = str(spec.environment_id)
    data = str(docker.settings.data_dir)
    assert {(m["Source"], m["Destination"], m["RW"]) for m in found["Mounts"]} == {
        (f"{data}/homes/{key}", HOME, True),
        (f"{data}/repos/{key}", f"{HOME}/.craftastic/repos/{key}", True),
        (f"{data}/worktrees/{key}", f"{HOME}/.craftastic/worktrees/{key}", True),
        (f"{data}/sandboxes/{key}/passwd", "/etc/passwd", False),
        (f"{data}/sandboxes/{key}/group", "/etc/group", False),
        (f"{data}/sandboxes/{key}/link", "/run/craftastic-link", False),
    }
    assert config["Labels"]["craftastic.instance"] == docker.instance
    assert config["Labels"]["craftastic.environment"] == key
    assert config["Labels"]["craftastic.user"] == str(spec.owner_id)


async def test_no_secret_of_the_server_is_in_a_container(docker: Bench, engine: Engine) -> None:
    """SEC-29."""
    canary = f"canary-{secrets.token_hex(24)}"
    settings = docker.settings.model_copy(update={"jwt_secret": canary, "encryption_key": canary})
    runtime = DockerRuntime(
        Settings.model_validate(settings.model_dump()),
        docker.instance,
        network=docker.runtime._network.name,  # type: ignore[attr-defined]
    )
    try:
        ref = await runtime.create(docker.spec())
        inside = await runtime.run(ref, ["sh", "-c", "cat /proc/[0-9]*/environ; cat /etc/hosts"])
    finally:
        await runtime.close()

    assert canary not in json.dumps(await inspect(engine, ref.id))
    assert canary.encode() not in inside.stdout


async def test_a_foreign_container_of_our_name_is_not_touched(
    docker: Bench, engine: Engine
) -> None:
    """F10, SEC-25."""
    spec = docker.spec()
    image = docker.settings.sandbox_image
    name = container_name(docker.instance, spec.environment_id)
    foreign = await engine.docker.containers.create(
        {"Image": image, "Cmd": ["sleep", "infinity"]}, name=name
    )
    try:
        await foreign.start()

        with pytest.raises(Conflict, match="did not make"):
            await docker.runtime.create(spec)
        ref = SandboxRef("docker", foreign.id)
        with pytest.raises(SandboxGone):
            await docker.runtime.run(ref, ["true"])
        await docker.runtime.stop(ref)
        await docker.runtime.remove(spec, storage=True)

        assert await docker.runtime.inspect(ref) is SandboxState.GONE
        assert await docker.runtime.list() == []
        assert (await inspect(engine, foreign.id))["State"]["Running"] is True
    finally:
        await foreign.delete(force=True)


async def test_a_container_removed_behind_our_back_is_made_anew(
    docker: Bench, engine: Engine
) -> None:
    """F09."""
    spec = docker.spec()
    ref = await docker.runtime.create(spec)
    await docker.sh(ref, "echo kept > ~/file")
    await engine.container(ref.id).delete(force=True)

    assert await docker.runtime.inspect(ref) is SandboxState.GONE
    with pytest.raises(SandboxGone):
        await docker.runtime.run(ref, ["true"])
    again = await docker.runtime.create(spec)

    assert again != ref
    assert await docker.sh(again, "cat ~/file") == "kept\n"


async def test_without_the_hosts_rules_isolation_says_what_is_open(docker: Bench) -> None:
    ref = await docker.sandbox()
    network = docker.runtime._network  # type: ignore[attr-defined]
    for kind, hook in (("IN", "INPUT"), ("FWD", "DOCKER-USER")):
        await Firewall().remove(chain=network._chain_name(kind), hook=hook)
    network.rules_set = False

    isolation = await docker.runtime.isolation(ref)
    found = {finding.name: finding for finding in await docker.runtime.check()}

    assert not isolation.verified
    assert any("the host at" in one for one in isolation.open)
    assert found["docker.firewall"].ok is False
    assert "iptables" in (found["docker.firewall"].remedy or "")

    await docker.runtime.prepare()
    found = {finding.name: finding for finding in await docker.runtime.check()}
    assert found["docker.firewall"].ok is True


class CountingFirewall(Firewall):
    """Remembers how often it has set a chain."""

    set_chains: ClassVar[list[str]] = []

    async def apply(self, **arguments: Any) -> None:
        self.set_chains.append(arguments["chain"])
        await super().apply(**arguments)


async def test_rules_that_stand_are_left_alone_and_those_that_changed_are_set(
    docker: Bench,
) -> None:
    network = docker.runtime._network  # type: ignore[attr-defined]
    await docker.runtime.prepare()
    network.firewall, done = CountingFirewall(), CountingFirewall.set_chains
    done.clear()

    await docker.runtime.prepare()
    untouched = list(done)
    for kind, hook in (("IN", "INPUT"), ("FWD", "DOCKER-USER")):
        await Firewall().remove(chain=network._chain_name(kind), hook=hook)
    await docker.runtime.prepare()

    assert untouched == []
    assert done == [network._chain_name("IN"), network._chain_name("FWD")]
    assert await network.protected()


async def test_a_second_server_does_not_shut_the_firsts_gateway(docker: Bench) -> None:
    network = docker.runtime._network  # type: ignore[attr-defined]
    address = await docker.runtime.gateway_address()
    other = docker.settings.gateway_port + 1

    with socket.create_server((address, docker.settings.gateway_port)):
        second = DockerRuntime(
            docker.settings.model_copy(update={"gateway_port": other}),
            secrets.token_hex(16),
            network=network.name,
        )
        try:
            await second.prepare()
        finally:
            await second.close()

        listed = await network.firewall._listing(network._chain_name("IN"), ipv6=False)
        ports = {word for line in listed for word in line.split() if word.isdigit()}
    assert {str(docker.settings.gateway_port), str(other)} <= ports


def recipe_of(files: dict[str, bytes]) -> Callable[[Sequence[str]], dict[str, bytes]]:
    """Return a stand-in of the image's recipe, whatever agents are wanted."""

    def sources(agents: Sequence[str] = ()) -> dict[str, bytes]:
        return files

    return sources


async def test_an_image_is_built_once_and_again_when_its_recipe_changes(
    docker: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"craftastic-sandbox:test-{secrets.token_hex(4)}"
    builder = ImageBuilder(engine, name, None, None)
    seen: list[Progress] = []

    async def report(progress: Progress) -> None:
        seen.append(progress)

    monkeypatch.setattr(
        "craftastic.runtimes._docker_image.sources",
        recipe_of(
            {
                "Dockerfile": b"ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY ca/ /ca/\nRUN true\n",
                "node-requirements.txt": b"",
            }
        ),
    )
    try:
        first = await builder.ensure(report)
        assert any(one.percent is not None and "step" in one.message for one in seen)
        seen.clear()
        assert await builder.ensure(report) == first
        assert seen == []

        builder = ImageBuilder(engine, name, docker.settings.sandbox_image, None)
        second = await builder.ensure(report)

        assert second != first
        image = await builder.find()
        assert image is not None
        assert label_of(image) is not None
    finally:
        await engine.docker.images.delete(name, force=True)


async def test_a_build_that_fails_says_why(
    docker: Bench, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = ImageBuilder(engine, f"craftastic-sandbox:test-{uuid4().hex[:8]}", None, None)
    monkeypatch.setattr(
        "craftastic.runtimes._docker_image.sources",
        recipe_of(
            {
                "Dockerfile": b"ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo the-reason && false\n",
                "node-requirements.txt": b"",
            }
        ),
    )

    async def report(_: Progress) -> None:
        pass

    with pytest.raises(RuntimeUnavailable, match="the-reason"):
        await builder.build(report)


async def test_a_network_of_our_name_that_is_not_ours_is_refused(engine: Engine) -> None:
    name = f"cft{secrets.token_hex(3)}"
    foreign = await engine.docker.networks.create({"Name": name, "Driver": "bridge"})
    runtime = DockerRuntime(Settings.model_validate({}), secrets.token_hex(16), network=name)
    try:
        with pytest.raises(RuntimeUnavailable, match="did not make"):
            await runtime.gateway_address()
    finally:
        await runtime.close()
        await foreign.delete()


async def test_names_resolve_through_the_rules(docker: Bench) -> None:
    """The host's own name servers stay reachable although their range is closed."""
    ref = await docker.sandbox()
    script = "import socket; print(socket.getaddrinfo('deb.debian.org', 80)[0][4][0])"

    resolved = await docker.runtime.run(ref, ["python3", "-c", script], timeout_s=30)

    on_host = await resolves_here()
    assert (resolved.exit_code == 0) == on_host


async def resolves_here() -> bool:
    try:
        await anyio.to_thread.run_sync(socket.getaddrinfo, "deb.debian.org", 80)
    except OSError:
        return False
    return True


async def test_what_the_engine_refuses_is_told_in_the_ports_words(engine: Engine) -> None:
    with pytest.raises(EngineRefused) as refused:
        async with engine.border("a test"):
            await engine.container("no-such-container").start()
    assert refused.value.status == 404
    assert await engine.get("containers/no-such-container/json", "a test") is None


async def test_a_container_that_knows_a_gateway_that_is_gone_is_made_anew(
    docker: Bench, engine: Engine
) -> None:
    """The network was removed and came back at another address; what was written is kept."""
    name = f"cft{secrets.token_hex(3)}"
    runtime = DockerRuntime(docker.settings, docker.instance, network=name)
    spec = docker.spec()
    blocker = None
    try:
        ref = await runtime.create(spec)
        before = await runtime.gateway_address()
        await runtime.run(ref, ["sh", "-c", "echo kept > ~/file"])
        await runtime.stop(ref)
        await (await engine.docker.networks.get(name)).delete()
        blocker = await engine.docker.networks.create(
            {
                "Name": f"{name}x",
                "Driver": "bridge",
                "IPAM": {"Config": [{"Subnet": f"{before.rpartition('.')[0]}.0/24"}]},
            }
        )

        again = await runtime.create(spec)

        assert await runtime.gateway_address() != before
        assert (await runtime.run(again, ["cat", "file"])).stdout == b"kept\n"
        hosts = (await runtime.run(again, ["cat", "/etc/hosts"])).stdout.decode()
        assert f"{await runtime.gateway_address()}\t{GATEWAY_HOST}" in hosts
    finally:
        await runtime.remove(spec, storage=True)
        for kind, hook in (("IN", "INPUT"), ("FWD", "DOCKER-USER")):
            await Firewall().remove(chain=runtime._network._chain_name(kind), hook=hook)
        await (await engine.docker.networks.get(name)).delete()
        if blocker is not None:
            await blocker.delete()
        await runtime.close()


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give the file of a stand-in for mmdebstrap, on a machine that no registry answers."""
    base = f"craftastic-base:test-{secrets.token_hex(4)}"
    monkeypatch.setattr("craftastic.runtimes._docker_image.LOCAL_BASE", base)
    monkeypatch.setattr("craftastic.runtimes._docker_image.REGISTRY_BASE", "127.0.0.1:1/none:1")
    monkeypatch.setattr(
        "craftastic.runtimes._docker_image.sources",
        recipe_of(
            {
                "Dockerfile": b"ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY ca/ /ca/\n",
                "node-requirements.txt": b"",
            }
        ),
    )
    tool = tmp_path / "bin" / "mmdebstrap"
    tool.parent.mkdir()
    tool.touch(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    return tool


async def test_without_a_registry_the_base_is_made_from_packages(
    docker: Bench, engine: Engine, no_registry: Path
) -> None:
    from craftastic.runtimes._docker_image import LOCAL_BASE  # noqa: PLC0415

    await anyio.Path(no_registry).write_text('#!/bin/sh\nexec tar -c -C "${0%/*}" mmdebstrap\n')
    name = f"craftastic-sandbox:test-{secrets.token_hex(4)}"
    seen: list[str] = []

    async def report(progress: Progress) -> None:
        seen.append(progress.message)

    try:
        await ImageBuilder(engine, name, None, None).ensure(report)

        assert any("No image registry answers" in one for one in seen)
        assert await engine.get(f"images/{LOCAL_BASE}/json", "a test") is not None
    finally:
        await engine.docker.images.delete(name, force=True)
        await engine.docker.images.delete(LOCAL_BASE, force=True)


async def test_a_base_that_cannot_be_made_says_why_and_leaves_nothing(
    docker: Bench, engine: Engine, no_registry: Path
) -> None:
    from craftastic.runtimes._docker_image import LOCAL_BASE  # noqa: PLC0415

    script = '#!/bin/sh\necho the-reason >&2\ntar -c -C "${0%/*}" .\nexit 1\n'
    await anyio.Path(no_registry).write_text(script)
    builder = ImageBuilder(engine, f"craftastic-sandbox:test-{uuid4().hex[:8]}", None, None)

    async def report(_: Progress) -> None:
        pass

    with pytest.raises(RuntimeUnavailable, match="the-reason"):
        await builder.ensure(report)

    assert await engine.get(f"images/{LOCAL_BASE}/json", "a test") is None
