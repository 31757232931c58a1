"""What a debugger sees of a parked hart: registers, memory at virtual addresses, breakpoints."""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from rtl.arch.csrs import CSR_BY_NUMBER, CSRS
from rtl.arch.instructions import COMPRESSED
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import LEVELS, PAGE_BITS, PTE, SATP, VIRTUAL_BITS, VPN_BITS, SatpMode
from rtl.arch.traps import Privilege
from sim.disassembler import REGISTER_NAMES
from sim.host_machine import HostPortMachine
from sw_vmm.machine import BusError, MachineError

__all__ = ["Breakpoint", "GdbTarget", "NotMapped", "target_description"]

#: GDB's register numbers for RISC-V: x0 to x31, pc, and the CSRs and the privilege from here on.
PC, FIRST_CSR = 32, 65
PRIVILEGE = FIRST_CSR + 4096

_SATP = CSRS["satp"].number
_PAGE = 1 << PAGE_BITS
_EBREAK = COMPRESSED["c.ebreak"].match.to_bytes(2, "little")
#: Registers that GDB shows as addresses.
_POINTERS = {"ra": "code_ptr", **dict.fromkeys(("sp", "gp", "tp", "s0"), "data_ptr")}


class NotMapped(Exception):
    """No memory can be reached at a virtual address."""


def target_description() -> str:
    """The registers in GDB's XML."""

    def register(name: str, number: int, kind: str, group: str) -> str:
        return (
            f'<reg name={quoteattr(name)} bitsize="64" regnum="{number}" type="{kind}" '
            f'group="{group}"/>'
        )

    gprs = [
        register(name, number, _POINTERS.get(name, "int"), "general")
        for number, name in enumerate(REGISTER_NAMES)
    ]
    csrs = [
        register(csr.name, FIRST_CSR + number, "int", "csr")
        for number, csr in sorted(CSR_BY_NUMBER.items())
    ]
    features = {
        "org.gnu.gdb.riscv.cpu": [*gprs, register("pc", PC, "code_ptr", "general")],
        "org.gnu.gdb.riscv.csr": csrs,
        "org.gnu.gdb.riscv.virtual": [register("priv", PRIVILEGE, "int", "system")],
    }
    return "\n".join(
        [
            '<?xml version="1.0"?>',
            '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
            "<target><architecture>riscv:rv64</architecture>",
            *(
                "\n".join([f"<feature name={quoteattr(name)}>", *rows, "</feature>"])
                for name, rows in features.items()
            ),
            "</target>",
        ]
    )


@dataclass
class Breakpoint:
    """A place in memory; ``saved`` is what stands there while the ebreak is in its stead."""

    hpa: int
    saved: bytes | None = None


