"""The files in deploy/ for running the server: they parse, and say what the code needs."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from craftastic.cli.serve import EXIT_S
from craftastic.database import Database
from craftastic.settings import Settings
from tests.conftest import PostgresServer, missing

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "craftastic.service"


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is not here")
    program = tmp_path / "craftastic"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text().replace("/opt/craftastic/.venv/bin/craftastic", str(program))
    (tmp_path / "craftastic.service").write_text(text)

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "craftastic.service")],
        capture_output=True,
        text=True,
        check=False,
    )

    said = [line for line in done.stderr.splitlines() if "craftastic" in line]
    assert (done.returncode, said) == (0, [])


def test_the_unit_ends_no_sandbox_and_gives_the_end_its_time() -> None:
    service = unit()["Service"]

    assert service["KillMode"] == "process"
    assert service["KillSignal"] == "SIGTERM"
    assert service["Delegate"] == "yes"
    assert seconds(service["TimeoutStopSec"]) > EXIT_S
    assert "Requires" not in unit()["Unit"]  # an engine that restarts must not end the server


def test_the_unit_waits_for_the_server_and_brings_it_back() -> None:
    service = unit()["Service"]

    assert (service["Type"], service["TimeoutStartSec"]) == ("notify", "infinity")
    assert service["Restart"] == "always"
    assert service["StateDirectory"] == "craftastic"  # as root: default_data_dir()
    assert service["ExecStart"].endswith("craftastic serve")


def test_the_unit_leaves_the_local_runtime_what_it_needs() -> None:
    service = unit()["Service"]

    breaking = {
        "NoNewPrivileges", "CapabilityBoundingSet", "User", "DynamicUser", "PrivateTmp",
        "PrivateMounts", "ProtectSystem", "ProtectHome", "RestrictNamespaces", "SystemCallFilter",
        "PrivateDevices", "ProtectControlGroups", "MemoryDenyWriteExecute", "PrivateUsers",
        "PrivateNetwork", "ProtectProc", "ProcSubset", "ProtectKernelTunables", "RestrictSUIDSGID",
        "InaccessiblePaths", "ReadOnlyPaths", "ProtectHostname",
    }  # fmt: skip
    assert breaking & set(service) == set()
    families = service["RestrictAddressFamilies"].split()
    assert {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"} <= set(families)


def test_the_composition_keeps_the_database_to_itself() -> None:
    database = compose()["services"]["database"]

    assert database["network_mode"] == "none"
    assert "ports" not in database
    assert "listen_addresses=" in database["command"]


def test_the_composition_gives_the_server_what_it_needs_and_no_more() -> None:
    server = compose()["services"]["server"]

    assert server["network_mode"] == "host"
    assert server["cap_drop"] == ["ALL"]
    assert set(server["cap_add"]) == {"NET_ADMIN", "NET_RAW", "CHOWN", "DAC_OVERRIDE", "FOWNER"}
    assert "privileged" not in server
    assert seconds(server["stop_grace_period"]) > EXIT_S
    data_dir = server["environment"]["CRAFTASTIC_DATA_DIR"]
    assert f"{data_dir}:{data_dir}" in server["volumes"]  # the engine mounts by the host's paths


def test_the_compositions_settings_are_settings() -> None:
    given = compose()["services"]["server"]["environment"]
    known = {
        str(choice)
        for name, field in Settings.model_fields.items()
        for choice in (
            getattr(field.validation_alias, "choices", None) or [f"CRAFTASTIC_{name}".upper()]
        )
    }

    assert set(given) <= known
    examples = re.findall(r"(?m)^#?([A-Z_]+)=", (DEPLOY / "craftastic.env.example").read_text())
    assert examples
    assert set(examples) <= known
    assert Settings.model_validate({"database_url": given["DATABASE_URL"]}).sqlalchemy_url


@pytest.mark.postgres
async def test_a_databases_socket_is_an_address(postgres_server: PostgresServer) -> None:
    # As in the composition: the folder of the socket is the query's host, and there is no port.
    name = postgres_server.create()
    url = (
        f"postgresql://craftastic@/{name}?host={postgres_server.folder}&port={postgres_server.port}"
    )
    database = Database(Settings.model_validate({"database_url": url}).sqlalchemy_url)
    try:
        await database.ping()
    finally:
        await database.close()
        postgres_server.drop(name)


def test_the_image_is_made_of_files_that_are_there() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]

    assert copied
    assert all((DEPLOY.parent / word).exists() for word in copied)
    assert any("--require-hashes" in line for line in lines)


def test_the_build_is_given_what_it_needs_and_nothing_of_the_operators() -> None:
    lines = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in lines if line.startswith("!")]

    assert "*" in lines
    assert all((DEPLOY.parent / name).exists() for name in let_in)
    assert {"deploy/ca", "requirements.lock", "tools.lock", "src", "web"} <= set(let_in)
    assert {".env", ".git", "."} & set(let_in) == set()


def test_the_images_health_is_asked_at_the_servers_port() -> None:
    (line,) = re.findall(r"import os, urllib\.request.*", (DEPLOY / "Dockerfile").read_text())
    default = Settings.model_fields["port"].default

    assert f'os.environ.get(\\"CRAFTASTIC_PORT\\", {default})' in line
    assert "/healthz" in line


def test_every_secret_of_the_composition_is_in_the_file_of_settings() -> None:
    server = compose()["services"]["server"]

    assert server["env_file"] == "${CRAFTASTIC_ENV_FILE:-/etc/craftastic.env}"
    assert "command" not in server
    secret = re.compile("SECRET|TOKEN|KEY|PASSWORD|SMTP")
    assert [name for name in server["environment"] if secret.search(name)] == []


def test_what_only_developers_need_is_told_apart() -> None:
    done = subprocess.run(
        [sys.executable, str(DEPLOY.parent / "scripts" / "tools_only.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    tools = set(done.stdout.split())

    assert {"pytest", "ruff", "pyright", "playwright", "schemathesis"} <= tools
    ours = re.findall(r'(?m)^    "([a-z0-9-]+)', (DEPLOY.parent / "pyproject.toml").read_text())
    runtime = set(ours[: ours.index("websockets") + 1])
    assert {"fastapi", "sqlalchemy", "uvicorn"} <= runtime
    assert tools & {*runtime, "greenlet", "starlette", "pydantic", "craftastic", "mako"} == set()
