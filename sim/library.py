"""The machine of choice: the Verilated SoC, called as a library."""

from rtl.soc.config import SocConfig
from sim.host_machine import HostPortMachine, MachineConfig
from sim.model import library_file
from sim.verilated import Verilated

__all__ = ["LibraryMachine"]


class LibraryMachine(HostPortMachine):
    """The Verilated SoC with its RAM; several may live side by side.

    The library is built first when it is not in the cache. Raises VmxlabError when it cannot be.

    Parameters
    ----------
    config : SocConfig
    ram_size : int
        Bytes of RAM.
    """

    def __init__(self, config: SocConfig, *, ram_size: int = 64 << 20):
        whole = MachineConfig(**config.as_dict(), ram_size=ram_size)
        super().__init__(
            Verilated(
                library_file(config), ram_size=ram_size, cycles_per_tick=config.cycles_per_tick
            ),
            whole,
        )
