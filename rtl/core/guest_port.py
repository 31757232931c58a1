"""What the VMX unit and the rest of the hart tell each other."""

from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.mmu.context import World
from rtl.vmx.event_exits import EventExit
from rtl.vmx.intercept import ExitReason
from rtl.vmx.mirror import VmcsMirror
from rtl.vmx.ports import VmxAnswer, VmxRequest
from rtl.vmx.saved_state import ExitRecord, SavedFields

__all__ = ["GuestPort", "VmxPort"]


class VmxPort(wiring.Signature):
    """VMX instructions of root M-mode, seen from whoever has them carried out.

    Each ``request`` taken is answered once: ``answered`` strobes, with ``answer``. In the next cycle
    the hart is in the world where it goes on. ``failed``: it was a VMfail. ``saved`` are those of
    the VMX unit.
    """

    def __init__(self):
        super().__init__(
            {
                "on": In(1),
                "world": In(World),
                "saved": In(SavedFields),
                "request": Out(stream.Signature(VmxRequest)),
                "answered": In(1),
                "answer": In(VmxAnswer),
                "failed": In(1),
            }
        )


class GuestPort(wiring.Signature):
    """What the commit stage needs to run a guest, seen from there.

    ``event``, ``exit`` and ``parks`` are those of the VMX unit, ``fields`` the current VMCS.
    ``reads`` and ``writes`` tell in the second cycle of a CSR instruction what it does;
    ``csr_exits`` and ``csr_reason`` answer.
    """

    def __init__(self):
        super().__init__(
            {
                "fields": In(VmcsMirror),
                "event": In(EventExit),
                "reads": Out(1),
                "writes": Out(1),
                "csr_exits": In(1),
                "csr_reason": In(ExitReason),
                "exit": Out(stream.Signature(ExitRecord)),
                "parks": In(1),
            }
        )
