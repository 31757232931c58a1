"""The VMCS unit in lockstep with the golden model's, over one memory each."""

import random

import pytest
from amaranth.sim import Simulator

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.vmx.fields import GUEST_CSRS, VMCS_FIELDS, VMCS_REVISION, VmcsArea
from rtl.arch.vmx.instructions import VM_FAIL_INVALID, VmInstructionError
from rtl.vmx.vmcs import Vmcs, VmcsOperation
from sim.golden.vmx.vmcs import VmcsUnit
from tests.streams import get, put, wait

RAM = MEMORY_MAP["ram"].base
RAM_SIZE = 1 << 20
WORD = (1 << 64) - 1
REGIONS = [RAM + 0x1000 * index for index in range(3)]
LIVE = {VMCS_FIELDS[f"guest_{name}"].number: f"guest_{name}" for name in GUEST_CSRS}
NUMBERS = [field.number for field in VMCS_FIELDS.values()]
INFORMATION = [row.number for row in VMCS_FIELDS.values() if row.area is VmcsArea.INFORMATION]


class Words(dict):
    """RAM by double words, and how often it was read and written."""

    reads = writes = 0

    def read_double_word(self, hpa):
        self.reads += 1
        return self.get(hpa, 0)

    def write_double_word(self, hpa, value):
        self.writes += 1
        self[hpa] = value


class Bench:
    """The unit, its memory with latencies drawn by ``choose``, and what lives elsewhere."""

    def __init__(self, choose, *, fast=False):
        self.dut = Vmcs()
        self.choose, self.fast = choose, fast
        self.ram = Words({hpa: VMCS_REVISION for hpa in REGIONS})
        self.live = {}
        self.told = {}
        self.cycles = 0

    async def serve(self, ctx):
        port = self.dut.memory
        while True:
            request = await get(ctx, port.request)
            if not self.fast:
                await wait(ctx, self.choose.choice((0, 0, 1, 5)))
            address, there = request.address, request.address < RAM + RAM_SIZE
            assert address % 8 == 0
            answer = 0
            if there and request.write:
                self.ram.write_double_word(address, request.data)
            elif there:
                answer = self.ram.read_double_word(address)
            await put(ctx, port.response, {"data": answer, "hit": 1, "error": not there})

    async def hear(self, ctx):
        """The guest's CSRs: told of what is written, and answering in the next cycle."""
        written, asked = self.dut.written, self.dut.guest_number
        while True:
            _, _, valid, number, value, place = await ctx.tick().sample(
                written.valid, written.number, written.value, asked
            )
            self.cycles += 1
            ctx.set(self.dut.guest_value, self.live.get(place, WORD))
            if valid:
                self.told[number] = value
                if number in LIVE:
                    self.live[number] = value & ~VMCS_FIELDS[LIVE[number]].reserved
                    self.live[number] |= VMCS_FIELDS[LIVE[number]].required

    async def rest(self, ctx):
        """What the last load has left for later."""
        while not ctx.get(self.dut.idle):
            await ctx.tick()

    async def enter(self, ctx):
        await self.rest(ctx)
        ctx.set(self.dut.entered, 1)
        await ctx.tick()
        ctx.set(self.dut.entered, 0)

    async def do(self, ctx, operation, operand=0, value=0):
        command = {"operation": operation, "operand": operand, "value": value}
        await put(ctx, self.dut.command, command)
        answer = await get(ctx, self.dut.answer)
        return answer.status & WORD, answer.value

    def run(self, scenario, limit=200_000):
        async def watchdog(ctx):
            await wait(ctx, limit)
            raise AssertionError("it takes too long")

        async def testbench(ctx):
            await scenario(ctx)

        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        for process in (watchdog, self.serve, self.hear):
            simulator.add_testbench(process, background=True)
        simulator.add_testbench(testbench)
        simulator.run()


