"""Alembic's entry: runs the revisions on the connection that `runner` hands over."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import TypeDecorator


def _render_item(kind: str, item: Any, autogenerate_context: Any) -> str | Literal[False]:
    # A revision must read the same for ever: it names the plain type, not our class of today.
    if kind == "type" and isinstance(item, TypeDecorator):
        plain: Any = item.impl
        return f"sa.{plain!r}"
    return False


def _run() -> None:
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=context.config.attributes.get("metadata"),
        compare_type=True,
        render_item=_render_item,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


_run()
