"""Hears of what happens to local sandboxes: the end of first processes, and want of memory.

One descriptor is readable when there is something to hear; while nothing happens, nothing is done.
A process is watched by a pidfd, which is another's never. Memory is watched by what the kernel has
for it, and where it has nothing, the sandbox has no limit of memory either.

Source: pidfd_open(2), epoll(7), the kernel's admin-guide/cgroup-v2 (memory.events wakes with
POLLPRI) and cgroup-v1/memory.rst, section 10 (an eventfd in cgroup.event_control).
"""

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from craftastic.runtimes._local_limits import CGROUPS, killed_for_memory, memory_group
from craftastic.runtimes._local_process import Identity, State
from craftastic.runtimes.base import Hint

MAX_EVENTS = 256
LATELY_S = 10.0
"""What was killed longer ago for its memory is not why a sandbox ended now, in seconds."""


@dataclass(slots=True)
class _Watched:
    """One sandbox.

    Args:
        init: Its first process.
        group: Where its use of memory is told.
        killed: How many of its programs are known to have been killed for their memory.
        killed_at: When the last one was noticed, by a clock that only grows.
        files: Descriptors that belong to it.
    """

    environment_id: UUID
    init: Identity
    group: Path | None
    killed: int = 0
    killed_at: float = float("-inf")
    files: list[int] = field(default_factory=list[int])

    def look(self) -> bool:
        """Report whether a program was killed for its memory since the last look."""
        killed = 0 if self.group is None else killed_for_memory(self.group)
        more, self.killed = killed > self.killed, max(killed, self.killed)
        if more:
            self.killed_at = time.monotonic()
        return more


class Watch:
    """Watches sandboxes; `fileno` is readable when `read` has something to tell.

    It may be used by several threads.

    Args:
        root: Where control groups are.
    """

    def __init__(self, root: Path = CGROUPS) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._watched: dict[UUID, _Watched] = {}
        self._of_file: dict[int, tuple[_Watched, bool]] = {}
        """Whose a descriptor is, and whether it is the process's."""

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        with self._lock:
            for one in tuple(self._watched.values()):
                self._drop(one)
            self._epoll.close()

    def add(self, environment_id: UUID, state: State) -> None:
        """Watch a sandbox that runs; one that is watched is left so."""
        init = state.init
        with self._lock:
            known = self._watched.get(environment_id)
            if self._epoll.closed or init is None or (known is not None and known.init == init):
                return
            if not init.alive():
                return
            if known is not None:
                self._drop(known)
            group = memory_group(str(environment_id), self._root)
            one = _Watched(environment_id, init, group)
            one.look()
            one.killed_at = float("-inf")
            # Also where it cannot be watched: what is known of it is the same.
            self._watched[environment_id] = one
            with contextlib.suppress(OSError):
                self._register(one, os.pidfd_open(init.pid), select.EPOLLIN, of_process=True)
            with contextlib.suppress(OSError):
                self._watch_memory(one)

    def forget(self, environment_id: UUID) -> None:
        """Watch a sandbox no more; one that is not watched is left so."""
        with self._lock:
            if (one := self._watched.get(environment_id)) is not None:
                self._drop(one)

    def killed_lately(self, environment_id: UUID) -> bool:
        """Report whether a program of a sandbox was killed for its memory in the last moments."""
        with self._lock:
            one = self._watched.get(environment_id)
            if one is None:
                return False
            one.look()
            return time.monotonic() - one.killed_at < LATELY_S

    def read(self) -> list[Hint]:
        """Return what has happened; never waits."""
        with self._lock:
            if self._epoll.closed:
                return []
            return list(self._read())

    def _read(self) -> Iterator[Hint]:
        for file, event in self._epoll.poll(0, MAX_EVENTS):
            if file not in self._of_file:
                continue
            one, of_process = self._of_file[file]
            if of_process:
                one.look()
                # What is known of it stays, for whoever asks why it has ended.
                self._let_go(one)
                yield Hint(one.environment_id)
            elif self._told_of_memory(one, file, event):
                yield Hint(one.environment_id, out_of_memory=True)

    def _told_of_memory(self, one: _Watched, file: int, event: int) -> bool:
        if event & (select.EPOLLHUP | select.EPOLLERR) and not event & select.EPOLLPRI:
            self._forget_file(one, file)  # The group is gone.
            return False
        if event & select.EPOLLPRI:
            with contextlib.suppress(OSError):
                os.pread(file, 4096, 0)  # Else it would be told again and again.
            return one.look()
        with contextlib.suppress(OSError):
            os.eventfd_read(file)
        if one.group is None or not one.group.is_dir():
            return False  # The end of a group is told in the same way.
        # It is told right before the kernel kills.
        one.killed_at = time.monotonic()
        return True

    def _watch_memory(self, one: _Watched) -> None:
        if one.group is None:
            return
        control = one.group / "cgroup.event_control"
        if not control.exists():
            file = os.open(one.group / "memory.events", os.O_RDONLY | os.O_CLOEXEC)
            self._register(one, file, select.EPOLLPRI)
            return
        told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            about = os.open(one.group / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                control.write_text(f"{told} {about}")
            finally:
                os.close(about)
        except OSError:
            os.close(told)
            raise
        self._register(one, told, select.EPOLLIN)

    def _register(self, one: _Watched, file: int, events: int, *, of_process: bool = False) -> None:
        try:
            self._epoll.register(file, events)
        except OSError:
            os.close(file)
            raise
        one.files.append(file)
        self._of_file[file] = (one, of_process)

    def _forget_file(self, one: _Watched, file: int) -> None:
        self._of_file.pop(file, None)
        one.files.remove(file)
        with contextlib.suppress(OSError):
            self._epoll.unregister(file)
        os.close(file)

    def _let_go(self, one: _Watched) -> None:
        for file in tuple(one.files):
            self._forget_file(one, file)

    def _drop(self, one: _Watched) -> None:
        self._let_go(one)
        self._watched.pop(one.environment_id, None)
