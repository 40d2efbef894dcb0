"""The gate of secrets fails a test for a secret in any of its places, and lets the others be.

Each sample below is a test in a run of its own, with the gate as all tests have it. `SEC-41`,
`SEC-45` and `SEC-29` rest on it.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.secrecy import counts

PROJECT = Path(__file__).parents[2]
RUN_S = 120.0

CANARY = re.compile(r"Canary-sample-[0-9a-f]")
CONFTEST = "from tests.conftest import *\n"

SAMPLES = '''
import base64
import io
import logging
import os
import secrets
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy
import structlog

from craftastic.accounts._passwords import PasswordHasher
from craftastic.accounts._tokens import AccessTokens
from craftastic.accounts.caller import digest
from craftastic.credentials import _cipher
from craftastic.keys import derive_key
from craftastic import logs
from craftastic.settings import Settings
from tests import secrecy
from tests.fakes.account_rig import quick_hasher

log = structlog.stdlib.get_logger("craftastic.sample")
SECRET = secrecy.canary("sample")


def test_nothing_leaks(tmp_path):
    log.debug("all is well", password=SECRET, why=f"password={SECRET}")
    subprocess.run(["true"], check=True)


def test_log_line():
    log.debug("a plain line", what=SECRET)


def test_library_line():
    logging.getLogger("uvicorn.error").info("it said %s", SECRET)


def test_captured_line():
    with structlog.testing.capture_logs():
        log.info("a plain line", what=SECRET)


def test_line_of_its_own_stream():
    logs.configure(level="info", format="json", stream=io.StringIO())
    log.info("a plain line", what=SECRET)


async def test_password():
    password = secrets.token_hex(16)
    await quick_hasher().hash(password)
    log.warning("a plain line", what=password)


def test_access_token():
    tokens = AccessTokens(b"k" * 32, 900)
    token = tokens.issue(
        user_id=uuid4(), sign_in_id=uuid4(), token_version=1, email="a@example.com", name="A",
        email_verified=True, now=datetime.now(UTC),
    )
    log.warning("where no form tells it", what=base64.b64encode(b"x" + token.encode()).decode())


def test_refresh_token():
    token = secrets.token_hex(32)
    digest(token)
    log.warning("a plain line", what=token)


def test_stored_secret():
    plain = f"{secrets.token_hex(16)} and \\n\\"more\\""
    _cipher.seal(derive_key("k" * 32), _cipher.Place(uuid4(), uuid4(), "a sample"), plain)
    log.warning("a plain line", what=plain)


def test_setting():
    password = secrets.token_hex(16)
    Settings.model_validate({"database_url": f"postgresql://a:{password}@localhost/a"})
    log.warning("a plain line", what=password)


async def test_column(database):
    async with database.begin() as tx:
        await tx.execute(sqlalchemy.text("create table sample (plain text)"))
        insert = sqlalchemy.text("insert into sample values (:one)")
        await tx.execute(insert, {"one": f"<{SECRET}&>"})


async def test_token_in_a_column(database):
    async with database.begin() as tx:
        await tx.execute(sqlalchemy.text("create table sample (plain text)"))
        text = "it is craft_" + "a1B2" * 10
        await tx.execute(sqlalchemy.text("insert into sample values (:one)"), {"one": text})


def test_argument():
    subprocess.run(["true", f"--password={SECRET}"], check=True)


def test_environment():
    subprocess.run(["true"], check=True, env={"PATH": os.environ["PATH"], "SAMPLE": SECRET})


def test_inherited_environment(monkeypatch):
    monkeypatch.setenv("SAMPLE", SECRET)
    subprocess.run(["true"], check=True)


@pytest.fixture
def grandchild():
    """A process that another one started, with the secret in its environment."""
    script = "read it; SAMPLE=$it exec sleep 600"
    process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE)
    process.stdin.write(SECRET.encode() + b"\\n")
    process.stdin.flush()
    while not Path(f"/proc/{process.pid}/cmdline").read_text().startswith("sleep"):
        pass
    yield
    process.kill()
    process.communicate()


def test_running_process(grandchild):
    pass


def test_server_log(tmp_path):
    code = f"import sys; sys.stderr.write('plain {SECRET[:9]}' + '{SECRET[9:]}')"
    with (tmp_path / "server.log").open("wb") as log:
        subprocess.run([sys.executable, "-c", code, "serve"], check=True, stderr=log)


def test_allowed():
    secrecy.allow(secrecy.Place.LOG, value=SECRET, because="it is a sample")
    log.debug("a plain line", what=SECRET)


def test_allowed_elsewhere():
    secrecy.allow(secrecy.Place.DATABASE, value=SECRET, because="it is a sample")
    log.debug("a plain line", what=SECRET)


def test_allowed_for_nothing():
    secrecy.allow(secrecy.Place.LOG, value=SECRET, because="it is a sample")
'''

EXPECTED = {
    "test_log_line": "the canary of sample is in the log",
    "test_library_line": "the canary of sample is in the log",
    "test_captured_line": "the canary of sample is in the log",
    "test_line_of_its_own_stream": "the canary of sample is in the log",
    "test_password": "a password is in the log",
    "test_access_token": "an access token is in the log",
    "test_refresh_token": "a token is in the log",
    "test_stored_secret": "what is stored for a sample is in the log",
    "test_setting": "the setting database_url is in the log",
    "test_column[sqlite]": "column plain): '<[secret]&>'",
    "test_token_in_a_column[sqlite]": "personal access token is in the database",
    "test_argument": "in the arguments of a process (a started true)",
    "test_environment": "in the environment of a process (a started true)",
    "test_inherited_environment": "in the environment of a process (a started true)",
    "test_running_process": "in the environment of a process (/proc/*/environ)",
    "test_server_log": "in the log (the server's server.log",
    "test_allowed_elsewhere": "the canary of sample is in the log",
    "test_allowed_for_nothing": "nothing needs to allow a value in the log",
    "test_column[postgres]": "column plain): '<[secret]&>'",
    "test_token_in_a_column[postgres]": "personal access token is in the database",
}

CONTAINER = """
import subprocess

