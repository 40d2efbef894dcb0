"""Error categories shared by every layer; `http.answers` alone maps them to status codes.

CraftasticError
├── InvalidInput        the request can never succeed as sent
├── Unauthenticated     no credential, or a bad one
├── Forbidden           known caller, not allowed, existence may be revealed
├── NotFound            absent, or not visible to this caller
├── Conflict            the current state refuses the request
├── Misdirected         the request is for another server's name
├── Unprocessable       well-formed, and at odds with an earlier request
├── TooLarge            more bytes than the route takes
├── RateLimited         retry after `retry_after_s`
├── StorageFull         a disk, or somebody's share of it, is full
├── Unavailable         a dependency is down; retrying may help
├── NotConfigured       the operator has not set this up
└── InternalError       a bug
"""

from collections.abc import Mapping
from typing import ClassVar


class CraftasticError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        message: Safe to show to the caller, in plain words, with a way on where there is one.
        details: A second sentence for the caller: what exactly was refused, or what to do.
        answer: Further fields of the answer (`suggestions`, `existingSession`).
        context: For the log only; never sent to a client.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    code_is_error: ClassVar[bool] = False
    """Whether the answer's `error` field carries the code (two answers of sessions do)."""

    def __init__(
        self,
        message: str,
        *,
        details: str | None = None,
        answer: Mapping[str, object] | None = None,
        **context: object,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.answer = dict(answer or {})
        self.context = context


class InvalidInput(CraftasticError):
    code = "INVALID_INPUT"


class Unauthenticated(CraftasticError):
    code = "UNAUTHENTICATED"


class Forbidden(CraftasticError):
    code = "FORBIDDEN"


class NotFound(CraftasticError):
    code = "NOT_FOUND"


class Conflict(CraftasticError):
    code = "CONFLICT"


class Misdirected(CraftasticError):
    code = "MISDIRECTED"


class Unprocessable(CraftasticError):
    code = "UNPROCESSABLE"


class TooLarge(CraftasticError):
    code = "TOO_LARGE"


class RateLimited(CraftasticError):
    code = "RATE_LIMITED"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        details: str | None = None,
        **context: object,
    ) -> None:
        super().__init__(message, details=details, answer=None, **context)
        self.retry_after_s = retry_after_s


class StorageFull(CraftasticError):
    code = "STORAGE_FULL"


class Unavailable(CraftasticError):
    code = "UNAVAILABLE"


class NotConfigured(CraftasticError):
    code = "NOT_CONFIGURED"


class InternalError(CraftasticError):
    code = "INTERNAL_ERROR"
