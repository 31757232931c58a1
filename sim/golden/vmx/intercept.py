"""Which CSR instructions of a guest exit (docs/isa/vmx.md#intercept-order)."""

from collections.abc import Mapping

from rtl.arch.csrs import CSR_BY_NUMBER
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.exits import ExitReason
from rtl.arch.vmx.fields import CSR_BITMAP

__all__ = ["csr_exit"]

_CONTROLS = {row.name: 1 << row.bit for row in CONTROL_WORDS["execution_controls"].controls}
_PLACE = {name: index for index, name in enumerate(CSR_BITMAP)}


def _on(fields: Mapping[str, int], control: str) -> bool:
    return bool(fields["execution_controls"] & _CONTROLS[control])


def csr_exit(
    fields: Mapping[str, int], number: int, *, reads: bool, writes: bool, value: int
) -> ExitReason | None:
    """The exit of a CSR instruction that is legal in the guest, if it exits.

    ``value`` is what it would write.
    """
    name = CSR_BY_NUMBER[number].name
    if name == "time":
        return ExitReason.TIME_READ if reads and _on(fields, "time_read_exiting") else None
    if name in ("cycle", "instret") or name.startswith("hpmcounter"):
        exits = reads and _on(fields, "counter_read_exiting")
        return ExitReason.COUNTER_READ if exits else None
    if name == "satp":
        exits = writes and _on(fields, "satp_write_exiting")
        return ExitReason.SATP_OR_STATUS if exits else None
    if name in ("mstatus", "sstatus"):
        # sstatus shows a part of mstatus; only that part can be written by it.
        seen = CSR_BY_NUMBER[number].writable
        changes = (value ^ fields["status_shadow"]) & fields["status_mask"] & seen
        return ExitReason.SATP_OR_STATUS if writes and changes else None
    if not _on(fields, "use_csr_bitmap"):
        return None
    word, bit = divmod(_PLACE[name], 64)
    if reads and fields[f"csr_read_bitmap_{word}"] >> bit & 1:
        return ExitReason.CSR_READ
    if writes and fields[f"csr_write_bitmap_{word}"] >> bit & 1:
        return ExitReason.CSR_WRITE
    return None
