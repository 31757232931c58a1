"""The command line, with a machine without a hart: every mistake is one line, every result JSON."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rtl.soc.config import CONFIGURATIONS
from sim.cli import demo, doctor
from sim.errors import VmxlabError
from sim.guests import GUESTS, hello_elf
from sim.packages import PackageError
from sim.results import COMPARE_SCHEMA, EXIT_SCHEMA, RUN_SCHEMA, violations
from sw_vmm.errors import GuestStopped
from sw_vmm.techniques import TECHNIQUES
from sw_vmm.vm import MONITOR_SIZE
from tests.programs.directed import build_directed
from tests.sim.fake_machine import FakeMachine
from tests.sim.test_elf import elf_bytes
from tests.sw_vmm.golden_machine import GoldenMachine

INTERPRET = ["--technique", "interpret", "--charge", "0"]


@pytest.fixture(autouse=True)
def fake_machine(monkeypatch):
    monkeypatch.setattr("sim.cli.run.open_machine", FakeMachine)
    monkeypatch.setattr("sim.cli.compare.open_machine", FakeMachine)


@pytest.fixture
def one_line(vmxlab):
    """Runs a command that must fail with one line; gives exit code and the line."""

    def run(*arguments):
        code, out, err = vmxlab(*arguments)
        assert out == b""
        assert err.count("\n") == 1, err
        return code, err

    return run


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_results_name_their_configuration(vmxlab, tmp_path, name):
    for command in (["run"], ["compare", "--techniques", "interpret"]):
        technique = INTERPRET if command == ["run"] else INTERPRET[2:]
        file = tmp_path / "out.json"
        code, _, _ = vmxlab(*command, "hello", "--config", name, *technique, "--json", file)
        assert code == 0
        document = json.loads(file.read_text())
        machine = document.get("runs", [document])[0]["machine"]
        assert machine["configuration_name"] == name
        assert machine["configuration"] == CONFIGURATIONS[name].as_dict()


def test_unknown_configurations_are_refused(one_line):
    code, line = one_line("run", "hello", "--config", "smal")
    assert code == 2 and "did you mean small?" in line


def test_hello_says_hello(vmxlab):
    code, out, err = vmxlab("run", "hello", *INTERPRET)
    assert code == 0
    assert out.startswith(b"hello, world\r\n") and out.endswith(b"goodbye\r\n")
    assert re.search(r"hello under interpret ended with exit code 0: \d+ cycles", err)


def test_run_writes_its_result(vmxlab, tmp_path):
    path = tmp_path / "run.json"
    code, out, _ = vmxlab("run", "hello", *INTERPRET, "--json", path)
    document = json.loads(path.read_text())
    assert (code, violations(document, RUN_SCHEMA)) == (0, [])
    assert document["outcome"]["console_bytes"] == len(out)
    assert document["outcome"]["exit_code"] == 0
    assert document["machine"]["ram_size"] == 64 << 20


def test_two_runs_are_one(vmxlab, tmp_path):
    documents = []
    for name in ("one", "two"):
        vmxlab("run", "hello", *INTERPRET, "--json", tmp_path / name)
        document = json.loads((tmp_path / name).read_text())
        del document["wall"]
        documents.append(document)
    assert documents[0] == documents[1]


def test_until_ends_the_run(vmxlab):
    code, out, err = vmxlab("run", "hello", *INTERPRET, "--until", "misa: ")
    assert code == 0
    assert out == b"hello, world\r\nmisa: "
    assert "printed the text it was to run to" in err


def test_spent_budget_is_a_failure(vmxlab):
    code, _, err = vmxlab("run", "hello", *INTERPRET, "--cycles", "1K")
    assert code == 1
    assert "did not end within its budget of 1000 cycles" in err


def test_elf_gives_its_verdict(vmxlab):
    code, out, _ = vmxlab("run", "--elf", build_directed("integer"), *INTERPRET)
    assert (code, out) == (0, b"")


def test_disk_and_virtio_console_are_files(vmxlab, tmp_path):
    disk, told = tmp_path / "disk", tmp_path / "told"
    disk.write_bytes(bytes(1024))
    arguments = ("run", "--elf", hello_elf(), *INTERPRET, "--disk", disk, "--virtio-console", told)
    code, _, _ = vmxlab(*arguments, "--disk-write", "--json", tmp_path / "run.json")
    assert (code, told.read_bytes(), disk.read_bytes()) == (0, b"", bytes(1024))
    images = json.loads((tmp_path / "run.json").read_text())["images"]
    assert [image["name"] for image in images] == ["hello.elf", "disk"]


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "0 bytes"), (bytes(513), "513 bytes"), (None, "No such file")]
)
def test_file_that_is_no_disk_is_told(one_line, tmp_path, content, told):
    disk = tmp_path / "disk"
    if content is not None:
        disk.write_bytes(content)
    code, line = one_line("run", "hello", "--disk", disk)
    assert code == 1 and told in line


def test_what_does_not_go_with_a_disk_is_told(one_line, tmp_path):
    code, line = one_line("run", "hello", "--disk-write")
    assert code == 2 and "--disk" in line
    snapshot = ("--save-snapshot", tmp_path / "s", "--snapshot-at", "5")
    code, line = one_line("run", "tiny", *snapshot)
    assert code == 2 and "virtio" in line
    code, line = one_line("compare", "hello", "--disk", tmp_path)
    assert code == 1 and "directory" in line


def test_signature_is_written(vmxlab, tmp_path):
    path = tmp_path / "signature"
    code, _, _ = vmxlab("run", "--elf", hello_elf(), *INTERPRET, "--signature", path)
    words = [int(line, 16) for line in path.read_text().split()]
    assert code == 0
    # exceptions by cause: an illegal instruction, a breakpoint, a load fault
    assert [words[2 * cause] for cause in (2, 3, 5)] == [1, 1, 1]
    assert 1223 in words  # the 200th prime


def test_compare_shows_outcome_and_cycles(vmxlab, tmp_path):
    path = tmp_path / "compare.json"
    code, out, _ = vmxlab(
        "compare", "hello", "--techniques", "interpret", "--charge", "0", "--json", path
    )
    document = json.loads(path.read_text())
    assert (code, violations(document, COMPARE_SCHEMA)) == (0, [])
    digest = document["runs"][0]["outcome"]["console_sha256"]
    assert f"SHA-256 {digest}" in out.decode()
    assert str(document["runs"][0]["cycles"]["total"]) in out.decode()


@pytest.fixture
def golden_machine(monkeypatch):
    """A machine with a hart; notes the configurations asked for."""
    configurations = []

    def open_machine(guest_ram, config):
        configurations.append(config)
        return GoldenMachine(guest_ram + MONITOR_SIZE, **config.as_dict())

    monkeypatch.setattr("sim.cli.run.open_machine", open_machine)
    monkeypatch.setattr("sim.cli.compare.open_machine", open_machine)
    return configurations


def test_all_techniques_of_a_comparison_run_on_the_machine_that_one_needs(
    vmxlab, golden_machine, tmp_path
):
    path = tmp_path / "compare.json"
    names = ["interpret", "trap-emulate", "vmx-ept"]
    code, out, _ = vmxlab("compare", "hello", "--techniques", ",".join(names), "--json", path)
    document = json.loads(path.read_text())
    assert (code, violations(document, COMPARE_SCHEMA)) == (0, [])
    assert [config.vmx for config in golden_machine] == [True]
    assert [run["technique"] for run in document["runs"]] == names
    assert all(run["machine"]["configuration"]["vmx"] for run in document["runs"])
    assert document["equal_outcome"]
    assert re.search(r"Exits of hello.*\n\n.*trap-emulate +vmx-ept\n", out.decode())


@pytest.mark.parametrize(("technique", "vmx"), [("trap-emulate", False), ("vmx-ept", True)])
def test_a_run_takes_the_machine_it_needs(vmxlab, golden_machine, tmp_path, technique, vmx):
    result, exits = tmp_path / "run.json", tmp_path / "exits.jsonl"
    code, _, _ = vmxlab(
        "run", "hello", "--technique", technique, "--json", result, "--exits", exits
    )
    assert code == 0
    assert [config.vmx for config in golden_machine] == [vmx]
    document = json.loads(result.read_text())
    assert violations(document, RUN_SCHEMA) == []
    rows = [json.loads(line) for line in exits.read_text().splitlines()]
    assert all(violations(row, EXIT_SCHEMA) == [] for row in rows)
    assert len(rows) == sum(row["count"] for row in document["exits"].values())


def test_a_spent_budget_shows_where_the_guest_is(vmxlab, golden_machine):
    code, _, err = vmxlab("run", "hello", "--technique", "vmx-ept", "--cycles", "3000")
    assert code == 1
    assert re.search(r"did not end within its budget of 3000 cycles[^\n]*\n +pc [0-9a-f]{16} ", err)


def test_every_guest_is_compared_under_what_can_run_it():
    for kind in GUESTS.values():
        assert set(kind.techniques) <= set(TECHNIQUES)
        assert ("trap-emulate" in kind.techniques) == (kind.name in ("hello", "u-boot"))
        assert "vmx-ept" in kind.techniques
        assert ("native" in kind.techniques) == (kind.name != "tiny-kernel")


def test_a_guest_without_firmware_needs_a_vmm_that_is_one(one_line):
    code, line = one_line("run", "tiny-kernel", "--technique", "interpret", "--charge", "0")
    assert code == 1 and "tiny-kernel starts in S-mode" in line and "vmx-ept" in line


def test_a_guest_that_was_stopped_shows_its_registers(vmxlab, monkeypatch):
    def stopped(*arguments, **options):
        raise GuestStopped("ept_misconfiguration", 0x8000_0000, "x1 1234\nx2 5678")

    monkeypatch.setattr("sim.cli.run.run_guest", stopped)
    code, _, err = vmxlab("run", "hello", "--technique", "vmx-ept")
    assert code == 1
    first, *rest = err.splitlines()
    assert first == "vmxlab: the guest was stopped: ept_misconfiguration at pc 0x80000000"
    assert rest == ["x1 1234", "x2 5678"]


def test_unequal_outcome_fails_the_comparison(vmxlab, monkeypatch):
    from sim.cli import compare

    honest = compare.run_guest
    ends = iter([50_000_000, 2_000])

    def dishonest(machine, guest, technique, **options):
        from dataclasses import replace

        return honest(machine, replace(guest, cycles=next(ends)), "interpret", **options)

    monkeypatch.setattr(compare, "run_guest", dishonest)
    code, out, _ = vmxlab("compare", "hello", "--techniques", "native,interpret", "--charge", "0")
    assert code == 1
    assert b"DIFFERENT" in out and b"equal outcome" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "helo"], "unknown guest 'helo'; did you mean hello?"),
        (["run", "hello", "--technique", "nativ"], "did you mean native?"),
        (["compare", "hello", "--techniques", "native,zen"], "unknown technique 'zen'"),
        (["compare", "hello", "--techniques", ","], "at least one technique"),
        (["run", "hello", "--cycles", "0"], "must be positive"),
        (["run", "hello", "--cycles", "-5"], "must be positive"),
        (["run", "hello", "--cycles", "many"], "no number of cycles"),
        (["run", "hello", "--mem", "0"], "whole pages"),
        (["run", "hello", "--mem", "-1"], "no size"),
        (["run", "hello", "--mem", "3000"], "whole pages"),
        (["run", "hello", "--mem", "4G"], "whole pages"),
        (["run", "hello", "--charge", "-1"], "must not be negative"),
        (["run", "hello", "--charge", "nan"], "must not be negative"),
        (["run", "hello", "--until", ""], "must not be empty"),
        (["run", "hello", "--input", "x"], "--input needs --input-after"),
        (["run", "hello", "--kernel", "x"], "takes no --kernel"),
        (["run"], "either a GUEST or --elf"),
        (["run", "hello", "--elf", "x"], "either a GUEST or --elf"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "COMMAND"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(one_line, arguments, message):
    code, line = one_line(*arguments)
    assert code == 2
    assert message in line


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "No such file"),
        (b"text", "not an ELF file"),
        (elf_bytes(machine=62), "for x86-64, not for RISC-V"),
        (elf_bytes(((0x8000_0000, b"x", 128 << 20),)), "does not lie within RAM"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(one_line, tmp_path, data, message):
    path = tmp_path / "program.elf"
    if data is not None:
        path.write_bytes(data)
    code, line = one_line("run", "--elf", path)
    assert code == 1
    assert message in line


def test_image_larger_than_ram_is_one_line(one_line, tmp_path):
    firmware, kernel = tmp_path / "fw", tmp_path / "kernel"
    firmware.write_bytes(bytes(4096))
    kernel.write_bytes(bytes(4 << 20))
    code, line = one_line(
        "run", "u-boot", "--firmware", firmware, "--kernel", kernel, "--mem", "4M"
    )
    assert code == 1
    assert "do not fit into RAM" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kernel", "{tmp}/none"), "No such file"),
        (("--kernel", "{tmp}/kernel"), "no bootable Linux image"),
        (("--kernel", "{tmp}"), "Is a directory"),
        (("--mem", "64M"), "less than 128M of RAM"),
    ],
)
def test_linux_that_cannot_start_is_one_line(one_line, tmp_path, options, message):
    for name in ("firmware", "kernel"):
        (tmp_path / name).write_bytes(bytes(4096))
    options = [option.format(tmp=tmp_path) for option in options]
    code, line = one_line("run", "linux", "--firmware", tmp_path / "firmware", *options)
    assert code == 1
    assert message in line


@pytest.mark.parametrize(("last_line", "expected"), [(b"goodbye\r\n", 0), (b"farewell\r\n", 1)])
def test_guest_that_ends_without_its_last_line_has_failed(vmxlab, monkeypatch, last_line, expected):
    kind = GUESTS["hello"]

    def load(options, say):
        return replace(kind.load(options, say), success=last_line)

    monkeypatch.setitem(GUESTS, "hello", replace(kind, load=load))
    code, _, err = vmxlab("run", "hello", *INTERPRET)
    assert code == expected
    assert ("ended without 'farewell'" in err) == bool(expected)


def test_unwritable_result_is_said_before_the_run(one_line, tmp_path):
    code, line = one_line("run", "hello", *INTERPRET, "--json", tmp_path / "none" / "run.json")
    assert code == 1
    assert "cannot write" in line


def test_elf_without_signature_is_told(one_line, tmp_path):
    program = build_directed("integer")
    code, line = one_line("run", "--elf", program, "--signature", tmp_path / "signature")
    assert code == 1
    assert "declares no signature" in line


def test_missing_compiler_is_one_line(one_line, monkeypatch, tmp_path):
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path))
    monkeypatch.setattr("sim.toolchain.compiler_version", lambda: None)
    code, line = one_line("run", "hello")
    assert code == 1
    assert "no RISC-V compiler" in line and "ziglang" in line


def test_ctrl_c_is_one_line_and_exit_130(vmxlab, monkeypatch):
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("sim.cli.run.run_guest", interrupt)
    code, _, err = vmxlab("run", "hello")
    assert (code, err) == (130, "\nvmxlab: interrupted\n")


def test_guests_and_techniques_are_listed(vmxlab):
    code, out, _ = vmxlab("guests")
    assert code == 0
    for name in (*GUESTS, *TECHNIQUES):
        assert name in out.decode()


def test_doctor_finds_nothing_missing_here(vmxlab):
    code, out, _ = vmxlab("doctor")
    assert code == 0
    assert "MISSING" not in out.decode()


def test_doctor_says_what_to_do(vmxlab, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    code, out, err = vmxlab("doctor")
    assert code == 1
    lines = out.decode().splitlines()
    assert any(re.match(r"MISSING +ziglang .*pip install ziglang", line) for line in lines)
    assert any(re.match(r"missing +git .*apt install git", line) for line in lines)
    assert "ziglang" in err


def test_doctor_names_an_unwritable_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    (finding,) = [found for found in doctor.examine() if found.name == "build folder"]
    assert finding.needed and "VMXLAB_BUILD" in finding.line()


def test_demo_falls_back_loudly_but_never_in_ci(monkeypatch, capsys):
    def no_network(options, say):
        raise PackageError("no network")

    kind = GUESTS["u-boot"]
    monkeypatch.setitem(GUESTS, "u-boot", type(kind)("u-boot", kind.text, no_network, kind.takes))
    assert demo.choose_guest(ci=False) == "hello"
    err = capsys.readouterr().err
    assert "no network" in err and "falling back" in err
    with pytest.raises(PackageError):
        demo.choose_guest(ci=True)


def test_demo_takes_the_real_guest_when_it_can(monkeypatch):
    kind = GUESTS["u-boot"]
    monkeypatch.setitem(GUESTS, "u-boot", type(kind)("u-boot", kind.text, lambda *_: None))
    assert demo.choose_guest(ci=False) == "u-boot"


def test_demo_compares_both_guests(monkeypatch):
    compared = []
    monkeypatch.setattr(demo, "choose_guest", lambda ci: "hello")
    monkeypatch.setattr(demo, "main", lambda arguments: compared.append(arguments) or 0)
    assert demo._demo() == 0
    assert compared == [["compare", "hello"], ["compare", "tiny"]]


def test_maps_need_a_folder(one_line, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    code, line = one_line("maps", file)
    assert code == 1
    assert "cannot write" in line


def test_verilog_needs_a_file(one_line, tmp_path):
    code, line = one_line("verilog", "-o", tmp_path / "none" / "soc.v")
    assert code == 1
    assert "cannot write" in line


def test_errors_of_every_kind_are_lines(one_line, monkeypatch):
    from sw_vmm.errors import VmmError
    from sw_vmm.machine import MachineError

    for kind in (VmxlabError, VmmError, MachineError):

        def fail(*_arguments, kind=kind, **_options):
            raise kind("it does not work")

        monkeypatch.setattr("sim.cli.run.run_guest", fail)
        assert one_line("run", "hello") == (1, "vmxlab: it does not work\n")


def test_broken_pipe_is_silent():
    """``vmxlab guests | true`` must not end in a traceback."""
    command = f"{sys.executable} -m sim.cli.main guests"
    result = subprocess.run(
        ["bash", "-c", f"({command}; echo $? >&2) | true"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert "Traceback" not in result.stderr
