"""int8 files against our own arithmetic on the weights, and against float32 in onnxruntime."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.errors import ExportError, FileError, InputError, QuantisationWarning
from compressor.export import Acceptance, dynamic_int8, int8
from compressor.export.files.fidelity import Fidelity
from compressor.export.low_precision.accepting import LowPrecisionReport, warn_if_no_gain, warn_if_saturated
from tests.export.conftest import QUICK, normal, weights_of, write

pytestmark = pytest.mark.filterwarnings("ignore::compressor.errors.QuantisationWarning")
Batches = list[tuple[Tensor, Tensor]]


def outputs(path: Path, x: Tensor, *, as_written: bool = True) -> np.ndarray:
    """Computed node by node, or else with the kernels chosen here: those saturate on x86 without VNNI."""
    options = onnxruntime.SessionOptions()
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return np.asarray(found)


def sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    a, b = expected.astype(np.float64), found.astype(np.float64)
    return float(10 * np.log10((a**2).mean() / ((a - b) ** 2).mean()))


@pytest.fixture(scope="module")
def batches() -> Batches:
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn(8, 3, 8, 8, generator=generator), torch.zeros(8)) for _ in range(3)]


@pytest.fixture(scope="module")
def report(
    classifier: Path, batches: Batches, tmp_path_factory: pytest.TempPathFactory
) -> LowPrecisionReport:
    path = tmp_path_factory.mktemp("int8") / "deep" / "small.int8.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantisationWarning)
        return int8(classifier, batches, path, checks=QUICK)


def test_weights_are_rounded_per_output_channel(classifier: Path, report: LowPrecisionReport) -> None:
    before, after = weights_of(classifier), weights_of(report.path)
    for name in ("w1", "w2", "w3"):
        weight = before[name].astype(np.float64)
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        scale = (largest / 127).reshape(-1, *[1] * (weight.ndim - 1))
        stored = after[f"{name}_quantized"]
        assert stored.dtype == np.int8 and not after[f"{name}_zero_point"].any()
        np.testing.assert_allclose(after[f"{name}_scale"], scale.ravel(), rtol=1e-6)
        assert np.abs(stored - weight / scale).max() <= 0.5 + 1e-4
        assert np.abs(stored.reshape(len(stored), -1)).max(axis=1).tolist() == [127] * len(stored)


def test_activations_are_bytes_over_the_range_of_all_batches(
    batches: Batches, report: LowPrecisionReport
) -> None:
    x, after = torch.cat([images for images, _ in batches]), weights_of(report.path)
    scale = float(x.max() - x.min()) / 255
    assert after["x_zero_point"].dtype == np.uint8
    assert float(after["x_scale"]) == pytest.approx(scale, rel=1e-5)
    assert int(after["x_zero_point"]) == round(-float(x.min()) / scale)


def test_the_report_is_what_onnxruntime_says(
    classifier: Path, batches: Batches, report: LowPrecisionReport
) -> None:
    x = torch.cat([images for images, _ in batches])
    expected, found = outputs(classifier, x), outputs(report.path, x)
    assert report.fidelity.sqnr_db["y"] == pytest.approx(sqnr(expected, found), abs=0.1)
    assert 20 < report.fidelity.sqnr_db["y"] < 70
    here = sqnr(expected, outputs(report.path, x, as_written=False))
    assert report.on_this_cpu.sqnr_db["y"] == pytest.approx(here, abs=0.1)
    same = (expected.argmax(1) == found.argmax(1)).mean()
    assert report.fidelity.agreement == {"y": pytest.approx(same)}
    assert report.judged_on == "24 calibration examples"
    assert (report.file_bytes, report.source_bytes) == (
        report.path.stat().st_size,
        classifier.stat().st_size,
    )
    # Convolutions and dense layers are all integers now; what is float are their scales.
    assert report.float_bytes < 400
    text = str(report)
    assert "int8" in text and "24 calibration examples: y" in text and "x as fast" in text


def test_metadata_stays_and_nothing_of_this_machine_is_added(
    classifier: Path, report: LowPrecisionReport
) -> None:
    before, after = onnx.load(str(classifier)), onnx.load(str(report.path))
    assert [(p.key, p.value) for p in after.metadata_props] == [("classes", "a,b,c")]
    for mine, theirs in ((before.graph.input, after.graph.input), (before.graph.output, after.graph.output)):
        assert [(value.name, value.type) for value in mine] == [(value.name, value.type) for value in theirs]
    assert [entry.domain for entry in after.opset_import] == [""]
    content = report.path.read_bytes()
    assert not any(
        word in content for word in (b"/home", b"/tmp", str(Path.cwd()).encode(), b"site-packages")
    )


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_batch_stays_free(classifier: Path, report: LowPrecisionReport, batch: int) -> None:
    x = torch.randn(batch, 3, 8, 8)
    assert sqnr(outputs(classifier, x), outputs(report.path, x)) > 15


def test_the_same_inputs_give_the_same_bytes(
    classifier: Path, batches: Batches, report: LowPrecisionReport, tmp_path: Path
) -> None:
    again = int8(classifier, batches, tmp_path / "again.onnx", checks=QUICK)
    assert again.path.read_bytes() == report.path.read_bytes()


@pytest.mark.slow  # another interpreter
def test_the_same_inputs_give_the_same_bytes_in_another_process(
    classifier: Path, batches: Batches, report: LowPrecisionReport, tmp_path: Path
) -> None:
    torch.save([images for images, _ in batches], tmp_path / "x.pt")
    code = (
        "import sys, torch, warnings; warnings.simplefilter('ignore'); import compressor as cp\n"
        "cp.export.int8(sys.argv[1], torch.load(sys.argv[2]), sys.argv[3],"
        " checks=cp.export.Acceptance(seconds=0.01))"
    )
    arguments = [str(classifier), str(tmp_path / "x.pt"), str(tmp_path / "again.onnx")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=120)
    assert (tmp_path / "again.onnx").read_bytes() == report.path.read_bytes()


def test_held_out_examples_judge_and_calibration_stops_at_its_limit(
    classifier: Path, images: Batches, report: LowPrecisionReport, tmp_path: Path
) -> None:
    taken = []

    def loader() -> Batches:
        for item in images:
            taken.append(item)
            yield item

    found = int8(
        classifier, loader(), tmp_path / "a.onnx", held_out=images[3:], max_examples=10, checks=QUICK
    )
    assert len(taken) == 2
    assert found.judged_on == "8 held-out examples"
    x = images[3][0]
    expected = sqnr(outputs(classifier, x), outputs(found.path, x))
    assert found.fidelity.sqnr_db["y"] == pytest.approx(expected, abs=0.1)


def test_a_file_that_lost_too_much_is_not_written(
    classifier: Path, images: Batches, left_alone: Path
) -> None:
    out = left_alone / "a.onnx"
    with pytest.raises(ExportError, match=r"does not compute the same any more, on 32 calibration.*90 dB"):
        int8(classifier, images, out, checks=replace(QUICK, min_sqnr_db=90))
    loud = [(100 * x, y) for x, y in images]  # far out of the ranges of the calibration
    with pytest.raises(ExportError, match=r"held-out examples: y -?\d.* dB SQNR.*No file was written"):
        int8(classifier, images, out, held_out=loud, checks=QUICK)


def test_an_earlier_file_is_left_where_the_new_one_fails(
    classifier: Path, images: Batches, tmp_path: Path
) -> None:
    out = tmp_path / "a.onnx"
    out.write_bytes(b"earlier")
    with pytest.raises(ExportError):
        int8(classifier, images, out, checks=replace(QUICK, min_sqnr_db=90))
    assert out.read_bytes() == b"earlier" and [*tmp_path.iterdir()] == [out]


def test_volumes_are_refused_unless_asked_for(volume: Path, tmp_path: Path) -> None:
    x = [torch.randn(4, 1, 6, 6, 6)]
    with pytest.raises(ExportError, match=r"1 3-D convolutions \(conv3d first\).*fp16\(\)"):
        int8(volume, x, tmp_path / "a.onnx", checks=QUICK)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(slower|smaller)")
        report = int8(volume, x, tmp_path / "a.onnx", checks=QUICK, even_if_slower=True)
    assert report.path.is_file() and report.fidelity.agreement == {}


def test_lstm_weights_stay_float_in_the_static_file_and_it_says_so(recurrent: Path, tmp_path: Path) -> None:
    with pytest.warns(QuantisationWarning, match=r"9\d % of the weight bytes.*dynamic_int8\(\) takes LSTMs"):
        int8(recurrent, [torch.randn(16, 10, 6)], tmp_path / "a.onnx", checks=QUICK)


def test_dynamic_int8_takes_lstms_and_no_convolution(
    recurrent: Path, classifier: Path, images: Batches, tmp_path: Path
) -> None:
    x = torch.randn(16, 10, 6)
    report = dynamic_int8(recurrent, [x], tmp_path / "r.onnx", checks=QUICK)
    kinds = [node.op_type for node in onnx.load(str(report.path)).graph.node]
    assert "DynamicQuantizeLSTM" in kinds and "MatMulInteger" in kinds and "LSTM" not in kinds
    expected = sqnr(outputs(recurrent, x), outputs(report.path, x))
    assert report.fidelity.sqnr_db["y"] == pytest.approx(expected, abs=0.1)
    assert expected > 30 and report.size_fraction < 0.5
    outputs(report.path, x[:3])
    again = dynamic_int8(recurrent, [x], tmp_path / "again.onnx", checks=QUICK)
    assert again.path.read_bytes() == report.path.read_bytes()

    with pytest.warns(QuantisationWarning, match=r"convolutions alone; int8\(\) takes them"):
        other = dynamic_int8(classifier, images, tmp_path / "c.onnx", checks=QUICK)
    kinds = [node.op_type for node in onnx.load(str(other.path)).graph.node]
    assert kinds.count("Conv") == 2 and "ConvInteger" not in kinds


@pytest.mark.slow  # an export
def test_an_lstm_exported_from_torch_is_found(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.lstm(x)[0][:, -1])
            return out

    x = torch.randn(8, 5, 4)
    source = cp.export.onnx(Net(), x[:1], tmp_path / "net.onnx").path
    report = dynamic_int8(source, [x], tmp_path / "small.onnx", checks=QUICK)
    assert "DynamicQuantizeLSTM" in [node.op_type for node in onnx.load(str(report.path)).graph.node]
    assert report.size_fraction < 0.6


def test_what_has_nothing_to_quantise_is_named(volume: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"nothing in .*volume.onnx can be quantised.*there is int8"):
        dynamic_int8(volume, [torch.randn(2, 1, 6, 6, 6)], tmp_path / "a.onnx", checks=QUICK)


def test_a_quantised_or_half_file_is_no_source(
    report: LowPrecisionReport, images: Batches, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is quantised already; int8 starts from the float32 file"):
        int8(report.path, images, tmp_path / "a.onnx")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    half = write(tmp_path / "h.onnx", [node], {"w": normal(2, 3, 1, 1, seed=1)}, (1, 3, 8, 8), (1, 2, 8, 8))
    model = onnx.load(str(half))
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.ones((2, 3, 1, 1), dtype=np.float16), "w")
    )
    onnx.save(model, str(half))
    with pytest.raises(InputError, match="half precision"):
        int8(half, images, tmp_path / "a.onnx")


def test_sources_and_targets_that_make_no_sense_are_refused(
    classifier: Path, images: Batches, tmp_path: Path
) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, message in {"text": "is no ONNX file", "empty": "holds no graph", "none": "is no file"}.items():
        with pytest.raises(FileError, match=message):
            int8(tmp_path / f"{name}.onnx", images, tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"got Linear; write it first: onnx\(model"):
        int8(nn.Linear(1, 1), images, tmp_path / "a.onnx")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is the source itself"):
        int8(classifier, images, classifier)
    with pytest.raises(ExportError, match="cannot write"):
        int8(classifier, images, tmp_path / "text.onnx" / "a.onnx", checks=QUICK)


def test_acceptance_is_checked() -> None:
    with pytest.raises(InputError, match="min_agreement"):
        Acceptance(min_agreement=1.5)
    with pytest.raises(InputError, match="min_sqnr_db"):
        Acceptance(min_sqnr_db=float("nan"))
    for options in ({"seconds": 0.0}, {"runtime": cp.runtimes.Eager()}):
        with pytest.raises(InputError, match="runtime is an OnnxRuntime and seconds > 0"):
            Acceptance(**options)


def test_a_slower_or_larger_file_is_warned_of_with_the_numbers(report: LowPrecisionReport) -> None:
    first, timing = report.latency.timings

    def timed(speedup: float, p90: float) -> LowPrecisionReport:
        slow = replace(timing, speedup=speedup, speedup_p10=speedup - 0.1, speedup_p90=p90)
        latency = replace(report.latency, timings=(first, slow))
        return replace(report, latency=latency, file_bytes=300, source_bytes=1000)

    with pytest.warns(
        QuantisationWarning, match=r"is slower \(0\.76x its speed, 0\.66-0\.90, in OnnxRuntime"
    ):
        warn_if_no_gain(timed(0.76, 0.9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_no_gain(timed(0.97, 1.1))  # no more than noise
        warn_if_no_gain(timed(1.6, 1.7))
    with pytest.warns(QuantisationWarning, match=r"no smaller \(1,200 bytes of 1,000\) than"):
        warn_if_no_gain(replace(timed(1.6, 1.7), file_bytes=1200))


def test_a_cpu_whose_kernels_saturate_is_warned_of(report: LowPrecisionReport) -> None:
    def computed(written: float, here: float) -> LowPrecisionReport:
        return replace(
            report, fidelity=Fidelity(8, {"y": written}, {}), on_this_cpu=Fidelity(8, {"y": here}, {})
        )

    saturated = computed(31.6, 15.5)
    with pytest.warns(QuantisationWarning, match=r"\(y 15\.5 dB SQNR; as written y 31\.6 dB SQNR\)"):
        warn_if_saturated(saturated)
    assert "computed by this CPU: y 15.5 dB SQNR" in str(saturated)
    with pytest.warns(QuantisationWarning):
        warn_if_saturated(computed(31.6, -float("inf")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_saturated(computed(31.6, 31.4))
        warn_if_saturated(computed(31.6, 33.0))
        warn_if_saturated(computed(float("inf"), float("inf")))
    assert "this CPU" not in str(computed(31.6, 31.4))


def test_a_network_that_enlarges_images_of_any_size_is_quantised(tmp_path: Path) -> None:
    """Its output is 2 * height x 2 * width, which inference of shapes forgets."""
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1))
    net.append(nn.PixelShuffle(2))
    source = tmp_path / "net.onnx"
    cp.export.onnx(net.eval(), torch.rand(1, 1, 8, 10), source, dynamic=(0, 2, 3))
    images = [torch.rand(8, 1, 9, 9) for _ in range(2)]
    report = int8(source, images, tmp_path / "net.int8.onnx", checks=QUICK, even_if_slower=True)
    found = outputs(report.path, torch.rand(2, 1, 7, 12))
    assert found.shape == (2, 1, 14, 24)
