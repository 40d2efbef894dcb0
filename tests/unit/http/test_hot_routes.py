"""`@hot` changes how fast a route answers, and nothing of what it answers."""

from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from craftastic.accounts.current_user import BEARER
from craftastic.app import build_app
from craftastic.errors import Unauthenticated
from craftastic.http import errors, middleware
from craftastic.http.hot import HotRoutes, hot
from craftastic.http.policy import calls
from craftastic.http.wire import Wire
from craftastic.metrics import Metrics
from craftastic.settings import Settings

THING = "0580f83e-dffe-41e0-99d8-23b89f06d7f8"


class Answer(Wire):
    said_by: str
    name: str
    thing: UUID


async def caller(request: Request) -> str:
    """Return who the request says it is of."""
    name = request.headers.get("x-caller")
    if name is None:
        raise Unauthenticated("Unauthorized")
    return name


Caller = Annotated[str, Depends(caller)]


async def shouted(caller: Caller) -> str:
    return caller.upper()


async def answer(
    name: str, thing: UUID, said_by: Annotated[str, Depends(shouted)], _caller: Caller
) -> Answer:
    return Answer(said_by=said_by, name=name, thing=thing)


async def marked(
    name: str, thing: UUID, said_by: Annotated[str, Depends(shouted)], _caller: Caller
) -> Answer:
    return await answer(name, thing, said_by, _caller)


def app_with(endpoint: Any) -> FastAPI:
    router = APIRouter(prefix="/api")
    router.get("/things/{name}/{thing}", response_model=Answer)(endpoint)
    app = FastAPI(redirect_slashes=False)
    errors.install(app)
    app.add_middleware(HotRoutes, routes=app.routes)
    middleware.install(app, metrics=Metrics(), max_body_bytes=1000)
    app.include_router(router)
    return app


async def asked(app: FastAPI, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        return await client.request(method, path, headers={"x-request-id": "r-1", **headers})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/api/things/a/{THING}", 200),
        ("GET", f"/api/things/feature%2Fü/{THING}", 200),
        ("GET", "/api/things/a/no-id", 404),
        ("POST", f"/api/things/a/{THING}", 405),
        ("GET", f"/api/things/a/{THING}/", 404),
        ("GET", f"/api/things/a/{THING}?name=other", 200),
    ],
)
@pytest.mark.parametrize("headers", [{"x-caller": "me"}, {}], ids=["called", "nobody"])
async def test_a_marked_endpoint_answers_as_the_framework_would(
    method: str, path: str, status: int, headers: dict[str, str]
) -> None:
    wanted = await asked(app_with(answer), method, path, headers)

    got = await asked(app_with(hot(marked)), method, path, headers)

    assert (got.status_code, got.content) == (wanted.status_code, wanted.content)
    assert got.headers == wanted.headers
    assert got.status_code == (status if headers or status == 405 else got.status_code)


async def test_a_marked_endpoint_is_answered_without_the_framework() -> None:
    seen: list[str | None] = []

    @hot
    async def endpoint(request: Request) -> Answer:
        seen.append(request.scope.get("fastapi_inner_astack"))  # of each request that it solves
        return Answer(said_by="a", name="b", thing=uuid4())

    app = FastAPI()
    app.add_middleware(HotRoutes, routes=app.routes)
    app.get("/one", response_model=Answer)(endpoint)

    assert (await asked(app, "GET", "/one", {})).status_code == 200
    assert seen == [None]


async def test_a_hot_route_may_not_need_what_is_not_settled_for_it() -> None:
    @hot
    async def endpoint(limit: int = 5) -> Answer:
        return Answer(said_by=str(limit), name="b", thing=uuid4())

    app = FastAPI()
    app.get("/one")(endpoint)

    with pytest.raises(TypeError, match="needs more than a hot route has"):
        HotRoutes(app, app.routes)


ROUTES = list(
    iter_route_contexts(build_app(Settings.model_validate({"data_dir": "/nonexistent"})).routes)
)


def test_no_route_waits_for_a_thread_before_it_begins() -> None:
    in_threads = {
        str(call)
        for route in ROUTES
        for call in calls(getattr(route, "dependant", None) or Dependant())
        if call is not None and not is_async(call)
    }

    assert in_threads == set()  # FastAPI runs what is no coroutine in a thread of a small pool


def is_async(call: Any) -> bool:
    code = getattr(call if hasattr(call, "__code__") else type(call).__call__, "__code__", None)
    return code is not None and bool(code.co_flags & 0x280)


def test_the_check_of_a_bearer_token_takes_no_thread_either() -> None:
    assert is_async(BEARER)
    assert not is_async(lambda: None)


def test_no_earlier_route_has_a_hot_routes_path() -> None:
    """The hot ones are looked at first, so that whatever stood before them would never be seen."""
    hot_routes = [one for one in ROUTES if getattr(one.endpoint, "__craftastic_hot__", False)]
    assert len(hot_routes) >= 3
    for route in hot_routes:
        path = (route.path_format or "").replace("{", "").replace("}", "")

        first = next(
            one for one in ROUTES if "GET" in (one.methods or ()) and one.path_regex.match(path)
        )

        assert first.endpoint is route.endpoint
