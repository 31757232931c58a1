"""The Supervisor Binary Interface, answered by the VMM for guests that start in S-mode."""

from sw_vmm.sbi.calls import (
    Answer,
    Error,
    Extension,
    HartState,
    HartStop,
    HartSuspend,
    Reset,
    ResetReason,
    ResetType,
)
from sw_vmm.sbi.sbi import Sbi, SbiPlatform

__all__ = [
    "Answer",
    "Error",
    "Extension",
    "HartState",
    "HartStop",
    "HartSuspend",
    "Reset",
    "ResetReason",
    "ResetType",
    "Sbi",
    "SbiPlatform",
]
