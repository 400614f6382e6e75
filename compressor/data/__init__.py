"""Data sets as tensors in memory, for the examples, tests and benchmarks of this library."""

from __future__ import annotations

from compressor.data.cifar import IMAGENET_MEAN, IMAGENET_STD, load_cifar10_npz, normalize
from compressor.data.ham10000 import load_ham10000_npz
from compressor.data.labelled import Labelled, Partition, Split
from compressor.data.mixture import GaussianMixture
from compressor.data.orl_faces import load_orl_faces_npz
from compressor.data.pneumonia import load_pneumoniamnist_npz

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "GaussianMixture",
    "Labelled",
    "Partition",
    "Split",
    "load_cifar10_npz",
    "load_ham10000_npz",
    "load_orl_faces_npz",
    "load_pneumoniamnist_npz",
    "normalize",
]
