"""The configuration of a machine: what is fixed when the RTL is built."""

from dataclasses import asdict, dataclass

__all__ = ["SocConfig"]


@dataclass(frozen=True, kw_only=True)
class SocConfig:
    """Parameters of the SoC; equal configurations give identical RTL.

    Members
    -------
    ram_latency : int
        Cycles from a read request of RAM to its first beat; the others follow one per cycle.
    cycles_per_tick : int
        Cycles per tick of ``mtime``.
    uart_cycles_per_byte : int
        Cycles the UART takes to send or receive one byte.
    device_latency : int
        Cycles from a device-window request to its response.
    cache_size, cache_ways : int
        Bytes and ways of each L1 cache; a way holds at most one page (4096 bytes).
    tlb_entries : int
        Entries of each L1 TLB.

    Raises ValueError on a value that cannot be built.
    """

    ram_latency: int = 12
    cycles_per_tick: int = 10
    uart_cycles_per_byte: int = 16
    device_latency: int = 16
    cache_size: int = 16384
    cache_ways: int = 4
    tlb_entries: int = 8

    def __post_init__(self):
        for name, least in (
            ("ram_latency", 1),
            ("cycles_per_tick", 1),
            ("uart_cycles_per_byte", 1),
            ("device_latency", 1),
            ("tlb_entries", 2),
            ("cache_ways", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value}")
        way = self.cache_size // self.cache_ways
        if way * self.cache_ways != self.cache_size or not 128 <= way <= 4096 or way & way - 1:
            raise ValueError(
                f"cache_size {self.cache_size} in {self.cache_ways} ways: a way must be a power of "
                "two from 128 to 4096 bytes"
            )

    def as_dict(self) -> dict[str, int]:
        return asdict(self)
