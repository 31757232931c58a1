"""What every random program brings along: the handlers of its traps, and the way out.

The M-mode handler relies on nothing but mtvec: it goes on behind the instruction that trapped, or
with the next block, and counts; a program whose count runs out ends. Interrupts silence their
sources, and count too.
"""

from rtl.arch.csrs import CSRS, MSTATUS
from rtl.arch.traps import INTERRUPT_BIT, Exception_
from sw_vmm import bindings
from sw_vmm.assembler import Assembler
from sw_vmm.devices.register_file import place_of

__all__ = ["CLINT", "SUPERVISOR_HANDLERS", "VARIABLES", "machine_code", "supervisor_code"]

#: Registers of the CLINT, by name: offsets.
_map = bindings.load("clint")
CLINT = {
    name: place_of(_map, getattr(_map.Clint(None, None), name)).offset
    for name in ("msip", "mtimecmp", "mtime")
}

#: Words the handler keeps, from the address ``variables``.
VARIABLES = {
    name: 8 * n
    for n, name in enumerate(
        ("tohost", "save29", "save30", "traps", "patience", "skip", "period", "next")
    )
}
#: After these a block cannot go on.
_LEAVING = (
    Exception_.INSTRUCTION_ADDRESS_MISALIGNED,
    Exception_.INSTRUCTION_ACCESS_FAULT,
    Exception_.INSTRUCTION_PAGE_FAULT,
    Exception_.ECALL_FROM_USER,
    Exception_.ECALL_FROM_SUPERVISOR,
    Exception_.ECALL_FROM_MACHINE,
)
#: Vectored interrupts have cause numbers below this.
_VECTORS = 16
#: Where the S-mode handlers begin in their page, one for each way of going on.
SUPERVISOR_HANDLERS = (0x000, 0x100, 0x200)


def _csr(name):
    return CSRS[name].number


def machine_code(base: int, variables: int, clint: int) -> tuple[bytes, int, int]:
    """The M-mode handler at ``base`` (a multiple of 64), where the way out is, and its end."""
    code = Assembler(base)
    for _ in range(_VECTORS):
        code.add("jal", to="handler")
    code.label("handler")
    # MPRV must not divert the handler's own accesses.
    code.add("csrrw", rs1=31, csr=_csr("mscratch"))
    code.add("lui", rd=31, imm=MSTATUS["mprv"].mask)
    code.add("csrrc", rs1=31, csr=_csr("mstatus"))
    # The page of the variables follows that of the handler.
    code.add("auipc", rd=31, imm=variables - base)
    code.add("addi", rd=31, rs1=31, imm=base - code.here + 4)
    code.add("sd", rs1=31, rs2=29, imm=VARIABLES["save29"])
    code.add("sd", rs1=31, rs2=30, imm=VARIABLES["save30"])
    code.add("ld", rd=30, rs1=31, imm=VARIABLES["traps"])
    code.add("addi", rd=30, rs1=30, imm=-1)
    code.add("sd", rs1=31, rs2=30, imm=VARIABLES["traps"])
    code.add("bge", rs1=0, rs2=30, to="finish")
    code.add("csrrs", rd=30, csr=_csr("mcause"))
    code.add("blt", rs1=30, rs2=0, to="interrupt")
    leaving = sum(1 << cause for cause in _LEAVING)
    code.add("lui", rd=29, imm=leaving + 2048 & ~0xFFF)
    code.add("addi", rd=29, rs1=29, imm=(leaving & 0xFFF ^ 2048) - 2048)
    code.add("srl", rd=29, rs1=29, rs2=30)
    code.add("andi", rd=29, rs1=29, imm=1)
    code.add("bne", rs1=29, to="next")
    code.add("ld", rd=29, rs1=31, imm=VARIABLES["skip"])
    code.add("beq", rs1=29, to="next")
    code.add("csrrs", rd=30, csr=_csr("mepc"))
    code.add("add", rd=30, rs1=30, rs2=29)
    code.add("csrrw", rs1=30, csr=_csr("mepc"))
    code.label("back")
    code.add("ld", rd=29, rs1=31, imm=VARIABLES["save29"])
    code.add("ld", rd=30, rs1=31, imm=VARIABLES["save30"])
    code.add("csrrs", rd=31, csr=_csr("mscratch"))
    code.add("mret")

    code.label("interrupt")
    code.add("ld", rd=29, rs1=31, imm=VARIABLES["period"])
    code.load_address(30, clint + CLINT["mtime"])
    code.add("ld", rd=30, rs1=30)
    code.add("add", rd=29, rs1=29, rs2=30)
    code.load_address(30, clint + CLINT["mtimecmp"])
    code.add("sd", rs1=30, rs2=29)
    code.load_address(30, clint + CLINT["msip"])
    code.add("sw", rs1=30)
    code.add("addi", rd=29, imm=-1)
    code.add("csrrw", rs1=29, csr=_csr("stimecmp"))
    code.add("csrrw", csr=_csr("mip"))
    code.add("ld", rd=30, rs1=31, imm=VARIABLES["patience"])
    code.add("addi", rd=30, rs1=30, imm=-1)
    code.add("sd", rs1=31, rs2=30, imm=VARIABLES["patience"])
    code.add("blt", rs2=30, to="back")
    code.label("next")
    code.add("ld", rd=30, rs1=31, imm=VARIABLES["next"])
    code.add("jalr", rs1=30)

    code.label("finish")
    code.load_address(31, variables)
    code.add("addi", rd=30, imm=1)
    code.add("sd", rs1=31, rs2=30, imm=VARIABLES["tohost"])
    code.add("jal", imm=0)
    return code.assemble(), code.address("finish"), code.here


def supervisor_code(base: int) -> bytes:
    """A page of S-mode handlers; each goes on with M's help where it cannot itself."""
    page = bytearray(0x1000)
    for place, skip in zip(SUPERVISOR_HANDLERS, (4, 2, 0), strict=True):
        # Vectored interrupts would come in behind the base: the same jump stands there.
        code = Assembler(base + place)
        for _ in range(_VECTORS):
            code.add("jal", to="handler")
        code.label("handler")
        code.add("csrrw", rs1=31, csr=_csr("sscratch"))
        code.add("csrrs", rd=31, csr=_csr("scause"))
        code.add("blt", rs1=31, rs2=0, to="interrupt")
        if skip:
            for cause in _LEAVING[:-3]:
                code.add("addi", rd=31, rs1=31, imm=-cause)
                code.add("beq", rs1=31, to="leave")
                code.add("addi", rd=31, rs1=31, imm=cause)
            code.add("addi", rd=31, rs1=31, imm=-Exception_.ECALL_FROM_USER)
            code.add("beq", rs1=31, to="leave")
            code.add("csrrs", rd=31, csr=_csr("sepc"))
            code.add("addi", rd=31, rs1=31, imm=skip)
            code.add("csrrw", rs1=31, csr=_csr("sepc"))
            code.add("csrrs", rd=31, csr=_csr("sscratch"))
            code.add("sret")
        code.label("leave")
        code.add("ecall")
        code.label("interrupt")
        code.add("csrrw", csr=_csr("sie"))
        code.add("csrrw", csr=_csr("sip"))
        code.add("csrrs", rd=31, csr=_csr("sscratch"))
        code.add("sret")
        made = code.assemble()
        page[place : place + len(made)] = made
    return bytes(page)


assert INTERRUPT_BIT == 63  # the handlers tell interrupts by the sign of the cause
