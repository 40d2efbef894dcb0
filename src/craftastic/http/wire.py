"""The wire's base model (camelCase outside, snake_case inside) and its timestamps."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

MAX_DEPTH = 20


class Wire(BaseModel):
    """A body as clients send or get it. Unknown fields are ignored.

    A text with a NUL is refused whatever the field: PostgreSQL cannot store it, and no name,
    branch or address has one.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", from_attributes=True
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            _refuse_nul(cast("object", value), 0)
        return cast("object", value)


def timestamp(moment: datetime) -> str:
    """Return ISO 8601 in UTC with milliseconds and `Z`, the form of every answer."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _refuse_nul(value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("the body is nested too deeply")
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("texts must not contain NUL characters")
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[object, object]", value).items():
            _refuse_nul(key, depth + 1)
            _refuse_nul(item, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        for item in cast("Sequence[object]", value):
            _refuse_nul(item, depth + 1)
