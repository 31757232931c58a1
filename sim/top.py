"""The top of every simulation: the SoC, with the RAM model on its memory bus."""

from amaranth import *
from amaranth.back import verilog
from amaranth.lib import wiring
from amaranth.lib.wiring import flipped

from rtl.arch.memory_map import MEMORY_MAP
from sim.verilog import with_narrow_sums, with_registers, with_replications

__all__ = ["SimulationTop", "top_verilog"]

_MEMORY = "memory"
_CLOCK = """`ifndef VMXLAB_CLOCK
`define VMXLAB_CLOCK posedge
`endif
"""


class SimulationTop(wiring.Component):
    """``soc`` with ``memory`` on the RAM model of sim/verilator; its other members are the ports.

    Parameters
    ----------
    soc : wiring.Component
        The SoC, or what stands in for it: needs the member ``memory: Out(Axi4(id_width=1))``.
    ram_latency : int
        Cycles from a read request to its first beat.
    """

    def __init__(self, soc, *, ram_latency):
        self._soc = soc
        self._ram_latency = ram_latency
        super().__init__(
            {
                "clk": wiring.In(1),
                "rst": wiring.In(1),
                **{
                    name: member
                    for name, member in soc.signature.members.items()
                    if name != _MEMORY
                },
            }
        )

    def elaborate(self, platform):
        m = Module()
        # All state depends on the reset. Taken from a register it is no input of that logic, which
        # the simulation would otherwise work out twice in every cycle.
        m.domains.raw = raw = ClockDomain(reset_less=True)
        m.domains.sync = sync = ClockDomain()
        m.d.comb += [raw.clk.eq(self.clk), sync.clk.eq(self.clk)]
        m.d.raw += sync.rst.eq(self.rst)
        m.submodules.soc = soc = self._soc
        for name, member in soc.signature.members.items():
            if name == _MEMORY:
                continue
            inner, outer = getattr(soc, name), getattr(self, name)
            if member.is_signature:
                wiring.connect(m, inner, flipped(outer))
            elif member.flow is wiring.Out:
                m.d.comb += outer.eq(inner)
            else:
                m.d.comb += inner.eq(outer)

        bus = soc.memory
        m.submodules.ram = Instance(
            "vmxlab_ram",
            p_LATENCY=self._ram_latency,
            p_BASE=Const(MEMORY_MAP["ram"].base, 32),
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            i_ar_valid=bus.ar.valid,
            o_ar_ready=bus.ar.ready,
            i_ar_id=bus.ar.payload.id,
            i_ar_address=bus.ar.payload.address,
            i_ar_len=bus.ar.payload.len,
            o_r_valid=bus.r.valid,
            i_r_ready=bus.r.ready,
            o_r_id=bus.r.payload.id,
            o_r_data=bus.r.payload.data,
            o_r_resp=bus.r.payload.resp,
            o_r_last=bus.r.payload.last,
            i_aw_valid=bus.aw.valid,
            o_aw_ready=bus.aw.ready,
            i_aw_id=bus.aw.payload.id,
            i_aw_address=bus.aw.payload.address,
            i_w_valid=bus.w.valid,
            o_w_ready=bus.w.ready,
            i_w_data=bus.w.payload.data,
            i_w_strb=bus.w.payload.strb,
            i_w_last=bus.w.payload.last,
            o_b_valid=bus.b.valid,
            i_b_ready=bus.b.ready,
            o_b_id=bus.b.payload.id,
            o_b_resp=bus.b.payload.resp,
        )
        return m


def top_verilog(top: SimulationTop, name: str) -> str:
    """The top as Verilog: the same text for the same hardware, wherever the sources lie."""
    text = verilog.convert(top, name=name, emit_src=False, strip_internal_attrs=True)
    text = with_registers(text)
    # A process that assigns a constant reads nothing: "always @*" would never run it.
    text = text.replace("always @*", "always_comb")
    text = with_narrow_sums(with_replications(text))
    # The library clocks by both edges: one evaluation per cycle instead of two.
    return _CLOCK + text.replace("@(posedge ", "@(`VMXLAB_CLOCK ")
