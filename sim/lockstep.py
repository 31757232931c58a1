"""The golden model in lockstep with the retirement trace of a machine.

From the trace the model takes interrupt arrival, counter values and what devices answer; where
caches may lawfully be behind memory it believes what they show if memory ever held it. Everything
else it works out, and the first record that says otherwise raises ``Divergence``.
"""

from rtl.arch.csrs import CSR_BY_NUMBER
from rtl.arch.instructions import INSTRUCTIONS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS
from rtl.arch.records import EXIT_BIT, RETIREMENT, ParkKind
from rtl.arch.traps import INTERRUPT_BIT, Exception_, Privilege, World
from rtl.arch.vmx.exits import EXIT_REASONS, INTERRUPTION, ExitReason
from sim.disassembler import REGISTER_NAMES, disassemble
from sim.errors import VmxlabError
from sim.golden import Claim, Hart, InterruptRefused
from sim.golden.csr_file import COUNTERS
from sim.golden.events import EXIT_DUE, INJECTION_DUE, PARK_DUE
from sim.golden.vmx.instructions import perform
from sim.golden.vmx.virtual_time import machine_ticks
from sim.retirements import RECORD as _RECORD
from sim.retirements import described, field_lines, whole_records
from sw_vmm.machine import Event, MachineError, ParkRecord

__all__ = ["Divergence", "Lockstep", "LockstepMachine"]

_RAM, _ROM, _CLINT = (MEMORY_MAP[name] for name in ("ram", "rom", "clint"))
_WORD, _WORD32 = (1 << 64) - 1, (1 << 32) - 1
_PAGE = 1 << PAGE_BITS
#: The fields behind the fourth word, relative to it.
_LAST = 64 * 4
_SHIFT = {name: RETIREMENT[name].lsb - _LAST for name in ("privilege", "trap", "load", "size")}
_PLACES = {"value": 64, "data": 128, "instruction": 192, "address": 224, "rd": 256, "store": 266}
if any(RETIREMENT[name].lsb != place for name, place in _PLACES.items()):
    raise AssertionError("the retirement record is not laid out as it is read here")
_RD = RETIREMENT["rd"].width
_RD_MASK = (1 << _RD) - 1
_PRIVILEGE_WORLD = 7 << _SHIFT["privilege"]
_TRAP, _LOAD, _STORE = 1 << _SHIFT["trap"], 1 << _SHIFT["load"], 2 << _SHIFT["load"]
_ACCESS = _LOAD | _STORE
_ACCESS_SIZE = _ACCESS | 3 << _SHIFT["size"]
_LOADS = ["lb", "lh", "lw", "ld", "lbu", "lhu", "lwu"]
_STORES = ["sb", "sh", "sw", "sd"]
#: A VM entry that succeeds writes no register.
_ENTRIES = ("vmlaunch", "vmresume")
_NOT_INJECTED = "the event injected was not taken"
_FAULTS_OF_DEVICES = (Exception_.LOAD_ACCESS_FAULT, Exception_.STORE_ACCESS_FAULT)
#: Records between two looks at the trace, and cycles (no machine retires two in a cycle).
_SLICE = 1 << 16
#: Instructions shown in a report.
_SHOWN = 16


def _accesses():
    """The access bits and the size a record must show, by instruction; sc depends on success."""
    rows = {}
    for name, row in INSTRUCTIONS.items():
        size = (row.match >> 12 & 3) << _SHIFT["size"]
        if name in _LOADS or name.startswith("lr."):
            rows[name] = _LOAD | size
        elif name in _STORES or name.startswith("sc."):
            rows[name] = _STORE | size
        elif name.startswith("amo"):
            rows[name] = _ACCESS | size
    return rows


_EXPECTED = _accesses()


class Divergence(Exception):
    """The machine did what the architecture does not allow; the message is the whole report.

    Members
    -------
    index : int
        Number of the record, from 0.
    reason : str
    """

    def __init__(self, index: int, reason: str, report: str):
        super().__init__(f"record {index}: {reason}\n{report}")
        self.index = index
        self.reason = reason


