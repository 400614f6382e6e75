"""Which of torch's exporters writes a file, and what is said when it is not the first."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compressor.errors import ExportError, ExporterWarning
from compressor.export import Exporter, onnx

MODULE = sys.modules["compressor.export.onnx"]
TRACER = Exporter.TORCHSCRIPT


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))


X = torch.rand(1, 3, 8, 8)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's newer exporter fails, as it does on operators that it does not know."""
    export = torch.onnx.export

    def fail(*args: Any, dynamo: bool, **kwargs: Any) -> None:
        if dynamo:
            raise RuntimeError("no such operator")
        export(*args, dynamo=False, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", fail)


@pytest.mark.usefixtures("broken")
def test_the_older_exporter_steps_in_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.warns(
        ExporterWarning, match=r"torch\.export exporter failed .*no such operator.*TorchScript"
    ):
        report = onnx(net(), X, path)
    assert report.exporter is Exporter.TORCHSCRIPT
    assert report.fallback is not None and "no such operator" in report.fallback
    assert "written by torch's TorchScript exporter: torch's torch.export exporter cannot" in str(report)
    assert report.inputs == {"input": ("batch", 3, 8, 8)} and report.outputs["output"][:2] == ("batch", 2)
    assert report.norms_left == ()


@pytest.mark.usefixtures("broken")
def test_an_exporter_that_was_asked_for_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such operator"):
        onnx(net(), X, tmp_path / "net.onnx", exporter=Exporter.DYNAMO)
    assert list(tmp_path.iterdir()) == []


def test_the_older_exporter_asked_for_writes_without_a_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = onnx(net(), X, tmp_path / "net.onnx", exporter=TRACER)
    assert report.exporter is TRACER and report.fallback is None


class Branching(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        return y if y.mean() > 0 else -y


class Listing(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + float(sum(input[0].tolist()))


class ThroughNumpy(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * float(np.asarray(input).max())


class BySize(nn.Linear):
    """A branch on a size is none on values: the second shape tells whether it matters."""

    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        return y * 2 if input.shape[1] > 2 else y


@pytest.mark.parametrize("kind", [Branching, Listing, ThroughNumpy])
def test_a_trace_that_would_hold_one_branch_is_refused(
    kind: Callable[[int, int], nn.Module], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"follows one run of .*, and forward"):
        onnx(kind(3, 2), torch.rand(2, 3), tmp_path / "net.onnx", exporter=TRACER)
    assert list(tmp_path.iterdir()) == []


def test_a_branch_on_a_size_is_traced(tmp_path: Path) -> None:
    onnx(BySize(3, 2), torch.rand(2, 3), tmp_path / "net.onnx", exporter=TRACER)


def test_a_trace_that_holds_the_size_of_the_batch_is_refused(tmp_path: Path) -> None:
    class Mean(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) / float(len(input))

    with pytest.raises(ExportError, match=r"differs from torch by .* at input"):
        onnx(Mean(3, 2), torch.rand(2, 3), tmp_path / "net.onnx", exporter=TRACER)


class Padding(nn.Conv2d):
    """What is padded depends on the height: nothing for the heights 8 and 16."""

    def forward(self, input: Tensor) -> Tensor:
        missing = -input.shape[2] % 4
        return super().forward(nn.functional.pad(input, (0, 0, 0, missing)) if missing else input)


@pytest.mark.parametrize("exporter", Exporter)
def test_a_decision_by_a_free_size_is_refused_and_one_by_a_fixed_size_is_not(
    exporter: Exporter, tmp_path: Path
) -> None:
    net, x = Padding(3, 2, 1), torch.rand(1, 3, 8, 8)
    with pytest.raises(ExportError, match=r"at input \[1, 3, 17, 8\].*decides by sizes|became fixed at 8"):
        onnx(net, x, tmp_path / "net.onnx", dynamic=(0, 2), exporter=exporter)
    assert list(tmp_path.iterdir()) == []
    onnx(net, x, tmp_path / "net.onnx", dynamic=(0,), exporter=exporter)


def test_where_both_fail_both_reasons_are_given(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"data-dependent.*older exporter does not help: .*follows one run"):
        onnx(Branching(3, 2), torch.rand(2, 3), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_several_inputs_share_the_name_of_their_batch(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: list[Tensor]) -> tuple[Tensor, Tensor]:
            return x + y[0].sum(1, keepdim=True), y[0] * 2

    report = onnx(Two(), torch.rand(2, 3), [torch.rand(2, 5)], tmp_path / "net.onnx", exporter=TRACER)
    assert report.inputs == {"x": ("batch", 3), "y_0": ("batch", 5)}
    assert report.outputs == {"output_0": ("batch", 3), "output_1": ("batch", 5)}


# -- opset, one file, old runtimes -----------------------------------------------------------------


@pytest.mark.parametrize("opset", [18, 19, 21])
def test_the_opset_in_the_file_is_the_one_that_was_asked(opset: int, tmp_path: Path) -> None:
    assert onnx(net(), X, tmp_path / "net.onnx", opset=opset, exporter=TRACER).opset == opset
    proto = onnx_format.load(str(tmp_path / "net.onnx"))
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", opset)]


def graph(opset: int = 18, **model: Any) -> onnx_format.ModelProto:
    value = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.full((2, 2), 0.5, np.float32), "weight")
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["output"])],
        "g",
        [value("input", TensorProto.FLOAT, [1, 2])],
        [value("output", TensorProto.FLOAT, [1, 2])],
        [weight],
    )
    return helper.make_model(inner, opset_imports=[helper.make_opsetid("", opset)], **model)


def half() -> nn.Linear:
    layer = nn.Linear(2, 2, bias=False)
    nn.init.constant_(layer.weight, 0.5)
    return layer


@pytest.fixture
def draft_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[onnx_format.ModelProto], None]:
    """A function that makes every exporter write the given graph."""

    def replace(proto: onnx_format.ModelProto) -> None:
        data = proto.SerializeToString()
        monkeypatch.setattr(MODULE, "write_draft", lambda _request, path, *_: path.write_bytes(data))

    return replace


