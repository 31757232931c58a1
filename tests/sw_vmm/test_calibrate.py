"""Calibration on a hart whose costs are known: one cycle an instruction."""

import dataclasses

import pytest

from sw_vmm.assembler import Assembler, encode
from sw_vmm.calibrate import OPERATIONS, calibrate, measure
from sw_vmm.charge import Charges
from sw_vmm.errors import MachineError
from tests.sw_vmm.golden_machine import GoldenMachine
from tests.sw_vmm.soft_hart import Fault
from tests.sw_vmm.soft_machine import SoftMachine

MCYCLE, MEPC = 0xB00, 0x341


class MachineMode(SoftMachine):
    """M-mode code on physical addresses with the two CSRs that calibration uses."""

    def __init__(self, *, csr_cycles=1):
        self._csr_cycles = csr_cycles
        super().__init__(1 << 20)
        self.executed = set()

    def resume(self, pc, **options):
        self.privilege = 0
        super().resume(pc, **options)

    def _translate(self, gva, access):
        return gva

    def run(self, cycles):
        step = self.hart.step

        def with_csrs():
            try:
                step()
            except Fault as fault:
                word = self.hart.word
                number = word >> 20
                if fault.cause != 2 or number not in (MCYCLE, MEPC):
                    raise
                rd, rs1 = word >> 7 & 31, word >> 15 & 31
                old = self.cycle if number == MCYCLE else self.csrs.get(MEPC, 0)
                if word >> 12 & 7 == 1:
                    self.csrs[number] = self.hart.x[rs1]
                if rd:
                    self.hart.x[rd] = old
                self.hart.pc += 4
                self.cycle += self._csr_cycles - 1

        self.hart.step = with_csrs
        try:
            return super().run(cycles)
        finally:
            self.hart.step = step


def test_every_constant_is_measured():
    charges = calibrate(MachineMode())
    assert set(OPERATIONS) == {field.name for field in dataclasses.fields(Charges)}
    # One cycle an instruction: a CSR access or a register's store or load is one instruction.
    assert charges.csr == charges.gpr == 1
    assert 4 <= charges.exit <= 12
    assert 6 <= charges.guest_word <= 12
    # Five ranges are compared; then the handler works.
    assert 30 <= charges.device <= 50
    assert 20 <= charges.instruction <= 40
    assert charges.vmcs is charges.vmptrld is None


def test_vmcs_accesses_are_measured_where_there_are_any():
    charges = calibrate(GoldenMachine(1 << 20))
    # One cycle an instruction, and one for the number of the field, over two accesses.
    assert charges.vmcs in (1, 2)
    assert 2 <= charges.vmptrld <= 8
    assert charges.csr == charges.gpr == 1


def test_what_costs_more_is_charged_more():
    assert calibrate(MachineMode(csr_cycles=5)).csr == 5


def test_code_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr("sw_vmm.calibrate._BUDGET", 1000)
    with pytest.raises(MachineError, match="did not end"):
        measure(MachineMode(), lambda code: code.add("jal", rd=0, imm=0))


@pytest.mark.parametrize("address", [0x1000, 0x7FF, 0x800, 0x8000_0000, 0x8000_0FFF, 0xFFFF_FFFF])
def test_load_address_gives_the_address(address):
    machine = MachineMode()
    code = Assembler(0x8000_0000)
    code.load_address(5, address)
    code.add("ebreak")
    machine.write_memory(0x8000_0000, code.assemble())
    machine.park_on(8, 0)
    machine.resume(0x8000_0000)
    machine.run(100)
    assert machine.read_gpr(5) == address


@pytest.mark.parametrize(
    ("word", "name", "operands"),
    [
        (0x00A5_0513, "addi", {"rd": 10, "rs1": 10, "imm": 10}),
        (0xFE52_9EE3, "bne", {"rs1": 5, "rs2": 5, "imm": -4}),
        (0x3000_2573, "csrrs", {"rd": 10, "csr": 0x300}),
        (0x00B5_3823, "sd", {"rs1": 10, "rs2": 11, "imm": 16}),
    ],
)
def test_encodings_are_the_manuals(word, name, operands):
    assert encode(name, **operands) == word
