"""What is read of an upstream's answer, and short answers of the gateway's own."""

from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urljoin

import httpcore

from craftastic.gateway._transfer import Refusal, Send


def redirect_target(url: str, location: bytes) -> str:
    """Resolve a redirect's Location against the URL that was asked.

    Raises:
        Refusal: It would leave https.
    """
    try:
        target = urljoin(url, location.decode("latin-1"))
    except ValueError:
        raise Refusal(HTTPStatus.BAD_GATEWAY, "The upstream redirects to something else.") from None
    if url.startswith("https:") and not target.lower().startswith("https:"):
        raise Refusal(HTTPStatus.BAD_GATEWAY, "The upstream redirects away from https.")
    return target


def header_of(answer: httpcore.Response, name: bytes) -> bytes | None:
    """Return the first header of a name, given in lower case."""
    return next((value for key, value in answer.headers if key.lower() == name), None)


async def answer_text(
    send: Send, status: HTTPStatus, text: str, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with a line of plain text, which git shows after `remote:`."""
    await answer_bytes(
        send, status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="replace"), headers
    )


async def answer_bytes(
    send: Send,
    status: HTTPStatus,
    content_type: str,
    body: bytes,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Answer with a short body."""
    await send(
        {
            "type": "http.response.start",
            "status": status.value,
            "headers": [
                (b"content-type", content_type.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
