"""The VMX unit against the golden model: instructions, entries, exits, translations dropped."""

import random

import pytest

from rtl.arch.csrs import MSTATUS
from rtl.arch.paging import PAGE_BITS
from rtl.arch.traps import Exception_, Interrupt, Privilege
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPT_ROOT_BITS, EPT_TAGS, EPTP, EptMode
from rtl.arch.vmx.exits import EXIT_REASONS, INTERRUPTION, ExitReason, InterruptionType
from rtl.arch.vmx.fields import VMCS_FIELDS
from rtl.arch.vmx.instructions import (
    INVVPID_OPERAND,
    VM_FAIL_INVALID,
    InvvpidType,
    VmInstructionError,
)
from rtl.vmx.ports import VmxOutcome
from tests.golden.vmx.valid_vmcs import RAM_SIZE, mutations, valid_fields
from tests.golden.vmx.world import controls
from tests.rtl.vmx.vmx_bench import RAM, REGIONS, WORD, VmxBench

NUMBER = {name: field.number for name, field in VMCS_FIELDS.items()}
MUTATIONS = list(mutations())
ROOTS = [RAM + (1 << 20) + (index << EPT_ROOT_BITS) for index in range(EPT_TAGS + 2)]
ALLOWED = [row.name for row in CONTROL_WORDS["execution_controls"].controls if row.allowed]
POINTERS = [*REGIONS, 0, RAM + 0x800, RAM + RAM_SIZE, RAM | 1 << 40, RAM + 0x5000]
CAUSES = {
    InterruptionType.INTERRUPT: [int(cause) for cause in Interrupt],
    InterruptionType.EXCEPTION: [int(cause) for cause in Exception_],
}


def eptp(root, ad=0):
    return EPTP.encode(ppn=root >> PAGE_BITS, mode=EptMode.SV39X4, ad=ad)


def legal(choose, name):
    """A value of a field that passes its checks."""
    field = VMCS_FIELDS[name]
    value = choose.getrandbits(64) & ~field.reserved | field.required
    match name:
        case "execution_controls":
            return controls(*choose.sample(ALLOWED, 5))
        case "exit_controls":
            return choose.randrange(2)
        case "eptp":
            return eptp(choose.choice(ROOTS), choose.randrange(2))
        case "vpid":
            return choose.randrange(1, 4)
        case "time_scale":
            return choose.getrandbits(64) | 1
        case "entry_interruption":
            kind = choose.choice(list(InterruptionType))
            valid, cause = choose.randrange(2), choose.choice(CAUSES[kind])
            return INTERRUPTION.encode(valid=valid, type=kind, cause=cause)
        case "guest_privilege":
            return choose.choice((0, 1, 3))
        case "guest_mstatus":
            return value & ~(3 << 11) | choose.choice((0, 1, 3)) << 11
        case "guest_satp":
            return value & ~(15 << 60) | choose.choice((0, 8)) << 60
        case "guest_activity":
            return choose.random() < 0.2
        case "guest_preemption_timer":
            return choose.choice((0, 3, 20, WORD))
    return value


def operands(choose, name):
    """What rs1 and rs2 of an instruction hold."""
    number = choose.choice([*NUMBER.values()] * 3 + [0, 1, 0x1FF, 1 << 40 | 8])
    match name:
        case "vmread":
            return number, 0
        case "vmwrite":
            return number, choose.getrandbits(64)
        case "vmclear" | "vmptrld":
            return choose.choice(POINTERS), 0
        case "invept":
            good = eptp(choose.choice(ROOTS), choose.randrange(2))
            bad = (good + 1, good ^ 1 << 60, good | 1 << 50, eptp(0), eptp(RAM - 0x4000))
            bad += (eptp(1 << 32),)
            return choose.choice((1, 1, 1, 2, 0, 3, 1 << 32 | 1)), choose.choice((good,) * 6 + bad)
        case "invvpid":
            kind, vpid = choose.randrange(4), choose.choice((0, 1, 1, 2, 3))
            operand = INVVPID_OPERAND.encode(type=kind, vpid=vpid) | (choose.random() < 0.1) << 40
            gva = choose.choice((0x5123, 0x5FFF, WORD, 1 << 38, WORD << 38 & WORD))
            return operand, gva
    return 0, 0


