from __future__ import annotations

import copy
import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.core.capture import capture
from compressor.core.surgery import apply
from compressor.errors import ExportError, InputError, MissingExtraError
from compressor.export import Exporter, OnnxReport, onnx

# `compressor.export.onnx` is the function; its module is only to be had by name.
MODULE = sys.modules["compressor.export.onnx"]


def pruned(model: nn.Module, *args: Tensor, **kwargs: Tensor) -> nn.Module:
    """The model without a random half of the ranks of every group, its BatchNorms as if trained."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    graph = capture(model, *args, **kwargs)
    rng = np.random.default_rng(0)
    removed = np.zeros(graph.n_units, dtype=bool)
    for group in graph.groups:
        for cell in group.cells:
            removed[rng.permutation(cell)[: group.size // 2]] = True
    assert removed.any()
    return apply(model, graph.plan(removed))


def assert_runs_like(path: Path, model: nn.Module, *inputs: Tensor) -> None:
    """Run the file in onnxruntime, without the library's own checks, and compare with torch."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    feeds = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(*inputs)
    (found,) = session.run(None, feeds)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-5)


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


@dataclass(frozen=True)
class Exported:
    model: nn.Module
    x: Tensor
    report: OnnxReport
    before: dict[str, Any]
    printed: str


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": [module.training for module in model.modules()],
        "tensors": {key: value.clone() for key, value in model.state_dict().items()},
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small pruned network in training mode, exported once for many tests."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 12, 12)
    model = pruned(small_net(), x).train()
    model[3].eval()  # type: ignore[index]
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    before = state_of(model)
    printed = io.StringIO()
    with (
        redirect_stdout(printed),
        redirect_stderr(printed),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        report = onnx(model, x, tmp_path_factory.mktemp("onnx") / "deep" / "small.onnx")
    said = printed.getvalue() + "".join(str(warning.message) for warning in caught)
    return Exported(model, x, report, before, said)


# -- one export, looked at from all sides ----------------------------------------------------------


def test_the_file_computes_what_the_model_computes_at_any_batch(exported: Exported) -> None:
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 12, 12)
        assert_runs_like(exported.report.path, exported.model, x)


def test_the_report_says_what_is_in_the_file(exported: Exported) -> None:
    report = exported.report
    proto = onnx_format.load(str(report.path))
    assert report.file_bytes == report.path.stat().st_size
    assert report.nodes == len(proto.graph.node)
    assert report.opset == 18
    assert report.inputs == {"input": ("batch", 3, 12, 12)}
    assert report.outputs == {"output": ("batch", 4)}
    assert report.agreement.shapes == {"input": (1, 3, 12, 12)}
    assert report.agreement.second_shapes == {"input": (2, 3, 12, 12)}
    assert 0 <= report.agreement.error < 1e-5 and 0 <= report.agreement.second_error < 1e-5
    text = str(report)
    assert f"small.onnx: {report.file_bytes:,} bytes, {report.nodes} nodes, opset 18" in text
    assert "input [batch, 3, 12, 12] -> output [batch, 4]" in text
    assert "at input [1, 3, 12, 12]" in text and "at input [2, 3, 12, 12]" in text


def test_the_file_holds_the_weights_and_little_else(exported: Exported) -> None:
    weight_bytes = sum(p.nbytes for p in exported.model.parameters())
    assert weight_bytes <= exported.report.file_bytes < weight_bytes + 2500


def test_the_file_stands_alone_in_its_folder(exported: Exported) -> None:
    assert list(exported.report.path.parent.iterdir()) == [exported.report.path]


def test_no_path_of_this_machine_is_in_the_file(exported: Exported) -> None:
    data = exported.report.path.read_bytes()
    folders = {
        str(Path(torch.__file__).parent),
        str(Path(__file__).parent),
        sys.prefix,
        str(Path.home()),
    }
    for folder in folders:
        assert folder.encode() not in data
    assert b".py" not in data and b"stack_trace" not in data


def test_the_model_is_unchanged_by_an_export(exported: Exported) -> None:
    after = state_of(exported.model)
    tensors = after.pop("tensors")
    before = dict(exported.before)
    assert all(torch.equal(tensors[key], value) for key, value in before.pop("tensors").items())
    assert after == before


