"""What the server does beside an agent: look at it, type for its owner, interrupt it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, cast
from uuid import UUID

from craftastic.agent_runs._states import MAX_CONVERSATION, Pane
from craftastic.errors import CraftasticError
from craftastic.runtimes.base import RunResult, Runtime, SandboxExhausted, SandboxRef

PYTHON = "/usr/bin/python3"
"""The system's own: what a user has put on the PATH may be slow, or something else."""

SCRIPT_S = 25.0
"""Longer than all of the script's own deadlines together."""

TMUX_S = 10.0
MAX_ANSWER_BYTES = 64 << 10
MAX_PANES_BYTES = 256 << 10
FORMAT = "#{session_name}\t#{pane_current_command}\t#{pane_dead}\t#{pane_title}"
FIELDS = 4


class Typed(StrEnum):
    """How it went to type something."""

    DONE = "done"
    BUSY = "busy"
    """The supervisor says that the agent is not idle."""
    GONE = "gone"
    """The supervisor does not answer."""
    REFUSED = "refused"
    """tmux did not take it; nothing was typed."""
    UNKNOWN = "unknown"
    """Nobody can know whether it arrived."""


@dataclass(frozen=True, slots=True)
class Desk:
    """One agent's place in its sandbox.

    Args:
        tmux_socket: Of the product's own tmux server, as seen from inside.
        run_dir: The sandbox's private folder for sockets.
    """

    runtime: Runtime
    sandbox: SandboxRef
    tmux_socket: str
    run_dir: str

    async def type_text(
        self, session_id: UUID, tmux_name: str, text: str, keys: Sequence[str], prompt_id: UUID
    ) -> Typed:
        """Paste a text and send it, if the agent is idle at that moment.

        Cancellation leaves it open whether the text arrived.
        """
        given = self._about(session_id, tmux_name) | {
            "op": "paste",
            "text": text,
            "keys": list(keys),
            "id": prompt_id.hex,
        }
        try:
            said = await self._script(given)
        except SandboxExhausted:
            return Typed.REFUSED  # nothing was started
        except CraftasticError:
            return Typed.UNKNOWN
        match said:
            case {"pasted": True}:
                return Typed.DONE
            case {"pasted": False, "why": "busy"}:
                return Typed.BUSY
            case {"pasted": False, "why": "gone"}:
                return Typed.GONE
            case {"pasted": False}:
                return Typed.REFUSED
            case _:
                return Typed.UNKNOWN

    async def last_event(self, session_id: UUID, tmux_name: str) -> str | None:
        """Return the last event that the supervisor knows; None when it does not answer.

        Raises:
            CraftasticError: The sandbox could not be asked.
        """
        said = await self._script(self._about(session_id, tmux_name) | {"op": "look"})
        last = (said or {}).get("last")
        return last[:MAX_CONVERSATION] if isinstance(last, str) else None

    async def panes(self) -> dict[str, Pane]:
        """Return the first pane of each tmux session, by the session's name.

        Raises:
            CraftasticError: The sandbox could not be asked.
        """
        done = await self._tmux("list-panes", "-a", "-F", FORMAT, most=MAX_PANES_BYTES)
        found: dict[str, Pane] = {}
        for line in done.stdout.decode("utf-8", "replace").split("\n"):
            fields = line.split("\t", FIELDS - 1)
            if len(fields) == FIELDS:
                name, command, dead, title = fields
                found.setdefault(name, Pane(command, dead == "1", title))
        return found

    async def press(self, tmux_name: str, keys: Sequence[str]) -> bool:
        """Press keys in an agent's terminal; False when tmux did not take them.

        Raises:
            CraftasticError: The sandbox could not be asked.
        """
        done = await self._tmux("send-keys", "-t", f"={tmux_name}:", "--", *keys)
        return done.exit_code == 0

    @property
    def _client(self) -> list[str]:
        return ["tmux", "-N", "-u", "-S", self.tmux_socket]

    def _about(self, session_id: UUID, tmux_name: str) -> dict[str, object]:
        return {
            "supervisor": f"{self.run_dir}/agent-{session_id}.sock",
            "tmux": self._client,
            "name": tmux_name,
        }

    async def _script(self, given: Mapping[str, object]) -> Mapping[str, Any] | None:
        done = await self.runtime.run(
            self.sandbox,
            [PYTHON, "-I", "-S", "-c", _program()],
            stdin=json.dumps(given).encode(),
            timeout_s=SCRIPT_S,
            max_output_bytes=MAX_ANSWER_BYTES,
        )
        try:
            said: object = json.loads(done.stdout)
        except (ValueError, RecursionError):
            return None
        return cast("Mapping[str, Any]", said) if isinstance(said, dict) else None

    async def _tmux(self, *words: str, most: int = MAX_ANSWER_BYTES) -> RunResult:
        return await self.runtime.run(
            self.sandbox,
            [*self._client, *words],
            timeout_s=TMUX_S,
            max_output_bytes=most,
        )


@cache
def _program() -> str:
    return (files("craftastic.agent_runs") / "_desk_program.py").read_text("utf-8")
