"""The one table that turns error categories into HTTP statuses, close codes and exit codes.

The command line reads it too, so it imports no web framework.
"""

from typing import NamedTuple

from craftastic.errors import (
    Conflict,
    CraftasticError,
    Forbidden,
    InternalError,
    InvalidInput,
    Misdirected,
    NotConfigured,
    NotFound,
    RateLimited,
    StorageFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unprocessable,
)


class Answer(NamedTuple):
    status: int
    close_code: int
    exit_code: int


ANSWERS: dict[type[CraftasticError], Answer] = {
    InvalidInput: Answer(400, 1008, 2),
    Unauthenticated: Answer(401, 1008, 3),
    Forbidden: Answer(403, 1008, 3),
    NotFound: Answer(404, 1008, 4),
    Conflict: Answer(409, 1008, 5),
    TooLarge: Answer(413, 1009, 2),
    Misdirected: Answer(421, 1008, 2),
    Unprocessable: Answer(422, 1008, 2),
    RateLimited: Answer(429, 1013, 6),
    NotConfigured: Answer(501, 1011, 7),
    Unavailable: Answer(503, 1013, 7),
    StorageFull: Answer(507, 1013, 5),
    InternalError: Answer(500, 1011, 1),
}


def answer_for(error: CraftasticError) -> Answer:
    """Return the row of the nearest category; a category without a row is a bug: 500."""
    rows = (ANSWERS[category] for category in ANSWERS if isinstance(error, category))
    return next(rows, ANSWERS[InternalError])
