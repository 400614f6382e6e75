"""What processes say of models whose memory is known; the numbers are bytes that the models ask for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.surgery import apply
from compressor.errors import ExportError, InputError, MeasurementError
from compressor.profiling import Footprint, MeasuredBytes, Memory, memory
from compressor.runtimes import Compiled, OnnxRuntime
from tests.profiling.memory_models import Deadly, Reshaped, Wasteful

MB = 1_000_000


def wasteful_file(path: Path, count: int) -> Path:
    """The largest sum of a number and `count` weights, as an ONNX file: the sums are the activations."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["w", "file"], ["y"]),
            helper.make_node("ReduceMax", ["y"], ["z"], keepdims=0),
        ],
        "wasteful",
        [helper.make_tensor_value_info("file", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.ones(count, dtype=np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def check(footprint: Footprint, weights: int, activations: int) -> None:
    """Whether the numbers are those of the model, and agree with each other."""
    run, load, held, total = footprint.run, footprint.load, footprint.held, footprint.total
    assert load is not None and held is not None and total is not None
    assert held.bytes == pytest.approx(weights, abs=MB)
    assert run.bytes == pytest.approx(activations, abs=MB)
    assert load.bytes >= held.bytes - MB
    assert total.bytes == pytest.approx(max(load.bytes, held.bytes + run.bytes), abs=MB)
    assert run.lowest <= run.bytes <= run.highest


def test_a_module_takes_the_bytes_that_it_asks_for() -> None:
    model = Wasteful(20 * MB, 60 * MB).train()
    (footprint,) = memory(model, torch.zeros(1), repeats=1).footprints
    check(footprint, 20 * MB, 60 * MB)
    assert model.training


def test_files_take_the_bytes_that_they_ask_for_and_the_runtime_its_own(tmp_path: Path) -> None:
    counts = (5 * MB, 2 * MB)
    paths = [wasteful_file(tmp_path / f"{count}.onnx", count) for count in counts]
    found = memory(paths, torch.ones(1), runtime=OnnxRuntime(), repeats=3)
    for footprint, count in zip(found.footprints, counts, strict=True):
        assert footprint.held is not None and footprint.fixed is not None
        assert footprint.held.bytes == pytest.approx(4 * count, abs=MB)
        # onnxruntime's arena grows in powers of two, at most.
        assert 4 * count - MB < footprint.run.bytes < 2.2 * 4 * count + MB
        assert MB < footprint.fixed.bytes < 50 * MB
        assert footprint.run.highest - footprint.run.lowest < MB


def test_without_an_arena_onnxruntime_takes_no_more_than_it_asks_for(tmp_path: Path) -> None:
    path = wasteful_file(tmp_path / "net.onnx", 5 * MB)
    sparing = OnnxRuntime(arena=False, memory_pattern=False)
    (footprint,) = memory(path, torch.ones(1), runtime=sparing, repeats=1).footprints
    assert footprint.run.bytes == pytest.approx(20 * MB, abs=MB)


def test_classes_and_functions_of_a_function_travel() -> None:
    class Local(Wasteful):
        pass

    net = Local(8 * MB, 4 * MB)
    net.wrap = lambda x: x * 2  # type: ignore[assignment]
    (footprint,) = memory(net, torch.zeros(1), repeats=1).footprints
    check(footprint, 8 * MB, 4 * MB)


def test_a_pruned_model_whose_forward_is_patched_travels() -> None:
    net, x = Reshaped().eval(), torch.zeros(1, 3, 64, 64)
    graph = capture(net, x)
    small = apply(net, graph.plan(np.arange(graph.n_units) < 48))
    assert type(small) is not Reshaped
    (footprint,) = memory(small, x, repeats=1).footprints
    assert footprint.held is not None
    assert footprint.held.bytes == pytest.approx(16 * 64 * 64 * 2 * 4, abs=MB / 2)  # its head


@pytest.mark.parametrize("where", ["local", "script"])
def test_what_pickle_cannot_take_along_is_named(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(nn.Identity):
        pass

    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    if where == "script":
        Local.__module__ = "__main__"
    with pytest.raises(InputError, match=r"model 0 \(Local\).*compressor\[memory\]"):
        memory(Local(), torch.zeros(1))


def test_a_model_that_fails_in_its_process_says_how() -> None:
    with pytest.raises(
        MeasurementError, match=r"model 0 \(Linear\) fails .* while running: RuntimeError: mat1"
    ):
        memory(nn.Linear(3, 2), torch.zeros(1, 4))


def test_a_process_that_is_killed_says_so() -> None:
    with pytest.raises(MeasurementError, match=r"model 0 \(Deadly\) was killed, as happens where memory"):
        memory(Deadly(), torch.zeros(1))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"none\.onnx"):
        memory(tmp_path / "none.onnx", torch.zeros(1), runtime=OnnxRuntime())


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(MeasurementError, match=r"darwin.*measure on Linux"):
        memory(nn.Linear(3, 2), torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("models", "options", "words"),
    [
        ([], {}, "a list of one or more"),
        ([nn.Identity(), 3], {}, "a list of one or more"),
        (3, {}, "a list of one or more"),
        (nn.Identity(), {"repeats": 0}, "repeats = 0"),
        (nn.Identity(), {"runtime": Compiled()}, r"Compiled\(.*Eager\(\) or runtimes.OnnxRuntime\(\)"),
        (nn.Identity(), {"runtime": OnnxRuntime(pin=0)}, "pin = 0: nothing is timed"),
        ("net.onnx", {}, r"for files use OnnxRuntime\(\)"),
        (nn.Linear(1, 1, device="meta"), {}, "several devices"),
    ],
)
def test_bad_arguments_are_refused(models: object, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        memory(models, torch.zeros(1), **options)  # type: ignore[arg-type]


def test_a_memory_is_shown_as_a_table_of_what_was_measured() -> None:
    run, load = MeasuredBytes.of([1_000_000, 3_000_000, 2_000_000]), MeasuredBytes.of([500_000])
    found = Memory((Footprint(run, load=load), Footprint(load, load=load)), 3, "resident memory", "Eager()")
    assert str(found).splitlines() == [
        "resident memory, Eager(), 3 times each (median, range)",
        "                         run                 load",
        "model 0  2.00 MB (1.00-3.00)  0.50 MB (0.50-0.50)",
        "model 1  0.50 MB (0.50-0.50)  0.50 MB (0.50-0.50)",
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_the_allocations_of_a_call_are_counted() -> None:
    class Doubles(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 2).sum()

    x = torch.zeros(5 * MB, device="cuda")
    (footprint,) = memory(Doubles(), x, repeats=2).footprints
    assert footprint.run.bytes == pytest.approx(20 * MB, rel=0.01)
    assert footprint.load is None
