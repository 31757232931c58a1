"""Generated Python bindings against a memory and a statement of what each access may do."""

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtl.lib.rdl.bindings import write_bindings
from rtl.lib.rdl.source import MapError

SOURCE = """
addrmap gadget {
    desc = "Says \\"hello\\" and \\\\ more.";
    enum Mode { OFF = 0; SLOW = 2; FAST = 5; };
    reg {
        regwidth = 32;
        field { sw = rw; hw = r; encode = Mode; } mode[2:0] = 0;
        field { sw = rw; hw = r; } height[15:8] = 0;
        field { sw = rw; hw = r; singlepulse; } go[16:16] = 0;
        field { sw = rw; hw = rw; we; onwrite = woclr; } events[23:20] = 0;
        field { sw = rw; hw = rw; we; onwrite = wzs; } faults[27:24] = 0;
        field { sw = r; hw = w; } ready[31:31];
    } control @ 0x0;
    reg { regwidth = 32; field { sw = w; hw = r; } a[7:0]; field { sw = w; hw = r; } b[15:8]; } sent @ 0x4;
    reg {
        regwidth = 16;
        field { sw = rw; hw = r; onread = rclr; } taken[3:0] = 0;
        field { sw = rw; hw = r; } other[7:4] = 0;
    } pop @ 0x8;
    reg {
        regwidth = 16;
        field { sw = rw; hw = r; onwrite = wclr; } sticky[3:0] = 0;
        field { sw = rw; hw = r; } other[7:4] = 0;
    } any @ 0xA;
    reg { regwidth = 8; accesswidth = 8; field { sw = r; hw = w; } value[8]; } small @ 0xC;
    external reg { regwidth = 64; accesswidth = 16; field { sw = rw; } value[64]; } wide[8] @ 0x40;
    regfile { reg { regwidth = 32; field { sw = rw; hw = r; } value[12] = 0; } limit; } channel[3] @ 0x80 += 0x10;
    external mem { mementries = 4; memwidth = 16; sw = r; } table @ 0xC0;
};
"""


class Device:
    """Bytes, and a list of the accesses made to them."""

    def __init__(self):
        self.bytes, self.log = bytearray(0x1100), []

    def read(self, address, size):
        self.log.append(("read", address, size))
        return int.from_bytes(self.bytes[address : address + size], "little")

    def write(self, address, value, size):
        self.log.append(("write", address, size))
        self.bytes[address : address + size] = value.to_bytes(size, "little")

    def word(self, address, size):
        return int.from_bytes(self.bytes[address : address + size], "little")

    def put(self, address, value, size):
        self.bytes[address : address + size] = value.to_bytes(size, "little")


