"""Stacked scalograms: one image for each second of a recording, its twelve leads under each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.data.cifar import IMAGENET_MEAN, IMAGENET_STD
from compressor.data.ecg.cleaning import BaselineRemoval, Cleaner, normalize_recordings
from compressor.data.ecg.recordings import Recordings, positions
from compressor.data.ecg.scalograms import MorletBank, cut_windows, scalograms
from compressor.errors import InputError

__all__ = ["Preparation", "StackedImages", "backbone_input", "prepare", "stack_leads"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StackedImages:
    """Images of recordings: `images` is float32 [M, 12 · rows, columns]; image m shows `records[m]`.

    `labels`, int64 [M], are those of the recordings; `records`, int64 [M], are positions in `names`. A
    network over images takes `images[:, None]`, one over time takes `images` with its rows as channels.
    Nothing here is cut apart by image: `select_records` takes recordings whole.
    """

    images: Tensor
    labels: Tensor
    records: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.images)
        if self.images.ndim != 3 or self.labels.shape != (count,) or self.records.shape != (count,):
            raise InputError(
                "StackedImages: takes images [M, rows, columns] with labels [M] and records [M], got "
                f"{list(self.images.shape)}, {list(self.labels.shape)} and {list(self.records.shape)}"
            )
        if count and not 0 <= int(self.records.min()) <= int(self.records.max()) < len(self.names):
            raise InputError(f"StackedImages: records must be positions in the {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.images.shape[1:]))
        return f"StackedImages({len(self)} of {size}, {len(self.names)} recordings)"

    def select_records(self, indices: Sequence[int] | Tensor) -> StackedImages:
        """All images of the recordings at these positions of `names`, recording by recording."""
        chosen = positions(indices, len(self.names)).tolist()
        records = self.records.cpu()
        of_record = records.argsort(stable=True).split(records.bincount(minlength=len(self.names)).tolist())
        shown = [of_record[record] for record in chosen]
        images = torch.cat([*shown, torch.empty(0, dtype=torch.int64)])
        numbers = [torch.full_like(of, number) for number, of in enumerate(shown)]
        return StackedImages(
            images=self.images[images.to(self.images.device)],
            labels=self.labels[images.to(self.labels.device)],
            records=torch.cat([*numbers, torch.empty(0, dtype=torch.int64)]).to(self.records.device),
            names=tuple(self.names[record] for record in chosen),
            classes=self.classes,
        )


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How recordings become images: `cleaning` in order, a recording's scale, windows, wavelets, columns.

    Each window of `window_s` seconds gives one image; its columns are means of equally many samples. The
    defaults make the small images of 120x50; `Preparation(bank=MorletBank(rows=18), columns=None)` keeps
    every sample, 216x500.

    *Source: Aarotale & Rattani 2023, arXiv 2312.09426: median filtering, one scalogram for each second and
    lead, stacked row-wise, ten images of a recording. Windows of the median, scale, wavelet, frequencies
    and columns are not given there; these are ours.*
    """

    cleaning: tuple[Cleaner, ...] = field(default_factory=lambda: (BaselineRemoval(),))
    bank: MorletBank = field(default_factory=MorletBank)
    window_s: float = 1.0
    columns: int | None = 50

    def __call__(self, signals_mV: Tensor, *, sampling_hz: int) -> Tensor:
        """The images [N, windows, 12 · rows, columns] of signals [N, 12, T]."""
        signals = signals_mV
        for cleaner in self.cleaning:
            signals = cleaner(signals, sampling_hz=sampling_hz)
        windows_NLWT = cut_windows(normalize_recordings(signals), round(self.window_s * sampling_hz))
        magnitudes_NWLST = scalograms(windows_NLWT.transpose(1, 2), self.bank, sampling_hz=sampling_hz)
        return _pooled(stack_leads(magnitudes_NWLST), self.columns)


def prepare(
    recordings: Recordings,
    preparation: Preparation | None = None,
    *,
    device: torch.device | str | None = None,
    at_once: int = 1,
) -> StackedImages:
    """The images of all recordings, ten of each for windows of one second in ten.

    `device` is where the transforms run and the images lie (default: where the signals are); `at_once`
    recordings go through them together: one is fastest on a CPU, whose caches it fits, hundreds keep a GPU
    busy.

    >>> simulated = Recordings(
    ...     signals_mV=torch.randn(2, 12, 5000), labels=torch.tensor([0, 1]), names=("a", "b"),
    ...     classes=("SB", "AFIB", "GSVT", "SR"), sampling_hz=500,
    ... )
    >>> prepare(simulated)
    StackedImages(20 of 120x50, 2 recordings)
    """
    how = preparation or Preparation()
    if at_once < 1 or not len(recordings):
        raise InputError(
            "prepare: takes one recording or more and at_once of 1 or more, "
            f"got {len(recordings)} and {at_once}"
        )
    signals = recordings.signals_mV
    where = signals.device if device is None else torch.device(device)
    images: Tensor | None = None  # [N, windows, rows, columns], filled part by part: never held twice
    for start in range(0, len(signals), at_once):
        part = how(signals[start : start + at_once].to(where), sampling_hz=recordings.sampling_hz)
        images = part.new_empty(len(signals), *part.shape[1:]) if images is None else images
        images[start : start + at_once] = part
    assert images is not None
    windows = images.shape[1]
    return StackedImages(
        images=images.flatten(0, 1),
        labels=recordings.labels.to(where).repeat_interleave(windows),
        records=torch.arange(len(images), device=where).repeat_interleave(windows),
        names=recordings.names,
        classes=recordings.classes,
    )


def stack_leads(magnitudes: Tensor) -> Tensor:
    """The scalograms [..., leads, rows, T] under each other, [..., leads · rows, T]: block b is lead b.

    >>> stack_leads(torch.zeros(10, 12, 18, 500)).shape
    torch.Size([10, 216, 500])
    """
    return magnitudes.flatten(-3, -2)


def backbone_input(images: Tensor, *, size: int = 224) -> Tensor:
    """Images [M, R, C] as networks trained on ImageNet take them, [M, 3, size, size].

    Each image is stretched to 0..1 by its own extremes (a constant one becomes 0), resized bilinearly
    (antialiased where it shrinks), repeated in three channels and normalised with ImageNet's mean and
    standard deviation. Inception v3 takes 299 instead of 224. Made for each batch, because it is
    twenty-five times as large.

    >>> backbone_input(torch.rand(2, 120, 50)).shape
    torch.Size([2, 3, 224, 224])
    """
    if images.ndim != 3 or size < 1:
        raise InputError(
            f"backbone_input: takes images [M, rows, columns] and a positive size, got {list(images.shape)}"
        )
    low, high = images.amin((1, 2), keepdim=True), images.amax((1, 2), keepdim=True)
    unit = (images - low) / torch.where(high > low, high - low, 1)
    resized = F.interpolate(unit[:, None], (size, size), mode="bilinear", align_corners=False, antialias=True)
    mean = images.new_tensor(IMAGENET_MEAN).view(-1, 1, 1)
    std = images.new_tensor(IMAGENET_STD).view(-1, 1, 1)
    return (resized - mean) / std


def _pooled(images: Tensor, columns: int | None) -> Tensor:
    """The images [..., T] with means of T / columns samples for columns."""
    if columns is None:
        return images
    samples = images.shape[-1]
    if not 1 <= columns <= samples or samples % columns:
        raise InputError(
            f"Preparation: {samples} samples of a window do not divide into {columns} columns; "
            f"take a divisor of {samples}, or None for every sample"
        )
    return images.reshape(*images.shape[:-1], columns, samples // columns).mean(-1)
