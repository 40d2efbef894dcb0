"""What a sandbox's container is allowed: the one place where its policy is written (SEC-20)."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from craftastic.runtimes._docker_engine import Json
from craftastic.runtimes._docker_link import LINK_DIR
from craftastic.runtimes._storage import Storage
from craftastic.runtimes.base import GATEWAY_HOST, HOME, RUN_DIR, USER, SandboxSpec

INSTANCE_LABEL = "craftastic.instance"
ENVIRONMENT_LABEL = "craftastic.environment"
USER_LABEL = "craftastic.user"
NAME_LABEL = "craftastic.name"

LINK = "link"
"""The folder of sockets beside the accounts; see `_docker_link`."""

TMP_BYTES = 1 << 30
SHM_BYTES = 256 << 20
RUN_BYTES = 64 << 20
OPEN_FILES = 65_536
PATH = "/home/dev/.local/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
ENVIRONMENT = (
    f"HOME={HOME}",
    f"USER={USER}",
    f"LOGNAME={USER}",
    "SHELL=/bin/bash",
    "LANG=C.UTF-8",
    "TERM=xterm-256color",
    f"PATH={PATH}",
)


@dataclass(frozen=True, slots=True)
class Host:
    """What the engine's machine can do.

    Args:
        cpus: How many processors it has; the engine refuses a larger limit.
        cgroup_v2: Only there can a container have a control group namespace of its own.
        open_files: Most files one process may have open there; an engine without CAP_SYS_RESOURCE
            cannot raise its own limit for a container.
    """

    cpus: int
    cgroup_v2: bool
    open_files: int = OPEN_FILES


@dataclass(frozen=True, slots=True)
class Place:
    """Where one sandbox stands on the host.

    Args:
        storage: Its folders.
        accounts: Folder with the `passwd` and `group` files that name its user.
        uid: Its user and group on the host and inside.
        gateway: The host's address on the sandboxes' bridge.
    """

    storage: Storage
    accounts: Path
    uid: int
    gid: int
    gateway: str


def container_name(instance: str, environment_id: UUID) -> str:
    return f"craftastic-{instance[:8]}-{environment_id}"


def labels(instance: str, spec: SandboxSpec) -> dict[str, str]:
    return {
        **spec.labels,
        INSTANCE_LABEL: instance,
        ENVIRONMENT_LABEL: str(spec.environment_id),
        USER_LABEL: str(spec.owner_id),
        NAME_LABEL: spec.name,
    }


def hostname(name: str) -> str:
    """Return a host name made from an environment's name: people see it in their prompt."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "sandbox"


def container_config(
    spec: SandboxSpec, place: Place, host: Host, *, instance: str, image: str, network: str
) -> Json:
    """Return the whole description of a container, for `POST /containers/create`.

    Args:
        spec: What to run.
        place: Where it stands.
        host: What the engine's machine can do.
        instance: This installation's id, for labels.
        image: The image's id, never a name that may come to mean another image.
        network: The sandboxes' network.

    Source: Engine API 1.41, ContainerCreate.
    """
    owner = f"uid={place.uid},gid={place.gid}"
    return {
        "Image": image,
        "Hostname": hostname(spec.name),
        "User": f"{place.uid}:{place.gid}",
        "WorkingDir": HOME,
        "Env": list(ENVIRONMENT),
        "Entrypoint": ["/usr/bin/sleep"],
        "Cmd": ["infinity"],
        "Labels": labels(instance, spec),
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "OpenStdin": False,
        "Tty": False,
        "HostConfig": {
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Init": True,
            "PidsLimit": spec.pids,
            "Memory": spec.memory_bytes,
            "MemorySwap": spec.memory_bytes,
            "NanoCpus": int(min(spec.cpus, host.cpus) * 1_000_000_000),
            "Ulimits": [
                {"Name": "nofile", "Soft": host.open_files, "Hard": host.open_files},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "OomScoreAdj": 500,
            "ReadonlyRootfs": True,
            "Tmpfs": {
                "/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={min(TMP_BYTES, spec.memory_bytes)}",  # noqa: S108
                "/var/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={RUN_BYTES}",  # noqa: S108
                "/run": f"rw,noexec,nosuid,nodev,mode=0755,size={RUN_BYTES}",
                RUN_DIR: f"rw,noexec,nosuid,nodev,mode=0700,size={RUN_BYTES},{owner}",
            },
            "Mounts": _mounts(spec, place),
            "ShmSize": min(SHM_BYTES, spec.memory_bytes),
            "IpcMode": "private",
            **({"CgroupnsMode": "private"} if host.cgroup_v2 else {}),
            "LogConfig": {"Type": "local", "Config": {"max-size": "1m", "max-file": "2"}},
            "RestartPolicy": {"Name": "no"},
            "NetworkMode": network,
            "ExtraHosts": [f"{GATEWAY_HOST}:{place.gateway}"],
        },
    }


def _mounts(spec: SandboxSpec, place: Place) -> list[Json]:
    key = str(spec.environment_id)
    return [
        _mount(place.storage.home, HOME),
        _mount(place.storage.repos, f"{HOME}/.craftastic/repos/{key}"),
        _mount(place.storage.worktrees, f"{HOME}/.craftastic/worktrees/{key}"),
        _mount(place.accounts / "passwd", "/etc/passwd", read_only=True),
        _mount(place.accounts / "group", "/etc/group", read_only=True),
        _mount(place.accounts / LINK, LINK_DIR, read_only=True),
    ]


def _mount(source: Path, target: str, *, read_only: bool = False) -> Json:
    # Not `Binds`: those make a missing source, as root.
    return {
        "Type": "bind",
        "Source": str(source),
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def write_accounts(folder: Path, uid: int, gid: int) -> None:
    """Write the files that give the sandbox's user its name, and make the folder of its sockets.

    Blocks; safe to repeat.
    """
    (folder / LINK).mkdir(parents=True, exist_ok=True)
    for one in (folder.parent, folder, folder / LINK):
        one.chmod(0o711)
    passwd = (
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"{USER}:x:{uid}:{gid}:{USER}:{HOME}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    group = f"root:x:0:\n{USER}:x:{gid}:\nnogroup:x:65534:\n"
    for name, text in (("passwd", passwd), ("group", group)):
        fresh = folder / f".{name}.new"
        fresh.write_text(text)
        fresh.chmod(0o644)
        # Not over a file that a running sandbox has mounted, unless it would change.
        if not (folder / name).exists() or (folder / name).read_text() != text:
            os.replace(fresh, folder / name)  # noqa: PTH105
        else:
            fresh.unlink()
