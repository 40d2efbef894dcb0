"""`craftastic var …` as a process of its own, against the whole app on a port."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
import pytest
import uvicorn

from craftastic.app import build_app
from craftastic.runtimes.base import Runtime
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.runtimes.registry import Runtimes
from craftastic.settings import Settings
from tests.conftest import free_port
from tests.contract.test_cli_commands import Asked, Cli
from tests.contract.test_every_route import PASSWORD, signed_in
from tests.fakes.whole_app import whole_settings

START_S = 20.0


@dataclass
class Served:
    """A person's command line, and the same person's requests without it."""

    cli: Cli
    client: httpx.AsyncClient
    environment: str

    async def values(self, path: str = "/api/variables") -> dict[str, str | None]:
        listed = (await self.client.get(path)).json()["variables"]
        return {one["name"]: one.get("value") for one in listed}


async def _in_memory(settings: Settings, instance: str) -> Runtimes:
    def make(_settings: Settings, _instance: str) -> Runtime:
        return MemoryRuntime()

    return Runtimes(settings, instance, "memory", "it is a test", {"memory": make})


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    port = free_port()
    app = build_app(whole_settings(tmp_path, f"sqlite:///{tmp_path / 'a.db'}"), _in_memory)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, ws="none")
    )
    url = f"http://127.0.0.1:{port}"
    async with anyio.create_task_group() as tasks, httpx.AsyncClient(base_url=url) as client:
        tasks.start_soon(server.serve)
        try:
            with anyio.fail_after(START_S):
                while not server.started:  # noqa: ASYNC110 - it tells nobody
                    await anyio.sleep(0.01)
            client.headers.update(await signed_in(client, "first@example.com"))
            yield await signed_in_twice(Cli(tmp_path / "person", url), client)
        finally:
            server.should_exit = True


async def signed_in_twice(cli: Cli, client: httpx.AsyncClient) -> Served:
    cli.home.mkdir()
    account = ("--email", "first@example.com", "--password-stdin")
    done = await cli("login", *account, stdin=PASSWORD)
    assert done.code == 0, done.err
    made = (await client.post("/api/environments", json={"name": "one"})).json()
    return Served(cli, client, f"/api/environments/{made['id']}/variables")


async def test_a_value_comes_from_a_pipe_and_is_a_secret(served: Served) -> None:
    done = await served.cli("var", "set", "TOKEN", stdin="hunter2\n")

    assert (done.code, done.out) == (
        0,
        "Set 1 variable, for shells that are started from now on.\n",
    )
    assert await served.values() == {"TOKEN": None}
    listed = await served.cli("var", "ls")
    assert listed.out == "name\tvalue\tfrom\nTOKEN\t(secret)\tyou\n"
    assert (await served.cli("var", "ls", "--json")).json["variables"][0]["isSecret"] is True


async def test_only_the_last_line_end_of_a_pipe_does_not_count(served: Served) -> None:
    for given, kept in (("a\n\n", "a\n"), ("a\r\n", "a"), ("a b\nc", "a b\nc"), ("", "")):
        done = await served.cli("var", "set", "PLAIN", "--plain", stdin=given)
        assert done.code == 0, done.err
        assert await served.values() == {"PLAIN": kept}


async def test_a_person_is_asked_and_what_is_typed_is_not_shown(served: Served) -> None:
    asked = Asked(served.cli, "var", "set", "TYPED")

    await asked.answer(b"Value of TYPED:", "hunter2")

    assert await asked.ended() == 0
    assert b"hunter2" not in asked.shown
    assert await served.values() == {"TYPED": None}


async def test_an_environments_own_are_set_listed_with_what_it_inherits_and_removed(
    served: Served,
) -> None:
    await served.cli("var", "set", "A", "--plain", stdin="mine")
    await served.cli("var", "set", "B", stdin="secret")
    done = await served.cli("var", "set", "A", "--plain", "--env", "one", stdin="its")
    assert done.code == 0, done.err

    listed = await served.cli("var", "ls", "--env", "one")

    assert listed.out.splitlines()[1:] == [
        "A\tits\tenvironment",
        "A\t-\tyou, overridden",
        "B\t(secret)\tyou",
    ]
    assert (await served.cli("var", "ls", "-q")).out == "A\nB\n"
    gone = await served.cli("var", "rm", "A", "--env", "one", "--yes")
    assert (gone.code, gone.out) == (0, "Removed 1 variable.\n")
    assert await served.values(served.environment) == {}
    assert await served.values() == {"A": "mine", "B": None}
    assert (await served.cli("var", "rm", "A", "--env", "one", "--yes")).code == 4
    assert (await served.cli("var", "rm", "A")).code == 2


async def test_a_dotenv_file_is_taken_whole_or_not_at_all(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "a.env"
    file.write_text("# ours\nexport A=1\nB='two\nlines' # x\n")

    done = await served.cli("var", "set", "--from-file", str(file), "--plain")

    assert (done.code, done.out.split(",")[0]) == (0, "Set 2 variables")
    assert await served.values() == {"A": "1", "B": "two\nlines"}
    file.write_text("C=1\nD=hunter2$E\n")
    refused = await served.cli("var", "set", "--from-file", str(file))
    assert refused.code == 2
    assert refused.err.startswith("craftastic: Line 2: ")
    assert "hunter2" not in refused.err
    assert set(await served.values()) == {"A", "B"}


async def test_what_cannot_be_set_is_told_without_the_value(served: Served, tmp_path: Path) -> None:
    for arguments, stdin, told in (
        (("set",), "hunter2", "Give the NAME"),
        (("set", "A", "--from-file", "x"), "hunter2", "Give the NAME"),
        (("set", "--from-file", str(tmp_path / "none")), "", "cannot be read"),
        (("set", "--from-file", str(tmp_path)), "", "cannot be read"),
        (("set", "PATH"), "hunter2", "PATH cannot be set"),
        (("set", "A=hunter3"), "hunter2", "letters, digits and _"),
        (("set", "A"), "hunter2" * 5000, "at most 32 KiB"),
        (("set", "A", "--env", "other"), "hunter2", "no environment other"),
    ):
        done = await served.cli("var", *arguments, stdin=stdin)
        assert done.code in {2, 4}, done
        assert told in done.err
        assert "hunter2" not in done.err + done.out
    assert await served.values() == {}
