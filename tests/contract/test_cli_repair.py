"""`craftastic session repair` and `craftastic env repair` against the whole app, over real git."""

import shutil

import pytest

from tests.contract.test_cli_git_commands import Person, person

__all__ = ["person"]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""The command line sees no database: one is enough, and each call is a program to start."""


async def test_a_worktree_and_a_repository_are_repaired_as_their_errors_say(person: Person) -> None:
    await person.begin()
    shutil.rmtree(person.tree)

    gone = await person("status", "work")
    assert (gone.code, "`craftastic session repair project/work`" in gone.err) == (5, True)
    repaired = await person.ok("session", "repair", "work")
    assert "made again from its branch" in repaired.out
    assert (await person.ok("session", "repair", "work")).out == "Nothing was damaged.\n"
    await person.ok("status", "work")

    (person.bare / "HEAD").unlink()
    damaged = await person("status", "work")
    assert (damaged.code, "`craftastic env repair project`" in damaged.err) == (5, True)
    repaired = await person.ok("env", "repair", "project")
    assert "A damaged repository is kept in /home/dev/.craftastic/repos/" in repaired.out
    again = await person.ok("env", "repair", "project", "--json")
    assert (again.json["done"], len(again.json["kept"])) == ([], 1)
    await person.ok("status", "work")
