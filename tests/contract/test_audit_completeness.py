"""SEC-51: whatever has to be on record is, exactly once, and nothing that must not be.

The whole app is driven as its clients drive it: over HTTP and the terminal's socket, with real git,
tmux, mail and gateway, and the operator's command line. After each deed exactly the events that are
named there are new. At its end the table has every action that the code can write.
"""

import ast
import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import anyio
import httpx
import pytest

import craftastic
from craftastic.accounts.service import UserId
from craftastic.database import Base
from craftastic.failpoints import FAILPOINTS
from tests.conftest import BACKENDS, free_port
from tests.contract.conftest import until
from tests.contract.test_cli_admin import operator
from tests.contract.test_cli_commands import Cli
from tests.fakes.git_http_server import GitHttpServer
from tests.fakes.git_rig import Upstream
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.mail_server import MailServer, mail_server
from tests.fakes.people import PASSWORD, Person, bearer, logged_in, signed_in, state_of
from tests.fakes.toy_coolify import ToyCoolify
from tests.fakes.toy_github import ToyGitHub
from tests.fakes.whole_app import whole_app, whole_settings

WAIT_S = 20.0
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
TYPED = "typed-canary-4711"
SECRET = "secret-canary-4711"
NEW_PASSWORD = "another-horse-another-battery"
SOURCE = Path(craftastic.__file__).parent
PAGE = SOURCE.parents[1] / "docs" / "reference" / "audit-log.md"
WORDS = SOURCE.parents[1] / "web" / "src" / "screens" / "account" / "deeds.ts"

NO_ACTIONS = {
    # Events of pages.
    *("git.changed", "job.changed", "job.output", "session.changed", "session.deleted"),
    *("environment.changed", "environment.deleted", "variables.changed", "push.recorded"),
    "disk.changed",
    *("coolify.changed", "deployment.changed"),
    # Purposes of secrets, and what the server's own log says.
    *("github.access", "github.refresh", "github.grant", "github.device_code"),
    *("coolify.token", "git_host.password", "craftastic.runtimes", "terminal.not_recorded"),
    *("terminal.not_audited", "terminal.not_audited_yet", "agent.credential"),
}
"""What looks like an action where the audit log is spoken of, and is none."""
ELSEWHERE = {
    "approval.allow": "test_agent_runs.py",
    "approval.deny": "test_agent_runs.py",
}
"""What needs an agent at work, and so has its test where that is played."""

ACTION = re.compile(r"[a-z][a-z_]*(\.(?!com$|org$|db$|py$|json$|jsonl$|ht$)[a-z_]+)+")


@dataclass(frozen=True, slots=True)
class Told:
    """What one event has to say."""

    action: str
    actor: str | None
    object: tuple[str, str | None]
    outcome: str = "ok"


@dataclass
class Record:
    """The audit log, as an administrator reads it after each deed."""

    client: httpx.AsyncClient
    admin: dict[str, str]
    seen: int = 0
    actions: set[str] = field(default_factory=set[str])

    async def has(self, *expected: Told) -> list[dict[str, Any]]:
        """Wait for as many new events as are expected, which have to be these; return them."""
        found: list[dict[str, Any]] = []

        async def enough() -> bool:
            found[:] = await self.new()
            return len(found) >= len(expected)

        await until(enough, f"{expected} is on record")
        told = [
            Told(
                one["action"], one["actorId"], (one["objectType"], one["objectId"]), one["outcome"]
            )
            for one in found
        ]
        assert told == list(expected)
        self.seen = found[-1]["seq"]
        self.actions |= {one.action for one in expected}
        return found

    async def new(self) -> list[dict[str, Any]]:
        answer = await self.client.get("/api/admin/audit?limit=50", headers=self.admin)
        events = answer.json()["events"]
        return [one for one in reversed(events) if one["seq"] > self.seen]


