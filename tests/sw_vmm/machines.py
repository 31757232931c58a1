"""Machines and guests the VMM's tests share."""

from sw_vmm.assembler import Assembler
from sw_vmm.charge import ChargeModel, Charges
from sw_vmm.techniques import make_technique
from sw_vmm.vm import MONITOR_SIZE, Vm
from tests.sw_vmm.soft_machine import RAM, SoftMachine

GUEST_RAM = 2 << 20
CHARGES = Charges(exit=40, csr=3, gpr=2, guest_word=4, device=50, instruction=60)


def rom_jump(target=RAM):
    """Reset code that goes to ``target``."""
    code = Assembler(0x1000)
    code.load_address(5, target)
    code.add("jalr", rd=0, rs1=5)
    return code.assemble()


def make_vm(program=b"", *, base=RAM, guest_ram=GUEST_RAM, **options):
    machine = SoftMachine(guest_ram + MONITOR_SIZE, **options)
    vm = Vm(machine, rom=rom_jump(base))
    if program:
        vm.load(base, program)
    return vm


def run(name, vm, cycles=1_000_000, *, factor=1.0, on_exit=None):
    technique = make_technique(name, vm, ChargeModel(CHARGES, factor), on_exit)
    return technique, technique.run(cycles)
