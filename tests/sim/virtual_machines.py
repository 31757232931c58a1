"""Guests under the VMM's own code on any machine, and everything their exits tell.

Each of ``STORIES`` is a function of a machine with ``RAM_SIZE`` bytes of RAM and gives plain data.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from rtl.arch.paging import PAGE_BITS, PTE
from rtl.arch.traps import Privilege
from rtl.arch.vmx.exits import INTERRUPTION, InterruptionType
from rtl.arch.vmx.fields import CSR_BITMAP, VMCS_FIELDS
from sw_vmm.assembler import Assembler
from sw_vmm.charge import ChargeModel
from sw_vmm.ept import MemorySlot
from sw_vmm.techniques.vmx_ept import VmxEpt
from sw_vmm.vm import MONITOR_SIZE, Vm
from tests.sw_vmm.machines import CHARGES, GUEST_RAM, rom_jump
from tests.sw_vmm.programs import (
    CLINT,
    CSR,
    UART,
    enter_supervisor,
    finish,
    program,
    sv39_register,
    words,
)
from tests.sw_vmm.vmx_machine import RAM, SmallGuest, vmx_word

RAM_SIZE = GUEST_RAM + MONITOR_SIZE

_INFORMATION = [name for name, row in VMCS_FIELDS.items() if row.read_only]


def _told(guest: SmallGuest, exit_) -> dict:
    """An exit, where its cycles were counted, and what the VMCS says of it."""
    return {
        "exit": repr(exit_),
        "record": guest.vcpu.record._asdict(),
        "vmcs": {name: getattr(guest.vmcs, name) for name in _INFORMATION},
        "cycles": guest.machine.cycles,
        "transition": guest.machine.transition,
    }


# -- exits of instructions -------------------------------------------------------------------------

FIRST, SECOND = 0x1234_5678_9ABC_DEF8, 0x0FED_CBA9_8765_4321
ROUNDS = 4
CHARGE = 100


@dataclass
class ExitCase:
    """An instruction that exits between two others, and what the manual says of its exit."""

    build: Callable[[Assembler], None]
    reason: int
    qualification: int = 0
    controls: tuple[str, ...] = ()
    fields: dict[str, int] = field(default_factory=dict)
    length: int = 4
    rs1: int = 0
    rs2: int = 0
    interruption: int = 0


def _one(name: str, **operands: int) -> Callable[[Assembler], None]:
    return lambda code: code.add(name, **operands)


def _vmx(name: str, **operands: int) -> Callable[[Assembler], None]:
    return lambda code: code.word(vmx_word(name, **operands))


def _bitmap(kind: str, name: str) -> dict[str, int]:
    word, bit = divmod(CSR_BITMAP.index(name), 64)
    return {f"csr_{kind}_bitmap_{word}": 1 << bit}


_EXCEPTION = 1 << 31 | 3 << 8

EXIT_CASES = {
    "ecall": ExitCase(
        _one("ecall"), 0, fields={"exception_bitmap": 1 << 11}, interruption=_EXCEPTION | 11
    ),
    "c.ebreak": ExitCase(
        # Two bytes of it, and c.nop.
        lambda code: code.word(0x0001_9002),
        0,
        RAM + 4,
        fields={"exception_bitmap": 1 << 3},
        length=2,
        interruption=_EXCEPTION | 3,
    ),
    "csr written": ExitCase(
        _one("csrrw", rd=10, rs1=5, csr=CSR["mscratch"]),
        32,
        0xA_1340,
        ("use_csr_bitmap",),
        _bitmap("write", "mscratch"),
        rs1=FIRST,
    ),
    "csr read": ExitCase(
        _one("csrrsi", rd=10, rs1=0, csr=CSR["mepc"]),
        31,
        0xA_6341,
        ("use_csr_bitmap",),
        _bitmap("read", "mepc"),
    ),
    "mstatus": ExitCase(
        _one("csrrc", rd=10, rs1=5, csr=CSR["mstatus"]),
        28,
        0xA_3300,
        fields={"status_mask": 8, "status_shadow": 8},
        rs1=FIRST,
    ),
    "satp": ExitCase(
        _one("csrrw", rd=0, rs1=6, csr=CSR["satp"]),
        28,
        0x1180,
        ("satp_write_exiting",),
        rs1=SECOND,
    ),
    "time": ExitCase(
        _one("csrrs", rd=10, rs1=0, csr=CSR["time"]), 16, 0xA_2C01, ("time_read_exiting",)
    ),
    "cycle": ExitCase(
        _one("csrrs", rd=10, rs1=0, csr=CSR["cycle"]), 15, 0xA_2C00, ("counter_read_exiting",)
    ),
    "wfi": ExitCase(_one("wfi"), 12, controls=("wfi_exiting",)),
    "sfence.vma": ExitCase(
        _one("sfence.vma", rs1=5, rs2=6),
        14,
        controls=("sfence_vma_exiting",),
        rs1=FIRST,
        rs2=SECOND,
    ),
    "vmcall": ExitCase(_vmx("vmcall"), 18),
    "vmwrite": ExitCase(_vmx("vmwrite", rd=10, rs1=5, rs2=6), 25, rs1=FIRST, rs2=SECOND),
}


def _exits(machine, case: ExitCase) -> dict:
    """The exit ``ROUNDS`` times; the VMM gives 100, 101, ... for x10, which the guest adds up."""

    def build(code):
        code.label("again")
        code.add("addi", rd=7, rs1=7, imm=1)
        case.build(code)
        code.add("add", rd=9, rs1=9, rs2=10)
        code.add("jal", to="again")

    machine.reset()
    guest = SmallGuest(build, machine=machine, **case.fields)
    guest.controls("enable_vpid", *case.controls)
    guest.vmcs.vpid = 1
    guest.set(x5=FIRST, x6=SECOND)
    exits = [_told(guest, guest.run(10_000))]
    for value in range(100, 99 + ROUNDS):
        exit_ = guest.go_on(cycles=10_000, rd=10, value=value, charge=CHARGE)
        exits.append(_told(guest, exit_))
    return {
        "exits": exits,
        "registers": [machine.read_gpr(number) for number in range(32)],
        "counters": machine.counters(),
    }


def exits_of_instructions(machine) -> dict:
    return {name: _exits(machine, case) for name, case in EXIT_CASES.items()}


# -- violations ------------------------------------------------------------------------------------

TABLES = RAM + 0x8_0000
PAGES = 8
GVA = 0x4000_0000
TEXT = b"abcdefgh"
_PAGE = 1 << PAGE_BITS


def page_of(index: int) -> int:
    """gpa of a page of the guest's data."""
    return RAM + 0x2_0000 + (PAGES - 1 - index) * _PAGE


