"""Compile SystemRDL and check that our exporters can honour everything it says."""

import keyword
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from systemrdl import RDLCompileError, RDLCompiler
from systemrdl.messages import MessagePrinter, Severity
from systemrdl.node import AddrmapNode, FieldNode, MemNode, Node, RegfileNode, RegNode
from systemrdl.rdltypes import AccessType, PrecedenceType

from rtl.lib.rdl.model import (
    Enumeration,
    Field,
    Group,
    Item,
    Memory,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
)

__all__ = ["MapError", "compiled", "load_map"]

_WORD_BYTES = 8
_DOCUMENTATION = {"name", "desc", "ispresent", "donttest", "dontcompare"}
_PLACEMENT = {"addressing", "alignment", "littleendian", "lsb0", "idle_only"}
#: Properties we honour; any other that is set is refused.
_SUPPORTED = {
    AddrmapNode: _DOCUMENTATION | _PLACEMENT,
    RegfileNode: _DOCUMENTATION | _PLACEMENT | {"errextbus"},
    RegNode: _DOCUMENTATION | {"regwidth", "accesswidth", "errextbus", "idle_only"},
    MemNode: _DOCUMENTATION | {"mementries", "memwidth", "sw", "errextbus", "idle_only"},
    FieldNode: _DOCUMENTATION
    | {"sw", "hw", "reset", "fieldwidth", "encode", "precedence", "singlepulse"}
    | {"onread", "rclr", "rset", "onwrite", "woclr", "woset", "swmod", "swacc", "swwe"}
    | {"we", "wel", "hwset", "hwclr"},
}
_ACCESS = {
    AccessType.na: (False, False),
    AccessType.r: (True, False),
    AccessType.w: (False, True),
    AccessType.rw: (True, True),
}


class MapError(ValueError):
    """A register map that is not valid SystemRDL, or says what we do not support."""


class _Collector(MessagePrinter):
    def __init__(self):
        self.lines = []

    def print_message(self, severity, text, src_ref):
        if severity >= Severity.WARNING:
            self.lines.append(_place(src_ref) + text)


def _place(src_ref) -> str:
    name = getattr(src_ref, "filename", None)
    return f"{Path(name).name}:{src_ref.line}: " if name else ""


def _refuse(node: Node, reason: str):
    raise MapError(f"{_place(node.inst_src_ref)}{node.get_path()}: {reason}")


@contextmanager
def compiled(path: Path | str) -> Iterator[AddrmapNode]:
    """The ``addrmap`` of the file, as PeakRDL's exporters take it.

    Files it includes are looked for beside it. Raises MapError, also for what an exporter that is
    used inside the block finds wrong; warnings are errors.
    """
    path = Path(path)
    if not path.is_file():
        raise MapError(f"no such file: {path}")
    collector = _Collector()
    compiler = RDLCompiler(message_printer=collector)
    try:
        compiler.compile_file(str(path), incl_search_paths=[str(path.parent)])
        yield compiler.elaborate().top
    except RDLCompileError as error:
        raise MapError("\n".join(collector.lines) or f"{path.name}: {error}") from None
    if collector.lines:
        raise MapError("\n".join(collector.lines))


def load_map(path: Path | str) -> RegisterMap:
    """Compile the ``addrmap`` of a SystemRDL file. Raises MapError."""
    with compiled(path) as top:
        _check_properties(top)
        register_map = RegisterMap(
            name=top.inst_name,
            text=_text(top),
            size=top.size,
            items=_items(top, idle_only=_idle_only(top, False), external=False),
        )
        _check_enumerations(top, register_map)
    return register_map


def _text(node: Node) -> str:
    text = node.get_property("desc") or node.get_property("name")
    return " ".join(text.split())


def _idle_only(node: Node, inherited: bool) -> bool:
    if "idle_only" in node.list_properties():
        return bool(node.get_property("idle_only"))
    return inherited


def _check_properties(node: Node) -> None:
    for name in node.list_properties():
        if name not in _SUPPORTED[type(node)] and node.get_property(name) not in (None, False):
            _refuse(node, f"property {name} is not supported")


def _check_name(node: Node) -> None:
    name = node.inst_name
    if keyword.iskeyword(name) or name.startswith("_"):
        _refuse(node, "the name cannot be used in Python")


def _check_enumerations(top: AddrmapNode, register_map: RegisterMap) -> None:
    for item in register_map.walk():
        for field in item.fields if isinstance(item, Register) else ():
            known = register_map.enumerations.get(getattr(field.enumeration, "name", None))
            if field.enumeration is not None and field.enumeration != known:
                _refuse(top, f"two different enumerations are named {known.name}")


def _items(parent: Node, *, idle_only: bool, external: bool) -> tuple[Item, ...]:
    items = []
    for node in parent.children():
        if type(node) not in _SUPPORTED or isinstance(node, AddrmapNode):
            _refuse(node, f"a {node.component_type_name} is not supported here")
        _check_name(node)
        _check_properties(node)
        if node.array_dimensions is not None and len(node.array_dimensions) != 1:
            _refuse(node, "arrays have one dimension")
        common = {
            "name": node.inst_name,
            "text": _text(node),
            "offset": node.raw_address_offset,
            "count": node.array_dimensions[0] if node.is_array else None,
            "stride": node.array_stride if node.is_array else node.size,
            "external": external or bool(node.external),
            "idle_only": _idle_only(node, idle_only),
        }
        match node:
            case RegfileNode():
                items.append(_group(node, common))
            case MemNode():
                items.append(_memory(node, common))
            case RegNode():
                items.append(_register(node, common))
    return tuple(items)


