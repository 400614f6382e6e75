"""The basis that kernel shapes are told in: principal axes of scaled kernels, or cosines."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from compressor.errors import FileError, InputError
from compressor.filters.bank import require_finite
from compressor.filters.cosines import dct_kernels
from compressor.filters.moments import Moments
from compressor.filters.quality.sparsity import check_kernels
from compressor.filters.scaling import scaled_kernels
from compressor.observing.precision import widened
from compressor.whole_files import drafted

__all__ = ["Basis"]

# Legend of shape suffixes: N kernels, K elements of a kernel and as many components.

_FORMAT = "compressor filter basis 1"


@dataclass(frozen=True, repr=False, eq=False)
class Basis:
    """A mean kernel μ, K orthonormal shapes, and the share of the variance along each: float64 on the CPU.

    The coefficients of a kernel f are c = V (f / max|f| − μ), V with a shape in each row (`components_KK`).
    Distances of distributions of coefficients (`drift`) weigh components by their shares, and depend on the
    basis: a ResNet-20 and random kernels lie 0.37 apart in the axes of both, 0.52 in the published ones,
    0.32 in cosines. So every such number names its basis by `identity`, a hash of its contents, and what
    belongs to different bases is refused.

    `count` kernels with a `total_variance` are what it was fitted to, 0 and None if to nothing.

    Raises InputError for components that are not orthonormal, shares that are not positive or do not add up
    to 1.

    *Source: P. Gavrikov, J. Keuper, 2022, arXiv 2203.15331 (PCA of scaled kernels, full rank).* Departure:
    the largest loading of each shape is positive, where the sign is left to chance there.

    >>> kernels = torch.randn(500, 9, generator=torch.manual_seed(0))
    >>> basis = Basis.of_kernels(kernels)
    >>> basis
    Basis(9 components of 500 kernels, first share 0.13, ...)
    >>> basis.coefficients(kernels).mean().abs() < 1e-9
    tensor(True)
    """

    mean_K: Tensor
    components_KK: Tensor
    shares_K: Tensor
    """The explained variance ratios: how much each component weighs in a drift."""
    _: KW_ONLY
    total_variance: float | None = None
    count: int = 0

    def __post_init__(self) -> None:
        for name in ("mean_K", "components_KK", "shares_K"):
            tensor = getattr(self, name).detach().to(device="cpu", dtype=torch.float64)
            object.__setattr__(self, name, tensor.clone(memory_format=torch.contiguous_format))
        width = len(self.mean_K)
        shapes = [tuple(part.shape) for part in (self.mean_K, self.components_KK, self.shares_K)]
        if not width or shapes != [(width,), (width, width), (width,)]:
            raise InputError(f"a basis is a mean [K], components [K, K] and shares [K], got {shapes}")
        _check(self)

    @classmethod
    def of_kernels(cls, kernels_NK: Tensor) -> Basis:
        """The principal axes of kernels [N, K], each divided by its largest absolute element first."""
        check_kernels(kernels_NK)
        return cls.of_moments(Moments.of(scaled_kernels(kernels_NK)))

    @classmethod
    def of_moments(cls, moments: Moments) -> Basis:
        """The same from the moments of *scaled* kernels, of a billion as well as of two."""
        if moments.count < 2:
            raise InputError(
                f"principal axes take two kernels or more, got {moments.count}; pool layers, or give a basis"
            )
        require_finite(moments.scatter_KK, "the scatter of the kernels")
        variances_K, axes_KK = torch.linalg.eigh(moments.covariance)
        variances_K = variances_K.flip(0).clamp(min=0)
        total = float(variances_K.sum())
        if not total > 0:
            raise InputError(
                f"{moments.count} kernels of one shape have no principal axes: their scaled variance is 0; "
                "pool layers, or give a basis"
            )
        components_KK = axes_KK.T.flip(0)
        largest_K1 = components_KK.abs().argmax(dim=1, keepdim=True)
        components_KK = components_KK * components_KK.gather(1, largest_K1).sign()
        return cls(
            moments.mean_K, components_KK, variances_K / total, total_variance=total, count=moments.count
        )

    @classmethod
    def cosines(cls, kernel_size: Sequence[int]) -> Basis:
        """The orthonormal cosines (DCT-II) over a kernel of any dimensions, the slowest first; μ = 0.

        A basis that takes no data, so that one pass over a data set suffices. Ours: numbers in it compare
        with no published one. All shares are 1/K; `with_shares_of` takes those of the data, once they are
        known.

        >>> Basis.cosines((1, 2)).components_KK
        tensor([[ 0.7071,  0.7071],
                [ 0.7071, -0.7071]], dtype=torch.float64)
        """
        sizes = tuple(kernel_size)
        if not sizes or min(sizes) < 1:
            raise InputError(f"a kernel size is one or more sizes of 1 and more, got {sizes}")
        width = math.prod(sizes)
        shares_K = torch.full((width,), 1 / width, dtype=torch.float64)
        return cls(torch.zeros(width), dct_kernels(sizes).flatten(1), shares_K)

    def with_shares_of(self, moments: Moments) -> Basis:
        """The same axes, with the shares of the variance along them of scaled kernels of these moments."""
        self.require_width(moments.width, "moments")
        along_K = (self.components_KK @ moments.covariance * self.components_KK).sum(dim=1).clamp(min=0)
        total = float(along_K.sum())
        if not total > 0:
            raise InputError(f"{moments.count} kernels of one shape have no variance to share: pool layers")
        return Basis(
            self.mean_K, self.components_KK, along_K / total, total_variance=total, count=moments.count
        )

    @property
    def width(self) -> int:
        """The number of elements of a kernel, K."""
        return len(self.mean_K)

    @property
    def explained_variance_K(self) -> Tensor | None:
        """The variance along each component [K], None where the basis was fitted to nothing."""
        return None if self.total_variance is None else self.shares_K * self.total_variance

    @cached_property
    def identity(self) -> str:
        """A hash of mean, components and shares: equal for equal numbers, on every machine."""
        return _hash(self.mean_K, self.components_KK, self.shares_K)

    @cached_property
    def axes(self) -> str:
        """A hash of mean and components alone: what coefficients depend on."""
        return _hash(self.mean_K, self.components_KK)

    @property
    def reach(self) -> float:
        """What no coefficient of a scaled kernel exceeds: √K + ‖μ‖."""
        return math.sqrt(self.width) + float(self.mean_K.norm())

    def coefficients(self, kernels_NK: Tensor) -> Tensor:
        """The coefficients [N, K] of kernels [N, K], scaled first, in float64 where there is one."""
        self.require_width(kernels_NK.shape[-1], "kernels")
        scaled_NK = widened(scaled_kernels(kernels_NK))
        mean_K, components_KK = (part.to(scaled_NK) for part in (self.mean_K, self.components_KK))
        return (scaled_NK - mean_K) @ components_KK.T

    def require_width(self, width: int, named: str) -> None:
        """Nothing where `width` is K; raises InputError for others."""
        if width != self.width:
            raise InputError(
                f"{named} of {width} elements do not fit basis {self.identity}, which is of kernels of "
                f"{self.width}: choose kernels of one size, or a basis of theirs"
            )

    def __repr__(self) -> str:
        fitted = f"of {self.count:,} kernels" if self.count else "fitted to nothing"
        first = float(self.shares_K[0])
        return f"Basis({self.width} components {fitted}, first share {first:.2f}, {self.identity})"

    def to_plain(self) -> dict[str, object]:
        """Lists and numbers, for JSON; `from_plain` gives the same basis to the bit.

        >>> Basis.from_plain(Basis.cosines((3, 3)).to_plain()).identity == Basis.cosines((3, 3)).identity
        True
        """
        tensors = {name: getattr(self, name).tolist() for name in ("mean_K", "components_KK", "shares_K")}
        return {**tensors, "total_variance": self.total_variance, "count": self.count}

    @classmethod
    def from_plain(cls, plain: dict[str, object]) -> Basis:
        """The basis of `to_plain`; InputError where something is missing or of another kind."""
        try:
            mean_K, components_KK, shares_K = (
                torch.tensor(plain[name], dtype=torch.float64)
                for name in ("mean_K", "components_KK", "shares_K")
            )
            total, count = plain.get("total_variance"), plain.get("count", 0)
            if not isinstance(count, int) or not isinstance(total, float | None):
                raise TypeError(f"count {count!r}, total_variance {total!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"this is no basis: {error!r}; expected mean_K, components_KK and shares_K as lists"
            ) from error
        return cls(mean_K, components_KK, shares_K, total_variance=total, count=count)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file: as a whole or not at all; a file of that name is replaced."""
        path = Path(path)
        tensors = {"mean": self.mean_K, "components": self.components_KK, "shares": self.shares_K}
        total = "" if self.total_variance is None else repr(self.total_variance)
        said = {"format": _FORMAT, "identity": self.identity, "count": str(self.count), "total": total}
        with drafted(path, what=f"the basis {path}") as draft:
            draft.write_bytes(safetensors.torch.save(tensors, metadata=said))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Basis:
        """The basis of a file; FileError where it is missing, cut short, of another kind or changed."""
        path = Path(path)
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                said = file.metadata() or {}
                if said.get("format") != _FORMAT:
                    raise FileError(
                        f"{path}: no basis, or one of another version: its format is {said.get('format')!r}, "
                        f"expected {_FORMAT!r}"
                    )
                mean_K, components_KK, shares_K = map(file.get_tensor, ("mean", "components", "shares"))
            total = float(said["total"]) if said["total"] else None
            basis = cls(mean_K, components_KK, shares_K, total_variance=total, count=int(said["count"]))
        except (OSError, safetensors.SafetensorError, KeyError, ValueError, InputError) as error:
            raise FileError(f"{path}: no basis could be read: {error}; save it again") from error
        if basis.identity != said["identity"]:
            raise FileError(
                f"{path}: its numbers are those of basis {basis.identity}, it says {said['identity']}: the "
                "file was changed; save it again"
            )
        return basis


def _check(basis: Basis) -> None:
    square_KK = basis.components_KK @ basis.components_KK.T
    off = float((square_KK - torch.eye(basis.width, dtype=torch.float64)).abs().max())
    if not off <= 1e-5:  # so written that NaN fails
        raise InputError(
            f"the components of a basis are orthonormal rows; here V V^T is off the identity by {off:.2g}"
        )
    total = float(basis.shares_K.sum())
    if not (abs(total - 1) <= 1e-5 and bool((basis.shares_K >= 0).all())):
        raise InputError(
            f"the shares of a basis are 0 or more and add up to 1, got {basis.shares_K.tolist()}: {total:g}"
        )
    if not bool(basis.mean_K.isfinite().all()) or basis.count < 0:
        raise InputError(
            "the mean of a basis is finite and its count 0 or more, got "
            f"{basis.mean_K.tolist()} and {basis.count}"
        )


def _hash(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().astype("<f8").tobytes())
    return digest.hexdigest()[:12]
