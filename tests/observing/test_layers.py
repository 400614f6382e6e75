"""Every convolution and matrix is seen, under the name that the graph has for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import compressor as cp
from compressor.errors import InputError
from compressor.observing import LayerCall, observed, run_batches


def seen(model: nn.Module, *batches: object) -> list[LayerCall]:
    calls: list[LayerCall] = []
    run_batches(model.eval(), list(batches), calls.append)
    return calls


def again(call: LayerCall) -> Tensor:
    """The output, computed from what the call says of itself."""
    if call.kind == "linear":
        return functional.linear(call.input, call.filters, call.bias)
    dims = call.filters.dim() - 2
    if call.kind == "conv":
        conv = (functional.conv1d, functional.conv2d, functional.conv3d)[dims - 1]
        return conv(
            call.input, call.filters, call.bias, call.stride, call.padding, call.dilation, call.groups
        )
    transposed = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
    return transposed[dims - 1](
        call.input,
        call.filters,
        call.bias,
        call.stride,
        call.padding,
        call.output_padding,
        call.groups,
        call.dilation,
    )


LAYERS = {
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 11)),
    "conv2d": (nn.Conv2d(3, 5, (3, 2), stride=(1, 2), padding=(1, 0)), (2, 3, 7, 8)),
    "conv3d": (nn.Conv3d(2, 4, 3, padding=1, bias=False), (2, 2, 4, 5, 6)),
    "same, odd": (nn.Conv2d(3, 5, 3, padding="same"), (2, 3, 7, 8)),
    "same, even": (nn.Conv2d(3, 5, (2, 4), padding="same"), (2, 3, 7, 8)),
    "valid": (nn.Conv2d(3, 5, 3, padding="valid"), (2, 3, 7, 8)),
    "reflected": (nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), (2, 3, 7, 8)),
    "one example": (nn.Conv2d(3, 5, 3), (3, 7, 8)),
    "transposed": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        (2, 4, 5, 5),
    ),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 3, dilation=2), (2, 4, 5)),
    "linear": (nn.Linear(4, 3), (2, 5, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_call_holds_all_that_its_output_depends_on(name: str) -> None:
    layer, shape = LAYERS[name]
    (call,) = seen(layer, torch.randn(shape))
    assert call.weight == "weight" and call.filters is layer.weight
    torch.testing.assert_close(again(call), call.output)
    if call.kind == "linear":
        assert call.output.shape[call.channel_dim] == layer.out_features
    else:
        assert call.output.shape[1] == layer.out_channels and call.input.shape[1] == layer.in_channels


class Own(nn.Module):
    """Weights that no module of torch holds: bare ones, called in five ways."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.rows = nn.Parameter(torch.randn(4, 5))
        self.more = nn.Parameter(torch.randn(5, 2))
        self.bias = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.conv2d(x, self.kernel, padding=1).mean((2, 3))
        x = x @ self.rows
        return torch.addmm(self.bias, x, self.more)


def test_calls_of_bare_parameters_are_seen() -> None:
    model = Own()
    kernel, rows, more = seen(model, torch.randn(2, 3, 5, 5))
    assert [kernel.weight, rows.weight, more.weight] == ["kernel", "rows", "more"]
    assert (rows.writer_axis, rows.reader_axis, more.writer_axis) == (1, 0, 1)
    torch.testing.assert_close(again(rows), rows.output)
    torch.testing.assert_close(again(more), more.output)


@pytest.mark.parametrize(
    "wrap",
    [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm, nn.utils.weight_norm],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_a_computed_weight_goes_by_the_tensor_it_is_computed_from(wrap) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), wrap(nn.Conv2d(4, 6, 3)))
    x = torch.randn(2, 3, 8, 8)
    axes = {(axis.tensor, axis.axis) for axis in cp.capture(model, x).axes}
    first, second = seen(model, x)
    assert first.weight == "0.weight"
    assert (second.weight, second.reader_axis) in axes
    assert dict(model.named_parameters())[second.weight].shape == second.filters.shape
    torch.testing.assert_close(again(second), second.output)


def test_projections_of_attention_are_seen() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    names = [call.weight for call in seen(model, torch.randn(2, 5, 8))]
    layer = ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"]
    assert names == [f"layers.{i}.{name}" for i in range(2) for name in layer]
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_layer_called_twice_is_seen_twice() -> None:
    shared = nn.Linear(4, 4)
    assert [call.weight for call in seen(nn.Sequential(shared, nn.ReLU(), shared), torch.ones(1, 4))] == [
        "0.weight",
        "0.weight",
    ]


def test_a_weight_of_another_model_is_not_taken_for_ones_own() -> None:
    model, other = nn.Linear(3, 3), nn.Linear(3, 3)
    calls: list[LayerCall] = []
    with observed(model, calls.append):
        other(torch.ones(1, 3))
    assert calls == []


class Failing(nn.Module):
    """A layer, a counter in a buffer, and a mistake at the second call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 1:
            raise ValueError("twice")
        return self.norm(self.layer(x)) + torch.rand(())


def test_the_model_is_as_before_also_after_an_error() -> None:
    model = Failing().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    with pytest.raises(InputError, match=r"the Failing cannot run on .*float32 \[4, 3\]: ValueError: twice"):
        run_batches(model, [torch.ones(4, 3)] * 2, lambda call: None)
    assert model.training and model.norm.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.layer._forward_hooks and not model.layer._forward_pre_hooks


def test_what_comes_around_a_pass_is_told() -> None:
    told: list[tuple[str, object]] = []
    batches = [(torch.ones(2, 3), "a"), (torch.ones(2, 3), "b"), (torch.ones(2, 3), "c")]
    count = run_batches(
        nn.Linear(3, 1),
        batches,
        lambda call: told.append(("call", call.weight)),
        before=lambda batch: told.append(("before", batch.target)),
        after=lambda batch, output: told.append(("after", tuple(output.shape))),
        max_batches=2,
    )
    assert count == 2
    assert told == [
        *(("before", "a"), ("call", "weight"), ("after", (2, 1))),
        *(("before", "b"), ("call", "weight"), ("after", (2, 1))),
    ]


@pytest.mark.parametrize("batches", [[], iter([])])
def test_no_batch_is_an_error(batches: object) -> None:
    with pytest.raises(InputError, match="gave no batch"):
        run_batches(nn.Linear(3, 1), batches, lambda call: None)