class _Recorded:
    """The platform of a machine that has already run: its answers stand in the trace."""

    def __init__(self):
        self.value = 0
        self.fault = False
        self.hart: Hart | None = None
        self.ticks = 0  # time has come so far

    def read(self, hpa, size):
        return None if self.fault else self.value & (1 << 8 * size) - 1

    def write(self, hpa, size, value):
        if hpa in _CLINT:
            self.time_written()
        return not self.fault

    def time_written(self):
        self.ticks = 0

    def counter(self, name):
        if name == "time":
            return self._time()
        return self.value

    def _time(self):
        """The machine's, when the record shows that of the present world; it does not go back."""
        hart = self.hart
        if hart.vmx is None:
            return self.value
        if hart.world:
            ticks = machine_ticks(hart.vmx.vmcs.fields, self.value, self.ticks)
        else:
            ticks = self.value
        self.ticks = max(self.ticks, ticks or 0)
        return self.ticks

    def lines(self):
        return self.value


class Lockstep:
    """A golden hart that follows retirement records.

    Parameters
    ----------
    ram_size : int
        Bytes of RAM fitted.
    ram, rom : bytes
        Memory before the first record, from the start of each region.
    bit_manipulation : bool
        The machine has Zba, Zbb and Zbs.
    vmx : bool
        It has the virtualization extension.

    Members
    -------
    hart : Hart
    checked : int
        Records checked.
    """

    def __init__(
        self,
        *,
        ram_size: int,
        ram: bytes = b"",
        rom: bytes = b"",
        bit_manipulation: bool = True,
        vmx: bool = False,
    ):
        self._platform = _Recorded()
        self.hart = Hart(ram_size, self._platform, bit_manipulation=bit_manipulation, vmx=vmx)
        self._platform.hart = self.hart
        # What was there before the first record is no history.
        self.hart.memory.ram[: len(ram)] = ram
        self.hart.memory.write_physical(_ROM.base, rom)
        self.checked = 0
        self._last = b""

    def check(self, records: bytes) -> None:
        """Follow the records (whole ones, oldest first). Raises Divergence at the first wrong one."""
        hart, platform = self.hart, self._platform
        memory, x, step = hart.memory, hart.x, hart.step
        place = 0
        for pc, value, data, both, flags in _RECORD.iter_unpack(records):
            bits = both & _WORD32
            before = hart.privilege | hart.world << 2
            platform.value = value
            if flags & _TRAP:
                reason = self._trap(pc, value, data, bits, both >> 32, flags)
            elif hart.due >= 0:
                reason = self._missed()
            elif hart.pc != pc:
                reason = "another pc"
            else:
                memory.claimed = both >> 32
                memory.claimed_value = value if flags & _RD_MASK else None
                memory.claimed_store = flags & _STORE
                step(_Retired(bits))
                i = hart.executed
                if hart.trapped is not None:
                    reason = "no trap was taken"
                elif i.bits != bits:
                    reason = "another instruction"
                else:
                    rd = flags & _RD_MASK
                    expected = _EXPECTED.get(i.name, 0)
                    if (rd or 32) != i.rd and not self._entered(i, rd):
                        reason = "another destination register"
                    elif rd and x[rd] != value:
                        reason = "another value"
                    elif expected or flags & _ACCESS:
                        reason = self._access(i, expected, flags, both >> 32, data)
                    else:
                        reason = None
            if reason is None and (flags & _PRIVILEGE_WORLD) >> _SHIFT["privilege"] != before:
                reason = "another privilege"
            if reason is not None:
                self._diverge(records, place, reason)
            place += _RECORD.size
            self.checked += 1
        self._last = (self._last + records)[-_SHOWN * _RECORD.size :]

    def _missed(self):
        """What should have come first."""
        due = self.hart.due
        if due == PARK_DUE:
            return "the hart should have parked"
        if due == INJECTION_DUE:
            return _NOT_INJECTED
        if due >= EXIT_DUE:
            return f"exit {due - EXIT_DUE} is due, but did not come"
        return f"interrupt {due} is pending and enabled, but was not taken"

    def _entered(self, i, rd):
        """Whether this is a VM entry that wrote no register, and the record agrees."""
        return not rd and i.name in _ENTRIES and not self.hart.vmx.root_csr.values["vmxstatus"]

    def _exit(self, exit_, bits, interruption, waits):
        """What is wrong with the record of a VM exit, or None; the model exits too."""
        hart = self.hart
        reason, qualification = exit_[0] & ~(1 << EXIT_BIT), exit_[1]
        if reason not in EXIT_REASONS or not hart.world:
            return "nothing exits here"
        if not EXIT_REASONS[ExitReason(reason)].instruction:
            try:
                cause = INTERRUPTION["cause"].extract(interruption)
                hart.vmx.event_exit(reason, cause=cause, waits=waits)
            except InterruptRefused as refused:
                return str(refused)
        elif hart.due >= 0:
            return self._missed()
        elif reason == ExitReason.EXCEPTION:
            cause = INTERRUPTION["cause"].extract(interruption)
            self._step_to(Claim(bits, cause, qualification))
        else:
            self._step_to(Claim(bits, *exit_))
        if hart.trapped is None:
            return "nothing exits here"
        if hart.trapped[0] != exit_[0]:
            return "another exit"
        fields = hart.vmx.vmcs.fields
        if fields["exit_instruction"] != bits:
            return "another instruction"
        if fields["exit_interruption"] != interruption:
            return "another interruption"
        return None if hart.trapped[1] == qualification else "another exit qualification"

    def _step_to(self, claim):
        """A step that is claimed to trap."""
        memory = self.hart.memory
        memory.claimed = memory.claimed_value = None
        memory.claimed_fault = claim.cause, claim.value
        platform = self._platform
        platform.fault = claim.cause in _FAULTS_OF_DEVICES
        ticks = platform.ticks
        self.hart.step(claim)
        # What a counter seemed to read is not in such a record.
        platform.fault, platform.ticks = False, ticks
        memory.claimed_fault = None

    def _trap(self, pc, cause, value, bits, address, flags):
        """What is wrong with a trap record, or None; the model takes the trap too."""
        hart = self.hart
        if hart.pc != pc:
            return "another pc"
        if hart.due == PARK_DUE:
            return self._missed()
        if hart.due == INJECTION_DUE:
            hart.vmx.inject()
            return None if hart.trapped == (cause, value) else _NOT_INJECTED
        if cause >> EXIT_BIT == 1:
            return self._exit((cause, value), bits, address, bool(flags & _LOAD))
        if cause >> INTERRUPT_BIT:
            try:
                hart.interrupt(cause & (1 << INTERRUPT_BIT) - 1)
            except InterruptRefused as refused:
                return str(refused)
            return None if value == 0 else "another trap value"
        if hart.due >= 0:
            return self._missed()
        self._step_to(Claim(bits, cause, value))
        if hart.trapped is None:
            return "nothing traps here"
        if hart.trapped[0] != cause:
            return "another cause"
        if hart.executed is not None and hart.executed.bits != bits:
            return "another instruction"
        return None if hart.trapped[1] == value else "another trap value"

    def _access(self, i, expected, flags, address, data):
        """What is wrong with the record of a memory instruction that retired, or None."""
        x = self.hart.x
        conditional = i.name.startswith("sc.")
        if conditional and not self.hart.memory.stored:
            expected &= ~_ACCESS
        if (flags ^ expected) & _ACCESS:
            return "another access"
        if not expected & _ACCESS:
            return None
        if (flags ^ expected) & _ACCESS_SIZE:
            return "another size of access"
        if address != self.hart.memory.physical & _WORD32:
            return "another address"
        if expected & _STORE and not expected & _LOAD and not (conditional and i.rd == i.rs2):
            mask = (1 << (8 << (expected >> _SHIFT["size"] & 3))) - 1
            if (x[i.rs2] ^ data) & mask:
                return "other data stored"
        return None

    def wrote(self, hpa: int, data: bytes) -> None:
        """The host has written memory, or a device."""
        if hpa in _RAM or hpa in _ROM:
            self.hart.memory.write_physical(hpa, data)
        elif hpa in _CLINT:
            self._platform.time_written()

    def vmx(self, name: str, first: int = 0, second: int = 0) -> tuple[int | None, int | None]:
        """A VMX instruction that the host has the parked hart execute: its status, and what rd
        gets instead (``sim.golden.vmx.instructions.perform``).
        """
        return perform(self.hart.vmx, name, first, second)

    def check_vmx(self, found: int, name: str, first: int = 0, second: int = 0) -> None:
        """The same, when the machine says that rd gets ``found``. Raises Divergence."""
        self._platform.value = found
        status, value = self.vmx(name, first, second)
        mine = (status or 0) if value is None else value
        if found != mine:
            self._diverge(b"", 0, f"{name} gives {found:#x}, not {mine:#x}")

    def write_root_csr(self, number: int, value: int) -> None:
        """The host has written a CSR: root's, whatever world the hart is parked in."""
        hart = self.hart
        if not hart.world:
            hart.write_csr(number, value, retires=False)
            return
        hart.vmx.root_csr.write(number, value, retires=False)
        hart.switched()

    def compare_memory(self, ram: bytes | memoryview) -> None:
        """Compare all of RAM with the machine's, caches written back. Raises Divergence."""
        mine, place = self.hart.memory.ram, 0
        for place in range(0, len(mine), _PAGE):
            if mine[place : place + _PAGE] != ram[place : place + _PAGE]:
                self.compare_page(place, bytes(ram[place : place + _PAGE]))

    def compare_page(self, place: int, found: bytes) -> None:
        """The same of some words, ``place`` bytes behind RAM's base."""
        memory, vmx = self.hart.memory, self.hart.vmx
        for n in range(0, len(found), 8):
            address = _RAM.base + place + n
            if vmx and address in vmx.vmcs.opaque:
                continue
            word = int.from_bytes(found[n : n + 8], "little")
            mine = int.from_bytes(memory.ram[place + n : place + n + 8], "little")
            # What hardware may have made of a leaf unseen is right too.
            if word != mine and not memory.tables.observe(address, _WORD, word):
                self._diverge(b"", 0, f"memory at {address:#x} is {word:#018x}, not {mine:#018x}")

    def compare_registers(self, gprs: dict[int, int], csrs: dict[int, int]) -> None:
        """Compare the machine's registers, by number, with the model's. Raises Divergence.

        CSRs are root's. Those that the world outside decides are left out of ``csrs`` by the caller
        (``comparable_csrs``).
        """
        for number, value in gprs.items():
            if number and value != self.hart.x[number]:
                name, mine = REGISTER_NAMES[number], self.hart.x[number]
                self._diverge(b"", 0, f"{name} is {value:#x}, not {mine:#x}")
        vmx = self.hart.vmx
        root = vmx.root_csr if vmx else self.hart.csr
        for number, value in csrs.items():
            mine = root.read(number)[0]
            if value != mine:
                name = CSR_BY_NUMBER[number].name
                self._diverge(b"", 0, f"{name} is {value:#x}, not {mine:#x}")

    def compare_park(self, park: ParkRecord) -> None:
        """Compare the record of a park by a VM exit. Raises Divergence."""
        vmx = self.hart.vmx
        if vmx is None or not vmx.parked:
            self._diverge(b"", 0, "it has parked by a VM exit that does not park")
        for name, mine in vmx.park().items():
            value = getattr(park, name)
            if value != mine:
                self._diverge(b"", 0, f"{name} of the park record is {value:#x}, not {mine:#x}")

    @staticmethod
    def comparable_csrs() -> list[int]:
        """Numbers of the CSRs whose value the model knows."""
        outside = {*COUNTERS, "mip", "sip"}
        return [number for number, csr in CSR_BY_NUMBER.items() if csr.name not in outside]

    # Reports.

    def _diverge(self, records, place, reason):
        record = records[place : place + _RECORD.size]
        past = (self._last + records[:place])[-_SHOWN * _RECORD.size :]
        lines = [f"  {described(old)}" for old in whole_records(past)]
        if record:
            lines += [f"> {described(record)}", "", "the machine:", *field_lines(record)]
        lines += ["", "the model, after it:", *self._state(record)]
        raise Divergence(self.checked, reason, "\n".join(lines))

    def _state(self, record):
        hart = self.hart
        trapped = hart.trapped
        if trapped:
            yield f"  trap       cause {trapped[0]:#x} value {trapped[1]:#x}"
        elif hart.executed is not None:
            i = hart.executed
            yield f"  executed   {disassemble(i.bits)}"
            if i.rd < 32:
                yield f"  {REGISTER_NAMES[i.rd]:10} {hart.x[i.rd]:#018x}"
            if i.name in _EXPECTED:
                yield f"  address    {hart.memory.physical:#x}"
        yield f"  pc         {hart.pc:#018x} privilege {Privilege(hart.privilege).name}"
        yield f"  world      {World(hart.world).name}"
        for first in range(0, 32, 4):
            yield "  " + "  ".join(
                f"{REGISTER_NAMES[n]:4} {hart.x[n]:016x}" for n in range(first, first + 4)
            )
        csrs = [f"{name:13} {value:016x}" for name, value in sorted(hart.csr.snapshot().items())]
        for first in range(0, len(csrs), 3):
            yield "  " + "  ".join(csrs[first : first + 3])


