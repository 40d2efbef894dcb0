import json
import os
import stat
from pathlib import Path

import anyio
import pytest

from craftastic.cli import store
from craftastic.cli.store import SignIn, SignIns, SignInsLocked, SignInsUnreadable

URL = "http://127.0.0.1:3000"
SIGN_IN = SignIn("access", "refresh", 1.0, 900.0, "u", "a@example.com", "A")


@pytest.fixture
def sign_ins(tmp_path: Path) -> SignIns:
    return SignIns(tmp_path / "config" / "craftastic")


def test_what_was_put_is_found_by_its_server(sign_ins: SignIns) -> None:
    sign_ins.put(URL, SIGN_IN, current=True)
    sign_ins.put("https://other.example.com", SIGN_IN)

    assert sign_ins.find(URL) == SIGN_IN
    assert sign_ins.find("https://absent.example.com") is None
    assert sign_ins.current() == URL


def test_forgetting_leaves_the_others(sign_ins: SignIns) -> None:
    sign_ins.put(URL, SIGN_IN)
    sign_ins.put("https://other.example.com", SIGN_IN)

    sign_ins.forget(URL)
    sign_ins.forget(URL)

    assert sign_ins.find(URL) is None
    assert sign_ins.find("https://other.example.com") == SIGN_IN


def test_the_file_is_the_users_alone_whatever_the_umask(sign_ins: SignIns) -> None:
    before = os.umask(0)
    try:
        sign_ins.put(URL, SIGN_IN)
    finally:
        os.umask(before)

    assert stat.S_IMODE(sign_ins.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(sign_ins.folder.stat().st_mode) == 0o700
    assert [path.name for path in sign_ins.folder.iterdir()] == ["contexts.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"contexts": []}', '{"contexts": {"x": {}}}'])
def test_a_damaged_file_is_told_and_left_alone(sign_ins: SignIns, text: str) -> None:
    sign_ins.folder.mkdir(parents=True)
    sign_ins.path.write_text(text)

    with pytest.raises(SignInsUnreadable, match="remove the file"):
        sign_ins.find("x")
    assert sign_ins.path.read_text() == text


async def test_only_one_holds_the_lock(sign_ins: SignIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.1)

    async with sign_ins.lock():
        with pytest.raises(SignInsLocked):
            async with SignIns(sign_ins.folder).lock():
                raise AssertionError("two hold it")
    async with sign_ins.lock():
        pass


async def test_a_waiting_command_gets_the_lock_when_it_is_free(sign_ins: SignIns) -> None:
    order: list[str] = []
    held = anyio.Event()

    async def second() -> None:
        await held.wait()
        async with SignIns(sign_ins.folder).lock():
            order.append("second")

    async with anyio.create_task_group() as group:
        group.start_soon(second)
        async with sign_ins.lock():
            held.set()
            await anyio.lowlevel.checkpoint()
            order.append("first")

    assert order == ["first", "second"]


def test_nothing_else_stands_in_the_file(sign_ins: SignIns) -> None:
    sign_ins.put(URL, SIGN_IN, current=True)

    assert set(json.loads(sign_ins.path.read_text())) == {"current", "contexts"}
