"""The model stands alone, and knows every instruction."""

import ast
import sys
from pathlib import Path

import sim.golden
from rtl.arch.instructions import COMPRESSED, INSTRUCTIONS
from rtl.arch.vmx.instructions import VMX_INSTRUCTIONS
from sim.golden.decode import VMX, decoded
from sim.golden.system import illegal

FOLDER = Path(sim.golden.__file__).parent


def imported(source):
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module


def test_it_imports_facts_and_the_standard_library_only():
    sources = sorted(FOLDER.rglob("*.py"))
    assert len(sources) > 5
    for source in sources:
        for name in imported(source):
            own = name == "sim.golden" or name.startswith(("sim.golden.", "rtl.arch."))
            assert own or name.split(".")[0] in sys.stdlib_module_names, f"{source.name}: {name}"


def test_every_instruction_has_semantics():
    for row in INSTRUCTIONS.values():
        assert decoded(row.match).name == row.name
        assert decoded(row.match).execute is not illegal
    for row in VMX_INSTRUCTIONS.values():
        word = row.encoding.match
        assert decoded(word, VMX).name == row.encoding.name
        assert decoded(word, VMX).execute is not illegal
        assert decoded(word).execute is illegal
    for row in COMPRESSED.values():
        # With all operand bits set the word is in no reserved corner.
        word = row.match | ~row.mask & 0xFFFF
        assert decoded(word).execute is decoded(INSTRUCTIONS[row.expansion].match).execute
