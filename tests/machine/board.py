"""What the tests of this folder do with a machine over and over."""

from functools import cache
from pathlib import Path

import sw_vmm.guests
from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import LEVELS, PAGE_BITS, PTE, SATP, VPN_BITS, SatpMode
from rtl.arch.records import RETIREMENT
from rtl.arch.traps import Exception_, Privilege
from sim.elf import load_elf
from sim.guests import platform_defines
from sim.toolchain import build_program
from sim.verilated import RETIREMENT_BYTES
from sw_vmm.machine import Event
from tests.machine.words import code

__all__ = ["ALL", "PAGE", "RAM", "RAM_END", "RAM_SIZE", "Board", "Tables", "program"]

RAM = MEMORY_MAP["ram"].base
RAM_SIZE = 1 << 20
RAM_END = RAM + RAM_SIZE
ALL = (1 << 64) - 1
PAGE = 1 << PAGE_BITS


@cache
def program(name):
    """The program ``name``.S of this folder, as an image at the bottom of RAM."""
    elf = build_program(
        name,
        [Path(__file__).with_name(f"{name}.S")],
        script=Path(sw_vmm.guests.__file__).parent / "bare.ld",
        defines=platform_defines(),
    )
    return load_elf(elf, ram_size=RAM_SIZE)


class Board:
    """A machine, its CSRs by name, and programs put into it."""

    def __init__(self, machine):
        self.machine = machine

    def reset(self):
        """Power-on; breakpoints park, nothing is traced, charges are skipped."""
        self.machine.host_port.control.write(step=0)
        self.machine.reset()
        self.machine.trace(0)
        self.machine.skip_charges(True)
        self.park_on(Exception_.BREAKPOINT)

    def park_on(self, *exceptions, interrupts=()):
        self.machine.park_on(sum(1 << n for n in exceptions), sum(1 << n for n in interrupts))

    def load(self, image):
        for base, data in image.segments:
            self.machine.write_memory(base, data)

    def put(self, place, *words):
        """Write 32-bit words, seen by the next fetch."""
        self.machine.write_memory(place, code(*words))

    def csr(self, name):
        return self.machine.read_csr(CSRS[name].number)

    def set_csr(self, name, value):
        self.machine.write_csr(CSRS[name].number, value)

    def word(self, place):
        return int.from_bytes(self.machine.read_memory(place, 8), "little")

    def set_word(self, place, value):
        self.machine.write_memory(place, (value & ALL).to_bytes(8, "little"))

    def run(self, pc, *, cycles=100_000, privilege=Privilege.MACHINE, registers=None, **resume):
        """Resume at ``pc`` and run until the hart parks; the park record."""
        for number, value in (registers or {}).items():
            self.machine.write_gpr(number, value)
        self.machine.write_privilege(privilege)
        self.machine.resume(pc, **resume)
        assert self.machine.run(cycles) == Event.PARKED, "the hart has not parked"
        return self.machine.park

    def step(self, *, pc=None):
        """Run one instruction from ``pc``, or where the hart stands, in the record's privilege."""
        self.machine.host_port.control.write(step=1)
        self.machine.resume(self.machine.park.pc if pc is None else pc)
        assert self.machine.run(100_000) == Event.PARKED, "a step has not ended"
        return self.machine.park

    def halt(self):
        """Stop a running hart."""
        self.machine.stop()
        assert self.machine.run(100_000) == Event.PARKED, "the hart does not stop"
        return self.machine.park

    def retired(self):
        """The kept retirement records, at most 10 000, decoded."""
        data = self.machine.traced(10_000)
        return [
            RETIREMENT.decode(int.from_bytes(data[place : place + RETIREMENT_BYTES], "little"))
            for place in range(0, len(data), RETIREMENT_BYTES)
        ]


class Tables:
    """Sv39 tables in RAM, from ``root`` upwards; ``satp`` selects them."""

    def __init__(self, board, root):
        self._board = board
        self.root = root
        self._next = root + PAGE

    @property
    def satp(self):
        return SATP.encode(mode=SatpMode.SV39, ppn=self.root >> PAGE_BITS)

    def entry(self, gva, level=0):
        """Where the entry of ``gva`` at ``level`` stands; tables above it are made."""
        table = self.root
        for above in range(LEVELS - 1, level, -1):
            place = table + 8 * (gva >> PAGE_BITS + VPN_BITS * above & (1 << VPN_BITS) - 1)
            entry = self._board.word(place)
            if not entry & 1:
                entry = PTE.encode(v=1, ppn=self._next >> PAGE_BITS)
                self._board.set_word(place, entry)
                self._next += PAGE
            table = PTE["ppn"].extract(entry) << PAGE_BITS
        return table + 8 * (gva >> PAGE_BITS + VPN_BITS * level & (1 << VPN_BITS) - 1)

    def map(self, gva, hpa, *, level=0, **fields):
        """Make a leaf, with all permissions unless ``fields`` say otherwise."""
        fields = {"v": 1, "r": 1, "w": 1, "x": 1, "a": 1, "d": 1} | fields
        entry = PTE.encode(ppn=hpa >> PAGE_BITS, **fields)
        self._board.set_word(self.entry(gva, level), entry)
