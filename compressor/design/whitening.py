"""Windows of a layer's inputs with contrast normalised, and the linear map that whitens them.

Shapes: M windows, K numbers of each (channels times taps).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters import Moments

__all__ = ["Whitening", "contrast_normalised"]


def contrast_normalised(windows_MK: Tensor, *, floor: float) -> Tensor:
    """The windows [M, K], each less its own mean and divided by √(its variance + `floor`).

    *Source: A. Coates, A. Ng, 2012, Learning feature representations with k-means, pre-processing*, where the
    floor is 10 for pixels from 0 to 255.

    >>> contrast_normalised(torch.tensor([[1.0, 3.0], [5.0, 5.0]]), floor=1.0)
    tensor([[-0.7071,  0.7071],
            [ 0.0000,  0.0000]])
    """
    centred = windows_MK - windows_MK.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + floor).sqrt()


@dataclass(frozen=True, eq=False)
class Whitening:
    """x ↦ V (Λ + ε λ)^(-1/2) Vᵀ (x - mean): ZCA whitening, `matrix_KK` symmetric.

    V and Λ are the principal axes and variances of the windows, λ the mean variance, ε a share of it that
    keeps directions without variance from being blown up.

    *Source: Coates and Ng, 2012, pre-processing*, where ε = 0.1 of contrast-normalised windows, whose
    mean variance is about 1.
    """

    mean_K: Tensor
    matrix_KK: Tensor

    @classmethod
    def of(cls, windows_MK: Tensor, *, epsilon: float) -> Whitening:
        """That of these windows [M, K]; InputError where they are all alike.

        >>> x = torch.randn(4096, 2) @ torch.tensor([[3.0, 1.0], [0.0, 0.5]])
        >>> white = Whitening.of(x, epsilon=1e-9)(x)
        >>> torch.allclose(white.T @ white / 4095, torch.eye(2), atol=1e-4)
        True
        """
        moments = Moments.of(windows_MK)
        variances, axes = torch.linalg.eigh(moments.covariance)
        mean = float(variances.mean())
        if not mean > 0:
            raise InputError(
                f"the {len(windows_MK)} windows are all alike, so there is nothing to learn filters from; "
                "look for constant inputs"
            )
        scaled = axes * (variances.clamp(min=0) + epsilon * mean).rsqrt()
        return cls(moments.mean_K.to(windows_MK), (scaled @ axes.T).to(windows_MK))

    def __call__(self, windows_MK: Tensor) -> Tensor:
        """The windows [M, K], whitened."""
        return (windows_MK - self.mean_K) @ self.matrix_KK
