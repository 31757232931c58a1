"""Techniques: the ways a guest can be run, by name."""

from collections.abc import Callable

from sw_vmm.charge import ChargeModel
from sw_vmm.errors import UnknownTechnique
from sw_vmm.techniques.interpret import Interpret
from sw_vmm.techniques.native import Native
from sw_vmm.techniques.technique import ExitRow, Technique
from sw_vmm.techniques.trap_emulate import TrapEmulate
from sw_vmm.techniques.vmx_ept import VmxEpt
from sw_vmm.vm import Vm

__all__ = ["TECHNIQUES", "Technique", "make_technique"]

#: Every technique by its name on the command line, in the order tables show them.
TECHNIQUES: dict[str, Callable[..., Technique]] = {
    technique.name: technique for technique in (Native, Interpret, TrapEmulate, VmxEpt)
}


def make_technique(
    name: str,
    vm: Vm,
    charges: ChargeModel,
    on_exit: Callable[[ExitRow], None] | None = None,
    **options,
) -> Technique:
    """The technique of that name for one run of ``vm``. Raises UnknownTechnique.

    ``on_exit`` is called with a row for every exit, once its cycles are known; ``options`` are the
    technique's own.
    """
    if name not in TECHNIQUES:
        raise UnknownTechnique(name, tuple(TECHNIQUES))
    return TECHNIQUES[name](vm, charges, on_exit, **options)
