"""A session that another server removes while this one makes its terminal leaves no terminal."""

from pathlib import Path
from typing import Any

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
