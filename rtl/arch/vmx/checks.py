"""The checks of a VM entry, in the order in which they are made, each with the name it reports.

Three classes, one after the other: a control that fails is VMfailValid 7, host state VMfailValid 8,
and bad guest state an exit with reason 33. Within a class the check with the lowest number is
reported.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.fields import VMCS_FIELDS, VmcsArea

__all__ = ["ENTRY_CHECKS", "CheckClass", "EntryCheck"]


class CheckClass(Enum):
    """What a failure leads to."""

    CONTROLS = VmcsArea.CONTROL
    HOST_STATE = VmcsArea.HOST
    GUEST_STATE = VmcsArea.GUEST


@dataclass(frozen=True)
class EntryCheck:
    """``text`` is the condition that holds when the check passes; ``fields`` are what it reads."""

    name: str
    number: int
    check_class: CheckClass
    text: str
    fields: tuple[str, ...]


def _reserved(area: VmcsArea) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for field in VMCS_FIELDS.values():
        if field.area is area and field.reserved:
            if field.required:
                text = f"{field.name} & {field.reserved:#x} is {field.required:#x}."
            else:
                text = f"{field.name} & {field.reserved:#x} is zero."
            yield f"{field.name}_reserved", text, (field.name,)


def _controls() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    yield from _reserved(VmcsArea.CONTROL)
    for name, word in CONTROL_WORDS.items():
        if word.required:
            yield f"{name}_required", f"Every required bit of {name} is set.", (name,)
        yield f"{name}_allowed", f"No bit of {name} is set that is not allowed.", (name,)
    for control in CONTROL_WORDS["execution_controls"].controls:
        if control.needs:
            needs = " and ".join(control.needs)
            text = f"{control.name} is set only with {needs}."
            yield f"{control.name}_needs", text, ("execution_controls",)
    controls = "execution_controls"
    yield "vpid_zero", "With enable_vpid, vpid is not 0.", (controls, "vpid")
    yield "eptp_mode", "With enable_ept, eptp.mode is Sv39x4.", (controls, "eptp")
    yield (
        "eptp_root",
        "With enable_ept, the root table is aligned and in the place of RAM.",
        (controls, "eptp"),
    )
    yield "time_scale_zero", "With use_time_scale, time_scale is not 0.", (controls, "time_scale")
    entry = ("entry_interruption",)
    yield "injection_type", "What is injected is an interrupt or an exception.", entry
    yield "injection_cause", "An injected cause is one that the hart has.", entry


def _guest() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    yield from _reserved(VmcsArea.GUEST)
    yield "guest_privilege_level", "guest_privilege is U, S or M.", ("guest_privilege",)
    yield "guest_mstatus_mpp", "guest_mstatus.mpp is U, S or M.", ("guest_mstatus",)
    yield "guest_satp_mode", "guest_satp.mode is Bare or Sv39.", ("guest_satp",)
    yield (
        "guest_activity_privilege",
        "A guest in wfi may execute it: M-mode, or S-mode with mstatus.tw = 0.",
        ("guest_activity", "guest_privilege", "guest_mstatus"),
    )
    yield (
        "guest_activity_injection",
        "No exception is injected into a guest in wfi.",
        ("guest_activity", "entry_interruption"),
    )


def _rows() -> Iterator[EntryCheck]:
    number = 1
    classes = {
        CheckClass.CONTROLS: _controls(),
        CheckClass.HOST_STATE: _reserved(VmcsArea.HOST),
        CheckClass.GUEST_STATE: _guest(),
    }
    for check_class, rows in classes.items():
        for name, text, fields in rows:
            yield EntryCheck(name, number, check_class, text, fields)
            number += 1


#: By name, in their order; a number is what ``entry_check`` shows.
ENTRY_CHECKS = {check.name: check for check in _rows()}
