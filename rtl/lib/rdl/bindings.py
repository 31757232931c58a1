"""Python bindings of a register map: one module that needs the standard library only."""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

from rtl.lib.rdl.model import Field, Group, Item, Memory, OnWrite, Register, RegisterMap
from rtl.lib.rdl.source import MapError, load_map

__all__ = ["generate_bindings", "write_bindings"]

_RUNTIME = Path(__file__).with_name("binding_runtime.py")
#: What a write leaves a field alone with; the other effects change it whatever is written.
_NEUTRAL_ZERO = {OnWrite.ONE_SETS, OnWrite.ONE_CLEARS, OnWrite.ONE_TOGGLES}
_NEUTRAL_ONES = {OnWrite.ZERO_SETS, OnWrite.ZERO_CLEARS, OnWrite.ZERO_TOGGLES}


def generate_bindings(register_map: RegisterMap) -> str:
    """The text of a module with one class per register and the map's own class, in camel case.

    That class is made from ``read(address, size)``, ``write(address, value, size)`` and the base
    address. Raises MapError when names of the map would collide.
    """
    return _Generator(register_map).text()


def write_bindings(source: Path, target: Path) -> None:
    """Write the bindings of a SystemRDL file. Raises MapError."""
    target.write_text(generate_bindings(load_map(source)), encoding="utf-8")


def _camel(*names: str) -> str:
    parts = "_".join(names).split("_")
    return "".join(part[:1].upper() + part[1:] for part in parts)


class _Generator:
    def __init__(self, register_map: RegisterMap):
        self._map = register_map
        runtime = _RUNTIME.read_text(encoding="utf-8")
        tree = ast.parse(runtime)
        first = tree.body[1].lineno - 1
        self._runtime = runtime.splitlines()[first:]
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        # Names a class or an attribute of the map must not take.
        self._classes = {
            *classes,
            *(
                alias.name
                for node in tree.body
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            ),
        }
        self._attributes = {
            base: {item.name for item in classes[base].body if isinstance(item, ast.FunctionDef)}
            for base in ("Node", "Register")
        }

    def text(self) -> str:
        lines = [
            f'"""{_quoted(f"Registers of {self._map.name}: {self._map.text}")}',
            "",
            "Generated from SystemRDL; changes belong into the source.",
            '"""',
            "",
            *self._runtime,
        ]
        for enumeration in self._map.enumerations.values():
            self._claim(enumeration.name)
            lines += ["", "", f"class {enumeration.name}(IntEnum):"]
            for name, value, text in enumeration.members:
                lines += [f"    #: {text}", f"    {name} = {value:#x}"]
        name = _camel(self._map.name)
        body = list(self._holder(self._map.items, (self._map.name,)))
        self._claim(name)
        lines += [line for item in body[:-1] for line in item]
        lines += [
            "",
            "",
            f"class {name}(Node):",
            f'    """{_quoted(self._map.text)}"""',
            "",
            "    __slots__ = ()",
            f"    SIZE = {self._map.size:#x}",
            "",
            "    def __init__(self, read: Read, write: Write, base: int = 0):",
            f'        super().__init__(Transport(read, write), base, "{self._map.name}")',
            *body[-1],
        ]
        return "\n".join(lines) + "\n"

    def _claim(self, name: str) -> None:
        if name in self._classes:
            raise MapError(f"{self._map.name}: two classes of the bindings would be called {name}")
        self._classes.add(name)

    def _holder(self, items: tuple[Item, ...], path: tuple[str, ...]) -> Iterator[list[str]]:
        """The classes of what is held, then the properties that lead to them."""
        properties = []
        for item in items:
            self._check_attribute("Node", item.name, path)
            inner = (*path, item.name)
            name = _camel(*inner)
            match item:
                case Group():
                    *classes, own = self._holder(item.items, inner)
                    yield from classes
                    body = ["    __slots__ = ()", *own]
                    base, array = "Node", "Array"
                case Register():
                    body = list(self._register(item, inner))
                    base, array = "Register", "RegisterArray"
                case Memory():
                    body = list(self._word(item))
                    base, array = "Register", "RegisterArray"
            self._claim(name)
            head = ["", "", f"class {name}({base}):", f'    """{_quoted(item.text)}"""', ""]
            yield head + body
            properties += self._property(item, name, array)
        yield properties

    def _check_attribute(self, base: str, name: str, path: tuple[str, ...]) -> None:
        if name in self._attributes[base] or name == "SIZE":
            raise MapError(f"{'.'.join((*path, name))}: the bindings themselves use this name")

    def _property(self, item: Item, name: str, array: str) -> list[str]:
        place = f'self._transport, self._address + {item.offset:#x}, f"{{self._path}}.{item.name}"'
        count = item.entries if isinstance(item, Memory) else item.count
        kind = name if count is None else f"{array}[{name}]"
        made = name if count is None else array
        extra = "" if count is None else f"{name}, {count}, {item.stride:#x}, "
        return [
            "",
            "    @property",
            f"    def {item.name}(self) -> {kind}:",
            f'        """{_quoted(item.text)}"""',
            f"        return {made}({extra}{place})",
        ]

    def _register(self, register: Register, path: tuple[str, ...]) -> Iterator[str]:
        yield from self._access(
            register.width, register.access_width, register.sw_read, register.sw_write
        )
        for field in register.fields:
            self._check_attribute("Register", field.name, path)
            yield f"    #: {field.text}"
            yield f"    {field.name} = {self._field(field)}"
        names = ", ".join(f'"{field.name}": {field.name}' for field in register.fields)
        yield f"    _fields = {{{names}}}"

    def _word(self, memory: Memory) -> Iterator[str]:
        yield from self._access(memory.width, memory.width, memory.sw_read, memory.sw_write)

    def _access(self, width: int, access_width: int, reads: bool, writes: bool) -> Iterator[str]:
        yield "    __slots__ = ()"
        yield f"    _width, _access_width = {width}, {access_width}"
        yield f"    _reads, _writes = {reads}, {writes}"

    def _field(self, field: Field) -> str:
        if field.single_pulse or field.on_write in _NEUTRAL_ZERO:
            neutral = 0
        elif field.on_write in _NEUTRAL_ONES:
            neutral = (1 << field.width) - 1
        else:
            neutral = None
        keeps = not field.sw_write or neutral is not None or (field.sw_read and not field.on_write)
        kind = field.enumeration.name if field.enumeration else "int"
        return (
            f'Field("{field.name}", {field.lsb}, {field.width}, {kind}, '
            f"reads={field.sw_read}, writes={field.sw_write}, neutral={neutral}, keeps={keeps}, "
            f"changes_on_read={field.on_read is not None})"
        )


def _quoted(text: str) -> str:
    """The text as it can stand between triple quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def main() -> None:
    parser = argparse.ArgumentParser(description="Python bindings of a SystemRDL register map")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    try:
        write_bindings(options.source, options.target)
    except MapError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
