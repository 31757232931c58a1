"""The network of a VM entry's checks tells what the golden model's predicates say.

The predicates themselves are carried out on the fields: ``tests.proofs.symbolic``.
"""

from collections.abc import Mapping

from amaranth import *

from rtl.arch.csrs import MSTATUS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS
from rtl.arch.vmx.checks import ENTRY_CHECKS
from rtl.arch.vmx.checks import CheckClass as Class
from rtl.arch.vmx.controls import CONTROL_WORDS
from rtl.arch.vmx.ept import EPTP, EptMode
from rtl.arch.vmx.fields import VMCS_FIELDS, VmcsArea
from rtl.vmx.entry_checks import CheckClass, CheckResult
from sim.golden.vmx import entry_checks as golden
from tests.proofs.properties import Fault, Proof
from tests.proofs.symbolic import Explorer, Symbol, symbolic_copy

__all__ = ["PROOFS"]

_FIELDS = sorted({name for check in ENTRY_CHECKS.values() for name in check.fields})
#: Checks of a field alone that the guest cannot make fail.
_OF_GUEST = [
    name
    for name, check in ENTRY_CHECKS.items()
    if check.check_class is Class.GUEST_STATE and len(check.fields) == 1
]
#: What was not written yet counts as this: what the unit's registers are after reset.
_AFTER_RESET = {
    **{name: VMCS_FIELDS[name].required for name in _FIELDS},
    "eptp": EPTP.encode(mode=EptMode.SV39X4, ppn=MEMORY_MAP["ram"].base >> PAGE_BITS),
    "vpid": 1,
    "time_scale": 1,
}


class _Predicates:
    """The golden model's, of fields that are signals."""

    def __init__(self, m: Module):
        self._m, self._explorer = m, Explorer()
        self._module = symbolic_copy(golden)
        self._checks = {check.name: (check, passes) for check, passes in self._module._PREDICATES}

    def _state(self, fields: Mapping[str, Value]) -> dict[str, Symbol]:
        return {name: Symbol(value, self._explorer) for name, value in fields.items()}

    def passes(self, name: str, fields: Mapping[str, Value]) -> Value:
        """Whether the check of that name passes."""
        state, result = self._state(fields), Signal(name=f"passes_{name}")
        self._m.d.comb += result.eq(self._explorer.truth(lambda: self._checks[name][1](state)))
        return result

    def first_failure(self, fields: Mapping[str, Value]) -> CheckResult:
        """What the golden model says, as the network tells it."""
        verdicts = self._state({name: self.passes(name, fields) for name in self._checks})
        self._module._PREDICATES = tuple(
            (check, lambda state, name=name: state[name])
            for name, (check, _) in self._checks.items()
        )
        found = Signal(CheckResult)
        self._m.d.comb += found.eq(
            self._explorer.expression(lambda: self._module.first_failure(verdicts), _told)
        )
        return found


def _told(check) -> Value:
    if check is None:
        return Const(0, CheckResult)
    check_class = CheckClass[check.check_class.name]
    told = {"failed": 1, "number": check.number, "check_class": check_class}
    return CheckResult.const(told).as_value()


