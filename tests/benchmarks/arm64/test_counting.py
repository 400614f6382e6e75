"""ARM64 instructions under qemu-user: what is pure, what qemu alone counts, and real models."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.arm64 import __main__ as command
from benchmarks.arm64 import counting, instructions
from benchmarks.arm64.system import cache_folder, checked, system
from benchmarks.zoo import Missing


def test_the_last_call_of_each_model_is_taken() -> None:
    assert counting.third_calls([0, 9, 12, 14, 100, 190, 220, 240], 2) == [2, 20]


def test_a_missing_reading_is_no_count() -> None:
    with pytest.raises(RuntimeError, match="read 7 times, expected 8 for 2 models"):
        counting.third_calls([0, 9, 12, 14, 100, 190, 220], 2)


@pytest.mark.parametrize(("said", "version"), [("7.2.22 (Debian 1:7.2)", 1), ("8.2.2", 1), ("10.0.2", 2)])
def test_the_plugin_takes_the_interface_of_its_qemu(said: str, version: int) -> None:
    assert counting.plugin_version(f"qemu-aarch64 version {said}") == version


def test_the_cache_is_named_by_the_option_or_lies_in_that_of_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPRESSOR_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "arm64"
    assert cache_folder(str(tmp_path / "named")) == tmp_path / "named"


def test_without_qemu_the_command_is_skipped_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    _arguments(monkeypatch, tmp_path, _file(tmp_path))
    assert command.main() == 0
    said = capsys.readouterr().out
    assert said == "skipped: qemu-aarch64 is not installed: apt-get install qemu-user\n"


def test_a_file_that_is_not_there_is_an_error_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _arguments(monkeypatch, tmp_path, tmp_path / "none.onnx")
    assert command.main() == 1
    assert "there is no file" in capsys.readouterr().err


def test_a_download_that_fails_leaves_nothing_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"cannot be fetched, which needs a network: apt-get is not installed"):
        system(tmp_path / "cache")
    assert not [file for file in (tmp_path / "cache").iterdir() if file.suffix != ".part"]


def test_a_command_that_fails_says_what_it_was_for() -> None:
    complaint = "import sys; sys.exit('no such thing')"
    with pytest.raises(Missing, match=r"fetching it failed \(exit code 1\): no such thing"):
        checked([sys.executable, "-c", complaint], doing="fetching it")


def test_instructions_between_two_brackets_are_those_of_a_hand_count(tmp_path: Path) -> None:
    if shutil.which("qemu-aarch64") is None or shutil.which("gcc") is None:
        pytest.skip("needs qemu-aarch64 and gcc: apt-get install qemu-user gcc libc6-dev")
    program = tmp_path / "loop"
    program.write_bytes(_program(1000))
    program.chmod(0o755)
    counter = counting._counter("qemu-aarch64", tmp_path)
    out = tmp_path / "counts"
    subprocess.run(["qemu-aarch64", "-plugin", f"{counter},out={out}", program], check=True, timeout=60)
    first, second = map(int, out.read_text().split())
    assert first == 2
    assert second - first == 1 + 2 * 1000 + 2  # before, within and after the loop


@pytest.mark.slow
def test_a_matrix_of_four_times_the_products_costs_about_four_times_the_instructions(tmp_path: Path) -> None:
    files = [_matmul(tmp_path, size) for size in (128, 256)]
    counts = _counted(files)
    assert list(counts) == files
    # 8 products to a multiply-add of 4 lanes at best; and 4x, less what every call costs.
    assert 256 * 256 * 64 / 8 < counts[files[1]] < 256 * 256 * 64
    assert 3 < counts[files[1]] / counts[files[0]] < 4.1
    again = _counted(files[::-1])
    assert again[files[1]] == pytest.approx(counts[files[1]], rel=0.005)


@pytest.mark.slow
def test_an_input_without_sizes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"input 'x' has the shape .* fix every size but the first"):
        _counted([_matmul(tmp_path, "n")])


def _counted(files: list[Path]) -> dict[Path, int]:
    try:
        return instructions(files)
    except Missing as missing:
        pytest.skip(str(missing))


def _arguments(monkeypatch: pytest.MonkeyPatch, cache: Path, *files: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["arm64", "--cache", str(cache), *map(str, files)])


def _file(folder: Path) -> Path:
    file = folder / "net.onnx"
    file.touch()
    return file


def _matmul(folder: Path, size: int | str) -> Path:
    """A product of x [64, size] with w [size, size]."""
    onnx = pytest.importorskip("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    n = size if isinstance(size, int) else 4
    weight = helper.make_tensor("w", float32, [n, n], [0.01] * n * n)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "matmul",
        [helper.make_tensor_value_info("x", float32, [64, size])],
        [helper.make_tensor_value_info("y", float32, [64, n])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    file = folder / f"{size}.onnx"
    onnx.save(model, file)
    return file


def _program(rounds: int) -> bytes:
    """A static ARM64 program: getppid, a loop of two instructions, getppid, exit."""
    code = struct.pack(
        "<10I",
        0xD28015A8,  # mov x8, #173 (getppid)
        0xD4000001,  # svc #0
        0xD2800000 | rounds << 5,  # mov x0, #rounds
        0xF1000400,  # subs x0, x0, #1
        0x54FFFFE1,  # b.ne to the line before
        0xD28015A8,  # mov x8, #173
        0xD4000001,  # svc #0
        0xD2800000,  # mov x0, #0
        0xD2800BA8,  # mov x8, #93 (exit)
        0xD4000001,  # svc #0
    )
    base, head = 0x400000, 64 + 56
    elf, machine = 2, 183  # an executable, for ARM64
    ident = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header = struct.pack("<2HI3QI6H", elf, machine, 1, base + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = head + len(code)
    load = struct.pack("<2I6Q", 1, 5, 0, base, base, size, size, 0x1000)
    return ident + header + load + code
