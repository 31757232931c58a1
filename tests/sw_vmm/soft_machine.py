"""A Machine in Python: a U-mode hart under Sv39 whose traps all park, and no devices at all.

It is what trap-emulate needs and nothing more. Every instruction takes one cycle; a trap that
parks takes ``ENTER`` cycles, going on ``LEAVE``; both count as transition.
"""

from types import SimpleNamespace

from sw_vmm.machine import BusError, Event, MachineBusy, ParkRecord
from tests.sw_vmm.soft_hart import Fault, SoftHart

ENTER, LEAVE = 7, 5
RAM = 0x8000_0000
ROM = range(0x1000, 0x9000)
USER, MACHINE = 0, 3
STOP, ROOT_TRAP = 0, 1
MEDELEG, MIDELEG, MIE, MCOUNTEREN, MENVCFG, STIMECMP, SATP = (
    0x302, 0x303, 0x304, 0x306, 0x30A, 0x14D, 0x180,
)  # fmt: skip
M = (1 << 64) - 1


class SoftMachine:
    """The host port of a hart that may run in U-mode only."""

    def __init__(self, ram_size=2 << 20, *, cycles_per_tick=10, uart_cycles_per_byte=16):
        self.config = SimpleNamespace(
            ram_size=ram_size,
            cycles_per_tick=cycles_per_tick,
            uart_cycles_per_byte=uart_cycles_per_byte,
            bit_manipulation=True,
            vmx=False,
        )
        self.ram = bytearray(ram_size)
        self.rom = bytearray(len(ROM))
        self.hart = SoftHart(self._read, self._write, self._fetch)
        self.reset()

    def reset(self):
        self.csrs = {}
        self.privilege = MACHINE
        self.cycle = self.instret = 0
        self.guest = self.transition_cycles = self.charged = self.walks = 0
        self.transition = 0
        self.finisher = self.tohost = 0
        self._tohost_at = None
        self._tohost_hit = False
        self._tlb = {}
        self._parked, self._stopping = True, False
        self._armed = None
        self._leaving = False
        self._park_exceptions = self._park_interrupts = 0
        self.accesses = 0
        self.privileges_seen = set()
        self._record(0, 0, STOP, 0x1000)

    # -- the hart's memory -------------------------------------------------------------------------

    def _translate(self, gva, access):
        """access: 0 read, 1 write, 2 fetch."""
        satp = self.csrs.get(SATP, 0)
        key = gva >> 12, access, satp
        frame = self._tlb.get(key)
        if frame is None:
            frame = self._tlb[key] = self._walk(gva, access, satp)
        return frame | gva & 0xFFF

    def _walk(self, gva, access, satp):
        self.walks += 1
        page_fault = Fault({0: 13, 1: 15, 2: 12}[access], gva)
        if satp >> 60 != 8 or gva >> 38 not in (0, (1 << 26) - 1):
            raise page_fault
        table = (satp & (1 << 44) - 1) << 12
        for level in (2, 1, 0):
            index = gva >> 12 + 9 * level & 511
            pte = int.from_bytes(self.read_ram(table + 8 * index, 8), "little")
            if not pte & 1:
                raise page_fault
            if pte & 0xE:
                break
            table = (pte >> 10) << 12
        else:
            raise page_fault
        needed = {0: 2, 1: 4, 2: 8}[access] | 0x10 | 0x40 | (0x80 if access == 1 else 0)
        page = (pte >> 10) << 12
        mask = (1 << 12 + 9 * level) - 1
        if pte & needed != needed or page & mask:
            raise page_fault
        return page | gva & mask & ~0xFFF

    def read_ram(self, hpa, length):
        memory, at = self._place(hpa, length)
        return bytes(memory[at : at + length])

    def _pieces(self, gva, size, access):
        first = min(size, 0x1000 - (gva & 0xFFF))
        pieces = [(self._translate(gva, access), first)]
        if first < size:
            pieces.append((self._translate(gva + first & M, access), size - first))
        return pieces

    def _read(self, gva, size, atomic=False):
        data = b"".join(self.read_ram(at, n) for at, n in self._pieces(gva, size, 0))
        return int.from_bytes(data, "little")

    def _write(self, gva, size, value, atomic=False):
        pieces = self._pieces(gva, size, 1)
        if value is None:
            return
        data = value.to_bytes(size, "little")
        for at, n in pieces:
            self.ram[at - RAM : at - RAM + n] = data[:n]
            data = data[n:]
            if self._tohost_at is not None and at <= self._tohost_at < at + 8 and value:
                self.tohost, self._tohost_hit = value, True

    def _fetch(self, gva):
        return int.from_bytes(self.read_ram(self._translate(gva, 2), 2), "little")

    # -- running -----------------------------------------------------------------------------------

    @property
    def time(self):
        return self.cycle // self.config.cycles_per_tick

    def _record(self, reason, value, kind, pc):
        hart = self.hart
        fetched = kind == ROOT_TRAP and reason not in (1, 12) and not reason >> 63
        self.park = ParkRecord(
            reason, value, value, 0, pc, hart.rs1 if fetched else 0, hart.rs2 if fetched else 0,
            self.cycle, self.instret, self.time, hart.word if fetched else 0,
            hart.length if fetched else 0, kind, self.privilege, 0,
        )  # fmt: skip

    def resume(self, pc, *, rd=0, value=0, charge=0, retires=False):
        self._need_parked()
        if self.privilege != USER:
            raise AssertionError("this machine runs nothing but U-mode")
        if rd:
            self.hart.x[rd] = value
        self.hart.pc = pc
        self.hart.reservation = None
        self.cycle += charge
        self.charged += charge
        self._armed = True
        self._leaving = self.park.kind == ROOT_TRAP

    def run(self, cycles):
        if cycles < 0:
            raise ValueError(f"a run of {cycles} cycles")
        if self._armed:
            self._armed, self._parked = None, False
        end = self.cycle + cycles
        hart = self.hart
        while self.cycle < end:
            if self._stopping:
                self._stopping = False
                return self._park(0, 0, STOP)
            due = self.time >= self.csrs.get(STIMECMP, M) and self.csrs.get(MENVCFG, 0) >> 63
            if due and self.csrs.get(MIE, 0) >> 5 & 1:
                return self._park(1 << 63 | 5, 0, ROOT_TRAP)
            try:
                hart.step()
            except Fault as fault:
                return self._park(fault.cause, fault.value, ROOT_TRAP)
            self.privileges_seen.add(self.privilege)
            self.cycle += 1
            self.instret += 1
            self.guest += 1
            if self._leaving:
                self._leaving = False
                self.cycle += LEAVE
                self.transition_cycles += LEAVE
            if self._tohost_hit:
                self._tohost_hit = False
                return Event.TOHOST
        return Event.BUDGET

    def _park(self, reason, value, kind):
        if self._leaving:
            # The first instruction after the resume traps again: its way there was transition.
            self.cycle += LEAVE
            self.transition_cycles += LEAVE
            self._leaving = False
        if kind == ROOT_TRAP:
            chosen = self._park_interrupts if reason >> 63 else self._park_exceptions
            if not chosen >> (reason & 63) & 1:
                raise AssertionError("a trap came that does not park")
            self.transition = self.transition_cycles
            self.cycle += ENTER
            self.transition_cycles += ENTER
        self._parked = True
        self._record(reason, value, kind, self.hart.pc)
        return Event.PARKED

    def stop(self):
        self._stopping = not self._parked

    # -- the host port -----------------------------------------------------------------------------

    def _need_parked(self):
        self.accesses += 1
        if not self._parked:
            raise MachineBusy("the hart runs")

    def charge(self, cycles):
        self._need_parked()
        self.cycle += cycles
        self.charged += cycles

    def read_gpr(self, number):
        self._need_parked()
        return self.hart.x[number]

    def write_gpr(self, number, value):
        self._need_parked()
        if number:
            self.hart.x[number] = value

    def read_csr(self, number):
        self._need_parked()
        return self.csrs.get(number, 0)

    def write_csr(self, number, value):
        self._need_parked()
        self.csrs[number] = value

    def write_privilege(self, privilege):
        self._need_parked()
        self.privilege = privilege

    def sfence_vma(self, gva=None, asid=None):
        self._need_parked()
        self._tlb.clear()

    def fence_i(self):
        self._need_parked()

    def clean(self):
        self._need_parked()

    def park_on(self, exceptions, interrupts):
        self._need_parked()
        self._park_exceptions, self._park_interrupts = exceptions, interrupts

    def _place(self, hpa, length):
        for base, memory in ((RAM, self.ram), (ROM.start, self.rom)):
            if base <= hpa and hpa + length <= base + len(memory):
                return memory, hpa - base
        raise BusError(f"nobody answers {length} bytes at {hpa:#x}")

    def read_memory(self, hpa, length):
        self._need_parked()
        memory, at = self._place(hpa, length)
        return bytes(memory[at : at + length])

    def write_memory(self, hpa, data):
        self._need_parked()
        memory, at = self._place(hpa, len(data))
        memory[at : at + len(data)] = data

    def stop_at_tohost(self, hpa):
        self._tohost_at = hpa

    def counters(self):
        return {
            "cycles": self.cycle,
            "guest": self.guest,
            "transition": self.transition_cycles,
            "walk": 0,
            "charged": self.charged,
            "instructions": self.instret,
        }
