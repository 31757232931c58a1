"""Expander and decoder against the rows of ``rtl.arch`` and the manual's formats."""

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.arch.instructions import (
    COMPRESSED,
    COMPRESSED_NONZERO,
    IMMEDIATES,
    INSTRUCTIONS,
    Format,
    decode,
)
from rtl.core.decode import Decoder, MemoryOperation, SystemOperation, Unit
from rtl.core.execute.alu import AluOperation
from rtl.core.execute.bit_counter import CountOperation
from rtl.core.expand import Expander


class Both(wiring.Component):
    """An expander in front of a decoder, as in the issue stage."""

    fetched: wiring.In(32)
    expanded: Out(32)

    def __init__(self, bit_manipulation):
        self.decoder = Decoder(bit_manipulation=bit_manipulation, vmx=False)
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.expander = expander = Expander()
        m.submodules.decoder = self.decoder
        m.d.comb += [
            expander.compressed.eq(self.fetched[:16]),
            self.expanded.eq(
                Mux(self.fetched[:2] == 3, self.fetched, expander.expanded),
            ),
            self.decoder.instruction.eq(self.expanded),
        ]
        return m


PORTS = (
    "unit", "operation", "word", "funct3", "funct5", "rd", "rs1", "rs2", "immediate", "a_pc",
    "b_immediate", "unsigned_word",
)  # fmt: skip


def decoded(words, bit_manipulation=True):
    """For each word the instruction it is expanded to, and what the decoder says."""
    dut = Both(bit_manipulation)
    results = []

    async def testbench(ctx):
        for word in words:
            ctx.set(dut.fetched, word)
            await ctx.delay(1e-9)
            ports = {name: ctx.get(getattr(dut.decoder, name)) for name in PORTS}
            results.append((ctx.get(dut.expanded), ports))

    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()
    return results


# The decoder's rule, restated: by mnemonic, who carries the instruction out, and what it uses.
_MULTIPLY = {"mul": 0, "mulh": 1, "mulhsu": 2, "mulhu": 3, "mulw": 0}
_DIVIDE = {"div": 0, "divu": 1, "rem": 2, "remu": 3, "divw": 0, "divuw": 1, "remw": 2, "remuw": 3}
_SYSTEM = {
    "fence": "FENCE", "fence.i": "FENCE_I", "ecall": "ECALL", "ebreak": "EBREAK", "mret": "MRET",
    "sret": "SRET", "wfi": "WFI", "sfence.vma": "SFENCE_VMA",
}  # fmt: skip
_ALU = {
    "add": "ADD", "addi": "ADD", "addw": "ADD", "addiw": "ADD", "lui": "ADD", "auipc": "ADD",
    "sub": "SUB", "subw": "SUB",
    "sll": "SLL", "slli": "SLL", "sllw": "SLL", "slliw": "SLL",
    "srl": "SRL", "srli": "SRL", "srlw": "SRL", "srliw": "SRL",
    "sra": "SRA", "srai": "SRA", "sraw": "SRA", "sraiw": "SRA",
    "slt": "SLT", "slti": "SLT", "sltu": "SLTU", "sltiu": "SLTU",
    "xor": "XOR", "xori": "XOR", "or": "OR", "ori": "OR", "and": "AND", "andi": "AND",
    "add.uw": "ADD", "slli.uw": "SLL", "sh1add": "SH1ADD", "sh1add.uw": "SH1ADD",
    "sh2add": "SH2ADD", "sh2add.uw": "SH2ADD", "sh3add": "SH3ADD", "sh3add.uw": "SH3ADD",
    "andn": "ANDN", "orn": "ORN", "xnor": "XNOR", "rol": "ROL", "rolw": "ROL",
    "ror": "ROR", "rori": "ROR", "rorw": "ROR", "roriw": "ROR",
    "min": "MIN", "minu": "MINU", "max": "MAX", "maxu": "MAXU",
    "sext.b": "SEXT_B", "sext.h": "SEXT_H", "zext.h": "ZEXT_H", "orc.b": "ORC_B", "rev8": "REV8",
    "bclr": "BCLR", "bclri": "BCLR", "bext": "BEXT", "bexti": "BEXT",
    "binv": "BINV", "binvi": "BINV", "bset": "BSET", "bseti": "BSET",
}  # fmt: skip
_COUNT = {"clz": 0, "ctz": 1, "cpop": 2, "clzw": 0, "ctzw": 1, "cpopw": 2}
_USES = {
    Format.UNARY: "rd rs1", Format.R: "rd rs1 rs2", Format.I: "rd rs1", Format.SHIFT: "rd rs1", Format.SHIFT_W: "rd rs1",
    Format.LOAD: "rd rs1", Format.S: "rs1 rs2", Format.B: "rs1 rs2", Format.U: "rd",
    Format.J: "rd", Format.CSR: "rd rs1", Format.CSR_IMMEDIATE: "rd", Format.AMO: "rd rs1 rs2",
    Format.LR: "rd rs1", Format.SFENCE: "rs1 rs2", Format.FENCE: "", Format.NONE: "",
}  # fmt: skip


