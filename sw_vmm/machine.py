"""What the VMM asks of a machine: the host port, and nothing the host port does not offer."""

import struct
from enum import IntFlag
from typing import NamedTuple, Protocol

__all__ = ["BusError", "Event", "Machine", "MachineBusy", "MachineError", "ParkRecord"]


#: The double words of a park record, its instruction, and the small fields.
_RECORD = struct.Struct("<10QIB")


class MachineError(Exception):
    """The machine did not do what it was asked; the message is one line."""


class MachineBusy(MachineError):
    """The hart runs: only ``run``, ``stop`` and the counters are to be had."""


class BusError(MachineError):
    """Nobody answers at that address."""


class Event(IntFlag):
    """Why ``Machine.run`` came back; several may hold at once.

    PARKED: the hart is parked and ``park`` is valid. WINDOW: an access to the device window waits
    for ``answer_window``. FINISHED: the guest wrote the test finisher. TOHOST: it wrote a
    non-zero ``tohost``. CONSOLE: the text given to ``stop_at_text`` has appeared. BUDGET: the
    cycle budget is used up.
    """

    PARKED = 1
    WINDOW = 2
    FINISHED = 4
    TOHOST = 8
    CONSOLE = 16
    BUDGET = 32


class ParkRecord(NamedTuple):
    """The park record of ``rtl.arch.records.PARK``, decoded; fields in its order."""

    reason: int
    qualification: int
    gva: int
    gpa: int
    pc: int
    rs1: int
    rs2: int
    cycle: int
    instret: int
    time: int
    instruction: int
    length: int
    kind: int
    privilege: int
    world: int

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> "ParkRecord":
        """Decode the record's 11 little-endian words."""
        fields = _RECORD.unpack_from(data)
        last = fields[-1]
        return cls._make(
            (*fields[:-1], last & 7, last >> 3 & 3, last >> 5 & 3, last >> 7 & 1),
        )


class Machine(Protocol):
    """A machine that offers the host port: Verilator library, cocotb simulation, FPGA board.

    Addresses are hpa. Everything but ``run`` needs a parked hart and raises ``MachineBusy``
    otherwise; addresses nobody answers raise ``BusError``. After ``reset`` the hart is parked
    (kind STOP, M-mode) at the reset vector 0x1000. CSRs are root's, whatever world it is parked in;
    VMX instructions and fields need a machine that has the extension (``config.vmx``).
    """

    #: ram_size in bytes, and the members of SocConfig.
    config: object

    def reset(self) -> None: ...

    def run(self, cycles: int) -> Event:
        """Let a resumed hart run until something happens, for at most ``cycles`` cycles.

        Raises ValueError when they are negative.
        """

    def resume(
        self, pc: int, *, rd: int = 0, value: int = 0, charge: int = 0, retires: bool = False
    ) -> None:
        """Arm the hart to go on at ``pc`` in the record's privilege with the next ``run``.

        With ``retires``, minstret counts an instruction that the VMM has carried out, as one of the
        world in which the hart goes on. From a park by a VM exit that is VMRESUME, of the guest at ``pc``; where it is a VMfail the
        hart parks again, kind STOP.
        """

    def stop(self) -> None:
        """Ask a running hart to park (kind STOP) before its next instruction."""

    @property
    def parked(self) -> bool: ...

    @property
    def park(self) -> ParkRecord: ...

    @property
    def cycles(self) -> int:
        """Machine cycles since reset, as of the last ``run``. Cheap (no host-port access)."""

    @property
    def transition(self) -> int:
        """Transition cycles of all exits before the one the hart is parked for.

        Cheap (no host-port access): with it the VMM times every exit to the cycle. It is the
        counter of transition cycles as it stood when the trap that parked was taken.
        """

    @property
    def finisher(self) -> int:
        """The word last written to the test finisher."""

    @property
    def tohost(self) -> int:
        """The value last stored to the watched ``tohost``."""

    def charge(self, cycles: int) -> None:
        """Let everything but the hart run for ``cycles`` cycles while the hart stays parked."""

    def read_gpr(self, number: int) -> int: ...
    def write_gpr(self, number: int, value: int) -> None: ...
    def read_csr(self, number: int) -> int: ...
    def write_csr(self, number: int, value: int) -> None: ...
    def write_privilege(self, privilege: int) -> None: ...
    def sfence_vma(self, gva: int | None = None, asid: int | None = None) -> None: ...
    def fence_i(self) -> None: ...
    def clean(self) -> None:
        """Write every dirty line of the data cache back to RAM."""

    def park_on(self, exceptions: int, interrupts: int) -> None:
        """Choose the traps taken in root M-mode that park the hart: bit n is cause n."""

    def park_on_exits(self, mask: int) -> None:
        """Choose the VM exits that park the hart: bit n is reason n."""

    def vmx(self, name: str, first: int = 0, second: int = 0) -> int:
        """Carry out a VMX instruction as the parked root M-mode would; the value is what rd gets.

        ``first`` and ``second`` are the values of rs1 and rs2. A vmlaunch or vmresume that enters
        the guest gives 0 and is followed by ``run``; one that finds the guest state bad is parked
        at once, if exits with reason 33 park.
        """

    def read_field(self, number: int) -> int:
        """VMREAD of the current VMCS. Raises MachineError when it fails."""

    def write_field(self, number: int, value: int) -> None:
        """VMWRITE of the current VMCS. Raises MachineError when it fails."""

    def read_memory(self, hpa: int, length: int) -> bytes: ...
    def write_memory(self, hpa: int, data: bytes) -> None: ...

    def window_request(self) -> tuple[int, bool, int, int]:
        """The waiting device-window access: address, is a write, byte mask, data (in place)."""

    def answer_window(self, data: int) -> None: ...
    def window_interrupts(self, lines: int) -> None:
        """Drive the device window's interrupt lines; bit n is slot n."""

    def console(self) -> bytes:
        """All bytes the RTL UART has sent since reset."""

    def type_after(self, text: bytes, keys: bytes) -> None:
        """Deliver ``keys`` to the RTL UART once ``text`` has appeared and its FIFO is empty."""

    def stop_at_text(self, text: bytes) -> None: ...
    def stop_at_tohost(self, hpa: int | None) -> None: ...

    def counters(self) -> dict[str, int]:
        """cycles, guest, transition, walk, charged, instructions, and the hart's event counters."""
