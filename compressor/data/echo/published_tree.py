"""The data of the clutter filter in the authors' folders: vendor/view/subject/data_*/*.mat.

Source: the code of M. Tabassian et al., 2024, arXiv 2401.13147. The data is not released; whoever holds it,
or writes their own that way, reads it here. A subject is a motion pattern (four coronary occlusions and
normal).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.data.echo.sequences import Sequences
from compressor.errors import FileError, InputError
from compressor.extras import imported

__all__ = ["MOTIONS", "MotionFold", "PublishedTree", "read_published_tree"]

log = logging.getLogger(__name__)

MOTIONS = ("rca", "ladprox", "laddist", "lcx", "normal")
KINDS = ("data_NFClt", "data_RvbClt", "data_NFRvbClt")  # near-field, reverberation-like, both


@dataclass(frozen=True)
class MotionFold:
    """Places in a `PublishedTree` of one fold, and the motion patterns that validate and test it.

    >>> MotionFold((0, 1), (2,), (3,), validated_on="rca", tested_on="normal").train
    (0, 1)
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    validated_on: str
    tested_on: str


@dataclass(frozen=True, eq=False, repr=False)
class PublishedTree:
    """Pairs of cluttered and clean sequences of a tree, in one order, and what was left out.

    `views`, `subjects` and `kinds` (names of the clutter's folders) say where each pair is from, `skipped`
    why a file was left out, one line each.
    """

    cluttered: Sequences
    clean: Sequences
    views: tuple[str, ...]
    subjects: tuple[str, ...]
    kinds: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.clean)

    def __repr__(self) -> str:
        left_out = f", {len(self.skipped)} files skipped" if self.skipped else ""
        return f"PublishedTree({len(self)} pairs, {len(set(self.subjects))} subjects{left_out})"

    def motion_folds(self, motions: Sequence[str] = MOTIONS) -> Iterator[MotionFold]:
        """One fold for each motion pattern, which validates it; the one before it in the list is the test.

        Before the first stands the last, as in the source; the other three train. Departure: a subject's
        name has to be equal to the pattern, where the source looks for the name within it. Raises InputError
        where a pattern has no pairs, or a subject is none of them.
        """
        unknown = sorted(set(self.subjects) ^ set(motions))
        if unknown or len(motions) < 3:
            raise InputError(
                f"motion_folds: the tree's subjects {sorted(set(self.subjects))} are not the motion patterns "
                f"{list(motions)} (at least three); name them with motions="
            )
        for index, held in enumerate(motions):
            tested = motions[index - 1]
            parts = {
                "train": self._of([one for one in motions if one not in (held, tested)]),
                "validation": self._of([held]),
                "test": self._of([tested]),
            }
            yield MotionFold(**parts, validated_on=held, tested_on=tested)

    def _of(self, subjects: Sequence[str]) -> tuple[int, ...]:
        return tuple(index for index, subject in enumerate(self.subjects) if subject in subjects)


@dataclass(frozen=True, eq=False)
class _Pair:
    """A cluttered file, its kind of clutter, and both volumes [H, W, T]."""

    file: Path
    kind: str
    cluttered: Tensor
    clean: Tensor


def read_published_tree(
    root: str | os.PathLike[str], *, kinds: Sequence[str] = KINDS, skip_unreadable: bool = False
) -> PublishedTree:
    """The pairs under `root`, each cluttered file with the one clean file of its subject.

    Expected is vendor/view/subject/ with data_org/*.mat (one file, variable `data_org` [H, W, T]) and any of
    data_NFClt, data_RvbClt and data_NFRvbClt (any number, variable `data_artf`), grey levels 0 to 255 of any
    numeric type, clipped as in the source and kept as float32 from 0 to 1 (uint8 stays uint8). Hidden files
    are no data; other files are ignored, as `pos_*` are. Folders are read in alphabetical order.

    Files are MATLAB 5 ones; version 7.3 (HDF5) is refused with what to do. With `skip_unreadable` what
    cannot be read is left out, logged, and listed in `skipped`; else, and where nothing is left, the first
    one raises FileError with its path. SciPy is needed (MissingExtraError).

    >>> import tempfile
    >>> from scipy import io
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for kind, variable in (("data_org", "data_org"), ("data_NFClt", "data_artf")):
    ...         folder = Path(root) / "GE/A4C/normal" / kind
    ...         folder.mkdir(parents=True)
    ...         io.savemat(folder / "1.mat", {variable: np.zeros((8, 8, 5), np.uint8)})
    ...     found = read_published_tree(root)
    >>> found, found.kinds
    (PublishedTree(1 pairs, 1 subjects), ('data_NFClt',))
    """
    folder = Path(root)
    if not folder.is_dir():
        raise FileError(f"clutter tree {folder}: no such folder")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise InputError(f"read_published_tree: kinds are of {', '.join(KINDS)}, got {list(kinds)}")
    found: list[_Pair] = []
    skipped: list[str] = []
    for subject in sorted(path for path in folder.glob("*/*/*") if path.is_dir() and _shown(path)):
        try:
            clean = _clean(subject)
        except FileError as error:
            _skip(error, skipped, skip_unreadable)
            continue
        for kind in kinds:
            for file in _mat_files(subject / kind):
                try:
                    cluttered = _fitting(file, _read(file, "data_artf"), clean)
                except FileError as error:
                    _skip(error, skipped, skip_unreadable)
                    continue
                found.append(_Pair(file, kind, cluttered, clean))
    if not found:
        raise FileError(
            f"clutter tree {folder}: no pair of sequences; expected vendor/view/subject/data_org/*.mat and "
            f"{', '.join(kinds)} beside it" + (f"; skipped: {'; '.join(skipped)}" if skipped else "")
        )
    return _tree(folder, found, tuple(skipped))


