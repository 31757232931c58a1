"""User-level instructions of the interpreter against two judges: unicorn and ``soft_hart``."""

import pytest
import unicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from unicorn import riscv_const as uc

from rtl.arch.instructions import (
    BIT_MANIPULATION,
    COMPRESSED,
    COMPRESSED_NONZERO,
    INSTRUCTIONS,
    Format,
    decode,
)
from sw_vmm.bus import Bus
from sw_vmm.hart import Hart
from sw_vmm.interpreter import Interpreter
from sw_vmm.memory import LocalMemory
from tests.sw_vmm.soft_hart import Fault, SoftHart, expand

RAM = 0x8000_0000
SIZE = 1 << 14
DATA = RAM + 0x2000
ALL = (1 << 64) - 1
SYSTEM = {"ecall", "ebreak", "mret", "sret", "wfi", "sfence.vma"}
CORNERS = [0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 63, (1 << 63) - 1, ALL, ALL - 1]
VALUES = st.one_of(st.sampled_from(CORNERS), st.integers(0, ALL))
#: Where registers may point: into the data, near its end, misaligned.
ADDRESSES = st.integers(DATA - 64, DATA + 64)


class NoPlatform:
    def mtime(self, now):
        return 0

    def cycle_of(self, tick, now):
        return None

    def lines(self, now):
        return 0

    def next_event(self, now, interest):
        return None


def interpreter(registers, code, data):
    memory = LocalMemory(RAM, SIZE, [(RAM, code), (DATA - 256, data)])
    core = Interpreter(Hart(NoPlatform()), memory, Bus())
    core.registers[:32] = registers
    core.pc = RAM
    return core, memory


def soft(registers, code, data):
    ram = bytearray(SIZE)
    ram[: len(code)] = code
    ram[DATA - 256 - RAM : DATA - 256 - RAM + len(data)] = data

    def check(address, size, cause):
        if not RAM <= address <= RAM + SIZE - size:
            raise Fault(cause, address)
        return address - RAM

    def read(address, size, atomic=False):
        at = check(address, size, 5)
        return int.from_bytes(ram[at : at + size], "little")

    def write(address, size, value, atomic=False):
        at = check(address, size, 7)
        if value is not None:
            ram[at : at + size] = value.to_bytes(size, "little")

    hart = SoftHart(read, write, lambda address: read(address, 2))
    hart.x = list(registers)
    hart.pc = RAM
    return hart, ram


@st.composite
def words(draw):
    """An instruction word that is not a system instruction, with arbitrary operands."""
    if draw(st.booleans()):
        row = draw(st.sampled_from([row for row in COMPRESSED.values()]))
        word = row.match | draw(st.integers(0, 0xFFFF)) & ~row.mask
    else:
        rows = [
            row
            for row in INSTRUCTIONS.values()
            if row.name not in SYSTEM and row.format not in (Format.CSR, Format.CSR_IMMEDIATE)
        ]
        row = draw(st.sampled_from(rows))
        word = row.match | draw(st.integers(0, (1 << 32) - 1)) & ~row.mask
    return word


def encoded(word):
    return word.to_bytes(4 if word & 3 == 3 else 2, "little")


@settings(max_examples=500, deadline=None)
@given(
    words(),
    st.lists(st.one_of(VALUES, ADDRESSES, ADDRESSES), min_size=31, max_size=31),
    st.binary(min_size=512, max_size=512),
)
def test_one_instruction_agrees_with_an_independent_hart(word, values, data):
    registers = [0, *values]
    core, memory = interpreter(registers, encoded(word), data)
    hart, ram = soft(registers, encoded(word), data)
    trap = core.step()
    try:
        hart.step()
    except Fault as fault:
        assert trap is not None, f"{word:#x} should raise {fault.cause}"
        assert (int(trap.cause), trap.tval) == (fault.cause, fault.value) or fault.cause == 3
    else:
        assert trap is None, f"{word:#x} raised {trap!r}"
        assert core.pc == hart.pc
    assert core.registers[:32] == hart.x
    assert memory.read_bytes(RAM, SIZE) == ram


@pytest.mark.parametrize(
    "row",
    [
        row
        for row in INSTRUCTIONS.values()
        if row.format in (Format.R, Format.UNARY, Format.AMO, Format.B)
    ],
    ids=lambda row: row.name,
)
def test_corner_values_agree_for_every_operation(row):
    """Every pair of corner values; atomics find the first of them in memory."""
    code = encoded(row.match | (7 << 7 | 5 << 15 | 6 << 20) & ~row.mask)
    for a in CORNERS:
        for b in CORNERS:
            registers = [0] * 32
            registers[5], registers[6] = (DATA if row.format is Format.AMO else a), b
            data = bytes(256) + a.to_bytes(8, "little")
            core, memory = interpreter(registers, code, data)
            hart, ram = soft(registers, code, data)
            assert core.step() is None
            hart.step()
            assert (core.registers[:32], core.pc) == (hart.x, hart.pc)
            assert memory.read_bytes(DATA, 8) == ram[DATA - RAM : DATA - RAM + 8]


