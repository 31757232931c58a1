"""What instructions compute, and the functions that execute them.

Every instruction becomes one Python function without arguments, made once with its operands bound.
The sources of these functions are built from one expression per operation, so that nothing is
looked up while the guest runs. Results of x0 go to the scratch register ``SCRATCH``.
"""

from collections.abc import Callable

__all__ = ["ATOMIC", "BRANCHES", "COMPUTE", "LOADS", "SCRATCH", "STORES", "maker"]

#: Index in the register list that takes results nobody wants.
SCRATCH = 32

_ALL = (1 << 64) - 1
_WORD = (1 << 32) - 1
_SIGN = 1 << 63
_SIGN_WORD = 1 << 31


def _signed(value: int) -> int:
    return (value ^ _SIGN) - _SIGN


def _signed_word(value: int) -> int:
    return (value & _WORD ^ _SIGN_WORD) - _SIGN_WORD


def _quotient(a: int, b: int) -> int:
    """a / b rounded towards zero; division by zero gives -1."""
    if b == 0:
        return -1
    quotient = abs(a) // abs(b)
    return -quotient if (a < 0) != (b < 0) else quotient


def _rotated(value: int, left: int, bits: int) -> int:
    """The low bits of the value, rotated to the left."""
    value &= (1 << bits) - 1
    left %= bits
    return (value << left | value >> bits - left) & (1 << bits) - 1


def _leading_zeros(value: int, bits: int) -> int:
    count = 0
    while count < bits and not value >> bits - 1 - count & 1:
        count += 1
    return count


def _trailing_zeros(value: int, bits: int) -> int:
    count = 0
    while count < bits and not value >> count & 1:
        count += 1
    return count


def _or_combine(value: int) -> int:
    """Every byte that has a one becomes 0xFF."""
    return sum(0xFF << at for at in range(0, 64, 8) if value >> at & 0xFF)


def _byte_reverse(value: int) -> int:
    return sum((value >> at & 0xFF) << 56 - at for at in range(0, 64, 8))


def _remainder(a: int, b: int) -> int:
    return a if b == 0 else a - b * _quotient(a, b)


_NAMES = {
    "M": _ALL,
    "W": _WORD,
    "H": _SIGN,
    "h": _SIGN_WORD,
    "s": _signed,
    "sw": _signed_word,
    "quotient": _quotient,
    "remainder": _remainder,
    "rotated": _rotated,
    "leading": _leading_zeros,
    "trailing": _trailing_zeros,
    "or_combine": _or_combine,
    "byte_reverse": _byte_reverse,
}


def _word_result(expression: str) -> str:
    """The expression's low 32 bits, sign-extended."""
    return f"(({expression}) & W ^ h) - h & M"


#: Integer operations as expressions of a (rs1) and b (rs2 or the immediate; 0 for those that have
#: neither), 0 <= a, b < 2**64.
COMPUTE = {
    "add": "a + b & M",
    "sub": "a - b & M",
    "sll": "a << (b & 63) & M",
    "slt": "1 if a ^ H < b ^ H else 0",
    "sltu": "1 if a < b else 0",
    "xor": "a ^ b",
    "srl": "a >> (b & 63)",
    "sra": "s(a) >> (b & 63) & M",
    "or": "a | b",
    "and": "a & b",
    "addw": _word_result("a + b"),
    "subw": _word_result("a - b"),
    "sllw": _word_result("a << (b & 31)"),
    "srlw": _word_result("(a & W) >> (b & 31)"),
    "sraw": "sw(a) >> (b & 31) & M",
    "mul": "a * b & M",
    "mulh": "s(a) * s(b) >> 64 & M",
    "mulhsu": "s(a) * b >> 64 & M",
    "mulhu": "a * b >> 64",
    "div": "quotient(s(a), s(b)) & M",
    "divu": "a // b if b else M",
    "rem": "remainder(s(a), s(b)) & M",
    "remu": "a % b if b else a",
    "mulw": _word_result("a * b"),
    "divw": _word_result("quotient(sw(a), sw(b))"),
    "divuw": _word_result("(a & W) // (b & W) if b & W else W"),
    "remw": "remainder(sw(a), sw(b)) & M",
    "remuw": _word_result("(a & W) % (b & W) if b & W else a"),
    "add.uw": "(a & W) + b & M",
    "sll.uw": "(a & W) << (b & 63) & M",
    **{f"sh{by}add": f"(a << {by}) + b & M" for by in (1, 2, 3)},
    **{f"sh{by}add.uw": f"((a & W) << {by}) + b & M" for by in (1, 2, 3)},
    "andn": "a & (b ^ M)",
    "orn": "a | (b ^ M)",
    "xnor": "a ^ b ^ M",
    "min": "a if a ^ H < b ^ H else b",
    "minu": "a if a < b else b",
    "max": "b if a ^ H < b ^ H else a",
    "maxu": "b if a < b else a",
    "rol": "rotated(a, b & 63, 64)",
    "ror": "rotated(a, 64 - (b & 63), 64)",
    "rolw": _word_result("rotated(a, b & 31, 32)"),
    "rorw": _word_result("rotated(a, 32 - (b & 31), 32)"),
    "bclr": "a & (M ^ 1 << (b & 63))",
    "bext": "a >> (b & 63) & 1",
    "binv": "a ^ (1 << (b & 63))",
    "bset": "a | (1 << (b & 63))",
    "clz": "leading(a, 64)",
    "clzw": "leading(a, 32)",
    "ctz": "trailing(a, 64)",
    "ctzw": "trailing(a, 32)",
    "cpop": "a.bit_count()",
    "cpopw": "(a & W).bit_count()",
    "sext.b": "(a & 0xFF ^ 0x80) - 0x80 & M",
    "sext.h": "(a & 0xFFFF ^ 0x8000) - 0x8000 & M",
    "zext.h": "a & 0xFFFF",
    "orc.b": "or_combine(a)",
    "rev8": "byte_reverse(a)",
}

