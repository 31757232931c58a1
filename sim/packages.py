"""Stock firmware from the distribution's packages: downloaded once, checked by apt, cached."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sim.cache import cached, hash_of
from sim.errors import VmxlabError

__all__ = ["OPENSBI", "U_BOOT", "Package", "PackageError", "package_file"]

#: A mirror that does not answer is given up after this many seconds.
_TIMEOUT = 300


class PackageError(VmxlabError):
    """The package cannot be had here; the message says why and what else can be done."""


@dataclass(frozen=True)
class Package:
    """One file of a Debian or Ubuntu package of architecture ``all``.

    ``option`` is the command-line option that gives the file without the package.
    """

    name: str
    file: str
    option: str


OPENSBI = Package(
    "opensbi", "usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.bin", "--firmware FILE"
)
U_BOOT = Package("u-boot-qemu", "usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin", "--kernel FILE")


def package_file(
    package: Package,
    *,
    apt: str = "apt-get",
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """The package's file, from the cache or else from the distribution's mirror.

    Neither root nor the system's own package lists are needed. apt checks the archive against the
    signed lists. ``say`` is told what takes long. Raises PackageError when there is no apt, no
    network or no such package.
    """

    def build(folder: Path) -> None:
        for tool in (apt, "dpkg-deb"):
            if not shutil.which(tool):
                raise PackageError(
                    f"{package.name} cannot be downloaded: there is no {tool} here; "
                    f"give the file by {package.option}"
                )
        with tempfile.TemporaryDirectory() as scratch:
            archive = _download(package, Path(scratch), apt, say)
            source = _extract(package, archive, Path(scratch))
            shutil.copyfile(source, folder / source.name)
            (folder / "source").write_text(f"{archive.name}\n")

    key = hash_of(package.name, package.file)
    return cached("packages", key, build) / Path(package.file).name


def _download(package, scratch, apt, say):
    """The archive, by the system's package lists or else by private ones."""
    say(f"downloading package {package.name}")
    first = _run_apt(scratch, apt, "download", package.name)
    archive = _archive(package, scratch)
    if archive:
        return archive
    say("fetching package lists (this can take a minute)")
    configuration = _private_lists(scratch)
    update = _run_apt(scratch, apt, "-c", str(configuration), "update")
    second = _run_apt(scratch, apt, "-c", str(configuration), "download", package.name)
    archive = _archive(package, scratch)
    if archive:
        return archive
    complaints = [
        line[2:].strip()
        for text in (second, update, first)
        for line in text.splitlines()
        if line.startswith(("E:", "W: Failed"))
    ]
    raise PackageError(
        f"package {package.name} cannot be downloaded "
        f"({complaints[0] if complaints else 'apt gave no reason'}); is the network up? "
        f"You can give the file by {package.option}"
    )


def _archive(package, scratch):
    return next(iter(sorted(scratch.glob(f"{package.name}_*.deb"))), None)


def _run_apt(scratch, apt, *arguments):
    """What apt complained about."""
    options = ("-qq", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=1")
    try:
        return subprocess.run(
            [apt, *options, *arguments],
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        ).stderr
    except subprocess.TimeoutExpired:
        return f"E: no answer within {_TIMEOUT} s"


def _private_lists(scratch):
    """A configuration under which apt writes below ``scratch`` and runs none of its hooks."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True, exist_ok=True)
    configuration = scratch / "apt.conf"
    configuration.write_text(
        f'Dir::State "{scratch}/state";\n'
        f'Dir::State::lists "{scratch}/state/lists";\n'
        'Dir::State::status "/var/lib/dpkg/status";\n'
        f'Dir::Cache "{scratch}/cache";\n'
        'Acquire::Languages "none";\n'
        "#clear APT::Update::Pre-Invoke;\n"
        "#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n"
        "#clear DPkg::Post-Invoke;\n"
    )
    return configuration


def _extract(package, archive, scratch):
    """The package's file."""
    result = subprocess.run(
        ["dpkg-deb", "-x", str(archive), str(scratch / "files")],
        capture_output=True,
        text=True,
        check=False,
    )
    source = scratch / "files" / package.file
    if result.returncode or not source.is_file():
        raise PackageError(
            f"{archive.name} holds no {package.file}; give the file by {package.option}"
        )
    return source