def wanted(row, word):
    """What the decoder must say of the 32-bit ``word`` of ``row``; what may be anything is left out."""
    name = row.name
    says = {"funct3": word >> 12 & 7}
    if name in _ALU:
        says |= {
            "unit": Unit.ALU,
            "operation": AluOperation[_ALU[name]].value,
            "word": name.endswith("w") and not name.endswith(".uw"),
            "unsigned_word": name.endswith(".uw"),
            "a_pc": name == "auipc",
        }
        if row.format is not Format.UNARY:
            says["b_immediate"] = row.format is not Format.R
    elif name in _COUNT:
        says |= {
            "unit": Unit.COUNT,
            "operation": CountOperation(_COUNT[name]).value,
            "word": name.endswith("w"),
        }
    elif name in _MULTIPLY or name in _DIVIDE:
        unit = Unit.MULTIPLY if name in _MULTIPLY else Unit.DIVIDE
        says |= {
            "unit": unit,
            "operation": (_MULTIPLY | _DIVIDE)[name],
            "word": name.endswith("w"),
            "b_immediate": 0,
        }
    elif row.format is Format.B:
        says |= {"unit": Unit.BRANCH}
    elif name == "jal":
        says |= {"unit": Unit.JUMP}
    elif name == "jalr":
        says |= {"unit": Unit.JUMP_REGISTER, "b_immediate": 1, "a_pc": 0, "unsigned_word": 0}
    elif row.format in (Format.LOAD, Format.S, Format.AMO, Format.LR):
        operation = {
            Format.LOAD: MemoryOperation.LOAD,
            Format.S: MemoryOperation.STORE,
            Format.LR: MemoryOperation.LOAD_RESERVED,
            Format.AMO: MemoryOperation.STORE_CONDITIONAL
            if name.startswith("sc")
            else MemoryOperation.AMO,
        }[row.format]
        # The ALU adds rs1 and the immediate, which is zero for atomics.
        says |= {
            "unit": Unit.MEMORY,
            "operation": operation.value,
            "unsigned_word": 0,
            "funct5": word >> 27,
            "b_immediate": 1,
            "a_pc": 0,
        }
        if row.format in (Format.AMO, Format.LR):
            says |= {"immediate": 0}
    elif row.extension == "zicsr":
        says |= {"unit": Unit.CSR}
    else:
        says |= {"unit": Unit.SYSTEM, "operation": SystemOperation[_SYSTEM[name]].value}
    for register, lsb in (("rd", 7), ("rs1", 15), ("rs2", 20)):
        says[register] = word >> lsb & 31 if register in _USES[row.format].split() else 0
    if row.format in (Format.SHIFT, Format.SHIFT_W):
        # A shift takes as many bits as the width has; the others are not its own.
        says |= {"immediate mod": IMMEDIATES[row.format].extract(word)}
    elif row.format in (Format.I, Format.LOAD, Format.S, Format.B, Format.U, Format.J):
        says |= {"immediate": IMMEDIATES[row.format].extract(word)}
    return says


def check(row, word, ports):
    says = wanted(row, word)
    if "immediate mod" in says:
        size = 32 if row.format is Format.SHIFT_W else 64
        assert ports["immediate"] % size == says.pop("immediate mod"), row.name
    assert {name: ports[name] for name in says} == says, f"{row.name} {word:#010x}"


def fill(row, noise, width=32):
    """A word of the row whose other bits are ``noise``."""
    return (noise & ~row.mask | row.match) & (1 << width) - 1


words32 = st.integers(0, 2**32 - 1)


