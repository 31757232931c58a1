"""Console input tied to output: what the C++ harness does for the library, in Python."""

from collections import deque

__all__ = ["Console"]


class Console:
    """The console's bytes, the texts that are waited for, and the keys that are due.

    Members
    -------
    sent : bytearray
        Everything the UART has sent.
    keys : deque of int
        Keys to deliver, each when the UART has none left.
    stopped : bool
        The text given to ``stop_at`` has appeared and nobody has taken note yet.
    """

    def __init__(self):
        self.sent = bytearray()
        self.keys = deque()
        self.stopped = False
        self._stop_text = b""
        self._triggers = deque()
        self._searched = 0

    def send(self, byte: int) -> None:
        """The UART has sent a byte."""
        self.sent.append(byte)
        if self._stop_text and self.sent.endswith(self._stop_text):
            self._stop_text, self.stopped = b"", True
        self._match()

    def stop_at(self, text: bytes) -> None:
        """Set ``stopped`` once, when ``text`` has appeared; an empty text disarms."""
        self._stop_text = text
        if text and text in self.sent:
            self._stop_text, self.stopped = b"", True

    def type_after(self, text: bytes, keys: bytes) -> None:
        """Make ``keys`` due once ``text`` has appeared behind the text of the call before."""
        self._triggers.append((text, keys))
        self._match()

    def _match(self) -> None:
        while self._triggers:
            text, keys = self._triggers[0]
            place = self.sent.find(text, self._searched)
            if place < 0:
                return
            self._searched = place + len(text)
            self.keys.extend(keys)
            self._triggers.popleft()
