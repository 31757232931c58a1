"""SBI against its specification's numbers, and a kernel in S-mode that has nothing else below it."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtl.arch.csrs import CSRS
from sim.elf import load_elf
from sim.tiny import tiny_elf
from sw_vmm.hart import Hart
from sw_vmm.interpreter import Interpreter
from sw_vmm.memory import LocalMemory
from sw_vmm.sbi import Answer, Error, HartState, HartStop, HartSuspend, Reset, Sbi
from tests.sw_vmm.machines import make_vm

RAM, SIZE = 0x8000_0000, 1 << 16
ALL = (1 << 64) - 1
BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN = (
    0x10,
    *(int.from_bytes(name, "big") for name in (b"TIME", b"sPI", b"RFNC", b"HSM", b"SRST", b"DBCN")),
)
HARTS = (0, 1, 5)


class Recorder:
    """A platform with three harts that notes what it is asked; hart 1 is stopped."""

    def __init__(self, typed=b"", room=1 << 20):
        self.harts = HARTS
        self.memory = LocalMemory(RAM, SIZE)
        self.calls, self.typed, self.room = [], typed, room

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments: self.calls.append((name, *arguments))

    def state_of(self, hart):
        return {0: HartState.STARTED, 1: HartState.STOPPED, 5: HartState.SUSPENDED}[hart]

    def write_console(self, data):
        self.calls.append(("write_console", data[: self.room]))
        return len(data[: self.room])

    def read_console(self, limit):
        return self.typed[:limit]


def call(extension, function, *arguments, platform=None):
    platform = platform or Recorder()
    registers = [*arguments, *[0] * (6 - len(arguments)), function, extension]
    return Sbi(platform).call(0, registers), platform.calls


def answer(*arguments, **options):
    outcome, _ = call(*arguments, **options)
    return outcome.error, outcome.value


# -- base and timer --------------------------------------------------------------------------------


def test_version_is_two():
    assert answer(BASE, 0) == (0, 0x0200_0000)
    assert [answer(BASE, function) for function in (4, 5, 6)] == [(0, 0)] * 3


@pytest.mark.parametrize("extension", [BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN])
def test_every_extension_is_probed_and_knows_its_first_function_only_by_number(extension):
    assert answer(BASE, 3, extension) == (0, 1)
    assert answer(extension, 99) == (-2, 0)
    assert answer(extension, 1 << 32) == (-2, 0)


@pytest.mark.parametrize("extension", [0, 1, 8, 0x735048, 0x10 << 32 | 0x10, 0x504D55, ALL])
def test_what_is_not_there_is_not_supported(extension):
    assert answer(BASE, 3, extension) == (0, 0)
    assert answer(extension, 0) == (-2, 0)


def test_errors_are_negative_registers():
    assert Answer(Error.INVALID_PARAM, 7).registers == (ALL - 2, 7)
    assert Answer().registers == (0, 0)


@pytest.mark.parametrize("deadline", [0, 12345, ALL])
def test_timer_belongs_to_the_caller(deadline):
    assert call(TIME, 0, deadline) == (Answer(), [("set_timer", 0, deadline)])


# -- other harts -----------------------------------------------------------------------------------


@given(
    st.integers(0, 255) | st.integers(0, ALL), st.integers(0, 8) | st.sampled_from([ALL, 1 << 60])
)
def test_masks_choose_harts(mask, base):
    chosen = [base + bit for bit in range(64) if mask >> bit & 1]
    if base == ALL:
        chosen = list(HARTS)
    outcome, calls = call(IPI, 0, mask, base)
    if set(chosen) <= set(HARTS):
        assert outcome == Answer() and calls == [("send_ipi", hart) for hart in chosen]
    else:
        assert outcome == Answer(Error.INVALID_PARAM) and calls == []


@pytest.mark.parametrize(
    ("start", "size", "range_"),
    [
        (0x1000, 0x2000, (0x1000, 0x2000)),
        (0, 0, (None, None)),
        (0x5000, ALL, (None, None)),
        (0x5000, 0, (0x5000, 0)),
        (0, 4096, (0, 4096)),
        (ALL - 4095, 4096, (ALL - 4095, 4096)),
    ],
)
def test_fences_reach_harts_with_range_and_asid(start, size, range_):
    assert call(RFENCE, 0, 2, 0) == (Answer(), [("fence_i", 1)])
    assert call(RFENCE, 1, 1, 0, start, size) == (Answer(), [("sfence_vma", 0, *range_, None)])
    assert call(RFENCE, 2, 1, 5, start, size, 7) == (Answer(), [("sfence_vma", 5, *range_, 7)])


def test_fence_beyond_the_address_space_is_invalid():
    assert call(RFENCE, 1, 1, 0, ALL, 2) == (Answer(Error.INVALID_ADDRESS), [])
    assert call(RFENCE, 1, 4, 0, 0, 4096) == (Answer(Error.INVALID_PARAM), [])
    assert [answer(RFENCE, function) for function in (3, 4, 5, 6)] == [(-2, 0)] * 4


# -- hart states -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hart", "address", "error"),
    [
        (1, RAM, 0),
        (0, RAM, -6),
        (5, RAM, -6),
        (2, RAM, -3),
        (ALL, RAM, -3),
        (1, RAM - 2, -5),
        (1, RAM + SIZE, -5),
        (1, RAM + 1, -5),
        (1, ALL - 1, -5),
    ],
)
def test_harts_are_started(hart, address, error):
    outcome, calls = call(HSM, 0, hart, address, 0xABC)
    assert outcome.error == error
    assert calls == ([("start_hart", hart, address, 0xABC)] if error == 0 else [])


def test_harts_tell_their_state_and_stop():
    assert [answer(HSM, 2, hart) for hart in (0, 1, 5, 6)] == [(0, 0), (0, 1), (0, 4), (-3, 0)]
    assert call(HSM, 1) == (HartStop(), [])


def test_harts_suspend():
    assert call(HSM, 3, 0)[0] == HartSuspend(retentive=True)
    # The type is a 32-bit argument, whatever its register holds above.
    assert call(HSM, 3, 1 << 40)[0] == HartSuspend(retentive=True)
    outcome = HartSuspend(retentive=False, address=RAM + 4, opaque=9)
    assert call(HSM, 3, 0x8000_0000, RAM + 4, 9)[0] == outcome
    assert answer(HSM, 3, 0x8000_0000, RAM - 4, 9) == (-5, 0)
    assert answer(HSM, 3, 1) == answer(HSM, 3, 0x8000_0001) == (-3, 0)


# -- system and console ----------------------------------------------------------------------------


def test_system_resets():
    for kind in (0, 1, 2):
        for reason in (0, 1):
            outcome, _ = call(SRST, 0, kind, reason)
            assert isinstance(outcome, Reset) and (outcome.kind, outcome.reason) == (kind, reason)
    for bad in ((3, 0), (0xF000_0000, 0), (0, 2), (0, 0xE000_0000)):
        assert answer(SRST, 0, *bad) == (-3, 0)


def test_console_takes_what_it_can():
    platform = Recorder(room=3)
    platform.memory.write_bytes(RAM + 7, b"hello")
    outcome, calls = call(DBCN, 0, 5, RAM + 7, platform=platform)
    assert outcome == Answer(value=3) and calls == [("write_console", b"hel")]
    assert call(DBCN, 2, 0x1_41) == (Answer(), [("write_console", b"A")])
    assert answer(DBCN, 2, 65, platform=Recorder(room=0)) == (-1, 0)


def test_console_gives_what_was_typed():
    platform = Recorder(typed=b"keys")
    assert answer(DBCN, 1, 3, RAM, platform=platform) == (0, 3)
    assert platform.memory.read_bytes(RAM, 4) == b"key\0"
    assert answer(DBCN, 1, 3, RAM) == (0, 0)


@pytest.mark.parametrize(
    ("length", "low", "high"),
    [(1, RAM - 1, 0), (2, RAM + SIZE - 1, 0), (ALL, RAM, 0), (1, RAM, 1), (1, 0x1000_0000, 0)],
)
def test_console_memory_must_be_guest_memory(length, low, high):
    for function in (0, 1):
        assert call(DBCN, function, length, low, high) == (Answer(Error.INVALID_PARAM), [])


@given(
    st.sampled_from([BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN]),
    st.integers(0, 8),
    st.lists(
        st.sampled_from([0, 1, RAM, ALL, 1 << 63]) | st.integers(0, ALL), min_size=6, max_size=6
    ),
)
def test_no_argument_is_an_exception(extension, function, arguments):
    outcome, calls = call(extension, function, *arguments)
    assert isinstance(outcome, Answer | HartStop | HartSuspend | Reset)
    assert all(0 <= register <= ALL for register in getattr(outcome, "registers", (0, 0)))
    assert all(row[1] in HARTS for row in calls if row[0] != "write_console")


# -- a kernel --------------------------------------------------------------------------------------


class SupervisorInterpreter(Interpreter):
    """Ecalls from S-mode go to the VMM and count; everything else is the guest's own."""

    def _take(self, cause, tval, pc):
        if cause != 9:
            super()._take(cause, tval, pc)
            return
        outcome = self.sbi.call(0, self.registers[10:18])
        self.registers[10:12] = outcome.registers
        self.calls += 1
        self.pc = pc + 4


