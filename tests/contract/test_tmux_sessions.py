"""tmux sessions of a sandbox, over every kind of runtime."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from craftastic.runtimes.base import SandboxSpec
from craftastic.tmux.service import TmuxRefused
from tests.contract.conftest import REAL, benches
from tests.fakes.host_runtime import HostRuntime
from tests.fakes.terminal_rig import Rig, until


@pytest.fixture(params=["host", *REAL])
async def rig(
    request: pytest.FixtureRequest, docker_network_if_needed: None, data_dir: Path
) -> AsyncIterator[Rig]:
    if request.param == "host":
        runtime = HostRuntime(data_dir)
        sandbox = await runtime.create(SandboxSpec(uuid4(), uuid4(), 1, "host"))
        rig = Rig(runtime, sandbox, runtime.run_dir(sandbox))
        yield rig
        await rig.end()
        return
    async for bench in benches(request, request.param, data_dir):
        yield Rig(bench.runtime, await bench.sandbox(), "/run/craftastic")


async def test_sessions_are_made_once_listed_and_ended(rig: Rig) -> None:
    assert await rig.tmux.names(rig.sandbox) == set()
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(rig.tmux.ensure, rig.sandbox, "one-1", "/tmp")
    await rig.tmux.ensure(rig.sandbox, "one-10", "/tmp")

    assert await rig.tmux.names(rig.sandbox) == {"one-1", "one-10"}
    await rig.tmux.kill(rig.sandbox, "one-1")
    await rig.tmux.kill(rig.sandbox, "one-1")
    assert await rig.tmux.names(rig.sandbox) == {"one-10"}
    await rig.tmux.kill(rig.sandbox, "one-10")
    assert await rig.tmux.names(rig.sandbox) == set()


async def test_a_session_outlives_the_command_that_made_it(rig: Rig) -> None:
    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp", environment={"CRAFTASTIC_SESSION_ID": "x"})
    await rig.control("send-keys", "-t", "=one-1:", "echo $CRAFTASTIC_SESSION_ID-$PWD", "Enter")

    async def shown() -> bool:
        return "x-/tmp" in await rig.control("capture-pane", "-p", "-t", "=one-1:")

    await until(shown, "the shell's answer")


async def test_the_configuration_is_the_product_s(rig: Rig) -> None:
    await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp")
    await rig.control("set-option", "-g", "status", "on")
    await rig.control("set-option", "-g", "detach-on-destroy", "off")
    await rig.tmux.ensure(rig.sandbox, "two-1", "/tmp")
    options = await rig.control("show-options", "-g")

    for line in ("status off", "prefix None", "history-limit 50000", "detach-on-destroy on"):
        assert line in options
    assert await rig.control("list-keys", "-T", "root") == ""
    target = "=two-1:"
    assert "tmux-256color" in await rig.control("show-options", "-s", "default-terminal")
    assert (await rig.control("display-message", "-p", "-t", target, "#{pane_width}")) == "80\n"


async def test_a_directory_that_is_not_there_is_refused(rig: Rig) -> None:
    with pytest.raises(TmuxRefused, match="is not there"):
        await rig.tmux.ensure(rig.sandbox, "one-1", "/tmp/nowhere")
    assert await rig.tmux.names(rig.sandbox) == set()
