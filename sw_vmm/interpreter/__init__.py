"""The VMM's own interpreter of RV64IMAC with privileged behaviour and Sv39 in software."""

from sw_vmm.interpreter.decode import Decoded, decode
from sw_vmm.interpreter.interpreter import Interpreter, Stop

__all__ = ["Decoded", "Interpreter", "Stop", "decode"]
