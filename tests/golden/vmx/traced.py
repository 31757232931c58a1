"""A trace of a hart with VMX, made by the model itself: a host program, its guest, and events."""

from collections.abc import Callable
from dataclasses import dataclass, field

from rtl.arch.csrs import MENVCFG, MSTATUS, MSTATUS_CONSTANT
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.paging import PAGE_BITS
from rtl.arch.records import EXIT_BIT, RETIREMENT
from rtl.arch.traps import Exception_, Interrupt, Privilege
from rtl.arch.vmx.ept import EPTP
from rtl.arch.vmx.exits import INTERRUPTION, ExitReason, InterruptionType
from rtl.arch.vmx.fields import CSR_BITMAP, VMCS_FIELDS, VMCS_REVISION
from sim.golden import Hart
from sw_vmm.assembler import Assembler, encode
from tests.golden.vmx import world
from tests.golden.vmx.valid_vmcs import valid_fields
from tests.golden.vmx.world import GUEST, HOST, PAGES, VMCS, controls, number, vmx_word

__all__ = ["RAM_SIZE", "START", "Trace", "trace"]

RAM = MEMORY_MAP["ram"]
RAM_SIZE = 16 << 20
START = RAM.base + 0x800
TVEC = GUEST + 0x1000
ABSENT = GUEST + PAGES * 0x1000
_RECORD_BYTES = 40
_OPCODES = {0x03: (1, 0), 0x23: (0, 1)}


@dataclass
class Trace:
    """``image`` is RAM at the start; ``records`` one by one, ``kinds`` what each is."""

    image: bytes
    records: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def bytes(self, records=None) -> bytes:
        return b"".join(word.to_bytes(_RECORD_BYTES, "little") for word in records or self.records)


class _Outside(world.Outside):
    """Time and cycles go on with every step."""

    def counter(self, name):
        return self.ticks if name == "time" else 7 * self.ticks


def _host():
    """Enter; after each exit read what it was, step over the instruction, and go on."""
    code = Assembler(START)
    code.load_address(10, VMCS)
    for word in (vmx_word("vmxon", 5), vmx_word("vmptrld", 5, 10), vmx_word("vmptrst", 5)):
        code.word(word)
    code.add("csrrs", rd=5, csr=number("time"))
    code.add("addi", rd=13, imm=-1)
    code.add("csrrw", rs1=13, csr=number("mie"))
    code.word(vmx_word("vmlaunch", 5))
    start = code.assemble()

    code = Assembler(HOST)
    names = ("exit_reason", "exit_gpa", "exit_instruction_length", "guest_mcycle", "guest_pc")
    for register, name in enumerate(names, start=20):
        code.add("addi", rd=11, imm=VMCS_FIELDS[name].number)
        code.word(vmx_word("vmread", register, 11))
    code.add("csrrs", rd=5, csr=number("time"))
    code.add("csrrs", rd=5, csr=number("minstret"))
    code.add("add", rd=24, rs1=24, rs2=22)
    code.word(vmx_word("vmwrite", 5, 11, 24))
    code.word(vmx_word("vmlaunch", 12))
    code.word(vmx_word("vmresume", 5))
    return start, code.assemble()


def _guest():
    words = [
        encode("addi", rd=7, imm=5),
        encode("csrrs", rd=8, csr=number("time")),
        encode("csrrs", rd=8, csr=number("minstret")),
        encode("sd", rs1=6, rs2=7, imm=0),
        encode("ld", rd=8, rs1=6, imm=0),
        encode("ld", rd=8, rs1=9, imm=8),  # an EPT violation
        encode("ecall"),  # an exception that exits
        encode("ebreak"),  # one that does not
        vmx_word("vmcall"),
        encode("csrrw", rd=8, rs1=7, csr=number("mscratch")),  # exits by the bitmap
        encode("csrrsi", rd=8, imm=8, csr=number("mstatus")),
        encode("wfi"),
        encode("addi", rd=7, rs1=7, imm=1),
        encode("jal", imm=-8),
    ]
    handler = [
        encode("csrrs", rd=15, csr=number("mepc")),
        encode("addi", rd=15, rs1=15, imm=4),
        encode("csrrw", rs1=15, csr=number("mepc")),
        encode("mret"),
    ]
    return words, handler


