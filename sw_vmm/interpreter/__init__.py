"""The VMM's own interpreter: RV64IMAC, Zba, Zbb, Zbs, privileged behaviour, Sv39 in software."""

from sw_vmm.interpreter.decode import Decoded, decode
from sw_vmm.interpreter.interpreter import Interpreter, Stop

__all__ = ["Decoded", "Interpreter", "Stop", "decode"]
