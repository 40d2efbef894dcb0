"""`craftastic image build`."""

from craftastic.cli.progress import checklist
from craftastic.runtimes.base import Progress
from craftastic.settings import Settings


async def build(settings: Settings) -> None:
    """Build the sandbox image while its progress is shown.

    Raises:
        RuntimeUnavailable: The engine does not answer, or a step failed.
    """
    from craftastic.runtimes.registry import build_image

    with checklist() as shown:

        async def report(progress: Progress) -> None:
            shown.show(progress.step, progress.message, progress.percent)

        await build_image(settings, report)
        shown.finish()
    print(f"The image {settings.sandbox_image} is ready.")
