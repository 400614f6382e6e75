"""Training samples of the clutter filter: windows of frames, flipped, begun at any frame, with clutter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from compressor.data.echo.clutter import ClutterRanges, add_clutter, draw_clutter
from compressor.data.echo.sector import sector_mask
from compressor.data.echo.sequences import Sequences
from compressor.errors import InputError

__all__ = ["CleanWindows", "PairedWindows", "Windowing", "windows"]


@dataclass(frozen=True, kw_only=True)
class Windowing:
    """How a training sample is cut from a sequence, at random.

    `frames` is the length of the window. With `rotate` as its probability the sequence is first turned
    round to begin at a random frame, its first frames following its last; this is all that the paper does,
    with whole sequences (`frames` = T, `flip=0`) and probability 0.5. `flip` is the probability of a
    left-right flip, an addition of ours.

    >>> Windowing(frames=50, flip=0.0)
    Windowing(frames=50, flip=0.0, rotate=0.5)
    """

    frames: int = 8
    flip: float = 0.5
    rotate: float = 0.5

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InputError(f"Windowing: frames must be at least 1, got {self.frames}")
        for name in ("flip", "rotate"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"Windowing: {name} is a probability, from 0 to 1, got {getattr(self, name)!r}"
                )

    def cut(self, *sequences: Tensor) -> tuple[Tensor, ...]:
        """The same window of each sequence [..., H, W, T], by torch's global random state."""
        total = sequences[0].shape[-1]
        if total < self.frames or any(one.shape[-1] != total for one in sequences):
            raise InputError(
                f"a window of {self.frames} frames cannot be cut from sequences of "
                f"{[one.shape[-1] for one in sequences]} frames; they must be equally long, and long enough"
            )
        draws = torch.rand(4)
        if draws[0] < self.rotate:
            shift = int(draws[1] * total)
            sequences = tuple(one.roll(-shift, -1) for one in sequences)
        start = int(draws[2] * (total - self.frames + 1))
        sequences = tuple(one[..., start : start + self.frames] for one in sequences)
        if draws[3] < self.flip:
            sequences = tuple(one.flip(-2) for one in sequences)
        return sequences


def windows(sequences: Sequences, frames: int, *, stride: int | None = None) -> Tensor:
    """All windows of `frames` frames, [N * windows, 1, H, W, frames], 0 to 1, a sequence's own together.

    They begin every `stride` frames (default: each where the last one ends); a rest shorter than a window
    is left out. Raises InputError for sequences that are shorter, naming them.

    >>> windows(Sequences(torch.zeros(2, 1, 4, 4, 10), ("a", "b"), ("", "")), 4).shape
    torch.Size([4, 1, 4, 4, 4])
    """
    _check_length(sequences, frames)
    step = frames if stride is None else stride
    if step < 1:
        raise InputError(f"windows: stride must be at least 1, got {stride}")
    return sequences.unit().unfold(4, frames, step).movedim(4, 1).flatten(0, 1)


class CleanWindows(Dataset[tuple[Tensor, Tensor]]):
    """Pairs (cluttered, clean) [1, H, W, frames] made of clean sequences, with new clutter each time.

    An epoch has `samples` of them, from each sequence equally often. Before the clutter is added, grey levels
    of the sector are raised to a power from the range `gamma`, drawn so that its logarithm is uniform:
    machines differ in brightness and dynamic range, and what clutter saturates on a dark one and a bright one
    is not alike. (1, 1) leaves them, as the paper does with its ninety sequences. Windows, powers and clutter
    come from torch's global random state, so that a training which restores it goes on to the same samples.
    Sectors are estimated from the sequences (`sector_mask`) unless `masks` [N, 1, H, W, 1] are given.

    >>> clean = Sequences(torch.full((2, 1, 16, 16, 10), 0.5), ("a", "b"), ("", ""))
    >>> samples = CleanWindows(clean, samples=6)
    >>> len(samples), samples[5][0].shape
    (6, torch.Size([1, 16, 16, 8]))
    """

    def __init__(
        self,
        clean: Sequences,
        *,
        samples: int,
        windowing: Windowing | None = None,
        clutter: ClutterRanges | None = None,
        gamma: tuple[float, float] = (0.25, 1.5),
        masks: Tensor | None = None,
    ) -> None:
        self.windowing = Windowing() if windowing is None else windowing
        self.clutter = ClutterRanges() if clutter is None else clutter
        if not 0 < gamma[0] <= gamma[1] < math.inf:
            raise InputError(f"CleanWindows: gamma must be (lowest, highest) above 0, got {gamma!r}")
        self.gamma = gamma
        _check_length(clean, self.windowing.frames)
        _check_samples(samples)
        self.clean, self.samples = clean.unit(), samples
        self.masks = sector_mask(self.clean) if masks is None else masks
        if self.masks.shape != (*self.clean.shape[:4], 1):
            raise InputError(
                f"CleanWindows: masks must be {[*self.clean.shape[:4], 1]}, got {list(self.masks.shape)}"
            )

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        place = _place(index, self.samples, len(self.clean))
        mask = self.masks[place].expand_as(self.clean[place])
        clean, inside = self.windowing.cut(self.clean[place], mask)
        low, high = map(math.log, self.gamma)
        power = math.exp(low + (high - low) * float(torch.rand(())))
        clean = clean.pow(power).where(inside, clean)  # noise of the dark surroundings stays dark
        drawn = draw_clutter(1, self.clutter, device=clean.device)
        return add_clutter(clean[None], drawn, inside[None, ..., :1])[0], clean


class PairedWindows(Dataset[tuple[Tensor, Tensor]]):
    """Pairs (cluttered, clean) [1, H, W, frames] of sequences that exist in both forms.

    Both are cut alike. An epoch has `samples` of them (default: one of each sequence). Raises InputError
    where the two do not match.

    >>> clean = Sequences(torch.zeros(2, 1, 16, 16, 10), ("a", "b"), ("", ""))
    >>> len(PairedWindows(clean, clean, windowing=Windowing(frames=10)))
    2
    """

    def __init__(
        self,
        cluttered: Sequences,
        clean: Sequences,
        *,
        samples: int | None = None,
        windowing: Windowing | None = None,
    ) -> None:
        self.windowing = Windowing() if windowing is None else windowing
        if cluttered.frames.shape != clean.frames.shape or cluttered.names != clean.names:
            raise InputError(f"PairedWindows: the pairs do not match: {cluttered!r} and {clean!r}")
        _check_length(clean, self.windowing.frames)
        self.samples = len(clean) if samples is None else samples
        _check_samples(self.samples)
        self.cluttered, self.clean = cluttered.unit(), clean.unit()

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        place = _place(index, self.samples, len(self.clean))
        cluttered, clean = self.windowing.cut(self.cluttered[place], self.clean[place])
        return cluttered, clean


def _place(index: int, samples: int, count: int) -> int:
    if not 0 <= index < samples:
        raise IndexError(f"sample {index} of {samples}")
    return index % count


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise InputError(f"an epoch needs at least one sample, got {samples}")


def _check_length(sequences: Sequences, frames: int) -> None:
    there = sequences.frames.shape[-1]
    if frames < 1:
        raise InputError(f"a window needs at least one frame, got {frames}")
    if frames > there:
        named = ", ".join(map(repr, sequences.names[:3])) + (", ..." if len(sequences) > 3 else "")
        raise InputError(
            f"sequences of {there} frames hold no window of {frames}: {named}; choose shorter windows"
        )