@settings(max_examples=4, deadline=None)
@given(st.lists(words32, min_size=3, max_size=3))
def test_every_instruction_is_decoded(noises):
    words = [
        fill(row, noise) for row in INSTRUCTIONS.values() for noise in (0, 0xFFFF_FFFF, *noises)
    ]
    for word, (_, ports) in zip(words, decoded(words), strict=True):
        check(decode(word), word, ports)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(
        words32
        # Words near an instruction: those of a row with one or two bits turned over.
        | st.tuples(
            st.sampled_from(list(INSTRUCTIONS.values())),
            words32,
            st.integers(0, 31),
            st.integers(0, 31),
        ).map(lambda drawn: (fill(drawn[0], drawn[1]) ^ 1 << drawn[2] ^ 1 << drawn[3]) | 3),
        min_size=200,
        max_size=400,
    )
)
def test_random_words_are_what_the_rows_say(words):
    for word, (expanded, ports) in zip(words, decoded(words), strict=True):
        row = decode(word)
        if row is None:
            assert ports["unit"] == Unit.ILLEGAL, hex(word)
            assert (ports["rd"], ports["rs1"], ports["rs2"]) == (0, 0, 0), "nothing is waited for"
        elif row.compressed:
            check(INSTRUCTIONS[row.expansion], expanded, ports)
        else:
            assert expanded == word
            check(row, word, ports)


def test_without_bit_manipulation_its_encodings_are_illegal():
    rows = [row for row in INSTRUCTIONS.values() for _ in range(2)]
    words = [
        fill(row, noise) for row, noise in zip(rows, [0, 0xFFFF_FFFF] * len(rows), strict=False)
    ]
    for row, word, (_, ports) in zip(rows, words, decoded(words, False), strict=True):
        if row.extension in ("zba", "zbb", "zbs"):
            assert ports["unit"] == Unit.ILLEGAL
            assert decode(word, bit_manipulation=False) is None
        else:
            check(decode(word, bit_manipulation=False), word, ports)


def test_system_encodings_with_operands_are_illegal():
    """ecall, ebreak, sret, mret and wfi have no operands: every other bit pattern is reserved."""
    names = ("ecall", "ebreak", "sret", "mret", "wfi")
    words = [INSTRUCTIONS[name].match | 1 << bit for name in names for bit in (7, 11, 15, 19)]
    assert {ports["unit"] for _, ports in decoded(words)} == {Unit.ILLEGAL}


# The compressed formats as the manual draws them: for each row, the assembler text of the
# instruction it stands for, from the bits of the halfword h. "Unprivileged ISA", chapter 27.


def bits(word, high, low):
    return word >> low & (1 << high - low + 1) - 1


def signed(value, width):
    return value - (1 << width) if value >> width - 1 else value


def imm6(h):
    return signed(bits(h, 12, 12) << 5 | bits(h, 6, 2), 6)


def shamt(h):
    return bits(h, 12, 12) << 5 | bits(h, 6, 2)


def offset_w(h):
    return bits(h, 5, 5) << 6 | bits(h, 12, 10) << 3 | bits(h, 6, 6) << 2


def offset_d(h):
    return bits(h, 6, 5) << 6 | bits(h, 12, 10) << 3


def branch(h):
    value = bits(h, 12, 12) << 8 | bits(h, 6, 5) << 6 | bits(h, 2, 2) << 5
    return signed(value | bits(h, 11, 10) << 3 | bits(h, 4, 3) << 1, 9)


def jump(h):
    value = bits(h, 12, 12) << 11 | bits(h, 8, 8) << 10 | bits(h, 10, 9) << 8 | bits(h, 6, 6) << 7
    value |= bits(h, 7, 7) << 6 | bits(h, 2, 2) << 5 | bits(h, 11, 11) << 4 | bits(h, 5, 3) << 1
    return signed(value, 12)


def addi16sp(h):
    value = bits(h, 12, 12) << 9 | bits(h, 4, 3) << 7 | bits(h, 5, 5) << 6
    return signed(value | bits(h, 2, 2) << 5 | bits(h, 6, 6) << 4, 10)


def addi4spn(h):
    return bits(h, 10, 7) << 6 | bits(h, 12, 11) << 4 | bits(h, 5, 5) << 3 | bits(h, 6, 6) << 2


def full(h):
    return bits(h, 11, 7)


def full2(h):
    return bits(h, 6, 2)


def short(h):
    return 8 + bits(h, 9, 7)


def short2(h):
    return 8 + bits(h, 4, 2)


def zero(h):
    return 0


def ra(h):
    return 1


def sp(h):
    return 2


def lwsp(h):
    return bits(h, 3, 2) << 6 | bits(h, 12, 12) << 5 | bits(h, 6, 4) << 2


def ldsp(h):
    return bits(h, 4, 2) << 6 | bits(h, 12, 12) << 5 | bits(h, 6, 5) << 3