async def valid(bench, ctx, region, **fields):
    """Make a VMCS current that an entry can use."""
    assert await bench.do(ctx, "vmclear", region) == 0
    assert await bench.do(ctx, "vmptrld", region) == 0
    for name, value in {**valid_fields(), **fields}.items():
        assert await bench.do(ctx, "vmwrite", NUMBER[name], int(value)) == 0


async def enter(bench, ctx):
    """VMLAUNCH or VMRESUME, whichever it takes."""
    return await bench.do(ctx, "vmresume" if bench.vmx.vmcs.launched else "vmlaunch")


async def run(bench, ctx):
    """Enter the guest, which has to succeed, and let it run."""
    assert await enter(bench, ctx) is None
    assert bench.hart.world
    await bench.guest_runs(ctx)


@pytest.mark.parametrize("seed", range(4))
def test_lockstep_with_the_model(seed):
    choose = random.Random(seed)
    bench = VmxBench(choose)
    vmx = bench.vmx
    written = [name for name, field in VMCS_FIELDS.items() if not field.read_only]
    others = ("vmread", "vmwrite", "vmptrst", "vmcall", "vmxon", "vmclear", "vmptrld")
    others += ("invept",) * 4 + ("invvpid",) * 4

    async def one_instruction(ctx):
        name = choose.choice(others)
        first, second = operands(choose, name)
        if name == "vmwrite" and vmx.vmcs.has_current:
            # What is written at random is put right again.
            field = vmx.vmcs.name_of(first)
            before = vmx.vmcs.fields.get(field, 0)
            if not await bench.do(ctx, name, first, second):
                await bench.do(ctx, "vmread", first)
                await bench.do(ctx, name, first, before)
            return
        await bench.do(ctx, name, first, second)

    async def guest(ctx):
        while bench.hart.world:
            await bench.guest_runs(ctx)
            await bench.leave(ctx)
            if vmx.parked and choose.random() < 0.5:
                await bench.resume(ctx, choose.getrandbits(63) << (choose.random() < 0.8))
        if choose.random() < 0.5:
            # Behind the exit, whose own invalidation may still be on its way.
            name = choose.choice(("invept", "invvpid"))
            await bench.do(ctx, name, *operands(choose, name))
        if choose.random() < 0.3:
            await bench.read_all(ctx)
        else:
            await bench.read_all(ctx, "guest_mcycle", "guest_preemption_timer")

    async def scenario(ctx):
        vmx.park_exits = choose.getrandbits(64)
        ctx.set(bench.dut.park_exits, vmx.park_exits)
        ctx.set(bench.dut.time, choose.getrandbits(64))
        for name in CONTROL_WORDS:
            bench.set_mask(ctx, name, WORD)
        assert await bench.do(ctx, "vmxon") == 0
        assert await bench.do(ctx, "vmcall") == VM_FAIL_INVALID
        for region in REGIONS[:2]:
            await valid(bench, ctx, region)
        for _ in range(60):
            if not vmx.vmcs.has_current:
                await valid(bench, ctx, choose.choice(REGIONS[:2]))
            for name in [*choose.sample(written, 4), "eptp"]:
                await bench.do(ctx, "vmwrite", NUMBER[name], int(legal(choose, name)))
            await one_instruction(ctx)
            if choose.random() < 0.4 and vmx.vmcs.has_current:
                _, name, value = choose.choice(MUTATIONS)
                before = vmx.vmcs.fields[name]
                await bench.do(ctx, "vmwrite", NUMBER[name], value)
                await enter(bench, ctx)
                if bench.hart.world:
                    await guest(ctx)
                await bench.do(ctx, "vmwrite", NUMBER[name], before)
            await bench.do(ctx, choose.choice(("vmlaunch", "vmresume", "vmresume")))
            if bench.hart.world:
                await guest(ctx)
            if choose.random() < 0.1:
                bench.set_mask(ctx, "execution_controls", choose.getrandbits(64))
                await enter(bench, ctx)
                if bench.hart.world:
                    await guest(ctx)
                bench.set_mask(ctx, "execution_controls", WORD)
            if choose.random() < 0.03:
                assert await bench.do(ctx, "vmxoff") == await bench.do(ctx, "vmxon") == 0
        for region in REGIONS:
            await bench.do(ctx, "vmclear", region)
        for hpa in bench.words:
            place = hpa - RAM
            wanted = int.from_bytes(bench.hart.memory.ram[place : place + 8], "little")
            assert bench.words[hpa] == wanted, hex(hpa)
        assert {0, VM_FAIL_INVALID, 28, *VmxOutcome} <= bench.seen

    bench.run(scenario)


