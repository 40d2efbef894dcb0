"""`@hot`: routes that are asked all the time, answered without the framework's work per request.

FastAPI looks for a route by trying one after the other, and finds out for each request anew what
its endpoint needs. For an endpoint that is marked here both are settled once, from FastAPI's own
description of the route: who may call it and what it needs is still said in one place.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from re import Pattern
from typing import Any, TypeVar

from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

Function = TypeVar("Function", bound=Callable[..., Any])
Plan = list["_Call"]

THE_REQUEST = -1


def hot(endpoint: Function) -> Function:
    """Mark the endpoint of a GET route: what it depends on takes the request, or nothing more."""
    endpoint.__craftastic_hot__ = True  # type: ignore[attr-defined]
    return endpoint


@dataclass(frozen=True, slots=True)
class _Call:
    """A function, and what it is given: the request, or what the call of that number returned."""

    function: Callable[..., Awaitable[Any]]
    arguments: tuple[tuple[str, int], ...]


class HotRoutes:
    """Middleware, the innermost: answers the routes whose endpoints are marked.

    Whatever is out of the ordinary, a path that has no id where one belongs, is left to FastAPI.

    Args:
        app: What is called for everything else.
        routes: The application's; they may be added until the first request.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self.found = [
            _HotRoute(one)
            for one in iter_route_contexts([one for one in routes if _has_a_mark(one)])
            if _is_marked(one)
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and not scope.get("root_path"):
            path: str = scope["path"]
            for route in self.found:
                arguments = route.arguments_of(path)
                if arguments is not None:
                    scope["route"] = route.original
                    answer = await route.answer(Request(scope, receive), arguments)
                    await answer(scope, receive, send)
                    return
        await self.app(scope, receive, send)


def _is_marked(route: object) -> bool:
    return getattr(getattr(route, "endpoint", None), "__craftastic_hot__", False)


def _has_a_mark(route: BaseRoute) -> bool:
    """Tell it of a route, or of a router that was included; what it is like is not built for it."""
    router: Any = getattr(route, "original_router", None)
    return router is None or any(_is_marked(one) for one in router.routes)


class _HotRoute:
    """A marked route.

    Raises:
        TypeError: Its endpoint needs more than is settled here.
    """

    def __init__(self, context: RouteContext) -> None:
        self.original = context.original_route
        self.pattern: Pattern[str] = context.path_regex
        self.convertors: Mapping[str, Any] = context.param_convertors
        dependant: Dependant = context.dependant
        self.fields = list(dependant.path_params)
        self.plan: Plan = []
        _settle(dependant, self.plan, {}, is_endpoint=True)

    def arguments_of(self, path: str) -> dict[str, Any] | None:
        """Return the endpoint's arguments that stand in a path; None where it is not its path."""
        match = self.pattern.match(path)
        if match is None:
            return None
        texts = {
            name: self.convertors[name].convert(text) for name, text in match.groupdict().items()
        }
        arguments: dict[str, Any] = {}
        for field in self.fields:
            value, errors = field.validate(texts[field.alias], {}, loc=("path", field.alias))
            if errors:
                return None
            arguments[field.name] = value
        return arguments

    async def answer(self, request: Request, arguments: Mapping[str, Any]) -> Response:
        results: list[Any] = []
        *needed, endpoint = self.plan
        for call in needed:
            results.append(await call.function(**_given(call, results, request)))
        result = await endpoint.function(**_given(endpoint, results, request), **arguments)
        if isinstance(result, BaseModel):
            content = result.__pydantic_serializer__.to_json(result, by_alias=True)
            return Response(content, media_type="application/json")
        return result


def _given(call: _Call, results: Sequence[Any], request: Request) -> dict[str, Any]:
    return {
        name: request if number == THE_REQUEST else results[number]
        for name, number in call.arguments
    }


def _settle(
    dependant: Dependant, plan: Plan, numbers: dict[Any, int], *, is_endpoint: bool = False
) -> int:
    """Add what has to be called for a dependency, each function once; return its number."""
    function = dependant.call
    if function in numbers:
        return numbers[function]
    if function is None or any(
        (
            dependant.query_params,
            dependant.header_params,
            dependant.cookie_params,
            dependant.body_params,
            dependant.path_params and not is_endpoint,
            dependant.response_param_name,
            dependant.background_tasks_param_name,
            dependant.security_scopes_param_name,
        )
    ):
        raise TypeError(f"{function} needs more than a hot route has")
    arguments: list[tuple[str, int]] = []
    for one in dependant.dependencies:
        number = _settle(one, plan, numbers)
        if one.name is not None:
            arguments.append((one.name, number))
    own_names = (dependant.request_param_name, dependant.http_connection_param_name)
    arguments += [(name, THE_REQUEST) for name in own_names if name is not None]
    plan.append(_Call(function, tuple(arguments)))
    numbers[function] = len(plan) - 1
    return numbers[function]
