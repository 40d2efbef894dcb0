"""The API's own document, tried by schemathesis: every operation, with what fits and what does not.

SEC-48 and SEC-52: no answer is above 499, every answer is as the document says, what the document
forbids is refused, and no refusal tells of the inside.
"""

import copy
import os
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, Phase
from requests import PreparedRequest, Request
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation.hypothesis.builder import (
    HypothesisTestConfig,
    HypothesisTestMode,
    create_test,
)
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from craftastic.app import build_app
from craftastic.http.health import schema
from craftastic.settings import Settings
from tests.fakes.fuzzing import (
    BYSTANDER,
    Asker,
    only_errors_logged,
    pointed,
    refusal_faults,
)
from tests.fakes.people import signed_in, state_of
from tests.fakes.toy_coolify import ToyCoolify
from tests.fakes.toy_github import ToyGitHub
from tests.fakes.whole_app import APPLICATION, whole_app, whole_settings

CASES = int(os.environ.get("CRAFTASTIC_FUZZ_CASES", "5000"))  # noqa: TID251 - not a server's setting
SEED = int(os.environ.get("CRAFTASTIC_FUZZ_SEED", "1"))  # noqa: TID251 - not a server's setting
CALLERS = ("a user", "an administrator")
BASE_URL = "http://127.0.0.1:3000"

SCHEMATHESIS = {
    "generation": {"with-security-parameters": False},
    "phases": {
        "coverage": {
            "generate-duplicate-query-parameters": True,
            "unexpected-methods": ["trace"],  # wrong methods have a test of their own
        }
    },
    "checks": {
        "negative_data_rejection": {
            "expected-statuses": ["400", "401", "403", "404", "405", "409", "413", "422", "429"]
        }
    },
}
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    missing_required_header,
    negative_data_rejection,
    unsupported_method,
]
LENIENT = "Incorrect type"
"""A number or a truth may come as text, and a truth as a number: it is read as it is meant."""

UNHURRIED = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
]
TURNED_AWAY = (401, 405, 429)
"""Statuses of answers that say nothing about the operation."""


@dataclass
class Tally:
    """What came of the cases."""

    by_status: Counter[int] = field(default_factory=Counter[int])
    by_operation: dict[str, Counter[int]] = field(default_factory=dict[str, Counter[int]])
    faults: dict[str, str] = field(default_factory=dict[str, str])
    """The first request of each kind of fault."""

    @property
    def cases(self) -> int:
        return self.by_status.total()

    @property
    def untried(self) -> list[str]:
        """Operations that no case got to."""
        return [
            name for name, seen in self.by_operation.items() if not set(seen) - set(TURNED_AWAY)
        ]

    @property
    def done(self) -> list[str]:
        """Operations that did at least once what they are for."""
        return [name for name, seen in self.by_operation.items() if any(s < 300 for s in seen)]

    def share(self, *statuses: int) -> float:
        return sum(self.by_status[one] for one in statuses) / self.cases

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} x {one}" for one, count in sorted(self.by_status.items()))
        return (
            f"{self.cases} cases of {len(self.by_operation)} operations, "
            f"{len(self.done)} of which did their work: {statuses}"
        )


@asynccontextmanager
async def an_asker(settings: Settings, caller: str) -> AsyncGenerator[Asker]:
    async with whole_app(settings) as (client, _):
        token = await state_of(client)["accounts"].first_account_token() or ""
        chief = await signed_in(client, "chief@example.com", setupToken=token)
        user = await signed_in(client, "user@example.com")
        stands_by = await signed_in(client, BYSTANDER)
        me = await client.get("/api/auth/me", headers=stands_by)
        bystander = me.json()["data"]["user"]["id"]
        asker = (
            Asker(client, "user@example.com", user, bystander)
            if caller == "a user"
            else Asker(client, "chief@example.com", chief, bystander)
        )
        await asker.make_what_is_missing()
        yield asker


