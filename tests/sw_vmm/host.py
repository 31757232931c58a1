"""Several guests on one machine, and a guest that does them good or harm."""

from sw_vmm.charge import ChargeModel
from sw_vmm.ept import PageAllocator
from sw_vmm.scheduler import Scheduler
from sw_vmm.supervisor_guest import SupervisorGuest
from sw_vmm.vm import MONITOR_SIZE, Vm
from sw_vmm.vmcs import start_vmx
from sw_vmm.vmx_guest import VmxGuest
from tests.sw_vmm.golden_machine import GoldenMachine
from tests.sw_vmm.machines import CHARGES, rom_jump
from tests.sw_vmm.programs import finish, program
from tests.sw_vmm.soft_machine import RAM

SIZE = 2 << 20
MODEL = ChargeModel(CHARGES)


class Host:
    """A machine for so many guests of one size: a golden one, or one with the RAM for them."""

    def __init__(self, count, size=SIZE, *, machine=None, **parameters):
        self.machine = machine or GoldenMachine(count * size + MONITOR_SIZE, **parameters)
        start_vmx(self.machine)
        self.size = size
        self.guests = []
        end = RAM + count * size
        self.pages = PageAllocator(range(end, end + MONITOR_SIZE))

    def vm(self, rom):
        first = RAM + len(self.guests) * self.size
        return Vm(self.machine, rom=rom, place=range(first, first + self.size))

    def add(self, image, *, rom=None, start=None, **options):
        """``image``: bytes at RAM, or segments. ``options`` are those of the guest."""
        vm = self.vm(rom_jump() if rom is None else rom)
        for gpa, data in [(RAM, image)] if isinstance(image, bytes) else image:
            vm.load(gpa, data)
        options |= {"vpid": len(self.guests) + 1, "wfi_exits": True}
        if start is None:
            guest = VmxGuest(vm, MODEL, self.pages, **options)
        else:
            guest = SupervisorGuest(vm, MODEL, self.pages, start=start, **options)
        self.guests.append(guest)
        return vm

    def run(self, cycles=2_000_000, slice_cycles=5_000):
        self.scheduler = Scheduler(self.machine, self.guests, MODEL, slice_cycles=slice_cycles)
        return self.scheduler.run(cycles)


def counting(start, count=3000, exit_code=0):
    """Adds in registers and in memory; ends with an exit code."""

    def build(code):
        code.add("addi", rd=9, rs1=0, imm=start)
        code.load_address(20, count)
        code.label("again")
        code.add("add", rd=21, rs1=21, rs2=9)
        code.add("sd", rs1=8, rs2=21)
        code.add("ld", rd=21, rs1=8)
        code.add("addi", rd=20, rs1=20, imm=-1)
        code.add("bne", rs1=20, rs2=0, to="again")
        code.add("addi", rd=22, rs1=0, imm=exit_code)
        finish(code, 22)

    return program(build)
