"""A session that another server removes while this one makes its terminal leaves no terminal."""

from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy

from craftastic.database import Database
from craftastic.tmux.service import TmuxService
from tests.fakes.clock import FakeClock
from tests.fakes.git_runtime import GitRuntime
from tests.fakes.workshop import build, opened, rows, settled


async def test_a_session_that_is_removed_while_it_is_made_leaves_no_terminal(
    database: Database, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, ensure = GitRuntime(tmp_path), TmuxService.ensure
    made: list[str] = []

    async def removed_meanwhile(self: TmuxService, *given: Any, **more: Any) -> object:
        done = await ensure(self, *given, **more)
        made.append(given[1])
        async with database.begin() as tx:
            await tx.execute(sqlalchemy.text("DELETE FROM sessions"))
        return done

    async with opened(build(database, clock, runtime)) as shop:
        environment = await shop.create()
        await settled(database)
        session = await shop.sessions.create(shop.owner, environment.id, name="one")
        await shop.sessions.tmux.kill(environment.sandbox, session.tmux_name)
        async with database.begin() as tx:
            await tx.execute(sqlalchemy.text("UPDATE sessions SET ready = (1 = 0)"))
        monkeypatch.setattr(TmuxService, "ensure", removed_meanwhile)

        await shop.sessions.reconcile()

        assert made == [session.tmux_name]
        assert await rows(database, "SELECT 1 FROM sessions") == []
        assert await shop.sessions.tmux.names(environment.sandbox) == set()
    await runtime.close()


async def test_a_session_that_is_brought_back_keeps_its_new_terminal(
    database: Database, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, ensure, kill = GitRuntime(tmp_path), TmuxService.ensure, TmuxService.kill
    made: list[str] = []

    async def ended_meanwhile(self: TmuxService, *given: Any, **more: Any) -> object:
        done = await ensure(self, *given, **more)
        if not made:
            async with database.begin() as tx:
                await tx.execute(sqlalchemy.text("UPDATE sessions SET status = 'dead'"))
        made.append(given[1])
        return done

    async def too_late(self: TmuxService, *given: Any) -> object:
        clock.advance(1)
        tasks.start_soon(shop.sessions.revive, shop.owner, session.id)
        with anyio.move_on_after(2):  # it may come first, and must not
            while len(made) < 2:  # noqa: ASYNC110 - what it looks at tells nobody
                await anyio.sleep(0.02)
        return await kill(self, *given)

    async with opened(build(database, clock, runtime)) as shop:
        environment = await shop.create()
        await settled(database)
        session = await shop.sessions.create(shop.owner, environment.id, name="one")
        await shop.sessions.tmux.kill(environment.sandbox, session.tmux_name)
        async with database.begin() as tx:
            await tx.execute(sqlalchemy.text("UPDATE sessions SET ready = (1 = 0)"))
        monkeypatch.setattr(TmuxService, "ensure", ended_meanwhile)
        monkeypatch.setattr(TmuxService, "kill", too_late)

        async with anyio.create_task_group() as tasks:
            await shop.sessions.reconcile()

        assert made == [session.tmux_name] * 2
        assert await shop.sessions.tmux.names(environment.sandbox) == {session.tmux_name}
        assert (await shop.sessions.get(shop.owner, session.id)).ready
    await runtime.close()
