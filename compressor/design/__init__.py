"""Choosing the filters of a network: how many, how large, and what they start from."""

from compressor.design.channel_mixes import ChannelMixes, cosines, each, equal
from compressor.design.clusters import ConvKMeans, KMeans
from compressor.design.dct import DCT, dct_kernels
from compressor.design.gabor import Gabor, gabor_kernel
from compressor.design.initialise import initialise_
from compressor.design.initialiser import Initialiser
from compressor.design.layer import Layer, Part
from compressor.design.lsuv import LSUV
from compressor.design.measures import EnergyRank, ParticipationRatio, SpectralMeasure, StableRank
from compressor.design.noise import Glorot, He, LeCun
from compressor.design.orthogonal import Orthogonal, ResidualOrthogonal
from compressor.design.principal import PCA, ZCA
from compressor.design.ranks import GroupRank, SpectralRanks, WriterRank
from compressor.design.redrawn import Redrawn
from compressor.design.reference import GaussianKernels, SampledKernels, unit_kernels
from compressor.design.spectra import ActivationSpectra, FilterSpectra, Spectra, WriterSpectrum
from compressor.design.spectral_widths import SpectralWidths
from compressor.design.widths import LayerWidth, WidthProposal, suggest_widths

__all__ = [
    "DCT",
    "LSUV",
    "PCA",
    "ZCA",
    "ActivationSpectra",
    "ChannelMixes",
    "ConvKMeans",
    "EnergyRank",
    "FilterSpectra",
    "Gabor",
    "GaussianKernels",
    "Glorot",
    "GroupRank",
    "He",
    "Initialiser",
    "KMeans",
    "Layer",
    "LayerWidth",
    "LeCun",
    "Orthogonal",
    "Part",
    "ParticipationRatio",
    "Redrawn",
    "ResidualOrthogonal",
    "SampledKernels",
    "Spectra",
    "SpectralMeasure",
    "SpectralRanks",
    "SpectralWidths",
    "StableRank",
    "WidthProposal",
    "WriterRank",
    "WriterSpectrum",
    "cosines",
    "dct_kernels",
    "each",
    "equal",
    "gabor_kernel",
    "initialise_",
    "suggest_widths",
    "unit_kernels",
]
