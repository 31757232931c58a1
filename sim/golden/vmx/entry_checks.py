"""The checks of a VM entry as predicates over the fields (docs/isa/vmx.md#entry)."""

from collections.abc import Callable, Mapping

from rtl.arch.csrs import MSTATUS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS, SATP, SatpMode
from rtl.arch.traps import Exception_, Interrupt, Privilege
from rtl.arch.vmx.checks import ENTRY_CHECKS, CheckClass, EntryCheck
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPT_ROOT_BITS, EPTP, EptMode
from rtl.arch.vmx.exits import INTERRUPTION, InterruptionType
from rtl.arch.vmx.fields import VMCS_FIELDS, ActivityState

__all__ = ["first_failure"]

_PRIVILEGES = frozenset(int(level) for level in Privilege)
_EXECUTION = CONTROL_WORDS["execution_controls"].layout

#: What the predicates read: fields by name, and the masks of the control words as mask:NAME.
State = Mapping[str, int]


def _control(state: State, name: str) -> int:
    return _EXECUTION[name].extract(state["execution_controls"])


def _reserved(name):
    field = VMCS_FIELDS[name]
    return lambda state: state[name] & field.reserved == field.required


def _required(name):
    required = CONTROL_WORDS[name].required
    return lambda state: state[name] & required == required


def _allowed(name):
    word = CONTROL_WORDS[name]
    known = word.layout.mask()
    return lambda state: not state[name] & known & ~(word.allowed & state[f"mask:{name}"])


def _needs(control, needs):
    return lambda state: not _control(state, control) or all(_control(state, n) for n in needs)


def _with(control, condition):
    return lambda state: not _control(state, control) or condition(state)


def _eptp_root(state):
    first = EPTP["ppn"].extract(state["eptp"]) << PAGE_BITS
    ram = MEMORY_MAP["ram"]
    size = 1 << EPT_ROOT_BITS
    return first % size == 0 and ram.base <= first <= ram.end - size


def _injection(state):
    """Type and cause of what is injected, or None."""
    fields = INTERRUPTION.decode(state["entry_interruption"])
    return (fields["type"], fields["cause"]) if fields["valid"] else None


def _injection_type(state):
    injected = _injection(state)
    return injected is None or injected[0] in set(InterruptionType)


def _injection_cause(state):
    injected = _injection(state)
    if injected is None:
        return True
    kind, cause = injected
    if kind == InterruptionType.INTERRUPT:
        return cause in set(Interrupt)
    # Of a type that does not exist no cause does.
    return kind == InterruptionType.EXCEPTION and cause in set(Exception_)


def _activity_privilege(state):
    if state["guest_activity"] & 1 == ActivityState.ACTIVE.value:
        return True
    privilege = state["guest_privilege"]
    waits = not MSTATUS["tw"].extract(state["guest_mstatus"])
    return privilege == Privilege.MACHINE or (privilege == Privilege.SUPERVISOR and waits)


def _activity_injection(state):
    injected = _injection(state)
    exception = injected is not None and injected[0] == InterruptionType.EXCEPTION
    return not (exception and state["guest_activity"] & 1 == ActivityState.WFI.value)


_OWN: dict[str, Callable[[State], bool]] = {
    "vpid_zero": _with("enable_vpid", lambda state: state["vpid"] != 0),
    "eptp_mode": _with(
        "enable_ept", lambda state: EPTP["mode"].extract(state["eptp"]) == EptMode.SV39X4
    ),
    "eptp_root": _with("enable_ept", _eptp_root),
    "time_scale_zero": _with("use_time_scale", lambda state: state["time_scale"] != 0),
    "injection_type": _injection_type,
    "injection_cause": _injection_cause,
    "guest_privilege_level": lambda state: state["guest_privilege"] in _PRIVILEGES,
    "guest_mstatus_mpp": lambda state: (
        MSTATUS["mpp"].extract(state["guest_mstatus"]) in _PRIVILEGES
    ),
    "guest_satp_mode": lambda state: SATP["mode"].extract(state["guest_satp"]) in set(SatpMode),
    "guest_activity_privilege": _activity_privilege,
    "guest_activity_injection": _activity_injection,
}


def _predicate(check: EntryCheck) -> Callable[[State], bool]:
    if check.name in _OWN:
        return _OWN[check.name]
    subject, _, rule = check.name.rpartition("_")
    match rule:
        case "reserved":
            return _reserved(subject)
        case "required":
            return _required(subject)
        case "allowed":
            return _allowed(subject)
        case "needs":
            rows = CONTROL_WORDS["execution_controls"].controls
            return _needs(subject, next(row.needs for row in rows if row.name == subject))
    raise NotImplementedError(f"entry check {check.name}")


_PREDICATES = tuple((check, _predicate(check)) for check in ENTRY_CHECKS.values())


def first_failure(state: State, *classes: CheckClass) -> EntryCheck | None:
    """The first check of the classes (all, if none is named) that ``state`` fails."""
    for check, passes in _PREDICATES:
        if (not classes or check.check_class in classes) and not passes(state):
            return check
    return None
