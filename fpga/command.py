"""What the commands of this folder have in common: options, the record in docs/data, exit codes."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtl.soc.config import CONFIGURATIONS, SocConfig
from sim.errors import VmxlabError
from sim.profile import Table, print_table
from sim.progress import progress
from sim.results import Schema, write_json

__all__ = ["Command"]


@dataclass(frozen=True)
class Command:
    """A command that measures one configuration, prints tables, and records the result.

    ``make`` is how the Makefile calls it, ``module`` how Python does. In a checkout the result goes
    to the file ``record``, for another configuration than ``full`` to one with its name in it.
    """

    make: str
    module: str
    title: str
    description: str
    record: Path
    schema: Schema

    def run(
        self,
        arguments: Sequence[str] | None,
        measure: Callable[..., tuple[dict, Iterable[Table]]],
        options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    ) -> int:
        """Run it; the value is the exit code: 0, 1 for a failure, 130 after Ctrl-C.

        ``measure(chosen, config, say)`` gives the document, without the command that made it, and
        the tables. ``options`` adds arguments of its own, which are in ``chosen``.
        """
        parser = argparse.ArgumentParser(
            prog=f"python -m {self.module}",
            description=f"{self.description} In a checkout the result is recorded in docs/data.",
        )
        parser.add_argument(
            "--json", metavar="FILE", type=Path, help="write the result for programs"
        )
        parser.add_argument(
            "--config", choices=tuple(CONFIGURATIONS), default="full", help="the machine measured"
        )
        options(parser)
        chosen = parser.parse_args(arguments)
        config: SocConfig = CONFIGURATIONS[chosen.config]
        files = [chosen.json] if chosen.json else []
        if self.record.parents[1].is_dir():
            self.record.parent.mkdir(exist_ok=True)
            suffix = "" if chosen.config == "full" else f"-{chosen.config}"
            files.append(self.record.with_stem(self.record.stem + suffix))
        try:
            for file in files:
                if file.is_dir() or not file.absolute().parent.is_dir():
                    raise VmxlabError(f"cannot write {file}: no such folder, or it is one")
            with progress(self.title) as say:
                say("elaborating the RTL")
                document, tables = measure(chosen, config, say)
            command = {"command": self._line(parser, chosen)}
            for file in files:
                write_json(file, document | command, [self.schema])
        except VmxlabError as error:
            print(f"vmxlab: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nvmxlab: interrupted", file=sys.stderr)
            return 130
        for table in tables:
            print_table(table, sys.stdout)
            print()
        return 0

    def _line(self, parser, chosen) -> str:
        """The command line that gives this result again."""
        words = []
        for name, value in vars(chosen).items():
            if name != "json" and value != parser.get_default(name):
                words.append(f"--{name}")
                words += map(str, value) if isinstance(value, list | tuple) else [str(value)]
        return " ".join([f"python -m {self.module}", *words]) if words else self.make
