"""What git is told when an upstream does not do what was asked of it, in plain words."""

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus

import httpcore

from craftastic.gateway._transfer import Refusal
from craftastic.gateway._upstream import UpstreamRefused, UpstreamUnresolved
from craftastic.githosts.service import ASKS_FOR_ACCOUNT

REDIRECTS = frozenset({301, 302, 303, 307, 308})


class AsksForAccount(Refusal):
    """The upstream answered 401."""


def refused_by_upstream(status: int, host: str, way_on: str, *, tried: bool) -> Refusal:
    """Return what git is told about an upstream's answer other than 200.

    Args:
        status: The upstream's.
        host: The upstream's.
        way_on: What a person can do, in half a sentence.
        tried: Whether a credential was sent.
    """
    if status == HTTPStatus.UNAUTHORIZED:
        # Never 401: git would ask the person in the sandbox for a password of the upstream.
        refused = " and did not take the stored credential" if tried else ""
        return AsksForAccount(
            HTTPStatus.FORBIDDEN, f"{host} {ASKS_FOR_ACCOUNT}{refused}: {way_on}."
        )
    if status == HTTPStatus.FORBIDDEN:
        why = (
            "the stored credential's account has no right to do this there"
            if tried
            else f"if it needs an account, {way_on}"
        )
        return Refusal(HTTPStatus.FORBIDDEN, f"{host} refuses access to this repository: {why}.")
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
        why = (
            "or does not show it to the stored credential's account"
            if tried
            else f"or does not show it without an account: {way_on}"
        )
        return Refusal(HTTPStatus.NOT_FOUND, f"{host} has no such repository, {why}.")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"{host} asks to slow down; try again later.")
    if status in REDIRECTS:
        return Refusal(HTTPStatus.BAD_GATEWAY, f"{host} moved the repository; fetch again.")
    return Refusal(HTTPStatus.BAD_GATEWAY, f"{host} answered with an error ({status}).")


@contextmanager
def explained(host: str) -> Generator[None]:
    """Turn what can go wrong with a connection into an answer in plain words."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, f"{host} did not answer in time.") from error
    except httpcore.ConnectError as error:
        raise Refusal(HTTPStatus.BAD_GATEWAY, _why_not_connected(host, error)) from error
    except UpstreamRefused as error:
        raise Refusal(HTTPStatus.FORBIDDEN, error.message) from error
    except UpstreamUnresolved as error:
        raise Refusal(HTTPStatus.BAD_GATEWAY, error.message) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError) as error:
        raise Refusal(
            HTTPStatus.BAD_GATEWAY, f"The connection to {host} broke during the transfer."
        ) from error


def _why_not_connected(host: str, error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"The certificate of {host} is not valid: {cause.verify_message}."
    if cause is not None:
        return f"{host} does not speak TLS as it should."
    return f"{host} does not take connections."
