"""Integer computation, multiplication and control transfer (RV64I, M).

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
}
_WITH_IMMEDIATE = {
    "addi": "add", "slti": "slt", "sltiu": "sltu", "xori": "xor", "ori": "or", "andi": "and",
    "slli": "sll", "srli": "srl", "srai": "sra",
    "addiw": "addw", "slliw": "sllw", "srliw": "srlw", "sraiw": "sraw",
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
    **{name: _immediate(_COMPUTE[of]) for name, of in _WITH_IMMEDIATE.items()},
    **{name: _branch(condition) for name, condition in _CONDITION.items()},
    "lui": _lui,
    "auipc": _auipc,
    "jal": _jal,
    "jalr": _jalr,
}
