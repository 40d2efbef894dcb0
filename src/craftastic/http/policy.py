"""Who may call a route: declared on every route, so that a test can find one that forgot."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, TypeVar

from fastapi import Depends
from fastapi.dependencies.models import Dependant

Function = TypeVar("Function", bound=Callable[..., Any])


class Policy(StrEnum):
    PUBLIC = "public"
    SELF_CHECKED = "self-checked"
    """A WebSocket route that authenticates by itself, since refusals are close frames."""
    USER = "user"
    """Any user; with a read-only access token only what changes nothing (GET and HEAD)."""
    SIGNED_IN = "signed-in"
    """A user who has signed in: no access token, which is handed to programs, passes."""
    ADMIN = "admin"
    """An administrator who has signed in."""


STRICTNESS = {policy: rank for rank, policy in enumerate(Policy)}


def declares(policy: Policy) -> Callable[[Function], Function]:
    """Mark a dependency: routes that depend on it have this policy, and it enforces it."""

    def mark(function: Function) -> Function:
        function.__craftastic_policy__ = policy  # type: ignore[attr-defined]
        return function

    return mark


@declares(Policy.PUBLIC)
async def _public() -> None:
    return None


@declares(Policy.SELF_CHECKED)
async def _self_checked() -> None:
    return None


PUBLIC: Any = Depends(_public)
"""For `dependencies=[PUBLIC]` of a route that anyone may call."""

SELF_CHECKED: Any = Depends(_self_checked)
"""For `dependencies=[SELF_CHECKED]` of a WebSocket route."""


def policy_of(route: Any) -> Policy | None:
    """Return the strictest policy that a route declares; None when it declares none."""
    dependant: Dependant | None = getattr(route, "dependant", None)
    if dependant is None:
        return None
    found = [
        policy
        for call in calls(dependant)
        if (policy := getattr(call, "__craftastic_policy__", None)) is not None
    ]
    return max(found, key=STRICTNESS.__getitem__, default=None)


def calls(dependant: Dependant) -> Iterator[Any]:
    """Give everything that a route calls: itself, and what it depends on."""
    yield dependant.call
    for child in dependant.dependencies:
        yield from calls(child)
