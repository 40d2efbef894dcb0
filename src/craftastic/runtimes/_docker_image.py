"""The image of Docker sandboxes: found, fetched or built, with progress.

Without a registry of images the base is made from Debian's own packages; nothing is downloaded that
is not checked by a package manager.
"""

import contextlib
import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, cast

import anyio
import structlog
from aiodocker import DockerError

from craftastic.runtimes._agent_tools import recipe
from craftastic.runtimes._docker_engine import Engine, EngineRefused, Json, unavailable
from craftastic.runtimes.base import Progress, Report, RuntimeUnavailable

VERSION_LABEL = "craftastic.image-version"
OWN_REPOSITORY = "craftastic-sandbox"
"""Images of this name are built here; any other name is the operator's own image."""

REGISTRY_BASE = "debian:bookworm-slim"
LOCAL_BASE = "craftastic-base:bookworm"
SUITE = "bookworm"
HOST_AUTHORITIES = Path("/usr/local/share/ca-certificates")
"""Where Debian keeps the authorities that a host's operator added: update-ca-certificates(8)."""

MAX_CA_BYTES = 4 << 20
BUILD_S = 1800.0
BASE_S = 900.0
PULL_S = 900.0
REGISTRY_ANSWER_S = 20.0
"""How long a registry may stay silent at first before there is none, in seconds."""

CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n.+?-----END CERTIFICATE-----", re.DOTALL
)
STEP = re.compile(r"step (\d+)/(\d+) ?: ?(.*)", re.IGNORECASE)

log = structlog.get_logger(__name__)


