"""What the racing bus master is told: commands in RAM, drawn from a seed beside a random program.

The block begins at ``CONTROL``: a word the master writes when the hart has parked, the number of
commands, then the commands, two words each: ``COMMAND`` and the data.
"""

from dataclasses import replace
from random import Random

from rtl.arch.layout import Layout
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS
from sim.random_programs import generate
from sim.random_programs.program import RAM_SIZE, RandomProgram, Span
from sw_vmm.assembler import Assembler

__all__ = [
    "COMMAND",
    "COMMANDS",
    "CONTROL",
    "COUNT",
    "REPORT",
    "contended_program",
    "racing_program",
]

_RAM = MEMORY_MAP["ram"].base
#: Behind everything the programs use.
CONTROL = _RAM + 3 * RAM_SIZE // 4
COUNT, COMMANDS = CONTROL + 8, CONTROL + 16
# fmt: off
COMMAND = Layout.packed("command",
    ("address", 32, "Of an aligned word in RAM."),
    ("mask", 8, "Bytes written."),
    ("delay", 9, "Cycles before the first access."),
    ("gap", 5, "Cycles before each of the others."),
    ("repeat", 4, "How many others."),
    ("write", 1, "Write the word, or read it."),
    ("mixed", 1, "What is written depends on all accesses before."),
    ("valid", 1, "Anything is to be done."),
    ("reserved", 3, "Zero."),
)
REPORT = Layout.packed("report",
    ("accesses", 32, "Accesses done."),
    ("reserved", 31, "Zero."),
    ("valid", 1, "The master stands still."),
)
# fmt: on
_PAGE = 1 << PAGE_BITS
#: Where the programs keep what they set registers to, their code and their data.
_PROLOGUES, _CODE, _DATA, _PAGES = 3, 8, 16, 8
_MOST = 1000
#: Registers of the contended programs.
_SCRATCH, _ROUNDS, _VALUES, _BASES = 5, 6, range(7, 10), range(10, 16)


def racing_program(seed: int, profile: str | None = None) -> RandomProgram:
    """The random program of ``seed`` with commands for the master in its image.

    Shrinking takes out commands like entries of tables. Equal arguments give equal programs.
    """
    draw = Random(f"vmxlab race {seed}")
    # The profile in which most is reserved; or any.
    program = generate(seed, profile or draw.choice(("bus-master", None)))
    return _raced(draw, program, _places(draw, program.image), draw.choice((4, 20, 100, 500)))


def contended_program(seed: int) -> RandomProgram:
    """A loop of loads, stores and atomics on a few lines, in M-mode, and a master on the same ones.

    Equal arguments give equal programs.
    """
    draw = Random(f"vmxlab contended {seed}")
    # Lines side by side, or more of one set than it has ways.
    step = draw.choice((64, 64, _PAGE))
    first = _DATA * _PAGE + 64 * draw.randrange(48)
    lines = [first + step * n for n in range(draw.choice((1, 2, 4, 6)))]
    code = Assembler(_RAM)
    for base, line in zip(_BASES, lines, strict=False):
        code.load_address(base, _RAM + line)
    code.add("addi", rd=_ROUNDS, imm=draw.randrange(20, 100))
    code.label("loop")
    spans = []
    for _ in range(draw.randrange(1, 30)):
        start = code.here - _RAM
        _contend(draw, code, _BASES[: len(lines)])
        spans.append(Span(start, code.here - _RAM, "item"))
    code.add("addi", rd=_ROUNDS, rs1=_ROUNDS, imm=-1)
    code.add("bne", rs1=_ROUNDS, to="loop")
    code.load_address(_SCRATCH, _RAM + _PROLOGUES * _PAGE)
    code.add("addi", rd=_ROUNDS, imm=1)
    code.add("sd", rs1=_SCRATCH, rs2=_ROUNDS)
    code.add("jal", imm=0)
    image = code.assemble().ljust(first, b"\0") + draw.randbytes(_PAGE)
    program = RandomProgram(seed, "contended", image, _RAM, _RAM + _PROLOGUES * _PAGE, tuple(spans))
    places = [line + 8 * n for line in lines for n in range(8)]
    return _raced(draw, program, places, draw.choice((2, 10, 40)))


