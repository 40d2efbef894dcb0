"""Which runtime a server uses, and that the others stay there for environments that have them."""

from pathlib import Path

import pytest

from craftastic.runtimes.base import Runtime
from craftastic.runtimes.memory import MemoryRuntime
from craftastic.runtimes.registry import FACTORIES, Runtimes, UnknownRuntime, build_runtimes
from craftastic.settings import Settings


def settings(folder: Path, **values: object) -> Settings:
    return Settings.model_validate(
        {"data_dir": folder, "docker_host": str(folder / "none.sock"), **values}
    )


@pytest.fixture
def made() -> list[str]:
    return []


@pytest.fixture
def runtimes(tmp_path: Path, made: list[str]) -> Runtimes:
    def factory(name: str) -> Runtime:
        made.append(name)
        return MemoryRuntime(name=name)

    return Runtimes(
        settings(tmp_path),
        "instance",
        "docker",
        "a test says so",
        {"docker": lambda _, __: factory("docker"), "local": lambda _, __: factory("local")},
    )


def test_a_runtime_is_made_when_it_is_first_asked_for_and_only_once(
    runtimes: Runtimes, made: list[str]
) -> None:
    assert made == []

    assert runtimes["local"] is runtimes["local"]
    assert runtimes.get("local") is runtimes["local"]

    assert made == ["local"]
    assert [runtime.name for runtime in runtimes.in_use] == ["local"]


def test_the_default_does_not_hide_the_others(runtimes: Runtimes) -> None:
    assert runtimes.default.name == "docker"
    assert runtimes["local"].name == "local"
    assert set(runtimes) == {"docker", "local"}


def test_a_runtime_nobody_has_is_refused(runtimes: Runtimes) -> None:
    assert "kubernetes" not in runtimes
    with pytest.raises(UnknownRuntime):
        runtimes["kubernetes"]


def test_looking_whether_there_is_a_runtime_makes_none(runtimes: Runtimes, made: list[str]) -> None:
    assert "local" in runtimes

    assert made == []


async def test_auto_takes_local_where_no_docker_answers(tmp_path: Path) -> None:
    runtimes = await build_runtimes(settings(tmp_path, runtime="auto"), "instance")

    assert runtimes.default_name == "local"
    assert "no Docker" in runtimes.reason
    assert runtimes["docker"].name == "docker"
    await runtimes.close()


@pytest.mark.parametrize("name", ["docker", "local"])
async def test_a_setting_is_followed_whatever_answers(tmp_path: Path, name: str) -> None:
    runtimes = await build_runtimes(settings(tmp_path, runtime=name), "instance")

    assert runtimes.default_name == name
    assert runtimes.default.name == name
    assert runtimes.in_use == (runtimes.default,)
    await runtimes.close()


def test_every_driver_has_the_name_it_is_registered_by(tmp_path: Path) -> None:
    for name, factory in FACTORIES.items():
        assert factory(settings(tmp_path), "instance").name == name
