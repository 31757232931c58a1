"""Fetching packages, with an apt-get of our own on PATH."""

import os
import subprocess

import pytest

from sim.packages import Package, PackageError, package_file

PACKAGE = Package("firmware", "usr/lib/firmware/fw.bin", "--firmware FILE")
CONTENT = b"\x13\x00\x00\x00" * 8

APT = """#!/bin/sh
echo "$@" >>"{log}"
case " $* " in
*" update "*) test {mode} != broken || {{ echo "E: Failed to fetch" >&2; exit 100; }} ;;
*" -c "*" download "*) test {mode} != private || cp "{archive}" . ;;
*" download "*) test {mode} != system || cp "{archive}" .
    test {mode} = system || {{ echo "E: Unable to locate package firmware" >&2; exit 100; }} ;;
esac
"""


@pytest.fixture
def archive(tmp_path):
    """A package as dpkg makes it."""
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: firmware\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: none\n"
    )
    (root / PACKAGE.file).parent.mkdir(parents=True)
    (root / PACKAGE.file).write_bytes(CONTENT)
    made = tmp_path / "firmware_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", root, made], check=True, capture_output=True)
    return made


@pytest.fixture
def apt(tmp_path, archive, monkeypatch):
    """Put a fake apt-get on PATH; the function gives the calls it has seen."""
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    log = tmp_path / "log"

    def install(mode):
        (tmp_path / "bin").mkdir()
        script = tmp_path / "bin/apt-get"
        script.write_text(APT.format(log=log, archive=archive, mode=mode))
        script.chmod(0o755)
        return lambda: log.read_text().splitlines() if log.exists() else []

    return install


def test_system_lists_are_enough(apt):
    calls = apt("system")
    said = []
    path = package_file(PACKAGE, say=said.append)
    assert path.read_bytes() == CONTENT
    assert len(calls()) == 1 and "update" not in calls()[0]
    assert said == ["downloading package firmware"]


def test_private_lists_are_fetched_when_the_system_has_none(apt, tmp_path):
    calls = apt("private")
    assert package_file(PACKAGE).read_bytes() == CONTENT
    assert [("update" in call, "-c" in call) for call in calls()] == [
        (False, False),
        (True, True),
        (False, True),
    ]


def test_second_time_asks_nobody(apt):
    calls = apt("system")
    first = package_file(PACKAGE)
    assert package_file(PACKAGE) == first
    assert len(calls()) == 1


def test_damaged_cache_is_fetched_again(apt):
    calls = apt("system")
    package_file(PACKAGE).write_bytes(b"half")
    assert package_file(PACKAGE).read_bytes() == CONTENT
    assert len(calls()) == 2


def test_no_network_is_one_line_with_a_way_out(apt):
    apt("broken")
    with pytest.raises(PackageError, match=r"cannot be downloaded .*--firmware FILE") as caught:
        package_file(PACKAGE)
    assert "\n" not in str(caught.value)


def test_no_apt_is_one_line_with_a_way_out(monkeypatch, tmp_path):
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageError, match=r"there is no apt-get here; .*--firmware FILE"):
        package_file(PACKAGE)


def test_package_without_the_file_is_refused(apt):
    apt("system")
    other = Package("firmware", "usr/lib/other.bin", "--kernel FILE")
    with pytest.raises(PackageError, match=r"holds no usr/lib/other\.bin"):
        package_file(other)
