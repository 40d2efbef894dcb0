"""The last bytes of a terminal's output, each with its number."""


class Ring:
    """Numbered bytes, of which the last `capacity` are kept.

    Pieces are kept as they came, so adding costs no copy; a reader gets one copy of what it asks.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.start = 0
        self.end = 0
        self._pieces: list[tuple[int, bytes]] = []
        self._first = 0

    def add(self, data: bytes) -> None:
        self._pieces.append((self.end, data))
        self.end += len(data)
        if self.end - self.start > self.capacity:
            self.start = self.end - self.capacity
            self._forget()

    def cut(self) -> None:
        """Forget everything: what comes next does not continue what was.

        One number is left out, so that nobody who has seen everything up to here takes what
        comes next for its continuation.
        """
        self._pieces.clear()
        self._first = 0
        self.end += 1
        self.start = self.end

    def read(self, number: int, limit: int) -> bytes:
        """Return at most `limit` bytes from byte `number` on.

        Raises:
            IndexError: The byte is no longer, or not yet, here.
        """
        if not self.start <= number <= self.end:
            raise IndexError(number)
        out: list[bytes] = []
        index = self._find(number)
        while limit > 0 and index < len(self._pieces):
            first, data = self._pieces[index]
            skipped = max(0, number - first)
            piece = data if skipped == 0 and len(data) <= limit else data[skipped : skipped + limit]
            out.append(piece)
            limit -= len(piece)
            index += 1
        return out[0] if len(out) == 1 else b"".join(out)

    def _find(self, number: int) -> int:
        """Return the index of the piece that holds byte `number` (most readers are at the end)."""
        index = len(self._pieces)
        while index > self._first and self._pieces[index - 1][0] > number:
            index -= 1
        return max(self._first, index - 1)

    def _forget(self) -> None:
        while self._pieces[self._first][0] + len(self._pieces[self._first][1]) <= self.start:
            self._pieces[self._first] = (self._pieces[self._first][0], b"")
            self._first += 1
        if self._first > 64:  # noqa: PLR2004 - moving the list for each piece would cost more
            del self._pieces[: self._first]
            self._first = 0
