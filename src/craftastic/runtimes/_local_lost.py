"""What a server started for a local sandbox and died before it could write down.

It is found by its command line, which the kernel shows of every process: pasta is started under a
name that holds the sandbox's folder, and bubblewrap is told which folder to mount at /run.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from craftastic.runtimes._local_process import Identity, children

PROGRAM_OF_NETWORK = "pasta"
SANDBOXING = (b"nsenter", b"bwrap")
MAX_COMMAND_BYTES = 1 << 16


def network_name(folder: Path) -> str:
    """Return the name that the network program of a sandbox is started under.

    Source: passt(1): it is pasta if the last part of its name says so.
    """
    return str(folder / PROGRAM_OF_NETWORK)


def lost(folder: Path, run: Path) -> Iterator[Identity]:
    """Yield every process that was started for a sandbox, and their children.

    A program in a sandbox can give itself such a command line; all that it gets from that is its
    own end.

    Args:
        folder: Where the sandbox's state is kept.
        run: What is mounted at its /run/craftastic.
    """
    name, mounted = network_name(folder).encode(), str(run).encode()
    for entry in Path("/proc").glob("[0-9]*"):
        process = Identity.of(int(entry.name))
        with suppress(OSError), (entry / "cmdline").open("rb") as file:
            words = file.read(MAX_COMMAND_BYTES).split(b"\0")
            ours = words[0] == name or (words[0] in SANDBOXING and mounted in words)
            if process is not None and ours:
                below = [Identity.of(one) for one in children(process.pid)]
                yield process
                yield from (one for one in below if one is not None)
