"""The initial RAM disk: read back by the rules of the kernel's own description of it.

Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cpio import Entry, newc_archive

NAMES = st.text("ab.é 0", min_size=1, max_size=9)
ENTRIES = st.lists(
    st.builds(
        Entry,
        NAMES,
        st.integers(0, 0o177777),
        st.binary(max_size=9),
        st.tuples(st.integers(0, 255), st.integers(0, 255)),
    ),
    max_size=6,
    unique_by=lambda entry: entry.path,
)


def unpack(archive):
    """(name, the twelve numbers before the checksum, data) of every record."""
    records, at = [], 0
    while True:
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_end = at + 110 + numbers[11]
        name = archive[at + 110 : name_end]
        assert name.count(b"\0") == 1 and name.endswith(b"\0")
        start = (name_end + 3) // 4 * 4
        assert not any(archive[name_end:start])
        records.append((name[:-1].decode(), numbers, archive[start : start + numbers[6]]))
        at = (start + numbers[6] + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            assert len(archive) == at
            return records


@given(ENTRIES)
def test_every_entry_is_read_back(entries):
    *records, trailer = unpack(newc_archive(entries))
    assert trailer[0] == "TRAILER!!!" and trailer[2] == b""
    assert [(name, data) for name, _, data in records] == [(e.path, e.data) for e in entries]
    for entry, (_, numbers, _) in zip(entries, records, strict=True):
        _, mode, uid, gid, _, time, size, _, _, major, minor, _, checksum = numbers
        assert (mode, uid, gid, time, checksum) == (entry.mode, 0, 0, 0, 0)
        assert (major, minor) == entry.device
        assert size == len(entry.data)
    # Files with the same inode would be taken for links of one file.
    inodes = [numbers[0] for _, numbers, _ in records]
    assert len(set(inodes)) == len(inodes)


@pytest.mark.parametrize("paths", [("/init",), ("",), ("init", "init")])
def test_paths_that_make_no_sense_are_refused(paths):
    with pytest.raises(ValueError, match="relative path"):
        newc_archive(Entry(path, stat.S_IFREG) for path in paths)
