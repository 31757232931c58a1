"""What is disassembled assembles to the same bits again, says the compiler's assembler."""

import random
import subprocess

from rtl.arch.csrs import CSRS
from rtl.arch.instructions import COMPRESSED, INSTRUCTIONS, Format, decode
from sim.disassembler import disassemble
from sim.toolchain import TARGET_FLAGS, compiler_command, compiler_environment

_BIT_MANIPULATION = "-mcpu=generic_rv64+m+a+c+zba+zbb+zbs"
#: The sign of an offset: the assembler takes no negative target without a symbol.
SIGN = {Format.B: 31, Format.J: 31, Format.CB: 12, Format.CJ: 12}


def samples(row, rng):
    """Some encodings of the instruction that an assembler would choose, too."""
    if row.format is Format.FENCE:
        return [0x0FF0_000F if row.name == "fence" else row.match]
    found = []
    while len(found) < 6:
        bits = rng.getrandbits(16 if row.compressed else 32) & ~row.mask | row.match
        if row.format in SIGN:
            bits &= ~(1 << SIGN[row.format])
        if row.format in (Format.CSR, Format.CSR_IMMEDIATE):
            bits = bits & 0xF_FFFF | rng.choice(list(CSRS.values())).number << 20
        if decode(bits) is row and not hint(row, bits):
            found.append(bits)
        elif row.mask == (0xFFFF if row.compressed else 0xFFFF_FFFF):
            return [row.match]
    return found


def hint(row, bits):
    """Compressed encodings without effect, which assemblers refuse."""
    return row.compressed and (
        (bits >> 7 & 31 == 0 and row.format not in (Format.CJ, Format.CIW))
        or (row.name in ("c.addi", "c.slli", "c.srli", "c.srai") and not bits & 0x107C)
        or (row.name in ("c.mv", "c.add") and not bits & 0x7C)
    )


def test_it_assembles_again(tmp_path):
    rng = random.Random(1)
    rows = [*INSTRUCTIONS.values(), *COMPRESSED.values()]
    words = [bits for row in rows for bits in samples(row, rng)]
    source = tmp_path / "all.s"
    source.write_text(
        ".option norelax\n"
        + "".join(
            f".option {'rvc' if bits & 3 != 3 else 'norvc'}\n{disassemble(bits)}\n"
            for bits in words
        )
    )
    result = subprocess.run(
        [
            *compiler_command(),
            *TARGET_FLAGS,
            _BIT_MANIPULATION,
            "-c",
            str(source),
            "-o",
            str(tmp_path / "all.o"),
        ],
        capture_output=True,
        text=True,
        env=compiler_environment(),
        check=False,
    )
    assert result.returncode == 0, result.stderr
    code = b"".join(bits.to_bytes(4 if bits & 3 == 3 else 2, "little") for bits in words)
    assert code in (tmp_path / "all.o").read_bytes(), first_wrong(words, tmp_path / "all.o")


def first_wrong(words, file):
    """The first instruction after which the code in the object file goes on otherwise."""
    content, code = file.read_bytes(), b""
    for bits in words:
        code += bits.to_bytes(4 if bits & 3 == 3 else 2, "little")
        if code not in content:
            return f"{bits:#x}: {disassemble(bits)}"
    return None


def test_no_instruction_is_shown_as_data():
    assert disassemble(0xFFFF_FFFF) == ".4byte 0xffffffff"
    assert disassemble(0) == ".2byte 0x0000"