def _run(machine, image: bytes, *tables: tuple[int, list[int]], **options) -> dict:
    """The image under vmx-ept, from reset on."""
    machine.reset()
    vm = Vm(machine, rom=rom_jump())
    vm.load(RAM, image)
    for gpa, entries in tables:
        vm.load(gpa, b"".join(entry.to_bytes(8, "little") for entry in entries))
    rows = []
    technique = VmxEpt(vm, ChargeModel(CHARGES), rows.append, **options)
    result = technique.run(1_000_000)
    return {
        "rows": rows,
        "result": result.as_dict(),
        "console": result.outcome.console.decode(),
        "data": words(technique, 4),
        "pages": [words(technique, 1, page_of(index))[0] for index in range(PAGES)],
    }


def _paging_guest(code: Assembler) -> None:
    """In S-mode: doubles a number over pages of its own, and prints a letter for each."""
    sv39_register(code, 6, TABLES)
    enter_supervisor(code, 6)
    code.load_address(6, GVA)
    code.load_address(13, UART)
    code.add("lui", rd=12, imm=_PAGE)
    code.add("addi", rd=9, rs1=0, imm=TEXT[0])
    code.add("addi", rd=14, rs1=0, imm=TEXT[-1] + 1)
    code.add("addi", rd=10, rs1=0, imm=3)
    code.label("again")
    code.add("sd", rs1=6, rs2=10)
    code.add("ld", rd=11, rs1=6)
    code.add("add", rd=10, rs1=10, rs2=11)
    code.add("sb", rs1=13, rs2=9)
    code.add("add", rd=6, rs1=6, rs2=12)
    code.add("addi", rd=9, rs1=9, imm=1)
    code.add("bne", rs1=9, rs2=14, to="again")
    code.add("sd", rs1=8, rs2=10)
    code.add("lbu", rd=15, rs1=13, imm=5)
    code.add("sd", rs1=8, rs2=15, imm=8)
    finish(code, 0)


def _guest_tables() -> list[tuple[int, list[int]]]:
    """Devices and RAM in place, the pages from GVA on."""
    pointer = PTE.mask("v")
    leaf = PTE.mask("v", "r", "w", "x", "a", "d")
    root = [
        leaf,
        pointer | PTE.encode(ppn=TABLES + _PAGE >> PAGE_BITS),
        leaf | PTE.encode(ppn=RAM >> PAGE_BITS),
    ]
    middle = [pointer | PTE.encode(ppn=TABLES + 2 * _PAGE >> PAGE_BITS)]
    last = [leaf | PTE.encode(ppn=page_of(index) >> PAGE_BITS) for index in range(PAGES)]
    return [(TABLES, root), (TABLES + _PAGE, middle), (TABLES + 2 * _PAGE, last)]


def _scrambled() -> list[MemorySlot]:
    pages = list(range(GUEST_RAM >> PAGE_BITS))
    random.Random(1).shuffle(pages)
    return [
        MemorySlot(RAM + (gpa << PAGE_BITS), RAM + (hpa << PAGE_BITS), _PAGE)
        for gpa, hpa in enumerate(pages)
    ]


def violations(machine) -> dict:
    """A guest that pages, over an EPT filled as it is used, in place and all over the machine."""
    image = program(_paging_guest)
    return {
        "in place": _run(machine, image, *_guest_tables(), largest=0),
        "scrambled": _run(machine, image, *_guest_tables(), slots=_scrambled()),
    }


