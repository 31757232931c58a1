"""Each exception raised in the guest, against the exception bitmap and the guest's delegation."""

from typing import NamedTuple

import pytest

from rtl.arch.csrs import CSRS
from rtl.arch.records import EXIT_BIT
from rtl.arch.traps import Exception_, Privilege
from rtl.arch.vmx.exits import INTERRUPTION, ExitReason, InterruptionType
from sw_vmm.assembler import encode
from tests.golden.vmx.world import GUEST, World

ALL = (1 << 64) - 1
MACHINE, SUPERVISOR, USER = Privilege.MACHINE, Privilege.SUPERVISOR, Privilege.USER
#: What the EPT maps to where nothing answers, and what the guest's tables do not map.
NOWHERE, UNMAPPED = GUEST + 0x5000, GUEST + 0x10_0000
VECTORS = {"guest_mtvec": GUEST + 0x1000, "guest_stvec": GUEST + 0x2000}
LOAD, STORE = encode("ld", rd=5, rs1=6), encode("sd", rs1=6, rs2=7)
JUMP = encode("jalr", rs1=6)


class Way(NamedTuple):
    """``word`` raises ``cause`` with x6 = ``address``; ``value`` is the trap value."""

    cause: Exception_
    word: int
    value: int
    address: int = 0
    paged: bool = False
    privileges: tuple = (MACHINE, SUPERVISOR, USER)


WAYS = [
    Way(Exception_.INSTRUCTION_ACCESS_FAULT, JUMP, NOWHERE, NOWHERE),
    Way(Exception_.ILLEGAL_INSTRUCTION, 0xFFFF_FFFF, 0xFFFF_FFFF),
    Way(Exception_.BREAKPOINT, encode("ebreak"), GUEST),
    Way(Exception_.LOAD_ADDRESS_MISALIGNED, encode("lr.d", rd=5, rs1=6), GUEST + 4, GUEST + 4),
    Way(Exception_.LOAD_ACCESS_FAULT, LOAD, NOWHERE, NOWHERE),
    Way(Exception_.STORE_ADDRESS_MISALIGNED, encode("amoadd.d", rs1=6), GUEST + 4, GUEST + 4),
    Way(Exception_.STORE_ACCESS_FAULT, STORE, NOWHERE, NOWHERE),
    Way(Exception_.ECALL_FROM_USER, encode("ecall"), 0, privileges=(USER,)),
    Way(Exception_.ECALL_FROM_SUPERVISOR, encode("ecall"), 0, privileges=(SUPERVISOR,)),
    Way(Exception_.ECALL_FROM_MACHINE, encode("ecall"), 0, privileges=(MACHINE,)),
    *(
        Way(cause, word, UNMAPPED, UNMAPPED, paged=True, privileges=(SUPERVISOR, USER))
        for cause, word in (
            (Exception_.INSTRUCTION_PAGE_FAULT, JUMP),
            (Exception_.LOAD_PAGE_FAULT, LOAD),
            (Exception_.STORE_PAGE_FAULT, STORE),
        )
    ),
]
CASES = [(way, privilege) for way in WAYS for privilege in way.privileges]


def raised(way, privilege, bitmap, medeleg):
    """A guest that has raised the exception."""
    world = World()
    world.map(NOWHERE, 0x4000_0000)
    world.map_guest(GUEST, GUEST, u=int(privilege == USER))
    world.map_guest(VECTORS["guest_stvec"], VECTORS["guest_stvec"])
    world.hart.x[6] = way.address
    world.launch(
        code=[way.word],
        privilege=privilege,
        exception_bitmap=bitmap,
        guest_medeleg=medeleg,
        guest_satp=world.satp() if way.paged else 0,
        **VECTORS,
    )
    world.run(2)
    return world


@pytest.mark.parametrize(("way", "privilege"), CASES)
def test_its_bit_alone_makes_it_exit(way, privilege):
    """Before the guest's delegation, and nothing of it is in the guest's CSRs."""
    world = raised(way, privilege, 1 << way.cause, CSRS["medeleg"].writable)
    assert world.hart.trapped == (ExitReason.EXCEPTION | 1 << EXIT_BIT, way.value)
    assert world.read("exit_interruption") == INTERRUPTION.encode(
        valid=1, type=InterruptionType.EXCEPTION, cause=way.cause
    )
    fetched = way.word != JUMP
    assert world.read("exit_instruction") == (way.word if fetched else 0)
    assert world.read("guest_privilege") == privilege
    assert world.read("guest_mcause") == world.read("guest_scause") == 0


@pytest.mark.parametrize("delegated", [False, True])
@pytest.mark.parametrize(("way", "privilege"), CASES)
def test_all_other_bits_do_not(way, privilege, delegated):
    medeleg = CSRS["medeleg"].writable * delegated
    world = raised(way, privilege, ALL & ~(1 << way.cause), medeleg)
    hart = world.hart
    assert hart.trapped == (way.cause, way.value) and hart.world == 1
    to_supervisor = privilege != MACHINE and medeleg >> way.cause & 1
    prefix = "s" if to_supervisor else "m"
    assert hart.pc == VECTORS[f"guest_{prefix}tvec"]
    assert hart.privilege == (SUPERVISOR if to_supervisor else MACHINE)
    assert hart.csr.values[f"{prefix}cause"] == way.cause


def test_every_exception_there_is():
    # Instructions of two bytes leave no address to be misaligned.
    assert {way.cause for way in WAYS} == set(Exception_) - {
        Exception_.INSTRUCTION_ADDRESS_MISALIGNED
    }
