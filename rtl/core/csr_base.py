"""What the CSR files of both worlds share: CSR instructions, interrupts, trap entry and return."""

from collections.abc import Mapping

from amaranth import *
from amaranth.hdl import ValueLike
from amaranth.lib import data, enum, memory, wiring
from amaranth.lib.wiring import In, Out

from rtl.arch import csrs
from rtl.arch.csrs import CSRS, MENVCFG, MSTATUS, MSTATUS_CONSTANT, SATP, SSTATUS_FIELDS
from rtl.arch.paging import SatpMode
from rtl.arch.traps import INTERRUPT_BIT, Interrupt
from rtl.core.counter_bank import CounterBank
from rtl.core.traps import InterruptSelect, Trap
from rtl.mmu.context import Privilege, TranslationContext

__all__ = ["CsrFileBase", "CsrOperation", "CsrRequest", "counter_row", "memory_row", "rows_of"]

#: Bits that tell the numbers of the CSRs in memory apart. Bit 9 is set in those of M-mode's.
_ROW_BITS = (0, 1, 6, 9)
_STATUS_WRITABLE = (
    "sie", "mie", "spie", "mpie", "spp", "mpp", "mprv", "sum", "mxr", "tvm", "tw", "tsr",
)  # fmt: skip


def counter_row(name: str) -> int:
    """The counter's row: what its number ends in."""
    return CSRS[name].number & 0xF


def rows_of(bits: Mapping[str, ValueLike]) -> Value:
    """A word with each counter's bit at its row, all at once: simulation is slow at single bits."""
    by_row = {counter_row(name): bit for name, bit in bits.items()}
    return Cat(by_row.get(row, C(0, 1)) for row in range(max(by_row) + 1))


def memory_row(number):
    """The row of a CSR that is kept in memory, by its number."""
    return Cat(number[bit] for bit in _ROW_BITS)


def _trap_row(name, to_machine):
    """The row of M-mode's or S-mode's CSR, given the name of the latter."""
    return memory_row(Cat(Const(CSRS[name].number, 9), to_machine))


class CsrOperation(enum.Enum, shape=2):
    """funct3[1:0] of the Zicsr instructions."""

    NONE = 0
    WRITE = 1
    SET = 2
    CLEAR = 3


class CsrRequest(data.Struct):
    """One CSR instruction; ``writes`` is 0 for csrrs and csrrc with x0 or a zero immediate.

    ``host`` marks an access of the host port, which has M's rights whatever the privilege.
    """

    valid: 1
    number: 12
    operation: CsrOperation
    writes: 1
    host: 1
    operand: 64