# -- injections ------------------------------------------------------------------------------------

MACHINE_VECTORS, SUPERVISOR_VECTORS = RAM + 0x100, RAM + 0x200
VALUE = 0xDEAD_0000_BEE0


@dataclass
class Injection:
    """What is injected at two entries, and what the guest must see."""

    interruption_type: InterruptionType
    cause: int
    privilege: Privilege
    seen_cause: int
    seen_value: int
    vector: int
    fields: dict[str, int] = field(default_factory=dict)


_INTERRUPT, _FAULT = InterruptionType
_INTERRUPT_BIT = 1 << 63

INJECTIONS = {
    "interrupt that is not enabled": Injection(
        _INTERRUPT, 7, Privilege.MACHINE, _INTERRUPT_BIT | 7, 0, MACHINE_VECTORS + 28
    ),
    "delegated interrupt": Injection(
        _INTERRUPT,
        9,
        Privilege.USER,
        _INTERRUPT_BIT | 9,
        0,
        SUPERVISOR_VECTORS + 36,
        {"guest_mideleg": 1 << 9},
    ),
    "interrupt delegated below the entry": Injection(
        _INTERRUPT,
        1,
        Privilege.MACHINE,
        _INTERRUPT_BIT | 1,
        0,
        MACHINE_VECTORS + 4,
        {"guest_mideleg": 1 << 1},
    ),
    "exception": Injection(_FAULT, 2, Privilege.MACHINE, 2, VALUE, MACHINE_VECTORS),
    "delegated exception": Injection(
        _FAULT, 13, Privilege.SUPERVISOR, 13, VALUE, SUPERVISOR_VECTORS, {"guest_medeleg": 1 << 13}
    ),
    "exception of the bitmap": Injection(
        _FAULT, 5, Privilege.USER, 5, VALUE, MACHINE_VECTORS, {"exception_bitmap": 0xFFFF}
    ),
}


def _injected_guest(code: Assembler) -> None:
    """Counts in x7; a handler leaves its way in x1, cause, epc and value in x20 to x22."""
    code.label("again")
    code.add("addi", rd=7, rs1=7, imm=1)
    code.word(vmx_word("vmcall"))
    code.add("jal", to="again")
    for level, vectors in (("m", MACHINE_VECTORS), ("s", SUPERVISOR_VECTORS)):
        while code.here < vectors:
            code.word(0)
        for _ in range(16):
            code.add("jal", rd=1, to=f"{level} handler")
        code.label(f"{level} handler")
        for register, name in ((20, "cause"), (21, "epc"), (22, "tval")):
            code.add("csrrs", rd=register, rs1=0, csr=CSR[f"{level}{name}"])
        code.word(vmx_word("vmcall"))
        code.add(f"{level}ret")


def _inject(machine, case: Injection) -> list[dict]:
    """At VMLAUNCH and at a VMRESUME; between them the guest goes on where it was."""
    machine.reset()
    guest = SmallGuest(
        _injected_guest,
        machine=machine,
        guest_privilege=case.privilege,
        guest_mtvec=MACHINE_VECTORS | 1,
        guest_stvec=SUPERVISOR_VECTORS | 1,
        **case.fields,
    )
    story = []

    def note(exit_):
        registers = {number: machine.read_gpr(number) for number in (1, 7, 20, 21, 22)}
        story.append({**_told(guest, exit_), "registers": registers})

    for run in (guest.run, guest.go_on):
        guest.vmcs.update(
            entry_interruption_value=VALUE,
            entry_interruption=INTERRUPTION.encode(
                valid=1, type=case.interruption_type, cause=case.cause
            ),
        )
        note(run(cycles=10_000))
        note(guest.go_on(cycles=10_000))
    return story


def _no_such_extension(code: Assembler) -> None:
    code.word(vmx_word("vmptrst", rd=7))


def _load_from_nowhere(code: Assembler) -> None:
    code.load_address(6, RAM + GUEST_RAM)
    code.add("lw", rd=7, rs1=6, imm=8)


def _software_interrupt(code: Assembler) -> None:
    """By the CLINT the VMM emulates; the store behind is not reached."""
    code.load_address(6, CLINT)
    code.add("csrrwi", rd=0, rs1=8, csr=CSR["mie"])
    code.add("csrrsi", rd=0, rs1=8, csr=CSR["mstatus"])
    code.add("addi", rd=7, rs1=0, imm=1)
    code.add("sw", rs1=6, rs2=7)
    code.add("sd", rs1=8, rs2=7, imm=16)


#: Causes the VMM makes the guest see, each with the program that brings it about.
RAISED = {
    "illegal instruction": _no_such_extension,
    "access fault": _load_from_nowhere,
    "software interrupt": _software_interrupt,
}


def injections(machine) -> dict:
    return {
        "entries": {name: _inject(machine, case) for name, case in INJECTIONS.items()},
        "raised": {name: _run(machine, program(build)) for name, build in RAISED.items()},
    }


STORIES = {story.__name__: story for story in (exits_of_instructions, violations, injections)}