@dataclass
class Scene:
    """The app, its two people, and everything around it."""

    client: httpx.AsyncClient
    record: Record
    chief: Person
    ann: Person
    mail: MailServer
    toy: ToyGitHub
    coolify: ToyCoolify
    upstream: str
    cli: Cli
    secrets: list[str]

    async def ask(
        self, method: str, path: str, body: object = None, *, by: Person | None = None
    ) -> dict[str, Any]:
        """Send a request that has to succeed."""
        person = by or self.ann
        answer = await self.client.request(method, path, json=body, headers=person.headers)
        assert answer.is_success, answer.text
        return answer.json()

    async def again(self, email: str, password: str = PASSWORD) -> Person:
        """Sign in, which is on record."""
        answer = await self.client.post(
            "/api/auth/login", json={"email": email, "password": password}
        )
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        self.secrets += [data["accessToken"], data["refreshToken"]]
        person = Person(email, data["user"]["id"], "", bearer(data["accessToken"]))
        if email == self.chief.email:
            self.record.admin = person.headers
        return person


@asynccontextmanager
async def scene_of(folder: Path, url: str) -> AsyncGenerator[Scene]:
    (folder / "sandboxes").mkdir()
    upstream = Upstream(folder)
    async with mail_server() as mail:
        with (
            ToyGitHub(interval=0.1) as toy,
            ToyCoolify() as coolify,
            GitHttpServer(upstream.root) as server,
        ):
            toy.add_user("octo")
            settings = whole_settings(
                folder,
                url,
                **toy.settings,
                git_allow_private=True,
                agent_credential_reads=True,
                gateway_port=free_port(),
                coolify_origins=coolify.url,
                smtp_url=f"smtp://127.0.0.1:{mail.port}?security=none",
            )
            runtime = GitRuntime(folder / "sandboxes")
            async with whole_app(settings, runtime) as (client, _):
                token = await state_of(client)["accounts"].first_account_token() or ""
                await signed_in(client, "chief@example.com", setupToken=token)
                chief = await logged_in(client, "chief@example.com")
                await signed_in(client, "ann@example.com")
                ann = await logged_in(client, "ann@example.com")
                record = Record(client, chief.headers)
                secrets = [PASSWORD, NEW_PASSWORD, SECRET, TYPED, token, "wrong-password"]
                address = server.url("project.git")
                cli = operator(folder, url)
                try:
                    yield Scene(
                        client, record, chief, ann, mail, toy, coolify, address, cli, secrets
                    )  # fmt: skip
                finally:
                    await runtime.close()


@pytest.fixture(params=BACKENDS)
async def scene(
    request: pytest.FixtureRequest, data_dir: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Scene]:
    async with scene_of(data_dir, copy_of_template(request.param)) as one:
        yield one


async def test_every_deed_is_on_record_once_and_every_action_is_in_this_table(
    scene: Scene,
) -> None:
    for chapter in (
        accounts,
        passwords,
        tokens_and_sign_ins,
        administrators,
        git_accounts,
        agents,
        environments,
        variables,
        sessions_and_terminals,
        git,
        deployments,
        ends,
        keys,
    ):
        await chapter(scene)

    record = scene.record
    assert await record.new() == []
    assert record.actions == actions_in_the_code() - set(ELSEWHERE)
    for action, file in ELSEWHERE.items():
        assert f'"{action}"' in (Path(__file__).parent / file).read_text()
    verdict = await scene.client.get("/api/admin/audit/verify", headers=record.admin)
    assert (verdict.json()["ok"], verdict.json()["checked"]) == (True, record.seen)
    export = await scene.client.get("/api/admin/audit/export", headers=record.admin)
    assert [one for one in {*scene.secrets, *scene.toy.secrets()} if one in export.text] == []


def test_every_action_is_documented() -> None:
    text = PAGE.read_text()

    assert [one for one in sorted(actions_in_the_code()) if f"`{one}`" not in text] == []


def test_the_page_has_words_for_every_action() -> None:
    words = WORDS.read_text()
    domains = {one.partition(".")[0] for one in actions_in_the_code()}

    assert [one for one in sorted(actions_in_the_code()) if f"'{one}': '" not in words] == []
    assert [one for one in sorted(domains) if f"\n  {one}: '" not in words] == []


