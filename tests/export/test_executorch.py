"""ExecuTorch programs: run in its own runtime, and refused where they do not compute the same."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import ExportError, ExporterWarning, InputError, MissingExtraError
from compressor.export import Acceptance, ExecutorchReport, executorch

needs_executorch = pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None,
    reason="ExecuTorch is not installed (over a gigabyte): pip install 'compressor[executorch]'",
)


def net() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    nn.init.normal_(norm.running_mean)
    return model


def outputs_of(path: Path, *inputs: Tensor) -> list[Tensor]:
    """Run the file without the library's own code."""
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    return [output.clone() for output in method.execute(list(inputs))]


# -- without ExecuTorch ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["executorch.exir", "torchao"])
def test_a_missing_extra_is_named_with_its_install_command(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for part in ("executorch", "executorch.exir", "executorch.runtime"):
        monkeypatch.setitem(sys.modules, part, importlib.util.module_from_spec(_spec(part)))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"needs {name}.*pip install 'compressor\[executorch\]'"):
        executorch(net(), torch.rand(1, 3, 12, 12), tmp_path / "net.pte")
    assert list(tmp_path.iterdir()) == []


def _spec(name: str) -> Any:
    return importlib.util.spec_from_loader(name, loader=None)


def test_arguments_that_make_no_sense_are_refused_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"executorch\(model, x, \"net\.pte\"\)"):
        executorch(net(), torch.rand(1, 3, 12, 12))
    with pytest.raises(InputError, match="is a folder"):
        executorch(net(), torch.rand(1, 3, 12, 12), tmp_path)
    with pytest.raises(InputError, match=r"needs a torch\.nn\.Module, got str"):
        executorch("net", tmp_path / "net.pte")  # type: ignore[arg-type]


# -- with it ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return net().train()


@pytest.fixture(scope="module")
def exported(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ExecutorchReport:
    path = tmp_path_factory.mktemp("pte") / "net.pte"
    with warnings.catch_warnings():
        warnings.simplefilter("error", ExporterWarning)
        return executorch(model, torch.rand(1, 3, 12, 12), path)


@needs_executorch
def test_the_program_computes_what_the_model_computes(exported: ExecutorchReport, model: nn.Module) -> None:
    assert model.training and list(exported.path.parent.iterdir()) == [exported.path]
    for _ in range(3):
        x = torch.randn(1, 3, 12, 12)
        with torch.no_grad():
            expected = model.eval()(x)
        model.train()
        (found,) = outputs_of(exported.path, x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@needs_executorch
def test_the_report_says_what_is_in_the_file(exported: ExecutorchReport) -> None:
    assert exported.file_bytes == exported.path.stat().st_size
    assert exported.inputs == {"input": (1, 3, 12, 12)}
    assert exported.delegates == 1 and exported.left == ()
    assert exported.error is not None and 0 < exported.error < 1e-5
    assert "float32" in str(exported) and "1 XNNPACK delegate\n" in str(exported)


@needs_executorch
def test_no_path_of_this_machine_is_in_the_file_and_a_second_one_is_the_same(
    exported: ExecutorchReport, model: nn.Module, tmp_path: Path
) -> None:
    data = exported.path.read_bytes()
    assert b".py" not in data and str(exported.path.parent).encode() not in data
    again = executorch(model, torch.rand(1, 3, 12, 12), tmp_path / "again.pte")
    assert again.path.read_bytes() == data


@needs_executorch
def test_int8_is_calibrated_judged_and_smaller(model: nn.Module, tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 4, 1))
    x, batches = torch.rand(1, 3, 12, 12), [(torch.rand(4, 3, 12, 12), torch.zeros(4)) for _ in range(3)]
    plain = executorch(wide, x, tmp_path / "net.pte")
    report = executorch(wide, x, tmp_path / "int8.pte", int8=batches, max_examples=10)
    assert report.kind == "int8" and report.delegates == 1
    assert report.file_bytes < 0.4 * plain.file_bytes
    assert report.fidelity is not None and report.fidelity.examples == 10
    assert 20 < report.fidelity.sqnr_db["output"] < 60
    with torch.no_grad():
        expected = wide(x)
    (found,) = outputs_of(report.path, x)
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.1
    with pytest.raises(ExportError, match=r"does not compute the same any more.*asked were 90 dB"):
        executorch(wide, x, tmp_path / "no.pte", int8=batches, checks=Acceptance(min_sqnr_db=90))
    assert not (tmp_path / "no.pte").exists()


@needs_executorch
def test_calibration_that_does_not_fit_is_refused(model: nn.Module, tmp_path: Path) -> None:
    x, path = torch.rand(2, 3, 12, 12), tmp_path / "net.pte"
    wrong: dict[str, list[Tensor]] = {
        r"batch 0 gives 'input' torch\.float32 \[2, 3, 9, 9\], the example": [torch.rand(2, 3, 9, 9)],
        r"does not fall into pieces of the example's size": [torch.rand(3, 3, 12, 12)],
        r"NaN or infinite": [torch.full((2, 3, 12, 12), float("nan"))],
        r"every value is 0": [torch.zeros(2, 3, 12, 12)],
        r"gave no batch": [],
    }
    for message, batches in wrong.items():
        with pytest.raises(InputError, match=rf"int8: .*{message}"):
            executorch(model, x, path, int8=batches)
    with pytest.raises(InputError, match="max_examples"):
        executorch(model, x, path, int8=[x], max_examples=0)
    assert list(tmp_path.iterdir()) == []


@needs_executorch
def test_a_program_that_cannot_run_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    volumes = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 3))
    path = tmp_path / "net.pte"
    path.write_bytes(b"earlier")
    with pytest.raises(ExportError, match=r"cannot run the program: .*no 3-D convolutions"):
        executorch(volumes, torch.rand(1, 1, 8, 8, 8), path)
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


