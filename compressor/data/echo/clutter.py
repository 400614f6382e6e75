"""Simulated clutter of transthoracic echocardiography: near-field and reverberation-like, additive, moving.

The simulator of the paper is not released. Its form was recovered from the authors' published synthetic
videos by fits of 2-D Gaussians to cluttered minus clean frames: near-field (NF) clutter is an upright
Gaussian below the apex that stands still; reverberation-like (RL) clutter is an oblique one beside the
lateral wall that drifts at constant speed and is cut off at the edge of the sector. Both are added to the
grey levels, and the sum is clipped; there is no speckle in them.

Source: M. Tabassian, S. Akbari, S. Queiros, J. D'hooge, 2024, arXiv 2401.13147, and their videos (MIT
licence). The videos show one example for each of six vendors, so `PUBLISHED` is what was measured, and the
wider `ClutterRanges()` to train with are a choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from compressor.errors import InputError

__all__ = ["PUBLISHED", "Clutter", "ClutterRanges", "add_clutter", "draw_clutter"]

Range = tuple[float, float]
SIZE = 128  # lengths are pixels of images of this height


@dataclass(frozen=True, kw_only=True)
class ClutterRanges:
    """From where to where each number of a clutter is drawn, uniformly.

    Lengths are pixels of a 128-pixel image, and scale with the height; amplitudes are grey levels of 255,
    angles degrees from the horizontal, up to the right; drifts pixels per frame. Columns are counted from the
    middle of the image: that of NF varies because a sector's axis need not lie there, that of RL is its
    distance, to the right, or to either side with `either_side`.
    `class_weights` are how often there is NF alone, RL alone, and both.

    Raises InputError for ranges that are none, sizes that are not positive, and weights of nothing.

    >>> ClutterRanges(amplitude=(200, 200)).nf_sigma_x
    (4.0, 6.4)
    """

    amplitude: Range = (120.0, 220.0)
    nf_sigma_x: Range = (4.0, 6.4)
    nf_sigma_y: Range = (12.0, 18.0)
    nf_row: Range = (9.0, 19.0)
    nf_column: Range = (-4.0, 4.0)
    rl_sigma_major: Range = (5.6, 9.8)
    rl_sigma_minor: Range = (2.56, 4.48)
    rl_angle_deg: Range = (-57.0, 57.0)
    rl_row: Range = (32.0, 72.0)
    rl_column: Range = (12.0, 36.0)
    rl_drift_rows: Range = (-0.08, 0.08)
    rl_drift_columns: Range = (-0.08, 0.08)
    either_side: bool = True
    class_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("either_side", "class_weights"):
                continue
            pair = isinstance(value, tuple | list) and len(value) == 2
            if not (pair and all(map(math.isfinite, value)) and value[0] <= value[1]):
                raise InputError(f"ClutterRanges: {field.name} must be (lowest, highest), got {value!r}")
            if "sigma" in field.name and value[0] <= 0:
                raise InputError(f"ClutterRanges: {field.name} must be positive, got {value!r}")
        weights = self.class_weights
        if len(weights) != 3 or min(weights) < 0 or not 0 < sum(weights) < math.inf:
            raise InputError(
                f"ClutterRanges: class_weights are three numbers for NF, RL and both, at least 0 and not all "
                f"0, got {weights!r}"
            )


PUBLISHED = ClutterRanges(
    amplitude=(200.0, 200.0),
    nf_sigma_x=(5.0, 5.0),
    nf_sigma_y=(15.0, 15.0),
    nf_row=(11.3, 16.6),
    nf_column=(0.0, 0.0),
    rl_sigma_major=(6.7, 7.5),
    rl_sigma_minor=(3.1, 3.4),
    rl_angle_deg=(32.0, 38.0),
    rl_row=(44.0, 50.0),
    rl_column=(19.5, 27.5),
    rl_drift_rows=(0.065, 0.065),
    rl_drift_columns=(0.043, 0.043),
    either_side=False,
    class_weights=(0.0, 0.0, 1.0),
)
"""What was measured in the authors' six synthetic videos, all of them with both kinds of clutter."""


