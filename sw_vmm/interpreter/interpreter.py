"""Whole guests, or single instructions of one, interpreted."""

from collections.abc import Callable
from enum import Enum

from rtl.arch.csrs import MENVCFG
from rtl.arch.memory_map import PHYSICAL_BITS, region_of
from rtl.arch.paging import PAGE_BITS, Access
from rtl.arch.traps import Exception_
from sw_vmm.bus import Bus
from sw_vmm.errors import BusError
from sw_vmm.hart import Hart, Trap
from sw_vmm.interpreter.decode import Decoded, decode
from sw_vmm.interpreter.memory_unit import MemoryUnit
from sw_vmm.interpreter.operations import BRANCHES, COMPUTE, LOADS, SCRATCH, STORES, maker
from sw_vmm.interpreter.sv39 import Context, walk
from sw_vmm.memory import GuestMemory

__all__ = ["Interpreter", "Stop"]

_ALL = (1 << 64) - 1
_ADUE = MENVCFG.mask("adue")
_PAGE_OFFSET = (1 << PAGE_BITS) - 1
_BLOCK_LIMIT = 64
#: Code contexts remembered before all are dropped.
_CONTEXTS = 64
_IMMEDIATE_FORMS = {
    "addi": "add", "slti": "slt", "sltiu": "sltu", "xori": "xor", "ori": "or", "andi": "and",
    "slli": "sll", "srli": "srl", "srai": "sra",
    "addiw": "addw", "slliw": "sllw", "srliw": "srlw", "sraiw": "sraw",
    "slli.uw": "sll.uw", "rori": "ror", "roriw": "rorw",
    "bclri": "bclr", "bexti": "bext", "binvi": "binv", "bseti": "bset",
}  # fmt: skip
_SIZES = {".w": 4, ".d": 8}
_CSR = {
    name + form: (function, bool(form))
    for function, name in ((1, "csrrw"), (2, "csrrs"), (3, "csrrc"))
    for form in ("", "i")
}

_Operation = Callable[[], object]
#: Operations, what computes the next pc, and the pcs of all instructions, the last one included.
_Block = tuple[list[_Operation], Callable[[], int], int, tuple[int, ...]]


class Stop(Enum):
    """Why ``Interpreter.run`` came back."""

    ASKED = 1
    BUDGET = 2