#: Conditions of branches.
BRANCHES = {
    "beq": "a == b",
    "bne": "a != b",
    "blt": "a ^ H < b ^ H",
    "bge": "a ^ H >= b ^ H",
    "bltu": "a < b",
    "bgeu": "a >= b",
}

#: Loads and stores by size in bytes and signedness.
LOADS = {
    "lb": (1, True),
    "lh": (2, True),
    "lw": (4, True),
    "ld": (8, False),
    "lbu": (1, False),
    "lhu": (2, False),
    "lwu": (4, False),
}
STORES = {"sb": 1, "sh": 2, "sw": 4, "sd": 8}

#: New memory contents of an AMO from a (memory) and b (rs2), without the width's suffix; the
#: arguments are unsigned words of ``size`` bytes, and only the low bytes of the result count.
ATOMIC: dict[str, Callable[[int, int, int], int]] = {
    "amoadd": lambda a, b, size: a + b,
    "amoswap": lambda a, b, size: b,
    "amoxor": lambda a, b, size: a ^ b,
    "amoor": lambda a, b, size: a | b,
    "amoand": lambda a, b, size: a & b,
    "amomin": lambda a, b, size: min(a, b, key=lambda value: value ^ 1 << 8 * size - 1),
    "amomax": lambda a, b, size: max(a, b, key=lambda value: value ^ 1 << 8 * size - 1),
    "amominu": lambda a, b, size: min(a, b),
    "amomaxu": lambda a, b, size: max(a, b),
}

_REGISTERS = """
def make(regs, rd, rs1, rs2):
    def operation():
        a = regs[rs1]; b = regs[rs2]
        regs[rd] = {expression}
    return operation
"""
_IMMEDIATE = """
def make(regs, rd, rs1, b):
    def operation():
        a = regs[rs1]
        regs[rd] = {expression}
    return operation
"""
_BRANCH = """
def make(regs, rs1, rs2, taken, not_taken):
    def operation():
        a = regs[rs1]; b = regs[rs2]
        return taken if {expression} else not_taken
    return operation
"""
_LOAD = """
def make(core, regs, rd, rs1, immediate, pc):
    view = core.view({size}, {signed})
    slow = core.load
    def operation():
        address = regs[rs1] + immediate & M
        at = core.read_pages.get(address >> 12)
        if at is None{misaligned}:
            regs[rd] = slow(pc, address, {size}, {signed}) & M
        else:
            regs[rd] = view[address + at{shift}]{mask}
    return operation
"""
_STORE = """
def make(core, regs, rs2, rs1, immediate, pc):
    view = core.view({size}, False)
    slow = core.store
    def operation():
        address = regs[rs1] + immediate & M
        at = core.write_pages.get(address >> 12)
        if at is None{misaligned}:
            slow(pc, address, {size}, regs[rs2]{narrow})
        else:
            view[address + at{shift}] = regs[rs2]{narrow}
    return operation
"""


def _compile(template: str, **parts: str) -> Callable:
    scope = dict(_NAMES)
    exec(template.format(**parts), scope)
    return scope["make"]


def _makers() -> dict[tuple[str, str], Callable]:
    makers = {}
    for name, expression in COMPUTE.items():
        makers[name, "registers"] = _compile(_REGISTERS, expression=expression)
        makers[name, "immediate"] = _compile(_IMMEDIATE, expression=expression)
    for name, expression in BRANCHES.items():
        makers[name, "branch"] = _compile(_BRANCH, expression=expression)
    for name, (size, signed) in LOADS.items():
        makers[name, "load"] = _compile(
            _LOAD, signed=str(signed), mask=" & M" if signed else "", **_sized(size)
        )
    for name, size in STORES.items():
        narrow = "" if size == 8 else f" & {(1 << 8 * size) - 1}"
        makers[name, "store"] = _compile(_STORE, narrow=narrow, **_sized(size))
    return makers


def _sized(size: int) -> dict[str, str]:
    return {
        "size": str(size),
        "misaligned": f" or address & {size - 1}" if size > 1 else "",
        "shift": f" >> {size.bit_length() - 1}" if size > 1 else "",
    }


_MAKERS = _makers()


def maker(name: str, kind: str) -> Callable:
    """The function that binds operands: kinds registers, immediate, branch, load, store."""
    return _MAKERS[name, kind]
