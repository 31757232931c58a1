"""Root's CSR file with the extension: its CSRs, and what VM entries and exits do to root."""

import random

import pytest

from rtl.arch.csrs import CSRS, INTERRUPTS, MSTATUS
from rtl.arch.vmx.capability import VMX_CSRS
from rtl.core.csr import CsrFile, CsrOperation, RootCsrFile
from sim.golden.csr_file import CsrFile as GoldenCsrFile
from tests.rtl.core.guest_csr_bench import ALL, LEVELS
from tests.streams import simulate

OPERATIONS = (("SET", 0), ("WRITE", 1), ("SET", 1), ("CLEAR", 1))


class Bench:
    """The file and a golden one of the extension's CSRs."""

    def __init__(self, ctx, dut):
        self._ctx, self._dut = ctx, dut
        self.csr = GoldenCsrFile(None, VMX_CSRS)

    async def level(self, level):
        ctx, dut = self._ctx, self._dut
        ctx.set(dut.privilege_write, 1)
        ctx.set(dut.privilege_next, LEVELS[level])
        await ctx.tick()
        ctx.set(dut.privilege_write, 0)

    async def access(self, number, operation, operand, writes, *, host=False):
        """(the value read, illegal); writing is tried whatever the answer."""
        ctx, dut = self._ctx, self._dut
        request = {"valid": 1, "number": number, "operation": CsrOperation[operation]}
        ctx.set(dut.request, request | {"writes": writes, "host": host, "operand": operand})
        await ctx.tick()
        ctx.set(dut.request, {})
        answer = ctx.get(dut.value), ctx.get(dut.illegal)
        ctx.set(dut.write, writes)
        await ctx.tick()
        ctx.set(dut.write, 0)
        return answer

    async def compare(self, csr, level, operation, operand, writes):
        """An access by software, as the golden file and the rules of CSR numbers have it."""
        legal = level >= csr.privilege and not (writes and csr.read_only)
        value, start = self.csr.read(csr.number)
        new = {"WRITE": operand, "SET": start | operand, "CLEAR": start & ~operand}[operation]
        read, illegal = await self.access(csr.number, operation, operand, writes)
        assert illegal == (not legal), csr
        if legal:
            assert read == value, csr
            if writes:
                self.csr.write(csr.number, new)
        for kind in ("execution", "exit"):
            mask = self._ctx.get(getattr(self._dut, f"{kind}_mask"))
            assert mask == self.csr.values[f"vmx{kind}mask"]


def run(scenario, dut=None):
    dut = dut or RootCsrFile()

    async def testbench(ctx):
        while not ctx.get(dut.cleared):
            await ctx.tick()
        await scenario(ctx, dut, Bench(ctx, dut))

    simulate(dut, testbench)


def test_its_csrs_are_for_m_mode_and_those_of_capability_do_not_change():
    noise = random.Random(1)

    async def scenario(ctx, dut, bench):
        for level in LEVELS:
            await bench.level(level)
            for _ in range(4):
                for operation, writes in OPERATIONS:
                    for csr in VMX_CSRS.values():
                        operand = noise.choice((0, ALL, noise.getrandbits(64)))
                        await bench.compare(csr, level, operation, operand, writes)

    run(scenario)


def test_without_the_extension_they_do_not_exist():
    async def scenario(ctx, dut, bench):
        for csr in VMX_CSRS.values():
            for host in (False, True):
                _, illegal = await bench.access(csr.number, "SET", 0, 0, host=host)
                assert illegal, csr

    run(scenario, CsrFile())


def test_the_hart_writes_vmxstatus():
    """What software wrote before is gone, and the other way round."""

    async def scenario(ctx, dut, bench):
        csr = VMX_CSRS["vmxstatus"]
        for status in (0, 7, ALL, 1 << 63):
            await bench.access(csr.number, "WRITE", 0x1234, 1)
            ctx.set(dut.vmxstatus_write, 1)
            ctx.set(dut.vmxstatus_next, status)
            await ctx.tick()
            ctx.set(dut.vmxstatus_write, 0)
            ctx.set(dut.vmxstatus_next, 0x5678)
            assert await bench.access(csr.number, "SET", 0, 0) == (status, 0)
            await bench.access(csr.number, "WRITE", 0x4321, 1)
            assert await bench.access(csr.number, "SET", 0, 0) == (0x4321, 0)

    run(scenario)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: LEVELS[level].name)
def test_an_exit_leads_to_m_mode_with_interrupts_off_and_changes_nothing_else(level):
    """Whatever privilege root had: the host may have set it."""

    async def scenario(ctx, dut, bench):
        held = [csr for csr in CSRS.values() if csr.writable and csr.name != "sstatus"]
        for csr in held:
            await bench.access(csr.number, "WRITE", ALL, 1, host=True)
        await bench.level(level)
        before = {}
        for csr in held:
            before[csr.name], _ = await bench.access(csr.number, "SET", 0, 0, host=True)
        assert MSTATUS["mie"].extract(before["mstatus"])
        ctx.set(dut.exited, 1)
        await ctx.tick()
        ctx.set(dut.exited, 0)
        assert ctx.get(dut.privilege) == LEVELS[3]
        before["mstatus"] = MSTATUS["mie"].insert(before["mstatus"], 0)
        for csr in held:
            assert await bench.access(csr.number, "SET", 0, 0) == (before[csr.name], 0), csr

    run(scenario)


def test_what_a_guest_is_told_of_interrupts():
    """All of mip, lines as well as bits that software has set; mie."""
    noise = random.Random(2)

    async def scenario(ctx, dut, bench):
        for _ in range(40):
            mip, mie = noise.getrandbits(64), noise.getrandbits(64)
            await bench.access(CSRS["mip"].number, "WRITE", mip, 1)
            await bench.access(CSRS["mie"].number, "WRITE", mie, 1)
            lines = {name: noise.getrandbits(1) for name in ("msi", "mti", "sei", "mei")}
            ctx.set(dut.lines, lines)
            await ctx.tick()
            set_by_software = mip & CSRS["mip"].writable
            assert ctx.get(dut.pending) == set_by_software | INTERRUPTS.encode(**lines)
            assert ctx.get(dut.enabled) == mie & CSRS["mie"].writable

    run(scenario)
