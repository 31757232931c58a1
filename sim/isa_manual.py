"""The manual of the virtualization extension: its text, with the tables made from the facts."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rtl.arch.layout import Layout
from rtl.arch.vmx.capability import VMX_CSRS
from rtl.arch.vmx.checks import ENTRY_CHECKS
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.exits import EXIT_REASONS
from rtl.arch.vmx.fields import CSR_BITMAP, VMCS_FIELDS, VMCS_REVISION
from rtl.arch.vmx.instructions import (
    INVVPID_OPERAND,
    VMX_INSTRUCTIONS,
    InveptType,
    InvvpidType,
    VmInstructionError,
)
from sim.errors import BuildError

__all__ = ["ISA_MANUAL", "TABLES", "expand", "isa_manual"]

#: The text; in a checkout only.
ISA_MANUAL = Path(__file__).resolve().parents[1] / "docs" / "isa" / "vmx.md"
_PLACE = re.compile(r"^table: (\S+)$", re.MULTILINE)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`"


def _instructions() -> str:
    rows = []
    for number, row in enumerate(VMX_INSTRUCTIONS.values()):
        name = row.encoding.name.upper()
        rows.append((name, number, row.rd, row.rs1, row.rs2, row.text))
    return _table(("instruction", "funct7", "rd", "rs1", "rs2", "what it does"), rows)


def _errors() -> str:
    rows = ((error.value, error.name.lower().replace("_", " ")) for error in VmInstructionError)
    return _table(("number", "VM-instruction error"), rows)


def _fields() -> str:
    rows = []
    for field in VMCS_FIELDS.values():
        reserved = f"`{field.reserved:#x}` = `{field.required:#x}`" if field.reserved else ""
        area = field.area.name.lower()
        rows.append((f"{field.number:#05x}", _code(field.name), area, field.text, reserved))
    table = _table(("number", "field", "area", "what it holds", "reserved bits and value"), rows)
    return f"Revision identifier: `{VMCS_REVISION:#010x}`.\n\n{table}"


def _controls() -> str:
    rows = []
    for word in CONTROL_WORDS.values():
        for row in word.controls:
            setting = "required" if row.required else "allowed" if row.allowed else "not yet"
            rows.append((_code(word.name), row.bit, _code(row.name), setting, row.text))
    return _table(("field", "bit", "control", "setting", "what it does"), rows)


def _capability() -> str:
    rows = (
        (f"{csr.number:#x}", _code(csr.name), f"`{csr.reset:#x}`", csr.text)
        for csr in VMX_CSRS.values()
    )
    return _table(("number", "CSR", "value after reset", "what it says"), rows)


def _checks() -> str:
    rows = (
        (check.number, _code(check.name), check.check_class.name.lower(), check.text)
        for check in ENTRY_CHECKS.values()
    )
    return _table(("number", "check", "class", "passes when"), rows)


def _bitmap() -> str:
    rows = ((index // 64, index % 64, _code(name)) for index, name in enumerate(CSR_BITMAP))
    return _table(("field", "bit", "CSR"), rows)


def _reasons() -> str:
    rows = []
    for row in EXIT_REASONS.values():
        what = row.qualification
        what = f"layout `{what.name}`" if isinstance(what, Layout) else what
        text = row.text if row.reachable else f"{row.text} Not in this revision."
        more = [name for name in ("instruction", "address", "interruption") if getattr(row, name)]
        rows.append((int(row.reason), _code(row.name), text, what, ", ".join(more)))
    return _table(("number", "reason", "when", "qualification", "more"), rows)


def _layout(layout: Layout) -> str:
    rows = (
        (
            f"{field.msb}:{field.lsb}" if field.width > 1 else field.lsb,
            _code(field.name),
            field.text,
        )
        for field in layout.fields
    )
    return f"`{layout.name}`:\n\n" + _table(("bits", "field", "what it says"), rows)


def _qualifications() -> str:
    layouts = {
        row.qualification.name: row.qualification
        for row in EXIT_REASONS.values()
        if isinstance(row.qualification, Layout)
    }
    return "\n\n".join(_layout(layout) for layout in layouts.values())


def _invalidation() -> str:
    rows = [
        (name.upper(), kind.value, kind.name.lower().replace("_", " "))
        for name, kinds in (("invept", InveptType), ("invvpid", InvvpidType))
        for kind in kinds
    ]
    table = _table(("instruction", "type", "what it drops"), rows)
    return f"{table}\n\n{_layout(INVVPID_OPERAND)}"


#: By the names in the text.
TABLES: dict[str, Callable[[], str]] = {
    "instructions": _instructions,
    "instruction_errors": _errors,
    "fields": _fields,
    "controls": _controls,
    "capability": _capability,
    "entry_checks": _checks,
    "csr_bitmap": _bitmap,
    "exit_reasons": _reasons,
    "qualifications": _qualifications,
    "invalidation": _invalidation,
}


def expand(text: str) -> str:
    """``text`` with every line ``table: NAME`` replaced. Raises BuildError for an unknown name."""

    def table(place: re.Match) -> str:
        name = place[1]
        if name not in TABLES:
            raise BuildError(f"the manual asks for a table {name}, and there is none")
        return TABLES[name]()

    return _PLACE.sub(table, text)


def isa_manual() -> str:
    """The whole manual. Raises BuildError when its text is not there."""
    try:
        text = ISA_MANUAL.read_text()
    except OSError as error:
        raise BuildError(f"{ISA_MANUAL.name} cannot be read: {error.strerror}") from None
    return expand(text)