class CsrFileBase(wiring.Component):
    """Hold the CSRs of one world; serve CSR instructions, traps and trap returns.

    A CSR instruction takes two cycles: ``request.valid`` in the first; in the second ``value`` and
    ``illegal`` answer, and ``write`` (with ``illegal`` 0) makes the write happen at the end of it.
    ``trap_valid`` enters a trap at the end of the cycle; ``trap_vector`` and ``trap_to_machine``
    say in that cycle where to. ``ret_valid`` returns by mret, or sret with ``ret_supervisor``;
    ``ret_pc`` is right in a cycle without ``request.valid`` and ``trap_valid``. In the cycle after a
    trap ``trap`` is still the same, and nothing is requested, written or entered.

    A subclass says what drives mip (``_drive``) and which counters count (``_counts``), and may have
    more CSRs, or show and write them in another way.

    Members
    -------
    privilege_write, privilege_next : In(1), In(Privilege)
        The host sets the privilege.
    time : In(64)
        What the CSR time reads and timers compare with.
    advance : In(1)
        This cycle counts in mcycle.
    retired : In(1)
        An instruction retires: counts in minstret, unless that very instruction writes it.
    interrupt, interrupt_code, wake :
        What was pending and enabled two cycles before. Whatever changes that from inside the
        hart comes with a redirect.
    fetch_context, data_context : Out(TranslationContext)
        Context of fetches, and of loads and stores (mstatus.MPRV applied).
    cleared : Out(1)
        CSRs may be read and written, from some cycles after reset on.
    """

    request: In(CsrRequest)
    write: In(1)
    value: Out(64)
    illegal: Out(1)

    trap_valid: In(1)
    trap: In(Trap)
    trap_pc: In(64)
    trap_vector: Out(64)
    trap_to_machine: Out(1)

    ret_valid: In(1)
    ret_supervisor: In(1)
    ret_pc: Out(64)

    privilege: Out(Privilege, init=Privilege.MACHINE)
    privilege_write: In(1)
    privilege_next: In(Privilege)
    tvm: Out(1)
    tw: Out(1)
    tsr: Out(1)
    fetch_context: Out(TranslationContext)
    data_context: Out(TranslationContext)
    cleared: Out(1)

    time: In(64)
    advance: In(1)
    retired: In(1)
    interrupt: Out(1)
    interrupt_code: Out(6)
    wake: Out(1)

    #: The CSRs there are.
    _csrs = CSRS
    #: CSRs that are just bits: those outside ``writable`` read zero.
    _plain_names = (
        "scounteren", "senvcfg", "scause", "stimecmp", "medeleg", "mideleg", "mie", "mcounteren",
        "menvcfg", "mcountinhibit", "mcause",
    )  # fmt: skip
    #: CSRs like these of which at most one is read and one is written per cycle: rows of a memory.
    _row_names = (
        "stvec", "sscratch", "sepc", "stval", "mtvec", "mscratch", "mepc", "mtval",
    )  # fmt: skip
    #: Counters that count.
    _counter_names = ("cycle", "instret")

    def elaborate(self, platform):
        m = Module()
        self._status = {
            name: Signal(MSTATUS[name].width, name=f"status_{name}") for name in _STATUS_WRITABLE
        }
        self._plain = {
            name: Signal(64, name=name, init=self._csrs[name].reset) for name in self._plain_names
        }
        self._satp = Signal(64, name="satp")
        m.submodules.counters = self._counters = CounterBank(
            rows=map(counter_row, self._counter_names)
        )
        m.submodules.rows = rows = memory.Memory(shape=64, depth=1 << len(_ROW_BITS), init=[])
        self._read, self._write = rows.read_port(domain="comb"), rows.write_port()
        # The CSR that is written, decoded with its read.
        names = [name for name, csr in self._csrs.items() if csr.writable]
        self._chosen = Signal(len(names))
        self._written = dict(zip(names, self._chosen, strict=True))
        # The bits of mip software can set.
        self._ssip, self._stip, self._seip = Signal(), Signal(), Signal()
        self._pending = Signal(64)
        # What a CSR instruction writes.
        self._new = Signal(64, name="new")

        m.d.comb += [
            self.tvm.eq(self._status["tvm"]),
            self.tw.eq(self._status["tw"]),
            self.tsr.eq(self._status["tsr"]),
        ]
        self._interrupts(m)
        self._contexts(m)
        self._clear(m)
        self._count(m)
        self._access(m)
        self._traps(m)
        with m.If(self.privilege_write):
            m.d.sync += self.privilege.eq(self.privilege_next)
        return m

    # Views.

    def _mstatus(self, names=None):
        """mstatus or, given ``names``, the part of it they make up."""
        bits = [Const(MSTATUS_CONSTANT >> bit & 1, 1) for bit in range(64)]
        for name, signal in self._status.items():
            field = MSTATUS[name]
            bits[field.lsb : field.lsb + field.width] = list(signal)
        if names is not None:
            visible = MSTATUS.mask(*names)
            bits = [bit if visible >> n & 1 else Const(0, 1) for n, bit in enumerate(bits)]
        return Cat(*bits)

    def _interrupts(self, m):
        stce = self._plain["menvcfg"][MENVCFG["stce"].lsb]
        due = Signal()
        m.d.sync += due.eq(self.time >= self._plain["stimecmp"])
        bits = [Const(0, 1)] * 64
        bits[Interrupt.SUPERVISOR_SOFTWARE] = self._ssip
        bits[Interrupt.SUPERVISOR_TIMER] = Mux(stce, due, self._stip)
        bits[Interrupt.SUPERVISOR_EXTERNAL] = self._seip
        self._drive(m, bits)
        m.d.comb += self._pending.eq(Cat(*bits))
        m.submodules.select = select = InterruptSelect()
        m.d.comb += [
            select.pending.eq(self._pending),
            select.enabled.eq(self._plain["mie"]),
            select.delegated.eq(self._plain["mideleg"]),
            select.privilege.eq(self.privilege),
            select.mie.eq(self._status["mie"]),
            select.sie.eq(self._status["sie"]),
        ]
        m.d.sync += [
            self.interrupt.eq(select.valid),
            self.interrupt_code.eq(select.code),
            self.wake.eq(select.wake),
        ]

    def _drive(self, m, bits):
        """Put into ``bits`` what drives those of mip besides software and stimecmp."""
        raise NotImplementedError

    def _contexts(self, m):
        layout = SATP
        root = self._satp[: layout["ppn"].width]
        asid = self._satp[layout["asid"].lsb : layout["asid"].msb + 1]
        mode = self._satp[layout["mode"].lsb : layout["mode"].msb + 1]
        effective = Signal(Privilege)
        m.d.comb += effective.eq(self.privilege)
        with m.If(self._status["mprv"]):
            m.d.comb += effective.eq(self._status["mpp"])
        for context, privilege in (
            (self.fetch_context, self.privilege),
            (self.data_context, effective),
        ):
            m.d.comb += [
                context.asid.eq(asid),
                context.root.eq(root),
                context.privilege.eq(privilege),
                context.sum.eq(self._status["sum"]),
                context.mxr.eq(self._status["mxr"]),
                context.adue.eq(self._plain["menvcfg"][MENVCFG["adue"].lsb]),
                context.paged.eq((privilege != Privilege.MACHINE) & (mode == SatpMode.SV39)),
            ]

    def _clear(self, m):
        # The bank clears its rows after reset, and those of the other memories go with them.
        self._clear_row, self._clearing = Signal(len(_ROW_BITS)), Signal(init=1)
        m.d.sync += self._clear_row.eq(self._clear_row + 1)
        with m.If(self._clear_row.all()):
            m.d.sync += self._clearing.eq(0)
        m.d.comb += self.cleared.eq(self._counters.cleared & ~self._clearing)

    def _count(self, m):
        m.d.comb += self._counters.count.eq(rows_of(self._counts()))

    def _counts(self):
        """By counter, whether it counts one at the end of this cycle."""
        inhibit = self._plain["mcountinhibit"]
        return {"cycle": self.advance & ~inhibit[0], "instret": self.retired & ~inhibit[2]}

    # CSR instructions.

    def _views(self):
        """What CSRs read, by name; those with storage of their own in a memory not among them."""
        return {
            "mstatus": self._mstatus(),
            "sstatus": self._mstatus(SSTATUS_FIELDS),
            "satp": self._satp,
            "mip": self._pending,
            "sip": self._pending & self._plain["mideleg"],
            "sie": self._plain["mie"] & self._plain["mideleg"],
            "misa": Const(csrs.MISA_VALUE, 64),
            "time": self.time,
            **self._plain,
        }

    def _reads(self, m):
        """(the CSR is read at the end of this cycle, its number)"""
        return self.request.valid, self.request.number

    def _kept(self):
        """What csrrs and csrrc write back of mip besides what they set and clear: by bit what
        stands for it, and the CSRs this is about.
        """
        # The line of the interrupt controller is no part of it.
        return {Interrupt.SUPERVISOR_EXTERNAL: self._seip}, ("mip",)

    def _access(self, m):
        request = self.request
        reads, number = self._reads(m)
        value, exists = Signal(64), Signal()
        supervisor = self.privilege == Privilege.SUPERVISOR
        machine = (self.privilege == Privilege.MACHINE) | request.host

        views = self._views()
        counters = [*self._counter_names, *(f"m{name}" for name in self._counter_names)]
        named = {*views, *self._row_names}
        others = [csr.number for name, csr in self._csrs.items() if name not in named]
        shown = [((name,), view) for name, view in views.items()]
        with m.If(reads), m.Switch(number):
            for names, view in (*shown, (self._row_names, self._read.data)):
                with m.Case(*(self._csrs[name].number for name in names)):
                    m.d.comb += [value.eq(view), exists.eq(1)]
            with m.Case(*others):
                m.d.comb += exists.eq(1)

        refused = Signal()
        level = number[8:10]
        enabled = self._plain["mcounteren"].bit_select(number[:5], 1)
        enabled_user = self._plain["scounteren"].bit_select(number[:5], 1)
        timer = CSRS["stimecmp"].number
        stce = self._plain["menvcfg"][MENVCFG["stce"].lsb]
        with m.If(~machine):
            m.d.comb += refused.eq(
                (level > self.privilege.as_value())
                | ((number[5:] == 0xC00 >> 5) & ~(enabled & (supervisor | enabled_user)))
                | ((number == CSRS["satp"].number) & self._status["tvm"])
                | ((number == timer) & ~(stce & self._plain["mcounteren"][1]))
            )
        # Counters come out of their adder too late to be chosen from in the same cycle.
        result, total, counts = Signal(64), Signal(64), Signal()
        kept, keeping = self._kept()
        held, keeps = Signal(len(kept)), Signal()
        operation, operand, written = Signal(CsrOperation), Signal(64), Signal(12)
        bad = Signal()
        with m.If(reads):
            m.d.sync += [
                result.eq(value),
                total.eq(self._counters.value),
                counts.eq(number.matches(*(self._csrs[name].number for name in counters))),
                held.eq(Cat(kept.values())),
                keeps.eq(number.matches(*(self._csrs[name].number for name in keeping))),
                bad.eq(~exists | refused | (request.writes & (number[10:] == 3))),
                operation.eq(request.operation),
                operand.eq(request.operand),
                written.eq(number),
                self._chosen.eq(Cat(number == self._csrs[name].number for name in self._written)),
            ]
        new, base = self._new, Signal(64)
        m.d.comb += [self.value.eq(Mux(counts, total, result)), base.eq(self.value)]
        with m.If(keeps):
            m.d.comb += [base[bit].eq(held[n]) for n, bit in enumerate(kept)]
        with m.Switch(operation):
            with m.Case(CsrOperation.SET):
                m.d.comb += new.eq(base | operand)
            with m.Case(CsrOperation.CLEAR):
                m.d.comb += new.eq(base & ~operand)
            with m.Default():
                m.d.comb += new.eq(operand)
        m.d.comb += self.illegal.eq(bad)
        self._share(m, reads, number, written)
        with m.If(self.write & ~bad):
            self._writes(m, new)

    def _share(self, m, reads, number, written):
        """Address what is kept in memories: a CSR instruction's write, its read, or a trap."""
        read, write, new = self._read, self._write, self._new
        with m.If(reads):
            m.d.comb += read.addr.eq(memory_row(number))
        with m.Elif(self.trap_valid):
            m.d.comb += read.addr.eq(_trap_row("stvec", self.trap_to_machine))
        with m.Else():
            m.d.comb += read.addr.eq(_trap_row("sepc", ~self.ret_supervisor))
        # A trap writes its pc, and in the cycle after it its value.
        trapped, machine = Signal(), Signal()
        m.d.sync += [trapped.eq(self.trap_valid), machine.eq(self.trap_to_machine)]
        with m.If(self._clearing):
            m.d.comb += [write.en.eq(1), write.addr.eq(self._clear_row)]
        with m.Elif(self.trap_valid):
            m.d.comb += [
                write.en.eq(1),
                write.addr.eq(_trap_row("sepc", self.trap_to_machine)),
                write.data.eq(self.trap_pc),
            ]
        with m.Elif(trapped):
            m.d.comb += [
                write.en.eq(1),
                write.addr.eq(_trap_row("stval", machine)),
                write.data.eq(self.trap.value),
            ]
        with m.Else():
            m.d.comb += [write.addr.eq(memory_row(written)), write.data.eq(new)]
        bank = self._counters
        m.d.comb += [
            bank.access.eq(reads | self.write),
            bank.row.eq(Mux(reads, number, written)[: len(bank.row)]),
            bank.data.eq(new),
        ]

    def _writable(self, name):
        """The bits of a CSR that hold what is written to them."""
        return self._csrs[name].writable

    def _status_part(self, name, part):
        """What a write puts into a field of mstatus, given its part of the written value."""
        return part

    def _writes(self, m, new):
        def case(name):
            return m.If(self._written[name])

        for name, signal in self._plain.items():
            if name != "mie":
                with case(name):
                    m.d.sync += signal.eq(new & self._writable(name))
        mie, mideleg = self._plain["mie"], self._plain["mideleg"]
        with case("mie"):
            m.d.sync += mie.eq(new & CSRS["mie"].writable)
        with case("sie"):
            m.d.sync += mie.eq(mie & ~mideleg | new & mideleg)
        with m.If(Cat(self._written[name] for name in self._row_names).any()):
            m.d.comb += [self._write.en.eq(1), self._write.data.eq(new)]
        for name in self._row_names:
            for bit in range(64):
                if not CSRS[name].writable >> bit & 1:
                    with case(name):
                        m.d.comb += self._write.data[bit].eq(0)
        for name in ("mcycle", "minstret"):
            with case(name):
                m.d.comb += self._counters.write.eq(1)
        with case("satp"):
            mode = new[SATP["mode"].lsb :]
            with m.If((mode == SatpMode.BARE) | (mode == SatpMode.SV39)):
                m.d.sync += self._satp.eq(new)
        stce = self._plain["menvcfg"][MENVCFG["stce"].lsb]
        with case("mip"):
            m.d.sync += [
                self._ssip.eq(new[Interrupt.SUPERVISOR_SOFTWARE]),
                self._seip.eq(new[Interrupt.SUPERVISOR_EXTERNAL]),
            ]
            with m.If(~stce):
                m.d.sync += self._stip.eq(new[Interrupt.SUPERVISOR_TIMER])
        with case("sip"), m.If(mideleg[Interrupt.SUPERVISOR_SOFTWARE]):
            m.d.sync += self._ssip.eq(new[Interrupt.SUPERVISOR_SOFTWARE])
        for name in ("mstatus", "sstatus"):
            with case(name):
                for field_name, signal in self._status.items():
                    field = MSTATUS[field_name]
                    if not field.mask & CSRS[name].writable:
                        continue
                    part = self._status_part(field_name, new[field.lsb : field.lsb + field.width])
                    if field_name == "mpp":
                        with m.If(part != 2):
                            m.d.sync += signal.eq(part)
                    else:
                        m.d.sync += signal.eq(part)

    # Traps.

    def _traps(self, m):
        status, plain = self._status, self._plain
        code = self.trap.code
        delegated = Mux(self.trap.interrupt, plain["mideleg"], plain["medeleg"]).bit_select(code, 1)
        to_machine = self.trap_to_machine
        m.d.comb += to_machine.eq((self.privilege == Privilege.MACHINE) | ~delegated)
        vector = self._read.data
        vectored = Mux(vector[0] & self.trap.interrupt, code << 2, 0)
        m.d.comb += self.trap_vector.eq(Cat(Const(0, 2), vector[2:]) + vectored)
        cause = Cat(code, Const(0, INTERRUPT_BIT - 6), self.trap.interrupt)

        m.d.comb += self.ret_pc.eq(self._read.data)
        with m.If(self.trap_valid & to_machine):
            m.d.sync += [
                plain["mcause"].eq(cause),
                status["mpie"].eq(status["mie"]),
                status["mie"].eq(0),
                status["mpp"].eq(self.privilege),
                self.privilege.eq(Privilege.MACHINE),
            ]
        with m.Elif(self.trap_valid):
            m.d.sync += [
                plain["scause"].eq(cause),
                status["spie"].eq(status["sie"]),
                status["sie"].eq(0),
                status["spp"].eq(self.privilege.as_value()[0]),
                self.privilege.eq(Privilege.SUPERVISOR),
            ]
        with m.Elif(self.ret_valid & ~self.ret_supervisor):
            m.d.sync += [
                status["mie"].eq(status["mpie"]),
                status["mpie"].eq(1),
                status["mpp"].eq(Privilege.USER),
                self.privilege.eq(status["mpp"]),
            ]
            with m.If(status["mpp"] != Privilege.MACHINE.value):
                m.d.sync += status["mprv"].eq(0)
        with m.Elif(self.ret_valid):
            m.d.sync += [
                status["sie"].eq(status["spie"]),
                status["spie"].eq(1),
                status["spp"].eq(0),
                status["mprv"].eq(0),
                self.privilege.eq(Cat(status["spp"], Const(0, 1))),
            ]
