"""Building the directed programs of this folder."""

import re
from dataclasses import replace
from pathlib import Path

import sw_vmm.guests
from sim.guests import Guest, platform_defines
from sim.toolchain import build_program

__all__ = ["PROGRAMS", "build_directed", "checks_of", "expect_wrongly"]

_FOLDER = Path(__file__).parent
_SCRIPT = Path(sw_vmm.guests.__file__).parent / "bare.ld"

PROGRAMS = sorted(source.stem for source in _FOLDER.glob("*.S"))


def build_directed(name: str, flags: tuple[str, ...] = ()) -> Path:
    """The program ``name`` as an ELF file."""
    return build_program(
        name,
        [_FOLDER / f"{name}.S"],
        script=_SCRIPT,
        headers=[_FOLDER / "test.h"],
        defines=platform_defines(),
        flags=flags,
    )


def expect_wrongly(guest: Guest, number: int) -> Guest:
    """The program with another expectation in its check ``number``."""
    (image,) = guest.images
    place, word = image.symbols["wrong"], number.to_bytes(4, "little")
    segments = []
    for base, data in image.segments:
        if base <= place < base + len(data):
            data = data[: place - base] + word + data[place - base + 4 :]
        segments.append((base, data))
    return replace(guest, images=(replace(image, segments=tuple(segments)),))


def checks_of(name: str) -> list[int]:
    """Numbers of the program's checks that ``expect_wrongly`` changes."""
    text = (_FOLDER / f"{name}.S").read_text()
    return [int(number) for number in re.findall(r"\bCHECK\w*\((\d+),", text)]
