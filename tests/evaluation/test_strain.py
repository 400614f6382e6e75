"""Tracking and strain against the phantom, whose motion is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from compressor.data.echo import Phantom, phantoms
from compressor.errors import InputError
from compressor.evaluation import strain_curve, track_points


def ring(size: int, count: int = 12) -> Tensor:
    """Points on the middle of the phantom's wall, in pixels [P, 2]."""
    angle = 2 * math.pi * torch.arange(count) / count
    return torch.stack([0.5 + 0.28 * angle.sin(), 0.5 + 0.17 * angle.cos()], -1) * size - 0.5


@pytest.mark.parametrize("contraction", [0.0, 0.1, 0.2])
def test_the_strain_of_a_phantom_is_its_closed_form(contraction: float) -> None:
    options = Phantom(size=128, frames=12, contraction=contraction)
    frames = phantoms(1, options, seed=5).unit()[0, 0]
    found = strain_curve(track_points(frames, ring(128)), closed=True)
    error = (found - (options.stretch() - 1)).abs().max().item()
    assert error < 0.005, error


def test_points_go_where_the_tissue_goes() -> None:
    options = Phantom(size=128, frames=8)
    points = ring(128, 6)
    tracked = track_points(phantoms(1, options, seed=2).unit()[0, 0], points)
    centre = 63.5
    expected = centre + (points.double() - centre)[..., None] * options.stretch()
    assert (tracked - expected).abs().max() < 1.0
    assert torch.equal(tracked[..., 0], points.double())


def test_a_segment_is_measured_open_and_a_ring_closed() -> None:
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    points = torch.stack([square, square * torch.tensor([1.0, 2.0])], -1)  # stretched along columns
    assert strain_curve(points).tolist() == pytest.approx([0, 2 / 3])  # 3 sides: 5 / 3
    assert strain_curve(points, closed=True).tolist() == pytest.approx([0, 0.5])


@pytest.mark.parametrize(
    ("frames", "points", "options", "message"),
    [
        (torch.zeros(1, 40, 40, 3), torch.zeros(2, 2), {}, r"must be floating-point \[H, W, T\]"),
        (torch.zeros(40, 40, 3), torch.zeros(2, 3), {}, r"must be \[P, 2\]"),
        (torch.zeros(40, 40, 3), torch.tensor([[0.0, 41.0]]), {}, "outside of the image of 40x40"),
        (torch.zeros(40, 40, 3), torch.zeros(2, 2), {"window": 4}, "window must be odd"),
        (torch.zeros(12, 40, 3), torch.zeros(2, 2), {}, "fits into 12 pixels"),
        (torch.full((40, 40, 3), math.nan), torch.zeros(2, 2), {}, "not finite"),
    ],
)
def test_what_cannot_be_tracked_is_refused(
    frames: Tensor, points: Tensor, options: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        track_points(frames, points, **options)


def test_a_line_without_length_has_no_strain() -> None:
    with pytest.raises(InputError, match="no length in the first frame"):
        strain_curve(torch.ones(3, 2, 4))
    with pytest.raises(InputError, match="P at least 2"):
        strain_curve(torch.ones(1, 2, 4))
