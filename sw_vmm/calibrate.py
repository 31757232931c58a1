"""Measuring the charge constants: each operation of a VMM, run as code on the hart.

Every body below is what a monitor written in C does for that operation, run in M-mode in a loop
that is warm in the caches; what the loop itself costs is measured apart and taken off.
"""

from collections.abc import Callable
from typing import NamedTuple

from rtl.arch.csrs import CSRS
from rtl.arch.instructions import RD, RS1, RS2
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.traps import Exception_
from rtl.arch.vmx.fields import VMCS_FIELDS
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from sw_vmm.assembler import Assembler
from sw_vmm.charge import Charges
from sw_vmm.errors import MachineError
from sw_vmm.machine import Event, Machine
from sw_vmm.vmcs import VMCS_REGION, Vmcs, execute

__all__ = ["OPERATIONS", "Operation", "calibrate", "measure"]

_CODE = MEMORY_MAP["ram"].base
_DATA = _CODE + 0x4000
_VMCS = _CODE + 0x8000
#: Where the data of the bodies is, from _DATA.
_STACK, _TABLE, _REGISTERS, _DEVICES = 0x0, 0x400, 0x600, 0x700
#: The guest's memory begins behind that and is as large as its offset.
_GUEST = _GUEST_SIZE = 0x1000
_LINE = 64
_ROUNDS = 64
_PASSES = 3
_BUDGET = 20_000_000

_RA, _SP = 1, 2
_T0, _T1, _T2, _T3, _T4, _T5 = 5, 6, 7, 28, 29, 30
_A0, _A1, _A2, _A3 = 10, 11, 12, 13
#: data, loop counter, passes, cycles at the start, result
_S_DATA, _S_COUNT, _S_PASSES, _S_START, _S_RESULT = 8, 9, 18, 19, 20
_SAVED = tuple(number for number in range(1, 32) if number != _SP)


class Operation(NamedTuple):
    """A body, and how many of the operation it contains; ``vmx``: it needs a current VMCS."""

    body: Callable[[Assembler], None]
    count: int
    vmx: bool = False


def _empty(code: Assembler) -> None:
    pass


def _exit(code: Assembler) -> None:
    """A cause, read already, goes through the table of handlers; the handler returns at once."""
    code.add("andi", rd=_T0, rs1=_S_COUNT, imm=3)
    code.add("blt", rs1=_T0, rs2=0, to="exit_interrupt")
    code.add("slli", rd=_T0, rs1=_T0, imm=3)
    code.add("add", rd=_T0, rs1=_T0, rs2=_S_DATA)
    code.add("ld", rd=_T0, rs1=_T0, imm=_TABLE)
    code.add("jalr", rd=_RA, rs1=_T0, imm=0)
    code.label("exit_interrupt")


def _csr(code: Assembler) -> None:
    code.add("csrrs", rd=_T0, rs1=0, csr=CSRS["mepc"].number)
    code.add("csrrw", rd=0, rs1=_T0, csr=CSRS["mepc"].number)


def _gpr(code: Assembler) -> None:
    """The stores and loads around a trap handler; sp is the frame."""
    code.add("addi", rd=_SP, rs1=_S_DATA, imm=_STACK)
    for slot, number in enumerate(_SAVED):
        code.add("sd", rs1=_SP, rs2=number, imm=8 * slot)
    for slot, number in enumerate(_SAVED):
        code.add("ld", rd=number, rs1=_SP, imm=8 * slot)


