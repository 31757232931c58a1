"""Stock software from the distribution's packages: downloaded once, checked by apt, cached."""

import fnmatch
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sim.cache import cached, hash_of
from sim.errors import VmxlabError

__all__ = ["LINUX", "OPENSBI", "U_BOOT", "Package", "PackageError", "PackageFile", "package_file"]

#: A mirror is given up after this many seconds; the kernel's package is more than 100 MB.
_TIMEOUT = 900
_COMPLAINTS = ("E:", "W: Failed")
_SOURCE = "source.json"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class PackageError(VmxlabError):
    """The package cannot be had here; the message says why and what else can be done."""


@dataclass(frozen=True)
class Package:
    """One file of a Debian or Ubuntu package.

    ``file`` is a path, or a pattern of paths of which one must be there. ``option`` is the
    command-line option that gives the file without the package. A package of another architecture
    is that of Debian's ``release``. A ``versioned`` package has a version in its name, and ``name``
    is that of the package that depends on the newest.
    """

    name: str
    file: str
    option: str
    architecture: str = "all"
    release: str = ""
    versioned: bool = False


@dataclass(frozen=True)
class PackageFile:
    """A package's file in the cache, and the archive it is from: file name and SHA-256."""

    path: Path
    archive: str
    archive_sha256: str


OPENSBI = Package(
    "opensbi", "usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.bin", "--firmware FILE"
)
U_BOOT = Package("u-boot-qemu", "usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin", "--kernel FILE")
LINUX = Package(
    "linux-image-riscv64",
    "boot/vmlinu[xz]-*",
    "--kernel FILE",
    architecture="riscv64",
    release="trixie",
    versioned=True,
)


def package_file(
    package: Package,
    *,
    apt: str = "apt-get",
    say: Callable[[str], None] = lambda text: None,
) -> PackageFile:
    """The package's file, from the cache or else from the distribution's mirror.

    Neither root nor the system's own package lists are needed. apt checks the archive against the
    signed lists. ``say`` is told what takes long. Raises PackageError when there is no apt, no
    network or no such package.
    """

    def build(folder: Path) -> None:
        for tool in (apt, "dpkg-deb"):
            if not shutil.which(tool):
                raise _failure(package, f"there is no {tool} here")
        with tempfile.TemporaryDirectory() as scratch:
            archive = _Apt(package, Path(scratch), apt, say).download()
            source = {
                "file": _extract(package, archive, folder).name,
                "archive": archive.name,
                "sha256": _sha256(archive),
            }
        (folder / _SOURCE).write_text(json.dumps(source))

    key = hash_of(package.name, package.file, package.architecture, package.release)
    folder = cached("packages", key, build)
    source = json.loads((folder / _SOURCE).read_text())
    return PackageFile(folder / source["file"], source["archive"], source["sha256"])


def _failure(package, reason):
    return PackageError(
        f"{package.name} cannot be downloaded: {reason}; give the file by {package.option}"
    )


