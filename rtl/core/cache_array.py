"""What both level-one caches are made of: tags, lines, and the choice of the line to replace."""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from rtl.arch.memory_map import BUS_ADDRESS_BITS
from rtl.arch.paging import PAGE_BITS
from rtl.bus.axi4 import DATA_BYTES
from rtl.lib.collisions import COLLISIONS_UNDEFINED

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

    In the cycle after a read, ``hit``, ``data`` and ``line`` speak about what was read; a read in the
    same cycle as a write of the same word gives anything. Without a further read the outputs of the
    memories stay. Validity is never read ahead: ``hit`` follows a drop at once.

    Every line is invalid after reset or ``drop_all``, once ``swept`` says so; until then nothing may
    be read.

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
        ``drop_set`` comes with it. Before ``swept`` the line may be lost again.
    drop : In
        Ways whose line becomes invalid.
    drop_set, drop_offset : In
        Drop all ways of the set at ``drop_offset``; ``keep`` and ``drop`` have no effect then.
    drop_all : In
        Drop everything.
    valid : Out
        Ways that hold a line of this set.
    swept : Out
        No ``drop_all`` is under way; one takes a cycle per set.
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
                "valid": Out(ways),
                "swept": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        geometry = self._geometry
        this_set = geometry.set_of(self.offset)
        wanted = geometry.tag_of(self.offset, self.frame)
        tags, words = [], []
        for way in range(geometry.ways):
            # Few rows, but the multiplexers of distributed RAM cost more than a block RAM.
            m.submodules[f"tags_{way}"] = tag_rows = memory.Memory(
                shape=unsigned(geometry.tag_width),
                depth=geometry.set_count,
                init=(),
                attrs={"ram_style": "block", **COLLISIONS_UNDEFINED},
            )
            tag_read, tag_write = tag_rows.read_port(), tag_rows.write_port()
            m.submodules[f"words_{way}"] = rows = memory.Memory(
                shape=unsigned(8 * DATA_BYTES),
                depth=geometry.set_count * LINE_WORDS,
                init=(),
                attrs=COLLISIONS_UNDEFINED,
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
            m.d.comb += self.hit[way].eq(self.valid[way] & (tag_read.data == wanted))
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

        # A row of validity bits per set. What happens to a set goes before the sweep.
        m.submodules.valid_rows = valid_rows = memory.Memory(
            shape=unsigned(geometry.ways), depth=geometry.set_count, init=()
        )
        valid_read, valid_write = valid_rows.read_port(domain="comb"), valid_rows.write_port()
        sweeping, sweep_set = Signal(init=1), Signal(geometry.set_width)
        changes = self.drop_set | self.keep.any() | self.drop.any()
        m.d.comb += [
            valid_read.addr.eq(this_set),
            self.valid.eq(valid_read.data),
            self.swept.eq(~sweeping),
            valid_write.en.eq(sweeping | changes),
            valid_write.addr.eq(
                Mux(
                    self.drop_set,
                    geometry.set_of(self.drop_offset),
                    Mux(changes, this_set, sweep_set),
                )
            ),
            valid_write.data.eq(
                Mux(changes & ~self.drop_set, (self.valid & ~self.drop) | self.keep, 0)
            ),
        ]
        with m.If(sweeping & ~changes):
            m.d.sync += [sweep_set.eq(sweep_set + 1), sweeping.eq(~sweep_set.all())]
        with m.If(self.drop_all):
            m.d.sync += [sweep_set.eq(0), sweeping.eq(1)]

        turn = Signal(geometry.ways, init=1)
        with m.If(self.keep.any()):
            m.d.sync += turn.eq(turn.rotate_left(1))
        free = Signal(geometry.ways)
        m.d.comb += [
            free.eq(~self.valid),
            self.victim.eq(Mux(free.any(), free & -free, turn)),
        ]
        return m
