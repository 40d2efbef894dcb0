"""A runtime whose commands are real: each runs in a bubblewrap of its own, over one shared home.

It isolates nothing; it makes paths inside look as the port promises, so that git's absolute paths,
tmux's socket and the gateway's name are the true ones.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from subprocess import PIPE
from uuid import UUID

import anyio
from anyio.abc import Process

from craftastic.runtimes.base import (
    GATEWAY_HOST,
    HOME,
    RUN_DIR,
    RunResult,
    SandboxGone,
    SandboxRef,
    SandboxSpec,
    Stream,
)
from craftastic.runtimes.memory import Call, MemoryRuntime
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from tests.conftest import missing
from tests.leaks import MARK_NAME, RUN

CHUNK = 1 << 16


class GitRuntime(MemoryRuntime):
    """Runs commands for real, in the sandbox's own home under `root`."""

    def __init__(self, root: Path, *, name: str = "memory") -> None:
        for program in ("bwrap", "git", "tmux"):
            if shutil.which(program) is None:
                missing(f"{program} is not installed")
        super().__init__(self._execute, name=name)
        self.root = root
        self.path = "/usr/local/bin:/usr/bin:/bin"
        self.hosts = root / "hosts"
        self.hosts.write_text(f"127.0.0.1 localhost {GATEWAY_HOST}\n")

    def home(self, environment_id: UUID) -> Path:
        """Return the host's path of a sandbox's home."""
        return self.root / str(environment_id) / "home"

    def inside(self, environment_id: UUID, path: str) -> Path:
        """Return the host's path of something that a sandbox sees under its home."""
        return self.home(environment_id) / path.removeprefix(f"{HOME}/")

    async def stop(self, sandbox: SandboxRef) -> None:
        found = self._find(sandbox)
        await super().stop(sandbox)
        if found is not None:
            self._end(found.spec.environment_id)

    async def remove(self, spec: SandboxSpec, *, storage: bool) -> None:
        await super().remove(spec, storage=storage)
        self._end(spec.environment_id)
        if storage:
            shutil.rmtree(self.root / str(spec.environment_id), ignore_errors=True)

    def vanish(self, environment_id: UUID) -> None:
        super().vanish(environment_id)
        self._end(environment_id)

    async def spawn(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
    ) -> RunResult:
        return await self.run(sandbox, argv, stdin=stdin, timeout_s=timeout_s)

    @contextlib.asynccontextmanager
    async def open(self, sandbox: SandboxRef, argv: Sequence[str]) -> AsyncGenerator[Stream]:
        await self._enter(Call(sandbox, tuple(argv)))
        process = await self._started(sandbox, argv)
        try:
            yield _PipeStream(process)
        finally:
            with anyio.CancelScope(shield=True):
                _kill(process)
                await process.aclose()

    async def close(self) -> None:
        for environment_id in [one.environment_id for one in await self.list()]:
            self._end(environment_id)

    async def _execute(self, call: Call) -> RunResult:
        process = await self._started(call.sandbox, call.argv)
        outputs = {1: bytearray(), 2: bytearray()}

        async def collect(number: int) -> None:
            stream = process.stdout if number == 1 else process.stderr
            assert stream is not None
            async for chunk in stream:
                outputs[number] += chunk

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(collect, 1)
                tasks.start_soon(collect, 2)
                assert process.stdin is not None
                with contextlib.suppress(anyio.BrokenResourceError):
                    await process.stdin.send(call.stdin)
                await process.stdin.aclose()
                await process.wait()
            assert process.returncode is not None
            return RunResult(process.returncode, bytes(outputs[1]), bytes(outputs[2]))
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    _kill(process)
                await process.aclose()

    async def _started(self, sandbox: SandboxRef, argv: Sequence[str]) -> Process:
        found = self._find(sandbox)
        assert found is not None
        folder = self.root / str(found.spec.environment_id)
        home, run = folder / "home", folder / "run"
        for tree in ("repos", "worktrees"):
            (home / ".craftastic" / tree / str(found.spec.environment_id)).mkdir(
                parents=True, exist_ok=True
            )
        run.mkdir(mode=0o700, exist_ok=True)
        return await anyio.open_process(
            [*_bubblewrap(home, run, self.hosts, self.path), *argv],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
            env={"PATH": os.environ["PATH"]},  # noqa: TID251 - not a server's setting
        )

    def _end(self, environment_id: UUID) -> None:
        run = self.root / str(environment_id) / "run"
        if (run / "tmux.sock").exists():
            # From beside it: the socket's whole path may be longer than the kernel takes.
            subprocess.run(
                ["tmux", "-S", "tmux.sock", "kill-server"],
                check=False,
                capture_output=True,
                cwd=run,
            )
            (run / "tmux.sock").unlink(missing_ok=True)


def _bubblewrap(home: Path, run: Path, hosts: Path, path: str) -> list[str]:
    variables = {
        "HOME": HOME,
        "USER": "dev",
        "SHELL": "/bin/bash",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "PATH": path,
        MARK_NAME: RUN.mark,
    }
    binds = [
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),
        *("--tmpfs", "/home", "--bind", str(home), HOME),
        *("--tmpfs", "/run", "--bind", str(run), RUN_DIR),
        *("--ro-bind", str(hosts), "/etc/hosts", "--chdir", HOME, "--clearenv"),
    ]
    settings = [part for key, value in variables.items() for part in ("--setenv", key, value)]
    return ["bwrap", *binds, *settings, "--"]


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class _PipeStream:
    def __init__(self, process: Process) -> None:
        self._process = process

    async def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send(data)
        except anyio.BrokenResourceError as error:
            raise SandboxGone("The command has ended.") from error

    async def receive_stdout(self) -> bytes:
        return await _receive(self._process.stdout)

    async def receive_stderr(self) -> bytes:
        return await _receive(self._process.stderr)


async def _receive(stream: anyio.abc.ByteReceiveStream | None) -> bytes:
    assert stream is not None
    try:
        return await stream.receive(CHUNK)
    except anyio.EndOfStream:
        return b""


def runtimes_of(*made: MemoryRuntime, settings: Settings | None = None) -> Runtimes:
    """Return a registry of exactly these runtimes; the first one is the default."""
    return Runtimes(
        settings or Settings.model_validate({}),
        "test",
        made[0].name,
        "the test says so",
        {},
        {one.name: one for one in made},
    )
