"""How well image sequences are restored: error in grey levels, PSNR, and whether it flickers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.evaluation.fidelity import mae, psnr_of_each

__all__ = ["SequenceQuality", "sequence_quality", "temporal_coherence"]


@dataclass(frozen=True)
class SequenceQuality:
    """The scores of sequences: means over them, each over all its pixels, the background included.

    `mae` is in grey levels of 255, `psnr_db` in dB, `coherence` as `temporal_coherence`, lower is better.

    >>> print(SequenceQuality(4.69, 21.752, 511.5))
    MAE 4.69, PSNR 21.75 dB, coherence 512
    """

    mae: float
    psnr_db: float
    coherence: float

    def __str__(self) -> str:
        return f"MAE {self.mae:.2f}, PSNR {self.psnr_db:.2f} dB, coherence {self.coherence:.0f}"


def temporal_coherence(outputs: Tensor, clean: Tensor) -> Tensor:
    """How much the total error of neighbouring frames differs, float64 [N]; 0 where it never changes.

    Of sequences [N, 1, H, W, T] from 0 to 1: S_t is the sum over pixels of |outputs - clean| in grey levels
    of 255, and the score the mean over t of |S_t - S_{t+1}|, the last frame not followed by the first. It
    grows with the number of pixels, so scores compare at one size only.

    *Source: M. Tabassian et al., 2024, arXiv 2401.13147, and their code.*

    >>> clean = torch.zeros(1, 1, 2, 2, 3)
    >>> outputs = torch.tensor([0.0, 1.0, 1.0]).expand(1, 1, 2, 2, 3)  # S is 0, 1020, 1020
    >>> temporal_coherence(outputs, clean)
    tensor([510.], dtype=torch.float64)
    """
    _check(outputs, clean)
    if outputs.shape[-1] < 2:
        raise InputError(f"temporal_coherence: two frames are needed, got {outputs.shape[-1]}")
    sums_NT = 255 * (outputs.double() - clean.double()).abs().sum(dim=(1, 2, 3))
    return sums_NT.diff(dim=1).abs().mean(1)


def sequence_quality(outputs: Tensor, clean: Tensor, *, clip: bool = True) -> SequenceQuality:
    """The scores of `outputs` against `clean`, both [N, 1, H, W, T] from 0 to 1.

    With `clip` outputs are brought to 0..1 first, as images are when they are shown; the source's code does
    not (`clip=False`). Raises InputError for other layouts, targets out of range, and values that are not
    finite.

    >>> clean = torch.zeros(1, 1, 2, 2, 3)
    >>> print(sequence_quality(clean + 0.1, clean))
    MAE 25.50, PSNR 20.00 dB, coherence 0
    """
    _check(outputs, clean)
    shown = outputs.clamp(0, 1) if clip else outputs
    return SequenceQuality(
        mae=255 * mae(shown, clean),
        psnr_db=float(psnr_of_each(shown, clean).mean()),
        coherence=float(temporal_coherence(shown, clean).mean()),
    )


def _check(outputs: Tensor, clean: Tensor) -> None:
    if outputs.shape != clean.shape or outputs.dim() != 5 or outputs.shape[1] != 1:
        raise InputError(
            f"sequences must be two tensors [N, 1, H, W, T], got {list(outputs.shape)} and "
            f"{list(clean.shape)}"
        )
    for what, values in (("outputs", outputs), ("clean", clean)):
        if not values.is_floating_point():
            raise InputError(f"{what} must be floating-point from 0 to 1, got {values.dtype}")
        if not bool(torch.isfinite(values).all()):  # clipping would hide an infinity
            raise InputError(f"{what} hold values that are not finite (NaN or infinity)")
    low, high = float(clean.min()), float(clean.max())
    if low < 0 or high > 1:
        raise InputError(
            f"clean sequences must lie in 0..1, got {low:.4g}..{high:.4g}; divide grey levels by 255"
        )