class _Retired:
    """The claim of a record without a trap; cheaper to make than a Claim."""

    __slots__ = ("bits",)
    cause = -1
    value = 0

    def __init__(self, bits):
        self.bits = bits


class LockstepMachine:
    """A machine with a retirement trace, watched by the model while it runs.

    Everything is passed on to ``machine``. The model starts from memory as it is when the hart is
    first resumed after ``reset``, and learns what the host writes while the hart is parked.

    Members
    -------
    lockstep : Lockstep
        Of the present run.
    """

    def __init__(self, machine):
        self._machine = machine
        self.lockstep: Lockstep | None = None

    def __getattr__(self, name: str):
        return getattr(self._machine, name)

    def reset(self) -> None:
        self._machine.reset()
        self._machine.trace(_SLICE)
        self.lockstep = None

    def resume(
        self, pc: int, *, rd: int = 0, value: int = 0, charge: int = 0, retires: bool = False
    ) -> None:
        machine = self._machine
        record = machine.park
        hart = self._followed().hart
        if record.kind == ParkKind.VM_EXIT:
            hart.vmx.resume(pc, rd=rd, value=value, retires=retires)
        else:
            if record.kind == ParkKind.ROOT_TRAP:
                hart.return_from_machine()
            hart.privilege = record.privilege
            hart.switched()
            hart.pc = pc
            hart.memory.reserved = None
            if rd:
                hart.x[rd] = value
            if retires:
                (hart.vmx or hart.csr).count_retired()
        machine.resume(pc, rd=rd, value=value, charge=charge, retires=retires)

    def _followed(self):
        """The model, from now on at the latest."""
        if self.lockstep is None:
            self.lockstep = self._started()
        return self.lockstep

    def _started(self):
        machine, size = self._machine, self._machine.config.ram_size
        lockstep = Lockstep(
            bit_manipulation=machine.config.bit_manipulation,
            vmx=machine.config.vmx,
            ram_size=size,
            ram=machine.read_memory(_RAM.base, size),
            rom=machine.read_memory(_ROM.base, _ROM.size),
        )
        hart = lockstep.hart
        for number in range(1, 32):
            hart.x[number] = machine.read_gpr(number)
        for number in lockstep.comparable_csrs():
            if CSR_BY_NUMBER[number].writable:
                hart.write_csr(number, machine.read_csr(number), retires=False)
        if hart.vmx:
            hart.vmx.park_exits = machine.host_port.park_exits.raw
        return lockstep

    def run(self, cycles: int) -> Event:
        """Run as the machine does; what retired is checked. Raises Divergence."""
        machine = self._machine
        while True:
            slice_ = min(cycles, _SLICE)
            event = machine.run(slice_)
            self.follow(machine.traced(slice_))
            if event & Event.PARKED and machine.park.kind == ParkKind.VM_EXIT:
                self.lockstep.compare_park(machine.park)
            cycles -= _SLICE
            if event != Event.BUDGET or cycles <= 0:
                return event

    def follow(self, records: bytes) -> None:
        """Check what has retired since the last call. Raises Divergence."""
        self.lockstep.check(records)

    def write_memory(self, hpa: int, data: bytes) -> None:
        self._machine.write_memory(hpa, data)
        if self.lockstep is not None:
            self.lockstep.wrote(hpa, data)

    def write_gpr(self, number: int, value: int) -> None:
        self._machine.write_gpr(number, value)
        if self.lockstep is not None and number:
            self.lockstep.hart.x[number] = value & (1 << 64) - 1

    def write_csr(self, number: int, value: int) -> None:
        self._machine.write_csr(number, value)
        if self.lockstep is not None:
            self.lockstep.write_root_csr(number, value)

    def park_on_exits(self, reasons: int) -> None:
        self._machine.park_on_exits(reasons)
        if self.lockstep is not None:
            self.lockstep.hart.vmx.park_exits = reasons

    def vmx(self, name: str, first: int = 0, second: int = 0) -> int:
        lockstep = self._followed()
        found = self._machine.vmx(name, first, second)
        lockstep.check_vmx(found, name, first, second)
        return found

    def read_field(self, number: int) -> int:
        return self._field("vmread", number)

    def write_field(self, number: int, value: int) -> None:
        self._field("vmwrite", number, value)

    def _field(self, name, number, *value):
        lockstep, machine = self._followed(), self._machine
        reads = name == "vmread"
        try:
            found = (machine.read_field if reads else machine.write_field)(number, *value)
        except MachineError:
            # In root operation it was carried out, and has failed.
            if lockstep.hart.vmx.vmcs.on and not lockstep.hart.world:
                status, _ = lockstep.vmx(name, number, *value)
                if not status:
                    raise Divergence(lockstep.checked, f"{name} fails", "") from None
            raise
        lockstep.check_vmx(found if reads else 0, name, number, *value)
        return found

    def sfence_vma(self, gva: int | None = None, asid: int | None = None) -> None:
        self._machine.sfence_vma(gva, asid)
        if self.lockstep is not None:
            self.lockstep.hart.memory.sfence_vma(gva, asid)

    def fence_i(self) -> None:
        self._machine.fence_i()
        if self.lockstep is not None:
            self.lockstep.hart.memory.fence_i()

    def compare(self) -> None:
        """Compare registers, CSRs and all of RAM of the parked machine. Raises Divergence."""
        machine, lockstep = self._machine, self.lockstep
        if lockstep is None:
            raise VmxlabError("nothing has run in lockstep yet")
        lockstep.compare_registers(
            {number: machine.read_gpr(number) for number in range(1, 32)},
            {number: machine.read_csr(number) for number in lockstep.comparable_csrs()},
        )
        machine.clean()
        lockstep.compare_memory(machine.read_memory(_RAM.base, machine.config.ram_size))
