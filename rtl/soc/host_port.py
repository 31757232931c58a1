"""The host port: the VMM's only way to the hart, behind the register map ``host_port.rdl``."""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.data import View
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS, MEMORY_MAP
from rtl.arch.records import PARK
from rtl.bus.register_bus import RegisterBus
from rtl.bus.snoop import SnoopPort
from rtl.core.ports import HartEvents, HostCommand, HostPort, Park, Resume
from rtl.lib.register_block import Refusal, RegisterBlock
from rtl.lib.skip import Skip
from rtl.maps import map_path
from rtl.soc.exit_counters import ExitCounters

__all__ = ["HostPortUnit"]

# Bits of HostRequest.index for SFENCE_VMA.
_PAGE_GIVEN, _ASID_GIVEN = 0, 1
#: Counters that strobe or stand for a cycle under the same name in HartEvents.
_EVENTS = {
    "walk": "walking",
    "instructions": "retired",
    "instruction_misses": "instruction_miss",
    "data_misses": "data_miss",
    "instruction_walks": "instruction_walk",
    "data_walks": "data_walk",
}


class HostPortUnit(wiring.Component):
    """Serve the host's register accesses: commands to the parked hart, memory, counters.

    Every access is answered; one that fails sets ``status.error``. While the hart runs or a
    resume is under way, only control, status, counters and exits answer, everything else fails
    with BUSY. The map itself says what each register does.

    Members
    -------
    host : In(RegisterBus())
        The host; addresses are those of the map.
    resume_wide : In(stream.Signature(Resume))
        Resume without going through registers. Both ways lead to ``resume``, one at a time.
    command, resume, parked, park, stop, step, park_exceptions, park_interrupts, park_exits, park_ebreak
        To the hart. ``stop`` is held until the hart has parked.
    reset_request : Out(1)
        Strobe: reset everything but this unit. The counters become zero with it; the settings of
        the host keep their values.
    snoop, peripheral
        To RAM and to everything else; memory accesses of the host are at most 8 aligned bytes.
    events, advance, skip
        What is counted. Counters and the exit table move only with ``advance``; ``skip`` adds
        its cycles to the total and the charged ones.
    transition_before : Out(64)
        The counter of transition cycles as it stood when the latest trap that parked was taken.
    """

    host: In(RegisterBus())
    command: Out(HostPort())
    resume: Out(stream.Signature(Resume))
    parked: In(1)
    park: In(Park)
    stop: Out(1)
    step: Out(1)
    park_exceptions: Out(64)
    park_interrupts: Out(64)
    park_exits: Out(64)
    park_ebreak: Out(1)
    reset_request: Out(1)
    snoop: Out(SnoopPort())
    peripheral: Out(RegisterBus())
    resume_wide: In(stream.Signature(Resume))
    events: In(HartEvents)
    advance: In(1)
    skip: In(Skip)
    transition_before: Out(64)

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = RegisterBlock(map_path("host_port"))
        wiring.connect(m, wiring.flipped(self.host), registers.bus)
        access_error = registers.enums["AccessError"]

        self._connect_settings(m, registers)
        resuming = self._connect_resume(m, registers)
        failure = Signal(access_error)
        self._connect_commands(m, registers, failure, access_error)
        self._connect_counters(m, registers)

        status = registers.status
        m.d.comb += [
            registers.busy.eq(~self.parked | resuming),
            registers.control.stop.hwclr.eq(self.parked & ~resuming),
            status.parked.next.eq(self.parked & ~resuming),
            Value.cast(status.kind.next).eq(self.park.kind),
            status.error.we.eq(registers.refused != Refusal.NONE),
        ]
        with m.Switch(registers.refused):
            with m.Case(Refusal.BUSY):
                m.d.comb += status.error.next.eq(access_error.BUSY)
            with m.Case(Refusal.NO_SUCH_REGISTER):
                m.d.comb += status.error.next.eq(access_error.NO_SUCH_REGISTER)
            with m.Default():
                m.d.comb += status.error.next.eq(failure)
        for field in PARK.fields:
            register = getattr(registers.park, field.name)
            m.d.comb += register.value.next.eq(self.park[field.name])
        return m

    def _connect_settings(self, m, registers):
        control = registers.control
        m.d.comb += [
            self.stop.eq(control.stop.value),
            self.step.eq(control.step.value),
            self.reset_request.eq(control.reset.value),
            self.park_exceptions.eq(registers.park_exceptions.value.value),
            self.park_interrupts.eq(registers.park_interrupts.value.value),
            self.park_exits.eq(registers.park_exits.value.value),
            self.park_ebreak.eq(registers.park_ebreak.value.value),
        ]

    def _connect_resume(self, m, registers):
        """Merge the two ways to resume; gives whether one is under way."""
        start = registers.resume.start
        pending, wide_offered = Signal(), Signal()
        with m.If(start.go.value):
            m.d.sync += pending.eq(1)
        # A payload that was offered stays until it is taken.
        from_registers = pending & ~wide_offered
        m.d.sync += wide_offered.eq(
            self.resume_wide.valid & ~self.resume_wide.ready & ~from_registers
        )
        with m.If(from_registers):
            m.d.comb += [
                self.resume.valid.eq(1),
                self.resume.payload.value.eq(registers.resume.value.value.value),
                self.resume.payload.pc.eq(registers.resume.pc.value.value),
                self.resume.payload.charge.eq(start.charge.value),
                self.resume.payload.rd.eq(start.rd.value),
                self.resume.payload.retires.eq(start.retires.value),
            ]
            with m.If(self.resume.ready):
                m.d.sync += pending.eq(0)
        with m.Else():
            m.d.comb += [
                self.resume.valid.eq(self.resume_wide.valid),
                self.resume.payload.eq(self.resume_wide.payload),
                self.resume_wide.ready.eq(self.resume.ready),
            ]
        with m.If(self.reset_request):
            m.d.sync += pending.eq(0)
        return start.go.value | pending | self.resume_wide.valid

    def _connect_commands(self, m, registers, failure, access_error):
        """Everything the hart or memory answers. The block makes one such access at a time."""
        commands = self._commands(registers)
        memory_port = registers.memory.data
        size = Signal(range(9))
        of_vmx, given = Signal(), Signal(64)
        m.d.comb += registers.vmx.rd.value.next.eq(given)
        ports = [port for port, _do, _command, _index, _data in commands]
        with m.FSM():
            with m.State("IDLE"), m.If(registers.asking):
                for port, do, command, index, data in commands:
                    request = port.request.payload
                    with m.If(port.request.valid):
                        with m.If(request.write & ~request.mask.all()):
                            m.d.comb += port.request.ready.eq(1)
                            m.d.sync += failure.eq(access_error.BAD_SIZE)
                            m.next = "REFUSE"
                        with m.Elif(~do):
                            m.d.comb += port.request.ready.eq(1)
                            m.next = "DONE"
                        with m.Else():
                            m.d.comb += [
                                self.command.request.valid.eq(1),
                                self.command.request.payload.command.eq(command),
                                self.command.request.payload.index.eq(index),
                                self.command.request.payload.operand.eq(
                                    registers.vmx.rs1.value.value
                                ),
                                self.command.request.payload.data.eq(data),
                                port.request.ready.eq(self.command.request.ready),
                            ]
                            with m.If(self.command.request.ready):
                                m.d.sync += of_vmx.eq(port is registers.vmx.execute)
                                m.next = "COMMAND"
                self._start_memory(m, registers, failure, access_error, size)
            with m.State("COMMAND"):
                # The block takes the answer at the port it asked; the others do not listen.
                m.d.comb += self.command.response.ready.eq(1)
                for port in ports:
                    m.d.comb += [
                        port.response.valid.eq(self.command.response.valid),
                        port.response.payload.data.eq(self.command.response.payload.data),
                        port.response.payload.error.eq(self.command.response.payload.error),
                    ]
                with m.If(self.command.response.valid):
                    m.d.sync += failure.eq(access_error.REFUSED)
                    with m.If(of_vmx):
                        m.d.sync += given.eq(self.command.response.payload.data)
                    m.next = "IDLE"
            for name, bus in (("SNOOP", self.snoop), ("PERIPHERAL", self.peripheral)):
                with m.State(name):
                    self._finish_memory(m, registers, bus.response, size)
                    with m.If(bus.response.valid):
                        m.d.sync += failure.eq(access_error.BUS_ERROR)
                        m.next = "IDLE"
            for name, error in (("DONE", 0), ("REFUSE", 1)):
                with m.State(name):
                    for port in (*ports, memory_port):
                        m.d.comb += [
                            port.response.valid.eq(1),
                            port.response.payload.error.eq(error),
                        ]
                    m.next = "IDLE"

    def _commands(self, registers):
        """Rows of port, whether the access asks for anything, command, index and data."""

        def fields(port, name):
            return View(registers.layout(name), port.request.payload.data)

        rows = []
        for port, read, write in (
            (registers.gpr, HostCommand.READ_GPR, HostCommand.WRITE_GPR),
            (registers.csr, HostCommand.READ_CSR, HostCommand.WRITE_CSR),
            (registers.vmcs, HostCommand.READ_FIELD, HostCommand.WRITE_FIELD),
        ):
            request = port.request.payload
            rows.append((port, C(1), Mux(request.write, write, read), request.index, request.data))
        privilege = fields(registers.privilege, "privilege")
        rows.append((registers.privilege, C(1), HostCommand.WRITE_PRIVILEGE, C(0), privilege.value))
        fence = fields(registers.sfence_vma, "sfence_vma")
        rows.append(
            (
                registers.sfence_vma,
                C(1),
                HostCommand.SFENCE_VMA,
                Cat(fence.match_page, fence.match_asid),
                Cat(fence.page, C(0, 32 - len(fence.page)), fence.asid),
            )
        )
        for name, command in (("fence_i", HostCommand.FENCE_I), ("clean", HostCommand.CLEAN)):
            port = getattr(registers, name)
            rows.append((port, fields(port, name).go, command, C(0), C(0)))
        charge = fields(registers.charge, "charge")
        rows.append((registers.charge, C(1), HostCommand.CHARGE, C(0), charge.cycles))
        execute = fields(registers.vmx.execute, "vmx.execute")
        second = registers.vmx.rs2.value.value
        rows.append((registers.vmx.execute, C(1), HostCommand.VMX, execute.operation, second))
        return rows

    def _start_memory(self, m, registers, failure, access_error, size):
        """Send the host's access to RAM or to the device that answers at the address."""
        port, address = registers.memory.data, registers.memory.address.value.value
        request = port.request.payload
        low = address[:3]
        allowed, in_ram = Signal(), Signal()
        ram = MEMORY_MAP["ram"]
        with m.If(port.request.valid):
            m.d.comb += in_ram.eq((address >= ram.base) & (address < ram.end))
            for count in (1, 2, 4, 8):
                with m.If(request.mask == (1 << count) - 1):
                    m.d.comb += allowed.eq((low & (count - 1)) == 0)
                    m.d.sync += size.eq(count)
            for bus in (self.snoop, self.peripheral):
                access = bus.request.payload
                m.d.comb += [
                    access.address.eq(address & ~7),
                    access.write.eq(request.write),
                    access.mask.eq(request.mask << low),
                    access.data.eq(request.data << (low << 3)),
                ]
            m.d.comb += self.snoop.request.payload.forward.eq(1)
            with m.If(~allowed):
                m.d.comb += port.request.ready.eq(1)
                m.d.sync += failure.eq(access_error.BAD_SIZE)
                m.next = "REFUSE"
            with m.Elif(address[BUS_ADDRESS_BITS:].any()):
                m.d.comb += port.request.ready.eq(1)
                m.d.sync += failure.eq(access_error.BUS_ERROR)
                m.next = "REFUSE"
            for name, bus, chosen in (
                ("SNOOP", self.snoop, in_ram),
                ("PERIPHERAL", self.peripheral, ~in_ram),
            ):
                with m.Elif(chosen):
                    m.d.comb += [
                        bus.request.valid.eq(1),
                        port.request.ready.eq(bus.request.ready),
                    ]
                    with m.If(bus.request.ready):
                        m.next = name

    def _finish_memory(self, m, registers, response, size):
        port, address = registers.memory.data, registers.memory.address.value
        m.d.comb += [
            response.ready.eq(1),
            port.response.valid.eq(response.valid),
            port.response.payload.data.eq(response.payload.data >> (address.value[:3] << 3)),
            port.response.payload.error.eq(response.payload.error),
            address.we.eq(response.valid & ~response.payload.error),
            address.next.eq(address.value + size),
        ]

    def _connect_counters(self, m, registers):
        counters = registers.counters
        transition = self.events.transition & ~self.events.charging
        skipped = Mux(self.skip.valid, self.skip.cycles, 0)
        steps = {
            "cycles": self.advance + skipped,
            "guest": self.advance & ~self.events.transition & ~self.events.charging,
            "transition": self.advance & transition,
            "charged": (self.advance & self.events.charging) + skipped,
        }
        for name, event in _EVENTS.items():
            steps[name] = self.advance & self.events[event]
        for name, step in steps.items():
            count = Signal(64, name=name)
            with m.If(step != 0):
                m.d.sync += count.eq(count + step)
            with m.If(self.reset_request):
                m.d.sync += count.eq(0)
            m.d.comb += getattr(counters, name).value.next.eq(count)
            if name == "transition":
                with m.If(self.reset_request):
                    m.d.sync += self.transition_before.eq(0)
                with m.Elif(self.events.exit & self.advance):
                    m.d.sync += self.transition_before.eq(count)

        m.submodules.exits = exits = ExitCounters()
        m.d.comb += [
            exits.exit.eq(self.events.exit & self.advance),
            exits.reason.eq(self.events.reason),
            exits.transition.eq(self.advance & transition),
            exits.clear.eq(self.reset_request),
            exits.o_row.ready.eq(1),
        ]
        for column in ("count", "cycles"):
            port = getattr(registers.exits, column)
            with m.If(port.request.valid):
                m.d.comb += [
                    exits.i_query.valid.eq(1),
                    exits.i_query.payload.eq(port.request.payload.index),
                    port.request.ready.eq(exits.i_query.ready),
                ]
            m.d.comb += [
                port.response.valid.eq(exits.o_row.valid),
                port.response.payload.data.eq(exits.o_row.payload[column]),
            ]
