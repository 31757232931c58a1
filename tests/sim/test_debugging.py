"""``vmxlab run`` with the options for debugging: what is written, and every mistake in one line."""

import json
import re
import threading

import pytest

from sim.gdb import GdbServer
from tests.sim.test_gdb import Client

RUN = ["run", "hello", "--mem", "8M"]


def result(path):
    """What a run has come to, the host's clock left out."""
    document = json.loads(path.read_text())
    del document["wall"]
    return document


def test_a_watched_run_is_the_same_run(vmxlab, tmp_path):
    """Commit log, waves, pipeline and a snapshot at once; then the second half alone."""
    plain, watched, second = (tmp_path / f"{name}.json" for name in ("plain", "watched", "second"))
    log, fst, konata, snapshot = (tmp_path / name for name in ("log", "fst", "konata", "snapshot"))
    assert vmxlab(*RUN, "--json", plain)[0] == 0
    code, out, _ = vmxlab(
        *RUN, "--json", watched, "--commit-log", log,
        "--waves", fst, "--waves-from", "1K", "--waves-for", 50,
        "--konata", konata, "--konata-from", 1500, "--konata-for", 50,
        "--save-snapshot", snapshot, "--snapshot-at", 15_000,
    )  # fmt: skip
    assert code == 0
    assert result(watched) == result(plain)
    rows = log.read_text().splitlines()
    commits = sum(": exception" not in row and " tval " not in row for row in rows)
    # The hart runs on for some instructions after the guest has ended.
    assert 0 <= commits - result(plain)["instructions"] < 20
    assert fst.stat().st_size > 1000
    lines = konata.read_text().splitlines()
    assert lines[:2] == ["Kanata\t0004", "C=\t1500"]
    assert 1500 + sum(int(row[2:]) for row in lines if row.startswith("C\t")) == 1549
    # The second half, in a machine of its own.
    rest = tmp_path / "rest"
    code, again, _ = vmxlab(
        *RUN, "--json", second, "--restore-snapshot", snapshot, "--commit-log", rest
    )
    assert (code, again) == (0, out)
    assert result(second) == result(plain)
    tail = rest.read_text().splitlines()
    assert 1_000 < len(tail) < commits
    assert rows[-100:] == tail[-100:]
    # Nothing but what was asked for lies in the folder.
    names = {"plain.json", "watched.json", "second.json", "log", "fst", "konata", "snapshot"}
    assert {file.name for file in tmp_path.iterdir()} == names | {"rest"}


def test_gdb_sees_the_guest_from_its_first_instruction(vmxlab, tmp_path):
    """The port is said on standard error; the exit code arrives; the result is the same."""
    with GdbServer(0) as free:
        port = free.port
    seen = {}

    def debug():
        while True:
            try:
                client = Client(port)
                break
            except ConnectionRefusedError:
                threading.Event().wait(0.05)
        seen["pc"] = client.pc
        seen["stop"] = client.ask("Z0,80000000,4") and client.ask("c")
        seen["second"] = client.pc
        client.ask("z0,80000000,4")
        seen["end"] = client.ask("c")
        client.close()

    thread = threading.Thread(target=debug, daemon=True)
    thread.start()
    plain, debugged = tmp_path / "plain.json", tmp_path / "debugged.json"
    code, out, err = vmxlab(*RUN, "--gdb", port, "--json", debugged)
    thread.join(30)
    assert seen == {
        "pc": 0x1000,
        "stop": "T05thread:1;swbreak:;",
        "second": 0x8000_0000,
        "end": "W00",
    }
    assert code == 0
    assert f"target remote 127.0.0.1:{port}" in err
    vmxlab(*RUN, "--json", plain)
    for member in ("outcome", "instructions"):
        assert result(debugged)[member] == result(plain)[member]
    assert b"hello, world" in out


MISTAKES = {
    "--gdb 65536": "no TCP port",
    "--gdb x": "no TCP port",
    "--gdb 0 --technique trap-emulate": "--gdb needs --technique native",
    "--gdb 0 --restore-snapshot {folder}/none": "cannot be combined",
    "--save-snapshot {folder}/s": "go together",
    "--snapshot-at 5": "go together",
    "--save-snapshot {folder}/no/s --snapshot-at 5": "cannot write",
    "--save-snapshot {folder}/s --snapshot-at -5": "must not be negative",
    "--save-snapshot {folder}/s --snapshot-at 5 --technique interpret": "needs --technique native",
    "--restore-snapshot {folder}/none": "cannot read the snapshot",
    "--restore-snapshot {folder}/text": "no snapshot",
    "--restore-snapshot {folder}/text --input a --input-after b": "goes on with the --input",
    "--waves {folder}/no/w": "cannot write",
    "--waves {folder}": "cannot write",
    "--waves-from 5": "need --waves FILE",
    "--konata-for 5": "need --konata FILE",
    "--waves {folder}/w --waves-for 0": "must be positive",
    "--waves {folder}/w --waves-from 1G --cycles 2K": "were to begin at 1000000000",
    "--konata {folder}/w --konata-from _": "no number of cycles",
    "--commit-log {folder}/no/l": "cannot write",
    "--commit-log /dev/full --cycles 2K": "cannot write the commit log",
    "--save-snapshot {folder}/s --snapshot-at 1G --cycles 2K": "the snapshot was to be taken at",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(vmxlab, tmp_path, mistake):
    (tmp_path / "text").write_text("no snapshot at all")
    code, _, err = vmxlab(*RUN, *mistake.format(folder=tmp_path).split())
    assert code in (1, 2)
    # A machine that is not in the cache yet says that it is being built.
    complaint = re.sub(r"^Building [^\n]*\n", "", err, flags=re.MULTILINE)
    assert re.fullmatch(r"vmxlab[^\n]*\n", complaint), err
    assert MISTAKES[mistake] in complaint
    assert {file.name for file in tmp_path.iterdir()} <= {"text", "w"}


def test_a_port_in_use(vmxlab):
    with GdbServer(0) as taken:
        code, out, err = vmxlab(*RUN, "--gdb", taken.port)
    assert (code, out) == (1, b"")
    assert err == f"vmxlab: cannot listen on port {taken.port}: Address already in use\n"


def test_a_snapshot_of_another_guest(vmxlab, tmp_path):
    path = tmp_path / "snapshot"
    saving = ["--save-snapshot", path, "--snapshot-at", 500, "--cycles", "1K"]
    vmxlab(*RUN, *saving)
    code, _, err = vmxlab("run", "hello", "--mem", "12M", "--restore-snapshot", path)
    assert code == 1
    assert "was taken with ram_size" in err
    data = path.read_bytes()
    changed = data.replace(b'"guest": "hello"', b'"guest": "jello"')
    assert changed != data
    path.write_bytes(changed)
    code, _, err = vmxlab(*RUN, "--restore-snapshot", path)
    assert code == 1
    assert "was taken of another guest" in err
