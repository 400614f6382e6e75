"""A folder with an ARM64 Python, numpy and onnxruntime, fetched once and kept in a cache.

Debian's packages come through apt with lists of its own, Python's through pip: from wherever this machine
is set up to take them. Nothing is installed, and neither tool's state is touched.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.zoo import Missing
from compressor.runtimes import cache

__all__ = ["PINS", "System", "cache_folder", "checked", "system", "tool"]

# Counts of other versions are other counts.
PINS = {"onnxruntime": "1.31.1", "numpy": "2.4.6"}
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
_DEBIAN = "the ARM64 packages are taken from Debian, with Debian's tools"
_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class System:
    """The folder that stands for `/` (`root`), Python's name within it, and the wheels' contents."""

    root: Path
    python: str
    packages: Path


def cache_folder(named: str | None = None) -> Path:
    """Where things are kept: in `named`, or else `arm64` in the library's cache folder."""
    return Path(named).expanduser().resolve() if named else cache.cache_folder().resolve() / "arm64"


def system(kept: Path) -> System:
    """The system in `kept`, fetched (about 80 MB) if it is not there.

    Raises Missing where apt-get, dpkg-deb, pip or what they fetch is not to be had.
    """
    folder = kept / "-".join(["system", *(f"{name}-{version}" for name, version in PINS.items())])
    if not folder.is_dir():
        part = kept / f"{folder.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            _fetch(part)
        except Missing as missing:
            raise Missing(
                f"the ARM64 system is not in {kept}, and cannot be fetched, which needs a network: {missing}"
            ) from missing
        part.rename(folder)
    (python,) = (folder / "root" / "usr" / "bin").glob("python3.*")
    return System(folder / "root", python.name, folder / "packages")


def tool(name: str, advice: str) -> str:
    """The path of a program; raises Missing with the advice where there is none."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed: {advice}")
    return found


def checked(
    command: Sequence[str | Path],
    *,
    doing: str,
    error: type[Exception] = Missing,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What a command prints; raises `error` with the end of its complaint when it fails."""
    words = [*map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = " / ".join(lines[-3:]) or "no message"
        raise error(f"{doing} failed (exit code {done.returncode}): {said}")
    return done.stdout


def _fetch(part: Path) -> None:
    debs = _Debs(part / "apt")
    python = debs.default_python()
    root = part / "root"
    root.mkdir()
    for deb in debs.download([python, "libstdc++6"]):
        checked([tool("dpkg-deb", _DEBIAN), "-x", deb, root], doing=f"unpacking {deb.name}")
    if not (root / "lib").exists():  # where packages hold usr/lib alone, another one brings the link
        (root / "lib").symlink_to("usr/lib")
    # onnxruntime reads which ARM processor it runs on, and crashes on the text of another kind.
    (root / "proc").mkdir()
    shutil.copyfile(_HERE / "cpuinfo.txt", root / "proc" / "cpuinfo")
    _wheels(part, python.removeprefix("python"))
    shutil.rmtree(part / "apt")


def _wheels(part: Path, version: str) -> None:
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    pins = [f"{name}=={version}" for name, version in PINS.items()]
    where = ["--only-binary=:all:", "--no-deps", "--python-version", version, "--dest", part / "wheels"]
    command = [sys.executable, "-m", "pip", "-q", "download", *where, *platforms, *pins]
    checked(command, doing=f"downloading {', '.join(pins)} for ARM64 and Python {version} with pip")
    for wheel in (part / "wheels").iterdir():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(part / "packages")
    shutil.rmtree(part / "wheels")


class _Debs:
    """apt with lists, state and downloads in `folder`, as if nothing were installed."""

    def __init__(self, folder: Path) -> None:
        for name in ("lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        self._archives = folder / "archives"
        settings = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Sandbox::User": "root",  # else it downloads as a user who cannot write here
            "APT::Install-Recommends": "false",
            "Dir::State": folder,
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder,
            "Dir::Cache::archives": self._archives,
        }
        self._options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        self._run("apt-get", "-q", "update", doing="reading the lists of ARM64 packages with apt")

    def default_python(self) -> str:
        """The distribution's Python, as the package of its version."""
        shown = self._run("apt-cache", "show", "python3", doing="looking for an ARM64 Python with apt")
        found = re.search(r"^Depends:.*?\b(python3\.\d+)\b", shown, re.MULTILINE)
        if found is None:
            raise Missing(
                "apt's python3 for ARM64 names no version: the sources need Debian's arm64 packages"
            )
        return found.group(1)

    def download(self, names: Sequence[str]) -> list[Path]:
        """The files of these packages and of all they need."""
        words = ["-q", "-y", "--download-only", "install", *names]
        self._run("apt-get", *words, doing=f"downloading {', '.join(names)} for ARM64 with apt")
        return sorted(self._archives.glob("*.deb"))

    def _run(self, program: str, *words: str, doing: str) -> str:
        return checked([tool(program, _DEBIAN), *self._options, *words], doing=doing)
