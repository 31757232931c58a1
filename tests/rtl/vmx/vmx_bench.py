"""The VMX unit beside the golden model: one hart each, one memory each, and what TLBs would hold."""

from types import SimpleNamespace
from typing import NamedTuple

from rtl.arch.csrs import MSTATUS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, SATP
from rtl.arch.traps import INTERRUPT_PRIORITY, Interrupt, Privilege
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.exits import EXIT_REASONS, INTERRUPTION, ExitReason, InterruptionType
from rtl.arch.vmx.fields import GUEST_CSRS, VMCS_FIELDS, VMCS_REVISION
from rtl.arch.vmx.instructions import INVVPID_OPERAND, InvvpidType
from rtl.mmu.context import World
from rtl.vmx.ports import VmxOperation, VmxOutcome
from rtl.vmx.vmx_unit import VmxUnit
from sim.golden import Hart
from sim.golden.history import Space
from sim.golden.vmx.exits import VmExit
from sim.golden.vmx.instructions import perform
from sim.golden.vmx.intercept import csr_exit
from sim.golden.vmx.virtual_time import virtual_ticks
from tests.golden.vmx.valid_vmcs import RAM_SIZE
from tests.golden.vmx.world import Outside
from tests.streams import get, put, simulate, wait

__all__ = ["RAM", "REGIONS", "WORD", "VmxBench"]

RAM = MEMORY_MAP["ram"].base
WORD = (1 << 64) - 1
REGIONS = [RAM + 0x10000 * index for index in range(1, 4)]
_CSR_OF = {VMCS_FIELDS[f"guest_{name}"].number: name for name in GUEST_CSRS}
_UNKNOWN = ("mcycle", "minstret")
#: Fields the unit shows the hart.
_SHOWN = (
    "exception_bitmap", "interrupt_passthrough", "interrupt_window_mask", "status_mask",
    "status_shadow", "time_offset", "time_scale", "vpid", "guest_mhartid", "guest_lines",
    "guest_mtimecmp", "host_pc", "execution_controls", "exit_controls", "eptp",
)  # fmt: skip
#: Exceptions the hart has end here.
_EXCEPTIONS = (1 << 16) - 1


class Cached(NamedTuple):
    """A translation in a TLB: how it is tagged there, and whose it really is.

    ``page`` is None for what is cached of an EPT alone.
    """

    world: int
    vpid: int
    ept_tag: int
    page: int | None
    is_global: bool
    root: int

    @property
    def space(self):
        return Space(self.vpid, self.root)

    def named_by(self, invalidation):
        """Whether the MMU drops it."""
        i = invalidation
        if i.world.value != self.world and not i.any_world:
            return False
        if i.match_ept and i.ept_tag != self.ept_tag:
            return False
        if self.page is None:
            return bool(i.any_vpid)
        return (
            (bool(i.any_vpid) or i.vpid == self.vpid)
            and not (i.match_page and i.page != self.page)
            and not (self.is_global and i.keep_global)
            and not i.match_asid
        )


