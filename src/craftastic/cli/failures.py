"""Ends of a command that are no error category of the product, and their exit codes."""

INTERRUPTED = 130


class Failure(Exception):
    """A command ends with this exit code and, where there is something to say, this sentence."""

    def __init__(self, message: str | None, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class TimedOut(Failure):
    """What was waited for did not come within the time the user gave."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 6)