def _skip(error: FileError, skipped: list[str], allowed: bool) -> None:
    if not allowed:
        raise FileError(f"{error} (or leave such files out with skip_unreadable=True)") from error
    log.warning("skipped: %s", error)
    skipped.append(str(error))


def _tree(root: Path, pairs: Sequence[_Pair], skipped: tuple[str, ...]) -> PublishedTree:
    first = pairs[0]
    for pair in pairs:
        if pair.clean.shape != first.clean.shape:
            raise FileError(
                f"clutter tree {root}: sequences differ in size: {first.file} is {list(first.clean.shape)}, "
                f"{pair.file} {list(pair.clean.shape)}; bring them to one size"
            )
    parts = [pair.file.relative_to(root).parts for pair in pairs]
    names = tuple("/".join(part) for part in parts)
    vendors, views, subjects = (tuple(part[level] for part in parts) for level in range(3))
    return PublishedTree(
        Sequences(_stacked([pair.cluttered for pair in pairs]), names, vendors),
        Sequences(_stacked([pair.clean for pair in pairs]), names, vendors),
        views,
        subjects,
        tuple(pair.kind for pair in pairs),
        skipped,
    )


def _stacked(volumes: Sequence[Tensor]) -> Tensor:
    """The volumes as one tensor [N, 1, H, W, T]; uint8 only where all of them are."""
    if len({volume.dtype for volume in volumes}) > 1:
        volumes = [volume.float() / 255 if volume.dtype == torch.uint8 else volume for volume in volumes]
    return torch.stack(list(volumes))[:, None]


def _shown(path: Path) -> bool:
    return not any(part.startswith(".") for part in path.parts[-3:])


def _mat_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.mat") if path.is_file() and not path.name.startswith("."))


def _clean(subject: Path) -> Tensor:
    files = _mat_files(subject / "data_org")
    if len(files) != 1:
        raise FileError(
            f"{subject / 'data_org'}: expected one .mat file of the clean sequence, got {len(files)}"
        )
    return _read(files[0], "data_org")


def _fitting(file: Path, cluttered: Tensor, clean: Tensor) -> Tensor:
    if cluttered.shape != clean.shape:
        raise FileError(
            f"{file}: data_artf is {list(cluttered.shape)}, its clean sequence {list(clean.shape)}"
        )
    return cluttered


def _read(file: Path, variable: str) -> Tensor:
    """One volume [H, W, T], uint8, or float32 from 0 to 1."""
    io = imported("scipy.io", extra="ecg", needed_for="reading .mat files")
    try:
        content = io.loadmat(file, variable_names=[variable])
    except NotImplementedError as error:  # what SciPy raises for HDF5
        raise FileError(
            f"{file}: a MATLAB 7.3 file (HDF5) cannot be read; save it in MATLAB with save(..., '-v7')"
        ) from error
    except Exception as error:  # a damaged file raises what zlib, struct or numpy raise
        raise FileError(f"{file}: cannot be read as a .mat file ({type(error).__name__}: {error})") from error
    if variable not in content:
        raise FileError(f"{file}: lacks the variable {variable}")
    volume = content[variable]
    if volume.ndim != 3 or volume.dtype.kind not in "uif" or not volume.size:
        raise FileError(
            f"{file}: {variable} must be numbers [H, W, T], got {volume.dtype} {list(volume.shape)}"
        )
    if not np.isfinite(volume).all():
        raise FileError(f"{file}: {variable} holds values that are not finite (NaN or infinity)")
    if volume.dtype == np.uint8:
        return torch.from_numpy(volume.copy())
    if volume.dtype.kind == "f" and 0 < volume.max() <= 1:
        raise FileError(
            f"{file}: {variable} must be grey levels 0..255, its largest value is {volume.max():.4g}; "
            f"multiply it by 255"
        )
    return torch.from_numpy(volume.astype(np.float32)).div(255).clamp(0, 1)