class Interpreter:
    """Execute a guest on registers, memory and devices of the VMM.

    Time is counted in machine cycles: every instruction and every trap takes
    ``cycles_per_instruction``, a device access ``cycles_per_device_access`` more, and wfi lasts
    until something happens. Code is
    translated to blocks of Python functions and kept until fence.i, sfence.vma or a write of satp.

    Parameters
    ----------
    hart : Hart
    memory : GuestMemory
    bus : Bus
    registers : sequence
        33 items: x0 (never written), x1 to x31, and a scratch place.
    cycles_per_instruction, cycles_per_device_access : int
        At least one cycle per instruction: with none, time would stand still.
    bit_manipulation : bool
        Zba, Zbb and Zbs are legal.
    """

    def __init__(
        self,
        hart: Hart,
        memory: GuestMemory,
        bus: Bus,
        *,
        registers=None,
        cycles_per_instruction: int = 1,
        cycles_per_device_access: int = 0,
        bit_manipulation: bool = True,
    ):
        if cycles_per_instruction < 1:
            raise ValueError("an interpreted instruction takes at least one cycle")
        self.hart = hart
        self.registers = [0] * (SCRATCH + 1) if registers is None else registers
        self.unit = MemoryUnit(hart, memory, bus, self._enter_device, self._ask_soon)
        self.pc = 0
        self.instret = 0
        self.idle = 0
        self._memory = memory
        self._bus = bus
        self._bit_manipulation = bit_manipulation
        self._cycles_per_instruction = cycles_per_instruction
        self._cycles_per_device_access = cycles_per_device_access
        #: The machine cycle, less the cycles of the instructions retired.
        self._offset = 0
        self._waiting = False
        self._attention = 0
        self._contexts: dict[Context | None, dict[int, _Block]] = {}
        self._pcs: tuple[int, ...] = ()
        self._select_context()

    @property
    def now(self) -> int:
        """The machine cycle."""
        return self._offset + self.instret * self._cycles_per_instruction

    @now.setter
    def now(self, cycle: int) -> None:
        self._offset = cycle - self.instret * self._cycles_per_instruction

    # -- whole guests ------------------------------------------------------------------------------

    def run(self, until: int, asked: Callable[[], bool] = bool, poll: int = 0) -> Stop:
        """Interpret until the machine cycle ``until``, or until ``asked()``.

        ``asked`` is called after every access of a device, and every ``poll`` instructions when
        ``poll`` is not 0.
        """
        self._select_context()
        while True:
            self._synchronize(0)
            if asked():
                return Stop.ASKED
            if self.hart.now >= until:
                return Stop.BUDGET
            self._attend(until)
            if poll:
                self._attention = min(self._attention, self.instret + poll)
            self._run_blocks()

    def _synchronize(self, ahead: int) -> None:
        """Set the hart's clock and count to ``ahead`` instructions behind the block's start."""
        self.hart.instret = self.instret + ahead
        self.hart.now = self._offset + self.hart.instret * self._cycles_per_instruction

    def _attend(self, until: int) -> None:
        """Take an interrupt or pass the time in wfi, and find out when to look again."""
        hart = self.hart
        if self._waiting:
            if not hart.mip & hart.mie:
                event = hart.next_event(hart.mie)
                event = until if event is None else min(event, until)
                self.idle += event - hart.now
                self._offset += event - hart.now
                self._attention = 0
                return
            self._waiting = False
        cause = hart.interrupt()
        if cause is not None:
            self._take(cause, 0, self.pc)
        event = hart.next_event(hart.takeable())
        event = until if event is None else min(event, until)
        self._attention = -((self._offset - event) // self._cycles_per_instruction)

    def _run_blocks(self) -> None:
        pc, blocks = self.pc, self._blocks
        try:
            while self.instret < self._attention:
                block = blocks.get(pc)
                if block is None:
                    self._pcs = ()
                    block = blocks[pc] = self._block(pc)
                operations, last, count, self._pcs = block
                for operation in operations:
                    operation()
                pc = last()
                self.instret += count
            self.pc = pc
        except Trap as trap:
            at = self.unit.at
            if self._pcs:
                self.instret += self._pcs.index(at)
            self._take(trap.cause, trap.tval, at)

    def _take(self, cause: int, tval: int, pc: int) -> None:
        # A trap takes time too: a handler that traps at once must not stop the clock.
        self._offset += self._cycles_per_instruction
        self.pc = self.hart.take_trap(cause, tval, pc)
        self.unit.clear_reservation()
        self._select_context()

    # -- single instructions -----------------------------------------------------------------------

    def step(self) -> Trap | None:
        """Interpret one instruction at ``pc``; the exception it raised, if it did, is not taken.

        The caller keeps ``hart.now`` and ``hart.instret``, and attends to interrupts and wfi.
        """
        pc = self.pc
        self._pcs = (pc,)
        self._select_context()
        self.instret = self.hart.instret
        self.now = self.hart.now
        try:
            decoded = self._fetch(pc)
            operation, ends = self._bind(decoded, pc)
            result = operation() if operation is not None else None
        except Trap as trap:
            return trap
        self.pc = result if ends else pc + decoded.length & _ALL
        return None

    @property
    def waiting(self) -> bool:
        """Whether the last instruction was a wfi with nothing to wake it; reading clears it."""
        waiting, self._waiting = self._waiting, False
        return waiting

    # -- contexts and devices ----------------------------------------------------------------------

    def _select_context(self) -> None:
        hart = self.hart
        self._context = None
        if hart.translates(hart.privilege):
            update = bool(hart.menvcfg & _ADUE)
            self._context = Context(hart.satp, hart.privilege, False, False, update)
        blocks = self._contexts.get(self._context)
        if blocks is None:
            if len(self._contexts) >= _CONTEXTS:
                self._contexts.clear()
            blocks = self._contexts[self._context] = {}
        self._blocks = blocks
        self.unit.select_context()
        self._attention = 0

    def drop_code(self) -> None:
        """Forget all translated code (fence.i)."""
        self._contexts.clear()
        self._select_context()

    def _drop_translations(self) -> None:
        bare = self._contexts.get(None)
        self._contexts.clear()
        if bare is not None:
            self._contexts[None] = bare
        self.unit.drop_translations()
        self._select_context()

    def _enter_device(self) -> None:
        self._synchronize(self._pcs.index(self.unit.at))
        self._offset += self._cycles_per_device_access
        self._attention = 0

    def _ask_soon(self) -> None:
        """Let ``run`` ask its caller behind the current block."""
        self._attention = 0

    # -- from code to blocks -----------------------------------------------------------------------

    def _halfword(self, gva: int) -> int:
        if self._context is not None:
            unit = self.unit
            gpa = walk(unit.read_entry, gva, Access.FETCH, self._context, unit.write_entry)
        else:
            gpa = gva
        if self._memory.base <= gpa <= self._memory.end - 2:
            return self._memory.read(gpa, 2)
        region = None if gpa >> PHYSICAL_BITS else region_of(gpa)
        if region is None or not region.executable:
            raise Trap(Exception_.INSTRUCTION_ACCESS_FAULT, gva)
        try:
            return self._bus.read(gpa, 2, self.hart.now)
        except BusError:
            raise Trap(Exception_.INSTRUCTION_ACCESS_FAULT, gva) from None

    def _fetch(self, pc: int) -> Decoded:
        """The instruction at ``pc``. Raises Trap, an illegal instruction's included."""
        self.unit.at = pc
        word = self._halfword(pc)
        if word & 3 == 3:
            word |= self._halfword(pc + 2 & _ALL) << 16
        decoded = decode(word, self._bit_manipulation)
        if decoded is None:
            raise Trap(Exception_.ILLEGAL_INSTRUCTION, word)
        return decoded

    def _block(self, pc: int) -> _Block:
        """Translate straight-line code from ``pc``. Raises Trap when its first word cannot be."""
        operations, pcs = [], []
        page = pc & ~_PAGE_OFFSET
        while True:
            try:
                decoded = self._fetch(pc)
            except Trap:
                if not pcs:
                    raise
                break
            ends_alone = decoded.name in _ALONE
            if ends_alone and pcs:
                break
            operation, ends = self._bind(decoded, pc)
            pcs.append(pc)
            if ends:
                return operations, operation, len(pcs), tuple(pcs)
            if operation is not None:
                operations.append(operation)
            pc = pc + decoded.length & _ALL
            if len(pcs) == _BLOCK_LIMIT or pc & ~_PAGE_OFFSET != page:
                break
        following = pc
        return operations, lambda: following, len(pcs), tuple(pcs)

    def _bind(self, decoded: Decoded, pc: int) -> tuple[_Operation | None, bool]:
        """The function that executes an instruction, and whether it gives the next pc.

        None stands for an instruction without any effect.
        """
        name, rd, rs1, rs2, immediate, length, _ = decoded
        regs = self.registers
        target = rd or SCRATCH
        if name in COMPUTE:
            return maker(name, "registers")(regs, rd, rs1, rs2) if rd else None, False
        if name in _IMMEDIATE_FORMS:
            make = maker(_IMMEDIATE_FORMS[name], "immediate")
            return make(regs, rd, rs1, immediate & _ALL) if rd else None, False
        if name in LOADS:
            return maker(name, "load")(self.unit, regs, target, rs1, immediate, pc), False
        if name in STORES:
            return maker(name, "store")(self.unit, regs, rs2, rs1, immediate, pc), False
        if name in BRANCHES:
            following = pc + length & _ALL
            taken = pc + immediate & _ALL
            return maker(name, "branch")(regs, rs1, rs2, taken, following), True
        if name in ("lui", "auipc"):
            value = immediate + (pc if name == "auipc" else 0) & _ALL
            return _constant(regs, rd, value) if rd else None, False
        if name == "fence":
            return None, False
        if name[-2:] in _SIZES:
            return self._bind_atomic(decoded, pc), False
        return self._bind_control(decoded, pc), True

    def _bind_atomic(self, decoded: Decoded, pc: int) -> _Operation:
        regs, unit = self.registers, self.unit
        rd, rs1, rs2 = decoded.rd or SCRATCH, decoded.rs1, decoded.rs2
        operation, size = decoded.name[:-2], _SIZES[decoded.name[-2:]]

        def load_reserved():
            regs[rd] = unit.load_reserved(pc, regs[rs1], size) & _ALL

        def store_conditional():
            regs[rd] = unit.store_conditional(pc, regs[rs1], size, regs[rs2])

        def atomic():
            regs[rd] = unit.atomic(pc, operation, regs[rs1], size, regs[rs2]) & _ALL

        return {"lr": load_reserved, "sc": store_conditional}.get(operation, atomic)

    def _bind_control(self, decoded: Decoded, pc: int) -> Callable[[], int]:
        """Jumps and system instructions."""
        name, rd, rs1, _, immediate, length, word = decoded
        regs, unit, hart = self.registers, self.unit, self.hart
        rd = rd or SCRATCH
        following = pc + length & _ALL
        if name == "jal":
            return _jump(regs, rd, following, pc + immediate & _ALL)
        if name == "jalr":
            return _jump_register(regs, rd, rs1, immediate, following)

        def csr():
            function, is_immediate = _CSR[name]
            unit.at = pc
            self._synchronize(0)
            writes = function == 1 or rs1 != 0
            operand = rs1 if is_immediate else regs[rs1]
            old = hart.access_csr(immediate, function, operand, writes=writes, instruction=word)
            regs[rd] = old
            if writes:
                self._select_context()
            return following

        def system():
            unit.at = pc
            self._synchronize(0)
            match name:
                case "ecall":
                    raise Trap(hart.environment_call())
                case "ebreak":
                    raise Trap(Exception_.BREAKPOINT, pc)
                case "mret" | "sret":
                    target = hart.mret(word) if name == "mret" else hart.sret(word)
                    unit.clear_reservation()
                    self._select_context()
                    return target
                case "wfi":
                    self._waiting = hart.wfi(word)
                    self._attention = 0
                case "sfence.vma":
                    hart.sfence_vma(word)
                    self._drop_translations()
                case "fence.i":
                    self.drop_code()
            return following

        return csr if name in _CSR else system


#: Instructions that make up a block of their own, so that they see exact counts and times.
_ALONE = frozenset(
    {*_CSR, "ecall", "ebreak", "mret", "sret", "wfi", "sfence.vma", "fence.i"},
)


def _constant(regs, rd: int, value: int) -> _Operation:
    def operation():
        regs[rd] = value

    return operation


def _jump(regs, rd: int, following: int, target: int) -> Callable[[], int]:
    def operation():
        regs[rd] = following
        return target

    return operation


def _jump_register(regs, rd, rs1, immediate, following) -> Callable[[], int]:
    mask = _ALL & ~1

    def operation():
        target = regs[rs1] + immediate & mask
        regs[rd] = following
        return target

    return operation
