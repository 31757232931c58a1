"""Verilog as Yosys writes it, said in a way that Verilator makes faster code of.

What changes are words, not bits: every signal that is used has the value it had.
"""

import itertools
import re
from collections import Counter

__all__ = ["with_narrow_sums", "with_registers", "with_replications"]

# A concatenation without another in it, and a slice in it.
_CONCATENATION = re.compile(r"\{ ([^{}]*) \}")
_SLICE = re.compile(r"(.+)\[(\d+):(\d+)\]")

#: Bits of the words that Verilator computes with; wider sums are calls.
_WORD = 64
_MODULE = re.compile(r"^module .*?^endmodule", re.DOTALL | re.MULTILINE)
# What Yosys calls the result of an operator.
_NAME = r"\\\$\d+ "
_WIRE = re.compile(rf"  wire (?:signed )?\[(\d+):0\] ({_NAME});")
_SUM = re.compile(rf"  assign ({_NAME}) = (.+) ([+-]) (.+);")
_USE = re.compile(rf"({_NAME})(?: ?\[(\d+)(?::\d+)?\])?")
# A register that takes the value of a signal, and the process that decides about a signal.
_REGISTER = re.compile(rf"  always @\(posedge (.+)\)\n    ([A-Za-z_]\w*|\\\S+ ) <= ({_NAME});\n")
_PROCESS = re.compile(r"  always @\* begin\n(.*?)^  end\n", re.DOTALL | re.MULTILINE)
_ASSIGNMENT = re.compile(rf"^ +({_NAME})(\[[\d:]+\])? = (.+);$")
# What makes a simulator run a process that reads nothing.
_WAKER = re.compile(r"    if \(\\\$auto\$\S+ \) begin end")


def with_replications(text: str) -> str:
    """Verilog with ``{n{bit}}`` for a bit that stands n times in a row in a concatenation.

    Yosys writes every one of them, and Verilator puts them together one by one.
    """
    return _CONCATENATION.sub(_replicated, text)


def _replicated(concatenation: re.Match) -> str:
    parts = _split_at_runs(concatenation[1].split(", "))
    runs = [(part, len(list(same))) for part, same in itertools.groupby(parts)]
    if all(count == 1 for _, count in runs):
        return concatenation[0]
    written = (part if count == 1 else f"{{{count}{{ {part} }}}}" for part, count in runs)
    return f"{{ {', '.join(written)} }}"


def _split_at_runs(parts: list[str]) -> list[str]:
    """The parts, with a slice's first or last bit on its own where the part beside it is that bit.

    Yosys writes ``{x[2], x[2:1], x[1]}`` for two bits twice each.
    """
    split = []
    for part, following in itertools.zip_longest(parts, parts[1:]):
        found = _SLICE.fullmatch(part)
        if found is None:
            split.append(part)
            continue
        name, high, low = found[1], int(found[2]), int(found[3])
        last = []
        if split and split[-1] == f"{name}[{high}]":
            split.append(split[-1])
            high -= 1
        if following == f"{name}[{low}]":
            last = [following]
            low += 1
        if high > low:
            split.append(f"{name}[{high}:{low}]")
        elif high == low:
            split.append(f"{name}[{high}]")
        split += last
    return split


def with_narrow_sums(text: str) -> str:
    """Verilog whose sums and differences have a word's width where nobody uses more of them.

    Amaranth's sums never overflow, so that those of words are wider than a word.
    """
    return _MODULE.sub(lambda module: _with_narrow_sums(module[0]), text)


def _with_narrow_sums(module: str) -> str:
    lines = module.split("\n")
    wires = {wire[2]: int(wire[1]) + 1 for wire in map(_WIRE.fullmatch, lines) if wire}
    sums = {}
    for line in lines:
        total = _SUM.fullmatch(line)
        if (
            total
            and wires.get(total[1], 0) > _WORD
            and _is_signed(total[2]) == _is_signed(total[4])
        ):
            sums[total[1]] = total
    # Bits that others use; a whole operand of another sum is used as far as that one is.
    needs, users = dict.fromkeys(sums, 0), {name: [] for name in sums}
    for line in lines if sums else ():
        if _WIRE.fullmatch(line):
            continue
        total = _SUM.fullmatch(line)
        owner = total[1] if total and total[1] in sums else None
        for text in (total[2], total[4]) if owner else (line,):
            for name, high in _USE.findall(text):
                if name not in sums:
                    continue
                if owner and f"{text.strip()} " == name:
                    users[name].append(owner)
                else:
                    needs[name] = max(needs[name], int(high) + 1 if high else wires[name])
    for _ in sums:
        for name, owners in users.items():
            needs[name] = max([needs[name], *(needs[owner] for owner in owners)])
    narrow = {name for name, need in needs.items() if need <= _WORD}
    return "\n".join(_narrowed(line, narrow) for line in lines)


def _narrowed(line: str, names: set[str]) -> str:
    wire, total = _WIRE.fullmatch(line), _SUM.fullmatch(line)
    if wire and wire[2] in names:
        return f"  wire [{_WORD - 1}:0] {wire[2]};"
    if total and total[1] in names:
        left, right = (f"{_WORD}'({text})" for text in (total[2], total[4]))
        return f"  assign {total[1]} = {left} {total[3]} {right};"
    return line


def _is_signed(operand: str) -> bool:
    return operand.startswith("$signed(")


def with_registers(text: str) -> str:
    """Verilog whose registers are assigned where it is decided what to.

    Yosys writes two processes for each: one makes the next value, from the present one on, the
    other takes it. So every register is copied twice per cycle, although few change.
    """
    return _MODULE.sub(lambda module: _with_registers(module[0]), text)


def _with_registers(module: str) -> str:
    registers = {found[3]: found for found in _REGISTER.finditer(module)}
    uses, merged = Counter(re.findall(_NAME, module)), set()

    def decide(process: re.Match) -> str:
        lines = [line for line in process[1].splitlines() if not _WAKER.fullmatch(line)]
        assignments = [found for found in map(_ASSIGNMENT.fullmatch, lines) if found]
        names = {found[1] for found in assignments}
        register = registers.get(min(names)) if len(names) == 1 else None
        # Besides, it is declared and taken.
        if register is None or uses[register[3]] != len(assignments) + 2:
            return process[0]
        merged.add(register[0])
        return _clocked(register[1], register[2], lines)

    module = _PROCESS.sub(decide, module)
    return _REGISTER.sub(lambda found: "" if found[0] in merged else found[0], module)


def _clocked(clock: str, name: str, lines: list[str]) -> str:
    """The process of a register, from the lines that decide about its next value."""
    written, first = [f"  always @(posedge {clock}) begin"], True
    for line in lines:
        assignment = _ASSIGNMENT.fullmatch(line)
        if assignment is None:
            written.append(line)
            first = False
            continue
        part = assignment[2] or ""
        # What comes first is the present value, where nothing else is given.
        if not first or assignment[3].strip() != f"{name}{part}".strip():
            indent = " " * (len(line) - len(line.lstrip()))
            written.append(f"{indent}{name}{part} <= {assignment[3]};")
    return "\n".join([*written, "  end", ""])
