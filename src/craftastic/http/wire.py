"""The wire's base model (camelCase outside, snake_case inside) and its timestamps."""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """A body as clients send or get it. Unknown fields are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", from_attributes=True
    )


def timestamp(moment: datetime) -> str:
    """Return ISO 8601 in UTC with milliseconds and `Z`, the form of every answer."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