def swsp(h):
    return bits(h, 8, 7) << 6 | bits(h, 12, 9) << 2


def sdsp(h):
    return bits(h, 9, 7) << 6 | bits(h, 12, 10) << 3


def lui(h):
    return imm6(h) << 12


# Row: (instruction, rd, rs1, rs2, immediate), None where it has none.
# fmt: off
MANUAL = {
    "c.addi4spn": ("addi", short2, sp, None, addi4spn),
    "c.lw": ("lw", short2, short, None, offset_w),
    "c.ld": ("ld", short2, short, None, offset_d),
    "c.sw": ("sw", None, short, short2, offset_w),
    "c.sd": ("sd", None, short, short2, offset_d),
    "c.addi": ("addi", full, full, None, imm6),
    "c.addiw": ("addiw", full, full, None, imm6),
    "c.li": ("addi", full, zero, None, imm6),
    "c.addi16sp": ("addi", sp, sp, None, addi16sp),
    "c.lui": ("lui", full, None, None, lui),
    "c.srli": ("srli", short, short, None, shamt),
    "c.srai": ("srai", short, short, None, shamt),
    "c.andi": ("andi", short, short, None, imm6),
    "c.sub": ("sub", short, short, short2, None),
    "c.xor": ("xor", short, short, short2, None),
    "c.or": ("or", short, short, short2, None),
    "c.and": ("and", short, short, short2, None),
    "c.subw": ("subw", short, short, short2, None),
    "c.addw": ("addw", short, short, short2, None),
    "c.j": ("jal", zero, None, None, jump),
    "c.beqz": ("beq", None, short, zero, branch),
    "c.bnez": ("bne", None, short, zero, branch),
    "c.slli": ("slli", full, full, None, shamt),
    "c.lwsp": ("lw", full, sp, None, lwsp),
    "c.ldsp": ("ld", full, sp, None, ldsp),
    "c.ebreak": ("ebreak", None, None, None, None),
    "c.jr": ("jalr", zero, full, None, zero),
    "c.jalr": ("jalr", ra, full, None, zero),
    "c.mv": ("add", full, zero, full2, None),
    "c.add": ("add", full, full, full2, None),
    "c.swsp": ("sw", None, sp, full2, swsp),
    "c.sdsp": ("sd", None, sp, full2, sdsp),
}
# fmt: on
#: Reserved encodings: rows whose immediate, or whose register in bits 11:7, must not be zero.
NONZERO = {
    "c.addi4spn": addi4spn,
    "c.addiw": full,
    "c.addi16sp": addi16sp,
    "c.lui": imm6,
    "c.lwsp": full,
    "c.ldsp": full,
    "c.jr": full,
}  # fmt: skip


def check_expansion(halfword, expanded):
    row = decode(halfword)
    if row is None:
        assert expanded == 0, f"{halfword:#06x} is reserved"
        return
    name, *registers, immediate = MANUAL[row.name]
    target = INSTRUCTIONS[name]
    assert expanded & target.mask == target.match, f"{halfword:#06x}: not {name}"
    for register, lsb in zip(registers, (7, 15, 20), strict=True):
        if register is not None:
            assert expanded >> lsb & 31 == register(halfword), f"{halfword:#06x} {row.name}"
    if immediate is not None:
        value = IMMEDIATES[target.format].extract(expanded)
        assert value == immediate(halfword), f"{halfword:#06x} {row.name}"


def test_the_manual_knows_the_same_rows():
    assert set(MANUAL) == set(COMPRESSED)
    assert set(NONZERO) == set(COMPRESSED_NONZERO)
    for halfword in range(1 << 16):
        if halfword & 3 == 3:
            continue
        matching = [r for r in COMPRESSED.values() if halfword & r.mask == r.match]
        row = decode(halfword)
        if not matching:
            assert row is None
        else:
            rule = NONZERO.get(matching[0].name)
            assert (row is None) == (rule is not None and rule(halfword) == 0), hex(halfword)


@pytest.mark.parametrize("quadrant", [0, 1, 2])
def test_compressed_instructions_are_expanded(quadrant):
    """All of them."""
    halfwords = [upper << 2 | quadrant for upper in range(1 << 14)]
    results = decoded(halfwords)
    for halfword, (expanded, ports) in zip(halfwords, results, strict=True):
        check_expansion(halfword, expanded)
        assert (ports["unit"] == Unit.ILLEGAL) == (decode(halfword) is None)
