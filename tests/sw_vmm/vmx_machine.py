"""A golden machine with a guest of a few instructions, below every technique."""

from rtl.arch.paging import Access
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from sw_vmm.assembler import Assembler, encode
from sw_vmm.ept import Ept, MemorySlot, PageAllocator
from sw_vmm.vcpu import Vcpu
from sw_vmm.vmcs import VMCS_REGION, Vmcs, control_word, reset_state, start_vmx
from tests.sw_vmm.golden_machine import GoldenMachine

RAM = 0x8000_0000
RAM_SIZE = 2 << 20
MONITOR = range(RAM + RAM_SIZE, RAM + (6 << 20))
ALL = (1 << 64) - 1


def vmx_word(name, rd=0, rs1=0, rs2=0):
    row = VMX_INSTRUCTIONS[name]
    word = row.encoding.match
    for operand, value, lsb in ((row.rd, rd, 7), (row.rs1, rs1, 15), (row.rs2, rs2, 20)):
        word |= value << lsb if operand else 0
    return word


class SmallGuest:
    """A guest at the start of its RAM, not launched yet; its fields are ``vmcs``.

    ``build`` adds to an Assembler at RAM.
    """

    def __init__(self, build=lambda code: None, *, slots=None, machine=None, **fields):
        self.machine = machine or GoldenMachine()
        start_vmx(self.machine)
        self.allocator = PageAllocator(MONITOR)
        self.vmcs = Vmcs(self.machine, self.allocator.take(VMCS_REGION))
        self.vmcs.load()
        slots = [MemorySlot(RAM, RAM, RAM_SIZE)] if slots is None else slots
        self.ept = Ept(self.machine, self.allocator, slots)
        self.vcpu = Vcpu(self.machine, range(RAM, RAM + RAM_SIZE))
        self.vmcs.update(
            **reset_state(), eptp=self.ept.eptp, host_pc=self.allocator.take(), guest_pc=RAM
        )
        self.vmcs.update(**fields)
        code = Assembler(RAM)
        build(code)
        self.machine.write_memory(RAM, code.assemble())

    def controls(self, *names):
        self.vmcs.execution_controls = control_word("execution_controls", *names)

    def set(self, **registers):
        """GPRs by number: x5=..."""
        for name, value in registers.items():
            self.machine.write_gpr(int(name[1:]), value)

    def run(self, cycles=1000, *, filled=True):
        """The first exit."""
        if filled:
            self.ept.fill_all()
        self.vcpu.launch()
        return self.vcpu.run(cycles)

    def go_on(self, skip=True, cycles=1000, **more):
        record = self.vcpu.record
        self.vcpu.resume(record.pc + (record.length if skip else 0), **more)
        return self.vcpu.run(cycles)


def one(name, **operands):
    """A program of one instruction."""
    return lambda code: code.word(encode(name, **operands))


def words(*bits):
    """A program of encoded instructions, compressed ones padded with c.nop."""

    def build(code):
        for word in bits:
            code.word(word if word & 3 == 3 else word | 0x0001 << 16)

    return build


__all__ = ["ALL", "MONITOR", "RAM", "RAM_SIZE", "Access", "SmallGuest", "one", "vmx_word", "words"]