def _contend(draw, code, bases):
    """One access, or a pair of lr and sc with some time between."""
    base, rd = draw.choice(bases), draw.choice(_VALUES)
    size, offset = draw.choice("wd"), 8 * draw.randrange(8)
    match draw.randrange(4):
        case 0:
            code.add("addi", rd=_SCRATCH, rs1=base, imm=offset)
            code.add(f"lr.{size}", rd=rd, rs1=_SCRATCH)
            for _ in range(draw.choice((0, 1, 4, 16))):
                code.add("addi", rd=rd, rs1=rd, imm=1)
            code.add(f"sc.{size}", rd=draw.choice(_VALUES), rs1=_SCRATCH, rs2=rd)
        case 1:
            code.add("addi", rd=_SCRATCH, rs1=base, imm=offset)
            name = draw.choice(("amoadd", "amoswap", "amoxor", "amomaxu"))
            code.add(f"{name}.{size}", rd=rd, rs1=_SCRATCH, rs2=draw.choice(_VALUES))
        case 2:
            name = draw.choice(("lb", "lhu", "lw", "ld"))
            code.add(name, rd=rd, rs1=base, imm=draw.randrange(56))
        case 3:
            code.add(draw.choice(("sb", "sh", "sw", "sd")), rs1=base, rs2=rd, imm=offset)


def _raced(draw, program, places, pause):
    """The program with commands for accesses to ``places``, at most ``pause`` cycles apart."""
    image = bytearray(program.image)
    image += bytes(CONTROL - _RAM - len(image))
    commands = b"".join(
        _command(draw, places, pause, program.image) for _ in range(draw.randrange(_MOST))
    )
    image += bytes(8) + (len(commands) // 16).to_bytes(8, "little")
    first = len(image)
    image += commands
    spans = tuple(Span(n, n + 16, "entry") for n in range(first, len(image), 16))
    return replace(program, image=bytes(image), spans=program.spans + spans)


def _places(draw, image):
    """Offsets of words the master comes back to: most of them where the programs' pointers point."""
    data = range(_DATA * _PAGE, (_DATA + _PAGES) * _PAGE)
    words = (
        int.from_bytes(image[place : place + 8], "little") - _RAM
        for place in range(_PROLOGUES * _PAGE, _CODE * _PAGE, 8)
    )
    pointers = [word for word in words if word in data] or [data.start]
    places = [
        draw.choice(pointers) + draw.randrange(-64, 128) for _ in range(draw.choice((4, 16, 64)))
    ]
    places.append(draw.choice(data))
    return [min(max(place, data.start), data.stop - 8) & ~7 for place in places]


def _command(draw, places, pause, image):
    write = draw.random() < 0.6
    mixed = 1
    data = draw.getrandbits(64)
    mask = draw.choice((0xFF, 0xFF, 0x0F, 0xF0, 1 << draw.randrange(8), draw.randrange(1, 256)))
    place = draw.choice(places)
    if draw.random() < 0.2 and len(image) > _DATA * _PAGE + _PAGES * _PAGE:
        # Code: as it is, or with another bit.
        place = draw.randrange(_CODE * _PAGE, (_CODE + _PAGES) * _PAGE, 8)
        data, mixed = int.from_bytes(image[place : place + 8], "little"), 0
        if draw.random() < 0.5:
            data ^= 1 << draw.randrange(64)
    word = COMMAND.encode(
        address=_RAM + place,
        mask=mask,
        delay=draw.randrange(pause),
        gap=draw.randrange(32),
        repeat=draw.choice((0, 0, 1, 2, 7, 15)),
        write=write,
        mixed=mixed,
        valid=1,
    )
    return word.to_bytes(8, "little") + data.to_bytes(8, "little")
