"""Integer computation and control transfer (RV64I, M, Zba, Zbb, Zbs).

Registers hold numbers from 0 to 2**64 - 1; ``hart.next`` is where control goes on.
"""

__all__ = ["EXECUTE"]

_WORD = (1 << 64) - 1
_SIGN = 1 << 63


def _signed(value):
    return (value ^ _SIGN) - _SIGN


def _extended(value):
    """The low 32 bits, sign-extended."""
    return ((value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000) & _WORD


def _signed32(value):
    return (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000


def _divide(a, b):
    """Quotient and remainder, rounded towards zero; by zero: -1 and the dividend."""
    if b == 0:
        return -1, a
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    return quotient, a - quotient * b


def _rotated_right(value, count, width):
    """The low ``width`` bits of the value, rotated."""
    count %= width
    value &= (1 << width) - 1
    return (value >> count | value << width - count) & (1 << width) - 1


def _trailing_zeros(value, width):
    """Zeros below the lowest one of ``width`` bits."""
    value |= 1 << width
    return (value & -value).bit_length() - 1


# fmt: off
_COMPUTE = {
    "add": lambda a, b: a + b & _WORD,
    "sub": lambda a, b: a - b & _WORD,
    "sll": lambda a, b: a << (b & 63) & _WORD,
    "slt": lambda a, b: int((a ^ _SIGN) < (b ^ _SIGN)),
    "sltu": lambda a, b: int(a < b),
    "xor": lambda a, b: a ^ b,
    "srl": lambda a, b: a >> (b & 63),
    "sra": lambda a, b: _signed(a) >> (b & 63) & _WORD,
    "or": lambda a, b: a | b,
    "and": lambda a, b: a & b,
    "addw": lambda a, b: _extended(a + b),
    "subw": lambda a, b: _extended(a - b),
    "sllw": lambda a, b: _extended(a << (b & 31)),
    "srlw": lambda a, b: _extended((a & 0xFFFF_FFFF) >> (b & 31)),
    "sraw": lambda a, b: _extended(_signed32(a) >> (b & 31)),
    "mul": lambda a, b: a * b & _WORD,
    "mulh": lambda a, b: _signed(a) * _signed(b) >> 64 & _WORD,
    "mulhsu": lambda a, b: _signed(a) * b >> 64 & _WORD,
    "mulhu": lambda a, b: a * b >> 64,
    "div": lambda a, b: _divide(_signed(a), _signed(b))[0] & _WORD,
    "divu": lambda a, b: _divide(a, b)[0] & _WORD,
    "rem": lambda a, b: _divide(_signed(a), _signed(b))[1] & _WORD,
    "remu": lambda a, b: _divide(a, b)[1] & _WORD,
    "mulw": lambda a, b: _extended(a * b),
    "divw": lambda a, b: _extended(_divide(_signed32(a), _signed32(b))[0]),
    "divuw": lambda a, b: _extended(_divide(a & 0xFFFF_FFFF, b & 0xFFFF_FFFF)[0]),
    "remw": lambda a, b: _extended(_divide(_signed32(a), _signed32(b))[1]),
    "remuw": lambda a, b: _extended(_divide(a & 0xFFFF_FFFF, b & 0xFFFF_FFFF)[1]),
    "add.uw": lambda a, b: (a & 0xFFFF_FFFF) + b & _WORD,
    "sh1add": lambda a, b: 2 * a + b & _WORD,
    "sh2add": lambda a, b: 4 * a + b & _WORD,
    "sh3add": lambda a, b: 8 * a + b & _WORD,
    "sh1add.uw": lambda a, b: 2 * (a & 0xFFFF_FFFF) + b & _WORD,
    "sh2add.uw": lambda a, b: 4 * (a & 0xFFFF_FFFF) + b & _WORD,
    "sh3add.uw": lambda a, b: 8 * (a & 0xFFFF_FFFF) + b & _WORD,
    "sll.uw": lambda a, b: (a & 0xFFFF_FFFF) << (b & 63) & _WORD,
    "andn": lambda a, b: a & ~b,
    "orn": lambda a, b: a | b ^ _WORD,
    "xnor": lambda a, b: a ^ b ^ _WORD,
    "min": lambda a, b: min(_signed(a), _signed(b)) & _WORD,
    "minu": min,
    "max": lambda a, b: max(_signed(a), _signed(b)) & _WORD,
    "maxu": max,
    "rol": lambda a, b: _rotated_right(a, -b, 64),
    "ror": lambda a, b: _rotated_right(a, b, 64),
    "rolw": lambda a, b: _extended(_rotated_right(a, -b, 32)),
    "rorw": lambda a, b: _extended(_rotated_right(a, b, 32)),
    "bclr": lambda a, b: a & ~(1 << (b & 63)),
    "bext": lambda a, b: a >> (b & 63) & 1,
    "binv": lambda a, b: a ^ 1 << (b & 63),
    "bset": lambda a, b: a | 1 << (b & 63),
}
_UNARY = {
    "clz": lambda a: 64 - a.bit_length(),
    "clzw": lambda a: 32 - (a & 0xFFFF_FFFF).bit_length(),
    "ctz": lambda a: _trailing_zeros(a, 64),
    "ctzw": lambda a: _trailing_zeros(a, 32),
    "cpop": lambda a: a.bit_count(),
    "cpopw": lambda a: (a & 0xFFFF_FFFF).bit_count(),
    "sext.b": lambda a: ((a & 0xFF ^ 0x80) - 0x80) & _WORD,
    "sext.h": lambda a: ((a & 0xFFFF ^ 0x8000) - 0x8000) & _WORD,
    "zext.h": lambda a: a & 0xFFFF,
    "orc.b": lambda a: int.from_bytes(0xFF * bool(byte) for byte in a.to_bytes(8, "big")),
    "rev8": lambda a: int.from_bytes(a.to_bytes(8, "big"), "little"),
}
_WITH_IMMEDIATE = {
    "addi": "add", "slti": "slt", "sltiu": "sltu", "xori": "xor", "ori": "or", "andi": "and",
    "slli": "sll", "srli": "srl", "srai": "sra",
    "addiw": "addw", "slliw": "sllw", "srliw": "srlw", "sraiw": "sraw",
    "slli.uw": "sll.uw", "rori": "ror", "roriw": "rorw",
    "bclri": "bclr", "bexti": "bext", "binvi": "binv", "bseti": "bset",
}
_CONDITION = {
    "beq": lambda a, b: a == b,
    "bne": lambda a, b: a != b,
    "blt": lambda a, b: (a ^ _SIGN) < (b ^ _SIGN),
    "bge": lambda a, b: (a ^ _SIGN) >= (b ^ _SIGN),
    "bltu": lambda a, b: a < b,
    "bgeu": lambda a, b: a >= b,
}
# fmt: on


def _registers(compute):
    def execute(hart, i):
        x = hart.x
        x[i.rd] = compute(x[i.rs1], x[i.rs2])

    return execute


def _immediate(compute):
    def execute(hart, i):
        x = hart.x
        x[i.rd] = compute(x[i.rs1], i.immediate)

    return execute


def _unary(compute):
    def execute(hart, i):
        x = hart.x
        x[i.rd] = compute(x[i.rs1])

    return execute


def _branch(condition):
    def execute(hart, i):
        x = hart.x
        if condition(x[i.rs1], x[i.rs2]):
            hart.next = hart.pc + i.immediate & _WORD

    return execute


def _lui(hart, i):
    hart.x[i.rd] = i.immediate


def _auipc(hart, i):
    hart.x[i.rd] = hart.pc + i.immediate & _WORD


def _jal(hart, i):
    hart.x[i.rd] = hart.next
    hart.next = hart.pc + i.immediate & _WORD


def _jalr(hart, i):
    target = hart.x[i.rs1] + i.immediate & _WORD & ~1
    hart.x[i.rd] = hart.next
    hart.next = target


#: Semantics by name.
EXECUTE = {
    **{name: _registers(compute) for name, compute in _COMPUTE.items()},
    **{name: _unary(compute) for name, compute in _UNARY.items()},
    **{name: _immediate(_COMPUTE[of]) for name, of in _WITH_IMMEDIATE.items()},
    **{name: _branch(condition) for name, condition in _CONDITION.items()},
    "lui": _lui,
    "auipc": _auipc,
    "jal": _jal,
    "jalr": _jalr,
}
