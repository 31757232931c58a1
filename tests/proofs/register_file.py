"""The register file remembers what was written last, and forwards what is being written."""

from amaranth import *

from tests.proofs.properties import Fault, Proof

__all__ = ["PROOFS"]


def _register_file(p, unit_class):
    m = p.m
    registers = unit_class()
    inside = p.unit("registers", registers)
    # What holds for any one register holds for all.
    number = p.any_constant(5, "number")
    word = inside.memory_word("rows", number)
    held = Signal(64)
    writes = (registers.rd == number) & (number != 0)
    with m.If(writes):
        m.d.sync += held.eq(registers.value)
    for asked, value in (
        (registers.rs1, registers.rs1_value),
        (registers.rs2, registers.rs2_value),
    ):
        p.always(
            (asked != number) | (value == Mux(writes, registers.value, held)),
            "a read gives the newest value, that of this cycle too",
        )
    p.invariant(word == held, "the memory holds what was written")
    p.invariant((number != 0) | (held == 0), "x0 is zero")


PROOFS = (
    Proof(
        "register file",
        "rtl.core.regfile:RegisterFile",
        _register_file,
        (
            Fault(
                "no forwarding",
                "Mux((number == self.rd) & write.en, self.value, read.data)",
                "read.data",
            ),
            Fault("x0 is written", "write.en.eq(self.rd != 0)", "write.en.eq(1)"),
            Fault("x0 is forwarded", "(number == self.rd) & write.en", "number == self.rd"),
        ),
    ),
)