async def start(bench, ctx):
    """VMX on, with nothing masked."""
    for name in CONTROL_WORDS:
        bench.set_mask(ctx, name, WORD)
    assert await bench.do(ctx, "vmxon") == 0


def test_every_exit_leaves_what_its_row_says():
    bench = VmxBench(random.Random(1))
    reasons = [reason for reason, row in EXIT_REASONS.items() if row.reachable]
    reasons.remove(ExitReason.BAD_GUEST_STATE)

    async def scenario(ctx):
        await start(bench, ctx)
        timer = controls("preemption_timer", "enable_vpid")
        await valid(bench, ctx, REGIONS[0], execution_controls=timer, exit_controls=1, vpid=1)
        for reason in reasons * 2:
            start_timer = 0 if reason == ExitReason.PREEMPTION_TIMER else 1000
            await bench.do(ctx, "vmwrite", NUMBER["guest_preemption_timer"], start_timer)
            await bench.do(ctx, "vmwrite", NUMBER["guest_activity"], 0)
            await run(bench, ctx)
            await bench.leave(ctx, reason)
            await bench.read_all(ctx)
        assert set(reasons) <= bench.seen

    bench.run(scenario)


def test_every_entry_check_fails_and_names_itself():
    bench = VmxBench(random.Random(2))
    fields = valid_fields()
    one_each = {check: (name, value) for check, name, value in MUTATIONS}

    async def scenario(ctx):
        bench.vmx.park_exits = 1 << ExitReason.BAD_GUEST_STATE
        ctx.set(bench.dut.park_exits, bench.vmx.park_exits)
        await start(bench, ctx)
        await valid(bench, ctx, REGIONS[0])
        for name, value in one_each.values():
            await bench.do(ctx, "vmwrite", NUMBER[name], value)
            status = await enter(bench, ctx)
            if status is None:
                await bench.read_all(ctx, "exit_reason", "exit_qualification", "exit_pc")
            await bench.read_all(ctx, "entry_check", "instruction_error", "guest_pc")
            await bench.do(ctx, "vmwrite", NUMBER[name], fields[name])
        assert {7, 8, VmxOutcome.HOST} <= bench.seen
        assert await enter(bench, ctx) is None

    bench.run(scenario)


