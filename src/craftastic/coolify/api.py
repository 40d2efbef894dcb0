"""Coolify's API, one method for each question that deployments need.

Every call has a deadline and a bound on its answer, follows no redirect, and tries nothing again.
Works with Coolify 4.1 and later.

Source: Coolify v4.3.11, `routes/api.php`.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread
import httpx

from craftastic.circuit import Circuit
from craftastic.coolify._answers import (
    Abilities,
    Application,
    Asked,
    LogLine,
    RollbackImage,
    Run,
    RunStatus,
    base_of,
    check_application_id,
    check_commit,
    check_run_id,
    parsed,
    read_application,
    read_application_log,
    read_applications,
    read_asked,
    read_images,
    read_run,
    read_runs,
    read_version,
)
from craftastic.coolify._http import (
    CALL_S,
    FULL_QUEUE_WAIT_S,
    MAX_LOG_BYTES,
    AllTurns,
    Line,
    TooLong,
    operator_client,
)
from craftastic.coolify.errors import (
    BadApplicationId,
    BadCommit,
    BadCoolifyUrl,
    CoolifyAbilityMissing,
    CoolifyBusy,
    CoolifyNotFound,
    CoolifyRefused,
    CoolifyTokenRejected,
)
from craftastic.errors import CraftasticError

__all__ = [
    "Abilities",
    "Application",
    "Asked",
    "BadApplicationId",
    "BadCommit",
    "BadCoolifyUrl",
    "Coolify",
    "CoolifyHttp",
    "LogLine",
    "RollbackImage",
    "Run",
    "RunStatus",
    "base_of",
    "check_application_id",
    "check_commit",
    "check_run_id",
    "open_coolify",
    "operator_client",
]

T = TypeVar("T")

MAX_RUNS = 100
MAX_LOG_LINES = 1000
LOOKED_AT = 3
"""How many applications are looked at for a run whose log shows what the token may read."""

MAX_CIRCUITS = 256
READ_TRY_S = 10.0
NEEDS_NEWER = "Going back to an earlier image by the API needs Coolify 4.2 or newer."

_MAY_DEPLOY = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}


class Coolify:
    """One Coolify, asked with one token.

    Every method raises, besides what it names:
    `CoolifyUnavailable` (no answer, or none that can be read), `CoolifyBusy`,
    `CoolifyTokenRejected`, `CoolifyApiOff`, `CoolifyAddressRefused`, `CoolifyAbilityMissing`,
    `CoolifyRefused`, and `BadCoolifyUrl` for an address that may not be connected to.
    Cancellation closes the connection; a question that changes something may have had its effect.

    Attributes:
        base: The API's base.
        web_url: Where people open it, for links; no slash at the end.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self.base = line.base
        self.web_url = line.base.removesuffix("/api/v1")

    def __repr__(self) -> str:
        return f"Coolify({self.web_url!r})"

    async def version(self) -> str:
        """Return the version; that it is answered proves the ability `read`."""
        return read_version((await self._line.ask("GET", "/version")).body)

    async def abilities(self) -> Abilities:
        """Find out what the token may do, without changing anything.

        `read_sensitive` shows in the newest run of some application; it stays unknown where no
        application has one.
        """
        reads = await self._reads()
        deploys = await self._deploys()
        sensitive = None
        if reads:
            with anyio.move_on_after(READ_TRY_S):
                sensitive = await self._reads_logs()
        return Abilities(reads, deploys, sensitive)

    async def applications(self) -> list[Application]:
        """Return the applications of the token's team, at most 500."""
        received = await self._line.ask("GET", "/applications", max_bytes=MAX_LOG_BYTES)
        return await _read(read_applications, received.body)

    async def application(self, app_id: str) -> Application:
        """Return one application as it is now.

        Raises:
            BadApplicationId: It can be no id.
            CoolifyNotFound: There is no such application for the token's team.
        """
        received = await self._line.ask("GET", _application(app_id), max_bytes=MAX_LOG_BYTES)
        return await _read(read_application, received.body)

    async def runs(self, app_id: str, take: int = 10) -> list[Run]:
        """Return an application's newest runs, the newest first.

        Each comes with its log, where the token may read it. When all together are too long to be
        kept, fewer are returned: three, or the newest alone.

        Raises:
            BadApplicationId, CoolifyNotFound: See `application`.
        """
        path = f"/deployments/applications/{quote(check_application_id(app_id), safe='')}"
        most = max(1, min(take, MAX_RUNS))
        for fewer in sorted({1, min(3, most), most}, reverse=True):
            try:
                received = await self._line.ask(
                    "GET", path, params={"skip": "0", "take": str(fewer)}, max_bytes=MAX_LOG_BYTES
                )
            except TooLong:
                if fewer == 1:
                    raise
            else:
                return (await _read(read_runs, received.body))[:fewer]
        return []

    async def run(self, run_id: str) -> Run:
        """Return one run as it is now.

        Raises:
            BadApplicationId: It can be no id.
            CoolifyNotFound: There is no such run for the token's team.
        """
        received = await self._line.ask("GET", _run(run_id), max_bytes=MAX_LOG_BYTES)
        return await _read(read_run, received.body)

    async def queue(self) -> list[Run]:
        """Return what waits or runs now on all servers of the token's team, the oldest first."""
        received = await self._line.ask("GET", "/deployments", max_bytes=MAX_LOG_BYTES)
        return await _read(read_runs, received.body)

    async def deploy(
        self, app_id: str, *, force: bool = False, pull_request_id: int | None = None
    ) -> Asked:
        """Ask for a deployment; an answer that is no error may still mean that there is none.

        Args:
            app_id: Of the application.
            force: Build without what earlier builds left, and although one is queued already.
            pull_request_id: Deploy the preview of this pull request.

        Raises:
            BadApplicationId, CoolifyNotFound: See `application`.
        """
        # Old versions read the query alone, and take any text of `force`, also "false", for true.
        params = {"uuid": check_application_id(app_id)}
        if force:
            params["force"] = "true"
        if pull_request_id:
            params["pr"] = str(pull_request_id)
        received = await self._line.ask("POST", "/deploy", params=params)
        return read_asked(parsed(received.body), app_id)

    async def rollback(self, app_id: str, commit: str) -> Asked:
        """Ask to go back to the image of a commit.

        Raises:
            BadApplicationId, CoolifyNotFound: See `application`.
            BadCommit: It is no commit.
            CoolifyRefused: Also by a Coolify that is too old for it.
        """
        path = f"{_application(app_id)}/rollback"
        content = {"commit": check_commit(commit)}
        try:
            received = await self._line.ask("POST", path, content=content)
        except CoolifyRefused as error:
            # A full queue is 429 everywhere but here.
            if error.status == HTTPStatus.BAD_REQUEST and "queue" in error.said.lower():
                raise CoolifyBusy(retry_after_s=FULL_QUEUE_WAIT_S, queue_full=True) from error
            raise _newer(error) from error
        except CoolifyNotFound as error:
            raise _newer(error) from error
        return read_asked(parsed(received.body), app_id)

    async def rollback_images(self, app_id: str) -> list[RollbackImage]:
        """Return the images that `rollback` may go back to.

        Raises:
            BadApplicationId, CoolifyNotFound, CoolifyRefused: See `rollback`.
        """
        try:
            received = await self._line.ask("GET", f"{_application(app_id)}/rollback-images")
        except (CoolifyRefused, CoolifyNotFound) as error:
            raise _newer(error) from error
        return read_images(parsed(received.body))

    async def cancel(self, run_id: str) -> bool:
        """Cancel a run; False when it had ended already.

        Raises:
            BadApplicationId, CoolifyNotFound: See `run`.
        """
        try:
            await self._line.ask("POST", f"{_run(run_id)}/cancel")
        except CoolifyRefused as error:
            if error.status == HTTPStatus.BAD_REQUEST:
                return False
            raise
        return True

    async def application_log(self, app_id: str, lines: int) -> str | None:
        """Return the last lines that an application printed; None when it is not running.

        Args:
            app_id: Of the application.
            lines: How many, 1 to 1000.

        Raises:
            BadApplicationId, CoolifyNotFound: See `application`.
        """
        params = {"lines": str(max(1, min(lines, MAX_LOG_LINES)))}
        try:
            received = await self._line.ask(
                "GET", f"{_application(app_id)}/logs", params=params, max_bytes=MAX_LOG_BYTES
            )
        except CoolifyRefused as error:
            if error.status == HTTPStatus.BAD_REQUEST and "not running" in error.said.lower():
                return None
            raise
        return await _read(read_application_log, received.body)

    async def _reads(self) -> bool:
        try:
            await self.version()
        except CoolifyAbilityMissing:
            return False
        return True

    async def _deploys(self) -> bool:
        """Ask what nothing comes of: newer versions refuse the verb, older miss the parameters."""
        try:
            await self._line.ask("GET", "/deploy")
        except CoolifyAbilityMissing:
            return False
        except CoolifyRefused as error:
            if error.status not in _MAY_DEPLOY:
                raise
        return True

    async def _reads_logs(self) -> bool | None:
        try:
            for application in (await self.applications())[:LOOKED_AT]:
                if runs := await self.runs(application.id, 1):
                    return runs[0].log is not None
        except CraftasticError:
            # What matters was found out; this is a matter of comfort.
            return None
        return None


