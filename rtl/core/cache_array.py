"""What both level-one caches are made of: tags, lines, and the choice of the line to replace."""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.arch.memory_map import BUS_ADDRESS_BITS
from rtl.arch.paging import PAGE_BITS
from rtl.bus.axi4 import DATA_BYTES

__all__ = ["FRAME_BITS", "LINE_BYTES", "LINE_WORDS", "OFFSET_BITS", "CacheArray", "CacheGeometry"]

#: Bytes and bus words of a line.
LINE_BYTES = 64
LINE_WORDS = LINE_BYTES // DATA_BYTES
#: Bits of an address within its page, and of the page's number on the bus.
OFFSET_BITS = PAGE_BITS
FRAME_BITS = BUS_ADDRESS_BITS - OFFSET_BITS

_WORD = exact_log2(DATA_BYTES)
_LINE = exact_log2(LINE_BYTES)


@dataclass(frozen=True, kw_only=True)
class CacheGeometry:
    """How a cache of ``size`` bytes in ``ways`` ways takes an address apart.

    Raises ValueError unless a way is a power of two, at least two lines and at most one page.
    """

    size: int
    ways: int

    def __post_init__(self):
        way = self.size // self.ways if self.ways > 0 else 0
        if (
            way * self.ways != self.size
            or not 2 * LINE_BYTES <= way <= 1 << OFFSET_BITS
            or way & way - 1
        ):
            raise ValueError(
                f"{self.size} bytes in {self.ways} ways: a way must be a power of two from "
                f"{2 * LINE_BYTES} to {1 << OFFSET_BITS} bytes"
            )

    @property
    def set_count(self) -> int:
        return self.size // self.ways // LINE_BYTES

    @property
    def set_width(self) -> int:
        return exact_log2(self.set_count)

    @property
    def tag_width(self) -> int:
        return BUS_ADDRESS_BITS - _LINE - self.set_width

    def word_of(self, offset):
        """The word within the line."""
        return offset[_WORD:_LINE]

    def set_of(self, offset):
        return offset[_LINE : _LINE + self.set_width]

    def tag_of(self, offset, frame):
        """What the set does not say about the line: the frame, below it what is left of
        the page offset when a way is smaller than a page.
        """
        return Cat(offset[_LINE + self.set_width :], frame)


class CacheArray(wiring.Component):
    """Read a set in one cycle, compare and choose in the next.

    Every line is invalid after reset. In the cycle after a read, ``hit``, ``data`` and ``line``
    speak about what was read; a read in the same cycle as a write of the same word gives the old
    word. Without a further read the outputs of the memories stay. Validity is never read ahead:
    ``hit`` follows a drop at once.

    Parameters
    ----------
    geometry : CacheGeometry

    Members
    -------
    read_offset, read_tags, read_data : In
        Page offset to read at the end of this cycle, and what of it.
    offset, frame : In
        The address compared in this cycle; it also says which set the inputs below speak about.
    hit : Out
        The way that holds that line, one-hot, or zero.
    victim : Out
        The way to replace: an invalid one, else all in turn; one-hot.
    select : In
        The way ``data`` and ``line`` (the line's bus address bits 31:6) show, one-hot.
    write_ways, write_word, write_data : In
        Write a whole word of the set: block RAM is cheapest without byte enables.
    keep : In
        The way that holds the line at ``frame``, ``offset`` from the next cycle on, unless
        ``drop_set`` or ``drop_all`` comes with it.
    drop : In
        Ways whose line becomes invalid.
    drop_set, drop_offset : In
        Drop all ways of the set at ``drop_offset``; ``keep`` and ``drop`` have no effect then.
    drop_all : In
        Drop everything.
    """

    def __init__(self, *, geometry):
        self._geometry = geometry
        ways = geometry.ways
        word = 8 * DATA_BYTES
        super().__init__(
            {
                "read_offset": In(OFFSET_BITS),
                "read_tags": In(1),
                "read_data": In(1),
                "offset": In(OFFSET_BITS),
                "frame": In(FRAME_BITS),
                "hit": Out(ways),
                "victim": Out(ways),
                "select": In(ways),
                "data": Out(word),
                "line": Out(BUS_ADDRESS_BITS - _LINE),
                "write_ways": In(ways),
                "write_word": In(exact_log2(LINE_WORDS)),
                "write_data": In(word),
                "keep": In(ways),
                "drop": In(ways),
                "drop_set": In(1),
                "drop_offset": In(OFFSET_BITS),
                "drop_all": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        geometry = self._geometry
        this_set = geometry.set_of(self.offset)
        wanted = geometry.tag_of(self.offset, self.frame)
        changed = Signal(geometry.set_count)
        m.d.comb += changed.eq(1 << Mux(self.drop_set, geometry.set_of(self.drop_offset), this_set))

        valid_here, tags, words = [], [], []
        for way in range(geometry.ways):
            # Few rows, but the multiplexers of distributed RAM cost more than a block RAM.
            m.submodules[f"tags_{way}"] = tag_rows = memory.Memory(
                shape=unsigned(geometry.tag_width),
                depth=geometry.set_count,
                init=(),
                attrs={"ram_style": "block"},
            )
            tag_read, tag_write = tag_rows.read_port(), tag_rows.write_port()
            m.submodules[f"words_{way}"] = rows = memory.Memory(
                shape=unsigned(8 * DATA_BYTES), depth=geometry.set_count * LINE_WORDS, init=()
            )
            read, write = rows.read_port(), rows.write_port()
            m.d.comb += [
                tag_read.addr.eq(geometry.set_of(self.read_offset)),
                tag_read.en.eq(self.read_tags),
                tag_write.addr.eq(this_set),
                tag_write.data.eq(wanted),
                tag_write.en.eq(self.keep[way]),
                read.addr.eq(
                    Cat(geometry.word_of(self.read_offset), geometry.set_of(self.read_offset))
                ),
                read.en.eq(self.read_data),
                write.addr.eq(Cat(self.write_word, this_set)),
                write.data.eq(self.write_data),
                write.en.eq(self.write_ways[way]),
            ]
            valid = Signal(geometry.set_count, name=f"valid_{way}")
            with m.If(self.drop_all):
                m.d.sync += valid.eq(0)
            with m.Elif(self.drop_set | self.keep[way] | self.drop[way]):
                kept = self.keep[way] & ~self.drop_set
                m.d.sync += valid.eq(valid & ~changed | changed & kept.replicate(len(changed)))
            valid_here.append((valid >> this_set)[0])
            m.d.comb += self.hit[way].eq(valid_here[way] & (tag_read.data == wanted))
            selected = self.select[way]
            words.append(read.data & selected.replicate(len(read.data)))
            tags.append(tag_read.data & selected.replicate(geometry.tag_width))

        line_tag = tags[0]
        for way in range(1, geometry.ways):
            line_tag = line_tag | tags[way]
        data_word = words[0]
        for word in words[1:]:
            data_word = data_word | word
        m.d.comb += [self.data.eq(data_word), self.line.eq(Cat(this_set, line_tag))]

        turn = Signal(geometry.ways, init=1)
        with m.If(self.keep.any()):
            m.d.sync += turn.eq(turn.rotate_left(1))
        free = Signal(geometry.ways)
        m.d.comb += [
            free.eq(~Cat(valid_here)),
            self.victim.eq(Mux(free.any(), free & -free, turn)),
        ]
        return m