def test_a_guest_in_wfi_may_be_where_wfi_is_allowed():
    """What the guest has made of mstatus counts, and what VMWRITE makes of it."""
    bench = VmxBench(random.Random(11))
    fields, tw = valid_fields(), MSTATUS["tw"].mask
    mstatus = fields["guest_mstatus"]

    async def scenario(ctx):
        await start(bench, ctx)
        await valid(bench, ctx, REGIONS[0], execution_controls=controls("interrupt_window_exiting"))
        for privilege in (0, 1, 3):
            for before, after in ((0, tw), (tw, 0)):
                await bench.do(ctx, "vmwrite", NUMBER["guest_activity"], 0)
                await bench.do(ctx, "vmwrite", NUMBER["guest_mstatus"], mstatus | before)
                assert await enter(bench, ctx) is None
                bench.set_csr(ctx, "mstatus", mstatus | after)
                await bench.leave(ctx, ExitReason.INTERRUPT_WINDOW, waiting=1, privilege=privilege)
                for write in (False, True):
                    if write:
                        await bench.do(ctx, "vmwrite", NUMBER["guest_mstatus"], mstatus | before)
                    bench.seen.clear()
                    await enter(bench, ctx)
                    allowed = privilege == 3 or (
                        privilege == 1 and not (before if write else after)
                    )
                    assert bench.hart.world == allowed
                    if allowed:
                        await bench.leave(
                            ctx, ExitReason.INTERRUPT_WINDOW, waiting=1, privilege=privilege
                        )

    bench.run(scenario)


def test_every_way_to_fail():
    bench = VmxBench(random.Random(3))

    async def scenario(ctx):
        await start(bench, ctx)
        everything = ("vmread", "vmwrite", "vmlaunch", "vmresume", "vmcall", "vmxon", "vmclear")
        for name in everything:
            assert await bench.do(ctx, name, 1) == VM_FAIL_INVALID
        assert await bench.do(ctx, "vmptrld", 1) == VM_FAIL_INVALID
        assert await bench.do(ctx, "invept", 0) == VM_FAIL_INVALID
        await bench.do(ctx, "vmptrst")
        await valid(bench, ctx, REGIONS[0])
        bench.put(REGIONS[2], 1)
        error = VmInstructionError
        ways = (
            ("vmxon", 0, error.VMXON_IN_ROOT),
            ("vmclear", 8, error.VMCLEAR_INVALID_ADDRESS),
            ("vmptrld", 8, error.VMPTRLD_INVALID_ADDRESS),
            ("vmptrld", REGIONS[2], error.VMPTRLD_WRONG_REVISION),
            ("vmread", 1, error.UNSUPPORTED_FIELD),
            ("vmwrite", NUMBER["exit_reason"], error.VMWRITE_READ_ONLY_FIELD),
            ("vmresume", 0, error.VMRESUME_NOT_LAUNCHED),
            ("vmcall", 0, error.VMCALL_IN_ROOT),
            ("invept", 0, error.INVALID_INVALIDATION),
            ("invvpid", 0, error.INVALID_INVALIDATION),
        )
        for name, first, wanted in ways:
            assert await bench.do(ctx, name, first) == wanted, name
            await bench.read_all(ctx, "instruction_error")
        assert await bench.do(ctx, "vmptrst") == 0
        assert await enter(bench, ctx) is None
        await bench.leave(ctx, ExitReason.VMCALL)
        assert await bench.do(ctx, "vmlaunch") == error.VMLAUNCH_NOT_CLEAR

    bench.run(scenario)


def test_vmread_gives_back_what_was_written_until_the_guest_has_run():
    """Even what the guest's CSR could never hold."""
    bench = VmxBench(random.Random(4))

    async def scenario(ctx):
        await start(bench, ctx)
        await valid(bench, ctx, REGIONS[0])
        for _ in range(2):
            await run(bench, ctx)
            await bench.leave(ctx, ExitReason.WFI)
            await bench.read_all(ctx, "guest_mcycle")
            for name, field in VMCS_FIELDS.items():
                if not field.read_only:
                    before = bench.vmx.vmcs.fields[name]
                    await bench.do(ctx, "vmwrite", field.number, before ^ WORD)
                    await bench.read_all(ctx, name)
                    await bench.do(ctx, "vmwrite", field.number, before)

    bench.run(scenario)


