"""What `craftastic serve` needs before it starts anything, each lack told in a sentence."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from craftastic.app import prepare_data_dir
from craftastic.cli.output import say
from craftastic.errors import Conflict, Unavailable
from craftastic.settings import Settings

ANOTHER_SERVER_S = 15.0
"""How long a server that is just ending is waited for, in seconds; it drains for 8."""

LOCK_POLL_S = 0.1
UNHEARD_MS = 60_000
"""How long what was sent to a client that has silently gone may stay unconfirmed."""

MAX_OWNER_BYTES = 128
WAYS_ON = {
    errno.EADDRINUSE: "If a Craftastic server runs there, use that one. Otherwise end what listens"
    " there, or set another port with --port or CRAFTASTIC_PORT.",
    errno.EACCES: "Ports below 1024 are root's: set another with --port or CRAFTASTIC_PORT.",
    errno.EADDRNOTAVAIL: "Set CRAFTASTIC_HOST to one of this machine's addresses.",
}
NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class AddressTaken(Conflict):
    """The API's address cannot be listened on."""


class DataFolderTaken(Conflict):
    """Another server uses the data folder."""


class DataFolderUnusable(Unavailable):
    """The data folder cannot be made or written."""


@contextmanager
def data_folder(
    settings: Settings,
    *,
    wait_s: float = ANOTHER_SERVER_S,
    first: Callable[[], None] = lambda: None,
) -> Generator[bool]:
    """Make the data folder, and keep strangers out of it as long as the block lasts.

    The block is told whether this server was alone in it when it came. If so, `first` is called
    before any other gets in: what an earlier one has begun is nobody's until it has returned.

    Two servers on one folder with two databases would each take the other's sandboxes for strays.
    Over one PostgreSQL they know each other's, and share the folder. The lock is the kernel's: it
    goes with the process, however that ends.

    Raises:
        DataFolderUnusable: It cannot be made or written.
        DataFolderTaken: Another server held it for `wait_s` seconds.
    """
    folder = settings.data_dir
    try:
        prepare_data_dir(folder)
        lock = os.open(
            folder / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except OSError as error:
        raise DataFolderUnusable(
            f"The data folder {folder} cannot be used: {error.strerror}.",
            details="Give it to the server's user, or set CRAFTASTIC_DATA_DIR to another folder.",
        ) from error
    try:
        database = _database(settings)
        alone = _take(lock, folder, database, wait_s)
        if alone:
            first()
        if database is not None:
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield alone
    finally:
        os.close(lock)


def _database(settings: Settings) -> str | None:
    """Return what names the PostgreSQL database, without a secret; None for SQLite."""
    url = urlsplit(settings.sqlalchemy_url)
    if not url.scheme.startswith("postgresql"):
        return None
    return sha256(f"{url.hostname}:{url.port or 5432}{url.path}".encode()).hexdigest()


def _take(lock: int, folder: Path, database: str | None, wait_s: float) -> bool:
    """Wait for the lock, and return whether nobody else has it."""
    deadline = time.monotonic() + wait_s
    told = False
    while (alone := _taken(lock, database)) is None:
        owner = _read(lock).partition(" ")[0]
        who = f"Another server (process {owner})" if owner.isdigit() else "Another server"
        if time.monotonic() > deadline:
            raise DataFolderTaken(
                f"{who} uses the data folder {folder}.",
                details="Use that one, end it, or set CRAFTASTIC_DATA_DIR to another folder.",
            )
        if not told:
            say(f"{who} uses the data folder {folder}; waiting for it to end.")
            told = True
        time.sleep(LOCK_POLL_S)
    return alone


def _taken(lock: int, database: str | None) -> bool | None:
    """Try once: alone (True), or beside servers of the same database (False)."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The folder may be on a full disk: whose lock it is only helps others.
        with suppress(OSError):
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()} {database or ''}\n".encode(), 0)
        return True
    if database is None:
        return None
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if _read(lock).partition(" ")[2] == database:
            return False
        fcntl.flock(lock, fcntl.LOCK_UN)
    return None


def _read(lock: int) -> str:
    return os.pread(lock, MAX_OWNER_BYTES, 0).decode("ascii", "replace").strip()


def listen(settings: Settings) -> list[socket.socket]:
    """Take the API's address, before a database or a sandbox is touched.

    Raises:
        AddressTaken: It cannot be had; the message says why.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise AddressTaken(
            f"{where} is no address to listen on: {error.strerror}.",
            details=WAYS_ON[errno.EADDRNOTAVAIL],
        ) from error
    listening: list[socket.socket] = []
    refused: OSError | None = None
    for family, address in {(one[0], one[4]) for one in found}:
        try:
            listening.append(_bound(family, address))
        except OSError as error:
            # A name may stand for addresses that this machine does not have, as ::1 often is.
            if refused is None or error.errno not in NO_SUCH_ADDRESS:
                refused = error
    if refused is not None and (not listening or refused.errno not in NO_SUCH_ADDRESS):
        for one in listening:
            one.close()
        raise AddressTaken(
            f"The server cannot listen on {where}: {refused.strerror}.",
            details=WAYS_ON.get(refused.errno or 0, WAYS_ON[errno.EADDRNOTAVAIL]),
        ) from refused
    return listening


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Connections inherit it. Phones vanish without a word, and the kernel would go on for a
        # quarter of an hour, in which a stream of events keeps its place.
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_MS)
        one.bind(address)
        one.listen()
    except OSError:
        one.close()
        raise
    return one
