"""The authors' published result videos of the clutter filter, as an .npz file of their panels.

Source: M. Tabassian et al., 2024, arXiv 2401.13147; the videos lie in their repository under the MIT licence.
Each shows four panels: cluttered, their 3-D filter, their 2-D filter, and, for the six synthetic ones, clean.
Nothing is downloaded: the caller names a file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compressor.data.archive import Archive, open_archive
from compressor.data.echo.sequences import Sequences
from compressor.errors import FileError

__all__ = ["VideoPanels", "load_echo_clutter_npz"]

LETTERS = (20, 52)  # rows and columns at the top left, outside of every sector
SYNTHETIC = ("syn_clutter", "syn_filt3d", "syn_filt2d", "syn_clean")
IN_VIVO = ("viv_input", "viv_filt3d", "viv_filt2d")


@dataclass(frozen=True, eq=False)
class VideoPanels:
    """The panels, each `Sequences` in the same order.

    Synthetic sequences, named by their vendor: `cluttered` and `clean`, and what the authors' filters made
    of them, `filtered_3d` and `filtered_2d`. In-vivo ones, named by their subject, have no clean panel.
    """

    cluttered: Sequences
    filtered_3d: Sequences
    filtered_2d: Sequences
    clean: Sequences
    in_vivo: Sequences
    in_vivo_filtered_3d: Sequences
    in_vivo_filtered_2d: Sequences


def load_echo_clutter_npz(path: str | os.PathLike[str]) -> VideoPanels:
    """The panels of an .npz file, uint8 [N, 1, 128, 128, T], without the letters burnt into them.

    The file holds `syn_vendor` [N], `syn_clutter`, `syn_filt3d`, `syn_filt2d` and `syn_clean`, uint8
    [N, T, 128, 128], and `viv_subject`, `viv_input`, `viv_filt3d`, `viv_filt2d` likewise. The letters "(a)"
    to "(d)" are put to black: rows 0 to 19 of columns 0 to 51, where no synthetic sector reaches. Scores over
    all pixels are then those of the authors' videos. In-vivo sectors may lose a few pixels there.

    Raises FileError for a file that is missing, damaged or laid out otherwise.

    >>> import tempfile
    >>> x, names = np.ones((2, 3, 128, 128), np.uint8), np.array(["a", "b"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "two.npz"
    ...     panels = dict.fromkeys((*SYNTHETIC, *IN_VIVO), x)
    ...     np.savez(file, syn_vendor=names, viv_subject=names, **panels)
    ...     load_echo_clutter_npz(file).clean
    Sequences(2 of 128x128, 3 frames, a, b)
    """
    names = ("syn_vendor", *SYNTHETIC, "viv_subject", *IN_VIVO)
    archive = open_archive(Path(path), "echo clutter", names)
    vendors, subjects = _names(archive, "syn_vendor"), _names(archive, "viv_subject")
    synthetic = (_panel(archive, name, vendors, vendors) for name in SYNTHETIC)
    nobody = ("",) * len(subjects)
    return VideoPanels(*synthetic, *(_panel(archive, name, subjects, nobody) for name in IN_VIVO))


def _names(archive: Archive, name: str) -> tuple[str, ...]:
    stored = archive.arrays[name]
    if stored.ndim != 1 or stored.dtype.kind != "U" or not len(stored):
        raise FileError(
            f"{archive.name}: {name} must be a list of names, got {stored.dtype} {list(stored.shape)}"
        )
    return tuple(stored.tolist())


def _panel(archive: Archive, name: str, names: tuple[str, ...], vendors: tuple[str, ...]) -> Sequences:
    stored = archive.arrays[name]
    fits = stored.ndim == 4 and stored.shape[0] == len(names) and stored.shape[2:] == (128, 128)
    if not fits or stored.dtype != np.uint8 or not stored.shape[1]:
        raise FileError(
            f"{archive.name}: {name} must be uint8 [{len(names)}, T, 128, 128], got {stored.dtype} "
            f"{list(stored.shape)}"
        )
    frames = np.ascontiguousarray(stored.transpose(0, 2, 3, 1))[:, None]
    frames[:, :, : LETTERS[0], : LETTERS[1]] = 0
    return Sequences(torch.from_numpy(frames), names, vendors)
