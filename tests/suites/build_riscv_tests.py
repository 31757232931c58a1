"""Build the public riscv-tests suite with vmxlab's own compiler.

    python -m tests.suites.build_riscv_tests SUITE OUT

SUITE is a checkout of riscv-tests with its submodule ``env``; OUT gets one ELF file per test, for
``pytest tests/suites --riscv-tests OUT``. Which tests a class has is read from the suite itself.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sim.toolchain import compiler_command, compiler_environment

__all__ = ["CLASSES", "build", "tests_of"]

#: Classes and the environments they are built for: p runs in place, v in virtual memory.
CLASSES = {
    "rv64ui": "pv",
    "rv64um": "pv",
    "rv64ua": "pv",
    "rv64uc": "pv",
    "rv64uzba": "pv",
    "rv64uzbb": "pv",
    "rv64uzbs": "pv",
    "rv64mi": "p",
    "rv64si": "p",
}
_FLAGS = (
    "-target",
    "riscv64-freestanding-none",
    "-mabi=lp64",
    "-mcmodel=medany",
    "-static",
    "-nostdlib",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-sanitize=all",
    "-fno-stack-protector",
    "-fno-pic",
    "-std=gnu99",
    "-O2",
    "-w",
)
# No C by default: the tests of C turn it on, and the others count on 4-byte instructions.
_CPU = "-mcpu=generic_rv64+m+a"
_HEADER = """#ifndef HEADER
#define HEADER
#include <stddef.h>
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
size_t strlen(const char *);
int strcmp(const char *, const char *);
char *strcpy(char *, const char *);
long atol(const char *);
static inline int isspace(int c) { return c == ' ' || (c >= '\\t' && c <= '\\r'); }
int memcmp(const void *, const void *, size_t);
#endif
"""


def tests_of(suite: Path, class_: str) -> list[str]:
    """The tests the suite's Makefrag lists for a class."""
    text = (suite / "isa" / class_ / "Makefrag").read_text().replace("\\\n", " ")
    names = []
    for line in text.splitlines():
        found = re.match(rf"{class_}_sc_tests\s*\+?=\s*(.*)", line)
        if found:
            names += found[1].split()
    return names


def build(suite: Path, out: Path, jobs: int = 2) -> list[str]:
    """Build everything; returns the complaints, one per test that does not build."""
    out.mkdir(parents=True, exist_ok=True)
    for env in "pv":
        script = (suite / "env" / env / "link.ld").read_text()
        # lld knows no names of section flags in PHDRS.
        (out / f"{env}.ld").write_text(re.sub(r"FLAGS\([^)]*\)", "FLAGS(7)", script))
    # What the environment's C files want of a C library, besides what they bring.
    (out / "include").mkdir(exist_ok=True)
    for header in ("string.h", "stdio.h", "ctype.h"):
        (out / "include" / header).write_text(_HEADER)
    work = [
        (class_, env, test)
        for class_, envs in CLASSES.items()
        for env in envs
        for test in tests_of(suite, class_)
    ]
    if not work:
        return [f"{suite} lists no tests"]
    with ThreadPoolExecutor(jobs) as pool:
        complaints = pool.map(lambda row: _build_one(suite, out, *row), work)
        return [complaint for complaint in complaints if complaint]


def _build_one(suite, out, class_, env, test):
    name = f"{class_}-{env}-{test}"
    cpu = _CPU
    if class_.startswith("rv64uz"):
        cpu += "+" + class_.removeprefix("rv64u")
    flags = [
        f"-I{out / 'include'}",
        f"-I{suite / 'env' / env}",
        f"-I{suite / 'isa' / 'macros' / 'scalar'}",
    ]
    sources = []
    if env == "v":
        # The environment's page allocator draws from it; any fixed number will do.
        flags.append(f"-DENTROPY=0x{hashlib.sha256(name.encode()).hexdigest()[:7]}")
        # Its handler holds a floating-point instruction to compare with; nobody executes it.
        cpu += "+f"
        sources = [suite / "env/v/entry.S", suite / "env/v/vm.c", suite / "env/v/string.c"]
    flags.append(cpu)
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch, "test.s")
        first = _compile(*flags, "-E", suite / "isa" / class_ / f"{test}.S", "-o", text)
        if first.returncode:
            return f"{name}: {_error(first)}"
        # clang refuses .globl of what was .weak before; weak is enough.
        text.write_text(re.sub(r"\.globa?l\s+[ms]tvec_handler\b", "", text.read_text()))
        second = _compile(*flags, f"-Wl,-T,{out / f'{env}.ld'}", text, *sources, "-o", out / name)
    return f"{name}: {_error(second)}" if second.returncode else None


def _compile(*arguments):
    return subprocess.run(
        [*compiler_command(), *_FLAGS, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=compiler_environment(),
        check=False,
    )


def _error(result):
    return next((line for line in result.stderr.splitlines() if "error" in line), "no reason given")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if not (arguments.suite / "env" / "p" / "link.ld").is_file():
        parser.error(f"{arguments.suite} is no checkout of riscv-tests with its submodule env")
    complaints = build(arguments.suite.resolve(), arguments.out.resolve())
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