def test_the_exporter_is_silent(exported: Exported) -> None:
    assert exported.printed == ""


# -- faults are found ------------------------------------------------------------------------------


@pytest.fixture
def draft_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """A function that makes the exporter write given bytes, so that no export need run."""

    def replace(data: bytes) -> None:
        monkeypatch.setattr(MODULE, "write_draft", lambda _request, path, *_: path.write_bytes(data))

    return replace


def test_a_file_with_one_wrong_weight_is_refused_and_the_old_one_left(
    exported: Exported, draft_is: Callable[[bytes], None], tmp_path: Path
) -> None:
    proto = onnx_format.load(str(exported.report.path))
    wrong = proto.graph.initializer[0]
    values = onnx_format.numpy_helper.to_array(wrong).copy()
    values.flat[0] += 0.5
    wrong.CopyFrom(onnx_format.numpy_helper.from_array(values, wrong.name))
    draft_is(proto.SerializeToString())
    path = tmp_path / "net.onnx"
    path.write_bytes(b"earlier")
    with pytest.raises(ExportError, match=r"differs from torch by \d.*e-0\d .*at input \[1, 3"):
        onnx(exported.model, exported.x, path)
    assert path.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [path]


def test_a_runtime_that_is_wrong_at_the_second_shape_only_is_caught(
    exported: Exported,
    draft_is: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    runtime = sys.modules["compressor.runtimes.sessions"].Session
    run = runtime.run

    def wrong(self: Any, inputs: dict[str, Tensor]) -> list[Tensor]:
        outputs: list[Tensor] = run(self, inputs)
        return [output * (1.001 if len(output) > 1 else 1) for output in outputs]

    monkeypatch.setattr(runtime, "run", wrong)
    draft_is(exported.report.path.read_bytes())
    with pytest.raises(ExportError, match=r"at input \[2, 3, 12, 12\]; no file was written"):
        onnx(exported.model, exported.x, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
    onnx(exported.model, exported.x, tmp_path / "net.onnx", tolerance=0.1)


def test_an_output_declared_with_a_wrong_size_is_put_right(
    exported: Exported, draft_is: Callable[[bytes], None], tmp_path: Path
) -> None:
    proto = onnx_format.load(str(exported.report.path))
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    draft_is(proto.SerializeToString())
    report = onnx(exported.model, exported.x, tmp_path / "net.onnx")
    assert report.outputs == {"output": ("batch", 4)}


def test_an_axis_that_became_fixed_is_refused(
    exported: Exported, draft_is: Callable[[bytes], None], tmp_path: Path
) -> None:
    draft_is(exported.report.path.read_bytes())
    with pytest.raises(ExportError, match=r"axis 2 of the input 'input' .* became fixed at 12"):
        onnx(exported.model, exported.x, tmp_path / "net.onnx", dynamic=(0, 2, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dynamic", "traced"), [((0,), (2, 3, 12, 12)), ((), (1, 3, 12, 12))])
def test_a_free_batch_of_one_is_traced_as_two(
    dynamic: tuple[int, ...],
    traced: tuple[int, ...],
    exported: Exported,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # torchvision's vit_b_16, traced at batch 1, keeps that 1 in its reshapes and fails at batch 2.
    seen = []

    def write(request: Any, path: Path, *_: Any) -> None:
        seen.append(request.example.shapes)
        path.write_bytes(exported.report.path.read_bytes())

    monkeypatch.setattr(MODULE, "write_draft", write)
    report = onnx(exported.model, exported.x, tmp_path / "net.onnx", dynamic=dynamic)
    assert seen == [{"input": traced}]
    assert report.agreement.shapes == {"input": (1, 3, 12, 12)}


@pytest.mark.slow
def test_a_model_for_one_batch_only_is_traced_as_it_is(tmp_path: Path) -> None:
    class One(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input.reshape(1, 3))

    report = onnx(One(3, 2), torch.rand(1, 3), tmp_path / "net.onnx", dynamic=())
    assert report.inputs == {"input": (1, 3)}
    with pytest.raises(ExportError, match=r"became fixed at 1|itself fails on a second shape"):
        onnx(One(3, 2), torch.rand(1, 3), tmp_path / "other.onnx")


def test_a_damaged_file_is_refused(
    exported: Exported, draft_is: Callable[[bytes], None], tmp_path: Path
) -> None:
    proto = onnx_format.load(str(exported.report.path))
    proto.graph.node[0].op_type = "Convolute"
    draft_is(proto.SerializeToString())
    with pytest.raises(ExportError, match="onnxruntime cannot load the export of Sequential"):
        onnx(exported.model, exported.x, tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxslim", "onnxruntime"])
def test_a_missing_extra_is_named_with_its_install_command(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"needs {name}.*pip install 'compressor\[onnx\]'"):
        onnx(small_net(), torch.rand(1, 3, 12, 12), tmp_path / "net.onnx")


def test_importing_the_library_imports_no_onnx() -> None:
    code = "import sys, compressor; print([n for n in sys.modules if n.startswith('onnx')])"
    root = Path(cp.__file__).resolve().parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.strip() == "[]"


def test_arguments_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    net, x, path = small_net(), torch.rand(1, 3, 12, 12), tmp_path / "net.onnx"
    with pytest.raises(InputError, match="the last positional argument is the path"):
        onnx(net, x)
    with pytest.raises(InputError, match=r"does not fit Sequential\.forward"):
        onnx(net, x, x, path)
    with pytest.raises(InputError, match="hold no tensor"):
        onnx(net, 3, path)
    with pytest.raises(InputError, match="opset 13: torch exports opset 18 or newer"):
        onnx(net, x, path, opset=13)
    with pytest.raises(InputError, match="opset '18'"):
        onnx(net, x, path, opset="18")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"exporter is one of Exporter\.DYNAMO, .* got 'dynamo'"):
        onnx(net, x, path, exporter="dynamo")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"metadata is an export\.Metadata.* got dict"):
        onnx(net, x, path, metadata={"classes": ["a"]})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="dynamic axis 4: no input has it"):
        onnx(net, x, path, dynamic=(0, 4))
    with pytest.raises(InputError, match=r"dynamic names the input 'y'; the inputs are \{'input'"):
        onnx(net, x, path, dynamic={"y": (0,)})
    with pytest.raises(InputError, match="output_names must be 1 different names"):
        onnx(net, x, path, output_names=("a", "b"))
    with pytest.raises(InputError, match=r"needs a torch\.nn\.Module, got str"):
        onnx("net", x, path)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="Sequential itself fails on the example"):
        onnx(net, torch.rand(1, 4, 12, 12), path)
    with pytest.raises(ExportError, match="is bfloat16"):
        onnx(net.bfloat16(), x.bfloat16(), path)
    assert list(tmp_path.iterdir()) == []


# -- kinds of networks -----------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 8)
        self.right = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(
        self, x: Tensor, state: list[Tensor], *, flag: bool = True, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        hidden = torch.relu(self.left(x) + self.right(state[0]))
        if mask is not None:
            hidden = hidden * mask.sum(1, keepdim=True)
        return {"logits": self.head(hidden), "class": self.head(hidden).argmax(1)}


def test_several_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    x, state, mask = torch.rand(2, 4), [torch.rand(2, 6)], torch.rand(2, 5)
    model = pruned(TwoInputs(), x, state, mask=mask)  # type: ignore[arg-type]
    path = tmp_path / "two.onnx"
    report = onnx(
        model,
        x,
        state,
        path,
        kwargs={"mask": mask, "flag": False},
        output_names=("logits", "class"),
    )
    assert report.inputs == {"x": ("batch", 4), "state_0": ("batch", 6), "mask": ("batch", 5)}
    assert report.outputs == {"logits": ("batch", 3), "class": ("batch",)}
    assert report.agreement.second_shapes == {"x": (3, 4), "state_0": (3, 6), "mask": (3, 5)}


def espcn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.Tanh(),
        nn.Conv2d(16, 8, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(8, 9, 3, padding=1),
        nn.PixelShuffle(3),
    )


def test_images_of_any_size_pass_through_a_super_resolution_network(tmp_path: Path) -> None:
    x = torch.rand(1, 1, 10, 14)
    model = pruned(espcn(), x)
    report = onnx(model, x, tmp_path / "espcn.onnx", dynamic=(0, 2, 3))
    assert report.inputs == {"input": ("batch", 1, "height", "width")}
    assert report.outputs["output"][:2] == ("batch", 1)
    assert report.agreement.second_shapes == {"input": (2, 1, 20, 28)}
    assert_runs_like(report.path, model, torch.rand(3, 1, 17, 9))


def test_a_network_of_one_image_size_cannot_have_its_size_free(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    with pytest.raises(ExportError, match=r"axis 2 of the input 'input' .* became fixed at 8|itself fails"):
        onnx(net, torch.rand(1, 3, 8, 8), tmp_path / "net.onnx", dynamic=(0, 2, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20_cifar", "mobilenet_v2_cifar"])
def test_reference_networks_export(name: str, tmp_path: Path) -> None:
    x = torch.rand(1, 3, 32, 32)
    model = pruned(cp.models.create(name), x)
    report = onnx(model, x, tmp_path / "net.onnx")
    assert_runs_like(report.path, model, torch.rand(4, 3, 32, 32))
    assert "BatchNormalization" not in {
        node.op_type for node in onnx_format.load(str(report.path)).graph.node
    }


@pytest.mark.slow
def test_without_free_axes_every_size_is_a_number(tmp_path: Path) -> None:
    x = torch.zeros(2, 3, 12, 12)
    report = onnx(small_net(), x, tmp_path / "net.onnx", dynamic=(), opset=20)
    assert report.inputs == {"input": (2, 3, 12, 12)} and report.outputs == {"output": (2, 4)}
    assert report.opset == 20
    assert report.agreement.second_shapes == report.agreement.shapes


@pytest.mark.slow
def test_a_transformer_exports_with_its_fast_path_left_on(tmp_path: Path) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 1).eval()
    report = onnx(model, torch.rand(2, 5, 16), tmp_path / "net.onnx", dynamic=(0, 1))
    assert report.inputs == {"src": ("batch", "src_axis1", 16)}
    assert torch.backends.mha.get_fastpath_enabled()
    assert_runs_like(report.path, model, torch.rand(3, 7, 16))


@pytest.mark.slow
def test_weight_norm_is_folded(tmp_path: Path) -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    x = torch.rand(2, 3, 8, 8)
    model = pruned(nn.Sequential(normed, nn.ReLU(), nn.Conv2d(8, 4, 3)), x)
    assert onnx(model, x, tmp_path / "net.onnx").nodes == 3


@pytest.mark.slow
def test_half_precision_runs_and_double_precision_is_refused_with_the_way_out(
    tmp_path: Path,
) -> None:
    net, x = espcn(), torch.rand(1, 1, 8, 8)
    report = onnx(copy.deepcopy(net).half(), x.half(), tmp_path / "half.onnx")
    assert 0 < report.agreement.error < 1e-2
    with pytest.raises(ExportError, match=r"onnxruntime cannot load .* export model\.float\(\)"):
        onnx(copy.deepcopy(net).double(), x.double(), tmp_path / "double.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["half.onnx"]


@pytest.mark.slow
def test_what_torch_cannot_export_is_said_in_one_line(tmp_path: Path) -> None:
    class Unexportable(nn.Linear):
        def forward(self, input: Tensor) -> Any:
            return super().forward(input), len(input.tolist())

    with pytest.raises(ExportError, match=r"^torch's torch\.export exporter cannot take Un[^\n]+$"):
        onnx(Unexportable(3, 2), torch.rand(2, 3), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_time_of_a_video_is_called_time(tmp_path: Path) -> None:
    net, x = nn.Conv3d(1, 2, 3, padding=1), torch.rand(1, 1, 6, 6, 8)
    by = Exporter.TORCHSCRIPT
    report = onnx(net, x, tmp_path / "a.onnx", dynamic={0: "batch", 4: "time"}, exporter=by)
    assert report.inputs == {"input": ("batch", 1, 6, 6, "time")}
    unnamed = onnx(net, x, tmp_path / "b.onnx", dynamic=(0, 4), exporter=by)
    assert unnamed.inputs == {"input": ("batch", 1, 6, 6, "input_axis4")}
