"""The test finisher (sifive,test): a guest's way to end the run."""

from sw_vmm import bindings
from sw_vmm.devices.register_file import RegisterFile, mask_of, place_of

__all__ = ["Finish", "Finisher", "exit_code_of"]

_map = bindings.load("finisher")
_finish = _map.Finisher(None, None).finish
_FINISH = place_of(_map, _finish, alone=True)
_code = _finish._fields["code"]


#: Low half of the word that ends the run.
Finish = _map.finish
_ENDS = frozenset(int(member) for member in Finish)


def exit_code_of(word: int) -> int | None:
    """The exit code that a finisher word means, or None when it does not end the run."""
    status = word & mask_of(_finish, "status")
    if status not in _ENDS:
        return None
    return _code.extract(word) if status == Finish.FAIL else 0


class Finisher:
    """One register; ``exit_code`` is None until the guest has ended."""

    _registers = RegisterFile((_FINISH,))

    def __init__(self):
        self.exit_code: int | None = None

    def read(self, offset: int, size: int, now: int) -> int:
        self._registers.parts(offset, size)
        return 0

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        (part,) = self._registers.parts(offset, size)
        # The low half says how the run ends; it must be written as a whole.
        if part.byte == 0 and size > 1 and self.exit_code is None:
            self.exit_code = exit_code_of(data)
