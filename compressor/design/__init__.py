"""Choosing the filters of a network: how many, how large, and what they start from."""

from compressor.design.channel_mixes import ChannelMixes, cosines, each, equal
from compressor.design.clusters import ConvKMeans, KMeans
from compressor.design.conditions import Condition, Copies, Dead, Judged, Where, degenerate
from compressor.design.dct import DCT, dct_kernels
from compressor.design.gabor import Gabor, gabor_kernel
from compressor.design.initialise import initialise_
from compressor.design.initialiser import Initialiser
from compressor.design.kernel_basis import (
    BasisSize,
    ByEnergy,
    ByEntropy,
    KernelBasis,
    kernel_basis,
    kernel_spectrum,
)
from compressor.design.kernel_changes import KernelChange, SharedBasis, SmallerKernel
from compressor.design.kernel_rewriting import output_error, rewrite_kernels
from compressor.design.kernels import KernelProposal, LayerKernels, suggest_kernels
from compressor.design.layer import Layer, Part
from compressor.design.lsuv import LSUV
from compressor.design.measures import (
    EnergyRank,
    EntropyRank,
    ParticipationRatio,
    SpectralMeasure,
    StableRank,
)
from compressor.design.noise import Glorot, He, LeCun
from compressor.design.orthogonal import Orthogonal, ResidualOrthogonal
from compressor.design.principal import PCA, ZCA
from compressor.design.ranks import GroupRank, SpectralRanks, WriterRank
from compressor.design.redrawn import Redrawn
from compressor.design.reference import GaussianKernels, HistogramKernels, SampledKernels, unit_kernels
from compressor.design.reinitialise import Reinitialised, reinitialise, reinitialise_
from compressor.design.rings import energy_outside
from compressor.design.spectra import ActivationSpectra, FilterSpectra, Spectra, WriterSpectrum
from compressor.design.spectral_widths import SpectralWidths
from compressor.design.widths import LayerWidth, WidthProposal, suggest_widths

__all__ = [
    "DCT",
    "LSUV",
    "PCA",
    "ZCA",
    "ActivationSpectra",
    "BasisSize",
    "ByEnergy",
    "ByEntropy",
    "ChannelMixes",
    "Condition",
    "ConvKMeans",
    "Copies",
    "Dead",
    "EnergyRank",
    "EntropyRank",
    "FilterSpectra",
    "Gabor",
    "GaussianKernels",
    "Glorot",
    "GroupRank",
    "He",
    "HistogramKernels",
    "Initialiser",
    "Judged",
    "KMeans",
    "KernelBasis",
    "KernelChange",
    "KernelProposal",
    "Layer",
    "LayerKernels",
    "LayerWidth",
    "LeCun",
    "Orthogonal",
    "Part",
    "ParticipationRatio",
    "Redrawn",
    "Reinitialised",
    "ResidualOrthogonal",
    "SampledKernels",
    "SharedBasis",
    "SmallerKernel",
    "Spectra",
    "SpectralMeasure",
    "SpectralRanks",
    "SpectralWidths",
    "StableRank",
    "Where",
    "WidthProposal",
    "WriterRank",
    "WriterSpectrum",
    "cosines",
    "dct_kernels",
    "degenerate",
    "each",
    "energy_outside",
    "equal",
    "gabor_kernel",
    "initialise_",
    "kernel_basis",
    "kernel_spectrum",
    "output_error",
    "reinitialise",
    "reinitialise_",
    "rewrite_kernels",
    "suggest_kernels",
    "suggest_widths",
    "unit_kernels",
]