class CoolifyHttp:
    """The connections of one server to every Coolify.

    Args:
        for_users: Connects only to where users may point this server.
        for_operator: Connects to what the operator set.
        call_s: Longest time of one call, and of the wait for a turn before it, in seconds.
    """

    def __init__(
        self,
        for_users: httpx.AsyncClient,
        for_operator: httpx.AsyncClient,
        *,
        call_s: float = CALL_S,
    ) -> None:
        self._clients = {False: for_users, True: for_operator}
        self._turns = AllTurns()
        self._circuits: dict[str, Circuit] = {}
        self._call_s = call_s

    def api(self, base: str, token: str, *, trusted: bool, asker: str | None = None) -> Coolify:
        """Return the Coolify at an address; nothing is asked yet.

        Args:
            base: Its address, in any form that `base_of` takes.
            token: All of it, with the number and the bar.
            trusted: Whether the operator chose the address.
            asker: Who shares the number of questions that may run at once; whoever asks the same
                Coolify when None. A user of many addresses has no more turns than one of one.

        Raises:
            BadCoolifyUrl: It is no address.
            CoolifyTokenRejected: The token has characters that no token has.
        """
        checked = base_of(base)
        if not token or not all("!" <= character <= "~" for character in token):
            raise CoolifyTokenRejected
        turns = self._turns.of(checked if asker is None else asker)
        http, circuit = self._clients[trusted], self._circuit(checked)
        return Coolify(Line(http, checked, token, turns, circuit, self._call_s))

    def _circuit(self, base: str) -> Circuit:
        """Return what is known of whether a Coolify answers; of those that were asked lately."""
        circuit = self._circuits.pop(base, None) or Circuit()
        self._circuits[base] = circuit
        if len(self._circuits) > MAX_CIRCUITS:
            del self._circuits[next(iter(self._circuits))]
        return circuit