class GdbTarget:
    """A parked hart. Breakpoints stand in memory only between ``arm`` and ``disarm``.

    Virtual addresses mean what they mean to the code at hand: translated by ``satp`` below
    M-mode, plain in M-mode. Permissions do not bind a debugger. In M-mode an address at which the
    platform has nothing is translated by ``satp`` all the same, so that a kernel can be looked at
    from its firmware.
    """

    def __init__(self, machine: HostPortMachine):
        self._machine = machine
        self.pc = machine.park.pc
        self.privilege = machine.park.privilege
        self._breakpoints: dict[int, Breakpoint] = {}

    def refresh(self) -> None:
        """Take pc and privilege from the park record, once after parking."""
        self.pc, self.privilege = self._machine.park.pc, self._machine.park.privilege

    # Registers.

    def read_register(self, number: int) -> int:
        """Raises MachineError when there is no such register."""
        if number < PC:
            return self._machine.read_gpr(number)
        if number == PC:
            return self.pc
        if number == PRIVILEGE:
            return self.privilege
        return self._machine.read_csr(self._csr(number))

    def write_register(self, number: int, value: int) -> None:
        """Raises MachineError when there is no such register, or it cannot be written."""
        if number < PC:
            self._machine.write_gpr(number, value)
        elif number == PC:
            self.pc = value & ~1
        elif number == PRIVILEGE:
            if value not in tuple(Privilege):
                raise MachineError(f"there is no privilege level {value}")
            self.privilege = value
            self._machine.write_privilege(value)
        else:
            self._machine.write_csr(self._csr(number), value)

    @staticmethod
    def _csr(number: int) -> int:
        if number - FIRST_CSR not in CSR_BY_NUMBER:
            raise MachineError(f"GDB's register {number} is none of this hart")
        return number - FIRST_CSR

    # Memory.

    def translate(self, gva: int) -> int:
        """Raises NotMapped."""
        if self.privilege == Privilege.MACHINE and _on_the_platform(gva):
            return gva
        satp = SATP.decode(self._machine.read_csr(_SATP))
        if satp["mode"] == SatpMode.SV39:
            return self._walk(gva, satp["ppn"] << PAGE_BITS)
        if not _on_the_platform(gva):
            raise NotMapped
        return gva

    def _walk(self, gva: int, table: int) -> int:
        top = gva >> VIRTUAL_BITS - 1
        if top not in (0, (1 << 65 - VIRTUAL_BITS) - 1):
            raise NotMapped
        for level in reversed(range(LEVELS)):
            shift = PAGE_BITS + VPN_BITS * level
            place = table + 8 * (gva >> shift & (1 << VPN_BITS) - 1)
            try:
                data = self._machine.read_memory(place, 8)
            except BusError:
                raise NotMapped from None
            entry = PTE.decode(int.from_bytes(data, "little"))
            table = entry["ppn"] << PAGE_BITS
            if not entry["v"]:
                raise NotMapped
            if entry["r"] or entry["x"]:
                inside = (1 << shift) - 1
                return table & ~inside | gva & inside
        raise NotMapped

    def _pieces(self, gva: int, length: int) -> Iterator[tuple[int, int]]:
        """hpa and length of the parts of a range that lie in one page each."""
        while length > 0:
            part = min(length, _PAGE - gva % _PAGE)
            yield self.translate(gva), part
            gva, length = (gva + part) & (1 << 64) - 1, length - part

    def read_memory(self, gva: int, length: int) -> bytes:
        """As much as can be reached from ``gva`` on. Raises NotMapped when that is nothing."""
        data = b""
        try:
            for hpa, part in self._pieces(gva, length):
                data += self._machine.read_memory(hpa, part)
        except (NotMapped, BusError):
            if not data:
                raise NotMapped from None
        return data

    def write_memory(self, gva: int, data: bytes) -> None:
        """All of it or nothing. Raises NotMapped."""
        done = 0
        try:
            for hpa, part in list(self._pieces(gva, len(data))):
                self._machine.write_memory(hpa, data[done : done + part])
                done += part
        except BusError:
            raise NotMapped from None

    # Breakpoints.

    def insert(self, gva: int) -> None:
        """Raises NotMapped."""
        hpa = self.translate(gva)
        try:
            self._machine.read_memory(hpa, len(_EBREAK))
        except BusError:
            raise NotMapped from None
        self._breakpoints[gva] = Breakpoint(hpa)

    def remove(self, gva: int) -> None:
        self._breakpoints.pop(gva, None)

    def remove_all(self) -> None:
        self._breakpoints.clear()

    def at_breakpoint(self) -> bool:
        """The hart stands at a breakpoint, whatever address it came by."""
        if not self._breakpoints:
            return False
        try:
            here = self.translate(self.pc)
        except NotMapped:
            return False
        return any(place.hpa == here for place in self._breakpoints.values())

    def arm(self) -> None:
        """Put the ebreaks into memory; they park the hart."""
        for place in self._breakpoints.values():
            place.saved = self._machine.read_memory(place.hpa, len(_EBREAK))
        for place in self._breakpoints.values():
            self._machine.write_memory(place.hpa, _EBREAK)
        self._machine.host_port.park_ebreak.write(value=bool(self._breakpoints))

    def disarm(self) -> None:
        """Take the ebreaks out again, but not what the guest has put in their place."""
        self._machine.host_port.park_ebreak.write(value=0)
        for place in self._breakpoints.values():
            if place.saved is None:
                continue
            if self._machine.read_memory(place.hpa, len(_EBREAK)) == _EBREAK:
                self._machine.write_memory(place.hpa, place.saved)
            place.saved = None


def _on_the_platform(hpa: int) -> bool:
    return any(region.base <= hpa < region.base + region.size for region in MEMORY_MAP.values())
