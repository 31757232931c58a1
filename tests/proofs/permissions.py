"""What page-table entries are and allow, said again from the manual's list of page faults.

Privileged Architecture, "Virtual Address Translation Process".
"""

from types import SimpleNamespace

from amaranth import *

from rtl.arch.paging import LEVELS, PTE, VPN_BITS, Access
from rtl.arch.traps import Privilege
from rtl.mmu.permissions import PteKind
from tests.proofs.properties import Fault, Proof

__all__ = ["PROOFS", "page_faults"]

_UNIT = "rtl.mmu.permissions"


def page_faults(rights, access: Value, context) -> tuple[list[Value], list[Value]]:
    """The reasons for a page fault that a leaf's bits give: those that nobody mends, and A and D.

    With none of them it allows the access.
    """
    read, write, fetch = (access == kind for kind in (Access.READ, Access.WRITE, Access.FETCH))
    user = Value.cast(context.privilege) == Privilege.USER
    return [
        # rights.mxr is R or X, as far as MXR reaches.
        read & ~rights.r & ~(rights.mxr & context.mxr),
        write & ~rights.w,
        fetch & ~rights.x,
        context.paged & user & ~rights.u,
        # "SUM: permit Supervisor User Memory access"; never for fetches.
        context.paged & ~user & rights.u & fetch,
        context.paged & ~user & rights.u & ~context.sum,
    ], [~rights.a, write & ~rights.d]


def _leaf(p, unit_class):
    unit = unit_class()
    p.unit("permission", unit)
    access = unit.access.as_value()
    p.assume(access <= max(Access))
    denied, unmarked = page_faults(unit.rights, access, unit.context)
    p.always(unit.granted == ~Cat(denied).any(), "granted exactly when nothing but A or D faults")
    p.always(
        unit.allowed == ~Cat(denied, unmarked).any(), "allowed exactly when nothing faults (Svade)"
    )


def _second_stage(p, unit_class):
    """Said of the G-stage: every access is one of U-mode, and what MXR does is done before."""
    unit = unit_class()
    p.unit("permission", unit)
    access, bits = unit.access.as_value(), unit.pte.as_value()
    p.assume(access <= max(Access))
    rights = SimpleNamespace(mxr=C(0), **{name: bits[PTE[name].lsb] for name in "rwxuad"})
    guest = SimpleNamespace(privilege=Const(Privilege.USER, 2), paged=C(1), mxr=C(0), sum=C(0))
    denied, unmarked = page_faults(rights, access, guest)
    p.always(unit.granted == ~Cat(denied).any(), "granted exactly when nothing but A or D faults")
    p.always(unit.allowed == ~Cat(denied, unmarked).any(), "allowed exactly when nothing faults")


def _entry(p, unit_class):
    unit = unit_class()
    p.unit("check", unit)
    bits, level = unit.pte.as_value(), unit.level
    p.assume(level < LEVELS)
    v, r, w, x, u, a, d = (bits[PTE[name].lsb] for name in "vrwxuad")
    ppn = bits[PTE["ppn"].lsb :][: PTE["ppn"].width]
    step_3 = ~v | (~r & w) | bits[PTE["ppn"].lsb + PTE["ppn"].width :].any()
    leaf = r | x
    superpage_bits = Signal(range(LEVELS * VPN_BITS))
    p.m.d.comb += superpage_bits.eq(level * VPN_BITS)
    misaligned = (ppn & ((1 << superpage_bits) - 1)).any()
    reserved_in_pointers = d | a | u
    kind = unit.kind.as_value()
    p.always(
        (kind == PteKind.LEAF.value) == (~step_3 & leaf & ~misaligned),
        "a leaf is valid, and aligned to its size",
    )
    p.always(
        (kind == PteKind.POINTER.value) == (~step_3 & ~leaf & (level != 0) & ~reserved_in_pointers),
        "a pointer is valid, without bits of leaves, and not at the last level",
    )
    p.always((kind == PteKind.INVALID.value) == ~v, "an entry that is not valid is nothing else")


PROOFS = (
    Proof(
        "leaf permission",
        f"{_UNIT}:LeafPermission",
        _leaf,
        (
            Fault(
                "S-mode fetches from user pages under SUM", "context.sum & ~fetch", "context.sum"
            ),
            Fault("MXR without the page's X", "eq(rights.a & rights.mxr)", "eq(rights.a)"),
            Fault("writes without D", "rights.a & rights.d & rights.w", "rights.a & rights.w"),
            Fault("A is ignored for fetches", "eq(rights.a & rights.x)", "eq(rights.x)"),
            Fault("A counts as denied", "marked.a.eq(1)", "marked.a.eq(self.rights.a)"),
        ),
        depth=1,
        fault_depth=1,
    ),
    Proof(
        "permission of the second stage",
        f"{_UNIT}:EptPermission",
        _second_stage,
        (
            Fault("guests read what is only executable", "& pte.r)", "& (pte.r | pte.x))"),
            Fault(
                "leaves without U",
                "                pte.u\n                & (",
                "                (",
            ),
            Fault("writes without D", "(~write | pte.d)", "C(1)"),
            Fault(
                "A counts as denied", "                pte.u\n", "                pte.u & pte.a\n"
            ),
            Fault("A is ignored", "self.granted & pte.a &", "self.granted &"),
        ),
        depth=1,
        fault_depth=1,
    ),
    Proof(
        "kind of an entry",
        f"{_UNIT}:PteCheck",
        _entry,
        (
            Fault("one reserved bit less", "paging.PTE_RESERVED)", "(paging.PTE_RESERVED << 1))"),
            Fault("pointers at the last level", "(self.level != 0) & ~(", "~("),
            Fault("misaligned gigapages", "(self.level > k)", "(self.level == k + 1)"),
            Fault("pointers with U", "(pte.d | pte.a | pte.u)", "(pte.d | pte.a)"),
        ),
        depth=1,
        fault_depth=1,
    ),
)
