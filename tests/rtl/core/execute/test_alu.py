"""The ALU and the branch unit against Python's integers."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtl.arch.instructions import INSTRUCTIONS
from rtl.core.execute.alu import Alu, AluOperation
from rtl.core.execute.bit_counter import BitCounter, CountOperation
from rtl.core.execute.branch import BranchCondition, BranchUnit
from tests.rtl.core.execute.operands import MASK, combinational, operands, pairs, sext

OPERATIONS = {
    AluOperation.ADD: lambda a, b, bits: a + b,
    AluOperation.SUB: lambda a, b, bits: a - b,
    AluOperation.SLL: lambda a, b, bits: a << b % bits,
    AluOperation.SRL: lambda a, b, bits: a % 2**bits >> b % bits,
    AluOperation.SRA: lambda a, b, bits: sext(a, bits) >> b % bits,
    AluOperation.SLT: lambda a, b, bits: int(sext(a, bits) < sext(b, bits)),
    AluOperation.SLTU: lambda a, b, bits: int(a < b),
    AluOperation.XOR: lambda a, b, bits: a ^ b,
    AluOperation.OR: lambda a, b, bits: a | b,
    AluOperation.AND: lambda a, b, bits: a & b,
}
BIT_MANIPULATION = {
    AluOperation.SH1ADD: lambda a, b, bits: a * 2 + b,
    AluOperation.SH2ADD: lambda a, b, bits: a * 4 + b,
    AluOperation.SH3ADD: lambda a, b, bits: a * 8 + b,
    AluOperation.XNOR: lambda a, b, bits: MASK - (a ^ b),
    AluOperation.ORN: lambda a, b, bits: a | MASK - b,
    AluOperation.ANDN: lambda a, b, bits: a & MASK - b,
    AluOperation.MIN: lambda a, b, bits: min(sext(a, 64), sext(b, 64)),
    AluOperation.MINU: lambda a, b, bits: min(a, b),
    AluOperation.MAX: lambda a, b, bits: max(sext(a, 64), sext(b, 64)),
    AluOperation.MAXU: lambda a, b, bits: max(a, b),
    # A rotation to the left is a multiplication modulo 2**bits - 1.
    AluOperation.ROL: lambda a, b, bits: rotated(a % 2**bits, b % bits, bits),
    AluOperation.ROR: lambda a, b, bits: rotated(a % 2**bits, -b % bits, bits),
    AluOperation.BSET: lambda a, b, bits: a if bit(a, b) else a + 2 ** (b % 64),
    AluOperation.BCLR: lambda a, b, bits: a - 2 ** (b % 64) if bit(a, b) else a,
    AluOperation.BINV: lambda a, b, bits: a + (1 - 2 * bit(a, b)) * 2 ** (b % 64),
    AluOperation.BEXT: lambda a, b, bits: bit(a, b),
    AluOperation.SEXT_B: lambda a, b, bits: sext(a, 8),
    AluOperation.SEXT_H: lambda a, b, bits: sext(a, 16),
    AluOperation.ZEXT_H: lambda a, b, bits: a % 2**16,
    AluOperation.ORC_B: lambda a, b, bits: sum(
        255 * 256**n for n, octet in enumerate(a.to_bytes(8, "little")) if octet
    ),
    AluOperation.REV8: lambda a, b, bits: int.from_bytes(a.to_bytes(8, "little"), "big"),
}
WORD = ("ADD", "SUB", "SLL", "SRL", "SRA", "ROL", "ROR")
UNSIGNED_WORD = ("ADD", "SH1ADD", "SH2ADD", "SH3ADD", "SLL")
CONDITIONS = {
    BranchCondition.EQ: lambda a, b: a == b,
    BranchCondition.NE: lambda a, b: a != b,
    BranchCondition.LT: lambda a, b: sext(a, 64) < sext(b, 64),
    BranchCondition.GE: lambda a, b: sext(a, 64) >= sext(b, 64),
    BranchCondition.LTU: lambda a, b: a < b,
    BranchCondition.GEU: lambda a, b: a >= b,
}


def bit(a, b):
    return a // 2 ** (b % 64) % 2


def rotated(a, count, bits):
    return a if a == 2**bits - 1 else a * 2**count % (2**bits - 1)


def wanted(operation, word, unsigned_word, a, b):
    bits = 32 if word else 64
    compute = (OPERATIONS | BIT_MANIPULATION)[operation]
    return sext(compute(a % 2**32 if unsigned_word else a, b, bits), bits) & MASK


def operations(known, forms=("", "word")):
    """An operation and its form: the flags ``word`` and ``unsigned_word``."""
    drawn = [
        (operation, form == "word", form == "unsigned word")
        for operation in known
        for form in forms
        if not form or operation.name in (WORD if form == "word" else UNSIGNED_WORD)
    ]
    return st.tuples(st.sampled_from(drawn), pairs)


def check(dut, drawn):
    cases = [(*operation, a, b) for operation, (a, b) in drawn]
    inputs = (dut.operation, dut.word, dut.unsigned_word, dut.a, dut.b)
    assert combinational(dut, cases, inputs, dut.result) == [wanted(*case) for case in cases]


@settings(max_examples=25, deadline=None)
@given(st.lists(operations(OPERATIONS), min_size=50, max_size=150))
# Every shift by every amount, of a word with both ends set.
@example(
    [
        ((AluOperation[name], word, False), (0x8000_0001_8000_0001, amount))
        for name in ("SLL", "SRL", "SRA")
        for word in (False, True)
        for amount in range(128)
    ]
)
def test_alu_computes_what_the_instructions_say(drawn):
    check(Alu(bit_manipulation=False), drawn)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        operations(OPERATIONS | BIT_MANIPULATION, ("", "word", "unsigned word")),
        min_size=50,
        max_size=150,
    )
)
# Every rotation by every amount, and every bit.
@example(
    [
        ((AluOperation[name], word, False), (0x8000_0005_8000_0003, amount))
        for name in ("ROL", "ROR", "BSET", "BCLR", "BINV", "BEXT")
        for word in (False, True)
        if name in WORD or not word
        for amount in range(128)
    ]
)
def test_alu_manipulates_bits(drawn):
    check(Alu(bit_manipulation=True), drawn)


def zeros(text):
    return len(text) - len(text.lstrip("0"))


COUNTS = {
    CountOperation.CLZ: zeros,
    CountOperation.CTZ: lambda text: zeros(text[::-1]),
    CountOperation.CPOP: lambda text: text.count("1"),
}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(CountOperation)), st.booleans(), operands),
        min_size=50,
        max_size=150,
    )
)
@example([(o, word, 1 << n) for o in CountOperation for word in (False, True) for n in range(65)])
@example([(o, word, MASK) for o in CountOperation for word in (False, True)])
def test_bits_are_counted(drawn):
    cases = [(operation, word, a & MASK) for operation, word, a in drawn]
    dut = BitCounter()
    counts = combinational(dut, cases, (dut.operation, dut.word, dut.a), dut.result)
    for (operation, word, a), count in zip(cases, counts, strict=True):
        width = 32 if word else 64
        assert count == COUNTS[operation](f"{a % 2**width:0{width}b}"), (operation, word, hex(a))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(BranchCondition)), pairs), min_size=50))
def test_branch_is_taken_when_the_condition_holds(drawn):
    cases = [(condition, a, b) for condition, (a, b) in drawn]
    dut = BranchUnit()
    taken = combinational(dut, cases, (dut.condition, dut.a, dut.b), dut.taken)
    assert [bool(bit) for bit in taken] == [CONDITIONS[c](a, b) for c, a, b in cases]


def test_operations_have_the_encoding_of_the_register_forms():
    assert set(OPERATIONS) | set(BIT_MANIPULATION) == set(AluOperation)
    for operation in AluOperation:
        name = operation.name.lower()
        assert (name + "w" in INSTRUCTIONS) == (operation.name in WORD)
        # slli.uw has no register form.
        named = name == "sll" or name + ".uw" in INSTRUCTIONS
        assert named == (operation.name in UNSIGNED_WORD)
        if operation not in OPERATIONS:
            continue
        match = INSTRUCTIONS[operation.name.lower()].match
        assert operation.value == (match >> 12 & 7) | (match >> 30 & 1) << 3


def test_conditions_have_the_encoding_of_funct3():
    assert set(CONDITIONS) == set(BranchCondition)
    for condition in BranchCondition:
        assert condition.value == INSTRUCTIONS["b" + condition.name.lower()].match >> 12 & 7
