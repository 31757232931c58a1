"""The guest's CSR file and the golden model of it, driven together; every answer is compared."""

import random

from rtl.arch.csrs import CSR_BY_NUMBER, CSRS, INTERRUPTS, MSTATUS
from rtl.arch.traps import Interrupt, World
from rtl.arch.vmx.fields import GUEST_CSRS, VMCS_FIELDS
from rtl.core.csr import CsrOperation
from rtl.core.guest_csr import GuestCsrFile
from rtl.mmu.context import Privilege
from sim.golden import Hart
from tests.streams import simulate

__all__ = ["ALL", "HELD", "LEVELS", "GuestBench", "run", "valid_value"]

ALL = (1 << 64) - 1
LEVELS = {0: Privilege.USER, 1: Privilege.SUPERVISOR, 3: Privilege.MACHINE}
#: Fields that the file keeps.
HELD = ("guest_privilege", *(f"guest_{name}" for name in GUEST_CSRS))
NUMBER = {name: csr.number for name, csr in CSRS.items()}
#: Bits of root's mip that the golden model knows of itself; the others are lines.
SOFTWARE = CSRS["mip"].writable
FIELD_PORTS = {
    "lines": "guest_lines",
    "mtimecmp": "guest_mtimecmp",
    "mhartid": "guest_mhartid",
    "passthrough": "interrupt_passthrough",
    "status_mask": "status_mask",
    "status_shadow": "status_shadow",
    "window_mask": "interrupt_window_mask",
}


def valid_value(noise: random.Random, name: str) -> int:
    """A value of a guest-state field that an entry would accept."""
    field = VMCS_FIELDS[name]
    value = noise.choice((0, ALL, noise.getrandbits(64), noise.getrandbits(64)))
    value = value & ~field.reserved | field.required
    match name:
        case "guest_privilege":
            return noise.choice((0, 1, 3))
        case "guest_mstatus":
            return MSTATUS["mpp"].insert(value, noise.choice((0, 1, 3)))
        case "guest_satp":
            return noise.choice((0, 8)) << 60 | value & ALL >> 4
    return value


class Outside:
    """What lies outside the golden hart; ``cycles`` is the guest's mcycle."""

    def __init__(self):
        self.cycles = self.ticks = self.root_pending = 0
        self.fields = {}

    def counter(self, name):
        return self.ticks if name == "time" else self.cycles

    def lines(self):
        """Timers by the sentences of the specification; lines of root that are passed through."""
        now = (self.ticks + self.fields["time_offset"]) & ALL
        pending = self.root_pending & self.fields["interrupt_passthrough"]
        for bit, deadline in (
            (Interrupt.MACHINE_TIMER, self.fields["guest_mtimecmp"]),
            (Interrupt.SUPERVISOR_TIMER, self.stimecmp()),
        ):
            pending |= (now >= deadline) << bit
        return pending


