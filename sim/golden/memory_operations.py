"""Loads, stores and atomics (RV64I, A); ``hart.memory`` does the accesses."""

__all__ = ["EXECUTE"]

_WORD = (1 << 64) - 1


def _load(size, signed):
    sign = 1 << 8 * size - 1 if signed else 0

    def execute(hart, i):
        value = hart.memory.load(hart.x[i.rs1] + i.immediate & _WORD, size)
        hart.x[i.rd] = (value ^ sign) - sign & _WORD

    return execute


def _store(size):
    mask = (1 << 8 * size) - 1

    def execute(hart, i):
        x = hart.x
        hart.memory.store(x[i.rs1] + i.immediate & _WORD, size, x[i.rs2] & mask)

    return execute


def _load_reserved(size):
    sign = 1 << 8 * size - 1

    def execute(hart, i):
        value = hart.memory.load_reserved(hart.x[i.rs1], size)
        hart.x[i.rd] = (value ^ sign) - sign & _WORD

    return execute


def _store_conditional(size):
    mask = (1 << 8 * size) - 1

    def execute(hart, i):
        x = hart.x
        stored = hart.memory.store_conditional(x[i.rs1], size, x[i.rs2] & mask)
        x[i.rd] = 0 if stored else 1

    return execute


def _amo(size, compute):
    mask, sign = (1 << 8 * size) - 1, 1 << 8 * size - 1

    def execute(hart, i):
        x = hart.x
        operand = x[i.rs2] & mask
        # Moving both numbers by half the range turns their signed order into the unsigned one.
        old = hart.memory.modify(
            x[i.rs1], size, lambda memory: compute(memory, operand, sign) & mask
        )
        x[i.rd] = (old ^ sign) - sign & _WORD

    return execute


# fmt: off
_COMPUTE = {
    "amoswap": lambda memory, register, sign: register,
    "amoadd": lambda memory, register, sign: memory + register,
    "amoxor": lambda memory, register, sign: memory ^ register,
    "amoor": lambda memory, register, sign: memory | register,
    "amoand": lambda memory, register, sign: memory & register,
    "amomin": lambda memory, register, sign: min(memory ^ sign, register ^ sign) ^ sign,
    "amomax": lambda memory, register, sign: max(memory ^ sign, register ^ sign) ^ sign,
    "amominu": lambda memory, register, sign: min(memory, register),
    "amomaxu": lambda memory, register, sign: max(memory, register),
}
# fmt: on
_SIZES = {"b": 1, "h": 2, "w": 4, "d": 8}

#: Semantics by name.
EXECUTE = {
    **{f"l{letter}": _load(size, signed=True) for letter, size in _SIZES.items()},
    **{f"l{letter}u": _load(_SIZES[letter], signed=False) for letter in "bhw"},
    **{f"s{letter}": _store(size) for letter, size in _SIZES.items()},
    **{f"lr.{letter}": _load_reserved(_SIZES[letter]) for letter in "wd"},
    **{f"sc.{letter}": _store_conditional(_SIZES[letter]) for letter in "wd"},
    **{
        f"{name}.{letter}": _amo(_SIZES[letter], compute)
        for name, compute in _COMPUTE.items()
        for letter in "wd"
    },
}
