"""What INVEPT and INVVPID ask for (docs/isa/vmx.md#invalidation)."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.paging import PAGE_BITS, VIRTUAL_BITS
from rtl.arch.vmx import instructions
from rtl.arch.vmx.ept import EPTP
from rtl.lib.layouts import enum_of, struct_of
from rtl.mmu.context import Invalidation, World
from rtl.vmx.entry_checks import bad_ept_mode, bad_ept_root

__all__ = ["InvalidationOperands"]

_InveptType = enum_of(instructions.InveptType, width=2)
_InvvpidType = enum_of(instructions.InvvpidType, width=2)
_InvvpidOperand = struct_of(instructions.INVVPID_OPERAND)


class InvalidationOperands(wiring.Component):
    """Check the operands of INVEPT and INVVPID, and say what they name.

    Members
    -------
    first, second : In(64)
        Values of rs1 and rs2.
    invept_bad, invvpid_bad : Out(1)
        VMfailValid(28).
    single_ept : Out(1)
        INVEPT is about the EPT of the operand: the tag is for others to fill in, if it has one.
    invept, invvpid : Out(Invalidation)
    """

    first: In(64)
    second: In(64)
    invept_bad: Out(1)
    invvpid_bad: Out(1)
    single_ept: Out(1)
    invept: Out(Invalidation)
    invvpid: Out(Invalidation)

    def elaborate(self, platform):
        m = Module()
        first, second = self.first, self.second
        single = self.single_ept
        known = first.matches(*(kind.value for kind in _InveptType))
        bad_eptp = (
            (second & ~EPTP.mask() & (1 << 64) - 1).any()
            | bad_ept_mode(second)
            | bad_ept_root(second)
        )
        m.d.comb += [
            single.eq(first == _InveptType.SINGLE_CONTEXT.value),
            self.invept_bad.eq(~known | (single & bad_eptp)),
            self.invept.world.eq(World.NON_ROOT),
            self.invept.any_vpid.eq(1),
            self.invept.match_ept.eq(single),
        ]

        vpid = _InvvpidOperand(first)
        kind = _InvvpidType(vpid.type)
        everything = kind == _InvvpidType.ALL_CONTEXTS
        address = kind == _InvvpidType.INDIVIDUAL_ADDRESS
        sign = second[VIRTUAL_BITS - 1 :]
        m.d.comb += [
            self.invvpid_bad.eq(
                (first & ~instructions.INVVPID_OPERAND.mask() & (1 << 64) - 1).any()
                | ((vpid.vpid == 0) & ~everything)
                | (address & sign.any() & ~sign.all())
            ),
            self.invvpid.world.eq(World.NON_ROOT),
            self.invvpid.vpid.eq(vpid.vpid),
            self.invvpid.any_vpid.eq(everything),
            self.invvpid.match_page.eq(address),
            self.invvpid.page.eq(second[PAGE_BITS:VIRTUAL_BITS]),
            self.invvpid.keep_global.eq(kind == _InvvpidType.SINGLE_CONTEXT_RETAINING_GLOBALS),
        ]
        return m
