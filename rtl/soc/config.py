"""The configuration of a machine: what is fixed when the RTL is built."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

__all__ = ["CONFIGURATIONS", "SocConfig", "configurations_markdown"]


def _number(default: int, least: int, most: int, text: str, *, power: bool = False):
    """A whole number from ``least`` to ``most``, with ``power`` a power of two."""
    values = {"least": least, "most": most, "power": power, "text": text, "hart": False}
    return field(default=default, metadata=values)


def _switch(default: bool, text: str):
    return field(default=default, metadata={"text": text, "hart": False})


def _hart(member):
    """A parameter of the hart."""
    return field(default=member.default, metadata={**member.metadata, "hart": True})


# fmt: off
@dataclass(frozen=True, kw_only=True)
class SocConfig:
    """Parameters of the SoC; equal configurations give identical RTL.

    Members are described where they stand; the defaults are the configuration ``full``. Raises
    ValueError, with one line, on a value that cannot be built.
    """

    ram_latency: int = _number(12, 1, 1000, "Cycles from a read request of RAM to its first beat; the others follow one per cycle.")
    cycles_per_tick: int = _number(10, 1, 1000, "Cycles per tick of `mtime`.")
    uart_cycles_per_byte: int = _number(16, 1, 65536, "Cycles the UART takes to send or receive one byte.")
    device_latency: int = _number(16, 1, 1000, "Cycles from a device-window request to its response.")
    cache_size: int = _hart(_number(16384, 128, 65536, "Bytes of each L1 cache."))
    cache_ways: int = _hart(_number(4, 1, 16, "Ways of each L1 cache; each is a power of two from 128 bytes to a page."))
    tlb_entries: int = _hart(_number(8, 2, 64, "Entries of each L1 TLB."))
    shared_tlb_entries: int = _hart(_number(512, 8, 4096, "Entries of the L2 TLB.", power=True))
    walk_cache_entries: int = _hart(_number(4, 1, 16, "Entries of each cache of the page walker."))
    branch_targets: int = _hart(_number(512, 16, 4096, "Packets whose jump or branch the predictor remembers.", power=True))
    branch_counters: int = _hart(_number(2048, 256, 16384, "Rows of each table of branch directions.", power=True))
    indirect_targets: int = _hart(_number(512, 16, 4096, "Targets of jumps through registers the predictor remembers.", power=True))
    bit_manipulation: bool = _hart(_switch(True, "The extensions Zba, Zbb and Zbs."))
    vmx: bool = _hart(_switch(False, "The virtualization extension."))
# fmt: on

    def __post_init__(self):
        for member in fields(SocConfig):
            name, value = member.name, getattr(self, member.name)
            # To Python a bool is an int.
            if type(value) is not member.type:
                raise ValueError(f"{name} must be of type {member.type.__name__}, not {value!r}")
            if member.type is int and not _is_within(value, member.metadata):
                raise ValueError(f"{name} must be {_values(member)}, not {value}")
        way = self.cache_size // self.cache_ways
        if way * self.cache_ways != self.cache_size or not 128 <= way <= 4096 or way & way - 1:
            raise ValueError(
                f"cache_size {self.cache_size} in {self.cache_ways} ways: a way must be a power of "
                "two from 128 to 4096 bytes"
            )

    def as_dict(self) -> dict[str, int | bool]:
        """The members of ``SocConfig``, and those of no class made from it."""
        return {member.name: getattr(self, member.name) for member in fields(SocConfig)}

    @property
    def name(self) -> str | None:
        """Its name in ``CONFIGURATIONS``, None when it has none."""
        own = self.as_dict()
        return next((name for name, row in CONFIGURATIONS.items() if row.as_dict() == own), None)

    @property
    def hart(self) -> dict[str, int | bool]:
        """The parameters of ``rtl.core.hart.Hart``."""
        return {
            member.name: getattr(self, member.name)
            for member in fields(SocConfig)
            if member.metadata["hart"]
        }


def _is_within(value: int, metadata: Mapping) -> bool:
    whole = metadata["least"] <= value <= metadata["most"]
    return whole and not (metadata["power"] and value & value - 1)


def _values(member) -> str:
    if member.type is bool:
        return "true or false"
    kind = "a power of two" if member.metadata["power"] else "a whole number"
    return f"{kind} from {member.metadata['least']} to {member.metadata['most']}"


#: The named configurations: ``full`` is the default, ``small`` is for a small FPGA, ``vmx`` is ``full``
#: with the virtualization extension.
CONFIGURATIONS = {
    "full": SocConfig(),
    "small": SocConfig(
        cache_size=4096,
        cache_ways=2,
        tlb_entries=4,
        shared_tlb_entries=64,
        walk_cache_entries=2,
        branch_targets=64,
        branch_counters=256,
        indirect_targets=64,
        bit_manipulation=False,
    ),
    "vmx": SocConfig(vmx=True),
}


def configurations_markdown() -> str:
    """The table of the manual."""
    names = " | ".join(f"`{name}`" for name in CONFIGURATIONS)
    lines = [f"| member | {names} | values | meaning |", "|---|" + "---|" * (len(CONFIGURATIONS) + 2)]
    for member in fields(SocConfig):
        set_to = " | ".join(
            str(getattr(row, member.name)).lower() for row in CONFIGURATIONS.values()
        )
        lines.append(
            f"| `{member.name}` | {set_to} | {_values(member)} | {member.metadata['text']} |"
        )
    return "\n".join(lines) + "\n"
