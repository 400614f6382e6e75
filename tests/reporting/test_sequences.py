"""Animations and figures of sequences, read back."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.errors import InputError, MissingExtraError
from compressor.reporting import difference, save_gif, save_sequence_figure


def test_the_gif_shows_the_panels_frame_by_frame(tmp_path: Path) -> None:
    one = torch.randint(0, 256, (6, 8, 4), dtype=torch.uint8)
    two = torch.rand(1, 6, 8, 4)
    size = save_gif(tmp_path / "a.gif", {"in": one, "out": two}, frames_per_second=20, zoom=3)
    assert size == (tmp_path / "a.gif").stat().st_size
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 4 and gif.info["duration"] == 50 and gif.info["loop"] == 0
        for time in range(4):
            gif.seek(time)
            pixels = np.asarray(gif.convert("L"))[14:]
            assert np.array_equal(pixels[1::3, 1:24:3], one[..., time].numpy())
            assert np.array_equal(pixels[1::3, 27:50:3], (255 * two[0, ..., time]).round().byte().numpy())


def test_a_difference_is_grey_where_nothing_differs() -> None:
    one = torch.rand(4, 4, 2)
    assert (difference(one, one) == 0.5).all()
    assert difference(one.clamp(min=0.3), one.clamp(min=0.3) - 0.1).flatten().tolist() == pytest.approx(
        [0.7] * 32
    )
    with pytest.raises(InputError, match="two shapes"):
        difference(one, one[..., :1])


def test_a_figure_is_written_with_a_row_for_each_frame(tmp_path: Path) -> None:
    panels = {name: torch.rand(16, 16, 5) for name in ("cluttered", "filtered", "clean")}
    sizes = {}
    for frames in ((0,), (0, 2, -1)):
        save_sequence_figure(tmp_path / "a.png", panels, frames=frames)
        with Image.open(tmp_path / "a.png") as image:
            sizes[frames] = image.size
    assert sizes[(0,)][0] == sizes[(0, 2, -1)][0] and sizes[(0, 2, -1)][1] > 2 * sizes[(0,)][1]
    with pytest.raises(InputError, match=r"frames must be of 0\.\.4, got \[5\]"):
        save_sequence_figure(tmp_path / "b.png", panels, frames=[5])
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ({}, "there is none"),
        ({"a": torch.rand(4, 4)}, r"'a' must be \[H, W, T\]"),
        ({"a": torch.full((4, 4, 2), float("nan"))}, "'a' must hold finite numbers"),
        ({"a": 255 * torch.ones(4, 4, 2)}, r"'a' must lie in 0\.\.1 but for outliers, got 255\.\.255"),
        ({"a": torch.rand(4, 4, 2), "b": torch.rand(4, 4, 3)}, "must have one size"),
    ],
)
def test_panels_that_cannot_be_shown_are_refused(
    tmp_path: Path, panels: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        save_gif(tmp_path / "a.gif", panels)
    assert not (tmp_path / "a.gif").exists()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"needs Pillow.*compressor\[images\]"):
        save_gif(tmp_path / "a.gif", {"a": torch.rand(4, 4, 2)})
    with pytest.raises(MissingExtraError, match=r"needs matplotlib.*compressor\[plots\]"):
        save_sequence_figure(tmp_path / "a.png", {"a": torch.rand(4, 4, 2)})
