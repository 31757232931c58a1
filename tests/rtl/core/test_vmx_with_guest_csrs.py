"""The VMX unit with the guest's CSR file: what the guest's CSR instructions make of the VMCS."""

import random

import pytest
from amaranth import *

from rtl.arch.csrs import CSRS
from rtl.arch.vmx.exits import ExitReason
from rtl.arch.vmx.fields import GUEST_CSRS, VMCS_FIELDS
from rtl.core.csr_base import CsrOperation
from rtl.core.guest_csr import GuestCsrFile
from rtl.mmu.context import World
from tests.golden.vmx.world import controls
from tests.rtl.vmx.test_vmx_unit import NUMBER, enter, legal, start, valid
from tests.rtl.vmx.vmx_bench import REGIONS, WORD, VmxBench
from tests.streams import simulate


class Joined(Elaboratable):
    """Both, as the hart joins them."""

    def __init__(self, unit, csrs):
        self._unit, self._csrs = unit, csrs

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit, m.submodules.csrs = unit, csrs = self._unit, self._csrs
        fields = unit.fields
        m.d.comb += [
            csrs.field_write.eq(unit.guest_write),
            csrs.field_read.eq(unit.world == World.ROOT),
            csrs.field_number.eq(unit.guest_number),
            unit.guest_value.eq(csrs.field_value),
            unit.guest_tw.eq(csrs.tw),
            csrs.time.eq(unit.virtual_time),
            csrs.lines.eq(fields.guest_lines),
            csrs.mtimecmp.eq(fields.guest_mtimecmp),
            csrs.mhartid.eq(fields.guest_mhartid),
            csrs.passthrough.eq(fields.interrupt_passthrough),
            csrs.status_mask.eq(fields.status_mask),
            csrs.status_shadow.eq(fields.status_shadow),
            csrs.window_mask.eq(fields.interrupt_window_mask),
        ]
        return m


class JoinedBench(VmxBench):
    """The guest's CSRs are those of the CSR file, and change by its CSR instructions."""

    def __init__(self, choose):
        super().__init__(choose)
        self.csr_file = GuestCsrFile()

    def run(self, *scenarios):
        background = [self._clock, self._memory, self._mmu]
        top = Joined(self.dut, self.csr_file)
        simulate(top, *scenarios, background=background, cycles=200_000)

    async def write_csr(self, ctx, name, value):
        csrs, number = self.csr_file, CSRS[name].number
        ctx.set(
            csrs.request,
            {
                "valid": 1,
                "number": number,
                "operation": CsrOperation.WRITE,
                "writes": 1,
                "host": 1,
                "operand": value,
            },
        )
        await ctx.tick()
        ctx.set(csrs.request.valid, 0)
        assert not ctx.get(csrs.illegal)
        ctx.set(csrs.write, 1)
        await ctx.tick()
        ctx.set(csrs.write, 0)
        if name == "mcycle":
            self.outside.counters["guest_mcycle"] = value
        else:
            # Nothing retires here.
            self.hart.write_csr(number, value, retires=False)

    async def guest_runs(self, ctx):
        csrs, choose = self.csr_file, self.choose
        assert ctx.get(csrs.privilege.as_value()) == self.hart.privilege
        self.outside.counters["guest_mcycle"] = self.vmx.vmcs.fields["guest_mcycle"]
        names = [name for name in GUEST_CSRS if name != "minstret"]
        for name in choose.sample(names, choose.choice((0, 5, len(names)))):
            await self.write_csr(ctx, name, choose.choice((0, WORD, choose.getrandbits(64))))


@pytest.mark.parametrize("seed", range(3))
def test_fields_are_what_the_guest_has_made_of_its_csrs(seed):
    choose = random.Random(seed)
    bench = JoinedBench(choose)
    guest = [f"guest_{name}" for name in GUEST_CSRS]

    async def scenario(ctx):
        while not ctx.get(bench.csr_file.cleared):
            await ctx.tick()
        await start(bench, ctx)
        window = {"execution_controls": controls("interrupt_window_exiting")}
        for region in REGIONS[:2]:
            await valid(bench, ctx, region, **window)
        for _ in range(6):
            await bench.do(ctx, "vmptrld", choose.choice(REGIONS[:2]))
            for name in choose.sample([*guest, "guest_privilege"], 8):
                field = VMCS_FIELDS[name]
                # First what the CSR cannot hold, and then what it can.
                await bench.do(ctx, "vmwrite", field.number, choose.getrandbits(64))
                await bench.read_all(ctx, name)
                await bench.do(ctx, "vmwrite", field.number, int(legal(choose, name)))
            await bench.do(ctx, "vmwrite", NUMBER["guest_activity"], 0)
            assert await enter(bench, ctx) is None
            assert bench.hart.world
            await bench.guest_runs(ctx)
            privilege = bench.hart.privilege
            await bench.leave(ctx, ExitReason.INTERRUPT_WINDOW, privilege=privilege, waiting=0)
            await bench.read_all(ctx, *guest, "guest_privilege")

    bench.run(scenario)
