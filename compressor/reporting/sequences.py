"""Image sequences side by side: as an animation, and as a figure of a few frames."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.extras import imported

__all__ = ["difference", "save_gif", "save_sequence_figure"]

_TITLE_ROWS, _GAP = 14, 2


def difference(one: Tensor, other: Tensor, *, gain: float = 2.0) -> Tensor:
    """A panel of where two sequences differ: 0.5 where they agree, brighter where `one` is.

    Of sequences of one shape from 0 to 1; the difference is multiplied by `gain`, and clipped to 0..1.

    >>> difference(torch.tensor([0.1, 0.5, 0.0]), torch.tensor([0.1, 0.4, 0.9]))
    tensor([0.5000, 0.7000, 0.0000])
    """
    if one.shape != other.shape:
        raise InputError(f"difference: two shapes, {list(one.shape)} and {list(other.shape)}")
    return (0.5 + gain * (one - other)).clamp(0, 1)


def save_gif(
    path: str | os.PathLike[str],
    panels: Mapping[str, Tensor],
    *,
    frames_per_second: float = 20.0,
    zoom: int = 2,
) -> int:
    """The size in bytes of a GIF with the panels side by side, each under its title; it repeats for ever.

    `panels` maps titles to sequences [H, W, T] (or [1, H, W, T]), floating-point from 0 to 1, outliers
    clipped, or uint8. Pixels are enlarged `zoom` times. GIF holds whole hundredths of a second: 20 frames
    per second are exact, 30 become 33. Raises InputError for panels of several sizes or that are not finite,
    MissingExtraError without Pillow.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_gif(Path(folder) / "a.gif", {"noise": torch.rand(8, 8, 3)}, zoom=1) > 0
    True
    """
    images = imported("PIL.Image", package="Pillow", extra="images", needed_for="an animation")
    drawing = imported("PIL.ImageDraw", package="Pillow", extra="images", needed_for="an animation")
    if not 0 < frames_per_second <= 100 or zoom < 1:
        raise InputError(
            f"save_gif: frames_per_second must be in 0..100 and zoom at least 1, got {frames_per_second!r} "
            f"and {zoom!r}"
        )
    grey = _grey(panels)
    height, width, count = next(iter(grey.values())).shape
    size = (len(grey) * (zoom * width + _GAP) - _GAP, zoom * height + _TITLE_ROWS)
    frames = []
    for time in range(count):
        frame = images.new("L", size)
        for place, (title, panel) in enumerate(grey.items()):
            left = place * (zoom * width + _GAP)
            pixels = np.kron(panel[..., time], np.ones((zoom, zoom), np.uint8))
            frame.paste(images.fromarray(pixels), (left, _TITLE_ROWS))
            drawing.Draw(frame).text((left + 2, 1), title, fill=255)
        frames.append(frame)
    duration = 10 * max(1, round(100 / frames_per_second))
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return Path(path).stat().st_size


def save_sequence_figure(
    path: str | os.PathLike[str], panels: Mapping[str, Tensor], *, frames: Sequence[int] = (0,)
) -> None:
    """A figure of some `frames`, one row each, with a column for each panel; the path's ending is its format.

    `panels` is that of `save_gif`. Raises InputError for frames that are not there, MissingExtraError
    without Matplotlib.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_sequence_figure(Path(folder) / "a.png", {"noise": torch.rand(8, 8, 3)}, frames=(0, 2))
    ...     (Path(folder) / "a.png").is_file()
    True
    """
    figures = imported("matplotlib.figure", extra="plots", needed_for="a figure")
    grey = _grey(panels)
    count = next(iter(grey.values())).shape[-1]
    if not frames or not all(-count <= frame < count for frame in frames):
        raise InputError(f"save_sequence_figure: frames must be of 0..{count - 1}, got {list(frames)}")
    figure = figures.Figure(figsize=(1.8 * len(grey), 1.8 * len(frames) + 0.3), layout="constrained")
    axes = figure.subplots(len(frames), len(grey), squeeze=False)
    for row, frame in zip(axes, frames, strict=True):
        row[0].set_ylabel(f"frame {frame % count}", fontsize=8)
        for axis, (title, panel) in zip(row, grey.items(), strict=True):
            axis.imshow(panel[..., frame], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            if axis in axes[0]:
                axis.set_title(title, fontsize=8)
    figure.savefig(path, dpi=150)


def _grey(panels: Mapping[str, Tensor]) -> dict[str, npt.NDArray[np.uint8]]:
    """The panels as uint8 arrays [H, W, T] of one size."""
    if not panels:
        raise InputError("panels of sequences are needed, there is none")
    grey = {}
    for title, panel in panels.items():
        one = panel[0] if panel.dim() == 4 and panel.shape[0] == 1 else panel
        if one.dim() != 3 or not one.numel():
            raise InputError(f"panel {title!r} must be [H, W, T] or [1, H, W, T], got {list(panel.shape)}")
        if one.dtype != torch.uint8:
            if not one.is_floating_point() or not bool(torch.isfinite(one).all()):
                raise InputError(f"panel {title!r} must hold finite numbers from 0 to 1, or be uint8")
            low, high = float(one.min()), float(one.max())
            if low < -1 or high > 2:
                raise InputError(
                    f"panel {title!r} must lie in 0..1 but for outliers, got {low:.4g}..{high:.4g}; divide "
                    f"grey levels by 255, or give them as uint8"
                )
            one = (one.detach().float().clamp(0, 1) * 255).round().byte()
        grey[title] = one.cpu().numpy()
    sizes = {title: array.shape for title, array in grey.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"panels must have one size [H, W, T], got {sizes}")
    return grey
