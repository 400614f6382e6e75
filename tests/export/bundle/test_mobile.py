"""The folder for an app: what is in it, that it is true, and that it is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.errors import ExportError, InputError, MissingExtraError
from compressor.export import Metadata, mobile, read_metadata
from compressor.export.bench import web_runtime
from compressor.export.bundle.report import moved

pytestmark = [  # tiny networks
    pytest.mark.filterwarnings("ignore::compressor.errors.QuantisationWarning"),
    pytest.mark.filterwarnings("ignore::compressor.errors.LatencyWarning"),
]

has_page = web_runtime.cached() is not None
needs_page = pytest.mark.skipif(not has_page, reason="onnxruntime-web is not fetched: make env")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(torch.relu(self.conv2(x)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(x)[0][:, -1])


class Maps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


@dataclass(frozen=True)
class Made:
    net: Net
    small: nn.Module
    x: Tensor
    bundle: cp.export.Bundle
    manifest: dict[str, Any]


QUICK = cp.export.Acceptance(seconds=0.05)
METADATA = Metadata(classes=("a", "b", "c", "d"), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))


def batches(shape: tuple[int, ...] = (3, 12, 12), count: int = 3) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.randn(8, *shape, generator=generator), torch.arange(8) % 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.manual_seed(0)
    net = Net().eval()
    x = torch.randn(1, 3, 12, 12)
    small = cp.prune(net, x, budget=cp.budget.Macs(0.5))
    out = tmp_path_factory.mktemp("bundle") / "out"
    bundle = mobile(
        small, x, out, calibration=batches(), held_out=batches(count=2), baseline=net, metadata=METADATA,
        page=has_page, checks=QUICK,
    )  # fmt: skip
    return Made(net, small, x, bundle, json.loads((out / "manifest.json").read_text(encoding="utf-8")))


def test_every_file_of_the_folder_is_in_the_manifest_with_its_checksum(made: Made) -> None:
    folder = made.bundle.folder
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    content = found.pop("manifest.json")
    assert made.manifest["files"] == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in found.items()
    }
    assert set(made.bundle.files) == {*found, "manifest.json"}
    assert {"model.onnx", "model.int8.onnx", "model.ort", "model.int8.ort", "plan.json"} <= set(found)
    assert str(folder.parent).encode() not in content and b"tmp" not in content


def test_the_files_compute_what_the_model_computes(made: Made) -> None:
    x = next(batches())[0]
    expected = made.small(x).detach().numpy()
    for name, tolerance in (("model.onnx", 1e-4), ("model.ort", 1e-4), ("model.int8.onnx", 0.2)):
        session = onnxruntime.InferenceSession(made.bundle.folder / name)
        (output,) = session.run(None, {"x": x.numpy()})
        assert np.abs(output - expected).max() <= tolerance * np.abs(expected).max(), name


def test_the_manifest_says_what_an_app_has_to_know(made: Made) -> None:
    said = made.manifest
    assert (said["inputs"], said["outputs"]) == ({"x": ["batch", 3, 12, 12]}, {"output": ["batch", 4]})
    assert (said["mean"], said["std"]) == ([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])
    assert said["classes"] == list("abcd")
    assert said["costs"]["macs"] == cp.profile(made.small, made.x).macs
    assert said["agreement"]["model.onnx"]["relative_error"] < 1e-4
    assert said["agreement"]["model.int8.onnx"]["examples"] == 24
    assert set(said["usability"]) == {"NNAPI", "CoreML MLProgram", "CoreML NeuralNetwork"}


def test_the_plan_travels_along(made: Made) -> None:
    plan = cp.Plan.load(made.bundle.folder / "plan.json")
    assert plan == cp.plan_of(made.small)
    assert read_metadata(made.bundle.folder / "model.int8.onnx").plan_digest == made.manifest["plan_digest"]
    assert made.manifest["plan_digest"] == json.loads(plan.to_json())["digest"]


def test_the_comparison_starts_with_the_baseline_and_uses_the_labels(made: Made) -> None:
    rows = made.bundle.comparison.rows
    assert [row.path.name for row in rows] == ["baseline.onnx", "model.onnx", "model.int8.onnx"]
    x, labels = zip(*batches(count=2), strict=True)
    right = (made.net(torch.cat(x)).argmax(1) == torch.cat(labels)).double().mean()
    assert rows[0].accuracy == pytest.approx(float(right))
    assert made.bundle.gain is not None and made.bundle.gain.macs_ratio >= 2
    assert "would run on phones:" in str(made.bundle) and "model.int8.onnx" in str(made.bundle)


def test_reports_lead_into_the_folder(made: Made) -> None:
    assert made.bundle.onnx.path == made.bundle.folder / "model.onnx"
    assert all(file.path.is_file() for report in made.bundle.ort for file in report.files)


def test_a_second_run_writes_the_same_bytes(made: Made, tmp_path: Path) -> None:
    again = mobile(
        made.small, made.x, tmp_path / "out", calibration=list(batches()), baseline=made.net,
        metadata=METADATA, page=has_page, checks=QUICK,
    )  # fmt: skip
    differ = {
        name
        for name in made.bundle.files
        if (made.bundle.folder / name).read_bytes() != (again.folder / name).read_bytes()
    }
    assert differ <= {"manifest.json", *(name for name in made.bundle.files if name.endswith(".ort"))}


@needs_page
def test_the_page_has_all_three_and_the_calibration_examples(made: Made) -> None:
    folder = made.bundle.folder / "bench"
    page = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in page["models"]] == ["baseline", "model", "model.int8"]
    x = torch.cat([images for images, _ in batches()])
    assert (folder / "inputs/0.bin").read_bytes() == x.numpy().tobytes()
    assert made.bundle.page is not None and made.bundle.page.path == folder / "index.html"


def test_an_lstm_is_quantised_dynamically_and_nothing_is_pruned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 6, 8)
    found = mobile(Recurrent(), x, tmp_path / "out", calibration=batches((6, 8)), page=False, checks=QUICK)
    assert found.int8 is not None and found.int8.kind == "dynamic int8"
    assert not (tmp_path / "out/plan.json").exists() and not (tmp_path / "out/bench").exists()


def test_volumes_get_no_int8_and_the_bundle_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 3))
    x = torch.randn(1, 1, 6, 6, 6)
    with pytest.warns(cp.errors.QuantisationWarning, match="gets no model.int8.onnx: "):
        found = mobile(net, x, tmp_path / "out", calibration=[x], dynamic=(), page=False, checks=QUICK)
    assert found.int8 is None and "2 3-D convolutions" in found.left_out["model.int8.onnx"]
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert manifest["left_out"] == dict(found.left_out) and "no model.int8.onnx: it has 2" in str(found)


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "NaN": ({"calibration": [torch.full((2, 3, 12, 12), torch.nan)]}, InputError, "NaN or infinite"),
    "wrong shape": ({"calibration": [torch.ones(2, 3, 8, 8)]}, InputError, r"takes \[batch, 3, 12, 12\]"),
    "no batch": ({"calibration": []}, InputError, "calibration"),
    "a baseline of another kind": (
        {"baseline": Maps()},
        InputError,
        r"model.onnx and .*baseline.onnx are not of one network: the output 'output' is \[1, 4\], expected",
    ),
    "no module": ({"baseline": "net.onnx"}, InputError, r"mobile\(baseline=...\) needs a torch.nn.Module"),
    "too much asked": (
        {"calibration": batches(), "checks": cp.export.Acceptance(min_sqnr_db=150.0, seconds=0.05)},
        ExportError,
        "does not compute the same",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_fails_leaves_an_earlier_bundle_alone(made: Made, tmp_path: Path, case: str) -> None:
    options, error, text = BAD[case]
    out = tmp_path / "out"
    out.mkdir()
    earlier = json.dumps({"format": "compressor mobile bundle", "files": {}})
    (out / "manifest.json").write_text(earlier, encoding="utf-8")
    with pytest.raises(error, match=text):
        mobile(made.small, made.x, out, page=False, **{"checks": QUICK, **options})
    assert (out / "manifest.json").read_text(encoding="utf-8") == earlier
    assert list(tmp_path.iterdir()) == [out] and len(list(out.iterdir())) == 1


def test_an_earlier_bundle_is_replaced_whole(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "old").mkdir(parents=True)
    (out / "manifest.json").write_text(
        '{"format": "compressor mobile bundle", "files": {"old/net.onnx": {}}}', encoding="utf-8"
    )
    (out / "old/net.onnx").write_bytes(b"")
    mobile(made.small, made.x, out, page=False, checks=QUICK)
    assert not (out / "old").exists() and (out / "model.onnx").is_file()
    assert not (out / "model.int8.onnx").exists()  # nothing to calibrate on


def test_a_bundle_beside_which_others_put_their_files_is_left_alone(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    mobile(made.small, made.x, out, page=False, checks=QUICK)
    mobile(made.small, made.x, out, page=False, checks=QUICK)
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ExportError, match="exists and is no bundle, or holds other things beside it"):
        mobile(made.small, made.x, out, page=False, checks=QUICK)
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_folder_of_others_is_left_alone(made: Made, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ExportError, match="exists and is no bundle"):
        mobile(made.small, made.x, tmp_path, page=False, checks=QUICK)
    with pytest.raises(ExportError, match="exists and is no bundle"):
        mobile(made.small, made.x, tmp_path / "thesis.txt", page=False, checks=QUICK)
    with pytest.raises(ExportError, match="cannot write"):
        mobile(made.small, made.x, tmp_path / "thesis.txt" / "out", page=False, checks=QUICK)
    with pytest.raises(InputError, match="path of the folder, as in mobile"):
        mobile(made.small, made.x)


def test_without_the_web_runtime_the_page_is_refused_before_any_work(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["compressor.export.bundle.mobile"], "web_runtime", _absent)
    with pytest.raises(MissingExtraError, match="not here"):
        mobile(made.small, made.x, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _absent() -> None:
    raise MissingExtraError("not here")


def test_paths_in_reports_are_moved_wherever_they_stand() -> None:
    found = moved((made_report := (Path("a/b"), "a/b", 3), Path("c")), Path("a"), Path("z"))
    assert found == ((Path("z/b"), "a/b", 3), Path("c")) and made_report[0] == Path("a/b")
