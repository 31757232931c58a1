"""Fetching packages, with an apt-get of our own on PATH."""

import hashlib
import os
import platform
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


def make_package(tmp_path, name, *, architecture="all", files=None, depends=None):
    """A package as dpkg makes it."""
    root = tmp_path / f"root-{name}"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1\nArchitecture: {architecture}\nMaintainer: nobody\n"
    if depends:
        control += f"Depends: {depends}\n"
    (root / "DEBIAN/control").write_text(f"{control}Description: none\n")
    for file, content in (files or {}).items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content)
    made = tmp_path / f"{name}_1_{architecture}.deb"
    subprocess.run(["dpkg-deb", "--build", root, made], check=True, capture_output=True)
    return made


@pytest.fixture
def archive(tmp_path):
    return make_package(tmp_path, "firmware", files={PACKAGE.file: CONTENT})


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


def test_system_lists_are_enough(apt, archive):
    calls = apt("system")
    said = []
    found = package_file(PACKAGE, say=said.append)
    assert found.path.read_bytes() == CONTENT
    assert found.archive == archive.name
    assert found.archive_sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert len(calls()) == 1 and "update" not in calls()[0]
    assert said == ["downloading package firmware"]


def test_private_lists_are_fetched_when_the_system_has_none(apt, tmp_path):
    calls = apt("private")
    assert package_file(PACKAGE).path.read_bytes() == CONTENT
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
    package_file(PACKAGE).path.write_bytes(b"half")
    assert package_file(PACKAGE).path.read_bytes() == CONTENT
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


KERNEL = Package(
    "kernel-riscv64",
    "boot/image-*",
    "--kernel FILE",
    architecture="riscv64",
    release="later",
    versioned=True,
)
OTHER_APT = """#!/bin/sh
case " $* " in
*" indextargets "*) printf '%s\\n' {targets} ;;
*" update "*)
    test -n "$2" && cp "$(sed -n 's/^Dir::Etc::sourcelist "\\(.*\\)";/\\1/p' apt.conf)" "{log}"
    cat apt.conf >>"{log}" ;;
*" download "*)
    for name; do :; done
    for archive in "{folder}/$name"_*.deb; do test ! -e "$archive" || cp "$archive" .; done ;;
esac
"""
HERE = ("'mirror://extra|Extra|here|main'", "'mirror://security|Debian-Security|here-security|main'",
        "'mirror://main|Debian|here|main'")  # fmt: skip


@pytest.fixture
def other_release(tmp_path, monkeypatch):
    """A mirror with a kernel of another release; the function gives what apt was told."""
    monkeypatch.setenv("VMXLAB_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    keyring = tmp_path / "keyring"
    keyring.touch()
    monkeypatch.setattr("sim.packages._KEYRING", keyring)
    log = tmp_path / "log"

    def install(*, targets=HERE, system="debian", depends="base, kernel-6.1-2+b-riscv64 (= 6.1-2)"):
        release = {"ID": system, "VERSION_CODENAME": "here"}
        monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
        make_package(tmp_path, "kernel-riscv64", architecture="riscv64", depends=depends)
        make_package(
            tmp_path,
            "kernel-6.1-2+b-riscv64",
            architecture="riscv64",
            files={"boot/config-6.1": b"wrong", "boot/image-6.1": CONTENT},
        )
        (tmp_path / "bin").mkdir()
        script = tmp_path / "bin/apt-get"
        script.write_text(OTHER_APT.format(log=log, folder=tmp_path, targets=" ".join(targets)))
        script.chmod(0o755)
        return lambda: log.read_text()

    return install


def test_newest_package_of_another_release_comes_from_this_systems_mirror(other_release, tmp_path):
    told = other_release()
    said = []
    found = package_file(KERNEL, say=said.append)
    assert found.path.name == "image-6.1" and found.path.read_bytes() == CONTENT
    assert found.archive == "kernel-6.1-2+b-riscv64_1_riscv64.deb"
    assert said[-1] == "downloading package kernel-6.1-2+b-riscv64"
    source, *configuration = told().splitlines()
    assert source == f"deb [signed-by={tmp_path / 'keyring'}] mirror://main later main"
    assert 'APT::Architecture "riscv64";' in configuration
    assert 'Dir::Etc::sourceparts "/dev/null";' in configuration


def test_release_is_known_by_its_name_before_there_are_lists(other_release):
    told = other_release(
        targets=("'mirror://extra||here|stable'", "''", "'mirror://named||here|main'")
    )
    package_file(KERNEL)
    assert "mirror://named later main" in told()


@pytest.mark.parametrize(
    ("system", "targets", "keyring"),
    [
        ("ubuntu", ("'mirror://other||here|main'",), True),
        ("debian", ("'mirror://extra|Extra|here|main'",), True),
        ("debian", HERE, False),
    ],
    ids=["another-system", "no-mirror", "no-keyring"],
)
def test_system_that_is_no_debian_is_one_line_with_a_way_out(
    other_release, tmp_path, system, targets, keyring
):
    other_release(targets=targets, system=system)
    if not keyring:
        (tmp_path / "keyring").unlink()
    with pytest.raises(PackageError, match=r"this is no Debian .*--kernel FILE"):
        package_file(KERNEL)


def test_package_that_depends_on_no_version_is_refused(other_release):
    other_release(depends="base, kernel-tools-riscv64")
    with pytest.raises(PackageError, match=r"depends on no kernel-VERSION-riscv64"):
        package_file(KERNEL)
