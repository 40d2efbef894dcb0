"""Print the installed packages that Craftastic does not need to run: what tests and builds need."""

import re
from importlib.metadata import PackageNotFoundError, distribution, distributions

ROOTS = ("craftastic", "pip")
NAME = re.compile(r"[A-Za-z0-9._-]+")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed() -> set[str]:
    """Return what the roots need, and what that needs.

    Markers are not judged: whatever is installed and named counts, which is too much at most.
    """
    found: set[str] = set()
    waiting = list(ROOTS)
    while waiting:
        name = normal(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        waiting += [NAME.match(one)[0] for one in requires if "extra ==" not in one]
        if name == "sqlalchemy":
            waiting.append("greenlet")  # its extra `asyncio`
    return found


def main() -> None:
    installed = {normal(one.metadata["Name"]) for one in distributions()}
    for name in sorted(installed - needed()):
        print(name)


if __name__ == "__main__":
    main()