def test_kernel_in_supervisor_mode_needs_nothing_but_these_calls():
    image = load_elf(tiny_elf(sbi_timer=True, firmware=False), ram_size=16 << 20)
    vm = make_vm(guest_ram=16 << 20)
    hart = Hart(vm)
    interpreter = SupervisorInterpreter(
        hart, LocalMemory(vm.ram_base, vm.ram_size, image.segments), vm.bus
    )
    csrs = {"medeleg": ALL & ~(1 << 9), "mideleg": ALL, "mcounteren": 7, "menvcfg": 1 << 63}
    for name, value in csrs.items():
        hart.write_csr(CSRS[name].number, value)
    hart.privilege = 1
    platform = SimpleNamespace(
        harts=(0,),
        memory=LocalMemory(RAM, SIZE),
        set_timer=lambda hart_, deadline: hart.write_csr(CSRS["stimecmp"].number, deadline),
    )
    interpreter.sbi, interpreter.calls = Sbi(platform), 0
    interpreter.pc = image.entry
    interpreter.run(200_000_000, lambda: vm.finisher.exit_code is not None)
    vm.uart.settle()
    assert vm.finisher.exit_code == 0
    assert bytes(vm.uart.output).endswith(b"tiny: all is well\r\n")
    assert interpreter.calls > 100
