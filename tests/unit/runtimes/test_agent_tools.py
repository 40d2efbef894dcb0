"""What is installed for agents: pinned, chosen, and swapped in one step."""

import json
import os
import stat
import tomllib
from pathlib import Path

import anyio
import pytest

from craftastic.agents.agent_types import BUILT_IN
from craftastic.runtimes import _agent_tools
from craftastic.runtimes._agent_tools import STARTERS, AgentTools, recipe
from craftastic.runtimes.base import Progress, RuntimeUnavailable
from craftastic.settings import Settings

pytestmark = pytest.mark.anyio

NPM = """#!/bin/sh
# What npm does, without a network: a package appears in the folder that it is run in.
case "$PWD" in *{broken}) echo "404 not found" >&2; exit 1 ;; esac
[ "$1" = install ] || exit 9
mkdir -p node_modules/it && echo made > node_modules/it/file
"""


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "npm"
    program.write_text(NPM.format(broken="none-is"))
    program.chmod(0o755)
    monkeypatch.setattr(_agent_tools, "find_node", lambda: ("/bin/true", [str(program)]))
    return program


def test_the_releases_that_are_installed_are_those_that_the_agent_types_are_written_for() -> None:
    for name in STARTERS:
        described = tomllib.loads((BUILT_IN / f"{name}.toml").read_text())
        package = json.loads(recipe([name])[f"{name}/package.json"])
        assert package["dependencies"] == {
            described["install"]["npm"]: described["install"]["version"]
        }
        assert described["command"] == STARTERS[name]


def test_every_package_is_locked_by_hash_and_named_without_an_address() -> None:
    for name in STARTERS:
        text = recipe([name])[f"{name}/package-lock.json"].decode()
        packages = {key: one for key, one in json.loads(text)["packages"].items() if key}
        assert packages
        for key, one in packages.items():
            assert one["integrity"].startswith("sha512-"), key
            assert "resolved" not in one


def test_the_setting_takes_any_choice_and_none() -> None:
    chosen = Settings.model_validate({"agent_tools": "opencode, codex"})
    nothing = Settings.model_validate({"agent_tools": "none"})

    assert chosen.agent_tools == ("codex", "opencode")
    assert nothing.agent_tools == ()
    with pytest.raises(ValueError, match="no such agent: emacs"):
        Settings.model_validate({"agent_tools": "emacs"})
    assert set(Settings.model_validate({}).agent_tools) == set(STARTERS)


@pytest.mark.usefixtures("npm")
async def test_what_is_chosen_appears_where_sandboxes_look(tmp_path: Path) -> None:
    seen: list[Progress] = []

    async def report(progress: Progress) -> None:
        seen.append(progress)

    tools = AgentTools(tmp_path / "tools" / "agents", ("codex", "opencode"))
    tools.make_folder()
    assert not (tools.folder / "bin" / "codex").exists()

    await tools.ensure(report)

    starters = tools.folder / "bin"
    assert sorted(one.name for one in starters.iterdir()) == ["codex", "opencode"]
    assert (starters / "codex").stat().st_mode & stat.S_IXOTH
    assert (tools.folder / "current" / "codex" / "node_modules" / "it" / "file").exists()
    assert [one.percent for one in seen] == [0, 50]
    assert sorted(one.name for one in tools.folder.iterdir()) == sorted(
        ["bin", "current", tools.version]
    )


@pytest.mark.usefixtures("npm")
async def test_every_sandbox_can_run_them_whatever_the_servers_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        tools = AgentTools(tmp_path / "tools" / "agents", ("codex",))
        await tools.ensure()
    finally:
        os.umask(before)

    made = [one for one in tools.folder.rglob("*") if not one.is_symlink()]
    assert made
    for one in made:
        wanted = 0o005 if one.is_dir() or one.parent.name == "bin" else 0o004
        assert one.stat().st_mode & wanted == wanted, one


@pytest.mark.usefixtures("npm")
async def test_what_is_there_is_not_installed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = AgentTools(tmp_path / "tools" / "agents", ("codex",))
    await tools.ensure()
    monkeypatch.setattr(_agent_tools, "find_node", lambda: pytest.fail("looked for node"))

    await tools.ensure()


@pytest.mark.usefixtures("npm")
async def test_another_choice_takes_over_and_the_one_before_stays_until_the_next(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "tools" / "agents"
    first, second, third = (AgentTools(folder, (one,)) for one in list(STARTERS)[:3])

    await first.ensure()
    await second.ensure()
    assert (folder / "current").readlink().name == second.version
    assert (folder / first.version).is_dir()

    await third.ensure()
    assert not (folder / first.version).exists()
    assert (folder / second.version).is_dir()


async def test_a_package_that_cannot_be_had_leaves_what_was_there(
    tmp_path: Path, npm: Path
) -> None:
    folder = tmp_path / "tools" / "agents"
    await AgentTools(folder, ("codex",)).ensure()
    await anyio.Path(npm).write_text(NPM.format(broken="opencode"))

    with pytest.raises(RuntimeUnavailable, match="opencode could not be installed: 404 not found"):
        await AgentTools(folder, ("codex", "opencode")).ensure()

    assert (folder / "current" / "codex" / "node_modules" / "it" / "file").exists()
    assert not [one.name for one in folder.iterdir() if one.name.startswith(".new-")]


async def test_without_a_node_that_is_new_enough_the_way_on_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_agent_tools, "find_node", lambda: None)

    with pytest.raises(RuntimeUnavailable, match="Node 22") as refused:
        await AgentTools(tmp_path / "tools" / "agents", ("codex",)).ensure()

    assert "CRAFTASTIC_AGENT_TOOLS=none" in str(refused.value.details)


@pytest.mark.usefixtures("npm")
async def test_of_two_servers_at_once_both_end_with_the_tools(tmp_path: Path) -> None:
    folder = tmp_path / "tools" / "agents"
    one, two = AgentTools(folder, ("codex",)), AgentTools(folder, ("codex",))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.ensure)
        tasks.start_soon(two.ensure)

    assert (folder / "bin" / "codex").exists()
    assert not [one.name for one in folder.iterdir() if one.name.startswith(".new-")]
