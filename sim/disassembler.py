"""Instructions as text, from the facts an assembler is made of."""

from rtl.arch.csrs import CSR_BY_NUMBER
from rtl.arch.instructions import IMMEDIATES, RD, RS1, RS2, Format, decode

__all__ = ["REGISTER_NAMES", "disassemble"]

#: Names of the registers in the calling convention.
REGISTER_NAMES = (
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1",
    "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7",
    "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
)  # fmt: skip
_WORD = (1 << 64) - 1


def disassemble(bits: int, pc: int = 0) -> str:
    """The instruction in ``bits`` (a compressed one in bits 15:0); targets are relative to ``pc``."""
    row = decode(bits)
    if row is None:
        return f".4byte {bits:#010x}" if bits & 3 == 3 else f".2byte {bits & 0xFFFF:#06x}"
    name = row.name
    if row.format in (Format.AMO, Format.LR):
        name += ("", ".rl", ".aq", ".aqrl")[bits >> 25 & 3]
    operands = ", ".join(_operands(row.format, bits, pc))
    return f"{name} {operands}".strip()


def _name(number):
    return REGISTER_NAMES[number]


def _field(bits, place):
    lsb, width = place
    return bits >> lsb & (1 << width) - 1


def _operands(format_, bits, pc):
    rd, rs1, rs2 = (_name(_field(bits, place)) for place in (RD, RS1, RS2))
    # Compressed: five bits from 7 and from 2, three bits that name s0 to a5 from 7 and from 2.
    low = _name(bits >> 2 & 31)
    short1, short2 = _name(8 + (bits >> 7 & 7)), _name(8 + (bits >> 2 & 7))
    immediate = IMMEDIATES[format_].extract(bits) if format_ in IMMEDIATES else 0
    target = f"{pc + immediate & _WORD:#x}"
    csr = CSR_BY_NUMBER.get(bits >> 20)
    csr_name = csr.name if csr else f"{bits >> 20:#x}"
    return {
        Format.R: (rd, rs1, rs2),
        Format.I: (rd, rs1, str(immediate)),
        Format.UNARY: (rd, rs1),
        Format.SHIFT: (rd, rs1, str(immediate)),
        Format.SHIFT_W: (rd, rs1, str(immediate)),
        Format.LOAD: (rd, f"{immediate}({rs1})"),
        Format.S: (rs2, f"{immediate}({rs1})"),
        Format.B: (rs1, rs2, target),
        Format.U: (rd, f"{immediate >> 12 & 0xFFFFF:#x}"),
        Format.J: (rd, target),
        Format.CSR: (rd, csr_name, rs1),
        Format.CSR_IMMEDIATE: (rd, csr_name, str(immediate)),
        Format.AMO: (rd, rs2, f"({rs1})"),
        Format.LR: (rd, f"({rs1})"),
        Format.SFENCE: (rs1, rs2),
        Format.FENCE: (),
        Format.NONE: (),
        Format.CR: (rd, low),
        Format.CR_MOVE: (rd, low),
        Format.CR_JUMP: (rd,),
        Format.CI: (rd, str(immediate)),
        Format.CI_LOAD: (rd, str(immediate)),
        Format.CI_LUI: (rd, f"{immediate >> 12 & 0xFFFFF:#x}"),
        Format.CI_SHIFT: (rd, str(immediate)),
        Format.CI_SP16: ("sp", str(immediate)),
        Format.CI_LWSP: (rd, f"{immediate}(sp)"),
        Format.CI_LDSP: (rd, f"{immediate}(sp)"),
        Format.CSS_SWSP: (low, f"{immediate}(sp)"),
        Format.CSS_SDSP: (low, f"{immediate}(sp)"),
        Format.CIW: (short2, "sp", str(immediate)),
        Format.CL_W: (short2, f"{immediate}({short1})"),
        Format.CL_D: (short2, f"{immediate}({short1})"),
        Format.CS_W: (short2, f"{immediate}({short1})"),
        Format.CS_D: (short2, f"{immediate}({short1})"),
        Format.CA: (short1, short2),
        Format.CB: (short1, target),
        Format.CB_SHIFT: (short1, str(immediate)),
        Format.CB_AND: (short1, str(immediate)),
        Format.CJ: (target,),
    }[format_]
