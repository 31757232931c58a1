"""SystemRDL sources of every memory-mapped block; each is relative to the block's base address."""

from pathlib import Path

__all__ = ["MAPS", "map_path"]

_FOLDER = Path(__file__).parent
#: Declarations the sources include; no map of its own.
_INCLUDED = {"properties"}
#: Names of all maps; each is an ``addrmap`` of that name in the file of that name.
MAPS = tuple(sorted(path.stem for path in _FOLDER.glob("*.rdl") if path.stem not in _INCLUDED))


def map_path(name: str) -> Path:
    """The source of a map. Raises KeyError when there is none of that name."""
    if name not in MAPS:
        raise KeyError(f"no register map named {name}; there are {', '.join(MAPS)}")
    return _FOLDER / f"{name}.rdl"
