"""Retirement records as text, for reports."""

import struct
from collections.abc import Iterator

from rtl.arch.records import EXIT_BIT, RETIREMENT
from sim.disassembler import REGISTER_NAMES, disassemble

__all__ = ["RECORD", "described", "field_lines", "whole_records"]

#: One record as five words: pc, value, data, address and instruction, the rest.
RECORD = struct.Struct("<5Q")


def whole_records(records: bytes) -> Iterator[bytes]:
    """One by one."""
    return (records[n : n + RECORD.size] for n in range(0, len(records), RECORD.size))


def described(record: bytes) -> str:
    """One line, as in a listing."""
    fields = RETIREMENT.decode(int.from_bytes(record, "little"))
    pc, bits = fields["pc"], fields["instruction"]
    text = f"{pc:016x} {'UHSM'[fields['privilege']]}{' g'[fields['world']]} "
    if fields["trap"]:
        kind = "exit" if fields["value"] >> EXIT_BIT == 1 else "trap"
        return f"{text}{kind} {fields['value']:#x} value {fields['data']:#x}"
    text += f"{bits:0{8 if bits & 3 == 3 else 4}x}".ljust(9) + disassemble(bits, pc).ljust(32)
    if fields["rd"]:
        text += f" {REGISTER_NAMES[fields['rd']]} = {fields['value']:#x}"
    if fields["load"] or fields["store"]:
        text += f" [{fields['address']:#x}]"
    if fields["store"]:
        text += f" <- {fields['data'] & (1 << (8 << fields['size'])) - 1:#x}"
    return text


def field_lines(record: bytes) -> Iterator[str]:
    """A line for each field."""
    for name, value in RETIREMENT.decode(int.from_bytes(record, "little")).items():
        yield f"  {name:11} {value:#x}"
