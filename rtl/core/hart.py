"""The hart: pipeline, caches, MMU, CSRs and parking, wired together."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from rtl.bus.axi4 import Axi4
from rtl.bus.axi4_arbiter import Axi4Arbiter
from rtl.bus.register_bus import RegisterBus
from rtl.bus.request_arbiter import RequestArbiter
from rtl.bus.snoop import SnoopPort
from rtl.core.csr import CsrFile
from rtl.core.frontend.aligner import Aligner
from rtl.core.frontend.fetch import FetchUnit
from rtl.core.frontend.instruction_cache import InstructionCache
from rtl.core.lsu.data_cache import DataCache
from rtl.core.lsu.load_store_unit import LoadStoreUnit
from rtl.core.parking import ParkingUnit
from rtl.core.performance_monitor import PerformanceMonitor
from rtl.core.pipeline import Pipeline
from rtl.core.ports import (
    HartEvents,
    HostPort,
    InterruptLines,
    Park,
    PipelineStages,
    Resume,
    RetirementPort,
)
from rtl.core.worlds import Worlds
from rtl.lib.skip import Skip
from rtl.mmu.context import EptFault, Fault
from rtl.mmu.mmu import Mmu
from rtl.vmx.intercept import ExitReason

__all__ = ["Hart"]


class Hart(wiring.Component):
    """One RV64IMAC hart with M, S and U modes, Sv39, L1 caches, and a host port's other side.

    Parameters
    ----------
    cache_size, cache_ways : int
        Bytes and ways of each L1 cache.
    tlb_entries : int
        Entries of each first-level TLB.
    shared_tlb_entries, walk_cache_entries : int
        Entries of the second-level TLB, and of each cache of the page walker.
    branch_targets, branch_counters, indirect_targets : int
        See Predictor.
    bit_manipulation : bool
        With Zba, Zbb and Zbs.
    vmx : bool
        With the virtualization extension.

    Members
    -------
    memory : Out(Axi4(id_width=1))
        RAM, cached; only RAM addresses appear here.
    peripheral : Out(RegisterBus())
        Everything below RAM, in program order.
    snoop : In(SnoopPort())
        Where all other bus masters access RAM.
    lines, time : In
        Interrupt lines and mtime.
    retirement : Out(RetirementPort())
        What retires; nothing depends on it.
    parked, park, resume, host :
        See ParkingUnit.
    park_exceptions, park_interrupts : In(64)
        Root traps that park, by cause.
    park_exits : In(64)
        VM exits that park, by reason.
    park_ebreak : In(1)
        Park before an ebreak, which then does not trap.
    stop, step : In(1)
        Park before the next instruction; after each one.
    skip : In(Skip)
        Only while parked and ``settled``.
    settled : Out(1)
        No effect of ``skip`` is under way.
    stall : In(1)
        Time stands still although the hart runs: the world outside has not kept up.
    advance : Out(1)
        This cycle is machine time.
    events : Out(HartEvents)
    stages : Out(PipelineStages)
        For observers of the pipeline.
    """

    def __init__(
        self,
        *,
        cache_size,
        cache_ways,
        tlb_entries,
        shared_tlb_entries,
        walk_cache_entries,
        branch_targets,
        branch_counters,
        indirect_targets,
        bit_manipulation,
        vmx,
    ):
        self._bit_manipulation = bit_manipulation
        self._vmx = vmx
        self._cache = {"size": cache_size, "ways": cache_ways}
        self._mmu = {
            "entry_count": tlb_entries,
            "shared_entries": shared_tlb_entries,
            "walk_cache_entries": walk_cache_entries,
            "nested_entries": walk_cache_entries,
            "guests": vmx,
        }
        self._predictor = {
            "target_count": branch_targets,
            "counter_count": branch_counters,
            "indirect_count": indirect_targets,
        }
        super().__init__(
            {
                "memory": Out(Axi4(id_width=1)),
                "peripheral": Out(RegisterBus()),
                "snoop": In(SnoopPort()),
                "lines": In(InterruptLines),
                "time": In(64),
                "skip": In(Skip),
                "settled": Out(1),
                "retirement": Out(RetirementPort()),
                "host": In(HostPort()),
                "parked": Out(1),
                "park": Out(Park),
                "resume": In(stream.Signature(Resume)),
                "park_exceptions": In(64),
                "park_interrupts": In(64),
                "park_exits": In(64),
                "park_ebreak": In(1),
                "stop": In(1),
                "step": In(1),
                "stall": In(1),
                "advance": Out(1),
                "events": Out(HartEvents),
                "stages": Out(PipelineStages),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetch = fetch = FetchUnit(**self._predictor)
        m.submodules.aligner = aligner = Aligner()
        m.submodules.pipeline = pipeline = Pipeline(
            bit_manipulation=self._bit_manipulation, vmx=self._vmx
        )
        m.submodules.csr = csr = Worlds() if self._vmx else CsrFile()
        m.submodules.load_store = load_store = LoadStoreUnit()
        m.submodules.parking = parking = ParkingUnit(vmx=self._vmx)
        m.submodules.mmu = mmu = Mmu(**self._mmu)
        m.submodules.instruction_cache = instruction_cache = InstructionCache(**self._cache)
        m.submodules.data_cache = data_cache = DataCache(**self._cache)
        m.submodules.memory_arbiter = memory_arbiter = Axi4Arbiter(readers=1, writers=1, id_width=1)
        m.submodules.peripheral_arbiter = peripheral_arbiter = RequestArbiter(
            signature=RegisterBus(), count=2
        )
        m.submodules.snoop_arbiter = snoop_arbiter = RequestArbiter(
            signature=SnoopPort(), count=2 + self._vmx
        )
        commit, execute = pipeline.commit, pipeline.execute

        # Frontend.
        connect(m, fetch.o, aligner.i)
        connect(m, aligner.o, pipeline.i)
        connect(m, fetch.translation, mmu.instruction)
        connect(m, fetch.index, instruction_cache.i_index)
        m.d.comb += [
            instruction_cache.access.eq(fetch.access),
            fetch.result.eq(instruction_cache.o_result),
            fetch.open.eq(instruction_cache.open),
            fetch.redirect.eq(pipeline.redirect),
            fetch.repair.eq(pipeline.repair),
            fetch.update.eq(pipeline.update),
            pipeline.misfit.eq(aligner.misfit),
            aligner.redirect.eq(pipeline.redirect),
            fetch.context.eq(csr.fetch_context),
            fetch.hold.eq(parking.hold),
            fetch.alone.eq(pipeline.empty & ~aligner.o.valid),
            fetch.room.eq(aligner.room),
            instruction_cache.written.eq(data_cache.written),
            instruction_cache.flush.eq(commit.fence_i | parking.fence_i),
            pipeline.hold.eq(parking.hold),
            pipeline.external_redirect.eq(parking.redirect),
        ]

        # Load and store. The execute stage hands over the page offset early; an access that
        # has to be repeated is indexed by the load/store unit itself, when the stage is held up.
        connect(m, load_store.translation, mmu.data)
        index = data_cache.i_index
        with m.If(load_store.index.valid):
            m.d.comb += [
                index.valid.eq(1),
                index.payload.eq(load_store.index.payload),
                load_store.index.ready.eq(index.ready),
            ]
        with m.Elif(commit.held):
            m.d.comb += [
                index.valid.eq(commit.waiting.valid),
                index.payload.eq(commit.waiting.address),
                commit.waiting_indexed.eq(commit.waiting.valid & index.ready),
            ]
        with m.Else():
            m.d.comb += [
                index.valid.eq(execute.index.valid),
                index.payload.eq(execute.index.payload),
                execute.index.ready.eq(index.ready),
            ]
        m.d.comb += [
            data_cache.access.eq(load_store.access),
            load_store.result.eq(data_cache.o_result),
            data_cache.lock.eq(load_store.lock),
            load_store.written.eq(data_cache.written),
            load_store.context.eq(csr.data_context),
            load_store.instruction.eq(commit.memory),
            load_store.start.eq(commit.memory_start),
            load_store.indexed.eq(commit.memory_indexed),
            load_store.next_valid.eq(execute.memory),
            load_store.next_address.eq(execute.address),
            load_store.next_reads.eq(execute.reads),
            load_store.held.eq(commit.held),
            load_store.waiting.eq(commit.waiting),
            load_store.clear_reservation.eq(commit.clear_reservation | parking.clear_reservation),
            commit.memory_done.eq(load_store.done),
            commit.memory_value.eq(load_store.value),
            commit.memory_fault.eq(load_store.fault),
            commit.memory_refusal.eq(load_store.refusal),
            commit.memory_cause.eq(load_store.cause),
            commit.memory_fault_address.eq(load_store.fault_address),
            commit.memory_physical.eq(load_store.physical),
            commit.memory_stored.eq(load_store.stored),
        ]

        # Buses.
        connect(m, mmu.memory, data_cache.walker)
        connect(m, instruction_cache.bus, memory_arbiter.readers[0])
        connect(m, data_cache.bus, memory_arbiter.writers[0])
        connect(m, memory_arbiter.bus, flipped(self.memory))
        connect(m, fetch.peripheral, peripheral_arbiter.initiators[0])
        connect(m, load_store.peripheral, peripheral_arbiter.initiators[1])
        connect(m, peripheral_arbiter.bus, flipped(self.peripheral))
        connect(m, instruction_cache.snoop, snoop_arbiter.initiators[0])
        connect(m, flipped(self.snoop), snoop_arbiter.initiators[1])
        if self._vmx:
            connect(m, csr.memory, snoop_arbiter.initiators[2])
        connect(m, snoop_arbiter.bus, data_cache.snoop)

        m.submodules.monitor = monitor = PerformanceMonitor()
        self._monitor(
            m, monitor, fetch, pipeline, load_store, mmu, parking, instruction_cache, data_cache
        )
        m.d.comb += csr.events.eq(monitor.events)
        self._csr(m, csr, commit, parking)
        self._park(m, csr, pipeline, parking, fetch, load_store, mmu, instruction_cache, data_cache)
        if self._vmx:
            self._guests(m, csr, commit, parking, fetch, load_store, mmu)
        m.d.comb += [
            self.stages.eq(pipeline.stages),
            self.events.retired.eq(commit.retired),
            self.events.transition.eq(parking.transition),
            self.events.charging.eq(parking.charging),
            self.events.walking.eq(mmu.walking),
            self.events.instruction_miss.eq(instruction_cache.miss_stb),
            self.events.data_miss.eq(data_cache.miss_stb),
            self.events.instruction_walk.eq(fetch.walk_stb),
            self.events.data_walk.eq(load_store.walk_stb),
            self.events.exit.eq(commit.trapped_park | commit.exited_park | parking.failed_entry),
            self.events.reason.code.eq(commit.trap.code),
            self.events.reason.interrupt.eq(commit.trap.interrupt),
        ]
        if self._vmx:
            with m.If(~commit.trapped_park):
                m.d.comb += [
                    self.events.reason.code.eq(ExitReason.BAD_GUEST_STATE.value),
                    self.events.reason.interrupt.eq(0),
                    self.events.reason.vm_exit.eq(1),
                ]
                with m.If(commit.exited):
                    m.d.comb += self.events.reason.code.eq(commit.guest.exit.p.reason)
        return m

    def _monitor(self, m, monitor, fetch, pipeline, load_store, mmu, parking, *caches):
        """What the monitor sees is a cycle old: much of it is known late."""
        execute, commit = pipeline.execute, pipeline.commit
        for activity, unit, cache in zip(
            (monitor.fetch, monitor.data), (fetch, load_store), caches, strict=True
        ):
            m.d.sync += [
                activity.miss.eq(cache.miss_stb),
                activity.walk.eq(unit.walk_stb),
                activity.walks.eq(unit.translation.walk.valid | unit.translation.walked.ready),
                activity.access.eq(unit.access.valid),
                activity.result.eq(unit.result.valid),
                activity.request.eq(unit.peripheral.request.valid),
                activity.response.eq(unit.peripheral.response.valid),
            ]
        m.d.sync += [
            monitor.advance.eq(parking.advance),
            monitor.hold.eq(parking.hold),
            monitor.retired.eq(commit.retired),
            monitor.walking.eq(mmu.walking),
            monitor.walk_read.eq(mmu.memory.request.valid & mmu.memory.request.ready),
            monitor.offered.eq(pipeline.offered),
            monitor.executing.eq(~execute.empty),
            monitor.execute_unit.eq(execute.o.payload.unit),
            monitor.commit.valid.eq(~commit.empty & ~commit.trapped),
            monitor.commit.held.eq(commit.held),
            monitor.commit.unit.eq(commit.unit),
            monitor.commit.operation.eq(commit.operation),
            monitor.commit.taken.eq(commit.taken),
            monitor.commit.mispredicted.eq(commit.mispredicted),
            monitor.unpredicted.eq(pipeline.unpredicted),
            monitor.mispredicted.eq(pipeline.mispredicted),
            monitor.killed.eq(commit.kill),
        ]

    def _csr(self, m, csr, commit, parking):
        with m.If(parking.hold):
            m.d.comb += [csr.request.eq(parking.csr_request), csr.write.eq(parking.csr_write)]
        with m.Else():
            m.d.comb += [csr.request.eq(commit.csr_request), csr.write.eq(commit.csr_write)]
        m.d.comb += [
            csr.lines.eq(self.lines),
            csr.time.eq(self.time),
            csr.skip.eq(self.skip),
            csr.advance.eq(parking.advance),
            csr.retired.eq(commit.retired | parking.retires),
            csr.trap_valid.eq(commit.trapped),
            csr.trap.eq(commit.trap),
            csr.trap_pc.eq(commit.trap_pc),
            csr.ret_valid.eq(commit.ret_valid | parking.ret_valid),
            csr.ret_supervisor.eq(commit.ret_supervisor),
            csr.privilege_write.eq(parking.privilege_write),
            csr.privilege_next.eq(parking.privilege_next),
            parking.csr_value.eq(csr.value),
            parking.csr_illegal.eq(csr.illegal),
            commit.csr_value.eq(csr.value),
            commit.csr_illegal.eq(csr.illegal),
            commit.trap_vector.eq(csr.trap_vector),
            commit.trap_to_machine.eq(csr.trap_to_machine),
            commit.ret_pc.eq(csr.ret_pc),
            commit.privilege.eq(csr.privilege),
            commit.tvm.eq(csr.tvm),
            commit.tw.eq(csr.tw),
            commit.tsr.eq(csr.tsr),
            commit.interrupt.eq(csr.interrupt),
            commit.interrupt_code.eq(csr.interrupt_code),
            commit.wake.eq(csr.wake),
            commit.park_exceptions.eq(self.park_exceptions),
            commit.park_interrupts.eq(self.park_interrupts),
            commit.park_ebreak.eq(self.park_ebreak),
        ]

    def _park(self, m, csr, pipeline, parking, fetch, load_store, mmu, *caches):
        commit = pipeline.commit
        data_cache = caches[-1]
        # Between park and resume the MMU ends what it has begun, so that how long the machine stays
        # parked makes no difference; commands wait too, so that each invalidation stays precise.
        settled = Signal()
        quiet, saved = (csr.quiet, ~csr.saving) if self._vmx else (Const(1, 1), Const(1, 1))
        m.d.comb += [settled.eq(mmu.settled & csr.cleared & quiet), self.settled.eq(csr.settled)]
        # The fields of an exit may be written behind the entry that follows it.
        for outer, inner, open_ in (
            (self.host.request, parking.host.request, settled & saved),
            (self.resume, parking.resume, settled),
        ):
            m.d.comb += [
                inner.payload.eq(outer.payload),
                inner.valid.eq(outer.valid & open_),
                outer.ready.eq(inner.ready & open_),
            ]
        connect(m, parking.host.response, flipped(self.host.response))
        connect(m, parking.clean, data_cache.i_clean)
        invalidate = mmu.i_invalidate
        # A cycle later: many comparators follow.
        asked, self._of_host = Signal(), Signal()
        m.d.sync += [
            asked.eq(commit.invalidate.valid | parking.invalidate.valid),
            self._of_host.eq(parking.invalidate.valid),
        ]
        m.d.comb += [
            invalidate.valid.eq(asked),
            invalidate.payload.eq(commit.invalidate.payload),
        ]
        with m.If(self._of_host):
            m.d.comb += invalidate.payload.eq(parking.invalidate.payload)
        m.d.comb += [
            parking.halt.eq(commit.halt),
            parking.retired.eq(commit.retired),
            parking.trapped.eq(commit.trapped | commit.exited),
            parking.trapped_park.eq(commit.trapped_park | commit.exited_park),
            parking.idle.eq(
                fetch.idle & load_store.idle & mmu.idle & caches[0].idle & data_cache.idle
            ),
            parking.time.eq(self.time),
            parking.skip.eq(self.skip),
            parking.stall.eq(self.stall),
            parking.stop_request.eq(self.stop),
            parking.step.eq(self.step),
            parking.cleaned.eq(data_cache.o_cleaned),
            parking.gpr_value.eq(pipeline.gpr_value),
            pipeline.gpr.eq(parking.gpr),
            pipeline.gpr_write.eq(parking.gpr_write),
            pipeline.gpr_write_value.eq(parking.gpr_write_value),
            commit.stop.eq(parking.stop),
            self.parked.eq(parking.parked),
            self.park.eq(parking.park),
            self.advance.eq(parking.advance),
            self.retirement.valid.eq(commit.retirement.valid),
            self.retirement.record.eq(commit.retirement.record),
        ]

    def _guests(self, m, worlds, commit, parking, fetch, load_store, mmu):
        """What there is for guests alone."""
        connect(m, commit.vmx, worlds.commit)
        connect(m, parking.vmx, worlds.host)
        connect(m, commit.guest, worlds.guest)
        m.d.comb += [worlds.hold.eq(parking.hold), worlds.park_exits.eq(self.park_exits)]
        # What the EPT refused to either side last. After its fault that side asks for no other walk
        # before the instruction is gone.
        for port, refusal in (
            (fetch.translation, commit.fetch_refusal),
            (load_store.translation, commit.data_refusal),
        ):
            held = Signal(EptFault)
            m.d.comb += refusal.eq(held)
            fault = port.walked.payload
            refused = (fault == Fault.EPT_VIOLATION) | (fault == Fault.EPT_MISCONFIGURATION)
            with m.If(port.walked.valid & port.walked.ready & refused):
                m.d.sync += held.eq(mmu.ept_fault)
        # The guest's own invalidations name what is its own.
        invalidate, asked = mmu.i_invalidate, worlds.invalidate
        context, of_vmx = worlds.data_context, Signal()
        held = Signal.like(asked.payload)
        with m.If(~self._of_host):
            m.d.comb += [
                invalidate.payload.world.eq(context.world),
                invalidate.payload.vpid.eq(context.vpid),
            ]
        # It is taken at once; those of instructions do not come at the same time.
        m.d.comb += asked.ready.eq(1)
        m.d.sync += [of_vmx.eq(asked.valid), held.eq(asked.payload)]
        with m.If(of_vmx):
            m.d.comb += [invalidate.valid.eq(1), invalidate.payload.eq(held)]