@asynccontextmanager
async def open_coolify(
    client_for_users: httpx.AsyncClient, client_for_operator: httpx.AsyncClient | None = None
) -> AsyncGenerator[CoolifyHttp]:
    """Give the connections of a server, and close both clients at the end.

    Args:
        client_for_users: From `gateway.pinned_http`.
        client_for_operator: `operator_client()` when None.
    """
    own = client_for_operator or operator_client()
    async with client_for_users, own:
        yield CoolifyHttp(client_for_users, own)


async def _read(read: Callable[[object], T], body: bytes) -> T:
    """Read an answer that may be long in a thread: it must not hold up everybody else."""
    return await anyio.to_thread.run_sync(lambda: read(parsed(body)))


def _application(app_id: str) -> str:
    return f"/applications/{quote(check_application_id(app_id), safe='')}"


def _run(run_id: str) -> str:
    return f"/deployments/{quote(check_run_id(run_id), safe='')}"


def _newer(error: CoolifyRefused | CoolifyNotFound) -> CoolifyRefused | CoolifyNotFound:
    """Tell a route that is not there from an application that is not."""
    status = error.status if isinstance(error, CoolifyRefused) else HTTPStatus.NOT_FOUND
    missing = status == HTTPStatus.NOT_FOUND and "application" not in error.said.lower()
    if missing or status == HTTPStatus.METHOD_NOT_ALLOWED:
        return CoolifyRefused(NEEDS_NEWER, status=status)
    return error
