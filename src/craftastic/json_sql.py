"""JSON that the database makes itself, in one form on both: for lists that are asked all the time.

Objects are put together as text, since what is null is left out of some members and told in others.
"""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, SQLColumnExpression, String, case, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

Json = ColumnElement[str]
Null = Literal["never", "told", "left out"]


class _Scalar(FunctionElement[str]):
    """A value of a column as JSON; not for null."""

    type = String()
    inherit_cache = True


class JsonString(_Scalar):
    """A text, with what JSON wants escaped."""

    inherit_cache = True


class JsonNumber(_Scalar):
    """A whole number."""

    inherit_cache = True


class JsonId(_Scalar):
    """A UUID with its hyphens, which SQLite stores without."""

    inherit_cache = True


class JsonTime(_Scalar):
    """A `UtcDateTime` in the form of every answer: UTC, milliseconds that are cut, and `Z`."""

    inherit_cache = True


TEMPLATES: dict[type[_Scalar], tuple[str, str]] = {
    JsonString: ("json_quote({0})", "CAST(to_json({0}) AS text)"),
    JsonNumber: ("CAST(CAST({0} AS integer) AS text)", "CAST(CAST({0} AS integer) AS text)"),
    JsonId: (
        (
            "('\"' || substr({0}, 1, 8) || '-' || substr({0}, 9, 4) || '-' || substr({0}, 13, 4)"
            " || '-' || substr({0}, 17, 4) || '-' || substr({0}, 21) || '\"')"
        ),
        "('\"' || CAST({0} AS text) || '\"')",
    ),
    # SQLite's are texts of one length: `2026-01-31 13:45:06.789012`.
    JsonTime: (
        "('\"' || substr({0}, 1, 10) || 'T' || substr({0}, 12, 12) || 'Z\"')",
        'to_char({0} AT TIME ZONE \'UTC\', \'"\\""YYYY-MM-DD"T"HH24:MI:SS.MS"Z\\""\')',
    ),
}


def _of_sqlite(element: _Scalar, compiler: Any, **options: Any) -> str:
    return TEMPLATES[type(element)][0].format(compiler.process(element.clauses, **options))


def _of_postgresql(element: _Scalar, compiler: Any, **options: Any) -> str:
    return TEMPLATES[type(element)][1].format(compiler.process(element.clauses, **options))


for _kind in TEMPLATES:
    compiles(_kind, "sqlite")(_of_sqlite)
    compiles(_kind, "postgresql")(_of_postgresql)


def text(constant: str) -> Json:
    """Return a text of the program's own as it is."""
    return literal_column("'" + constant.replace("'", "''") + "'", String())


def member(
    name: str, json: Json, column: SQLColumnExpression[Any] | None = None, null: Null = "never"
) -> Json:
    """Return a member of an object, with a comma before it.

    Args:
        name: As the wire has it.
        json: The value.
        column: What may be null.
        null: What is said then: `null`, or nothing.
    """
    told = text(f',"{name}":').concat(json)
    if column is None or null == "never":
        return told
    return case((column.is_(None), text(f',"{name}":null' if null == "told" else "")), else_=told)


def json_object(first: tuple[str, Json], members: Sequence[Json], *, end: str = "}") -> Json:
    """Return an object; its first member is always there."""
    whole = text(f'{{"{first[0]}":').concat(first[1])
    for one in members:
        whole = whole.concat(one)
    return whole.concat(text(end))