def actions_in_the_code() -> set[str]:
    """Return every text of the form `domain.verb` in modules that speak of the audit log."""
    found: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        text = file.read_text()
        if re.search(r"audit|trail", text) is None or file.parent.name == "versions":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if ACTION.fullmatch(node.value) else set()
    return found - NO_ACTIONS - set(FAILPOINTS)


# ---- what is done ------------------------------------------------------------------------------


async def accounts(scene: Scene) -> None:
    """A sign-in that works, one that does not, one of nobody; a stolen refresh token."""
    client, record, ann = scene.client, scene.record, scene.ann
    chief = ("user", scene.chief.id)
    mine = ("user", ann.id)
    await record.has(
        Told("account.register", scene.chief.id, chief),
        Told("account.login", scene.chief.id, chief),
        Told("account.register", ann.id, mine),
        Told("account.login", ann.id, mine),
    )

    for email in (ann.email, "nobody@example.com"):
        wrong = {"email": email, "password": "wrong-password"}
        assert (await client.post("/api/auth/login", json=wrong)).status_code == 401
    await record.has(
        Told("account.login", None, mine, "refused"),
        Told("account.login", None, ("user", None), "refused"),
    )

    verification = await scene.mail.token(2)
    scene.secrets.append(verification)
    await scene.ask("POST", "/api/auth/verify-email", {"token": verification})
    await record.has(Told("account.verify", ann.id, mine))

    login = {"email": ann.email, "password": PASSWORD}
    first = (await client.post("/api/auth/login", json=login)).json()["data"]["refreshToken"]
    second = await client.post("/api/auth/refresh", json={"refreshToken": first})
    stolen = await client.post("/api/auth/refresh", json={"refreshToken": first})
    scene.secrets += [first, second.json()["data"]["refreshToken"]]
    assert stolen.status_code == 401
    await record.has(
        Told("account.login", ann.id, mine), Told("account.refresh", None, mine, "reused")
    )


async def passwords(scene: Scene) -> None:
    """A password that is changed, not changed, and reset by mail."""
    client, record, ann = scene.client, scene.record, scene.ann
    mine = ("user", ann.id)
    wrong = {"currentPassword": "wrong-password", "newPassword": NEW_PASSWORD}
    refused = await client.post("/api/auth/change-password", json=wrong, headers=ann.headers)
    assert refused.status_code >= 400
    await record.has(Told("account.change_password", ann.id, mine, "refused"))

    right = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
    await scene.ask("POST", "/api/auth/change-password", right)
    await record.has(Told("account.change_password", ann.id, mine))

    mails = len(await scene.mail.mails(3))  # the third one tells of the change
    await scene.ask("POST", "/api/auth/request-password-reset", {"email": ann.email})
    token = await scene.mail.token(mails + 1)
    scene.secrets.append(token)
    await scene.ask("POST", "/api/auth/reset-password", {"token": token, "password": PASSWORD})
    await record.has(Told("account.reset_password", ann.id, mine))


async def tokens_and_sign_ins(scene: Scene) -> None:
    """Ends of sign-ins, and access tokens."""
    record, ann = scene.record, scene.ann
    mine = ("user", ann.id)
    scene.ann = await scene.again(ann.email)
    await record.has(Told("account.login", ann.id, mine))
    await scene.ask("POST", "/api/auth/logout-all")
    await record.has(Told("account.logout_all", ann.id, mine))

    await scene.again(ann.email)
    scene.ann = await scene.again(ann.email)
    await record.has(*[Told("account.login", ann.id, mine)] * 2)
    listed = (await scene.ask("GET", "/api/auth/sign-ins"))["data"]["signIns"]
    other = next(one["id"] for one in listed if not one["current"])
    await scene.ask("DELETE", f"/api/auth/sign-ins/{other}")
    await record.has(Told("sign_in.end", ann.id, ("sign_in", other)))

    body = {"name": "program", "scope": "write", "expiresInDays": 1}
    made = (await scene.ask("POST", "/api/auth/tokens", body))["data"]
    scene.secrets.append(made["secret"])
    token = ("access_token", made["token"]["id"])
    await record.has(Told("access_token.create", ann.id, token))
    await scene.ask("DELETE", f"/api/auth/tokens/{token[1]}")
    await record.has(Told("access_token.revoke", ann.id, token))


