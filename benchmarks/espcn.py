"""ESPCN, super-resolution by three convolutions at low resolution and a pixel shuffle.

Source: Shi, Caballero, Huszár, Totz, Aitken, Bishop, Rueckert, Wang 2016, arXiv 1609.05158, section 3:
filters of 5x5, 3x3 and 3x3 with 64, 32 and r² channels, tanh between them; borders are padded with zeros.
"""

from __future__ import annotations

from torch import nn

__all__ = ["espcn"]


def espcn(scale: int = 3) -> nn.Sequential:
    """One luminance channel [n, 1, h, w] -> [n, 1, scale * h, scale * w].

    >>> sum(p.numel() for p in espcn(3).parameters())  # as in the paper
    22729
    """
    return nn.Sequential(
        nn.Conv2d(1, 64, 5, padding=2),
        nn.Tanh(),
        nn.Conv2d(64, 32, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(32, scale**2, 3, padding=1),
        nn.PixelShuffle(scale),
    )