def test_a_compressed_word_stands_for_the_same_operands_in_two_decoders():
    """All 49152 compressed words: the independent expansion decodes to the same operation."""
    from sw_vmm.interpreter import decode as decode_operands

    for word in range(1 << 16):
        if word & 3 == 3:
            continue
        ours, full = decode_operands(word), expand(word)
        assert (ours is None) == (full is None), f"{word:#06x}"
        if ours is None:
            continue
        theirs = decode_operands(full)
        assert theirs is not None, f"{word:#06x} expands to {full:#x}"
        assert ours[:5] == theirs[:5], f"{word:#06x}"
        assert ours.length == 2


def test_reserved_compressed_words_are_illegal():
    for name, needed in COMPRESSED_NONZERO.items():
        word = COMPRESSED[name].match & ~needed
        if decode(word) is None:
            core, _ = interpreter([0] * 32, encoded(word), b"")
            assert core.step().cause == 2


def _unicorn(registers, code, data):
    machine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
    machine.mem_map(RAM, SIZE)
    machine.mem_write(RAM, code)
    machine.mem_write(DATA - 256, data)
    for number in range(1, 32):
        machine.reg_write(uc.UC_RISCV_REG_X0 + number, registers[number])
    return machine


#: Operations of programs without branches and with loads and stores that stay in the data.
_STRAIGHT = [
    row
    for row in INSTRUCTIONS.values()
    if row.format in (Format.R, Format.I, Format.SHIFT, Format.SHIFT_W, Format.U)
    and row.name != "jalr"
    and row.extension not in BIT_MANIPULATION  # unicorn does not know them
]
_MEMORY = [row for row in INSTRUCTIONS.values() if row.format in (Format.LOAD, Format.S)]
_POINTER = 31


@st.composite
def programs(draw):
    result = []
    for _ in range(draw(st.integers(1, 60))):
        bits = draw(st.integers(0, (1 << 32) - 1))
        if draw(st.integers(0, 3)):
            row = draw(st.sampled_from(_STRAIGHT))
            word = row.match | bits & ~row.mask
            if word >> 7 & 31 == _POINTER:
                word ^= 1 << 7
        else:
            row = draw(st.sampled_from(_MEMORY))
            # Offsets of less than 256 either way, from the pointer.
            word = row.match | bits & ~row.mask & 0x00FF_FFFF & ~(31 << 15) | _POINTER << 15
            if row.format is Format.LOAD and word >> 7 & 31 == _POINTER:
                word ^= 1 << 7
            if row.format is Format.S:
                word &= ~0xFE00_0000
            else:
                word &= ~(0xF << 28)
        result.append(word)
    return b"".join(word.to_bytes(4, "little") for word in result)


@settings(max_examples=80, deadline=None)
@given(
    programs(), st.lists(VALUES, min_size=31, max_size=31), st.binary(min_size=512, max_size=512)
)
def test_programs_agree_with_unicorn(code, values, data):
    registers = [0, *values]
    registers[_POINTER] = DATA
    core, memory = interpreter(registers, code, data)
    count = len(code) // 4
    core.hart.mstatus = 0
    core.run(count)
    judge = _unicorn(registers, code, data)
    judge.emu_start(RAM, RAM + len(code), count=count)
    assert core.instret == count
    assert core.registers[1:32] == [
        judge.reg_read(uc.UC_RISCV_REG_X0 + number) for number in range(1, 32)
    ]
    assert memory.read_bytes(RAM, SIZE) == bytes(judge.mem_read(RAM, SIZE))


def test_a_loop_runs_through_translated_blocks():
    """Sum of 1 to 1000 by a backward branch, which a block ends at."""
    from sw_vmm.assembler import Assembler

    code = Assembler(RAM)
    code.add("addi", rd=5, rs1=0, imm=1000)
    code.label("loop")
    code.add("add", rd=6, rs1=6, rs2=5)
    code.add("addi", rd=5, rs1=5, imm=-1)
    code.add("bne", rs1=5, rs2=0, to="loop")
    core, _ = interpreter([0] * 32, code.assemble(), b"")
    core.run(1 + 3 * 1000)
    assert core.registers[6] == 500500
    assert core.instret == 3001
    assert core.pc == RAM + 16


@pytest.mark.parametrize(
    "row",
    [row for row in INSTRUCTIONS.values() if row.name not in SYSTEM and row.extension != "zicsr"],
    ids=lambda row: row.name,
)
def test_without_bit_manipulation_just_its_encodings_are_illegal(row):
    memory = LocalMemory(RAM, SIZE, [(RAM, encoded(row.match))])
    core = Interpreter(Hart(NoPlatform()), memory, Bus(), bit_manipulation=False)
    core.pc = RAM
    trap = core.step()
    illegal = trap is not None and (trap.cause, trap.tval) == (2, row.match)
    assert illegal == (row.extension in ("zba", "zbb", "zbs"))


def test_time_does_not_stand_still():
    with pytest.raises(ValueError, match="at least one cycle"):
        Interpreter(Hart(NoPlatform()), LocalMemory(RAM, SIZE), Bus(), cycles_per_instruction=0)
