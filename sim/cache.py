"""Build products below one folder, under keys of everything they are made from.

An entry is a folder that appears in one step, when it is whole, and carries a manifest of its
files: what was interrupted, cut short or tampered with is never used but built again. Two
processes may ask for the same entry at once; one builds, the other waits.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["build_folder", "cached", "hash_of", "sources_hash"]

_MANIFEST = "manifest.json"
_PROJECT = Path(__file__).resolve().parents[1]


def build_folder() -> Path:
    """Where build products go: ``$VMXLAB_BUILD``, the checkout's ``build``, or the user's cache."""
    if chosen := os.environ.get("VMXLAB_BUILD"):
        return Path(chosen).absolute()
    if (_PROJECT / "pyproject.toml").is_file():
        return _PROJECT / "build"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmxlab"


def hash_of(*parts: str | bytes) -> str:
    """A key that differs when any of the parts does, or where one ends and the next begins."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def sources_hash(files: Iterable[Path]) -> str:
    """A key of the files' names (relative to the project, if they lie in it) and contents."""
    parts: list[str | bytes] = []
    for file in sorted(files):
        inside = file.is_relative_to(_PROJECT)
        parts += [str(file.relative_to(_PROJECT) if inside else file.name), file.read_bytes()]
    return hash_of(*parts)


def cached(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The folder of the entry ``key``; ``build`` fills a fresh folder when there is none.

    What ``build`` raises is passed on, and leaves nothing behind.
    """
    root = build_folder() / kind
    entry = root / key
    if _whole(entry):
        return entry
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f".{key}.lock"):
        if _whole(entry):
            return entry
        fresh = Path(tempfile.mkdtemp(dir=root, prefix=f".{key}."))
        try:
            build(fresh)
            (fresh / _MANIFEST).write_text(json.dumps(_digests(fresh)))
            if entry.exists():
                broken = Path(tempfile.mkdtemp(dir=root, prefix=".broken."))
                os.rename(entry, broken / "entry")
                shutil.rmtree(broken, ignore_errors=True)
            os.rename(fresh, entry)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return entry


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != _MANIFEST
    }


def _whole(entry: Path) -> bool:
    with suppress(OSError, ValueError):
        return json.loads((entry / _MANIFEST).read_text()) == _digests(entry)
    return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The lock goes with the process: one that dies while building locks nobody out.
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
