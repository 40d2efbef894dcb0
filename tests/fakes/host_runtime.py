"""A runtime for tests: a sandbox is a temporary folder, and its commands run on the host itself.

No isolation at all. `RUN_DIR` is not where a sandbox has it: give `run_dir(sandbox)` to the code.
"""

import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import anyio
from anyio.abc import Process

from craftastic.errors import Conflict
from craftastic.runtimes.base import (
    MAX_OUTPUT_BYTES,
    Ending,
    Finding,
    Hint,
    Isolation,
    Report,
    RunResult,
    RunTimeout,
    SandboxGone,
    SandboxRef,
    SandboxSpec,
    SandboxState,
    SandboxSummary,
    TellHint,
    no_report,
)


class HostStream:
    def __init__(self, process: Process) -> None:
        self.process = process

    async def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            await self.process.stdin.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise SandboxGone("the command has ended") from error

    async def receive_stdout(self) -> bytes:
        assert self.process.stdout is not None
        return await _receive(self.process.stdout)

    async def receive_stderr(self) -> bytes:
        assert self.process.stderr is not None
        return await _receive(self.process.stderr)


async def _receive(stream: anyio.abc.ByteReceiveStream) -> bytes:
    try:
        return await stream.receive(256 << 10)
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return b""


async def _drain(stream: anyio.abc.ByteReceiveStream | None) -> None:
    assert stream is not None
    while await _receive(stream):
        pass


class HostRuntime:
    """`root` holds one folder for each sandbox; `processes` are the streams that are open now."""

    name = "host"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.processes: list[Process] = []

    def folder(self, sandbox: SandboxRef) -> Path:
        return self.root / sandbox.id

    def run_dir(self, sandbox: SandboxRef) -> str:
        return str(self.folder(sandbox) / "run")

    def environment(self, sandbox: SandboxRef) -> dict[str, str]:
        return {
            "HOME": str(self.folder(sandbox) / "home"),
            "PATH": os.environ["PATH"],  # noqa: TID251 - a test's own
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "SHELL": "/bin/bash",
            "HISTFILE": "/dev/null",
            "USER": "dev",
        }

    async def prepare(self, report: Report = no_report) -> None: ...

    async def check(self) -> list[Finding]:
        return []

    async def gateway_address(self) -> str:
        return "127.0.0.1"

    async def create(self, spec: SandboxSpec, report: Report = no_report) -> SandboxRef:
        sandbox = SandboxRef(self.name, str(spec.environment_id))
        for name in ("run", "home"):
            (self.folder(sandbox) / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        return sandbox

    async def inspect(self, sandbox: SandboxRef) -> SandboxState:
        return SandboxState.RUNNING if self.folder(sandbox).exists() else SandboxState.GONE

    async def stop(self, sandbox: SandboxRef) -> None:
        await self.run(sandbox, ["tmux", "-S", f"{self.run_dir(sandbox)}/tmux.sock", "kill-server"])

    async def remove(self, spec: SandboxSpec, *, storage: bool) -> None:
        raise Conflict("not for tests")

    async def list(self) -> list[SandboxSummary]:
        return [
            SandboxSummary(SandboxRef(self.name, p.name), UUID(p.name), None, p.name, _RUNNING)
            for p in self.root.iterdir()
        ]

    async def follow(self, tell: TellHint) -> None:
        tell(Hint())
        await anyio.sleep_forever()

    async def ending(self, sandbox: SandboxRef) -> Ending:
        return Ending.UNKNOWN

    async def run(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> RunResult:
        self._running(sandbox)
        try:
            with anyio.fail_after(timeout_s):
                done = await anyio.run_process(
                    argv,
                    input=stdin,
                    check=False,
                    cwd=self.folder(sandbox) / "home",
                    env=self.environment(sandbox),
                    start_new_session=True,
                )
        except TimeoutError as error:
            raise RunTimeout("too slow") from error
        cut = slice(0, max_output_bytes)
        return RunResult(done.returncode, done.stdout[cut], done.stderr[cut])

    async def spawn(
        self,
        sandbox: SandboxRef,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 30.0,
    ) -> RunResult:
        return await self.run(sandbox, argv, stdin=stdin, timeout_s=timeout_s)

    @asynccontextmanager
    async def open(self, sandbox: SandboxRef, argv: Sequence[str]) -> AsyncGenerator[HostStream]:
        self._running(sandbox)
        process = await anyio.open_process(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder(sandbox) / "home",
            env=self.environment(sandbox),
            start_new_session=True,
        )
        self.processes.append(process)
        try:
            yield HostStream(process)
        finally:
            self.processes.remove(process)
            with anyio.CancelScope(shield=True):
                assert process.stdin is not None
                await process.stdin.aclose()
                # Unread output keeps a command from ending, and its pipe from being closed.
                with anyio.move_on_after(2):
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(_drain, process.stdout)
                        tasks.start_soon(_drain, process.stderr)
                        await process.wait()
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    await _drain(process.stdout)
                    await _drain(process.stderr)
                    await process.wait()
                await process.aclose()

    async def isolation(self, sandbox: SandboxRef) -> Isolation:
        return Isolation(verified=False, unchecked=("this is no sandbox",))

    async def close(self) -> None: ...

    def _running(self, sandbox: SandboxRef) -> None:
        if not self.folder(sandbox).exists():
            raise SandboxGone("The sandbox is not running.")


_RUNNING = SandboxState.RUNNING
