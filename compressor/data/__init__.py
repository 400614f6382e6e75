"""Data sets as tensors in memory, for the examples, tests and benchmarks of this library."""

from __future__ import annotations

from compressor.data.cifar import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Labelled,
    Split,
    load_cifar10_npz,
    normalize,
)

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Labelled", "Split", "load_cifar10_npz", "normalize"]