import pytest

from tests import secrecy
from tests.leaks import RUN

SECRET = secrecy.canary("sample")


@pytest.fixture
def container(tmp_path):
    instance = RUN.new_instance()
    image = f"craftastic-test-{instance}"
    empty = bytes(10240)  # a tar file of nothing
    subprocess.run(["docker", "import", "-", image], input=empty, check=True)
    variables = tmp_path / "variables"
    variables.write_text(f"SAMPLE={SECRET}")
    create = ["docker", "create", "--label", f"craftastic.instance={instance}"]
    subprocess.run([*create, "--env-file", str(variables), "--name", image, image, "x"], check=True)
    yield
    subprocess.run(["docker", "rm", "--force", image], check=True)
    subprocess.run(["docker", "rmi", image], check=True)


@pytest.mark.docker
def test_container(container):
    pass
"""


def run_of(folder: Path, samples: str) -> str:
    """Run samples in a process of their own and return what pytest says."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_samples.py").write_text(samples)
    options = ["-p", "no:cacheprovider", "-c", str(PROJECT / "pyproject.toml"), "-rA", "-v"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--confcutdir={folder}", str(folder)],
        cwd=PROJECT,
        capture_output=True,
        timeout=RUN_S,
        check=False,
    )
    return done.stdout.decode() + done.stderr.decode()


def said_of(test: str, told: str) -> str:
    """Return what a run says of the failure of one test's gate."""
    found = re.search(
        rf"ERROR at teardown of {re.escape(test)} _.*?(?=\n___|\n===)", told, re.DOTALL
    )
    assert found, told
    return found[0]


def test_a_secret_in_any_place_fails_the_test_and_is_not_shown(tmp_path: Path) -> None:
    told = run_of(tmp_path, SAMPLES)

    if "PostgreSQL's server programs are not" in told:
        missing("PostgreSQL's server programs are not installed")
    failed = re.findall(r"^ERROR \S*::(test_\S+) - ", told, re.MULTILINE)
    assert sorted(failed) == sorted(EXPECTED), told
    for test, sentence in EXPECTED.items():
        assert sentence in said_of(test, told)
    assert not re.search(r"^FAILED", told, re.MULTILINE), told
    assert CANARY.findall(told) == []


@pytest.mark.docker
def test_a_secret_that_docker_inspect_shows_fails_the_test(tmp_path: Path) -> None:
    engine = ["docker", "version"]
    if (
        not shutil.which("docker")
        or subprocess.run(engine, check=False, capture_output=True).returncode
    ):
        missing("no Docker engine answers")

    told = run_of(tmp_path, CONTAINER)

    assert "the canary of sample is in the docker inspect" in said_of("test_container", told)
    assert CANARY.findall(told) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3f" * 4 + "0a1b2c3d4e", True),
        ("correct horse battery", True),
        ("short-one", False),
        ("x" * 129, False),
        ("https://craftastic.example", False),
        ("somebody@example.com", False),
        ("2e1c8a4e-7c3b-4b57-9d0e-0a6c1f2b3d4e", False),
        ("2026-11-27 10:00", False),
    ],
)
def test_only_texts_that_stand_nowhere_by_chance_are_looked_for(text: str, expected: bool) -> None:
    assert counts(text) is expected
