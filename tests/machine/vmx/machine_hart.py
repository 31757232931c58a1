"""The RTL with the face of the golden hart: what a test does to it happens to both, compared."""

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, Access
from rtl.arch.records import EXIT_BIT, ParkKind
from rtl.arch.traps import Interrupt
from rtl.arch.vmx.capability import VMX_CSRS
from rtl.arch.vmx.exits import ENTRY_FAILURE, EXIT_REASON_BITS
from rtl.arch.vmx.fields import VMCS_FIELDS
from rtl.soc.config import SocConfig
from sim.library import LibraryMachine
from sim.lockstep import Lockstep, LockstepMachine
from sw_vmm.machine import Event
from tests.golden.vmx.world import RAM_SIZE, vmx_word

__all__ = ["Bench", "MachineHart"]

_RAM, _CLINT, _PLIC = (MEMORY_MAP[name] for name in ("ram", "clint", "plic"))
_PAGE = 1 << PAGE_BITS
_NEVER = (1 << 64) - 1
_ALL_CSRS = {**CSRS, **VMX_CSRS}
#: Cycles within which an instruction ends, or never does.
_STEP = 2000
#: Root CSRs compared at the end: all that can be written and that the model knows.
_COMPARED = [
    csr.number
    for csr in _ALL_CSRS.values()
    if csr.writable and csr.name not in ("mip", "sip", "mcycle") and "hpm" not in csr.name
]
_MTIMECMP = _CLINT.base + 0x4000
#: Of the PLIC: the priority of source 1, which is slot 0 of the device window, and the enables of M.
_PRIORITY, _ENABLES = _PLIC.base + 4, _PLIC.base + 0x2000


class Bench:
    """One machine on which worlds begin one after the other, each as after reset.

    Members
    -------
    exits : set of int
        Reasons of the exits there were.
    """

    def __init__(self):
        self.exits: set[int] = set()
        machine = LibraryMachine(SocConfig(vmx=True), ram_size=RAM_SIZE)
        self._machine = LockstepMachine(machine)
        self._hart: MachineHart | None = None

    def hart(self, outside) -> "MachineHart":
        """A hart in a new world; the one before comes to its end."""
        self.finish()
        machine = self._machine
        machine.reset()
        machine.lockstep = Lockstep(ram_size=RAM_SIZE, vmx=True)
        machine.host_port.control.write(step=1)
        self._hart = MachineHart(machine, self.exits)
        return self._hart

    def finish(self) -> None:
        """Compare what the present world has left. Raises Divergence."""
        hart, self._hart = self._hart, None
        if hart is not None and not hart.diverged:
            hart.finish()


class MachineHart:
    """``sim.golden.Hart`` as far as tests use it; reading is done from the model.

    Everything that is written goes to the machine as well, and ``step`` lets the machine take
    one instruction and compares it with the model's.
    """

    def __init__(self, machine: LockstepMachine, exits: set[int]):
        self._machine, self._exits = machine, exits
        self._model = machine.lockstep.hart
        self._armed = False
        self._pages: set[int] = set()
        self.diverged = False
        self.x = _Registers(machine, self._model)
        self.memory = _Memory(self, machine, self._model.memory)
        self.vmx = _Vmx(self, machine, self._model.vmx)

    def __getattr__(self, name):
        return getattr(self._model, name)

    @property
    def pc(self):
        return self._model.pc

    @pc.setter
    def pc(self, value):
        self._model.pc = value

    @property
    def privilege(self):
        return self._model.privilege

    @privilege.setter
    def privilege(self, value):
        self._model.privilege = value
        self._machine.write_privilege(value)

    @property
    def csr(self):
        return _Csrs(self._machine, self._model.csr)

    def write_csr(self, number, value):
        self._machine.write_csr(number, value)

    def touched(self, hpa, length=1):
        """There may be something other than zero."""
        self._pages.update(range(hpa >> PAGE_BITS, (hpa + length - 1 >> PAGE_BITS) + 1))

    def get(self, hpa: int) -> int:
        """A double word of RAM on the machine, which is compared."""
        found = self._machine.read_memory(hpa, 8)
        self._machine.lockstep.compare_page(hpa - _RAM.base, found)
        return int.from_bytes(found, "little")

    # Running.

    def step(self, claim=None) -> None:
        """One instruction, or what comes before it; nothing where it waits for ever."""
        machine, model = self._machine, self._model
        assert claim is None, "the machine makes its own claims"
        model.trapped = None
        if not self._armed:
            machine.resume(model.pc)
        self._armed = False
        self._run()
        i = model.executed
        if (
            i is not None
            and model.trapped is None
            and i.name[:2] in ("sb", "sh", "sw", "sd", "sc", "am")
        ):
            self.touched(model.memory.physical & ~7, 16)

    def free_run(self) -> None:
        """Go on without single steps, until the host stops it."""
        control = self._machine.host_port.control
        control.write(step=0)
        self._machine.resume(self._model.pc)
        self._run()
        control.write(step=1)

    def host_vmx(self, name: str, first: int, second: int) -> int | None:
        """A VMX instruction by the host port, where the hart has parked by an exit."""
        machine, model = self._machine, self._model
        found = machine.vmx(name, first, second)
        if name not in ("vmlaunch", "vmresume") or model.vmx.root_csr.values["vmxstatus"]:
            return found
        self._run()
        return None

    def _run(self):
        """Until it parks."""
        machine, model = self._machine, self._model
        self.diverged = True
        if machine.run(_STEP) == Event.BUDGET:
            machine.stop()
            assert machine.run(_STEP) == Event.PARKED, "the hart does not stop"
        reason = model.vmx.vmcs.fields["exit_reason"]
        if reason >> ENTRY_FAILURE or (model.trapped and model.trapped[0] >> EXIT_BIT == 1):
            self._exits.add(reason & (1 << EXIT_REASON_BITS) - 1)
        park = machine.park
        if park.kind == ParkKind.STOP:
            assert (park.pc, park.privilege, park.world) == (model.pc, model.privilege, model.world)
        self.diverged = False

    def lines(self, *causes: int) -> None:
        """Drive root's interrupt lines from outside: those of M, no others."""
        machine = self._machine
        write = machine.write_memory
        write(_CLINT.base, int(Interrupt.MACHINE_SOFTWARE in causes).to_bytes(4, "little"))
        deadline = 0 if Interrupt.MACHINE_TIMER in causes else _NEVER
        write(_MTIMECMP, deadline.to_bytes(8, "little"))
        external = Interrupt.MACHINE_EXTERNAL in causes
        write(_PRIORITY, int(external).to_bytes(4, "little"))
        write(_ENABLES, (2 * external).to_bytes(4, "little"))
        machine.window_interrupts(int(external))

    # The end.

    def finish(self) -> None:
        """What is due comes; the VMCS, registers, CSRs and memory are the model's."""
        machine, model = self._machine, self._model
        if model.world:
            self.step()
        if not self._leave():
            return
        root, vmcs = model.vmx.root_csr, model.vmx.vmcs
        machine.lockstep.compare_registers(
            {number: machine.read_gpr(number) for number in range(1, 32)},
            {number: machine.read_csr(number) for number in _COMPARED},
        )
        assert machine.read_csr(CSRS["mip"].number) & ~root.possibly_pending() == 0
        if vmcs.has_current:
            for name in tuple(vmcs.uncertain):
                machine.read_field(VMCS_FIELDS[name].number)
            self.touched(vmcs.pointer)
            machine.vmx("vmclear", vmcs.pointer)
        machine.clean()
        for page in self._pages:
            hpa = page << PAGE_BITS
            if hpa in _RAM:
                machine.lockstep.compare_page(hpa - _RAM.base, machine.read_memory(hpa, _PAGE))

    def _leave(self):
        """To root: a VMCALL where the guest stands, or wherever that leads to.

        Whether it comes there: from wfi there may be no way.
        """
        model = self._model
        for _ in range(8):
            if not model.world:
                return True
            place = self._place_of(model.pc)
            if place is not None:
                self.memory.write_physical(place, vmx_word("vmcall").to_bytes(4, "little"))
                self.memory.fence_i()
            before = model.pc
            self.step()
            if model.pc == before and model.trapped is None:
                return False
        raise AssertionError("the guest does not exit")

    def _place_of(self, gva):
        """Where the guest's next instruction lies, if its tables say so."""
        model = self._model
        context = model.memory._fetch_context
        if not context.paged and not context.stage:
            return gva
        outcome = model.memory.tables.present(gva, Access.FETCH, context)
        hpa = outcome.physical
        return (
            hpa if outcome.fault is None and _RAM.base <= hpa <= _RAM.base + RAM_SIZE - 4 else None
        )


