"""Machines and guests the VMM's tests share."""

from rtl.soc.config import SocConfig
from sim.device_tree import boot_rom
from sim.elf import load_elf
from sim.guests import hello_elf
from sw_vmm.assembler import Assembler
from sw_vmm.charge import ChargeModel, Charges
from sw_vmm.techniques import make_technique
from sw_vmm.vm import MONITOR_SIZE, Vm
from tests.sw_vmm.golden_machine import GoldenMachine
from tests.sw_vmm.soft_machine import RAM, SoftMachine

GUEST_RAM = 2 << 20
CHARGES = Charges(
    exit=40, csr=3, gpr=2, guest_word=4, device=50, instruction=60, vmcs=5, vmptrld=90
)


def rom_jump(target=RAM):
    """Reset code that goes to ``target``."""
    code = Assembler(0x1000)
    code.load_address(5, target)
    code.add("jalr", rd=0, rs1=5)
    return code.assemble()


def machine_for(technique, ram_size, **options):
    """A machine that can do what the technique needs."""
    kind = GoldenMachine if technique == "vmx-ept" else SoftMachine
    return kind(ram_size, **options)


def make_vm(program=b"", *, base=RAM, guest_ram=GUEST_RAM, technique="", **options):
    machine = machine_for(technique, guest_ram + MONITOR_SIZE, **options)
    vm = Vm(machine, rom=rom_jump(base))
    if program:
        vm.load(base, program)
    return vm


def run_hello(name, factor=1.0, on_exit=None):
    """The embedded guest; the machine, its signature, and the result."""
    ram = 8 << 20
    image = load_elf(hello_elf(), ram_size=ram)
    machine = machine_for(name, ram + MONITOR_SIZE)
    vm = Vm(machine, rom=boot_rom(SocConfig(), ram_size=ram, entry=image.entry))
    for gpa, data in image.segments:
        vm.load(gpa, data, "hello")
    technique, result = run(name, vm, 50_000_000, factor=factor, on_exit=on_exit)
    first, end = image.signature
    return machine, technique.read_memory(first, end - first), result


def run(name, vm, cycles=1_000_000, *, factor=1.0, on_exit=None):
    technique = make_technique(name, vm, ChargeModel(CHARGES, factor), on_exit)
    return technique, technique.run(cycles)