def test_what_is_injected_is_injected_once():
    """Into a guest in wfi too; the guest that waits after an exception was none of it."""
    bench = VmxBench(random.Random(10))

    async def scenario(ctx):
        await start(bench, ctx)
        window = controls("interrupt_window_exiting")
        await valid(bench, ctx, REGIONS[0], execution_controls=window)
        for kind, causes in CAUSES.items():
            for cause in causes:
                event = INTERRUPTION.encode(valid=1, type=kind, cause=cause)
                waiting = kind == InterruptionType.INTERRUPT
                for name, value in (
                    ("entry_interruption", event),
                    ("entry_interruption_value", bench.choose.getrandbits(64)),
                    ("guest_activity", waiting),
                    ("guest_privilege", Privilege.MACHINE),
                ):
                    await bench.do(ctx, "vmwrite", NUMBER[name], int(value))
                await run(bench, ctx)
                await bench.leave(ctx, ExitReason.INTERRUPT_WINDOW, waiting=1, privilege=3)
                await bench.read_all(ctx, "entry_interruption", "entry_interruption_value")
                bench.seen.clear()
                await run(bench, ctx)
                assert "injection" not in bench.seen
                await bench.leave(ctx, ExitReason.VMCALL)

    bench.run(scenario)


def test_what_an_exit_drops_is_dropped_before_what_comes_behind_it():
    bench = VmxBench(random.Random(12))
    bench.stalls = (40,)

    async def scenario(ctx):
        await start(bench, ctx)
        await valid(bench, ctx, REGIONS[0])
        operand = INVVPID_OPERAND.encode(type=InvvpidType.SINGLE_CONTEXT, vpid=3)
        for _ in range(6):
            await bench.do(ctx, "vmwrite", NUMBER["guest_activity"], 0)
            await run(bench, ctx)
            await bench.leave(ctx, ExitReason.VMCALL)
            assert await bench.do(ctx, "invvpid", operand) == 0

    bench.run(scenario)


@pytest.mark.parametrize("reason", [ExitReason.EPT_VIOLATION, ExitReason.EPT_MISCONFIGURATION])
def test_what_the_ept_refuses_is_dropped_and_no_other_page(reason):
    bench = VmxBench(random.Random(13))

    async def scenario(ctx):
        await start(bench, ctx)
        await valid(bench, ctx, REGIONS[0], execution_controls=controls("enable_vpid"), vpid=1)
        for _ in range(8):
            await run(bench, ctx)
            await bench.leave(ctx, reason, gva=0x5123)
            await bench.read_all(ctx, "exit_gva")
            await bench.do(ctx, "vmwrite", NUMBER["vpid"], bench.choose.randrange(1, 3))
        assert not bench.unchecked
        assert any(entry.page == 0 for entry in bench.cached)

    bench.run(scenario)


def test_tags_are_kept_until_there_are_more_epts_than_tags():
    bench = VmxBench(random.Random(5), fast=True)

    async def scenario(ctx):
        await start(bench, ctx)
        await valid(bench, ctx, REGIONS[0], execution_controls=controls("enable_vpid"), vpid=7)

        async def visit(root):
            await bench.do(ctx, "vmwrite", NUMBER["eptp"], eptp(root))
            assert await enter(bench, ctx) is None
            tag, dropped = ctx.get(bench.dut.context.ept_tag), {e.root for e in bench.dropped}
            await bench.leave(ctx, ExitReason.VMCALL)
            return tag, {frame << PAGE_BITS for frame in dropped}

        tags = {}
        for root in ROOTS[:EPT_TAGS] * 2:
            tag, dropped = await visit(root)
            assert tags.setdefault(root, tag) == tag
            assert not dropped
        assert len(set(tags.values())) == EPT_TAGS
        # The oldest goes, whichever was used last.
        for old, new in ((ROOTS[0], ROOTS[-2]), (ROOTS[1], ROOTS[-1])):
            assert await visit(new) == (tags[old], {old})
        assert await visit(ROOTS[3]) == (tags[ROOTS[3]], set())

    bench.run(scenario)