class _Registers:
    """``Hart.x``."""

    def __init__(self, machine, model):
        self._machine, self._x = machine, model.x

    def __getitem__(self, number):
        return self._x[number]

    def __setitem__(self, number, value):
        self._machine.write_gpr(number, value)

    def __len__(self):
        return len(self._x)

    def __iter__(self):
        return iter(self._x)

    def __eq__(self, other):
        return self._x == list(other)

    __hash__ = None


class _Csrs:
    """``Hart.csr``; in root its values can be set."""

    def __init__(self, machine, csrs):
        self._machine, self._csrs = machine, csrs
        self.values = _CsrValues(machine, csrs)

    def __getattr__(self, name):
        return getattr(self._csrs, name)

    def set_status(self, **values):
        status = self._csrs.values["mstatus"]
        layout = CSRS["mstatus"].layout
        for name, value in values.items():
            status = layout[name].insert(status, value)
        self.values["mstatus"] = status


class _CsrValues:
    def __init__(self, machine, csrs):
        self._machine, self._csrs = machine, csrs

    def __getitem__(self, name):
        return self._csrs.values[name]

    def get(self, name, default=None):
        return self._csrs.values.get(name, default)

    def keys(self):
        return self._csrs.values.keys()

    def __setitem__(self, name, value):
        machine = self._machine
        assert self._csrs is machine.lockstep.hart.vmx.root_csr, "the host reaches root's CSRs only"
        machine.write_csr(_ALL_CSRS[name].number, value)
        assert self._csrs.values[name] == value


class _Memory:
    """``Hart.memory``."""

    def __init__(self, hart, machine, memory):
        self._hart, self._machine, self._memory = hart, machine, memory

    def __getattr__(self, name):
        return getattr(self._memory, name)

    def write_physical(self, hpa, data):
        self._hart.touched(hpa, len(data))
        self._machine.write_memory(hpa, data)

    def fence_i(self):
        self._machine.fence_i()


class _Vmx:
    """``Hart.vmx``."""

    def __init__(self, hart, machine, vmx):
        self._hart, self._machine, self._vmx = hart, machine, vmx

    def __getattr__(self, name):
        return getattr(self._vmx, name)

    @property
    def park_exits(self):
        return self._vmx.park_exits

    @park_exits.setter
    def park_exits(self, reasons):
        self._machine.park_on_exits(reasons)

    def resume(self, pc, *, rd=0, value=0, retires=False):
        """VMRESUME, as the host does it; the guest's first instruction follows with the next step."""
        self._machine.resume(pc, rd=rd, value=value, retires=retires)
        if self._machine.lockstep.hart.world:
            self._hart._armed = True
        else:
            self._hart._run()
