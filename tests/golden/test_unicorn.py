"""User-level instructions, one at a time, against unicorn."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rtl.arch.instructions import BIT_MANIPULATION, COMPRESSED, INSTRUCTIONS, RD, RS1, decode
from rtl.arch.memory_map import MEMORY_MAP
from sim.golden import Hart
from sim.golden.decode import decoded

unicorn = pytest.importorskip("unicorn", reason="the package unicorn is not installed")
from unicorn import riscv_const  # noqa: E402 - only where unicorn is

RAM = MEMORY_MAP["ram"].base
SIZE = 4 << 20
#: In the middle, so that jumps of 1 MiB stay inside; data lies apart from code.
CODE, DATA = RAM + (2 << 20), RAM + 0x1000
WORD = (1 << 64) - 1
#: Loads, stores and atomics, uncompressed.
ACCESSES = {
    name
    for name, row in INSTRUCTIONS.items()
    if row.match & 0x7F in (INSTRUCTIONS[of].match & 0x7F for of in ("ld", "sd", "amoadd.d"))
}
#: What unicorn has no user level for, and what it does not know (see test_qemu).
PRIVILEGED = {"zicsr", "s", "m-mode", "zifencei", *BIT_MANIPULATION}
NAMES = sorted(
    name
    for name, row in {**INSTRUCTIONS, **COMPRESSED}.items()
    if row.extension not in PRIVILEGED and (row.expansion or name) not in ("ecall", "ebreak")
)

values = st.one_of(
    st.integers(0, WORD),
    st.sampled_from(
        [0, 1, WORD, 1 << 63, (1 << 63) - 1, 1 << 31, (1 << 31) - 1, WORD << 31 & WORD]
    ),
    st.integers(0, 64),
)


@pytest.fixture(scope="module")
def emulator():
    machine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64)
    machine.mem_map(RAM, SIZE)
    return machine


class Nothing:
    """A platform on which nothing lies outside RAM."""

    def read(self, hpa, size):
        return None

    def write(self, hpa, size, value):
        return False


@pytest.fixture(scope="module")
def hart():
    hart = Hart(SIZE, Nothing())
    return hart


def execute(emulator, hart, words, registers, data):
    """Both execute ``words`` from the same state; returns what differs."""
    code = b"".join(bits.to_bytes(4 if bits & 3 == 3 else 2, "little") for bits in words)
    x = [riscv_const.UC_RISCV_REG_X0 + number for number in range(32)]
    emulator.mem_write(CODE, code + bytes(8))
    emulator.mem_write(DATA, data)
    for number in range(1, 32):
        emulator.reg_write(x[number], registers[number])
    emulator.ctl_remove_cache(CODE, CODE + len(code) + 8)
    emulator.emu_start(CODE, RAM + SIZE, count=len(words))

    hart.memory.write_physical(CODE, code + bytes(8))
    hart.memory.write_physical(DATA, data)
    hart.pc = CODE
    hart.x[:32] = registers
    for _ in words:
        hart.step()
        assert hart.trapped is None, hart.trapped
    theirs = [emulator.reg_read(number) for number in x]
    differs = {
        f"x{number}": (hex(hart.x[number]), hex(theirs[number]))
        for number in range(32)
        if hart.x[number] != theirs[number]
    }
    pc = emulator.reg_read(riscv_const.UC_RISCV_REG_PC)
    if hart.pc != pc:
        differs["pc"] = hex(hart.pc), hex(pc)
    memory = bytes(emulator.mem_read(DATA, len(data)))
    if hart.memory.ram[DATA - RAM :][: len(data)] != memory:
        differs["memory"] = hart.memory.ram[DATA - RAM :][: len(data)].hex(), memory.hex()
    return differs


def word_of(drawn, name):
    """Any encoding of the instruction."""
    row = INSTRUCTIONS.get(name) or COMPRESSED[name]
    width = 16 if row.compressed else 32
    bits = drawn.draw(st.integers(0, (1 << width) - 1)) & ~row.mask | row.match
    assume(decode(bits) is row)
    return bits


def place_operands(drawn, bits, registers):
    """Addresses inside DATA for accesses, near CODE for jumps."""
    i = decoded(bits)
    if i.name in ACCESSES:
        assume(i.rs1 != 0)
        alignment = 8 if INSTRUCTIONS[i.name].extension == "a" else 1
        where = DATA + drawn.draw(st.integers(0, 48 // alignment)) * alignment
        registers[i.rs1] = where - i.immediate & WORD
    elif i.name == "jalr":
        assume(i.rs1 != 0)
        registers[i.rs1] = CODE + drawn.draw(st.integers(-4096, 4096)) * 2 - i.immediate & WORD


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=10)
@given(drawn=st.data())
def test_instruction(emulator, hart, name, drawn):
    bits = word_of(drawn, name)
    registers = [0, *drawn.draw(st.lists(values, min_size=31, max_size=31))]
    place_operands(drawn, bits, registers)
    data = drawn.draw(st.binary(min_size=64, max_size=64))
    assert execute(emulator, hart, [bits], registers, data) == {}


def encoded(name, rd, rs1, rs2=0):
    return INSTRUCTIONS[name].match | rd << RD[0] | rs1 << RS1[0] | rs2 << 20


@settings(deadline=None, max_examples=40)
@given(
    registers=st.lists(values, min_size=32, max_size=32),
    load=st.integers(0, 7),
    sizes=st.sampled_from(["ww", "dd"]),
    data=st.binary(min_size=64, max_size=64),
)
def test_reserved_pair(emulator, hart, registers, load, sizes, data):
    """To the same place; elsewhere implementations differ in what a reservation covers."""
    first, second = (f"{op}.{size}" for op, size in zip(("lr", "sc"), sizes, strict=True))
    registers[0], registers[10] = 0, DATA + 8 * load
    words = [encoded(first, 11, 10), encoded(second, 12, 10, 13), encoded(second, 14, 10, 15)]
    assert execute(emulator, hart, words, registers, data) == {}
    assert hart.x[12] == 0 and hart.x[14] == 1


def test_a_wrong_model_is_noticed(emulator, hart, monkeypatch):
    wrong = decoded(encoded("mulhu", 5, 6, 7))
    monkeypatch.setattr(wrong, "execute", decoded(encoded("mulhsu", 5, 6, 7)).execute)
    registers = [0] * 6 + [WORD, WORD] + [0] * 24
    assert set(execute(emulator, hart, [wrong.bits], registers, bytes(64))) == {"x5"}
