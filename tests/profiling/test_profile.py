"""Profiles against fvcore and torch's own counter; nothing is shown as zero in silence."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compressor import models
from compressor.core.capture import capture
from compressor.core.tape import record
from compressor.errors import CaptureError, InputError
from compressor.profiling import costs, profile

NETS = ["resnet20_cifar", "resnet56_cifar", "vgg16_bn_cifar", "mobilenet_v2_cifar"]


@pytest.mark.parametrize("name", NETS)
def test_macs_are_half_of_what_torchs_flop_counter_says(name: str) -> None:
    model, x = models.create(name).eval(), torch.zeros(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    assert 2 * profile(model, x).macs == counter.get_total_flops()


@pytest.mark.parametrize("name", NETS)
def test_macs_and_parameters_agree_with_fvcore(name: str) -> None:
    fvcore = pytest.importorskip("fvcore.nn", reason="fvcore is not installed")
    model, x = models.create(name).eval(), torch.zeros(1, 3, 32, 32)
    analysis = fvcore.FlopCountAnalysis(model, x)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    # fvcore says "flop" for what is a multiply-accumulate here, and counts norms and pooling, too.
    theirs = analysis.by_operator()
    found = profile(model, x)
    assert found.macs == theirs["conv"] + theirs["linear"]
    assert found.params == fvcore.parameter_count(model)[""]


def test_attention_agrees_with_torchs_flop_counter() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    x = torch.zeros(2, 5, 16)
    # torch's counter shows zero for fused attention on a CPU, so attention runs in its math form.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            layer(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    products = 2 * 2 * 4 * 5 * 5 * 4  # q k^T and its product with v: 2 examples, 4 heads of width 4
    assert profile(layer, x).macs == 10 * 16 * (48 + 16 + 32 + 32) + products
    assert 2 * profile(layer, x).macs == counter.get_total_flops()


class Mixed(nn.Module):
    """Has a bare parameter, an operator without any rule for MACs, and a functional one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(self.fc(x).relu() * self.scale).real


def test_the_table_reads_as_expected() -> None:
    assert str(profile(Mixed(), torch.zeros(5, 3))).splitlines() == [
        "Mixed on [5, 3] float32 (whole batch)",
        "layer    kind    output  MACs  params  weight bytes  activation bytes",
        "---------------------------------------------------------------------",
        "(model)  Mixed   [5, 4]     0       4            16               320",
        "fc       Linear  [5, 4]    60      16            64                80",
        "---------------------------------------------------------------------",
        "total                      60      20            80               400",
        "weights 80 B, activations 400 B, 300 B at once with the inputs; "
        "1 MAC = 1 multiply-accumulate = 2 FLOPs",
        "0 MACs by custom, a few operations per element: relu x1, mul x1",
        "0 MACs, data movement: t x1, view_as_real x1, select x1",
        "NOT COUNTED, no MAC rule: _fft_r2c x1",
    ]


def test_an_operator_without_a_mac_rule_is_named_not_counted_as_zero() -> None:
    found = profile(Mixed(), torch.zeros(5, 3))
    assert found.uncounted.unknown == {"_fft_r2c": 1}
    assert "NOT COUNTED, no MAC rule: _fft_r2c x1" in str(found)


def test_products_that_no_channel_flows_through_are_counted() -> None:
    class Gram(nn.Module):
        """Everything that multiplies, on inputs and on layers one channel wide."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.point = nn.Linear(1, 1), nn.Conv2d(1, 1, 1)
            self.up = nn.ConvTranspose1d(1, 1, 1, stride=2)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            column = x[:, :1]
            image = column.reshape(1, 1, 2, 2)
            signal = self.up(column.reshape(1, 1, 4))
            return x @ x.T, x @ x[0], x[0] @ x[1], self.one(column), self.point(image), signal

    x = torch.zeros(4, 6)
    found = profile(Gram(), x)
    assert found.macs == 4 * 6 * 4 + 4 * 6 + 6 + 4 + 4 + 4
    assert not found.uncounted.unknown


def test_every_operator_is_counted_or_listed() -> None:
    model, x = models.create("mobilenet_v2_cifar").eval(), torch.zeros(1, 3, 32, 32)
    tape, found = record(model, [x], {}), profile(model, x)
    kinds = (found.uncounted.per_element, found.uncounted.moves, found.uncounted.unknown)
    listed = sum(count for kind in kinds for count in kind.values())
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert listed + len(layers) == len(tape.ops)
    assert not found.uncounted.unknown


def test_rows_add_up_to_the_costs_of_the_graph() -> None:
    model, x = models.create("mobilenet_v2_cifar"), torch.zeros(2, 3, 32, 32)
    found, whole = profile(model, x), costs(capture(model, x))
    assert (found.macs, found.params) == (whole.macs, whole.params)
    assert found.weight_bytes == whole.weight_bytes
    assert found.activation_bytes == whole.activation_bytes
    assert found.peak_activation_bytes == whole.peak_activation_bytes


def test_output_shapes_are_those_of_the_modules() -> None:
    model, x = models.create("vgg16_bn_cifar").eval(), torch.zeros(2, 3, 32, 32)
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _m, _i, out, name=name: seen.__setitem__(name, tuple(out.shape))
            )
    model(x)
    expected = dict(seen)
    rows = {row.module: row.output_shape for row in profile(model, x).rows}
    # Modules that do nothing in eval mode (dropout) run no operator and have no row.
    assert all(expected[name] == rows[name] for name in rows.keys() & expected.keys())
    assert len(rows.keys() & expected.keys()) > 40


def test_the_data_survives_json() -> None:
    found = profile(Mixed(), torch.zeros(5, 3)).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["totals"] == {
        "macs": 60,
        "params": 20,
        "weight_bytes": 80,
        "activation_bytes": 400,
        # At the transform: its input, its complex output, and the model's input.
        "peak_activation_bytes": 20 * 4 + 20 * 8 + 15 * 4,
    }


def test_costs_are_for_the_whole_batch() -> None:
    net = nn.Linear(3, 4)
    one, ten = profile(net, torch.zeros(1, 3)), profile(net, torch.zeros(10, 3))
    assert ten.macs == 10 * one.macs
    assert ten.activation_bytes == 10 * one.activation_bytes
    assert ten.params == one.params
    assert ten.inputs == ("[10, 3] float32",)


def test_a_model_that_does_not_run_is_an_error_that_names_it() -> None:
    with pytest.raises(CaptureError, match="Linear does not run on the inputs"):
        profile(nn.Linear(3, 4), torch.zeros(1, 5))
    with pytest.raises(InputError, match=r"torch\.nn\.Module, got int"):
        profile(3)  # type: ignore[arg-type]


def test_a_model_without_parameters_has_a_profile() -> None:
    found = profile(nn.ReLU(), torch.zeros(2, 3))
    assert (found.macs, found.params, found.activation_bytes) == (0, 0, 24)


def test_a_graph_has_the_profile_of_its_model_and_takes_no_inputs() -> None:
    model, x = Mixed(), torch.zeros(5, 3)
    graph = capture(model, x)
    assert profile(graph) == profile(model, x)
    with pytest.raises(InputError, match="those it was captured with"):
        profile(graph, x)