def test_the_graph_that_the_next_tests_spoil_is_a_good_one(
    draft_is: Callable[[onnx_format.ModelProto], None], tmp_path: Path
) -> None:
    draft_is(graph(ir_version=8))
    assert onnx(half(), torch.rand(1, 2), tmp_path / "net.onnx", dynamic=()).nodes == 1


def test_another_opset_than_asked_is_refused(
    draft_is: Callable[[onnx_format.ModelProto], None], tmp_path: Path
) -> None:
    draft_is(graph(18, ir_version=8))
    with pytest.raises(ExportError, match=r"opset 21 was asked and torch wrote 18"):
        onnx(half(), torch.rand(1, 2), tmp_path / "net.onnx", dynamic=(), opset=21)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("opset", "ir_version"), [(18, 99), (99, 8)], ids=["format", "operators"])
def test_a_file_too_new_for_the_installed_onnxruntime_says_what_to_do(
    opset: int,
    ir_version: int,
    draft_is: Callable[[onnx_format.ModelProto], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(MODULE, "slimmed", lambda *_: None)
    draft_is(graph(opset, ir_version=ir_version))
    with pytest.raises(
        ExportError,
        match=rf"onnxruntime {onnxruntime.__version__} is too old .*IR version {ir_version}, opset {opset}"
        r".*pip install -U onnxruntime",
    ):
        onnx(half(), torch.rand(1, 2), tmp_path / "net.onnx", dynamic=(), opset=opset)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["weights", "example"])
def test_what_is_nowhere_finite_proves_nothing(tmp_path: Path, where: str) -> None:
    layer, x = half(), torch.rand(1, 2)
    (layer.weight.data if where == "weights" else x).fill_(torch.nan)
    with pytest.raises(ExportError, match=r"Linear gives no finite number on the example, input \[1, 2\]"):
        onnx(layer, x, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_the_exporter_puts_beside_the_file_are_taken_into_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def write(_request: Any, path: Path, *_: Any) -> None:
        onnx_format.save(
            graph(ir_version=8), str(path), save_as_external_data=True, location="w.bin", size_threshold=0
        )

    monkeypatch.setattr(MODULE, "write_draft", write)
    path = tmp_path / "net.onnx"
    onnx(half(), torch.rand(1, 2), path, dynamic=())
    assert list(tmp_path.iterdir()) == [path]
    (weight,) = onnx_format.load(str(path), load_external_data=False).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(weight), np.full((2, 2), 0.5, np.float32))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match=r"cannot write .*file/net\.onnx: .*(exists|directory)"):
        onnx(net(), X, tmp_path / "file" / "net.onnx", exporter=TRACER)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# -- slimming --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["raises", "wrong numbers"])
