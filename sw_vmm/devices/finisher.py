"""The test finisher (sifive,test): a guest's way to end the run."""

from enum import IntEnum

__all__ = ["Finish", "Finisher", "exit_code_of"]


class Finish(IntEnum):
    """Low half of the word a guest writes to end the run; a failure's code is the high half."""

    FAIL = 0x3333
    PASS = 0x5555
    RESET = 0x7777


def exit_code_of(word: int) -> int | None:
    """The exit code a finisher word means, or None when it means nothing."""
    match word & 0xFFFF:
        case Finish.PASS | Finish.RESET:
            return 0
        case Finish.FAIL:
            return word >> 16 & 0xFFFF
    return None


class Finisher:
    """One write-only register; ``exit_code`` is None until the guest has ended."""

    def __init__(self):
        self.exit_code: int | None = None

    def read(self, offset: int, size: int, now: int) -> int:
        return 0

    def write(self, offset: int, size: int, data: int, now: int) -> None:
        if offset == 0 and size >= 2 and self.exit_code is None:
            self.exit_code = exit_code_of(data)