def generated(folder, source):
    (folder / "gadget.rdl").write_text(source)
    write_bindings(folder / "gadget.rdl", folder / "gadget.py")
    spec = importlib.util.spec_from_file_location("gadget", folder / "gadget.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return generated(tmp_path_factory.mktemp("bindings"), SOURCE)


@pytest.fixture(scope="module")
def fresh(module):
    """Makes a device and its binding at 0x1000."""

    def make():
        device = Device()
        return device, module.Gadget(device.read, device.write, base=0x1000)

    return make


WORDS = st.integers(0, 2**32 - 1)
PLACES = {"mode": (0, 3), "height": (8, 8), "go": (16, 1), "events": (20, 4), "faults": (24, 4)}


@given(WORDS)
def test_fields_are_decoded(module, fresh, word):
    device, gadget = fresh()
    device.put(0x1000, word & ~7 | 5, 4)
    assert gadget.control.mode is module.Mode.FAST
    assert gadget.control.height == word >> 8 & 0xFF
    assert gadget.control.ready == word >> 31
    assert device.log == [("read", 0x1000, 4)] * 3


@given(WORDS, st.sampled_from(list(PLACES)), st.integers(0, 255))
def test_assigning_a_field_leaves_the_others_alone(fresh, before, name, value):
    device, gadget = fresh()
    _, width = PLACES[name]
    value &= (1 << width) - 1
    device.put(0x1000, before, 4)
    setattr(gadget.control, name, value)
    assert device.log == [("read", 0x1000, 4), ("write", 0x1000, 4)]
    after = device.word(0x1000, 4)
    # Plain storage is written back; what a 1 (or a 0) would change is written as 0 (or 1).
    others = {"mode": before & 7, "height": before >> 8 & 0xFF, "go": 0, "events": 0, "faults": 15}
    for other, (at, bits) in PLACES.items():
        expected = value if other == name else others[other]
        assert after >> at & (1 << bits) - 1 == expected, other


def test_write_and_modify_take_several_fields(module, fresh):
    device, gadget = fresh()
    device.put(0x1000, 0x1234_5602, 4)
    gadget.control.modify(mode=module.Mode.FAST, go=1)
    assert device.word(0x1000, 4) == 0x0F01_5605
    gadget.control.write(height=0xAB)
    assert device.word(0x1000, 4) == 0x0F00_AB00
    gadget.sent.write(a=1, b=2)
    assert device.word(0x1004, 4) == 0x0201
    gadget.control.raw = 0xFFFF_FFFF
    assert gadget.control.raw == 0xFFFF_FFFF


def test_undefined_encodings_are_refused(fresh):
    device, gadget = fresh()
    device.put(0x1000, 3, 4)
    with pytest.raises(ValueError, match="3 is not a valid Mode"):
        gadget.control.mode  # noqa: B018


REFUSED = {
    "unknown register": (lambda g: g.contrl, AttributeError, "contrl"),
    "unknown register, written": (lambda g: setattr(g, "contrl", 1), AttributeError, "contrl"),
    "unknown field": (lambda g: g.control.moode, AttributeError, "moode"),
    "unknown field, written": (lambda g: setattr(g.control, "x", 1), AttributeError, "x"),
    "unknown field, named": (lambda g: g.control.write(x=1), AttributeError, "no field x"),
    "register, assigned": (lambda g: setattr(g, "control", 1), AttributeError, "control"),
    "read-only field": (lambda g: setattr(g.control, "ready", 1), None, "ready is read-only"),
    "read-only field, named": (lambda g: g.control.write(ready=1), None, "ready is read-only"),
    "read-only register": (lambda g: setattr(g.small, "raw", 1), None, "small is read-only"),
    "read-only memory": (lambda g: g.table.write([1]), None, "table.0. is read-only"),
    "write-only field": (lambda g: g.sent.a, None, "sent.a is write-only"),
    "write-only register": (lambda g: g.sent.raw, None, "sent is write-only"),
    "others unknown": (lambda g: setattr(g.sent, "a", 1), None, "also change gadget.sent.b"),
    "others cleared": (lambda g: setattr(g.any, "other", 1), None, "also change gadget.any.sticky"),
    "read changes": (
        lambda g: setattr(g.pop, "taken", 1),
        None,
        "reading gadget.pop changes taken",
    ),
    "too large": (lambda g: setattr(g.control, "height", 256), ValueError, "which has 8 bits"),
    "negative": (lambda g: setattr(g.control, "height", -1), ValueError, "which has 8 bits"),
    "no number": (lambda g: setattr(g.control, "height", "7"), TypeError, "str"),
    "fraction": (lambda g: setattr(g.control, "height", 7.0), TypeError, "float"),
    "raw too large": (lambda g: setattr(g.control, "raw", 1 << 32), ValueError, "32 bits"),
    "behind the array": (lambda g: g.wide[8], IndexError, "0 to 7, not 8"),
    "before the array": (lambda g: g.wide[-1], IndexError, "0 to 7, not -1"),
    "bulk behind the array": (lambda g: g.wide.read(6, 3), IndexError, "3 from 6"),
    "bulk too long": (lambda g: g.wide.write([0] * 9), IndexError, "9 from 0"),
    "bulk too large": (lambda g: g.wide.write([1, 1 << 64]), ValueError, "64 bits"),
    "element, assigned": (lambda g: g.wide.__setitem__(0, 1), AttributeError, "__setitem__"),
    "too narrow": (lambda g: g.wide[0].read_bytes(1), None, "no access of 1 bytes"),
    "too wide": (lambda g: g.control.read_bytes(8), None, "no access of 8 bytes"),
}


@pytest.mark.parametrize("attempt, error, message", REFUSED.values(), ids=REFUSED)
def test_refused_accesses_reach_nothing(module, fresh, attempt, error, message):
    device, gadget = fresh()
    with pytest.raises(error or module.RegisterAccessError, match=message):
        attempt(gadget)
    assert device.log == []


@given(st.lists(st.integers(0, 2**64 - 1), max_size=8), st.data())
def test_arrays_are_read_and_written_in_bulk(fresh, values, data):
    device, gadget = fresh()
    start = data.draw(st.integers(0, 8 - len(values)))
    gadget.wide.write(values, start)
    assert device.log == [("write", 0x1040 + 8 * (start + n), 8) for n in range(len(values))]
    assert gadget.wide.read(start, len(values)) == values
    assert gadget.wide.read(start)[: len(values)] == values
    expected = [0] * start + values + [0] * (8 - start - len(values))
    assert [element.value for element in gadget.wide] == expected


def test_places_are_those_of_the_source(module, fresh):
    device, gadget = fresh()
    gadget.channel[2].limit.value = 0x7FF
    assert device.word(0x10A0, 4) == 0x7FF
    gadget.wide[3].write_bytes(0xBEEF, 2)
    assert device.log[-1] == ("write", 0x1058, 2)
    device.put(0x10C4, 0x1122, 2)
    assert gadget.table[2].raw == 0x1122
    assert module.address_of(gadget.channel[1]) == 0x1090
    assert (len(gadget.channel), len(gadget.table), module.Gadget.SIZE) == (3, 4, 0xC8)
    assert 'Says "hello"' in module.Gadget.__doc__


@pytest.mark.parametrize(
    "body",
    [
        "reg { field {} raw; } a;",
        "reg { field {} modify; } a;",
        "enum Node { A = 0; }; reg { field { encode = Node; } f; } a;",
        "enum Field { A = 0; }; reg { field { encode = Field; } f; } a;",
        "regfile { reg { field {} f; } b_c; } a; regfile { reg { field {} f; } c; } a_b;",
    ],
)
def test_names_that_collide_are_refused(tmp_path, body):
    with pytest.raises(MapError):
        generated(tmp_path, f"addrmap gadget {{ {body} }};")
