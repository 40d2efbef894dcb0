"""The commands of the Makefile: what runs the tests is itself run."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 60.0


def run_with_services(
    *command: str, folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as `make test` does, with an engine's address where nothing listens."""
    environment = {
        **os.environ,  # noqa: TID251 - not a server's setting
        "DOCKER_HOST": f"unix://{folder}/engine.sock",
        "PATH": "/usr/bin:/bin",
        **variables,
    }
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "with_services.py"), *command],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def without_dockerd(folder: Path) -> dict[str, str]:
    # A program of that name that ends at once: an engine that cannot be started.
    return with_dockerd(folder, "raise SystemExit('no such luck')")


def with_dockerd(folder: Path, program: str) -> dict[str, str]:
    tools = folder / "tools"
    tools.mkdir()
    (tools / "dockerd").write_text(f"#!{sys.executable}\n{program}\n")
    (tools / "dockerd").chmod(0o755)
    return {"PATH": f"{tools}:/usr/bin:/bin"}


def test_what_is_missing_is_said_in_one_line_and_is_no_error(tmp_path: Path) -> None:
    # A path with the few programs that the script itself uses, hence without tmux and bubblewrap.
    for name in ("sh", "dirname", "mkdir", "id", "tr", "cat", "grep"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))

    done = subprocess.run(
        [str(ROOT / "scripts" / "system-packages.sh"), sys.executable, "serve"],
        env={"PATH": str(tmp_path), "CRAFTASTIC_SYSTEM_PACKAGES": "0"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("craftastic: missing, going on without:")
    assert {"tmux", "bubblewrap", "passt"} <= set(line.split())


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_exit_code_of_the_command_is_that_of_the_run(tmp_path: Path) -> None:
    done = run_with_services("sh", "-c", "exit 7", folder=tmp_path, **without_dockerd(tmp_path))

    assert done.returncode == 7
    assert "Docker" in done.stderr


def test_what_the_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    # One daemon that would end when asked, and one that would not.
    script = f"""
        cd {tmp_path}
        exec >/dev/null 2>&1
        setsid sleep 600 & echo $! >polite
        setsid sh -c 'trap "" TERM; touch deaf; while :; do sleep 1; done' & echo $! >stubborn
        until [ -e deaf ]; do sleep 0.02; done
    """

    done = run_with_services("sh", "-c", script, folder=tmp_path, **without_dockerd(tmp_path))

    assert done.returncode == 1
    assert "left processes behind" in done.stderr
    assert "sleep 600" in done.stderr
    pids = [int((tmp_path / name).read_text()) for name in ("polite", "stubborn")]
    assert [pid for pid in pids if is_alive(pid)] == []


ENGINE = """
import http.server, os, pathlib, socketserver, sys
path = sys.argv[sys.argv.index("--host") + 1].removeprefix("unix://")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers()
        self.wfile.write(b"OK")
    def address_string(self): return "unix"
pathlib.Path(path).with_name("engine.pid").write_text(str(os.getpid()))
socketserver.UnixStreamServer(path, Handler).serve_forever()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts an engine")
def test_engine_is_started_where_none_answers_and_ended_with_the_run(tmp_path: Path) -> None:
    done = run_with_services(
        "sh", "-c", f"test -S {tmp_path}/engine.sock", folder=tmp_path,
        **with_dockerd(tmp_path, ENGINE),
    )  # fmt: skip

    assert "starting a Docker engine" in done.stderr
    assert done.returncode == 0, done.stderr
    assert not is_alive(int((tmp_path / "engine.pid").read_text()))


def test_engine_that_answers_is_left_alone(tmp_path: Path) -> None:
    program = tmp_path / "engine.py"
    program.write_text(ENGINE)
    address = tmp_path / "engine.sock"
    with subprocess.Popen([sys.executable, str(program), "--host", f"unix://{address}"]) as engine:
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not address.exists() and time.monotonic() < deadline:
                time.sleep(0.02)

            done = run_with_services("true", folder=tmp_path)

            assert done.returncode == 0
            assert "starting a Docker engine" not in done.stderr
            assert engine.poll() is None
        finally:
            engine.terminate()


SAMPLES = {
    "test_body.py": "import pytest\ndef test_a(): pytest.skip('no engine')",
    "test_mark.py": "import pytest\n@pytest.mark.skip(reason='no engine')\ndef test_a(): ...",
    "test_fixture.py": (
        "import pytest\n@pytest.fixture\ndef f(): pytest.skip('no engine')\ndef test_a(f): ..."
    ),
    "test_module.py": "import pytest\npytest.importorskip('no_such_module')\ndef test_a(): ...",
    "test_known.py": (
        "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_a(): assert False"
    ),
}  # fmt: skip


def run_samples(folder: Path, strict: str) -> tuple[int, str]:
    """Run four skipped tests and an expected failure; return exit code and closing line."""
    for name, text in SAMPLES.items():
        (folder / name).write_text(text + "\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.strict", "-p", "no:cacheprovider"),
            *("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "--noconftest"),
            *("--continue-on-collection-errors", str(folder)),
        ],
        cwd=ROOT,
        env={**os.environ, "CRAFTASTIC_TEST_STRICT": strict},  # noqa: TID251
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout.strip().splitlines()[-1]


def test_every_skip_is_a_failure_where_nothing_may_be_missing(tmp_path: Path) -> None:
    code, closing = run_samples(tmp_path, strict="1")

    assert code != 0
    assert re.match(r"1 failed, 1 xfailed, 3 errors in ", closing), closing


def test_skip_is_a_skip_elsewhere(tmp_path: Path) -> None:
    code, closing = run_samples(tmp_path, strict="")

    assert code == 0
    assert re.match(r"4 skipped, 1 xfailed in ", closing), closing
