"""RAM is one view: the host port writes and reads words that a program uses, step by step."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtl.arch.records import ParkKind
from rtl.arch.traps import Privilege
from tests.machine.board import ALL, RAM, RAM_SIZE
from tests.machine.words import encode

CODE = RAM
#: Lines that fight for one set of the cache, and lines that do not: 16 KiB in 4 ways.
LINES = [RAM + RAM_SIZE // 2 + 4096 * n for n in range(6)] + [
    RAM + 0x4_0000 + 64 * n for n in (1, 2)
]
BASES = range(1, 1 + len(LINES))
FIRST = 1 + len(LINES)

examples = settings(
    deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sext(value, bits):
    return (value & (1 << bits) - 1 ^ 1 << bits - 1) - (1 << bits - 1)


ATOMICS = {
    "amoswap": lambda a, b, bits: b,
    "amoadd": lambda a, b, bits: a + b,
    "amoxor": lambda a, b, bits: a ^ b,
    "amoand": lambda a, b, bits: a & b,
    "amoor": lambda a, b, bits: a | b,
    "amomin": lambda a, b, bits: min(a, b, key=lambda v: sext(v, bits)),
    "amomax": lambda a, b, bits: max(a, b, key=lambda v: sext(v, bits)),
    "amominu": lambda a, b, bits: min(a, b, key=lambda v: v % 2**bits),
    "amomaxu": lambda a, b, bits: max(a, b, key=lambda v: v % 2**bits),
}
LOADS = {"lb": 1, "lbu": 1, "lh": 2, "lhu": 2, "lw": 4, "lwu": 4, "ld": 8}
STORES = {"sb": 1, "sh": 2, "sw": 4, "sd": 8}


class Model:
    """The lines and the registers, as plain Python values."""

    def __init__(self):
        self.memory = {line: bytearray(64) for line in LINES}
        self.registers = [
            0,
            *LINES,
            *(number * 0x0101_0101_0101_0101 for number in range(FIRST, 32)),
        ]

    def read(self, line, offset, size, *, signed=False):
        data = self.memory[line][offset : offset + size]
        return int.from_bytes(data, "little", signed=signed)

    def write(self, line, offset, size, value):
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self.memory[line][offset : offset + size] = data

    def instruction(self, source):
        """A random access, carried out here; its word."""
        base = source.choice(BASES)
        line = LINES[base - 1]
        rd, rs2 = source.randrange(FIRST, 32), source.randrange(FIRST, 32)
        kind = source.randrange(3)
        if kind == 0:
            name = source.choice(list(LOADS))
            size = LOADS[name]
            offset = source.randrange(64 - size + 1)
            value = self.read(line, offset, size, signed=not name.endswith("u"))
            self.registers[rd] = value & ALL
            return [encode(name, rd=rd, rs1=base, imm=offset)]
        if kind == 1:
            name = source.choice(list(STORES))
            offset = source.randrange(64 - STORES[name] + 1)
            self.write(line, offset, STORES[name], self.registers[rs2])
            return [encode(name, rs1=base, rs2=rs2, imm=offset)]
        name, (suffix, size) = source.choice(list(ATOMICS)), source.choice([(".w", 4), (".d", 8)])
        old = self.read(line, 0, size)
        self.write(line, 0, size, ATOMICS[name](old, self.registers[rs2], 8 * size))
        self.registers[rd] = sext(old, 8 * size) & ALL
        return [encode(name + suffix, rd=rd, rs1=base, rs2=rs2)]

    def host(self, source, machine):
        """Some accesses of the host, checked."""
        for _ in range(source.randrange(3)):
            line, offset = source.choice(LINES), source.randrange(64)
            length = source.randrange(1, 64 - offset + 1)
            if source.random() < 0.5:
                data = source.randbytes(length)
                self.memory[line][offset : offset + length] = data
                machine.write_memory(line + offset, data)
            else:
                data = machine.read_memory(line + offset, length)
                assert data == self.memory[line][offset : offset + length]
        if source.random() < 0.05:
            machine.clean()


@examples
@given(seed=st.integers(0, 2**32 - 1))
def test_host_and_hart_see_one_memory(board, seed):
    source = random.Random(seed)
    board.reset()
    model = Model()
    for line in LINES:
        data = source.randbytes(64)
        model.memory[line][:] = data
        board.machine.write_memory(line, data)
    for number, value in enumerate(model.registers):
        board.machine.write_gpr(number, value)
    board.machine.write_privilege(Privilege.MACHINE)
    pc = CODE
    for _ in range(150):
        # The next instruction is written behind the hart's back, too.
        board.put(pc, *model.instruction(source))
        record = board.step(pc=pc)
        pc += 4
        assert (record.kind, record.pc) == (ParkKind.STOP, pc)
        model.host(source, board.machine)
    assert [board.machine.read_gpr(n) for n in range(32)] == model.registers
    for cleaned in (False, True):
        for line in LINES:
            assert board.machine.read_memory(line, 64) == model.memory[line], cleaned
        board.machine.clean()
