"""What the commit log of the library must know of the architecture, as its C++ structures.

The lines are those of Spike's ``-l --log-commits``: see docs/debugging.md.
"""

import ctypes
from ctypes import POINTER, c_char_p, c_uint8, c_uint32, c_uint64

from rtl.arch.instructions import (
    COMPRESSED,
    IMMEDIATES,
    INSTRUCTIONS,
    RS1,
    Format,
    Immediate,
    Instruction,
)
from rtl.arch.traps import Exception_

__all__ = ["SPIKE_TRAPS", "commit_log_facts"]

_SLICES, _TRAPS = 8, 64
#: Order of ``CommitLogFacts::Atomic`` in sim/verilator/commit_log.h.
_ATOMICS = (
    *("", "amoswap", "amoadd", "amoxor", "amoor", "amoand"),
    *("amomin", "amomax", "amominu", "amomaxu"),
)
# fmt: off
#: What Spike calls the exceptions, and whether it prints their trap value.
SPIKE_TRAPS = {
    Exception_.INSTRUCTION_ADDRESS_MISALIGNED: ("trap_instruction_address_misaligned", True),
    Exception_.INSTRUCTION_ACCESS_FAULT: ("trap_instruction_access_fault", True),
    Exception_.ILLEGAL_INSTRUCTION: ("trap_illegal_instruction", True),
    Exception_.BREAKPOINT: ("trap_breakpoint", True),
    Exception_.LOAD_ADDRESS_MISALIGNED: ("trap_load_address_misaligned", True),
    Exception_.LOAD_ACCESS_FAULT: ("trap_load_access_fault", True),
    Exception_.STORE_ADDRESS_MISALIGNED: ("trap_store_address_misaligned", True),
    Exception_.STORE_ACCESS_FAULT: ("trap_store_access_fault", True),
    Exception_.ECALL_FROM_USER: ("trap_user_ecall", False),
    Exception_.ECALL_FROM_SUPERVISOR: ("trap_supervisor_ecall", False),
    Exception_.ECALL_FROM_MACHINE: ("trap_machine_ecall", False),
    Exception_.INSTRUCTION_PAGE_FAULT: ("trap_instruction_page_fault", True),
    Exception_.LOAD_PAGE_FAULT: ("trap_load_page_fault", True),
    Exception_.STORE_PAGE_FAULT: ("trap_store_page_fault", True),
}
# fmt: on

_STACK_POINTER = 2
#: The base register's field (lsb, width) and the register its value 0 stands for, by format.
_BASES = {
    **dict.fromkeys((Format.LOAD, Format.S, Format.AMO, Format.LR), (*RS1, 0)),
    **dict.fromkeys((Format.CL_W, Format.CL_D, Format.CS_W, Format.CS_D), (7, 3, 8)),
    **dict.fromkeys(
        (Format.CI_LWSP, Format.CI_LDSP, Format.CSS_SWSP, Format.CSS_SDSP),
        (0, 0, _STACK_POINTER),
    ),
}


class _Slice(ctypes.Structure):
    _fields_ = (("lsb", c_uint8), ("width", c_uint8), ("place", c_uint8))


class _Access(ctypes.Structure):
    _fields_ = (
        ("mask", c_uint32),
        ("match", c_uint32),
        ("base_lsb", c_uint8),
        ("base_width", c_uint8),
        ("base_first", c_uint8),
        ("atomic", c_uint8),
        ("immediate_width", c_uint8),
        ("immediate_signed", c_uint8),
        ("slice_count", c_uint8),
        ("slices", _Slice * _SLICES),
    )


class _Facts(ctypes.Structure):
    """Mirror of ``vmxlab::CommitLogFacts`` (sim/verilator/commit_log.h)."""

    _fields_ = (
        ("accesses", POINTER(_Access)),
        ("access_count", c_uint32),
        ("gpr_base", c_uint32),
        ("traps", c_char_p * _TRAPS),
        ("traps_with_value", c_uint64),
    )


def commit_log_facts(gpr_base: int) -> ctypes.Structure:
    """The facts; ``gpr_base`` is the offset of the host port at which the registers stand."""
    rows = [
        _access(row)
        for table in (INSTRUCTIONS, COMPRESSED)
        for row in table.values()
        if row.format in _BASES
    ]
    names = {int(code): name.encode() for code, (name, _) in SPIKE_TRAPS.items()}
    return _Facts(
        (_Access * len(rows))(*rows),
        len(rows),
        gpr_base,
        (c_char_p * _TRAPS)(*(names.get(code) for code in range(_TRAPS))),
        sum(1 << code for code, (_, has_value) in SPIKE_TRAPS.items() if has_value),
    )


def _access(row: Instruction) -> _Access:
    immediate = IMMEDIATES.get(row.format, Immediate((), 1, signed=False))
    name = row.name.partition(".")[0]
    return _Access(
        row.mask,
        row.match,
        *_BASES[row.format],
        _ATOMICS.index(name) if name in _ATOMICS else 0,
        immediate.width,
        immediate.signed,
        len(immediate.rows),
        (_Slice * _SLICES)(*immediate.rows),
    )
