"""Tell systemd how far the server is, where it has asked for that."""

import os
import socket
from contextlib import suppress

import structlog

SEND_S = 1.0

log = structlog.get_logger(__name__)


def notify(state: str) -> bool:
    """Send a state (`READY=1`, `STOPPING=1`) to who has started this process, if that wants it.

    Return whether it was sent; a message that nobody takes is no failure of the server.

    Source: sd_notify(3); an address with `@` is one of the abstract name space.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")  # noqa: TID251 - systemd's, no setting
    if not address.startswith(("/", "@")):
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(SEND_S)
        sender.sendto(
            state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address
        )
        return True
    log.warning("systemd was not told", state=state)
    return False