class GuestBench:
    """Drives both. ``noise`` decides when time goes on, and what is not said."""

    def __init__(self, ctx, dut, noise):
        self._ctx, self._dut, self._noise = ctx, dut, noise
        self.outside = Outside()
        self.hart = Hart(1 << 16, self.outside, vmx=True)
        self.hart.memory.switch = self._switch
        vmx = self.hart.vmx
        self.csr, self.fields, self._root = vmx.guest_csr, vmx.vmcs.fields, vmx.root_csr
        self.outside.fields = self.fields
        self.outside.stimecmp = lambda: self.csr.values["stimecmp"]
        self.hart.csr, self.hart.world = self.csr, int(World.NON_ROOT)

    def _switch(self, fetch, data):
        self._contexts = fetch, data

    async def tick(self, *, retired=0, written=None):
        """A cycle; the machine's time may go on in it."""
        advance = self._noise.getrandbits(1)
        self._ctx.set(self._dut.advance, advance)
        self._ctx.set(self._dut.retired, retired)
        counts = advance and not self.csr.values["mcountinhibit"] & 1
        await self._ctx.tick()
        if counts and written != NUMBER["mcycle"]:
            self.outside.cycles = self.outside.cycles + 1 & ALL
        self._ctx.set(self._dut.advance, 0)
        self._ctx.set(self._dut.retired, 0)

    async def ready(self):
        """Wait until the file has cleared its memories; load a state."""
        while not self._ctx.get(self._dut.cleared):
            await self._ctx.tick()
        await self.load()

    # Root operation.

    async def load(self, **values):
        """A whole valid state, as VMPTRLD gives it; what is not named is drawn."""
        for name in HELD:
            await self.write_field(name, values.get(name, valid_value(self._noise, name)))

    async def write_field(self, name, value):
        """VMWRITE; the model gets what is not reserved."""
        ctx, dut, field = self._ctx, self._dut, VMCS_FIELDS[name]
        write = {"valid": 1, "number": field.number, "value": value}
        ctx.set(dut.field_write, write)
        await ctx.tick()
        ctx.set(dut.field_write, write | {"valid": 0, "value": self._noise.getrandbits(64)})
        kept = value & ~field.reserved | field.required
        self.csr.save()
        self.fields[name] = kept
        self.csr.load(0)
        if name == "guest_mcycle":
            self.outside.cycles = kept
        if name == "guest_privilege":
            self.hart.privilege = kept
        self.hart.switched()

    async def read_field(self, name):
        """VMREAD of what the file keeps, one after the other as a write-back does."""
        ctx, dut = self._ctx, self._dut
        ctx.set(dut.field_read, 1)
        ctx.set(dut.field_number, VMCS_FIELDS[name].number)
        await ctx.tick()
        ctx.set(dut.field_number, self._noise.getrandbits(9))
        self.csr.save()
        self.fields["guest_mcycle"] = self.outside.cycles
        expected = self.fields[name] if VMCS_FIELDS[name].csr else 0
        assert ctx.get(dut.field_value) == expected, name
        ctx.set(dut.field_read, 0)

    async def read_fields(self):
        for name in VMCS_FIELDS:
            await self.read_field(name)

    async def surround(self, *, root_pending=None, ticks=None, **fields):
        """What the file is told changes: fields kept elsewhere, root's mip, time."""
        ctx, dut, outside = self._ctx, self._dut, self.outside
        self.fields.update(fields)
        if root_pending is not None:
            root_pending &= INTERRUPTS.mask()
            self._root.values["mip"] = root_pending & SOFTWARE
            outside.root_pending = root_pending
            ctx.set(dut.root_pending, root_pending)
        if ticks is not None:
            outside.ticks = ticks
        for port, name in FIELD_PORTS.items():
            ctx.set(getattr(dut, port), self.fields[name])
        ctx.set(dut.time, (outside.ticks + self.fields["time_offset"]) & ALL)
        self.hart.switched()
        await self.tick()

    # Non-root operation.

    async def access(self, number, operation, operand, writes):
        """A CSR instruction that does not exit: read, then write as it retires."""
        ctx, dut, csr = self._ctx, self._dut, self.csr
        request = {"valid": 1, "number": number, "operation": CsrOperation[operation]}
        ctx.set(dut.request, request | {"writes": writes, "operand": operand})
        legal = self.hart.csr_accessible(number, bool(writes))
        told = f"{number:#x} {operation} {operand:#x} at {self.hart.privilege}"
        value, start = csr.read(number) if number in CSR_BY_NUMBER else (0, 0)
        new = {"WRITE": operand, "SET": start | operand, "CLEAR": start & ~operand}[operation]
        await self.tick()
        ctx.set(dut.request, {"number": self._noise.getrandbits(12)})
        assert ctx.get(dut.illegal) == (not legal), told
        if legal:
            assert ctx.get(dut.value) == value, told
        # Writing is tried even when it is refused.
        ctx.set(dut.write, writes)
        await self.tick(retired=legal, written=number if legal and writes else None)
        ctx.set(dut.write, 0)
        if legal and writes:
            self.hart.write_csr(number, new)
            if number == NUMBER["mcycle"]:
                self.outside.cycles = new
        csr.retired += legal
        self.check()
        # Timers are compared a cycle late.
        await self.tick()

    async def retire(self):
        await self.tick(retired=1)
        self.csr.retired += 1

    async def trap(self, interrupt, code, value, pc):
        ctx, dut, hart = self._ctx, self._dut, self.hart
        ctx.set(dut.trap_valid, 1)
        ctx.set(dut.trap, {"interrupt": interrupt, "code": code, "value": value})
        ctx.set(dut.trap_pc, pc)
        hart.pc = pc
        hart.enter_trap(code, value, interrupt=bool(interrupt))
        assert ctx.get(dut.trap_vector) == hart.pc
        assert ctx.get(dut.trap_to_machine) == (hart.privilege == 3)
        await self.tick()
        ctx.set(dut.trap_valid, 0)
        await self.tick()
        self.check()

    async def ret(self, supervisor):
        """mret or sret."""
        ctx, dut, hart = self._ctx, self._dut, self.hart
        ctx.set(dut.ret_valid, 1)
        ctx.set(dut.ret_supervisor, supervisor)
        (hart.return_from_supervisor if supervisor else hart.return_from_machine)()
        assert ctx.get(dut.ret_pc) == hart.next
        await self.tick()
        ctx.set(dut.ret_valid, 0)
        self.check()

    # What other units see.

    def check(self):
        ctx, dut, hart = self._ctx, self._dut, self.hart
        assert ctx.get(dut.privilege) == LEVELS[hart.privilege]
        for name in ("tvm", "tw", "tsr"):
            assert ctx.get(getattr(dut, name)) == self.csr.status(name)
        contexts = dut.fetch_context, dut.data_context
        for context, expected in zip(contexts, self._contexts, strict=True):
            assert ctx.get(context.privilege) == LEVELS[expected.privilege]
            for name in ("paged", "root", "asid", "sum", "mxr"):
                assert ctx.get(getattr(context, name)) == getattr(expected, name), name
            assert ctx.get(context.adue) == expected.update

    async def settled(self):
        """Some cycles later: what is pending, which interrupt is chosen, the window."""
        for _ in range(3):
            await self.tick()
        ctx, dut, hart = self._ctx, self._dut, self.hart
        pending, _ = self.csr.read(NUMBER["mip"])
        chosen = hart.chosen(pending)
        assert ctx.get(dut.pending) == pending
        assert ctx.get(dut.interrupt) == (chosen >= 0)
        assert chosen < 0 or ctx.get(dut.interrupt_code) == chosen
        assert ctx.get(dut.wake) == bool(pending & self.csr.values["mie"])
        window = hart.chosen(self.fields["interrupt_window_mask"])
        assert ctx.get(dut.window_open) == (window >= 0)
        self.check()


def run(scenario, seed=0, cycles=100_000):
    """Simulate ``scenario(bench, noise)`` on a file with a state drawn by ``seed``."""
    dut, noise = GuestCsrFile(), random.Random(seed)

    async def testbench(ctx):
        bench = GuestBench(ctx, dut, noise)
        await bench.ready()
        await scenario(bench, noise)

    simulate(dut, testbench, cycles=cycles)
