"""The file of the authors' video panels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data.echo import load_echo_clutter_npz
from compressor.errors import FileError

NAMES = ("syn_clutter", "syn_filt3d", "syn_filt2d", "syn_clean", "viv_input", "viv_filt3d", "viv_filt2d")


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    panels = {name: generator.integers(1, 255, (2, 3, 128, 128), np.uint8) for name in NAMES}
    return panels | {"syn_vendor": np.array(["GE", "Philips"]), "viv_subject": np.array(["S1", "S2"])}


def test_time_is_the_last_axis_and_the_letters_are_gone(tmp_path: Path) -> None:
    stored = arrays()
    np.savez(tmp_path / "a.npz", **stored)
    panels = load_echo_clutter_npz(tmp_path / "a.npz")
    clean = panels.clean.frames
    assert clean.shape == (2, 1, 128, 128, 3) and clean.dtype == torch.uint8
    assert clean[1, 0, 100, 7, 2] == stored["syn_clean"][1, 2, 100, 7]
    assert not clean[:, :, :20, :52].any() and clean[:, :, 20:].all() and clean[:, :, :, 52:].all()
    assert panels.cluttered.vendors == ("GE", "Philips") and panels.in_vivo.names == ("S1", "S2")
    assert panels.in_vivo_filtered_3d.frames[0, 0, 50, 60, 1] == stored["viv_filt3d"][0, 1, 50, 60]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"syn_clean": None}, "lacks syn_clean"),
        ({"syn_clean": np.zeros((2, 3, 64, 64), np.uint8)}, r"syn_clean must be uint8 \[2, T, 128, 128\]"),
        ({"syn_clean": np.zeros((2, 3, 128, 128))}, "got float64"),
        ({"syn_vendor": np.array([1, 2])}, "syn_vendor must be a list of names"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    stored = {name: array for name, array in (arrays() | change).items() if array is not None}
    np.savez(tmp_path / "a.npz", **stored)
    with pytest.raises(FileError, match=message):
        load_echo_clutter_npz(tmp_path / "a.npz")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(FileError, match=r"a\.npz: cannot be read"):
        load_echo_clutter_npz(tmp_path / "a.npz")


def test_the_published_videos(shared: Path) -> None:
    panels = load_echo_clutter_npz(shared / "data/echo_clutter/echo_clutter.npz")
    assert panels.clean.vendors == ("GE", "Hitachi", "Philips", "Samsung", "Siemens", "Toshiba")
    assert panels.in_vivo.frames.shape == (6, 1, 128, 128, 50)
