"""Runs in a sandbox, by itself: names what is at work there besides shells that wait.

Usage: TMUX SOCKET [SESSION …], with the sessions whose programs do not count, whatever they do.
Prints a JSON list of at most `SHOWN` names of programs. What the sandbox's own user has put in the
place of tmux, or called a program, can only change what is said about this sandbox.
"""

import json
import os
import subprocess
import sys

SHOWN = 5
TMUX_S = 5
SHELLS = {"bash", "sh", "dash", "zsh", "fish", "ksh"}
SERVANTS = {
    *("ssh-agent", "gpg-agent", "dirmngr", "scdaemon", "tmux: server"),
    "craftastic-disk",  # it measures the disk now and then
}
"""They serve shells and do nothing by themselves."""
REST = b"/usr/bin/sleep\0infinity\0"
"""What keeps a container alive; whoever runs it otherwise does nothing by it either."""
PANES = "#{session_name}\t#{pane_pid}\t#{pid}"

Processes = dict[int, tuple[int, str]]


def main() -> None:
    """Print what is at work."""
    ignored = set(sys.argv[3:])
    panes = _panes(*sys.argv[1:3])
    processes = _processes()
    idle = {1, *_line_of(os.getpid(), processes)}
    for session, shell, server in panes:
        idle.add(server)
        if session in ignored:
            idle |= _tree(shell, processes)
        elif shell in processes and processes[shell][1] in SHELLS:
            idle.add(shell)
    names = sorted({name for pid, (_, name) in processes.items() if pid not in idle} - SERVANTS)
    sys.stdout.write(json.dumps(names[:SHOWN]))


def _panes(tmux: str, socket: str) -> list[tuple[str, int, int]]:
    try:
        listed = subprocess.run(
            [tmux, "-N", "-S", socket, "list-panes", "-a", "-F", PANES],
            check=False,
            capture_output=True,
            timeout=TMUX_S,
        )
        rows = [line.split("\t") for line in listed.stdout.decode(errors="replace").splitlines()]
        return [(session, int(shell), int(server)) for session, shell, server in rows]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _processes() -> Processes:
    """Return the parent and the name of each process that does not only rest, or has ended."""
    found: Processes = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - starts quicker
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:  # noqa: PTH123 - starts quicker
                rests = file.read(len(REST) + 1) == REST
            with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123 - starts quicker
                stat = file.read(4096)
        except OSError:
            continue
        # A name may have spaces and brackets: it ends at the last one. Source: proc(5).
        name, _, rest = stat.partition(b"(")[2].rpartition(b")")
        state, parent = rest.split()[:2]
        if state not in {b"Z", b"X"} and not rests:
            found[int(entry)] = (int(parent), name.decode(errors="replace"))
    return found


def _line_of(pid: int, processes: Processes) -> set[int]:
    """Return a process and what it descends from: that which asks."""
    line: set[int] = set()
    while pid in processes and pid not in line:
        line.add(pid)
        pid = processes[pid][0]
    return line


def _tree(root: int, processes: Processes) -> set[int]:
    tree = {root}
    while True:
        more = {pid for pid, (parent, _) in processes.items() if parent in tree} - tree
        if not more:
            return tree
        tree |= more


if __name__ == "__main__":
    main()
