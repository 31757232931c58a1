"""``sw_vmm.machine.Machine`` on top of a simulated SoC: the host port's registers and its events."""

from dataclasses import dataclass
from typing import Protocol

from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from rtl.soc.config import SocConfig
from sim.errors import VmxlabError
from sw_vmm import bindings
from sw_vmm.machine import BusError, Event, MachineBusy, MachineError, ParkRecord

__all__ = ["HostPortMachine", "MachineConfig", "Simulation"]

_RAM = MEMORY_MAP["ram"]
#: Charges longer than this are worked off in pieces.
_CHARGE_STEP = 500_000
_SKIP_STEP = (1 << 32) - 1
_WORD = (1 << 64) - 1
_ENTRIES = ("vmlaunch", "vmresume")
_VMX_OPERATIONS = {name: number for number, name in enumerate(VMX_INSTRUCTIONS)}


@dataclass(frozen=True, kw_only=True)
class MachineConfig(SocConfig):
    """What a machine is: its SoC and ``ram_size`` bytes of RAM.

    Raises ValueError on a value that cannot be built.
    """

    ram_size: int = 64 << 20

    def __post_init__(self):
        super().__post_init__()
        if not 8 <= self.ram_size <= _RAM.size or self.ram_size % 8:
            raise ValueError(
                f"RAM must have from 8 bytes to {_RAM.size >> 20} MiB, in whole words, "
                f"not {self.ram_size} bytes"
            )


class Simulation(Protocol):
    """What a simulated SoC offers: ``sim.verilated.Verilated``, ``sim.cocotb_machine.CocotbSoc``."""

    ram: memoryview
    park: memoryview
    parked: bool
    cycles: int
    transition: int
    finisher: int
    tohost: int
    lost: int

    def reset(self) -> None: ...
    def run(self, cycles: int) -> Event: ...
    def resume_and_run(
        self, pc: int, value: int, rd: int, charge: int, cycles: int, retires: bool = False
    ) -> Event: ...
    def read(self, address: int, mask: int = 0xFF) -> int: ...
    def write(self, address: int, data: int, mask: int = 0xFF) -> None: ...
    def repeat_read(self, address: int, count: int) -> bytes: ...
    def repeat_write(self, address: int, data: bytes) -> None: ...
    def skip(self, cycles: int) -> bool: ...
    def set_skipping(self, on: bool) -> None: ...
    def window_request(self) -> tuple[int, bool, int, int]: ...
    def answer_window(self, data: int) -> None: ...
    def window_interrupts(self, lines: int) -> None: ...
    def console(self) -> bytes: ...
    def type_after(self, text: bytes, keys: bytes) -> None: ...
    def stop_at_text(self, text: bytes) -> None: ...
    def stop_at_tohost(self, hpa: int | None) -> None: ...
    def observe(self, capacity: int) -> None: ...
    def drain(self, most: int) -> bytes: ...


