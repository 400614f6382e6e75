"""Right angles, checked by Gram matrices."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from compressor.design import Orthogonal, ResidualOrthogonal, initialise_
from compressor.errors import InputError


def rows_of(layer: nn.Module) -> Tensor:
    return layer.weight.detach().flatten(1)


@pytest.mark.parametrize(
    "layer", [nn.Linear(20, 12), nn.Conv2d(3, 16, 3), nn.Conv1d(4, 10, 5), nn.Conv3d(2, 6, 2)]
)
@pytest.mark.parametrize("gain", [1.0, math.sqrt(2)])
def test_filters_are_orthogonal_and_of_one_norm(layer: nn.Module, gain: float) -> None:
    initialise_(layer, Orthogonal(gain))
    rows = rows_of(layer)
    torch.testing.assert_close(rows @ rows.T, gain**2 * torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_of_more_filters_than_directions_the_columns_are() -> None:
    layer = nn.Conv2d(1, 20, 3)
    initialise_(layer, Orthogonal(1.0))
    rows = rows_of(layer)
    torch.testing.assert_close(rows.T @ rows, torch.eye(9), atol=1e-5, rtol=0)


def test_every_group_is_orthogonal_by_itself() -> None:
    layer = nn.Conv2d(8, 12, 3, groups=4)
    initialise_(layer, Orthogonal(1.0))
    for rows in rows_of(layer).chunk(4):
        torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-5, rtol=0)


def test_filters_of_a_transposed_convolution_are_what_writes_a_channel() -> None:
    layer = nn.ConvTranspose2d(6, 4, 3)
    initialise_(layer, Orthogonal(1.0))
    rows = layer.weight.detach().transpose(0, 1).flatten(1)  # [out, in * k]
    torch.testing.assert_close(rows @ rows.T, torch.eye(4), atol=1e-5, rtol=0)


def test_it_is_what_torch_draws() -> None:
    layer = nn.Conv2d(3, 8, 3)
    initialise_(layer, Orthogonal(1.5), seed=4)
    expected = nn.init.orthogonal_(torch.empty(8, 3, 3, 3), 1.5, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(layer.weight.detach(), expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_new_filters_see_nothing_of_what_stays(groups: int) -> None:
    layer = nn.Conv2d(8, 12, 3, groups=groups)
    flags = torch.arange(12) % 4 == 1
    initialise_(layer, ResidualOrthogonal(2.0), filters=flags)
    own = 12 // groups
    for rows, chosen in zip(rows_of(layer).split(own), flags.split(own), strict=True):
        new = rows[chosen]
        assert float((new @ rows[~chosen].T).abs().max()) < 1e-6
        torch.testing.assert_close(new @ new.T, 4 * torch.eye(len(new)), atol=1e-5, rtol=0)


def test_what_is_left_of_noise_is_orthogonal_to_filters_of_any_scale() -> None:
    layer = nn.Linear(30, 20).double()
    with torch.no_grad():
        layer.weight[:10] *= 1e-6
        layer.weight[9] = layer.weight[8]  # one direction twice
        layer.weight[7] = 0
    flags = torch.arange(20) >= 16
    initialise_(layer, ResidualOrthogonal(1.0), filters=flags)
    kept = nn.functional.normalize(layer.weight[~flags].detach(), eps=1e-300)
    assert float((layer.weight[flags].detach() @ kept.T).abs().max()) < 1e-9


def test_filters_that_stay_must_leave_a_direction() -> None:
    layer = nn.Conv2d(1, 12, 3)
    with pytest.raises(InputError, match="Conv2d: the 11 filters that stay span 9 of 9 directions, so 1 new"):
        initialise_(layer, ResidualOrthogonal(), filters=torch.arange(12) == 0)


def test_nan_among_the_filters_that_stay_is_named() -> None:
    layer = nn.Linear(6, 4)
    with torch.no_grad():
        layer.weight[1, 2] = torch.nan
    with pytest.raises(InputError, match="what stays of Linear holds 1 value that is NaN"):
        initialise_(layer, ResidualOrthogonal(), filters=torch.arange(4) == 0)


def test_all_filters_at_once_are_simply_orthogonal() -> None:
    layer = nn.Linear(6, 6)
    initialise_(layer, ResidualOrthogonal(1.0))
    rows = rows_of(layer)
    torch.testing.assert_close(rows @ rows.T, torch.eye(6), atol=1e-5, rtol=0)