def _group(node: RegfileNode, common: dict) -> Group:
    inner = _items(node, idle_only=common["idle_only"], external=common["external"])
    group = Group(**common, size=node.size, items=inner)
    if group.external and (group.offset % _WORD_BYTES or group.size % _WORD_BYTES):
        _refuse(node, "an external register file starts and ends at a multiple of 8 bytes")
    if group.external and any(item.idle_only != group.idle_only for item in group.items):
        _refuse(node, "idle_only is the same in all of an external register file")
    if group.stride % _WORD_BYTES:
        _refuse(node, "the elements of a register file's array are multiples of 8 bytes apart")
    return group


def _memory(node: MemNode, common: dict) -> Memory:
    width = node.get_property("memwidth")
    if width not in (8, 16, 32, 64):
        _refuse(node, f"memwidth {width} is not supported, only 8, 16, 32 and 64")
    if node.children():
        _refuse(node, "virtual registers in a memory are not supported")
    if common["count"] is not None:
        _refuse(node, "arrays of memories are not supported")
    sw_read, sw_write = _access(node, "sw")
    memory = Memory(
        **{**common, "stride": width // 8},
        width=width,
        entries=node.get_property("mementries"),
        sw_read=sw_read,
        sw_write=sw_write,
    )
    if memory.offset % memory.stride:
        _refuse(node, "the memory is not aligned to its width")
    return memory


def _register(node: RegNode, common: dict) -> Register:
    width = node.get_property("regwidth")
    if width not in (8, 16, 32, 64):
        _refuse(node, f"regwidth {width} is not supported, only 8, 16, 32 and 64")
    if node.is_alias:
        _refuse(node, "alias registers are not supported")
    if node.is_msb0_order:
        _refuse(node, "msb0 is not supported")
    register = Register(
        **common,
        width=width,
        access_width=node.get_property("accesswidth"),
        fields=tuple(_field(field, external=common["external"]) for field in node.fields()),
    )
    if any(offset % (width // 8) for offset in register.offsets):
        _refuse(node, f"a register of {width} bits is not aligned to its width")
    if register.stride != width // 8:
        # PeakRDL's C header cannot say it.
        _refuse(node, "an array of registers with gaps: make it an array of register files")
    return register


def _access(node: Node, name: str) -> tuple[bool, bool]:
    access = node.get_property(name)
    if access not in _ACCESS:
        _refuse(node, f"{name} = {access.name} is not supported")
    return _ACCESS[access]


def _flag(node: FieldNode, name: str) -> bool:
    value = node.get_property(name)
    if not isinstance(value, bool):
        _refuse(node, f"{name} as a reference is not supported, only as a boolean")
    return value


def _field(node: FieldNode, *, external: bool) -> Field:
    _check_name(node)
    _check_properties(node)
    sw_read, sw_write = _access(node, "sw")
    hw_read, hw_write = _access(node, "hw")
    reset = node.get_property("reset")
    if reset is not None and not isinstance(reset, int):
        _refuse(node, "reset by reference is not supported")
    we, wel = _flag(node, "we"), _flag(node, "wel")
    field = Field(
        name=node.inst_name,
        text=_text(node),
        lsb=node.low,
        width=node.width,
        sw_read=sw_read,
        sw_write=sw_write,
        hw_read=hw_read,
        hw_write=hw_write,
        storage=bool(node.implements_storage) and not external,
        reset=reset or 0,
        enumeration=_enumeration(node),
        on_read=_effect(node, "onread", OnRead),
        on_write=_effect(node, "onwrite", OnWrite),
        single_pulse=_flag(node, "singlepulse"),
        sw_modified=_flag(node, "swmod"),
        sw_accessed=_flag(node, "swacc"),
        sw_write_enable=_flag(node, "swwe"),
        hw_set=_flag(node, "hwset"),
        hw_clear=_flag(node, "hwclr"),
        write_enable="we" if we else "wel" if wel else None,
        hw_precedence=node.get_property("precedence") == PrecedenceType.hw,
    )
    if field.single_pulse and (field.hw_write or field.on_write or field.on_read):
        _refuse(node, "a single pulse is written by software only, and plainly")
    if field.sw_write_enable and not field.sw_write:
        _refuse(node, "swwe without a write by software")
    if external and (
        field.sw_modified or field.sw_accessed or field.sw_write_enable or field.hw_set
        or field.hw_clear or field.write_enable
    ):  # fmt: skip
        _refuse(node, "fields of external registers have no hardware signals")
    return field


def _effect(node: FieldNode, name: str, kind):
    value = node.get_property(name)
    if value is None:
        return None
    try:
        return kind(value.name)
    except ValueError:
        _refuse(node, f"{name} = {value.name} is not supported")


def _enumeration(node: FieldNode) -> Enumeration | None:
    encoding = node.get_property("encode")
    if encoding is None:
        return None
    rows = tuple(
        (name, member.value, " ".join((member.rdl_desc or member.rdl_name or name).split()))
        for name, member in encoding.members.items()
    )
    for name, _value, _row in rows:
        if keyword.iskeyword(name) or name.startswith("_"):
            _refuse(node, f"member {name} of {encoding.type_name} cannot be used in Python")
    return Enumeration(encoding.type_name, node.width, rows)