def _image():
    """RAM with the VMCS as VMPTRLD finds it."""
    made = world.World()
    words, handler = _guest()
    made.guest_code(*words)
    made.code(made.hpa(TVEC), *handler)
    start, exits = _host()
    for place, code in ((START, start), (HOST, exits)):
        made.hart.memory.write_physical(place, code)
    names = ("external_interrupt_exiting", "use_csr_bitmap", "preemption_timer", "enable_vpid")
    fields = valid_fields() | {
        "execution_controls": controls(*names),
        "vpid": 3,
        "eptp": EPTP.encode(mode=8, ad=1, ppn=world.EPT_ROOT >> PAGE_BITS),
        "guest_pc": GUEST,
        "host_pc": HOST,
        "guest_mtvec": TVEC,
        "guest_privilege": int(Privilege.MACHINE),
        "guest_mie": 1 << Interrupt.MACHINE_TIMER,
        "guest_mtimecmp": 50,
        "guest_mstatus": MSTATUS_CONSTANT | MSTATUS["mpp"].mask,
        "guest_menvcfg": MENVCFG["stce"].mask,
        "guest_preemption_timer": 500,
        "time_offset": 1000,
        "exception_bitmap": 1 << Exception_.ECALL_FROM_MACHINE,
        "entry_interruption": INTERRUPTION.encode(
            valid=1, type=InterruptionType.EXCEPTION, cause=Exception_.BREAKPOINT
        ),
    }
    word, bit = divmod(CSR_BITMAP.index("mscratch"), 64)
    fields[f"csr_read_bitmap_{word}"] = 1 << bit
    for name, value in fields.items():
        made.put(VMCS + VMCS_FIELDS[name].offset, value)
    made.put(VMCS, VMCS_REVISION)
    made.put(VMCS + 8, 0)
    return bytes(made.hart.memory.ram)


class _Tracer:
    def __init__(self, image):
        self.outside = _Outside()
        self.hart = Hart(RAM_SIZE, self.outside, vmx=True)
        self.hart.memory.ram[:] = image
        self.hart.pc = START
        self.trace = Trace(image)
        self.hart.x[6], self.hart.x[9] = GUEST + 0x3000, ABSENT

    def __call__(self, kind: str, take: Callable[[], None], *, waits: bool = False) -> None:
        """One record of what ``take`` does."""
        hart = self.hart
        self.outside.ticks += 3
        before = {"pc": hart.pc, "privilege": hart.privilege, "world": hart.world}
        entered = hart.world
        take()
        i = hart.executed
        record = dict(before)
        if hart.trapped is not None:
            cause, value = hart.trapped
            record |= {"trap": 1, "value": cause, "data": value, "load": waits}
            record["instruction"] = i.bits if i else 0
            if cause >> EXIT_BIT == 1:
                fields = hart.vmx.vmcs.fields
                record["address"] = fields["exit_interruption"]
        else:
            rd = 0 if i.rd == 32 or (hart.world and not entered) else i.rd
            load, store = _OPCODES.get(i.bits & 0x7F, (0, 0))
            record |= {"value": hart.x[rd] if rd else 0, "instruction": i.bits, "rd": rd}
            record |= {"load": load, "store": store, "data": hart.x[i.rs2]}
            if load or store:
                record |= {"address": hart.memory.physical, "size": i.bits >> 12 & 3}
        self.trace.records.append(RETIREMENT.encode(**record))
        self.trace.kinds.append(kind)

    def steps(self, count):
        for _ in range(count):
            self("step", self.hart.step)

    def until(self, world_):
        """Instructions until the hart is in that world."""
        while True:
            self.steps(1)
            if self.hart.world == world_:
                return


def trace() -> Trace:
    """The records of a run that meets every kind there is."""
    run = _Tracer(_image())
    hart = run.hart
    vmx = hart.vmx

    def event(reason, **more):
        return lambda: vmx.event_exit(reason, **more)

    run.until(1)
    run("injection", vmx.inject)
    for _ in range(4):  # an EPT violation, ecall, vmcall, mscratch
        run.until(0)
        run.until(1)
    run.steps(1)
    run("interrupt", lambda: hart.interrupt(Interrupt.MACHINE_TIMER))
    run.steps(4)  # the handler returns behind the wfi
    run.steps(3)
    run("wfi", event(ExitReason.PREEMPTION_TIMER, waits=True), waits=True)
    run.until(1)
    cause = Interrupt.MACHINE_EXTERNAL
    run("external", event(ExitReason.EXTERNAL_INTERRUPT, cause=cause, waits=True), waits=True)
    run.until(1)
    run.steps(2)
    run("timer", event(ExitReason.PREEMPTION_TIMER))
    run.until(1)
    run.steps(2)
    return run.trace
