"""Archives for Linux's initial RAM file system: cpio, format newc."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Entry", "newc_archive"]

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_ALIGNMENT = 4


@dataclass(frozen=True)
class Entry:
    """A file, a folder or a device of the archive.

    ``mode`` holds type and permissions as ``stat`` has them; ``device`` is (major, minor) of a
    device's own number. Folders stand before what lies in them.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def newc_archive(entries: Iterable[Entry]) -> bytes:
    """The archive. Its bytes depend on the entries alone: owner is root, and time is zero.

    Raises ValueError when a path does not stand relative to the root, or when two are the same.
    """
    archive = bytearray()
    seen = set()
    for number, entry in enumerate(entries, start=1):
        if not entry.path or entry.path.startswith("/") or entry.path in seen:
            raise ValueError(f"{entry.path!r} is no relative path of its own")
        seen.add(entry.path)
        archive += _record(entry, number, links=2 if stat.S_ISDIR(entry.mode) else 1)
    return bytes(archive + _record(Entry(_TRAILER, 0), 0, links=1))


def _record(entry, number, links):
    name = entry.path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device of the file (2), own device (2), name,
    # checksum (of another format).
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device,
              len(name), 0)  # fmt: skip
    header = _MAGIC + b"".join(b"%08x" % value for value in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data):
    return data + bytes(-len(data) % _ALIGNMENT)