def test_a_slimmer_that_fails_costs_nothing_but_a_line_in_the_log(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    import onnxslim

    slim = onnxslim.slim

    def fail(proto: onnx_format.ModelProto) -> onnx_format.ModelProto:
        if fault == "raises":
            raise ValueError("tripped")
        proto = slim(proto)
        proto.graph.node[-1].op_type = "Sqrt"
        del proto.graph.node[-1].input[1:], proto.graph.node[-1].attribute[:]
        return proto

    class WithConstant(nn.Module):  # something to slim, so that the slimmed file would be taken
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.arange(8).float().reshape(1, 1, 1, 8).exp()

    monkeypatch.setattr(onnxslim, "slim", fail)
    with caplog.at_level(logging.WARNING):
        onnx(WithConstant(), X, tmp_path / "net.onnx", exporter=TRACER)
    assert ("tripped" if fault == "raises" else "onnxslim spoils the graph") in caplog.text


# -- one model, one file ---------------------------------------------------------------------------


@pytest.mark.parametrize("exporter", Exporter)
def test_a_second_export_gives_the_same_bytes(exporter: Exporter, tmp_path: Path) -> None:
    model = net()
    paths = [tmp_path / "first.onnx", tmp_path / "folder" / "second.onnx"]
    for path in paths:
        onnx(model, X, path, exporter=exporter)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    names = {tensor.name for tensor in onnx_format.load_from_string(first).graph.initializer}
    assert {"3.weight", "3.bias"} <= names


class ConvLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(9, 8, 3, padding=1)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool1d(torch.relu(self.conv(x)), 2)
        result: Tensor = self.head(self.lstm(x.transpose(1, 2))[0][:, -1])
        return result


@pytest.mark.parametrize("exporter", Exporter)
def test_an_lstm_behind_a_pooling_keeps_its_time_free_and_its_weights_constant(
    exporter: Exporter, tmp_path: Path
) -> None:
    # Asked for a named time axis, torch's newer exporter fixes it here without a word.
    model = ConvLstm().eval()
    report = onnx(model, torch.rand(1, 9, 16), tmp_path / "net.onnx", dynamic=(0, 2), exporter=exporter)
    assert report.inputs == {"x": ("batch", 9, "length")} and report.outputs == {"output": ("batch", 3)}
    proto = onnx_format.load(str(report.path))
    (lstm,) = (node for node in proto.graph.node if node.op_type == "LSTM")
    constants = {tensor.name for tensor in proto.graph.initializer}
    assert set(lstm.input[1:4]) <= constants  # what a dynamic quantiser looks for
    session = onnxruntime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    for shape in ((3, 9, 40), (1, 9, 7)):
        x = torch.rand(shape)
        with torch.no_grad():
            expected = model(x).numpy()
        (found,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_what_the_exporter_numbers_by_its_past_is_not_in_the_file(tmp_path: Path) -> None:
    model, files = ConvLstm(), []
    for name in ("first.onnx", "second.onnx"):
        report = onnx(model, torch.rand(1, 9, 16), tmp_path / name, dynamic=(0, 2))
        files.append(report.path.read_bytes())
    assert files[0] == files[1]
