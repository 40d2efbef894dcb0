"""The runtime in memory with a tmux in each sandbox that knows three words, and with a gate."""

from collections import defaultdict
from uuid import UUID

import anyio

from craftastic.runtimes.base import Report, RunResult, SandboxRef, SandboxSpec, no_report
from craftastic.runtimes.memory import Call, MemoryRuntime

NO_SERVER = RunResult(1, b"", b"no server running on /run/craftastic/tmux.sock\n")
NO_SESSION = RunResult(1, b"", b"can't find session\n")


class TmuxRuntime(MemoryRuntime):
    """Sandboxes whose tmux sessions are there until they are ended or the sandbox is."""

    def __init__(self) -> None:
        super().__init__(self._command)
        self.sessions: defaultdict[str, set[str]] = defaultdict(set)
        self.gate: anyio.Event | None = None
        """Where it is set, no sandbox is made before it opens."""
        self.at_the_gate = anyio.Event()

    @property
    def kept(self) -> set[UUID]:
        """Return the environments that have a sandbox."""
        return set(self._sandboxes)

    def shut(self) -> None:
        self.gate, self.at_the_gate = anyio.Event(), anyio.Event()

    async def create(self, spec: SandboxSpec, report: Report = no_report) -> SandboxRef:
        if self.gate is not None:
            self.at_the_gate.set()
            await self.gate.wait()
        return await super().create(spec, report)

    async def stop(self, sandbox: SandboxRef) -> None:
        await super().stop(sandbox)
        self.sessions.pop(sandbox.id, None)

    async def _command(self, call: Call) -> RunResult:
        held, argv = self.sessions[call.sandbox.id], call.argv
        if "new-session" in argv:
            held.add(argv[argv.index("-s", argv.index("new-session")) + 1])
        elif "kill-session" in argv:
            name = argv[argv.index("-t") + 1].removeprefix("=")
            if name not in held:
                return NO_SESSION if held else NO_SERVER
            held.remove(name)
        elif "list-sessions" in argv:
            return (
                RunResult(0, "\n".join(f"$0  {one}" for one in held).encode(), b"")
                if held
                else NO_SERVER
            )
        return RunResult(0, b"", b"")
