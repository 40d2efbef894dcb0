"""What decides which tests run, and which run again."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import second_look, spread

ROOT = Path(__file__).resolve().parents[2]
PAIR = [
    "tests/contract/test_x.py::test_a[docker-sqlite]",
    "tests/contract/test_x.py::test_a[docker-postgres]",
]


def test_of_a_pair_one_is_left_out_and_always_the_same() -> None:
    out = spread.left_out(PAIR)

    assert len(out) == 1
    assert spread.left_out(PAIR[::-1]) == out


def test_about_half_run_on_each_database() -> None:
    ids = [
        f"tests/contract/test_x.py::test_{n}[{name}]"
        for n in range(1000)
        for name in ("sqlite", "postgres")
    ]

    out = spread.left_out(ids)

    assert len(out) == 1000
    assert 400 < sum("sqlite" in one for one in out) < 600


def test_what_has_no_pair_or_has_to_run_on_both_is_not_left_out() -> None:
    alone = [
        "tests/contract/test_x.py::test_a[postgres]",
        "tests/unit/test_y.py::test_b[sqlite-file]",
    ]
    both = [one.replace("contract/test_x.py", "e2e/test_main_job.py") for one in PAIR]

    assert spread.left_out([*alone, *both]) == set()


@pytest.mark.parametrize(
    ("code", "failed", "worth_it"),
    [
        (1, ["tests/a.py::b"], True),
        (1, ["tests/a.py::b"] * second_look.MOST, True),
        (1, ["tests/a.py::b"] * (second_look.MOST + 1), False),
        (1, [], False),
        (1, ["tests/a.py::b", "the machine after the tests"], False),
        (1, ["collecting tests/a.py::b"], False),
        (2, ["tests/a.py::b"], False),
    ],
)
def test_only_a_few_failed_tests_get_a_second_look(
    code: int, failed: list[str], worth_it: bool
) -> None:
    assert second_look.worth_it(code, failed) is worth_it


@pytest.mark.parametrize(("passes_at", "code"), [(1, 0), (2, 0), (3, 1)])
def test_a_second_look_passes_what_passes_alone_and_says_so(
    tmp_path: Path, passes_at: int, code: int
) -> None:
    (tmp_path / "test_it.py").write_text(
        "from pathlib import Path\n"
        "def test_it():\n"
        "    with Path('runs').open('a') as file: file.write('x')\n"
        f"    assert len(Path('runs').read_text()) >= {passes_at}\n"
    )
    path = ":".join([str(ROOT), str(ROOT / "src")])

    done = subprocess.run(
        [sys.executable, "-m", "tests.second_look", "-q", "-n", "2", "test_it.py"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == code
    assert ("UNSTEADY: 1 failed" in done.stdout) is (passes_at == 2)