async def administrators(scene: Scene) -> None:
    """What an administrator does to accounts."""
    record, chief = scene.record, scene.chief
    ask = partial(scene.ask, by=chief)
    made = await ask("POST", "/api/admin/users", {"email": "bob@example.com", "name": "Bob"})
    scene.secrets.append(json.dumps(made).partition("#token=")[2][:64])
    found = await record.new()
    bob = ("user", found[-1]["objectId"])
    await record.has(Told("user.add", chief.id, bob))
    for verb, action in [
        ("reset-password", "user.reset_password"),
        ("disable", "user.disable"),
        ("enable", "user.enable"),
    ]:
        await ask("POST", f"/api/admin/users/{bob[1]}/{verb}")
        await record.has(Told(action, chief.id, bob))

    await ask("POST", "/api/auth/invitations", {"email": "eve@example.com"})
    (open_one,) = (await ask("GET", "/api/admin/invitations"))["invitations"]
    invitation = ("invitation", open_one["id"])
    await record.has(Told("invitation.create", chief.id, invitation))
    await ask("DELETE", f"/api/admin/invitations/{open_one['id']}")
    await record.has(Told("invitation.revoke", chief.id, invitation))


async def git_accounts(scene: Scene) -> None:
    """Credentials for git: of any host, and of GitHub, whose token dies once."""
    record, ann = scene.record, scene.ann
    body = {"origin": "https://git.example", "password": SECRET}
    host = (await scene.ask("PUT", "/api/git/hosts", body))["data"]["host"]
    thing = ("git_host", host["id"])
    await record.has(Told("git_host.put", ann.id, thing))
    await scene.ask("DELETE", f"/api/git/hosts/{host['id']}")
    await record.has(Told("git_host.delete", ann.id, thing))

    account = ("github_account", str(scene.toy.users["octo"].id))
    await connect(scene)
    await record.has(Told("github.connect", ann.id, account))
    async with state_of(scene.client)["accounts"].database.begin() as tx:
        # A token that was given just now may be unknown at some of GitHub's own servers.
        table = Base.metadata.tables["github_accounts"]
        await tx.execute(table.update().values(issued_at=LONG_AGO))
    for token in list(scene.toy.tokens):
        scene.toy.revoke(token)
    await scene.client.get("/api/auth/github/repos", headers=ann.headers)
    await record.has(Told("github.refresh_failed", ann.id, account, "failed"))
    await scene.ask("DELETE", "/api/auth/github/disconnect")
    await record.has(Told("github.disconnect", ann.id, account))


async def connect(scene: Scene) -> None:
    flow = (await scene.ask("POST", "/api/auth/github/initiate"))["data"]
    scene.toy.approve(flow["user_code"], "octo")

    async def connected() -> bool:
        body = {"deviceCode": flow["device_code"]}
        return (await scene.ask("POST", "/api/auth/github/poll", body))["success"]

    await until(connected, "GitHub is connected")


async def agents(scene: Scene) -> None:
    """An agent and its credential: stored, renewed by the agent's program, and read back."""
    record, ann = scene.record, scene.ann
    login = json.dumps({"claudeAiOauth": {"accessToken": SECRET}})
    given = {"type": "claude_cli_json", "value": login}
    body = {"userId": ann.id, "name": "mine", "type": "claude-code", "credential": given}
    made = await scene.ask("POST", "/api/agents", body)
    agent = ("agent", made["id"])
    path = f"/api/agents/{made['id']}"
    await record.has(Told("agent.create", ann.id, agent))
    await scene.ask("PATCH", path, {"name": "other"})
    await record.has(Told("agent.update", ann.id, agent))

    was = hashlib.sha256(login.encode()).hexdigest()
    renewed = login.replace(SECRET, SECRET + "-renewed")
    assert await state_of(scene.client)["agents"].take_back(
        UserId(UUID(ann.id)), UUID(made["id"]), given["type"], was, renewed
    )
    await record.has(Told("agent.credential.refresh", ann.id, agent))

    program = {"name": "reader", "scope": "write", "expiresInDays": 1}
    token = (await scene.ask("POST", "/api/auth/tokens", program))["data"]
    scene.secrets.append(token["secret"])
    await record.has(Told("access_token.create", ann.id, ("access_token", token["token"]["id"])))
    reader = Person(ann.email, ann.id, "", bearer(token["secret"]))
    read = await scene.ask("GET", f"{path}/credentials", by=reader)
    assert SECRET in json.dumps(read)
    await record.has(Told("agent.credential.read", ann.id, agent))

    await scene.ask("DELETE", path)
    await record.has(Told("agent.delete", ann.id, agent))