class _Apt:
    """apt-get for one package, with ``scratch`` for all that it writes."""

    def __init__(self, package, scratch, program, say):
        self._package = package
        self._scratch = scratch
        self._program = program
        self._say = say
        self._options = ["-qq", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=1"]
        self._complaints = []

    def download(self) -> Path:
        """The archive, by the system's package lists or else by private ones."""
        name = self._package.name
        self._say(f"downloading package {name}")
        archive = None
        if not self._package.release:
            archive = self._fetch(name)
        if archive is None:
            self._say("fetching package lists (this can take a minute)")
            self._options += ["-c", str(self._private_lists())]
            self._run("update")
            archive = self._fetch(name)
        if archive is not None and self._package.versioned:
            name = self._newest(archive)
            self._say(f"downloading package {name}")
            archive = self._fetch(name)
        if archive is None:
            reason = self._complaints[-1] if self._complaints else "apt gave no reason"
            raise PackageError(
                f"package {name} cannot be downloaded ({reason}); is the network up? "
                f"You can give the file by {self._package.option}"
            )
        return archive

    def _fetch(self, name):
        self._run("download", name)
        return next(iter(sorted(self._scratch.glob(f"{name}_*.deb"))), None)

    def _newest(self, archive):
        """What the package without a version in its name depends on."""
        depends = _output(["dpkg-deb", "-f", str(archive), "Depends"])
        stem, _, architecture = self._package.name.rpartition("-")
        pattern = rf"{re.escape(stem)}-[0-9][^ ,(]*-{re.escape(architecture)}(?=[ ,(]|$)"
        found = re.search(pattern, depends.strip())
        if not found:
            raise PackageError(f"{archive.name} depends on no {stem}-VERSION-{architecture}")
        return found[0]

    def _run(self, *arguments):
        """What apt has printed; its first complaint is kept."""
        try:
            result = subprocess.run(
                [self._program, *self._options, *arguments],
                cwd=self._scratch,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                env=os.environ | {"LC_ALL": "C"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            self._complaints.append(f"no answer within {_TIMEOUT} s")
            return ""
        found = (line for line in result.stderr.splitlines() if line.startswith(_COMPLAINTS))
        self._complaints += [line[2:].strip() for line in found][:1]
        return result.stdout

    def _private_lists(self):
        """A configuration under which apt writes below ``scratch`` and runs none of its hooks."""
        scratch = self._scratch
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (scratch / folder).mkdir(parents=True, exist_ok=True)
        lines = [
            f'Dir::State "{scratch}/state";',
            f'Dir::State::lists "{scratch}/state/lists";',
            'Dir::State::status "/var/lib/dpkg/status";',
            f'Dir::Cache "{scratch}/cache";',
            'Acquire::Languages "none";',
            "#clear APT::Update::Pre-Invoke;",
            "#clear APT::Update::Post-Invoke;",
            "#clear APT::Update::Post-Invoke-Success;",
            "#clear DPkg::Post-Invoke;",
        ]
        if self._package.release:
            lines += self._other_release()
        configuration = scratch / "apt.conf"
        configuration.write_text("\n".join(lines) + "\n")
        return configuration

    def _other_release(self):
        """Debian's ``release`` for the package's architecture, of which nothing is installed here."""
        sources, status = self._scratch / "sources.list", self._scratch / "status"
        sources.write_text(
            f"deb [signed-by={_KEYRING}] {self._debian_site()} {self._package.release} main\n"
        )
        status.touch()
        architecture = self._package.architecture
        return [
            f'Dir::State::status "{status}";',
            f'Dir::Etc::sourcelist "{sources}";',
            'Dir::Etc::sourceparts "/dev/null";',
            f'APT::Architecture "{architecture}";',
            f'APT::Architectures "{architecture}";',
        ]

    def _debian_site(self):
        """The mirror that this Debian is installed from."""
        try:
            here = platform.freedesktop_os_release()
        except OSError:
            here = {}
        codename = here.get("VERSION_CODENAME") if here.get("ID") == "debian" else None
        fields = "$(SITE)|$(LABEL)|$(RELEASE)|$(COMPONENT)"
        listed = self._run("indextargets", "--format", fields, "Created-By: Packages")
        rows = [line.split("|") for line in listed.splitlines() if line.count("|") == 3]
        # Labels are known once there are lists; other mirrors may have releases of the same name.
        sites = [site for site, label, _, _ in rows if label == "Debian"]
        sites += [site for site, *facts in rows if facts == ["", codename, "main"]]
        if sites and _KEYRING.exists():
            return sites[0]
        raise _failure(self._package, "this is no Debian with its mirror and its keyring")


def _output(command):
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extract(package, archive, folder):
    """The package's file, put into ``folder``."""
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            # Unpacking all of a kernel's modules for the sake of one file takes long.
            with tarfile.open(fileobj=process.stdout, mode="r|") as members:
                for member in members:
                    path = member.name.removeprefix("./")
                    if member.isfile() and fnmatch.fnmatchcase(path, package.file):
                        target = folder / Path(path).name
                        with members.extractfile(member) as source, target.open("wb") as copy:
                            shutil.copyfileobj(source, copy)
                        return target
        except tarfile.TarError:
            pass
        finally:
            process.stdout.close()
    raise PackageError(f"{archive.name} holds no {package.file}; give the file by {package.option}")
