"""Names of runtimes and how each is made; the one place that knows all drivers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio
import structlog

from craftastic.errors import InvalidInput
from craftastic.runtimes.base import Report, Runtime, no_report
from craftastic.runtimes.local import LocalRuntime
from craftastic.settings import Settings

if TYPE_CHECKING:
    from craftastic.runtimes.docker import DockerRuntime

Factory = Callable[[Settings, str], Runtime]


def _docker(settings: Settings, instance: str) -> "DockerRuntime":
    # Its client takes a tenth of the time and of the memory of a start.
    from craftastic.runtimes.docker import DockerRuntime  # noqa: PLC0415

    return DockerRuntime(settings, instance)


FACTORIES: Final[Mapping[str, Factory]] = {
    "docker": _docker,
    "local": LocalRuntime,
}
"""One line for each driver."""

CLOSE_S = 10.0

log = structlog.get_logger(__name__)


class UnknownRuntime(InvalidInput):
    """A stored or wanted runtime that this server does not have."""

    code = "UNKNOWN_RUNTIME"


@dataclass(frozen=True, slots=True)
class Runtimes(Mapping[str, Runtime]):
    """The runtimes of this server, each made when it is first asked for.

    An environment keeps the runtime it was made with, whatever the default is today.

    Args:
        settings: Handed to each driver.
        instance: This installation's id.
        default_name: Runtime of new environments.
        reason: Why it is that one, in plain words.
        factories: Name to factory.
        refused: Name to the reason why the start-up self-test failed.
    """

    settings: Settings
    instance: str
    default_name: str
    reason: str
    factories: Mapping[str, Factory] = field(default_factory=lambda: FACTORIES)
    _made: dict[str, Runtime] = field(default_factory=dict[str, Runtime])
    refused: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def default(self) -> Runtime:
        """Return the runtime of new environments."""
        return self[self.default_name]

    @property
    def only_one_user(self) -> str | None:
        """Return why sandboxes here are for one person alone; None when they are not."""
        if getattr(self.default, "single_user", False):
            return (
                "Sandboxes of this server cannot be kept apart by user: it does not run as root "
                "and has no Docker, so it serves one person."
            )
        return None

    def __getitem__(self, name: str) -> Runtime:
        """Return the runtime of that name.

        Raises:
            UnknownRuntime: There is none.
        """
        if name not in self._made:
            factory = self.factories.get(name)
            if factory is None:
                raise UnknownRuntime(f"This server has no runtime named {name!r}.")
            self._made[name] = factory(self.settings, self.instance)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        # Mapping's own would make the driver to find out.
        return name in self.factories

    def __iter__(self) -> Iterator[str]:
        return iter(self.factories)

    def __len__(self) -> int:
        return len(self.factories)

    @property
    def in_use(self) -> tuple[Runtime, ...]:
        """Return the runtimes that somebody asked for."""
        return tuple(self._made.values())

    async def close(self) -> None:
        """Let go of all connections; sandboxes go on."""
        for runtime in self.in_use:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await runtime.close()


async def build_runtimes(settings: Settings, instance: str) -> Runtimes:
    """Return this server's runtimes; `auto` takes Docker when it answers, else `local`.

    Args:
        settings: The server's settings.
        instance: This installation's id.
    """
    name, reason = settings.runtime, "CRAFTASTIC_RUNTIME says so"
    runtimes = Runtimes(settings, instance, name, reason)
    if name == "auto":
        docker = _docker(settings, instance)
        if await docker.answers():
            name, reason = "docker", "Docker answers"
        else:
            name, reason = "local", "no Docker answers"
        runtimes = Runtimes(settings, instance, name, reason, _made={"docker": docker})
    log.info("runtime.chosen", runtime=name, reason=reason)
    return runtimes


async def install_agent_tools(runtime: Runtime, report: Report = no_report) -> None:
    """Install the agents' command lines for a runtime whose sandboxes use this host's programs.

    Raises:
        RuntimeUnavailable: It is not possible; the message says why and what to do.
    """
    if isinstance(runtime, LocalRuntime):
        await runtime.install_tools(report)


async def build_image(settings: Settings, report: Report = no_report) -> None:
    """Build the image of Docker sandboxes anew, for `craftastic image build`.

    Raises:
        RuntimeUnavailable: No engine answers, or a step failed; the message says why.
    """
    docker = _docker(settings, "")
    try:
        await docker.build_image(report)
    finally:
        await docker.close()
