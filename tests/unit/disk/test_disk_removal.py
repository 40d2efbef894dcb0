"""Removing folders: what is seen in which order, and what is done while others wait."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

import pytest

from craftastic.disk import _inside_removal
from craftastic.disk._inside_removal import Holding, Refused
from craftastic.disk._inside_walk import Budget, contents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "trees" / "topic"
    folder.mkdir(parents=True)
    (folder / "file").write_text("one\n")
    return folder


def holding(folder: Path) -> Holding:
    return Holding(str(folder.parent), str(folder.parent))


def budget() -> Budget:
    return Budget(1000, 60.0)


def test_what_a_program_wrote_that_closed_its_file_before_the_last_look_at_programs_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _inside_removal.users_of
    held = contextlib.ExitStack()
    looks: list[str] = []

    def users_of(home: str) -> set[tuple[int, int]]:
        """Be a program that opens a file after the first look, and closes it before the second."""
        if not looks:
            looks.append("first")
            users = real(home)
            file = held.enter_context((folder / "file").open("a"))
            held.callback(file.write, "mine\n")
            return users
        looks.append("second")
        held.close()
        return real(home)

    def check(item: str) -> str | None:
        return "it has changes" if (Path(item) / "file").read_text() != "one\n" else None

    monkeypatch.setattr(_inside_removal, "users_of", users_of)

    with pytest.raises(Refused, match="it has changes"):
        holding(folder).remove(str(folder), "worktree", None, str(folder), budget(), check)

    assert looks == ["first", "second"]
    assert (folder / "file").read_text() == "one\nmine\n"


def test_others_wait_until_it_is_decided_and_not_until_all_is_removed(folder: Path) -> None:
    seen: list[bool] = []

    @contextlib.contextmanager
    def admitted() -> Generator[None]:
        seen.append((folder / "file").exists())
        yield
        gone = folder.parent / ".reclaim/gone-0"
        seen.append((gone / "item/file").exists())
        seen.append(folder.exists())

    holding(folder).remove(
        str(folder), "worktree", None, str(folder), budget(), lambda _item: None, admitted
    )

    assert seen == [True, True, False]
    assert list(folder.parent.iterdir()) == []


def test_what_somebody_else_was_given_meanwhile_is_not_even_moved(folder: Path) -> None:
    @contextlib.contextmanager
    def admitted() -> Generator[None]:
        if folder.exists():
            raise Refused("it was opened a moment ago")
        yield

    with pytest.raises(Refused, match="a moment ago"):
        holding(folder).remove(
            str(folder), "worktree", None, str(folder), budget(), lambda _item: None, admitted
        )

    assert [one.name for one in folder.parent.iterdir()] == ["topic"]


def test_what_was_cut_short_is_put_back_or_forgotten_before_anything_is_removed(
    folder: Path,
) -> None:
    base = folder.parent / ".reclaim"
    for name in ("aside-0", "gone-1"):
        (base / name / "item").mkdir(parents=True)
        (base / name / "item/file").write_text(name)
        path = folder.parent / name
        (base / name / "origin").write_text(f'{{"path": "{path}", "own": null}}')
    seen: list[list[str]] = []

    @contextlib.contextmanager
    def admitted() -> Generator[None]:
        yield
        seen.append(sorted(str(one.relative_to(folder.parent)) for one in base.rglob("file")))

    holding(folder).tidy(admitted)

    assert seen == [[".reclaim/gone-1/item/file"]]
    assert sorted(one.name for one in folder.parent.iterdir()) == ["aside-0", "topic"]


def test_a_pipe_or_a_link_in_the_place_of_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")

    for name in ("pipe", "link", "absent"):
        with pytest.raises(OSError):  # noqa: PT011 - the kernel's words differ
            contents(str(tmp_path / name), 10)
    assert contents(str(tmp_path / "file"), 3) == b"tex"
