"""A terminal's output as viewers get it: filtered, numbered, its modes followed. Sans-I/O."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from craftastic.terminals._filter import OutputFilter
from craftastic.terminals._modes import Modes, ModeTracker
from craftastic.terminals._ring import Ring
from craftastic.terminals._sgr import PLAIN

RING_BYTES = 1 << 20
SHELLS = frozenset({"bash", "zsh", "fish"})
"""They ask for bracketed pastes at every prompt."""
BRACKETED_PASTE = 2004


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the output at which a snapshot fits.

    Args:
        number: The byte that follows the snapshot.
        epoch: Which unbroken run of bytes it belongs to.
        modes: What the bytes before it left behind.
        open_command: Viewers are in the middle of a command there.
        held: So many bytes more were received and wait for what completes them.
    """

    number: int
    epoch: int
    modes: Modes
    open_command: bool = False
    held: int = 0


class Output:
    def __init__(self, clock: Callable[[], float], capacity: int = RING_BYTES) -> None:
        self.ring = Ring(capacity)
        self.tracker = ModeTracker()
        self.epoch = 0
        self.watched = False
        """Whether the modes were followed before."""
        self._clock = clock
        self._filter = OutputFilter()

    def receive(self, data: bytes) -> bool:
        """Take raw bytes of the pane; tell whether viewers have something new."""
        text = self._filter.feed(data, self._clock())
        if not text:
            return False
        self.tracker.feed(text)
        self.ring.add(text)
        return True

    def mark(self) -> Mark:
        """Return the place after everything that was received."""
        return Mark(
            self.ring.end,
            self.epoch,
            self.tracker.now(),
            open_command=self._filter.in_osc,
            held=self._filter.held,
        )

    def cut(self) -> None:
        """Bytes are missing here: whoever watches needs a snapshot."""
        self.epoch += 1
        self.ring.cut()
        modes = replace(
            self.tracker.now(), rendition=PLAIN, saved_rendition=PLAIN, link=b"", shifted=False
        )
        self.tracker = ModeTracker(modes)
        self._filter = OutputFilter()

    def prime(self, pending: bytes) -> bytes:
        """Begin after a snapshot with the sequence that was open in it; return its visible part.

        Raises nothing; `cut` comes before it.
        """
        return self._filter.feed(pending, self._clock())


def recall(saved: str, command: str) -> Modes:
    """Guess the modes of a pane that nobody watched for a while.

    Args:
        saved: What `remember` returned when it was watched last, or anything.
        command: The program in the foreground now.
    """
    known, _, dump = saved.partition(" ")
    if known and known == _word(command):
        return Modes.load(dump)
    if command.lstrip("-") in SHELLS:
        return Modes(private=frozenset({BRACKETED_PASTE}))
    return Modes()


def remember(modes: Modes, command: str) -> str:
    """Return, as plain text, what `recall` needs."""
    return f"{_word(command)} {modes.dump()}"


def _word(command: str) -> str:
    return "".join(c for c in command if c.isascii() and (c.isalnum() or c in "._-"))[:64]
