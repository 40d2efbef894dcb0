"""A large pack passes through in either direction without being held."""

from pathlib import Path

import anyio
import pytest

from tests.fakes.gateway import gateway_process
from tests.fakes.git_http_server import GitHttpServer, git, make_repository, run_git

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("direction", ["clone", "push"])
async def test_pack_of_200_mb_costs_little_memory(direction: str, tmp_path: Path) -> None:
    make_repository(tmp_path / "small.git")
    make_repository(tmp_path / "large.git", bytes_of_noise=200 << 20)

    with GitHttpServer(tmp_path) as upstream:
        peaks: list[int] = []
        for name in ("small.git", "large.git"):
            target = "small.git" if direction == "push" else name
            with gateway_process(upstream.url(target)) as (url, token, peak):
                header = ("-c", f"http.extraHeader=Authorization: Bearer {token}")
                if direction == "clone":
                    arguments = ("clone", "--bare", "--quiet", url, str(tmp_path / f"c-{name}"))
                else:
                    arguments = ("push", "--quiet", url, f"main:refs/heads/{name}")
                done = await anyio.to_thread.run_sync(
                    lambda: run_git(*header, *arguments, cwd=tmp_path / name, timeout_s=120)  # noqa: B023
                )
                assert done.returncode == 0, done.stderr
                peaks.append(peak())

    assert peaks[1] - peaks[0] <= 32 << 20, peaks
    if direction == "push":
        assert "refs/heads/large.git" in git("for-each-ref", cwd=tmp_path / "small.git")
