"""The clutter simulator against Gaussians by hand, between sizes, and against the authors' own clutter."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from compressor.data.echo import (
    PUBLISHED,
    Clutter,
    ClutterRanges,
    add_clutter,
    draw_clutter,
    load_echo_clutter_npz,
    sector_mask,
)
from compressor.errors import InputError


def one(**values: float) -> Clutter:
    """The clutter of one sequence; what is not named is absent or 1."""
    defaults = {field.name: 1.0 if "sigma" in field.name else 0.0 for field in fields(Clutter)}
    return Clutter(**{name: torch.tensor([value]) for name, value in (defaults | values).items()})


def test_near_field_clutter_is_an_upright_gaussian_that_stands_still() -> None:
    clutter = one(nf_amplitude=200, nf_sigma_x=5, nf_sigma_y=15, nf_row=14, nf_column=2)
    pattern = 255 * clutter.pattern(128, 128, 3)[0, 0]
    for row, column in ((14, 64), (29, 60), (3, 80)):
        distance = ((column - 65.5) / 5) ** 2 + ((row - 14) / 15) ** 2
        assert pattern[row, column, 0].item() == pytest.approx(200 * math.exp(-distance / 2), abs=1e-3)
    assert torch.equal(pattern[..., 0], pattern[..., 2])


def test_reverberation_is_oblique_up_to_the_right_and_drifts() -> None:
    clutter = one(
        rl_amplitude=200,
        rl_sigma_major=7,
        rl_sigma_minor=3,
        rl_angle_deg=30,
        rl_row=47,
        rl_column=20.5,
        rl_drift_rows=0.5,
        rl_drift_columns=0.25,
    )
    pattern = 255 * clutter.pattern(128, 128, 5)[0, 0]
    assert pattern[47, 84, 0].item() == pytest.approx(200, abs=1e-3)
    assert pattern[49, 85, 4].item() == pytest.approx(200, abs=1e-3)
    along = 7 * math.cos(math.radians(30)), -7 * math.sin(math.radians(30))  # one sigma: right and up
    row, column = round(47 + along[1]), round(84 + along[0])
    right, down = column - 84, row - 47
    major = (right * math.cos(math.pi / 6) - down * math.sin(math.pi / 6)) / 7
    minor = (right * math.sin(math.pi / 6) + down * math.cos(math.pi / 6)) / 3
    assert major == pytest.approx(1, abs=0.1) and abs(minor) < 0.2
    expected = 200 * math.exp(-(major**2 + minor**2) / 2)
    assert pattern[row, column, 0].item() == pytest.approx(expected, abs=1e-3)


def test_half_the_size_is_the_same_clutter() -> None:
    clutter = draw_clutter(8, generator=torch.Generator().manual_seed(1))
    large, small = clutter.pattern(128, 128, 4), clutter.pattern(64, 64, 4)
    means = large.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean(dim=(3, 5))
    assert (255 * (means - small)).abs().max() < 5  # a mean over 2x2 pixels is a little less than its centre


def test_numbers_lie_in_their_ranges_and_classes_are_drawn_alike() -> None:
    ranges, count = ClutterRanges(), 3000
    clutter = draw_clutter(count, ranges, generator=torch.Generator().manual_seed(0))
    for field in fields(Clutter):
        low, high = getattr(ranges, "amplitude" if field.name.endswith("amplitude") else field.name)
        value = (
            getattr(clutter, field.name).abs() if field.name == "rl_column" else getattr(clutter, field.name)
        )
        if field.name.endswith("amplitude"):
            value = value[value > 0]
        assert low <= value.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < value.max() <= high
    nf, rl = clutter.nf_amplitude > 0, clutter.rl_amplitude > 0
    assert (nf | rl).all()
    for kind in (nf & ~rl, rl & ~nf, nf & rl):
        assert kind.float().mean().item() == pytest.approx(1 / 3, abs=0.04)
    assert (clutter.rl_column < 0).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_a_seed_gives_the_same_clutter_and_no_generator_takes_the_global_one() -> None:
    drawn = [draw_clutter(4, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(drawn[0].pattern(32, 32, 2), drawn[1].pattern(32, 32, 2))
    torch.manual_seed(7)
    assert torch.equal(draw_clutter(4).pattern(32, 32, 2), drawn[0].pattern(32, 32, 2))


def test_it_is_added_clipped_and_kept_inside_the_sector() -> None:
    clean = torch.rand(2, 1, 64, 64, 3, dtype=torch.float64)
    mask = torch.zeros(2, 1, 64, 64, 1, dtype=torch.bool)
    mask[:, :, :40] = True
    clutter = draw_clutter(2, PUBLISHED)
    cluttered = add_clutter(clean, clutter, mask)
    assert cluttered.dtype == clean.dtype
    assert torch.equal(cluttered[:, :, 40:], clean[:, :, 40:])
    expected = (clean + clutter.pattern(64, 64, 3)).clamp(max=1)[:, :, :40]
    torch.testing.assert_close(cluttered[:, :, :40], expected)


def test_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match="amplitude must be"):
        ClutterRanges(amplitude=(3, 2))
    with pytest.raises(InputError, match=r"amplitude must be \(lowest, highest\), got 200"):
        ClutterRanges(amplitude=200)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rl_sigma_minor must be positive"):
        ClutterRanges(rl_sigma_minor=(0, 2))
    with pytest.raises(InputError, match="not all 0"):
        ClutterRanges(class_weights=(0, 0, 0))
    with pytest.raises(InputError, match="count must be"):
        draw_clutter(0)
    clean, mask = torch.zeros(2, 1, 8, 8, 3), torch.ones(2, 1, 8, 8, 1, dtype=torch.bool)
    for wrong in (255.0, -0.1, math.nan):
        with pytest.raises(InputError, match=r"clean must lie in 0\.\.1"):
            add_clutter(clean + wrong, draw_clutter(2), mask)
    with pytest.raises(InputError, match="got clutter for 1 and a mask"):
        add_clutter(clean, draw_clutter(1), mask)
    with pytest.raises(InputError, match=r"got clutter for 2 and a mask \[2, 1, 8, 8, 3\]"):
        add_clutter(clean, draw_clutter(2), mask.expand(2, 1, 8, 8, 3))


def test_the_published_clutter_explains_the_authors_panels(shared: Path) -> None:
    """With the best place in the published ranges, what is left is their video's noise."""
    panels = load_echo_clutter_npz(shared / "data/echo_clutter/echo_clutter.npz")
    clean, cluttered = panels.clean.unit(), panels.cluttered.unit()
    masks = sector_mask(clean)
    generator = torch.Generator().manual_seed(0)
    still = replace(PUBLISHED, amplitude=(195, 202))
    before = 255 * (cluttered - clean).abs().mean(dim=(1, 2, 3, 4))
    best = torch.full_like(before, math.inf)
    for _ in range(60):
        tried = add_clutter(clean[..., :10], draw_clutter(6, still, generator=generator), masks)
        best = best.minimum(255 * (cluttered[..., :10] - tried).abs().mean(dim=(1, 2, 3, 4)))
    assert (best < 0.45 * before).all(), (best, before)