async def environments(scene: Scene) -> None:
    """One's own environment, and one that an administrator makes for somebody else."""
    record, ann, chief = scene.record, scene.ann, scene.chief
    body = {"name": "for-ann", "userId": ann.id}
    made = await scene.ask("POST", "/api/environments", body, by=chief)
    (event,) = await record.has(Told("environment.create", chief.id, ("environment", made["id"])))
    assert event["details"]["name"] == "for-ann"
    path = f"/api/environments/{made['id']}"
    await scene.ask("PATCH", path, {"name": "ours", "pushPolicy": "none", "idleStopMinutes": 5})
    await record.has(
        Told("environment.rename", ann.id, ("environment", made["id"])),
        Told("environment.push_policy", ann.id, ("environment", made["id"])),
        Told("environment.idle_stop", ann.id, ("environment", made["id"])),
    )
    await scene.ask("POST", f"{path}/disk/reclaim", {"tier": 3})
    await record.has(Told("disk.reclaimed", ann.id, ("environment", made["id"])))
    await scene.ask("POST", f"{path}/stop")
    await record.has(Told("environment.stop", ann.id, ("environment", made["id"])))
    started = await scene.ask("POST", f"{path}/start")
    assert await record.new() == []
    await scene.ask("DELETE", f"/api/containers/{started['containerId']}")
    await record.has(Told("environment.stop", ann.id, ("environment", made["id"])))
    await scene.ask("DELETE", path)
    await record.has(Told("environment.delete", ann.id, ("environment", made["id"])))

    gone = await scene.client.delete(path, headers=ann.headers)
    taken = await scene.client.post("/api/environments", json={"name": ""}, headers=ann.headers)
    assert (gone.status_code, taken.status_code) == (404, 400)
    assert await record.new() == []


async def variables(scene: Scene) -> None:
    record, ann = scene.record, scene.ann
    await scene.ask("PUT", "/api/variables/TOKEN", {"value": SECRET, "secret": True})
    found = await record.new()
    variable = (found[-1]["objectType"], found[-1]["objectId"])
    await record.has(Told("variable.set", ann.id, variable))
    await scene.ask("DELETE", "/api/variables/TOKEN")
    await record.has(Told("variable.delete", ann.id, variable))


async def repository(scene: Scene) -> str:
    """Make an environment with a repository, which is on record, and return its id."""
    body = {"name": "project", "repositoryUrl": scene.upstream}
    made = await scene.ask("POST", "/api/environments", body)
    await scene.record.has(Told("environment.create", scene.ann.id, ("environment", made["id"])))
    return made["id"]


