"""Every VMX instruction in every mode, with its outcomes (docs/isa/vmx.md#instructions)."""

import pytest

from rtl.arch.csrs import CSRS
from rtl.arch.memory_map import MEMORY_MAP
from rtl.arch.records import EXIT_BIT
from rtl.arch.traps import Exception_, Privilege
from rtl.arch.vmx.capability import VMX_CSRS
from rtl.arch.vmx.ept import EPTP
from rtl.arch.vmx.exits import ExitReason
from rtl.arch.vmx.fields import VMCS_FIELDS
from rtl.arch.vmx.instructions import (
    INVVPID_OPERAND,
    VM_FAIL_INVALID,
    VMX_INSTRUCTIONS,
    InveptType,
    InvvpidType,
    VmInstructionError,
)
from sw_vmm.assembler import encode
from tests.golden.vmx.world import EPT_ROOT, OTHER_VMCS, RAM, VMCS, World, vmx_word

ERROR = VmInstructionError
ILLEGAL = Exception_.ILLEGAL_INSTRUCTION
LEVELS = [Privilege.USER, Privilege.SUPERVISOR, Privilege.MACHINE]
LOWER = LEVELS[:2]
#: Instructions whose failure without a current VMCS, or success, is seen below.
NAMES = list(VMX_INSTRUCTIONS)


def root_at(world, privilege):
    """Root at a level, executing from host code."""
    world.hart.privilege = int(privilege)
    world.hart.switched()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("privilege", LEVELS)
def test_vmx_off(name, privilege):
    world = World(on=False, loaded=False)
    root_at(world, privilege)
    word = vmx_word(name, 12, 10, 11)
    trapped = world.step(word)
    if name == "vmxon" and privilege == Privilege.MACHINE:
        assert trapped is None and world.hart.vmx.vmcs.on
        return
    assert trapped == (ILLEGAL, word)
    assert not world.hart.vmx.vmcs.on


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("privilege", LOWER)
def test_below_machine_mode_in_root(name, privilege):
    world = World()
    root_at(world, privilege)
    word = vmx_word(name, 12, 10, 11)
    before = dict(world.hart.vmx.vmcs.fields)
    assert world.step(word) == (ILLEGAL, word)
    assert world.hart.vmx.vmcs.fields == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("privilege", LEVELS)
def test_in_the_guest(name, privilege):
    """They exit whatever their operands and the privilege are, VMFUNC alone does not exist."""
    world = World()
    word = vmx_word(name, 12, 10, 11)
    world.launch(privilege=privilege, code=[word])
    x = list(world.hart.x)
    trapped = world.run()
    if name == "vmfunc":
        assert trapped == (ILLEGAL, word) and world.hart.world == 1
        return
    reason = ExitReason[name.upper()]
    assert trapped == (reason | 1 << EXIT_BIT, 0)
    assert world.hart.x == x
    row = VMX_INSTRUCTIONS[name]
    fields = world.fields("exit_reason", "exit_instruction", "exit_rs1", "exit_rs2")
    assert fields == {
        "exit_reason": reason,
        "exit_instruction": word,
        "exit_rs1": x[10] if row.rs1 else 0,
        "exit_rs2": x[11] if row.rs2 else 0,
    }


@pytest.mark.parametrize("name", NAMES)
def test_registers_that_are_none_must_be_zero(name):
    row = VMX_INSTRUCTIONS[name]
    for operand, lsb in ((row.rd, 7), (row.rs1, 15), (row.rs2, 20)):
        for bit in range(lsb, lsb + 5) if not operand else ():
            word = vmx_word(name) | 1 << bit
            assert World().step(word) == (ILLEGAL, word)


def test_other_function_codes_are_illegal():
    known = {row.encoding.match for row in VMX_INSTRUCTIONS.values()}
    assert len(known) == len(VMX_INSTRUCTIONS)
    world = World(loaded=False)
    for funct7 in range(len(known), 128):
        word = vmx_word("vmxon") | funct7 << 25
        assert world.step(word) == (ILLEGAL, word)
    for funct3 in range(1, 8):
        word = vmx_word("vmxon") | funct3 << 12
        assert world.step(word) == (ILLEGAL, word)


