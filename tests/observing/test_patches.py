"""The rows of a layer's regression, held against the layer itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import InputError
from compressor.observing import LayerCall, Places, inputs_at, n_places, observed, outputs_at
from compressor.recovery.weights import as_matrix, as_weight

LAYERS = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear on tokens": (nn.Linear(5, 3), (4, 7, 5)),
    "linear on one example": (nn.Linear(5, 3), (5,)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1, stride=2), (2, 4, 11)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), padding=(1, 0), stride=(2, 1), dilation=(1, 2)), (2, 4, 8, 9)),
    "conv2d in groups": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (2, 4, 6, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 6, 5)),
    "same padding": (nn.Conv2d(3, 2, 4, padding="same"), (2, 3, 6, 5)),
    "conv3d": (nn.Conv3d(2, 3, 2, stride=2), (2, 2, 4, 5, 6)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 4, 5)),
    "transposed in groups": (nn.ConvTranspose1d(4, 6, 4, stride=3, groups=2, dilation=2), (2, 4, 6)),
    "transposed, much padding": (nn.ConvTranspose2d(4, 6, 3, padding=2), (2, 4, 6, 6)),
}


def call_of(layer: nn.Module, shape: tuple[int, ...]) -> LayerCall:
    seen: list[LayerCall] = []
    layer = layer.double()
    with torch.no_grad(), observed(layer, seen.append):
        layer(torch.randn(shape, dtype=torch.float64))
    return seen[0]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("count", [None, 3])
def test_rows_times_the_weights_are_what_the_layer_wrote(name: str, count: int | None) -> None:
    call = call_of(*LAYERS[name])
    places = Places(count).draw(*n_places(call), torch.device("cpu"))
    x, y = inputs_at(call, places), outputs_at(call, call.output, places)
    assert call.bias is not None
    bias = call.bias.reshape(call.groups, 1, -1)
    torch.testing.assert_close(x @ as_matrix(call) + bias, y, rtol=1e-12, atol=1e-12)
    assert x.shape[1] == y.shape[1] > 0


@pytest.mark.parametrize("name", LAYERS)
def test_a_weight_survives_being_a_matrix(name: str) -> None:
    call = call_of(*LAYERS[name])
    assert torch.equal(as_weight(as_matrix(call), call), call.filters)


def test_places_are_distinct_and_do_not_depend_on_batches() -> None:
    device = torch.device("cpu")
    whole, parts = Places(5), Places(5)
    drawn = whole.draw(6, 23, device)
    assert torch.equal(drawn, torch.cat([parts.draw(n, 23, device) for n in (1, 3, 2)]))
    assert (drawn.diff(dim=1) > 0).all()
    assert drawn.min() >= 0
    assert drawn.max() < 23
    assert len(drawn.unique()) > 15  # other places in other examples
    whole.restart()
    assert torch.equal(whole.draw(6, 23, device), drawn)


def test_no_place_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="at least one place"):
        Places(0)