class VmxBench:
    """Do the same to the unit and to the model, and compare what comes of it.

    Members
    -------
    vmx : VmxOperation
        The model.
    seen : set
        Statuses, outcomes and exit reasons that have occurred.
    cycle : int
        The cycle the simulation is in.
    """

    def __init__(self, choose, *, fast=False):
        self.dut = VmxUnit()
        self.choose, self.fast = choose, fast
        self.outside = Outside()
        self.hart = Hart(RAM_SIZE, self.outside, vmx=True)
        self.vmx = self.hart.vmx
        self.words = {}
        self.csrs = dict.fromkeys(GUEST_CSRS, 0)
        self.cached, self.promised, self.dropped = set(), set(), set()
        self.unchecked = False
        self.stalls = (0, 0, 1, 3, 25)
        self.seen = set()
        self.cycle = 0
        self.counted = 0
        for region in REGIONS:
            self.put(region, VMCS_REVISION)
        self._listen()

    def run(self, *scenarios, cycles=400_000):
        background = [self._clock, self._memory, self._guest_csrs, self._mmu]
        simulate(self.dut, *scenarios, background=background, cycles=cycles)

    # What surrounds the unit.

    def put(self, hpa, value):
        """Write memory, on both sides."""
        self.words[hpa] = value
        self.hart.memory.write_physical(hpa, value.to_bytes(8, "little"))

    async def _clock(self, ctx):
        dut = self.dut
        while True:
            _, _, world, advance = await ctx.tick().sample(dut.world, dut.advance)
            self.cycle += 1
            self.counted += int(world == World.NON_ROOT and advance)

    async def _memory(self, ctx):
        port = self.dut.memory
        while True:
            request = await get(ctx, port.request)
            if not self.fast:
                await wait(ctx, self.choose.choice((0, 0, 0, 2)))
            there = request.address < RAM + RAM_SIZE
            if there and request.write:
                assert request.mask == 0xFF
                self.words[request.address] = request.data
            answer = {"data": self.words.get(request.address, 0), "error": not there, "hit": 1}
            await put(ctx, port.response, answer)

    async def _guest_csrs(self, ctx):
        """They take what is legal, and answer in the next cycle."""
        dut = self.dut
        while True:
            _, _, write, number = await ctx.tick().sample(dut.guest_write, dut.guest_number)
            name = _CSR_OF.get(number)
            ctx.set(dut.guest_value, WORD if name is None else self.csrs[name])
            name = _CSR_OF.get(write.number)
            if write.valid and name:
                field = VMCS_FIELDS[f"guest_{name}"]
                self.csrs[name] = write.value & ~field.reserved | field.required
                ctx.set(dut.guest_tw, MSTATUS["tw"].extract(self.csrs["mstatus"]))

    async def _mmu(self, ctx):
        while True:
            if not self.fast:
                while not ctx.get(self.dut.invalidate.valid):
                    await ctx.tick()
                await wait(ctx, self.choose.choice(self.stalls))
            invalidation = await get(ctx, self.dut.invalidate)
            named = {entry for entry in self.cached if entry.named_by(invalidation)}
            self.dropped |= named
            self.cached -= named

    def _listen(self):
        """Note what the model drops."""
        history = self.vmx.history

        def note(condition):
            self.promised |= {entry for entry in self.cached if condition(entry)}

        def drop(chosen):
            note(lambda entry: entry.page is not None and chosen(entry.space))

        def drop_ept(root):
            note(lambda entry: root in (None, entry.root))

        def drop_address(vpid, gva):
            page = gva >> PAGE_BITS & (1 << 27) - 1
            note(lambda entry: entry.vpid == vpid and entry.page == page)

        def drop_local(vpid):
            note(lambda e: e.vpid == vpid and e.page is not None and not e.is_global)

        history.drop, history.drop_ept = drop, drop_ept
        history.drop_address, history.drop_local = drop_address, drop_local
        self._note = note

    # Instructions.

    async def do(self, ctx, name, first=0, second=0):
        """One VMX instruction in root M-mode; what vmxstatus becomes."""
        self.mask()
        self.asked_for = name, hex(first), hex(second)
        request = {"operation": VmxOperation[name.upper()], "rs1": first, "rs2": second}
        self._begin()
        if name == "invvpid" and INVVPID_OPERAND["type"].extract(first) == InvvpidType.ALL_CONTEXTS:
            # It may take with it what is the EPT's alone.
            self.may = {entry for entry in self.before if entry.page is None}
        status, value = perform(self.vmx, name, first, second)
        wanted = status if value is None else value
        answer = await self._request(ctx, request)
        await self._check_answer(ctx, answer, status, wanted)
        return status

    async def resume(self, ctx, pc):
        """Go on from a park by an exit."""
        self.mask()
        self.asked_for = None
        self._begin()
        self.vmx.resume(pc)
        request = {"operation": VmxOperation.VMRESUME, "rs1": pc, "moves_pc": 1}
        status = self.hart.csr.values["vmxstatus"] if not self.hart.world else None
        if not self.hart.world and not status:
            status = None
        answer = await self._request(ctx, request)
        await self._check_answer(ctx, answer, status, status)

    def mask(self):
        """The model's masks are CSRs of root's."""
        for name in CONTROL_WORDS:
            mask = self.masks[name]
            self.vmx.root_csr.values[f"vmx{name.removesuffix('_controls')}mask"] = mask

    masks = dict.fromkeys(CONTROL_WORDS, WORD)

    def set_mask(self, ctx, name, value):
        self.masks = {**self.masks, name: value}
        ctx.set(getattr(self.dut, name.replace("_controls", "_mask")), value)

    def _begin(self):
        if not self.unchecked:
            self.promised, self.dropped, self.may = set(), set(), set()
            self.before = set(self.cached)
        self.unchecked = False

    async def _request(self, ctx, request):
        await put(ctx, self.dut.request, request)
        self.asked = self.cycle
        if not self.fast:
            await wait(ctx, self.choose.choice((0, 0, 1, 4)))
        ctx.set(self.dut.answer.ready, 1)
        given = False
        while not given:
            _, _, given, answer, self.status, told = await ctx.tick().sample(
                self.dut.answer.valid, self.dut.answer.p, self.dut.status, self.dut.status_stb
            )
            assert told == given
        ctx.set(self.dut.answer.ready, 0)
        self.answered = self.cycle
        return answer

    async def _check_answer(self, ctx, answer, status, wanted):
        vmx, hart, dut = self.vmx, self.hart, self.dut
        assert self.status == (status or 0) == vmx.root_csr.values["vmxstatus"]
        outcome = VmxOutcome.NEXT
        if status is None:
            outcome = VmxOutcome.GUEST if hart.world else VmxOutcome.HOST
        self.seen |= {outcome, status}
        assert answer.outcome == outcome
        assert answer.writes_rd == (outcome is VmxOutcome.NEXT)
        if outcome is VmxOutcome.NEXT:
            assert answer.value == wanted, (self.asked_for, hex(answer.value))
            assert not answer.parks
        else:
            assert answer.pc == hart.pc
        if outcome is VmxOutcome.HOST:
            assert answer.parks == vmx.parked
            self._check_park(ctx)
        assert ctx.get(dut.on) == vmx.vmcs.on
        assert ctx.get(dut.world).value == hart.world
        if outcome is VmxOutcome.GUEST:
            self.counted = 0
            await self._check_entry(ctx, answer)
        else:
            assert not any(ctx.get(dut.context.as_value()).to_bytes(16, "little"))
            self._check_dropped()

    def _check_park(self, ctx):
        """What a park record would show."""
        found, park = ctx.get(self.dut.saved), self.vmx.park()
        for name in ("reason", "qualification", "gva", "gpa", "rs1", "rs2", "instruction"):
            assert found[f"exit_{name}"] == park[name], name
        assert found.exit_instruction_length == park["length"]
        # As wide as in the record: a field that is bad may hold more.
        assert (found.guest_pc, found.guest_privilege.value) == (park["pc"], park["privilege"] & 3)

    # Non-root operation.

    async def _check_entry(self, ctx, answer):
        vmx, hart, fields = self.vmx, self.hart, self.vmx.vmcs.fields
        context = ctx.get(self.dut.context)
        assert answer.privilege.value == hart.privilege
        assert (context.world, context.ept) == (World.NON_ROOT, 1)
        assert context.vpid == hart.stage.vpid
        assert context.ept_root == hart.stage.root
        assert context.ept_ad == hart.stage.update
        tags = int(context.world.value), context.vpid, context.ept_tag
        other = {e for e in self.before if e.ept_tag == tags[2] and e.root != context.ept_root}
        self._check_dropped(may=other)
        for entry in self.cached:
            if (entry.world, entry.ept_tag) == (tags[0], tags[2]):
                assert entry.root == context.ept_root, "an EPT tag is shared"
        for _ in range(3):
            page = self.choose.choice((0, 5, 1 << 26, None))
            entry = Cached(*tags, page, self.choose.random() < 0.3, context.ept_root)
            self.cached.add(entry)
        injection = answer.injection
        assert bool(injection.valid) == (vmx._injection is not None)
        waits = vmx._waits == (hart.pc, 0)
        assert bool(answer.waiting) == waits
        if injection.valid:
            kind, cause = vmx._injection
            assert injection.interrupt == (kind == InterruptionType.INTERRUPT)
            assert injection.cause == cause
            vmx.inject()
            assert injection.value == hart.trapped[1]
            self.seen.add("injection")
        shown = ctx.get(self.dut.fields)
        for name in _SHOWN:
            value = shown[name]
            value = getattr(value, "as_value", lambda value=value: value)()
            wanted = fields[name] & (_EXCEPTIONS if name == "exception_bitmap" else WORD)
            if name in ("execution_controls", "exit_controls", "eptp"):
                continue
            assert value == wanted, name

    def set_csr(self, ctx, name, value):
        """The guest gives a CSR a value it can have."""
        self.vmx.guest_csr.values[name] = self.csrs[name] = value
        ctx.set(self.dut.guest_tw, MSTATUS["tw"].extract(self.csrs["mstatus"]))

    async def guest_runs(self, ctx):
        """CSRs change, and time goes by."""
        choose, hart, vmx = self.choose, self.hart, self.vmx
        values = vmx.guest_csr.values
        for name in choose.sample(GUEST_CSRS, 6):
            field = VMCS_FIELDS[f"guest_{name}"]
            value = choose.getrandbits(64) & ~field.reserved | field.required
            if name == "mstatus":
                value = MSTATUS["mpp"].insert(value, choose.choice((0, 1, 3)))
            if name == "satp":
                value = SATP["mode"].insert(value, choose.choice((0, 8)))
            if name not in _UNKNOWN:
                values[name] = value
        for name in GUEST_CSRS:
            if name not in _UNKNOWN:
                self.set_csr(ctx, name, values[name])
        self.csrs["mcycle"] = self.outside.counters["guest_mcycle"] = choose.getrandbits(64)
        hart.switched()
        await self._check_event(ctx)
        await self._check_intercept(ctx)
        for _ in range(choose.choice((0, 1, 7, 30))):
            ctx.set(self.dut.advance, choose.random() < 0.7)
            await ctx.tick()
        ctx.set(self.dut.advance, 0)

    async def _check_event(self, ctx):
        vmx, dut, choose = self.vmx, self.dut, self.choose
        fields = vmx.vmcs.fields
        pending = sum(1 << line for line in Interrupt if choose.random() < 0.2)
        is_open = choose.random() < 0.5
        ctx.set(dut.root_interrupts, pending)
        ctx.set(dut.window_open, is_open)
        await wait(ctx, 2)
        event = ctx.get(dut.event)
        reason, cause = None, 0
        passed = fields["interrupt_passthrough"]
        if vmx.control("interrupt_window_exiting") and is_open:
            reason = ExitReason.INTERRUPT_WINDOW
        if vmx.control("external_interrupt_exiting") and pending & ~passed:
            reason = ExitReason.EXTERNAL_INTERRUPT
            cause = next(line for line in INTERRUPT_PRIORITY if (pending & ~passed) >> line & 1)
        if vmx.control("preemption_timer") and self.timer_left() == 0:
            reason, cause = ExitReason.PREEMPTION_TIMER, 0
        assert bool(event.valid) == (reason is not None)
        if reason is not None:
            assert event.reason.value == reason
            assert reason != ExitReason.EXTERNAL_INTERRUPT or event.cause == cause
            self.seen.add(("event", reason))

    async def _check_intercept(self, ctx):
        """A few CSR instructions, and the time."""
        dut, choose, fields = self.dut, self.choose, self.vmx.vmcs.fields
        for number in choose.sample((0x100, 0x300, 0x180, 0xC00, 0xC01, 0x340, 0x105, 0xF14), 3):
            reads, writes = choose.randrange(2), choose.randrange(2)
            value = choose.choice((fields["status_shadow"], choose.getrandbits(64)))
            ctx.set(dut.intercept_number, number)
            await ctx.tick()
            ctx.set(dut.access, {"reads": reads, "writes": writes, "value": value})
            wanted = csr_exit(fields, number, reads=bool(reads), writes=bool(writes), value=value)
            assert bool(ctx.get(dut.intercepted)) == (wanted is not None)
            assert wanted is None or ctx.get(dut.intercept_reason).value == wanted
        assert ctx.get(dut.virtual_time_ready)
        assert ctx.get(dut.virtual_time) == virtual_ticks(fields, ctx.get(dut.time))

    def timer_left(self):
        """What is left of the preemption timer."""
        return max(0, self.vmx.vmcs.fields["guest_preemption_timer"] - self.counted)

    async def leave(self, ctx, reason=None, **given):
        """An exit for a reason, if none is given for one that could be; with what is given."""
        choose, hart, vmx, dut = self.choose, self.hart, self.vmx, self.dut
        expired = vmx.control("preemption_timer") and self.timer_left() == 0
        possible = [r for r, row in EXIT_REASONS.items() if row.reachable]
        possible.remove(ExitReason.BAD_GUEST_STATE)
        if not expired:
            possible.remove(ExitReason.PREEMPTION_TIMER)
        reason = choose.choice(possible) if reason is None else reason
        row = EXIT_REASONS[reason]
        hart.pc = choose.getrandbits(63) << 1
        privileges = (Privilege.USER, Privilege.SUPERVISOR, Privilege.MACHINE)
        hart.privilege = given.pop("privilege", choose.choice(privileges))
        hart.x[5], hart.x[6] = choose.getrandbits(64), choose.getrandbits(64)
        length = choose.choice((0, 2, 4))
        record = {
            "reason": reason.value,
            "qualification": choose.getrandbits(64),
            "gva": choose.choice((0x5123, WORD << 38 & WORD, choose.getrandbits(64))),
            "gpa": choose.getrandbits(64),
            "pc": hart.pc,
            "privilege": int(hart.privilege),
            "instruction": choose.getrandbits(32),
            "length": length,
            "rs1": hart.x[5],
            "rs2": hart.x[6],
            "cause": choose.randrange(16),
            "waiting": choose.randrange(2) if not row.instruction else 0,
            **given,
        }
        interrupt = reason == ExitReason.EXTERNAL_INTERRUPT
        kind = InterruptionType.INTERRUPT if interrupt else InterruptionType.EXCEPTION
        event = INTERRUPTION.encode(valid=1, type=kind, cause=record["cause"])
        hart.executed = None
        if length:
            hart.executed = SimpleNamespace(bits=record["instruction"], length=length, rs1=5, rs2=6)
        self._begin()
        context = ctx.get(dut.context)
        page = record["gva"] >> PAGE_BITS & (1 << 27) - 1
        if row.address:
            stage = hart.stage
            space = Space(stage.vpid, stage.root)
            self._note(lambda entry: entry.space == space and entry.page == page)
        self.outside.counters["guest_preemption_timer"] = self.timer_left()
        ctx.set(dut.exit.p, record)
        ctx.set(dut.exit.valid, 1)
        assert ctx.get(dut.exit.ready)
        vmx.exit(
            VmExit(
                reason,
                record["qualification"] if row.qualification else 0,
                gva=record["gva"] if row.address else 0,
                gpa=record["gpa"] if row.address else 0,
                interruption=event if row.interruption else 0,
            ),
            activity=record["waiting"],
        )
        if "guest_preemption_timer" in vmx.vmcs.uncertain:
            vmx.observed("guest_preemption_timer")
        assert ctx.get(dut.exit_parks) == vmx.parked
        assert ctx.get(dut.fields.host_pc) == hart.pc
        await ctx.tick()
        ctx.set(dut.exit.valid, 0)
        assert ctx.get(dut.world) == World.ROOT
        assert not any(ctx.get(dut.context.as_value()).to_bytes(16, "little"))
        assert not ctx.get(dut.event.valid)
        self._check_park(ctx)
        self.seen.add(reason)
        if choose.random() < 0.5:
            while not ctx.get(dut.settled):
                await ctx.tick()
            self._check_dropped()
            # Even if something were left for VPID 0, the next entry without VPIDs drops it.
            self.cached.add(Cached(1, 0, context.ept_tag, 9, False, context.ept_root))
        else:
            # The next request comes at once, and what the exit drops is dropped before its answer.
            self.unchecked = True

    def _check_dropped(self, may=frozenset()):
        """All was dropped that was promised, and no more than that and what ``may``."""
        assert self.promised <= self.dropped, self.promised - self.dropped
        assert self.dropped <= self.promised | self.may | set(may), (
            self.asked_for,
            self.dropped - self.promised,
        )

    async def read_all(self, ctx, *names):
        for name in names or VMCS_FIELDS:
            await self.do(ctx, "vmread", VMCS_FIELDS[name].number)
