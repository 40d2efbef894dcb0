"""Time git through the gateway beside git straight to its server, and the gateway's memory.

Run from the project's root: `python -m bench.gateway [MIB]` (default 1024). Everything happens on
this machine: `git http-backend` on loopback, a repository of one incompressible file, and the
gateway in a process of its own, new for each measurement.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.fakes.gateway import gateway_process
from tests.fakes.git_http_server import GitHttpServer, git, make_repository

TIMEOUT_S = 900


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main(mib: int) -> None:
    """Measure a clone and a push, each directly and through the gateway."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder)
        make_repository(root / "small.git")
        make_repository(root / "large.git", bytes_of_noise=mib << 20)
        with GitHttpServer(root) as server:
            for what in ("clone", "push"):
                measure(what, root, server, mib)


def measure(what: str, root: Path, server: GitHttpServer, mib: int) -> None:
    def arguments(url: str, way: str) -> tuple[str, ...]:
        if what == "clone":
            return "clone", "--quiet", "--bare", url, str(root / f"{way}.clone")
        return "push", "--quiet", url, f"main:refs/heads/{way}"

    def run(url: str, way: str, *options: str) -> float:
        source = root / "large.git"
        return timed(lambda: git(*options, *arguments(url, way), cwd=source, timeout_s=TIMEOUT_S))

    target = "large.git" if what == "clone" else "small.git"
    # Each way pushes into a repository of its own, so that neither finds the objects there.
    fresh = target
    if what == "push":
        make_repository(root / "direct.git")
        fresh = "direct.git"
    with gateway_process(server.url("small.git")) as (url, token, peak):
        git("-c", f"http.extraHeader=Authorization: Bearer {token}", "ls-remote", url)
        base = peak()
    direct = run(server.url(fresh), "direct")
    with gateway_process(server.url(target)) as (url, token, peak):
        option = f"http.extraHeader=Authorization: Bearer {token}"
        through = run(url, "through", "-c", option)
        grown = peak()
    print(
        f"{what} {mib} MiB: direct {direct:.2f} s, gateway {through:.2f} s "
        f"({mib / through:.0f} MiB/s); memory {base >> 20} MiB before, {grown >> 20} MiB at most"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
