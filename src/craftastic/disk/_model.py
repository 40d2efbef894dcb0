"""What is known about the disk that an environment uses. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from craftastic.runtimes.base import HOME

MAX_BYTES = 1 << 50
"""More than any disk has: a sandbox may claim anything."""

MAX_PATH_CHARACTERS = 1024
MAX_ITEMS = 100
MAX_TREES = 500
MAX_KEPT = 200
MAX_WHY_CHARACTERS = 300

NEAR_PERCENT = 90
"""From here on an environment is near its quota; over it, it is taken for full down to here."""

STOP_PERCENT = 110
"""Over this share of its quota an environment that still grows is stopped."""

GROWTH_PERCENT = 1
"""Share of the quota that counts as growth: shells write a little whatever they do."""


def _safe_path(path: str) -> str:
    if not path.startswith(f"{HOME}/") or not path.isprintable():
        raise ValueError("a path must be below the home, of characters that can be shown")
    if any(part in {"", ".", ".."} for part in path[1:].split("/")):
        raise ValueError("a path must be plain")
    return path


def _safe_text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a text must be of characters that can be shown")
    return text


Path = Annotated[str, Field(max_length=MAX_PATH_CHARACTERS), AfterValidator(_safe_path)]
Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Why = Annotated[str, Field(max_length=MAX_WHY_CHARACTERS), AfterValidator(_safe_text)]
Kind = Literal["cache", "git", "ignored", "worktree"]


class Told(BaseModel):
    """A part of what a sandbox tells: of fixed forms, or nonsense."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Item(Told):
    """Something that can be removed, or was."""

    path: Path
    bytes: Bytes
    kind: Kind
    worktree: Path | None


class Tree(Told):
    """A worktree, or the folder of sessions without a repository."""

    path: Path
    bytes: Bytes
    regenerable: Bytes
    saved: bool | None


class Tier(Told):
    """What one tier would free; `items` are the largest ones."""

    tier: Literal[1, 2, 3]
    bytes: Bytes
    items: Annotated[list[Item], Field(max_length=MAX_ITEMS)]


class Report(Told):
    """One measurement, as the sandbox tells it."""

    complete: bool
    repository: Bytes
    home: Bytes
    cache: Bytes
    other: Bytes
    sessions: Annotated[list[Tree], Field(max_length=MAX_TREES)]
    tiers: Annotated[list[Tier], Field(min_length=3, max_length=3)]

    @property
    def total(self) -> int:
        parts = (self.repository, self.home, self.cache, self.other)
        return sum(parts) + sum(one.bytes for one in self.sessions)


class Kept(Told):
    """Something that was not removed, and why."""

    path: Path
    why: Why


class Freed(Told):
    """What a reclaim did, as the sandbox tells it."""

    freed: Bytes
    removed: Annotated[list[Item], Field(max_length=MAX_ITEMS)]
    kept: Annotated[list[Kept], Field(max_length=MAX_KEPT)]


class Tokens(Told):
    """When which worktree was given to a session, in words that are only compared."""

    tokens: Annotated[
        dict[Path, Annotated[str, Field(max_length=200)]], Field(max_length=MAX_TREES)
    ]


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What is stored about one environment.

    Args:
        measured_at: When the figures were taken; None before the first time.
        report: The figures.
        total_bytes: Their sum.
        fault: Why the last attempt gave none, in plain words.
        busy: Somebody measures or frees now.
        tier: A reclaim of this tier was begun and its end is not on record.
        near: It is near its quota, or over it.
        over: It is over its quota, and has not come down to where that ends.
        mark: How much it used when it was found far over its quota, or was stopped for it.
    """

    environment_id: UUID
    measured_at: datetime | None
    report: Report | None
    total_bytes: int
    fault: str | None
    busy: bool
    tier: int | None
    near: bool
    over: bool
    mark: int | None


@dataclass(frozen=True, slots=True)
class Level:
    """How an environment stands to its quota after a measurement; `stop` when it grows on."""

    near: bool = False
    over: bool = False
    mark: int | None = None
    stop: bool = False


def level(total: int, quota: int | None, before: DiskUse | None) -> Level:
    """Decide how an environment stands to its quota.

    Args:
        total: What it uses now, in bytes.
        quota: What it may use, in bytes; None for as much as there is.
        before: What was known before.
    """
    if quota is None:
        return Level()
    near = total * 100 >= quota * NEAR_PERCENT
    over = total > quota or (near and before is not None and before.over)
    if total * 100 <= quota * STOP_PERCENT:
        return Level(near, over)
    mark = None if before is None else before.mark
    if mark is None:
        return Level(near, over, total)
    grown = total - mark > quota * GROWTH_PERCENT // 100
    return Level(near, over, total if grown else mark, grown)


@dataclass(frozen=True, slots=True)
class ListedUse:
    """One environment as an administrator sees it."""

    environment_id: UUID
    name: str
    owner_id: UUID
    total_bytes: int
    measured_at: datetime | None
    over: bool


def size(count: int) -> str:
    """Return a number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004 - the step from unit to unit
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
