"""What `doctor` and `/readyz` say about the Docker engine; nothing here changes anything."""

from typing import cast

from craftastic.runtimes._docker_engine import Engine, Json
from craftastic.runtimes._docker_image import ImageBuilder
from craftastic.runtimes._docker_network import SandboxNetwork
from craftastic.runtimes._firewall import FirewallUnavailable
from craftastic.runtimes.base import Finding, RuntimeUnavailable

LIMITS = {"MemoryLimit": "memory", "PidsLimit": "processes", "CpuCfsQuota": "processors"}


async def findings(engine: Engine, images: ImageBuilder, network: SandboxNetwork) -> list[Finding]:
    """Look at engine, image, network and firewall rules."""
    try:
        version = await engine.ping()
        info = await engine.get("info", "looking at the engine") or {}
        found = [
            Finding(
                "docker.socket", ok=True, message=f"Docker {version.get('Version')} at {engine.url}"
            ),
            *_engine_findings(info),
        ]
    except RuntimeUnavailable as error:
        return [
            Finding(
                "docker.socket",
                ok=False,
                message=error.message,
                remedy="Start Docker, set DOCKER_HOST, or set CRAFTASTIC_RUNTIME=local.",
            )
        ]
    for look in (_image, _network):
        try:
            found += await look(images, network)
        except RuntimeUnavailable as error:
            found.append(Finding(f"docker.{look.__name__[1:]}", ok=False, message=error.message))
    return found


def _engine_findings(info: Json) -> list[Finding]:
    found: list[Finding] = []
    options = " ".join(cast("list[str]", info.get("SecurityOptions") or []))
    found.append(
        Finding("docker.seccomp", ok=True, message="System calls are filtered")
        if "name=seccomp" in options and "unconfined" not in options
        else Finding(
            "docker.seccomp",
            ok=False,
            message="The engine does not filter system calls of containers.",
            remedy="Use an engine and a kernel with seccomp and its default profile.",
        )
    )
    missing = [what for key, what in LIMITS.items() if info.get(key) is False]
    found.append(
        Finding("docker.limits", ok=True, message="Memory, processes and processors are limited")
        if not missing
        else Finding(
            "docker.limits",
            ok=False,
            message=f"The engine cannot limit {', '.join(missing)}.",
            remedy="Switch the control groups of these on in the kernel.",
        )
    )
    found.append(
        Finding("docker.live_restore", ok=True, message="Sandboxes outlive a restart of Docker")
        if info.get("LiveRestoreEnabled")
        else Finding(
            "docker.live_restore",
            ok=None,
            message="A restart of Docker stops all sandboxes, and their terminals are lost.",
            remedy='Put "live-restore": true into /etc/docker/daemon.json and reload Docker.',
        )
    )
    return found


async def _image(images: ImageBuilder, _: SandboxNetwork) -> list[Finding]:
    image = await images.find()
    if image is not None and images.is_current(image):
        return [Finding("docker.image", ok=True, message=f"The image {images.name} is there")]
    state = "missing" if image is None else "of an older version"
    return [
        Finding(
            "docker.image",
            ok=None,
            message=f"The image {images.name} is {state}; the server makes it when it is needed.",
            remedy="To make it now: craftastic image build",
        )
    ]


async def _network(_: ImageBuilder, network: SandboxNetwork) -> list[Finding]:
    address = await network.find()
    if address is None:
        return [
            Finding("docker.network", ok=None, message="The sandboxes' network is made at start.")
        ]
    found = [
        Finding(
            "docker.network", ok=True, message=f"{network.name} on {network.bridge}, host {address}"
        )
    ]
    commands = "\n".join(network.commands(address))
    try:
        protected, reason = await network.protected(), "the rules are not set"
    except FirewallUnavailable as error:
        protected, reason = False, error.message
    found.append(
        Finding("docker.firewall", ok=True, message="Rules keep sandboxes off the host")
        if protected
        else Finding(
            "docker.firewall",
            ok=False,
            message=f"Sandboxes may reach this host and private networks: {reason}.",
            remedy=f"Run as root:\n{commands}",
        )
    )
    return found