def _guest_word(code: Assembler) -> None:
    """A gpa is checked against guest RAM, made an address of the monitor's, and read."""
    code.add("andi", rd=_T0, rs1=_S_COUNT, imm=_GUEST_SIZE // _LINE - 1)
    code.add("slli", rd=_T0, rs1=_T0, imm=_LINE.bit_length() - 1)
    code.add("lui", rd=_T2, imm=_GUEST)
    code.add("addi", rd=_T1, rs1=_T0, imm=7)
    code.add("bgeu", rs1=_T1, rs2=_T2, to="guest_word_outside")
    code.add("add", rd=_T0, rs1=_T0, rs2=_S_DATA)
    code.add("add", rd=_T0, rs1=_T0, rs2=_T2)
    code.add("ld", rd=_T0, rs1=_T0, imm=0)
    code.label("guest_word_outside")


def _device(code: Assembler) -> None:
    """The device is found by its range, its handler by the register, and its state changes."""
    code.load_address(_A0, MEMORY_MAP["uart"].base + 5)
    code.add("addi", rd=_A1, rs1=_S_DATA, imm=_DEVICES)
    code.label("device_next")
    code.add("ld", rd=_T0, rs1=_A1, imm=0)
    code.add("ld", rd=_T1, rs1=_A1, imm=8)
    code.add("addi", rd=_A1, rs1=_A1, imm=32)
    code.add("sub", rd=_T2, rs1=_A0, rs2=_T0)
    code.add("bgeu", rs1=_T2, rs2=_T1, to="device_next")
    code.add("ld", rd=_T3, rs1=_A1, imm=-16)
    code.add("jalr", rd=_RA, rs1=_T3, imm=0)


def _instruction(code: Assembler) -> None:
    """Fetch, decode by the opcode's table, read two registers, compute, write one, go on."""
    code.add("lwu", rd=_T0, rs1=_S_DATA, imm=_REGISTERS - 8)
    code.add("andi", rd=_T1, rs1=_T0, imm=3)
    code.add("slli", rd=_T1, rs1=_T1, imm=3)
    code.add("add", rd=_T1, rs1=_T1, rs2=_S_DATA)
    code.add("ld", rd=_T1, rs1=_T1, imm=_TABLE)
    code.add("jalr", rd=_RA, rs1=_T1, imm=0)
    for field, target in ((15, _T2), (20, _T3), (7, _T4)):
        code.add("srli", rd=target, rs1=_T0, imm=field)
        code.add("andi", rd=target, rs1=target, imm=31)
        code.add("slli", rd=target, rs1=target, imm=3)
        code.add("add", rd=target, rs1=target, rs2=_S_DATA)
    code.add("ld", rd=_T2, rs1=_T2, imm=_REGISTERS)
    code.add("ld", rd=_T3, rs1=_T3, imm=_REGISTERS)
    code.add("add", rd=_T2, rs1=_T2, rs2=_T3)
    code.add("sd", rs1=_T4, rs2=_T2, imm=_REGISTERS)
    code.add("ld", rd=_T5, rs1=_S_DATA, imm=_REGISTERS - 16)
    code.add("addi", rd=_T5, rs1=_T5, imm=4)
    code.add("sd", rs1=_S_DATA, rs2=_T5, imm=_REGISTERS - 16)


def _vmcs(code: Assembler) -> None:
    """A field is read, and written back."""
    code.add("addi", rd=_A0, rs1=0, imm=VMCS_FIELDS["guest_pc"].number)
    read, write = (VMX_INSTRUCTIONS[name].encoding.match for name in ("vmread", "vmwrite"))
    code.word(read | _T0 << RD[0] | _A0 << RS1[0])
    code.word(write | _T1 << RD[0] | _A0 << RS1[0] | _T0 << RS2[0])


def _vmptrld(code: Assembler) -> None:
    """There and back again; each time a field has changed that is written back."""
    load, write = (VMX_INSTRUCTIONS[name].encoding.match for name in ("vmptrld", "vmwrite"))
    code.add("addi", rd=_A0, rs1=0, imm=VMCS_FIELDS["guest_pc"].number)
    for region in (_VMCS + VMCS_REGION, _VMCS):
        code.load_address(_A1, region)
        code.word(load | _T1 << RD[0] | _A1 << RS1[0])
        code.word(write | _T1 << RD[0] | _A0 << RS1[0] | _S_COUNT << RS2[0])


#: By the members of ``Charges``.
OPERATIONS = {
    "exit": Operation(_exit, 1),
    "csr": Operation(_csr, 2),
    "gpr": Operation(_gpr, 2 * len(_SAVED)),
    "guest_word": Operation(_guest_word, 1),
    "device": Operation(_device, 1),
    "instruction": Operation(_instruction, 1),
    "vmcs": Operation(_vmcs, 2, vmx=True),
    "vmptrld": Operation(_vmptrld, 2, vmx=True),
}


def _program(body: Callable[[Assembler], None]) -> tuple[bytes, dict[int, int]]:
    """Code that leaves the cycles of the last of several passes in s4, and its data words."""
    code = Assembler(_CODE)
    code.load_address(_S_DATA, _DATA)
    code.add("addi", rd=_S_PASSES, rs1=0, imm=_PASSES)
    code.label("pass")
    code.add("addi", rd=_S_COUNT, rs1=0, imm=_ROUNDS)
    code.add("csrrs", rd=_S_START, rs1=0, csr=CSRS["mcycle"].number)
    code.label("round")
    body(code)
    code.add("addi", rd=_S_COUNT, rs1=_S_COUNT, imm=-1)
    # A body may be longer than a conditional branch reaches.
    code.add("beq", rs1=_S_COUNT, rs2=0, to="done")
    code.add("jal", rd=0, to="round")
    code.label("done")
    code.add("csrrs", rd=_S_RESULT, rs1=0, csr=CSRS["mcycle"].number)
    code.add("sub", rd=_S_RESULT, rs1=_S_RESULT, rs2=_S_START)
    code.add("addi", rd=_S_PASSES, rs1=_S_PASSES, imm=-1)
    code.add("beq", rs1=_S_PASSES, rs2=0, to="end")
    code.add("jal", rd=0, to="pass")
    code.label("end")
    code.add("ebreak")
    code.label("handler")
    code.add("jalr", rd=0, rs1=_RA, imm=0)
    code.label("register")
    code.add("andi", rd=_T2, rs1=_T2, imm=7)
    code.add("slli", rd=_T2, rs1=_T2, imm=3)
    code.add("add", rd=_T2, rs1=_T2, rs2=_S_DATA)
    code.add("ld", rd=_T0, rs1=_T2, imm=_TABLE)
    code.add("addi", rd=_T3, rs1=_RA, imm=0)
    code.add("jalr", rd=_RA, rs1=_T0, imm=0)
    code.add("ld", rd=_T0, rs1=_S_DATA, imm=_STACK)
    code.add("ori", rd=_T0, rs1=_T0, imm=1)
    code.add("sd", rs1=_S_DATA, rs2=_T0, imm=_STACK)
    code.add("jalr", rd=0, rs1=_T3, imm=0)
    text = code.assemble()
    words = {_DATA + _TABLE + 8 * index: code.address("handler") for index in range(8)}
    words[_DATA + _REGISTERS - 8] = 0x00C5_8533  # add a0, a1, a2
    devices = ("rom", "finisher", "clint", "plic", "uart")
    for index, name in enumerate(devices):
        row = _DATA + _DEVICES + 32 * index
        words[row], words[row + 8] = MEMORY_MAP[name].base, MEMORY_MAP[name].size
        words[row + 16] = code.address("register")
    return text, words


def measure(machine: Machine, body: Callable[[Assembler], None], *, vmx: bool = False) -> int:
    """Cycles of ``_ROUNDS`` rounds of a body, loop included; with ``vmx`` a VMCS is current,
    and there is another.

    Resets the machine. Raises MachineError when the code does not come to its end.
    """
    machine.reset()
    if vmx:
        execute(machine, "vmxon")
        for region in (_VMCS + VMCS_REGION, _VMCS):
            Vmcs(machine, region).load()
    machine.park_on(1 << Exception_.BREAKPOINT, 0)
    text, words = _program(body)
    machine.write_memory(_CODE, text)
    for hpa, word in words.items():
        machine.write_memory(hpa, word.to_bytes(8, "little"))
    machine.resume(_CODE)
    event = machine.run(_BUDGET)
    if event != Event.PARKED or machine.park.reason != Exception_.BREAKPOINT:
        raise MachineError(f"calibration code did not end: {event!r}")
    return machine.read_gpr(_S_RESULT)


def calibrate(machine: Machine) -> Charges:
    """Measure every constant of the machine, whose state is lost. At least one cycle each."""
    loop = measure(machine, _empty)
    cycles = {}
    for name, operation in OPERATIONS.items():
        if machine.config.vmx or not operation.vmx:
            taken = measure(machine, operation.body, vmx=operation.vmx) - loop
            cycles[name] = max(1, round(taken / _ROUNDS / operation.count))
    return Charges(**cycles)
