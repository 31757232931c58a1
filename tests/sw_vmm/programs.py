"""Bare programs for tests of techniques, and how they end."""

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from sw_vmm.assembler import Assembler
from tests.sw_vmm.soft_machine import RAM

CSR = {name: csr.number for name, csr in CSRS.items()}
FINISHER, UART, CLINT = (MEMORY_MAP[name].base for name in ("finisher", "uart", "clint"))
HANDLER = RAM + 0x400
DATA = RAM + 0x10000


def program(build, handler=None):
    """A program at RAM whose mtvec is set to ``handler`` (default: finish with mcause)."""
    code = Assembler(RAM)
    code.load_address(5, HANDLER)
    code.add("csrrw", rd=0, rs1=5, csr=CSR["mtvec"])
    code.load_address(8, DATA)
    build(code)
    text = code.assemble()
    assert len(text) <= HANDLER - RAM
    trap = Assembler(HANDLER)
    (handler or finish_with_cause)(trap)
    return text.ljust(HANDLER - RAM, b"\0") + trap.assemble()


def finish(code, register):
    """End with the register as exit code."""
    code.load_address(30, FINISHER)
    code.add("slli", rd=29, rs1=register, imm=16)
    code.add("lui", rd=28, imm=0x3000)
    code.add("addi", rd=28, rs1=28, imm=0x333)
    code.add("add", rd=29, rs1=29, rs2=28)
    code.add("sw", rs1=30, rs2=29)


def finish_with_cause(code):
    code.add("csrrs", rd=27, rs1=0, csr=CSR["mcause"])
    code.add("csrrs", rd=26, rs1=0, csr=CSR["mepc"])
    code.add("csrrs", rd=25, rs1=0, csr=CSR["mtval"])
    code.add("sd", rs1=8, rs2=26, imm=0)
    code.add("sd", rs1=8, rs2=25, imm=8)
    finish(code, 27)


def words(technique, count, gpa=DATA):
    data = technique.read_memory(gpa, 8 * count)
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]


def enter_supervisor(code, satp_register):
    """mret to S right behind this code, with satp written before."""
    code.add("csrrw", rd=0, rs1=satp_register, csr=CSR["satp"])
    code.add("lui", rd=7, imm=0x1000)
    code.add("srli", rd=7, rs1=7, imm=1)
    code.add("csrrs", rd=0, rs1=7, csr=CSR["mstatus"])
    code.add("auipc", rd=7, imm=0)
    code.add("addi", rd=7, rs1=7, imm=16)
    code.add("csrrw", rd=0, rs1=7, csr=CSR["mepc"])
    code.add("mret")


def sv39_register(code, register, table):
    code.add("addi", rd=register, rs1=0, imm=8)
    code.add("slli", rd=register, rs1=register, imm=60)
    code.load_address(7, table >> 12)
    code.add("or", rd=register, rs1=register, rs2=7)
