"""Random bare programs, drawn by seed, that drive the RTL and the golden model side by side."""

from sim.random_programs.profiles import PROFILES
from sim.random_programs.program import HostWrites, RandomProgram, Span, generate

__all__ = ["PROFILES", "HostWrites", "RandomProgram", "Span", "generate"]