async def sessions_and_terminals(scene: Scene) -> None:
    """A session's life, and those who look at it."""
    record, ann = scene.record, scene.ann
    environment = await repository(scene)
    made = await scene.ask(
        "POST", "/api/sessions", {"environmentId": environment, "branch": "work"}
    )
    session = ("session", made["id"])
    (event,) = await record.has(Told("session.create", ann.id, session))
    assert event["details"]["environment"] == environment

    viewers: list[str] = []
    async with terminal(scene, environment, made["id"]):
        (first,) = await record.has(Told("terminal.attach", ann.id, session))
        async with terminal(scene, environment, made["id"]):
            (second,) = await record.has(Told("terminal.attach", ann.id, session))
        (left,) = await record.has(Told("terminal.detach", ann.id, session))
        assert left["details"]["viewer"] == second["details"]["viewer"]
        assert left["details"]["reason"] == "The client went away"
    (last,) = await record.has(Told("terminal.detach", ann.id, session))
    viewers = [one["details"]["viewer"] for one in (first, second)]
    assert last["details"]["viewer"] == viewers[0] != viewers[1]

    path = f"/api/sessions/{made['id']}"
    await scene.ask("POST", f"{path}/repair")
    await record.has(Told("session.repair", ann.id, session))
    await scene.ask("POST", f"/api/environments/{environment}/repair")
    await record.has(Told("environment.repair", ann.id, ("environment", environment)))
    await scene.ask("PATCH", path, {"status": "dead"})
    await record.has(Told("session.end", ann.id, session))
    await scene.ask("PATCH", path, {"status": "dead"})  # it is already
    await scene.ask("PATCH", path, {"status": "inactive"})
    await record.has(Told("session.revive", ann.id, session))
    async with terminal(scene, environment, made["id"]) as closed:
        await record.has(Told("terminal.attach", ann.id, session))
        await scene.ask("POST", f"/api/cleanup/environment/{environment}")
        await until(lambda: closed, "the terminal has ended")
    ended, detached = sorted(await record_of(record, 2), key=lambda one: one["action"])
    assert (ended["action"], ended["objectId"]) == ("session.end", made["id"])
    assert (detached["action"], detached["actorId"]) == ("terminal.detach", ann.id)
    assert detached["details"]["reason"] == "Terminal session ended"
    async with terminal(scene, environment, made["id"]):  # which brings it back
        await record.has(
            Told("session.revive", ann.id, session), Told("terminal.attach", ann.id, session)
        )
    await record.has(Told("terminal.detach", ann.id, session))

    body = {"environmentId": environment, "branch": "other", "baseBranch": "is-not-there"}
    refused = await scene.client.post("/api/sessions", json=body, headers=ann.headers)
    assert refused.status_code == 404, refused.text
    undone = ("session", (await record.new())[-1]["objectId"])
    _, why = await record.has(
        Told("session.create", ann.id, undone), Told("session.delete", ann.id, undone, "undone")
    )
    assert why["details"]["why"] == refused.json()["code"]


async def record_of(record: Record, count: int) -> list[dict[str, Any]]:
    """Wait for so many new events, whose order is not given."""

    async def enough() -> bool:
        return len(await record.new()) >= count

    await until(enough, f"{count} events")
    found = await record.new()
    assert len(found) == count, found
    record.seen = found[-1]["seq"]
    return found


async def git(scene: Scene) -> None:
    """A commit and a push by the API, and a push that is typed."""
    record, ann = scene.record, scene.ann
    environment, session = await the_session(scene)
    thing = ("session", session)
    async with terminal(scene, environment, session, f"echo {TYPED} >file\n"):
        await record.has(Told("terminal.attach", ann.id, thing))

        async def changed() -> bool:
            status = await scene.ask("GET", f"/api/git/status/{session}")
            return "file" in json.dumps(status)

        await until(changed, "what was typed is done")
    await record.has(Told("terminal.detach", ann.id, thing))
    done = await scene.ask("POST", f"/api/git/commit/{session}", {"message": "a file"})
    await record.has(Told("git.commit", ann.id, thing))
    commit = re.findall(r"[0-9a-f]{40}", json.dumps(done))[0]

    await scene.ask("POST", f"/api/git/push/{session}", {})
    place = ("environment", environment)
    started, pushed, _ = await record.has(
        Told("git.push_started", ann.id, place, "started"),
        Told("git.push", ann.id, place),
        Told("git.push_requested", ann.id, thing),
    )
    ref = {"ref": "refs/heads/work", "old": "0" * 40, "new": commit}
    assert started["details"]["refs"] == pushed["details"]["refs"] == [ref]