def _entry_checks(p, unit_class):
    m, predicates = p.m, _Predicates(p.m)
    unit = unit_class()
    inside = p.unit("checks", unit)
    write, guest = unit.write, unit.guest

    # What was written last. In a hart every field has been written; here none need be.
    fields = {name: Signal(64, name=name, init=_AFTER_RESET[name]) for name in _FIELDS}
    earlier = {
        name: Signal(64, name=f"earlier_{name}", init=_AFTER_RESET[name]) for name in _FIELDS
    }
    # A guest that has run leaves fields that nobody writes, as it likes, but such that each would
    # pass again by itself: its CSRs can hold nothing else. It has run after an entry only.
    ran = p.any_value(1, "ran")
    left = {
        name: p.any_value(64, f"left_{name}")
        for name in _FIELDS
        if VMCS_FIELDS[name].area is VmcsArea.GUEST
    }
    entered = [predicates.passes(name, fields) for name in _OF_GUEST]
    sound = [predicates.passes(name, {**fields, **left}) for name in _OF_GUEST]
    p.assume(~ran | (Cat(entered).all() & Cat(sound).all() & ~write.valid))
    for name, value in fields.items():
        m.d.sync += earlier[name].eq(value)
        with m.If(write.valid & (write.number == VMCS_FIELDS[name].number)):
            m.d.sync += value.eq(write.value)
        if name in left:
            with m.If(ran):
                m.d.sync += value.eq(left[name])
    # Those who keep what the guest changes have it two cycles after it was written.
    privilege, status, activity = (
        fields[f"guest_{name}"] for name in ("privilege", "mstatus", "activity")
    )
    p.assume(
        p.before(write.valid)
        | (
            (guest.privilege.as_value() == privilege[:2])
            & (guest.tw == status[MSTATUS["tw"].lsb])
            & (guest.waiting == activity[0])
        )
    )

    masks = {
        f"mask:{name}": p.before(mask)
        for name, mask in zip(CONTROL_WORDS, (unit.execution_mask, unit.exit_mask), strict=True)
    }
    has_run = p.before(ran)
    wanted, result = predicates.first_failure({**fields, **masks}), unit.result
    written = p.before(write.valid)
    p.always(
        unit.settled == ~(written | p.before(written)), "settled two cycles after the last write"
    )
    # Masks and the guest's state count in the next cycle.
    counts = unit.settled & p.before(1) & ~has_run
    p.always(~counts | (result.failed == wanted.failed), "an entry fails when a predicate does")
    fails = counts & wanted.failed
    p.always(~fails | (result.number == wanted.number), "with the number of the first")
    p.always(
        ~fails | (result.check_class.as_value() == wanted.check_class.as_value()),
        "and what it leads to",
    )

    p.invariant(inside["busy"] == Cat(written, p.before(written)), "writes on their way")
    kept = inside["write"]
    p.invariant(kept.valid == written, "the write before")
    p.invariant(
        ~written
        | ((kept.number == p.before(write.number)) & (kept.value == p.before(write.value))),
        "as it was",
    )
    p.invariant(~(has_run & written), "nothing is written meanwhile")
    for state in (earlier, fields):
        passed = Cat(predicates.passes(name, state) for name in _OF_GUEST).all()
        p.invariant(~has_run | passed, "the guest runs and leaves what passes")
    for name, value in fields.items():
        p.invariant(
            (value == earlier[name])
            | (has_run if name in left else 0)
            | (written & (kept.number == VMCS_FIELDS[name].number) & (kept.value == value)),
            "a field changes by a write",
        )
    for name in ("execution_controls", "exit_controls"):
        held = inside[name]
        p.invariant(held == earlier[name][: len(held)], "controls")
    enabled = {**earlier, "execution_controls": C(-1, 64)}
    for name, check in (
        ("bad_mode", "eptp_mode"),
        ("bad_root", "eptp_root"),
        ("no_vpid", "vpid_zero"),
        ("no_scale", "time_scale_zero"),
    ):
        p.invariant(inside[name] == ~predicates.passes(check, enabled), "what controls may enable")
    waiting = {**earlier, "guest_activity": C(1, 64)}
    p.invariant(
        inside["exception"] == ~predicates.passes("guest_activity_injection", waiting),
        "an exception is to be injected",
    )
    for name, check in ENTRY_CHECKS.items():
        if len(check.fields) > 1 or name.endswith(("_allowed", "_required", "_needs")):
            continue
        # What comes behind a failure does not count.
        reserved = f"{check.fields[0]}_reserved"
        before = reserved in ENTRY_CHECKS and reserved != name
        failed = ~predicates.passes(reserved, earlier) if before else C(0)
        same = inside[f"fails_{name}"] == ~predicates.passes(name, earlier)
        p.invariant(failed | same, f"{name}, of a field alone")


PROOFS = (
    Proof(
        "checks of an entry",
        "rtl.vmx.entry_checks:EntryChecks",
        _entry_checks,
        (
            Fault(
                "of two failures the last is told",
                "for check in ENTRY_CHECKS.values():\n            with choice",
                "for check in reversed(ENTRY_CHECKS.values()):\n            with choice",
            ),
            Fault("masks narrow nothing", "(masks[name] & word.allowed)", "word.allowed"),
            Fault("required bits are not asked for", "(~held & word.required)", "(held & ~held)"),
            Fault(
                "reserved bits must be zero",
                "((write.value ^ required) & reserved)",
                "(write.value & reserved)",
            ),
            Fault("roots at the end of RAM", "frame >= _RAM.end", "frame > _RAM.end"),
            Fault("roots of 8 KiB", "frame[: EPT_ROOT_BITS - PAGE_BITS]", "frame[:1]"),
            Fault("VPID 0 is bad without VPIDs", 'bits["enable_vpid"] & no_vpid', "no_vpid"),
            Fault(
                "interrupts are injected with exceptions' codes",
                "event.cause.matches(*map(int, Interrupt))",
                "event.cause.matches(*map(int, Exception_))",
            ),
            Fault("what is not valid is injected", "exception.eq(event.valid & ", "exception.eq("),
            Fault(
                "S-mode waits under TW",
                "(guest.privilege == Privilege.SUPERVISOR) & ~guest.tw",
                "(guest.privilege == Privilege.SUPERVISOR)",
            ),
            Fault(
                "bad guest state is a VMfail",
                "CheckClass[check.check_class.name]",
                "CheckClass.CONTROLS",
            ),
            Fault(
                "settled a cycle early", "busy = Signal(_STAGES - 1)", "busy = Signal(_STAGES - 2)"
            ),
        ),
        fault_depth=8,
    ),
)
