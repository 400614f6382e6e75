"""Few kernels that all kernels of a layer are mixtures of: the basis, the mixtures, and how many to take.

Shapes: O outputs, I inputs of a group, *k the sides of a kernel, K their product, k basis kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from compressor.design.measures import EnergyRank, SpectralMeasure
from compressor.errors import InputError
from compressor.filters import kernel_matrix
from compressor.filters.quality import effective_shapes, variance_entropy

__all__ = ["BasisSize", "ByEnergy", "ByEntropy", "KernelBasis", "kernel_basis", "kernel_spectrum"]


@dataclass(frozen=True, eq=False)
class KernelBasis:
    """`kernels` [k, *k], orthonormal, and `mixing` [O, I, k]; w[o, i] ≈ Σ_j mixing[o, i, j] kernels[j].

    `energy_lost` is the share of Σ w² that the mixtures miss. Both are in float64 on the CPU.
    """

    kernels: Tensor
    mixing: Tensor
    energy_lost: float

    @property
    def weight(self) -> Tensor:
        """The mixtures as a weight [O, I, *k]."""
        mixed: Tensor = torch.tensordot(self.mixing, self.kernels, dims=1)
        return mixed


def kernel_basis(weight: Tensor, size: int) -> KernelBasis:
    """The `size` kernels whose mixtures come closest to all kernels of a weight [O, I, *k].

    The first right singular vectors of the kernel matrix [O·I, K], about zero and not about the mean, as a
    convolution has no kernel that is added for free. Exact where the matrix has no higher rank.

    *Source: C. Eckart, G. Young, 1936, "The approximation of one matrix by another of lower rank"; for
    convolutions M. Jaderberg, A. Vedaldi, A. Zisserman, 2014, arXiv 1405.3866, scheme 1 without separable
    basis kernels.*

    >>> weight = torch.randn(8, 4, 1, 1) * torch.randn(3, 3)
    >>> basis = kernel_basis(weight, 1)
    >>> basis.kernels.shape, basis.mixing.shape, torch.allclose(basis.weight, weight.double(), atol=1e-6)
    (torch.Size([1, 3, 3]), torch.Size([8, 4, 1]), True)
    """
    matrix = _wide(weight)
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= matrix.shape[1]:
        raise InputError(
            f"a basis of {size!r} kernels: 1 to {matrix.shape[1]} are expected for kernels of "
            f"{' x '.join(map(str, weight.shape[2:]))}"
        )
    # R of a QR has the same right singular vectors, and K rows only. Fewer kernels than places: R is short.
    _, directions = _right_singular(matrix)
    if len(directions) < size:
        beside = matrix.new_zeros(size - len(directions), matrix.shape[1])
        directions = torch.cat([directions, beside])
    basis = directions[:size]
    mixing = matrix @ basis.T
    total = float(matrix.square().sum())
    lost = float((matrix - mixing @ basis).square().sum()) / total if total else 0.0
    return KernelBasis(basis.reshape(size, *weight.shape[2:]), mixing.reshape(*weight.shape[:2], size), lost)


def kernel_spectrum(weight: Tensor) -> Tensor:
    """The squared singular values [min(O·I, K)] of the kernel matrix, about zero, descending; float64.

    >>> kernel_spectrum(torch.ones(2, 3, 2, 2)).round().tolist()
    [24.0, 0.0, 0.0, 0.0]
    """
    return _right_singular(_wide(weight))[0].square()


def _wide(weight: Tensor) -> Tensor:
    return kernel_matrix(weight).to(device="cpu", dtype=torch.float64)


def _right_singular(matrix_NK: Tensor) -> tuple[Tensor, Tensor]:
    reduced = torch.linalg.qr(matrix_NK, mode="r").R
    _, values, directions = torch.linalg.svd(reduced, full_matrices=False)
    return values, directions


class BasisSize(Protocol):
    """Any function from a weight [O, I, *k] to a number of basis kernels is a rule for their number."""

    def __call__(self, weight: Tensor, /) -> int:
        """The number of basis kernels, 1 to K."""


@dataclass(frozen=True)
class ByEntropy:
    """⌈10^H⌉ kernels, H the variance entropy: as many as there are shapes.

    *Source: H as in P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331.* As a rule for the size of a basis it is
    this library's: it promises nothing about what is lost. H is about the mean of the kernels and falls with
    the inequality of variances, so that small ones do not count, and there are many.

    >>> ByEntropy()(torch.eye(9).reshape(9, 1, 3, 3))
    8
    """

    def __call__(self, weight: Tensor, /) -> int:
        """The number for a weight [O, I, *k]."""
        shapes = effective_shapes(variance_entropy(kernel_matrix(weight)))
        # Rounding must not ask for a kernel more.
        return max(1, math.ceil(shapes - 1e-9))


@dataclass(frozen=True)
class ByEnergy:
    """The fewest kernels whose mixtures hold `fraction` of Σ w².

    >>> weight = torch.diag(torch.tensor([3.0, 1.0, 0.1, 0.1])).reshape(4, 1, 2, 2)
    >>> ByEnergy(0.95)(weight), ByEnergy(1.0)(weight)
    (2, 4)
    """

    fraction: float = 0.95
    _measure: SpectralMeasure = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_measure", EnergyRank(self.fraction))

    def __call__(self, weight: Tensor, /) -> int:
        """The number for a weight [O, I, *k]."""
        return max(1, round(self._measure(kernel_spectrum(weight))))