#: Instruction, operands, error: what fails in root M-mode with a valid VMCS current.
FAILURES = [
    ("vmxon", 0, 0, ERROR.VMXON_IN_ROOT),
    ("vmclear", 1, 0, ERROR.VMCLEAR_INVALID_ADDRESS),
    ("vmclear", RAM - 0x1000, 0, ERROR.VMCLEAR_INVALID_ADDRESS),
    ("vmresume", 0, 0, ERROR.VMRESUME_NOT_LAUNCHED),
    ("vmptrld", RAM + 8, 0, ERROR.VMPTRLD_INVALID_ADDRESS),
    ("vmptrld", RAM + 0x30000, 0, ERROR.VMPTRLD_WRONG_REVISION),
    ("vmread", 0, 0, ERROR.UNSUPPORTED_FIELD),
    ("vmread", VMCS_FIELDS["eptp"].number | 1 << 63, 0, ERROR.UNSUPPORTED_FIELD),
    ("vmwrite", 1, 0, ERROR.UNSUPPORTED_FIELD),
    *(
        ("vmwrite", field.number, 0, ERROR.VMWRITE_READ_ONLY_FIELD)
        for field in VMCS_FIELDS.values()
        if field.read_only
    ),
    ("vmcall", 0, 0, ERROR.VMCALL_IN_ROOT),
    *(
        ("invept", kind, World.eptp(), ERROR.INVALID_INVALIDATION)
        for kind in (0, 3, 4, 1 << 32, 1 << 63)
    ),
    *(
        ("invept", InveptType.SINGLE_CONTEXT, eptp, ERROR.INVALID_INVALIDATION)
        for eptp in (
            0,
            World.eptp() | 1 << 44,
            World.eptp() | 1 << 58,
            EPTP["mode"].insert(World.eptp(), 9),
            World.eptp(EPT_ROOT + 0x1000),
            World.eptp(RAM - 0x4000),
            World.eptp(MEMORY_MAP["ram"].end),
        )
    ),
    *(
        ("invvpid", INVVPID_OPERAND.encode(vpid=0, type=kind), 0, ERROR.INVALID_INVALIDATION)
        for kind in InvvpidType
        if kind != InvvpidType.ALL_CONTEXTS
    ),
    ("invvpid", 1 | 1 << 18, 0, ERROR.INVALID_INVALIDATION),
    ("invvpid", 1 | 1 << 63, 0, ERROR.INVALID_INVALIDATION),
    ("invvpid", 1, 1 << 38, ERROR.INVALID_INVALIDATION),
    ("invvpid", 1, 1 << 63, ERROR.INVALID_INVALIDATION),
]


@pytest.mark.parametrize(("name", "first", "second", "error"), FAILURES)
def test_failures(name, first, second, error):
    """VMfailValid with a current VMCS, VMfailInvalid without; nothing else changes."""
    world = World()
    before = dict(world.hart.vmx.vmcs.fields)
    assert world.vmx(name, first, second) == (0 if name == "vmread" else error)
    assert world.hart.csr.values["vmxstatus"] == error
    assert world.hart.vmx.vmcs.fields == {**before, "instruction_error": error}
    assert world.vmx("vmptrst") == VMCS
    assert world.hart.csr.values["vmxstatus"] == 0
    assert world.read("instruction_error") == error

    bare = World(loaded=False)
    assert bare.vmx(name, first, second) == (0 if name == "vmread" else VM_FAIL_INVALID)
    assert bare.hart.csr.values["vmxstatus"] == VM_FAIL_INVALID
    assert bare.vmx("vmptrst") == VM_FAIL_INVALID


def test_every_error_is_seen():
    seen = {error for *_, error in FAILURES}
    # Those of entries are in test_entry.
    assert set(ERROR) - seen == {
        ERROR.VMLAUNCH_NOT_CLEAR,
        ERROR.ENTRY_INVALID_CONTROLS,
        ERROR.ENTRY_INVALID_HOST_STATE,
    }


@pytest.mark.parametrize("name", ["vmlaunch", "vmresume", "vmread", "vmwrite", "vmcall"])
def test_without_a_current_vmcs(name):
    world = World(loaded=False)
    field = VMCS_FIELDS["eptp"].number
    assert world.vmx(name, field) == (0 if name == "vmread" else VM_FAIL_INVALID)
    assert world.hart.csr.values["vmxstatus"] == VM_FAIL_INVALID
    assert world.hart.world == 0


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        *(("invept", kind, World.eptp()) for kind in InveptType),
        ("invept", InveptType.SINGLE_CONTEXT, World.eptp(MEMORY_MAP["ram"].end - 0x4000)),
        ("invept", InveptType.ALL_CONTEXTS, (1 << 64) - 1),
        *(("invvpid", INVVPID_OPERAND.encode(vpid=1, type=kind), 0) for kind in InvvpidType),
        ("invvpid", INVVPID_OPERAND.encode(type=InvvpidType.ALL_CONTEXTS), 1 << 63),
        ("invvpid", INVVPID_OPERAND.encode(vpid=1, type=InvvpidType.SINGLE_CONTEXT), 1 << 63),
        ("invvpid", 0xFFFF, (1 << 64) - (1 << 38)),
    ],
)
@pytest.mark.parametrize("loaded", [False, True])
def test_invalidations_succeed(name, first, second, loaded):
    world = World(loaded=loaded)
    assert world.vmx(name, first, second) == 0


