"""Means and variances that grow with the data: mergeable, in float64, never with the data in memory.

`Moments` of parts merge into those of the whole, in any order. Values are reduced in float32 (float64
where they are float64) after a shift, so that a mean far from zero costs no digits, and everything
after the reduction is float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from compressor.observing.precision import widened

__all__ = ["Moments", "Scratch", "balanced_moments", "moments_of", "moments_of_classes"]


@dataclass(frozen=True, eq=False)
class Moments:
    """How many values, their mean, and `m2`, the sum of their squared distances from it; float64.

    `mean` and `m2` have one shape, one entry for each quantity; every entry has seen `count` values.

    *Source: T. F. Chan, G. H. Golub, R. J. LeVeque, 1979, "Updating formulae and a pairwise algorithm
    for computing sample variances", Stanford STAN-CS-79-773, equations 2.1.*

    >>> a, b = moments_of(torch.tensor([1.0, 2.0]), (0,)), moments_of(torch.tensor([6.0]), (0,))
    >>> a.merged(b).mean, a.merged(b).variance
    (tensor(3., dtype=torch.float64), tensor(4.6667, dtype=torch.float64))
    """

    count: int
    mean: Tensor
    m2: Tensor

    @property
    def variance(self) -> Tensor:
        """The population variance (divided by n, as the paper has it)."""
        return self.m2 / self.count

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of values."""
        own = Moments(self.count, self.mean.clone(), self.m2.clone())
        return own.merge_(other)

    def merge_(self, other: Moments) -> Moments:
        """The same, in the memory of these moments, which are no longer to be used."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean.add_(delta, alpha=other.count / count)
        m2 = self.m2.add_(other.m2).addcmul_(delta, delta, value=self.count * (other.count / count))
        return Moments(count, mean, m2)

    def pooled(self, dims: Sequence[int]) -> Moments:
        """The moments over the entries along `dims` as well; at least one entry."""
        if not dims:
            return self
        entries = math.prod(self.mean.shape[dim] for dim in dims)
        mean = self.mean.mean(dim=tuple(dims), keepdim=True)
        between = (self.mean - mean).square_().sum(dim=tuple(dims))
        m2 = self.m2.sum(dim=tuple(dims)) + self.count * between
        return Moments(self.count * entries, mean.reshape(between.shape), m2)


def moments_of(values: Tensor, dims: Sequence[int], scratch: Scratch | None = None) -> Moments:
    """The moments over `dims` of real values, one entry for each position along the other axes.

    Values are shifted by the first and by their mean, so that what is constant has variance zero, exactly.
    `scratch` keeps the memory of shifted values from one call to the next.

    >>> moments_of(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), (0,)).variance
    tensor([1., 0.], dtype=torch.float64)
    """
    return _moments(values, dims, None, scratch or Scratch())[0]


def moments_of_classes(
    values: Tensor, labels_N: Tensor, dims: Sequence[int], scratch: Scratch | None = None
) -> dict[int, Moments]:
    """The same of the samples of each class, which lie along dimension 0; it must be one of `dims`.

    >>> found = moments_of_classes(torch.tensor([1.0, 8.0, 3.0]), torch.tensor([5, 0, 5]), (0,))
    >>> found[5].mean, found[0].mean
    (tensor(2., dtype=torch.float64), tensor(8., dtype=torch.float64))
    """
    classes, counts = labels_N.unique(return_counts=True)
    by_class = labels_N.argsort(stable=True), counts.tolist()
    return dict(zip(classes.tolist(), _moments(values, dims, by_class, scratch or Scratch()), strict=True))


# Values are read several times, so they are taken in pieces that stay in a processor's cache.
_PIECE = 2**20


def _moments(
    values: Tensor, dims: Sequence[int], by_class: tuple[Tensor, list[int]] | None, scratch: Scratch
) -> list[Moments]:
    """The moments of all samples, or with an order of them and the sizes of its parts those of each part."""
    reduced = {dim % values.ndim for dim in dims}
    # Reductions that follow memory are several times faster, so channels-last is read as it lies.
    strides = values.stride()
    order = sorted(range(values.ndim), key=lambda dim: -strides[dim])
    inward = tuple(place for place, dim in enumerate(order) if dim in reduced)
    samples = order.index(0)
    left = [dim for dim in order if dim not in reduced]
    back = [left.index(dim) for dim in sorted(left)]
    values = values.permute(order)
    if by_class is None:
        found = [_of_pieces(values, inward, scratch)]
    else:
        shifted = torch.index_select(_real(values), samples, by_class[0], out=scratch.like(values))
        first = _first(values, inward)
        found = [_of_shifted(part, first, inward) for part in shifted.sub_(first).split(by_class[1], samples)]
    return [
        Moments(part.count, *(tensor.squeeze(inward).permute(back) for tensor in (part.mean, part.m2)))
        for part in found
    ]


def _of_pieces(values: Tensor, inward: tuple[int, ...], scratch: Scratch) -> Moments:
    """The moments over the dimensions `inward`, which stay with size 1."""
    staying = [place for place in range(values.ndim) if place not in inward and values.shape[place] > 1]
    few = 64 * math.prod(values.shape[place] for place in staying) <= _PIECE  # cheap to merge
    place = inward[0] if few else staying[0]
    width = max(1, _PIECE * values.shape[place] // max(values.numel(), 1))
    parts = []
    for piece in values.split(width, place) if values.device.type == "cpu" else (values,):
        first = _first(piece, inward)
        shifted = torch.sub(_real(piece), first, out=scratch.like(piece))
        parts.append(_of_shifted(shifted, first, inward))
    if len(parts) > 1 and not few:
        means, m2s = [part.mean for part in parts], [part.m2 for part in parts]
        return Moments(parts[0].count, torch.cat(means, place), torch.cat(m2s, place))
    return reduce(Moments.merge_, parts)


def _of_shifted(shifted: Tensor, first: Tensor, inward: tuple[int, ...]) -> Moments:
    """The moments of values that were shifted by `first`; their memory is used."""
    count = shifted.numel() // first.numel()
    offset = shifted.sum(dim=inward, keepdim=True).div_(count)
    m2 = widened(shifted.sub_(offset).square_().sum(dim=inward, keepdim=True))
    return Moments(count, widened(offset).add_(first), m2)


def _first(values: Tensor, inward: tuple[int, ...]) -> Tensor:
    for place in inward:
        values = values.narrow(place, 0, 1)
    return _real(values)


def _real(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.to(torch.float32)


class Scratch:
    """Memory that is used again: fresh memory costs more time than the arithmetic on it."""

    def __init__(self) -> None:
        self._memory: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, values: Tensor) -> Tensor:
        """Memory of the shape of `values`, float64 for float64 and else float32, with anything in it."""
        key = values.device, torch.float64 if values.dtype == torch.float64 else torch.float32
        if key not in self._memory or self._memory[key].numel() < values.numel():
            self._memory[key] = torch.empty(values.numel(), device=values.device, dtype=key[1])
        return self._memory[key][: values.numel()].view(values.shape)


def balanced_moments(classes: Sequence[Moments]) -> Moments:
    """The moments in which every class weighs the same, however many samples it has.

    mu = mean_c mu_c and var = mean_c(var_c + (mu_c - mu)²): those of a data set in which each class is
    repeated until all are equally large. The count is that of all samples.

    >>> many, few = moments_of(torch.zeros(98), (0,)), moments_of(torch.ones(2), (0,))
    >>> balanced_moments([many, few]).variance, many.merged(few).variance
    (tensor(0.2500, dtype=torch.float64), tensor(0.0196, dtype=torch.float64))
    """
    count = sum(part.count for part in classes)
    mean = torch.stack([part.mean for part in classes]).mean(0)
    variances = [part.variance + (part.mean - mean).square() for part in classes]
    return Moments(count, mean, torch.stack(variances).mean(0) * count)
