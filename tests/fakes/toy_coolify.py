"""A small Coolify over HTTP on loopback: tokens, applications, deployments, faults, webhooks.

It is strict where Coolify is, and as odd: an answer of 200 that deployed nothing, an id of a
deployment that was never stored, `success: true` on a refusal, lists that are objects. What 4.1
does differently from 4.2 and later goes by the `version`.
"""

import json
import posixpath
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

from tests.secrecy import canary

API = "/api/v1"
LIVE = {"queued", "in_progress"}
EVERYTHING = ("deploy", "read", "read:sensitive")
DOCS = "https://coolify.io/docs/api-reference/authorization"

Role = Literal["owner", "admin", "member"]


@dataclass
class ToyToken:
    value: str
    abilities: tuple[str, ...]
    role: Role
    dead: bool = False
    team_gone: bool = False

    def may(self, ability: str) -> bool:
        return "root" in self.abilities or ability in self.abilities

    @property
    def reads_logs(self) -> bool:
        return self.may("read:sensitive") and self.role != "member"


@dataclass
class ToyApplication:
    """An application, or with `kind` a service, which deploys without a deployment's id.

    Args:
        number: Its id in the database: deployments name this one, not the uuid.
        head: The commit that a build of the branch finds; None leaves `HEAD`.
        after_finish: What its status becomes when a deployment has finished.
        previews: Numbers of the pull requests that have a preview.
    """

    uuid: str
    number: int
    name: str
    branch: str | None
    repository: str | None
    status: str
    fqdn: str | None
    kind: Literal["application", "service"] = "application"
    head: str | None = None
    after_finish: str = "running:healthy"
    previews: set[int] = field(default_factory=set[int])
    images: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    runtime_log: str = "listening on 3000\n"


@dataclass
class ToyRun:
    number: int
    uuid: str
    application: ToyApplication
    asked_commit: str
    commit: str
    pull_request_id: int
    force: bool
    created_at: datetime
    status: str = "queued"
    rollback: bool = False
    log: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    looks: int = 0

    @property
    def live(self) -> bool:
        return self.status in LIVE


@dataclass
class ToyCall:
    """One request, as it came, and how it was answered.

    Args:
        path: As it was on the wire, escapes and all, without the query.
        route: The path without the API's prefix.
        status: 0 while it is not answered.
    """

    at: float
    method: str
    path: str
    route: str
    raw_query: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer: Any = None


@dataclass
class Answer:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    drip_s: float = 0
    drop: bool = False


@dataclass
class Fault:
    method: str | None
    path: str
    answer: Answer | None
    hang: bool
    after: bool


def line(
    text: str,
    *,
    stream: str = "stdout",
    hidden: bool = False,
    order: int = 0,
    command: str | None = None,
) -> dict[str, Any]:
    """Make one line of a build's log, as Coolify keeps it; order 0 is filled in by `fail`."""
    return {
        "command": command,
        "output": text,
        "type": stream,
        "timestamp": "2026-07-19T10:00:00.000000Z",
        "hidden": hidden,
        "batch": 1,
        "order": order,
    }