async def deployments(scene: Scene) -> None:
    """A Coolify that is connected, what it deploys, and its end."""
    record, ann, coolify = scene.record, scene.ann, scene.coolify
    _, session = await the_session(scene)
    token = coolify.token()
    await scene.ask("PUT", "/api/coolify/connection", {"url": coolify.url, "token": token})
    connection = ("coolify", (await record.new())[-1]["objectId"])
    await record.has(Told("coolify.connect", ann.id, connection))
    hook = await scene.ask("POST", "/api/coolify/hook")
    scene.secrets += [token, hook["url"].rpartition("/")[2]]
    await record.has(Told("coolify.hook", ann.id, ("coolify", ann.id)))

    web = coolify.application("web", branch="work")
    body = {"sessionId": session, "appId": web.uuid}
    started = await scene.ask("POST", "/api/deployment/deploy", body)
    thing = ("deployment", started["deploymentId"])
    await record.has(Told("deployment.start", ann.id, thing))
    await scene.ask("POST", f"/api/deployment/cancel/{started['deploymentId']}")
    await record.has(Told("deployment.cancel", ann.id, thing))
    back = await scene.ask("POST", "/api/deployment/rollback", body | {"commit": "a" * 40})
    thing = ("deployment", back["deploymentId"])
    await record.has(Told("deployment.rollback", ann.id, thing))

    await scene.ask("DELETE", "/api/coolify/hook")
    await record.has(Told("coolify.hook_delete", ann.id, ("coolify", ann.id)))
    await scene.ask("DELETE", "/api/coolify/connection")
    await record.has(Told("coolify.disconnect", ann.id, connection))
    again = [
        await scene.client.delete(path, headers=ann.headers)
        for path in ("/api/coolify/hook", "/api/coolify/connection")
    ]
    assert [one.status_code for one in again] == [200, 200]
    assert await record.new() == []


async def the_session(scene: Scene) -> tuple[str, str]:
    listed = await scene.ask("GET", f"/api/environments/user/{scene.ann.id}")
    (environment,) = listed["environments"]
    (session,) = environment["sessions"]
    return environment["id"], session["id"]


async def ends(scene: Scene) -> None:
    record, ann = scene.record, scene.ann
    environment, session = await the_session(scene)
    await scene.ask("DELETE", f"/api/sessions/{session}")
    await record.has(Told("session.delete", ann.id, ("session", session)))
    await scene.ask("DELETE", f"/api/environments/{environment}")
    await record.has(Told("environment.delete", ann.id, ("environment", environment)))


async def keys(scene: Scene) -> None:
    """The operator's keys, on the machine itself: nobody's deed that the server would know."""
    nobody: Sequence[Any] = (None, ("keys", None))
    rotated = await scene.cli("keys", "rotate")
    assert rotated.code == 0, rotated.err
    await scene.record.has(Told("keys.add", *nobody), Told("keys.rotate", *nobody))
    pruned = await scene.cli("keys", "prune")
    assert pruned.code == 0, pruned.err
    await scene.record.has(Told("keys.prune", *nobody))


@asynccontextmanager
async def terminal(
    scene: Scene, environment: str, session: str, typed: str = ""
) -> AsyncGenerator[list[dict[str, Any]]]:
    """Look at a session's terminal over its socket; go away at the end. Gives how it is closed."""
    query = {"environmentId": environment, "token": scene.ann.headers["Authorization"][7:]}
    send, receive = anyio.create_memory_object_stream[dict[str, Any]](10)
    shown = anyio.Event()
    closed: list[dict[str, Any]] = []

    async def take(message: Any) -> None:
        if message["type"] == "websocket.send":
            shown.set()
        elif message["type"] == "websocket.close":
            closed.append(message)

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": f"/api/terminal/ws/{session}",
        "raw_path": f"/api/terminal/ws/{session}".encode(),
        "query_string": urlencode(query).encode(),
        "root_path": "",
        "server": ("127.0.0.1", 3000),
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"127.0.0.1:3000"), (b"x-request-id", uuid4().hex.encode())],
        "subprotocols": [],
    }
    app: Any = scene.client._transport.app  # type: ignore[attr-defined] - made by `client_of`
    with send, receive:
        async with anyio.create_task_group() as tasks:
            await send.send({"type": "websocket.connect"})
            if typed:
                text = json.dumps({"type": "input", "data": typed})
                await send.send({"type": "websocket.receive", "text": text})
            tasks.start_soon(app, scope, receive.receive, take)
            with anyio.fail_after(WAIT_S):
                await shown.wait()
            yield closed
            await send.send({"type": "websocket.disconnect", "code": 1000})