@needs_executorch
def test_a_model_that_cannot_be_lowered_is_refused_in_one_line(tmp_path: Path) -> None:
    class Branching(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            y = super().forward(input)
            return y if y.mean() > 0 else -y

    with pytest.raises(ExportError, match=r"^ExecuTorch cannot lower Branching: [^\n]+$"):
        executorch(Branching(3, 2), torch.rand(2, 3), tmp_path / "net.pte")
    assert list(tmp_path.iterdir()) == []


@needs_executorch
def test_a_program_with_other_numbers_is_refused(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from compressor.export.lowering import Program

    run = Program.run
    monkeypatch.setattr(Program, "run", lambda *a: [output * 1.001 for output in run(*a)])
    with pytest.raises(ExportError, match=r"differs from torch by \d\.\de-0\d .*no file was written"):
        executorch(model, torch.rand(1, 3, 12, 12), tmp_path / "net.pte")
    assert list(tmp_path.iterdir()) == []


@needs_executorch
def test_operators_that_xnnpack_leaves_are_named(tmp_path: Path) -> None:
    class Sums(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x).cumsum(1)

    report = executorch(Sums(), torch.rand(1, 3, 4), tmp_path / "net.pte")
    assert (report.delegates, report.left) == (1, ("aten.cumsum.default",))
    assert "1 XNNPACK delegate, outside of them aten.cumsum.default" in str(report)


@needs_executorch
def test_several_inputs_arrive_in_order(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor, y: list[Tensor], *, z: Tensor) -> tuple[Tensor, Tensor]:
            return self.left(x) - self.right(y[0]), z * 2

    x, y, z = (torch.rand(2, 4) for _ in range(3))
    report = executorch(Two(), x, [y], tmp_path / "two.pte", kwargs={"z": z})
    assert list(report.inputs) == ["x", "y_0", "z"]


@needs_executorch
@pytest.mark.slow
def test_a_recurrent_network_falls_into_pieces_and_the_user_hears_of_it(tmp_path: Path) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.lstm(x)[0])
            return result

    with pytest.warns(ExporterWarning, match=r"runs in \d+ pieces on XNNPACK.*recurrent"):
        report = executorch(Tagger(), torch.rand(1, 6, 5), tmp_path / "net.pte")
    assert report.delegates >= 8
