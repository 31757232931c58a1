"""Every CSR, read and written, against the golden model's rules under controls off and on."""

import random

import pytest

from rtl.arch.csrs import CSR_BY_NUMBER, csr_read_only
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.fields import CSR_BITMAP_WORDS, VMCS_FIELDS
from rtl.vmx.intercept import CsrIntercept, ExitReason
from sim.golden.vmx.intercept import csr_exit
from tests.streams import simulate

EXECUTION = CONTROL_WORDS["execution_controls"].layout
BITMAPS = [
    f"csr_{kind}_bitmap_{word}" for kind in ("read", "write") for word in range(CSR_BITMAP_WORDS)
]
ACCESSES = [(1, 0), (0, 1), (1, 1)]


def run(scenario):
    dut = CsrIntercept()

    async def testbench(ctx):
        await scenario(Driver(ctx, dut))

    simulate(dut, testbench, cycles=200_000)


class Driver:
    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut
        self.fields = {}

    async def set(self, **fields):
        ctx, dut = self.ctx, self.dut
        self.fields.update(fields)
        for name, value in fields.items():
            match name:
                case "execution_controls":
                    ctx.set(dut.controls.as_value(), value)
                case "status_mask" | "status_shadow":
                    ctx.set(getattr(dut, name), value)
                case bitmap:
                    number = VMCS_FIELDS[bitmap].number
                    ctx.set(dut.write, {"valid": 1, "number": number, "value": value})
                    await ctx.tick()
                    ctx.set(dut.write.valid, 0)
        await ctx.tick()

    async def exit(self, number, reads, writes, value=0):
        ctx, dut = self.ctx, self.dut
        ctx.set(dut.number, number)
        await ctx.tick()
        ctx.set(dut.number, 0)
        ctx.set(dut.access, {"reads": reads, "writes": writes, "value": value})
        found = ExitReason(ctx.get(dut.reason)) if ctx.get(dut.exits) else None
        wanted = csr_exit(self.fields, number, reads=reads, writes=writes, value=value)
        assert (found and found.value) == (wanted and int(wanted)), hex(number)
        return wanted

    async def sweep(self, value=0):
        seen = set()
        for number in CSR_BY_NUMBER:
            for reads, writes in ACCESSES:
                if not (writes and csr_read_only(number)):
                    seen.add(await self.exit(number, reads, writes, value))
        return seen


def ones(name):
    return ~VMCS_FIELDS[name].reserved & (1 << 64) - 1


@pytest.mark.parametrize("controls", [0, EXECUTION.mask()])
@pytest.mark.parametrize("bits", [0, 1])
def test_every_csr_with_all_bits_off_and_on(controls, bits):
    fields = {name: ones(name) * bits for name in (*BITMAPS, "status_mask")}

    async def scenario(driver):
        await driver.set(execution_controls=controls, status_shadow=0, **fields)
        seen = await driver.sweep(value=(1 << 64) - 1)
        assert len(seen) > 1 or not controls | bits

    run(scenario)


def test_each_csr_has_bits_of_its_own():
    """Enough random bitmaps that any two bits differ in one of them."""
    choose = random.Random(5)

    async def scenario(driver):
        await driver.set(status_mask=0, status_shadow=0)
        await driver.set(execution_controls=EXECUTION["use_csr_bitmap"].mask)
        for _ in range(16):
            await driver.set(**{name: choose.getrandbits(64) & ones(name) for name in BITMAPS})
            assert len(await driver.sweep()) == 3

    run(scenario)


def test_each_bit_of_the_status_mask():
    async def scenario(driver):
        await driver.set(**dict.fromkeys(BITMAPS, 0), execution_controls=0)
        exits = 0
        for bit in range(64):
            for shadow in (0, 1 << bit):
                await driver.set(status_mask=1 << bit, status_shadow=shadow)
                for number in (0x100, 0x300):
                    for value in (0, 1 << bit):
                        exits += await driver.exit(number, 1, 1, value) is not None
                        await driver.exit(number, 1, 0, value)
        assert exits > 0

    run(scenario)
