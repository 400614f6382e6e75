"""Pruned recurrent networks as files: the recurrent operators of ONNX hold the cut sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.surgery import apply
from compressor.export import onnx


class Tagger(nn.Module):
    def __init__(self, rnn: nn.RNNBase, width: int) -> None:
        super().__init__()
        self.stem, self.rnn, self.head = nn.Linear(5, 6), rnn, nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(torch.tanh(self.stem(x)))[0])


MAKE: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: Tagger(nn.LSTM(6, 8, batch_first=True), 8),
    "two bidirectional layers": lambda: Tagger(nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True), 16),
    "GRU": lambda: Tagger(nn.GRU(6, 8, batch_first=True), 8),
    "RNN": lambda: Tagger(nn.RNN(6, 8, batch_first=True), 8),
}


@pytest.mark.parametrize("name", MAKE)
def test_the_file_computes_what_the_pruned_network_computes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = MAKE[name]().eval(), torch.randn(3, 4, 5)
    graph = capture(model, x)
    removed = np.zeros(graph.n_units, dtype=bool)
    for group in graph.groups:
        for cell in group.cells:
            removed[cell[: group.size // 2]] = True
    small = apply(model, graph.plan(removed))
    onnx(small, x, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, small(x).numpy(), rtol=1e-4, atol=1e-5)
    nodes = onnx_format.load(str(tmp_path / "net.onnx")).graph.node
    sizes = [a.i for node in nodes for a in node.attribute if a.name == "hidden_size"]
    assert set(sizes) <= {4}
