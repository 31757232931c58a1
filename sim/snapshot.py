"""The file a machine is saved to: a header in JSON, and the state and the RAM behind it."""

import hashlib
import json
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

from sim.errors import VmxlabError

__all__ = ["SnapshotError", "read_snapshot", "write_snapshot"]

_MAGIC = b"vmxlab snapshot 1\n"
_LENGTH = struct.Struct("<Q")
#: RAM is mostly zeros: the lowest level is fast and finds them.
_LEVEL = 1


class SnapshotError(VmxlabError):
    """A snapshot that cannot be written or used; the message names the file."""


def write_snapshot(path: Path, header: dict, state: bytes, ram: bytes | memoryview) -> None:
    """Write a snapshot; a file of that name is replaced in one step, when the new one is whole.

    Raises SnapshotError when it cannot be written.
    """
    body = zlib.compress(state, _LEVEL), zlib.compress(ram, _LEVEL)
    about = {
        **header,
        "parts": [len(part) for part in body],
        "sha256": hashlib.sha256(b"".join(body)).hexdigest(),
    }
    text = json.dumps(about).encode()
    path = Path(path)
    try:
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with fresh.open("wb") as file:
                file.write(_MAGIC + _LENGTH.pack(len(text)) + text)
                file.writelines(body)
            os.replace(fresh, path)
        except BaseException:
            with suppress(OSError):
                fresh.unlink()
            raise
    except OSError as error:
        raise SnapshotError(f"cannot write the snapshot {path}: {error.strerror}") from error


def read_snapshot(path: Path) -> tuple[dict, bytes, bytes]:
    """Header, state and RAM. Raises SnapshotError when the file is not a whole snapshot."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SnapshotError(f"cannot read the snapshot {path}: {error.strerror}") from error
    if not data.startswith(_MAGIC):
        raise SnapshotError(f"{path} is no snapshot of this version of vmxlab")
    damaged = SnapshotError(f"the snapshot {path} is cut short or damaged")
    place = len(_MAGIC) + _LENGTH.size
    try:
        (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
        header = json.loads(data[place : place + length])
        body = memoryview(data)[place + length :]
        first, second = header["parts"]
        if len(body) != first + second or hashlib.sha256(body).hexdigest() != header["sha256"]:
            raise damaged
        return header, zlib.decompress(body[:first]), zlib.decompress(body[first:])
    except (struct.error, ValueError, KeyError, TypeError, zlib.error):
        raise damaged from None
