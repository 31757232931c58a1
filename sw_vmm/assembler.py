"""A small assembler for the code the VMM itself runs on the hart, from the facts' encodings."""

from rtl.arch.instructions import IMMEDIATES, INSTRUCTIONS, RD, RS1, RS2, Format

__all__ = ["Assembler", "encode"]

_CSR_LSB = 20


def encode(name: str, *, rd=0, rs1=0, rs2=0, imm=0, csr=0) -> int:
    """The word of an uncompressed instruction. Raises KeyError and ValueError."""
    row = INSTRUCTIONS[name]
    word = row.match | rd << RD[0] | rs1 << RS1[0] | rs2 << RS2[0]
    if row.format in (Format.CSR, Format.CSR_IMMEDIATE):
        word |= csr << _CSR_LSB
    if row.format in IMMEDIATES:
        word |= IMMEDIATES[row.format].insert(imm)
    return word


class Assembler:
    """Straight-line code with labels, put at ``base``.

    Instructions are added by ``add``; ``to`` names the label a branch or jal goes to, which may be
    set later.
    """

    def __init__(self, base: int):
        self._base = base
        self._words: list[int] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str, dict[str, int | str]]] = []

    @property
    def here(self) -> int:
        """Address of the next instruction."""
        return self._base + 4 * len(self._words)

    def label(self, name: str) -> None:
        self._labels[name] = self.here

    def address(self, name: str) -> int:
        """Where a label is that was set."""
        return self._labels[name]

    def add(self, name: str, *, to: str | None = None, **operands: int) -> None:
        if to is None:
            self._words.append(encode(name, **operands))
        else:
            self._jumps.append((self.here, to, {"name": name, **operands}))
            self._words.append(0)

    def word(self, bits: int) -> None:
        """An instruction as it is encoded."""
        self._words.append(bits)

    def load_address(self, rd: int, address: int) -> None:
        """rd = an address below 4 GiB, in a fixed number of instructions."""
        low = (address & 0xFFF ^ 0x800) - 0x800
        high = address - low & 0xFFFF_FFFF
        self.add("lui", rd=rd, imm=(high ^ 1 << 31) - (1 << 31))
        self.add("addi", rd=rd, rs1=rd, imm=low)
        # lui sign-extends: clear the upper half.
        self.add("slli", rd=rd, rs1=rd, imm=32)
        self.add("srli", rd=rd, rs1=rd, imm=32)

    def assemble(self) -> bytes:
        """The code. Raises KeyError for a label that was never set."""
        words = list(self._words)
        for at, label, operands in self._jumps:
            fields = dict(operands)
            word = encode(fields.pop("name"), imm=self._labels[label] - at, **fields)
            words[(at - self._base) // 4] = word
        return b"".join(word.to_bytes(4, "little") for word in words)
