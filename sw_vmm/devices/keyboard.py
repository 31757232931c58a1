"""Console input that is tied to console output, so that it means the same under every technique."""

from collections import deque

__all__ = ["Keyboard"]


class Keyboard:
    """Keys that wait for texts to appear in ``output``, a growing buffer."""

    def __init__(self, output: bytearray):
        self._output = output
        self._keys: deque[tuple[bytes, deque[int]]] = deque()
        #: Where the first text is looked for; None when it was found.
        self._from: int | None = 0
        self._found_end = 0

    def type_after(self, text: bytes, keys: bytes) -> None:
        """Keys for when ``text`` has appeared behind the texts of the calls before."""
        if keys:
            self._keys.append((text, deque(keys)))

    @property
    def waits(self) -> bool:
        """There are keys still to come."""
        return bool(self._keys)

    def next_key(self) -> int | None:
        """The key that is due, which it gives once; None when there is none now."""
        if not self._keys:
            return None
        text, keys = self._keys[0]
        if self._from is not None:
            at = self._output.find(text, self._from)
            if at < 0:
                # Only the tail can still become part of the text.
                self._from = max(self._found_end, len(self._output) - len(text) + 1)
                return None
            self._found_end, self._from = at + len(text), None
        key = keys.popleft()
        if not keys:
            self._keys.popleft()
            self._from = self._found_end
        return key
