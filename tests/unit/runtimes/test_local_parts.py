"""The parts of the local runtime that need no sandbox: identities, state, limits, mounts, rules."""

import os
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest

from craftastic.runtimes import _local_limits, _local_process
from craftastic.runtimes._local_launch import locked
from craftastic.runtimes._local_limits import Limits, confine, release, resource_limits
from craftastic.runtimes._local_mounts import (
    Folders,
    make_etc,
    make_run_folder,
    sandbox_arguments,
)
from craftastic.runtimes._local_process import Identity, State, read_state, write_state
from craftastic.runtimes._storage import storage_of
from craftastic.runtimes.base import RuntimeUnavailable
from craftastic.runtimes.local import firewall_rules

LIMITS = Limits(memory_bytes=1 << 30, cpus=1.5, pids=100)


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def test_a_process_is_told_from_another_with_its_number(child: int, tmp_path: Path, monkeypatch):
    identity = Identity.of(child)
    assert identity is not None
    assert identity.alive()

    assert not Identity(child, identity.started + 1, identity.boot, identity.namespace).alive()
    assert not Identity(child, identity.started, identity.boot, "pid:[1]").alive()
    monkeypatch.setattr(_local_process, "BOOT_ID", tmp_path / "boot")
    (tmp_path / "boot").write_text("another\n")
    assert not identity.alive()


def test_only_the_right_process_is_ended(child: int):
    identity = Identity.of(child)
    assert identity is not None

    assert Identity(child, identity.started + 1, identity.boot).end(1)
    assert identity.alive()
    assert identity.end(5)
    assert not identity.alive()
    assert identity.end(1)


def test_a_name_with_parentheses_does_not_confuse_the_start_time(tmp_path: Path):
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/usr/bin/sleep")
    with subprocess.Popen([str(program), "600"]) as process:
        identity = Identity.of(process.pid)
        other = Identity.of(os.getpid())
        process.kill()

    assert identity is not None
    assert other is not None
    assert identity.started > other.started


def test_the_state_is_read_as_it_was_written(tmp_path: Path):
    state = State("i", "e", "o", "n", Identity(1, 2, "b", "ns"), (Identity(3, 4, "b"),))

    write_state(tmp_path, state)

    assert read_state(tmp_path) == state
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"init": 1, "helpers": [2]}'])
def test_a_state_that_is_not_whole_is_none(tmp_path: Path, text: str):
    (tmp_path / "state.json").write_text(text)

    assert read_state(tmp_path) is None


def test_a_lock_is_held_by_one_only(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("craftastic.runtimes._local_launch.LOCK_S", 0.05)
    with locked(tmp_path), pytest.raises(RuntimeUnavailable), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_processes_are_limited_by_user_only_where_the_user_is_the_sandboxs_own():
    assert resource_limits(LIMITS, own_user=True)["RLIMIT_NPROC"] >= LIMITS.pids
    assert "RLIMIT_NPROC" not in resource_limits(LIMITS, own_user=False)
    assert resource_limits(LIMITS, own_user=False)["RLIMIT_CORE"] == 0


def test_the_old_hierarchies_are_written_one_by_one(tmp_path: Path):
    files = {
        "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        "pids": ("pids.max",),
        "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
    }
    for controller, names in files.items():
        group = tmp_path / controller / "craftastic" / "one"
        group.mkdir(parents=True)
        (tmp_path / controller / "tasks").touch()
        for name in names:
            (group / name).touch()

    assert confine("one", 42, LIMITS, tmp_path) == []

    group = tmp_path / "cpu/craftastic/one"
    assert (group / "cpu.cfs_quota_us").read_text() == "150000"
    assert (tmp_path / "pids/craftastic/one/pids.max").read_text() == "100"
    assert (tmp_path / "memory/craftastic/one/cgroup.procs").read_text() == "42"
    assert (
        tmp_path / "memory/craftastic/one/memory.memsw.limit_in_bytes"
    ).read_text() == f"{1 << 30}"


def test_the_unified_hierarchy_is_delegated_first(tmp_path: Path):
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids io\n")
    group = tmp_path / "craftastic/one"
    group.mkdir(parents=True)
    for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max"):
        (group / name).touch()

    assert confine("one", 42, LIMITS, tmp_path) == []

    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert (group / "cpu.max").read_text() == "150000 100000"
    assert (group / "memory.swap.max").read_text() == "0"


def test_what_cannot_be_limited_is_said_and_nothing_fails(tmp_path: Path):
    assert len(confine("one", 42, LIMITS, tmp_path)) == 3
    release("one", tmp_path)
    assert not _local_limits.may_limit(tmp_path)


def test_the_run_folder_is_emptied_without_following_links(tmp_path: Path):
    folders, environment = Folders(tmp_path), uuid4()
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").touch()
    run = make_run_folder(folders, environment, os.geteuid())
    (run / "link").symlink_to(victim)
    (run / "tmux.sock").touch()

    again = make_run_folder(folders, environment, os.geteuid())

    assert list(again.iterdir()) == []
    assert again.stat().st_mode & 0o777 == 0o700
    assert (victim / "kept").exists()


def test_the_made_etc_names_the_gateway_and_no_user_of_the_host(tmp_path: Path):
    make_etc(tmp_path / "local/etc", ["192.0.2.53"])
    make_etc(tmp_path / "local/etc", ["192.0.2.54"])

    etc = tmp_path / "local/etc"
    assert "127.0.0.1 craftastic-gateway" in (etc / "hosts").read_text()
    assert (etc / "resolv.conf").read_text().startswith("nameserver 192.0.2.54\n")
    assert len((etc / "passwd").read_text().splitlines()) == 3
    compile((etc / "craftastic/init.py").read_text(), "init.py", "exec")
    assert not [path for path in etc.rglob("*") if path.name.startswith(".new-")]


def test_a_sandbox_sees_of_the_host_only_what_is_named(tmp_path: Path):
    environment = uuid4()
    storage = storage_of(tmp_path, environment)
    arguments = sandbox_arguments(
        tmp_path / "etc", tmp_path / "tools", storage, tmp_path / "run", environment
    )

    sources = [
        after
        for word, after in pairwise(arguments)
        if word in {"--bind", "--ro-bind", "--dev-bind"}
    ]
    writable = [after for word, after in pairwise(arguments) if word == "--bind"]
    assert all(one.startswith(str(tmp_path)) for one in writable)
    for one in sources:
        assert one.startswith((str(tmp_path), "/usr", "/etc/", "/bin", "/sbin", "/lib")), one
    assert "--share-net" not in arguments
    for wanted in ("--disable-userns", "--as-pid-1", "--new-session", "--clearenv"):
        assert wanted in arguments


def test_the_gateway_and_the_name_servers_come_before_every_reject():
    rules = firewall_rules(3010, ["10.1.1.53", "2001:db8::53"], ipv6=False)

    first_reject = next(at for at, rule in enumerate(rules) if "REJECT" in rule)
    accepted = rules[:first_reject]
    assert ["-p", "tcp", "-d", "127.0.0.1", "--dport", "3010", "-j", "ACCEPT"] in accepted
    assert len(accepted) == 3
    assert not any("ACCEPT" in rule for rule in rules[first_reject:])
    assert not any("2001:db8::53" in rule for rule in rules)


def test_over_ipv6_there_is_no_gateway():
    rules = firewall_rules(3010, ["10.1.1.53"], ipv6=True)

    assert not any("ACCEPT" in rule for rule in rules)
    assert rules[0][:4] == ["-m", "addrtype", "--dst-type", "LOCAL"]