class HostPortMachine:
    """The machine a VMM drives (``sw_vmm.machine.Machine``).

    Parameters
    ----------
    simulation : Simulation
    config : MachineConfig

    Members
    -------
    host_port
        The generated bindings of the host port, for what has no method of its own.
    """

    def __init__(self, simulation: Simulation, config: MachineConfig):
        self.config = config
        self._simulation = simulation
        registers = bindings.load("host_port")
        self._errors = registers.AccessError
        self.host_port = port = registers.HostPort(self._register_read, self._register_write)
        # The addresses of what is used most, once: an access then costs one call.
        place = registers.address_of
        self._gpr = [place(register) for register in port.gpr]
        self._csr = [place(register) for register in port.csr]
        self._field = [place(register) for register in port.vmcs]
        self._memory_address = place(port.memory.address)
        self._memory_data = place(port.memory.data)
        self._forget()

    def _forget(self) -> None:
        self._armed = None
        # Nothing is in the caches yet; RAM holds the newest bytes.
        self._caches_empty = self._ram_current = True

    # Registers.

    def _register_read(self, address: int, size: int) -> int:
        try:
            return self._simulation.read(address, (1 << size) - 1)
        except BusError:
            raise self._refusal(address) from None

    def _register_write(self, address: int, value: int, size: int) -> None:
        try:
            self._simulation.write(address, value, (1 << size) - 1)
        except BusError:
            raise self._refusal(address) from None

    def _refusal(self, address: int) -> MachineError:
        """Why the host port has refused the access to its offset ``address``."""
        errors, error = self._errors, self.host_port.status.error
        self.host_port.status.write(error=errors.NONE)
        if error == errors.BUSY:
            return MachineBusy("the hart runs: only stop and the counters are to be had")
        if error == errors.REFUSED:
            if address in self._csr:
                number = self._csr.index(address)
                return MachineError(f"the hart has no CSR {number:#x}, or it cannot be written")
            if address in self._field:
                number = self._field.index(address)
                return MachineError(f"there is no VMCS field {number}, or not now")
            return MachineError("the hart has no such VMX instruction, or not now")
        if error in (errors.BUS_ERROR, errors.BAD_SIZE):
            return BusError(f"nobody answers at {self.host_port.memory.address.value:#x}")
        return BusError(f"the host port has no register at its offset {address:#x}")

    def _need_parked(self) -> None:
        if not self._simulation.parked:
            raise MachineBusy("the hart runs: stop it first")

    # Running.

    def reset(self) -> None:
        """Power-on: RAM zero, caches and console empty, the hart parked at the reset vector."""
        self._simulation.reset()
        self._forget()

    def run(self, cycles: int) -> Event:
        """Let a resumed hart run until something happens, for at most ``cycles`` cycles."""
        if cycles < 0:
            raise ValueError(f"a run of {cycles} cycles")
        armed = self._armed
        if armed is None:
            return self._simulation.run(cycles)
        self._armed = None
        self._caches_empty = self._ram_current = False
        pc, value, rd, charge, retires = armed
        return self._simulation.resume_and_run(pc, value, rd, charge, cycles, retires)

    def resume(
        self, pc: int, *, rd: int = 0, value: int = 0, charge: int = 0, retires: bool = False
    ) -> None:
        """Arm the hart to go on at ``pc`` in the record's privilege with the next ``run``."""
        if not self._simulation.parked:
            raise MachineBusy("the hart runs already")
        if charge > _CHARGE_STEP:
            self.charge(charge)
            charge = 0
        self._armed = (pc & _WORD, value & _WORD, rd, charge, retires)

    def stop(self) -> None:
        """Ask a running hart to park (kind STOP) before its next instruction."""
        self._armed = None
        if not self._simulation.parked:
            self.host_port.control.write(stop=1)

    @property
    def parked(self) -> bool:
        return self._simulation.parked

    @property
    def park(self) -> ParkRecord:
        self._need_parked()
        return ParkRecord.from_bytes(self._simulation.park)

    @property
    def transition(self) -> int:
        """Transition cycles of all exits before the one the hart is parked for."""
        return self._simulation.transition

    @property
    def cycles(self) -> int:
        """Machine cycles since reset."""
        return self._simulation.cycles

    @property
    def finisher(self) -> int:
        """The word last written to the test finisher."""
        return self._simulation.finisher

    @property
    def tohost(self) -> int:
        """The value last stored to the watched ``tohost``."""
        return self._simulation.tohost

    def charge(self, cycles: int) -> None:
        """Let everything but the hart run for ``cycles`` cycles while the hart stays parked."""
        self._need_parked()
        while cycles > 0:
            step = min(cycles, _SKIP_STEP)
            if not self._simulation.skip(step):
                step = min(cycles, _CHARGE_STEP)
                self.host_port.charge.write(cycles=step)
            cycles -= step

    def skip_charges(self, on: bool) -> None:
        """Whether charges may pass in one step when only timers are live; the result is equal."""
        self._simulation.set_skipping(on)

    # The parked hart.

    def read_gpr(self, number: int) -> int:
        self._need_parked()
        return self._register_read(self._gpr[number], 8)

    def write_gpr(self, number: int, value: int) -> None:
        self._need_parked()
        self._register_write(self._gpr[number], value & _WORD, 8)

    def read_csr(self, number: int) -> int:
        self._need_parked()
        return self._register_read(self._csr[number], 8)

    def write_csr(self, number: int, value: int) -> None:
        self._need_parked()
        self._register_write(self._csr[number], value & _WORD, 8)

    def write_privilege(self, privilege: int) -> None:
        """Set the privilege level the hart resumes in."""
        self._need_parked()
        self.host_port.privilege.write(value=privilege)

    def sfence_vma(self, gva: int | None = None, asid: int | None = None) -> None:
        """Drop translations: of one page, of one ASID, of both, or all."""
        self._need_parked()
        self.host_port.sfence_vma.write(
            match_page=gva is not None,
            page=(gva or 0) >> 12 & (1 << 27) - 1,
            match_asid=asid is not None,
            asid=asid or 0,
        )

    def fence_i(self) -> None:
        self._need_parked()
        self.host_port.fence_i.write(go=1)

    def clean(self) -> None:
        """Write every dirty line of the data cache back to RAM."""
        self._need_parked()
        if not self._ram_current:
            self.host_port.clean.write(go=1)
            self._ram_current = True

    def park_on(self, exceptions: int, interrupts: int) -> None:
        """Choose the traps taken in root M-mode that park the hart: bit n is cause n."""
        self._need_parked()
        self.host_port.park_exceptions.raw = exceptions
        self.host_port.park_interrupts.raw = interrupts

    # Virtual machines.

    def park_on_exits(self, reasons: int) -> None:
        """Choose the VM exits that park the hart: bit n is reason n."""
        self._need_parked()
        self.host_port.park_exits.raw = reasons

    def vmx(self, name: str, first: int = 0, second: int = 0) -> int:
        """Carry out a VMX instruction as root M-mode would; what rd gets.

        ``first`` and ``second`` are the values of rs1 and rs2. A VM entry that succeeds gives 0, and the
        hart runs. Raises MachineError when the instruction is illegal in root M-mode, and while the
        hart stands in a guest.
        """
        self._need_parked()
        port = self.host_port.vmx
        port.rs1.raw = first & _WORD
        port.rs2.raw = second & _WORD
        # The guest may run; what else writes memory allocates nothing in the caches.
        self._caches_empty &= name not in _ENTRIES
        self._ram_current &= self._caches_empty
        port.execute.write(operation=_VMX_OPERATIONS[name])
        return port.rd.raw

    def read_field(self, number: int) -> int:
        """A field of the current VMCS. Raises MachineError when VMREAD fails."""
        self._need_parked()
        return self._register_read(self._field[number], 8)

    def write_field(self, number: int, value: int) -> None:
        """Raises MachineError when VMWRITE fails."""
        self._need_parked()
        self._register_write(self._field[number], value & _WORD, 8)

    # Memory.

    def read_memory(self, hpa: int, length: int) -> bytes:
        self._need_parked()
        if self._ram_current and (ram := self._fitted(hpa, length)) is not None:
            return bytes(ram)
        data = bytearray()
        for size, count in _pieces(hpa, length):
            if not count:
                continue
            self._register_write(self._memory_address, hpa + len(data), 8)
            if size == 8:
                data += self._repeat(self._simulation.repeat_read, count)
            else:
                for _ in range(count):
                    value = self._register_read(self._memory_data, size)
                    data += (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        return bytes(data)

    def write_memory(self, hpa: int, data: bytes) -> None:
        self._need_parked()
        ram = self._fitted(hpa, len(data))
        if self._caches_empty and ram is not None:
            ram[:] = data
            return
        done = 0
        for size, count in _pieces(hpa, len(data)):
            if not count:
                continue
            self._register_write(self._memory_address, hpa + done, 8)
            piece = bytes(data[done : done + size * count])
            if size == 8:
                self._repeat(self._simulation.repeat_write, piece)
            else:
                for place in range(0, len(piece), size):
                    value = int.from_bytes(piece[place : place + size], "little")
                    self._register_write(self._memory_data, value, size)
            done += len(piece)
        if ram is not None:
            self._ram_current = self._caches_empty

    def _fitted(self, hpa: int, length: int) -> memoryview | None:
        """The bytes of RAM at ``hpa``, if all of them are fitted."""
        start = hpa - _RAM.base
        if 0 <= start <= start + length <= self.config.ram_size:
            return self._simulation.ram[start : start + length]
        return None

    def _repeat(self, access, what):
        try:
            return access(self._memory_data, what)
        except BusError:
            raise self._refusal(self._memory_data) from None

    # Devices, console, observers.

    def window_request(self) -> tuple[int, bool, int, int]:
        """The waiting device-window access: address, is a write, byte mask, data (in place)."""
        return self._simulation.window_request()

    def answer_window(self, data: int) -> None:
        self._simulation.answer_window(data & _WORD)

    def window_interrupts(self, lines: int) -> None:
        """Drive the device window's interrupt lines; bit n is slot n."""
        self._simulation.window_interrupts(lines)

    def console(self) -> bytes:
        """All bytes the RTL UART has sent since reset."""
        return self._simulation.console()

    def type_after(self, text: bytes, keys: bytes) -> None:
        """Deliver ``keys`` to the RTL UART once ``text`` has appeared and its FIFO is empty.

        Several calls take effect in turn: the next text is looked for behind the one before.
        """
        self._simulation.type_after(text, keys)

    def stop_at_text(self, text: bytes) -> None:
        """CONSOLE once, when ``text`` has appeared since reset; an empty text disarms."""
        self._simulation.stop_at_text(text)

    def stop_at_tohost(self, hpa: int | None) -> None:
        """TOHOST when a store of something other than zero to ``hpa`` retires; None disarms."""
        self._simulation.stop_at_tohost(hpa)

    def trace(self, count: int) -> None:
        """Keep the newest ``count`` retirement records; 0 keeps none and costs nothing."""
        self._simulation.observe(count)

    def traced(self, most: int = 1 << 20) -> bytes:
        """The kept records, oldest first, as ``RETIREMENT`` in whole 64-bit words; forgets them.

        Raises VmxlabError when records had to make room since ``trace``.
        """
        if self._simulation.lost:
            raise VmxlabError(f"the retirement trace has lost {self._simulation.lost} records")
        return self._simulation.drain(most)

    def counters(self) -> dict[str, int]:
        """cycles, guest, transition, walk, charged, instructions, and the hart's event counters."""
        counters = self.host_port.counters
        return {name: getattr(counters, name).value for name in self._counter_names}

    @property
    def _counter_names(self) -> list[str]:
        counters = type(self.host_port.counters)
        return [name for name, item in vars(counters).items() if isinstance(item, property)]


def _pieces(address: int, length: int) -> list[tuple[int, int]]:
    """Accesses that cover a range exactly: sizes, and how many of each, in order of address."""
    pieces = []
    for size in (1, 2, 4):
        count = 1 if length >= size and address & size else 0
        pieces.append((size, count))
        address, length = address + size * count, length - size * count
    pieces.append((8, length // 8))
    length %= 8
    for size in (4, 2, 1):
        pieces.append((size, length // size))
        length %= size
    return pieces
