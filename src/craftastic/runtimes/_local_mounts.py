"""What a local sandbox sees: the host's programs, its own storage, and an /etc made for it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from uuid import UUID

from craftastic.runtimes._agent_tools import TOOLS_DIR
from craftastic.runtimes._storage import Storage, remove_tree
from craftastic.runtimes.base import GATEWAY_HOST, HOME, RUN_DIR, USER

INSIDE_UID = 1000
HOSTNAME = "sandbox"
INIT = "/etc/craftastic/init.py"
PYTHON = "/usr/bin/python3"
TMP_BYTES = 2 << 30
"""Most bytes of /tmp; a memory file system, so they count as memory of the sandbox."""

SMALL_BYTES = 64 << 20

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders of the root that are links into /usr on a merged system. Source: Debian's usrmerge."""

HOST_ETC = ("ssl", "ca-certificates", "pki", "alternatives")
"""Folders of the host's /etc that programs in /usr need and that hold nothing private."""

HOST_ETC_FILES = ("ld.so.cache", "ld.so.conf", "localtime", "mime.types", "services", "protocols")

ENVIRONMENT = {
    "HOME": HOME,
    "USER": USER,
    "LOGNAME": USER,
    "SHELL": "/bin/bash",
    "PATH": f"{HOME}/.local/bin:{TOOLS_DIR}/bin:/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "xterm-256color",
    "TMPDIR": "/tmp",  # noqa: S108 - the sandbox's own
}

FILES = {
    "passwd": (
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
        f"{USER}:x:{INSIDE_UID}:{INSIDE_UID}:{USER}:{HOME}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "group": f"root:x:0:\n{USER}:x:{INSIDE_UID}:\nnogroup:x:65534:\n",
    "hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n127.0.0.1 {GATEWAY_HOST}\n",
    "hostname": f"{HOSTNAME}\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "shells": "/bin/sh\n/bin/bash\n",
    "os-release": "",
    "bash.bashrc": (
        "PS1='\\[\\e[32m\\]\\u\\[\\e[0m\\]:\\[\\e[34m\\]\\w\\[\\e[0m\\]\\$ '\n"
        "[ -r /usr/share/bash-completion/bash_completion ] && "
        ". /usr/share/bash-completion/bash_completion\n"
    ),
    "profile": (
        '[ -n "$BASH_VERSION" ] && [ "${-#*i}" != "$-" ] && . /etc/bash.bashrc\n'
        '[ -r "$HOME/.bashrc" ] && [ -n "$BASH_VERSION" ] && . "$HOME/.bashrc"\n:\n'
    ),
}


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the driver keeps its own things below the data folder."""

    data_dir: Path

    @property
    def etc(self) -> Path:
        return self.data_dir / "local" / "etc"

    @property
    def tools(self) -> Path:
        return self.data_dir / "tools" / "agents"

    def state(self, environment_id: UUID) -> Path:
        return self.data_dir / "sandboxes" / str(environment_id)

    def run(self, environment_id: UUID) -> Path:
        return self.data_dir / "run" / str(environment_id)


def make_etc(etc: Path, resolvers: Sequence[str]) -> None:
    """Write the /etc of all sandboxes; running ones see changes at once.

    Raises:
        OSError: The folder cannot be written.
    """
    etc.mkdir(parents=True, exist_ok=True)
    etc.chmod(0o755)
    etc.parent.chmod(0o711)
    for folder in ("craftastic", *_host_etc()):
        (etc / folder).mkdir(exist_ok=True)
        (etc / folder).chmod(0o755)
    init = resources.files("craftastic.runtimes").joinpath("_local_init.py")
    texts = {
        **FILES,
        "craftastic/init.py": init.read_text(encoding="utf-8"),
        "resolv.conf": "".join(f"nameserver {one}\n" for one in resolvers) + "options edns0\n",
    }
    with contextlib.suppress(OSError):
        texts["os-release"] = Path("/etc/os-release").read_text(encoding="utf-8")
    for name, text in texts.items():
        _replace(etc / name, text)
    for name in HOST_ETC_FILES:
        if (Path("/etc") / name).is_file():
            (etc / name).touch(exist_ok=True)


def _host_etc() -> Iterator[str]:
    for name in HOST_ETC:
        if (Path("/etc") / name).is_dir():
            yield name


def _replace(path: Path, text: str) -> None:
    """Write a file in one step: a sandbox that starts meanwhile sees the old or the new one."""
    with contextlib.suppress(OSError):
        if path.read_text(encoding="utf-8") == text:
            return
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(fd, 0o644)
    Path(name).replace(path)


def make_run_folder(folders: Folders, environment_id: UUID, uid: int) -> Path:
    """Make the private folder of sockets anew and empty. Nothing of the sandbox may be running.

    Raises:
        OSError: The folder cannot be made, or what was in it not removed.
    """
    run = folders.run(environment_id)
    run.parent.mkdir(parents=True, exist_ok=True)
    run.parent.chmod(0o711)
    remove_tree(run)
    run.mkdir(mode=0o700)
    if uid != os.geteuid():
        os.chown(run, uid, uid)
    return run


def sandbox_arguments(
    etc: Path, tools: Path, storage: Storage, run: Path, environment_id: UUID
) -> list[str]:
    """Return bubblewrap's arguments for what the sandbox sees and is."""
    inside = f"{HOME}/.craftastic"
    key = str(environment_id)
    return [
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
        "--unshare-cgroup-try", "--disable-userns",
        "--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID), "--hostname", HOSTNAME,
        "--as-pid-1", "--new-session", "--cap-drop", "ALL",
        "--ro-bind", "/usr", "/usr", *_root_links(),
        "--ro-bind", str(etc), "/etc", *_etc_binds(),
        "--ro-bind", str(tools), TOOLS_DIR,
        "--proc", "/proc", "--dev", "/dev",
        "--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/tmp",  # noqa: S108
        "--size", str(SMALL_BYTES), "--tmpfs", "/run",
        "--bind", str(run), RUN_DIR,
        "--dir", "/var", "--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/var/tmp",  # noqa: S108
        "--symlink", "../run", "/var/run",
        "--bind", str(storage.home), HOME,
        "--bind", str(storage.repos), f"{inside}/repos/{key}",
        "--bind", str(storage.worktrees), f"{inside}/worktrees/{key}",
        "--remount-ro", "/",
        "--chdir", HOME, "--clearenv",
        *(word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)),
    ]  # fmt: skip


def _root_links() -> Iterator[str]:
    for name in MERGED:
        path = Path("/") / name
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))


def _etc_binds() -> Iterator[str]:
    for name in _host_etc():
        yield from ("--ro-bind", f"/etc/{name}", f"/etc/{name}")
    for name in HOST_ETC_FILES:
        path = Path("/etc") / name
        if path.is_file():
            # What a link points to may lie in a folder that the sandbox does not see.
            yield from ("--ro-bind", str(path.resolve()), str(path))