def sources(agents: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the files of the build, by name, as the package carries them.

    Args:
        agents: Whose command lines the image shall have.
    """
    folder = resources.files("craftastic.runtimes").joinpath("image")
    own = ("Dockerfile", "node-requirements.txt")
    tools = {f"agents/{name}": content for name, content in recipe(agents).items()}
    return {**{name: folder.joinpath(name).read_bytes() for name in own}, **tools}


def authorities(bundle: Path | None, host: Path = HOST_AUTHORITIES) -> list[bytes]:
    """Return the extra certificate authorities: of the bundle, else those added to this host.

    Raises:
        RuntimeUnavailable: The bundle cannot be read or holds no certificate.
    """
    if bundle is None:
        text = b"\n".join(_read_some(path) for path in sorted(host.glob("**/*.crt")))
    else:
        try:
            text = bundle.read_bytes()
        except OSError as error:
            raise RuntimeUnavailable(
                f"CRAFTASTIC_IMAGE_CA_BUNDLE cannot be read: {error.strerror}."
            ) from error
    found = list(dict.fromkeys(CERTIFICATE.findall(text[:MAX_CA_BYTES])))
    if bundle is not None and not found:
        raise RuntimeUnavailable("CRAFTASTIC_IMAGE_CA_BUNDLE holds no PEM certificate.")
    return found


def _read_some(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()[:MAX_CA_BYTES]
    return b""


def context(files: Mapping[str, bytes], certificates: list[bytes]) -> bytes:
    """Return the build's context as a tar archive: the files, and a folder of authorities.

    Files in a folder of programs (`bin`) may be run.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("ca", "agents"):  # either may be empty
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        extra = {f"ca/craftastic-{n:03}.crt": cert + b"\n" for n, cert in enumerate(certificates)}
        for name, content in {**files, **extra}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if "/bin/" in name else 0o644
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def version(files: Mapping[str, bytes], certificates: list[bytes], base: str | None) -> str:
    """Return what tells one image's recipe from another's."""
    digest = hashlib.sha256()
    for part in (*(files[name] for name in sorted(files)), *certificates, (base or "").encode()):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ImageBuilder:
    """Sees to it that the sandbox image is there.

    Args:
        name: The image's name and tag.
        base: Base image that the operator wants, or None.
        ca_bundle: File of extra certificate authorities, or None for those added to this host.
        agents: Whose command lines the image has.
    """

    engine: Engine
    name: str
    base: str | None
    ca_bundle: Path | None
    agents: tuple[str, ...] = ()
    _one_at_a_time: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def is_ours(self) -> bool:
        return self.name.partition(":")[0] == OWN_REPOSITORY

    async def find(self) -> Json | None:
        """Return what the engine knows of the image, or None; asks the engine only."""
        return await self.engine.get(f"images/{self.name}/json", "looking for the image")

    def is_current(self, image: Json) -> bool:
        """Report whether the image was made from today's recipe; an operator's own always is."""
        return not self.is_ours or label_of(image) == self._version()

    async def ensure(self, report: Report) -> str:
        """Return the id of the image, made first where it is missing or outdated.

        Raises:
            RuntimeUnavailable: It cannot be made; the message says why and what to do.
        """
        async with self._one_at_a_time:
            image = await self.find()
            if image is not None and self.is_current(image):
                return str(image["Id"])
            if not self.is_ours:
                await report(Progress("image", f"Fetching the image {self.name}"))
                await self._pull(self.name, report)
            else:
                await self.build(report)
                await self._forget(image)
            image = await self.find()
        if image is None:
            raise RuntimeUnavailable(f"The image {self.name} was made and is gone again.")
        return str(image["Id"])

    async def build(self, report: Report) -> None:
        """Build the image, whether or not it is there.

        Raises:
            RuntimeUnavailable: A step failed; the message has the end of its output.
        """
        files, certificates = sources(self.agents), authorities(self.ca_bundle)
        base = await self._base(report)
        log.info("image.build", image=self.name, base=base)
        with io.BytesIO(context(files, certificates)) as packed:
            async with self._border("building the sandbox image", BUILD_S) as docker:
                stream = docker.images.build(
                    fileobj=packed,
                    encoding="identity",
                    tag=self.name,
                    rm=True,
                    forcerm=True,
                    buildargs={"BASE_IMAGE": base},
                    labels={VERSION_LABEL: self._version()},
                    stream=True,
                )
                await _follow(stream, report)
        await report(Progress("image", "The sandbox image is ready", 100))

    def _version(self) -> str:
        return version(sources(self.agents), authorities(self.ca_bundle), self.base)

    async def _base(self, report: Report) -> str:
        """Return the name of a base image that is there: wanted, made before, fetched or made."""
        if self.base is not None:
            if await self._has(self.base):
                return self.base
            await report(Progress("image", f"Fetching the base image {self.base}"))
            await self._pull(self.base, report)
            return self.base
        for name in (LOCAL_BASE, REGISTRY_BASE):
            if await self._has(name):
                return name
        await report(Progress("image", f"Fetching the base image {REGISTRY_BASE}"))
        try:
            await self._pull(REGISTRY_BASE, report)
        except RuntimeUnavailable as error:
            log.info("image.no_registry", reason=error.message)
        else:
            return REGISTRY_BASE
        await report(
            Progress("image", "No image registry answers: making the base from Debian's packages")
        )
        await self.make_base()
        return LOCAL_BASE

    async def _has(self, name: str) -> bool:
        return await self.engine.get(f"images/{name}/json", "looking for an image") is not None

    async def _pull(self, name: str, report: Report) -> None:
        repository, _, tag = name.rpartition(":")
        if not repository or "/" in tag:
            repository, tag = name, "latest"
        heard = False
        with anyio.CancelScope() as waiting:
            waiting.deadline = anyio.current_time() + REGISTRY_ANSWER_S
            async with self._border(f"fetching {name}", PULL_S) as docker:
                stream = docker.images.pull(repository, tag=tag, stream=True)
                async with contextlib.aclosing(cast("AsyncGenerator[Json]", stream)) as lines:
                    async for line in lines:
                        if not heard:
                            heard, waiting.deadline = True, float("inf")
                        if (status := str(line.get("status", ""))) and "id" not in line:
                            await report(Progress("image", status[:200]))
        if waiting.cancelled_caught:
            raise RuntimeUnavailable(f"No image registry answered for {name}.")

    async def make_base(self) -> None:
        """Make the base image from Debian's packages and give it to the engine.

        Raises:
            RuntimeUnavailable: The tool is missing or failed, or the engine refused its result.

        Source: mmdebstrap(1); Engine API, `POST /images/create?fromSrc=-`.
        """
        tool = shutil.which("mmdebstrap")
        if tool is None:
            raise RuntimeUnavailable(
                "No image registry answers, and mmdebstrap, which could make the base image, is "
                "not installed. Install it, or set CRAFTASTIC_IMAGE_BASE to an image that is there."
            )
        argv = [tool, "--quiet", "--variant=minbase", "--format=tar", SUITE, "-"]
        with tempfile.TemporaryFile() as errors:
            process = await anyio.open_process(argv, stdin=subprocess.DEVNULL, stderr=errors)
            async with process:
                assert process.stdout is not None
                await self._import(_chunks(process.stdout))
            errors.seek(0)
            said = errors.read(MAX_CA_BYTES).decode(errors="replace").strip()[-400:]
        if process.returncode != 0:
            await self._forget(await self.engine.get(f"images/{LOCAL_BASE}/json", "base image"))
            raise RuntimeUnavailable(f"mmdebstrap could not make the base image: {said}")

    async def _import(self, archive: AsyncIterator[bytes]) -> None:
        repository, _, tag = LOCAL_BASE.partition(":")
        async with (
            self._border("importing the base image", BASE_S) as docker,
            docker._query(  # noqa: SLF001
                "images/create",
                "POST",
                params={"fromSrc": "-", "repo": repository, "tag": tag},
                data=archive,
                headers={"Content-Type": "application/x-tar"},
                timeout=None,
                chunked=True,
            ) as answer,
        ):
            await answer.read()

    async def _forget(self, image: Json | None) -> None:
        """Remove an image that nothing uses any more; one that is in use stays."""
        if image is not None:
            with contextlib.suppress(EngineRefused):
                async with self.engine.border("removing an old image") as docker:
                    await docker.images.delete(str(image["Id"]))

    @contextlib.asynccontextmanager
    async def _border(self, doing: str, timeout_s: float) -> AsyncGenerator[Any]:
        try:
            async with self.engine.border(doing, timeout_s) as docker:
                yield docker
        except EngineRefused as error:
            raise unavailable(error, doing) from error


def label_of(image: Json) -> str | None:
    """Return the recipe that an image was made from, as its label says."""
    labels = cast("dict[str, str]", (image.get("Config") or {}).get("Labels") or {})
    return labels.get(VERSION_LABEL)


async def _follow(stream: Any, report: Report) -> None:
    """Report a build's steps; on failure say the end of what the step printed."""
    last: list[str] = []
    try:
        async with contextlib.aclosing(stream) as lines:
            async for line in lines:
                for text in _texts(line):
                    last = [*last[-9:], text]
                    if match := STEP.match(text):
                        number, total = int(match[1]), int(match[2])
                        what = match[3][:120]
                        await report(
                            Progress(
                                "image",
                                f"Building the sandbox image, step {number} of {total}: {what}",
                                100 * (number - 1) // max(total, 1),
                            )
                        )
    except DockerError as error:
        tail = " | ".join(last)[-600:]
        raise RuntimeUnavailable(
            f"The sandbox image could not be built: {error.message[:200]}. It said last: {tail}"
        ) from error


def _texts(line: Json) -> Iterator[str]:
    for text in str(line.get("stream", "")).splitlines():
        if text.strip():
            yield text.strip()


async def _chunks(source: Any) -> AsyncIterator[bytes]:
    async for chunk in source:
        yield chunk