@dataclass
class Fuzz:
    portal: BlockingPortal
    asker: Asker
    document: dict[str, Any]
    tally: Tally = field(default_factory=Tally)

    def run(self, cases: int) -> None:
        """Try every operation at the bounds of what it takes, then with what chance makes."""
        loaded = schemathesis.openapi.from_dict(
            self.document, config=schemathesis.Config.from_dict(SCHEMATHESIS)
        )
        operations = [
            found.ok()
            for found in loaded.get_all_operations()
            if isinstance(found, Ok)  # what is not is an unreadable part of the document
        ]
        assert len(operations) == sum(len(path) for path in self.document["paths"].values())
        self._round(operations, loaded.config, HypothesisTestMode.COVERAGE)
        number = 0
        while (left := cases - self.tally.cases) > 0:
            # What takes no parameters has few cases in it: the others make up for those.
            count = 2 + left // len(operations)
            self._round(operations, loaded.config, HypothesisTestMode.FUZZING, count, SEED + number)
            number += 1

    def _round(
        self,
        operations: list[Any],
        project: Any,
        mode: HypothesisTestMode,
        count: int = 1,
        seed: int = SEED,
    ) -> None:
        settings = hypothesis.settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=UNHURRIED,
        )
        config = HypothesisTestConfig(project, [mode], settings=settings, seed=seed)
        for operation in operations:
            create_test(operation=operation, test_func=self.try_one, config=config)()

    def try_one(self, case: schemathesis.Case[Any]) -> None:
        request = Request(**case.as_transport_kwargs(base_url=BASE_URL)).prepare()
        answer = self.portal.call(self.asker.ask, request)
        label = case.operation.label
        self.tally.by_status[answer.status_code] += 1
        self.tally.by_operation.setdefault(label, Counter())[answer.status_code] += 1
        for fault in [*refusal_faults(answer), *violations(case, request, answer)]:
            told = f"{request.method} {request.url} {request.body!r:.300}: {answer.text[:300]}"
            self.tally.faults.setdefault(f"{label}: {fault}", told)


def violations(
    case: schemathesis.Case[Any], request: PreparedRequest, answer: httpx.Response
) -> list[str]:
    """Say where an answer is not as the document says."""
    headers = {name: answer.headers.get_list(name) for name in answer.headers}
    response = schemathesis.Response(
        answer.status_code, headers, answer.content, request, 0.0, verify=False
    )
    try:
        case.validate_response(response, checks=CHECKS)
    except FailureGroup as group:
        return [str(one)[:300] for one in group.exceptions if LENIENT not in str(one)]
    return []


@pytest.fixture
def fuzz(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fuzz]:
    with ExitStack() as stack:
        stack.enter_context(only_errors_logged())
        toy = stack.enter_context(ToyGitHub())
        coolify = stack.enter_context(ToyCoolify())
        coolify.auto = True
        coolify.application("web", uuid=APPLICATION)
        settings = whole_settings(
            tmp_path,
            f"sqlite:///{tmp_path / 'a.db'}",
            max_environments_per_user=100_000,
            coolify_api_url=coolify.url,
            coolify_api_token=coolify.token(),
            **toy.settings,
        )
        portal = stack.enter_context(start_blocking_portal())
        asker = stack.enter_context(
            portal.wrap_async_context_manager(an_asker(settings, request.param))
        )
        yield Fuzz(portal, asker, pointed(copy.deepcopy(schema(build_app(settings)))))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fuzz", CALLERS, indirect=True)
def test_every_answer_is_as_the_document_says_whatever_is_asked(
    fuzz: Fuzz, capsys: pytest.CaptureFixture[str]
) -> None:
    fuzz.run(CASES // len(CALLERS))
    tally = fuzz.tally
    with capsys.disabled():
        print(f"\n{tally}", end=" ")  # noqa: T201 - the figures are what a long run is for

    assert "\n".join(f"{fault}\n    {told}" for fault, told in tally.faults.items()) == ""
    # A run that is turned away at the door finds nothing.
    assert tally.cases >= CASES // len(CALLERS)
    assert tally.share(*TURNED_AWAY) < 0.1
    assert tally.share(200, 201, 202, 204) > 0.08
    assert tally.untried == []
    assert len(tally.done) > 0.5 * len(tally.by_operation)
