"""The ALU and the branch unit against Python's integers."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtl.arch.instructions import INSTRUCTIONS
from rtl.core.execute.alu import Alu, AluOperation
from rtl.core.execute.branch import BranchCondition, BranchUnit
from tests.rtl.core.execute.operands import MASK, combinational, pairs, sext

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
WORD = ("ADD", "SUB", "SLL", "SRL", "SRA")
CONDITIONS = {
    BranchCondition.EQ: lambda a, b: a == b,
    BranchCondition.NE: lambda a, b: a != b,
    BranchCondition.LT: lambda a, b: sext(a, 64) < sext(b, 64),
    BranchCondition.GE: lambda a, b: sext(a, 64) >= sext(b, 64),
    BranchCondition.LTU: lambda a, b: a < b,
    BranchCondition.GEU: lambda a, b: a >= b,
}


def wanted(operation, word, a, b):
    bits = 32 if word else 64
    return sext(OPERATIONS[operation](a, b, bits), bits) & MASK


_operations = st.sampled_from(list(AluOperation)).flatmap(
    lambda operation: st.tuples(
        st.just(operation), st.booleans() if operation.name in WORD else st.just(False)
    )
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(_operations, pairs), min_size=50, max_size=150))
# Every shift by every amount, of a word with both ends set.
@example(
    [
        ((AluOperation[name], word), (0x8000_0001_8000_0001, amount))
        for name in ("SLL", "SRL", "SRA")
        for word in (False, True)
        for amount in range(128)
    ]
)
def test_alu_computes_what_the_instructions_say(drawn):
    cases = [(operation, word, a, b) for (operation, word), (a, b) in drawn]
    dut = Alu()
    inputs = (dut.operation, dut.word, dut.a, dut.b)
    assert combinational(dut, cases, inputs, dut.result) == [wanted(*case) for case in cases]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(BranchCondition)), pairs), min_size=50))
def test_branch_is_taken_when_the_condition_holds(drawn):
    cases = [(condition, a, b) for condition, (a, b) in drawn]
    dut = BranchUnit()
    taken = combinational(dut, cases, (dut.condition, dut.a, dut.b), dut.taken)
    assert [bool(bit) for bit in taken] == [CONDITIONS[c](a, b) for c, a, b in cases]


def test_operations_have_the_encoding_of_the_register_forms():
    assert set(OPERATIONS) == set(AluOperation)
    for operation in AluOperation:
        match = INSTRUCTIONS[operation.name.lower()].match
        assert operation.value == (match >> 12 & 7) | (match >> 30 & 1) << 3
        assert (operation.name.lower() + "w" in INSTRUCTIONS) == (operation.name in WORD)


def test_conditions_have_the_encoding_of_funct3():
    assert set(CONDITIONS) == set(BranchCondition)
    for condition in BranchCondition:
        assert condition.value == INSTRUCTIONS["b" + condition.name.lower()].match >> 12 & 7
