"""One table of onnxruntime itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.profiling import LatencyTable, latency_table
from compressor.profiling.latency_table.layers import layers_of
from compressor.profiling.latency_table.measuring import measure_rows, reference_ms
from compressor.profiling.latency_table.rows import Row, base_of, example_of, module_of
from compressor.runtimes import Eager, OnnxRuntime, Optimization
from compressor.runtimes.layer_files import write_layers

pytest.importorskip("onnxruntime")


class Kinds(nn.Module):
    """Every kind of layer that has rows."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, groups=4, padding=2, dilation=2)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.line = nn.Conv1d(8, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.depthwise(self.grouped(self.plain(x))).relu()).flatten(2)
        return self.head(self.line(x).mean(-1))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    graph = cp.capture(Kinds(), torch.zeros(1, 3, 16, 16))
    return [Row(placed.layer, *placed.widths) for placed in layers_of(graph)]


def test_every_kind_of_layer_has_a_row(rows: list[Row]) -> None:
    assert [str(row) for row in rows] == [
        "Conv3x3 stride 2x2 on 1x16x16: 3 -> 16",
        "GroupedConv3x3 on 1x8x8: 16 -> 16",
        "DepthwiseConv3x3 on 1x8x8: 16 -> 16",
        "ConvTranspose2x2 stride 2x2 on 1x6x6: 16 -> 8",
        "Conv3 on 1x144: 8 -> 8",
        "Linear on 1: 8 -> 4",
    ]


def test_the_file_of_a_row_computes_what_its_module_does(rows: list[Row], tmp_path: Path) -> None:
    for number, row in enumerate([*rows, *map(base_of, rows)]):
        module, x, path = module_of(row), example_of(row), tmp_path / f"{number}.onnx"
        write_layers(module, x, path)
        (found,) = OnnxRuntime().session(path, what=str(row)).run({"x": x})
        torch.testing.assert_close(found, module(x).detach(), rtol=1e-4, atol=1e-5)


def test_a_wider_layer_takes_longer_in_eager_torch_and_in_onnxruntime() -> None:
    layer = Row(layers_of(cp.capture(nn.Conv2d(64, 64, 3), torch.zeros(1, 64, 16, 16)))[0].layer, 256, 256)
    narrow = Row(layer.layer, 16, 16)
    for runtime in (Eager(), OnnxRuntime(optimization=Optimization.EXTENDED)):
        unit = reference_ms(runtime, rounds=3)
        wide_ms, narrow_ms = measure_rows([layer, narrow], runtime, rounds=3, reference_ms=unit)
        assert wide_ms > 3 * narrow_ms  # of 256 times the MACs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::compressor.errors.LatencyWarning")
def test_a_table_of_onnxruntime_makes_a_smaller_model_faster(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(128, 8, 1),
    ).eval()
    x = torch.randn(1, 3, 24, 24)
    graph = cp.capture(model, x)
    table = latency_table(graph, path=tmp_path / "t.json")
    small = cp.prune(model, x, budget=cp.budget.Latency(0.3, table))
    promise = table.check(model, small, x, fraction=0.3)
    assert promise.measured_fraction < 0.8  # the table says 0.3; this only has to tell it from nothing
    back = LatencyTable.load(tmp_path / "t.json")
    assert back.predict(graph) == table.predict(graph)
    assert back.runtime == OnnxRuntime()
