"""Building the directed programs of this folder."""

import re
from pathlib import Path

import sw_vmm.guests
from sim.guests import platform_defines
from sim.toolchain import build_program

__all__ = ["PROGRAMS", "build_directed", "checks_of"]

_FOLDER = Path(__file__).parent
_SCRIPT = Path(sw_vmm.guests.__file__).parent / "bare.ld"

PROGRAMS = sorted(source.stem for source in _FOLDER.glob("*.S"))


def build_directed(name: str, *, wrong: int = 0, flags: tuple[str, ...] = ()) -> Path:
    """The program ``name``; with ``wrong``, that check expects something else."""
    return build_program(
        name,
        [_FOLDER / f"{name}.S"],
        script=_SCRIPT,
        headers=[_FOLDER / "test.h"],
        defines=platform_defines(),
        flags=(f"-DWRONG={wrong}", *flags),
    )


def checks_of(name: str) -> list[int]:
    """Numbers of the program's checks whose expectation WRONG changes."""
    text = (_FOLDER / f"{name}.S").read_text()
    return [int(number) for number in re.findall(r"\bCHECK\w*\((\d+),", text)]
