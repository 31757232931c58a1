"""AXI4: the memory bus (AMBA AXI Protocol Specification, chapter A2, the signals we use)."""

from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch.memory_map import BUS_ADDRESS_BITS

__all__ = ["DATA_BYTES", "Axi4", "Axi4Read", "Burst", "Response"]

#: Width of the data bus.
DATA_BYTES = 8


class Burst(enum.Enum, shape=2):
    """AxBURST: we use INCR for words and WRAP never."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Response(enum.Enum, shape=2):
    """RRESP and BRESP; the two error responses are access faults to us."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def _address(id_width):
    return data.StructLayout(
        {"id": id_width, "address": BUS_ADDRESS_BITS, "len": 8, "size": 3, "burst": Burst}
    )


class Axi4Read(wiring.Signature):
    """The read half, seen from the initiator: ``ar`` goes out, ``r`` comes back."""

    def __init__(self, *, id_width):
        super().__init__(
            {
                "ar": Out(stream.Signature(_address(id_width))),
                "r": In(
                    stream.Signature(
                        data.StructLayout(
                            {"id": id_width, "data": 8 * DATA_BYTES, "resp": Response, "last": 1}
                        )
                    )
                ),
            }
        )


class Axi4(wiring.Signature):
    """The whole bus, seen from the initiator.

    Parameters
    ----------
    id_width : int
        Width of the transaction identifiers; responses of one identifier keep their order.
    """

    def __init__(self, *, id_width):
        super().__init__(
            {
                **Axi4Read(id_width=id_width).members,
                "aw": Out(stream.Signature(_address(id_width))),
                "w": Out(
                    stream.Signature(
                        data.StructLayout({"data": 8 * DATA_BYTES, "strb": DATA_BYTES, "last": 1})
                    )
                ),
                "b": In(stream.Signature(data.StructLayout({"id": id_width, "resp": Response}))),
            }
        )