def test_a_guest_runs_as_long_as_the_preemption_timer_says():
    bench = VmxBench(random.Random(6), fast=True)

    async def scenario(ctx):
        dut = bench.dut
        await start(bench, ctx)
        await valid(bench, ctx, REGIONS[0], execution_controls=controls("preemption_timer"))
        ctx.set(dut.advance, 1)
        for cycles in (0, 1, 2, 3, 17):
            await bench.do(ctx, "vmwrite", NUMBER["guest_preemption_timer"], cycles)
            assert await enter(bench, ctx) is None
            ran = 0
            while not ctx.get(dut.event.valid):
                await ctx.tick()
                ran += 1
            # Nothing commits in the guest's first cycle.
            assert ran == max(1, cycles)
            assert ctx.get(dut.event.reason).value == ExitReason.PREEMPTION_TIMER
            await bench.leave(ctx, ExitReason.PREEMPTION_TIMER)
            # Without save_preemption_timer the field is as it was.
            await bench.read_all(ctx, "guest_preemption_timer")

    bench.run(scenario)


def test_time_that_is_scaled_is_ready_before_the_guest():
    bench = VmxBench(random.Random(7), fast=True)

    async def scenario(ctx):
        await start(bench, ctx)
        await valid(
            bench, ctx, REGIONS[0], execution_controls=controls("use_time_scale"), time_scale=1
        )
        for scale in (1 << 48, 3 << 47, WORD):
            ctx.set(bench.dut.time, bench.choose.getrandbits(64))
            await bench.do(ctx, "vmwrite", NUMBER["time_scale"], scale)
            await run(bench, ctx)
            await bench.leave(ctx, ExitReason.TIME_READ)

    bench.run(scenario)


def test_cycles_of_a_world_switch():
    """From the request to the answer, and from an exit to the next request."""
    bench = VmxBench(random.Random(8), fast=True)
    entries, resumes = set(), set()

    async def scenario(ctx):
        bench.vmx.park_exits = WORD
        ctx.set(bench.dut.park_exits, WORD)
        await start(bench, ctx)
        for names in ((), ("enable_vpid",)):
            await valid(bench, ctx, REGIONS[0], execution_controls=controls(*names), vpid=1)
            for root in ROOTS:
                await bench.do(ctx, "vmwrite", NUMBER["eptp"], eptp(root))
                await bench.do(ctx, "vmwrite", NUMBER["entry_interruption"], 1 << 31 | 7)
                assert await enter(bench, ctx) is None
                entries.add(bench.answered - bench.asked)
                await bench.guest_runs(ctx)
                await bench.leave(ctx, ExitReason.VMCALL)
                await bench.resume(ctx, 0x1000)
                resumes.add(bench.answered - bench.asked)
                await bench.leave(ctx, ExitReason.VMCALL)
        assert max(entries) <= 4, entries
        assert max(resumes) <= 4, resumes

    bench.run(scenario)


def test_cycles_of_a_vmptrld():
    """Of another VMCS whose guest has run, when each double word takes two cycles."""
    bench = VmxBench(random.Random(9), fast=True)

    async def scenario(ctx):
        await start(bench, ctx)
        for region in REGIONS[:2]:
            await valid(bench, ctx, region)
        for region in (*REGIONS[:2],) * 2:
            await bench.do(ctx, "vmptrld", region)
            await bench.do(ctx, "vmwrite", NUMBER["guest_activity"], 0)
            await run(bench, ctx)
            await bench.leave(ctx, ExitReason.VMCALL)
            await bench.read_all(ctx, "guest_mcycle")
        await bench.do(ctx, "vmptrld", REGIONS[0])
        assert bench.answered - bench.asked <= 200

    bench.run(scenario)
