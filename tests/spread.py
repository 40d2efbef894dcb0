"""A pytest plugin: of a test that runs on both databases, `make test` takes one of the two.

Which one is told by the test's name, so it is the same everywhere, and about half of them run on
each. What is about a database itself, about several processes, or about losing nothing runs on
both. `make test DATABASES=both` leaves nothing out, and neither does pytest by itself.
"""

import re
import zlib
from collections.abc import Sequence

import pytest

BACKEND = re.compile(r"(?<=[\[-])(sqlite|postgres)(?=[\]-])")
ON_BOTH = (
    "contract/test_accounts_throttle.py",
    "contract/test_agent_run_repairs.py",
    "contract/test_audit_log.py",
    "contract/test_backup.py",
    "contract/test_credentials_keys.py",
    "contract/test_database_migrations.py",
    "contract/test_database_transactions.py",
    "contract/test_deployments_crashes.py",
    "contract/test_environment_lifecycle.py",
    "contract/test_github_tokens.py",
    "contract/test_idempotency.py",
    "contract/test_session_service.py",
    "e2e/test_main_job.py",
    "faults/",
    "unit/environments/",
    "unit/terminals/test_pipe_leases.py",
)


def left_out(ids: Sequence[str]) -> set[str]:
    """Return which tests of a run are left out: the other database's half of each pair."""
    there = set(ids)
    out: set[str] = set()
    for one in ids:
        if any(f"tests/{part}" in one for part in ON_BOTH) or not BACKEND.search(one):
            continue
        pair = [BACKEND.sub(name, one) for name in ("sqlite", "postgres")]
        if there.issuperset(pair):
            out.add(pair[zlib.crc32(pair[0].encode()) & 1])
    return out


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    out = left_out([one.nodeid for one in items])
    config.hook.pytest_deselected(items=[one for one in items if one.nodeid in out])
    items[:] = [one for one in items if one.nodeid not in out]
