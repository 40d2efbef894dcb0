"""The wire form of variables, on both databases."""

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import BACKENDS
from tests.contract.test_every_route import signed_in
from tests.fakes.whole_app import whole_app, whole_settings

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MINE = "/api/variables"


@dataclass(frozen=True)
class Api:
    client: httpx.AsyncClient
    environment: str
    headers: dict[str, str] = field(repr=False)

    async def __call__(self, method: str, path: str, body: Any = None) -> httpx.Response:
        content = None if body is None else json.dumps(body)
        headers = self.headers | ({} if body is None else {"content-type": "application/json"})
        return await self.client.request(method, path, content=content, headers=headers)

    async def ok(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self(method, path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(params=BACKENDS)
async def api(
    request: pytest.FixtureRequest, tmp_path: Path, copy_of_template: Callable[[str], str]
) -> AsyncIterator[Api]:
    async with whole_app(whole_settings(tmp_path, copy_of_template(request.param))) as (client, _):
        headers = await signed_in(client, "a@example.com")
        made = await client.post("/api/environments", json={"name": "mine"}, headers=headers)
        yield Api(client, f"/api/environments/{made.json()['id']}/variables", headers)


async def test_a_variable_is_set_listed_and_deleted(api: Api) -> None:
    for place in (MINE, api.environment):
        plain = await api.ok("PUT", f"{place}/PLAIN", {"value": "é\n$x", "isSecret": False})
        secret = await api.ok("PUT", f"{place}/SECRET", {"value": "hunter2"})

        assert plain.keys() == {"name", "isSecret", "value", "createdAt", "updatedAt"}
        assert secret.keys() == {"name", "isSecret", "createdAt", "updatedAt"}
        assert (plain["value"], secret["isSecret"]) == ("é\n$x", True)
        assert MOMENT.fullmatch(plain["createdAt"])
        listed = await api.ok("GET", place)
        assert listed["variables"] == [plain, secret]
        assert await api.ok("DELETE", f"{place}/PLAIN") == {"success": True}
        again = await api("DELETE", f"{place}/PLAIN")
        assert (again.status_code, again.json()["code"]) == (404, "VARIABLE_NOT_FOUND")


async def test_an_environment_lists_what_it_inherits(api: Api) -> None:
    await api.ok("PUT", f"{MINE}/A", {"value": "1", "isSecret": False})
    await api.ok("PUT", f"{MINE}/B", {"value": "2"})
    await api.ok("PUT", f"{api.environment}/A", {"value": "3"})

    listed = await api.ok("GET", api.environment)

    assert listed["inherited"] == [
        {"name": "A", "isSecret": False, "overridden": True},
        {"name": "B", "isSecret": True, "overridden": False},
    ]
    assert [one["name"] for one in listed["variables"]] == ["A"]
    assert "inherited" not in await api.ok("GET", MINE)


async def test_whether_it_is_a_secret_changes_without_the_value_in_one_direction(api: Api) -> None:
    await api.ok("PUT", f"{MINE}/A", {"value": "text", "isSecret": False})

    changed = await api.ok("PUT", f"{MINE}/A", {"isSecret": True})
    assert "value" not in changed
    refused = await api("PUT", f"{MINE}/A", {"isSecret": False})

    assert (refused.status_code, refused.json()["code"]) == (400, "VARIABLE_VALUE_NEEDED")
    assert (await api("PUT", f"{MINE}/NEW", {})).json()["code"] == "VARIABLE_VALUE_NEEDED"


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("A-B", {"value": "hunter2"}, "BAD_VARIABLE_NAME"),
        ("A%2FB", {"value": "hunter2"}, "BAD_VARIABLE_NAME"),
        ("A%0A", {"value": "hunter2"}, "BAD_VARIABLE_NAME"),
        ("%FF", {"value": "hunter2"}, "BAD_VARIABLE_NAME"),
        ("PATH", {"value": "hunter2"}, "BAD_VARIABLE_NAME"),
        ("A", {"value": "hunter2" * 5000}, "BAD_VARIABLE_VALUE"),
        ("A", {"value": "hunter2\0"}, "INVALID_INPUT"),
        ("A", {"value": "hunter2\ud800"}, "BAD_VARIABLE_VALUE"),
        ("A", {"value": ["hunter2"]}, "INVALID_INPUT"),
        ("A", {"value": {"hunter2": 1}}, "INVALID_INPUT"),
        ("A", {"value": "x", "isSecret": "hunter2"}, "INVALID_INPUT"),
    ],
)
async def test_what_is_wrong_is_refused_without_showing_the_value(
    api: Api, name: str, body: dict[str, Any], code: str
) -> None:
    for place in (MINE, api.environment):
        answer = await api("PUT", f"{place}/{name}", body)

        assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text
        assert "success" not in answer.json()
        assert "hunter2" not in answer.text
        assert (await api.ok("GET", place))["variables"] == []


async def test_names_that_cannot_be_are_not_there(api: Api) -> None:
    for name in ("A-B", "%FF", "A%2FB", "x" * 300):
        answer = await api("DELETE", f"{MINE}/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "VARIABLE_NOT_FOUND")
