"""VM-execution and VM-exit controls, and which of them may be set.

A control word must have every bit that is required, and no bit that is not allowed. What is
allowed is the capability of the hart, narrowed by a mask software writes: with it one bitstream
plays any generation of the extension.
"""

from dataclasses import dataclass

from rtl.arch.layout import Field, Layout

__all__ = ["CONTROL_WORDS", "Control", "ControlWord"]


@dataclass(frozen=True)
class Control:
    """One bit. ``allowed``: this revision implements it; ``required``: it must be set;
    ``needs`` names controls of the execution word that must be set with it.
    """

    name: str
    bit: int
    text: str
    allowed: bool = True
    required: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ControlWord:
    """The controls of one VMCS field."""

    name: str
    controls: tuple[Control, ...]

    @property
    def layout(self) -> Layout:
        fields = (Field(row.name, row.bit, 1, row.text) for row in self.controls)
        return Layout(self.name, 64, tuple(fields))

    @property
    def allowed(self) -> int:
        """Bits that may be set, when the mask does not narrow them."""
        return sum(1 << row.bit for row in self.controls if row.allowed)

    @property
    def required(self) -> int:
        """Bits that must be set."""
        return sum(1 << row.bit for row in self.controls if row.required)


# fmt: off
_EXECUTION = ControlWord("execution_controls", (
    Control("external_interrupt_exiting", 0, "A root interrupt that is pending and enabled exits."),
    Control("interrupt_window_exiting", 1, "Exit as soon as the guest could take an interrupt of "
            "the window mask."),
    Control("wfi_exiting", 2, "wfi exits."),
    Control("sfence_vma_exiting", 3, "sfence.vma exits."),
    Control("satp_write_exiting", 4, "A write of satp exits."),
    Control("time_read_exiting", 5, "A read of time exits."),
    Control("counter_read_exiting", 6, "A read of cycle, instret or an hpmcounter exits."),
    Control("use_csr_bitmap", 7, "Accesses exit as the CSR bitmaps say; otherwise none do."),
    Control("use_time_scale", 8, "Guest time runs at the rate of the field time_scale."),
    Control("preemption_timer", 9, "The preemption timer counts and exits."),
    Control("enable_vpid", 10, "Translations are tagged with the VPID and outlive exits."),
    Control("enable_ept", 11, "Guest-physical addresses are translated by the EPT.", required=True),
    Control("unrestricted_guest", 12, "Guest M-mode and Bare use guest-physical addresses.",
            required=True, needs=("enable_ept",)),
    Control("monitor_trap_flag", 13, "Exit after one instruction.", allowed=False),
    Control("pause_exiting", 14, "pause exits.", allowed=False),
    Control("pause_loop_exiting", 15, "pause in a short loop exits.", allowed=False),
    Control("trap_loop_exiting", 16, "A trap that repeats without progress exits.", allowed=False),
    Control("satp_targets", 17, "Writes of satp with a value of the target list do not exit.",
            allowed=False, needs=("satp_write_exiting",)),
    Control("enable_pml", 18, "The gpa of a page whose D is set is logged.", allowed=False,
            needs=("enable_ept",)),
    Control("enable_vmfunc", 19, "VMFUNC may be used.", allowed=False),
    Control("ept_violation_exception", 20, "Convertible EPT violations become exceptions.",
            allowed=False, needs=("enable_ept",)),
    Control("virtual_interrupts", 21, "The guest's interrupt file is virtual.", allowed=False),
    Control("vmcs_shadowing", 22, "VMREAD and VMWRITE of the guest use a shadow VMCS.",
            allowed=False),
    Control("shadow_ad", 23, "A and D of shadow tables are set by the hart.", allowed=False),
))
_EXIT = ControlWord("exit_controls", (
    Control("save_preemption_timer", 0, "What is left of the preemption timer is saved."),
))
# fmt: on

#: By the name of their VMCS field.
CONTROL_WORDS = {word.name: word for word in (_EXECUTION, _EXIT)}