def test_every_field_is_written_and_read():
    world = World()
    writable = [row for row in VMCS_FIELDS.values() if not row.read_only]
    for place, field in enumerate(writable):
        assert world.vmx("vmwrite", field.number, (place << 40) + ~place) == 0
    for place, field in enumerate(writable):
        assert world.vmx("vmread", field.number) == (place << 40) + ~place & (1 << 64) - 1


def test_vmxoff_leaves_operation_and_the_vmcs():
    world = World()
    assert world.vmx("vmxoff") == 0
    word = vmx_word("vmptrst", 12)
    assert world.step(word) == (ILLEGAL, word)
    world.hart.privilege = 3
    world.hart.switched()
    assert world.vmx("vmxon") == 0
    assert world.vmx("vmptrst") == VM_FAIL_INVALID


def test_rd_may_be_x0():
    world = World()
    assert world.step(vmx_word("vmcall")) is None
    assert world.hart.csr.values["vmxstatus"] == ERROR.VMCALL_IN_ROOT
    assert world.hart.x[0] == 0


def test_they_retire_in_root():
    world = World()
    before = world.hart.csr.retired
    for name in ("vmptrst", "vmcall", "vmxon", "vmresume"):
        world.vmx(name)
    assert world.hart.csr.retired == before + 4
    assert world.vmx("vmlaunch") is None
    root = world.hart.vmx.root_csr
    assert root.retired == before + 5
    world.guest_code(encode("addi"), encode("addi"), vmx_word("vmcall"))
    assert world.run(5) is not None
    # Those of the guest count in root, too.
    assert root.retired == before + 7
    assert world.read("guest_minstret") == 2


@pytest.mark.model_only  # Stopping behind each instruction ends the reservation, too.
@pytest.mark.parametrize("line", [0, 40])
def test_a_region_that_is_written_ends_the_reservation(line):
    world = World()
    hart = world.hart
    world.put(OTHER_VMCS, world.get(VMCS))
    x = hart.x
    x[10] = OTHER_VMCS + 64 * line
    assert world.step(encode("lr.d", rd=5, rs1=10)) is None
    # The launch state lies in line 0.
    assert world.vmx("vmclear", OTHER_VMCS) == 0
    x[10] = OTHER_VMCS + 64 * line
    assert world.step(encode("sc.d", rd=5, rs1=10, rs2=0)) is None
    assert x[5] == (1 if line == 0 else 0)


# CSRs of the extension.


@pytest.mark.parametrize("name", VMX_CSRS)
def test_csrs_exist_in_root_machine_mode_only(name):
    csr = VMX_CSRS[name]
    read = encode("csrrs", rd=5, csr=csr.number)
    write = encode("csrrw", rs1=6, csr=csr.number)
    for on in (False, True):
        world = World(on=on, loaded=False)
        assert world.step(read) is None
        assert world.hart.x[5] == csr.reset
        world.hart.x[6] = 0x123
        assert world.step(write) == ((ILLEGAL, write) if csr.read_only else None)
        world = World(on=on, loaded=False)
        for privilege in LOWER:
            root_at(world, privilege)
            assert world.step(read) == (ILLEGAL, read)
    for privilege in LEVELS:
        for word in (read, write):
            world = World()
            world.launch(privilege=privilege, code=[word])
            assert world.run() == (ILLEGAL, word)


def test_without_the_extension_there_is_nothing_of_it():
    """Neither instructions nor CSRs, on a hart that does not have it."""
    from sim.golden import Hart
    from tests.golden.vmx.world import HOST_CODE, RAM_SIZE, Outside

    hart = Hart(RAM_SIZE, Outside())
    words = [vmx_word(name) for name in NAMES]
    words += [encode("csrrs", rd=5, csr=csr.number) for csr in VMX_CSRS.values()]
    for word in words:
        hart.pc, hart.privilege = HOST_CODE, 3
        hart.memory.write_physical(HOST_CODE, word.to_bytes(4, "little"))
        hart.memory.fence_i()
        hart.step()
        assert hart.trapped == (ILLEGAL, word)
    assert not set(VMX_CSRS) & set(CSRS)
