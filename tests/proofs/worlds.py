"""What one world's instructions do to CSRs, they do to those of that world.

The VMX unit is left open: it does whatever its docstring allows.
"""

from unittest import mock

from amaranth import *
from amaranth.asserts import AnySeq
from amaranth.lib import wiring

from rtl.mmu.context import Privilege, World
from rtl.vmx.ports import VmxOutcome
from rtl.vmx.vmx_unit import VmxUnit
from tests.proofs.properties import Fault, Proof

__all__ = ["PROOFS"]


class _AnyVmxUnit(VmxUnit):
    """All outputs have any value."""

    def elaborate(self, platform):
        m = Module()
        for _, member, port in self.signature.flatten(self):
            if member.flow is wiring.Out:
                value = Value.cast(port)
                m.d.comb += value.eq(AnySeq(len(value)))
        return m


def _storage(csrs) -> dict[str, Value]:
    """What a CSR file keeps in flip-flops, apart from counters, by name."""
    kept = {**csrs._plain, "satp": csrs._satp, "privilege": csrs.privilege.as_value()}
    kept |= {f"mip of {name}": getattr(csrs, f"_{name}") for name in ("ssip", "stip", "seip")}
    return kept | {f"mstatus.{name}": signal for name, signal in csrs._status.items()}


def _worlds(p, unit_class):
    with mock.patch.dict(unit_class.elaborate.__globals__, VmxUnit=_AnyVmxUnit):
        worlds = unit_class()
        inside = p.unit("worlds", worlds)
    inside.fragment()
    root, guest, vmx = (inside[name] for name in ("root", "guest", "vmx"))
    answer, leave = vmx.answer, vmx.exit

    # What the VMX unit says of itself. An answer or an exit that is taken changes worlds, and
    # nothing else; instructions are those of root M-mode, exits are taken in non-root operation;
    # status_stb strobes with an answer.
    non_root = vmx.world == World.NON_ROOT
    entered = answer.valid & answer.ready & (answer.p.outcome == VmxOutcome.GUEST)
    left = leave.valid & leave.ready
    p.assume(non_root == ((p.before(non_root) | p.before(entered)) & ~p.before(left)))
    p.assume(~(non_root & answer.valid))
    p.assume(~leave.ready | non_root)
    p.assume(vmx.status_stb == (answer.valid & answer.ready))
    # An answer that is offered stays until it is taken.
    offered = p.before(answer.valid & ~answer.ready)
    same = answer.p.as_value() == p.before(answer.p.as_value())
    p.assume(~offered | (answer.valid & same))
    # Only VMWRITE and VMPTRLD write fields, and an entry waits until the checks have seen them.
    told = vmx.guest_write.valid
    p.assume(~(told & non_root))

    # Whose instruction, trap, return or access by the host this is.
    changes = worlds.trap_valid | worlds.ret_valid | worlds.privilege_write
    root_acts = Mux(non_root, worlds.write & worlds.hold, worlds.write | changes)
    guest_acts = non_root & (changes | (worlds.write & ~worlds.hold))
    bad_entry = worlds.host.answered & (worlds.host.answer.outcome == VmxOutcome.HOST)

    calm = p.before(~root_acts)
    for name, value in _storage(root).items():
        kept = p.before(value)
        match name:
            case "privilege":
                kept = Mux(p.before(left | bad_entry), Privilege.MACHINE.value, kept)
            case "mstatus.mie":
                kept = Mux(p.before(left | bad_entry), 0, kept)
            case "vmxstatus":
                kept = Mux(p.before(vmx.status_stb), p.before(vmx.status), kept)
        p.always(~calm | (value == kept), f"root's {name} changes as root says")
    for number, selector in enumerate(root._performance.selectors):
        p.always(~calm | (selector == p.before(selector)), f"so does its event {number}")
    # The second half of a trap may come when the world has changed.
    trapped = p.before(worlds.trap_valid & ~non_root)
    writes = root._write.en & worlds.cleared & ~trapped
    p.always(root_acts | ~writes, "so do its CSRs in memory")
    counted = root._counters.write | root._performance.counter_write.any()
    p.always(root_acts | ~counted, "and what its counters hold, but for counting")

    calm = p.before(~guest_acts & ~told)
    for name, value in _storage(guest).items():
        p.always(~calm | (value == p.before(value)), f"a guest's {name} changes as the guest says")
    trapped = p.before(worlds.trap_valid & non_root)
    writes = guest._write.en & worlds.cleared & ~trapped
    p.always(guest_acts | told | ~writes, "so do its CSRs in memory")
    p.always(guest_acts | told | ~guest._counters.write, "and what its counters hold")
    p.always(non_root | ~guest._counters.count.any(), "which count in the guest")


PROOFS = (
    Proof(
        "CSRs of two worlds",
        "rtl.core.worlds:Worlds",
        _worlds,
        (
            Fault(
                "root's CSRs are written by both",
                "csrs.write.eq(self.write & chosen)",
                "csrs.write.eq(self.write & (chosen | (csrs is root)))",
            ),
            Fault(
                "guests' CSRs are written by both",
                "csrs.write.eq(self.write & chosen)",
                "csrs.write.eq(self.write & (chosen | (csrs is guest)))",
            ),
            Fault(
                "root traps with guests",
                "csrs.trap_valid.eq(self.trap_valid & at_work)",
                "csrs.trap_valid.eq(self.trap_valid & (at_work | (csrs is root)))",
            ),
            Fault(
                "guests trap with root",
                "csrs.trap_valid.eq(self.trap_valid & at_work)",
                "csrs.trap_valid.eq(self.trap_valid & (at_work | (csrs is guest)))",
            ),
            Fault(
                "both return",
                "csrs.ret_valid.eq(self.ret_valid & at_work)",
                "csrs.ret_valid.eq(self.ret_valid)",
            ),
            Fault(
                "the host reaches guests", "of_guest = non_root & ~self.hold", "of_guest = non_root"
            ),
            Fault(
                "both privileges are set",
                "csrs.privilege_write.eq(self.privilege_write & at_work)",
                "csrs.privilege_write.eq(self.privilege_write)",
            ),
            Fault(
                "guests count with root",
                "guest.retired.eq(self.retired & non_root)",
                "guest.retired.eq(self.retired)",
            ),
            Fault("exits that are not taken", "vmx.exit.valid & vmx.exit.ready", "vmx.exit.valid"),
            Fault(
                "answers are taken for exits",
                "(self.host.answer.outcome == VmxOutcome.HOST)",
                "(self.host.answer.outcome != VmxOutcome.NEXT)",
            ),
            Fault(
                "an exit is a trap, too",
                'self._status["mie"].eq(0),\n            ]\n        return m',
                'self._status["mie"].eq(0),\n'
                '                self._status["mpie"].eq(self._status["mie"]),\n'
                "            ]\n        return m",
                "rtl.core.csr",
            ),
            Fault(
                "vmxstatus changes without an answer",
                "m.If(self.vmxstatus_write)",
                "m.If(self.vmxstatus_write | self.vmxstatus_next[0])",
                "rtl.core.csr",
            ),
            Fault(
                "fields are written all the time",
                "with m.If(write.valid):\n            number",
                "with m.If(1):\n            number",
                "rtl.core.guest_csr",
            ),
        ),
        fault_depth=5,
    ),
)