class ToyCoolify:
    """Coolify for tests.

    Args:
        version: `4.1.2` and `4.3.11` differ as the real ones do.
        prefix: A path before `/api/v1`, as behind a proxy.

    Attributes:
        calls: Every request in order, also those of unknown paths; `count` counts them.
        auto: Each look at a deployment moves it on by one step, until it has finished.
        queue_limit: How many queued deployments there may be.
        api_enabled, allow_ips: What the settings of the instance say.
        keyed_lists: Lists are objects with numbers as keys, as after a sort of Coolify's.
    """

    def __init__(
        self,
        version: str = "4.3.11",
        *,
        host: str = "127.0.0.1",
        prefix: str = "",
    ) -> None:
        self.version = version
        self.prefix = prefix
        self.auto = False
        self.queue_limit = 25
        self.api_enabled = True
        self.allow_ips: list[str] | None = None
        self.keyed_lists = True
        self.calls: list[ToyCall] = []
        self.tokens: dict[str, ToyToken] = {}
        self.applications: dict[str, ToyApplication] = {}
        self.runs: list[ToyRun] = []
        self._faults: deque[Fault] = deque()
        self._released = threading.Event()
        self._moved = timedelta()
        self._changed = threading.Condition(threading.RLock())
        owner = self

        class Handler(_Handler):
            coolify = owner

        self._server = _Server((host, 0), Handler)
        self.origin = f"http://{host}:{self._server.server_address[1]}"
        self.url = self.origin + prefix
        self.api_url = self.url + API
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    @property
    def new(self) -> bool:
        """Whether it is 4.2 or later."""
        return tuple(int(part) for part in self.version.split(".")[:2]) >= (4, 2)

    # ---- what people do ---------------------------------------------------------------------

    def token(self, *abilities: str, role: Role = "admin") -> str:
        """Make a token; without abilities, one with all that deployments need."""
        value = f"{len(self.tokens) + 7}|{canary('coolify')}"
        self.tokens[value] = ToyToken(value, abilities or EVERYTHING, role)
        return value

    def application(
        self,
        name: str,
        *,
        branch: str | None = "main",
        repository: str | None = "example/web",
        status: str = "running:healthy",
        fqdn: str | None = "https://web.example.com",
        head: str | None = None,
        uuid: str | None = None,
        kind: Literal["application", "service"] = "application",
    ) -> ToyApplication:
        with self._changed:
            made = ToyApplication(
                uuid=uuid or uuid4().hex[:24],
                number=len(self.applications) + 1,
                name=name,
                branch=branch,
                repository=repository,
                status=status,
                fqdn=fqdn,
                kind=kind,
                head=head,
            )
            self.applications[made.uuid] = made
        return made

    def queue(
        self,
        application: ToyApplication,
        *,
        commit: str = "HEAD",
        pull_request_id: int = 0,
        force: bool = False,
        rollback: bool = False,
    ) -> ToyRun:
        """Queue a deployment, as somebody at Coolify's own page does."""
        with self._changed:
            run = ToyRun(
                number=len(self.runs) + 1,
                uuid=uuid4().hex[:24],
                application=application,
                asked_commit=commit,
                commit=commit,
                pull_request_id=pull_request_id,
                force=force,
                created_at=self.now(),
                rollback=rollback,
            )
            self.runs.append(run)
            self._changed.notify_all()
        return run

    def start(self, run: ToyRun | None = None, *, commit: str | None = None) -> ToyRun:
        """Let a deployment build; it knows its commit then. Without a run, the newest."""
        with self._changed:
            run = run or self.runs[-1]
            run.status = "in_progress"
            run.commit = commit or (
                run.application.head or run.commit if run.commit == "HEAD" else run.commit
            )
        return run

    def finish(
        self, run: ToyRun | None = None, *, commit: str | None = None, status: str | None = None
    ) -> ToyRun:
        """Finish a deployment; `status` is what the application's becomes."""
        with self._changed:
            run = self.start(run, commit=commit)
            run.status = "finished"
            run.application.status = status or run.application.after_finish
        return run

    def fail(self, run: ToyRun | None = None, *, log: Sequence[Mapping[str, Any]] = ()) -> ToyRun:
        with self._changed:
            run = self.start(run)
            run.status = "failed"
            self.say(run, *log)
        return run

    def cancel(self, run: ToyRun | None = None) -> ToyRun:
        with self._changed:
            run = run or self.runs[-1]
            run.status = "cancelled-by-user"
        return run

    def say(self, run: ToyRun, *lines: Mapping[str, Any]) -> None:
        """Add lines to a build's log (`line` makes them)."""
        with self._changed:
            for one in lines:
                run.log.append({**one, "order": one.get("order") or len(run.log) + 1})

    def advance(self, seconds: float) -> None:
        """Move this server's time on."""
        self._moved += timedelta(seconds=seconds)

    def kill_token(self, value: str) -> None:
        self.tokens[value].dead = True

    def webhook(
        self,
        url: str,
        event: str = "deployment_success",
        run: ToyRun | None = None,
        *,
        application: ToyApplication | None = None,
    ) -> int:
        """Send what the team's webhook sends, about the newest deployment; return the status."""
        run = run or (self.runs[-1] if self.runs else None)
        application = application or (run.application if run else None)
        if application is None:
            raise ValueError("a webhook is about an application")
        body: dict[str, Any] = {
            "success": event == "deployment_success",
            "message": event.replace("_", " "),
            "event": event,
            "application_name": application.name,
            "application_uuid": application.uuid,
            "project": "toy",
            "environment": "production",
        }
        if run is not None and event.startswith("deployment_"):
            body |= {"deployment_uuid": run.uuid, "deployment_url": self.url + _page(run)}
        request = Request(  # noqa: S310 - a test's own server
            url,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        with urlopen(request, timeout=10) as answer:  # noqa: S310
            return int(answer.status)

    # ---- faults -----------------------------------------------------------------------------

    def fault(
        self,
        path: str,
        status: int = 503,
        *,
        hang: bool = False,
        drop: bool = False,
        after: bool = False,
        times: int = 1,
        method: str | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        drip_s: float = 0,
    ) -> None:
        """Answer the next requests for a path wrongly.

        Args:
            path: Without the API's prefix; may have wildcards (`/deployments/*`).
            status: The answer's; not with `hang`, which answers truly after `release`.
            hang: Do not answer until `release`.
            drop: Close the connection without an answer.
            after: The request has its effect before the fault.
            body: JSON, or bytes as they are.
            drip_s: Seconds between two bytes of the answer.
        """
        answer = (
            None if hang and not drop else Answer(status, body, dict(headers or {}), drip_s, drop)
        )
        with self._changed:
            if hang:
                self._released.clear()
            self._faults.extend([Fault(method, path, answer, hang, after)] * times)

    def release(self) -> None:
        """Answer those that hang."""
        self._released.set()

    def heal(self) -> None:
        """Take all faults back."""
        with self._changed:
            self._faults.clear()
        self.release()

    # ---- what tests look at -----------------------------------------------------------------

    def called(self, method: str, route: str) -> list[ToyCall]:
        """Return the requests for a route (without the API's prefix; wildcards)."""
        with self._changed:
            return [
                call
                for call in self.calls
                if call.method == method and fnmatchcase(call.route, route)
            ]

    def count(self, method: str, route: str) -> int:
        return len(self.called(method, route))

    def wait_for(self, method: str, route: str, *, times: int = 1, timeout_s: float = 20) -> None:
        """Wait until that many such requests have come, answered or not."""
        self.wait_until(
            lambda: self.count(method, route) >= times, f"{method} {route} x{times}", timeout_s
        )

    def wait_until(self, holds: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
        """Wait until something holds of what this server knows."""
        with self._changed:
            if not self._changed.wait_for(holds, timeout_s):
                came = [f"{call.method} {call.route}" for call in self.calls[-20:]]
                raise AssertionError(f"{what} did not come to be; the last calls were {came}")

    def now(self) -> datetime:
        return datetime.now(UTC) + self._moved

    # ---- how it answers ---------------------------------------------------------------------

    def answer(self, call: ToyCall, client: str) -> Answer:
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
            fault = self._fault_for(call)
        worked = self._answer(call, client) if fault is None or fault.after else None
        if fault is not None and fault.hang:
            self._released.wait(60)
        answer = (fault.answer if fault else None) or worked or self._answer(call, client)
        with self._changed:
            call.status, call.answer = answer.status, answer.body
            self._changed.notify_all()
        return answer

    def _fault_for(self, call: ToyCall) -> Fault | None:
        for fault in self._faults:
            if fault.method in {None, call.method} and fnmatchcase(call.route, fault.path):
                self._faults.remove(fault)
                return fault
        return None

    def _answer(self, call: ToyCall, client: str) -> Answer:
        with self._changed:
            # A server behind nginx takes dots out of a path before it looks for the route.
            path = posixpath.normpath(unquote(call.path))
            if path in {f"{self.prefix}/api/health", f"{self.prefix}{API}/health"}:
                return Answer(200, b"OK")
            if not path.startswith(self.prefix + API + "/"):
                return Answer(404, b"<html>Not here</html>")
            token = self.tokens.get(call.headers.get("authorization", "").removeprefix("Bearer "))
            refusal = self._refusal(token, client)
            if refusal is not None or token is None:
                return refusal or Answer(401, {"message": "Unauthenticated."})
            parts = path.removeprefix(self.prefix + API + "/").split("/")
            return self._route(call, token, parts)

    def _refusal(self, token: ToyToken | None, client: str) -> Answer | None:
        if token is None or token.dead:
            return Answer(401, {"message": "Unauthenticated."})
        if not self.api_enabled:
            return Answer(403, {"success": True, "message": "API is disabled."})
        if self.allow_ips is not None and client not in self.allow_ips:
            text = "You are not allowed to access the API."
            return Answer(403, {"success": True, "message": text})
        return None

    def _route(self, call: ToyCall, token: ToyToken, parts: list[str]) -> Answer:
        match call.method, parts:
            case "GET", ["version"]:
                return self._may(token, "read") or Answer(200, self.version.encode())
            case _, ["deploy"]:
                return self._may(token, "deploy") or self._deploy(call)
            case "POST", ["deployments", uuid, "cancel"]:
                return self._may(token, "deploy") or self._cancel(uuid)
            case "POST", ["applications", uuid, "rollback"] if self.new:
                return self._may(token, "deploy") or self._rollback(uuid, call.body)
            case "GET", _:
                return self._may(token, "read") or self._read(call, token, parts)
            case _:
                return Answer(404, {"message": "Not found."})

    def _may(self, token: ToyToken, ability: str) -> Answer | None:
        if token.team_gone:
            if self.new:
                return Answer(401, {"message": "Invalid token."})
            return Answer(400, {"message": "Invalid token.", "docs": DOCS})
        if not token.may(ability):
            return Answer(403, {"message": f"Missing required permissions: {ability}"})
        if token.role == "member" and ability != "read":
            return Answer(403, {"message": "Missing required team role."})
        return None

    def _read(self, call: ToyCall, token: ToyToken, parts: list[str]) -> Answer:
        match parts:
            case ["deployments"]:
                live = [self._row(run, token) for run in self.runs if self._look(run).live]
                return Answer(200, self._list(live))
            case ["deployments", "applications", uuid]:
                return self._runs_of(uuid, call, token)
            case ["deployments", uuid]:
                return self._one_run(uuid, token)
            case ["applications"]:
                rows = [self._application(one) for one in self._applications()]
                return Answer(200, self._list(rows))
            case ["applications", uuid, *rest]:
                found = self.applications.get(uuid)
                if found is None or found.kind != "application":
                    return Answer(404, {"message": "Application not found."})
                return self._of_application(found, rest)
            case ["servers", *_]:
                return Answer(200, {"uuid": "toyserver", "ip": "10.0.0.1"})
            case _:
                return Answer(404, {"message": "Not found."})

    def _one_run(self, uuid: str, token: ToyToken) -> Answer:
        run = self._run(uuid)
        if run is None:
            return Answer(404, {"message": "Deployment not found."})
        return Answer(200, self._row(self._look(run), token))

    def _of_application(self, application: ToyApplication, rest: list[str]) -> Answer:
        match rest:
            case []:
                return Answer(200, self._application(application))
            case ["logs"] if application.status.startswith("running"):
                return Answer(200, {"logs": application.runtime_log})
            case ["logs"]:
                return Answer(400, {"message": "Application is not running."})
            case ["rollback-images"] if self.new:
                return Answer(200, {"images": application.images})
            case _:
                return Answer(404, {"message": "Not found."})

    def _deploy(self, call: ToyCall) -> Answer:
        if call.method != "POST" and self.new:
            text = "This endpoint has been changed to a POST request."
            return Answer(405, {"message": text}, {"Allow": "POST"})
        uuids = [uuid for uuid in call.query.get("uuid", "").split(",") if uuid]
        if not uuids:
            return Answer(400, {"message": "You must provide uuid or tag."})
        found = [self.applications[uuid] for uuid in uuids if uuid in self.applications]
        pr = int(call.query.get("pr") or call.query.get("pull_request_id") or 0)
        told: list[dict[str, Any]] = []
        for one in found:
            answer = self._deploy_one(one, self._force(call.query.get("force")), pr)
            if isinstance(answer, Answer):
                return answer
            told.append(answer)
        if not told:
            return Answer(404, {"message": "No resources found."})
        return Answer(200, {"deployments": told})

    def _force(self, text: str | None) -> bool:
        if self.new:
            return (text or "").lower() in {"1", "true", "on", "yes"}
        # PHP takes every text for true but these two.
        return text not in {None, "", "0"}

    def _deploy_one(
        self, application: ToyApplication, force: bool, pr: int
    ) -> dict[str, Any] | Answer:
        told = {"resource_uuid": application.uuid}
        if application.kind == "service":
            return told | {"message": f"Service {application.name} started. Be patient."}
        if pr and pr not in application.previews:
            return told | {"message": f"Pull request {pr} not found for this resource."}
        if not force and any(
            run.live
            and run.application is application
            and run.asked_commit == "HEAD"
            and run.pull_request_id == pr
            for run in self.runs
        ):
            # This id is made before the queue is looked at, and is never stored.
            text = "Deployment already queued for this commit."
            return told | {"message": text, "deployment_uuid": uuid4().hex[:24]}
        if self._queue_is_full():
            return Answer(429, {"message": "Deployment queue is full."}, {"Retry-After": "60"})
        run = self.queue(application, pull_request_id=pr, force=force)
        text = f"Application {application.name} deployment queued."
        return told | {"message": text, "deployment_uuid": run.uuid}

    def _rollback(self, uuid: str, body: bytes) -> Answer:
        application = self.applications.get(uuid)
        if application is None:
            return Answer(404, {"message": "Application not found."})
        commit = json.loads(body or b"{}").get("commit")
        if not isinstance(commit, str) or not commit:
            return Answer(422, {"message": "Validation failed.", "errors": {"commit": ["needed"]}})
        if self._queue_is_full():
            return Answer(400, {"message": "Deployment queue is full."})
        run = self.queue(application, commit=commit, rollback=True)
        return Answer(200, {"message": "Rollback queued.", "deployment_uuid": run.uuid})

    def _queue_is_full(self) -> bool:
        return sum(run.status == "queued" for run in self.runs) >= self.queue_limit

    def _cancel(self, uuid: str) -> Answer:
        run = self._run(uuid)
        if run is None:
            return Answer(404, {"message": "Deployment not found."})
        if not run.live:
            text = f"Deployment cannot be cancelled. Current status: {run.status}"
            return Answer(400, {"message": text})
        self.cancel(run)
        text = "Deployment cancelled successfully."
        return Answer(
            200, {"message": text, "deployment_uuid": uuid, "status": "cancelled-by-user"}
        )

    def _runs_of(self, uuid: str, call: ToyCall, token: ToyToken) -> Answer:
        application = self.applications.get(uuid)
        if application is None:
            return Answer(404, {"message": "Application not found."})
        mine = [run for run in reversed(self.runs) if run.application is application]
        skip, take = int(call.query.get("skip", 0)), int(call.query.get("take", 10))
        rows = [self._row(self._look(run), token) for run in mine[skip : skip + take]]
        return Answer(200, {"count": len(mine), "deployments": rows})

    def _look(self, run: ToyRun) -> ToyRun:
        run.looks += 1
        if self.auto and run.status == "queued" and not self._builds(run):
            self.start(run)
        elif self.auto and run.status == "in_progress":
            self.finish(run)
        return run

    def _builds(self, wanted: ToyRun) -> bool:
        return any(
            run.status == "in_progress"
            and run.application is wanted.application
            and run.pull_request_id == wanted.pull_request_id
            for run in self.runs
        )

    def _run(self, uuid: str) -> ToyRun | None:
        return next((run for run in self.runs if run.uuid == uuid), None)

    def _applications(self) -> list[ToyApplication]:
        return [one for one in self.applications.values() if one.kind == "application"]

    def _list(self, rows: list[dict[str, Any]]) -> Any:
        if self.keyed_lists and rows:
            return {str(number): row for number, row in enumerate(rows, 1)}
        return rows

    def _application(self, application: ToyApplication) -> dict[str, Any]:
        return {
            "id": application.number,
            "uuid": application.uuid,
            "name": application.name,
            "fqdn": application.fqdn,
            "git_repository": application.repository,
            "git_branch": application.branch,
            "git_commit_sha": "HEAD",
            "status": application.status,
            "build_pack": "nixpacks",
        }

    def _row(self, run: ToyRun, token: ToyToken) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": run.number,
            "application_id": str(run.application.number),
            "application_name": run.application.name,
            "deployment_uuid": run.uuid,
            "deployment_url": _page(run),
            "pull_request_id": run.pull_request_id,
            "force_rebuild": run.force,
            "commit": run.commit,
            "status": run.status,
            "is_webhook": False,
            "is_api": True,
            "rollback": run.rollback,
            "server_id": 0,
            "created_at": run.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "updated_at": run.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        if token.reads_logs:
            row["logs"] = json.dumps(run.log) if run.log else None
        return row


def _page(run: ToyRun) -> str:
    return f"/project/toy/environment/toy/application/{run.application.uuid}/deployment/{run.uuid}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    coolify: ToyCoolify

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = ToyCall(
            at=time.monotonic(),
            method=self.command,
            path=parts.path,
            route=parts.path.removeprefix(self.coolify.prefix).removeprefix(API),
            raw_query=parts.query,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers=headers,
            body=self.rfile.read(int(headers.get("content-length", "0"))),
        )
        answer = self.coolify.answer(call, self.client_address[0])
        try:
            self._send(answer)
        except OSError:
            self.close_connection = True

    def _send(self, answer: Answer) -> None:
        if answer.drop:
            self.close_connection = True
            return
        plain = isinstance(answer.body, bytes)
        content = answer.body if plain else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header(
            "Content-Type", "text/html; charset=UTF-8" if plain else "application/json"
        )
        self.send_header("Set-Cookie", "coolify_session=toy; Path=/")
        self.send_header("Content-Length", str(len(content)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not answer.drip_s:
            self.wfile.write(content)
        else:
            self._drip(content, answer.drip_s)
        self.wfile.flush()

    def _drip(self, content: bytes, pause_s: float) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.coolify._released.wait(pause_s):
                return