@dataclass(frozen=True, eq=False, repr=False)
class Clutter:
    """The clutter of N sequences; every field is a tensor [N], in the units of `ClutterRanges`.

    A kind that a sequence lacks has amplitude 0. `rl_column` is signed here: positive to the right.

    >>> draw_clutter(2, generator=torch.Generator().manual_seed(0)).pattern(64, 64, 8).shape
    torch.Size([2, 1, 64, 64, 8])
    """

    nf_amplitude: Tensor
    nf_sigma_x: Tensor
    nf_sigma_y: Tensor
    nf_row: Tensor
    nf_column: Tensor
    rl_amplitude: Tensor
    rl_sigma_major: Tensor
    rl_sigma_minor: Tensor
    rl_angle_deg: Tensor
    rl_row: Tensor
    rl_column: Tensor
    rl_drift_rows: Tensor
    rl_drift_columns: Tensor

    def __len__(self) -> int:
        return len(self.nf_amplitude)

    def __repr__(self) -> str:
        nf, rl = self.nf_amplitude > 0, self.rl_amplitude > 0
        return (
            f"Clutter({len(self)} sequences: {int((nf & ~rl).sum())} NF, {int((rl & ~nf).sum())} RL, "
            f"{int((nf & rl).sum())} both)"
        )

    def pattern(self, height: int, width: int, frames: int) -> Tensor:
        """What is added, [N, 1, H, W, T] in units of full brightness (0 to 1 or more where both meet)."""
        scale = height / SIZE
        device, dtype = self.nf_amplitude.device, self.nf_amplitude.dtype
        # Centres of pixels: at half the size, pixel i covers what were pixels 2 i and 2 i + 1.
        rows = (torch.arange(height, device=device, dtype=dtype)[:, None, None] + 0.5) / scale - 0.5
        columns = (torch.arange(width, device=device, dtype=dtype)[:, None] + 0.5 - width / 2) / scale
        times = torch.arange(frames, device=device, dtype=dtype)

        def of(name: str) -> Tensor:
            value: Tensor = getattr(self, name)[:, None, None, None]
            return value

        across, below = columns - of("nf_column"), rows - of("nf_row")
        nf = (across / of("nf_sigma_x")).square() + (below / of("nf_sigma_y")).square()
        right = columns - of("rl_column") - of("rl_drift_columns") * times
        down = rows - of("rl_row") - of("rl_drift_rows") * times
        angle = of("rl_angle_deg").deg2rad()
        major = (right * angle.cos() - down * angle.sin()) / of("rl_sigma_major")
        minor = (right * angle.sin() + down * angle.cos()) / of("rl_sigma_minor")
        rl = major.square() + minor.square()
        pattern = of("nf_amplitude") * (-nf / 2).exp() + of("rl_amplitude") * (-rl / 2).exp()
        return pattern[:, None] / 255


def draw_clutter(
    count: int,
    ranges: ClutterRanges | None = None,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Clutter:
    """The clutter of `count` sequences, drawn on the generator's device and given on `device`.

    Without a generator it comes from torch's global random state.

    >>> draw_clutter(3, PUBLISHED, generator=torch.Generator().manual_seed(0))
    Clutter(3 sequences: 0 NF, 0 RL, 3 both)
    """
    if count < 1:
        raise InputError(f"draw_clutter: count must be at least 1, got {count}")
    chosen = ClutterRanges() if ranges is None else ranges
    at = None if generator is None else generator.device

    def uniform(name: str) -> Tensor:
        low, high = getattr(chosen, name)
        drawn: Tensor = low + (high - low) * torch.rand(count, generator=generator, device=at)
        return drawn

    weights = torch.tensor(chosen.class_weights, device=at)
    kind = torch.multinomial(weights, count, replacement=True, generator=generator)
    drawn = {
        field.name: uniform("amplitude" if field.name.endswith("amplitude") else field.name)
        for field in fields(Clutter)
    }
    drawn["nf_amplitude"] = drawn["nf_amplitude"] * (kind != 1)
    drawn["rl_amplitude"] = drawn["rl_amplitude"] * (kind != 0)
    left = torch.rand(count, generator=generator, device=at) < (0.5 if chosen.either_side else 0.0)
    drawn["rl_column"] = drawn["rl_column"].where(~left, -drawn["rl_column"])
    return Clutter(
        **{name: value.to(device) if device is not None else value for name, value in drawn.items()}
    )


def add_clutter(clean: Tensor, clutter: Clutter, mask: Tensor) -> Tensor:
    """The cluttered sequences [N, 1, H, W, T]: clip(clean + pattern) inside the sector, clean elsewhere.

    `clean` [N, 1, H, W, T] lies in 0..1, `mask` [N, 1, H, W, 1] is the sector (`sector_mask`). Raises
    InputError where the three do not belong together.

    >>> clean, mask = torch.zeros(1, 1, 64, 64, 2), torch.ones(1, 1, 64, 64, 1, dtype=torch.bool)
    >>> bright = add_clutter(clean, draw_clutter(1, PUBLISHED), mask)
    >>> round(255 * bright[..., :12, 20:44, 0].amax().item(), -1)
    200.0
    """
    if clean.dim() != 5 or clean.shape[1] != 1 or not clean.is_floating_point():
        raise InputError(
            f"add_clutter: clean must be floating-point [N, 1, H, W, T], got {clean.dtype} "
            f"{list(clean.shape)}"
        )
    low, high = float(clean.min()), float(clean.max())
    if not 0 <= low <= high <= 1:  # NaN included
        raise InputError(
            f"add_clutter: clean must lie in 0..1, got {low:.4g}..{high:.4g}; divide grey levels by 255"
        )
    if len(clutter) != len(clean) or mask.shape != (*clean.shape[:4], 1):
        raise InputError(
            f"add_clutter: {len(clean)} sequences {list(clean.shape)} need clutter for as many and a mask "
            f"{[*clean.shape[:4], 1]}, got clutter for {len(clutter)} and a mask {list(mask.shape)}"
        )
    height, width, frames = clean.shape[2:]
    added = clutter.pattern(height, width, frames).to(clean)
    return torch.where(mask, (clean + added).clamp(0, 1), clean)