@pytest.mark.parametrize("seed", range(4))
def test_lockstep_with_the_model(seed):
    choose = random.Random(seed)
    bench = Bench(choose)
    dut = bench.dut
    ram = Words(bench.ram)
    model = VmcsUnit(ram, RAM_SIZE)
    pointers = [*REGIONS, RAM + 0x800, RAM + RAM_SIZE, 0, RAM | 1 << 40, *[RAM + 0x3000] * 3]
    op = VmcsOperation

    def model_do(operation, operand, value):
        if operation is op.VMREAD:
            return model.vmread(operand)[::-1]
        status = {
            op.VMXON: lambda: model.vmxon(),
            op.VMXOFF: lambda: model.vmxoff(),
            op.VMCLEAR: lambda: model.vmclear(operand),
            op.VMPTRLD: lambda: model.vmptrld(operand),
            op.VMWRITE: lambda: model.vmwrite(operand, value),
            op.FAIL: lambda: model.fail(VmInstructionError(operand)),
        }[operation]()
        return status, 0

    async def scenario(ctx):
        assert (await bench.do(ctx, op.VMXON))[0] == model.vmxon() == 0
        statuses = set()
        kinds = [op.VMXON, op.VMXOFF, op.VMCLEAR, op.VMPTRLD, op.VMREAD, op.VMWRITE]
        operations = choose.choices(kinds, [4, 1, 4, 12, 40, 40], k=250)
        # So many that every way to fail is seen, whatever the seed.
        operations += (
            [op.VMPTRLD, op.VMXON]
            + [*[op.VMPTRLD] * 3, op.VMCLEAR] * 10
            + [op.VMWRITE] * 30
            + [op.FAIL] * 5
        )
        for operation in operations:
            if operation is op.VMXOFF:
                model.vmxoff()
                await bench.do(ctx, op.VMXOFF)
                operation = op.VMXON
            if operation in (op.VMREAD, op.VMWRITE):
                operand = choose.choice([*NUMBERS, *LIVE, 0, 1, 0x200, 1 << 40 | NUMBERS[0]])
            else:
                operand = choose.choice(pointers)
            if operation is op.FAIL:
                operand = choose.choice(list(VmInstructionError)).value
            value = choose.getrandbits(64)
            wanted = model_do(operation, operand, value)
            found = await bench.do(ctx, operation, operand, value)
            statuses.add(wanted[0])
            assert found == wanted, (operation, hex(operand))
            assert ctx.get(dut.current) == model.has_current
            assert not model.has_current or ctx.get(dut.pointer) == model.pointer
            assert not model.has_current or ctx.get(dut.launched) == model.launched
            if model.has_current and choose.random() < 0.2:
                # The guest runs: it changes a CSR, and information is written.
                model.launched = True
                await bench.enter(ctx)
                number = choose.choice(list(LIVE))
                field = VMCS_FIELDS[LIVE[number]]
                change = choose.getrandbits(64) & ~field.reserved
                bench.live[number] = change | field.required
                kept = model.fields[field.name] & field.reserved
                model.fields[field.name] = change | kept
                number = VMCS_FIELDS["exit_gpa"].number
                model.fields["exit_gpa"] = value
                await put(ctx, dut.information, {"number": number, "value": value})
        assert {0, VM_FAIL_INVALID, 2, 9, 11, 12, 13, 15} <= statuses
        for hpa in REGIONS:
            assert (await bench.do(ctx, op.VMCLEAR, hpa))[0] == model.vmclear(hpa)
        for hpa in {*bench.ram, *ram}:
            assert bench.ram.get(hpa, 0) == ram.get(hpa, 0), hex(hpa)

    bench.run(scenario)


def test_only_what_has_changed_is_written_back():
    bench = Bench(random.Random(0), fast=True)
    op = VmcsOperation

    async def scenario(ctx):
        await bench.do(ctx, op.VMXON)
        for hpa in REGIONS[:2]:
            await bench.do(ctx, op.VMPTRLD, hpa)
        for value in (0, 5):
            await bench.do(ctx, op.VMWRITE, VMCS_FIELDS["guest_pc"].number, value)
        await bench.enter(ctx)
        bench.live[VMCS_FIELDS["guest_sepc"].number] = 4
        bench.ram.reads = bench.ram.writes = 0
        start = bench.cycles
        await bench.do(ctx, op.VMPTRLD, REGIONS[0])
        # The memory of this bench takes two cycles for an access; what tells of exits comes later.
        first = 2 + len(NUMBERS) - len(INFORMATION)
        assert bench.cycles - start < len(LIVE) + 2 * first + 4 * 3 + 8
        # The launch state, too.
        assert bench.ram.writes == 3
        assert bench.ram.reads <= first + 1
        await bench.rest(ctx)
        assert bench.ram.reads == 2 + len(NUMBERS)
        bench.ram.writes = 0
        await bench.do(ctx, op.VMPTRLD, REGIONS[1])
        assert bench.ram.writes == 0

    bench.run(scenario)


def test_a_loaded_vmcs_is_told_whole():
    bench = Bench(random.Random(0))
    op = VmcsOperation

    async def scenario(ctx):
        for index, field in enumerate(VMCS_FIELDS.values()):
            bench.ram[REGIONS[0] + field.offset] = index << 32
        await bench.do(ctx, op.VMXON)
        await bench.do(ctx, op.VMPTRLD, REGIONS[0])
        first = {number: index << 32 for index, number in enumerate(NUMBERS)}
        assert bench.told == {n: value for n, value in first.items() if n not in INFORMATION}
        await bench.rest(ctx)
        assert bench.told == {number: index << 32 for index, number in enumerate(NUMBERS)}

    bench.run(scenario)


def test_vmread_gives_back_what_was_written_until_the_guest_is_entered():
    bench = Bench(random.Random(0))
    op, number = VmcsOperation, VMCS_FIELDS["guest_mepc"].number

    async def scenario(ctx):
        await bench.do(ctx, op.VMXON)
        await bench.do(ctx, op.VMPTRLD, REGIONS[0])
        for _ in range(2):
            await bench.do(ctx, op.VMWRITE, number, 0x123)
            bench.live[number] = 0x5678
            assert await bench.do(ctx, op.VMREAD, number) == (0, 0x123)
            await bench.enter(ctx)
            assert await bench.do(ctx, op.VMREAD, number) == (0, 0x5679)

    bench.run(scenario)
