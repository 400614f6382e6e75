"""Filters as centres of clusters of what a layer reads: k-means, and its convolutional form."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from compressor.design.layer import Part
from compressor.design.learnt import Learnt
from compressor.design.whitening import Whitening, contrast_normalised
from compressor.errors import InputError
from compressor.extras import imported

__all__ = ["ConvKMeans", "KMeans", "best_matches"]

# Of the mean variance of windows: about what 10 is for pixels from 0 to 255.
_FLOOR = 0.01
# So many numbers of normalised windows are held at once.
_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class KMeans(Learnt):
    """The centres of k-means on contrast-normalised, whitened windows of what a layer reads.

    A centre c of whitened windows becomes the filter W c, less its mean, as c · W(x - mean of x) is what it
    would answer; the division by contrast is no linear map and left out. Each has norm `gain`.
    `epsilon` is that of `Whitening`. Needs scikit-learn (`compressor[design]`).

    *Source: A. Coates, A. Ng, 2012, Learning feature representations with k-means.*
    Departures: scikit-learn's Euclidean k-means from k-means++, where theirs compares by dot products with
    centres of norm 1; the floor of the variance is 1 % of the mean one.

    Raises InputError for fewer (distinct) windows than filters, and where they are all constant.

    >>> from compressor.design import initialise_
    >>> conv = torch.nn.Conv2d(3, 8, 5)
    >>> initialise_(conv, KMeans([torch.rand(64, 3, 16, 16)]))
    (Redrawn(layer='Conv2d', filters=(0, 1, 2, 3, 4, 5, 6, 7), of=8),)
    """

    _: KW_ONLY
    epsilon: float = 0.1

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The centres, taken back to what the layer reads."""
        windows = self.read(part, generator).flatten(1)
        normal = contrast_normalised(windows, floor=_floor(part, windows))
        whitening = Whitening.of(normal, epsilon=self.epsilon)
        white = whitening(normal).cpu().double().numpy()
        cluster = imported("sklearn.cluster", extra="design", package="scikit-learn", needed_for="KMeans")
        seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of clusters that are alike: an error here
            found = cluster.KMeans(part.count, n_init=1, random_state=seed).fit(white)
        distinct = len(np.unique(found.labels_))
        if distinct < part.count:
            raise InputError(
                f"KMeans: {part.layer.name} reads only {distinct} distinct windows for {part.count} filters; "
                "give other data, or draw with Orthogonal()"
            )
        return self.filters(part, _taken_back(whitening, torch.from_numpy(found.cluster_centers_)))


@dataclass(frozen=True)
class ConvKMeans(Learnt):
    """Convolutional k-means: of each window, twice as long as a kernel, the patch that matches best counts.

    In each of `iterations` every window finds the centre and the place with the largest dot product; a centre
    becomes the sum of its patches and itself, of norm 1. So centres do not spend themselves on shifted
    copies of one pattern. Patches are contrast-normalised and whitened as for `KMeans`, centres start from
    normal noise and become filters in the same way.

    *Source: A. Dundar, J. Jin, E. Culurciello, 2015, arXiv 1511.06241 (windows twice the filter); the update
    is that of Coates and Ng, 2012, D := X Sᵀ + D.* Departures: the whitening is that
    of patches, not of whole images; connections between layers are not learnt.

    Raises InputError for fewer windows than filters, where they are all constant, and for a layer without
    places (a matrix, or 1 x 1 kernels), where it would be k-means.

    >>> from compressor.design import initialise_
    >>> conv = torch.nn.Conv2d(3, 8, 5)
    >>> _ = initialise_(conv, ConvKMeans([torch.rand(64, 3, 16, 16)], windows=500, iterations=3))
    """

    _: KW_ONLY
    epsilon: float = 0.1
    windows: int = 2_000
    per_example: int = 4
    iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise InputError(f"ConvKMeans: iterations must be at least 1, got {self.iterations!r}")

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The centres, taken back to what the layer reads."""
        if max(part.kernel_size, default=1) == 1:
            raise InputError(
                f"ConvKMeans: {part.layer.name} has kernels of one position, so there is no best place in a "
                "window; draw with KMeans()"
            )
        wide = self.read(part, generator, times=2)
        patches = [_patches(some, part.kernel_size) for some in wide.split(_portion(wide, part))]
        first = torch.cat([some[:, 0] for some in patches])
        floor = _floor(part, first)
        whitening = Whitening.of(contrast_normalised(first, floor=floor), epsilon=self.epsilon)
        centres = functional.normalize(first.new_empty(part.count, part.size).normal_(generator=generator))
        for _ in range(self.iterations):
            total = centres.clone()
            for some in patches:
                white = whitening(contrast_normalised(some.flatten(0, 1), floor=floor)).view_as(some)
                which, best = best_matches(white, centres)
                total.index_add_(0, which, best)
            centres = functional.normalize(total)
        return self.filters(part, _taken_back(whitening, centres))


def best_matches(patches_MSK: Tensor, centres_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Of each window [M] the centre, and of its S patches the one [M, K], that agree best (dot product).

    >>> which, best = best_matches(torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.eye(2))
    >>> which, best
    (tensor([1]), tensor([[0., 2.]]))
    """
    match = (patches_MSK @ centres_NK.T).flatten(1).argmax(dim=1)
    place, which = match // len(centres_NK), match % len(centres_NK)
    return which, patches_MSK[torch.arange(len(match), device=match.device), place]


def _patches(windows: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Every patch of the kernel's size in windows [M, I, *w]: [M, S, I * k], a view where it can be."""
    for dim, size in enumerate(kernel):
        windows = windows.unfold(2 + dim, size, 1)  # the taps go to the end
    places = range(2, 2 + len(kernel))
    windows = windows.permute(0, *places, 1, *range(2 + len(kernel), windows.dim()))
    return windows.flatten(1 + len(kernel)).flatten(1, len(kernel))


def _portion(wide: Tensor, part: Part) -> int:
    """How many windows' patches are normalised at once."""
    places = 1
    for size in part.kernel_size:
        places *= size + 1
    return max(1, _AT_ONCE // (places * part.size))


def _floor(part: Part, windows: Tensor) -> float:
    """What is added to variances of windows; raises InputError where there are too few, or all are flat."""
    if len(windows) < part.count:
        raise InputError(
            f"{part.layer.name}: {len(windows)} windows for {part.count} filters, expected at least as "
            "many; give more examples, or more windows of each (per_example)"
        )
    variance = float(windows.var(dim=1, correction=0).mean())
    if not variance > 0:
        raise InputError(
            f"{part.layer.name}: every window that it reads is constant in itself, so there is nothing to "
            "learn filters from; look at the data, or draw with He()"
        )
    return _FLOOR * variance


def _taken_back(whitening: Whitening, centres_NK: Tensor) -> Tensor:
    """Filters that answer raw windows as the centres answer whitened ones, up to a constant."""
    rows = centres_NK.to(whitening.matrix_KK) @ whitening.matrix_KK
    return rows - rows.mean(dim=1, keepdim=True)
