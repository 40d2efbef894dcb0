"""A client that keeps what a server has acknowledged, and asks later whether it is still true.

What was answered with success has to be there after any fault. What got no answer is in doubt: it
may have happened or not, and the invariants say that it did not happen by half.
"""

from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.harness import Api

FOREVER = ("name", "branch", "workingDirectory", "environmentId", "repositoryUrl")
"""Fields of an answer that nobody changes unasked."""


@dataclass
class Journal:
    """What one user has been told.

    Attributes:
        there: Paths of objects that were made, each with the fields that were promised.
        gone: Paths of objects whose deletion was acknowledged.
        doubtful: Deletions without an answer: the object may be there or not.
        refused: Answers that were no success, by their status.
        acknowledged: How many answers were.
        unanswered: How many requests had no answer.
    """

    api: Api
    there: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    gone: set[str] = field(default_factory=set[str])
    doubtful: set[str] = field(default_factory=set[str])
    refused: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    acknowledged: int = 0
    unanswered: int = 0

    async def create(self, path: str, **body: Any) -> dict[str, Any] | None:
        """Make something; None when that was refused, or was not answered."""
        answer = await self._send("POST", path, body)
        if answer is None:
            return None
        made = answer.json()
        self.there[f"{path}/{made['id']}"] = {key: made[key] for key in FOREVER if key in made}
        return made

    async def change(self, path: str, **body: Any) -> bool:
        """Change fields of something that is there; True when that was acknowledged."""
        before = self.there.pop(path)  # unanswered, it may have either value
        answer = await self._send("PATCH", path, body)
        if answer is not None:
            self.there[path] = before | body
        return answer is not None

    async def delete(self, path: str) -> bool:
        """Delete something; True when that was acknowledged."""
        before = self.there.pop(path, None)
        answer = await self._send("DELETE", path, None)
        if answer is not None:
            self.gone.add(path)
            return True
        if self.refused and self.refused[-1][1] == f"DELETE {path}":
            if before is not None:
                self.there[path] = before
        else:
            self.doubtful.add(path)
        return False

    async def lost(self) -> list[str]:
        """Ask for everything that was acknowledged, and return what is not so any more."""
        found: list[str] = []
        for path, promised in self.there.items():
            answer = await self.api.client.get(path)
            if answer.status_code != 200:
                found.append(f"{path} was made, and answers {answer.status_code}")
                continue
            now = answer.json()
            found += [
                f"{path}: {key} is {now.get(key)!r}, and was {value!r}"
                for key, value in promised.items()
                if now.get(key) != value
            ]
        for path in self.gone:
            answer = await self.api.client.get(path)
            if answer.status_code != 404:
                found.append(f"{path} was deleted, and answers {answer.status_code}")
        return found

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> httpx.Response | None:
        try:
            answer = await self.api.client.request(method, path, json=body)
        except httpx.TransportError:
            self.unanswered += 1
            return None
        if not 200 <= answer.status_code < 300:
            self.refused.append((answer.status_code, f"{method} {path}"))
            return None
        self.acknowledged += 1
        return answer
